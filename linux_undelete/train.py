"""Which blocks of a disk are text, and of what kind: a small network and a plain rule.

Post:   https://kexue.fm/archives/4491 (2017): a deleted text is still on the disk, and grep on
        the raw partition finds it by a phrase. It has no model and no numbers. This network knows
        texts by their bytes, and is measured against rules that count characters.
Data:   blocks of 4 KiB from the files of the Python installation and from texts written by code
        (data/blocks.py); --data takes a folder of your own files, KIND/*, other/* among them.

    python linux_undelete/train.py                  # a minute
    python linux_undelete/train.py --preset full    # more blocks and epochs
    python linux_undelete/train.py --data DIR       # DIR/other/*, DIR/python/*, ...
    python linux_undelete/predict.py                # deletes texts in an image and finds them

Writes runs/linux_undelete/NAME/. Read it from top to bottom: rule, data, model, metrics, main.
"""

import argparse
import itertools
import time
from pathlib import Path

import numpy as np

from common.run import Run, fail, keras, layers, load_file, parse_run_args, run_script
from common.table import mean_interval, proportion
from data import blocks as embedded
from data.blocks import KINDS

THRESHOLDS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)  # Of the rule.


# --- The rule (needs only numpy; copy it) ---
def best_encoding(block):
    """(the share of characters that do not belong into a text, the encoding where it is least).

    In UTF-8 and GBK these are control characters and what cannot be decoded; in UTF-16 all but
    letters, punctuation and Chinese characters, and some punctuation must be there. Zeros at the
    end of the block do not count, nor do the bytes of a character that is cut at its start or end.
    A block of zeros is (1, "utf-8"), no text at all.
    """
    data = bytes(block)
    text = data.rstrip(b"\0")
    found = [(1.0, "utf-8")]
    controls = bytes([*range(9), 11, *range(14, 32), 127])
    wrong = len(text) - len(text.translate(None, controls))
    if text and wrong <= len(text) / 8:  # More are no text in these, whatever else is there.
        head = next((i for i in range(min(4, len(text))) if text[i] & 0xC0 != 0x80), 0)
        for encoding, start in (("utf-8", head), ("gbk", 0), ("gbk", 1)):
            characters = text[start:].decode(encoding, "replace")
            undecoded = characters.count("\ufffd") - characters.endswith("\ufffd")
            found.append(((wrong + undecoded) / max(len(characters), 1), encoding))
            if wrong + undecoded == 0:
                return found[-1]
    for encoding, order in (("utf-16-le", "<u2"), ("utf-16-be", ">u2")):
        units = np.frombuffer((text + b"\0")[: len(text) + len(text) % 2], order)
        common = (units == 0x20) | (units == 0x0A) | (units == 0x3002) | (units == 0xFF0C)
        if text and common.sum() >= len(units) / 100:
            plain = (units >= 0x20) & (units < 0x7F) | np.isin(units, (9, 10, 13, 0xFEFF))
            chinese = (units >= 0x4E00) & (units < 0xA000) | (units >= 0xFF01) & (units <= 0xFF5E)
            other = (units >= 0xA0) & (units < 0x250) | (units >= 0x2010) & (units < 0x3040)
            found.append((1 - float((plain | chinese | other).mean()), encoding))
    return min(found, key=lambda entry: entry[0])


def is_text_rule(block, threshold=0.002):
    """Whether a block (4096 bytes) is text: at most this share of it is no text in any encoding."""
    return best_encoding(block)[0] <= threshold


def kind_rule(block, threshold=0.002):
    """The kind of a block by its encoding and by how often each kind's typical marks occur."""
    import re

    share, encoding = best_encoding(block)
    if share > threshold:
        return "other"
    text = bytes(block).rstrip(b"\0").decode(encoding, "ignore")
    if encoding.startswith("utf-16"):
        return "utf16"
    if encoding == "gbk":
        return "chinese-gbk"
    marks = {  # (weight, pattern)
        "python": (4, r"^ *(?:def |class |import |from |return\b|self\.|raise |>>> |@\w|elif )|:$"),
        "c": (3, r"^\s*#\s*(?:include|define|if|endif)|[\w)\]}\"];\s*$|^\s*[{}]\s*$|^\s*/?[/*]|::"),
        "json": (3, r'"[^"\n]*"\s*:|\], \[|^\s*-?\d+\.\d+,?$'),
        "html": (4, r"</?\w[^>\n]*>"),
        "english": (1, r"\b(?:the|of|and|to|is|in|that|for|with|be)\b"),
        "chinese-utf8": (0.5, "[\u4e00-\u9fff]"),
    }
    counts = {k: weight * len(re.findall(mark, text, re.M)) for k, (weight, mark) in marks.items()}
    best = max(counts, key=counts.get)
    return best if counts[best] > len(text) / 100 else "data"


# --- Data ---
def load_data(source=None, train=500, valid=130, test=400):
    """{"train" | "valid" | "test": (uint8 blocks (n, 4096), labels (n,), names)} and notes.

    The sizes are blocks of each kind of text; of other files there are six times as many.
    """
    if source is None:
        splits = embedded.load({"train": train, "valid": valid, "test": test})
        name = f"blocks of files v{embedded.VERSION}"
    else:
        try:
            splits = embedded.load_folder(Path(source), train)
        except ValueError as error:
            fail(f"{source}: {error}")
        name = Path(source).resolve().name
    notes = {"name": name}
    for split, (_, labels, names) in splits.items():
        notes |= {f"num_{split}": len(labels), f"{split}_files": len(set(names))}
    return splits, notes | {"sha256": embedded.digest(splits)}


def batches(blocks, labels, batch_size, seed, first_epoch=0):
    """Endless batches; the order of an epoch follows from (seed, epoch) alone."""
    for epoch in itertools.count(first_epoch):
        order = np.random.default_rng((seed, epoch)).permutation(len(blocks))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            yield blocks[chosen], labels[chosen]


# --- Model (needs only keras; copy it) ---
def build_model(num_kinds=10, block_size=4096, embedding_dim=8, filters=32):
    """Bytes -> vectors -> patterns of 8 and 20 bytes -> their maxima and means -> kind."""
    inputs = keras.Input((block_size,), dtype="uint8")
    x = layers.Embedding(256, embedding_dim)(inputs)
    x = layers.Conv1D(filters, 8, strides=4, activation="relu")(x)
    x = layers.Conv1D(2 * filters, 4, strides=4, activation="relu")(x)
    x = layers.Concatenate()([layers.GlobalMaxPooling1D()(x), layers.GlobalAveragePooling1D()(x)])
    x = layers.Dense(2 * filters, activation="relu")(x)
    # With its full noise shape given, torch draws from the model's state, which --resume restores.
    x = layers.Dropout(0.2, noise_shape=(None, None))(x)
    return keras.Model(inputs, layers.Dense(num_kinds, activation="softmax")(x))


def classify_blocks(model, blocks, batch_size=256):
    """Probabilities (n, kinds) of uint8 blocks (n, 4096); the first kind is "other", no text."""
    blocks = np.asarray(blocks, "uint8")
    if len(blocks) == 0:
        return np.zeros((0, model.output_shape[-1]), "float32")
    return model.predict(blocks, batch_size=batch_size, verbose=0)


def name_kinds(blocks, model=None, threshold=0.002):
    """A name of KINDS for each block: the rule says whether it is text, the network what kind.

    This is how predict.py uses both, as the rule is better at the first question. Without a
    network the second one is answered by kind_rule, too.
    """
    if model is None:
        return [kind_rule(block, threshold) for block in blocks]
    text = np.array([is_text_rule(block, threshold) for block in blocks], bool)
    places = np.zeros(len(text), int)
    places[text] = 1 + classify_blocks(model, np.asarray(blocks)[text])[:, 1:].argmax(1)
    return [KINDS[place] for place in places]


# --- What the record says ---
def share(hits, names):
    """The share of hits with an interval: the wider one of Wilson's and of resampled files.

    Blocks of one file are alike, so that they count for less than as many files.
    """
    result, files = proportion(hits.sum(), len(hits)), np.unique(names, return_inverse=True)[1]
    counts = np.stack([np.bincount(files, hits), np.bincount(files)])
    drawn = np.random.default_rng(0).integers(counts.shape[1], size=(500, counts.shape[1]))
    right, total = counts[:, drawn].sum(-1)
    low, high = np.quantile(right / total, [0.025, 0.975]).tolist()
    return result | {"low": min(result["low"], low), "high": max(result["high"], high)}


def report(where, said, labels, names):
    """Of each method, {name: whether it calls a block text}: right, false alarms, misses."""
    names, metrics = np.array(names), {}
    text = labels != 0
    for method, called in said.items():
        metrics[f"{where}text or not, {method}"] = share(called == text, names)
        metrics[f"{where}false alarms, {method}"] = share(called[~text], names[~text])
        metrics[f"{where}misses, {method}"] = share(~called[text], names[text])
    return metrics


def speed(function, blocks, repeats=4):
    """Blocks a second, with the interval of the repeats."""
    function(blocks[:256])  # What is built on the first call is not counted.
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(blocks)
        rates.append(len(blocks) / (time.perf_counter() - start))
    return mean_interval(rates) | {"n": len(blocks)}


def choose_threshold(shares, text):
    """The threshold with which the rule is right most often on these blocks, the highest one."""
    right = {threshold: ((shares <= threshold) == text).mean() for threshold in THRESHOLDS}
    return max(THRESHOLDS, key=lambda threshold: (right[threshold], threshold))


def draw_confusion(path, labels, predicted):
    """Of the blocks of each kind (a row), the share that is taken for each kind (a column)."""
    from matplotlib.figure import Figure  # Here, because --help need not wait for it.

    counts = np.zeros((len(KINDS), len(KINDS)))
    np.add.at(counts, (labels, predicted), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axis = figure.subplots()
    axis.imshow(shares**0.5, "Blues")
    for (row, column), value in np.ndenumerate(shares):
        if counts[row, column]:
            colour = "white" if value > 0.4 else "black"
            axis.text(column, row, f"{value:.1%}", ha="center", va="center", size=7, color=colour)
    axis.set(xlabel="taken for", ylabel="is", yticks=range(len(KINDS)), yticklabels=KINDS)
    axis.set_xticks(range(len(KINDS)), KINDS, rotation=45, ha="right")
    figure.savefig(path, dpi=110)


# --- Training ---
def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--num-train", type=int, help="blocks of each kind of text; of --data: of each file")
    add("--num-test", type=int, help="blocks of each kind of text, read once; not of --data")
    add("--epochs", type=int, help="passes over the training blocks")
    add("--batch-size", type=int, default=64)
    add("--learning-rate", type=float, default=3e-3, help="of Adam, at the start; ends at 0")
    full = {"num_train": 2000, "num_test": 400, "epochs": 8}
    presets = {
        "smoke": {"num_train": 16, "num_test": 8, "epochs": 2},
        "quick": {"num_train": 500, "num_test": 400, "epochs": 6},
        "full": full,
        "post": full,  # The post has no model: this is ours at its best.
    }
    return parse_run_args(parser, presets, argv)


def main(argv=None):
    args = parse_args(argv)
    sizes = args.num_train, args.num_test, args.epochs, args.batch_size
    if min(sizes) < 1 or not 0 < args.learning_rate < np.inf:
        fail("sizes and epochs start at 1, --learning-rate above 0")
    num_valid = max(1, args.num_test // 3)
    splits, notes = load_data(args.data, args.num_train, num_valid, args.num_test)
    (x_train, y_train, _), (x_valid, y_valid, _), (x_test, y_test, test_names) = splits.values()
    steps = len(y_train) // args.batch_size
    if steps < 1:
        fail(f"{len(y_train)} blocks are no batch of {args.batch_size}: lower --batch-size")
    run = Run(args, "linux_undelete", notes["sha256"])
    print(*(f"{name}: {note}" for name, note in notes.items() if name != "sha256"), sep=", ")
    model = build_model(len(KINDS))
    schedule = keras.optimizers.schedules.CosineDecay(args.learning_rate, steps * args.epochs)
    optimizer = keras.optimizers.Adam(schedule)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])

    checkpoint = run.checkpoint(model, monitor="val_accuracy")
    first_epoch = len(run.history)
    if first_epoch < args.epochs:
        model.fit(
            batches(x_train, y_train, args.batch_size, args.seed, first_epoch),
            steps_per_epoch=steps,
            initial_epoch=first_epoch,
            epochs=args.epochs,
            validation_data=(x_valid, y_valid),
            callbacks=[checkpoint],
            shuffle=False,
            verbose=run.verbose,
        )

    model = load_file(run.dir / "model.keras")
    best = max(run.history, key=lambda entry: (entry["val_accuracy"], entry["epoch"]))
    shares = np.array([best_encoding(block)[0] for block in x_valid])
    threshold = choose_threshold(shares, y_valid != 0)

    def by_rule(blocks):
        return np.array([is_text_rule(block, threshold) for block in blocks])

    def judge(blocks):
        probabilities = classify_blocks(model, blocks)
        network, rule = probabilities[:, 0] < 0.5, by_rule(blocks)
        return probabilities, {"model": network, "rule": rule, "rule and model": network & rule}

    # Now that all is chosen, the test set.
    probabilities, said = judge(x_test)
    metrics = report("", said, y_test, test_names)
    kinds = {
        "model": np.array(KINDS)[probabilities.argmax(-1)],
        "rule": np.array(name_kinds(x_test, None, threshold)),
        "rule, then model": np.array(name_kinds(x_test, model, threshold)),
    }
    for method, names in kinds.items():
        metrics[f"kind, {method}"] = share(names == np.array(KINDS)[y_test], test_names)
    for method, function in {
        "model": lambda x: classify_blocks(model, x),
        "rule, text or not": by_rule,
        "rule, kind": name_kinds,
    }.items():
        metrics[f"blocks a second, {method}"] = speed(function, x_test[::8])
    details = {"parameters": model.count_params(), "validation accuracy": best["val_accuracy"]}
    for method, called in said.items():
        wrong = called != (y_test != 0)
        parts = [(kind, wrong[y_test == i]) for i, kind in enumerate(KINDS) if i in y_test]
        shares = ", ".join(f"{kind} {errors.mean():.1%}" for kind, errors in parts)
        details[f"text or not, wrong by kind, {method}"] = shares
    if args.data is None:
        blocks, labels, names = embedded.load_shifted(20 if args.smoke else 400)
        details["other files of this machine"] = f"{len(set(names))} files, {len(labels)} blocks"
        if 0 < labels.sum() < len(labels):
            metrics |= report("other files of this machine, ", judge(blocks)[1], labels, names)
    taken = [KINDS.index(name) for name in kinds["rule, then model"]]
    draw_confusion(run.dir / "confusion.png", y_test, taken)
    return run.finish(
        row=f"{'smoke' if args.smoke else args.preset}, {notes['name']}",
        data=notes,
        metrics=metrics,
        selection=f"best validation epoch {best['epoch']} of {args.epochs}; "
        f"threshold of the rule {threshold:g}, the best on validation",
        details=details,
        pictures={"confusion.png": "Test blocks: what each kind is taken for"},
    )


if __name__ == "__main__":
    run_script(main)
