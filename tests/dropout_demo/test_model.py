"""Dropout in NumPy and in Keras is one thing; the network and its random passes."""

import ast
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

from data import glyphs
from dropout_demo import model
from dropout_demo.model import build_model, dropout, legal_noise_shapes, monte_carlo

LEGAL = {(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 5), (1, 4, 1), (3, 1, 1), (1, 1, 1)}


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
    out = dropout(np.array([1.0, 2, 3, 4, 5]), 0.6, mask=mask)
    np.testing.assert_allclose(out, [2.5, 0, 0, 10, 0], rtol=1e-15)


@pytest.mark.parametrize("noise_shape", sorted(LEGAL))
@pytest.mark.parametrize("rate", [0.25, 0.5, 0.6])
def test_numpy_equals_keras_where_the_mask_is_given(rate, noise_shape):
    x = np.random.default_rng(1).normal(size=(3, 4, 5)).astype("float32")
    for seed in range(5):
        theirs = layer_output(x, rate, noise_shape, seed=seed)
        mask = (theirs != 0)[tuple(slice(n) for n in noise_shape)]
        ours = dropout(x, rate, noise_shape, mask=mask)
        assert ours.dtype == np.float32
        # 1 / (1 - rate) is a power of two for 0.5; else the last bit may be rounded.
        np.testing.assert_allclose(ours, theirs, rtol=0 if rate == 0.5 else 3e-7)


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8])
def test_drawn_masks_agree_in_fraction_mean_and_variance(ones, rate):
    """200,000 values: the tolerances are five standard errors."""
    n, ratio = ones.size, rate / (1 - rate)
    outputs = [dropout(ones, rate, rng=np.random.default_rng(0)), layer_output(ones, rate)]
    for out in outputs:
        kept = out[out != 0]
        assert abs(kept.size / n - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / n)
        assert abs(out.mean() - 1) < 5 * np.sqrt(ratio / n)
        # For ones, the variance follows from the fraction kept, p: p (1 - p) / (1 - rate)^2.
        slope = abs(2 * rate - 1) / (1 - rate) ** 2
        allowed = 5 * slope * np.sqrt(rate * (1 - rate) / n) + 5 * ratio / n**0.75
        assert abs(out.var() - ratio) < allowed
        np.testing.assert_allclose(kept, 1 / (1 - rate), rtol=1e-6)


def test_noise_shape_of_words_drops_a_fraction_of_the_words():
    x = np.ones((100, 200, 8), "float32")
    drawn = dropout(x, 0.3, (100, 200, 1), np.random.default_rng(0))
    for out in (drawn, layer_output(x, 0.3, (None, None, 1))):
        words = (out != 0).mean(-1)
        assert set(np.unique(words)) == {0, 1}
        assert abs(words.mean() - 0.7) < 5 * np.sqrt(0.21 / words.size)


def test_the_eight_legal_noise_shapes():
    shapes = list(legal_noise_shapes((3, 4, 5)))
    assert len(shapes) == 8 and set(shapes) == LEGAL
    assert list(legal_noise_shapes((1, 2))) == [(1, 2), (1, 1)]


@pytest.mark.parametrize("noise_shape", sorted(LEGAL))
def test_entries_along_an_axis_of_size_1_share_one_mask(noise_shape):
    """For each axis: constant where the noise shape is 1, and else some mask that is not."""
    varies = np.zeros(3, bool)
    for seed in range(20):
        drawn = dropout(np.ones((3, 4, 5)), 0.5, noise_shape, np.random.default_rng(seed))
        theirs = layer_output(np.ones((3, 4, 5), "float32"), 0.5, noise_shape, seed=seed)
        for out in (drawn, theirs):
            spread = [np.ptp(out, axis=axis).any() for axis in range(3)]
            assert not any(s and n == 1 for s, n in zip(spread, noise_shape, strict=True))
        varies |= spread
    assert varies.tolist() == [n > 1 for n in noise_shape]


@pytest.mark.parametrize("noise_shape", [(2, 4, 5), (3, 4), (3, 4, 5, 1), (0, 4, 5), (5, 4, 3)])
def test_illegal_noise_shapes_are_refused(noise_shape):
    with pytest.raises(ValueError, match=r"noise shape .*shape \(3, 4, 5\): expected 3 entries"):
        dropout(np.ones((3, 4, 5)), 0.5, noise_shape)


def test_type_of_the_data():
    """Half-precision stays what it is; whole numbers become fractions, as they must."""
    mask = np.array([True, False])
    for kind, expected in (("float16", "float16"), ("float32", "float32"), ("uint8", "float64")):
        out = dropout(np.array([3, 5], kind), 0.5, mask=mask)
        assert out.dtype == expected and out.tolist() == [6, 0]


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan")])
def test_illegal_rates_are_refused(rate):
    with pytest.raises(ValueError, match="expected 0 <= rate < 1"):
        dropout(np.ones(3), rate)


def test_inference_is_the_identity(ones):
    assert np.array_equal(layer_output(ones, 0.8, training=False), ones)
    assert np.array_equal(dropout(ones, 0), ones)
    network = build_model(0.8)
    x = glyphs.load("valid", 20)[0]
    plain = monte_carlo(network, x, passes=2, training=False)
    without = build_model(0)
    without.set_weights(network.get_weights())
    assert np.array_equal(plain[0], plain[1])
    np.testing.assert_allclose(plain[0], monte_carlo(without, x, 1)[0], atol=1e-6)


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


def test_the_file_can_be_copied_alone():
    """It imports keras, numpy and the standard library, and runs where nothing else of ours is."""
    source = Path(model.__file__).read_text(encoding="utf-8")
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert imported == {"itertools", "keras", "numpy"}
    copy = {}
    exec(source, copy)
    x = glyphs.load("valid", 4)[0]
    passes = copy["monte_carlo"](copy["build_model"](), x, passes=2)
    assert passes.shape == (2, 4, 10)
    assert len(list(copy["legal_noise_shapes"]((3, 4, 5)))) == 8
    assert copy["dropout"](x, 0.5, (4, 1, 28)).shape == x.shape


@pytest.mark.parametrize("noise_shape", [None, (None, None, 1), (None, 1, None), (1, None, None)])
def test_noise_shapes_of_the_network_share_the_mask(noise_shape):
    network = build_model(0.5, noise_shape)
    dropped = [layer for layer in network.layers if isinstance(layer, layers.Dropout)]
    assert [layer.output.shape[1:] for layer in dropped] == [(28, 64), (28 // 2, 128)]
    for layer in dropped:
        out = ops.convert_to_numpy(layer(np.ones((6, *layer.output.shape[1:])), training=True))
        shared = [not np.ptp(out, axis=axis).any() for axis in range(3)]
        assert shared == [n == 1 for n in noise_shape or (None,) * 3]


def test_monte_carlo_draws_a_mask_for_each_pass():
    x = glyphs.load("valid", 30)[0]
    keras.utils.set_random_seed(0)
    passes = monte_carlo(build_model(0.5), x, passes=3, batch_size=7)
    assert passes.shape == (3, 30, 10)
    np.testing.assert_allclose(passes.sum(-1), 1, rtol=1e-5)
    assert not np.array_equal(passes[0], passes[1])
    keras.utils.set_random_seed(0)
    again = monte_carlo(build_model(0.5), x, passes=3, batch_size=7)
    np.testing.assert_array_equal(again, passes)


def test_a_model_saved_by_an_earlier_commit_still_loads():
    """probabilities.json holds what commit 1fae3ac got for the first three test digits."""
    saved = Path(__file__).parent / "saved_by_1fae3ac"
    network = keras.saving.load_model(saved / "model.keras", compile=False)
    images, _ = glyphs.load("test", 3)
    [plain] = monte_carlo(network, images, passes=1, training=False)
    expected = json.loads((saved / "probabilities.json").read_text())
    np.testing.assert_allclose(plain, expected, rtol=2e-4, atol=1e-6)
    passes = monte_carlo(network, images, passes=20)
    assert np.ptp(passes, axis=0).max() > 0.05  # Its dropout is still on in training.
