"""Networks that read captchas, and the metric that counts a captcha only when all of it is right.

The file needs keras and numpy alone: copy it whole, or take one function out of it.

Every network maps uint8 images (batch, height, width, 3) to probabilities (batch, num_characters,
num_classes), so the loss "sparse_categorical_crossentropy", the metric `whole_accuracy` and the
function `decode` serve all three.

Posts: https://kexue.fm/archives/4503 (Xception), https://kexue.fm/archives/4138 (a small CNN)
"""

import keras
import numpy as np
from keras import layers, ops


# --- Networks ---
def build_columns(input_shape=(53, 129, 3), num_characters=4, num_classes=26, filters=24):
    """Ours: keeps the columns of the image, and each character attends to its own.

    A network that pools the whole image into one vector forgets where each letter stands. Here
    the convolutions shrink the height to nothing, but the width only by four. For each character
    an attention over the columns picks the features, and all characters share one classifier, so
    every letter seen teaches all positions.
    """
    inputs = keras.Input(input_shape)
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = convolution(x, filters, strides=2)
    x = layers.MaxPooling2D(2, padding="same")(x)
    x = residual_block(x, 2 * filters)
    x = residual_block(x, 4 * filters)
    x = residual_block(x, 4 * filters)
    x = layers.Permute((2, 1, 3))(x)  # (columns, height, channels)
    num_columns = x.shape[1]
    x = layers.Reshape((num_columns, -1))(x)
    x = layers.Dense(6 * filters, activation="relu")(x)
    # Each pair of column and character has its own weights: that is how a column knows its place.
    scores = layers.EinsumDense("btc,tcp->btp", (num_columns, num_characters), bias_axes="tp")(x)
    attention = layers.Softmax(axis=1)(scores)
    x = layers.Dot(axes=1)([attention, x])  # (batch, num_characters, channels)
    x = layers.Dropout(0.2)(x)
    outputs = layers.Dense(num_classes, activation="softmax")(x)
    return keras.Model(inputs, outputs)


def convolution(x, filters, strides=1):
    """A 3 x 3 convolution, batch normalization and ReLU."""
    x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.ReLU()(x)


def residual_block(x, filters):
    """Two convolutions, the second one added to the first, then half the height."""
    x = convolution(x, filters)
    x = layers.Add()([x, convolution(x, filters)])
    return layers.MaxPooling2D((2, 1), padding="same")(x)


def build_xception(input_shape=(53, 129, 3), num_characters=4, num_classes=26, weights=None):
    """The network of post 4503: Xception pooled to one vector, then a softmax per character.

    Args:
        weights: None, "imagenet" (as in the post), or the path of a weights file.
    """
    height = 50
    width = round(height * input_shape[1] / input_shape[0] / 10) * 10
    inputs = keras.Input(input_shape)
    x = layers.Resizing(height, width)(inputs)
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    # Given as input_tensor, an image may be smaller than the 71 x 71 that Xception asks for.
    backbone = keras.applications.Xception(
        include_top=False, weights=weights, input_tensor=x, pooling="avg"
    )
    if weights is None:
        # From scratch the moving statistics must keep up with the weights: with Keras' default of
        # 0.99 a short training learns, but reads at chance when it is used.
        for layer in backbone.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = 0.9
    heads = []
    for _ in range(num_characters):
        head = layers.Dropout(0.5)(backbone.output)
        heads.append(layers.Dense(num_classes, activation="softmax")(head))
    return keras.Model(inputs, ops.stack(heads, axis=1))


def build_cnn_2016(input_shape=(53, 129, 3), num_characters=4, num_classes=26):
    """The CNN of post 4138: four small convolutions, then a softmax per character.

    The heads have their own weights, because a shared head on this one vector would give the same
    answer four times. As in the post, ReLU follows the pooling and is left out after the first
    convolution.
    """
    inputs = keras.Input(input_shape)
    x = layers.Rescaling(-1 / 255, offset=1.0)(inputs)  # Dark strokes become large values.
    for block in range(4):
        x = layers.Conv2D(32, 3)(x)
        x = layers.MaxPooling2D(2)(x)
        if block > 0:
            x = layers.ReLU()(x)
    x = layers.Flatten()(x)
    heads = [layers.Dense(num_classes, activation="softmax")(x) for _ in range(num_characters)]
    return keras.Model(inputs, ops.stack(heads, axis=1))


BUILDERS = {"columns": build_columns, "xception": build_xception, "cnn2016": build_cnn_2016}


# --- Metric and decoder ---
def whole_accuracy(y_true, y_pred):
    """1 for each captcha whose characters are all right, else 0: shape (batch,).

    Args:
        y_true: classes (batch, num_characters).
        y_pred: probabilities (batch, num_characters, num_classes).
    """
    correct = ops.equal(ops.cast(y_true, "int32"), ops.argmax(y_pred, axis=-1))
    return ops.cast(ops.all(correct, axis=-1), "float32")


def decode(probabilities, alphabet):
    """What was read, and how sure the network is of it.

    Args:
        probabilities: an array (batch, num_characters, num_classes).
        alphabet: a string with one character per class.

    Returns:
        A list of texts, and their confidences (batch,): the product of the probabilities of the
        characters.
    """
    texts = ["".join(alphabet[i] for i in row) for row in probabilities.argmax(axis=-1)]
    confidence = probabilities.max(axis=-1).prod(axis=-1)
    return texts, confidence


# --- Starting from another network ---
def copy_weights(source, target, source_alphabet, target_alphabet):
    """Copies the weights of `source` that fit into `target`.

    In a classifier, the columns of those characters are copied that both alphabets hold; an upper
    case letter may start from the lower case one. Raises ValueError where the two networks do not
    have the same layers.
    """
    if [type(layer) for layer in source.layers] != [type(layer) for layer in target.layers]:
        raise ValueError("the two networks do not have the same layers")
    old_classes, new_classes = shared_classes(source_alphabet, target_alphabet)
    for old_layer, new_layer in zip(source.layers, target.layers, strict=True):
        is_dense = isinstance(new_layer, layers.Dense)
        is_classifier = is_dense and new_layer.units == len(target_alphabet)
        for old, new in zip(old_layer.weights, new_layer.weights, strict=True):
            if is_classifier and old.shape[:-1] == new.shape[:-1]:
                values = np.array(new)
                values[..., new_classes] = np.array(old)[..., old_classes]
                new.assign(values)
            elif old.shape == new.shape:
                new.assign(old)


def shared_classes(source_alphabet, target_alphabet):
    """The classes of the characters that both alphabets hold: in the source, in the target."""
    old_classes = []
    new_classes = []
    for new_class, character in enumerate(target_alphabet):
        for candidate in (character, character.lower()):
            if candidate in source_alphabet:
                old_classes.append(source_alphabet.index(candidate))
                new_classes.append(new_class)
                break
    return old_classes, new_classes
