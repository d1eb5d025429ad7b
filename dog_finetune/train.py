"""Trains a network that tells breeds of dogs apart, in three stages.

Post 4611 (https://kexue.fm/archives/4611, 2017, for Baidu's contest of 100 breeds) gives an
Xception a gated head, an auxiliary softmax and center loss, and trains first the heads, then the
last blocks, then with light augmentation: about 80% right. Ours starts from a logistic regression
and trains the last blocks by Adam. The contest's images cannot be downloaded, so the dogs are
cartoons drawn by data/dogs.py, for which a small network first learns other drawn breeds.

    python dog_finetune/train.py                       # the post's recipe on drawn dogs, 2 minutes
    python dog_finetune/train.py --preset full         # ours
    python dog_finetune/train.py --preset post --data DIR    # the post's sizes, for a GPU
    python dog_finetune/train.py --data DIR --weights PATH   # your images, a folder per class
    python dog_finetune/predict.py                     # look at hits and misses

--data also takes the contest's layout: train.txt with train/ID.jpg.
Writes runs/dog_finetune/NAME/. The stages are in stages.py.
"""

import argparse
import math
from pathlib import Path

import common.backend  # noqa: F401  # Before Keras.

import keras

from common import cli
from common.parallel import DataParallel, add_data_parallel
from common.run import Run
from data import dogs
from dog_finetune import dataset, evaluate, features, figures, stages
from dog_finetune.augment import MAX_TEST_VIEWS

PRESETS = {
    "quick": {
        "recipe": "post",
        "shares": [0.1, 0.1],
        "breeds": 20,
        "num_train": 40,
        "views": 4,
        "tta": 1,
    },
    "full": {
        "recipe": "ours",
        "shares": [0.1, 0.1],
        "breeds": 20,
        "num_train": 40,
        "views": 4,
        "tta": 4,
        "fresh": True,
    },
    "post": {
        "recipe": "post",
        "backbone": "xception",
        "image_size": 299,
        "weights": "imagenet",
        "shares": [0.1, 0.1],
        "breeds": 20,
        "num_train": 40,
        "epochs": [10, 10, 10],
        "steps": 600,
        "views": 10,
        "tta": 1,
        "fresh": True,
    },
    "smoke": {
        "recipe": "post",
        "image_size": 32,
        "shares": [0.1, 0.1],
        "breeds": 3,
        "num_train": 8,
        "epochs": [2, 2, 2],
        "steps": 2,
        "views": 2,
        "tta": 1,
    },
}
# Pieces of the post's recipe that can be left out.
PIECES = ("glu", "center", "auxiliary", "splices", "masks", "light", "pseudo")
NUM_STAGES = {"post": 3, "ours": 1, "probe": 0}  # So many numbers --epochs takes.
MIXUP = 0.2
DECAY = 0.8
MAX_BREEDS = dogs.NUM_BREEDS - 20  # The others teach the network.


# --- Flags ---
def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--recipe", choices=("post", "ours", "probe"), help="probe: logistic regression")
    add("--without", nargs="+", choices=PIECES, default=[], help="pieces to leave out")
    add("--backbone", metavar="NAME", help="small, or of keras.applications; post: xception")
    add("--weights", metavar="imagenet|none|drawn|PATH", help="drawn: learnt from other breeds")
    add("--image-size", type=cli.positive_int, metavar="N", help="pixels of a side; post: 299")
    add("--blocks", type=cli.positive_int, help="last blocks that are trained; post: 2")
    add("--valid", metavar="DIR", help="validation images; default: a fraction of the others")
    add("--test", metavar="DIR", help="test images; default: likewise")
    add(
        "--shares",
        type=cli.fraction,
        nargs=2,
        metavar=("TEST", "VALID"),
        help="fractions that are split off; default: 0.1 0.1",
    )
    add("--draws", type=cli.positive_int, default=1, help="splits, each trained on and tested")
    add(
        "--unlabelled",
        metavar="DIR|FRACTION",
        help="for pseudo-labels; FRACTION: hide so many labels",
    )
    add("--breeds", type=cli.positive_int, help=f"drawn breeds, at most {MAX_BREEDS}")
    add("--num-train", type=cli.positive_int, help="drawn images of each breed to train on")
    add(
        "--epochs",
        type=cli.positive_int,
        nargs="+",
        metavar="N",
        help="of each stage; ours: one number",
    )
    add(
        "--steps",
        type=cli.positive_int,
        help="batches of 32 in an epoch; default: one pass; post: 600",
    )
    add("--views", type=cli.positive_int, help="augmentations of each image to keep features of")
    add("--maps", type=Path, metavar="DIR", help="keep the features there, for other runs too")
    add("--fresh", action="store_true", help="augment anew in stages 2 and 3, as the post")
    add("--learning-rate", type=cli.positive_float, help="of stages 2 and 3; post: 1e-4")
    add("--decay", type=decay, default=DECAY, help="ours: of the rate, from block to block")
    add("--mixup", type=mixup, default=MIXUP, help="ours: 0 for none")
    add(
        "--tta",
        type=int,
        choices=range(1, MAX_TEST_VIEWS + 1),
        metavar="N",
        help=f"crops of each test image to average over, at most {MAX_TEST_VIEWS}",
    )
    add_data_parallel(parser)
    args = cli.parse(parser, PRESETS, argv)
    check_flags(parser, args)
    settle_network(args)
    settle_schedule(parser, args)
    settle_pieces(parser, args)
    return args


def decay(text):
    """A number above 0 and up to 1."""
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0, at most 1, not {text}")
    return number


def mixup(text):
    """A finite number of at least 0."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"expected 0 or more, not {text}")
    return number


def check_flags(parser, args):
    """Refuses flags that do not go together."""
    if args.data is None:
        if args.valid or args.test:
            parser.error("--valid and --test are for --data")
        if args.draws > 1:
            parser.error("--draws is for --data: drawn dogs have one split")
    elif args.weights == "drawn":
        parser.error("--weights drawn is for drawn dogs: give imagenet, none or a file")
    if not 2 <= args.breeds <= MAX_BREEDS:
        parser.error(f"--breeds: expected 2 to {MAX_BREEDS}")
    test, valid = args.shares
    if test == 0 or test + valid >= 0.9:
        parser.error("--shares: expected two fractions, as 0.1 0.1; the second may be 0")
    if args.recipe != "ours" and (args.mixup != MIXUP or args.decay != DECAY):
        parser.error("--mixup and --decay are for --recipe ours")


def settle_network(args):
    """The network: a small one for drawn dogs, which needs no download, or a MobileNetV2."""
    drawn = args.data is None
    if args.backbone is None:
        args.backbone = "small" if drawn else "mobilenetv2"
    if args.image_size is None:
        args.image_size = 64 if drawn else 224
    if args.weights is None:
        args.weights = "drawn" if drawn else "imagenet"
    if args.blocks is None:
        args.blocks = 2
        if args.recipe == "ours":
            args.blocks = 3 if drawn else 8


def settle_schedule(parser, args):
    """The epochs of each stage, and the learning rate of those after the first."""
    if args.epochs is None:
        defaults = {"post": [30, 10, 10], "ours": [12], "probe": []}
        args.epochs = defaults[args.recipe]
    num_stages = NUM_STAGES[args.recipe]
    if args.smoke:
        args.epochs = args.epochs[:num_stages]
    if len(args.epochs) != num_stages:
        parser.error(
            f"--epochs: recipe {args.recipe} takes {num_stages} numbers, not {len(args.epochs)}"
        )
    if args.learning_rate is None:
        if args.recipe == "ours":
            args.learning_rate = 3e-4
        elif args.data is None:
            args.learning_rate = 1e-3  # A few hundred steps need it to go as far.
        else:
            args.learning_rate = 1e-4
    if args.recipe == "probe":
        args.fresh = False


def settle_pieces(parser, args):
    """The pieces of the post that are left out: all in our recipe, and what has no data."""
    if args.recipe != "post":
        if args.without:
            parser.error("--without leaves out pieces of --recipe post")
        args.without = list(PIECES)
    elif args.unlabelled is None:
        args.without = [*args.without, "pseudo"]
    args.without = sorted(set(args.without))
    if args.unlabelled is not None and Path(args.unlabelled).is_dir():
        if "pseudo" in args.without:
            parser.error(
                f"--unlabelled {args.unlabelled}: only the post's recipe with pseudo-labels uses it"
            )
        if args.data is None:
            parser.error("a folder of --unlabelled is for --data")


# --- The run ---
def main(argv=None):
    args = parse_args(argv)
    parallel = DataParallel(args)
    draws = [dataset.load(args, draw) for draw in range(args.draws)]
    run = Run(args, "dog_finetune", [data.notes["sha256"] for data in draws])
    notes = draws[0].notes
    print(", ".join(f"{key} {value}" for key, value in notes.items() if key != "sha256"))

    results = []
    for draw, data in enumerate(draws):
        keras.utils.set_random_seed(args.seed)
        network = stages.build_network(args, data.num_classes)
        results.append(stages.train(args, run, parallel, network, data, draw))
    evaluate.save_classifier(run.dir, network)
    metrics, details, choice, guesses = evaluate.evaluate(args, results)
    evaluate.save_notes(run.dir, args.image_size, data, choice)
    images = figures.draw_confusions(run.dir, args.image_size, data, guesses)
    features.remove_features(run.dir)

    run.history = [entry for result in results for entry in result.history]
    return run.finish(
        row=row_name(args, notes["name"]),
        data=notes,
        metrics=metrics,
        selection=selection(args, notes),
        details=details,
        images=images,
    )


def row_name(args, data_name):
    """The row of the results that this run belongs to: what was chosen, but for the seed."""
    words = [args.recipe, data_name, f"{args.backbone} {args.image_size}"]
    left_out = set(args.without)
    if args.unlabelled is None:
        left_out.discard("pseudo")
    if args.recipe == "post" and left_out:
        words.append(f"without {', '.join(sorted(left_out))}")
    if args.unlabelled:
        words.append(f"{Path(args.unlabelled).resolve().name} unlabelled")
    if args.draws > 1:
        words.append(f"{args.draws} draws")
    return ", ".join(words)


def selection(args, notes):
    """What was chosen, and by what."""
    if notes["num_valid"] == 0:
        return "nothing: no validation pictures, the last epoch of each stage"
    if args.recipe == "probe":
        return "the penalty and the temperature by validation"
    return "each stage at its best validation epoch; the blend and the temperature by validation"


if __name__ == "__main__":
    cli.run(main)
