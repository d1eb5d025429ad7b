"""Grows a place on a disk to the whole text around it.

A file begins at a block border and its last block is filled up with zeros. So a text is followed
in both directions as long as its bytes decode and hold no control characters; where it runs into
other data, it ends at the last border of 512 bytes before. Nothing is glued: a text that was
stored in several places is found as pieces, and `why_piece` says which ones look like that.
"""

# ruff: noqa: RUF001  Chinese has full-width punctuation.
import re
from typing import NamedTuple

SECTOR = 512  # Every block size is a multiple of it.
CAP = 2 << 20  # A text is followed so far in each direction.
UNIT = 64 << 10
# So many text bytes in a row are no accident in random data. (In GBK most pairs are characters.)
NO_ACCIDENT = {"utf-8": 16, "gbk": 64, "utf-16-le": 64, "utf-16-be": 64}
# A table for bytes.translate: zero for control characters but tab, line ends, form feed, escape.
CONTROLS = b"\0" * 9 + b"xx\0xx" + b"\0" * 13 + b"x" + b"\0" * 4 + b"x" * 95 + b"\0" + b"x" * 128
NOT_TEXT = re.compile(
    "[^\t\n\f\r\x1b\x20-\x7e\xa0-\u05ff\u1e00-\u23ff\u2500-\u27bf\u3000-\u31ff\u3400-\u9fff"
    "\uac00-\ud7a3\ufe30-\ufe4f\ufeff\uff01-\uffee\U0001f000-\U0001faff]"
)
# In the middle of a line: punctuation that closes, spaces, or a small letter of no first word.
CONTINUES = re.compile(
    r"[ \t]+\S|[,.;:)\]}!?，。、；：！？）》」』”’…]|"
    r"(?!(?:import|from|def|class|package|using?|var|let|const|function|module|public|private|"
    r"int|void|static|struct|namespace|name|version|export|async|select|create|set)\b)[a-zà-ÿ]"
)
# At a border, the beginning of another file.
NEW_FILE = re.compile(rb"#!/|<\?xml |<!DOCTYPE |\xef\xbb\xbf|# -\*- coding")


class Extent(NamedTuple):
    """Where a text lies, bytes [start, end) of the disk, and what speaks against a whole file."""

    start: int
    end: int
    encoding: str
    why_piece: tuple


def text_length(data, encoding):
    """How many bytes from the start of data on are whole characters of a text."""
    good = len(data)
    try:
        text = str(data, encoding)
    except UnicodeDecodeError as error:
        good = error.start
        text = str(data[:good], encoding)
    if encoding.startswith("utf-16"):
        other = NOT_TEXT.search(text)
        return len(text[: other.start()].encode(encoding)) if other else good
    control = data.translate(CONTROLS).find(b"\0", 0, good)
    return good if control < 0 else control


def is_cut_character(data, encoding):
    """Whether these few bytes are the beginning of a character."""
    try:
        str(data, encoding)
    except UnicodeDecodeError as error:
        return len(data) < 4 and error.start == 0 and error.end == len(data)
    return False


def grow_forward(disk, place, encoding):
    """(end, rest, whether the file seems to go on) of the text from a character on."""
    end, last = place, min(place + CAP, disk.size)
    while end < last:
        data = disk.read(end, min(UNIT, last - end))
        good = text_length(data, encoding)
        end += good
        if not good or len(data) - good > 3:
            break
    if end >= last:
        return end, 0, end < disk.size
    border = end - end % SECTOR
    after = disk.read(end, SECTOR - end % SECTOR + (SECTOR if end == border else 0))
    if not after.strip(b"\0"):  # The last block of a file is filled up with zeros.
        return end, 0, False
    if border + SECTOR - end < 4 and is_cut_character(after[: border + SECTOR - end], encoding):
        return border + SECTOR, border + SECTOR - end, True
    if place < border and end - border < NO_ACCIDENT[encoding]:
        # Too few bytes in the next block: other data that looks like text.
        return border, cut_bytes(disk, place, border, encoding), True
    return end, 0, end == border


def cut_bytes(disk, place, border, encoding):
    """How many bytes before the border begin a character; at `place` one begins."""
    start = max(place, border - 8 * SECTOR + place % 2)
    data = disk.read(start, border - start)
    if start > place and not encoding.startswith("utf-16"):
        data = re.split(rb"[\x00-\x3f]", data, maxsplit=1)[-1]  # No character goes across these.
    rest = len(data) - text_length(data, encoding)
    return rest if rest < 4 else 0


def clean_start(data, low, at, base, encoding):
    """(start, skip) of the text that leads to data[at]; it may not reach below `low`.

    data[0] lies at `base` on the disk.
    """
    border = low + -(base + low) % SECTOR
    skip = first_character(data, border, at, encoding) if border <= at else None
    if skip is None:  # Other data comes before: block by block, back from the hit.
        end, border, before = at, None, at - (base + at) % SECTOR
        while before >= low:
            fits = first_character(data, before, end, encoding)
            if fits is None:
                break
            border, skip = before, fits
            end, before = safe_place(data, before + fits, end, encoding), before - SECTOR
        low = max(low, before)
    if encoding.startswith("utf-16"):
        low += (at - low) % 2
    low = last_error(data, low, at if border is None else border, encoding)
    if border is None or border - low >= NO_ACCIDENT[encoding]:
        return low, 0
    return border, skip


def safe_place(data, start, end, encoding):
    """A place soon after `start` where a character begins, whatever was cut before."""
    known = re.search(rb"[\t-\x3f]", data[start : min(end, start + 4 * SECTOR)])
    return start + known.end() if known and not encoding.startswith("utf-16") else start


def first_character(data, border, at, encoding):
    """How many bytes of data[border:at] belong to a cut character; None where it is no text."""
    fits = []
    odd = (at - border) % 2
    for skip in {"utf-8": (0, 1, 2, 3), "gbk": (0, 1)}.get(encoding, (odd,)):
        part = data[border + skip : at]
        if text_length(part, encoding) == len(part):
            fits.append(skip)
        if fits and encoding == "utf-8":
            break
    if len(fits) < 2:
        return fits[0] if fits else None
    run = re.match(rb"[\x80-\xff][\x40-\xff]*", data[border:at])  # GBK fits at either byte:
    if not run:  # the better reading has more of the common characters.
        return 0
    common = [
        sum(
            0xB0 <= run[0][i] <= 0xD7 or 0xA1 <= run[0][i] <= 0xA3 for i in range(s, len(run[0]), 2)
        )
        for s in fits
    ]
    return fits[common[1] > common[0]]


def last_error(data, low, high, encoding):
    """The place after the last byte of data[low:high] that is no text."""
    while low < high:
        part = data[low:high]
        good = text_length(part, encoding)
        if good == len(part):
            break
        low += good + (2 if encoding.startswith("utf-16") else 1)
    return min(low, high)


def grow_backward(disk, place, encoding, lowest):
    """(start, skip, whether the file seems to go on) of the text that leads to `place`."""
    at, first, unit = place, max(lowest, place - CAP, 0), SECTOR
    while True:
        unit = min(8 * unit, UNIT)  # Most texts are short: little is read first.
        base = max(first, (at - 1) // SECTOR * SECTOR - unit)
        data = disk.read(base, at - base)
        low = 0 if encoding.startswith("utf-16") else data.translate(CONTROLS).rfind(b"\0") + 1
        start, skip = clean_start(data, low, len(data), base, encoding)
        if start or base == first:
            return base + start, skip, base + start == first and first > lowest
        at = base + safe_place(data, skip, len(data), encoding)


def grow(disk, place, length, encoding, lowest=0):
    """The Extent of the text in which `length` bytes at `place` were found."""
    end, rest, goes_on = grow_forward(disk, place, encoding)
    start, skip, cut = grow_backward(disk, place, encoding, lowest)
    end = max(end, place + length)
    origin, data = start, disk.read(start, end - start)
    for at in range(SECTOR - origin % SECTOR, len(data), SECTOR):
        border = origin + at
        if NEW_FILE.match(data, at):
            if border <= place:
                start, skip, cut = border, 0, False
            elif border >= place + length:
                end, rest, goes_on = border, 0, True
                break
    text = str(data[start - origin + skip : end - origin - rest], encoding, "ignore")
    why = []
    if cut or (lowest and start == lowest):
        why.append("its beginning lies before, in a longer text")
    elif skip:
        why.append("begins in the middle of a character")
    elif start % SECTOR == 0 and CONTINUES.match(text.removeprefix("\ufeff")):
        why.append("may begin in the middle of a line")
    elif start % SECTOR:
        why.append("begins in the middle of a block, after bytes that are no text")
    if rest:
        why.append("ends in the middle of a character")
    elif goes_on and end - place >= CAP:
        why.append("goes on: longer than what is recovered at once")
    elif goes_on:
        middle = "" if text.endswith(("\n", "\r")) else ", in the middle of a line"
        why.append(f"ends exactly at a block border{middle}")
    elif disk.read(end, SECTOR - end % SECTOR).strip(b"\0"):
        why.append("ends before bytes that are no text")
    if any(low <= end and start <= high for low, high in disk.bad):
        why.append("lies beside an unreadable place")
    return Extent(start, end, encoding, tuple(why))


def grow_best(disk, place, length, encodings, lowest=0):
    """The Extent in the encoding that fits: UTF-8 where it has its characters, else the longest."""
    extents = [grow(disk, place, length, encoding, lowest) for encoding in encodings]
    best = max(extents, key=lambda extent: extent.end - extent.start)
    first, length = extents[0], best.end - best.start
    if first is best or first.encoding != "utf-8" or 2 * (first.end - first.start) < length:
        return best
    return best if disk.read(first.start, first.end - first.start).isascii() else first
