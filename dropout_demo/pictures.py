"""The pictures that dropout_demo draws, and the ones that its users bring."""

import numpy as np


def draw_noise_shapes(path, masks):
    """{noise shape: mask of (samples, words, channels)}, the samples side by side."""
    from matplotlib.figure import Figure  # Here, because --help need not wait for it.

    figure = Figure(figsize=(10, 2.6), layout="constrained")
    for axis, (noise_shape, mask) in zip(figure.subplots(2, 4).flat, masks.items(), strict=True):
        samples = np.pad(mask.astype(float), ((0, 0), (0, 0), (0, 1)), constant_values=np.nan)
        axis.imshow(np.concatenate(samples, axis=1)[:, :-1], "Blues", vmin=-0.15, vmax=1.3)
        axis.set(title=str(noise_shape), xticks=[], yticks=[])
    figure.supylabel("words", fontsize=9)
    figure.supxlabel("channels of sample 1, 2, 3 (dark: kept, light: dropped)", fontsize=9)
    figure.savefig(path, dpi=110)


def draw_curves(path, curves):
    """Accuracy by epoch, without dropout: test pictures as lines, training pictures dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    axis = figure.subplots()
    for name, history in curves.items():
        epochs = [entry["epoch"] for entry in history]
        [line] = axis.plot(epochs, [entry["test_accuracy"] for entry in history], label=name)
        trained = [entry["accuracy"] for entry in history]
        axis.plot(epochs, trained, "--", color=line.get_color(), linewidth=1, alpha=0.6)
    ends = [history[-1]["test_accuracy"] for history in curves.values()]
    axis.set(xlabel="epoch", ylabel="accuracy", ylim=(min(ends) - 0.1, 1.005))
    axis.grid(alpha=0.3)
    axis.legend(title="test pictures (dashed: training)")
    figure.savefig(path, dpi=110)


def draw_calibration(path, predictions, labels, bins=15):
    """Accuracy against confidence: on the diagonal a network knows how sure it may be."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.4), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="grey", linestyle="dotted")
    for name, probabilities in predictions.items():
        confidence, right = probabilities.max(-1), probabilities.argmax(-1) == labels
        places = np.minimum((confidence * bins).astype(int), bins - 1)
        filled = [i for i in range(bins) if (places == i).sum() >= 10]  # Fewer say nothing.
        points = [(confidence[places == i].mean(), right[places == i].mean()) for i in filled]
        axis.plot(*np.reshape(points, (-1, 2)).T, marker="o", markersize=3, label=name)
    axis.set(xlabel="confidence", ylabel="accuracy")
    axis.legend()
    figure.savefig(path, dpi=110)


def draw_predictions(path, pictures, texts):
    """The pictures in rows of five, each under its text."""
    from matplotlib.figure import Figure

    rows = -(-len(pictures) // 5)
    figure = Figure(figsize=(8, 1.9 * rows), layout="constrained")
    axes = figure.subplots(rows, 5, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, picture, text in zip(axes, pictures, texts, strict=False):
        axis.imshow(picture, "gray", vmin=0, vmax=255)
        axis.set_title(text, fontsize=9)
    figure.savefig(path, dpi=110)


def picture_paths(folder):
    """The picture files of a folder, sorted by name."""
    endings = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".jp2"}
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in endings)
