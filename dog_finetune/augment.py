"""Augmentations: the post's, ours, and those of test images; and which of them a stage uses.

The file needs numpy and Pillow alone: copy it whole, or take one function out of it. All images
are uint8 arrays (size, size, 3), before and after.

Post: https://kexue.fm/archives/4611
"""

import numpy as np
from PIL import Image

# Each kind has its own stream of random numbers, which depends on its position here.
KINDS = ("plain", "full", "light", "ours", "test")
MAX_TEST_VIEWS = 12  # The last two of them show the inner half of an image.


# --- The choice ---
def augment_row(images, row, kind, numbers, rng):
    """An image of a collection, augmented.

    Args:
        images: a collection with a method read(row), which gives the plain image, and with the
            attributes labels (-1 where unknown), splices and masks (whether to use them).
        kind: "plain": as it is. "full": the post's augmentations, half of the images spliced with
            another one of their class. "light": the post's without rotations, masks and splices.
            "ours". "test": one of a few fixed crops of a test image.
        numbers: for the kind "test", (number of the fixed crop,).
        rng: a NumPy Generator.
    """
    if kind == "plain":
        return images.read(row)
    if kind == "test":
        [number] = numbers
        return fixed_crop(images.read(row), number)
    if kind == "ours":
        return crop_and_colour(images.read(row), rng)
    if kind == "full" and images.splices and images.labels[row] >= 0 and rng.random() < 0.5:
        mate = rng.choice(np.flatnonzero(images.labels == images.labels[row]))
        orientation = rng.integers(4)
        cut = rng.uniform(0.25, 0.75)
        return splice(images.read(row), images.read(mate), orientation, cut)

    def read_other():
        return images.read(rng.integers(len(images.labels)))

    light = kind == "light"
    return augment(images.read(row), read_other, rng, light=light, masks=images.masks)


# --- The post's ---
def augment(image, read_other, rng, light=False, masks=True):
    """The post's augmentation: rotation, zoom, reflection, and a masked quadrant.

    Args:
        image: a square uint8 image.
        read_other: a function that gives another image; called only where one is pasted on.
        rng: a NumPy Generator.
        light: zoom and reflection only, as in the post's last stage.
        masks: whether to mask a quadrant of every second image.
    """
    if not light:
        image = rotate(image, rng.uniform(-10, 10))
    factor = rng.uniform(0.8, 1.2)
    other = None
    if factor < 1:
        other = read_other()
    image = zoom_paste(image, factor, other, rng)
    if rng.random() < 0.5:
        image = image[:, ::-1]
    if masks and not light and rng.random() < 0.5:
        image = mask_quadrant(image, rng.integers(4))
    return image


def centre_crop(image):
    """The largest square from the middle of an image (height, width, channels)."""
    height, width = image.shape[:2]
    side = min(height, width)
    top = (height - side) // 2
    left = (width - side) // 2
    return image[top : top + side, left : left + side]


def rotate(image, degrees):
    """A square image turned about its centre, by nearest pixels.

    Beyond the edge of the image its outermost pixels are repeated.
    """
    size = len(image)
    angle = np.deg2rad(degrees)
    centre = (size - 1) / 2
    y = np.arange(size)[:, None] - centre
    x = y.T
    rows = np.cos(angle) * y - np.sin(angle) * x + centre
    columns = np.sin(angle) * y + np.cos(angle) * x + centre
    rows = np.rint(rows).clip(0, size - 1).astype(int)
    columns = np.rint(columns).clip(0, size - 1).astype(int)
    # Unlike image[rows, columns], take lets other threads run meanwhile.
    return np.take(image.reshape(-1, 3), rows * size + columns, axis=0)


def zoom_paste(image, factor, other, rng):
    """A square image enlarged or shrunk, at its old size.

    Args:
        factor: above 1: a random part of the enlarged image is cut out. Below 1: the shrunk image
            is pasted onto `other` at a random position.
        other: another image of this size; not used where the factor is 1 or more.
        rng: a NumPy Generator.
    """
    size = len(image)
    side = max(1, round(size * factor))
    nearest = np.arange(side) * size // side
    zoomed = np.take(np.take(image, nearest, axis=0), nearest, axis=1)
    top, left = rng.integers(abs(side - size) + 1, size=2)
    if side >= size:
        return zoomed[top : top + size, left : left + size]
    pasted = other.copy()
    pasted[top : top + side, left : left + side] = zoomed
    return pasted


def mask_quadrant(image, quadrant):
    """One quarter of a square image black, so that no single part of an animal is enough.

    Args:
        quadrant: 0 top left, 1 top right, 2 bottom left, 3 bottom right.
    """
    half = len(image) // 2
    rows = slice(half, None)
    if quadrant < 2:
        rows = slice(half)
    columns = slice(half, None)
    if quadrant % 2 == 0:
        columns = slice(half)
    masked = image.copy()
    masked[rows, columns] = 0
    return masked


def splice(one, two, orientation, cut=0.5):
    """Two square images of one class joined in one.

    Args:
        orientation: 0: `one` above `two`. 1: `one` left of `two`. 2: `one` above the main
            diagonal. 3: `one` above the other diagonal.
        cut: for 0 and 1, the fraction of the image that shows `one`.
    """
    size = len(one)
    y = np.arange(size)[:, None]
    x = np.arange(size)[None, :]
    if orientation == 0:
        shows_one = y < cut * size
    elif orientation == 1:
        shows_one = x < cut * size
    elif orientation == 2:
        shows_one = x > y
    else:
        shows_one = x + y < size
    return np.where(shows_one[..., None], one, two)


# --- Ours ---
def crop_and_colour(image, rng, min_area=0.4):
    """A random crop, stretched a little and perhaps reflected, with changed colours and light.

    Args:
        image: a square uint8 image.
        rng: a NumPy Generator.
        min_area: the smallest fraction of the area that a crop has.
    """
    size = len(image)
    area = rng.uniform(min_area, 1)
    stretch = np.exp(rng.uniform(-0.25, 0.25))
    width = min(size, size * np.sqrt(area * stretch))
    height = min(size, size * np.sqrt(area * (1 / stretch)))
    left = rng.uniform(0, size - width)
    top = rng.uniform(0, size - height)
    box = (left, top, left + width, top + height)
    cropped = Image.fromarray(image).resize((size, size), Image.BILINEAR, box)
    pixels = np.asarray(cropped, "float32")
    if rng.choice([-1, 1]) == -1:
        pixels = pixels[:, ::-1]
    grey = pixels.mean(-1, keepdims=True)
    pixels = grey + rng.uniform(0.7, 1.3) * (pixels - grey)  # Saturation.
    mean = pixels.mean()
    contrast = rng.uniform(0.8, 1.2)
    brightness = rng.uniform(-20, 20)
    pixels = mean + contrast * (pixels - mean) + brightness
    return pixels.clip(0, 255).astype("uint8")


# --- Test images ---
def fixed_crop(image, number):
    """For test-time augmentation: one of MAX_TEST_VIEWS crops of a square image.

    0 is the image itself, 1 its reflection, 2 and 3 are the inner 90% of both, and so on.
    """
    size = len(image)
    edge = 0.05 * (number // 2) * size
    box = (edge, edge, size - edge, size - edge)
    cropped = np.asarray(Image.fromarray(image).resize((size, size), Image.BILINEAR, box))
    if number % 2 == 1:
        return cropped[:, ::-1]
    return cropped
