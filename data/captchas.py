"""Drawn captchas in the look of Tencent's of 2017, the embedded data of captcha_xception.

Each picture is 53 x 129 x 3: four letters in mixed case that touch, lean and bend, in one
ink on a coloured, textured ground, saved once as JPEG. The label is lower case, as in the
post (https://kexue.fm/archives/4503), so one class covers two shapes.

A picture depends on (style, seed, index) and nothing else, so any number of processes draws
the same set. VERSION is part of every record: change a line that moves a pixel, raise it.
"""

import io
import math
import os
import string
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data.drawing import draw_file, typeface

VERSION = 1
HEIGHT, WIDTH, LENGTH = 53, 129, 4
ALPHABET = string.ascii_lowercase
# Upper I and lower l look alike and have different labels: they are never drawn.
LETTERS = string.ascii_letters.replace("I", "").replace("l", "")
SEEDS = {"train": 11, "valid": 12, "test": 13}  # Disjoint streams.
CACHE = Path(__file__).parent / "downloads"

# Typefaces that matplotlib ships. "unseen" shares none with "plain" and looks different:
# it is the style a model has never met.
STYLES = {
    "plain": {
        "fonts": "DejaVuSans DejaVuSans-Bold DejaVuSerif DejaVuSerif-Italic STIXGeneral"
        " STIXGeneralBol cmss10",
        "lines": 0,
        "dark_ground": False,
    },
    "unseen": {
        "fonts": "DejaVuSansMono-Bold DejaVuSansMono-Oblique STIXGeneralItalic cmb10 cmtt10",
        "lines": 2,
        "dark_ground": True,
    },
}
GLYPH_SIZE = 48  # Pixels of the type size at which each glyph is rendered, once.


@cache
def glyph(font, letter):
    """The letter in white on black, cropped, as an 8-bit grey image."""
    face = typeface(font, GLYPH_SIZE)
    left, top, right, bottom = face.getbbox(letter)
    image = Image.new("L", (right - left + 4, bottom - top + 4))
    ImageDraw.Draw(image).text((2 - left, 2 - top), letter, fill=255, font=face)
    return image


def texture(rng, colour, contrast):
    """A cloudy ground: random values on a coarse grid, enlarged smoothly."""
    coarse = np.clip(np.add(colour, rng.normal(0, contrast, (5, 11, 3))), 0, 255)
    return Image.fromarray(coarse.astype("uint8")).resize((WIDTH, HEIGHT), Image.BICUBIC)


def place(mask, image, x, y, angle, scale, shear):
    """Pastes the glyph turned, leant and scaled, its centre at (x, y)."""
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    a, b, d, e = cos, sin - shear * cos, -sin, cos + shear * sin
    half = int(0.6 * scale * image.width + 18)  # Of a patch that holds it however it turns.
    c = image.width / 2 - a * (half + x % 1) - b * y
    f = image.height / 2 - d * (half + x % 1) - e * y
    patch = image.transform((2 * half, HEIGHT), Image.AFFINE, (a, b, c, d, e, f), Image.BILINEAR)
    mask.paste(255, (int(x) - half, 0), patch)


def bend(image, rng, strength, columns=6, rows=3):
    """Moves the picture along sine waves, tile by tile."""
    phase_x, phase_y, phase_z = rng.uniform(0, 2 * math.pi, 3)
    wave_x, wave_y = 2 * math.pi / rng.uniform(25, 60), 2 * math.pi / rng.uniform(40, 90)
    xs = np.linspace(0, WIDTH, columns + 1).astype(int)
    ys = np.linspace(0, HEIGHT, rows + 1).astype(int)
    from_x = xs[None] + strength * np.sin(wave_x * ys + phase_x)[:, None]
    shift = np.sin(wave_y * xs + phase_y) + 0.5 * np.sin(2 * wave_y * xs + phase_z)
    from_y = ys[:, None] + strength * shift[None]
    corners = np.stack([from_x, from_y], -1)
    # Pillow wants, for each tile, its corners in the source: counter-clockwise from top left.
    quads = np.stack([corners[:-1, :-1], corners[1:, :-1], corners[1:, 1:], corners[:-1, 1:]], 2)
    boxes = [(x0, y0, x1, y1) for y0, y1 in pairwise(ys) for x0, x1 in pairwise(xs)]
    mesh = list(zip(boxes, quads.reshape(-1, 8).tolist(), strict=True))
    return image.transform(image.size, Image.MESH, mesh, Image.BILINEAR)


def draw_captcha(seed, index, style="plain"):
    """Draws one captcha.

    Returns:
        A uint8 array of shape (53, 129, 3) and the label, four lower-case letters.
    """
    look = STYLES[style]
    rng = np.random.default_rng((VERSION, sorted(STYLES).index(style), seed, index))
    fonts = look["fonts"].split()
    font = fonts[rng.integers(len(fonts))]
    letters = [LETTERS[i] for i in rng.integers(len(LETTERS), size=LENGTH)]

    # The line is laid out first, so that no letter ever leaves the picture.
    shapes = [glyph(font, letter) for letter in letters]
    sizes = rng.uniform(0.66, 0.9, LENGTH)
    advances = [shape.width for shape in shapes] * sizes + rng.uniform(-7, 0, LENGTH)
    shrink = min(1, (WIDTH - 16) / advances.sum())
    free = max(0, WIDTH - 16 - shrink * advances.sum())
    left = 8 + np.clip(free / 2 + rng.uniform(-8, 8), 0, free)
    centres = left + shrink * (np.cumsum(advances) - advances / 2)
    mask = Image.new("L", (WIDTH, HEIGHT))
    for shape, centre, size in zip(shapes, centres, shrink * sizes, strict=True):
        height = HEIGHT / 2 + rng.uniform(-4, 4)
        angle, shear = rng.uniform(-0.35, 0.35), rng.uniform(-0.25, 0.25)
        place(mask, shape, centre, height, angle, size, shear)
    for _ in range(look["lines"]):
        ends = rng.uniform(0, HEIGHT, 2)
        ImageDraw.Draw(mask).line((0, ends[0], WIDTH, ends[1]), fill=200, width=1)
    mask = bend(mask, rng, strength=rng.uniform(1, 3))

    light, dark = rng.integers(150, 240, 3), rng.integers(10, 110, 3)
    ground, ink = (dark, light) if look["dark_ground"] else (light, dark)
    picture = texture(rng, ground, contrast=20)
    picture.paste(tuple(ink.tolist()), mask=mask)

    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=int(rng.integers(35, 75)))
    return np.asarray(Image.open(buffer)), "".join(letters).lower()


def draw_many(seed, style, indices):
    """Pictures (n, 53, 129, 3) and labels (n, 4), as places in the alphabet."""
    drawn = [draw_captcha(seed, index, style) for index in indices]
    labels = [[ALPHABET.index(letter) for letter in label] for _, label in drawn]
    return np.stack([picture for picture, _ in drawn]), np.array(labels, dtype="int8")


def load(split, count, style="plain", folder=CACHE, workers=None):
    """The first `count` captchas of "train", "valid" or "test", drawn once, then memory-mapped.

    Returns:
        A read-only uint8 array (count, 53, 129, 3) and an int8 array (count, 4).
    """
    stem = folder / f"captchas-v{VERSION}-{style}-{split}-{count}"
    pictures_path, labels_path = stem.with_suffix(".npy"), stem.with_suffix(".labels.npy")
    if not labels_path.exists():
        shape, draw = (count, HEIGHT, WIDTH, 3), partial(draw_many, SEEDS[split], style)
        pieces = [range(start, min(start + 250, count)) for start in range(0, count, 250)]
        labels = draw_file(pictures_path, shape, draw, pieces, split, workers)
        temporary = stem.with_suffix(f".{os.uname().nodename}-{os.getpid()}.npy")
        try:
            np.save(temporary, labels)
            os.replace(temporary, labels_path)
        finally:
            temporary.unlink(missing_ok=True)
    return np.load(pictures_path, mmap_mode="r"), np.load(labels_path)
