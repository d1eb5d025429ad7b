"""Dropout, three times the same thing, and what it does to one small network.

Post:   https://kexue.fm/archives/4521 (2017): dropout is a cheap ensemble, so a network with
        it generalises better; noise_shape says what is dropped together. It has no numbers.
Data:   drawn digits (data/glyphs.py); --data takes MNIST as Keras stores it, mnist.npz,
        or the word mnist, which downloads it.

    python dropout_demo/train.py                   # four rates, whole words, whole channels
    python dropout_demo/train.py --preset full     # more epochs, all 10,000 test pictures
    python dropout_demo/train.py --preset post     # a training set of MNIST's size
    python dropout_demo/train.py --data mnist.npz
    python dropout_demo/train.py --variants 0 0.5 0.3:1,word,channel
    python dropout_demo/predict.py                 # ten digits, each with its uncertainty

Writes runs/dropout_demo/NAME/. Read it from top to bottom: dropout, data, model, metrics, main.
"""

import argparse
import hashlib
import itertools
import re
import shutil

import numpy as np

from common.data import fetch
from common.run import Run, fail, keras, layers, load_file, ops, parse_run_args, run_script
from common.table import mean_interval, proportion
from data import glyphs, mnist
from dropout_demo.pictures import draw_calibration, draw_curves, draw_noise_shapes

SPLIT_SEED = 4521  # The split of a file does not change with --seed.
AXES = "batch", "word", "channel"  # Of the features that are dropped: rows of a picture = words.
PASSES = 1, 10, 100  # How many random passes are averaged.


# --- Dropout (needs only numpy; copy it) ---
def dropout(x, rate, noise_shape=None, rng=None, mask=None):
    """Sets a share `rate` of x to zero and multiplies the rest by 1 / (1 - rate).

    `rate` is the share that is dropped: 0.6 keeps 40% and multiplies them by 2.5. (In 2017
    TensorFlow's own argument was the share that is kept, Keras' the share that is dropped.)

    Args:
        noise_shape: the shape of the mask, by default that of x; entries along an axis where
            it is 1 are dropped or kept together.
        rng: a numpy Generator, to draw the mask with.
        mask: True where x is kept; given instead of drawn.
    """
    x = np.asarray(x)
    noise_shape = x.shape if noise_shape is None else tuple(noise_shape)
    if not 0 <= rate < 1:
        raise ValueError(f"dropout rate {rate}: expected 0 <= rate < 1")
    if len(noise_shape) != x.ndim or any(
        n not in (1, size) for n, size in zip(noise_shape, x.shape, strict=True)
    ):
        raise ValueError(
            f"noise shape {noise_shape} for data of shape {x.shape}: expected {x.ndim} entries, "
            "each 1 or the size of that axis"
        )
    if mask is None:
        rng = np.random.default_rng() if rng is None else rng
        mask = rng.random(noise_shape) >= rate
    if np.shape(mask) != noise_shape:
        raise ValueError(f"mask of shape {np.shape(mask)}: expected the noise shape {noise_shape}")
    return x * mask / (1 - rate)


def legal_noise_shapes(shape):
    """Every noise shape that data of this shape can have: 8 for (3, 4, 5)."""
    for shared in np.ndindex(*(min(size, 2) for size in shape)):
        yield tuple(1 if one else size for one, size in zip(shared, shape, strict=True))


# --- Data ---
def load_data(source=None, num_train=2000, num_valid=2000, num_test=5000):
    """{"train" | "valid" | "test": (uint8 pictures, labels)} and notes for the record."""
    sizes = {"train": num_train, "valid": num_valid, "test": num_test}
    if source is None:
        splits = {split: glyphs.load(split, count) for split, count in sizes.items()}
        name = f"drawn digits v{glyphs.VERSION}"
    else:
        path = fetch("mnist.npz", [mnist.URL], mnist.SHA256) if source == "mnist" else source
        try:
            splits, name = mnist.load(path, sizes, SPLIT_SEED)
        except ValueError as error:
            fail(error)
    digest = hashlib.sha256()
    for array in itertools.chain(*splits.values()):
        digest.update(np.ascontiguousarray(array))
    notes = {"name": name} | {f"num_{split}": count for split, count in sizes.items()}
    return splits, notes | {"sha256": digest.hexdigest()}


def batches(pictures, labels, batch_size, seed, first_epoch=0):
    """Endless batches; the order of an epoch follows from (seed, epoch) alone."""
    for epoch in itertools.count(first_epoch):
        order = np.random.default_rng((seed, epoch)).permutation(len(pictures))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            yield pictures[chosen], labels[chosen]


# --- Model (needs only keras; copy it) ---
def build_model(rate=0.5, noise_shape=None, input_shape=(28, 28), num_classes=10, filters=64):
    """Reads a picture as a sentence: each row is a word, convolutions run along the words.

    Its features (batch, word, channel) have the axes of the post's text classifier, so a
    noise shape of (None, None, 1) drops whole words and (None, 1, None) whole channels.
    """
    inputs = keras.Input(input_shape)
    x = layers.Rescaling(1 / 255)(inputs)
    for block in range(2):
        x = layers.Conv1D((block + 1) * filters, 5, padding="same", activation="relu")(x)
        x = layers.Dropout(rate, noise_shape=noise_shape)(x)
        x = layers.MaxPooling1D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(2 * filters, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(num_classes, activation="softmax")(x))


# --- Prediction and metrics (they need only numpy and keras; copy them) ---
def monte_carlo(model, pictures, passes=100, training=True, batch_size=1000):
    """Probabilities of `passes` random passes, each with dropout on: (passes, batch, classes).

    Their mean over the first axis is the prediction, their spread its uncertainty. Every
    layer runs as in training: right for dropout, not for batch normalization. With
    training=False all passes are alike: the plain prediction.
    """
    starts = range(0, len(pictures), batch_size)

    def one_pass():
        parts = [model(pictures[i : i + batch_size], training=training) for i in starts]
        return np.concatenate([ops.convert_to_numpy(part) for part in parts])

    return np.stack([one_pass() for _ in range(passes)])


def calibration_error(probabilities, labels, bins=15):
    """Expected calibration error: how far confidence and accuracy lie apart, on average.

    The pictures are put in bins by the probability of their best class; each bin counts
    |mean confidence - accuracy|, weighted with its share of the pictures.
    """
    confidence = np.asarray(probabilities.max(axis=-1), "float64")
    right = probabilities.argmax(axis=-1) == labels
    places = np.minimum((np.nan_to_num(confidence) * bins).astype(int), bins - 1)
    return sum(
        abs(np.sum(confidence[places == i]) - np.sum(right[places == i])) for i in range(bins)
    ) / len(labels)


# --- What the record says ---
def count_right(model, pictures, labels):
    """How many pictures the plain pass, with dropout off, puts in the right class."""
    [probabilities] = monte_carlo(model, pictures, passes=1, training=False)
    return (probabilities.argmax(-1) == labels).sum()


def compare_with_keras(shape=(3, 4, 5), rate=0.5, seed=0, draws=1_000_000):
    """Metrics that show the NumPy function and keras.layers.Dropout to be the same thing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape).astype("float32")
    differences = []
    for noise_shape in legal_noise_shapes(shape):
        layer = layers.Dropout(rate, noise_shape=noise_shape, seed=seed)
        theirs = ops.convert_to_numpy(layer(x, training=True))
        # The first entry along a shared axis is the mask of all of them, or they differ below.
        mask = (theirs != 0)[tuple(slice(n) for n in noise_shape)]
        differences.append(np.abs(dropout(x, rate, noise_shape, mask=mask) - theirs).max())
    ones = np.ones(draws, "float32")
    drawn = {
        "NumPy": dropout(ones, rate, rng=rng),
        "Keras": ops.convert_to_numpy(layers.Dropout(rate, seed=seed)(ones, training=True)),
    }
    shares = {
        f"share kept at rate {rate:g}, {name}": proportion((values != 0).sum(), draws)
        for name, values in drawn.items()
    }
    largest = float(max(differences))
    same = {"value": largest, "n": len(differences), "low": largest, "high": largest}
    return {"largest difference from Keras, same mask": same} | shares


def report(name, probabilities, labels):
    """Accuracy, log loss and calibration error of one prediction, with 95% intervals."""
    n = len(labels)
    error = float(calibration_error(probabilities, labels))
    resampled = np.random.default_rng(0).integers(n, size=(200, n))
    half = 1.96 * np.std([calibration_error(probabilities[r], labels[r]) for r in resampled])
    right = (probabilities.argmax(-1) == labels).sum()
    losses = -np.log(np.maximum(probabilities[np.arange(n), labels], 1e-7))
    calibration = {"value": error, "n": n, "low": max(0.0, error - half), "high": error + half}
    metrics = {"accuracy": proportion(right, n), "log loss": mean_interval(losses) | {"n": n}}
    return {f"{k}, {name}": v for k, v in (metrics | {"calibration error": calibration}).items()}


# --- Training ---
def parse_variant(text):
    """(rate, noise shape) of "0.5" or "0.2:batch,word,1": an axis by its name, or shared."""
    rate, _, entries = text.partition(":")
    entries = entries.split(",") if entries else AXES
    legal = len(entries) == 3 and all(e in (a, "1") for e, a in zip(entries, AXES, strict=True))
    try:
        legal = legal and 0 <= float(rate) < 1
    except ValueError:
        legal = False
    if not legal:
        raise ValueError(
            f"variant {text!r}: expected RATE or RATE:NOISE_SHAPE, with 0 <= RATE < 1 and a "
            "noise shape like batch,word,1, whose entries are the name of the axis or 1"
        )
    return float(rate), tuple(1 if entry == "1" else None for entry in entries)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    quick = ["0", "0.2", "0.5", "0.8", "0.2:batch,word,1", "0.2:batch,1,channel"]
    shapes = ["0.5:batch,word,1", "0.5:batch,1,channel", "0.5:1,word,channel"]
    add("--variants", nargs="+", metavar="RATE[:NOISE_SHAPE]", help="dropouts to compare")
    add("--num-train", type=int, default=2000, help="pictures to train on; few, so it overfits")
    add("--num-valid", type=int, default=2000, help="pictures to choose epoch and variant by")
    add("--num-test", type=int, help="test pictures, read once")
    add("--epochs", type=int, help="passes over the training pictures")
    add("--batch-size", type=int, default=100)
    add("--learning-rate", type=float, default=2e-3, help="of Adam, at the start; ends at 0")
    presets = {
        "smoke": {"variants": ["0", "0.5", "0.2:batch,word,1"], "epochs": 2}
        | {"num_train": 200, "num_valid": 100, "num_test": 100},
        "quick": {"variants": quick, "epochs": 30, "num_test": 5000},
        "full": {"variants": quick + shapes, "epochs": 60, "num_test": 10_000},
        # The post trains nothing; this is the experiment at the size of MNIST.
        "post": {"variants": quick, "epochs": 20, "num_test": 10_000}
        | {"num_train": 55_000, "num_valid": 5000},
    }
    return parse_run_args(parser, presets, argv)


def main(argv=None):
    args = parse_args(argv)
    try:
        variants = {text: parse_variant(text) for text in args.variants}
    except ValueError as error:
        fail(error)
    if args.num_train < args.batch_size or min(args.batch_size, args.num_valid, args.num_test) < 1:
        fail("expected at least one batch to train on, one validation and one test picture")
    if max(rate for rate, _ in variants.values()) == 0 or args.epochs < 1:
        fail("expected at least one epoch and one variant with a rate above 0")
    if not 0 < args.learning_rate < np.inf:
        fail("--learning-rate: expected a number above 0")
    splits, notes = load_data(args.data, args.num_train, args.num_valid, args.num_test)
    run = Run(args, "dropout_demo", notes["sha256"])
    (x_train, y_train), (x_test, y_test) = splits["train"], splits["test"]
    print(f"{notes['name']}: {args.num_train} / {args.num_valid} / {args.num_test} pictures")
    metrics = compare_with_keras(seed=args.seed)

    steps, curves, files = len(y_train) // args.batch_size, {}, {}
    for text, (rate, noise_shape) in variants.items():
        # All variants with a rate above 0 start with the same weights; without dropout Keras
        # draws no seeds for it, and so other weights.
        keras.utils.set_random_seed(args.seed)
        model = build_model(rate, noise_shape)
        schedule = keras.optimizers.schedules.CosineDecay(args.learning_rate, steps * args.epochs)
        model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy")

        prefix = re.sub(r"[^\w.]", "-", text) + "-"

        def measure(epoch, logs, model=model, prefix=prefix):
            # Keras' own training accuracy would be that of the network with dropout on.
            for name, split in (("accuracy", "train"), ("val_accuracy", "valid")):
                logs[name] = count_right(model, *splits[split]) / len(splits[split][1])
            # Kept for the test curves, which are not looked at before all is chosen.
            np.savez(run.dir / f"{prefix}epoch{epoch + 1}.npz", *model.get_weights())

        checkpoint = run.checkpoint(model, monitor="val_accuracy", prefix=prefix)
        first_epoch = len(run.history)
        print(f"dropout {text}", flush=True)
        if first_epoch < args.epochs:
            model.fit(
                batches(x_train, y_train, args.batch_size, args.seed, first_epoch),
                steps_per_epoch=steps,
                initial_epoch=first_epoch,
                epochs=args.epochs,
                callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=measure), checkpoint],
                shuffle=False,
                verbose=run.verbose,
            )
        curves[f"dropout {text}"], files[f"dropout {text}"] = run.history, run.dir / prefix

    best = {
        name: max(h, key=lambda e: (e["val_accuracy"], e["epoch"])) for name, h in curves.items()
    }
    dropping = [f"dropout {text}" for text, (rate, _) in variants.items() if rate > 0]
    chosen = max(dropping, key=lambda name: best[name]["val_accuracy"])
    shutil.copyfile(f"{files[chosen]}model.keras", run.dir / "model.keras")
    # Now that all is chosen, the test set. With dropout off the variants are one network.
    for name, history in curves.items():
        for entry in history:
            with np.load(f"{files[name]}epoch{entry['epoch']}.npz") as weights:
                model.set_weights(list(weights.values()))
            right = count_right(model, x_test, y_test)
            entry["test_accuracy"] = float(right / len(y_test))
            if entry is best[name]:
                metrics[f"accuracy, {name}"] = proportion(right, len(y_test))
    keras.utils.set_random_seed(args.seed)  # The masks follow from the seed at loading.
    model = load_file(run.dir / "model.keras")
    passes = monte_carlo(model, x_test, max(PASSES))
    predictions = {"plain pass": monte_carlo(model, x_test, passes=1, training=False)[0]}
    predictions |= {f"mean of {k} random": passes[:k].mean(0) for k in PASSES}
    for name, probabilities in predictions.items():
        metrics |= report(name, probabilities, y_test)
    ones, rng = np.ones((3, 4, 5)), np.random.default_rng(11)  # A draw that shows it well.
    masks = {n: dropout(ones, 0.4, n, rng) != 0 for n in legal_noise_shapes(ones.shape)}
    draw_noise_shapes(run.dir / "noise_shapes.png", masks)
    draw_curves(run.dir / "curves.png", curves)
    draw_calibration(run.dir / "calibration.png", predictions, y_test)
    run.history = [{"variant": name} | entry for name, h in curves.items() for entry in h]
    epochs = ", ".join(f"{name} {entry['epoch']}" for name, entry in best.items())
    record = run.finish(
        row=f"{'smoke' if args.smoke else args.preset}, {notes['name']}",
        data=notes,
        metrics=metrics,
        selection=f"best validation epoch ({epochs}); random passes: {chosen}, the best dropout",
        pictures={
            "curves.png": "Accuracy by epoch, dropout off: training and test pictures",
            "calibration.png": "Test accuracy by confidence, plain and averaged passes",
            "noise_shapes.png": "The eight noise shapes of (3, 4, 5): what is dropped together",
        },
    )
    for path in run.dir.glob("*-epoch*.npz"):  # Until the record is there, --resume needs them.
        path.unlink()
    return record


if __name__ == "__main__":
    run_script(main)
