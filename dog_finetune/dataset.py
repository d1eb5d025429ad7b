"""The dogs: drawn ones, a folder per class, or the contest's layout; read, split, augmented."""

import contextlib
import hashlib
import io
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from common.cli import fail, first_line
from common.files import sha256_of_arrays
from common.images import UNREADABLE, image_paths, to_rgb
from data import dogs
from dog_finetune.augment import KINDS, augment_row

SPLIT_SEED = 2017  # A split depends on this and on --draws, not on --seed.
HIDING_SEED = 4611  # Which labels are hidden does not depend on --seed either.
MAX_DIFFERENT_BITS = 16  # Of the 128 bits of two fingerprints of near-duplicates.
MAX_UNREADABLE = 0.01  # One bad file among thousands is skipped and named; more are a mistake.


@dataclass
class DogData:
    """Images in splits.

    Attributes:
        splits: {"train" | "valid" | "test" | "unlabelled": (sources, labels)}. Sources are paths
            or uint8 arrays (height, width, 3). Labels are whole numbers (n,), -1 where unknown.
            Unlabelled images may have a label, which no training sees.
        class_names: a list of texts; label i stands for its name i.
        notes: what the record says of the data.
    """

    splits: dict
    class_names: list
    notes: dict

    @property
    def num_classes(self):
        return len(self.class_names)

    def count(self, split):
        """How many images a split has."""
        _, labels = self.splits[split]
        return len(labels)


# --- Loading ---
def load(args, draw=0):
    """The DogData that the flags ask for; each draw splits a folder in another way."""
    folder, fraction = folder_or_fraction(args.unlabelled)
    if args.data is None:
        data = draw_dogs(args.breeds, args.num_train)
    else:
        data = load_folder(args, folder, draw)
    if fraction > 0:
        hide_labels(data, fraction)
    if args.unlabelled is not None and data.count("unlabelled") == 0:
        fail(f"--unlabelled {args.unlabelled}: no image whose label could be guessed")
    for split in data.splits:
        data.notes[f"num_{split}"] = data.count(split)
    return data


def draw_dogs(num_breeds, num_train):
    """Drawn dogs, from disjoint streams: `num_train` of each breed to train on, half to test."""
    counts = {
        "train": num_train,
        "valid": max(2, num_train // 4),
        "test": max(2, num_train // 2),
    }
    breeds = range(num_breeds)
    splits = {split: dogs.load(split, breeds, count) for split, count in counts.items()}
    sha256 = sha256_of_arrays(images for images, _ in splits.values())
    no_images = splits["train"][0][:0]
    splits["unlabelled"] = (no_images, np.empty(0, int))
    notes = {"name": f"drawn dogs v{dogs.VERSION}", "sha256": sha256}
    return DogData(splits, [f"breed {number}" for number in breeds], notes)


def folder_or_fraction(unlabelled):
    """What --unlabelled gives: a folder or None, and the fraction of labels to hide."""
    if unlabelled is None:
        return None, 0.0
    try:
        fraction = float(unlabelled)
    except ValueError:
        return unlabelled, 0.0
    if not 0 <= fraction < 1:
        fail(f"--unlabelled {unlabelled}: expected a folder, or a fraction below 1")
    return None, fraction


def hide_labels(data, fraction):
    """Makes a fraction of the training images of each class unlabelled; at least one stays."""
    sources, labels = data.splits["train"]
    rng = np.random.default_rng(HIDING_SEED)
    hidden = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        num_hidden = min(round(fraction * len(rows)), len(rows) - 1)
        hidden[rows[:num_hidden]] = True
    for split, is_in_split in (("train", ~hidden), ("unlabelled", hidden)):
        rows = np.flatnonzero(is_in_split)
        data.splits[split] = ([sources[row] for row in rows], labels[rows])


# --- One image ---
def open_image(source, size=None):
    """An RGB image of Pillow's, upright and on white, from a path, an open file or an array.

    Of an animation it is the first frame. A large JPEG is decoded at a half, a quarter or an
    eighth of its size, if that is not below `size`.

    Raises one of UNREADABLE for a file that is not an intact image or that would fill the memory.
    """
    if isinstance(source, np.ndarray):
        return Image.fromarray(source)
    with Image.open(source) as image:
        if size is not None:
            image.draft("RGB", (size, size))
        image.load()
        with contextlib.suppress(Exception):  # Damaged Exif data do not say where up is.
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            # A photograph keeps its exposure; to_rgb would stretch it from black to white.
            image = Image.fromarray((np.asarray(image) >> 8).astype("uint8"))
        return to_rgb(image)


def read_image(source, size):
    """The square from the middle of an image: a uint8 array (size, size, 3)."""
    image = open_image(source, size)
    return np.asarray(ImageOps.fit(image, (size, size), Image.BILINEAR))


@dataclass
class AugmentedImages:
    """A collection of images, read and augmented by threads.

    An augmented image depends on (seed, kind, row, numbers) and nothing else: no thread and no
    order of reading changes a pixel.

    Attributes:
        sources: a list of paths or of uint8 arrays (height, width, 3).
        size: of the images that are given, in pixels.
        pool: a ThreadPoolExecutor.
        labels: classes (n,), -1 where unknown; only the kind "full" needs them.
        splices, masks: whether the kind "full" splices images and masks quadrants.
    """

    sources: list
    size: int
    seed: int
    pool: ThreadPoolExecutor
    labels: np.ndarray | None = None
    splices: bool = True
    masks: bool = True

    def read(self, row):
        """The plain image of a row: a uint8 array (size, size, 3)."""
        try:
            return read_image(self.sources[row], self.size)
        except UNREADABLE as error:
            fail(f"{self.sources[row]}: {error}")

    def augmented(self, kind, row, *numbers):
        """An augmented image; see `augment.augment_row` for the kinds.

        Args:
            numbers: which one: (number,), or (epoch, step) of the batch that it is for.
        """
        rng = np.random.default_rng((self.seed, KINDS.index(kind), row, *numbers))
        return augment_row(self, row, kind, numbers, rng)

    def submit(self, job):
        """Lets a thread make the augmented image of a job (kind, row, number, ...): a Future."""
        return self.pool.submit(self.augmented, *job)

    def in_order(self, jobs, ahead=128):
        """Yields the augmented images of the jobs; threads make so many ahead of their use."""
        waiting = deque()
        for job in jobs:
            waiting.append(self.submit(job))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def plain(self):
        """All images as they are: a uint8 array (n, size, size, 3)."""
        jobs = (("plain", row) for row in range(len(self.sources)))
        return np.stack(list(self.in_order(jobs)))


# --- Folders ---
def load_folder(args, unlabelled=None, draw=0):
    """The DogData of a folder of the user's, and perhaps of another one of unlabelled images.

    A part that is given by --valid or --test, or is there as root/valid or root/test, is taken as
    it is; what is missing is split off the training images. Near-duplicates of given images are
    left out of training, those of given test images out of validation, too.
    """
    parts, notes = list_parts(Path(args.data), args.valid, args.test)
    class_names = list(parts["train"])
    paths, labels, sides = list_rows(parts, class_names)
    if unlabelled is not None:
        for path in list_unlabelled(unlabelled):
            paths.append(path)
            labels.append(-1)
            sides.append("unlabelled")
    scanned, skipped = scan(paths)
    readable = [i for i, path in enumerate(paths) if path in scanned]
    paths = [paths[i] for i in readable]
    labels = np.array([labels[i] for i in readable])
    sides = np.array([sides[i] for i in readable], dtype="U10")

    groups = near_duplicate_groups([scanned[path].fingerprint for path in paths])
    leave_out_duplicates_of_given_images(sides, groups)
    own = sides == "train"
    test_fraction, valid_fraction = args.shares
    if "test" in parts:
        test_fraction = 0.0
    if "valid" in parts:
        valid_fraction = 0.0
    sides[own] = split_rows(
        labels[own], groups[own], class_names, test_fraction, valid_fraction, draw
    )
    leave_out_unlabelled_duplicates(sides, groups)
    for label, name in enumerate(class_names):
        if not ((sides == "train") & (labels == label)).any():
            fail(f"class {name} has no training image left")

    splits, sha256 = collect_splits(paths, labels, sides, scanned)
    notes = {
        "name": Path(args.data).resolve().name,
        **notes,
        "skipped": skipped,
        "near_duplicates": int(own.sum()) - len(np.unique(groups[own])),
        "left_out": int((sides == "left out").sum()),
        "sha256": sha256,
    }
    return DogData(splits, class_names, notes)


def collect_splits(paths, labels, sides, scanned):
    """The images of each split, and a SHA-256 of all their files and labels."""
    splits = {}
    digest = hashlib.sha256()
    for split in ("train", "valid", "test", "unlabelled"):
        rows = np.flatnonzero(sides == split)
        splits[split] = ([paths[i] for i in rows], labels[rows])
        for i in rows:
            digest.update(f"{split} {labels[i]} ".encode() + scanned[paths[i]].sha256)
    return splits, digest.hexdigest()


def list_parts(root, valid=None, test=None):
    """The classes of each part that is there, and notes on what was left out.

    Where only root/valid is there, without a root/test, it is the test set: something must be
    kept that nothing was chosen by.

    Returns:
        {"train" and perhaps "valid", "test": {class: paths}}, notes.
    """
    notes = {}
    if (root / "train.txt").is_file():
        train, notes = list_contest(root)
    elif (root / "train").is_dir():
        train = list_classes(root / "train")
        valid, test = find_held_out_folders(root, valid, test)
    else:
        train = list_classes(root)
    if valid and test and Path(valid).resolve() == Path(test).resolve():
        fail(f"{valid} is to be validation and test set: expected different folders")
    if len(train) < 2:
        [name] = train
        fail(f"{root}: one class, {name}: expected two or more")
    parts = {"train": train}
    if valid:
        parts["valid"] = list_classes(valid)
    if test:
        parts["test"] = list_classes(test)
    return parts, notes


def find_held_out_folders(root, valid, test):
    """(valid, test): the given folders, or those that lie beside root/train."""
    given = [Path(folder).resolve() for folder in (valid, test) if folder]
    found = {}
    for name in ("valid", "test"):
        if (root / name).is_dir() and (root / name).resolve() not in given:
            found[name] = root / name
    if not test and "test" in found:
        test = found.pop("test")
    elif not test and "valid" in found:
        test = found.pop("valid")
    if not valid and "valid" in found:
        valid = found["valid"]
    return valid, test


def list_rows(parts, class_names):
    """The paths of all parts, the label of each, and the name of its part."""
    paths = []
    labels = []
    sides = []
    for part, classes in parts.items():
        for name, paths_of_class in classes.items():
            if name not in class_names:
                fail(f"class {name} of the {part} set has no training images")
            for path in paths_of_class:
                paths.append(path)
                labels.append(class_names.index(name))
                sides.append(part)
    return paths, labels, sides


def list_classes(folder):
    """{class: image files}, from a folder with one sub-folder per class."""
    if not Path(folder).is_dir():
        fail(f"{folder} is not a folder")
    folders = [p for p in Path(folder).iterdir() if p.is_dir() and not p.name.startswith(".")]
    classes = {path.name: image_paths(path) for path in sorted(folders)}
    if not classes:
        fail(f"{folder}: expected one sub-folder per class, or train.txt and train/ID.jpg")
    for name, paths in classes.items():
        if not paths:
            fail(f"class {name} is empty: no images in {Path(folder) / name}")
    return classes


def list_unlabelled(folder):
    if not Path(folder).is_dir():
        fail(f"--unlabelled {folder} is neither a folder nor a fraction between 0 and 1")
    return image_paths(folder)


def list_contest(folder):
    """{class: image files} in the contest's layout, and notes on what was left out and why.

    train.txt has a line `ID CLASS ...` for train/ID.jpg. An id with two classes is left out.
    """
    label_of, ambiguous = read_contest_table(folder / "train.txt")
    classes = {}
    missing = []
    for name, label in label_of.items():
        path = folder / "train" / f"{name}.jpg"
        if name in ambiguous:
            continue
        if path.is_file():
            classes.setdefault(label, []).append(path)
        else:
            missing.append(path)
    if len(missing) > max(MAX_UNREADABLE * len(label_of), 0.5):
        fail(
            f"{folder / 'train.txt'} names {len(missing)} images that are not there; "
            f"the first is {missing[0]}"
        )
    if not classes:
        fail(f"{folder / 'train.txt'} names no image")
    by_length = sorted(classes, key=lambda name: (len(name), name))  # 2 before 10.
    notes = {"two_labels": len(ambiguous), "missing": [path.name for path in missing]}
    return {name: sorted(classes[name]) for name in by_length}, notes


def read_contest_table(table):
    """{id: its first class} and the set of ids that have two classes."""
    try:
        lines = table.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        fail(f"{table}: not UTF-8 at byte {error.start}")
    label_of = {}
    ambiguous = set()
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 2:
            fail(f"{table}:{number}: expected an id and a class, not {line!r}")
        name, label = words[:2]
        if label_of.setdefault(name, label) != label:
            ambiguous.add(name)
    return label_of, ambiguous


# --- Near-duplicates ---
@dataclass
class Scanned:
    """What is known of an intact image file before the split."""

    fingerprint: np.ndarray
    sha256: bytes


def scan(paths):
    """Looks at every file once, in threads.

    Returns:
        {path: Scanned} of the intact image files, and a text for each other file.
    """
    with ThreadPoolExecutor() as pool:
        results = pool.map(scan_file, paths)
        bar = tqdm(results, desc="checking", total=len(paths), unit="image", disable=None)
        results = list(bar)
    skipped = [result for result in results if isinstance(result, str)]
    if len(skipped) > max(MAX_UNREADABLE * len(paths), 0.5):
        fail(
            f"{len(skipped)} of {len(paths)} images are unreadable, more than one of a hundred: "
            f"repair or remove them; the first is {skipped[0]}"
        )
    scanned = {}
    for path, result in zip(paths, results, strict=True):
        if isinstance(result, Scanned):
            scanned[path] = result
    return scanned, skipped


def scan_file(path):
    """The Scanned of an intact image file, or a text that says what is wrong with it."""
    try:
        content = path.read_bytes()
        image = open_image(io.BytesIO(content), 32)
        return Scanned(fingerprint(image), hashlib.sha256(content).digest())
    except UNREADABLE as error:
        return f"{path}: {first_line(error)}"


def fingerprint(image):
    """128 bits, as two integers: which of neighbouring fields is brighter, across and down.

    Another size or compression hardly changes them.
    """
    grey = np.asarray(image.convert("L").resize((9, 9), Image.BOX), "int16")
    across = grey[:8, 1:] > grey[:8, :-1]
    down = grey[1:, :8] > grey[:-1, :8]
    return np.packbits(np.stack([across, down])).view("uint64")


def near_duplicate_groups(fingerprints, max_different_bits=MAX_DIFFERENT_BITS):
    """The number of its group for each image; near-duplicates are in one group."""
    bits = np.asarray(fingerprints, "uint64").reshape(-1, 2)
    n = len(bits)
    pairs = [np.empty((0, 2), int)]
    for start in range(0, n, 1000):
        different = np.bitwise_count(bits[start : start + 1000, None] ^ bits).sum(axis=-1)
        rows, columns = np.nonzero(different <= max_different_bits)
        pairs.append(np.stack([rows + start, columns], axis=1))
    rows, columns = np.concatenate(pairs).T
    graph = coo_array((np.ones(len(rows), "int8"), (rows, columns)), shape=(n, n))
    _, groups = connected_components(graph, directed=False)
    return groups


# --- The split ---
def leave_out_duplicates_of_given_images(sides, groups):
    """Marks near-duplicates of given validation and test images as left out, in place."""
    given = np.isin(sides, ["valid", "test"])
    duplicate = ~given & np.isin(groups, groups[given])
    duplicate |= (sides == "valid") & np.isin(groups, groups[sides == "test"])
    sides[duplicate] = "left out"


def leave_out_unlabelled_duplicates(sides, groups):
    """Marks unlabelled images that are also in the validation or test set, in place."""
    held_out = np.isin(sides, ["valid", "test"])
    duplicate = (sides == "unlabelled") & np.isin(groups, groups[held_out])
    sides[duplicate] = "left out"


def split_rows(labels, groups, class_names, test_fraction, valid_fraction, draw=0):
    """ "train", "valid" or "test" for each image: fractions of each class, groups never torn.

    Args:
        labels: classes (n,).
        groups: (n,), of `near_duplicate_groups`.
        class_names: for messages.
        test_fraction, valid_fraction: 0 for no such split.
        draw: each draw is another split.
    """
    rng = np.random.default_rng((SPLIT_SEED, draw))
    sides = np.full(len(labels), "train")
    _, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    class_of_group = labels[first]  # A group counts for the class of its first image.
    for label in np.unique(labels):
        num_images = (labels == label).sum()
        wanted = wanted_counts(num_images, test_fraction, valid_fraction)
        num_left = num_images - sum(wanted.values())
        for group in rng.permutation(np.flatnonzero(class_of_group == label)):
            rows = group_of == group
            for split in ("test", "valid"):
                if wanted[split] > 0:
                    sides[rows] = split
                    wanted[split] -= rows.sum()
                    break
        if num_left < 1 or not (sides[labels == label] == "train").any():
            num_different = len(np.unique(group_of[labels == label]))
            fail(
                f"class {class_names[label]} has {num_images} images, {num_different} that "
                "differ: too few to train on and to split off"
            )
    return sides


def wanted_counts(num_images, test_fraction, valid_fraction):
    """How many images of a class go into the splits; at least one, where there are enough."""
    wanted = {"test": 0, "valid": 0}
    if test_fraction > 0:
        wanted["test"] = max(1, round(test_fraction * num_images))
    if valid_fraction > 0:
        wanted["valid"] = round(valid_fraction * num_images)
        if num_images > 2:
            wanted["valid"] = max(1, wanted["valid"])
    return wanted
