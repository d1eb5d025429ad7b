"""Picture files: read whatever comes, listed by class, split without twins on both sides."""

import contextlib
import hashlib
import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from common.damage import first_line
from common.pictures import UNREADABLE
from common.run import fail
from data import dogs

ENDINGS = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"}
MOST_VIEWS = 12  # The last of them are the inner half of a picture.
SPLIT_SEED = 2017  # A split depends on this and on --draws, not on --seed.
TWINS = 16  # Two pictures are near-duplicates if at most so many of their 128 bits differ.


# --- One picture ---
def open_picture(source, size=None):
    """An RGB picture, upright and on white, from a path, an open file or an array.

    Of an animation it is the first frame. Raises one of UNREADABLE for a file that is no intact
    picture or that would fill the memory.
    """
    if isinstance(source, np.ndarray):
        return Image.fromarray(source)
    with Image.open(source) as image:
        if size:  # A large JPEG is decoded at a half, a quarter or an eighth, not below `size`.
            image.draft("RGB", (size, size))
        image.load()
        with contextlib.suppress(Exception):  # Damaged Exif data do not say where up is.
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):  # Pillow would clip 16 bits, not scale them.
            image = Image.fromarray((np.asarray(image) >> 8).astype("uint8"))
        elif image.mode in ("I", "F"):
            grey = np.asarray(image, "float64")
            if not np.isfinite(grey).all():
                raise ValueError("a pixel is no number")
            grey = 255 * (grey - grey.min()) / max(np.ptp(grey), 1e-9)
            image = Image.fromarray(grey.astype("uint8"))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        return image.convert("RGB")


def read_picture(source, size):
    """The square from the middle of a picture: a uint8 array (size, size, 3)."""
    image = open_picture(source, size)
    return np.asarray(ImageOps.fit(image, (size, size), Image.BILINEAR))


def fingerprint(image):
    """128 bits, as two integers: which of neighbouring fields is brighter, across and down.

    Another size or compression hardly changes them.
    """
    grey = np.asarray(image.convert("L").resize((9, 9), Image.BOX), "int16")
    bits = [grey[:8, 1:] > grey[:8, :-1], grey[1:, :8] > grey[:-1, :8]]
    return np.packbits(np.stack(bits)).view("uint64")


# --- Views of ours ---
def crop_and_colour(picture, rng, smallest=0.4):
    """Ours: a part of 40% to 100% of the area, stretched a little, in another light, flipped."""
    size, area = len(picture), rng.uniform(smallest, 1)
    stretch = np.exp(rng.uniform(-0.25, 0.25))
    width, height = (min(size, size * np.sqrt(area * s)) for s in (stretch, 1 / stretch))
    left, top = rng.uniform(0, size - width), rng.uniform(0, size - height)
    box = (left, top, left + width, top + height)
    x = Image.fromarray(picture).resize((size, size), Image.BILINEAR, box)
    x = np.asarray(x, "float32")[:, :: rng.choice([-1, 1])]
    grey = x.mean(-1, keepdims=True)
    x = grey + rng.uniform(0.7, 1.3) * (x - grey)
    x = x.mean() + rng.uniform(0.8, 1.2) * (x - x.mean()) + rng.uniform(-20, 20)
    return x.clip(0, 255).astype("uint8")


def fixed_view(picture, number):
    """View 0 is the picture, 1 its mirror image, 2 and 3 the inner 90% of both, and so on."""
    size, edge = len(picture), 0.05 * (number // 2) * len(picture)
    box = (edge, edge, size - edge, size - edge)
    x = np.asarray(Image.fromarray(picture).resize((size, size), Image.BILINEAR, box))
    return x[:, ::-1] if number % 2 else x


# --- Many ---
def scan(paths):
    """The fingerprints and the SHA-256 of intact picture files, and a text for each other one."""

    def look(path):
        try:
            content = path.read_bytes()
            image = open_picture(io.BytesIO(content), 32)
            return fingerprint(image), hashlib.sha256(content).digest(), None
        except UNREADABLE as error:
            return None, None, f"{path}: {first_line(error)}"

    with ThreadPoolExecutor() as pool:
        found = pool.map(look, paths)
        bar = tqdm(found, desc="checking", total=len(paths), unit="picture", disable=None)
        seen = list(bar)
    skipped = [text for _, _, text in seen if text]
    # One bad file among thousands is skipped and named; more means a mistake.
    if len(skipped) > max(0.01 * len(paths), 0.5):
        few = "more than one of a hundred: repair or remove them"
        fail(f"{len(skipped)} of {len(paths)} pictures are unreadable, {few}; first {skipped[0]}")
    return {p: look[:2] for p, look in zip(paths, seen, strict=True) if not look[2]}, skipped


def twin_groups(prints, limit=TWINS):
    """The number of its group for each picture; near-duplicates are in one group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    prints, pairs = np.asarray(prints, "uint64").reshape(-1, 2), [np.empty((0, 2), int)]
    for start in range(0, len(prints), 1000):
        different = np.bitwise_count(prints[start : start + 1000, None] ^ prints).sum(-1)
        pairs.append(np.add(np.argwhere(different <= limit), (start, 0)))
    rows, columns = np.concatenate(pairs).T
    shape = (len(prints), len(prints))
    graph = coo_array((np.ones(len(rows), "int8"), (rows, columns)), shape=shape)
    return connected_components(graph, directed=False)[1]


def split_rows(labels, groups, names, test_share, valid_share, draw=0):
    """ "train", "valid" or "test" for each picture: shares of each class, groups never torn."""
    rng = np.random.default_rng((SPLIT_SEED, draw))
    side = np.full(len(labels), "train")
    _, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    home = labels[first]  # A group counts for the class of its first picture.
    for label in np.unique(labels):
        num = (labels == label).sum()
        wanted = {"test": max(1, round(test_share * num)) if test_share else 0}
        wanted["valid"] = max(num > 2, round(valid_share * num)) if valid_share else 0
        left = num - sum(wanted.values())
        for group in rng.permutation(np.flatnonzero(home == label)):
            rows = group_of == group
            into = next((name for name, count in wanted.items() if count > 0), "train")
            side[rows] = into
            if into != "train":
                wanted[into] -= rows.sum()
        if left < 1 or not (side[labels == label] == "train").any():
            apart = len(np.unique(group_of[labels == label]))
            text = f"class {names[label]} has {num} pictures, {apart} that differ"
            fail(f"{text}: too few to train on and to split off")
    return side


def picture_paths(folder):
    """The picture files of a folder, sorted by name."""
    return sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in ENDINGS)


def list_classes(folder):
    """{class: picture files}, from a folder with one sub-folder per class."""
    if not Path(folder).is_dir():
        fail(f"{folder} is not a folder")
    inside = sorted(p for p in Path(folder).iterdir() if p.is_dir() and p.name[0] != ".")
    classes = {path.name: picture_paths(path) for path in inside}
    if not classes:
        fail(f"{folder}: expected one sub-folder per class, or train.txt and train/ID.jpg")
    for name, paths in classes.items():
        if not paths:
            fail(f"class {name} is empty: no pictures in {Path(folder) / name}")
    return classes


def list_contest(folder):
    """{class: picture files} in the contest's layout, and notes: what was left out and why.

    train.txt has a line `ID CLASS ...` for train/ID.jpg. An id with two classes is left out.
    """
    labels, two, missing = {}, set(), []
    table = folder / "train.txt"
    try:
        lines = table.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        fail(f"{table}: not UTF-8 at byte {error.start}")
    for number, line in enumerate(lines, 1):
        words = line.split()
        if len(words) < 2:
            if words:
                fail(f"{table}:{number}: expected an id and a class, not {line!r}")
            continue
        if labels.setdefault(words[0], words[1]) != words[1]:
            two.add(words[0])
    classes = {}
    for name, label in labels.items():
        path = folder / "train" / f"{name}.jpg"
        if name in two:
            continue
        if path.is_file():
            classes.setdefault(label, []).append(path)
        else:
            missing.append(path)
    if len(missing) > max(0.01 * len(labels), 0.5):
        fail(f"{table} names {len(missing)} pictures that are not there; the first is {missing[0]}")
    if not classes:
        fail(f"{table} names no picture")
    order = sorted(classes, key=lambda name: (len(name), name))  # 2 before 10.
    notes = {"two_labels": len(two), "missing": [path.name for path in missing]}
    return {name: sorted(classes[name]) for name in order}, notes


def load_folder(root, valid=None, test=None, unlabelled=None, shares=(0.1, 0.1), draw=0):
    """{"train" | "valid" | "test" | "unlabelled": (paths, labels)}, the class names, and notes.

    A part that is given, or is there as root/valid or root/test, is taken as it is; the others
    are shares (test, valid) of the training pictures. Where only root/valid is there it is the
    test set: something must be kept that nothing was chosen by. Near-duplicates of given pictures
    are left out of training, those of given test pictures of validation, too.
    """
    root, notes = Path(root), {}
    if (root / "train.txt").is_file():
        train, notes = list_contest(root)
    else:
        inner = (root / "train").is_dir()
        train = list_classes(root / "train" if inner else root)
        given = [root / name for name in ("valid", "test") if inner and (root / name).is_dir()]
        taken = [Path(part).resolve() for part in (valid, test) if part]
        given = [part for part in given if part.resolve() not in taken]
        if given and not test:
            test = given.pop()
        if given and not valid and given[0].name == "valid":
            valid = given[0]
    names, parts, rows = list(train), {"train": train}, []
    if valid and test and Path(valid).resolve() == Path(test).resolve():
        fail(f"{valid} is to be validation and test set: expected different folders")
    if len(names) < 2:
        fail(f"{root}: one class, {names[0]}: expected two or more")
    parts |= {k: list_classes(v) for k, v in (("valid", valid), ("test", test)) if v}
    for part, classes in parts.items():
        for name, paths in classes.items():
            if name not in names:
                fail(f"class {name} of the {part} set has no training pictures")
            rows += [(path, names.index(name), part) for path in paths]
    if unlabelled:
        if not Path(unlabelled).is_dir():
            fail(f"--unlabelled {unlabelled} is not a folder, and no share between 0 and 1")
        rows += [(path, -1, "unlabelled") for path in picture_paths(unlabelled)]
    looks, skipped = scan([path for path, _, _ in rows])
    rows = [row for row in rows if row[0] in looks]
    labels, side = np.array([label for _, label, _ in rows]), np.array([s for *_, s in rows])
    groups = twin_groups([looks[path][0] for path, _, _ in rows])
    held = np.isin(side, ["valid", "test"])
    twin = ~held & np.isin(groups, groups[held])
    twin |= (side == "valid") & np.isin(groups, groups[side == "test"])
    own = (side == "train") & ~twin
    left = [
        0.0 if part in parts else share
        for part, share in zip(("test", "valid"), shares, strict=True)
    ]
    side[own] = split_rows(labels[own], groups[own], names, *left, draw)
    held = np.isin(side, ["valid", "test"])  # With those that were split off now.
    twin |= (side == "unlabelled") & np.isin(groups, groups[held])
    side[twin] = "twin"
    for label, name in enumerate(names):
        if not ((side == "train") & (labels == label)).any():
            fail(f"class {name} has no training picture left")
    repeated = len(np.flatnonzero(own)) - len(np.unique(groups[own]))
    notes |= {"skipped": skipped, "near_duplicates": repeated, "left_out": int(twin.sum())}
    splits, digest = {}, hashlib.sha256()
    for part in ("train", "valid", "test", "unlabelled"):
        chosen = np.flatnonzero(side == part)
        splits[part] = [rows[i][0] for i in chosen], labels[chosen]
        for i in chosen:
            digest.update(f"{part} {labels[i]} ".encode() + looks[rows[i][0]][1])
    return splits, names, notes | {"sha256": digest.hexdigest()}


# --- Drawn dogs and hidden labels ---
def folder_or_share(text):
    """--unlabelled as (folder, None) or (None, share)."""
    try:
        share = float(text or 0)
    except ValueError:
        return text, None
    if not 0 <= share < 1:
        fail(f"--unlabelled {text}: expected a folder or a share below 1")
    return None, share


def draw_dogs(args):
    """The splits of the drawn dogs, the names of the breeds and notes, as load_folder."""
    sizes = {"train": args.num_train, "valid": max(2, args.num_train // 4)}
    sizes |= {"test": max(2, args.num_train // 2)}
    splits = {s: dogs.load(s, range(args.breeds), count) for s, count in sizes.items()}
    digest = hashlib.sha256(b"".join(x.tobytes() for x, _ in splits.values()))
    splits["unlabelled"] = splits["train"][0][:0], np.empty(0, int)
    notes = {"name": f"drawn dogs v{dogs.VERSION}", "sha256": digest.hexdigest()}
    return splits, [f"breed {number}" for number in range(args.breeds)], notes


def hide_labels(splits, share):
    """A share of the training pictures of each class becomes unlabelled; one at least stays."""
    sources, labels = splits["train"]
    rng, hidden = np.random.default_rng(4611), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        hidden[rows[: min(round(share * len(rows)), len(rows) - 1)]] = True
    for part, rows in (("train", np.flatnonzero(~hidden)), ("unlabelled", np.flatnonzero(hidden))):
        splits = splits | {part: ([sources[i] for i in rows], labels[rows])}
    return splits


# --- Drawings ---
# Matplotlib's own font has no Chinese, in which classes may be named: the first of these that has.
CHINESE_FONTS = (
    "Noto Sans CJK SC, Noto Sans CJK JP, Source Han Sans SC, WenQuanYi Micro Hei, SimHei,"
    " WenQuanYi Zen Hei, Microsoft YaHei, PingFang SC, Hiragino Sans GB, Arial Unicode MS"
)


def picture_grid(path, pictures, texts, columns=6):
    """A PNG of the pictures, each under its text."""
    from matplotlib.figure import Figure  # Here, because --help need not wait for it.
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    family = [name for name in ("DejaVu Sans", *CHINESE_FONTS.split(", ")) if name in installed]
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(1.9 * columns, 2.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, picture, text in zip(axes, pictures, texts, strict=False):
        axis.imshow(picture)
        axis.set_title(text, fontsize=8, family=family)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # Of each character without a font.
        figure.savefig(path, dpi=100)


def heat(picture, weights):
    """The picture in grey, with the weights (rows, columns) from 0 to 1 laid over it in red."""
    size = picture.shape[1], picture.shape[0]
    mask = Image.fromarray(np.uint8(255 * weights)).resize(size, Image.BICUBIC)
    grey = Image.fromarray(picture).convert("L").convert("RGB")
    red = Image.merge("RGB", [mask, Image.new("L", size), Image.new("L", size)])
    mask = mask.point(lambda value: 0.6 * value)
    return np.asarray(Image.composite(red, grey, mask))
