"""Trains networks with three custom losses: label smoothing, triplet and center loss.

Post 4493 (https://kexue.fm/archives/4493, 2017) shows label smoothing as a function of (y_true,
y_pred), a triplet loss as the model's output, and class centres in an Embedding. It claims less
over-confidence, compact classes that serve unseen people, and that the question needs an extra
Dense; it has no numbers. model.py holds each loss in the form of 2017 and in today's. The data are
drawn digits (data/glyphs.py) or MNIST, and questions written by code (data/faq.py) or your own.

    python custom_loss/train.py                        # all three
    python custom_loss/train.py --preset full          # more of everything
    python custom_loss/train.py --preset post          # the post's ten epochs
    python custom_loss/train.py --loss smoothing center --data mnist.npz
    python custom_loss/train.py --loss triplet --faq faq.tsv
    python custom_loss/predict.py                      # questions answered, a digit's neighbours

Writes runs/custom_loss/NAME/.
"""

import argparse
import re

import common.backend  # noqa: F401  # Before Keras.

import keras
import numpy as np

from common import cli
from common.batches import ShuffledBatches
from common.run import Run
from custom_loss import dataset, evaluate, model

PRESETS = {
    "quick": {"num_train": 5000, "epochs": 16, "num_pairs": 3840, "text_epochs": 7},
    "full": {"num_train": 20_000, "epochs": 40, "num_pairs": 15_360, "text_epochs": 30},
    "post": {"num_train": 5000, "epochs": 10, "num_pairs": 3840, "text_epochs": 10},
    "smoke": {
        "num_train": 400,
        "num_valid": 100,
        "num_test": 200,
        "epochs": 2,
        "num_pairs": 640,
        "num_asked": 320,
        "text_epochs": 2,
    },
}
LOSSES = ("smoothing", "triplet", "center")
FEATURE_DIM = 32


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--loss", nargs="+", choices=LOSSES, default=list(LOSSES), help="default: all three")
    add("--faq", metavar="FILE", help="your questions and answers; default: written by code")
    add("--epsilon", type=cli.fraction, default=0.1, help="of the target is spread; post: 0.1")
    add("--margin", type=cli.positive_float, default=0.1, help="of the triplet loss; post: 0.1")
    add("--center-weight", type=cli.positive_float, default=0.2, help="post: 0.2")
    add("--num-train", type=cli.positive_int, help="digits to train on")
    add("--num-valid", type=cli.positive_int, default=1000, help="digits to choose the epoch by")
    add("--num-test", type=cli.positive_int, default=5000, help="test digits, read once")
    add("--num-pairs", type=cli.positive_int, help="questions with answers to train on")
    add("--num-asked", type=cli.positive_int, default=640, help="to validate, as many to test")
    add("--epochs", type=cli.positive_int, help="over the digits; post: 10")
    add("--text-epochs", type=cli.positive_int, help="over the questions; post: 10")
    add("--batch-size", type=cli.positive_int, default=64, help="post: not given")
    add(
        "--learning-rate",
        type=cli.positive_float,
        default=1e-3,
        help="of Adam, constant as in the post",
    )
    args = cli.parse(parser, PRESETS, argv)
    if args.batch_size < 2 or not 0 < args.epsilon < 1:
        parser.error("expected --batch-size of 2 or more, and --epsilon between 0 and 1")
    if args.faq and "triplet" not in args.loss:
        parser.error("--faq is for --loss triplet")
    if args.data and args.loss == ["triplet"]:
        parser.error("--data is for --loss smoothing and --loss center")
    return args


def main(argv=None):
    args = parse_args(argv)
    data = dataset.load(args)
    run = Run(args, "custom_loss", data.notes["sha256"])
    counts = [f"{name} {value}" for name, value in data.notes.items() if name.startswith("num")]
    print(f"{data.notes['name']}: {', '.join(counts)}")
    metrics = {}
    details = {}
    images = {}
    histories = {}
    if data.digits is not None:
        networks, digit_histories = train_smoothing_and_center(args, run, data.digits)
        evaluate.save_digits(run.dir, networks, data.digits["valid"])
        more = evaluate.measure_digits(args, networks, data.digits["test"], run.dir)
        metrics.update(more[0])
        images.update(more[1])
        histories.update(digit_histories)
    if data.texts is not None:
        vocabulary, ids = dataset.encode_all(data.texts)
        networks, text_histories = train_triplet(args, run, vocabulary, ids)
        evaluate.save_texts(run.dir, networks, text_histories, vocabulary, data.texts)
        more = evaluate.measure_texts(networks, text_histories, data.texts, ids, run.dir)
        metrics.update(more[0])
        details.update(more[1])
        images.update(more[2])
        histories.update(text_histories)
    run.history = []
    for name, history in histories.items():
        run.history += [{"model": name, **entry} for entry in history]
    preset = "smoke" if args.smoke else args.preset
    return run.finish(
        row=f"{preset}, {data.notes['name']}",
        data=data.notes,
        metrics=metrics,
        selection="each network at its best validation epoch",
        details=details,
        images=images,
    )


def jit_compile():
    """XLA takes seconds on TensorFlow and gains nothing here; on JAX nothing is fast without."""
    return keras.backend.backend() == "jax"


# --- Label smoothing and center loss, on digits ---
def train_smoothing_and_center(args, run, digits):
    """Trains the networks of the digits 0 to 6.

    Returns:
        {name: a model of images with features and probabilities, at its best validation epoch},
        and {name: history}.
    """
    train = dataset.seen_digits(digits["train"])
    images, labels = dataset.seen_digits(digits["valid"])
    networks = {}
    histories = {}
    for name in digit_networks(args):
        print(name, flush=True)
        keras.utils.set_random_seed(args.seed)  # Networks of one shape start alike.
        network = build_classifier(args, name)
        valid = (images, labels)
        batches_of = ShuffledBatches
        if name.startswith("center"):
            valid = ((images, labels), labels)
            batches_of = dataset.CenterBatches
        checkpoint = run.checkpoint(network, monitor="val_accuracy", prefix=prefix_of(name))
        batches = batches_of(train, args.batch_size, args.seed, run.epoch)
        if run.epoch < args.epochs:
            network.fit(
                batches,
                steps_per_epoch=batches.steps_per_epoch,
                initial_epoch=run.epoch,
                epochs=args.epochs,
                validation_data=valid,
                validation_batch_size=500,
                callbacks=[checkpoint],
                shuffle=False,
                verbose=run.verbose,
            )
        best = run.load_best(prefix_of(name))
        networks[name] = evaluate.features_and_probabilities(best)
        histories[name] = run.history
    return networks, histories


def digit_networks(args):
    """The names of the networks: 2-D ones have two features, to look at."""
    names = ["plain"]
    if "smoothing" in args.loss:
        names.append("smoothing")
    if "center" in args.loss:
        names += ["center", "plain 2-D", "center 2-D"]
    return names


def build_classifier(args, name):
    """A compiled network of the digits 0 to 6, by its name."""
    if name.endswith("2-D"):
        # Without an activation, so that the features may lie anywhere in the plane.
        network = model.build_model((28, 28, 1), dataset.NUM_SEEN, 2, activation=None)
    else:
        network = model.build_model((28, 28, 1), dataset.NUM_SEEN, FEATURE_DIM)
    if name.startswith("center"):
        network = model.build_center_layer_model(network, args.center_weight)
    loss = "sparse_categorical_crossentropy"
    if name == "smoothing":
        loss = model.SmoothedCrossentropy(args.epsilon)
    network.compile(
        optimizer=keras.optimizers.Adam(args.learning_rate),
        loss=loss,
        metrics=["accuracy"],
        jit_compile=jit_compile(),
    )
    return network


def prefix_of(name):
    """Of the files of a network in the run folder."""
    return re.sub(r"\W+", "-", name) + "-"


# --- Triplet loss, on questions ---
def train_triplet(args, run, vocabulary, ids):
    """Trains four networks: with and without an extra Dense, on random and on hard negatives.

    Returns:
        {name: the TripletModel at its best validation epoch}, and {name: history}.
    """
    questions, numbers, answers = ids["valid"]
    # The validation loss is that of one question per answer, in mixed order.
    _, rows = np.unique(numbers, return_index=True)
    rows = np.random.default_rng(0).permutation(rows)
    valid = ((questions[rows], answers[numbers[rows]]),)
    networks = {}
    histories = {}
    for extra_dense in (64, None):
        for negatives in ("random", "hard"):
            name = f"{'Dense' if extra_dense else 'no Dense'}, {negatives}"
            print(name, flush=True)
            keras.utils.set_random_seed(args.seed)
            network = build_triplet_network(args, vocabulary, extra_dense, negatives)
            checkpoint = run.checkpoint(
                network, monitor="val_mean_reciprocal_rank", prefix=prefix_of(name)
            )
            batches = dataset.TripletBatches(
                *ids["train"], args.batch_size, args.seed, first_epoch=run.epoch
            )
            if run.epoch < args.text_epochs:
                network.fit(
                    batches,
                    steps_per_epoch=batches.steps_per_epoch,
                    initial_epoch=run.epoch,
                    epochs=args.text_epochs,
                    validation_data=valid,
                    validation_batch_size=args.batch_size,
                    # The ranks go into the logs before the checkpoint reads them.
                    callbacks=[evaluate.ValidationRanks(ids["valid"]), checkpoint],
                    shuffle=False,
                    verbose=run.verbose,
                )
            networks[name] = run.load_best(prefix_of(name))
            histories[name] = run.history
    return networks, histories


def build_triplet_network(args, vocabulary, extra_dense, negatives):
    """A compiled TripletModel."""
    encoder = model.build_encoder(len(vocabulary) + 2)  # With PADDING and UNKNOWN.
    network = model.TripletModel(encoder, extra_dense, args.margin, negatives)
    network.compile(keras.optimizers.Adam(args.learning_rate), jit_compile=jit_compile())
    return network


if __name__ == "__main__":
    cli.run(main)
