"""What is reported of a training, and what predict.py needs of it."""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np

from common.run import keras, write_text
from common.table import mean_interval, proportion
from dog_finetune.pictures import picture_grid, read_picture


# --- Blend ---
def blend(heads, share):
    return share * heads["main"] + (1 - share) * heads.get("auxiliary", heads["main"])


def mixed(heads, share):
    """The blended probabilities (n, classes), the mean over the views."""
    return blend(heads, share).mean(1)


def best_blend(found, splits, choose):
    if "valid" not in found or "auxiliary" not in found["valid"]:
        return 1.0
    main, auxiliary = (found["valid"][head].mean(1) for head in ("main", "auxiliary"))
    return choose(main, auxiliary, splits["valid"][1])


def best_temperature(found, splits, share):
    if "valid" not in found:
        return 1.0
    return fit_temperature(mixed(found["valid"], share), splits["valid"][1])


# --- Measures ---
def row_name(args, data):
    """The line of the table that a run belongs to: what was chosen, but for the seed."""
    words = [args.recipe, data, f"{args.backbone} {args.image_size}"]
    dropped = set(args.without) - ({"pseudo"} if args.unlabelled is None else set())
    if args.recipe == "post" and dropped:
        words.append(f"without {', '.join(sorted(dropped))}")
    words += [f"{Path(args.unlabelled).resolve().name} unlabelled"] if args.unlabelled else []
    words += [f"{args.draws} draws"] if args.draws > 1 else []
    return ", ".join(words)


def selection(args, data):
    """What was chosen by what."""
    if not data["num_valid"]:
        return "nothing: no validation pictures, the last epoch of each stage"
    if args.recipe == "probe":
        return "the penalty and the temperature by validation"
    return "each stage at its best validation epoch; the blend and the temperature by validation"


def calibration_error(probabilities, labels, bins=15):
    """Expected calibration error: how far confidence and accuracy lie apart, on average."""
    confidence, right = probabilities.max(-1), probabilities.argmax(-1) == labels
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    return np.abs(np.bincount(places, confidence - right, minlength=bins)).sum() / len(labels)


def scaled(probabilities, temperature):
    """Less sure of themselves if the temperature is above 1, surer if below; the order stays."""
    from scipy.special import softmax

    return softmax(np.log(probabilities + 1e-12) / temperature, -1)


def fit_temperature(probabilities, labels):
    """The temperature that makes the labels most likely (arXiv 1706.04599).

    Choose it on validation pictures.
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))

    def loss(log):
        return -np.log(scaled(probabilities, np.exp(log))[rows, labels]).mean()

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def resampled(measure, *arrays, rounds=200):
    """The measure with a 95% interval from samples drawn with replacement."""
    rng, n, value = np.random.default_rng(0), len(arrays[0]), float(measure(*arrays))
    rows = rng.integers(n, size=(rounds, n))
    half = 1.96 * float(np.std([measure(*(array[r] for array in arrays)) for r in rows]))
    return {"value": value, "n": n, "low": max(0.0, value - half), "high": value + half}


def share_right(hits):
    """Of one draw with its Wilson interval; of several, the interval of their mean."""
    n = sum(map(len, hits))
    if len(hits) == 1:
        return proportion(hits[0].sum(), n)
    return mean_interval([float(x.mean()) for x in hits]) | {"n": n}


def report(run, drawn, done, notes, choose):
    """The metrics, details and pictures of a run; what predict.py needs is saved."""
    args = run.args
    labels = [splits["test"][1] for splits, *_ in drawn]
    metrics, shares, final = {}, [], []
    for stage in done[0]:
        shares = [
            best_blend(found[stage], d[0], choose) for found, d in zip(done, drawn, strict=True)
        ]
        tested = [found[stage]["test"] for found in done]
        final = [mixed(heads, share) for heads, share in zip(tested, shares, strict=True)]
        hits = [p.argmax(-1) == y for p, y in zip(final, labels, strict=True)]
        metrics[f"accuracy after {stage.replace('stage', 'stage ')}"] = share_right(hits)
    last = {"accuracy": share_right(hits), "error rate": share_right([~x for x in hits])}
    best5 = [np.argsort(-p, -1)[:, :5] for p in final]
    top5 = [(b == y[:, None]).any(-1) for b, y in zip(best5, labels, strict=True)]
    last["right among five"] = share_right(top5)
    both = np.concatenate(final), np.concatenate(labels)
    last["calibration error"] = resampled(calibration_error, *both)
    temperatures = [
        best_temperature(found[stage], splits, share)
        for found, (splits, *_), share in zip(done, drawn, shares, strict=True)
    ]
    if "valid" in done[0][stage]:
        calm = [scaled(p, temperature) for p, temperature in zip(final, temperatures, strict=True)]
        calm = np.concatenate(calm)
        last["calibration error, scaled"] = resampled(calibration_error, calm, both[1])
    for head in tested[0] if len(tested[0]) > 1 else ():
        alone = [t[head].mean(1).argmax(-1) == y for t, y in zip(tested, labels, strict=True)]
        last[f"accuracy, {head} head"] = share_right(alone)
    if args.tta > 1:
        ones = [{head: p[:, :1] for head, p in heads.items()} for heads in tested]
        ones = [mixed(heads, share) for heads, share in zip(ones, shares, strict=True)]
        hits = [p.argmax(-1) == y for p, y in zip(ones, labels, strict=True)]
        last["accuracy, one view"] = share_right(hits)
    splits, names, _ = drawn[-1]
    details = {"weights": weights_used(args), "share of the main head": shares}
    details |= {"temperature": temperatures}
    details |= notes[0] if len(notes) == 1 else {"of each draw": notes}
    # One view, which predict.py and an exported network see, is surer than the mean of several.
    single = temperatures[-1]
    if args.tta > 1 and "valid" in done[-1][stage]:
        valid = {head: p[:, :1] for head, p in done[-1][stage]["valid"].items()}
        single = best_temperature({"valid": valid}, splits, shares[-1])
        details["temperature of one view"] = single
    guesses, truths = both[0].argmax(-1), both[1]
    wrong = guesses != truths
    pairs = Counter(zip(truths[wrong].tolist(), guesses[wrong].tolist(), strict=True))
    details["confusions"] = [[names[a], names[b], n] for (a, b), n in pairs.most_common(10)]
    save_examples(args, run, splits, names, (shares[-1], single, temperatures[-1]))
    captions = draw_confusions(args, run, splits, names, final[-1].argmax(-1))
    for path in [*run.dir.glob("*-maps.*"), *run.dir.glob("*-vectors.*")]:
        path.unlink()  # Large, and quickly made again.
    return last | metrics, details, captions


def save_model(run, parts):
    """The classifier: uint8 pictures to the probabilities of each head."""
    stem, tail, heads, _ = parts
    picture = keras.Input(stem.input.shape[1:], dtype="uint8", name="picture")
    outputs = dict(heads(tail(stem(picture))))
    del outputs["features"]
    keras.Model(picture, outputs).save(run.dir / "next.keras")
    os.replace(run.dir / "next.keras", run.dir / "model.keras")


def weights_used(args):
    path = Path(args.weights)
    if not path.is_file():
        return args.weights
    return f"{path.name}, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}"


def save_examples(args, run, splits, names, chosen):
    """What predict.py needs besides the model: its classes, and test pictures to show."""
    notes = {"classes": names, "image_size": args.image_size}
    notes["share"], notes["temperature"], notes["temperature_of_views"] = chosen
    write_text(run.dir / "classes.json", json.dumps(notes, ensure_ascii=False))
    sources, labels = splits["test"]
    rows = np.unique(np.linspace(0, len(labels) - 1, 36).astype(int))
    pictures = np.stack([read_picture(sources[row], args.image_size) for row in rows])
    np.savez_compressed(run.dir / "examples.npz", pictures=pictures, labels=labels[rows])


def draw_confusions(args, run, splits, names, guesses):
    """Missed test pictures, each beside a training picture of what it was taken for."""
    (sources, truths), (known, labels) = splits["test"], splits["train"]
    shown, texts, seen = [], [], Counter()
    for row in np.flatnonzero(guesses != truths):
        truth, guess = truths[row], guesses[row]
        seen[truth, guess] += 1
        if seen[truth, guess] == 1 and len(shown) < 24:
            like = known[np.flatnonzero(labels == guess)[0]]
            shown += [read_picture(source, args.image_size) for source in (sources[row], like)]
            texts += [f"{names[truth]}\ntaken for", f"{names[guess]}\n(training)"]
    if not shown:
        return {}
    picture_grid(run.dir / "confusions.png", shown, texts)
    return {"confusions.png": "Missed test pictures, each beside a picture of what it is taken for"}
