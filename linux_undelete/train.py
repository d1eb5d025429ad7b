"""Trains a small network that says which blocks of a disk are text, and of what kind.

Post 4491 (https://kexue.fm/archives/4491, 2017): a deleted text is still on the disk, and grep on
the raw partition finds it by a phrase. It has no network and no numbers. This one knows texts by
their bytes, and is measured against a rule that counts characters. The blocks of 4 KiB are cut
from the files of the Python installation and from texts written by code (data/blocks.py).

    python linux_undelete/train.py                  # a minute
    python linux_undelete/train.py --preset full    # more blocks and epochs
    python linux_undelete/train.py --data DIR       # DIR/other/*, DIR/python/*, ...
    python linux_undelete/predict.py                # deletes texts in an image and finds them

Writes runs/linux_undelete/NAME/.
"""

import argparse

import common.backend  # noqa: F401  # Before Keras.

import keras

from common import cli
from common.batches import ShuffledBatches
from common.run import Run
from data import blocks
from data.blocks import KINDS
from linux_undelete import dataset, evaluate, model

PRESETS = {
    "quick": {"num_train": 500, "num_test": 400, "epochs": 6},
    "full": {"num_train": 2000, "num_test": 400, "epochs": 8},
    "post": {"num_train": 2000, "num_test": 400, "epochs": 8},  # The post has no network.
    "smoke": {"num_train": 16, "num_test": 8, "epochs": 2},
}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--num-train", type=cli.positive_int, help="blocks of each kind; of --data: of each file")
    add("--num-test", type=cli.positive_int, help="blocks of each kind of text; not of --data")
    add("--epochs", type=cli.positive_int, help="passes over the training blocks")
    add("--batch-size", type=cli.positive_int, default=64)
    add("--learning-rate", type=cli.positive_float, default=3e-3, help="at the start; falls to 0")
    return cli.parse(parser, PRESETS, argv)


def main(argv=None):
    args = parse_args(argv)
    num_valid = max(1, args.num_test // 3)
    data = dataset.load(args.data, args.num_train, num_valid, args.num_test)
    x_train, y_train, _ = data.splits["train"]
    x_valid, y_valid, _ = data.splits["valid"]
    steps_per_epoch = len(y_train) // args.batch_size
    if steps_per_epoch == 0:
        cli.fail(f"{len(y_train)} blocks do not fill a batch: lower --batch-size")
    run = Run(args, "linux_undelete", data.notes["sha256"])
    print(", ".join(f"{name}: {note}" for name, note in data.notes.items() if name != "sha256"))

    network = model.build_model(len(KINDS))
    schedule = keras.optimizers.schedules.CosineDecay(
        args.learning_rate, steps_per_epoch * args.epochs
    )
    network.compile(
        optimizer=keras.optimizers.Adam(schedule),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    checkpoint = run.checkpoint(network, monitor="val_accuracy")
    if run.epoch < args.epochs:
        network.fit(
            ShuffledBatches((x_train, y_train), args.batch_size, args.seed, run.epoch),
            steps_per_epoch=steps_per_epoch,
            initial_epoch=run.epoch,
            epochs=args.epochs,
            validation_data=(x_valid, y_valid),
            callbacks=[checkpoint],
            shuffle=False,
            verbose=run.verbose,
        )

    best = run.best_epoch("val_accuracy")
    network = run.load_best()
    threshold = evaluate.choose_threshold(x_valid, y_valid)
    # Everything is chosen: only here the test blocks are read.
    metrics, errors, kinds = evaluate.evaluate(network, threshold, data.splits["test"])
    details = {
        "parameters": network.count_params(),
        "validation accuracy": best["val_accuracy"],
        **errors,
    }
    if args.data is None:
        add_other_files(network, threshold, args, metrics, details)
    _, y_test, _ = data.splits["test"]
    evaluate.draw_confusion(run.dir / "confusion.png", y_test, kinds)
    preset = "smoke" if args.smoke else args.preset
    return run.finish(
        row=f"{preset}, {data.notes['name']}",
        data=data.notes,
        metrics=metrics,
        selection=f"best validation epoch {best['epoch']} of {args.epochs}; "
        f"threshold of the rule {threshold:g}, the best on validation",
        details=details,
        images={"confusion.png": "Test blocks: what each kind is taken for"},
    )


def add_other_files(network, threshold, args, metrics, details):
    """Adds metrics of system files of this machine, where it has any: a test on other data."""
    count = 20 if args.smoke else 400
    other_blocks, labels, files = blocks.load_shifted(count)
    details["other files of this machine"] = f"{len(set(files))} files, {len(labels)} blocks"
    if 0 < labels.sum() < len(labels):
        called, _ = evaluate.answers(network, threshold, other_blocks)
        prefix = "other files of this machine, "
        metrics.update(evaluate.measure_text(prefix, called, labels, files))


if __name__ == "__main__":
    cli.run(main)
