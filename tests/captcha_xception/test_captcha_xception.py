"""captcha_xception: the drawn captchas, the models, the metrics, own pictures, a kill."""

import itertools
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

from captcha_xception import pictures, predict, train
from data import captchas

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data" / "captcha_letters6"


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory):
    """One small training through the front door, shared by the tests that need a model."""
    run_dir = tmp_path_factory.mktemp("smoke") / "run"
    return run_dir, train.main(["--smoke", "--run-dir", str(run_dir)])


@pytest.fixture
def folder(tmp_path):
    """120 drawn captchas as JPEG files named 0000_abcd.jpg."""
    path = tmp_path / "own"
    path.mkdir()
    for index in range(120):
        picture, label = captchas.draw_captcha(99, index)
        Image.fromarray(picture).save(path / f"{index:04d}_{label}.jpg", quality=90)
    return path


def fails(capsys, call, *words):
    """The call ends with exit code 2 and one line on stderr that holds the words."""
    with pytest.raises(SystemExit) as stop:
        call()
    [line] = [s for s in capsys.readouterr().err.splitlines() if s.startswith("error:")]
    assert stop.value.code == 2
    for word in words:
        assert word in line, line


# --- Drawn captchas ---
def test_a_picture_depends_on_seed_and_index_alone(tmp_path):
    one = captchas.load("test", 30, folder=tmp_path / "a", workers=1)
    two = captchas.load("test", 30, folder=tmp_path / "b", workers=2)
    assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])
    picture, label = captchas.draw_captcha(captchas.SEEDS["test"], 17)
    assert np.array_equal(one[0][17], picture)
    assert "".join(captchas.ALPHABET[i] for i in one[1][17]) == label
    assert one[0].shape == (30, 53, 129, 3) and one[0].dtype == np.uint8


def test_splits_and_styles_share_nothing():
    drawn = [captchas.draw_captcha(seed, i)[0] for seed in (11, 12, 13) for i in range(100)]
    assert len({picture.tobytes() for picture in drawn}) == 300
    plain, unseen = (set(style["fonts"].split()) for style in captchas.STYLES.values())
    assert not plain & unseen
    assert not np.array_equal(captchas.draw_captcha(11, 0, "unseen")[0], drawn[0])


def test_letters_are_even_and_lower_case():
    labels = "".join(captchas.draw_captcha(5, i)[1] for i in range(500))
    counts = np.array([labels.count(c) for c in captchas.ALPHABET])
    assert labels.islower() and counts.sum() == 2000
    # i and l are drawn in one case only, so they come half as often as the others.
    expected = np.array([1 if c in "il" else 2 for c in captchas.ALPHABET]) * 2000 / 50
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_version_pins_the_pixels():
    """A change that moves a pixel must raise VERSION; Pillow's own drawing may differ a little."""
    picture, label = captchas.draw_captcha(11, 0)
    assert (captchas.VERSION, label) == (1, DRAWN_LABEL)
    assert np.abs(picture.reshape(-1, 3).mean(0) - DRAWN_MEAN).max() < 1


DRAWN_LABEL, DRAWN_MEAN = "gjad", (187.9, 189.7, 151.1)


# --- Models and metrics ---
def test_parameter_counts_of_the_posts():
    assert train.build_cnn_2016().count_params() == 48_712
    model = train.build_xception()
    assert model.count_params() == 21_074_576
    [resizing] = [x for x in model.layers if isinstance(x, keras.layers.Resizing)]
    assert (resizing.height, resizing.width) == (50, 120)


def test_weights_of_a_plain_xception_fit(tmp_path):
    shape = {"include_top": False, "input_shape": (71, 71, 3), "pooling": "avg"}
    plain = keras.applications.Xception(weights=None, **shape)
    plain.save_weights(tmp_path / "x.weights.h5")
    model = train.build_model("xception", (53, 129, 3), 4, 26, str(tmp_path / "x.weights.h5"))
    expected = plain.get_weights()
    assert len(expected) == 234
    assert all(map(np.array_equal, model.get_weights()[:234], expected))


@pytest.mark.parametrize("build", [train.build_cnn_2016, train.build_columns])
def test_output_is_a_distribution_per_character(build):
    model = build(input_shape=(53, 150, 3), num_characters=6, num_classes=18)
    output = model.predict(np.zeros((2, 53, 150, 3), "uint8"), verbose=0)
    assert output.shape == (2, 6, 18)
    assert np.allclose(output.sum(-1), 1, atol=1e-5)


def test_cnn_2016_equals_a_numpy_loop():
    model = train.build_cnn_2016()
    picture = captchas.draw_captcha(1, 1)[0]
    x, convolutions = 1 - picture / 255, [w for w in model.layers if "conv" in w.name]
    for block, layer in enumerate(convolutions):
        kernel, bias = (np.array(w, "float64") for w in layer.weights)
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(0, 1))
        x = np.einsum("hwcij,ijcf->hwf", windows, kernel) + bias
        h, w = x.shape[0] // 2, x.shape[1] // 2
        x = x[: 2 * h, : 2 * w].reshape(h, 2, w, 2, -1).max((1, 3))
        x = np.maximum(x, 0) if block else x
    heads = [d for d in model.layers if isinstance(d, keras.layers.Dense)]
    logits = [x.ravel() @ np.array(d.kernel) + np.array(d.bias) for d in heads]
    exp = np.exp(logits - np.max(logits, axis=1, keepdims=True))
    expected = exp / exp.sum(1, keepdims=True)
    assert np.abs(model.predict(picture[None], verbose=0)[0] - expected).max() < 1e-5


def test_columns_learns_32_captchas_by_heart():
    keras.utils.set_random_seed(0)
    x, y = captchas.draw_many(3, "plain", range(32))
    model = train.build_columns(filters=16)
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=32, epochs=80, verbose=0)
    probabilities = model.predict(x, verbose=0)
    assert ops.convert_to_numpy(train.whole_accuracy(y, probabilities)).mean() > 0.9


def test_metrics_equal_a_loop():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(5, size=(200, 3)), rng.dirichlet(np.ones(5), (200, 3))
    metrics, details = train.report(labels, probabilities, "abcde")
    whole, per_character, wrong, kept = 0, [0, 0, 0], {}, []
    for truth, row in zip(labels, probabilities, strict=True):
        guess = [max(range(5), key=lambda k, p=p: p[k]) for p in row]
        whole += all(a == b for a, b in zip(truth, guess, strict=True))
        kept.append(np.prod([max(p) for p in row]) >= 0.5)
        for j, (a, b) in enumerate(zip(truth, guess, strict=True)):
            per_character[j] += a == b
            if a != b:
                wrong["abcde"[a], "abcde"[b]] = wrong.get(("abcde"[a], "abcde"[b]), 0) + 1
    assert metrics["whole captcha"]["value"] == whole / 200
    assert [metrics[f"character {j}"]["value"] * 200 for j in (1, 2, 3)] == per_character
    product = metrics["product of the characters"]
    assert np.isclose(product["value"], np.prod(per_character) / 200**3)
    assert product["low"] < product["value"] < product["high"]
    assert details["confusions"][0][2] == max(wrong.values())
    assert len(details["confusions"]) == 10
    assert all(wrong[truth, guess] == count for truth, guess, count in details["confusions"])
    assert details["coverage"][1]["read"] == np.mean(kept)
    right = ops.convert_to_numpy(train.whole_accuracy(labels, probabilities))
    assert right.mean() == pytest.approx(whole / 200)


# --- Batches ---
def test_batches_shuffle_and_can_start_anywhere():
    x, y = np.arange(10)[:, None, None, None], np.arange(10)[:, None]
    epochs = list(itertools.islice(train.batches(x, y, 5, seed=3), 6))
    seen = [np.concatenate([b.ravel() for _, b in epochs[i : i + 2]]) for i in (0, 2, 4)]
    for order in seen:
        assert sorted(order) == list(range(10)) and list(order) != list(range(10))
    assert list(seen[0]) != list(seen[1])
    resumed = next(train.batches(x, y, 5, seed=3, first_epoch=2))[1].ravel()
    assert list(resumed) == list(seen[2][:5])
    assert list(next(train.batches(x, y, 5, seed=4))[1].ravel()) != list(seen[0][:5])


def test_augmented_pictures_move_but_stay_pictures():
    x, _ = captchas.draw_many(3, "plain", range(8))
    moved = pictures.augment(x, np.random.default_rng(0))
    assert moved.shape == x.shape and moved.dtype == np.uint8
    assert all(not np.array_equal(a, b) for a, b in zip(x, moved, strict=True))
    assert np.array_equal(moved, pictures.augment(x, np.random.default_rng(0)))
    assert abs(float(moved.mean()) - float(x.mean())) < 10


@pytest.mark.parametrize("recipe", ["ours", "post"])
@pytest.mark.parametrize("own", [True, False])
def test_rates_and_augmentation_of_a_recipe(recipe, own, folder, tmp_path, monkeypatch):
    seen = {}

    def fit(model, batches, epochs, steps_per_epoch, **_):
        seen.update(x=next(batches)[0], last=epochs * steps_per_epoch, rates=[])
        for step in range(seen["last"] + 1):
            model.optimizer.iterations.assign(step)
            seen["rates"].append(float(model.optimizer.learning_rate))
        raise InterruptedError

    monkeypatch.setattr(keras.Model, "fit", fit)
    words = ["--smoke", "--recipe", recipe, "--batch-size", "4", "--run-dir", str(tmp_path / "run")]
    words += ["--data", str(folder)] if own else []
    with pytest.raises(InterruptedError):
        train.main(words)
    steps, last = np.arange(seen["last"] + 1), seen["last"]
    warmup = last // 10
    falling = (1 + np.cos(np.pi * (steps - warmup) / (last - warmup))) / 2
    ours = 2e-3 * np.where(steps < warmup, steps / warmup, falling)
    assert warmup >= 4
    assert np.allclose(seen["rates"], ours if recipe == "ours" else 1e-3, rtol=1e-4, atol=1e-8)
    known = {x.tobytes() for x in train.load_data(train.parse_args(words))[0]["train"][0]}
    as_they_are = all(x.tobytes() in known for x in seen["x"])
    assert as_they_are == (recipe == "post" or not own)


# --- Own pictures ---
def test_label_ends_the_name():
    label = pictures.labels_from_names
    assert label(["ABCD", "x_12_efgh", "0-Ij9z"]) == ["abcd", "efgh", "ij9z"]
    assert label(["aB"], case_sensitive=True) == ["aB"]
    assert label(["1234abcd", "zabce"], length=4) == ["abcd", "abce"]
    with pytest.raises(ValueError, match="different lengths"):
        label(["abcd", "abcd", "abc"])
    for stems in (["abcd", "ab"], ["ab", "ab"]):
        with pytest.raises(ValueError, match="shorter"):
            label(stems, length=3)
    with pytest.raises(ValueError, match="letters and digits"):
        label(["ab?d"], length=4)


def test_every_mode_is_read_on_white(tmp_path):
    rgb = np.full((53, 129, 3), 255, "uint8")
    rgb[20:30, 40:60] = (200, 30, 30)
    alpha = np.dstack([rgb, np.where(rgb[..., 1] == 255, 0, 255).astype("uint8")])
    alpha[alpha[..., 3] == 0, :3] = 0  # Black, but transparent.
    for mode, image in {
        "RGB": Image.fromarray(rgb),
        "RGBA": Image.fromarray(alpha),
        "P": Image.fromarray(rgb).quantize(4),
    }.items():
        image.save(tmp_path / f"{mode}.png")
        read = np.asarray(pictures.read_picture(tmp_path / f"{mode}.png")).astype(int)
        assert np.abs(read - rgb).max() <= 1, mode
    grey = np.linspace(0, 65535, 53 * 129).reshape(53, 129).astype("uint16")
    Image.fromarray(grey).save(tmp_path / "16.png")
    read = np.asarray(pictures.read_picture(tmp_path / "16.png"))
    assert np.abs(read[..., 0].astype(int) - grey // 256).max() <= 1


def test_a_folder_of_other_sizes_trains(folder, tmp_path):
    for index, path in enumerate(sorted(folder.iterdir())[:5]):
        Image.open(path).convert("L").resize((200, 70 + index)).save(path)
    broken = sorted(folder.iterdir())[7]
    broken.write_bytes(broken.read_bytes()[:600])
    arguments = ["--smoke", "--data", str(folder), "--run-dir", str(tmp_path / "run")]
    record = train.main([*arguments, "--batch-size", "16", "--epochs", "1"])
    assert record["data"]["num_train"] + record["data"]["num_valid"] == 107
    assert record["data"]["num_test"] == 12
    assert len(record["data"]["skipped"]) == 1 and broken.name in record["data"]["skipped"][0]


def test_split_is_disjoint_shuffled_and_fixed(folder):
    args = ["--data", str(folder), "--seed"]
    one, two = (train.load_data(train.parse_args([*args, seed]))[0] for seed in "01")
    pictures_seen = [p.tobytes() for split in one.values() for p in split[0]]
    assert len(set(pictures_seen)) == 120
    assert all(np.array_equal(one[s][0], two[s][0]) for s in one)
    paths = sorted(folder.iterdir())
    text_of = {np.asarray(pictures.read_picture(p)).tobytes(): p.stem[-4:] for p in paths}
    alphabet = "".join(sorted(set("".join(text_of.values()))))
    for x, y in one.values():
        shown = [text_of[picture.tobytes()] for picture in x]
        assert ["".join(alphabet[i] for i in row) for row in y] == shown
    held_out = {text_of[p.tobytes()] for split in ("valid", "test") for p in one[split][0]}
    assert one["train"][1].shape == (97, 4)
    assert held_out - {p.stem[-4:] for p in paths[:23]}  # Not the first or the last of the folder.
    assert held_out - {p.stem[-4:] for p in paths[-23:]}
    assert held_out - set(sorted(text_of.values())[-23:])


def test_bad_folders_are_one_line(folder, tmp_path, capsys):
    def load(*words):
        return lambda: train.load_data(train.parse_args(["--data", str(folder), *words]))

    (tmp_path / "empty").mkdir()
    empty = train.parse_args(["--data", str(tmp_path / "empty")])
    fails(capsys, lambda: train.load_data(empty), "empty", "0 pictures")
    missing = train.parse_args(["--data", str(tmp_path / "nowhere")])
    fails(capsys, lambda: train.load_data(missing), "nowhere", "not a folder")
    first, second, third = sorted(folder.iterdir())[:3]
    first.rename(folder / "0000_abcde.jpg")
    fails(capsys, load(), "different lengths", "0000_abcde", "--length")
    (folder / "0000_abcde.jpg").rename(folder / "0000_ab!d.jpg")
    fails(capsys, load("--length", "4"), "ab!d", "letters and digits")
    (folder / "0000_ab!d.jpg").rename(first)
    few = tmp_path / "few"
    few.mkdir()
    for index, path in enumerate(sorted(folder.iterdir())):
        (few / f"{index:04d}_{index % 10}.jpg").write_bytes(path.read_bytes())
    digits = train.parse_args(["--data", str(few), "--length", "1"])
    fails(capsys, lambda: train.load_data(digits), "10 different texts", "20")
    Image.new("RGB", (20, 3000)).save(first)
    Image.new("RGB", (20, 3000)).save(second)
    fails(capsys, load(), "2 of 120", "20 x 3000")
    Image.new("RGB", (129, 53)).save(first)
    second.write_text("no picture")
    third.write_text("no picture either")
    fails(capsys, load(), "2 of 120", second.name)


def write_bomb(path):
    """The header of a PNG of 50,000 x 50,000 pixels, which is all that may be read of it."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def test_predict_names_bad_files_and_reads_the_others(smoke_run, folder, tmp_path, capsys):
    good = sorted(folder.iterdir())[0]
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:700])
    write_bomb(tmp_path / "bomb.png")
    bad = [tmp_path / "text.jpg", tmp_path / "cut.jpg", tmp_path / "bomb.png", tmp_path / "no.png"]
    with pytest.raises(SystemExit) as stop:
        predict.main(["--json", "--run-dir", str(smoke_run[0]), *map(str, [*bad, good])])
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert len(printed.err.splitlines()) == 4
    for line, path in zip(printed.err.splitlines(), bad, strict=True):
        assert line.startswith(f"error: {path}")
    assert json.loads(printed.out)["path"] == str(good)


def test_missing_and_damaged_models_are_one_line(smoke_run, tmp_path, capsys):
    fails(capsys, lambda: predict.main(["--run-dir", str(tmp_path)]), "train.py")
    for name in ("record.json", "captcha.json"):
        (tmp_path / name).write_bytes((smoke_run[0] / name).read_bytes())
    fails(capsys, lambda: predict.main(["--run-dir", str(tmp_path)]), "model.keras")
    model = (smoke_run[0] / "model.keras").read_bytes()
    (tmp_path / "model.keras").write_bytes(model[: len(model) // 2])
    fails(capsys, lambda: predict.main(["--run-dir", str(tmp_path)]), "model.keras")


# --- Runs ---
def test_record_and_prediction_in_a_fresh_process(smoke_run, folder):
    run_dir, record = smoke_run
    assert record["metrics"]["whole captcha"]["n"] == 64
    assert len(record["history"]) == 2
    assert all((run_dir / name).stat().st_size > 1000 for name in record["pictures"])
    command = [sys.executable, ROOT / "captcha_xception" / "predict.py", "--json"]
    done = subprocess.run(
        [*command, "--run-dir", run_dir, folder], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    model, alphabet, size = predict.load_run(run_dir)
    paths = sorted(folder.iterdir())
    x = np.stack([pictures.read_picture(path, size) for path in paths])
    expected = predict.read_captchas(model, x, alphabet)
    assert [line["path"] for line in lines] == [str(path) for path in paths]
    assert [line["text"] for line in lines] == [text for text, _ in expected]
    assert [line["confidence"] for line in lines] == pytest.approx(
        [c for _, c in expected], abs=1e-3
    )


def test_init_takes_over_all_but_what_does_not_fit(smoke_run):
    source = keras.saving.load_model(smoke_run[0] / "model.keras", compile=False)
    model = train.build_columns(num_characters=6, num_classes=3)
    train.copy_weights(source, model, captchas.ALPHABET, "CZ7")
    assert np.array_equal(model.layers[2].get_weights()[0], source.layers[2].get_weights()[0])
    before, after = (np.array(m.layers[-1].kernel) for m in (source, model))
    assert np.array_equal(after[:, :2], before[:, [2, 25]])


def test_init_from_nowhere_is_one_line_and_leaves_no_folder(tmp_path, capsys):
    words = ["--smoke", "--init", str(tmp_path / "none"), "--run-dir", str(tmp_path / "run")]
    fails(capsys, lambda: train.main(words), "none", "missing")
    assert not (tmp_path / "run").exists()


def test_init_maps_every_head(capsys):
    one, two = (train.build_cnn_2016(num_classes=4) for _ in range(2))
    train.copy_weights(one, two, "abcd", "dcba")
    heads = [[h for h in m.layers if isinstance(h, keras.layers.Dense)] for m in (one, two)]
    for old, new in zip(*heads, strict=True):
        assert np.array_equal(np.array(new.kernel), np.array(old.kernel)[:, ::-1])
    other = train.build_columns(num_classes=4)
    fails(capsys, lambda: train.copy_weights(one, other, "abcd", "abcd"), "--init", "--model")


def test_pictures_of_one_text_stay_together(folder):
    paths = sorted(folder.iterdir())
    for path in paths[:40]:
        (folder / f"twin_{path.name}").write_bytes(path.read_bytes())
    splits, *_ = train.load_data(train.parse_args(["--data", str(folder)]))
    texts = {split: {tuple(row) for row in labels} for split, (_, labels) in splits.items()}
    assert sum(len(labels) for _, labels in splits.values()) == 160
    assert not texts["train"] & texts["test"] and not texts["valid"] & texts["test"]
    assert not texts["train"] & texts["valid"]


@pytest.mark.parametrize(
    "words", [["--epochs", "0"], ["--batch-size", "-5"], ["--num-test", "0"], ["--length", "0"]]
)
def test_numbers_out_of_range_are_one_line(words, tmp_path, capsys):
    call = ["--smoke", "--run-dir", str(tmp_path / "run"), *words]
    fails(capsys, lambda: train.main(call), "1 or more")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words", [["--length", "4"], ["--case-sensitive"], ["--data", ".", "--num-train", "99"]]
)
def test_flags_for_names_of_files_need_files(words, tmp_path, capsys):
    call = ["--smoke", "--run-dir", str(tmp_path / "run"), *words]
    fails(capsys, lambda: train.main(call), "are for --data")


def test_imagenet_weights_out_of_reach_are_one_line(tmp_path, capsys):
    call = ["xception", (53, 129, 3), 4, 26, str(tmp_path / "none.weights.h5")]
    fails(capsys, lambda: train.build_model(*call), "--weights none")


def test_a_picture_too_narrow_for_a_model_is_one_line(capsys):
    fails(capsys, lambda: train.build_model("cnn2016", (53, 40, 3), 4, 26), "cannot build cnn2016")


def test_killed_in_the_middle_of_an_epoch_and_resumed(tmp_path):
    """kill -9 in the second epoch; after --resume every weight equals the uninterrupted run's."""
    command = [sys.executable, ROOT / "captcha_xception" / "train.py", "--smoke", "--num-test", "8"]
    command += ["--num-train", "256", "--num-valid", "8", "--epochs", "3", "--batch-size", "8"]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    subprocess.run([*command, "--run-dir", straight], check=True, **quiet)
    with subprocess.Popen([*command, "--run-dir", killed], **quiet) as process:
        while not (killed / "state.npz").exists():
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGKILL)
    assert not (killed / "record.json").exists()
    subprocess.run([*command, "--run-dir", killed, "--resume"], check=True, **quiet)
    with np.load(straight / "state.npz") as one, np.load(killed / "state.npz") as two:
        assert one.files == two.files
        arrays = [name for name in one.files if name != "notes"]
        assert len(arrays) > 50
        assert all(np.array_equal(one[name], two[name]) for name in arrays)
    records = [json.loads((d / "record.json").read_text()) for d in (straight, killed)]
    assert records[0]["history"] == records[1]["history"]
    assert records[1]["resumed"]


@pytest.mark.skipif(not REAL.is_dir(), reason="the real captchas are not on this machine")
def test_real_captchas_are_understood():
    x, labels, alphabet, skipped = pictures.load_folder(REAL)
    assert x.shape[1:] == (53, 151, 3) and labels.shape == (len(x), 6)
    assert len(x) == 3540 and alphabet == "abcefghjklmnprtuxy" and not skipped
