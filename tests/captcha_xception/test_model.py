"""The networks against counts and loops, and starting from another network."""

import keras
import numpy as np
import pytest
from keras import ops

from captcha_xception.model import (
    build_cnn_2016,
    build_columns,
    build_xception,
    copy_weights,
    whole_accuracy,
)
from data import captchas


def test_parameter_counts_of_the_posts():
    assert build_cnn_2016().count_params() == 48_712
    model = build_xception()
    assert model.count_params() == 21_074_576
    [resizing] = [x for x in model.layers if isinstance(x, keras.layers.Resizing)]
    assert (resizing.height, resizing.width) == (50, 120)


def test_weights_of_a_plain_xception_fit(tmp_path):
    shape = {"include_top": False, "input_shape": (71, 71, 3), "pooling": "avg"}
    plain = keras.applications.Xception(weights=None, **shape)
    plain.save_weights(tmp_path / "x.weights.h5")
    model = build_xception(weights=str(tmp_path / "x.weights.h5"))
    expected = plain.get_weights()
    assert len(expected) == 234
    assert all(map(np.array_equal, model.get_weights()[:234], expected))


@pytest.mark.parametrize("build", [build_cnn_2016, build_columns])
def test_output_is_a_distribution_per_character(build):
    model = build(input_shape=(53, 150, 3), num_characters=6, num_classes=18)
    output = model.predict(np.zeros((2, 53, 150, 3), "uint8"), verbose=0)
    assert output.shape == (2, 6, 18)
    assert np.allclose(output.sum(-1), 1, atol=1e-5)


def test_cnn_2016_equals_a_numpy_loop():
    model = build_cnn_2016()
    image = captchas.draw_captcha(1, 1)[0]
    x, convolutions = 1 - image / 255, [w for w in model.layers if "conv" in w.name]
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
    assert np.abs(model.predict(image[None], verbose=0)[0] - expected).max() < 1e-5


def test_columns_learns_32_captchas_by_heart():
    keras.utils.set_random_seed(0)
    x, y = captchas.draw_many(3, "plain", range(32))
    model = build_columns(filters=16)
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=32, epochs=80, verbose=0)
    probabilities = model.predict(x, verbose=0)
    assert ops.convert_to_numpy(whole_accuracy(y, probabilities)).mean() > 0.9


def test_init_takes_over_all_but_what_does_not_fit(smoke_run):
    source = keras.saving.load_model(smoke_run[0] / "model.keras", compile=False)
    model = build_columns(num_characters=6, num_classes=3)
    copy_weights(source, model, captchas.ALPHABET, "CZ7")
    assert np.array_equal(model.layers[2].get_weights()[0], source.layers[2].get_weights()[0])
    before, after = (np.array(m.layers[-1].kernel) for m in (source, model))
    assert np.array_equal(after[:, :2], before[:, [2, 25]])


def test_init_maps_every_head():
    one, two = (build_cnn_2016(num_classes=4) for _ in range(2))
    copy_weights(one, two, "abcd", "dcba")
    heads = [[h for h in m.layers if isinstance(h, keras.layers.Dense)] for m in (one, two)]
    for old, new in zip(*heads, strict=True):
        assert np.array_equal(np.array(new.kernel), np.array(old.kernel)[:, ::-1])
    other = build_columns(num_classes=4)
    with pytest.raises(ValueError, match="same layers"):
        copy_weights(one, other, "abcd", "abcd")
