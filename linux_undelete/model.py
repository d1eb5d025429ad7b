"""A small network that says what kind of text a block of bytes holds.

The file needs keras and numpy alone: copy it whole, or take one function out of it.

Post: https://kexue.fm/archives/4491 finds a deleted text with grep and has no network. This one
names the kinds of the texts on a disk where no phrase is remembered.
"""

import keras
import numpy as np
from keras import layers


def build_model(num_kinds=10, block_size=4096, embedding_dim=8, filters=32):
    """From bytes to vectors, to patterns of 8 and 20 bytes, to their maxima and means, to a kind.

    Input: uint8 (batch, block_size). Output: probabilities (batch, num_kinds).
    """
    inputs = keras.Input((block_size,), dtype="uint8")
    x = layers.Embedding(256, embedding_dim)(inputs)
    x = layers.Conv1D(filters, 8, strides=4, activation="relu")(x)
    x = layers.Conv1D(2 * filters, 4, strides=4, activation="relu")(x)
    x = layers.Concatenate()([layers.GlobalMaxPooling1D()(x), layers.GlobalAveragePooling1D()(x)])
    x = layers.Dense(2 * filters, activation="relu")(x)
    # With its whole noise shape given, Dropout on torch draws from a state that is saved with the
    # model, so that a resumed run continues exactly.
    x = layers.Dropout(0.2, noise_shape=(None, None))(x)
    return keras.Model(inputs, layers.Dense(num_kinds, activation="softmax")(x))


def classify_blocks(model, blocks, batch_size=256):
    """Probabilities (n, kinds) of uint8 blocks (n, block_size); kind 0 is "other": not text."""
    blocks = np.asarray(blocks, "uint8")
    if len(blocks) == 0:
        return np.zeros((0, model.output_shape[-1]), "float32")
    return model.predict(blocks, batch_size=batch_size, verbose=0)
