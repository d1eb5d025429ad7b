"""Drawn digits in the look of MNIST, the embedded data of dropout_demo and custom_loss.

Each image is 28 x 28 pixels: one light digit on a dark background, in one of several typefaces,
thin or thick, rotated, sheared, stretched, off centre, bent and noisy.

An image depends on (seed, index) and nothing else, so any number of processes draws the same set.
VERSION is part of every record: whoever changes a line that moves a pixel must raise it.
"""

import math
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from data.drawing import typeface

VERSION = 1
SIZE = 28  # Pixels on each side of an image.
CLASSES = 10
SEEDS = {"train": 21, "valid": 22, "test": 23}  # Each split has a stream of its own.
# Typefaces that matplotlib ships.
FONTS = (
    "DejaVuSans",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSerif",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralItalic",
    "cmr10",
    "cmss10",
    "cmtt10",
)
GLYPH_SIZE = 40  # The type size at which a digit is rendered, in pixels.
MARGIN = 24  # The width of the empty border around a rendered digit, in pixels.
MAX_THICKNESS = 2  # At most so many pixels are added on each side of a stroke.
TILES = 3  # An image is warped in 3 x 3 tiles.
TILE_EDGES = (0, 9, 19, SIZE)


@cache
def glyph(font, digit, thickness):
    """Renders a digit in white on black, amid an empty border, as an 8-bit grey Pillow image.

    Args:
        font: one of FONTS.
        thickness: pixels that are added on each side of a stroke, 0 to MAX_THICKNESS.
    """
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
    font = FONTS[rng.integers(len(FONTS))]
    thickness = int(rng.integers(MAX_THICKNESS + 1))
    image = glyph(font, digit, thickness)
    x, y = warped_corners(rng)
    mesh = mesh_of(x + image.width / 2, y + image.height / 2)
    image = image.transform((SIZE, SIZE), Image.MESH, mesh, Image.BILINEAR)

    contrast = rng.uniform(0.6, 1)
    noise = rng.uniform(5, 40)
    pixels = contrast * np.asarray(image)
    pixels = pixels + noise * rng.standard_normal((SIZE, SIZE), "float32")
    return np.clip(pixels, 0, 255).astype("uint8"), digit


def warped_corners(rng):
    """Where the corners of the tiles lie in the rendered digit, measured from its centre.

    All corners are rotated, sheared, scaled and shifted alike. Then each is moved on its own,
    which bends the strokes.

    Returns:
        x and y, arrays (4, 4): row by row of the corners.
    """
    angle = rng.uniform(-0.45, 0.45)
    shear = rng.uniform(-0.4, 0.4)
    shift_x = rng.uniform(-3.5, 3.5)
    shift_y = rng.uniform(-3.5, 3.5)
    scale_x = rng.uniform(1.2, 2.1)
    scale_y = rng.uniform(1.2, 1.8)
    x, y = np.meshgrid(TILE_EDGES, TILE_EDGES)
    x = x - SIZE / 2 - shift_x
    y = y - SIZE / 2 - shift_y
    x = x + shear * y
    cos = math.cos(angle)
    sin = math.sin(angle)
    rotated_x = scale_x * (cos * x - sin * y)
    rotated_y = scale_y * (sin * x + cos * y)
    bend_x, bend_y = rng.normal(0, 2.2, (2, TILES + 1, TILES + 1))
    return rotated_x + bend_x, rotated_y + bend_y


def mesh_of(x, y):
    """The tiles as Pillow wants them: a box of the drawn image, and its corners in the source.

    Args:
        x, y: arrays (4, 4) of the corners in the source.

    Returns:
        A list of ((left, top, right, bottom), (x, y, x, y, x, y, x, y)), whose corners go
        counter-clockwise from the top left.
    """
    mesh = []
    for row, column in np.ndindex(TILES, TILES):
        box = (
            TILE_EDGES[column],
            TILE_EDGES[row],
            TILE_EDGES[column + 1],
            TILE_EDGES[row + 1],
        )
        corners = (
            (row, column),
            (row + 1, column),
            (row + 1, column + 1),
            (row, column + 1),
        )
        quadrilateral = []
        for corner in corners:
            quadrilateral.append(float(x[corner]))
            quadrilateral.append(float(y[corner]))
        mesh.append((box, tuple(quadrilateral)))
    return mesh


def load(split, count):
    """The first `count` digits of a split ("train", "valid" or "test").

    Returns:
        uint8 arrays of shapes (count, 28, 28) and (count,): images and labels.
    """
    images = np.empty((count, SIZE, SIZE), "uint8")
    labels = np.empty(count, "uint8")
    for index in range(count):
        image, digit = draw_glyph(SEEDS[split], index)
        images[index] = image
        labels[index] = digit
    return images, labels
