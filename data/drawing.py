"""What the drawn data sets share: the typefaces that matplotlib ships, and drawing in processes."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import ImageFont
from tqdm import tqdm

from common.files import replacing


def typeface(name, size):
    """A Pillow font by the name of its file, such as "DejaVuSans-Bold"; the size is in pixels."""
    # Found without importing matplotlib, which takes long.
    [package] = find_spec("matplotlib").submodule_search_locations
    return ImageFont.truetype(Path(package) / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf", size)


def draw_file(path, shape, draw, pieces, description, workers=None):
    """Draws uint8 images in several processes, into one .npy file that is whole or not there.

    Args:
        path: of the .npy file.
        shape: of all images together, (n, height, width, 3).
        draw: a function that makes one piece: its images and their labels. It must be one that
            another process can import.
        pieces: the argument of `draw` for each piece, in the order of the file.
        description: of the images, for the progress bar.
        workers: how many processes; default: one per CPU core.

    Returns:
        The labels of all pieces, one after the other.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    # Spawn: a fork of a process that has loaded a Keras backend may hang.
    spawn = multiprocessing.get_context("spawn")
    labels = []
    with (
        replacing(path) as temporary,
        ProcessPoolExecutor(workers, spawn) as pool,
        tqdm(total=shape[0], desc=f"drawing {description}", unit="image", disable=None) as bar,
        temporary.open("wb") as file,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for images, labels_of_piece in pool.map(draw, pieces):
            file.write(images.tobytes())
            labels.append(labels_of_piece)
            bar.update(len(images))
    return np.concatenate(labels)
