"""Folders of captcha pictures, of any size and mode, whose names end with the label."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from common.pictures import UNREADABLE
from common.run import fail

HEIGHT = 53  # Of every picture a model sees; the width keeps the shape of the first picture.


def read_picture(path, size=None):
    """An RGB picture of `size` (width, height); what is transparent becomes white.

    Raises one of UNREADABLE for a file that is no intact picture, and ValueError for one that is
    not of a line of text.
    """
    with Image.open(path) as image:
        if not 1 / 4 <= image.width / image.height <= 16:
            raise ValueError(f"{image.width} x {image.height} is not the shape of a line of text")
        if size is None:
            size = (max(1, round(image.width * HEIGHT / image.height)), HEIGHT)
        if image.mode[0] in "IF":  # Pillow would clip more than 8 bits, not scale them.
            grey = np.asarray(image, "float64")
            if not np.isfinite(grey).all():
                raise ValueError("a pixel is no number")
            grey = 255 * (grey - grey.min()) / max(np.ptp(grey), 1e-9)
            image = Image.fromarray(grey.astype("uint8"))
        image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB").resize(size, Image.BILINEAR)


def labels_from_names(stems, length=None, case_sensitive=False):
    """The label that ends each stem; its length is inferred where all stems agree on one.

    "xK3f" and "0001_xK3f" both end with xK3f. Raises ValueError where they do not agree,
    where a label is shorter than `length`, or where it holds more than letters and digits.
    """
    labels = [re.split(r"[\W_]", stem)[-1] if length is None else stem[-length:] for stem in stems]
    if length is not None and min(map(len, labels)) < length:
        raise ValueError(f"{min(stems, key=len)!r} is shorter than a label of {length} characters")
    lengths = Counter(map(len, labels))
    if len(lengths) > 1 or 0 in lengths:
        rare = min(lengths, key=lengths.get)
        example = next(
            stem for stem, label in zip(stems, labels, strict=True) if len(label) == rare
        )
        raise ValueError(
            f"labels of different lengths: {dict(lengths)} (length: pictures), "
            f"{example!r} for one; --length N takes the last N characters"
        )
    for stem, label in zip(stems, labels, strict=True):
        if not label.isalnum() or len(label.lower()) != len(label):
            raise ValueError(f"label {label!r} of {stem!r} is not of letters and digits only")
    return labels if case_sensitive else [label.lower() for label in labels]


def picture_paths(folder):
    """The picture files of a folder, by name, sorted."""
    endings = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"}
    return sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in endings)


def load_folder(folder, length=None, case_sensitive=False):
    """Pictures (n, 53, width, 3), labels (n, length), the alphabet they count in, skipped files."""
    if not Path(folder).is_dir():
        fail(f"{folder} is not a folder")
    paths, pictures, stems, skipped, size = picture_paths(folder), [], [], [], None
    for path in tqdm(paths, desc="reading", unit="picture", disable=None):
        try:
            picture = read_picture(path, size)
        except UNREADABLE as error:
            skipped.append(f"{path.name}: {error}")
            continue
        size = size or picture.size
        pictures.append(np.asarray(picture))
        stems.append(path.stem)
    # One bad file among thousands is skipped and named; more means a mistake.
    if len(skipped) > max(0.01 * len(paths), 0.5):
        fail(f"{len(skipped)} of {len(paths)} pictures are unreadable; the first is {skipped[0]}")
    if len(pictures) < 30:
        fail(f"{folder} itself holds {len(pictures)} pictures, a split needs at least 30")
    try:
        texts = labels_from_names(stems, length, case_sensitive)
    except ValueError as error:
        fail(error)
    alphabet = "".join(sorted(set("".join(texts))))
    labels = np.array([[alphabet.index(c) for c in text] for text in texts], dtype="int16")
    return np.stack(pictures), labels, alphabet, skipped


def augment(pictures, rng):
    """Turns, leans, scales and shifts each picture a little and changes its colours."""
    height, width = pictures.shape[1:3]
    out = np.empty_like(pictures)
    for i, picture in enumerate(pictures):
        turn, lean = rng.uniform(-0.08, 0.08), rng.uniform(-0.15, 0.15)
        scale_x, scale_y = rng.uniform(0.93, 1.08, 2)
        shift_x, shift_y = rng.uniform(-4, 4), rng.uniform(-3, 3)
        ground = tuple(np.median(picture[:, :2], axis=(0, 1)).astype(int).tolist())
        matrix = (scale_x, lean, shift_x - lean * height / 2 + (1 - scale_x) * width / 2)
        matrix += (turn, scale_y, shift_y - turn * width / 2 + (1 - scale_y) * height / 2)
        moved = Image.fromarray(picture).transform(
            (width, height), Image.AFFINE, matrix, Image.BILINEAR, fillcolor=ground
        )
        out[i] = np.asarray(moved)[..., rng.permutation(3)]
    return out


def picture_grid(path, pictures, texts, columns=4):
    """A PNG of the pictures, each under its text."""
    from matplotlib.figure import Figure  # Here, because --help need not wait for it.

    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(2.2 * columns, 1.3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, picture, text in zip(axes, pictures, texts, strict=False):
        axis.imshow(picture)
        axis.set_title(text, fontsize=9, family="monospace")
    figure.savefig(path, dpi=110)


def draw_hits_and_misses(folder, pictures, truths, guesses):
    """Two grids as PNG files; returns {file name: caption} for the record."""
    missed = [i for i, truth in enumerate(truths) if guesses[i] != truth]
    captions = {}
    for name, chosen, what in (
        ("read.png", range(len(truths)), "The first test captchas"),
        ("missed.png", missed, "Misread test captchas"),
    ):
        if len(chosen):
            texts = [f"{truths[i]} > {guesses[i]}" for i in chosen[:16]]
            picture_grid(folder / name, [pictures[i] for i in chosen[:16]], texts)
            captions[name] = f"{what}: truth > what was read"
    return captions
