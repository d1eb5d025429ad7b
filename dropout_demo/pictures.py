"""The pictures that dropout_demo draws, and the ones that its users bring."""

import numpy as np
from PIL import Image

from common.run import fail


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


def read_npz(path):
    """x_train, y_train, x_test, y_test of a file in the layout of Keras' mnist.npz."""
    names = ["x_train", "y_train", "x_test", "y_test"]
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in names if name not in file.files]
            arrays = [] if missing else [file[name] for name in names]
    except Exception as error:  # A damaged archive raises a dozen kinds.
        fail(f"{path} is no intact .npz file: {str(error).splitlines()[0]}")
    if missing:
        fail(f"{path} has no {', '.join(missing)}: expected {', '.join(names)} as in mnist.npz")
    for x, y in (arrays[:2], arrays[2:]):
        if x.shape[1:] != (28, 28) or x.dtype != "uint8" or y.shape != x.shape[:1]:
            fail(f"{path}: expected uint8 pictures (n, 28, 28) and labels (n,)")
        if not np.isin(y, range(10)).all():
            fail(f"{path}: a label is not one of the digits 0 to 9")
    return arrays


def picture_paths(folder):
    """The picture files of a folder, sorted by name."""
    endings = Image.registered_extensions()
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in endings)


def read_picture(path):
    """Any picture of one digit as the network knows them: 28 x 28, light ink, dark ground.

    A picture of that size stays as it is, but for ink and ground. Of any other the ink is cut
    out, scaled to 20 pixels and laid with its centre of mass in the middle, as in MNIST.
    Raises OSError, SyntaxError or ValueError for a file that is no intact picture, and
    Pillow's DecompressionBombError for one that would fill the memory.
    """
    with Image.open(path) as image:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        deep = image.mode[0] in "IF"  # Pillow would clip more than 8 bits, not scale them.
        grey = np.asarray(image if deep else image.convert("L"), "float32")
    if deep:
        grey = 255 * (grey - grey.min()) / max(np.ptp(grey), 1e-9)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if np.median(border) > 127:
        grey = 255 - grey
    if grey.shape == (28, 28):
        return grey.astype("uint8")
    grey -= np.median(grey)  # The ground, which the cut-out digit is laid on, becomes black.
    grey = np.clip(255 * grey / max(grey.max(), 1e-9), 0, 255)
    rows, columns = (np.flatnonzero((grey > 80).any(axis)) for axis in (1, 0))
    result = np.zeros((28, 28), "uint8")
    if len(rows) == 0:
        return result  # An empty sheet.
    digit = grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = 20 / max(digit.shape)
    height, width = (max(1, round(scale * size)) for size in digit.shape)
    digit = Image.fromarray(digit.astype("uint8")).resize((width, height), Image.BOX)
    ink = np.asarray(digit, float)
    centre_y = ink.sum(1) @ np.arange(height) / ink.sum()
    centre_x = ink.sum(0) @ np.arange(width) / ink.sum()
    top = int(np.clip(round(14 - centre_y), 0, 28 - height))
    left = int(np.clip(round(14 - centre_x), 0, 28 - width))
    result[top : top + height, left : left + width] = ink
    return result
