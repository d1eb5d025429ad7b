"""Drawn digits in the look of MNIST, the embedded data of dropout_demo and custom_loss.

Each picture is 28 x 28, light ink on a dark ground, one digit in one of several typefaces:
thin or thick, turned, leaning, stretched, off centre, bent and noisy.

A picture depends on (seed, index) and nothing else, so any number of processes draws the
same set. VERSION is part of every record: change a line that moves a pixel, raise it.
"""

import math
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from data.drawing import typeface

VERSION = 1
SIZE, CLASSES = 28, 10
SEEDS = {"train": 21, "valid": 22, "test": 23}  # Disjoint streams.
# Typefaces that matplotlib ships.
FONTS = (
    "DejaVuSans DejaVuSans-Oblique DejaVuSansMono DejaVuSerif DejaVuSerif-Italic"
    " STIXGeneral STIXGeneralItalic cmr10 cmss10 cmtt10"
)
GLYPH_SIZE, MARGIN = 40, 24  # Pixels: the type size, and the empty border around a digit.
MAX_THICKNESS = 2  # Pixels added on each side of a stroke, at most, at the type size.


@cache
def glyph(font, digit, thickness):
    """The digit in white on black, amid an empty border, as an 8-bit grey image."""
    face = typeface(font, GLYPH_SIZE)
    left, top, right, bottom = face.getbbox(str(digit))
    image = Image.new("L", (right - left + 2 * MARGIN, bottom - top + 2 * MARGIN))
    ImageDraw.Draw(image).text(
        (MARGIN - left, MARGIN - top),
        str(digit),
        fill=255,
        font=face,
        stroke_width=thickness,
    )
    return image


def draw_glyph(seed, index):
    """Draws one digit.

    Returns:
        A uint8 array of shape (28, 28) and the digit.
    """
    rng = np.random.default_rng((VERSION, seed, index))
    digit = int(rng.integers(CLASSES))
    fonts = FONTS.split()
    font, thickness = rng.integers((len(fonts), MAX_THICKNESS + 1))
    image = glyph(fonts[font], digit, int(thickness))
    angle, shear, shift_x, shift_y, scale_x, scale_y = rng.uniform(
        (-0.45, -0.4, -3.5, -3.5, 1.2, 1.2), (0.45, 0.4, 3.5, 3.5, 2.1, 1.8)
    )

    # Where each corner of a 3 x 3 grid of tiles lies in the glyph: turned, leant, scaled and
    # shifted alike, then each moved on its own, which bends the strokes.
    edges = (0, 9, 19, SIZE)
    x, y = np.meshgrid(edges, edges)
    x, y = x - SIZE / 2 - shift_x, y - SIZE / 2 - shift_y
    x, y = x + shear * y, y
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = scale_x * (cos * x - sin * y), scale_y * (sin * x + cos * y)
    bend_x, bend_y = rng.normal(0, 2.2, (2, 4, 4))
    x, y = x + bend_x + image.width / 2, y + bend_y + image.height / 2
    mesh = [
        (
            (edges[j], edges[i], edges[j + 1], edges[i + 1]),
            tuple(
                float(axis[corner])
                for corner in ((i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1))
                for axis in (x, y)
            ),
        )
        for i in range(3)
        for j in range(3)
    ]
    image = image.transform((SIZE, SIZE), Image.MESH, mesh, Image.BILINEAR)

    contrast, noise = rng.uniform(0.6, 1), rng.uniform(5, 40)
    picture = contrast * np.asarray(image) + noise * rng.standard_normal((SIZE, SIZE), "float32")
    return np.clip(picture, 0, 255).astype("uint8"), digit


def load(split, count):
    """The first `count` pictures of a split ("train", "valid" or "test").

    Returns:
        uint8 arrays of shapes (count, 28, 28) and (count,): pictures and labels.
    """
    pictures = np.empty((count, SIZE, SIZE), "uint8")
    labels = np.empty(count, "uint8")
    for index in range(count):
        pictures[index], labels[index] = draw_glyph(SEEDS[split], index)
    return pictures, labels
