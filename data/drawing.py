"""What the drawn data share: the typefaces that matplotlib ships, and drawing in processes."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import ImageFont
from tqdm import tqdm


def typeface(name, size):
    """A typeface by the name of its file, say "DejaVuSans-Bold", in pixels."""
    [package] = find_spec("matplotlib").submodule_search_locations
    return ImageFont.truetype(Path(package) / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf", size)


def draw_file(path, shape, draw, pieces, description, workers=None):
    """Writes uint8 pictures of the whole shape (n, height, width, 3) to a .npy file.

    `draw` makes one piece: its pictures and their labels. The file is there whole or not at all.

    Returns:
        The labels of all pieces, one after the other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.uname().nodename}-{os.getpid()}.npy")
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    # Spawn: a fork of a process that has loaded a Keras backend may hang.
    spawn = multiprocessing.get_context("spawn")
    bar = tqdm(total=shape[0], desc=f"drawing {description}", unit="picture", disable=None)
    labels = []
    try:
        with ProcessPoolExecutor(workers, spawn) as pool, bar, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for pictures, their_labels in pool.map(draw, pieces):
                file.write(pictures.tobytes())
                labels.append(their_labels)
                bar.update(len(pictures))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return np.concatenate(labels)
