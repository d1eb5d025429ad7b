"""MNIST as Keras stores it, and other images made like it: for dropout_demo and custom_loss."""

from pathlib import Path

import numpy as np
from PIL import Image

from common.cli import first_line
from common.files import refuse_bomb
from common.images import on_white, scale_to_8_bits

URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
NAMES = ["x_train", "y_train", "x_test", "y_test"]
SIZE = 28  # Pixels on each side of an image.
CLASSES = 10
DIGIT_SIZE = 20  # MNIST scales the longer side of each digit to so many pixels.
FOREGROUND = 80  # Pixels lighter than that belong to the digit.


# --- The file ---
def read(path):
    """The arrays of a file in the layout of mnist.npz: x_train, y_train, x_test, y_test.

    Raises ValueError, one line, for any other file.
    """
    arrays = read_named_arrays(path)
    x_train, y_train, x_test, y_test = arrays
    check(path, x_train, y_train)
    check(path, x_test, y_test)
    return arrays


def read_named_arrays(path):
    """The arrays NAMES of an .npz file. Raises ValueError where one is missing or damaged."""
    arrays = []
    try:
        refuse_bomb(path)
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in NAMES if name not in file.files]
            if not missing:
                arrays = [file[name] for name in NAMES]
    except FileNotFoundError:
        raise ValueError(f"there is no {path}") from None
    except Exception as error:  # A damaged archive raises errors of a dozen classes.
        reason = first_line(error)
        raise ValueError(f"{path} is not an intact .npz file: {reason}") from None
    if missing:
        raise ValueError(f"{path} has no {', '.join(missing)}: expected {', '.join(NAMES)}")
    return arrays


def check(path, images, labels):
    """Raises ValueError unless these are uint8 images (n, 28, 28) and a digit for each."""
    if images.shape[1:] != (SIZE, SIZE) or images.dtype != "uint8":
        raise ValueError(f"{path}: expected uint8 images (n, {SIZE}, {SIZE})")
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{path}: expected one whole number per image as label, "
            f"found {labels.dtype} {labels.shape}"
        )
    wrong = np.flatnonzero(~np.isin(labels, range(CLASSES)))
    if len(wrong) > 0:
        first = wrong[0]
        raise ValueError(f"{path}: label {labels[first]} of image {first}: expected 0 to 9")


def load(path, sizes, seed):
    """Three splits of a file: two drawn from its training set, the third from its test set.

    Args:
        path: a file, or a folder that holds mnist.npz.
        sizes: {"train" | "valid" | "test": how many images}.
        seed: of the split.

    Returns:
        {"train" | "valid" | "test": (uint8 images (n, 28, 28), labels (n,))}, and the name of the
        data. Raises ValueError, one line, for an unusable file.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "mnist.npz"
    x, y, x_test, y_test = read(path)
    num_train = sizes["train"]
    num_valid = sizes["valid"]
    num_test = sizes["test"]
    if num_train + num_valid > len(x) or num_test > len(x_test):
        raise ValueError(
            f"{path} holds {len(x)} + {len(x_test)} images, too few for {num_train} + "
            f"{num_valid} to train and validate and {num_test} to test"
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    test_order = rng.permutation(len(x_test))
    train = order[:num_train]
    valid = order[num_train : num_train + num_valid]
    test = test_order[:num_test]
    splits = {
        "train": (x[train], y[train]),
        "valid": (x[valid], y[valid]),
        "test": (x_test[test], y_test[test]),
    }
    name = path.name
    if path.stem == "mnist":
        name = "MNIST"
    return splits, name


# --- Your own images ---
def read_image(path):
    """Reads any image of one digit as the networks know them: light on a dark background.

    An image of 28 x 28 pixels stays as it is, but for a light background. From any other the
    digit is cut out, scaled to 20 pixels and laid with its centre of mass in the middle, as in
    MNIST. Raises one of common.images.UNREADABLE for a file that is not an intact image.

    Returns:
        A uint8 array (28, 28).
    """
    with Image.open(path) as image:
        grey = np.asarray(on_white(scale_to_8_bits(image)).convert("L"), "float32")
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if np.median(border) > 127:
        grey = 255 - grey
    if grey.shape == (SIZE, SIZE):
        return grey.astype("uint8")
    grey -= np.median(grey)  # The background becomes black, as the cut-out digit will lie on black.
    grey = np.clip(255 * grey / max(grey.max(), 1e-9), 0, 255)
    digit = cut_out(grey)
    if digit is None:
        return np.zeros((SIZE, SIZE), "uint8")  # An empty sheet.
    return lay_in_the_middle(scale(digit))


def cut_out(grey):
    """The part of a grey image that holds the digit, or None where there is none."""
    foreground = grey > FOREGROUND
    rows = np.flatnonzero(foreground.any(axis=1))
    columns = np.flatnonzero(foreground.any(axis=0))
    if len(rows) == 0:
        return None
    return grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def scale(digit):
    """The digit with its longer side scaled to 20 pixels."""
    factor = DIGIT_SIZE / max(digit.shape)
    height, width = (max(1, round(factor * size)) for size in digit.shape)
    image = Image.fromarray(digit.astype("uint8")).resize((width, height), Image.BOX)
    return np.asarray(image, float)


def lay_in_the_middle(digit):
    """A black image (28, 28) with the digit: its centre of mass in the middle, or near it."""
    height, width = digit.shape
    total = digit.sum()
    centre_y = digit.sum(axis=1) @ np.arange(height) / total
    centre_x = digit.sum(axis=0) @ np.arange(width) / total
    top = int(np.clip(round(SIZE / 2 - centre_y), 0, SIZE - height))
    left = int(np.clip(round(SIZE / 2 - centre_x), 0, SIZE - width))
    image = np.zeros((SIZE, SIZE), "uint8")
    image[top : top + height, left : left + width] = digit
    return image
