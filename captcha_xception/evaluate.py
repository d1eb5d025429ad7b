"""From a trained network and the test captchas to the metrics, and to images of what it read."""

import json
from collections import Counter

import numpy as np

from captcha_xception.model import decode
from common.cli import fail
from common.files import read_json, write_text
from common.images import save_grid
from common.metrics import proportion
from common.run import load_model

CONFIDENCES = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99)


# --- A trained network ---
def save_notes(folder, data):
    """Writes what a reader of captchas must know beside its network."""
    height, width, _ = data.image_shape
    notes = {"alphabet": data.alphabet, "size": [width, height]}
    write_text(folder / "captcha.json", json.dumps(notes))


def load_reader(folder):
    """The network of a run, its alphabet and the (width, height) of its images."""
    notes = read_json(folder / "captcha.json")
    network = load_model(folder / "model.keras")
    try:
        return network, notes["alphabet"], tuple(notes["size"])
    except (KeyError, TypeError) as error:
        fail(f"{folder / 'captcha.json'} is damaged: {error}")


def read_captchas(network, images, alphabet):
    """A list of (text, confidence).

    Args:
        images: uint8 (n, height, width, 3) of the size that the network was trained on.
    """
    probabilities = network.predict(images, batch_size=256, verbose=0)
    texts, confidence = decode(probabilities, alphabet)
    return list(zip(texts, confidence.tolist(), strict=True))


# --- Metrics ---
def evaluate(network, data):
    """The metrics and details of the record, and the probabilities of the test captchas."""
    images, labels = data.splits["test"]
    probabilities = network.predict(images, batch_size=256, verbose=0)
    metrics = measure(labels, probabilities)
    if "unseen" in data.splits:
        images, unseen_labels = data.splits["unseen"]
        guesses = network.predict(images, batch_size=256, verbose=0).argmax(axis=-1)
        hits = (guesses == unseen_labels).all(axis=1).sum()
        metrics["whole captcha, unseen style"] = proportion(hits, len(unseen_labels))
    details = {
        "confusions": confusions(labels, probabilities, data.alphabet),
        "coverage": coverage(labels, probabilities),
    }
    return metrics, details, probabilities


def measure(labels, probabilities):
    """Accuracy of whole captchas, of each character, and the product of the characters."""
    correct = probabilities.argmax(axis=-1) == labels
    n, num_characters = labels.shape
    metrics = {"whole captcha": proportion(correct.all(axis=1).sum(), n)}
    for position in range(num_characters):
        hits = correct[:, position].sum()
        metrics[f"character {position + 1}"] = proportion(hits, n)
    metrics["product of the characters"] = product_of_characters(correct)
    return metrics


def product_of_characters(correct):
    """How often a captcha would be read if its characters were read independently.

    The accuracy of whole captchas is higher, because errors come together in the same hard images.

    Args:
        correct: booleans (captchas, characters).
    """
    n = len(correct)
    samples = np.random.default_rng(0).integers(n, size=(500, n))
    products = [correct[rows].mean(axis=0).prod() for rows in samples]
    low, high = np.percentile(products, [2.5, 97.5])
    value = correct.mean(axis=0).prod()
    return {"value": float(value), "n": n, "low": float(low), "high": float(high)}


def confusions(labels, probabilities, alphabet):
    """The ten most frequent errors: [character, what was read, count]."""
    guesses = probabilities.argmax(axis=-1)
    wrong = guesses != labels
    pairs = Counter(zip(labels[wrong].tolist(), guesses[wrong].tolist(), strict=True))
    return [[alphabet[a], alphabet[b], count] for (a, b), count in pairs.most_common(10)]


def coverage(labels, probabilities):
    """For each confidence: the fraction of captchas read at least so surely, and their accuracy."""
    confidence = probabilities.max(axis=-1).prod(axis=-1)
    whole = (probabilities.argmax(axis=-1) == labels).all(axis=1)
    rows = []
    for threshold in CONFIDENCES:
        kept = confidence >= threshold
        accuracy = None
        if kept.any():
            accuracy = float(whole[kept].mean())
        rows.append({"confidence": threshold, "read": float(kept.mean()), "accuracy": accuracy})
    return rows


# --- Images ---
def draw_hits_and_misses(folder, images, truths, guesses):
    """Writes the first test captchas, and the first misread ones, each with what was read.

    Returns:
        {file name: caption} for the record.
    """
    every_index = range(len(truths))
    missed = [i for i in every_index if guesses[i] != truths[i]]
    captions = {}
    for name, chosen, caption in (
        ("read.png", every_index, "The first test captchas"),
        ("missed.png", missed, "Misread test captchas"),
    ):
        chosen = chosen[:16]
        if len(chosen) > 0:
            titles = [f"{truths[i]} > {guesses[i]}" for i in chosen]
            save_captchas(folder / name, [images[i] for i in chosen], titles)
            captions[name] = f"{caption}: truth > what was read"
    return captions


def save_captchas(path, images, titles):
    """Writes a PNG of captchas in rows of four."""
    save_grid(path, images, titles, columns=4, cell=(2.2, 1.3), family="monospace")
