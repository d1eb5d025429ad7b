"""Lists the texts of a disk where no phrase is remembered: block by block, then text by text.

Whether a block of 4 KiB is text is said by the plain rule of train.py, which is better at that
than the network; the network of the newest run, where there is one, says what kind of text. In a
block that is no text as a whole, short texts may stand at borders of 512 bytes. Whether a file was
deleted cannot be seen from its blocks: all texts are listed.
"""

import functools
import os
import re
from pathlib import Path

import numpy as np

from common.run import RUNS, find_run, load_file
from linux_undelete.disk import note
from linux_undelete.recover import unbroken
from linux_undelete.texts import CONTROLS, NO_ACCIDENT, NOT_TEXT, SECTOR

BLOCK = 4096
BATCH = 256


def make_classifier(run_dir=None):
    """A function from uint8 (n, 4096) to the name of each block's kind, "other" for no text."""
    from linux_undelete.train import name_kinds

    model = None
    if not Path("~/.keras/keras.json").expanduser().exists():
        # Else Keras would write it, perhaps onto the disk to be saved.
        os.environ.setdefault("KERAS_HOME", f"{os.devnull}/none")
    if run_dir or any((RUNS / "linux_undelete").glob("*/record.json")):
        run = find_run("linux_undelete", run_dir)
        model = load_file(run / "model.keras")
        note(f"the kinds of text are named by the network of {run}")
    return lambda blocks: name_kinds(blocks, model)


def first_place(block):
    """(place, encodings): where in a text block a character surely begins."""
    from linux_undelete.train import best_encoding

    encoding = best_encoding(block)[1]
    if encoding.startswith("utf-16"):
        return 0, (encoding,)
    known = re.search(rb"[\t\n\r\x20-\x3f]", block)
    return known.start() if known else 0, ("utf-8", "gbk")


@functools.cache
def units_of_text():
    """Which of 256 bytes, and which of 65,536 characters of two bytes, may stand in a text."""
    characters = [not NOT_TEXT.match(chr(number)) for number in range(2**16)]
    return np.frombuffer(CONTROLS, "uint8") > 0, np.array(characters)


def text_parts(block):
    """[(start, end)] of the sectors of a block that may be short texts, each up to its zeros.

    block: uint8 (4096,). What stands there still has to decode, which the rule sees.
    """
    one_byte, two_bytes = units_of_text()
    heads = block.reshape(-1, SECTOR)[:, :64]
    begin = False
    for kind, order in ((one_byte, "u1"), (two_bytes, "<u2"), (two_bytes, ">u2")):
        units = heads.view(order)
        fits = kind[units]
        few = NO_ACCIDENT["utf-8"] // units.itemsize
        begin = begin | ((fits | (units == 0)).all(1) & fits[:, :few].all(1))
    if not begin.any():
        return []  # As in nearly every block.
    parts, whole = [], False
    for start in range(0, BLOCK, SECTOR):
        sector = block[start : start + SECTOR]
        length = SECTOR - int(np.argmax(sector[::-1] != 0)) if sector.any() else 0
        text = length and one_byte[sector[:length]].all()
        for order in ("<u2", ">u2") if length and not text else ():
            units = sector[: length + length % 2].view(order)
            text = text or (two_bytes[units].all() and len(units) > 1)
        if text and whole:  # It goes on.
            parts[-1] = parts[-1][0], start + length
        elif text and length >= NO_ACCIDENT["utf-8"]:
            parts.append((start, start + length))
        whole = bool(text) and length == SECTOR
    return parts


def browse(recovery, disk, start, classify, advance):
    """Adds every text from `start` on to the recovery; advance(place, hits)
    moves a bar."""
    covered = max([start, *map(recovery.end_of, range(len(recovery.texts)))])
    data = np.zeros(BATCH * BLOCK, np.uint8)
    for low, high in disk.extents(start // BLOCK * BLOCK):
        for place in range(low // BLOCK * BLOCK, high, BATCH * BLOCK):
            data[:] = 0
            disk.read_into(memoryview(data)[: min(len(data), high - place)], place)
            blocks = data.reshape(-1, BLOCK)
            wanted = [i for i in range(BATCH) if place + (i + 1) * BLOCK > covered]
            wanted = [i for i in wanted if blocks[i].any()]
            texts, parts, places = [], [], []
            kinds = classify(blocks[wanted]) if wanted else []
            for i, kind in zip(wanted, kinds, strict=True):
                if kind != "other":
                    texts.append((i * BLOCK, blocks[i], kind))
                    continue
                for first, end in text_parts(blocks[i]):
                    parts.append(np.zeros(BLOCK, np.uint8))
                    parts[-1][: end - first] = blocks[i, first:end]
                    places.append(i * BLOCK + first)
            kinds = classify(np.stack(parts)) if parts else []
            texts += zip(places, parts, kinds, strict=True)
            with unbroken():
                for first, text, kind in sorted(texts, key=lambda found: found[0]):
                    if kind == "other":
                        continue
                    at, encodings = first_place(text.tobytes())
                    at += place + first
                    if at < covered:
                        continue
                    number = recovery.add(at, 1, kind, encodings)
                    if number is not None:
                        covered = max(covered, recovery.end_of(number))
                recovery.reached(min(place + len(data), disk.size))
            advance(min(place + len(data), disk.size), recovery.state["hits"])
    recovery.reached(disk.size)
