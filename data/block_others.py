"""Files that are not text, the kind "other" of data/blocks.py: installed ones, and drawn ones."""

import bz2
import lzma
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

from data.block_files import compiled, files_of, read
from data.block_texts import names_of, pick

BLOCK = 4096  # Bytes.
BLOCKS_OF_A_FILE = 8  # At most, so that no long file dominates.
# What a file is, one after the other. There are two of machine code, as most of a disk is that.
WAYS = (
    "machine-code",
    "machine-code",
    "compiled",
    "compressed",
    "media",
    "random",
    "arrays",
    "metadata",
    "constant",
)
MEDIA = (".png", ".ttf", ".whl", ".npz", ".gz", ".pdf")
NUM_ENTRIES = 130  # Of a directory or a table of inodes.


def draw_other(rng, split, way):
    """(name of the file or None, bytes) of a file that is not text."""
    name, path = pick(rng, files_of(split, ".py"))
    if way == "machine-code":
        return some_blocks(rng, split, (".so", ".a"))
    if way == "media":
        return some_blocks(rng, split, MEDIA)
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
        words = names_of(read(path).decode("utf-8", "ignore"))
        return None, draw_metadata(rng, words)
    return None, draw_constant(rng)


def some_blocks(rng, split, endings):
    """(name, bytes) of some blocks of an installed file with one of the endings."""
    files = files_of(split, *endings)
    if not files:
        files = [(str(sys.executable), Path(sys.executable))]
    name, path = pick(rng, files)
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        num_blocks = max(1, size // BLOCK)
        starts = BLOCK * (rng.random(BLOCKS_OF_A_FILE) * num_blocks).astype(int)
        blocks = []
        for start in sorted(set(starts.tolist())):
            file.seek(start)
            blocks.append(file.read(BLOCK).ljust(BLOCK, b"\0"))
    return name, b"".join(blocks)


def draw_array(rng):
    """Numbers as programs keep them: counts, measurements, samples of sound, grey images."""
    walk = np.cumsum(rng.random(9000) - 0.5)
    small = (rng.random(9000) ** 3 * 10 ** (1 + 4 * rng.random())).astype("int64")
    pixels = (walk - walk.min()) / np.ptp(walk) * 255 + 8 * rng.random(9000)
    arrays = {
        "uint8": [small % 256, np.minimum(pixels, 255), 32 + 90 * rng.random(9000)],
        "<i2": [1000 * walk, small],
        "<u2": [small, 20_000 + 500 * walk],
        "<i4": [small, np.cumsum(small), 1e5 * walk],
        "<f4": [walk, small, rng.random(9000)],
        "<f8": [walk, small / 100],
        "<i8": [small, 1_700_000_000 + np.cumsum(small)],
    }
    dtype = pick(rng, list(arrays))
    values = pick(rng, arrays[dtype])
    if dtype[1] in "iu":  # Through int64, so that what does not fit wraps around.
        values = values.astype("int64")
    return values.astype(dtype).tobytes()


def draw_metadata(rng, words):
    """What a file system keeps: directories of ext4 and FAT, tables of inodes, bitmaps."""
    way = int(4 * rng.random())
    entries = []
    for number in np.cumsum(1 + 9 * rng.random(NUM_ENTRIES)).astype(int).tolist():
        name = f"{pick(rng, words)}{pick(rng, ['.py', '.txt', '.c', ''])}"[:40]
        if way == 0:
            entries.append(ext4_entry(name, number))
        elif way == 1:
            entries.append(fat_entry(name, number))
        else:
            entries.append(ext4_inode(number))
    if way == 3:
        return bytes(np.packbits(rng.random(65536) < rng.random()))
    return b"".join(entries)[: 2 * BLOCK]


def ext4_entry(name, number):
    """An entry of a directory of ext4."""
    size = 8 + -(-len(name) // 4) * 4
    head = struct.pack("<IHBB", number, size, len(name), 1 + number % 2)
    return head + name.encode().ljust(size - 8, b"\0")


def fat_entry(name, number):
    """An entry of a directory of FAT."""
    short_name = name.upper()[:8].ljust(8) + "TXT"
    return struct.pack("<11sB8sHHHHI", short_name.encode(), 32, bytes(8), 0, 1, 2, number, 99)


def ext4_inode(number):
    """An entry of a table of inodes of ext4."""
    times = [1_700_000_000 + number] * 4
    extent = struct.pack("<HHHHIIHHI", 0xF30A, 1, 4, 0, 0, 0, 8, 0, 34000 + number)
    inode = struct.pack("<HHI4IHHII", 0o100644, 1000, number * 37, *times, 1000, 1, 8, 0x80000)
    return (inode + bytes(4) + extent).ljust(256, b"\0")


def draw_constant(rng):
    """A block with a few bytes that are not zero, a repeated pattern, and a constant block."""
    pattern = rng.bytes(1 + int(8 * rng.random())) + bytes(int(16 * rng.random()))
    sparse = bytearray(BLOCK)
    for place in (BLOCK * rng.random(20)).astype(int).tolist():
        sparse[place] = int(256 * rng.random())
    constant = bytes([pick(rng, [0, 255])]) * BLOCK
    return bytes(sparse) + (pattern * BLOCK)[:BLOCK] + constant
