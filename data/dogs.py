"""Drawn dogs: up to 100 cartoon breeds, the embedded data of dog_finetune.

A breed is a choice of ears, snout, tail, coat, marks, fur and legs. Every two breeds differ in at
least three of the seven, and many share their colour. Within a breed the pose, the proportions,
the shade of the coat, the light and the background vary; they say nothing about the breed.

An image depends on (seed, breed, index) and nothing else, so any number of processes draws the
same set. VERSION is part of every record: raise it when a change of a line moves a pixel.
"""

import itertools
from dataclasses import dataclass
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
    num_values = [range(len(values)) for values in PARTS.values()]
    options = np.array(list(itertools.product(*num_values)))
    chosen = []
    for option in np.random.default_rng(4611).permutation(options):
        if all((option != other).sum() >= 3 for other in chosen):
            chosen.append(option)
        if len(chosen) == NUM_BREEDS:
            break
    return [look_of(option) for option in chosen]


def look_of(option):
    """{part: its value} of the numbers of the values."""
    look = {}
    for (part, values), number in zip(PARTS.items(), option, strict=True):
        look[part] = values[number]
    return look


# --- Shapes: arrays of points (n, 2) in a unit square in which the dog looks to the right ---
def ellipse(x, y, radius_x, radius_y, turn=0.0, rough=0.0, rng=None):
    """An ellipse of 40 points; `rough` moves each of them towards the centre or away from it."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radii = np.ones(len(angles))
    if rough > 0:
        radii = 1 + rough * rng.uniform(-1, 1, len(angles))
    points = np.stack([radius_x * radii * np.cos(angles), radius_y * radii * np.sin(angles)], 1)
    return points @ rotation(turn) + (x, y)


def rotation(angle):
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def limb(start, end, width_start, width_end):
    """A straight piece with round ends, which changes its width."""
    start = np.asarray(start, float)
    end = np.asarray(end, float)
    x, y = end - start
    half_circle = np.linspace(-np.pi / 2, np.pi / 2, 9) + np.arctan2(y, x)
    cap = np.stack([np.cos(half_circle), np.sin(half_circle)], 1)
    return np.concatenate([end + width_end * cap, start - width_start * cap])


def curve(x, y, angles, step, widths):
    """A chain of limbs: each continues at its own angle."""
    position = np.array([x, y], float)
    pieces = []
    for angle, (width, next_width) in zip(angles, itertools.pairwise(widths), strict=True):
        following = position + step * np.array([np.cos(angle), -np.sin(angle)])
        pieces.append(limb(position, following, width, next_width))
        position = following
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


# --- Drawing: the order of the random numbers is part of VERSION ---
class Sheet:
    """Draws shapes of the unit square, turned, scaled and moved to where the dog stands."""

    def __init__(self, image, matrix, offset):
        self.draw = ImageDraw.Draw(image)
        self.matrix = matrix
        self.offset = offset

    def fill(self, shapes, colour):
        for points in shapes:
            placed = points @ self.matrix + self.offset
            self.draw.polygon([tuple(p) for p in placed.tolist()], fill=colour)


@dataclass
class Dog:
    """One dog while it is drawn.

    Attributes:
        look: {part: its value} of the breed.
        coat: colour (3,) of this dog, with fractions.
        marks: colour of its marks, for Pillow.
        rough: how far the outline of its fur varies.
        lift: how far it raises its head.
        back, chest, belly: where its body is, in the unit square.
    """

    look: dict
    rng: np.random.Generator
    sheet: Sheet
    coat: tuple
    marks: tuple
    rough: float
    stretch: float
    lift: float
    back: float
    chest: float
    belly: float

    @property
    def body_colour(self):
        return shade(self.coat, 1)

    @property
    def far_colour(self):
        """Of what is on the far side."""
        return shade(self.coat, 0.8)


def shade(colour, factor):
    return tuple(int(np.clip(value * factor, 0, 255)) for value in colour)


def draw_dog(seed, breed, index):
    """One image of a breed (0 to 99): a uint8 array (96, 96, 3)."""
    look = breeds()[breed]
    rng = np.random.default_rng((VERSION, seed, breed, index))
    image = draw_background(rng)
    sheet = place_sheet(image, rng)
    dog = make_dog(look, rng, sheet)
    draw_legs(dog)
    draw_trunk(dog)
    draw_head(dog)
    pixels = np.asarray(image.resize((SIZE, SIZE), Image.BOX), "float32")
    return photograph(pixels, rng)


def draw_background(rng):
    """Sky or wall, ground, and a few things that stand about."""
    side = SIZE * SCALE
    above = rng.integers(90, 245, 3)
    below = rng.integers(50, 200, 3)
    horizon = rng.uniform(0.35, 0.85) * side
    image = Image.new("RGB", (side, side), tuple(above.tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(2, 7)):
        draw_thing(draw, horizon, rng)
    draw.rectangle((0, horizon, side, side), fill=tuple(below.tolist()))
    for _ in range(rng.integers(0, 12)):
        x = rng.uniform(0, side)
        y = rng.uniform(horizon, side)
        radius = rng.uniform(2, 14)
        tuft = shade(below, rng.uniform(0.7, 1.3))
        draw.ellipse((x - 2 * radius, y - radius, x + 2 * radius, y + radius), fill=tuft)
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 4)))


def draw_thing(draw, horizon, rng):
    """A box or a bush on the horizon."""
    side = SIZE * SCALE
    x = rng.uniform(0, side)
    width, height = rng.uniform(0.05, 0.4, 2) * side
    box = (x - width / 2, horizon - height, x + width / 2, horizon)
    is_box = rng.random() < 0.5
    colour = tuple(rng.integers(40, 230, 3).tolist())
    if is_box:
        draw.rectangle(box, fill=colour)
    else:
        draw.ellipse(box, fill=colour)


def place_sheet(image, rng):
    """The Sheet of a dog of random size, which stands near the middle and looks left or right."""
    side = SIZE * SCALE
    size = rng.uniform(0.62, 0.98) * side
    matrix = size * rotation(rng.uniform(-0.2, 0.2))
    if rng.random() < 0.5:
        matrix[:, 0] *= -1  # Looks to the left.
    offset = side * (0.5 + rng.uniform(-0.08, 0.08, 2)) - np.array([0.5, 0.52]) @ matrix
    return Sheet(image, matrix, offset)


def make_dog(look, rng, sheet):
    """A dog of a breed, with a shade and proportions of its own."""
    coat, mark = COLOURS[look["coat"]]
    coat = tuple(np.clip(np.add(coat, rng.normal(0, 9, 3)), 0, 255))
    mark = tuple(np.clip(np.add(mark, rng.normal(0, 9, 3)), 0, 255))
    rough = 0.0
    if look["fur"] == "shaggy":
        rough = 0.12
    stretch = rng.uniform(0.93, 1.07)
    lift = rng.uniform(-0.03, 0.05)
    return Dog(
        look=look,
        rng=rng,
        sheet=sheet,
        coat=coat,
        marks=shade(mark, 1),
        rough=rough,
        stretch=stretch,
        lift=lift,
        back=0.45 - 0.22 * stretch,
        chest=0.45 + 0.2 * stretch,
        belly=0.55,
    )


def draw_legs(dog):
    """Four legs; those on the far side first, and darker."""
    height = 0.15
    if dog.look["legs"] == "long":
        height = 0.26
    height *= dog.rng.uniform(0.95, 1.05)
    draw_leg(dog, dog.back + 0.1, height, dog.far_colour)
    draw_leg(dog, dog.chest - 0.01, height, dog.far_colour)
    draw_leg(dog, dog.back + 0.04, height, dog.body_colour)
    draw_leg(dog, dog.chest, height, dog.body_colour)


def draw_leg(dog, x, height, colour):
    step = dog.rng.uniform(-0.05, 0.05)
    hip = (x, dog.belly + 0.04)
    foot = (x + step, dog.belly + 0.07 + height)
    paw = ellipse(foot[0] + 0.015, foot[1], 0.04, 0.025)
    dog.sheet.fill([limb(hip, foot, 0.045, 0.028), paw], colour)
    if dog.look["marks"] == "socks":
        knee = (x + 0.55 * step, dog.belly + 0.04 + 0.6 * height)
        dog.sheet.fill([limb(knee, foot, 0.033, 0.03), paw], dog.marks)


def draw_trunk(dog):
    """The tail, the trunk, and what is marked on it."""
    rng = dog.rng
    wag = rng.uniform(-0.3, 0.3)
    tail = tail_shapes(dog.look["tail"], dog.back + 0.01, dog.belly - 0.05, wag, dog.rough, rng)
    dog.sheet.fill(tail, dog.body_colour)
    trunk = ellipse(0.45, dog.belly, 0.25 * dog.stretch, 0.125, 0.0, dog.rough, rng)
    dog.sheet.fill([trunk], dog.body_colour)
    if dog.look["marks"] == "saddle":
        saddle = ellipse(0.42, dog.belly - 0.045, 0.16, 0.07, 0.0, dog.rough, rng)
        dog.sheet.fill([saddle], dog.marks)
    if dog.look["marks"] == "spots":
        heights = rng.uniform(-0.07, 0.06, 6)
        for x, y in zip(np.linspace(0.27, 0.62, 6), heights, strict=True):
            radius_x, radius_y = rng.uniform(0.02, 0.042, 2)
            dog.sheet.fill([ellipse(x, dog.belly + y, radius_x, radius_y)], dog.marks)


def draw_head(dog):
    """The neck and the head, from the far ear to the near one."""
    rng = dog.rng
    x = dog.chest + 0.11 + rng.uniform(-0.02, 0.03)
    y = 0.32 - dog.lift
    neck = limb((dog.chest - 0.03, dog.belly - 0.03), (x, y), 0.095, 0.07)
    dog.sheet.fill([neck], dog.body_colour)
    if dog.look["marks"] == "bib":
        bib = ellipse(dog.chest + 0.03, dog.belly - 0.03, 0.05, 0.1, -0.5, dog.rough, rng)
        dog.sheet.fill([bib], dog.marks)
    nod = rng.uniform(-0.2, 0.25)
    snout_length = {"short": 0.075, "middle": 0.135, "long": 0.2}[dog.look["snout"]]
    snout_length *= rng.uniform(0.93, 1.07)
    ear_size = rng.uniform(0.9, 1.15)
    ear_turn = rng.uniform(-0.25, 0.2)

    ears = dog.look["ears"]
    far_ear = ear_shapes(ears, x + 0.015, y - 0.07, ear_size, ear_turn, dog.rough, rng)
    if ears != "hanging":  # Behind the head, a hanging ear is not seen.
        dog.sheet.fill(far_ear, dog.far_colour)
    dog.sheet.fill([ellipse(x, y, 0.1, 0.092, 0.0, dog.rough, rng)], dog.body_colour)
    draw_face(dog, x, y, nod, snout_length)
    near_y = y - 0.06
    if ears == "hanging":
        near_y = y - 0.04
    near_ear = ear_shapes(ears, x - 0.045, near_y, ear_size, ear_turn, dog.rough, rng)
    dog.sheet.fill(near_ear, shade(dog.coat, 0.9))


def draw_face(dog, x, y, nod, snout_length):
    """The mask, the snout, the nose and the eye of a head at (x, y)."""
    snout_colour = dog.body_colour
    if dog.look["marks"] == "mask":
        snout_colour = dog.marks
        dog.sheet.fill([ellipse(x + 0.045, y + 0.005, 0.055, 0.06)], dog.marks)
    start = np.add((x, y), (0.02, 0.03))
    ahead = np.array([np.cos(nod), np.sin(nod)])
    tip = start + snout_length * ahead
    width = {"short": 0.06, "middle": 0.048, "long": 0.036}[dog.look["snout"]]
    dog.sheet.fill([limb(start, tip, 0.06, width)], snout_colour)
    nose_x, nose_y = tip + width * ahead - (0, 0.012)
    dog.sheet.fill([ellipse(nose_x, nose_y, 0.02, 0.017)], (20, 18, 20))
    dog.sheet.fill([ellipse(x + 0.045, y - 0.025, 0.016, 0.016)], (250, 250, 245))
    dog.sheet.fill([ellipse(x + 0.048, y - 0.025, 0.011, 0.012)], (15, 12, 12))


def photograph(pixels, rng):
    """Light from one side, its colour, and the noise of a camera.

    Args:
        pixels: float32 (96, 96, 3) from 0 to 255.
    """
    ramp = np.linspace(-1, 1, SIZE, dtype="float32")
    slope = rng.uniform(-0.25, 0.25, 2)
    brightness = rng.uniform(0.7, 1.2)
    light = brightness * (1 + slope[0] * ramp[None, :] + slope[1] * ramp[:, None])
    pixels = pixels * light[..., None] * rng.uniform(0.9, 1.1, 3)
    noise = rng.uniform(1, 7)
    pixels += rng.normal(0, noise, pixels.shape)
    return np.clip(pixels, 0, 255).astype("uint8")


# --- Sets of images ---
def draw_breed(seed, count, breed):
    """The first images of a breed, and its number once for each."""
    return np.stack([draw_dog(seed, breed, index) for index in range(count)]), [breed] * count


def load(split, numbers, count, folder=CACHE, workers=None):
    """The first `count` images of each breed in the range `numbers`, drawn once, then mapped.

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
