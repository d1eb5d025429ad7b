"""From a place on a disk to the whole text around it.

A file begins at a block border, and its last block is filled up with zeros. So a text is followed
in both directions as long as its bytes decode and hold no control characters; where it runs into
other data, it ends at the last border of 512 bytes before that. Pieces are not glued together: a
text that was stored in several places is found in pieces, and `why_piece` says which ones look
like pieces.
"""

# ruff: noqa: RUF001  Chinese has full-width punctuation.
import re
from typing import NamedTuple

SECTOR = 512  # Every block size is a multiple of it.
CAP = 2 << 20  # A text is followed so many bytes in each direction.
UNIT = 64 << 10  # Bytes that are read at once.
# So many bytes of text in a row are no accident in random data. (In GBK most pairs of bytes are
# characters.)
NO_ACCIDENT = {"utf-8": 16, "gbk": 64, "utf-16-le": 64, "utf-16-be": 64}
# A table for bytes.translate: zero for all control characters other than tab, line ends, form
# feed and escape.
CONTROLS = b"\0" * 9 + b"xx\0xx" + b"\0" * 13 + b"x" + b"\0" * 4 + b"x" * 95 + b"\0" + b"x" * 128
NOT_TEXT = re.compile(
    "[^\t\n\f\r\x1b\x20-\x7e\xa0-\u05ff\u1e00-\u23ff\u2500-\u27bf\u3000-\u31ff\u3400-\u9fff"
    "\uac00-\ud7a3\ufe30-\ufe4f\ufeff\uff01-\uffee\U0001f000-\U0001faff]"
)
# What stands in the middle of a line: closing punctuation, spaces, or a lower case letter that
# does not begin one of the words with which files begin.
CONTINUES = re.compile(
    r"[ \t]+\S|[,.;:)\]}!?，。、；：！？）》」』”’…]|"
    r"(?!(?:import|from|def|class|package|using?|var|let|const|function|module|public|private|"
    r"int|void|static|struct|namespace|name|version|export|async|select|create|set)\b)[a-zà-ÿ]"
)
# At a block border, the beginning of another file.
NEW_FILE = re.compile(rb"#!/|<\?xml |<!DOCTYPE |\xef\xbb\xbf|# -\*- coding")


class Extent(NamedTuple):
    """Where a text lies, bytes [start, end) of the disk, and why it may not be a whole file."""

    start: int
    end: int
    encoding: str
    why_piece: tuple


class End(NamedTuple):
    """One end of a text.

    Attributes:
        place: the offset on the disk.
        cut: the bytes at this end that belong to a character which is cut there.
        goes_on: whether the file seems to go on beyond.
    """

    place: int
    cut: int
    goes_on: bool


# --- Where the bytes are text ---
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
        if other:
            return len(text[: other.start()].encode(encoding))
        return good
    control = data.translate(CONTROLS).find(b"\0", 0, good)
    if control < 0:
        return good
    return control


def is_cut_character(data, encoding):
    """Whether these few bytes are the beginning of a character."""
    try:
        str(data, encoding)
    except UnicodeDecodeError as error:
        return len(data) < 4 and error.start == 0 and error.end == len(data)
    return False


def safe_place(data, start, end, encoding):
    """A place soon after `start` where a character begins, whatever was cut before."""
    if encoding.startswith("utf-16"):
        return start
    known = re.search(rb"[\t-\x3f]", data[start : min(end, start + 4 * SECTOR)])
    if known:
        return start + known.end()
    return start


def cut_bytes(disk, place, border, encoding):
    """How many bytes before the border begin a character; at `place` one begins."""
    start = max(place, border - 8 * SECTOR + place % 2)
    data = disk.read(start, border - start)
    if start > place and not encoding.startswith("utf-16"):
        # No character goes across one of these bytes.
        data = re.split(rb"[\x00-\x3f]", data, maxsplit=1)[-1]
    rest = len(data) - text_length(data, encoding)
    if rest < 4:
        return rest
    return 0


def first_character(data, border, at, encoding):
    """How many bytes of data[border:at] belong to a cut character; None where it is not text."""
    candidates = {"utf-8": (0, 1, 2, 3), "gbk": (0, 1)}.get(encoding)
    if candidates is None:  # UTF-16: only whole pairs of bytes lead to the place `at`.
        candidates = ((at - border) % 2,)
    fits = []
    for skip in candidates:
        part = data[border + skip : at]
        if text_length(part, encoding) == len(part):
            fits.append(skip)
            if encoding == "utf-8":
                break
    if not fits:
        return None
    if len(fits) == 1:
        return fits[0]
    return better_start_of_gbk(data[border:at])


def better_start_of_gbk(data):
    """0 or 1: GBK decodes from either byte on; the better reading has more common characters."""
    run = re.match(rb"[\x80-\xff][\x40-\xff]*", data)
    if not run:
        return 0
    lead_bytes = run[0]
    common = [0, 0]
    for start in (0, 1):
        for i in range(start, len(lead_bytes), 2):
            if 0xB0 <= lead_bytes[i] <= 0xD7 or 0xA1 <= lead_bytes[i] <= 0xA3:
                common[start] += 1
    if common[1] > common[0]:
        return 1
    return 0


def last_error(data, low, high, encoding):
    """The place after the last byte of data[low:high] that is not text."""
    width = 2 if encoding.startswith("utf-16") else 1
    while low < high:
        part = data[low:high]
        good = text_length(part, encoding)
        if good == len(part):
            break
        low += good + width
    return min(low, high)


# --- Growing ---
def grow_forward(disk, place, encoding):
    """The End of the text after a character that begins at `place`."""
    end = place
    last = min(place + CAP, disk.size)
    while end < last:
        data = disk.read(end, min(UNIT, last - end))
        good = text_length(data, encoding)
        end += good
        if good == 0 or len(data) - good > 3:
            break
    if end >= last:
        return End(end, 0, end < disk.size)
    border = end - end % SECTOR
    to_border = border + SECTOR - end
    after = disk.read(end, to_border)
    if end == border:
        after = disk.read(end, to_border + SECTOR)
    if not after.strip(b"\0"):  # The last block of a file is filled up with zeros.
        return End(end, 0, False)
    if to_border < 4 and is_cut_character(after[:to_border], encoding):
        return End(border + SECTOR, to_border, True)
    if place < border and end - border < NO_ACCIDENT[encoding]:
        # Too few bytes in the next block: other data that looks like text.
        return End(border, cut_bytes(disk, place, border, encoding), True)
    return End(end, 0, end == border)


def grow_backward(disk, place, encoding, lowest):
    """The End of the text before `place`; it may not reach below `lowest`."""
    at = place
    first = max(lowest, place - CAP, 0)
    unit = SECTOR
    while True:
        unit = min(8 * unit, UNIT)  # Most texts are short: little is read at first.
        base = max(first, (at - 1) // SECTOR * SECTOR - unit)
        data = disk.read(base, at - base)
        low = 0
        if not encoding.startswith("utf-16"):
            low = data.translate(CONTROLS).rfind(b"\0") + 1
        start, skip = clean_start(data, low, base, encoding)
        if start > 0 or base == first:
            goes_on = base + start == first and first > lowest
            return End(base + start, skip, goes_on)
        at = base + safe_place(data, skip, len(data), encoding)


def clean_start(data, low, base, encoding):
    """(start, skip) of the text that leads to the end of the data; it may not reach below `low`.

    Args:
        data: bytes of the disk from `base` on.
        low: a place in the data.
    """
    at = len(data)
    border = low + -(base + low) % SECTOR
    skip = None
    if border <= at:
        skip = first_character(data, border, at, encoding)
    if skip is None:  # Other data comes before: go back from the hit, block by block.
        border, skip, reached = first_text_block(data, low, base, encoding)
        low = max(low, reached)
    if encoding.startswith("utf-16"):
        low += (at - low) % 2
    if border is None:
        return last_error(data, low, at, encoding), 0
    low = last_error(data, low, border, encoding)
    if border - low >= NO_ACCIDENT[encoding]:
        return low, 0
    return border, skip


def first_text_block(data, low, base, encoding):
    """The first of the blocks in a row that are text, back from the end of the data.

    Returns:
        (its border or None, the bytes of a cut character there, the border that was not text).
    """
    end = len(data)
    border = None
    skip = None
    before = end - (base + end) % SECTOR
    while before >= low:
        fits = first_character(data, before, end, encoding)
        if fits is None:
            break
        border = before
        skip = fits
        end = safe_place(data, before + fits, end, encoding)
        before -= SECTOR
    return border, skip, before


def grow(disk, place, length, encoding, lowest=0):
    """The Extent of the text in which `length` bytes at `place` were found."""
    after = grow_forward(disk, place, encoding)
    before = grow_backward(disk, place, encoding, lowest)
    if after.place < place + length:
        after = after._replace(place=place + length)
    data = disk.read(before.place, after.place - before.place)
    origin = before.place
    before, after = split_at_new_files(data, before, after, place, length)
    text_bytes = data[before.place - origin + before.cut : after.place - origin - after.cut]
    text = str(text_bytes, encoding, "ignore")
    why = []
    for reason in (
        why_not_the_beginning(before, text, lowest),
        why_not_the_end(disk, after, text, place),
    ):
        if reason is not None:
            why.append(reason)
    if any(low <= after.place and before.place <= high for low, high in disk.bad):
        why.append("lies beside an unreadable place")
    return Extent(before.place, after.place, encoding, tuple(why))


def split_at_new_files(data, before, after, place, length):
    """Moves the ends to block borders where another file seems to begin."""
    origin = before.place
    for at in range(SECTOR - origin % SECTOR, len(data), SECTOR):
        if not NEW_FILE.match(data, at):
            continue
        border = origin + at
        if border <= place:
            before = End(border, 0, False)
        elif border >= place + length:
            return before, End(border, 0, True)
    return before, after


def why_not_the_beginning(before, text, lowest):
    """Why the text may not begin where its file begins; None where it seems to."""
    if before.goes_on or (lowest and before.place == lowest):
        return "its beginning lies before, in a longer text"
    if before.cut:
        return "begins in the middle of a character"
    if before.place % SECTOR:
        return "begins in the middle of a block, after bytes that are no text"
    if CONTINUES.match(text.removeprefix("\ufeff")):
        return "may begin in the middle of a line"
    return None


def why_not_the_end(disk, after, text, place):
    """Why the text may not end where its file ends; None where it seems to."""
    if after.cut:
        return "ends in the middle of a character"
    if after.goes_on:
        if after.place - place >= CAP:
            return "goes on: longer than what is recovered at once"
        if text.endswith(("\n", "\r")):
            return "ends exactly at a block border"
        return "ends exactly at a block border, in the middle of a line"
    if disk.read(after.place, SECTOR - after.place % SECTOR).strip(b"\0"):
        return "ends before bytes that are no text"
    return None


def grow_best(disk, place, length, encodings, lowest=0):
    """The Extent in the encoding that fits: UTF-8 where it has its characters, else the longest."""
    extents = [grow(disk, place, length, encoding, lowest) for encoding in encodings]
    longest = max(extents, key=lambda extent: extent.end - extent.start)
    first = extents[0]
    if first is longest or first.encoding != "utf-8":
        return longest
    if 2 * (first.end - first.start) < longest.end - longest.start:
        return longest
    if disk.read(first.start, first.end - first.start).isascii():
        return longest
    return first
