"""Drawn captchas in the look of Tencent's of 2017, the embedded data of captcha_xception.

Each image is 53 x 129 x 3: four letters in mixed case that touch, lean and bend, in one colour on
a textured background, saved once as JPEG. The label is lower case, as in the post
(https://kexue.fm/archives/4503), so one class covers two shapes.

An image depends on (style, seed, index) and nothing else, so any number of processes draws the
same set. VERSION is part of every record: raise it with any change that moves a pixel.
"""

import io
import math
import string
from functools import cache, partial
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from common.files import DOWNLOADS, replacing
from data.drawing import draw_file, typeface

VERSION = 1
HEIGHT = 53  # Pixels.
WIDTH = 129
LENGTH = 4
MARGIN = 8  # Pixels left and right of the letters.
ALPHABET = string.ascii_lowercase
# Upper I and lower l look alike and have different labels: they are never drawn.
LETTERS = string.ascii_letters.replace("I", "").replace("l", "")
SEEDS = {"train": 11, "valid": 12, "test": 13}  # Disjoint streams.

# Typefaces that matplotlib ships. "unseen" shares none with "plain" and looks different: a style
# that a network trained on "plain" has never met.
STYLES = {
    "plain": {
        "fonts": (
            "DejaVuSans",
            "DejaVuSans-Bold",
            "DejaVuSerif",
            "DejaVuSerif-Italic",
            "STIXGeneral",
            "STIXGeneralBol",
            "cmss10",
        ),
        "lines": 0,
        "dark_background": False,
    },
    "unseen": {
        "fonts": (
            "DejaVuSansMono-Bold",
            "DejaVuSansMono-Oblique",
            "STIXGeneralItalic",
            "cmb10",
            "cmtt10",
        ),
        "lines": 2,
        "dark_background": True,
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


def draw_captcha(seed, index, style="plain"):
    """Draws one captcha.

    Returns:
        A uint8 array of shape (53, 129, 3) and the label, four lower-case letters.
    """
    look = STYLES[style]
    rng = np.random.default_rng((VERSION, sorted(STYLES).index(style), seed, index))
    font = look["fonts"][rng.integers(len(look["fonts"]))]
    letters = [LETTERS[i] for i in rng.integers(len(LETTERS), size=LENGTH)]
    glyphs = [glyph(font, letter) for letter in letters]

    mask = draw_letters(rng, glyphs)
    for _ in range(look["lines"]):
        left, right = rng.uniform(0, HEIGHT, 2)
        ImageDraw.Draw(mask).line((0, left, WIDTH, right), fill=200, width=1)
    mask = bend(mask, rng, strength=rng.uniform(1, 3))

    light = rng.integers(150, 240, 3)
    dark = rng.integers(10, 110, 3)
    background, foreground = light, dark
    if look["dark_background"]:
        background, foreground = dark, light
    image = draw_background(rng, background, contrast=20)
    image.paste(tuple(foreground.tolist()), mask=mask)
    return through_jpeg(image, quality=int(rng.integers(35, 75))), "".join(letters).lower()


def draw_letters(rng, glyphs):
    """A mask of the letters in a line, each turned, sheared and moved a little."""
    # The line is laid out first, so that no letter ever leaves the image.
    scales = rng.uniform(0.66, 0.9, LENGTH)
    widths = [image.width for image in glyphs] * scales + rng.uniform(-7, 0, LENGTH)
    room = WIDTH - 2 * MARGIN
    shrink = min(1, room / widths.sum())
    free = max(0, room - shrink * widths.sum())
    left = MARGIN + np.clip(free / 2 + rng.uniform(-8, 8), 0, free)
    centres = left + shrink * (np.cumsum(widths) - widths / 2)

    mask = Image.new("L", (WIDTH, HEIGHT))
    for image, centre, scale in zip(glyphs, centres, shrink * scales, strict=True):
        y = HEIGHT / 2 + rng.uniform(-4, 4)
        angle = rng.uniform(-0.35, 0.35)
        shear = rng.uniform(-0.25, 0.25)
        place(mask, image, (centre, y), angle, scale, shear)
    return mask


def place(mask, image, centre, angle, scale, shear):
    """Pastes a glyph into the mask, turned, scaled and sheared around its centre."""
    x, y = centre
    cos = math.cos(angle) / scale
    sin = math.sin(angle) / scale
    # Pillow wants the way back, from a pixel of the patch to one of the glyph:
    # x' = a x + b y + c, y' = d x + e y + f.
    a = cos
    b = sin - shear * cos
    d = -sin
    e = cos + shear * sin
    half_width = int(0.6 * scale * image.width + 18)  # Holds the glyph however it is turned.
    centre_in_patch = half_width + x % 1
    c = image.width / 2 - a * centre_in_patch - b * y
    f = image.height / 2 - d * centre_in_patch - e * y
    patch = image.transform(
        (2 * half_width, HEIGHT), Image.AFFINE, (a, b, c, d, e, f), Image.BILINEAR
    )
    mask.paste(255, (int(x) - half_width, 0), patch)


def bend(image, rng, strength, columns=6, rows=3):
    """Moves an image along sine waves, tile by tile."""
    phase_x, phase_y, phase_z = rng.uniform(0, 2 * math.pi, 3)
    wave_x = 2 * math.pi / rng.uniform(25, 60)
    wave_y = 2 * math.pi / rng.uniform(40, 90)
    xs = np.linspace(0, WIDTH, columns + 1).astype(int)
    ys = np.linspace(0, HEIGHT, rows + 1).astype(int)
    from_x = xs[None] + strength * np.sin(wave_x * ys + phase_x)[:, None]
    shift = np.sin(wave_y * xs + phase_y) + 0.5 * np.sin(2 * wave_y * xs + phase_z)
    from_y = ys[:, None] + strength * shift[None]
    corners = np.stack([from_x, from_y], axis=-1)
    # Pillow wants each tile's corners in the source: counter-clockwise from the top left.
    quads = np.stack([corners[:-1, :-1], corners[1:, :-1], corners[1:, 1:], corners[:-1, 1:]], 2)
    boxes = []
    for top, bottom in pairwise(ys):
        for left, right in pairwise(xs):
            boxes.append((left, top, right, bottom))
    mesh = list(zip(boxes, quads.reshape(-1, 8).tolist(), strict=True))
    return image.transform(image.size, Image.MESH, mesh, Image.BILINEAR)


def draw_background(rng, colour, contrast):
    """A cloudy background: random values on a coarse grid, enlarged smoothly."""
    coarse = np.clip(np.add(colour, rng.normal(0, contrast, (5, 11, 3))), 0, 255)
    return Image.fromarray(coarse.astype("uint8")).resize((WIDTH, HEIGHT), Image.BICUBIC)


def through_jpeg(image, quality):
    """The image as an array, after it was saved as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def draw_many(seed, style, indices):
    """Images (n, 53, 129, 3), and labels (n, 4) as places in the alphabet."""
    images = []
    labels = []
    for index in indices:
        image, label = draw_captcha(seed, index, style)
        images.append(image)
        labels.append([ALPHABET.index(letter) for letter in label])
    return np.stack(images), np.array(labels, dtype="int8")


def load(split, count, style="plain", folder=DOWNLOADS, workers=None):
    """The first `count` captchas of "train", "valid" or "test", drawn once, then memory-mapped.

    Returns:
        A read-only uint8 array (count, 53, 129, 3) and an int8 array (count, 4).
    """
    stem = folder / f"captchas-v{VERSION}-{style}-{split}-{count}"
    images_path = stem.with_suffix(".npy")
    labels_path = stem.with_suffix(".labels.npy")
    if not labels_path.exists():
        draw = partial(draw_many, SEEDS[split], style)
        pieces = [range(start, min(start + 250, count)) for start in range(0, count, 250)]
        shape = (count, HEIGHT, WIDTH, 3)
        labels = draw_file(images_path, shape, draw, pieces, split, workers)
        with replacing(labels_path) as temporary:
            np.save(temporary, labels)
    return np.load(images_path, mmap_mode="r"), np.load(labels_path)
