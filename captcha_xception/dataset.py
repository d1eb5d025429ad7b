"""The captchas: drawn ones, or a folder of your own images whose names end with the label."""

import itertools
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from common.batches import ShuffledBatches
from common.cli import fail
from common.files import sha256_of_arrays
from common.images import UNREADABLE, image_paths, to_rgb
from data import captchas

HEIGHT = 53  # Pixels of every image a network sees; the width keeps the shape of the first image.
SPLIT_SEED = 2017  # The split of a folder does not change with --seed.
MIN_IMAGES = 30
MIN_TEXTS = 20


@dataclass
class CaptchaData:
    """Captchas in splits.

    Attributes:
        splits: {"train" | "valid" | "test": (uint8 images (n, height, width, 3), labels (n,
            num_characters))}. Drawn captchas have a fourth split, "unseen": typefaces and colours
            that the others never show.
        alphabet: a string; label i stands for its character i.
        notes: what the record says of the data.
    """

    splits: dict
    alphabet: str
    notes: dict

    @property
    def image_shape(self):
        """(height, width, 3)"""
        images, _ = self.splits["train"]
        return images.shape[1:]

    @property
    def num_characters(self):
        _, labels = self.splits["train"]
        return labels.shape[1]


# --- Loading ---
def load(args):
    """The CaptchaData that the flags ask for."""
    if args.data is None:
        splits = draw_splits(args.num_train, args.num_valid, args.num_test)
        alphabet = captchas.ALPHABET
        notes = {"name": f"drawn captchas v{captchas.VERSION}"}
    else:
        images, labels, alphabet, skipped = load_folder(args.data, args.length, args.case_sensitive)
        splits = split_by_text(images, labels, args.data)
        notes = {"name": Path(args.data).resolve().name, "skipped": skipped}
    for name, (_, labels) in splits.items():
        notes[f"num_{name}"] = len(labels)
    notes["sha256"] = sha256_of_arrays(itertools.chain(*splits.values()))
    return CaptchaData(splits, alphabet, notes)


def draw_splits(num_train, num_valid, num_test):
    """Drawn captchas, from disjoint streams."""
    return {
        "train": captchas.load("train", num_train),
        "valid": captchas.load("valid", num_valid),
        "test": captchas.load("test", num_test),
        "unseen": captchas.load("test", min(2000, num_test), style="unseen"),
    }


def split_by_text(images, labels, folder):
    """81% of the different texts for training, 9% for validation, 10% for the test.

    Two images of one text may be the same image twice, so they never lie in different splits.
    """
    _, text_of_image = np.unique(labels, axis=0, return_inverse=True)
    num_texts = text_of_image.max() + 1
    if num_texts < MIN_TEXTS:
        fail(
            f"{folder} shows {num_texts} different texts: expected {MIN_TEXTS}, "
            "because some texts are held out"
        )
    texts = np.random.default_rng(SPLIT_SEED).permutation(num_texts)
    train, valid, test = np.split(texts, [round(0.81 * num_texts), round(0.9 * num_texts)])
    splits = {}
    for name, chosen in (("train", train), ("valid", valid), ("test", test)):
        rows = np.isin(text_of_image, chosen)
        splits[name] = (images[rows], labels[rows])
    return splits


# --- Your own images ---
def load_folder(folder, length=None, case_sensitive=False):
    """Reads the captchas of a folder.

    One unreadable file among a hundred is skipped and counted; more are a mistake, which ends the
    script with one line.

    Returns:
        Images (n, 53, width, 3), labels (n, length), the alphabet, and the skipped files.
    """
    if not Path(folder).is_dir():
        fail(f"{folder} is not a folder")
    paths = image_paths(folder)
    images = []
    stems = []
    skipped = []
    size = None
    for path in tqdm(paths, desc="reading", unit="image", disable=None):
        try:
            image = read_image(path, size)
        except UNREADABLE as error:
            skipped.append(f"{path.name}: {error}")
            continue
        size = size or image.size
        images.append(np.asarray(image))
        stems.append(path.stem)
    if len(skipped) > max(0.01 * len(paths), 0.5):
        fail(f"{len(skipped)} of {len(paths)} images are unreadable; the first is {skipped[0]}")
    if len(images) < MIN_IMAGES:
        fail(f"{folder} itself holds {len(images)} images, a split needs at least {MIN_IMAGES}")
    try:
        texts = labels_from_names(stems, length, case_sensitive)
    except ValueError as error:
        fail(error)
    alphabet = "".join(sorted(set("".join(texts))))
    labels = np.array([[alphabet.index(c) for c in text] for text in texts], dtype="int16")
    return np.stack(images), labels, alphabet, skipped


def read_image(path, size=None):
    """An RGB image of `size` (width, height); what is transparent becomes white.

    Without a size it is scaled to the height of 53 pixels. Raises one of UNREADABLE for a file
    that is not an intact image, and ValueError for one that cannot be a line of text.
    """
    with Image.open(path) as image:
        if not 1 / 4 <= image.width / image.height <= 16:
            raise ValueError(f"{image.width} x {image.height} is not the shape of a line of text")
        if size is None:
            width = round(image.width * HEIGHT / image.height)
            size = (max(1, width), HEIGHT)
        return to_rgb(image).resize(size, Image.BILINEAR)


def labels_from_names(stems, length=None, case_sensitive=False):
    """The label at the end of each file name; its length is found where all names agree on one.

    "xK3f" and "0001_xK3f" both end with xK3f. Raises ValueError where the names do not agree,
    where a label is shorter than `length`, or where it holds more than letters and digits.
    """
    if length is None:
        labels = [re.split(r"[\W_]", stem)[-1] for stem in stems]
    else:
        labels = [stem[-length:] for stem in stems]
        if min(map(len, labels)) < length:
            shortest = min(stems, key=len)
            raise ValueError(f"{shortest!r} is shorter than a label of {length} characters")
    lengths = Counter(map(len, labels))
    if len(lengths) > 1 or 0 in lengths:
        rarest = min(lengths, key=lengths.get)
        example = next(
            stem for stem, label in zip(stems, labels, strict=True) if len(label) == rarest
        )
        raise ValueError(
            f"labels of different lengths: {dict(lengths)} (length: images), "
            f"{example!r} for one; --length N takes the last N characters"
        )
    for stem, label in zip(stems, labels, strict=True):
        if not label.isalnum() or len(label.lower()) != len(label):
            raise ValueError(f"label {label!r} of {stem!r} has more than letters and digits")
    if case_sensitive:
        return labels
    return [label.lower() for label in labels]


# --- Augmentation ---
class AugmentedBatches(ShuffledBatches):
    """Endless batches (images, labels), every image augmented anew in each epoch.

    One random generator serves a whole epoch, batch after batch. Keras reads the first batches
    twice, so the state of the generator before each batch is kept.
    """

    def __init__(self, arrays, batch_size, seed, first_epoch=0):
        super().__init__(arrays, batch_size, seed, first_epoch)
        self.states = {}

    def __getitem__(self, index):
        images, labels = super().__getitem__(index)
        epoch, step = divmod(index, self.steps_per_epoch)
        rng = np.random.default_rng((self.seed, self.first_epoch + epoch))
        if step == 0:
            rng.permutation(self.num_samples)  # The order of the epoch, drawn before.
        else:
            rng.bit_generator.state = self.states[index]
        images = augment(images, rng)
        self.states[index + 1] = rng.bit_generator.state
        return images, labels


def augment(images, rng):
    """Rotates, shears, scales and shifts each image a little, and swaps its colour channels.

    Args:
        images: uint8 (n, height, width, 3).
        rng: a NumPy Generator.
    """
    height, width = images.shape[1:3]
    augmented = np.empty_like(images)
    for i, image in enumerate(images):
        rotation = rng.uniform(-0.08, 0.08)
        shear = rng.uniform(-0.15, 0.15)
        scale_x, scale_y = rng.uniform(0.93, 1.08, 2)
        shift_x = rng.uniform(-4, 4)
        shift_y = rng.uniform(-3, 3)
        # Where each pixel comes from; the centre of the image stays in place but for the shift.
        matrix = (
            scale_x,
            shear,
            shift_x - shear * height / 2 + (1 - scale_x) * width / 2,
            rotation,
            scale_y,
            shift_y - rotation * width / 2 + (1 - scale_y) * height / 2,
        )
        left_edge = np.median(image[:, :2], axis=(0, 1))
        background = tuple(left_edge.astype(int).tolist())
        moved = Image.fromarray(image).transform(
            (width, height), Image.AFFINE, matrix, Image.BILINEAR, fillcolor=background
        )
        augmented[i] = np.asarray(moved)[..., rng.permutation(3)]
    return augmented
