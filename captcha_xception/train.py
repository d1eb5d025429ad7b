"""Reads captchas: all characters of a picture at once, from the picture alone.

Posts:  https://kexue.fm/archives/4503 (2017, Xception: >= 85% of the captchas, tuned >= 90%)
        https://kexue.fm/archives/4138 (2016, a CNN of 48,712 parameters: 46%)
Data:   Tencent's captchas have no mirror, so they are drawn (data/captchas.py);
        --data takes a folder of your own pictures whose names end with the label.

    python captcha_xception/train.py                   # ours
    python captcha_xception/train.py --preset full     # ours at its best
    python captcha_xception/train.py --preset post     # the post's recipe, for a GPU
    python captcha_xception/train.py --data DIR --init RUN   # your pictures, from an earlier run
    python captcha_xception/predict.py                 # look at what it reads

Writes runs/captcha_xception/NAME/. Read it from top to bottom: data, models, metrics, main.
"""

import argparse
import hashlib
import itertools
import json
import shlex
from collections import Counter
from pathlib import Path

import numpy as np

from captcha_xception.pictures import augment, draw_hits_and_misses, load_folder
from common.damage import first_line
from common.parallel import DataParallel, add_data_parallel
from common.run import (
    Run,
    fail,
    keras,
    layers,
    load_file,
    ops,
    parse_run_args,
    run_script,
    write_text,
)
from common.table import proportion
from data import captchas

SPLIT_SEED = 2017  # The split of a folder does not change with --seed.


# --- Data ---
def load_data(args):
    """{"train" | "valid" | "test": (pictures, labels)}, the alphabet and notes for the record.

    Drawn captchas come from three disjoint streams, and there is a fourth set, "unseen", in
    typefaces and colours that the others never show. A folder is split 81 : 9 : 10 by label,
    so that two pictures of one text, which may be one picture twice, are never torn apart.
    """
    if args.data is None:
        sizes = {"train": args.num_train, "valid": args.num_valid, "test": args.num_test}
        splits = {split: captchas.load(split, count) for split, count in sizes.items()}
        splits["unseen"] = captchas.load("test", min(2000, args.num_test), style="unseen")
        alphabet, notes = captchas.ALPHABET, {"name": f"drawn captchas v{captchas.VERSION}"}
    else:
        x, labels, alphabet, skipped = load_folder(args.data, args.length, args.case_sensitive)
        _, text = np.unique(labels, axis=0, return_inverse=True)
        if (count := text.max() + 1) < 20:
            fail(f"{args.data} shows {count} different texts: expected 20, as texts are held out")
        order = np.random.default_rng(SPLIT_SEED).permutation(count)
        ends = [round(0.81 * count), round(0.9 * count)]
        parts = zip(("train", "valid", "test"), np.split(order, ends), strict=True)
        rows = {split: np.isin(text, part) for split, part in parts}
        splits = {split: (x[row], labels[row]) for split, row in rows.items()}
        notes = {"name": Path(args.data).resolve().name, "skipped": skipped}
    notes |= {f"num_{split}": len(labels) for split, (_, labels) in splits.items()}
    digest = hashlib.sha256()
    for array in itertools.chain(*splits.values()):
        digest.update(np.ascontiguousarray(array))
    return splits, alphabet, notes | {"sha256": digest.hexdigest()}


def batches(pictures, labels, batch_size, seed, first_epoch=0, augmented=False):
    """Endless batches (uint8 pictures, labels); an epoch's order follows from (seed, epoch)."""
    for epoch in itertools.count(first_epoch):
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(len(pictures))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            x = pictures[chosen]
            yield augment(x, rng) if augmented else x, labels[chosen]


# --- Models (they need only keras; copy them) ---
# Each maps uint8 pictures (batch, height, width, 3) to probabilities (batch, num_characters,
# num_classes), so that one loss, one metric and one decoder serve all three.
def build_cnn_2016(input_shape=(53, 129, 3), num_characters=4, num_classes=26):
    """The CNN of post 4138: four small convolutions, one softmax head per character.

    Heads with weights of their own: a shared head on this one vector would give four times
    the same answer. ReLU stands after the pooling and not after the first convolution, as
    in the post.
    """
    inputs = keras.Input(input_shape)
    x = layers.Rescaling(-1 / 255, offset=1.0)(inputs)  # Dark ink becomes large values.
    for block in range(4):
        x = layers.Conv2D(32, 3)(x)
        x = layers.MaxPooling2D(2)(x)
        if block > 0:
            x = layers.ReLU()(x)
    x = layers.Flatten()(x)
    heads = [layers.Dense(num_classes, activation="softmax")(x) for _ in range(num_characters)]
    return keras.Model(inputs, ops.stack(heads, axis=1))


def build_xception(input_shape=(53, 129, 3), num_characters=4, num_classes=26, weights=None):
    """The Xception of post 4503: pooled to one vector, one dropout and softmax per character.

    Args:
        weights: None, "imagenet" (as in the post) or the path of a weights file.
    """
    inputs = keras.Input(input_shape)
    x = layers.Resizing(50, round(50 * input_shape[1] / input_shape[0] / 10) * 10)(inputs)
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    # Given as input_tensor, a picture may be smaller than the 71 x 71 that Xception asks for.
    backbone = keras.applications.Xception(
        include_top=False, weights=weights, input_tensor=x, pooling="avg"
    )
    if weights is None:
        # From scratch the moving statistics must keep up: with Keras' 0.99 a short training
        # learns, yet reads at chance in inference.
        for layer in backbone.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = 0.9
    heads = []
    for _ in range(num_characters):
        head = layers.Dropout(0.5)(backbone.output)
        heads.append(layers.Dense(num_classes, activation="softmax")(head))
    return keras.Model(inputs, ops.stack(heads, axis=1))


def build_columns(input_shape=(53, 129, 3), num_characters=4, num_classes=26, filters=24):
    """Ours: keeps the columns of the picture and lets each character look for its own.

    Averaging the picture away, as a pooled classifier does, loses where each letter stands.
    Here the convolutions shrink the height to nothing and the width only by four; for each
    character an attention over the columns, which knows their places, picks the features,
    and all characters share one classifier, so every letter seen teaches all positions.
    """

    def convolution(x, filters, strides=1):
        x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))

    inputs = keras.Input(input_shape)
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = convolution(x, filters, strides=2)
    x = layers.MaxPooling2D(2, padding="same")(x)
    for multiple, pool in ((2, (2, 1)), (4, (2, 1)), (4, (2, 1))):
        x = convolution(x, multiple * filters)
        x = layers.Add()([x, convolution(x, multiple * filters)])
        x = layers.MaxPooling2D(pool, padding="same")(x)
    x = layers.Permute((2, 1, 3))(x)  # Columns first: (columns, height, channels).
    num_columns = x.shape[1]
    x = layers.Reshape((num_columns, -1))(x)
    x = layers.Dense(6 * filters, activation="relu")(x)
    # Every column and character has its own weights: that is how a column knows its place.
    scores = layers.EinsumDense("btc,tcp->btp", (num_columns, num_characters), bias_axes="tp")(x)
    attention = layers.Softmax(axis=1)(scores)
    x = layers.Dot(axes=1)([attention, x])  # (batch, num_characters, channels)
    x = layers.Dropout(0.2)(x)
    outputs = layers.Dense(num_classes, activation="softmax")(x)
    return keras.Model(inputs, outputs)


def build_model(name, input_shape, num_characters, num_classes, weights="none"):
    """One of the three models by its flag."""
    build = {"cnn2016": build_cnn_2016, "columns": build_columns, "xception": build_xception}[name]
    given = {"weights": None if weights == "none" else weights} if name == "xception" else {}
    try:
        return build(input_shape, num_characters, num_classes, **given)
    except Exception as error:  # Weights that do not fit, a picture too narrow for pooling.
        why = f"cannot build {name} for {input_shape} with --weights {weights}: {first_line(error)}"
        fail(why + "; --weights none starts from scratch" * (weights != "none"))


# --- Metrics (the first needs only keras; copy it) ---
def whole_accuracy(y_true, y_pred):
    """1 for each captcha of which every character is right, else 0. Shape (batch,).

    y_true: (batch, num_characters) classes; y_pred: (batch, num_characters, num_classes).
    """
    right = ops.equal(ops.cast(y_true, "int32"), ops.argmax(y_pred, axis=-1))
    return ops.cast(ops.all(right, axis=-1), "float32")


def report(labels, probabilities, alphabet):
    """The metrics of the record, and the details: confusions, coverage by confidence."""
    guesses, confidence = probabilities.argmax(-1), probabilities.max(-1).prod(-1)
    right = guesses == labels
    whole, n = right.all(1), len(labels)
    metrics = {"whole captcha": proportion(whole.sum(), n)}
    for position in range(labels.shape[1]):
        metrics[f"character {position + 1}"] = proportion(right[:, position].sum(), n)
    # Below the first line where errors come together, as they do in a hard picture.
    resampled = np.random.default_rng(0).integers(n, size=(500, n))
    products = [right[rows].mean(0).prod() for rows in resampled]
    low, high = np.percentile(products, [2.5, 97.5])
    product = {"value": float(right.mean(0).prod()), "n": n, "low": float(low), "high": float(high)}
    metrics["product of the characters"] = product
    pairs = Counter(zip(labels[~right].tolist(), guesses[~right].tolist(), strict=True))
    confusions = [[alphabet[a], alphabet[b], count] for (a, b), count in pairs.most_common(10)]
    coverage = []
    for threshold in (0.0, 0.5, 0.8, 0.9, 0.95, 0.99):
        kept = confidence >= threshold
        accuracy = float(whole[kept].mean()) if kept.any() else None
        coverage.append({"confidence": threshold, "read": float(kept.mean()), "accuracy": accuracy})
    return metrics, {"confusions": confusions, "coverage": coverage}


# --- Training ---
def copy_weights(source, model, source_alphabet, alphabet):
    """Copies the weights that fit; in a classifier, the columns of the characters both know."""
    if [type(layer) for layer in source.layers] != [type(layer) for layer in model.layers]:
        fail("--init needs a run of the same --model and, but for columns, as many characters")
    shared = [c for c in alphabet if c in source_alphabet or c.lower() in source_alphabet]
    old = [source_alphabet.index(c if c in source_alphabet else c.lower()) for c in shared]
    new = [alphabet.index(c) for c in shared]
    for old_layer, new_layer in zip(source.layers, model.layers, strict=True):
        head = isinstance(new_layer, keras.layers.Dense) and new_layer.units == len(alphabet)
        for before, after in zip(old_layer.weights, new_layer.weights, strict=True):
            if head and before.shape[:-1] == after.shape[:-1]:
                values = np.array(after)
                values[..., new] = np.array(before)[..., old]
                after.assign(values)
            elif before.shape == after.shape:
                after.assign(before)


def load_run(run_dir):
    """The model of a run, its alphabet and the (width, height) of its pictures."""
    notes = load_file(run_dir / "captcha.json")
    try:
        return load_file(run_dir / "model.keras"), notes["alphabet"], tuple(notes["size"])
    except (KeyError, TypeError) as error:
        fail(f"{run_dir / 'captcha.json'} is damaged: {error}")


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", choices=("columns", "xception", "cnn2016"), help="ours, or a post's")
    add("--recipe", choices=("ours", "post"), help="post: Adam 1e-3, pictures as they are")
    add("--weights", default="none", metavar="imagenet|none|PATH", help="of Xception")
    add("--init", type=Path, metavar="RUN", help="start from the weights of an earlier run")
    add("--num-train", type=int, help="drawn captchas; posts: 90000, 2016 not given")
    add("--num-valid", type=int, default=2000, help="drawn captchas to choose the epoch by")
    add("--num-test", type=int, help="drawn captchas; post: 10000")
    add("--epochs", type=int, help="passes over the training set; posts: about 11, 30")
    add("--batch-size", type=int, help="posts: 100, 256")
    add("--learning-rate", type=float, help="default: 2e-3 at its highest; posts: 1e-3")
    add("--length", type=int, help="the label is the last LENGTH characters of a name")
    add("--case-sensitive", action="store_true", help="A and a are two classes")
    add_data_parallel(parser)
    quick = {"model": "columns", "recipe": "ours", "batch_size": 64, "num_test": 2000}
    quick |= {"num_train": 20_000, "epochs": 3}
    presets = {
        "smoke": quick | {"num_train": 256, "num_valid": 64, "num_test": 64, "epochs": 2},
        "quick": quick,
        "full": quick | {"num_train": 60_000, "num_test": 10_000, "epochs": 5},
        "post": {"model": "xception", "weights": "imagenet", "recipe": "post", "epochs": 11}
        | {"num_train": 90_000, "num_test": 10_000, "batch_size": 100},
    }
    return parse_run_args(parser, presets, argv)


def main(argv=None):
    args = parse_args(argv)
    numbers = (args.epochs, args.batch_size, args.num_train, args.num_valid, args.num_test)
    numbers += (args.length, args.learning_rate)
    if any(number is not None and not 0 < number < np.inf for number in numbers):
        fail("epochs, sizes and length must be 1 or more, and the learning rate above 0")
    names = args.length or args.case_sensitive
    drawn = any(word.startswith("--num-") for word in shlex.split(args.command))
    if names if args.data is None else drawn and not args.resume:
        fail("--length and --case-sensitive are for --data, --num-... for drawn captchas")
    parallel = DataParallel(args)
    splits, alphabet, notes = load_data(args)
    (x_train, y_train), (x_test, y_test) = splits["train"], splits["test"]
    if not (steps := len(y_train) // args.batch_size):
        fail(f"{len(y_train)} training captchas do not fill a batch of {args.batch_size}")
    source, source_alphabet, _ = load_run(args.init) if args.init else (None, None, None)
    run = Run(args, "captcha_xception", notes["sha256"])
    print(", ".join(f"{len(labels)} {split}" for split, (_, labels) in splits.items()))
    sizes = (x_train.shape[1:], y_train.shape[1], len(alphabet))
    model = build_model(args.model, *sizes, args.weights)
    if args.init:
        copy_weights(source, model, source_alphabet, alphabet)
    ours = args.recipe == "ours"
    rate = args.learning_rate or (2e-3 if ours else 1e-3)
    if ours:
        warmup = min(200, steps * args.epochs // 10)
        rising = {"warmup_target": rate, "warmup_steps": warmup}
        rate = keras.optimizers.schedules.CosineDecay(0.0, steps * args.epochs - warmup, **rising)
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(rate), loss, metrics=[whole_accuracy])
    # predict.py needs to know what the classes mean and how large a picture must be.
    shape = {"alphabet": alphabet, "size": [x_train.shape[2], x_train.shape[1]]}
    write_text(run.dir / "captcha.json", json.dumps(shape))

    checkpoint = run.checkpoint(model, monitor="val_whole_accuracy")
    first_epoch = len(run.history)
    # A small folder needs augmentation; of drawn captchas there are as many as one likes.
    train_batches = batches(
        *(x_train, y_train, args.batch_size, args.seed, first_epoch),
        augmented=ours and args.data is not None,
    )
    with parallel.spread(model):
        model.fit(
            parallel.own_rows(train_batches),
            steps_per_epoch=steps,
            initial_epoch=first_epoch,
            epochs=args.epochs,
            validation_data=parallel.even(splits["valid"]),
            validation_batch_size=256,
            callbacks=[checkpoint],
            shuffle=False,
            verbose=run.verbose,
        )
    best = max(run.history, key=lambda epoch: (epoch["val_whole_accuracy"], epoch["epoch"]))
    model = load_file(run.dir / "model.keras")
    probabilities = model.predict(x_test, batch_size=256, verbose=0)
    metrics, details = report(y_test, probabilities, alphabet)
    if "unseen" in splits:
        x, y = splits["unseen"]
        hits = (model.predict(x, batch_size=256, verbose=0).argmax(-1) == y).all(1).sum()
        metrics["whole captcha, unseen style"] = proportion(hits, len(y))
    guesses = ["".join(alphabet[i] for i in row) for row in probabilities.argmax(-1)]
    truths = ["".join(alphabet[i] for i in row) for row in y_test]
    row = f"{args.model}, {notes['num_train']:,} pictures x {args.epochs}, {notes['name']}"
    row += f", from {args.init.name}" if args.init else ""
    row += f", weights {args.weights}" * (args.model == "xception" and args.weights != "none")
    row += f", recipe {args.recipe}" if ours != (args.model == "columns") else ""
    return run.finish(
        row=row,
        data=notes,
        metrics=metrics,
        details=details,
        selection=f"best validation epoch: {best['epoch']} of {args.epochs}",
        pictures=draw_hits_and_misses(run.dir, x_test, truths, guesses),
    )


if __name__ == "__main__":
    run_script(main)
