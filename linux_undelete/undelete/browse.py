"""Lists the texts of a disk where no phrase is remembered: block by block, then text by text.

Whether a block of 4 KiB is text is said by the rule, which is better at that than the network; the
network of the newest run, where there is one, says what kind of text. In a block that is not text
as a whole, short texts may stand at borders of 512 bytes. Whether a file was deleted cannot be
seen from its blocks: all texts are listed.
"""

import functools
import os
import re
from pathlib import Path

import numpy as np

from common import folders
from common.cli import note
from linux_undelete.rule import best_encoding, kind_rule
from linux_undelete.undelete.extent import CONTROLS, NO_ACCIDENT, NOT_TEXT, SECTOR
from linux_undelete.undelete.recovery import unbroken

BLOCK = 4096
BATCH = 256  # Blocks that are read at once.
HEAD = 64  # Bytes of a sector that show at once whether it may begin a text.


def make_classifier(run_dir=None):
    """A function from uint8 (n, 4096) to the name of each block's kind, "other" for no text."""
    if run_dir is None and not any((folders.RUNS / "linux_undelete").glob("*/record.json")):
        return lambda blocks: [kind_rule(block) for block in blocks]
    run = folders.find_run("linux_undelete", run_dir)
    if not Path("~/.keras/keras.json").expanduser().exists():
        # Otherwise Keras would write it, perhaps onto the disk to be saved.
        os.environ.setdefault("KERAS_HOME", f"{os.devnull}/none")
    # Imported here, because everything else works without Keras.
    import common.backend  # noqa: F401  # Before Keras.

    from common.run import load_model
    from linux_undelete.evaluate import name_kinds

    network = load_model(run / "model.keras")
    note(f"the kinds of text are named by the network of {run}")
    return lambda blocks: name_kinds(blocks, network)


def first_place(block):
    """(place, encodings): where in a text block a character surely begins."""
    _, encoding = best_encoding(block)
    if encoding.startswith("utf-16"):
        return 0, (encoding,)
    known = re.search(rb"[\t\n\r\x20-\x3f]", block)
    place = known.start() if known else 0
    return place, ("utf-8", "gbk")


# --- Short texts in blocks that are not text ---
@functools.cache
def units_of_text():
    """Which of 256 bytes, and which of 65,536 characters of two bytes, may stand in a text."""
    one_byte = np.frombuffer(CONTROLS, "uint8") > 0
    two_bytes = np.array([not NOT_TEXT.match(chr(number)) for number in range(2**16)])
    return one_byte, two_bytes


def text_parts(block):
    """[(start, end)] of the sectors of a block that may be short texts, each up to its zeros.

    What stands there still has to decode, which the rule sees.

    Args:
        block: uint8 (4096,).
    """
    if not may_begin_a_text(block):
        return []  # True of nearly every block.
    parts = []
    goes_on = False  # Whether the sector before is text up to its last byte.
    for start in range(0, BLOCK, SECTOR):
        sector = block[start : start + SECTOR]
        length = length_without_zeros(sector)
        is_text = length > 0 and is_text_sector(sector, length)
        if is_text and goes_on:
            first, _ = parts[-1]
            parts[-1] = (first, start + length)
        elif is_text and length >= NO_ACCIDENT["utf-8"]:
            parts.append((start, start + length))
        goes_on = is_text and length == SECTOR
    return parts


def may_begin_a_text(block):
    """Whether the head of one of the sectors may be text, in bytes or in UTF-16."""
    one_byte, two_bytes = units_of_text()
    heads = block.reshape(-1, SECTOR)[:, :HEAD]
    for table, dtype in ((one_byte, "u1"), (two_bytes, "<u2"), (two_bytes, ">u2")):
        units = heads.view(dtype)
        fits = table[units]
        shortest = NO_ACCIDENT["utf-8"] // units.itemsize
        text_or_zeros = (fits | (units == 0)).all(axis=1)
        if (text_or_zeros & fits[:, :shortest].all(axis=1)).any():
            return True
    return False


def length_without_zeros(sector):
    """The number of bytes up to the last one that is not zero."""
    if not sector.any():
        return 0
    return SECTOR - int(np.argmax(sector[::-1] != 0))


def is_text_sector(sector, length):
    """Whether the first `length` bytes of a sector may be text, in bytes or in UTF-16."""
    one_byte, two_bytes = units_of_text()
    if one_byte[sector[:length]].all():
        return True
    for dtype in ("<u2", ">u2"):
        units = sector[: length + length % 2].view(dtype)
        if len(units) > 1 and two_bytes[units].all():
            return True
    return False


# --- All blocks ---
def browse(recovery, disk, start, classify, advance):
    """Adds every text from `start` on to the recovery.

    Args:
        classify: from make_classifier.
        advance: a function of (place, number of hits) that moves a progress bar.
    """
    covered = max([start, *map(recovery.end_of, range(len(recovery.texts)))])
    data = np.zeros(BATCH * BLOCK, np.uint8)
    for low, high in disk.extents(start // BLOCK * BLOCK):
        for place in range(low // BLOCK * BLOCK, high, BATCH * BLOCK):
            data[:] = 0
            disk.read_into(memoryview(data)[: min(len(data), high - place)], place)
            blocks = data.reshape(-1, BLOCK)
            texts = list(texts_in_blocks(blocks, place, covered, classify))
            with unbroken():
                for at, encodings, kind in texts:
                    if at < covered:
                        continue
                    number = recovery.add(at, 1, kind, encodings)
                    if number is not None:
                        covered = max(covered, recovery.end_of(number))
                recovery.reached(min(place + len(data), disk.size))
            advance(min(place + len(data), disk.size), recovery.state["hits"])
    recovery.reached(disk.size)


def texts_in_blocks(blocks, place, covered, classify):
    """The texts that begin or go on in some blocks: (offset of a character, encodings, kind).

    Args:
        blocks: uint8 (n, 4096), of the disk from `place` on.
        covered: blocks that end before this offset are known already.
    """
    wanted = []
    for i, block in enumerate(blocks):
        if place + (i + 1) * BLOCK > covered and block.any():
            wanted.append(i)
    texts = []  # (place in the blocks, bytes, kind)
    parts = []  # (place in the blocks, bytes as long as a block)
    for i, kind in zip(wanted, classify_if_any(classify, blocks[wanted]), strict=True):
        if kind != "other":
            texts.append((i * BLOCK, blocks[i], kind))
            continue
        for first, end in text_parts(blocks[i]):
            part = np.zeros(BLOCK, np.uint8)
            part[: end - first] = blocks[i, first:end]
            parts.append((i * BLOCK + first, part))
    kinds = classify_if_any(classify, [part for _, part in parts])
    for (first, part), kind in zip(parts, kinds, strict=True):
        if kind != "other":
            texts.append((first, part, kind))
    for first, text, kind in sorted(texts, key=lambda found: found[0]):
        at, encodings = first_place(text.tobytes())
        yield place + first + at, encodings, kind


def classify_if_any(classify, blocks):
    if len(blocks) == 0:
        return []
    return classify(np.stack(blocks))
