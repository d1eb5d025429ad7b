"""Blocks of 4 KiB with what they hold, the embedded data of linux_undelete.

They are cut as a file system does: from the start of a file, the last one filled with zeros, so
most begin in the middle of a word and some in the middle of a character. The files are those that
a Python installation has (data/block_files.py: sources of Python and of the packages this project
needs, C headers, shared objects, images, typefaces), their own derivatives (docstrings, compiled,
compressed) and texts that data/block_texts.py writes.

Split by file, never by block. What is only written by code is drawn from streams that differ by
split. No two blocks of a set are the same. All is seeded, but the files are those of the machine:
other versions of Python or of the packages give other blocks.
"""

import gzip
import hashlib
import itertools
import os
import zlib
from pathlib import Path

import numpy as np

from data import block_texts
from data.block_files import VERSION, files_of, installed, order_of, prose_of, read
from data.block_others import BLOCK, BLOCKS_OF_A_FILE, WAYS, draw_other
from data.block_texts import pick

KINDS = (
    "other",
    "chinese-utf8",
    "chinese-gbk",
    "utf16",
    "english",
    "python",
    "c",
    "json",
    "html",
    "data",  # CSV, logs, settings, base64.
)
SEEDS = {"train": 51, "valid": 52, "test": 53}  # Disjoint streams.
OTHERS = 6  # So many times more blocks of the kind "other": a disk holds little text.
MIN_TEXT = 32  # Bytes: a last block with less is left out.
SPLIT_SEED = 4491  # The split of a user's files does not change with --seed.
MAX_BLOCKS = {"train": 14_000, "valid": 2_000, "test": 4_000}  # Of one kind of a user's files.
MIN_FILES = 10  # Of one kind of a user's files.
TEXT_WRITERS = {
    "english": block_texts.write_english,
    "c": block_texts.write_c,
    "json": block_texts.write_json,
    "html": block_texts.write_html,
    "data": block_texts.write_table,
}


def cut(content):
    """The blocks of a file's bytes, the last one filled with zeros: uint8 (n, 4096)."""
    content += bytes(-len(content) % BLOCK)
    return np.frombuffer(content, "uint8").reshape(-1, BLOCK)


def cut_text(content):
    """The blocks of a text, without a last one that holds next to nothing."""
    return [block for block in cut(content) if np.count_nonzero(block) >= MIN_TEXT]


class BlockList:
    """Blocks with their labels and the files they come from; no block twice.

    Args:
        seen: the keys of the blocks that other lists hold already.
    """

    def __init__(self, seen):
        self.seen = seen
        self.blocks = []
        self.labels = []
        self.names = []

    def add(self, block, label, name):
        """Adds a block unless it is known; returns whether it was added."""
        key = hashlib.sha256(block).digest()
        if key in self.seen:
            return False
        self.seen.add(key)
        self.blocks.append(block)
        self.labels.append(label)
        self.names.append(name)
        return True

    def arrays(self):
        """(blocks (n, 4096), labels (n,), names)"""
        return np.stack(self.blocks), np.array(self.labels), self.names


# --- The embedded set ---
def load(sizes):
    """{split: (blocks, labels, names)} with sizes[split] blocks of each kind of text.

    Of the kind "other" there are OTHERS times as many.

    Returns:
        blocks: uint8 (n, 4096); labels: places in KINDS (n,); names: the file of each block.
    """
    seen = set()
    splits = {}
    for split, size in sizes.items():
        chosen = BlockList(seen)
        for kind in KINDS:
            num_wanted = size
            if kind == "other":
                num_wanted = size * OTHERS
            add_documents(chosen, kind, split, num_wanted)
        splits[split] = chosen.arrays()
    return splits


def add_documents(chosen, kind, split, num_wanted):
    """Adds so many blocks of a kind to a BlockList, a few of each file."""
    label = KINDS.index(kind)
    for name, content in documents(kind, split):
        if num_wanted <= 0:
            return
        blocks = list(cut(content)) if kind == "other" else cut_text(content)
        rng = np.random.default_rng(int.from_bytes(order_of(name)[:8], "big"))
        count = min(BLOCKS_OF_A_FILE, num_wanted)
        for place in sorted(rng.permutation(len(blocks))[:count]):
            if chosen.add(blocks[place], label, name):
                num_wanted -= 1


def documents(kind, split):
    """Endless (name, bytes) of files of this kind; a real one first, then a written one, and so on.

    Of Python there are only real files.
    """
    real = real_files(kind, split)
    for index in itertools.count():
        if index < len(real):
            yield real_file(*real[index])
        elif kind == "python":
            return
        if kind != "python":
            yield written_file(kind, split, index)


def real_files(kind, split):
    """The installed files of a kind: ((name, path or bytes), ...)."""
    if kind == "english":
        return prose_of(split)
    endings = {
        "python": (".py",),
        "c": (".h", ".hpp", ".c"),
        "html": (".html", ".xml", ".svg"),
        "json": (".json",),
        "data": (".csv", ".afm", ".mplstyle"),
    }
    return files_of(split, *endings.get(kind, ()))


def real_file(name, content):
    if isinstance(content, Path):
        content = read(content)
    return name, content


def written_file(kind, split, index):
    """(name, bytes) of a file that is made from an installed Python file."""
    rng = np.random.default_rng((VERSION, SEEDS[split], KINDS.index(kind), index))
    if kind == "other":
        name, content = draw_other(rng, split, WAYS[index % len(WAYS)])
        return name or f"{split} {kind} {index}", content
    name, path = pick(rng, files_of(split, ".py"))
    source = read(path).decode("utf-8", "ignore")
    write = TEXT_WRITERS.get(kind, block_texts.write_english)
    if kind.startswith("chinese") or (kind == "utf16" and index % 3):
        write = block_texts.write_chinese
    text = write(rng, source)
    return f"{split} {kind} {index}, after {name}", encode(rng, kind, text)


def encode(rng, kind, text):
    if kind == "chinese-gbk":
        return text.encode("gbk", "ignore")
    if kind == "utf16":
        return text.encode(pick(rng, ["utf-16", "utf-16-le", "utf-16-be"]))
    return text.encode()


def digest(splits):
    """SHA-256 of all blocks and labels."""
    total = hashlib.sha256()
    for blocks, labels, _ in splits.values():
        total.update(blocks.tobytes() + labels.astype("uint8").tobytes())
    return total.hexdigest()


# --- A user's files ---
def load_folder(folder, blocks_of_a_file, max_blocks=MAX_BLOCKS):
    """A user's files folder/KIND/**, as load() has them, split 7 : 1 : 2 by file.

    Of equal files or blocks one is taken. Raises ValueError for a folder that has too few files,
    or whose name is not a kind.

    Args:
        blocks_of_a_file: at most so many blocks are taken of each file.
        max_blocks: {split: how many blocks are taken of each kind}.
    """
    files = files_by_kind(folder)
    seen = set()
    lists = {split: BlockList(seen) for split in max_blocks}
    for kind, paths in files.items():
        num_left = dict(max_blocks)
        order = np.random.default_rng(SPLIT_SEED).permutation(len(paths))
        for place, i in enumerate(order.tolist()):
            split = split_of_place(place, len(order))
            name = paths[i].relative_to(folder).as_posix()
            count = min(blocks_of_a_file, num_left[split])
            for block in cut(read(paths[i]))[:count]:
                if lists[split].add(block, KINDS.index(kind), name):
                    num_left[split] -= 1
        if any(num_left[split] == max_blocks[split] for split in max_blocks):
            raise ValueError(f"the files of {kind} have too few different blocks")
    return {split: chosen.arrays() for split, chosen in lists.items()}


def files_by_kind(folder):
    """{kind: paths of the different files} of a user's folder."""
    for path in sorted(folder.glob("*")):
        if path.is_dir() and path.name[0] not in "._" and path.name not in KINDS:
            raise ValueError(f"{path.name} is not a kind: expected {', '.join(KINDS)}")
    files = {}
    for kind in KINDS:
        paths = [p for p in folder.glob(f"{kind}/**/*") if p.is_file() and p.stat().st_size > 0]
        different = {}
        for path in sorted(paths):
            different.setdefault(hashlib.sha256(read(path)).digest(), path)
        if paths and len(different) < MIN_FILES:
            raise ValueError(
                f"{kind} has {len(different)} different files: expected at least {MIN_FILES}"
            )
        if different:
            files[kind] = sorted(different.values())
    if "other" not in files or len(files) < 2:
        raise ValueError(
            f"expected folders other and one of {', '.join(KINDS[1:])}, "
            f"with {MIN_FILES} different files each"
        )
    return files


def split_of_place(place, count):
    """Seven tenths of a random order are for training, one for validation, two for the test."""
    tenth = 10 * place // count
    if tenth < 7:
        return "train"
    if tenth < 8:
        return "valid"
    return "test"


# --- Files that come from elsewhere ---
TEXTS = {  # Folders of a Debian system, and endings.
    "/usr/share/doc": ("copyright", ".html", ".txt", "README"),
    "/usr/share/man": (".gz",),
    "/usr/include": (".h",),
    "/usr/share/perl5": (".pm",),
    "/usr/share/bash-completion": ("",),
    "/var/lib/dpkg/info": (".list", ".md5sums", ".postinst"),
}
OTHER_FILES = {
    "/usr/share/man": (".gz",),
    "/usr/share/locale": (".mo",),
    "/usr/share/zoneinfo": ("",),
    "/usr/share/icons": (".png",),
    "/usr/share/fonts": (".ttf",),
    "/usr/bin": ("",),
    "/usr/lib": (".so", ".a"),
}
BLOCKS_OF_A_SYSTEM_FILE = 3
GZIP = b"\x1f\x8b"
# How files begin that are not text.
MAGIC = (b"\x7fELF", b"!<arch>", GZIP, b"\xde\x12\x04\x95", b"TZif", b"\x89PNG", b"\0\1\0\0")


def load_shifted(count):
    """Blocks of system files, which neither the network nor the rule has seen, as load() has them.

    At most `count` blocks of each line above. Labels: 0, not text, or 1, text. Manuals are
    unpacked where they are text. Empty on a system that has none of the folders.
    """
    blocks = [np.zeros((0, BLOCK), "uint8")]
    labels = []
    names = []
    known = {path.resolve() for files in installed().values() for _, path in files}
    for label, folders in enumerate([OTHER_FILES, TEXTS]):
        for folder, endings in folders.items():
            num_left = count
            for path in system_files(folder, endings, known):
                if num_left <= 0:
                    break
                chosen = blocks_of_system_file(path, label, num_left)
                for block in chosen:
                    blocks.append(block[None])
                    labels.append(label)
                    names.append(path.as_posix())
                num_left -= len(chosen)
    return np.concatenate(blocks), np.array(labels, int), names


def system_files(folder, endings, known):
    """The files below a folder with one of the endings, in an order of its own."""
    paths = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            # Python itself may be Debian's: then its files are known already.
            if name.endswith(endings) and not path.is_symlink() and path.resolve() not in known:
                paths.append(path)
    return sorted(paths, key=lambda path: order_of(path.as_posix()))


def blocks_of_system_file(path, label, num_left):
    """A few blocks of a file; none where it is not what its place says."""
    try:
        content = read(path)
        if label == 1 and content.startswith(GZIP):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return []
    if content.startswith(MAGIC) == (label == 1):
        return []
    blocks = cut_text(content) if label == 1 else list(cut(content))
    rng = np.random.default_rng(int.from_bytes(order_of(path.name)[:8], "big"))
    count = min(BLOCKS_OF_A_SYSTEM_FILE, num_left)
    return [blocks[place] for place in sorted(rng.permutation(len(blocks))[:count])]
