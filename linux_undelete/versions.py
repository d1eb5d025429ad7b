"""Sorts recovered texts: versions of one file together, the best guess first, with their diffs.

Two texts are versions of one file if the smaller shares half of its lines (or sentences) with the
other. The best text is the one with the most phrases, then whole rather than a piece, then the
longest, then the first on the disk.
"""

# ruff: noqa: RUF001  Chinese has full-width punctuation.
import difflib
import re
import zlib
from itertools import pairwise

SHARED = 0.5
SKETCH = 100  # Lines of a text that are compared: those with the smallest hashes.
MAX_DIFFS = 50
MAX_DIFF = 4000  # Lines of a text that difflib gets, and of the diff that is kept.
PARTS = re.compile(r"[\n。！？；]|[.!?;] ")


def line_hashes(text):
    """(sorted hashes of the distinct lines, SKETCH at most; whether there were more)."""
    parts = {part.strip() for part in PARTS.split(text)}
    hashes = sorted({zlib.crc32(part.encode("utf-8", "replace")) for part in parts if part[2:]})
    return hashes[:SKETCH], len(hashes) > SKETCH


def shared_share(one, other):
    """The share of the smaller text's lines that are also in the other; estimated for long texts.

    The smallest hashes of a long text are a random sample of its lines: both are compared below
    the largest hash that both know all of.
    """
    known = min([hashes[-1] for hashes, more in (one, other) if more], default=1 << 32)
    first, second = ({x for x in hashes if x <= known} for hashes, _ in (one, other))
    return len(first & second) / max(min(len(first), len(second)), 1)


def rank(text):
    """The sorting key: most phrases, whole, longest, first."""
    length = text["end"] - text["start"]
    return -len(text["phrases"]), len(text["why_piece"]) > 0, -length, text["start"]


def group_versions(texts, read):
    """Lists of texts, the best first in each and among them; read(text) gives the words."""
    texts = sorted(texts, key=rank)
    sketches = [line_hashes(read(text)) for text in texts]
    leaders, groups, having = [], [], {}
    for number, sketch in enumerate(sketches):
        # Only groups that share a line can be versions; the first text of each is compared.
        near = sorted({group for part in sketch[0] for group in having.get(part, ())})
        shares = [(shared_share(sketch, sketches[leaders[group]]), -group) for group in near]
        share, group = max(shares, default=(0, 0))
        if share >= SHARED:
            groups[-group].append(texts[number])
            continue
        for part in sketch[0]:
            having.setdefault(part, []).append(len(groups))
        leaders.append(number)
        groups.append([texts[number]])
    return groups


def difference(one, other, names):
    """A unified diff as one string; says so where the texts are too long for one."""
    lines = [text.splitlines() for text in (one, other)]
    if max(map(len, lines)) > MAX_DIFF:
        return f"(more than {MAX_DIFF} lines: no diff)"
    found = list(difflib.unified_diff(*lines, *names, lineterm="", n=2))
    return "\n".join(found[:MAX_DIFF])


def differences(group, read):
    """Yields the diffs between neighbours of a group, of the best MAX_DIFFS + 1 texts."""
    for one, other in pairwise(group[: MAX_DIFFS + 1]):
        yield difference(read(one), read(other), (one["file"], other["file"]))
