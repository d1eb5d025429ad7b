"""dropout_demo: three dropouts that are one, drawn digits, MNIST's file, a kill, own pictures."""

import inspect
import json
import signal
import struct
import subprocess
import sys
import zlib
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import calibration_error_by_a_loop, write_mnist
from keras import layers, ops
from PIL import Image

import common.data
from data import glyphs, mnist
from data.mnist import read_picture
from dropout_demo import predict, train

ROOT = Path(__file__).resolve().parents[2]
LEGAL = {(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 5), (1, 4, 1), (3, 1, 1), (1, 1, 1)}
SMOKE = ["--smoke", "--variants", "0", "0.5:batch,word,1", "--seed", "3"]


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory):
    """One small training through the front door, shared by the tests that need a run."""
    run_dir = tmp_path_factory.mktemp("smoke") / "run"
    return run_dir, train.main([*SMOKE, "--run-dir", str(run_dir)])


@pytest.fixture
def ones():
    return np.ones((400, 500), "float32")


def layer_output(x, rate, noise_shape=None, training=True, seed=0):
    layer = layers.Dropout(rate, noise_shape=noise_shape, seed=seed)
    return ops.convert_to_numpy(layer(x, training=training))


# --- Three dropouts are one ---
def test_the_posts_example_in_numbers():
    """A rate of 0.6 drops 60%: 40% are kept and multiplied by 2.5."""
    mask = np.array([True, False, False, True, False])
    out = train.dropout(np.array([1.0, 2, 3, 4, 5]), 0.6, mask=mask)
    np.testing.assert_allclose(out, [2.5, 0, 0, 10, 0], rtol=1e-15)


@pytest.mark.parametrize("noise_shape", sorted(LEGAL))
@pytest.mark.parametrize("rate", [0.25, 0.5, 0.6])
def test_numpy_equals_keras_where_the_mask_is_given(rate, noise_shape):
    x = np.random.default_rng(1).normal(size=(3, 4, 5)).astype("float32")
    for seed in range(5):
        theirs = layer_output(x, rate, noise_shape, seed=seed)
        mask = (theirs != 0)[tuple(slice(n) for n in noise_shape)]
        ours = train.dropout(x, rate, noise_shape, mask=mask)
        assert ours.dtype == np.float32
        # 1 / (1 - rate) is a power of two for 0.5; else the last bit may be rounded.
        np.testing.assert_allclose(ours, theirs, rtol=0 if rate == 0.5 else 3e-7)


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8])
def test_drawn_masks_agree_in_share_mean_and_variance(ones, rate):
    """200,000 values: the tolerances are five standard errors."""
    n, ratio = ones.size, rate / (1 - rate)
    outputs = [train.dropout(ones, rate, rng=np.random.default_rng(0)), layer_output(ones, rate)]
    for out in outputs:
        kept = out[out != 0]
        assert abs(kept.size / n - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / n)
        assert abs(out.mean() - 1) < 5 * np.sqrt(ratio / n)
        # For ones, the variance follows from the share, p: p (1 - p) / (1 - rate)^2.
        slope = abs(2 * rate - 1) / (1 - rate) ** 2
        allowed = 5 * slope * np.sqrt(rate * (1 - rate) / n) + 5 * ratio / n**0.75
        assert abs(out.var() - ratio) < allowed
        np.testing.assert_allclose(kept, 1 / (1 - rate), rtol=1e-6)


def test_noise_shape_of_words_drops_a_share_of_the_words():
    x = np.ones((100, 200, 8), "float32")
    drawn = train.dropout(x, 0.3, (100, 200, 1), np.random.default_rng(0))
    for out in (drawn, layer_output(x, 0.3, (None, None, 1))):
        words = (out != 0).mean(-1)
        assert set(np.unique(words)) == {0, 1}
        assert abs(words.mean() - 0.7) < 5 * np.sqrt(0.21 / words.size)


def test_the_eight_legal_noise_shapes():
    shapes = list(train.legal_noise_shapes((3, 4, 5)))
    assert len(shapes) == 8 and set(shapes) == LEGAL
    assert list(train.legal_noise_shapes((1, 2))) == [(1, 2), (1, 1)]


@pytest.mark.parametrize("noise_shape", sorted(LEGAL))
def test_entries_along_an_axis_of_size_1_share_one_mask(noise_shape):
    """For each axis: constant where the noise shape is 1, and else some mask that is not."""
    varies = np.zeros(3, bool)
    for seed in range(20):
        drawn = train.dropout(np.ones((3, 4, 5)), 0.5, noise_shape, np.random.default_rng(seed))
        theirs = layer_output(np.ones((3, 4, 5), "float32"), 0.5, noise_shape, seed=seed)
        for out in (drawn, theirs):
            spread = [np.ptp(out, axis=axis).any() for axis in range(3)]
            assert not any(s and n == 1 for s, n in zip(spread, noise_shape, strict=True))
        varies |= spread
    assert varies.tolist() == [n > 1 for n in noise_shape]


@pytest.mark.parametrize("noise_shape", [(2, 4, 5), (3, 4), (3, 4, 5, 1), (0, 4, 5), (5, 4, 3)])
def test_illegal_noise_shapes_are_refused(noise_shape):
    with pytest.raises(ValueError, match=r"noise shape .*shape \(3, 4, 5\): expected 3 entries"):
        train.dropout(np.ones((3, 4, 5)), 0.5, noise_shape)


def test_type_of_the_data():
    """Half-precision stays what it is; whole numbers become fractions, as they must."""
    mask = np.array([True, False])
    for kind, expected in (("float16", "float16"), ("float32", "float32"), ("uint8", "float64")):
        out = train.dropout(np.array([3, 5], kind), 0.5, mask=mask)
        assert out.dtype == expected and out.tolist() == [6, 0]


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan")])
def test_illegal_rates_are_refused(rate):
    with pytest.raises(ValueError, match="expected 0 <= rate < 1"):
        train.dropout(np.ones(3), rate)


def test_inference_is_the_identity(ones):
    assert np.array_equal(layer_output(ones, 0.8, training=False), ones)
    assert np.array_equal(train.dropout(ones, 0), ones)
    model = train.build_model(0.8)
    x = glyphs.load("valid", 20)[0]
    plain = train.monte_carlo(model, x, passes=2, training=False)
    without = train.build_model(0)
    without.set_weights(model.get_weights())
    assert np.array_equal(plain[0], plain[1])
    np.testing.assert_allclose(plain[0], train.monte_carlo(without, x, 1)[0], atol=1e-6)


def gradient_tensorflow(function, x):
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return y, tape.gradient(y, x)


def gradient_jax(function, x):
    import jax

    y, pullback = jax.vjp(function, x)
    return y, pullback(np.ones_like(y))[0]


def gradient_torch(function, x):
    import torch

    x = torch.tensor(x, requires_grad=True)
    y = function(x)
    y.sum().backward()
    return y, x.grad


@pytest.mark.parametrize("noise_shape", sorted(LEGAL))
def test_gradient_is_zero_exactly_where_the_mask_is(noise_shape):
    x = np.random.default_rng(2).normal(size=(3, 4, 5)).astype("float32")
    layer = layers.Dropout(0.5, noise_shape=noise_shape, seed=1)
    gradient_of = globals()[f"gradient_{keras.backend.backend()}"]
    y, gradient = map(ops.convert_to_numpy, gradient_of(lambda x: layer(x, training=True), x))
    assert np.array_equal(gradient, np.where(y == 0, 0.0, 2.0))


def test_report_of_the_comparison():
    metrics = train.compare_with_keras()
    assert metrics["largest difference from Keras, same mask"]["value"] == 0
    for name in ("NumPy", "Keras"):
        share = metrics[f"share kept at rate 0.5, {name}"]
        assert share["n"] == 1_000_000 and abs(share["value"] - 0.5) < 0.0025


# --- Model, metrics, batches ---
def test_copied_functions_need_only_their_arguments():
    names = ["dropout", "legal_noise_shapes", "build_model", "monte_carlo", "calibration_error"]
    module = {"np": np, "keras": keras, "layers": layers, "ops": ops}
    for name in names:
        exec(inspect.getsource(getattr(train, name)), module)
    x = glyphs.load("valid", 4)[0]
    passes = module["monte_carlo"](module["build_model"](), x, passes=2)
    assert 0 <= module["calibration_error"](passes.mean(0), np.arange(4)) <= 1
    assert len(list(module["legal_noise_shapes"]((3, 4, 5)))) == 8
    assert module["dropout"](x, 0.5, (4, 1, 28)).shape == x.shape


@pytest.mark.parametrize("noise_shape", [None, (None, None, 1), (None, 1, None), (1, None, None)])
def test_noise_shapes_of_the_network_share_the_mask(noise_shape):
    model = train.build_model(0.5, noise_shape)
    dropped = [layer for layer in model.layers if isinstance(layer, layers.Dropout)]
    assert [layer.output.shape[1:] for layer in dropped] == [(28, 64), (28 // 2, 128)]
    for layer in dropped:
        out = ops.convert_to_numpy(layer(np.ones((6, *layer.output.shape[1:])), training=True))
        shared = [not np.ptp(out, axis=axis).any() for axis in range(3)]
        assert shared == [n == 1 for n in noise_shape or (None,) * 3]


def test_monte_carlo_draws_a_mask_for_each_pass():
    x = glyphs.load("valid", 30)[0]
    keras.utils.set_random_seed(0)
    passes = train.monte_carlo(train.build_model(0.5), x, passes=3, batch_size=7)
    assert passes.shape == (3, 30, 10)
    np.testing.assert_allclose(passes.sum(-1), 1, rtol=1e-5)
    assert not np.array_equal(passes[0], passes[1])
    keras.utils.set_random_seed(0)
    again = train.monte_carlo(train.build_model(0.5), x, passes=3, batch_size=7)
    np.testing.assert_array_equal(again, passes)


def test_calibration_error_by_hand_and_by_a_loop():
    sure = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    # Bins of the confidence: 0.9 twice, half of them right; 0.8 wrong; 0.6 right.
    expected = (2 * 0.4 + 0.8 + 0.4) / 4
    assert train.calibration_error(sure, np.array([0, 1, 0, 1]), bins=10) == pytest.approx(expected)
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(4), 500), rng.integers(4, size=500)
    probabilities[0] = 1, 0, 0, 0
    total = calibration_error_by_a_loop(probabilities, labels)
    assert train.calibration_error(probabilities, labels) == pytest.approx(total)
    many = np.tile(probabilities, (300, 1)).astype("float16")
    assert train.calibration_error(many, np.tile(labels, 300)) == pytest.approx(total, abs=1e-3)
    assert np.isnan(train.calibration_error(np.full((9, 2), np.nan), np.zeros(9, int)))


def test_report_equals_keras_and_its_intervals_hold_it():
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(10), 300), rng.integers(10, size=300)
    metrics = train.report("x", probabilities, labels)
    loss = keras.losses.SparseCategoricalCrossentropy()(labels, probabilities)
    assert metrics["log loss, x"]["value"] == pytest.approx(float(loss), rel=1e-5)
    assert metrics["accuracy, x"]["value"] == (probabilities.argmax(-1) == labels).mean()
    for metric in metrics.values():
        assert metric["low"] < metric["value"] < metric["high"] and metric["n"] == 300


def test_batches_shuffle_and_can_start_anywhere():
    x = np.arange(10)
    straight, later = train.batches(x, x, 3, seed=1), train.batches(x, x, 3, seed=1, first_epoch=1)
    epochs = [[next(straight)[0].tolist() for _ in range(3)] for _ in range(2)]
    assert [next(later)[0].tolist() for _ in range(3)] == epochs[1] != epochs[0]
    assert all(len(np.unique(epoch)) == 9 for epoch in epochs)
    other = next(train.batches(x, x, 3, seed=2))[0].tolist()
    assert other != epochs[0][0]


# --- Drawn digits ---
def test_a_digit_depends_on_seed_and_index_alone():
    pictures, labels = glyphs.load("test", 20)
    assert pictures.shape == (20, 28, 28) and pictures.dtype == np.uint8
    for index in (17, 3):
        picture, label = glyphs.draw_glyph(glyphs.SEEDS["test"], index)
        assert np.array_equal(pictures[index], picture) and labels[index] == label


def test_splits_share_no_digit_and_all_digits_come():
    splits = {split: glyphs.load(split, 500) for split in glyphs.SEEDS}
    assert len({picture.tobytes() for x, _ in splits.values() for picture in x}) == 1500
    counts = np.bincount(np.concatenate([y for _, y in splits.values()]), minlength=10)
    assert len(counts) == 10 and np.abs(counts - 150).max() < 5 * np.sqrt(135)


def test_digits_are_light_ink_inside_the_picture():
    pictures, _ = glyphs.load("train", 500)
    border = np.concatenate([pictures[:, 0], pictures[:, -1]]).mean()
    assert border < 25 and pictures[:, 8:20, 8:20].mean() > 3 * border
    assert (pictures.max((1, 2)) > 100).all()


def test_version_pins_the_pixels():
    """A change that moves a pixel must raise VERSION; Pillow's own drawing may differ a little."""
    pictures, labels = glyphs.load("train", 100)
    assert (glyphs.VERSION, labels[:8].tolist()) == (1, [6, 3, 6, 8, 4, 2, 5, 6])
    assert abs(pictures.mean() - DRAWN_MEAN) < 0.2


DRAWN_MEAN = 40.7


# --- MNIST's file ---
write_npz = partial(write_mnist, num_train=60, num_test=20)


def test_mnist_is_split_three_ways_whatever_the_run_seed(tmp_path):
    path, arrays = write_npz(tmp_path / "mnist.npz")
    splits, notes = train.load_data(str(path), 30, 25, 15)
    assert [len(y) for _, y in splits.values()] == [30, 25, 15]
    drawn = {p.tobytes() for split in ("train", "valid") for p in splits[split][0]}
    assert len(drawn) == 55 and drawn <= {p.tobytes() for p in arrays["x_train"]}
    assert {p.tobytes() for p in splits["test"][0]} <= {p.tobytes() for p in arrays["x_test"]}
    by_picture = dict(zip((p.tobytes() for p in arrays["x_train"]), arrays["y_train"], strict=True))
    assert all(by_picture[p.tobytes()] == y for p, y in zip(*splits["valid"], strict=True))
    assert notes["name"] == "MNIST" and notes["num_valid"] == 25
    assert train.load_data(str(path), 30, 25, 15)[1] == notes


def test_bad_files_of_data_are_one_line(tmp_path, error_of):
    good, arrays = write_npz(tmp_path / "mnist.npz")
    truncated, text = tmp_path / "truncated.npz", tmp_path / "text.npz"
    truncated.write_bytes(good.read_bytes()[:-5000])
    text.write_text("no digits here")
    np.save(tmp_path / "one.npy", arrays["x_test"])
    (tmp_path / "empty").mkdir()
    for path in (truncated, text, tmp_path / "none.npz", tmp_path / "empty", tmp_path / "one.npy"):
        assert str(path) in error_of(train.load_data, str(path), 30, 25, 15)
    keys, _ = write_npz(tmp_path / "keys.npz", without=["x_test", "y_train"])
    assert "has no y_train, x_test" in error_of(train.load_data, str(keys), 30, 25, 15)
    shape, _ = write_npz(tmp_path / "shape.npz", x_test=np.zeros((20, 32, 32), "uint8"))
    assert "(n, 28, 28)" in error_of(train.load_data, str(shape), 30, 25, 15)
    labels, _ = write_npz(tmp_path / "labels.npz", y_test=np.full(20, 10))
    assert "label 10 of picture 0" in error_of(train.load_data, str(labels), 30, 25, 15)
    assert "too few" in error_of(train.load_data, str(good), 30, 31, 15)
    splits, _ = train.load_data(str(tmp_path), 30, 25, 15)  # The folder that holds mnist.npz.
    assert len(splits["train"][1]) == 30


def test_the_word_mnist_is_a_verified_download(tmp_path, monkeypatch, error_of):
    """A file that is not MNIST is not taken for it, whatever its name."""
    monkeypatch.setattr(common.data, "DOWNLOADS", tmp_path / "downloads")
    other, _ = write_npz(tmp_path / "other.npz")
    monkeypatch.setattr(mnist, "URL", other.as_uri())
    assert mnist.SHA256 in error_of(train.load_data, "mnist", 30, 25, 15)


# --- A run ---
def test_variants_are_read_and_bad_ones_are_one_line(tmp_path, error_of):
    assert train.parse_variant("0.5") == (0.5, (None, None, None))
    assert train.parse_variant("0.2:batch,word,1") == (0.2, (None, None, 1))
    assert train.parse_variant("0.3:1,1,channel") == (0.3, (1, 1, None))
    for bad in ("1", "-0.1", "a", "0.5:batch,word", "0.5:word,batch,1", "0.5:batch,2,channel"):
        flags = ["--smoke", "--run-dir", str(tmp_path / "run"), f"--variants={bad}"]
        assert f"variant '{bad}'" in error_of(train.main, flags)
    flags = ["--smoke", "--run-dir", str(tmp_path / "run")]
    assert "at least one" in error_of(train.main, [*flags, "--variants", "0"])
    assert "at least one" in error_of(train.main, [*flags, "--epochs", "0"])
    assert "at least one" in error_of(train.main, [*flags, "--batch-size", "500"])
    assert "at least one" in error_of(train.main, [*flags, "--batch-size", "0"])
    assert not (tmp_path / "run").exists()


def test_record_of_a_run(smoke_run, assert_drawn):
    run_dir, record = smoke_run
    assert record == json.loads((run_dir / "record.json").read_text())
    metrics = record["metrics"]
    names = ["dropout 0", "dropout 0.5:batch,word,1"]
    for name in names:
        assert metrics[f"accuracy, {name}"]["n"] == 100
        entries = [e for e in record["history"] if e["variant"] == name]
        assert [e["epoch"] for e in entries] == [1, 2]
        assert all({"loss", "accuracy", "val_accuracy", "test_accuracy"} < set(e) for e in entries)
        # Chosen on validation; its point of the test curve is what the saved model reaches.
        best = max(entries, key=lambda e: (e["val_accuracy"], e["epoch"]))
        assert metrics[f"accuracy, {name}"]["value"] == best["test_accuracy"]
        saved = name.removeprefix("dropout ").replace(":", "-").replace(",", "-")
        model = keras.saving.load_model(run_dir / f"{saved}-model.keras", compile=False)
        right = train.count_right(model, *glyphs.load("test", 100))
        assert right == round(100 * best["test_accuracy"])
    for name in ("plain pass", "mean of 1 random", "mean of 10 random", "mean of 100 random"):
        for kind in ("accuracy", "log loss", "calibration error"):
            number = metrics[f"{kind}, {name}"]
            assert number["low"] <= number["value"] <= number["high"]
    assert metrics["accuracy, plain pass"] == metrics[f"accuracy, {names[1]}"]
    for name in record["pictures"]:
        assert_drawn(run_dir / name)
    assert not list(run_dir.glob("*epoch*")), "the weights of the epochs are in the way"


KILLS = {
    # After one of the two batches of the second variant's second epoch.
    "training": """
        from common.run import Run
        checkpoint = Run.checkpoint

        def deadly(run, *args, prefix, **keywords):
            def batch_end(batch, logs=None):
                if prefix.startswith("0.5") and len(run.history) == 1 and batch == 0:
                    die()

            callback = checkpoint(run, *args, prefix=prefix, **keywords)
            callback.on_train_batch_end = batch_end
            return callback

        Run.checkpoint = deadly
    """,
    # When the first variant's test curve is read, and the second one's begins.
    "testing": """
        load = train.np.load
        train.np.load = lambda path: die() if "0.5-batch-word-1-epoch1" in path else load(path)
    """,
}


@pytest.mark.parametrize("place", KILLS)
def test_same_seed_same_run_and_a_killed_one_resumes_to_it(smoke_run, tmp_path, place):
    """kill -9 in the middle, then --resume."""
    straight, record = smoke_run
    deadly = f"""if True:
        import os, signal, sys
        from dropout_demo import train

        die = lambda: os.kill(os.getpid(), signal.SIGKILL)
        {KILLS[place]}
        train.main(sys.argv[1:])
    """
    flags = [*SMOKE, "--run-dir", str(tmp_path / "killed")]
    killed = subprocess.run([sys.executable, "-c", deadly, *flags], cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (tmp_path / "killed" / "record.json").exists()
    resumed = train.main([*flags, "--resume"])
    assert resumed["resumed"] and not list((tmp_path / "killed").glob("*epoch*"))
    for name in ("history", "metrics", "selection", "data"):
        assert resumed[name] == record[name]
    for state in ("0-state.npz", "0.5-batch-word-1-state.npz"):
        with np.load(straight / state) as one, np.load(tmp_path / "killed" / state) as two:
            arrays = [name for name in one.files if name != "notes"]
            assert len(arrays) > 20 and one.files == two.files
            assert all(np.array_equal(one[name], two[name]) for name in arrays)


# --- Own pictures ---
def test_own_pictures_of_any_kind_become_mnists_kind(tmp_path):
    """One drawn digit, saved eight ways, gives eight almost equal 28 x 28 pictures."""
    ink = np.asarray(glyphs.glyph("DejaVuSans", 5, 1).resize((200, 180)))
    dark = Image.fromarray(255 - ink)
    clear = Image.new("RGBA", dark.size, (0, 0, 0, 0))
    clear.paste((20, 20, 20, 255), mask=Image.fromarray(ink))
    ways = {
        "light.png": Image.fromarray(ink),
        "dark.png": dark,
        "rgb.jpg": dark.convert("RGB"),
        "palette.gif": dark.convert("P"),
        "bits.png": dark.convert("1"),
        "deep.png": Image.fromarray((255 - ink).astype("uint16") * 256),
        "clear.png": clear,
        "alpha.png": dark.convert("LA"),
    }
    read = []
    for name, image in ways.items():
        image.save(tmp_path / name)
        read.append(read_picture(tmp_path / name).astype(float))
    for picture in read:
        assert picture.shape == (28, 28) and picture.max() > 200
        middle = [picture.sum(1 - axis) @ np.arange(28) / picture.sum() for axis in (0, 1)]
        assert np.abs(np.subtract(middle, 14)).max() < 0.6
        assert np.flatnonzero(picture.any(1)).size == 20 and np.abs(picture - read[0]).mean() < 8
    small = glyphs.load("test", 1)[0][0]
    for name, array in (("small.png", small), ("inverted.png", 255 - small)):
        Image.fromarray(array).save(tmp_path / name)
        assert np.array_equal(read_picture(tmp_path / name), small)
    Image.new("L", (50, 70), 255).save(tmp_path / "empty.png")
    assert read_picture(tmp_path / "empty.png").max() == 0


def png_of_size(width, height):
    """A PNG whose header claims a size; its few bytes hold no picture."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def test_bad_pictures_are_one_line_each(smoke_run, tmp_path, error_of):
    run_dir = ["--run-dir", str(smoke_run[0])]
    Image.fromarray(glyphs.load("test", 1)[0][0]).save(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "truncated.png").write_bytes((tmp_path / "good.png").read_bytes()[:200])
    (tmp_path / "bomb.png").write_bytes(png_of_size(50_000, 50_000))
    (tmp_path / "empty").mkdir()
    for name in ("text.png", "truncated.png", "bomb.png", "missing.png", "empty"):
        line = error_of(predict.main, [*run_dir, str(tmp_path / name)])
        assert str(tmp_path / name) in line
    assert "no finished run" in error_of(predict.main, ["--run-dir", str(tmp_path)])


def test_a_damaged_model_is_one_line(smoke_run, tmp_path, error_of):
    (tmp_path / "record.json").write_text('{"experiment": "dropout_demo"}')
    assert "model.keras" in error_of(predict.main, ["--run-dir", str(tmp_path)])
    whole = (smoke_run[0] / "model.keras").read_bytes()
    (tmp_path / "model.keras").write_bytes(whole[: len(whole) // 2])
    assert "model.keras" in error_of(predict.main, ["--run-dir", str(tmp_path)])


def test_prediction_is_the_mean_and_spread_of_the_passes(smoke_run):
    def model():
        keras.utils.set_random_seed(1)
        return keras.saving.load_model(smoke_run[0] / "model.keras", compile=False)

    x = glyphs.load("valid", 5)[0]
    read = predict.classify(model(), x, passes=20)
    passes = train.monte_carlo(model(), x, passes=20)
    for i, (label, probability, uncertainty) in enumerate(read):
        values = [passes[k, i, label] for k in range(20)]
        assert label == passes[:, i].mean(0).argmax()
        assert probability == pytest.approx(np.mean(values), rel=1e-5)
        assert uncertainty == pytest.approx(np.std(values), rel=1e-3) and uncertainty > 0


def test_predict_in_a_fresh_process(smoke_run, tmp_path):
    """Good and bad together: a JSON line for the one, an error line for the other, exit code 2."""
    run_dir, _ = smoke_run
    Image.fromarray(glyphs.load("test", 1)[0][0]).save(tmp_path / "b.png")
    (tmp_path / "a.png").write_text("not a picture")
    command = [sys.executable, "dropout_demo/predict.py", "--json", "--run-dir", str(run_dir)]
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    [error] = [s for s in done.stderr.splitlines() if s.startswith("error:")]
    assert "a.png" in error and "Traceback" not in done.stderr
    [line] = map(json.loads, done.stdout.splitlines())
    assert line.keys() == {"path", "label", "probability", "uncertainty"}
    assert line["path"] == str(tmp_path / "b.png") and line["label"] in range(10)
    assert 0 <= line["probability"] <= 1 and 0 <= line["uncertainty"] <= 0.5


def test_predict_without_arguments_draws_ten(smoke_run, capsys, assert_drawn):
    run_dir, _ = smoke_run
    (run_dir / "predictions.png").unlink(missing_ok=True)
    read = predict.main(["--run-dir", str(run_dir)])
    assert len(read) == 10
    assert capsys.readouterr().out.count("drawn") == 10
    assert_drawn(run_dir / "predictions.png")
    assert read == predict.main(["--run-dir", str(run_dir)])
