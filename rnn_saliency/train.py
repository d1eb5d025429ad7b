"""Trains a classifier of Chinese reviews, and scores which words made it decide.

Post 4582 (https://kexue.fm/archives/4582, 2017): an LSTM calls about 90% of Chinese reviews right,
and a word's score is how much closer it brought the hidden state to the final one. Here the
reviews are written by code, so their cause words are known (data/reviews.py); --data takes the
post's pos.xls and neg.xls, or .csv and .tsv files. faithfulness.py measures how good the scores
are.

    python rnn_saliency/train.py                   # the post's LSTM, its words explained
    python rnn_saliency/train.py --preset full     # 1,000 test reviews explained
    python rnn_saliency/train.py --preset post --data sentiment          # the post's recipe
    python rnn_saliency/train.py --model ours --data sentiment           # n-grams: more accurate
    python rnn_saliency/train.py --cell gru --data a.csv --columns review label
    python rnn_saliency/predict.py                 # nine sentences, each word by its score

Writes runs/rnn_saliency/NAME/.
"""

import argparse

import common.backend  # noqa: F401  # Before Keras.

import keras
import numpy as np

from common import cli
from common.run import Run
from rnn_saliency import dataset, evaluate, model
from rnn_saliency.faithfulness import study

PRESETS = {
    "quick": {"split": "deduplicated", "study": 300, "epochs": 8},
    "full": {"split": "deduplicated", "study": 1000, "epochs": 5},
    "post": {"split": "post", "study": 0, "epochs": 5},
    "smoke": {"split": "deduplicated", "study": 20, "epochs": 2},
}
MAX_WORDS = {"post": 100, "ours": 1000}
LEARNING_RATES = {"post": 1e-3, "ours": 0.02}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", choices=("post", "ours"), default="post", help="an RNN, or n-grams")
    add("--cell", choices=("lstm", "gru"), default="lstm", help="of --model post")
    add("--bidirectional", action="store_true", help="of --model post: read in both directions")
    add(
        "--split",
        choices=("post", "deduplicated"),
        help="of --data; post: copies of a review may lie in training and test",
    )
    add(
        "--columns",
        nargs=2,
        default=dataset.COLUMNS,
        metavar=("TEXT", "LABEL"),
        help="of a .csv or .tsv file",
    )
    add("--epochs", type=cli.positive_int, help="the best on validation is kept; post: 5")
    add("--batch-size", type=cli.positive_int, default=128, help="post: 128")
    add(
        "--min-count",
        type=cli.positive_int,
        default=10,
        help="of --model post: rarer words are unknown; post: 10",
    )
    add("--max-words", type=cli.positive_int, help="so many are read; post: 100, ours: 1000")
    add("--study", type=int, help="of --model post: how many test reviews to explain; 0: none")
    args = cli.parse(parser, PRESETS, argv)
    if args.max_words is None:
        args.max_words = MAX_WORDS[args.model]
    if args.study < 0:
        parser.error("--study must be at least 0")
    if args.model == "ours" and (args.bidirectional or args.cell != "lstm"):
        parser.error("--cell and --bidirectional are of --model post: n-grams have no states")
    if args.data is None and tuple(args.columns) != dataset.COLUMNS:
        parser.error("--columns is of a table given with --data")
    return args


def main(argv=None):
    args = parse_args(argv)
    sizes = dataset.SMOKE_SIZES if args.smoke else dataset.SIZES
    data = dataset.load(args.data, args.split, args.columns, sizes)
    vocabulary = dataset.build_vocabulary(data.words["train"], args.min_count)
    if not vocabulary and args.model == "post":
        name = data.notes["name"]
        cli.fail(f"{name}: no word occurs {args.min_count} times: lower --min-count")
    ids = {part: encode(args, vocabulary, words) for part, words in data.words.items()}
    run = Run(args, "rnn_saliency", data.notes["sha256"])
    print(", ".join(f"{name}: {note}" for name, note in data.notes.items() if name != "sha256"))
    dataset.save_words(
        run.dir / "words.json",
        vocabulary,
        data.cutter,
        model=args.model,
        max_words=args.max_words,
    )

    network = build_network(args, vocabulary, ids["train"], data.labels["train"])
    network.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATES[args.model]),
        loss="binary_crossentropy",
        metrics=["accuracy"],
    )
    checkpoint = run.checkpoint(network, monitor="val_accuracy")
    for epoch in range(run.epoch, args.epochs):
        # The order of an epoch follows from (seed, epoch), so a resumed run sees the same.
        order = np.random.default_rng((args.seed, epoch)).permutation(len(ids["train"]))
        network.fit(
            ids["train"][order],
            data.labels["train"][order],
            batch_size=args.batch_size,
            initial_epoch=epoch,
            epochs=epoch + 1,
            validation_data=(ids["valid"], data.labels["valid"]),
            callbacks=[checkpoint],
            shuffle=False,
            verbose=run.verbose,
        )

    network = run.load_best()
    best = run.best_epoch("val_accuracy")
    metrics = {"accuracy": evaluate.accuracy(network, ids["test"], data.labels["test"])}
    details = {"validation accuracy": f"{best['val_accuracy']:.4f}"}
    if num_explained(args) > 0:
        keras.utils.set_random_seed(args.seed)
        control = keras.models.clone_model(network)  # With random weights.
        explained = study(network, control, ids, data.causes, args.study, args.seed)
        metrics.update(explained[0])
        details.update(explained[1])
    return run.finish(
        row=row_name(args, data.notes),
        data=data.notes,
        metrics=metrics,
        selection=f"best validation epoch {best['epoch']} of {args.epochs}",
        details=details,
    )


def encode(args, vocabulary, texts):
    """The ids that the chosen model reads, of lists of words."""
    if args.model == "post":
        return dataset.encode(texts, vocabulary, args.max_words)
    return dataset.encode_ngrams([words[: args.max_words] for words in texts])


def build_network(args, vocabulary, ids, labels):
    """The classifier that the flags ask for."""
    if args.model == "ours":
        return model.build_ngram_classifier(model.log_count_ratios(ids, labels))
    return model.build_classifier(len(vocabulary), cell=args.cell, bidirectional=args.bidirectional)


def num_explained(args):
    """How many test reviews are explained: the n-gram model has no states to score by."""
    if args.model == "ours":
        return 0
    return args.study


def row_name(args, notes):
    """The row of the results that this run belongs to."""
    if args.model == "ours":
        name = "n-grams"
    else:
        name = args.cell.upper()
        if args.bidirectional:
            name = f"bidirectional {name}"
    if args.smoke:
        name = f"smoke, {name}"
    name += f", {notes['name']}"
    if args.data is not None:
        name += f", {args.split} split"
        # With most seeds of real reviews nothing is explained: the study is a row of its own.
        if num_explained(args) > 0:
            name += f", {args.study} explained"
    return name


if __name__ == "__main__":
    cli.run(main)
