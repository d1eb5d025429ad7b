"""Trains a reader that fills the blank of a Chinese story by pointing at a word of that story.

Post 4564 (https://kexue.fm/archives/4564, 2017) was written for the CMRC2017 contest: the passage,
cut at its blank, goes through one two-layer BiLSTM, and 73.55% of the validation questions are
right. Ours reads the whole passage, with a BiGRU that is asked at the blank. The data are stories
written by code (data/stories.py), any stories (--text), or the official files (--data).

    python cloze_ccl/train.py                                  # our reader, written stories
    python cloze_ccl/train.py --model post                     # the post's reader, same data
    python cloze_ccl/train.py --preset full --text stories.txt --vectors vectors.txt
    python cloze_ccl/train.py --preset post --data CMRC2017 --vectors vectors.txt
    python cloze_ccl/predict.py                                # ten questions, answered

Writes runs/cloze_ccl/NAME/.
"""

import argparse
import math

import common.backend  # noqa: F401  # Before Keras.

import keras
import numpy as np
from tqdm import tqdm

from cloze_ccl import dataset, evaluate, model
from common import cli
from common.run import Run

PRESETS = {
    "quick": {
        "model": "ours",
        "units": 64,
        "embedding_dim": 64,
        "batch_size": 64,
        "num_stories": 1500,
        "epochs": 3,
        "learning_rate": 3e-3,
    },
    "full": {
        "model": "ours",
        "units": 128,
        "embedding_dim": 128,
        "batch_size": 64,
        "num_stories": 10_000,
        "epochs": 3,
        "learning_rate": 1e-3,
    },
    "post": {
        "model": "post",
        "units": 128,
        "embedding_dim": 128,
        "batch_size": 160,
        "num_stories": 10_000,
        "epochs": 30,
        "learning_rate": 1e-3,
    },
    "smoke": {
        "model": "ours",
        "units": 8,
        "embedding_dim": 8,
        "batch_size": 64,
        "num_stories": 30,
        "epochs": 2,
        "learning_rate": 3e-3,
    },
}
ROW_NAMES = {"post": "the post's reader", "as-reader": "AS Reader", "ours": "ours"}


# --- Flags ---
def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", choices=tuple(model.BUILDERS), help="the post's reader, the AS Reader, or ours")
    add(
        "--match",
        choices=("states", "words"),
        default="states",
        help="of --model post: what the question is compared with; default: states",
    )
    add("--num-layers", type=cli.positive_int, default=2, help="of --model post; default: 2")
    add(
        "--without",
        nargs="+",
        choices=model.INGREDIENTS,
        default=[],
        help="of --model ours: leave these parts out",
    )
    add("--text", nargs="+", default=[], metavar="FILE", help="make questions of these stories")
    add("--test", nargs="+", default=[], metavar="FILE", help="questions to test on, read once")
    add("--vectors", metavar="FILE", help="word vectors in word2vec's text format")
    add("--units", type=cli.positive_int, help="of each direction; post: 128")
    add("--embedding-dim", type=cli.positive_int, help="of words, without --vectors; post: 128")
    add("--epochs", type=cli.positive_int, help="the best one on validation is kept; post: 30")
    add("--batch-size", type=cli.positive_int, help="post: 160")
    add(
        "--learning-rate",
        type=cli.positive_float,
        help="of Adam; that of ours falls to 0; post: 0.001",
    )
    add("--min-count", type=cli.positive_int, default=2, help="rarer words are unknown; post: 2")
    add(
        "--num-stories",
        type=cli.positive_int,
        help="written stories to train on, three questions each",
    )
    args = cli.parse(parser, PRESETS, argv)
    if args.without and args.model != "ours":
        parser.error("--without is of --model ours")
    if args.model != "post" and (args.match != "states" or args.num_layers != 2):
        parser.error("--match and --num-layers are of --model post")
    if args.data and args.text:
        parser.error("give --data or --text, not both")
    return args


# --- The story ---
def main(argv=None):
    args = parse_args(argv)
    word_vectors = None
    if args.vectors:
        word_vectors = dataset.read_vectors(args.vectors)
    splits, notes = dataset.load_data(args.data, args.text, args.test, args.num_stories)
    word_keys = {}
    encoded = {}
    for split, questions in splits.items():
        encoded[split] = dataset.encode_all(questions, word_keys)
    vocabulary = dataset.choose_vocabulary(
        args.model, encoded["train"], word_keys, args.min_count, word_vectors
    )
    used_vectors = {}
    if word_vectors is not None:
        used_vectors["vectors"] = dataset.vectors_sha256(word_vectors, word_keys)
    run = Run(args, "cloze_ccl", [notes["sha256"], *used_vectors.values()])
    print(", ".join(f"{name}: {note}" for name, note in notes.items() if name != "sha256"))
    evaluate.save_words(run.dir, args.model, vocabulary)

    num_steps = math.ceil(len(encoded["train"]) / args.batch_size) * args.epochs
    network = build_network(args, vocabulary, num_steps)
    checkpoint = run.checkpoint(network, monitor="val_accuracy")
    reader = evaluate.Reader(args.model, network, vocabulary.words, vocabulary.characters)
    lookup = reader.lookup(word_keys)
    for epoch in range(run.epoch, args.epochs):
        batches = dataset.QuestionBatches(
            args.model, encoded["train"], lookup, args.batch_size, seed=(args.seed, epoch)
        )
        checkpoint.begin_epoch()
        loss = train_epoch(network, batches, f"epoch {epoch + 1} of {args.epochs}")
        accuracy = evaluate.accuracy(args.model, network, encoded["valid"], lookup)
        checkpoint.end_epoch(epoch, {"loss": loss, "val_accuracy": accuracy})
        print(f"epoch {epoch + 1}: loss {loss:.4f} val_accuracy {accuracy:.4f}", flush=True)

    best = run.best_epoch("val_accuracy")
    # Only the weights: for another network TensorFlow would trace every shape again.
    network.set_weights(run.load_best().get_weights())
    metrics, details = evaluate.evaluate(reader, splits, encoded, word_keys, run.dir)
    details["validation accuracy"] = f"{best['val_accuracy']:.4f}"
    details.update(used_vectors)
    return run.finish(
        row=row_name(args, notes),
        data=notes,
        metrics=metrics,
        selection=f"best validation epoch {best['epoch']} of {args.epochs}",
        details=details,
        images={"attention.svg": "Test passages, each word as dark as it is probable"},
    )


# --- Training ---
def build_network(args, vocabulary, num_steps):
    """The reader that the flags ask for, compiled.

    Args:
        num_steps: the batches of the whole training.
    """
    arguments = {
        "vocabulary_size": len(vocabulary.words),
        "units": args.units,
        "embedding_dim": args.embedding_dim,
    }
    if vocabulary.vectors is not None:
        arguments["vectors"] = vocabulary.vectors
        arguments["embedding_dim"] = vocabulary.vectors.shape[1]
    if args.model == "post":
        arguments["match"] = args.match
        arguments["num_layers"] = args.num_layers
    if args.model == "ours":
        arguments["num_characters"] = len(vocabulary.characters)
        arguments["num_trained"] = vocabulary.num_trained
        arguments["without"] = args.without
    network = model.BUILDERS[args.model](**arguments)
    learning_rate = args.learning_rate
    if args.model == "ours":
        learning_rate = keras.optimizers.schedules.CosineDecay(args.learning_rate, num_steps)
    clipnorm = 10
    if args.model == "post":
        clipnorm = None
    network.compile(keras.optimizers.Adam(learning_rate, clipnorm=clipnorm), choose_loss(args))
    return network


def choose_loss(args):
    """The post's loss for its reader, and for ours --without summed-loss."""
    if args.model == "post" or "summed-loss" in args.without:
        return model.pointer_loss
    return model.pointer_sum_loss


def train_epoch(network, batches, description):
    """Trains on each batch once, and returns the mean of their losses."""
    losses = []
    bar = tqdm(batches, desc=description, disable=None, leave=False)
    for inputs, targets, weights in bar:
        losses.append(float(network.train_on_batch(inputs, targets, sample_weight=weights)))
        bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}")
    return float(np.mean(losses))


def row_name(args, notes):
    """The row of the results that this run belongs to."""
    preset = args.preset
    if args.smoke:
        preset = "smoke"
    name = f"{preset} x {args.epochs}, {notes['name']}: {ROW_NAMES[args.model]}"
    if args.match == "words":
        name += ", matching words"
    if args.num_layers != 2:
        name += f", {args.num_layers} layer(s)"
    for ingredient in args.without:
        name += f", without {ingredient}"
    if args.vectors:
        name += ", with vectors"
    return name


if __name__ == "__main__":
    cli.run(main)
