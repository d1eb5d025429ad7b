"""The digits of custom_loss: pictures that users bring, training, measures, drawings."""

import functools
import itertools
import re

import numpy as np

from common.data import fetch
from common.run import fail, keras, load_file, ops
from common.table import mean_interval, proportion
from data import glyphs, mnist

SPLIT_SEED = 4493  # The split of a file does not change with --seed.
SEEN, NUM_DIGITS = 7, 10  # All networks are trained on 0 to 6; 7, 8 and 9 they never see.
SHOTS, DRAWS = 5, 100  # Known pictures of a class never trained on, and how often they are drawn.
NOISES = 1000  # Pictures of noise.


# --- Data ---
def load_digits(source, num_train, num_valid, num_test, batch_size=1):
    """{"train" | "valid" | "test": (uint8 pictures (n, 28, 28, 1), labels)} and their name."""
    sizes = {"train": num_train, "valid": num_valid, "test": num_test}
    if source is None:
        path, name = "drawn digits", f"drawn digits v{glyphs.VERSION}"
        splits = {split: glyphs.load(split, count) for split, count in sizes.items()}
    else:
        path = fetch("mnist.npz", [mnist.URL], mnist.SHA256) if source == "mnist" else source
        try:
            splits, name = mnist.load(path, sizes, SPLIT_SEED)
        except ValueError as error:
            fail(error)
    for split, (_, labels) in splits.items():
        counts = np.bincount(labels, minlength=NUM_DIGITS)
        least = SHOTS + 1 if split == "test" else 2
        if counts[digit := counts.argmin()] < least:
            fail(
                f"{path}: class {digit} has {counts[digit]} of the {len(labels)} pictures to "
                f"{split} on, at least {least} are needed"
            )
    if (few := (splits["train"][1] < SEEN).sum()) < batch_size:
        fail(f"--batch-size {batch_size}: only {few} digits from 0 to {SEEN - 1} to train on")
    return {split: (x[..., None], y.astype("int32")) for split, (x, y) in splits.items()}, name


# --- Training ---
def fit_best(run, name, model, monitor, epochs, batches, steps, callbacks=(), **keywords):
    """Trains on batches(first epoch), or goes on; returns the best epoch's model, the history."""
    print(name, flush=True)
    prefix = re.sub(r"\W+", "-", name) + "-"
    checkpoint = run.checkpoint(model, monitor=monitor, prefix=prefix)
    if (first_epoch := len(run.history)) < epochs:
        model.fit(
            batches(first_epoch),
            steps_per_epoch=steps,
            initial_epoch=first_epoch,
            epochs=epochs,
            callbacks=[*callbacks, checkpoint],
            shuffle=False,
            verbose=run.verbose,
            **keywords,
        )
    return load_file(run.dir / f"{prefix}model.keras"), run.history


def apply(model, inputs, size=1000):
    """What a model makes of the inputs: an array or a list of them.

    Eagerly, for to compile each of two dozen small models takes longer; but on JAX an LSTM is
    compiled anew at each eager call.
    """
    call = model.predict_on_batch if on_jax() else model
    parts = [call(inputs[i : i + size]) for i in range(0, len(inputs), size)]
    if isinstance(parts[0], list):
        columns = zip(*parts, strict=True)
        return [np.concatenate([ops.convert_to_numpy(x) for x in column]) for column in columns]
    return np.concatenate([ops.convert_to_numpy(part) for part in parts])


def on_jax():
    """jit_compile: TensorFlow's XLA takes seconds and gains nothing here, JAX without crawls."""
    return keras.backend.backend() == "jax"


def digit_batches(pictures, labels, batch_size, seed, with_class, first_epoch):
    """Endless batches; the order of an epoch follows from (seed, epoch) alone."""
    for epoch in itertools.count(first_epoch):
        order = np.random.default_rng((seed, epoch)).permutation(len(labels))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            rows = order[start : start + batch_size]
            x, y = pictures[rows], labels[rows]
            yield ((x, y) if with_class else x), y


def train_digits(args, run, splits, compiled):
    """{name: pictures to [features, probabilities]} at the best validation epochs, {name: history}.

    compiled(kind, feature_dim) builds the network "plain", "smoothing" or "center".
    """
    known = {split: (x[y < SEEN], y[y < SEEN]) for split, (x, y) in splits.items()}
    (x, y), (x_valid, y_valid) = known["train"], known["valid"]
    names = ["plain"] + ["smoothing"] * ("smoothing" in args.loss)
    names += ["center", "plain 2-D", "center 2-D"] if "center" in args.loss else []
    trained, histories = {}, {}
    for name in names:
        kind, _, plane = name.partition(" ")
        center = kind == "center"  # Its class is an input, too.
        keras.utils.set_random_seed(args.seed)  # Networks of one shape start alike.
        model = compiled(kind, 2 if plane else 32)
        best, histories[name] = fit_best(
            *(run, name, model, "val_accuracy", args.epochs),
            functools.partial(digit_batches, x, y, args.batch_size, args.seed, center),
            len(y) // args.batch_size,
            validation_data=((x_valid, y_valid) if center else x_valid, y_valid),
            validation_batch_size=500,
        )
        features = best.get_layer("features").output
        outputs = [features, best.get_layer("probabilities")(features)]
        trained[name] = keras.Model(best.inputs[0], outputs)
    return trained, histories


# --- Measures of one classifier ---
def calibration_error(probabilities, labels, bins=15):
    """Expected calibration error: how far confidence and accuracy lie apart, on average."""
    confidence = probabilities.max(-1)
    right = probabilities.argmax(-1) == labels
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(places, confidence - right, minlength=bins)
    return np.abs(gaps).sum() / len(labels)


def distance_ratio(features, labels):
    """Mean squared distance to the own class's centre, over that of the centres to theirs.

    It does not change when all features are scaled, as a smaller distance alone would.
    """
    classes, places = np.unique(labels, return_inverse=True)
    centres = np.stack([features[labels == c].mean(0) for c in classes])
    within = np.square(features - centres[places]).sum(-1).mean()
    return within / np.square(centres - centres.mean(0)).sum(-1).mean()


def few_shot_accuracies(features, labels):
    """How often each sample is put in its class by the nearest of SHOTS samples a class.

    The known samples are drawn DRAWS times; a sample is not asked for while it is one.
    """
    rng, classes = np.random.default_rng(0), np.unique(labels)
    right, asked = np.zeros(len(labels)), np.zeros(len(labels))
    squares = np.square(features).sum(-1)
    for _ in range(DRAWS):
        known = np.concatenate(
            [rng.choice(np.flatnonzero(labels == c), SHOTS, replace=False) for c in classes]
        )
        distances = squares[known] - 2 * features @ features[known].T
        others = np.setdiff1d(np.arange(len(labels)), known)
        hits = labels[known][distances[others].argmin(-1)] == labels[others]
        right[others] += hits
        asked[others] += 1
    return right[asked > 0] / asked[asked > 0]


def resampled(measure, *arrays, rounds=200):
    """The measure with a 95% interval from samples drawn with replacement."""
    n, rng = len(arrays[0]), np.random.default_rng(0)
    rows = rng.integers(n, size=(rounds, n))
    value = float(measure(*arrays))
    half = 1.96 * float(np.std([measure(*(array[r] for array in arrays)) for r in rows]))
    return {"value": value, "n": n, "low": max(0.0, value - half), "high": value + half}


def noise_pictures(pictures):
    """Two kinds of pictures without a digit: uniform noise, and pixels of digits shuffled."""
    rng = np.random.default_rng(0)
    shuffled = rng.permuted(pictures[:NOISES].reshape(len(pictures[:NOISES]), -1), axis=1)
    uniform = rng.integers(0, 256, (NOISES, *pictures.shape[1:]), "uint8")
    return {"noise": uniform, "shuffled digits": shuffled.reshape(-1, *pictures.shape[1:])}


def measure_digits(args, trained, pictures, labels, folder):
    """Reads the test pictures: metrics and pictures of the networks, {file: caption}."""
    metrics, captions, confidences = {}, {}, {}
    outputs = {name: apply(model, pictures) for name, model in trained.items()}
    seen, noises = labels < SEEN, noise_pictures(pictures)
    texts = {"smoothing": f"smoothing {args.epsilon:g}", "center": f"center {args.center_weight:g}"}
    spaces = {"pixels": pictures.reshape(len(labels), -1) / 255}
    for name in [name for name in ("plain", "smoothing", "center") if name in trained]:
        text = texts.get(name, name)
        features, probabilities = outputs[name]
        known = probabilities[seen], labels[seen]
        spaces[text] = features
        right = (known[0].argmax(-1) == known[1]).sum()
        metrics[f"accuracy, {text}"] = proportion(right, seen.sum())
        if "smoothing" not in args.loss or name == "center":
            continue
        metrics[f"calibration error, {text}"] = resampled(calibration_error, *known)
        sure = {"digits 0-6": known[0].max(-1), "digits 7-9": probabilities[~seen].max(-1)}
        sure |= {k: apply(trained[name], noise)[1].max(-1) for k, noise in noises.items()}
        for kind, values in sure.items():
            mean = mean_interval(values.astype(float)) | {"n": len(values)}
            metrics[f"mean confidence on {kind}, {text}"] = mean
            share = proportion((values > 0.9).sum(), len(values))
            metrics[f"more than 90% sure of {kind}, {text}"] = share
        confidences[text] = sure
    if "center" in args.loss:
        for text, features in spaces.items():
            if text != "pixels":
                ratio = resampled(distance_ratio, features[seen], labels[seen])
                metrics[f"within / between, {text}"] = ratio
            shots = few_shot_accuracies(features[~seen].astype(float), labels[~seen])
            metrics[f"unseen digits, {text}"] = mean_interval(shots) | {"n": len(shots)}
        planes = {name: outputs[name][0][seen] for name in ("plain 2-D", "center 2-D")}
        draw_features(folder / "features.png", planes, labels[seen])
        captions["features.png"] = "Two features of the test digits, without and with center loss"
    if confidences:
        draw_confidences(folder / "confidence.png", confidences)
        captions["confidence.png"] = "How sure the network is: of digits, and of what is none"
    return metrics, captions


def save_digits(folder, trained, pictures, labels):
    """What predict.py needs: the network with the features, and digits to compare with."""
    name = next(name for name in ("center", "smoothing", "plain") if name in trained)
    trained[name].save(folder / "digits.keras")
    np.savez_compressed(folder / "gallery.npz", pictures=pictures[:500], labels=labels[:500])


def run_digits(args, run, splits, compiled):
    """Trains, then reads the test pictures: metrics, details, captions and histories."""
    trained, histories = train_digits(args, run, splits, compiled)
    save_digits(run.dir, trained, *splits["valid"])
    metrics, captions = measure_digits(args, trained, *splits["test"], run.dir)
    return metrics, {}, captions, histories


# --- Pictures ---
def draw_confidences(path, confidences):
    """{network: {kind of picture: confidences}}, one panel a kind."""
    from matplotlib.figure import Figure  # Here, because --help need not wait for it.

    kinds = list(next(iter(confidences.values())))
    figure = Figure(figsize=(11, 2.8), layout="constrained")
    for axis, kind in zip(figure.subplots(1, len(kinds)), kinds, strict=True):
        for name, sure in confidences.items():
            axis.hist(sure[kind], np.linspace(0, 1, 26), density=True, alpha=0.55, label=name)
        axis.set(xlabel="confidence", title=kind, yticks=[])
    axis.legend()
    figure.savefig(path, dpi=110)


def draw_features(path, features, labels):
    """{network: features (n, 2)}, one panel each, a colour for each class."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.8), layout="constrained")
    axes = figure.subplots(1, len(features))
    for axis, (name, points) in zip(axes, features.items(), strict=True):
        for digit in range(SEEN):
            x, y = points[labels == digit].T
            axis.scatter(x, y, s=3, color=f"C{digit}", label=str(digit), alpha=0.5)
        axis.set_title(name)
    axes[-1].legend(markerscale=4, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)


def draw_neighbours(path, pictures, gallery, found):
    """Each picture with what it is taken for, beside it its neighbours and their distances."""
    from matplotlib.figure import Figure

    rows, columns = len(pictures), 1 + len(found[0][2])
    figure = Figure(figsize=(1.5 * columns, 1.8 * rows), layout="constrained")
    for axes, picture, (label, votes, nearest) in zip(
        figure.subplots(rows, columns, squeeze=False), pictures, found, strict=True
    ):
        shown = [(picture, f"{label} by {votes} of {len(nearest)}")]
        shown += [(gallery[i], f"{near} at {distance:.2f}") for i, near, distance in nearest]
        for axis, (image, title) in zip(axes, shown, strict=True):
            axis.imshow(image, "gray", vmin=0, vmax=255)
            axis.axis("off")
            axis.set_title(title, fontsize=9)
    figure.savefig(path, dpi=110)
