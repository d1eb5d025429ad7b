"""Drawings: confused classes, predictions, and where the network looked."""

from collections import Counter

import numpy as np
from PIL import Image

from common.images import save_grid
from dog_finetune.dataset import read_image

MAX_PAIRS = 24  # Images in the grid of confused classes, in pairs.


def save_images(path, images, titles):
    """Writes a PNG of images in rows of six, each under its title."""
    save_grid(path, images, titles, columns=6, cell=(1.9, 2.2), font_size=8)


def draw_confusions(folder, image_size, data, guesses):
    """Misclassified test images, each beside a training image of the class it was taken for.

    Args:
        data: a DogData.
        guesses: the classes (n,) that the test images were taken for.

    Returns:
        {file name: caption} for the record.
    """
    sources, labels = data.splits["test"]
    train_sources, train_labels = data.splits["train"]
    images = []
    titles = []
    seen = Counter()
    for row in np.flatnonzero(guesses != labels):
        label = labels[row]
        guess = guesses[row]
        seen[label, guess] += 1
        if seen[label, guess] > 1 or len(images) >= MAX_PAIRS:
            continue
        example = np.flatnonzero(train_labels == guess)[0]
        images.append(read_image(sources[row], image_size))
        titles.append(f"{data.class_names[label]}\ntaken for")
        images.append(read_image(train_sources[example], image_size))
        titles.append(f"{data.class_names[guess]}\n(training)")
    if not images:
        return {}
    save_images(folder / "confusions.png", images, titles)
    return {"confusions.png": "Missed test pictures, each beside a picture of what it is taken for"}


def draw_predictions(path, images, lines, truths=None, heat_maps=None):
    """Writes a grid of images; see `grid_of_predictions` for the arguments."""
    shown, titles = grid_of_predictions(images, lines, truths, heat_maps)
    save_images(path, shown, titles)


def grid_of_predictions(images, lines, truths=None, heat_maps=None):
    """Images and what was said of each: hit or miss, and where the network looked.

    Args:
        lines: dicts with "label" and "probability", one per image.
        truths: the true names of the classes, if they are known.
        heat_maps: of `evaluate.explain`, if they are to be shown beside the images.

    Returns:
        The images and their titles.
    """
    shown = []
    titles = []
    for i, (image, line) in enumerate(zip(images, lines, strict=True)):
        title = f"{line['label']} {line['probability']:.0%}"
        if truths is not None:
            title += verdict(line["label"], truths[i])
        shown.append(image)
        titles.append(title)
        if heat_maps is not None:
            shown.append(overlay(image, heat_maps[i]))
            titles.append("where it looked")
    return shown, titles


def verdict(label, truth):
    if label == truth:
        return "\nhit"
    return f"\nMISS: {truth}"


def overlay(image, heat):
    """The image in grey, with the heat (rows, columns) from 0 to 1 laid over it in red."""
    height, width = image.shape[:2]
    size = (width, height)
    mask = Image.fromarray(np.uint8(255 * heat)).resize(size, Image.BICUBIC)
    grey = Image.fromarray(image).convert("L").convert("RGB")
    black = Image.new("L", size)
    red = Image.merge("RGB", [mask, black, black])
    mask = mask.point(lambda value: 0.6 * value)
    return np.asarray(Image.composite(red, grey, mask))
