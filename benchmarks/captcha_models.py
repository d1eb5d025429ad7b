"""Three networks on the images of the `captcha` package, each trained for the same minutes.

    python benchmarks/captcha_models.py              # 4 minutes of training each
    python benchmarks/captcha_models.py --minutes 15

36 classes, 4 characters, 64 x 128 pixels, as widely used to compare such networks. The peers are a
plain CNN with four heads and a CNN + GRU + CTC, written for this page. All see the same images,
batches and optimizer; only the minutes of `fit` are counted. Last line: `accuracy ratio: X` (ours
over the better peer, whole captchas of 2,000 that were never trained on).
"""

import argparse
import multiprocessing
import string
import time
from concurrent.futures import ProcessPoolExecutor

import keras
import numpy as np
from captcha.image import ImageCaptcha
from keras import layers, ops

from captcha_xception.model import build_columns
from common.batches import ShuffledBatches
from common.metrics import proportion

ALPHABET = string.digits + string.ascii_uppercase
SHAPE = (64, 128, 3)
NUM_TEST = 2000
PIECE = 250  # Images that a process draws at once.


# --- Images ---
def draw(seed):
    """Images of the package and their labels. Its noise cannot be seeded: each call differs."""
    labels = np.random.default_rng(seed).integers(len(ALPHABET), size=(PIECE, 4))
    drawer = ImageCaptcha(width=SHAPE[1], height=SHAPE[0])
    images = []
    for row in labels:
        text = "".join(ALPHABET[i] for i in row)
        images.append(np.asarray(drawer.generate_image(text).convert("RGB")))
    return np.stack(images), labels.astype("int32")


def draw_all(num_train):
    """Training and test images with their labels."""
    num_pieces = (num_train + NUM_TEST) // PIECE
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        pieces = list(pool.map(draw, range(num_pieces)))
    images = np.concatenate([piece[0] for piece in pieces])
    labels = np.concatenate([piece[1] for piece in pieces])
    train = (images[:-NUM_TEST], labels[:-NUM_TEST])
    test = (images[-NUM_TEST:], labels[-NUM_TEST:])
    return train, test


# --- Peers ---
def convolutions(inputs):
    """The usual stack: two 3x3 convolutions with batch normalization, then pooling, four times."""
    x = layers.Rescaling(1 / 255)(inputs)
    for filters, pool in ((32, (2, 2)), (64, (2, 2)), (128, (2, 1)), (128, (2, 1))):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.BatchNormalization(momentum=0.9)(x)
            x = layers.ReLU()(x)
        x = layers.MaxPooling2D(pool)(x)
    return x


def build_four_heads():
    inputs = keras.Input(SHAPE)
    x = convolutions(inputs)
    x = layers.MaxPooling2D((1, 2))(x)
    x = layers.Flatten()(x)
    heads = [layers.Dense(len(ALPHABET), activation="softmax")(x) for _ in range(4)]
    return keras.Model(inputs, ops.stack(heads, axis=1))


def build_ctc():
    """Columns as time steps; class 0 is CTC's blank, so the characters start at 1."""
    inputs = keras.Input(SHAPE)
    x = convolutions(inputs)
    x = layers.Permute((2, 1, 3))(x)
    x = layers.Reshape((x.shape[1], -1))(x)
    x = layers.Dense(128, activation="relu")(x)
    x = layers.Bidirectional(layers.GRU(64, return_sequences=True))(x)
    return keras.Model(inputs, layers.Dense(len(ALPHABET) + 1)(x))


def build_ours():
    return build_columns(SHAPE, num_characters=4, num_classes=len(ALPHABET))


def read_heads(network, images):
    return network.predict(images, batch_size=256, verbose=0).argmax(-1)


def read_ctc(network, images):
    """Greedy decoding: repeats merged, blanks dropped; fewer or more than four is an error (-1)."""
    rows = []
    for steps in network.predict(images, batch_size=256, verbose=0).argmax(-1):
        starts = np.append(True, steps[1:] != steps[:-1])
        characters = steps[starts & (steps > 0)] - 1
        if len(characters) != 4:
            characters = np.full(4, -1)
        rows.append(characters)
    return np.array(rows)


# --- Training ---
class StopAfter(keras.callbacks.Callback):
    """Ends `fit` after so many seconds, counted from the first epoch, which compiles."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds
        self.start = None

    def on_epoch_end(self, epoch, logs=None):
        if self.start is None:
            self.start = time.monotonic()
        self.model.stop_training = time.monotonic() - self.start > self.seconds


def train(network, loss, images, labels, args):
    network.compile(keras.optimizers.Adam(1e-3), loss)
    network.fit(
        ShuffledBatches((images, labels), 64, args.seed),
        steps_per_epoch=10,
        epochs=10**6,
        shuffle=False,
        verbose=0,
        callbacks=[StopAfter(args.minutes * 60)],
    )


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--num-train", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    (x_train, y_train), (x_test, y_test) = draw_all(args.num_train)
    crossentropy = "sparse_categorical_crossentropy"
    # The CTC network counts its characters from 1.
    systems = {
        "four heads": (build_four_heads, crossentropy, read_heads, y_train),
        "CNN + GRU + CTC": (build_ctc, keras.losses.CTC(), read_ctc, y_train + 1),
        "ours": (build_ours, crossentropy, read_heads, y_train),
    }
    accuracies = {}
    for name, (build, loss, read, labels) in systems.items():
        keras.utils.set_random_seed(args.seed)
        network = build()
        train(network, loss, x_train, labels, args)
        hits = (read(network, x_test) == y_test).all(axis=1).sum()
        accuracy = proportion(hits, len(y_test))
        accuracies[name] = accuracy["value"]
        seen = int(network.optimizer.iterations) * 64
        print(
            f"{name}: {accuracy['value']:.1%} ({accuracy['low']:.1%} to {accuracy['high']:.1%}), "
            f"{seen:,} images seen, {network.count_params():,} parameters",
            flush=True,
        )
    peer = max(accuracies["four heads"], accuracies["CNN + GRU + CTC"])
    ratio = float("inf")
    if peer > 0:
        ratio = accuracies["ours"] / peer
    print(f"accuracy ratio: {ratio:.3f}")


if __name__ == "__main__":
    main()
