"""Sorts recovered texts: versions of one file together, the best guess first, with their diffs.

Two texts are versions of one file if the smaller one shares half of its lines (or sentences) with
the other. The best text is the one with the most phrases, then a whole one rather than a piece,
then the longest, then the first on the disk.
"""

# ruff: noqa: RUF001  Chinese has full-width punctuation.
import difflib
import re
import zlib
from itertools import pairwise

MIN_SHARED = 0.5
SKETCH = 100  # Lines of a text that are compared: those with the smallest hashes.
MAX_DIFFS = 50
MAX_DIFF = 4000  # Lines of a text that difflib gets, and of the diff that is kept.
SEPARATORS = re.compile(r"[\n。！？；]|[.!?;] ")


def line_hashes(text):
    """(sorted hashes of the distinct lines, at most SKETCH; whether there were more)."""
    lines = {line.strip() for line in SEPARATORS.split(text)}
    hashes = {zlib.crc32(line.encode("utf-8", "replace")) for line in lines if len(line) > 2}
    return sorted(hashes)[:SKETCH], len(hashes) > SKETCH


def shared_fraction(one, other):
    """The fraction of the smaller text's lines that are in the other; estimated for long texts.

    The smallest hashes of a long text are a random sample of its lines: both texts are compared
    below the largest hash up to which both are known completely.
    """
    known = 1 << 32
    for hashes, has_more in (one, other):
        if has_more:
            known = min(known, hashes[-1])
    first = {value for value in one[0] if value <= known}
    second = {value for value in other[0] if value <= known}
    return len(first & second) / max(min(len(first), len(second)), 1)


def rank(text):
    """The sorting key: most phrases, whole, longest, first."""
    length = text["end"] - text["start"]
    is_piece = len(text["why_piece"]) > 0
    return -len(text["phrases"]), is_piece, -length, text["start"]


def group_versions(texts, read):
    """Lists of texts, the best one first in each list, and the best list first.

    Args:
        read: a function from a text to its words.
    """
    leaders = []  # The sketch of the first text of each group.
    groups = []
    groups_with = {}  # {hash of a line: the groups whose texts have it}
    for text in sorted(texts, key=rank):
        sketch = line_hashes(read(text))
        group = most_similar(sketch, leaders, groups_with)
        if group is not None:
            groups[group].append(text)
            continue
        for value in sketch[0]:
            groups_with.setdefault(value, []).append(len(groups))
        leaders.append(sketch)
        groups.append([text])
    return groups


def most_similar(sketch, leaders, groups_with):
    """The group that a text is a version of, or None. Only groups that share a line can be it."""
    candidates = {group for value in sketch[0] for group in groups_with.get(value, ())}
    best = None
    best_fraction = 0
    for group in sorted(candidates):
        fraction = shared_fraction(sketch, leaders[group])
        if fraction > best_fraction:
            best = group
            best_fraction = fraction
    if best_fraction >= MIN_SHARED:
        return best
    return None


def difference(one, other, names):
    """A unified diff as one string, or a line that says that the texts are too long for one."""
    first = one.splitlines()
    second = other.splitlines()
    if max(len(first), len(second)) > MAX_DIFF:
        return f"(more than {MAX_DIFF} lines: no diff)"
    lines = list(difflib.unified_diff(first, second, *names, lineterm="", n=2))
    return "\n".join(lines[:MAX_DIFF])


def differences(group, read):
    """Yields the diffs between neighbours of a group, of the best MAX_DIFFS + 1 texts."""
    for one, other in pairwise(group[: MAX_DIFFS + 1]):
        yield difference(read(one), read(other), (one["file"], other["file"]))
