"""The files that every machine with this project has: Python's own and those of its packages.

Split by file: the SHA-256 of a file's content decides whether it, and all that is made of it, is
for training, validation or test.
"""

import hashlib
import importlib.metadata
import json
import os
import struct
import subprocess
import sys
import sysconfig
from functools import cache
from importlib.util import MAGIC_NUMBER, find_spec
from pathlib import Path

VERSION = 1
# The last digit of a file's hash decides.
DIGITS = {"train": range(7), "valid": range(7, 8), "test": range(8, 10)}
PACKAGES = ("PIL", "keras", "matplotlib", "numpy", "scipy")
DESCRIBED = ("pillow", "keras", "matplotlib", "numpy", "scipy", "jieba", "tensorflow", "tqdm")
SKIPPED_FOLDERS = {"site-packages", "__pycache__", "test", "tests", "idle_test", "lib2to3"}
MAX_READ = 1 << 20  # Bytes of a file that are read at most.

# Compiles Python files, whose names it reads from stdin as JSON. Each is written as its length in
# four bytes and its code.
COMPILE = """if True:
    import json, marshal, sys
    for path in json.load(sys.stdin):
        code = marshal.dumps(compile(open(path, "rb").read(), path.rsplit("/", 1)[-1], "exec"))
        sys.stdout.buffer.write(len(code).to_bytes(4, "big") + code)
"""


def read(path):
    """The first MAX_READ bytes of a file."""
    with path.open("rb") as file:
        return file.read(MAX_READ)


def split_of(content):
    """The split that a file with these bytes belongs to."""
    digit = int.from_bytes(hashlib.sha256(content).digest()[:8], "big") % 10
    return next(split for split, digits in DIGITS.items() if digit in digits)


def order_of(name):
    """A key that puts names in an order of its own, the same on every machine."""
    return hashlib.sha256(f"{VERSION} {name}".encode()).digest()


def by_order(named):
    return order_of(named[0])


@cache
def split_of_file(path):
    return split_of(read(path))


@cache
def installed():
    """{ending: [(name, path), ...]} of Python and the packages, in an order of its own."""
    files = {}
    for top, folder in source_folders().items():
        for parent, children, names in os.walk(folder):
            children[:] = sorted(set(children) - SKIPPED_FOLDERS)
            for name in names:
                path = Path(parent, name)
                full_name = f"{top}/{path.relative_to(folder).as_posix()}"
                files.setdefault(path.suffix, []).append((full_name, path))
    return {ending: sorted(named, key=by_order) for ending, named in files.items()}


def source_folders():
    """{name: folder} of Python, its headers, and the packages."""
    folders = {
        "python": sysconfig.get_path("stdlib"),
        "include": sysconfig.get_path("include"),
    }
    for name in PACKAGES:
        folders[name] = find_spec(name).submodule_search_locations[0]
    tensorflow = find_spec("tensorflow")
    if tensorflow is not None:
        folders["tensorflow"] = f"{tensorflow.submodule_search_locations[0]}/include/tensorflow"
    return folders


@cache
def files_of(split, *endings):
    """The installed files with one of the endings that are in the split: ((name, path), ...)."""
    files = []
    for ending in endings:
        for name, path in installed().get(ending, ()):
            if split_of_file(path) == split:
                files.append((name, path))
    return tuple(files)


@cache
def prose_of(split):
    """English texts that come with Python: ((name, bytes), ...) of the split.

    These are the topics of its language reference and the descriptions of packages.
    """
    from pydoc_data.topics import topics  # Half a megabyte of text.

    texts = [(f"topic {name}", text.encode()) for name, text in topics.items()]
    for name in DESCRIBED:
        try:
            text = importlib.metadata.distribution(name).read_text("METADATA")
        except importlib.metadata.PackageNotFoundError:
            continue
        texts.append((f"description of {name}", text.encode()))
    return tuple(
        (name, text) for name, text in sorted(texts, key=by_order) if split_of(text) == split
    )


@cache
def compiled(split, count=150):
    """Python files as .pyc: [(name, bytes), ...].

    A fresh process makes them, because their bytes depend on what the process has loaded.
    """
    files = files_of(split, ".py")[:count]
    done = subprocess.run(
        [sys.executable, "-S", "-W", "ignore", "-c", COMPILE],
        input=json.dumps([str(path) for _, path in files]).encode(),
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "0"},
    )
    contents = []
    start = 0
    for name, _ in files:
        length = int.from_bytes(done.stdout[start : start + 4], "big")
        start += 4
        header = struct.pack("<4sIQ", MAGIC_NUMBER, 0, 0x6500000000 + length)
        code = done.stdout[start : start + length]
        start += length
        contents.append((f"{name} compiled", header + code))
    return contents
