"""Trains a network that reads captchas: all characters at once, from the image alone.

Post 4503 (https://kexue.fm/archives/4503, 2017) fine-tunes Xception with one softmax per character
and reads at least 85% of the captchas, tuned at least 90%. Post 4138
(https://kexue.fm/archives/4138, 2016) starts from a small CNN, which reads 46%. Ours keeps the
columns of the image and is trained in minutes on a CPU. Tencent's captchas cannot be downloaded,
so the captchas are drawn by data/captchas.py.

    python captcha_xception/train.py                   # ours, about three minutes
    python captcha_xception/train.py --preset full     # ours at its best, about fifteen minutes
    python captcha_xception/train.py --preset post     # the post's recipe, for a GPU
    python captcha_xception/train.py --data DIR --init RUN   # your images, from an earlier run
    python captcha_xception/predict.py                 # look at what it reads

Writes runs/captcha_xception/NAME/.
"""

import argparse
from pathlib import Path

import common.backend  # noqa: F401  # Before Keras.

import keras

from captcha_xception import dataset, evaluate, model
from common import cli
from common.batches import ShuffledBatches
from common.parallel import DataParallel, add_data_parallel
from common.run import Run

PRESETS = {
    "quick": {
        "model": "columns",
        "recipe": "ours",
        "num_train": 20_000,
        "num_test": 2_000,
        "epochs": 3,
        "batch_size": 64,
    },
    "full": {
        "model": "columns",
        "recipe": "ours",
        "num_train": 60_000,
        "num_test": 10_000,
        "epochs": 5,
        "batch_size": 64,
    },
    "post": {
        "model": "xception",
        "weights": "imagenet",
        "recipe": "post",
        "num_train": 90_000,
        "num_test": 10_000,
        "epochs": 11,
        "batch_size": 100,
    },
    "smoke": {
        "model": "columns",
        "recipe": "ours",
        "num_train": 256,
        "num_valid": 64,
        "num_test": 64,
        "epochs": 2,
        "batch_size": 64,
    },
}
LEARNING_RATES = {"ours": 2e-3, "post": 1e-3}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", choices=sorted(model.BUILDERS), help="columns: ours; the others: the posts'")
    add("--recipe", choices=("ours", "post"), help="post: constant rate, no augmentation")
    add("--weights", default="none", metavar="imagenet|none|PATH", help="of Xception")
    add("--init", type=Path, metavar="RUN", help="start from the weights of an earlier run")
    add("--num-train", type=cli.positive_int, help="drawn captchas; post 4503: 90000")
    add("--num-valid", type=cli.positive_int, default=2000, help="to choose the epoch by")
    add("--num-test", type=cli.positive_int, help="drawn captchas; post 4503: 10000")
    add("--epochs", type=cli.positive_int, help="passes over the training set; posts: 11, 30")
    add("--batch-size", type=cli.positive_int, help="posts: 100, 256")
    add("--learning-rate", type=cli.positive_float, help="the highest; default: 2e-3, posts: 1e-3")
    add("--length", type=cli.positive_int, help="the label is the last LENGTH characters of a name")
    add("--case-sensitive", action="store_true", help="A and a are two classes")
    add_data_parallel(parser)
    args = cli.parse(parser, PRESETS, argv)
    if args.data is None and (args.length or args.case_sensitive):
        parser.error("--length and --case-sensitive are for --data")
    sizes = ("--num-train", "--num-valid", "--num-test")
    if args.data is not None and any(cli.given(args.command, flag) for flag in sizes):
        parser.error("--num-train, --num-valid and --num-test are for drawn captchas")
    return args


def main(argv=None):
    args = parse_args(argv)
    parallel = DataParallel(args)
    data = dataset.load(args)
    num_steps = count_steps(args, data)
    source = None
    if args.init is not None:
        source = evaluate.load_reader(args.init)
    run = Run(args, "captcha_xception", data.notes["sha256"])
    print(", ".join(f"{len(labels)} {name}" for name, (_, labels) in data.splits.items()))

    network = build_network(args, data)
    if source is not None:
        start_from(source, network, data.alphabet)
    network.compile(
        optimizer=keras.optimizers.Adam(learning_rate(args, num_steps)),
        loss="sparse_categorical_crossentropy",
        metrics=[model.whole_accuracy],
    )
    evaluate.save_notes(run.dir, data)
    checkpoint = run.checkpoint(network, monitor="val_whole_accuracy")
    batches = training_batches(args, data, first_epoch=run.epoch)
    with parallel.spread(network):
        network.fit(
            parallel.own_rows(batches),
            steps_per_epoch=batches.steps_per_epoch,
            initial_epoch=run.epoch,
            epochs=args.epochs,
            validation_data=parallel.even(data.splits["valid"]),
            validation_batch_size=256,
            callbacks=[checkpoint],
            shuffle=False,
            verbose=run.verbose,
        )

    best = run.best_epoch("val_whole_accuracy")
    network = run.load_best()
    metrics, details, probabilities = evaluate.evaluate(network, data)
    images, labels = data.splits["test"]
    guesses, _ = model.decode(probabilities, data.alphabet)
    truths = ["".join(data.alphabet[i] for i in label) for label in labels]
    return run.finish(
        row=row_name(args, data.notes),
        data=data.notes,
        metrics=metrics,
        details=details,
        selection=f"best validation epoch: {best['epoch']} of {args.epochs}",
        images=evaluate.draw_hits_and_misses(run.dir, images, truths, guesses),
    )


def count_steps(args, data):
    """The batches of the whole training."""
    num_train = data.notes["num_train"]
    if num_train < args.batch_size:
        cli.fail(f"{num_train} training captchas do not fill a batch of {args.batch_size}")
    return num_train // args.batch_size * args.epochs


def build_network(args, data):
    """The network that --model names."""
    arguments = {
        "input_shape": data.image_shape,
        "num_characters": data.num_characters,
        "num_classes": len(data.alphabet),
    }
    hint = ""
    if args.model == "xception" and args.weights != "none":
        arguments["weights"] = args.weights
        hint = "; --weights none starts from scratch"
    try:
        return model.BUILDERS[args.model](**arguments)
    except Exception as error:  # Weights that do not fit, or an image too narrow for the pooling.
        reason = cli.first_line(error)
        cli.fail(
            f"cannot build {args.model} for images of {data.image_shape} "
            f"with --weights {args.weights}: {reason}{hint}"
        )


def start_from(source, network, alphabet):
    """Copies the weights of an earlier run that fit."""
    source_network, source_alphabet, _ = source
    try:
        model.copy_weights(source_network, network, source_alphabet, alphabet)
    except ValueError as error:
        cli.fail(f"--init needs a run of the same --model and number of characters: {error}")


def learning_rate(args, num_steps):
    """The post: a constant. Ours: rises at first, then falls to 0 along a cosine."""
    highest = args.learning_rate or LEARNING_RATES[args.recipe]
    if args.recipe == "post":
        return highest
    warmup_steps = min(200, num_steps // 10)
    return keras.optimizers.schedules.CosineDecay(
        0.0, num_steps - warmup_steps, warmup_target=highest, warmup_steps=warmup_steps
    )


def training_batches(args, data, first_epoch):
    """Ours augments the images of a folder, which are few; drawn captchas need no augmentation."""
    batches = ShuffledBatches
    if args.recipe == "ours" and args.data is not None:
        batches = dataset.AugmentedBatches
    return batches(data.splits["train"], args.batch_size, args.seed, first_epoch)


def row_name(args, notes):
    """The row of the results that this run belongs to."""
    name = f"{args.model}, {notes['num_train']:,} pictures x {args.epochs}, {notes['name']}"
    if args.init is not None:
        name += f", from {args.init.name}"
    if args.model == "xception" and args.weights != "none":
        name += f", weights {args.weights}"
    usual_recipe = "ours" if args.model == "columns" else "post"
    if args.recipe != usual_recipe:
        name += f", recipe {args.recipe}"
    return name


if __name__ == "__main__":
    cli.run(main)
