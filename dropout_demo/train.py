"""Trains one small network with several kinds of dropout, and shows what each of them gains.

Post 4521 (https://kexue.fm/archives/4521, 2017) explains dropout as a cheap ensemble: a network
with it generalises better, and noise_shape says what is dropped together. The post has no numbers.
Here the NumPy function is first compared with Keras' layer. Then the network is trained on few
digits, drawn by data/glyphs.py or taken from MNIST. Finally its plain prediction is compared with
averages of random passes, which are the ensemble itself.

    python dropout_demo/train.py                   # four rates, whole words, whole channels
    python dropout_demo/train.py --preset full     # more epochs, all 10,000 test images
    python dropout_demo/train.py --preset post     # a training set of MNIST's size
    python dropout_demo/train.py --data mnist.npz  # MNIST's file; the word mnist downloads it
    python dropout_demo/train.py --variants 0 0.5 0.3:1,word,channel
    python dropout_demo/predict.py                 # ten digits, each with its uncertainty

Writes runs/dropout_demo/NAME/.
"""

import argparse
import re
import shutil

import common.backend  # noqa: F401  # Before Keras.

import keras
import numpy as np

from common import cli
from common.batches import ShuffledBatches
from common.metrics import proportion
from common.run import Run
from dropout_demo import dataset, evaluate, model

# The axes of the features that are dropped. The rows of an image are its words.
AXES = ("batch", "word", "channel")

PRESETS = {
    "quick": {
        "variants": ["0", "0.2", "0.5", "0.8", "0.2:batch,word,1", "0.2:batch,1,channel"],
        "num_train": 2000,
        "num_valid": 2000,
        "num_test": 5000,
        "epochs": 30,
    },
    "full": {
        "variants": [
            "0",
            "0.2",
            "0.5",
            "0.8",
            "0.2:batch,word,1",
            "0.2:batch,1,channel",
            "0.5:batch,word,1",
            "0.5:batch,1,channel",
            "0.5:1,word,channel",
        ],
        "num_train": 2000,
        "num_valid": 2000,
        "num_test": 10_000,
        "epochs": 60,
    },
    # The post trains nothing; this is the experiment at the size of MNIST.
    "post": {
        "variants": ["0", "0.2", "0.5", "0.8", "0.2:batch,word,1", "0.2:batch,1,channel"],
        "num_train": 55_000,
        "num_valid": 5000,
        "num_test": 10_000,
        "epochs": 20,
    },
    "smoke": {
        "variants": ["0", "0.5", "0.2:batch,word,1"],
        "num_train": 200,
        "num_valid": 100,
        "num_test": 100,
        "epochs": 2,
    },
}


# --- Flags ---
def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        "--variants",
        nargs="+",
        type=variant,
        metavar="RATE[:NOISE_SHAPE]",
        help="dropouts to compare; a noise shape is batch,word,channel with 1 for some of them",
    )
    add(
        "--num-train",
        type=cli.positive_int,
        help="training images; few, so that the network overfits",
    )
    add("--num-valid", type=cli.positive_int, help="images to choose epoch and variant by")
    add("--num-test", type=cli.positive_int, help="test images, read once")
    add("--epochs", type=cli.positive_int, help="passes over the training images")
    add("--batch-size", type=cli.positive_int, default=100)
    add("--learning-rate", type=cli.positive_float, default=2e-3, help="at the start; ends at 0")
    args = cli.parse(parser, PRESETS, argv)
    if args.num_train < args.batch_size:
        parser.error(
            "expected at least one batch to train on, "
            f"not --num-train {args.num_train} with --batch-size {args.batch_size}"
        )
    if not any(drops(text) for text in args.variants):
        parser.error("--variants: expected at least one variant with a rate above 0")
    return args


def variant(text):
    """A type for argparse: the text itself, which the record keeps, if it names a dropout."""
    parse_variant(text)
    return text


def parse_variant(text):
    """(rate, noise shape) of "0.5" or "0.2:batch,word,1", where 1 shares the mask along an axis.

    The noise shape is one for Keras, in which None stands for the size of an axis. Raises
    argparse.ArgumentTypeError for any other text.
    """
    rate, _, axes = text.partition(":")
    entries = AXES
    if axes:
        entries = axes.split(",")
    if not is_rate(rate) or not name_the_axes(entries):
        raise argparse.ArgumentTypeError(
            f"variant {text!r}: expected RATE or RATE:NOISE_SHAPE, with 0 <= RATE < 1 and a "
            "noise shape like batch,word,1, whose entries are the name of the axis or 1"
        )
    noise_shape = tuple(1 if entry == "1" else None for entry in entries)
    return float(rate), noise_shape


def is_rate(text):
    try:
        return 0 <= float(text) < 1
    except ValueError:
        return False


def name_the_axes(entries):
    """Whether each of three entries is the name of its axis, or 1."""
    if len(entries) != len(AXES):
        return False
    return all(entry in (axis, "1") for entry, axis in zip(entries, AXES, strict=True))


def drops(text):
    """Whether a variant drops anything at all."""
    rate, _ = parse_variant(text)
    return rate > 0


# --- The story ---
def main(argv=None):
    args = parse_args(argv)
    splits, notes = dataset.load_data(args.data, args.num_train, args.num_valid, args.num_test)
    run = Run(args, "dropout_demo", notes["sha256"])
    print(f"{notes['name']}: {args.num_train} / {args.num_valid} / {args.num_test} images")
    metrics = evaluate.compare_with_keras(seed=args.seed)

    variants = list(dict.fromkeys(args.variants))  # A variant that is named twice is one.
    histories = {}
    for text in variants:
        histories[text] = train_variant(args, run, splits, text)
    best = {text: best_epoch(history) for text, history in histories.items()}
    chosen = choose_variant(best)
    shutil.copyfile(run.dir / f"{file_prefix(chosen)}model.keras", run.dir / "model.keras")

    # The test images, read once everything is chosen.
    images, labels = splits["test"]
    network = model.build_model(rate=0)  # With dropout off all variants are this network.
    for text, history in histories.items():
        paths = [weights_path(run.dir, text, entry["epoch"]) for entry in history]
        counts = evaluate.count_correct_by_epoch(network, paths, images, labels)
        for entry, count in zip(history, counts, strict=True):
            entry["test_accuracy"] = float(count / len(labels))
            if entry is best[text]:
                metrics[f"accuracy, dropout {text}"] = proportion(count, len(labels))
    predictions = evaluate.predict_plain_and_random(run.dir / "model.keras", images, args.seed)
    for name, probabilities in predictions.items():
        metrics.update(evaluate.measure(name, probabilities, labels))

    run.history = join_histories(histories)
    record = run.finish(
        row=row_name(args, notes),
        data=notes,
        metrics=metrics,
        selection=describe_selection(best, chosen),
        images=evaluate.draw_all(run.dir, histories, predictions, labels),
    )
    for path in run.dir.glob("*-epoch*.npz"):  # Until the record is there, --resume needs them.
        path.unlink()
    return record


# --- Training ---
def train_variant(args, run, splits, text):
    """Trains the network with one dropout, or resumes it; returns its history."""
    # All variants with a rate above 0 start from the same weights. Without dropout the weights
    # are others, because Keras then draws no seeds for the dropout layers.
    keras.utils.set_random_seed(args.seed)
    rate, noise_shape = parse_variant(text)
    network = model.build_model(rate, noise_shape)
    steps_per_epoch = args.num_train // args.batch_size
    schedule = keras.optimizers.schedules.CosineDecay(
        args.learning_rate, steps_per_epoch * args.epochs
    )
    network.compile(
        optimizer=keras.optimizers.Adam(schedule), loss="sparse_categorical_crossentropy"
    )
    # The accuracies first, as the checkpoint chooses the best epoch by one of them.
    accuracies = AccuracyWithoutDropout(splits["train"], splits["valid"], run.dir, text)
    checkpoint = run.checkpoint(network, monitor="val_accuracy", prefix=file_prefix(text))
    print(f"dropout {text}", flush=True)
    if run.epoch < args.epochs:
        network.fit(
            ShuffledBatches(splits["train"], args.batch_size, args.seed, first_epoch=run.epoch),
            steps_per_epoch=steps_per_epoch,
            initial_epoch=run.epoch,
            epochs=args.epochs,
            callbacks=[accuracies, checkpoint],
            shuffle=False,
            verbose=run.verbose,
        )
    return run.history


class AccuracyWithoutDropout(keras.callbacks.Callback):
    """Measures the accuracies of each epoch with dropout off, and keeps the epoch's weights.

    Keras' own training accuracy would be that of the network with dropout on. The weights are
    for the test accuracies, which nobody looks at before everything is chosen.

    Args:
        train, valid: (images, labels).
        folder: of the run.
        text: the variant.
    """

    def __init__(self, train, valid, folder, text):
        super().__init__()
        self.train = train
        self.valid = valid
        self.folder = folder
        self.text = text

    def on_epoch_end(self, epoch, logs=None):
        logs["accuracy"] = self.accuracy(*self.train)
        logs["val_accuracy"] = self.accuracy(*self.valid)
        path = weights_path(self.folder, self.text, epoch + 1)
        np.savez(path, *self.model.get_weights())

    def accuracy(self, images, labels):
        return evaluate.count_correct(self.model, images, labels) / len(labels)


def file_prefix(text):
    """What the names of a variant's files begin with."""
    return re.sub(r"[^\w.]", "-", text) + "-"


def weights_path(folder, text, epoch):
    """The file with a variant's weights after an epoch, counted from 1."""
    return folder / f"{file_prefix(text)}epoch{epoch}.npz"


# --- Choosing by the validation images ---
def best_epoch(history):
    """The entry of the best epoch; of equal ones the latest, whose model was saved."""
    return max(history, key=lambda entry: (entry["val_accuracy"], entry["epoch"]))


def choose_variant(best):
    """The best of the variants that drop anything.

    Args:
        best: {variant: the entry of its best epoch}.
    """
    candidates = [text for text in best if drops(text)]
    return max(candidates, key=lambda text: best[text]["val_accuracy"])


# --- What the record says ---
def join_histories(histories):
    """All histories in one list, whose entries name their variant."""
    entries = []
    for text, history in histories.items():
        for entry in history:
            entries.append({"variant": f"dropout {text}", **entry})
    return entries


def row_name(args, notes):
    """The row of the results that this run belongs to."""
    size = args.preset
    if args.smoke:
        size = "smoke"
    return f"{size}, {notes['name']}"


def describe_selection(best, chosen):
    """How the epochs, and the network of the random passes, were chosen."""
    epochs = ", ".join(f"dropout {text} {entry['epoch']}" for text, entry in best.items())
    return f"best validation epoch ({epochs}); random passes: dropout {chosen}, the best dropout"


if __name__ == "__main__":
    cli.run(main)
