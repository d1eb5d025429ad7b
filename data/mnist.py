"""MNIST as Keras stores it, and other pictures made like it: for dropout_demo and custom_loss."""

from pathlib import Path

import numpy as np
from PIL import Image

from common.cli import first_line
from common.files import refuse_bomb

URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
NAMES = ["x_train", "y_train", "x_test", "y_test"]
SIZE, CLASSES = 28, 10


def read(path):
    """x_train, y_train, x_test, y_test of a file in the layout of mnist.npz.

    Raises ValueError, one line, for any other file.
    """
    try:
        refuse_bomb(path)
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in NAMES if name not in file.files]
            arrays = [] if missing else [file[name] for name in NAMES]
    except FileNotFoundError:
        raise ValueError(f"there is no {path}") from None
    except Exception as error:  # A damaged archive raises a dozen kinds.
        reason = first_line(error)
        raise ValueError(f"{path} is no intact .npz file: {reason}") from None
    if missing:
        raise ValueError(f"{path} has no {', '.join(missing)}: expected {', '.join(NAMES)}")
    for x, y in (arrays[:2], arrays[2:]):
        if x.shape[1:] != (SIZE, SIZE) or x.dtype != "uint8":
            raise ValueError(f"{path}: expected uint8 pictures (n, {SIZE}, {SIZE})")
        if y.shape != x.shape[:1] or not np.issubdtype(y.dtype, np.integer):
            raise ValueError(
                f"{path}: expected a whole number a picture as label, found {y.dtype} {y.shape}"
            )
        wrong = np.flatnonzero(~np.isin(y, range(CLASSES)))
        if len(wrong):
            raise ValueError(f"{path}: label {y[wrong[0]]} of picture {wrong[0]}: expected 0 to 9")
    return arrays


def load(path, sizes, seed):
    """{"train" | "valid" | "test": (uint8 pictures (n, 28, 28), labels)} and the data's name.

    path: a file, or a folder that holds mnist.npz. Training and validation pictures are drawn
    from the file's training set, test pictures from its test set; `sizes` says how many.
    """
    path = Path(path)
    path = path / "mnist.npz" if path.is_dir() else path
    x, y, x_test, y_test = read(path)
    num_train, num_valid, num_test = (sizes[split] for split in ("train", "valid", "test"))
    if num_train + num_valid > len(x) or num_test > len(x_test):
        raise ValueError(
            f"{path} holds {len(x)} + {len(x_test)} pictures, too few for {num_train} + "
            f"{num_valid} to train and validate and {num_test} to test"
        )
    rng = np.random.default_rng(seed)
    order, test = rng.permutation(len(x)), rng.permutation(len(x_test))[:num_test]
    train, valid = order[:num_train], order[num_train : num_train + num_valid]
    splits = {"train": (x[train], y[train]), "valid": (x[valid], y[valid])}
    splits["test"] = x_test[test], y_test[test]
    return splits, "MNIST" if path.stem == "mnist" else path.name


def read_picture(path):
    """Any picture of one digit as the networks know them: 28 x 28, light ink, dark ground.

    A picture of that size stays as it is, but for ink and ground. Of any other the ink is cut
    out, scaled to 20 pixels and laid with its centre of mass in the middle, as in MNIST.
    Raises one of common.images.UNREADABLE for a file that is no intact picture.
    """
    with Image.open(path) as image:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        deep = image.mode[0] in "IF"  # Pillow would clip more than 8 bits, not scale them.
        grey = np.asarray(image if deep else image.convert("L"), "float32")
    if deep:
        if not np.isfinite(grey).all():
            raise ValueError("a pixel is no number")
        grey = 255 * (grey - grey.min()) / max(np.ptp(grey), 1e-9)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if np.median(border) > 127:
        grey = 255 - grey
    if grey.shape == (SIZE, SIZE):
        return grey.astype("uint8")
    grey -= np.median(grey)  # The ground, which the cut-out digit is laid on, becomes black.
    grey = np.clip(255 * grey / max(grey.max(), 1e-9), 0, 255)
    rows, columns = (np.flatnonzero((grey > 80).any(axis)) for axis in (1, 0))
    result = np.zeros((SIZE, SIZE), "uint8")
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
