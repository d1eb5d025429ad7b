"""Finds phrases in the bytes of a disk: every encoding in one pass, in constant memory.

A phrase is looked for as it is written in UTF-8, GBK and UTF-16 (both byte orders). Patterns of
less than 4 bytes would be found everywhere by chance and are left out.
"""

import os
import re
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from common.run import fail
from linux_undelete.disk import PAGE

ENCODINGS = "utf-8", "gbk", "utf-16-le", "utf-16-be"
CHUNK = 1 << 20  # Bytes searched at once: they and the tables stay in the processor's cache.
STRETCH = 16  # Chunks of one task.
SHORTEST = 4  # Bytes of a pattern.
LONGEST_MATCH = 4096  # Bytes of what a regular expression matches.


class Term(NamedTuple):
    """What is looked for: a phrase, its bytes, and every encoding that gives these bytes."""

    phrase: str
    pattern: bytes
    encodings: tuple


def encode_phrases(phrases, encodings=ENCODINGS):
    """The terms of some phrases; identical bytes become one term of several encodings."""
    terms = {}
    for phrase in phrases:
        if not phrase.strip():
            fail("--phrase is empty: give a few words that only the lost text contained")
        usable = 0
        for encoding in encodings:
            try:
                pattern = phrase.encode(encoding)
            except UnicodeEncodeError:
                continue
            if len(pattern) >= SHORTEST:
                usable += 1
                known = terms[pattern].encodings if pattern in terms else ()
                terms[pattern] = Term(phrase, pattern, tuple(dict.fromkeys([*known, encoding])))
        if not usable:
            fail(f"--phrase {phrase!a} has no {SHORTEST} bytes in any of {', '.join(encodings)}")
    return list(terms.values())


def compile_expressions(expressions, encodings=ENCODINGS):
    """The terms of regular expressions, in UTF-8 and GBK.

    `.`, `\\w` and `[...]` mean single bytes, so that only ASCII may stand in brackets; any other
    character may be repeated (`啊+`). At most 4096 bytes are matched.
    """
    terms = {}
    for expression in expressions:
        for encoding in [e for e in encodings if not e.startswith("utf-16")]:
            pattern, in_brackets = b"", False
            for part in re.findall(r"\\.|.", expression, re.DOTALL):
                if not part.isascii():
                    if in_brackets:
                        fail(f"--regex {expression}: in [...] only ASCII; write (你|我) instead")
                    try:
                        part_bytes = part.removeprefix("\\").encode(encoding)
                    except UnicodeEncodeError:
                        break
                    pattern += b"(?:" + re.escape(part_bytes) + b")"
                    continue
                in_brackets = part == "[" or (in_brackets and part != "]")
                pattern += part.encode()
            else:
                known = terms[pattern].encodings if pattern in terms else ()
                terms[pattern] = Term(expression, pattern, (*known, encoding))
    if len({term.phrase for term in terms.values()}) < len(set(expressions)):
        fail(f"--regex looks in UTF-8 and GBK: {', '.join(encodings)} cannot hold the expression")
    for term in terms.values():
        try:
            empty = re.compile(term.pattern).fullmatch(b"")
        except (re.error, OverflowError) as error:
            fail(f"--regex {term.phrase}: {error}")
        if empty:
            fail(f"--regex {term.phrase}: matches nothing at all, and so everywhere")
    return list(terms.values())


class Literals:
    """Finds several byte patterns at once.

    Every occurrence of a pattern of L bytes contains one of its first 2 * step pairs of bytes at a
    multiple of 2 * step, if that is less than L: only such places are looked up in a table of
    pairs, those that are left in a table of four bytes; where four bytes and the last four fit,
    all are compared.
    """

    def __init__(self, patterns):
        self.patterns, shortest = patterns, min(map(len, patterns))
        self.overlap = max(map(len, patterns)) - 1
        # Four bytes from the pair on, or (in short patterns) up to two bytes before it.
        self.step = (shortest - 3) // 2 if shortest > 12 else (shortest - 1) // 2
        self.shifts = max(2 * self.step - 1 - (shortest - 4), 0) + 1
        self.pairs, self.fours = np.zeros(1 << 16, bool), np.zeros(1 << 16, bool)
        self.workspace, fours = threading.local(), []
        for index, pattern in enumerate(patterns):
            for j in range(2 * self.step):
                self.pairs[int.from_bytes(pattern[j : j + 2], "little")] = True
            last = int.from_bytes(pattern[-4:], "little")
            for j in range(len(pattern) - 3):
                four = int.from_bytes(pattern[j : j + 4], "little")
                fours.append((four, j, index, len(pattern), last))
        columns = np.array(sorted(fours), np.int64).T
        self.known, self.j, self.index, self.length, self.last = columns
        self.fours[hashed(self.known.astype("<u4"))] = True
        self.most = int(np.unique(self.known, return_counts=True)[1].max())

    def __call__(self, data):
        """A sorted list of (place, length, index of the pattern); data: uint8 array."""
        if len(data) < SHORTEST:
            return []
        sampled = data[: len(data) // 2 * 2].view("<u2")[:: self.step]
        if len(sampled) > len(getattr(self.workspace, "marks", ())):
            self.workspace.indices = np.empty(len(sampled), np.intp)
            self.workspace.marks = np.empty(len(sampled), bool)
        indices = self.workspace.indices[: len(sampled)]
        marks = self.workspace.marks[: len(sampled)]
        np.copyto(indices, sampled)
        self.pairs.take(indices, out=marks, mode="clip")
        candidates = np.flatnonzero(marks)
        candidates *= 2 * self.step
        fours, found = np.ndarray(len(data) - 3, "<u4", data, strides=(1,)), set()
        for shift in range(self.shifts):
            low, high = np.searchsorted(candidates, (shift, len(fours) + shift))
            places = candidates[low:high] - shift
            values = fours[places]
            likely = np.flatnonzero(self.fours[hashed(values)])
            if len(likely):
                found |= self.compare(data, fours, places[likely], values[likely])
        return sorted(found)

    def compare(self, data, fours, places, values):
        """The hits of patterns that have the four bytes `values` at `places`."""
        found, first = set(), np.searchsorted(self.known, values)
        for number in range(self.most):
            row = np.minimum(first + number, len(self.known) - 1)
            starts = places - self.j[row]
            last = starts + self.length[row] - 4
            fits = (self.known[row] == values) & (starts >= 0) & (last < len(fours))
            row, starts, last = row[fits], starts[fits], last[fits]
            fits = fours[last] == self.last[row]
            for start, i in zip(starts[fits].tolist(), self.index[row[fits]].tolist(), strict=True):
                pattern = self.patterns[i]
                if data[start : start + len(pattern)].tobytes() == pattern:
                    found.add((start, len(pattern), i))
        return found


def hashed(fours):
    """Places in a table of 65536: the upper half of the product with 2**32 / golden ratio."""
    return (fours * np.uint32(2654435761)) >> np.uint32(16)


class Expressions:
    """Finds regular expressions; the same interface as Literals."""

    overlap = LONGEST_MATCH - 1

    def __init__(self, patterns):
        self.patterns = [re.compile(pattern) for pattern in patterns]

    def __call__(self, data):
        found = [
            (match.start(), min(match.end() - match.start(), LONGEST_MATCH), index)
            for index, pattern in enumerate(self.patterns)
            for match in pattern.finditer(data)
            if match.end() > match.start()
        ]
        return sorted(found)


def search_stretch(disk, finder, start, end, chunk, buffers):
    """The hits that begin in [start, end), in the order of the disk."""
    if not hasattr(buffers, "data"):  # From a page border on: the kernel copies three times faster.
        memory = np.empty(chunk + finder.overlap + PAGE, np.uint8)
        buffers.data = memory[-memory.ctypes.data % PAGE :]
    hits = []
    for place in range(start, end, chunk):
        limit = min(chunk, end - place)
        count = disk.read_into(memoryview(buffers.data[: limit + finder.overlap]), place)
        found = finder(buffers.data[:count])
        hits += [(place + at, length, index) for at, length, index in found if at < limit]
    return hits


def scan(disk, finder, start=0, chunk=CHUNK):
    """Yields (place, hits): all hits [(offset, length, index), ...] up to the place are found.

    Up to four threads read and search, outside Python's lock most of the time, while the caller
    deals with the hits. Holes of a sparse image are passed over.
    """
    workers = min(os.cpu_count() or 1, 4)
    buffers, waiting = threading.local(), deque()

    def stretches():
        done = start
        for low, high in disk.extents(start):
            low = max(done, (low - finder.overlap) // PAGE * PAGE)  # A hit may begin in zeros.
            for place in range(low, high, chunk * STRETCH):
                done = min(place + chunk * STRETCH, high)
                yield place, done

    def oldest():
        end, future = waiting.popleft()
        return end, future.result()

    with ThreadPoolExecutor(workers) as pool:
        try:
            for low, high in stretches():
                task = pool.submit(search_stretch, disk, finder, low, high, chunk, buffers)
                waiting.append((high, task))
                if len(waiting) > workers:
                    yield oldest()
            while waiting:
                yield oldest()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    yield disk.size, []


def aligned(hits, terms):
    """Yields (offset, length, term) of the hits of scan().

    Between zero bytes ASCII reads as UTF-16 of either byte order, one byte apart: where both were
    found, the one at an odd offset is no hit. (A file begins at an even one.)
    """
    wide = {at for at, _, i in hits if terms[i].encodings[0].startswith("utf-16")}
    for at, length, i in hits:
        if not (at % 2 and at in wide and wide & {at - 1, at + 1}):
            yield at, length, terms[i]
