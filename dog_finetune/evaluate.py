"""From the probabilities that the stages reached to metrics; loading a trained run; Grad-CAM."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from common.cli import fail
from common.files import read_json, replacing, write_text
from common.metrics import bootstrap, calibration_error, mean_interval, proportion
from common.run import load_model
from dog_finetune.augment import fixed_crop
from dog_finetune.dataset import DogData, read_image
from dog_finetune.features import predict
from dog_finetune.model import choose_blend

HEADS = ("main", "auxiliary")
NUM_EXAMPLES = 36  # Test images that predict.py shows when it is given none.
NOTES = {"classes", "share", "temperature", "temperature_of_views", "image_size"}


@dataclass
class Result:
    """What one training reached, on one split of the images.

    Attributes:
        data: a DogData.
        predictions: {stage: {split: {head: probabilities (n, views, classes)}}} of the splits
            that were not trained on. There is no "valid" without validation images.
        details: for the record.
        history: one dict per epoch of every stage, for the record.
    """

    data: DogData
    predictions: dict
    details: dict
    history: list


@dataclass
class Choice:
    """What was chosen on the validation images of one training.

    Attributes:
        fraction: of the main head in the blend.
        temperature: of the mean over all views of an image.
        temperature_of_one_view: one view alone is surer than the mean of several.
    """

    fraction: float
    temperature: float
    temperature_of_one_view: float


# --- Blend and temperature ---
def blend(heads, fraction):
    """The blended probabilities of {head: probabilities}."""
    return fraction * heads["main"] + (1 - fraction) * heads.get("auxiliary", heads["main"])


def mean_over_views(heads, fraction):
    """The blended probabilities (n, classes) of {head: probabilities (n, views, classes)}."""
    return blend(heads, fraction).mean(axis=1)


def first_view(heads):
    """{head: probabilities (n, 1, classes)} of the first view alone: the image itself."""
    return {head: probabilities[:, :1] for head, probabilities in heads.items()}


def best_fraction(predictions, data):
    """The fraction of the main head that is best on validation images; 1 if there are none."""
    if "valid" not in predictions or "auxiliary" not in predictions["valid"]:
        return 1.0
    main = predictions["valid"]["main"].mean(axis=1)
    auxiliary = predictions["valid"]["auxiliary"].mean(axis=1)
    _, labels = data.splits["valid"]
    return choose_blend(main, auxiliary, labels)


def scale(probabilities, temperature):
    """Probabilities less confident if the temperature is above 1, more if below.

    The order of the classes stays.
    """
    return softmax(np.log(probabilities + 1e-12) / temperature, axis=-1)


def fit_temperature(probabilities, labels):
    """The temperature that makes the labels most likely (arXiv 1706.04599).

    Choose it on validation images.

    Args:
        probabilities: (n, classes).
        labels: (n,).
    """
    rows = np.arange(len(labels))

    def negative_log_likelihood(log_temperature):
        scaled = scale(probabilities, np.exp(log_temperature))
        return -np.log(scaled[rows, labels]).mean()

    best = minimize_scalar(negative_log_likelihood, bounds=(-3, 3), method="bounded")
    return float(np.exp(best.x))


def choose(result, stage):
    """The Choice for the model of a stage, by its validation images."""
    predictions = result.predictions[stage]
    fraction = best_fraction(predictions, result.data)
    if "valid" not in predictions:
        return Choice(fraction, 1.0, 1.0)
    heads = predictions["valid"]
    _, labels = result.data.splits["valid"]
    temperature = fit_temperature(mean_over_views(heads, fraction), labels)
    of_one_view = fit_temperature(mean_over_views(first_view(heads), fraction), labels)
    return Choice(fraction, temperature, of_one_view)


# --- Metrics ---
def evaluate(args, results):
    """What is recorded of all trainings.

    Args:
        results: a list of Result, one per draw.

    Returns:
        metrics, details, the Choice of the last draw, and the classes (n,) that its test images
        were taken for.
    """
    stages = list(results[0].predictions)
    last = stages[-1]
    choices = [choose(result, last) for result in results]
    metrics = measure(args, results, choices, last)
    for stage in stages:
        hits = hits_of_stage(results, stage)
        name = stage.replace("stage", "stage ")
        metrics[f"accuracy after {name}"] = accuracy(hits)

    details = {
        "weights": weights_used(args.weights),
        "share of the main head": [choice.fraction for choice in choices],
        "temperature": [choice.temperature for choice in choices],
    }
    if len(results) == 1:
        details.update(results[0].details)
    else:
        details["of each draw"] = [result.details for result in results]
    if args.tta > 1 and "valid" in results[-1].predictions[last]:
        details["temperature of one view"] = choices[-1].temperature_of_one_view
    probabilities, labels = all_test_predictions(results, choices, last)
    details["confusions"] = confusions(labels, probabilities, results[-1].data.class_names)

    guesses = predict_test(results[-1], last, choices[-1].fraction).argmax(axis=-1)
    return metrics, details, choices[-1], guesses


def predict_test(result, stage, fraction):
    """The blended probabilities (n, classes) of the test images after a stage."""
    return mean_over_views(result.predictions[stage]["test"], fraction)


def true_labels(result):
    _, labels = result.data.splits["test"]
    return labels


def all_test_predictions(results, choices, stage):
    """The blended probabilities (n, classes) and the labels (n,) of the tests of all draws."""
    probabilities = []
    for result, choice in zip(results, choices, strict=True):
        probabilities.append(predict_test(result, stage, choice.fraction))
    labels = [true_labels(result) for result in results]
    return np.concatenate(probabilities), np.concatenate(labels)


def accuracy(hits):
    """An accuracy with its interval.

    Args:
        hits: a list of booleans (n,), one array per draw. For one draw the interval is Wilson's,
            for several it is that of the mean of their accuracies.
    """
    n = sum(map(len, hits))
    if len(hits) == 1:
        return proportion(hits[0].sum(), n)
    return {**mean_interval([float(x.mean()) for x in hits]), "n": n}


def hits_of_stage(results, stage):
    """Which test images of each draw the blend of a stage got right."""
    hits = []
    for result in results:
        fraction = best_fraction(result.predictions[stage], result.data)
        probabilities = predict_test(result, stage, fraction)
        hits.append(probabilities.argmax(axis=-1) == true_labels(result))
    return hits


def measure(args, results, choices, stage):
    """The metrics of the last stage on the test images."""
    hits = hits_of_stage(results, stage)
    metrics = {
        "accuracy": accuracy(hits),
        "error rate": accuracy([~x for x in hits]),
        "right among five": accuracy(hits_among_five(results, choices, stage)),
    }
    probabilities, labels = all_test_predictions(results, choices, stage)
    metrics["calibration error"] = bootstrap(calibration_error, probabilities, labels)
    if "valid" in results[0].predictions[stage]:
        scaled = scaled_test_predictions(results, choices, stage)
        metrics["calibration error, scaled"] = bootstrap(calibration_error, scaled, labels)
    for head, hits in hits_of_heads(results, stage).items():
        metrics[f"accuracy, {head} head"] = accuracy(hits)
    if args.tta > 1:
        metrics["accuracy, one view"] = accuracy(hits_of_one_view(results, choices, stage))
    return metrics


def hits_among_five(results, choices, stage):
    """Which test images of each draw have their class among the five most likely ones."""
    hits = []
    for result, choice in zip(results, choices, strict=True):
        probabilities = predict_test(result, stage, choice.fraction)
        best = np.argsort(-probabilities, axis=-1)[:, :5]
        hits.append((best == true_labels(result)[:, None]).any(axis=-1))
    return hits


def scaled_test_predictions(results, choices, stage):
    """The probabilities (n, classes) of the tests of all draws, each with its temperature."""
    scaled = []
    for result, choice in zip(results, choices, strict=True):
        probabilities = predict_test(result, stage, choice.fraction)
        scaled.append(scale(probabilities, choice.temperature))
    return np.concatenate(scaled)


def hits_of_heads(results, stage):
    """{head: which test images of each draw it got right alone}; none if there is one head."""
    if "auxiliary" not in results[0].predictions[stage]["test"]:
        return {}
    hits = {}
    for head in HEADS:
        hits[head] = []
        for result in results:
            probabilities = result.predictions[stage]["test"][head].mean(axis=1)
            hits[head].append(probabilities.argmax(axis=-1) == true_labels(result))
    return hits


def hits_of_one_view(results, choices, stage):
    """Which test images of each draw are right without test-time augmentation."""
    hits = []
    for result, choice in zip(results, choices, strict=True):
        heads = first_view(result.predictions[stage]["test"])
        probabilities = mean_over_views(heads, choice.fraction)
        hits.append(probabilities.argmax(axis=-1) == true_labels(result))
    return hits


def confusions(labels, probabilities, class_names):
    """The ten most frequent errors: [class, what it was taken for, count]."""
    guesses = probabilities.argmax(axis=-1)
    wrong = guesses != labels
    pairs = Counter(zip(labels[wrong].tolist(), guesses[wrong].tolist(), strict=True))
    return [[class_names[a], class_names[b], count] for (a, b), count in pairs.most_common(10)]


def weights_used(weights):
    """The weights of the backbone, for the record: a file by its name and SHA-256."""
    path = Path(weights)
    if not path.is_file():
        return weights
    return f"{path.name}, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}"


# --- A trained network ---
def save_classifier(folder, network):
    """Writes model.keras: uint8 images to the probabilities of each head.

    Args:
        network: with the parts stem, tail and heads.
    """
    image = keras.Input(network.stem.input.shape[1:], dtype="uint8", name="picture")
    outputs = dict(network.heads(network.tail(network.stem(image))))
    del outputs["features"]
    with replacing(folder / "model.keras") as temporary:
        keras.Model(image, outputs).save(temporary)


def save_notes(folder, image_size, data, choice):
    """Writes what predict.py needs besides the network, and test images for it to show."""
    notes = {
        "classes": data.class_names,
        "image_size": image_size,
        "share": choice.fraction,
        "temperature": choice.temperature_of_one_view,
        "temperature_of_views": choice.temperature,
    }
    write_text(folder / "classes.json", json.dumps(notes, ensure_ascii=False))
    sources, labels = data.splits["test"]
    rows = np.unique(np.linspace(0, len(labels) - 1, NUM_EXAMPLES).astype(int))
    images = np.stack([read_image(sources[row], image_size) for row in rows])
    np.savez_compressed(folder / "examples.npz", pictures=images, labels=labels[rows])


def load_classifier(folder):
    """The network of a run, and its notes.

    The notes are {"classes": names, "image_size": pixels of a side, "share": the fraction of the
    main head, "temperature": of one view, "temperature_of_views": of the mean over several}.
    """
    notes = read_json(folder / "classes.json")
    if not isinstance(notes, dict) or NOTES - set(notes):
        fail(f"{folder / 'classes.json'} is damaged")
    return load_model(folder / "model.keras"), notes


def classify(network, notes, images, num_views=1):
    """Probabilities (n, classes): blended, and the mean over so many fixed crops of each image.

    Args:
        images: uint8 arrays (size, size, 3) of the size in the notes.
    """
    total = 0
    for number in range(num_views):
        crops = np.stack([fixed_crop(image, number) for image in images])
        total = total + blend(predict(network, crops), notes["share"])
    temperature = notes["temperature"]
    if num_views > 1:
        temperature = notes["temperature_of_views"]
    return scale(total / num_views, temperature)


# --- Grad-CAM ---
def explain(network, notes, images, labels):
    """Grad-CAM (arXiv 1610.02391): which places of an image speak for its label.

    Between the feature maps and the probabilities are only a mean over the places and the heads.
    So the gradient is known in closed form, on every backend.

    Args:
        images: uint8 (n, size, size, 3).
        labels: classes (n,).

    Returns:
        A list of n arrays (rows, columns) from 0 to 1.
    """
    stem, tail, heads = (network.get_layer(name) for name in ("stem", "tail", "heads"))
    before_pooling = keras.Model(tail.input, tail.layers[-1].input)
    feature_maps = predict(before_pooling, predict(stem, images))
    heat_maps = []
    for maps, label in zip(feature_maps, labels, strict=True):
        gradient = gradient_of_logit(heads, maps.mean(axis=(0, 1)), label, notes["share"])
        heat = np.maximum(maps @ gradient, 0)
        heat_maps.append(heat / max(heat.max(), 1e-9))
    return heat_maps


def gradient_of_logit(heads, vector, label, fraction):
    """How the blended logit of a class changes with each entry of the vector (entries,)."""
    weights = {layer.name: layer.get_weights() for layer in heads.layers if layer.weights}
    gradient = weights["main"][0][:, label]
    if "gate" in weights:
        gradient = gradient_through_gate(weights, vector, gradient)
    if "auxiliary" in weights:
        auxiliary_gradient = weights["auxiliary"][0][:, label]
        gradient = fraction * gradient + (1 - fraction) * auxiliary_gradient
    return gradient


def gradient_through_gate(weights, vector, gradient):
    """The gradient at the input of the gated unit, from that at its output."""
    linear, linear_bias = weights["linear"]
    gate, gate_bias = weights["gate"]
    opened = 1 / (1 + np.exp(-(vector @ gate + gate_bias)))
    slope = (vector @ linear + linear_bias) * opened * (1 - opened)
    return linear @ (gradient * opened) + gate @ (gradient * slope)
