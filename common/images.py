"""Image files: finding them, reading them whatever their mode, and drawing grids of images."""

import struct
import sys
import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from PIL import Image

from common.cli import fail

SUFFIXES = {
    ".bmp",
    ".gif",
    ".jp2",
    ".jpeg",
    ".jpg",
    ".pgm",
    ".png",
    ".tif",
    ".tiff",
    ".webp",
}
# What Pillow raises for a file that is not an intact image, or that would fill the memory.
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
UNREADABLE += (struct.error, TypeError)  # Raised for damaged TIFF files.

# The font of matplotlib has no Chinese characters: labels use the first of these that is there.
CHINESE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "SimHei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Arial Unicode MS",
)


def image_paths(folder):
    """The image files of a folder, sorted by name."""
    paths = [path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES]
    return sorted(paths)


class ImageFiles:
    """Yields the path and the image of each file that can be read, one at a time.

    A folder without images ends the script with one line.

    Args:
        paths: files and folders; of a folder, the image files in it.
        read: a function of a path; raises one of UNREADABLE for a file that it cannot read.

    Attributes:
        num_unreadable: how many files could not be read; a line on stderr names each of them.
    """

    def __init__(self, paths, read):
        self.paths = []
        self.read = read
        self.num_unreadable = 0
        for path in paths:
            found = [path]
            if path.is_dir():
                found = image_paths(path)
            if not found:
                fail(f"no images in {path} itself")
            self.paths += found

    def __iter__(self):
        for path in self.paths:
            try:
                image = self.read(path)
            except UNREADABLE as error:
                print(f"error: {path}: {error}", file=sys.stderr)
                self.num_unreadable += 1
                continue
            yield path, image


def scale_to_8_bits(image):
    """A Pillow image of 16 or 32 bits as 8-bit grey: its darkest pixel black, its lightest white.

    Other images are returned as they are. Raises ValueError where a pixel is NaN or infinite.
    """
    if image.mode[0] not in "IF":
        return image
    # Pillow itself would clip the values, not scale them.
    grey = np.asarray(image, "float64")
    if not np.isfinite(grey).all():
        raise ValueError("a pixel is not a finite number")
    grey = 255 * (grey - grey.min()) / max(np.ptp(grey), 1e-9)
    return Image.fromarray(grey.astype("uint8"))


def on_white(image):
    """A Pillow image without transparency: what is transparent becomes white."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image)


def to_rgb(image):
    """A Pillow image of any mode as 8-bit RGB on a white background."""
    return on_white(scale_to_8_bits(image)).convert("RGB")


def save_grid(path, images, titles, columns, cell, font_size=9, family=None):
    """Writes a PNG of images in rows, each under its title.

    Args:
        images: arrays (height, width) in grey or (height, width, 3) in RGB, or Pillow images.
        columns: images in a row.
        cell: (width, height) of one image and its title, in inches.
        family: of the titles; default: a font that has Chinese characters, if there is one.
    """
    if family is None:
        installed = {font.name for font in fontManager.ttflist}
        family = [name for name in ("DejaVu Sans", *CHINESE_FONTS) if name in installed]
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(cell[0] * columns, cell[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, image, title in zip(axes, images, titles, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axis.set_title(title, fontsize=font_size, family=family)
    with warnings.catch_warnings():
        # One warning for each character that no font has.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(path, dpi=110)
