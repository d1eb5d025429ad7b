"""Blocks of 4 KiB with what they hold, the embedded data of linux_undelete.

They are cut as a file system does: from the start of a file, the last one filled with zeros, so
most begin in the middle of a word and some in the middle of a character. The files are those that
a Python installation has (its sources and those of the packages this project needs, C headers,
shared objects, pictures, typefaces), their own derivatives (docstrings, compiled, compressed) and
texts that data/block_texts.py writes.

Split by file, never by block: the SHA-256 of a file's content decides whether it, and all that is
made of it, is for training, validation or test; what is only written by code is drawn from
streams that differ by split. No two blocks of a set are the same. All is seeded, but the files
are those of the machine: other versions of Python or of the packages give other blocks.
"""

import bz2
import gzip
import hashlib
import importlib.metadata
import itertools
import json
import lzma
import os
import struct
import subprocess
import sys
import sysconfig
import zlib
from functools import cache
from importlib.util import MAGIC_NUMBER, find_spec
from pathlib import Path

import numpy as np

from data import block_texts
from data.block_texts import pick

VERSION = 1
BLOCK = 4096
KINDS = ("other", "chinese-utf8", "chinese-gbk", "utf16", "english")
KINDS += ("python", "c", "json", "html", "data")  # data: CSV, logs, settings, base64.
SEEDS = {"train": 51, "valid": 52, "test": 53}  # Disjoint streams.
SHARES = {"train": range(7), "valid": range(7, 8), "test": range(8, 10)}  # Last digits.
PACKAGES = "PIL keras matplotlib numpy scipy"
OTHERS = 6  # So many times more blocks of the kind "other": a disk holds little text.
FROM_A_FILE = 8  # Blocks at most, so that no long file dominates.
MIN_TEXT = 32  # Bytes: a last block with less is left out.
LARGE = 1 << 20  # Bytes of a file that are read at most.
SPLIT_SEED = 4491  # The split of a user's files does not change with --seed.
MOST = {"train": 14_000, "valid": 2_000, "test": 4_000}  # Blocks of a kind of these files.
OTHER_WAYS = "machine-code machine-code compiled compressed media random arrays metadata constant"
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


def split_of(content):
    """The split that a file with these bytes belongs to."""
    digit = int.from_bytes(hashlib.sha256(content).digest()[:8], "big") % 10
    return next(split for split, digits in SHARES.items() if digit in digits)


# --- The files of the installation ---
def order_of(name):
    return hashlib.sha256(f"{VERSION} {name}".encode()).digest()


@cache
def installed():
    """{ending: [(name, path), ...]} of Python and the packages, in an order of its own."""
    folders = {"python": sysconfig.get_path("stdlib"), "include": sysconfig.get_path("include")}
    for name in PACKAGES.split():
        folders[name] = find_spec(name).submodule_search_locations[0]
    if spec := find_spec("tensorflow"):
        folders["tensorflow"] = f"{spec.submodule_search_locations[0]}/include/tensorflow"
    found = {}
    for top, folder in folders.items():
        for parent, children, files in os.walk(folder):
            skipped = ["site-packages", "__pycache__", "test", "tests", "idle_test", "lib2to3"]
            children[:] = sorted(set(children) - set(skipped))
            for file in files:
                path = Path(parent, file)
                name = f"{top}/{path.relative_to(folder).as_posix()}"
                found.setdefault(path.suffix, []).append((name, path))
    return {ending: sorted(f, key=lambda x: order_of(x[0])) for ending, f in found.items()}


def read(path):
    with path.open("rb") as file:
        return file.read(LARGE)


@cache
def split_of_file(path):
    return split_of(read(path))


@cache
def files_of(split, *endings):
    """The installed files with one of the endings that are in the split: ((name, path), ...)."""
    files = itertools.chain(*(installed().get(ending, ()) for ending in endings))
    return tuple((name, path) for name, path in files if split_of_file(path) == split)


@cache
def prose_of(split):
    """English texts that come with Python: the language reference, packages' descriptions."""
    from pydoc_data.topics import topics

    texts = [(f"topic {name}", text) for name, text in topics.items()]
    for name in (*PACKAGES.replace("PIL", "pillow").split(), "jieba", "tensorflow", "tqdm"):
        try:
            texts.append(
                (
                    f"description of {name}",
                    importlib.metadata.distribution(name).read_text("METADATA"),
                )
            )
        except importlib.metadata.PackageNotFoundError:
            continue
    texts = [(name, text.encode()) for name, text in texts]
    return tuple(
        (n, t) for n, t in sorted(texts, key=lambda x: order_of(x[0])) if split_of(t) == split
    )


# --- Blocks that are no text ---
COMPILE = """if True:
    import json, marshal, sys
    for path in json.load(sys.stdin):
        code = marshal.dumps(compile(open(path, "rb").read(), path.rsplit("/", 1)[-1], "exec"))
        sys.stdout.buffer.write(len(code).to_bytes(4, "big") + code)
"""


@cache
def compiled(split, count=150):
    """Python files as .pyc, made by a fresh process: in this one they depend on what is loaded."""
    files = files_of(split, ".py")[:count]
    run = [sys.executable, "-S", "-W", "ignore", "-c", COMPILE]
    names = json.dumps([str(path) for _, path in files])
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(
        run, input=names.encode(), capture_output=True, check=True, env=environment
    )
    contents, start = [], 0
    for name, _ in files:
        length = int.from_bytes(done.stdout[start : start + 4], "big")
        header = struct.pack("<4sIQ", MAGIC_NUMBER, 0, 0x6500000000 + length)
        contents.append((f"{name} compiled", header + done.stdout[start + 4 : start + 4 + length]))
        start += 4 + length
    return contents


def draw_array(rng):
    """Numbers as programs keep them: counts, measurements, samples of sound, grey pictures."""
    walk = np.cumsum(rng.random(9000) - 0.5)
    small = (rng.random(9000) ** 3 * 10 ** (1 + 4 * rng.random())).astype("int64")
    pixels = (walk - walk.min()) / np.ptp(walk) * 255 + 8 * rng.random(9000)
    kinds = {
        "uint8": [small % 256, np.minimum(pixels, 255), 32 + 90 * rng.random(9000)],
        "<i2": [1000 * walk, small],
        "<u2": [small, 20_000 + 500 * walk],
        "<i4": [small, np.cumsum(small), 1e5 * walk],
        "<f4": [walk, small, rng.random(9000)],
        "<f8": [walk, small / 100],
        "<i8": [small, 1_700_000_000 + np.cumsum(small)],
    }
    kind = pick(rng, list(kinds))
    values = pick(rng, kinds[kind])
    return values.astype("int64" if kind[1] in "iu" else kind).astype(kind).tobytes()


def draw_metadata(rng, words):
    """What a file system keeps: directories of ext4 and FAT, tables of inodes, bitmaps."""
    way, entries = int(4 * rng.random()), []
    for number in np.cumsum(1 + 9 * rng.random(130)).astype(int).tolist():
        name = f"{pick(rng, words)}{pick(rng, ['.py', '.txt', '.c', ''])}"[:40]
        if way == 0:
            size = 8 + -(-len(name) // 4) * 4
            head = struct.pack("<IHBB", number, size, len(name), 1 + number % 2)
            entries.append(head + name.encode().ljust(size - 8, b"\0"))
        elif way == 1:
            stem = name.upper()[:8].ljust(8) + "TXT"
            entries.append(
                struct.pack("<11sB8sHHHHI", stem.encode(), 32, bytes(8), 0, 1, 2, number, 99)
            )
        else:
            times = [1_700_000_000 + number] * 4
            extent = struct.pack("<HHHHIIHHI", 0xF30A, 1, 4, 0, 0, 0, 8, 0, 34000 + number)
            inode = struct.pack(
                "<HHI4IHHII", 0o100644, 1000, number * 37, *times, 1000, 1, 8, 0x80000
            )
            entries.append((inode + bytes(4) + extent).ljust(256, b"\0"))
    if way == 3:
        return bytes(np.packbits(rng.random(65536) < rng.random()))
    return b"".join(entries)[: 2 * BLOCK]


def draw_other(rng, split, way):
    """(name of the file or None, bytes) of a file that is no text."""
    name, path = pick(rng, files_of(split, ".py"))
    if way in ("machine-code", "media"):
        endings = (
            [".so", ".a"]
            if way == "machine-code"
            else [".png", ".ttf", ".whl", ".npz", ".gz", ".pdf"]
        )
        files = files_of(split, *endings) or [(str(sys.executable), Path(sys.executable))]
        name, path = pick(rng, files)
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            starts = BLOCK * (rng.random(FROM_A_FILE) * max(1, size // BLOCK)).astype(int)
            return name, b"".join(_read_at(file, start) for start in sorted({*starts.tolist()}))
    if way == "compiled":
        return pick(rng, compiled(split))
    if way == "compressed":
        pack = pick(rng, [zlib.compress, bz2.compress, lzma.compress])
        return name, pack(read(path)[:150_000])
    if way == "random":
        return None, rng.bytes(4 * BLOCK)
    if way == "arrays":
        return None, draw_array(rng)
    if way == "metadata":
        return None, draw_metadata(rng, block_texts.names_of(read(path).decode("utf-8", "ignore")))
    pattern = rng.bytes(1 + int(8 * rng.random())) + bytes(int(16 * rng.random()))
    sparse = bytearray(BLOCK)
    for place in (BLOCK * rng.random(20)).astype(int).tolist():
        sparse[place] = int(256 * rng.random())
    return None, bytes(sparse) + (pattern * BLOCK)[:BLOCK] + bytes([pick(rng, [0, 255])]) * BLOCK


def _read_at(file, start):
    file.seek(start)
    return file.read(BLOCK).ljust(BLOCK, b"\0")


# --- Texts ---
def encode(rng, kind, text):
    if kind == "chinese-gbk":
        return text.encode("gbk", "ignore")
    if kind == "utf16":
        return text.encode(pick(rng, ["utf-16", "utf-16-le", "utf-16-be"]))
    return text.encode()


def documents(kind, split):
    """Endless (name, bytes) of files of this kind: half of them real ones while there are any."""
    real = {
        "python": files_of(split, ".py"),
        "c": files_of(split, ".h", ".hpp", ".c"),
        "html": files_of(split, ".html", ".xml", ".svg"),
        "json": files_of(split, ".json"),
        "data": files_of(split, ".csv", ".afm", ".mplstyle"),
        "english": prose_of(split),
    }.get(kind, ())
    sources = files_of(split, ".py")
    for index in itertools.count():
        if index < len(real):
            name, content = real[index]
            yield name, content if isinstance(content, bytes) else read(content)
        elif kind == "python":
            return
        rng = np.random.default_rng((VERSION, SEEDS[split], KINDS.index(kind), index))
        if kind == "other":
            ways = OTHER_WAYS.split()
            name, content = draw_other(rng, split, ways[index % len(ways)])
            yield name or f"{split} {kind} {index}", content
        elif kind != "python":
            name, path = pick(rng, sources)
            source = read(path).decode("utf-8", "ignore")
            chinese = kind.startswith("chinese") or (kind == "utf16" and index % 3)
            write = block_texts.write_chinese if chinese else TEXT_WRITERS.get(kind)
            text = (write or block_texts.write_english)(rng, source)
            yield f"{split} {kind} {index}, after {name}", encode(rng, kind, text)


def load(sizes):
    """{split: (blocks, labels, names)} with sizes[split] blocks of each kind of text.

    blocks: uint8 (n, 4096); labels: places in KINDS (n,); names: the file of each block, a list.
    Of the kind "other" there are OTHERS times as many.
    """
    seen, result = set(), {}
    for split, size in sizes.items():
        blocks, labels, names = [], [], []
        for label, kind in enumerate(KINDS):
            wanted = size * OTHERS if kind == "other" else size
            for name, content in documents(kind, split):
                if wanted <= 0:
                    break
                found = [
                    b for b in cut(content) if kind == "other" or np.count_nonzero(b) >= MIN_TEXT
                ]
                rng = np.random.default_rng(int.from_bytes(order_of(name)[:8], "big"))
                for place in sorted(rng.permutation(len(found))[: min(FROM_A_FILE, wanted)]):
                    key = found[place].tobytes()
                    if key in seen:
                        continue
                    seen.add(key)
                    blocks.append(found[place])
                    labels.append(label)
                    names.append(name)
                    wanted -= 1
        result[split] = np.stack(blocks), np.array(labels), names
    return result


def load_folder(folder, from_a_file):
    """A user's files folder/KIND/**, as load() has them, split 7 : 1 : 2 by file.

    At most `from_a_file` blocks of a file, MOST of a kind, and of equal files or blocks one.
    Raises ValueError for a folder that has too few, or is named like no kind.
    """
    found = {}
    others = sorted(p.name for p in folder.glob("*") if p.is_dir() and p.name[0] not in "._")
    if strange := [name for name in others if name not in KINDS]:
        raise ValueError(f"{strange[0]} is no kind: expected {', '.join(KINDS)}")
    for kind in KINDS:
        paths = sorted(p for p in folder.glob(f"{kind}/**/*") if p.is_file() and p.stat().st_size)
        unique = {hashlib.sha256(read(p)).digest(): p for p in reversed(paths)}
        if paths and len(unique) < 10:
            raise ValueError(f"{kind} has {len(unique)} different files: expected at least 10")
        if unique:
            found[kind] = sorted(unique.values())
    if "other" not in found or len(found) < 2:
        kinds = ", ".join(KINDS[1:])
        raise ValueError(f"expected folders other and one of {kinds}, of 10 different files each")
    lists, seen = {split: ([], [], []) for split in MOST}, set()
    for kind, paths in found.items():
        order = np.random.default_rng(SPLIT_SEED).permutation(len(paths))
        left = dict(MOST)
        for place, i in enumerate(order.tolist()):
            tenth = 10 * place // len(order)
            split = "train" if tenth < 7 else "valid" if tenth < 8 else "test"
            blocks, labels, names = lists[split]
            for block in cut(read(paths[i]))[: min(from_a_file, left[split])]:
                key = hashlib.sha256(block).digest()
                if key in seen:
                    continue
                seen.add(key)
                blocks.append(block)
                labels.append(KINDS.index(kind))
                names.append(paths[i].relative_to(folder).as_posix())
                left[split] -= 1
        if any(left[split] == MOST[split] for split in MOST):
            raise ValueError(f"the files of {kind} have too few different blocks")
    return {split: (np.stack(b), np.array(y), n) for split, (b, y, n) in lists.items()}


def digest(splits):
    """SHA-256 of all blocks and labels."""
    total = hashlib.sha256()
    for blocks, labels, _ in splits.values():
        total.update(blocks.tobytes() + labels.astype("uint8").tobytes())
    return total.hexdigest()


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
# How files that are no text begin.
MAGIC = b"\x7fELF", b"!<arch>", b"\x1f\x8b", b"\xde\x12\x04\x95", b"TZif", b"\x89PNG", b"\0\1\0\0"


def load_shifted(count):
    """Blocks of system files, which neither the network nor the rule has seen, as load() has them.

    At most `count` of each line above, three of a file; labels: 0, no text, or 1, text. Manuals
    are unpacked where they are text. Empty on a system that has none of the folders.
    """
    blocks, labels, names = [np.zeros((0, BLOCK), "uint8")], [], []
    known = {path.resolve() for files in installed().values() for _, path in files}
    for label, folders in enumerate([OTHER_FILES, TEXTS]):
        for folder, endings in folders.items():
            walk = (Path(parent, f) for parent, _, files in os.walk(folder) for f in files)
            paths = [p for p in walk if p.name.endswith(endings) and not p.is_symlink()]
            paths = [p for p in paths if p.resolve() not in known]  # Where Python is Debian's.
            left = count
            for path in sorted(paths, key=lambda p: order_of(p.as_posix())):
                if left <= 0:
                    break
                try:
                    content = read(path)
                    if label and content[:2] == b"\x1f\x8b":
                        content = gzip.decompress(content)
                except (OSError, EOFError, zlib.error):
                    continue
                if content.startswith(MAGIC) == bool(label):
                    continue
                found = [b for b in cut(content) if not label or np.count_nonzero(b) >= MIN_TEXT]
                rng = np.random.default_rng(int.from_bytes(order_of(path.name)[:8], "big"))
                chosen = sorted(rng.permutation(len(found))[: min(3, left)])
                blocks += [found[place][None] for place in chosen]
                labels += [label] * len(chosen)
                names += [path.as_posix()] * len(chosen)
                left -= len(chosen)
    return np.concatenate(blocks), np.array(labels, int), names
