"""Dropout in NumPy, a small network with dropout, and its predictions with dropout left on.

The file needs keras and numpy alone: copy it whole, or take one function out of it.

Post: https://kexue.fm/archives/4521
"""

import itertools

import keras
import numpy as np
from keras import layers, ops


# --- Dropout in NumPy ---
def dropout(x, rate, noise_shape=None, rng=None, mask=None):
    """Sets a fraction `rate` of x to zero and multiplies the rest by 1 / (1 - rate).

    The factor keeps the mean of x. A rate of 0.6 keeps 40% of the values and multiplies them by
    2.5. (In 2017 TensorFlow's own argument was the fraction that is kept, while Keras' argument
    was the fraction that is dropped.)

    Args:
        x: an array of any shape.
        rate: the fraction that is dropped, 0 <= rate < 1.
        noise_shape: the shape of the mask; default: that of x. Along an axis where it is 1, all
            entries of x are dropped or kept together. For sentences of shape (sentence, word,
            dimension), (num_sentences, num_words, 1) drops whole words.
        rng: a NumPy Generator that draws the mask.
        mask: booleans of the shape `noise_shape`, True where x is kept; given instead of drawn.

    Returns:
        An array of the shape of x.

    Raises:
        ValueError: an illegal rate or noise shape, or a mask of another shape.
    """
    x = np.asarray(x)
    if not 0 <= rate < 1:
        raise ValueError(f"dropout rate {rate}: expected 0 <= rate < 1")
    if noise_shape is None:
        noise_shape = x.shape
    noise_shape = tuple(noise_shape)
    if not is_legal_noise_shape(noise_shape, x.shape):
        raise ValueError(
            f"noise shape {noise_shape} for data of shape {x.shape}: expected {x.ndim} entries, "
            "each 1 or the size of that axis"
        )
    if mask is None:
        if rng is None:
            rng = np.random.default_rng()
        mask = rng.random(noise_shape) >= rate
    if np.shape(mask) != noise_shape:
        raise ValueError(f"mask of shape {np.shape(mask)}: expected the noise shape {noise_shape}")
    return x * mask / (1 - rate)  # NumPy repeats the mask along the axes of size 1.


def is_legal_noise_shape(noise_shape, shape):
    """Whether data of this shape can have this noise shape: each entry is 1 or the axis' size."""
    if len(noise_shape) != len(shape):
        return False
    return all(entry in (1, size) for entry, size in zip(noise_shape, shape, strict=True))


def legal_noise_shapes(shape):
    """Yields every noise shape that data of this shape can have: eight for (3, 4, 5)."""
    choices = []
    for size in shape:
        if size == 1:
            choices.append((1,))
        else:
            choices.append((size, 1))
    yield from itertools.product(*choices)


# --- A network with dropout ---
def build_model(rate=0.5, noise_shape=None, input_shape=(28, 28), num_classes=10, filters=64):
    """Reads an image as a sentence: each row is a word, and convolutions run along the words.

    Its features (batch, word, channel) have the axes of the post's text classifier, so a noise
    shape of (None, None, 1) drops whole words and (None, 1, None) whole channels.

    Args:
        rate: the fraction that both dropout layers drop.
        noise_shape: of both dropout layers; None stands for the size of an axis.
        input_shape: (height, width) of grey images with values from 0 to 255.

    Returns:
        A model that maps images (batch, height, width) to probabilities (batch, num_classes).
    """
    inputs = keras.Input(input_shape)
    x = layers.Rescaling(1 / 255)(inputs)
    for num_channels in (filters, 2 * filters):
        x = layers.Conv1D(num_channels, 5, padding="same", activation="relu")(x)
        x = layers.Dropout(rate, noise_shape=noise_shape)(x)
        x = layers.MaxPooling1D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(2 * filters, activation="relu")(x)
    outputs = layers.Dense(num_classes, activation="softmax")(x)
    return keras.Model(inputs, outputs)


# --- Prediction with dropout on ---
def monte_carlo(model, images, passes=100, training=True, batch_size=1000):
    """Probabilities of many random passes, each with dropout on.

    Their mean over the first axis is the prediction, their spread its uncertainty. Every layer
    runs as in training, which is right for dropout but wrong for batch normalization.

    Args:
        model: a Keras model that returns probabilities (batch, classes).
        images: the inputs, (n, ...).
        passes: how many random passes.
        training: False turns dropout off; then all passes are the same plain prediction.

    Returns:
        An array (passes, n, classes).
    """
    all_passes = []
    for _ in range(passes):
        batches = []
        for start in range(0, len(images), batch_size):
            batch = model(images[start : start + batch_size], training=training)
            batches.append(ops.convert_to_numpy(batch))
        all_passes.append(np.concatenate(batches))
    return np.stack(all_passes)
