"""Three readers on the pictures of the `captcha` package, each trained for the same minutes.

    python benchmarks/captcha_models.py              # 4 minutes of training each
    python benchmarks/captcha_models.py --minutes 15

36 classes, 4 characters, 64 x 128 pixels, as widely used to compare such models. The peers are
a plain CNN with four heads and a CNN + GRU + CTC, written for this page. All see the same
pictures, batches and optimizer; only the minutes of fit are counted. Last line:
`accuracy ratio: X` (ours over the better peer, whole captchas of 2,000 never trained on).
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

from captcha_xception.train import batches, build_columns
from common.table import proportion

ALPHABET = string.digits + string.ascii_uppercase
SHAPE = (64, 128, 3)


def draw(seed, count=250):
    """Pictures of the package and their labels. Its noise cannot be seeded: each call differs."""
    labels = np.random.default_rng(seed).integers(len(ALPHABET), size=(count, 4))
    drawer = ImageCaptcha(width=SHAPE[1], height=SHAPE[0])
    texts = ["".join(ALPHABET[i] for i in row) for row in labels]
    pictures = [np.asarray(drawer.generate_image(text).convert("RGB")) for text in texts]
    return np.stack(pictures), labels.astype("int32")


def convolutions(inputs, widths=(32, 64, 128, 128)):
    """The usual stack: two 3x3 convolutions with batch normalization, then pooling, four times."""
    x = layers.Rescaling(1 / 255)(inputs)
    for filters in widths:
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.MaxPooling2D((2, 2) if filters < 128 else (2, 1))(x)
    return x


def build_four_heads():
    inputs = keras.Input(SHAPE)
    x = layers.Flatten()(layers.MaxPooling2D((1, 2))(convolutions(inputs)))
    heads = [layers.Dense(len(ALPHABET), activation="softmax")(x) for _ in range(4)]
    return keras.Model(inputs, ops.stack(heads, axis=1))


def build_ctc():
    """Columns as time steps; class 0 is the blank, so the characters start at 1."""
    inputs = keras.Input(SHAPE)
    x = layers.Permute((2, 1, 3))(convolutions(inputs))
    x = layers.Reshape((x.shape[1], -1))(x)
    x = layers.Dense(128, activation="relu")(x)
    x = layers.Bidirectional(layers.GRU(64, return_sequences=True))(x)
    return keras.Model(inputs, layers.Dense(len(ALPHABET) + 1)(x))


def read_heads(model, pictures):
    return model.predict(pictures, batch_size=256, verbose=0).argmax(-1)


def read_ctc(model, pictures):
    """Greedy: repeats merged, blanks dropped; fewer or more than four is a miss (-1)."""
    rows = []
    for steps in model.predict(pictures, batch_size=256, verbose=0).argmax(-1):
        merged = [s - 1 for i, s in enumerate(steps) if s > 0 and (i == 0 or s != steps[i - 1])]
        rows.append(merged if len(merged) == 4 else [-1] * 4)
    return np.array(rows)


def stop_after(seconds):
    """A callback that ends fit; the clock starts after the first epoch, which compiles."""
    start = []

    def check(epoch, logs):
        start.append(time.monotonic())
        callback.model.stop_training = start[-1] - start[0] > seconds

    callback = keras.callbacks.LambdaCallback(on_epoch_end=check)
    return callback


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--num-train", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = list(pool.map(draw, range(args.num_train // 250 + 8)))
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    x_train, y_train, x_test, y_test = x[:-2000], y[:-2000], x[-2000:], y[-2000:]
    cross_entropy = "sparse_categorical_crossentropy"
    systems = {
        "four heads": (build_four_heads, cross_entropy, read_heads, 0),
        "CNN + GRU + CTC": (build_ctc, keras.losses.CTC(), read_ctc, 1),
        "ours": (lambda: build_columns(SHAPE, 4, len(ALPHABET)), cross_entropy, read_heads, 0),
    }
    accuracies = {}
    for name, (build, loss, read, offset) in systems.items():
        keras.utils.set_random_seed(args.seed)
        model = build()
        model.compile(keras.optimizers.Adam(1e-3), loss)
        steps = batches(x_train, y_train + offset, 64, args.seed)
        model.fit(
            steps,
            steps_per_epoch=10,
            epochs=10**6,
            shuffle=False,
            verbose=0,
            callbacks=[stop_after(args.minutes * 60)],
        )
        accuracy = proportion((read(model, x_test) == y_test).all(1).sum(), len(y_test))
        accuracies[name] = accuracy["value"]
        seen = int(model.optimizer.iterations) * 64
        print(
            f"{name}: {accuracy['value']:.1%} ({accuracy['low']:.1%} to {accuracy['high']:.1%}), "
            f"{seen:,} pictures seen, {model.count_params():,} parameters",
            flush=True,
        )
    peer = max(accuracies["four heads"], accuracies["CNN + GRU + CTC"])
    print(f"accuracy ratio: {accuracies['ours'] / peer if peer else float('inf'):.3f}")


if __name__ == "__main__":
    main()
