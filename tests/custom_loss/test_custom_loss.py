"""custom_loss: three losses in two forms each, their experiments, a kill, predict."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT
from keras import layers, ops
from PIL import Image

from custom_loss import predict, train
from custom_loss.model import (
    SmoothedCrossentropy,
    TripletModel,
    build_center_layer_model,
    build_center_model,
    build_encoder,
    build_model,
    build_triplet_model,
    output_is_loss,
    smoothed_crossentropy,
    unit_vectors,
)
from data import faq, glyphs, mnist

EPSILON, MARGIN, WEIGHT = 0.1, 0.1, 0.2
EAGER = keras.backend.backend() != "jax"  # Which compiles an LSTM at each eager call.


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory):
    """One small training of all three losses through the front door."""
    run_dir = tmp_path_factory.mktemp("smoke") / "run"
    return run_dir, train.main(["--smoke", "--run-dir", str(run_dir)])


@pytest.fixture
def small():
    """Classes of a tiny problem: pictures, classes, questions and answers."""
    rng = np.random.default_rng(0)
    data = {"pictures": rng.integers(0, 256, (12, 6, 6, 1)), "classes": np.arange(12) % 4}
    data |= {"questions": rng.integers(1, 20, (5, 6)), "answers": rng.integers(1, 20, (5, 8))}
    data["questions"][2, 4:] = 0  # Padding.
    return {name: array.astype("int32") for name, array in data.items()}


# --- Every loss is compared in training itself: a step of SGD at rate 1 is the gradient. ---
# Eagerly, as to compile two dozen tiny models would take longer than all else; the smoke run
# and the example of the README, which test_contract.py executes, run every form compiled.
def gradient_of(model, x, y=None):
    """{variable: gradient} of one batch; the weights are put back."""
    before = {v.path: ops.convert_to_numpy(v).copy() for v in model.trainable_variables}
    model.optimizer.learning_rate = 1.0
    model.train_on_batch(x, y)
    after = {v.path: ops.convert_to_numpy(v) for v in model.trainable_variables}
    moved = {path: before[path] - after[path] for path in before}
    put_back(model, before)
    return moved


def put_back(model, values):
    for variable in model.trainable_variables:
        variable.assign(values[variable.path])


def assert_gradient_is_the_slope(model, x, y=None, step=1e-3):
    """The gradient along random directions, against finite differences of the loss."""
    gradient, rng = gradient_of(model, x, y), np.random.default_rng(1)
    at = {v.path: ops.convert_to_numpy(v).copy() for v in model.trainable_variables}
    length = float(np.sqrt(sum(np.sum(value**2) for value in gradient.values())))
    assert length > 1e-2
    for _ in range(6):
        direction = {path: rng.normal(size=value.shape) for path, value in at.items()}
        losses = []
        for sign in (1, -1):
            put_back(model, {path: at[path] + sign * step * direction[path] for path in at})
            losses.append(loss_of(model, x, y))
        put_back(model, at)
        slope = (losses[0] - losses[1]) / (2 * step)
        expected = float(sum(np.sum(gradient[path] * direction[path]) for path in at))
        # Along a random direction the slope is about as large as the gradient is long.
        assert slope == pytest.approx(expected, abs=0.02 * length)


def assert_same_gradients(one, two):
    """Equal lists of gradients, whatever the names of the variables."""
    assert len(one) == len(two)
    for a, b in zip(one.values(), two.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def loss_of(model, x, y=None):
    model.reset_metrics()  # Else it is the mean of all batches so far.
    return model.test_on_batch(x, y, return_dict=True)["loss"]


def one_hot(classes, num_classes=4):
    return np.eye(num_classes, dtype="float32")[classes]


# --- Label smoothing ---
def smoothing_by_hand(classes, probabilities, epsilon):
    losses = []
    for right, row in zip(classes, probabilities, strict=True):
        uniform = sum(np.log(p) for p in row) / len(row)
        losses.append(-(1 - epsilon) * np.log(row[right]) - epsilon * uniform)
    return np.array(losses)


@pytest.mark.parametrize("epsilon", [0.1, 0.35])
def test_smoothing_has_one_value_in_all_forms(epsilon):
    rng = np.random.default_rng(0)
    classes, probabilities = rng.integers(0, 7, 50), rng.dirichlet(np.ones(7), 50)
    expected = smoothing_by_hand(classes, probabilities, epsilon)
    probabilities = probabilities.astype("float32")
    targets = one_hot(classes, 7)
    post = ops.convert_to_numpy(smoothed_crossentropy(targets, probabilities, epsilon))
    np.testing.assert_allclose(post, expected, rtol=1e-5)
    today = SmoothedCrossentropy(epsilon, reduction="none")
    np.testing.assert_allclose(
        ops.convert_to_numpy(today(classes, probabilities)), expected, rtol=1e-5
    )
    keras_loss = keras.losses.CategoricalCrossentropy(label_smoothing=epsilon, reduction="none")
    theirs = ops.convert_to_numpy(keras_loss(targets, probabilities))
    np.testing.assert_allclose(theirs, expected, rtol=1e-4)
    for some in (classes, classes[:, None]):  # As CIFAR's labels come, too.
        mean = SmoothedCrossentropy(epsilon)(some, probabilities)
        assert float(mean) == pytest.approx(expected.mean(), rel=1e-5)


def softmax_model(loss):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((6, 6, 1))
    x = layers.Flatten()(layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, layers.Dense(4, "softmax", dtype="float32")(x))
    model.compile(keras.optimizers.SGD(1.0), loss, metrics=["accuracy"], run_eagerly=EAGER)
    return model


def test_smoothing_has_one_gradient_in_all_forms(small):
    x, classes = small["pictures"], small["classes"]
    post = softmax_model(smoothed_crossentropy)
    theirs = softmax_model(keras.losses.CategoricalCrossentropy(label_smoothing=EPSILON))
    today = softmax_model(SmoothedCrossentropy())
    gradient = gradient_of(post, x, one_hot(classes))
    assert_same_gradients(gradient, gradient_of(theirs, x, one_hot(classes)))
    assert_same_gradients(gradient, gradient_of(today, x, classes))
    assert_gradient_is_the_slope(today, x, classes)


def test_smoothing_is_lowest_where_the_network_is_not_quite_sure():
    """At 1 - epsilon + epsilon / n, not at 1: ever larger logits gain nothing."""
    shares = np.linspace(0.5, 0.9999, 2000)
    rows = np.stack([shares, *[(1 - shares) / 3] * 3], -1).astype("float32")
    targets = one_hot(np.zeros(2000, int))
    losses = ops.convert_to_numpy(smoothed_crossentropy(targets, rows))
    assert shares[losses.argmin()] == pytest.approx(1 - EPSILON + EPSILON / 4, abs=1e-3)
    plain = ops.convert_to_numpy(smoothed_crossentropy(targets, rows, 0.0))
    assert plain.argmin() == 1999


# --- Triplet loss ---
def small_encoder():
    """With vectors of some length: the cosines of tiny ones jump at the smallest step."""
    keras.utils.set_random_seed(3)
    encoder = build_encoder(20, 5, 4)
    embedding, *rest = encoder.get_weights()
    encoder.set_weights([20 * embedding, *rest])
    return encoder


def triplet_models(extra_dense=4, negatives="random"):
    """The post's model with its encoders, and today's, with the same weights."""
    encoder = small_encoder()
    post, question_encoder, answer_encoder = build_triplet_model(encoder, extra_dense)
    post.compile(keras.optimizers.SGD(1.0), output_is_loss, run_eagerly=EAGER)
    today = TripletModel(encoder, extra_dense, MARGIN, negatives)
    today.compile(keras.optimizers.SGD(1.0), run_eagerly=EAGER)
    if extra_dense:
        today.question_encoder.set_weights(question_encoder.get_weights())
    return post, question_encoder, answer_encoder, today


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / np.sqrt(np.sum(a**2) * np.sum(b**2))


@pytest.mark.parametrize("extra_dense", [4, None])
def test_triplet_loss_has_one_value_in_both_forms(small, extra_dense):
    questions, answers = small["questions"], small["answers"]
    post, question_encoder, answer_encoder, today = triplet_models(extra_dense)
    wrong = np.roll(answers, -1, 0)
    states = post.get_layer("encoder").predict(answers, verbose=0)
    asked = post.get_layer("encoder").predict(questions, verbose=0)
    if extra_dense:
        kernel, bias = post.get_layer("extra_dense").get_weights()
        asked = asked @ kernel + bias
    expected = [
        max(0, MARGIN + cosine(q, states[(i + 1) % 5]) - cosine(q, states[i]))
        for i, q in enumerate(asked)
    ]
    losses = post.predict([questions, answers, wrong], verbose=0)
    np.testing.assert_allclose(losses[:, 0], expected, atol=1e-6)
    assert np.mean(expected) > 0.01
    vectors = question_encoder.predict(questions, verbose=0)
    right = (vectors * answer_encoder.predict(answers, verbose=0)).sum(-1)
    np.testing.assert_allclose(
        right, [cosine(q, a) for q, a in zip(asked, states, strict=True)], atol=1e-6
    )
    dummies = np.zeros((5, 1))
    assert loss_of(post, [questions, answers, wrong], dummies) == pytest.approx(np.mean(expected))
    assert loss_of(today, (questions, answers)) == pytest.approx(np.mean(expected), abs=1e-6)


@pytest.mark.parametrize("extra_dense", [4, None])
def test_triplet_loss_has_one_gradient_in_both_forms(small, extra_dense):
    questions, answers = small["questions"], small["answers"]
    post, _, _, today = triplet_models(extra_dense)
    triplets = [questions, answers, np.roll(answers, -1, 0)]
    gradient = gradient_of(post, triplets, np.zeros((5, 1)))
    assert_same_gradients(gradient, gradient_of(today, (questions, answers)))
    assert_gradient_is_the_slope(today, (questions, answers))


def test_hard_negatives_are_the_nearest_wrong_answers_of_the_batch(small):
    _, question_encoder, answer_encoder, today = triplet_models(negatives="hard")
    scores = question_encoder.predict(small["questions"], verbose=0)
    scores = scores @ answer_encoder.predict(small["answers"], verbose=0).T
    losses = [max(0, MARGIN + max(np.delete(row, i)) - row[i]) for i, row in enumerate(scores)]
    logs = today.test_on_batch((small["questions"], small["answers"]), return_dict=True)
    assert logs["loss"] == pytest.approx(np.mean(losses), abs=1e-6)
    assert logs["active"] == pytest.approx(np.mean(np.array(losses) > 0))
    assert_gradient_is_the_slope(today, (small["questions"], small["answers"]))


def test_encoders_give_unit_vectors_whatever_the_padding(small):
    _, question_encoder, answer_encoder, _ = triplet_models()
    for encoder in (question_encoder, answer_encoder):
        plain = encoder.predict(small["questions"], verbose=0)
        padded = encoder.predict(np.pad(small["questions"], ((0, 0), (0, 7))), verbose=0)
        np.testing.assert_allclose(np.square(plain).sum(-1), 1, rtol=1e-5)
        np.testing.assert_allclose(plain, padded, atol=1e-6)
    zero = ops.convert_to_numpy(unit_vectors(np.zeros((2, 3), "float32")))
    assert np.array_equal(zero, np.zeros((2, 3)))


def test_the_posts_sizes():
    post, question_encoder, answer_encoder = build_triplet_model(build_encoder())
    lstm = 4 * 64 * (128 + 64 + 1)
    assert post.count_params() == question_encoder.count_params()
    assert post.count_params() == 10_000 * 128 + lstm + 64 * 64 + 64
    assert answer_encoder.count_params() == 10_000 * 128 + lstm
    classifier = build_model()
    assert classifier.count_params() == 130 + 123_210 * 32 + 32 + 32 * 100 + 100
    assert build_center_model(classifier).count_params() == (classifier.count_params() + 100 * 32)


# --- Center loss ---
def center_models(activation="relu"):
    """The post's model and today's, each with its classifier, all with the same weights."""
    models = []
    for build in (build_center_model, build_center_layer_model):
        keras.utils.set_random_seed(4)
        classifier = build_model((6, 6, 1), 4, 3, activation)
        models += [classifier, build(classifier)]
    classifier, post, _, today = models
    centres = np.random.default_rng(0).normal(size=(4, 3))
    post.get_layer("centres").set_weights([centres])
    today.get_layer("center_loss").set_weights([centres])
    compile_post(post)
    loss = "sparse_categorical_crossentropy"
    today.compile(keras.optimizers.SGD(1.0), loss, metrics=["accuracy"], run_eagerly=EAGER)
    return classifier, post, today, centres


def compile_post(model):
    model.compile(
        keras.optimizers.SGD(1.0),
        loss={
            "probabilities": "sparse_categorical_crossentropy",
            "distance": output_is_loss,
        },
        loss_weights={"probabilities": 1, "distance": WEIGHT},
        metrics={"probabilities": "accuracy"},
        run_eagerly=EAGER,
    )


def post_targets(classes):
    return {"probabilities": classes, "distance": np.zeros((len(classes), 1))}


def test_center_loss_has_one_value_in_both_forms(small):
    pictures, classes = small["pictures"], small["classes"]
    classifier, post, today, centres = center_models()
    features = keras.Model(classifier.input, classifier.get_layer("features").output)
    features = features.predict(pictures, verbose=0)
    probabilities = classifier.predict(pictures, verbose=0)
    entropy = np.mean([-np.log(p[c]) for p, c in zip(probabilities, classes, strict=True)])
    squares = [sum((features[i] - centres[c]) ** 2) for i, c in enumerate(classes)]
    expected = entropy + WEIGHT * np.mean(squares)
    found = post.predict([pictures, classes], verbose=0)
    np.testing.assert_allclose(found["distance"][:, 0], squares, rtol=1e-5)
    np.testing.assert_allclose(found["probabilities"], probabilities, rtol=1e-5)
    loss = loss_of(post, [pictures, classes], post_targets(classes))
    assert loss == pytest.approx(expected, rel=1e-5)
    assert loss_of(today, [pictures, classes], classes) == pytest.approx(expected, rel=1e-5)
    column = classes[:, None]
    assert loss_of(today, [pictures, column], column) == pytest.approx(expected, rel=1e-5)


def test_flags_reach_the_networks(small):
    flags = ["--epsilon", "0.3", "--margin", "0.7", "--center-weight", "0.4"]
    args = train.parse_args(["--smoke", *flags])
    pictures = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1)).astype("float32")
    classes = np.arange(20) % 7
    for kind, epsilon in (("plain", 0.0), ("smoothing", 0.3), ("center", 0.0)):
        keras.utils.set_random_seed(1)
        model = train.build_classifier(args, kind)
        inputs = [pictures, classes] if kind == "center" else pictures
        expected = smoothing_by_hand(classes, model.predict(inputs, verbose=0), epsilon).mean()
        if kind == "center":
            features = keras.Model(model.inputs[0], model.get_layer("features").output)
            [layer] = [layer for layer in model.layers if hasattr(layer, "centres")]
            apart = features.predict(pictures, verbose=0) - np.asarray(layer.centres)[classes]
            expected += 0.4 * np.square(apart).sum(1).mean()
        found = model.evaluate(inputs, classes, verbose=0, return_dict=True)["loss"]
        assert found == pytest.approx(expected, rel=1e-4)
    for extra_dense, negatives in ((64, "hard"), (None, "random")):
        model = train.build_triplet_network(args, range(48), extra_dense, negatives)
        assert (model.extra_dense, model.negatives, model.margin) == (extra_dense, negatives, 0.7)
        assert model.jit_compile == (keras.backend.backend() == "jax")


def test_center_loss_has_one_gradient_in_both_forms(small):
    pictures, classes = small["pictures"], small["classes"]
    _, post, today, centres = center_models(None)  # No kinks in the way of the differences.
    one = gradient_of(post, [pictures, classes], post_targets(classes))
    two = gradient_of(today, [pictures, classes], classes)
    # The centres are not in the same place in the two lists of variables.
    by_shape = [sorted(g.values(), key=lambda v: (v.shape, v.sum())) for g in (one, two)]
    assert [g.shape for g in by_shape[0]] == [g.shape for g in by_shape[1]]
    for a, b in zip(*by_shape, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert_gradient_is_the_slope(today, [pictures, classes], classes)
    [moved] = [value for path, value in two.items() if "centres" in path]
    features = keras.Model(post.inputs[0], post.get_layer("features").output)
    features = features.predict(pictures, verbose=0)
    for c in range(4):
        pull = 2 * WEIGHT * (centres[c] - features[classes == c]).sum(0) / len(classes)
        np.testing.assert_allclose(moved[c], pull, rtol=1e-4, atol=1e-6)


# --- What readers missed: metrics, saving, half precision ---
def every_form(small):
    """{name: (model, x, y)}: the three losses in the post's form and in today's."""
    _, post_center, today_center, _ = center_models()
    post_triplet, _, _, today_triplet = triplet_models()
    pictures, classes = small["pictures"], small["classes"]
    questions, answers = small["questions"], small["answers"]
    triplets = [questions, answers, np.roll(answers, -1, 0)]
    smoothing = softmax_model(smoothed_crossentropy)
    today_smoothing = softmax_model(SmoothedCrossentropy())
    return {
        "smoothing": (smoothing, pictures, one_hot(classes)),
        "smoothing today": (today_smoothing, pictures, classes),
        "triplet": (post_triplet, triplets, np.zeros((5, 1))),
        "triplet today": (today_triplet, (questions, answers), None),
        "center": (post_center, [pictures, classes], post_targets(classes)),
        "center today": (today_center, [pictures, classes], classes),
    }


METRICS = {
    "smoothing": {"loss", "accuracy"},
    "triplet": {"loss"},
    "triplet today": {"loss", "active"},
    "center": {"loss", "probabilities_loss", "distance_loss", "probabilities_accuracy"},
    "center today": {"loss", "accuracy"},
}


def test_metrics_are_in_the_logs_of_training_and_validation(small):
    for name, (model, x, y) in every_form(small).items():
        model.optimizer.learning_rate = 0.01
        # Tuples, as lists of arrays would be taken for many inputs' worth of samples.
        validation = (x, y) if y is not None else (x,)
        logs = model.fit(x, y, validation_data=validation, epochs=1, verbose=0).history
        expected = METRICS.get(name) or METRICS["smoothing"]
        assert expected | {f"val_{metric}" for metric in expected} <= set(logs), name
        assert all(np.isfinite(value) for values in logs.values() for value in values)


def test_round_trip_in_a_fresh_process(small, tmp_path):
    """Saved here, loaded there with what it was compiled with, and the loss is the same."""
    expected = {}
    for name, (model, x, y) in every_form(small).items():
        expected[name] = loss_of(model, x, y)
        model.save(tmp_path / f"{name}.keras")
        inputs = x if isinstance(x, list | tuple) else [x]
        arrays = {f"x{i}": value for i, value in enumerate(inputs)}
        if y is not None:
            targets = list(y.values())[::-1] if isinstance(y, dict) else [y]
            arrays |= {f"y{i}": value for i, value in enumerate(targets)}
        np.savez(tmp_path / f"{name}.npz", **arrays)
    code = f"""if True:
        import json, keras, numpy as np
        from pathlib import Path
        from custom_loss.model import output_is_loss, smoothed_crossentropy

        functions = {{f.__name__: f for f in (output_is_loss, smoothed_crossentropy)}}
        for path in sorted(Path({str(tmp_path)!r}).glob("*.keras")):
            model = keras.saving.load_model(path, custom_objects=functions)
            arrays = dict(np.load(path.with_suffix(".npz")))
            x, y = ([v for k, v in arrays.items() if k[0] == letter] for letter in "xy")
            x = tuple(x) if "triplet today" in path.stem else x if len(x) > 1 else x[0]
            if len(y) == 2:
                y = [dict(zip(("distance", "probabilities"), y))]
            logs = model.test_on_batch(x, y[0] if y else None, return_dict=True)
            print(json.dumps([path.stem, float(logs["loss"]), model.count_params()]))
    """
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert {name: pytest.approx(loss, rel=1e-5) for name, loss, _ in lines} == expected
    sizes = {name: size for name, _, size in lines}
    assert sizes["triplet"] == sizes["triplet today"], "the encoder must stay shared"


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_losses_are_finite_and_float32_in_mixed_precision(small, policy):
    keras.config.set_dtype_policy(policy)
    try:
        forms = every_form(small)
    finally:
        keras.config.set_dtype_policy("float32")
    plain = every_form(small)
    losses = {name: [loss_of(*forms[name]), loss_of(*plain[name])] for name in forms}
    for name, (model, x, y) in forms.items():
        assert losses[name][0] == pytest.approx(losses[name][1], rel=0.1, abs=0.02), name
        outputs = model.output.values() if name == "center" else [model(x)]
        assert {keras.backend.standardize_dtype(o.dtype) for o in outputs} == {"float32"}
        before = [ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
        assert np.isfinite(model.train_on_batch(x, y, return_dict=True)["loss"])
        after = [ops.convert_to_numpy(v) for v in model.trainable_variables]
        assert all(np.isfinite(value).all() for value in after)
        assert any((a != b).any() for a, b in zip(before, after, strict=True)), name


# --- A run ---
def test_flags_that_make_no_sense_are_one_line(tmp_path, error_of):
    flags = ["--smoke", "--run-dir", str(tmp_path / "run")]
    bad = ["--epochs 0", "--epsilon 1", "--batch-size 1", "--margin 0", "--margin nan"]
    bad += ["--learning-rate nan", "--center-weight inf"]
    for words in bad:
        assert "expected" in error_of(train.main, [*flags, *words.split()])
    assert "--faq is for" in error_of(train.main, [*flags, "--loss", "center", "--faq", "x.tsv"])
    assert "--data is for" in error_of(train.main, [*flags, "--loss", "triplet", "--data", "x.npz"])
    too_large = ["--loss", "smoothing", "--batch-size", "390"]
    assert "--batch-size 390: only" in error_of(train.main, [*flags, *too_large])
    assert not (tmp_path / "run").exists()


def test_record_of_a_run(smoke_run, assert_drawn):
    run_dir, record = smoke_run
    assert record == json.loads((run_dir / "record.json").read_text())
    assert record["row"] == "smoke, drawn digits v1 + FAQ v1"
    metrics = record["metrics"]
    for network in ("plain", "smoothing 0.1", "center 0.2"):
        assert 100 < metrics[f"accuracy, {network}"]["n"] < 180
        assert f"within / between, {network}" in metrics
    for kind in ("digits 0-6", "digits 7-9", "noise", "shuffled digits"):
        for network in ("plain", "smoothing 0.1"):
            assert 1 / 7 < metrics[f"mean confidence on {kind}, {network}"]["value"] < 1
            assert metrics[f"more than 90% sure of {kind}, {network}"]["n"] > 20
    for space in ("pixels", "plain", "smoothing 0.1", "center 0.2"):
        assert 20 < metrics[f"unseen digits, {space}"]["n"] < 100
    variants = [f"{d}, {n}" for d in ("Dense", "no Dense") for n in ("random", "hard")]
    for name in [*variants, "TF-IDF with the answers", "TF-IDF with the training questions"]:
        first, ten = (metrics[f"recall@{k}, {name}"] for k in (1, 10))
        assert first["n"] == 320 and first["value"] <= ten["value"]
    for metric in metrics.values():
        assert metric["low"] <= metric["value"] <= metric["high"]
    for name in record["pictures"]:
        assert_drawn(run_dir / name)
    assert len(record["pictures"]) == 3
    entries = {entry["model"]: entry for entry in record["history"]}
    assert {"loss", "active", "val_active", "val_loss"} < set(entries["Dense, hard"])
    assert {"accuracy", "val_accuracy", "val_loss"} < set(entries["center 2-D"])


def test_a_model_is_tested_at_its_best_validation_epoch(smoke_run):
    run_dir, record = smoke_run
    for name in ("plain", "smoothing"):
        model = keras.saving.load_model(run_dir / f"{name}-model.keras", compile=False)
        entries = [e for e in record["history"] if e["model"] == name]
        best = max(entry["val_accuracy"] for entry in entries)
        for split, count, expected in (
            ("valid", 100, best),
            (
                "test",
                200,
                record["metrics"][f"accuracy, {name}" + " 0.1" * (name != "plain")]["value"],
            ),
        ):
            pictures, labels = glyphs.load(split, count)
            pictures, labels = pictures[labels < 7, ..., None], labels[labels < 7]
            right = model.predict(pictures, verbose=0).argmax(-1) == labels
            assert right.mean() == pytest.approx(expected, abs=1e-6)


def test_a_killed_run_resumes_to_the_same_record(tmp_path, kill_in_second_epoch, assert_same_state):
    """kill -9 in the second epoch of the second network, then --resume."""
    flags = ["--smoke", "--loss", "smoothing", "--seed", "3", "--run-dir"]
    straight = train.main([*flags, str(tmp_path / "straight")])
    kill_in_second_epoch("custom_loss", [*flags, str(tmp_path / "killed")], "smoothing")
    assert not (tmp_path / "killed" / "record.json").exists()
    resumed = train.main([*flags, str(tmp_path / "killed"), "--resume"])
    assert resumed["resumed"]
    for name in ("history", "metrics", "data"):
        assert resumed[name] == straight[name]
    state = "smoothing-state.npz"
    assert_same_state(tmp_path / "straight" / state, tmp_path / "killed" / state)


# --- predict.py ---
def test_predict_without_arguments_answers_and_draws(smoke_run, capsys, assert_drawn):
    run_dir, _ = smoke_run
    lines = predict.main(["--run-dir", str(run_dir)])
    out = capsys.readouterr().out
    asked = [line for line in lines if "question" in line]
    assert len(asked) == 6 and all(line["question"] in out for line in asked)
    known = set(faq.answers())
    for line in asked:
        cosines = [cosine for _, cosine in line["answers"]]
        assert len(cosines) == 3 and cosines == sorted(cosines, reverse=True)
        assert abs(cosines[0]) <= 1.0001 and {a for a, _ in line["answers"]} <= known
        assert line["right"] in known
    assert len(lines) == 10
    assert_drawn(run_dir / "predictions.png")


def test_predict_in_a_fresh_process(smoke_run, tmp_path):
    run_dir, _ = smoke_run
    picture = glyphs.load("test", 1)[0][0]
    Image.fromarray(picture).save(tmp_path / "a.png")
    words = ["--run-dir", str(run_dir), "--json", "--ask", "手机怎么退", "开发票"]
    command = [sys.executable, "custom_loss/predict.py", *words, "--digit", tmp_path / "a.png"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second, third = map(json.loads, done.stdout.splitlines())
    assert first["question"] == "手机怎么退" and len(second["answers"]) == 3
    assert third["path"] == str(tmp_path / "a.png") and third["label"] in range(10)
    model = keras.saving.load_model(run_dir / "digits.keras", compile=False)
    with np.load(run_dir / "gallery.npz") as gallery:
        known, labels = model.predict(gallery["pictures"], verbose=0)[0], gallery["labels"]
    feature = model.predict(picture[None, ..., None], verbose=0)[0]
    distances = np.sqrt(((known - feature) ** 2).sum(-1))
    nearest = distances.argsort(kind="stable")[:5]
    assert [n["label"] for n in third["neighbours"]] == labels[nearest].tolist()
    near = labels[nearest].tolist()
    assert third["votes"] == max(map(near.count, near))
    assert third["label"] == next(x for x in near if near.count(x) == third["votes"])
    found = [n["distance"] for n in third["neighbours"]]
    np.testing.assert_allclose(found, distances[nearest], rtol=1e-3, atol=1e-4)


def test_what_cannot_be_asked_is_one_line(smoke_run, tmp_path, error_of):
    run_dir, _ = smoke_run
    run = ["--run-dir", str(run_dir)]
    assert "empty" in error_of(predict.main, [*run, "--ask", " "])
    assert "no known character" in error_of(predict.main, [*run, "--ask", "xyzzy"])
    (tmp_path / "text.png").write_text("not a picture")
    for name in ("text.png", "missing.png"):
        assert name in error_of(predict.main, [*run, "--digit", str(tmp_path / name)])
    Image.new("L", (50, 70), 255).save(tmp_path / "empty.png")
    assert "no digit" in error_of(predict.main, [*run, "--digit", str(tmp_path / "empty.png")])
    assert "no finished run" in error_of(predict.main, ["--run-dir", str(tmp_path)])
    (tmp_path / "record.json").write_text('{"experiment": "custom_loss"}')
    run = ["--run-dir", str(tmp_path)]
    assert "without --loss triplet" in error_of(predict.main, [*run, "--ask", "退货"])
    assert "knows no digits" in error_of(predict.main, [*run, "--digit", "a.png"])
    (tmp_path / "faq.json").write_text("{")
    assert "faq.json is missing or damaged" in error_of(predict.main, [*run, "--ask", "退货"])


def test_own_pictures_of_any_kind_become_mnists_kind(tmp_path):
    ink = np.asarray(glyphs.glyph("DejaVuSans", 5, 1).resize((200, 180)))
    dark = Image.fromarray(255 - ink)
    clear = Image.new("RGBA", dark.size, (0, 0, 0, 0))
    clear.paste((20, 20, 20, 255), mask=Image.fromarray(ink))
    deep = Image.fromarray((255 - ink).astype("uint16") * 256)
    ways = {"light.png": Image.fromarray(ink), "dark.png": dark, "rgb.jpg": dark.convert("RGB")}
    ways |= {"clear.png": clear, "deep.png": deep}
    for name, image in ways.items():
        image.save(tmp_path / name)
    read = [mnist.read_image(tmp_path / name).astype(float) for name in ways]
    for picture in read:
        assert picture.shape == (28, 28) and picture.max() > 200
        assert np.flatnonzero(picture.any(1)).size == 20 and np.abs(picture - read[0]).mean() < 8
    small = glyphs.load("test", 1)[0][0]
    for name, array in (("small.png", small), ("inverted.png", 255 - small)):
        Image.fromarray(array).save(tmp_path / name)
        assert np.array_equal(mnist.read_image(tmp_path / name), small)


@pytest.mark.parametrize("name", ["smoothing", "center", "triplet"])
def test_models_saved_by_an_older_version_still_load(name):
    """Saved with their losses when the classes stood inside functions (commit 1fae3ac)."""
    folder = ROOT / "tests" / "custom_loss" / "saved_by_1fae3ac"
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 6, 6, 1)).astype("int32")
    classes = (np.arange(6) % 4).astype("int32")
    questions = rng.integers(1, 20, (5, 6)).astype("int32")
    answers = rng.integers(1, 20, (5, 8)).astype("int32")
    inputs = {
        "smoothing": (images, classes),
        "center": ([images, classes], classes),
        "triplet": ((questions, answers), None),
    }[name]
    model = keras.saving.load_model(folder / f"{name}.keras")
    expected = json.loads((folder / "losses.json").read_text())[name]
    assert loss_of(model, *inputs) == pytest.approx(expected, rel=1e-5)
