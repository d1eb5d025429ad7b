"""The network and its heads, losses, pairs, the blend, the optimizer; a model that was saved."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

from dog_finetune import features, model, stages, train

SAVED = Path(__file__).parent / "saved_by_1fae3ac"


# --- Batches and blend ---
def test_pairs_are_distinct_classes_twice():
    labels = np.repeat(np.arange(30), np.arange(2, 32))
    rng, counts = np.random.default_rng(0), np.zeros(30)
    for _ in range(400):
        rows = model.sample_pairs(labels, rng, num_classes=4)
        assert len(set(rows)) == 8
        classes, times = np.unique(labels[rows], return_counts=True)
        assert len(classes) == 4 and set(times) == {2}
        counts[classes] += 1
    assert counts[:10].sum() < counts[10:20].sum() < counts[20:].sum()
    assert len(model.sample_pairs(np.array([0, 1, 1]), rng)) == 4, "few classes, one image"


def test_blend_equals_a_loop():
    rng = np.random.default_rng(0)
    main, auxiliary = rng.dirichlet(np.ones(3), (2, 50))
    labels = rng.integers(3, size=50)
    best, chosen = -1, None
    for percent in range(101):
        p = percent / 100 * main + (1 - percent / 100) * auxiliary
        if (right := (p.argmax(1) == labels).sum()) >= best:
            best, chosen = right, percent / 100
    assert model.choose_blend(main, auxiliary, labels) == pytest.approx(chosen)


# --- Heads and losses ---
def test_parameters_of_the_posts_heads():
    heads = model.build_heads()
    assert heads.count_params() == 2 * 131_136 + 6_500 + 204_900


def test_heads_equal_numpy():
    heads = model.build_heads(5, 3, units=4)
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
    plain = model.build_heads(5, 3, gated=False, auxiliary=False)
    assert set(plain.output) == {"main", "features"} and plain.count_params() == 18


def test_the_loss_is_the_weighted_sum():
    args = train.parse_args(["--image-size", "32"])
    heads, centres = model.build_heads(5, 3, units=4), layers.Embedding(3, 4)
    training_model, outputs = stages.compile_heads(args, stages.Network(None, None, heads, centres))
    assert outputs == ["main", "auxiliary", "distance"]
    x, labels = np.random.default_rng(0).normal(size=(6, 5)).astype("f4"), np.arange(6) % 3
    inputs, truths = features.Targets(labels, 3, outputs).join_all(x)
    loss = training_model.evaluate(inputs, truths, batch_size=6, verbose=0, return_dict=True)
    y = {name: ops.convert_to_numpy(value) for name, value in heads(x).items()}
    rows = np.arange(6)
    entropy = [-np.log(y[head][rows, labels]).mean() for head in ("main", "auxiliary")]
    squares = (
        np.square(y["features"] - ops.convert_to_numpy(centres.embeddings)[labels]).sum(1).mean()
    )
    expected = entropy[0] + 0.25 * entropy[1] + 0.25 * squares
    assert loss["loss"] == pytest.approx(expected, rel=1e-4)


# --- Backbone ---
def test_last_blocks_of_xception_by_position():
    stem, tail = model.build_backbone("xception", 71, None)
    assert tail.output_shape == (None, 2048) and stem.output.shape[-1] == 728
    names = [layer.name for layer in tail.layers]
    assert any("block13" in name for name in names) and not any("block12" in n for n in names)
    total = stem.count_params() + tail.count_params()
    assert total == 20_861_480 and 6.7e6 < tail.count_params() < 6.9e6
    assert not stem.trainable_weights
    norms = [x for x in tail.layers if isinstance(x, layers.BatchNormalization)]
    assert len(norms) == 5 and not any(x.trainable for x in norms)


def test_a_mobile_net_has_its_own_scaling_and_fixed_statistics(tmp_path, make_image):
    stem, tail = model.build_backbone("mobilenetv2-0.35", 32, None)
    assert "block_15_add" in [x.name for x in tail.layers] and len(stem.output.shape) == 4
    shape = {"include_top": False, "weights": None, "input_shape": (32, 32, 3), "alpha": 0.35}
    plain = keras.applications.MobileNetV2(pooling="avg", **shape)
    plain.save_weights(tmp_path / "plain.weights.h5")
    weights = str(tmp_path / "plain.weights.h5")
    stem, tail = model.build_backbone("mobilenetv2-0.35", 32, weights)
    x = np.stack([make_image(seed, 32) for seed in range(4)])
    expected = plain.predict(x / 127.5 - 1, verbose=0)
    maps = stem.predict(x, verbose=0)
    assert np.allclose(tail.predict(maps, verbose=0), expected, atol=1e-4)

    norms = [y for y in tail.layers if isinstance(y, layers.BatchNormalization)]
    before = [np.array(y.moving_mean) for y in norms]
    whole = keras.Sequential([tail, layers.Dense(2)])
    whole.compile("sgd", "mse", run_eagerly=True)
    whole.fit(maps, np.ones((4, 2)), verbose=0)
    for layer, mean in zip(norms, before, strict=True):
        assert np.array_equal(np.array(layer.moving_mean), mean)


def test_a_network_of_your_own_is_cut_likewise():
    def build(include_top, weights, input_tensor):
        return model.small_network(input_tensor, weights)

    stem, tail = model.build_backbone(build, 32, None)
    same_stem, same_tail = model.build_backbone("small", 32, None)
    assert stem.count_params() == same_stem.count_params()
    assert tail.count_params() == same_tail.count_params()


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
    assert expected in error_of(stages.build_network, args, 3)


# --- Optimizer ---
def test_layers_learn_at_their_own_rates(tiny_backbone):
    stem, tail = tiny_backbone(16)
    heads = model.build_heads(8, 3, gated=False, auxiliary=False)
    training_model = model.build_training_model([stem, tail, heads])
    optimizer = model.decaying_adam(training_model, 1.0, 0.5, blocks=2, num_steps=10)
    names = [v.path for v in training_model.trainable_variables]
    assert len(optimizer.rates) == len(names) == 4 and optimizer.rates[2:] == [1.0, 1.0]
    assert optimizer.rates[0] == optimizer.rates[1] < 1
    variables = [keras.Variable(np.zeros(2, "f4")) for _ in range(2)]
    plain = model.LayerwiseAdam(0.1, rates=[1.0, 0.5])
    plain.build(variables)
    plain.apply([np.ones(2, "f4"), np.ones(2, "f4")])
    assert np.allclose(variables[0], -0.1) and np.allclose(variables[1], -0.05)


# --- Saved by commit 1fae3ac: what it printed then ---
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), "uint8")
MAIN = [
    [0.33806169033050537, 0.3342186212539673, 0.3277197480201721],
    [0.33930763602256775, 0.3336731493473053, 0.32701924443244934],
]
AUXILIARY = [
    [0.3144955337047577, 0.28866174817085266, 0.39684274792671204],
    [0.3163568675518036, 0.28513431549072266, 0.39850884675979614],
]
DISTANCE = [[0.027591528370976448], [0.008840171620249748]]


def test_a_classifier_that_was_saved_says_the_same():
    classifier = keras.saving.load_model(SAVED / "model.keras", compile=False)
    found = classifier.predict(IMAGES, verbose=0)
    assert np.allclose(found["main"][:2], MAIN, atol=1e-5)
    assert np.allclose(found["auxiliary"][:2], AUXILIARY, atol=1e-5)


def test_a_training_model_that_was_saved_keeps_its_optimizer():
    known = {"output_is_loss": model.output_is_loss}
    training_model = keras.saving.load_model(SAVED / "training.keras", custom_objects=known)
    inputs = {"x": IMAGES, "target": np.arange(6) % 3}
    found = training_model.predict(inputs, verbose=0)
    assert np.allclose(found["main"][:2], MAIN, atol=1e-5)
    assert np.allclose(found["distance"][:2], DISTANCE, atol=1e-5)
    optimizer = training_model.optimizer
    assert type(optimizer) is model.LayerwiseAdam and int(optimizer.iterations) == 3
    assert optimizer.rates == pytest.approx(model.layerwise_rates(training_model, 0.8, 2))
    again = model.LayerwiseAdam.from_config(optimizer.get_config())
    assert again.rates == optimizer.rates and again.use_ema
