"""Which words made an RNN decide? Reviews, an LSTM, and the score of each word.

Post:   https://kexue.fm/archives/4582 (2017): an LSTM calls about 90% of Chinese reviews right;
        a word's score is how much closer it brought the hidden state to the final one.
Data:   written reviews with known cause words (data/reviews.py); --data takes the post's
        pos.xls and neg.xls, or .csv and .tsv files.

    python rnn_saliency/train.py                   # the post's LSTM, its words explained
    python rnn_saliency/train.py --preset full     # 1,000 test reviews explained
    python rnn_saliency/train.py --preset post --data sentiment          # the post's recipe
    python rnn_saliency/train.py --model ours --data sentiment           # n-grams: more right
    python rnn_saliency/train.py --cell gru --data a.csv --columns review label
    python rnn_saliency/predict.py                 # nine sentences, each word by its score

Writes runs/rnn_saliency/NAME/. Read it from top to bottom: models, scores, data, main.
How good the scores are is measured in faithfulness.py.
"""

import argparse
import hashlib

import numpy as np

from common.run import Run, fail, keras, layers, load_file, ops, parse_run_args, run_script
from common.table import proportion
from data import reviews
from rnn_saliency.faithfulness import study
from rnn_saliency.texts import (
    COLUMNS,
    Cutter,
    build_vocabulary,
    encode,
    read_source,
    save_words,
    split_rows,
)


# --- Models (they need only keras and numpy; copy them) ---
def build_classifier(
    vocabulary_size, embedding_dim=128, units=128, cell="lstm", bidirectional=False, dropout=0.5
):
    """The post's: word vectors, an LSTM, dropout on its final state, a sigmoid.

    Bidirectional, the final state is both directions' last one, side by side.

    Inputs: word ids (batch, words) from 1 to vocabulary_size; 0 is no word or an unknown one and
    is skipped: the state stays what it was. Output: probability of praise (batch, 1).
    """
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(vocabulary_size + 1, embedding_dim, mask_zero=True, name="words")(inputs)
    # cuDNN can skip zeros at the end only, but unknown words stand anywhere.
    settings = {"return_sequences": True, "return_state": True, "use_cudnn": False}
    rnn = {"lstm": layers.LSTM, "gru": layers.GRU}[cell](units, name="rnn", **settings)
    if bidirectional:
        rnn = layers.Bidirectional(rnn, name="rnn")
    _, *last = rnn(x)  # h and, of an LSTM, c; bidirectional: forward ones, then backward ones.
    final = ops.concatenate([last[0], last[len(last) // 2]], axis=-1) if bidirectional else last[0]
    final = layers.Dropout(dropout)(final)
    log_odds = layers.Dense(1, name="decision")(final)
    return keras.Model(inputs, layers.Activation("sigmoid")(log_odds))


def build_ngram_classifier(ratios, dropout=0.5):
    """Ours: a linear model of n-grams, each weighted by what naive Bayes thinks of it.

    The log-odds of a review are the sum of r * w over its n-grams, divided by the square root of
    their number: r, fixed, is the n-gram's log-count ratio, w is learnt from 0. After Wang and
    Manning 2012, with hashed n-grams.

    Inputs: n-gram ids (batch, n-grams), see ngram_ids. Output: probability of praise (batch, 1).
    """
    inputs = keras.Input((None,), dtype="int32")
    fixed = layers.Embedding(len(ratios), 1, trainable=False, name="ratios")
    weights = layers.Embedding(len(ratios), 1, embeddings_initializer="zeros", name="weights")
    r, w = fixed(inputs), weights(inputs)
    fixed.set_weights([np.reshape(ratios, (-1, 1))])
    number = ops.sum(ops.cast(r != 0, "float32"), axis=1)
    total = ops.sum(layers.Dropout(dropout)(r * w), axis=1)
    log_odds = 3 * total / ops.sqrt(ops.maximum(number, 1))
    # A Dense layer on one number: the scale and the bias of the whole.
    log_odds = layers.Dense(1, kernel_initializer="ones", name="decision")(log_odds)
    return keras.Model(inputs, layers.Activation("sigmoid")(log_odds))


def ngram_ids(words, buckets=2**20, max_ngrams=1500):
    """Ids from 1 to buckets - 1 of a review's words, pairs of words, and 1 to 3 characters.

    Each different n-gram counts once. Of more than max_ngrams the smallest ids stay, which are
    as good as drawn: an id is a hash.
    """
    import itertools
    import zlib

    text = f"\x02{''.join(words)}\x03"  # The ends of a text are characters too.
    found = {f"word {word}" for word in words}
    found |= {f"pair {a} {b}" for a, b in itertools.pairwise(words)}
    for size in (1, 2, 3):
        found |= {f"part {text[i : i + size]}" for i in range(len(text) - size + 1)}
    return sorted({zlib.crc32(x.encode()) % (buckets - 1) + 1 for x in found})[:max_ngrams]


def log_count_ratios(ids, labels, buckets=2**20, min_count=2):
    """log of how much more often each n-gram stands in praise than in blame: (buckets,).

    0 for id 0, which fills up the rows of `ids`, and for what occurs less than min_count times.
    """
    counts = [np.bincount(ids[labels == k].ravel(), minlength=buckets) + 1.0 for k in (0, 1)]
    blame, praise = (count / count[1:].sum() for count in counts)
    ratios = np.log(praise / blame)
    ratios[(sum(counts) - 2 < min_count) | (np.arange(buckets) == 0)] = 0
    return ratios.astype("float32")


def build_model(model="post", **sizes):
    """The model of this name: post or ours."""
    return (build_ngram_classifier if model == "ours" else build_classifier)(**sizes)


# --- Scores (they need only keras and numpy; copy them) ---
def build_reader(model):
    """One pass over a review that scores its words: a Keras model with three outputs.

    Out of a model of build_classifier: ids (batch, words) -> the probability (batch, 1); the
    post's scores; how far each word moved the log-odds, both (batch, words). Skipped words score
    exactly 0. Each state h belongs to the word just read, the state before the first is 0.

    The post's score is (|h_n - h_before| - |h_n - h_after|) / |h_n|: a review's sum is 1. The
    log-odds w.h + b move by w.(h_after - h_before): the sum is w.h_n. Bidirectional: each
    direction has its own h_n, forward after the last word, backward after the first; the numbers
    of both are added before dividing by |h_n| of one plus |h_n| of the other.
    """
    rnn = model.get_layer("rnn")
    for layer in (getattr(rnn, f"{way}_layer", None) for way in ("forward", "backward")):
        if layer:  # Or Bidirectional shows zeros where a skipped word left the state as it was.
            layer.zero_output_for_mask = False

    def length_of(x):  # ops.norm(x, axis=-1), which Keras 3.15 with JAX 0.10 cannot compile.
        return ops.sqrt(ops.sum(ops.square(x), axis=-1))

    states, *last = rnn.output
    decision, units = model.get_layer("decision"), last[0].shape[-1]
    closer, moved, length = 0, 0, 0
    for place in range(states.shape[-1] // units):
        after = states[..., place * units : (place + 1) * units]
        after = ops.flip(after, axis=1) if place else after  # In the order of reading.
        before = ops.pad(after[:, :-1], ((0, 0), (1, 0), (0, 0)))
        final = last[place * len(last) // 2]
        distances = [length_of(final[:, None] - h) for h in (before, after)]
        step, none = after - before, ops.zeros_like(after)
        whole = [none] * (states.shape[-1] // units)
        nothing = ops.concatenate(whole, axis=-1)
        whole[place] = step
        change = ops.squeeze(decision(ops.concatenate(whole, axis=-1)) - decision(nothing), axis=-1)
        scores = distances[0] - distances[1], change
        scores = [ops.flip(x, axis=1) for x in scores] if place else scores
        closer, moved = closer + scores[0], moved + scores[1]
        length = length + length_of(final)
    # Of a review without a known word all is 0.
    closer = closer / ops.expand_dims(ops.maximum(length, 1e-7), -1)
    return keras.Model(model.input, [model.output, closer, moved])


def state_saliency(model, ids):
    """The post's score of each word of ids (batch, words), same shape; a review's sum is 1.

    Above 0: the word brought the state closer to the final one, so it helped the decision.
    """
    return build_reader(model).predict(np.asarray(ids), verbose=0)[1]


def word_effects(model):
    """What each word alone does to the log-odds, once read: (vocabulary_size + 1,), 0 for id 0."""
    num_words = model.get_layer("words").input_dim
    ids = np.arange(num_words, dtype="int32")[:, None]
    return build_reader(model).predict(ids, batch_size=1024, verbose=0)[2][:, 0]


def change_saliency(model, ids, alone=1.0):
    """Ours: how far each word moved the log-odds towards the decision, as cheap as the post's.

    Added is what the word would do alone, times `alone`: a table, made once for a model. The
    move depends on what was read before, the table on nothing: their errors are different ones.
    """
    ids = np.asarray(ids)
    probability, _, moved = build_reader(model).predict(ids, verbose=0)
    return np.where(probability >= 0.5, 1, -1) * (moved + alone * word_effects(model)[ids])


# --- Data ---
def load_data(source=None, split="deduplicated", columns=COLUMNS, sizes=(6000, 1000, 1000)):
    """{"train" | "valid" | "test": (lists of words, labels, places of cause words or None)},
    the Cutter that predict.py must use, and notes for the record."""
    if source is None:
        parts = dict(zip(("train", "valid", "test"), sizes, strict=True))
        drawn = {part: reviews.load(part, count) for part, count in parts.items()}
        data = {p: tuple(map(list, zip(*rows, strict=True))) for p, rows in drawn.items()}
        cutter = Cutter(sorted({word for words in data["train"][0] for word in words}))
        notes = {"name": f"written reviews v{reviews.VERSION}"}
    else:
        rows, name = read_source(source, columns)
        parts, left_out = split_rows(rows, name, split == "deduplicated")
        cutter = Cutter()
        data = {
            p: (cutter.cut_all(t for t, _ in r), [k for _, k in r], None) for p, r in parts.items()
        }
        notes = {"name": name, "split": split, "left_out": left_out}
    digest = hashlib.sha256()
    for words, labels, _ in data.values():
        digest.update("\n".join(map("\t".join, words)).encode() + bytes(labels))
    sizes = {f"num_{part}": len(labels) for part, (_, labels, _) in data.items()}
    data = {
        part: (words, np.array(labels), causes) for part, (words, labels, causes) in data.items()
    }
    return data, cutter, notes | sizes | {"sha256": digest.hexdigest()}


def number(args, vocabulary, words):
    """The rows of ids that the chosen model reads, for lists of words."""
    if args.model == "post":
        return encode(words, vocabulary, args.max_words)
    return ngram_rows(review[: args.max_words] for review in words)


def ngram_rows(reviews):
    """int32 (reviews, n-grams): ngram_ids of each, filled up with 0."""
    rows = [ngram_ids(words) for words in reviews]
    ids = np.zeros((len(rows), max(map(len, rows))), "int32")
    for row, found in zip(ids, rows, strict=True):
        row[: len(found)] = found
    return ids


# --- Main ---
def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", choices=("post", "ours"), default="post", help="an RNN, or n-grams")
    add("--cell", choices=("lstm", "gru"), default="lstm", help="of --model post")
    add("--bidirectional", action="store_true", help="of --model post: read in both directions")
    splits = ("post", "deduplicated")
    add("--split", choices=splits, help="of --data; post: copies may lie on both sides")
    add("--columns", nargs=2, default=COLUMNS, metavar=("TEXT", "LABEL"), help="of a .csv or .tsv")
    add("--epochs", type=int, help="the best on validation is kept; post: 5")
    add("--batch-size", type=int, default=128, help="post: 128")
    add(
        "--min-count",
        type=int,
        default=10,
        help="of --model post: rarer words are unknown; post: 10",
    )
    add("--max-words", type=int, help="the first so many are read; post: 100, ours: 1000")
    add("--study", type=int, help="of --model post: how many test reviews to explain; 0: none")
    presets = {
        "smoke": {"split": "deduplicated", "study": 20, "epochs": 2},
        "quick": {"split": "deduplicated", "study": 300, "epochs": 8},
        "full": {"split": "deduplicated", "study": 1000, "epochs": 5},
        "post": {"split": "post", "study": 0, "epochs": 5},
    }
    args = parse_run_args(parser, presets, argv)
    if args.max_words is None:
        args.max_words = 1000 if args.model == "ours" else 100
    return args


def main(argv=None):
    args = parse_args(argv)
    if min(args.epochs, args.batch_size, args.min_count, args.max_words) < 1 or args.study < 0:
        fail("--epochs, --batch-size, --min-count and --max-words start at 1, --study at 0")
    if args.model == "ours" and (args.bidirectional or args.cell != "lstm"):
        fail("--cell and --bidirectional are of --model post: the n-gram model has no states")
    if args.data is None and tuple(args.columns) != COLUMNS:
        fail("--columns is of a table given with --data")
    sizes = (300, 60, 60) if args.smoke else (6000, 1000, 1000)
    data, cutter, notes = load_data(args.data, args.split, args.columns, sizes)
    vocabulary = build_vocabulary(data["train"][0], args.min_count)
    if not vocabulary and args.model == "post":
        fail(f"{notes['name']}: no word occurs {args.min_count} times: lower --min-count")
    x = {part: number(args, vocabulary, words) for part, (words, _, _) in data.items()}
    y = {part: labels for part, (_, labels, _) in data.items()}
    run = Run(args, "rnn_saliency", notes["sha256"])
    print(*(f"{name}: {note}" for name, note in notes.items() if name != "sha256"), sep=", ")
    settings = {"model": args.model, "max_words": args.max_words}
    save_words(run.dir / "words.json", vocabulary, cutter, **settings)

    if args.model == "ours":
        what, rate = "n-grams", 0.02
        model = build_model("ours", ratios=log_count_ratios(x["train"], y["train"]))
    else:
        what, rate = args.cell.upper(), 1e-3
        what = f"bidirectional {what}" if args.bidirectional else what
        kind = {"cell": args.cell, "bidirectional": args.bidirectional}
        model = build_model("post", vocabulary_size=len(vocabulary), **kind)
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
    checkpoint = run.checkpoint(model, monitor="val_accuracy")
    for epoch in range(len(run.history), args.epochs):
        order = np.random.default_rng((args.seed, epoch)).permutation(len(y["train"]))
        model.fit(
            x["train"][order],
            y["train"][order],
            batch_size=args.batch_size,
            initial_epoch=epoch,
            epochs=epoch + 1,
            validation_data=(x["valid"], y["valid"]),
            callbacks=[checkpoint],
            shuffle=False,
            verbose=run.verbose,
        )

    model = load_file(run.dir / "model.keras")
    best = max(run.history, key=lambda entry: (entry["val_accuracy"], entry["epoch"]))
    right = (model.predict(x["test"], verbose=0)[:, 0] >= 0.5) == y["test"]
    metrics = {"accuracy": proportion(right.sum(), len(right))}
    details = {"validation accuracy": f"{best['val_accuracy']:.4f}"}
    explained = args.study if args.model == "post" else 0
    if explained:
        causes = {part: data[part][2] for part in ("valid", "test")}
        keras.utils.set_random_seed(args.seed)
        models = model, keras.models.clone_model(model)  # The second has random weights.
        subjects = [(m, build_reader(m), word_effects(m)) for m in models]
        found, more = study(subjects, x, causes, explained, args.seed)
        metrics, details = metrics | found, details | more
    return run.finish(
        row=f"{'smoke, ' * args.smoke}{what}, {notes['name']}"
        + f", {args.split} split" * bool(args.data)
        # Of real reviews most seeds are trained only: the study is a row of its own.
        + f", {explained} explained" * bool(args.data and explained),
        data=notes,
        metrics=metrics,
        selection=f"best validation epoch {best['epoch']} of {args.epochs}",
        details=details,
    )


if __name__ == "__main__":
    run_script(main)
