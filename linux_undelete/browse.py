"""Lists the texts of a disk where no phrase is remembered: block by block, then text by text.

Whether a block is text is said by the plain rule of train.py, which is better at that than the
network; the network of the newest run, where there is one, says what kind of text. Whether a file
was deleted cannot be seen from its blocks: all texts are listed.
"""

import re

import numpy as np

from common.run import RUNS, find_run, load_file
from linux_undelete.disk import note
from linux_undelete.recover import unbroken
from linux_undelete.texts import text_length

BLOCK = 4096
BATCH = 256


def make_classifier(run_dir=None):
    """A function from uint8 (n, 4096) to the name of each block's kind, "other" for no text."""
    from linux_undelete.train import name_kinds

    model = None
    if run_dir or any((RUNS / "linux_undelete").glob("*/record.json")):
        run = find_run("linux_undelete", run_dir)
        model = load_file(run / "model.keras")
        note(f"the kinds of text are named by the network of {run}")
    return lambda blocks: name_kinds(blocks, model)


def first_place(block):
    """(place, encodings): where in a text block a character surely begins."""
    wide = ["utf-16-le", "utf-16-be"]
    lengths = [text_length(block, encoding) for encoding in wide]
    if b"\0" in block.rstrip(b"\0") and max(lengths) >= 64:
        return 0, (wide[lengths[1] > lengths[0]],)
    known = re.search(rb"[\t\n\r\x20-\x3f]", block)
    return known.start() if known else 0, ("utf-8", "gbk")


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
            kinds = classify(blocks[wanted]) if wanted else []
            with unbroken():
                for i, kind in zip(wanted, kinds, strict=True):
                    at, encodings = first_place(blocks[i].tobytes())
                    at += place + i * BLOCK
                    if kind == "other" or at < covered:
                        continue
                    number = recovery.add(at, 1, kind, encodings)
                    if number is not None:
                        covered = max(covered, recovery.end_of(number))
                recovery.reached(min(place + len(data), disk.size))
            advance(min(place + len(data), disk.size), recovery.state["hits"])
    recovery.reached(disk.size)
