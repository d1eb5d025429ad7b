"""Drawn dogs: up to 100 cartoon breeds, the embedded data of dog_finetune.

A breed is a choice of ears, snout, tail, coat, marks, fur and legs; every two breeds differ in
at least three of the seven, and many share their colour. Within a breed vary the pose, the
proportions, the shade of the coat, the light and the background, which say nothing of the breed.

A picture depends on (seed, breed, index) and nothing else, so any number of processes draws
the same set. VERSION is part of every record: change a line that moves a pixel, raise it.
"""

import itertools
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data.drawing import draw_file

VERSION = 1
SIZE = 96  # Pixels of a side.
SCALE = 3  # Drawn so many times larger, then shrunk: soft edges.
NUM_BREEDS = 100
SEEDS = {"train": 21, "valid": 22, "test": 23}  # Disjoint streams.
CACHE = Path(__file__).parent / "downloads"

PARTS = {
    "ears": ("pricked", "hanging", "folded", "round"),
    "snout": ("short", "middle", "long"),
    "tail": ("curled", "whip", "plume", "stub"),
    "coat": ("black", "brown", "fawn", "grey", "white", "red"),
    "marks": ("none", "saddle", "spots", "socks", "mask", "bib"),
    "fur": ("smooth", "shaggy"),
    "legs": ("long", "short"),
}
COLOURS = {
    "black": ((45, 42, 45), (190, 150, 105)),  # The coat, and the marks on it.
    "brown": ((112, 70, 40), (215, 190, 155)),
    "fawn": ((205, 165, 110), (75, 55, 45)),
    "grey": ((130, 132, 138), (60, 58, 62)),
    "white": ((228, 224, 215), (120, 80, 50)),
    "red": ((172, 88, 38), (240, 230, 215)),
}


@cache
def breeds():
    """The 100 breeds, each a dict of its parts."""
    options = np.array(list(itertools.product(*(range(len(values)) for values in PARTS.values()))))
    chosen = []
    for option in np.random.default_rng(4611).permutation(options):
        if all((option != other).sum() >= 3 for other in chosen):
            chosen.append(option)
        if len(chosen) == NUM_BREEDS:
            break
    names = list(PARTS.items())
    return [
        {part: values[i] for (part, values), i in zip(names, option, strict=True)}
        for option in chosen
    ]


# --- Shapes: arrays of points (n, 2) in a unit square in which the dog looks to the right ---
def ellipse(x, y, radius_x, radius_y, turn=0.0, rough=0.0, rng=None):
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radii = 1 + (rough * rng.uniform(-1, 1, len(angles)) if rough else 0)
    points = np.stack([radius_x * radii * np.cos(angles), radius_y * radii * np.sin(angles)], 1)
    return points @ rotation(turn) + (x, y)


def rotation(angle):
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def limb(start, end, width_start, width_end):
    """A straight piece that grows thinner, with round ends."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    angle = np.arctan2(*(end - start)[::-1])
    half = np.linspace(-np.pi / 2, np.pi / 2, 9) + angle
    cap = np.stack([np.cos(half), np.sin(half)], 1)
    return np.concatenate([end + width_end * cap, start - width_start * cap])


def curve(x, y, angles, step, widths):
    """A chain of limbs: each goes on at its own angle."""
    at, pieces = np.array([x, y], float), []
    for angle, (thick, thin) in zip(angles, itertools.pairwise(widths), strict=True):
        to = at + step * np.array([np.cos(angle), -np.sin(angle)])
        pieces.append(limb(at, to, thick, thin))
        at = to
    return pieces


def tail_shapes(kind, x, y, wag, rough, rng):
    if kind == "curled":
        return curve(x, y, wag + np.linspace(2.4, -1.8, 8), 0.04, np.linspace(0.03, 0.022, 9))
    if kind == "whip":
        return curve(x, y, wag + np.linspace(2.9, 2.1, 5), 0.055, np.linspace(0.025, 0.008, 6))
    if kind == "plume":
        turn = 0.7 + wag
        feather = ellipse(x - 0.09, y - 0.09, 0.14, 0.055, turn, 0.15 + rough, rng)
        return [feather, limb((x, y), (x - 0.07, y - 0.06), 0.03, 0.03)]
    return [ellipse(x - 0.015, y - 0.015, 0.035, 0.03)]


def ear_shapes(kind, x, y, size, turn, rough, rng):
    if kind == "pricked":
        points = np.array([(-0.045, 0.03), (0.0, -0.13), (0.05, 0.02)])
    elif kind == "folded":
        points = np.array([(-0.05, 0.03), (-0.01, -0.06), (0.08, 0.0), (0.03, 0.035)])
    elif kind == "round":
        points = ellipse(0, -0.03, 0.05, 0.05)
    else:
        points = ellipse(-0.02, 0.075, 0.042, 0.105, 0.0, rough, rng)
    return [size * points @ rotation(turn) + (x, y)]


class Sheet:
    """Draws shapes of the unit square, turned, scaled and moved to where the dog stands."""

    def __init__(self, image, matrix, offset):
        self.draw, self.matrix, self.offset = ImageDraw.Draw(image), matrix, offset

    def fill(self, shapes, colour):
        for points in shapes:
            placed = points @ self.matrix + self.offset
            self.draw.polygon([tuple(p) for p in placed.tolist()], fill=colour)


def shade(colour, factor):
    return tuple(int(np.clip(value * factor, 0, 255)) for value in colour)


def draw_background(rng):
    """Sky or wall, ground, and a few things that stand about."""
    side = SIZE * SCALE
    above, below = rng.integers(90, 245, 3), rng.integers(50, 200, 3)
    horizon = rng.uniform(0.35, 0.85) * side
    image = Image.new("RGB", (side, side), tuple(above.tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(2, 7)):
        x, width, height = rng.uniform(0, side), *rng.uniform(0.05, 0.4, 2) * side
        box = (x - width / 2, horizon - height, x + width / 2, horizon)
        draw_thing = draw.rectangle if rng.random() < 0.5 else draw.ellipse
        draw_thing(box, fill=tuple(rng.integers(40, 230, 3).tolist()))
    draw.rectangle((0, horizon, side, side), fill=tuple(below.tolist()))
    for _ in range(rng.integers(0, 12)):
        x, y, radius = rng.uniform(0, side), rng.uniform(horizon, side), rng.uniform(2, 14)
        tuft = shade(below, rng.uniform(0.7, 1.3))
        draw.ellipse((x - 2 * radius, y - radius, x + 2 * radius, y + radius), fill=tuft)
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 4)))


def draw_dog(seed, breed, index):
    """One picture of a breed (0 to 99): a uint8 array (96, 96, 3)."""
    look = breeds()[breed]
    rng = np.random.default_rng((VERSION, seed, breed, index))
    side = SIZE * SCALE
    image = draw_background(rng)

    size = rng.uniform(0.62, 0.98) * side
    matrix = size * rotation(rng.uniform(-0.2, 0.2))
    if rng.random() < 0.5:
        matrix[:, 0] *= -1  # Looks to the left.
    offset = side * (0.5 + rng.uniform(-0.08, 0.08, 2)) - np.array([0.5, 0.52]) @ matrix
    sheet = Sheet(image, matrix, offset)

    coat, mark = COLOURS[look["coat"]]
    coat = tuple(np.clip(np.add(coat, rng.normal(0, 9, 3)), 0, 255))
    mark = tuple(np.clip(np.add(mark, rng.normal(0, 9, 3)), 0, 255))
    body, dark, marks = shade(coat, 1), shade(coat, 0.8), shade(mark, 1)
    rough = 0.12 if look["fur"] == "shaggy" else 0.0
    stretch, lift = rng.uniform(0.93, 1.07), rng.uniform(-0.03, 0.05)

    # The body, and below it the legs; those on the far side are darker.
    back, chest, belly = 0.45 - 0.22 * stretch, 0.45 + 0.2 * stretch, 0.55
    height = (0.26 if look["legs"] == "long" else 0.15) * rng.uniform(0.95, 1.05)
    socks = look["marks"] == "socks"
    for x, colour in ((back + 0.1, dark), (chest - 0.01, dark), (back + 0.04, body), (chest, body)):
        hip, step = (x, belly + 0.04), rng.uniform(-0.05, 0.05)
        foot = (x + step, belly + 0.07 + height)
        sheet.fill(
            [limb(hip, foot, 0.045, 0.028), ellipse(foot[0] + 0.015, foot[1], 0.04, 0.025)], colour
        )
        if socks:
            knee = (x + 0.55 * step, belly + 0.04 + 0.6 * height)
            paw = ellipse(foot[0] + 0.015, foot[1], 0.04, 0.025)
            sheet.fill([limb(knee, foot, 0.033, 0.03), paw], marks)
    wag = rng.uniform(-0.3, 0.3)
    sheet.fill(tail_shapes(look["tail"], back + 0.01, belly - 0.05, wag, rough, rng), body)
    trunk = ellipse(0.45, belly, 0.25 * stretch, 0.125, 0.0, rough, rng)
    sheet.fill([trunk], body)
    if look["marks"] == "saddle":
        sheet.fill([ellipse(0.42, belly - 0.045, 0.16, 0.07, 0.0, rough, rng)], marks)
    if look["marks"] == "spots":
        for x, y in zip(np.linspace(0.27, 0.62, 6), rng.uniform(-0.07, 0.06, 6), strict=True):
            sheet.fill([ellipse(x, belly + y, *rng.uniform(0.02, 0.042, 2))], marks)

    # The neck and the head.
    head = np.array([chest + 0.11 + rng.uniform(-0.02, 0.03), 0.32 - lift])
    sheet.fill([limb((chest - 0.03, belly - 0.03), head, 0.095, 0.07)], body)
    if look["marks"] == "bib":
        sheet.fill([ellipse(chest + 0.03, belly - 0.03, 0.05, 0.1, -0.5, rough, rng)], marks)
    nod = rng.uniform(-0.2, 0.25)
    length = {"short": 0.075, "middle": 0.135, "long": 0.2}[look["snout"]] * rng.uniform(0.93, 1.07)
    ahead = np.array([np.cos(nod), np.sin(nod)])
    tip = np.add(head, (0.02, 0.03)) + length * ahead
    thick = {"short": 0.06, "middle": 0.048, "long": 0.036}[look["snout"]]
    ear = rng.uniform(0.9, 1.15), rng.uniform(-0.25, 0.2)
    far_ear = ear_shapes(look["ears"], head[0] + 0.015, head[1] - 0.07, *ear, rough, rng)
    if look["ears"] != "hanging":
        sheet.fill(far_ear, dark)
    sheet.fill([ellipse(*head, 0.1, 0.092, 0.0, rough, rng)], body)
    muzzle = marks if look["marks"] == "mask" else body
    if look["marks"] == "mask":
        sheet.fill([ellipse(head[0] + 0.045, head[1] + 0.005, 0.055, 0.06)], marks)
    sheet.fill([limb(np.add(head, (0.02, 0.03)), tip, 0.06, thick)], muzzle)
    sheet.fill([ellipse(*(tip + thick * ahead - (0, 0.012)), 0.02, 0.017)], (20, 18, 20))
    sheet.fill([ellipse(head[0] + 0.045, head[1] - 0.025, 0.016, 0.016)], (250, 250, 245))
    sheet.fill([ellipse(head[0] + 0.048, head[1] - 0.025, 0.011, 0.012)], (15, 12, 12))
    near = (head[0] - 0.045, head[1] - (0.04 if look["ears"] == "hanging" else 0.06))
    sheet.fill(ear_shapes(look["ears"], *near, *ear, rough, rng), shade(coat, 0.9))

    # Light from one side, its colour, and the noise of a camera.
    pixels = np.asarray(image.resize((SIZE, SIZE), Image.BOX), "float32")
    ramp = np.linspace(-1, 1, SIZE, dtype="float32")
    slope = rng.uniform(-0.25, 0.25, 2)
    light = rng.uniform(0.7, 1.2) * (1 + slope[0] * ramp[None, :] + slope[1] * ramp[:, None])
    pixels = pixels * light[..., None] * rng.uniform(0.9, 1.1, 3)
    pixels += rng.normal(0, rng.uniform(1, 7), pixels.shape)
    return np.clip(pixels, 0, 255).astype("uint8")


def draw_breed(seed, count, breed):
    """The first pictures of a breed, and its number once for each."""
    return np.stack([draw_dog(seed, breed, index) for index in range(count)]), [breed] * count


def load(split, numbers, count, folder=CACHE, workers=None):
    """The first `count` pictures of each breed in the range `numbers`, drawn once, then mapped.

    Returns:
        A read-only uint8 array (n, 96, 96, 3) and the labels, 0 for the first breed.
    """
    name = f"dogs-v{VERSION}-{split}-{numbers.start}-{numbers.stop}-{count}.npy"
    path = Path(folder) / name
    if not path.exists():
        shape = (len(numbers) * count, SIZE, SIZE, 3)
        draw_file(path, shape, partial(draw_breed, SEEDS[split], count), numbers, split, workers)
    labels = np.repeat(np.arange(len(numbers)), count)
    return np.load(path, mmap_mode="r"), labels
