"""Finds phrases in the bytes of a disk: every encoding in one pass, in constant memory.

A phrase is looked for as it is written in UTF-8, GBK and UTF-16 (both byte orders). Patterns of
fewer than 4 bytes would be found everywhere by chance, so they are left out.
"""

import os
import re
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from common.cli import fail
from linux_undelete.undelete.disk import PAGE

ENCODINGS = ("utf-8", "gbk", "utf-16-le", "utf-16-be")
CHUNK = 1 << 20  # Bytes searched at once: they and the tables stay in the processor's cache.
STRETCH = 16  # Chunks of one task.
SHORTEST = 4  # Bytes of a pattern.
LONGEST_MATCH = 4096  # Bytes that a regular expression may match.
TABLE_SIZE = 1 << 16  # One entry for each pair of bytes.


class Term(NamedTuple):
    """What is looked for: a phrase, its bytes, and every encoding that gives these bytes."""

    phrase: str
    pattern: bytes
    encodings: tuple


# --- What is looked for ---
def encode_phrases(phrases, encodings=ENCODINGS):
    """The terms of some phrases. Identical bytes become one term of several encodings."""
    terms = {}
    for phrase in phrases:
        if not phrase.strip():
            fail("--phrase is empty: give a few words that only the lost text contained")
        num_usable = 0
        for encoding in encodings:
            try:
                pattern = phrase.encode(encoding)
            except UnicodeEncodeError:
                continue
            if len(pattern) >= SHORTEST:
                num_usable += 1
                add_term(terms, phrase, pattern, encoding)
        if num_usable == 0:
            fail(f"--phrase {phrase!a} has no {SHORTEST} bytes in any of {', '.join(encodings)}")
    return list(terms.values())


def add_term(terms, phrase, pattern, encoding):
    """Adds an encoding to the term of these bytes."""
    known = ()
    if pattern in terms:
        known = terms[pattern].encodings
    if encoding not in known:
        known = (*known, encoding)
    terms[pattern] = Term(phrase, pattern, known)


def compile_expressions(expressions, encodings=ENCODINGS):
    """The terms of regular expressions, in UTF-8 and GBK.

    `.`, `\\w` and `[...]` mean single bytes, so only ASCII may stand in brackets; any other
    character may be repeated (`啊+`). At most 4096 bytes are matched.
    """
    terms = {}
    for expression in expressions:
        for encoding in encodings:
            if encoding.startswith("utf-16"):
                continue
            try:
                pattern = encode_expression(expression, encoding)
            except UnicodeEncodeError:
                continue
            add_term(terms, expression, pattern, encoding)
    if len({term.phrase for term in terms.values()}) < len(set(expressions)):
        fail(f"--regex looks in UTF-8 and GBK: {', '.join(encodings)} cannot hold the expression")
    for term in terms.values():
        refuse_bad_expression(term)
    return list(terms.values())


def encode_expression(expression, encoding):
    """A regular expression of bytes. Raises UnicodeEncodeError if the encoding cannot hold it."""
    pattern = b""
    in_brackets = False
    for part in re.findall(r"\\.|.", expression, re.DOTALL):
        if part.isascii():
            in_brackets = part == "[" or (in_brackets and part != "]")
            pattern += part.encode()
            continue
        if in_brackets:
            fail(f"--regex {expression}: in [...] only ASCII; write (你|我) instead")
        character = part.removeprefix("\\").encode(encoding)
        pattern += b"(?:" + re.escape(character) + b")"
    return pattern


def refuse_bad_expression(term):
    try:
        matches_nothing = re.compile(term.pattern).fullmatch(b"")
    except (re.error, OverflowError) as error:
        fail(f"--regex {term.phrase}: {error}")
    if matches_nothing:
        fail(f"--regex {term.phrase}: matches nothing at all, and so everywhere")


# --- Finders ---
class Literals:
    """Finds several byte patterns at once.

    Every occurrence of a pattern of L bytes contains one of its first 2 * step pairs of bytes at a
    multiple of 2 * step, if that is less than L. Only such places are looked up in a table of
    pairs, and those that are left in a table of four bytes. Where four bytes and the last four
    fit, all are compared.

    Attributes:
        overlap: the bytes that two neighbouring chunks must share.
    """

    def __init__(self, patterns):
        self.patterns = patterns
        shortest = min(map(len, patterns))
        self.overlap = max(map(len, patterns)) - 1
        # Four bytes from the pair on or, in short patterns, from up to two bytes before it.
        self.step = (shortest - 1) // 2
        if shortest > 12:
            self.step = (shortest - 3) // 2
        self.shifts = max(2 * self.step - 1 - (shortest - 4), 0) + 1
        self.workspace = threading.local()
        self.pairs = np.zeros(TABLE_SIZE, bool)
        self.fours = np.zeros(TABLE_SIZE, bool)
        for pattern in patterns:
            for j in range(2 * self.step):
                self.pairs[int.from_bytes(pattern[j : j + 2], "little")] = True
        # One row for each place of each pattern, sorted by the four bytes there.
        columns = np.array(sorted(self.rows()), np.int64).T
        self.known, self.place, self.index, self.length, self.last = columns
        self.fours[hash_of(self.known.astype("<u4"))] = True
        _, counts = np.unique(self.known, return_counts=True)
        self.most_equal = int(counts.max())

    def rows(self):
        """(four bytes, their place, the pattern's index, its length, its last four bytes)."""
        for index, pattern in enumerate(self.patterns):
            last = int.from_bytes(pattern[-4:], "little")
            for j in range(len(pattern) - 3):
                four = int.from_bytes(pattern[j : j + 4], "little")
                yield four, j, index, len(pattern), last

    def __call__(self, data):
        """A sorted list of (place, length, index of the pattern); data: uint8 array."""
        if len(data) < SHORTEST:
            return []
        candidates = self.places_of_pairs(data)
        fours = np.ndarray(len(data) - 3, "<u4", data, strides=(1,))
        found = set()
        for shift in range(self.shifts):
            low, high = np.searchsorted(candidates, (shift, len(fours) + shift))
            places = candidates[low:high] - shift
            values = fours[places]
            likely = np.flatnonzero(self.fours[hash_of(values)])
            if len(likely) > 0:
                found |= self.compare(data, fours, places[likely], values[likely])
        return sorted(found)

    def places_of_pairs(self, data):
        """The multiples of 2 * step at which one of the known pairs of bytes stands."""
        sampled = data[: len(data) // 2 * 2].view("<u2")[:: self.step]
        if len(sampled) > len(getattr(self.workspace, "marks", ())):
            # Each thread keeps its arrays, because allocating them takes as long as searching.
            self.workspace.indices = np.empty(len(sampled), np.intp)
            self.workspace.marks = np.empty(len(sampled), bool)
        indices = self.workspace.indices[: len(sampled)]
        marks = self.workspace.marks[: len(sampled)]
        np.copyto(indices, sampled)
        self.pairs.take(indices, out=marks, mode="clip")
        places = np.flatnonzero(marks)
        places *= 2 * self.step
        return places

    def compare(self, data, fours, places, values):
        """The hits of patterns that have the four bytes `values` at `places`."""
        found = set()
        first = np.searchsorted(self.known, values)
        for number in range(self.most_equal):
            row = np.minimum(first + number, len(self.known) - 1)
            starts = places - self.place[row]
            ends = starts + self.length[row] - 4
            fits = (self.known[row] == values) & (starts >= 0) & (ends < len(fours))
            row = row[fits]
            starts = starts[fits]
            ends = ends[fits]
            fits = fours[ends] == self.last[row]
            for start, i in zip(starts[fits].tolist(), self.index[row[fits]].tolist(), strict=True):
                pattern = self.patterns[i]
                if data[start : start + len(pattern)].tobytes() == pattern:
                    found.add((start, len(pattern), i))
        return found


def hash_of(fours):
    """Places in a table of 65536: the upper half of the product with 2**32 / golden ratio."""
    return (fours * np.uint32(2654435761)) >> np.uint32(16)


class Expressions:
    """Finds regular expressions; the same interface as Literals."""

    overlap = LONGEST_MATCH - 1

    def __init__(self, patterns):
        self.patterns = [re.compile(pattern) for pattern in patterns]

    def __call__(self, data):
        """A sorted list of (place, length, index of the expression); data: uint8 array."""
        found = []
        for index, pattern in enumerate(self.patterns):
            for match in pattern.finditer(data):
                length = min(match.end() - match.start(), LONGEST_MATCH)
                if length > 0:
                    found.append((match.start(), length, index))
        return sorted(found)


# --- The scan ---
def scan(disk, finder, start=0, chunk=CHUNK):
    """Yields (place, hits): all hits [(offset, length, index), ...] up to the place are found.

    Up to four threads read and search, outside Python's lock most of the time, while the caller
    deals with the hits. Holes of a sparse image are passed over.
    """
    num_workers = min(os.cpu_count() or 1, 4)
    buffers = threading.local()
    waiting = deque()  # (end of the stretch, its future), in the order of the disk.
    with ThreadPoolExecutor(num_workers) as pool:
        try:
            for low, high in stretches(disk, finder, start, chunk):
                task = pool.submit(search_stretch, disk, finder, low, high, chunk, buffers)
                waiting.append((high, task))
                if len(waiting) > num_workers:
                    yield result_of(waiting.popleft())
            while waiting:
                yield result_of(waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    yield disk.size, []


def stretches(disk, finder, start, chunk):
    """(start, end) of the tasks of a scan."""
    done = start
    for low, high in disk.extents(start):
        # A hit may begin in the zeros of the hole before.
        low = max(done, (low - finder.overlap) // PAGE * PAGE)
        for place in range(low, high, chunk * STRETCH):
            done = min(place + chunk * STRETCH, high)
            yield place, done


def result_of(task):
    end, future = task
    return end, future.result()


def search_stretch(disk, finder, start, end, chunk, buffers):
    """The hits that begin in [start, end), in the order of the disk."""
    if not hasattr(buffers, "data"):
        # The buffer begins at a page border: the kernel copies three times as fast there.
        memory = np.empty(chunk + finder.overlap + PAGE, np.uint8)
        buffers.data = memory[-memory.ctypes.data % PAGE :]
    hits = []
    for place in range(start, end, chunk):
        limit = min(chunk, end - place)
        count = disk.read_into(memoryview(buffers.data[: limit + finder.overlap]), place)
        for at, length, index in finder(buffers.data[:count]):
            if at < limit:
                hits.append((place + at, length, index))
    return hits


def aligned(hits, terms):
    """Yields (offset, length, term) of the hits of scan().

    Between zero bytes ASCII reads as UTF-16 of either byte order, one byte apart. Where both were
    found, the one at an odd offset is not a hit, because a file begins at an even one.
    """
    wide = {at for at, _, i in hits if terms[i].encodings[0].startswith("utf-16")}
    for at, length, i in hits:
        has_neighbour = at in wide and (at - 1 in wide or at + 1 in wide)
        if not (at % 2 == 1 and has_neighbour):
            yield at, length, terms[i]
