"""dog_finetune: batches, heads, losses, the backbone's two parts, maps, stages, a kill, predict."""

import itertools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from PIL import Image

from common.parallel import DataParallel
from common.run import Run
from data import dogs
from dog_finetune import features, networks, pictures, predict, report, stages, train

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ["--smoke", "--run-dir"]


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory):
    """One small training through the front door, shared by the tests that need a model."""
    run_dir = tmp_path_factory.mktemp("smoke") / "run"
    return run_dir, train.main([*SMOKE, str(run_dir)])


def tiny_backbone(name, image_size, weights, blocks):
    """Two convolutions in place of a hundred: what is tested is what happens around them."""
    inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="picture")
    x = layers.Rescaling(1 / 255)(inputs)
    cut = layers.Conv2D(6, 3, 2, activation="relu")(x)
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, activation="relu")(cut))
    stem, tail = keras.Model(inputs, cut, name="stem"), None
    tail = keras.Model(cut, layers.GlobalAveragePooling2D()(x), name="tail")
    stem.trainable = False
    train.freeze_batch_norm(tail)
    return stem, tail


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(train, "build_backbone", tiny_backbone)


@pytest.fixture
def folder(tmp_path):
    """Three breeds of 12 drawn dogs each, as JPEG files."""
    for breed in range(3):
        path = tmp_path / "own" / f"breed_{breed}"
        path.mkdir(parents=True)
        for index in range(12):
            Image.fromarray(dogs.draw_dog(7, breed, index)).save(path / f"{index}.jpg")
    return tmp_path / "own"


def picture(seed=0, size=16):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), "uint8")


# --- Batches and blend ---
def test_pairs_are_distinct_classes_twice():
    labels = np.repeat(np.arange(30), np.arange(2, 32))
    rng, counts = np.random.default_rng(0), np.zeros(30)
    for _ in range(400):
        rows = train.sample_pairs(labels, rng, num_classes=4)
        assert len(set(rows)) == 8
        classes, times = np.unique(labels[rows], return_counts=True)
        assert len(classes) == 4 and set(times) == {2}
        counts[classes] += 1
    assert counts[:10].sum() < counts[10:20].sum() < counts[20:].sum()
    assert len(train.sample_pairs(np.array([0, 1, 1]), rng)) == 4, "few classes, one picture"


def test_blend_equals_a_loop():
    rng = np.random.default_rng(0)
    main, auxiliary = rng.dirichlet(np.ones(3), (2, 50))
    labels = rng.integers(3, size=50)
    best, chosen = -1, None
    for percent in range(101):
        p = percent / 100 * main + (1 - percent / 100) * auxiliary
        if (right := (p.argmax(1) == labels).sum()) >= best:
            best, chosen = right, percent / 100
    assert train.choose_blend(main, auxiliary, labels) == pytest.approx(chosen)


def test_batches_start_anywhere_and_no_thread_moves_a_pixel():
    sources = [dogs.draw_dog(5, b, i) for b in range(3) for i in range(4)]
    labels = np.append(np.repeat([0, 1, 2], 4), [-1, -1])
    sources += [dogs.draw_dog(5, 3, i) for i in range(2)]

    def first(count, first_epoch, workers, kind="full", mixup=0.0):
        with ThreadPoolExecutor(workers) as pool:
            make = lambda *words: train.make_view(labels, (), *words)  # noqa: E731
            views = features.Views(sources, 24, 3, make, pool)
            get = features.from_views(views, kind)
            settings = (["main", "distance"], 3, (3, 1), 2, first_epoch, mixup)
            made = features.batches(get, labels, train.sample_pairs, *settings)
            return [next(made) for _ in range(count)]

    one, two, late = first(4, 0, 1), first(4, 0, 3), first(2, 1, 2)
    for (x, y), (x2, y2) in zip([*one, *one[2:]], [*two, *late], strict=True):
        assert np.array_equal(x["x"], x2["x"]) and np.array_equal(x["target"], x2["target"])
        assert np.array_equal(y["main"], y2["main"])
        assert x["x"].dtype == np.uint8 and y["main"].sum(1).tolist() == [1] * 6
    assert not np.array_equal(one[0][0]["x"], one[2][0]["x"])
    (x, y), *_ = first(1, 0, 1, "ours", 0.3)
    assert np.allclose(y["main"].sum(1), 1) and ((y["main"] > 0.01).sum(1) > 1).any()
    assert x["x"].dtype == np.uint8


# --- Heads, losses, backbone ---
def test_parameters_of_the_posts_heads():
    heads = train.build_heads()
    assert heads.count_params() == 2 * 131_136 + 6_500 + 204_900


def test_heads_equal_numpy():
    heads = train.build_heads(5, 3, units=4)
    weights = {layer.name: layer.get_weights() for layer in heads.layers if layer.weights}
    x = np.random.default_rng(0).normal(size=(7, 5)).astype("f4")

    def linear(name, x):
        return x @ weights[name][0] + weights[name][1]

    def softmax(x):
        return np.exp(x) / np.exp(x).sum(1, keepdims=True)

    gated = linear("linear", x) / (1 + np.exp(-linear("gate", x)))
    outputs = {k: ops.convert_to_numpy(v) for k, v in heads(x).items()}
    assert np.allclose(outputs["features"], gated, atol=1e-5)
    assert np.allclose(outputs["main"], softmax(linear("main", gated)), atol=1e-5)
    assert np.allclose(outputs["auxiliary"], softmax(linear("auxiliary", x)), atol=1e-5)
    plain = train.build_heads(5, 3, gated=False, auxiliary=False)
    assert set(plain.output) == {"main", "features"} and plain.count_params() == 18


def test_the_loss_is_the_weighted_sum():
    args = train.parse_args(["--image-size", "32"])
    heads, centres = train.build_heads(5, 3, units=4), layers.Embedding(3, 4)
    model, outputs = train.compiled(args, [heads], centres, 1)
    assert outputs == ["main", "auxiliary", "distance"]
    x, labels = np.random.default_rng(0).normal(size=(6, 5)).astype("f4"), np.arange(6) % 3
    inputs, truths = features.with_targets(x, np.eye(3, dtype="f4")[labels], outputs)
    loss = model.evaluate(inputs, truths, batch_size=6, verbose=0, return_dict=True)["loss"]
    y = {name: ops.convert_to_numpy(value) for name, value in heads(x).items()}
    rows = np.arange(6)
    entropy = [-np.log(y[head][rows, labels]).mean() for head in ("main", "auxiliary")]
    squares = (
        np.square(y["features"] - ops.convert_to_numpy(centres.embeddings)[labels]).sum(1).mean()
    )
    assert loss == pytest.approx(entropy[0] + 0.25 * entropy[1] + 0.25 * squares, rel=1e-4)


def test_last_blocks_of_xception_by_position():
    stem, tail = train.build_backbone("xception", 71, None)
    assert tail.output_shape == (None, 2048) and stem.output.shape[-1] == 728
    names = [layer.name for layer in tail.layers]
    assert any("block13" in name for name in names) and not any("block12" in n for n in names)
    total = stem.count_params() + tail.count_params()
    assert total == 20_861_480 and 6.7e6 < tail.count_params() < 6.9e6
    assert not stem.trainable_weights
    norms = [x for x in tail.layers if isinstance(x, layers.BatchNormalization)]
    assert len(norms) == 5 and not any(x.trainable for x in norms)


def test_a_mobile_net_has_its_own_scaling_and_fixed_statistics(tmp_path):
    stem, tail = train.build_backbone("mobilenetv2-0.35", 32, None)
    assert "block_15_add" in [x.name for x in tail.layers] and len(stem.output.shape) == 4
    shape = {"include_top": False, "weights": None, "input_shape": (32, 32, 3), "alpha": 0.35}
    plain = keras.applications.MobileNetV2(pooling="avg", **shape)
    plain.save_weights(tmp_path / "plain.weights.h5")
    weights = str(tmp_path / "plain.weights.h5")
    stem, tail = train.build_backbone("mobilenetv2-0.35", 32, weights)
    x = np.stack([picture(seed, 32) for seed in range(4)])
    expected = plain.predict(x / 127.5 - 1, verbose=0)
    maps = stem.predict(x, verbose=0)
    assert np.allclose(tail.predict(maps, verbose=0), expected, atol=1e-4)

    norms = [y for y in tail.layers if isinstance(y, layers.BatchNormalization)]
    before = [np.array(y.moving_mean) for y in norms]
    model = keras.Sequential([tail, layers.Dense(2)])
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(maps, np.ones((4, 2)), verbose=0)
    for layer, mean in zip(norms, before, strict=True):
        assert np.array_equal(np.array(layer.moving_mean), mean)


def test_layers_learn_at_their_own_rates():
    args = train.parse_args(["--recipe", "ours", "--learning-rate", "1", "--decay", "0.5"])
    stem, tail = tiny_backbone("", 16, None, 2)
    heads = train.build_heads(8, 3, gated=False, auxiliary=False)
    model = train.build_training_model([stem, tail, heads])
    optimizer = networks.decaying_adam(model, args, 10)
    names = [v.path for v in model.trainable_variables]
    assert len(optimizer.rates) == len(names) == 4 and optimizer.rates[2:] == [1.0, 1.0]
    assert optimizer.rates[0] == optimizer.rates[1] < 1
    variables = [keras.Variable(np.zeros(2, "f4")) for _ in range(2)]
    plain = networks.layerwise_adam()(0.1, rates=[1.0, 0.5])
    plain.build(variables)
    plain.apply([np.ones(2, "f4"), np.ones(2, "f4")])
    assert np.allclose(variables[0], -0.1) and np.allclose(variables[1], -0.05)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--backbone", "xception"], "--weights none"),  # A file of another network.
        (["--backbone", "dogception"], "no network dogception"),
        (["--weights", "nowhere.h5"], "nowhere.h5: there is no such file"),
        (["--blocks", "40"], "blocks to train"),
    ],
)
def test_a_backbone_that_cannot_be_built_is_one_line(words, expected, tmp_path, error_of):
    shape = {"include_top": False, "weights": None, "input_shape": (32, 32, 3), "alpha": 0.35}
    path = tmp_path / "small.weights.h5"
    keras.applications.MobileNetV2(**shape).save_weights(path)
    flags = ["--data", ".", "--backbone", "mobilenetv2-0.35", "--image-size", "71", "--weights"]
    args = train.parse_args([*flags, str(path), *words])
    assert expected in error_of(train.build_model, args, 3)


# --- Kept maps ---
def test_kept_features_equal_direct_ones_and_go_on_after_a_stop(tmp_path):
    stem, _ = tiny_backbone("", 16, None, 2)
    sources = [dogs.draw_dog(5, 0, i) for i in range(25)]

    def make(kind, row, number, rng, read):
        return np.roll(read(row), rng.integers(16), 0)

    with ThreadPoolExecutor(2) as pool:
        views = features.Views(sources, 16, 0, make, pool)
        maps = features.view_maps(tmp_path / "a.npy", stem, views, "full", 3)
        assert maps.shape[:2] == (25, 3) and maps.dtype == np.float16
        for row, number in ((0, 0), (7, 2), (24, 1)):
            direct = stem.predict(views.view(("full", row, number))[None], verbose=0)[0]
            assert np.allclose(maps[row, number], direct, atol=2e-3)

        calls = []

        def stop(model, chunk, apply=features.apply):
            calls.append(len(chunk))
            if len(calls) == 2:
                raise KeyboardInterrupt
            return apply(model, chunk)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(features, "apply", stop)
            patch.setattr(features, "NOTED", 1)
            with pytest.raises(KeyboardInterrupt):
                features.view_maps(tmp_path / "b.npy", stem, views, "full", 3)
        assert json.loads((tmp_path / "b.json").read_text())["done"] == 32
        again = features.view_maps(tmp_path / "b.npy", stem, views, "full", 3)
        assert np.array_equal(maps, again)


# --- Runs ---
def test_record_of_the_three_stages(smoke_run, assert_drawn):
    run_dir, record = smoke_run
    stages_seen = [entry["stage"] for entry in record["history"]]
    assert stages_seen == [f"stage{i}" for i in range(4) for _ in range(2)]
    metrics = record["metrics"]
    assert metrics["accuracy"]["n"] == 12
    assert metrics["accuracy"]["value"] + metrics["error rate"]["value"] == pytest.approx(1)
    assert {f"accuracy after stage {i}" for i in (1, 2, 3)} < set(metrics)
    assert metrics["calibration error"]["value"] <= 1
    assert record["details"]["temperature"][0] > 0 and "calibration error, scaled" in metrics
    assert record["details"]["weights"] == "drawn"
    assert not list(run_dir.glob("*-maps.*")) and not list(run_dir.glob("*-vectors.*"))
    for name in record["pictures"]:
        assert_drawn(run_dir / name)


def test_what_predict_uses_is_fitted_to_one_view(tmp_path, tiny, monkeypatch):
    def count_views(found, splits, share):
        return float(found["valid"]["main"].shape[1])

    monkeypatch.setattr(report, "best_temperature", count_views)
    record = train.main([*SMOKE, str(tmp_path / "run"), "--tta", "2"])
    assert record["details"]["temperature"] == [2]
    assert record["details"]["temperature of one view"] == 1
    model, notes = predict.load_run(tmp_path / "run")
    assert (notes["temperature"], notes["temperature_of_views"]) == (1, 2)
    shown = [pictures.read_picture(dogs.draw_dog(7, 0, i), 32) for i in range(3)]
    for views in (1, 2):
        seen = [[pictures.fixed_view(x, i) for x in shown] for i in range(views)]
        heads = [features.predict(model, np.stack(x)) for x in seen]
        mean = np.mean([report.blend(x, notes["share"]) for x in heads], axis=0)
        found = predict.probabilities(model, notes, shown, views)
        np.testing.assert_allclose(found, report.scaled(mean, views), rtol=1e-4)


def test_the_recorded_accuracy_is_that_of_the_saved_model(smoke_run):
    run_dir, record = smoke_run
    splits, *_ = train.load_data(train.parse_args(SMOKE[:-1]))
    model, notes = predict.load_run(run_dir)
    shown = [pictures.read_picture(x, notes["image_size"]) for x in splits["test"][0]]
    shares = predict.probabilities(model, notes, shown, 1)
    hits = shares.argmax(-1) == splits["test"][1]
    assert hits.mean() == record["metrics"]["accuracy"]["value"]


def test_a_stage_ends_at_its_best_epoch(tmp_path):
    """Of two epochs the first teaches what the validation pictures ask, the second the contrary."""
    args = train.parse_args([*SMOKE, str(tmp_path / "run")])
    inputs = keras.Input((2,), name="x")
    outputs = {"main": layers.Dense(2, activation="softmax", name="main")(inputs)}
    model = keras.Model({"x": inputs}, outputs)
    crossentropy = {"main": "categorical_crossentropy"}
    model.compile(keras.optimizers.SGD(1.0), crossentropy, metrics={"main": "accuracy"})
    x = {"x": np.ones((4, 2), "float32")}
    yes, no = ({"main": np.tile(np.eye(2, dtype="float32")[i], (4, 1))} for i in (1, 0))

    def batches(first_epoch):
        return ((x, yes if step < 5 else no) for step in itertools.count(5 * first_epoch))

    run, parallel = Run(args, "dog_finetune"), DataParallel(args)
    history, _ = stages.train_stage(run, parallel, "stage1", model, batches, 5, 2, (x, yes))
    assert [entry["val_accuracy"] for entry in history] == [1, 0]
    assert (ops.convert_to_numpy(model(x)["main"]).argmax(-1) == 1).all()


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_the_targets_of_a_batch_are_those_of_its_pictures(mixup):
    labels = np.array([0, 2, 1, -1, 2, 0, 1, -1])
    maps = np.eye(3)[labels][:, None].repeat(2, 1)  # Each picture shows what it is.
    maps[labels < 0] = 9
    made = features.batches(
        features.from_maps(maps), labels, stages.draw_32, ["main"], 3, (0,), 4, mixup=mixup
    )
    seen = []
    for inputs, targets in itertools.islice(made, 8):
        np.testing.assert_allclose(inputs["x"], targets["main"], atol=1e-6)
        seen.append(targets["main"])
    assert len(np.unique(np.concatenate(seen).round(4), axis=0)) > 3 - (not mixup)


def test_killed_and_resumed_in_every_stage(
    smoke_run, tmp_path, kill_in_second_epoch, assert_same_state
):
    """kill -9 in the second epoch of each stage; at the end all is as in the smooth run."""
    run_dir, flags = tmp_path / "killed", [*SMOKE, str(tmp_path / "killed")]
    for stage in range(4):
        resume = ["--resume"] if stage else []
        kill_in_second_epoch("dog_finetune", [*flags, *resume], prefix=f"stage{stage}-")
    assert not (run_dir / "record.json").exists()
    record = train.main([*flags, "--resume"])
    for stage in range(4):
        name = f"stage{stage}-state.npz"
        assert_same_state(smoke_run[0] / name, run_dir / name)
    assert record["metrics"] == smoke_run[1]["metrics"]
    assert record["history"] == smoke_run[1]["history"] and record["resumed"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--recipe", "probe"], []),
        (
            ["--recipe", "ours", "--epochs", "2", "--fresh", "--tta", "2"],
            ["stage2", "stage2"],
        ),
        (
            ["--epochs", "1", "1", "1", "--fresh", "--without", "glu", "light"],
            ["stage1", "stage2", "stage3"],
        ),
        (
            ["--epochs", "1", "1", "1", "--unlabelled", "0.4"],
            ["stage1", "stage2", "stage3", "pseudo2", "pseudo3"],
        ),
        (
            ["--epochs", "1", "1", "1", "--shares", "0.2", "0", "--draws", "2"],
            [f"draw{draw}-stage{stage}" for draw in (0, 1) for stage in (1, 2, 3)],
        ),
    ],
)
def test_recipes_and_pieces(words, expected, tiny, folder, tmp_path):
    flags = ["--data", str(folder), "--weights", "none", "--image-size", "24", "--steps", "2"]
    record = train.main([*SMOKE, str(tmp_path / "run"), *flags, *words])
    names = [entry["stage"] for entry in record["history"]]
    assert names == expected
    metrics = record["metrics"]["accuracy"]
    assert metrics["low"] <= metrics["value"] <= metrics["high"]
    if "--draws" in words:
        assert record["data"]["num_valid"] == 0 and record["row"].endswith("2 draws")
    if "--unlabelled" in words:
        assert record["data"]["num_unlabelled"] > 8 and "0.4 unlabelled" in record["row"]
        assert record["details"]["pseudo-labels"] == record["data"]["num_unlabelled"]
        assert 0 <= record["details"]["pseudo-labels that are right"] <= 1
    if "--tta" in words:
        assert "accuracy, one view" in record["metrics"]


def test_maps_are_shared_by_runs_that_need_the_same(tiny, folder, tmp_path):
    """Another head finds them; another seed, other pieces or weights make their own."""
    flags = ["--data", str(folder), "--weights", "none", "--image-size", "24", "--steps", "2"]
    flags += ["--epochs", "1", "1", "1", "--maps", str(tmp_path / "maps")]

    def run(name, *words):
        record = train.main([*SMOKE, str(tmp_path / name), *flags, *words])
        return record, {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("maps/*.npy")}

    first, made = run("first")
    assert {name.rsplit("-", 1)[0] for name in made} == {
        *("full-maps", "light-maps", "test-maps", "valid-maps")
    }
    again, same = run("again")
    assert same.keys() == made.keys() and again["metrics"] == first["metrics"]
    alone = train.main([*SMOKE, str(tmp_path / "alone"), *flags[:-2]])
    assert alone["metrics"] == first["metrics"] and alone["history"] == first["history"]
    assert run("heads", "--without", "glu")[1].keys() == made.keys()
    assert len(run("pieces", "--without", "masks")[1]) > len(made)
    assert len(run("seed", "--seed", "1")[1]) > len(made) + 2
    hidden = run("hidden", "--unlabelled", "0.5", "--without", "pseudo")[1]
    assert len(run("pseudo", "--unlabelled", "0.5")[1]) > len(hidden)  # Of more pictures.


def test_the_probe_is_where_the_gradient_vanishes():
    """The minimum of a convex loss, by Keras' own loss and by differences."""
    rng = np.random.default_rng(0)
    x, y = 3 + 2 * rng.normal(size=(60, 4)), rng.integers(3, size=60)
    deviation = (x - x.mean(0)).std()
    z = (x - x.mean(0)) / deviation

    def loss(kernel, bias):
        entropy = keras.losses.sparse_categorical_crossentropy(
            y, (z @ kernel + bias).astype("float32"), from_logits=True
        )
        return ops.convert_to_numpy(entropy).mean() + 0.05 * (kernel**2).sum()

    kernel, bias = networks.fit_linear_probe(x.astype("float32"), y, 3, penalty=0.1)
    scaled, moved = kernel * deviation, bias + x.mean(0) @ kernel
    assert np.allclose(z @ scaled + moved, x @ kernel + bias)
    least = loss(scaled, moved)
    for _ in range(20):
        step = 0.1 * rng.normal(size=scaled.shape)
        assert loss(scaled + step, moved) > least
        assert loss(scaled, moved + step[0, 0] * np.eye(3)[0]) > least


def test_hidden_labels_are_a_share_of_each_class():
    labels = np.repeat([0, 1, 2], [10, 1, 4])
    splits = {"train": (np.arange(15), labels), "unlabelled": ([], np.empty(0, int))}
    parts = pictures.hide_labels(splits, 0.5)
    assert np.bincount(parts["train"][1]).tolist() == [5, 1, 2]
    assert np.bincount(parts["unlabelled"][1]).tolist() == [5, 0, 2]
    assert sorted([*parts["train"][0], *parts["unlabelled"][0]]) == list(range(15))


@pytest.mark.parametrize(
    "words",
    [
        ["--epochs", "3"],
        ["--epochs", "0", "1", "1"],
        ["--shares", "0", "0.1"],
        ["--breeds", "99"],
        ["--draws", "2"],
        ["--data", ".", "--weights", "drawn"],
        ["--views", "0"],
        ["--image-size", "0"],
        ["--blocks", "0"],
        ["--steps", "0"],
        ["--learning-rate", "0"],
        ["--recipe", "ours", "--mixup", "-1"],
        ["--mixup", "0.4"],
    ],
)
def test_settings_that_make_no_sense_are_one_line(words, error_of):
    error_of(train.parse_args, words)


def test_a_folder_that_no_piece_uses_is_refused(tmp_path, error_of):
    words = ["--smoke", "--unlabelled", str(tmp_path)]
    for more in (["--recipe", "ours"], ["--without", "pseudo"]):
        assert "only the post's recipe" in error_of(train.parse_args, [*words, *more])


def test_nothing_unlabelled_is_one_line(error_of):
    for given in ("0", "0.01"):
        args = train.parse_args(["--smoke", "--unlabelled", given])
        assert "no picture whose label" in error_of(train.load_data, args)


def test_calibration_error_equals_a_loop():
    rng = np.random.default_rng(0)
    p, labels = rng.dirichlet(np.ones(4), 300), rng.integers(4, size=300)
    error = 0
    for low in np.arange(15) / 15:
        inside = (p.max(1) >= low) & (p.max(1) < low + 1 / 15)
        if inside.any():
            gap = p[inside].max(1).mean() - (p[inside].argmax(1) == labels[inside]).mean()
            error += inside.mean() * abs(gap)
    assert report.calibration_error(p, labels) == pytest.approx(error)


def test_the_temperature_undoes_one_and_keeps_the_order():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(5), 4000)
    labels = (p.cumsum(1) > rng.random((4000, 1))).argmax(1)  # Just as likely as p says.
    flat = report.scaled(p, 3.0)
    assert report.fit_temperature(p, labels) == pytest.approx(1, abs=0.1)
    assert report.fit_temperature(flat, labels) == pytest.approx(1 / 3, abs=0.04)
    assert np.allclose(report.scaled(flat, 1 / 3), p, atol=1e-6)
    assert np.array_equal(flat.argsort(1), p.argsort(1))
    for temperature in (0.5, 2.0):  # No other is likelier.
        assert log_loss(report.scaled(p, temperature), labels) > log_loss(p, labels)


def log_loss(p, labels):
    return -np.log(p[np.arange(len(labels)), labels]).mean()


# --- predict.py ---
def test_predictions_in_a_fresh_process(smoke_run, folder, tmp_path):
    run_dir, _ = smoke_run
    (folder / "breed_0" / "cut.jpg").write_bytes((folder / "breed_0" / "0.jpg").read_bytes()[:400])
    command = [sys.executable, ROOT / "dog_finetune" / "predict.py", "--json", "--tta", "2"]
    command += ["--submission", tmp_path / "out.txt", "--run-dir", run_dir, folder / "breed_0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "cut.jpg" in errors[0]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 12 and set(lines[0]) == {"path", "label", "probability", "top5"}
    model, notes = predict.load_run(run_dir)
    for line in lines:
        x = pictures.read_picture(Path(line["path"]), 32)
        expected = predict.probabilities(model, notes, [x], 2)[0]
        assert line["probability"] == pytest.approx(expected.max(), abs=1e-3)
    rows = (tmp_path / "out.txt").read_text().splitlines()
    assert rows == [f"{line['label']}\t{Path(line['path']).stem}" for line in lines]


def test_many_pictures_are_read_a_few_at_a_time(smoke_run, folder, monkeypatch, capsys):
    monkeypatch.setattr(predict, "CHUNK", 5)
    monkeypatch.setattr(predict, "MOST_SHOWN", 7)
    said, grids = [], []

    def read(path, size):
        said.append(len(capsys.readouterr().out.splitlines()))
        return pictures.read_picture(path, size)

    monkeypatch.setattr(predict, "read_picture", read)
    monkeypatch.setattr(predict, "picture_grid", lambda path, *grid: grids.append(grid))
    flags = ["--run-dir", str(smoke_run[0]), "--explain", str(folder / "breed_0")]
    lines = predict.main(flags)
    assert len(lines) == len(said) == 12
    assert [i for i, count in enumerate(said) if count] == [5, 10] and said[5] == 5
    ((seen, texts),) = grids
    assert len(seen) == len(texts) == 2 * 7 and texts[1] == "where it looked"
    assert texts[2].startswith(lines[1]["label"])
    assert "the first 7" in capsys.readouterr().err


def test_flags_of_predict_that_make_no_sense_are_one_line(smoke_run, folder, error_of):
    flags = ["--run-dir", str(smoke_run[0])]
    assert "1 to 12" in error_of(predict.main, [*flags, "--tta", "13"])
    assert "needs pictures" in error_of(predict.main, [*flags, "--submission", "a.txt"])
    words = [str(folder / "breed_0"), "--submission"]
    for path in (folder, folder / "none" / "a.txt"):
        assert "expected a file" in error_of(predict.main, [*flags, *words, str(path)])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--tta", "13"], "--tta up to 12"),
        (["--decay", "-0.5"], "--decay up to 1"),
        (["--mixup", "nan"], "--mixup of 0 or more"),
        (["--learning-rate", "nan"], "above 0"),
        (["--data", ""], "no empty argument"),
        (["--recipe", "ours", "--without", "glu"], "of --recipe post"),
        (["--test", "."], "are for --data"),
        (["--unlabelled", "."], "are for --data"),
    ],
)
def test_flags_that_make_no_sense_are_one_line(words, expected, capsys):
    with pytest.raises(SystemExit) as stop:
        train.parse_args(["--smoke", *words])
    assert stop.value.code == 2 and expected in capsys.readouterr().err


def test_without_arguments_a_grid_of_hits_and_misses(smoke_run, assert_drawn, capsys):
    lines = predict.main(["--run-dir", str(smoke_run[0]), "--explain"])
    assert len(lines) == 12 and "it is breed" in capsys.readouterr().out
    assert_drawn(smoke_run[0] / "explained.png")


@pytest.mark.parametrize("gated", [True, False])
def test_the_gradient_of_grad_cam_equals_differences(gated):
    heads = train.build_heads(6, 3, units=4, gated=gated)
    weights = {
        x.name: [w.astype(float) for w in x.get_weights()] for x in heads.layers if x.weights
    }
    rng = np.random.default_rng(0)
    vector = rng.normal(size=6)

    def logit(x):
        features = x
        if gated:
            (a, b), (c, d) = weights["linear"], weights["gate"]
            features = (x @ a + b) / (1 + np.exp(-(x @ c + d)))
        main, auxiliary = weights["main"][0], weights["auxiliary"][0]
        return 0.7 * features @ main[:, 1] + 0.3 * x @ auxiliary[:, 1]

    found = predict.head_gradient(heads, vector, 1, 0.7)
    steps = 1e-5 * np.eye(6)
    expected = [(logit(vector + s) - logit(vector - s)) / 2e-5 for s in steps]
    assert np.allclose(found, expected, atol=1e-5)


def test_exports_or_one_line(smoke_run, error_of, tmp_path, monkeypatch, capsys):
    flags = ["--run-dir", str(smoke_run[0]), "--export"]
    monkeypatch.setitem(sys.modules, "onnx", None)  # As where it is not installed.
    assert "--export onnx is not possible" in error_of(predict.main, [*flags, "onnx"])
    if keras.backend.backend() == "torch":  # Keras hands it dicts of inputs that it cannot take.
        assert "--export saved_model is not" in error_of(predict.main, [*flags, "saved_model"])
        return
    predict.main([*flags, "saved_model"])
    assert (smoke_run[0] / "saved_model" / "saved_model.pb").exists()


def test_an_exported_network_says_the_same(smoke_run, tmp_path):
    """With the extra onnx, by another program; skipped where that is not installed."""
    pytest.importorskip("tf2onnx" if keras.backend.backend() == "tensorflow" else "onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model, notes = predict.load_run(smoke_run[0])
    pixels = np.load(smoke_run[0] / "examples.npz")["pictures"][:3]
    session = onnxruntime.InferenceSession(predict.export(model, notes, tmp_path, "onnx"))
    [found] = session.run(None, {session.get_inputs()[0].name: pixels})
    assert np.allclose(found, predict.probabilities(model, notes, pixels), atol=1e-5)


def test_missing_and_damaged_models_are_one_line(smoke_run, tmp_path, error_of):
    assert "train.py" in error_of(predict.main, ["--run-dir", str(tmp_path)])
    (tmp_path / "record.json").write_bytes((smoke_run[0] / "record.json").read_bytes())
    (tmp_path / "classes.json").write_text("{}")
    assert "classes.json" in error_of(predict.main, ["--run-dir", str(tmp_path)])
    (tmp_path / "classes.json").write_bytes((smoke_run[0] / "classes.json").read_bytes())
    assert "model.keras" in error_of(predict.main, ["--run-dir", str(tmp_path)])
