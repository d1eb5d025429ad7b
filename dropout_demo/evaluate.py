"""From trained networks and the test digits to the metrics and drawings of the record."""

import keras
import numpy as np
from keras import layers, ops
from matplotlib.figure import Figure

from common.files import read_arrays
from common.metrics import bootstrap, calibration_error, mean_interval, proportion
from common.run import load_model
from dropout_demo.model import dropout, legal_noise_shapes, monte_carlo

PASSES = (1, 10, 100)  # How many random passes are averaged.
BINS = 15  # Of the confidence, in the drawing of the calibration.
MIN_IN_BIN = 10  # The accuracy of fewer images says nothing, so their bin is not drawn.


# --- NumPy against Keras ---
def compare_with_keras(shape=(3, 4, 5), rate=0.5, seed=0, num_values=1_000_000):
    """Metrics that show the NumPy function and keras.layers.Dropout to be the same thing.

    Where both have the same mask, every noise shape must give the same output. Where each draws
    its own mask, both must keep the same fraction of many values.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape).astype("float32")
    differences = [
        difference_from_keras(x, rate, noise_shape, seed)
        for noise_shape in legal_noise_shapes(shape)
    ]
    largest = float(max(differences))
    ones = np.ones(num_values, "float32")
    by_numpy = dropout(ones, rate, rng=rng)
    by_keras = keras_dropout(ones, rate, None, seed)
    # "share" rather than "fraction", because the recorded metrics have this name.
    return {
        "largest difference from Keras, same mask": {
            "value": largest,
            "n": len(differences),
            "low": largest,
            "high": largest,
        },
        f"share kept at rate {rate:g}, NumPy": proportion((by_numpy != 0).sum(), num_values),
        f"share kept at rate {rate:g}, Keras": proportion((by_keras != 0).sum(), num_values),
    }


def difference_from_keras(x, rate, noise_shape, seed):
    """The largest difference between both outputs where NumPy gets the mask that Keras drew."""
    expected = keras_dropout(x, rate, noise_shape, seed)
    # Along an axis of size 1 the first entry is the mask of all entries. If Keras did not share
    # it among them, the outputs would differ.
    first_entries = tuple(slice(size) for size in noise_shape)
    mask = expected[first_entries] != 0
    return np.abs(dropout(x, rate, noise_shape, mask=mask) - expected).max()


def keras_dropout(x, rate, noise_shape, seed):
    """What keras.layers.Dropout makes of x in training, as an array."""
    layer = layers.Dropout(rate, noise_shape=noise_shape, seed=seed)
    return ops.convert_to_numpy(layer(x, training=True))


# --- Metrics ---
def count_correct(network, images, labels):
    """How many images the plain pass, with dropout off, puts into the right class."""
    [probabilities] = monte_carlo(network, images, passes=1, training=False)
    return (probabilities.argmax(axis=-1) == labels).sum()


def count_correct_by_epoch(network, paths, images, labels):
    """How many images the network gets right with the weights of each epoch.

    Args:
        network: any network with the layers of `build_model`. Its weights are replaced.
        paths: of the weights, one .npz file per epoch.

    Returns:
        A list of counts, one per epoch.
    """
    counts = []
    for path in paths:
        weights = read_arrays(path)
        network.set_weights(list(weights.values()))
        counts.append(count_correct(network, images, labels))
    return counts


def predict_plain_and_random(path, images, seed):
    """The predictions of a saved network by the plain pass and by averages of random passes.

    Returns:
        {name: probabilities (n, classes)}.
    """
    keras.utils.set_random_seed(seed)  # Before loading: the masks follow from it.
    network = load_model(path)
    passes = monte_carlo(network, images, max(PASSES))
    [plain] = monte_carlo(network, images, passes=1, training=False)
    predictions = {"plain pass": plain}
    for count in PASSES:
        predictions[f"mean of {count} random"] = passes[:count].mean(axis=0)
    return predictions


def measure(name, probabilities, labels):
    """Accuracy, log loss and calibration error of one prediction, with 95% intervals.

    Args:
        name: of the prediction; it ends the name of each metric.
        probabilities: (n, classes).
        labels: (n,) whole numbers.
    """
    n = len(labels)
    hits = (probabilities.argmax(axis=-1) == labels).sum()
    losses = -np.log(np.maximum(probabilities[np.arange(n), labels], 1e-7))
    log_loss = mean_interval(losses)
    log_loss["n"] = n
    return {
        f"accuracy, {name}": proportion(hits, n),
        f"log loss, {name}": log_loss,
        f"calibration error, {name}": bootstrap(calibration_error, probabilities, labels),
    }


def classify(network, images, passes=100):
    """What the network sees in each image, and how unsure it is.

    Args:
        images: uint8 (n, 28, 28).

    Returns:
        A list of (label, probability, uncertainty): the mean and the standard deviation of the
        label's probability over the random passes.
    """
    probabilities = monte_carlo(network, images, passes)
    labels = probabilities.mean(axis=0).argmax(axis=-1)
    of_label = probabilities[:, np.arange(len(labels)), labels]
    means = of_label.mean(axis=0).tolist()
    deviations = of_label.std(axis=0).tolist()
    return list(zip(labels.tolist(), means, deviations, strict=True))


# --- Drawings ---
def draw_all(folder, histories, predictions, labels):
    """Writes the three drawings of a run.

    Args:
        histories: {name of a variant: its history with test accuracies}.
        predictions: {name: probabilities (n, classes)} of the test images.
        labels: of the test images.

    Returns:
        {file name: caption} for the record.
    """
    draw_curves(folder / "curves.png", histories)
    draw_calibration(folder / "calibration.png", predictions, labels)
    draw_noise_shapes(folder / "noise_shapes.png")
    return {
        "curves.png": "Accuracy by epoch, dropout off: training and test pictures",
        "calibration.png": "Test accuracy by confidence, plain and averaged passes",
        "noise_shapes.png": "The eight noise shapes of (3, 4, 5): what is dropped together",
    }


def draw_curves(path, histories):
    """Accuracy by epoch, without dropout: test images as lines, training images dashed."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    axis = figure.subplots()
    for name, history in histories.items():
        epochs = [entry["epoch"] for entry in history]
        test_accuracy = [entry["test_accuracy"] for entry in history]
        train_accuracy = [entry["accuracy"] for entry in history]
        [line] = axis.plot(epochs, test_accuracy, label=name)
        axis.plot(epochs, train_accuracy, "--", color=line.get_color(), linewidth=1, alpha=0.6)
    lowest_end = min(history[-1]["test_accuracy"] for history in histories.values())
    axis.set(xlabel="epoch", ylabel="accuracy", ylim=(lowest_end - 0.1, 1.005))
    axis.grid(alpha=0.3)
    axis.legend(title="test images (dashed: training)")
    figure.savefig(path, dpi=110)


def draw_calibration(path, predictions, labels):
    """Accuracy against confidence: on the diagonal a network knows how sure it may be."""
    figure = Figure(figsize=(5, 4.4), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="grey", linestyle="dotted")
    for name, probabilities in predictions.items():
        confidences, accuracies = calibration_curve(probabilities, labels)
        axis.plot(confidences, accuracies, marker="o", markersize=3, label=name)
    axis.set(xlabel="confidence", ylabel="accuracy")
    axis.legend()
    figure.savefig(path, dpi=110)


def calibration_curve(probabilities, labels):
    """The mean confidence and the accuracy of each bin of the confidence that holds enough."""
    confidence = probabilities.max(axis=-1)
    correct = probabilities.argmax(axis=-1) == labels
    bin_of = np.minimum((confidence * BINS).astype(int), BINS - 1)
    confidences = []
    accuracies = []
    for i in range(BINS):
        in_bin = bin_of == i
        if in_bin.sum() >= MIN_IN_BIN:
            confidences.append(confidence[in_bin].mean())
            accuracies.append(correct[in_bin].mean())
    return confidences, accuracies


def draw_noise_shapes(path):
    """One mask for each noise shape of (3, 4, 5): its three samples side by side."""
    ones = np.ones((3, 4, 5))
    rng = np.random.default_rng(11)  # This draw shows well what is dropped together.
    figure = Figure(figsize=(10, 2.6), layout="constrained")
    axes = figure.subplots(2, 4).ravel()
    for axis, noise_shape in zip(axes, legal_noise_shapes(ones.shape), strict=True):
        kept = dropout(ones, 0.4, noise_shape, rng) != 0
        # An empty column after each sample sets the samples apart; the last one is cut off.
        samples = np.pad(kept.astype(float), ((0, 0), (0, 0), (0, 1)), constant_values=np.nan)
        side_by_side = np.concatenate(samples, axis=1)[:, :-1]
        axis.imshow(side_by_side, "Blues", vmin=-0.15, vmax=1.3)
        axis.set(title=str(noise_shape), xticks=[], yticks=[])
    figure.supylabel("words", fontsize=9)
    figure.supxlabel("channels of sample 1, 2, 3 (dark: kept, light: dropped)", fontsize=9)
    figure.savefig(path, dpi=110)
