"""A plain rule that says whether a block of bytes is text, and of what kind: it counts characters.

The file needs NumPy alone: copy it whole, or take one function out of it.

Post: https://kexue.fm/archives/4491 (it has no such rule; this is what our network is measured
against).
"""

import re

import numpy as np


def best_encoding(block):
    """How far a block is from being text, in the encoding that fits best.

    In UTF-8 and GBK the characters that do not belong into a text are control characters and what
    cannot be decoded. In UTF-16 they are all but letters, punctuation and Chinese characters, and
    some punctuation must be there. Zeros at the end of the block do not count, nor do the bytes
    of a character that is cut at the start or end of the block.

    Args:
        block: bytes, or a uint8 array.

    Returns:
        (the fraction of characters that do not belong into a text, the encoding). A block of
        zeros is (1.0, "utf-8"): not text at all.
    """
    text = bytes(block).rstrip(b"\0")
    candidates = [(1.0, "utf-8")]
    num_controls = count_controls(text)
    # With more control characters it is not text in these encodings, whatever else is there.
    if text and num_controls <= len(text) / 8:
        for encoding, start in (("utf-8", start_of_utf8(text)), ("gbk", 0), ("gbk", 1)):
            characters = text[start:].decode(encoding, "replace")
            num_wrong = num_controls + count_undecoded(characters)
            candidates.append((num_wrong / max(len(characters), 1), encoding))
            if num_wrong == 0:
                return candidates[-1]
    for encoding, dtype in (("utf-16-le", "<u2"), ("utf-16-be", ">u2")):
        units = np.frombuffer((text + b"\0")[: len(text) + len(text) % 2], dtype)
        if text and has_utf16_punctuation(units):
            fraction = 1 - float(is_utf16_text(units).mean())
            candidates.append((fraction, encoding))
    return min(candidates, key=lambda candidate: candidate[0])


def count_controls(text):
    """How many bytes are control characters, other than tab, line feed, form feed and return."""
    controls = bytes([*range(9), 11, *range(14, 32), 127])
    return len(text) - len(text.translate(None, controls))


def start_of_utf8(text):
    """The place of the first whole character: up to three bytes may be the end of a cut one."""
    for place in range(min(4, len(text))):
        if text[place] & 0xC0 != 0x80:
            return place
    return 0


def count_undecoded(characters):
    """How many replacement characters there are; one at the end may be a character cut there."""
    count = characters.count("\ufffd")
    if characters.endswith("\ufffd"):
        count -= 1
    return count


def has_utf16_punctuation(units):
    """Whether one of a hundred is a space, a line feed, or a Chinese full stop or comma."""
    common = (units == 0x20) | (units == 0x0A) | (units == 0x3002) | (units == 0xFF0C)
    return common.sum() >= len(units) / 100


def is_utf16_text(units):
    """Which characters are ASCII, Chinese, Latin letters with accents, or punctuation."""
    ascii_text = (units >= 0x20) & (units < 0x7F) | np.isin(units, (9, 10, 13, 0xFEFF))
    chinese = (units >= 0x4E00) & (units < 0xA000) | (units >= 0xFF01) & (units <= 0xFF5E)
    other = (units >= 0xA0) & (units < 0x250) | (units >= 0x2010) & (units < 0x3040)
    return ascii_text | chinese | other


def is_text_rule(block, threshold=0.002):
    """Whether a block is text: at most this fraction of it does not belong into a text."""
    fraction, _ = best_encoding(block)
    return fraction <= threshold


def kind_rule(block, threshold=0.002):
    """The kind of a block, by its encoding and by how often the typical marks of a kind occur.

    Returns:
        "other" (not text), "utf16", "chinese-gbk", "python", "c", "json", "html", "english",
        "chinese-utf8", or "data" where no marks are frequent.
    """
    fraction, encoding = best_encoding(block)
    if fraction > threshold:
        return "other"
    if encoding.startswith("utf-16"):
        return "utf16"
    if encoding == "gbk":
        return "chinese-gbk"
    text = bytes(block).rstrip(b"\0").decode(encoding, "ignore")
    marks = {  # kind: (weight, pattern)
        "python": (4, r"^ *(?:def |class |import |from |return\b|self\.|raise |>>> |@\w|elif )|:$"),
        "c": (3, r"^\s*#\s*(?:include|define|if|endif)|[\w)\]}\"];\s*$|^\s*[{}]\s*$|^\s*/?[/*]|::"),
        "json": (3, r'"[^"\n]*"\s*:|\], \[|^\s*-?\d+\.\d+,?$'),
        "html": (4, r"</?\w[^>\n]*>"),
        "english": (1, r"\b(?:the|of|and|to|is|in|that|for|with|be)\b"),
        "chinese-utf8": (0.5, "[\u4e00-\u9fff]"),
    }
    counts = {}
    for kind, (weight, pattern) in marks.items():
        counts[kind] = weight * len(re.findall(pattern, text, re.MULTILINE))
    best = max(counts, key=counts.get)
    if counts[best] > len(text) / 100:
        return best
    return "data"
