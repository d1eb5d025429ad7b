"""Word vectors as such: word2vec's file formats, and the words that are nearest to others."""

import mmap
import os
from pathlib import Path

import numpy as np

from common.cli import fail
from common.files import replacing


# --- Writing ---
def write_vectors(path, words, vectors):
    """Writes word2vec's format: binary for a name that ends in .bin, else text.

    Args:
        words: list of str.
        vectors: float32 array (words, dimension).
    """
    path = Path(path)
    vectors = np.asarray(vectors, "<f4")
    is_finite = np.isfinite(vectors).all(axis=1)
    for word, finite in zip(words, is_finite, strict=True):
        if not word or " " in word or "\n" in word:
            fail(f"{path}: this format has no empty words and none with spaces: {word!r}")
        if not finite:
            fail(f"{path}: the vector of {word!r} is not finite: the training diverged")
    is_binary = path.suffix == ".bin"
    number_format = " ".join(["%.9g"] * vectors.shape[1])  # Nine digits tell all float32 apart.
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(b"%d %d\n" % vectors.shape)
        for word, vector in zip(words, vectors, strict=True):
            if is_binary:
                row = vector.tobytes()
            else:
                row = (number_format % tuple(vector.tolist())).encode() + b"\n"
            file.write(word.encode() + b" " + row)


# --- Reading ---
def read_vectors(path):
    """The words and float32 vectors of a file in word2vec's text or binary format.

    As in gensim the first of two equal words stays. What the header promises is checked against
    the size of the file before memory is taken. Any mistake in the file ends the script with one
    line.
    """
    path = Path(path)
    if not path.is_file():
        fail(f"no vectors in {path}: there is no such file")
    with path.open("rb") as file:
        count, dim, is_binary = read_header(file, path)
        if is_binary:
            rows = binary_rows(file, path, count, dim)
        else:
            rows = text_rows(file, path, count, dim)
        vectors = np.empty((count, dim), np.float32)
        row_of_word = {}
        for place, name, numbers in rows:
            word = decode_word(name, place)
            if word not in row_of_word:
                row = len(row_of_word)
                with np.errstate(over="ignore"):  # What float32 cannot hold becomes infinite.
                    vectors[row] = numbers
                if not np.isfinite(vectors[row]).all():
                    fail(f"{place}: the vector of {word[:40]!r} has a number that is not finite")
                row_of_word[word] = row
    return list(row_of_word), vectors[: len(row_of_word)]


def read_header(file, path):
    """(words, dimension, whether the rows are binary); the file then stands at its first row."""
    line = file.readline(100)
    fields = line.split()
    start = file.tell()
    sample = file.read(65536)
    size = file.seek(0, os.SEEK_END) - start
    file.seek(start)
    if len(fields) != 2 or not all(map(bytes.isdigit, fields)) or not line.endswith(b"\n"):
        fail(f'{path}:1: expected the header of word2vec vectors, "WORDS DIMENSION"')
    count, dim = map(int, fields)
    is_binary = path.suffix == ".bin" or looks_binary(sample)
    smallest_row = 2 + 2 * dim  # "w 0 0\n" of two numbers.
    if is_binary:
        smallest_row = 2 + 4 * dim
    if count == 0 or dim == 0 or count * smallest_row > size:
        fail(
            f"{path}:1: the header promises {count:,} words of {dim:,} numbers, "
            f"{size:,} bytes follow"
        )
    return count, dim, is_binary


def looks_binary(sample):
    """Whether more than a hundredth of the bytes are control characters."""
    text_bytes = bytes({*range(32, 256), *b"\t\n\r"})
    num_control = len(sample.translate(None, text_bytes))
    return num_control > len(sample) / 100


def decode_word(name, place):
    try:
        word = name.decode()
    except UnicodeDecodeError:
        fail(f"{place}: the word {name[:40]!r} is not UTF-8")
    if not word or "\n" in word:
        fail(f"{place}: expected a word, got {word[:40]!r}")
    return word


def text_rows(file, path, count, dim):
    """The rows of the text format: (the file and line, word, numbers)."""
    number = 1
    for number, line in enumerate(file, 2):
        place = f"{path}:{number}"
        if number > count + 1:
            if line.strip():
                fail(f"{place}: the header promises {count:,} words, here is one more")
            continue
        if not line.endswith(b"\n"):
            fail(f"{place}: the file ends within this line: it was cut short")
        name, *numbers = line.rstrip().split(b" ")
        if len(numbers) != dim:
            fail(
                f"{place}: expected a word without spaces and {dim} numbers, "
                f"got {len(numbers)} after {name[:40].decode(errors='replace')!r}"
            )
        try:
            numbers = [float(x) for x in numbers]
        except ValueError as error:
            fail(f"{place}: {str(error)[:80]}")
        yield place, name, numbers
    if number < count + 1:
        fail(f"{path}:{number}: the header promises {count:,} words, the file ends here")


def binary_rows(file, path, count, dim):
    """The rows of the binary format: (the file and byte, word, numbers).

    word2vec.c ends each row with a line break, gensim does not.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = file.tell()
        for _ in range(count):
            while data[at : at + 1] == b"\n":
                at += 1
            space = data.find(b" ", at)
            end = space + 1 + 4 * dim
            if space < 0 or end > len(data):
                fail(f"{path}, byte {at}: the header promises {count:,} words, the file ends here")
            # A copy, because an array that looks into the map would keep it from closing.
            row = np.frombuffer(data, "<f4", dim, space + 1).copy()
            yield f"{path}, byte {at}", data[at:space], row
            at = end
        if data[at : at + 2] not in (b"", b"\n"):
            fail(f"{path}, byte {at}: the header promises {count:,} words, the file goes on")


# --- Neighbours ---
def normalize(vectors):
    """The vectors as float32 with length 1; zeros stay zeros."""
    vectors = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


def most_similar(words, unit, positive, negative=(), topn=10):
    """The [(word, cosine)] nearest to the sum of some rows less others.

    The rows themselves are left out.

    Args:
        words: list of str.
        unit: normalize(vectors).
        positive, negative: rows that are added and taken away.
    """
    query = unit[list(positive)].sum(axis=0) - unit[list(negative)].sum(axis=0)
    cosines = unit @ normalize(query[None])[0]
    cosines[[*positive, *negative]] = -np.inf
    topn = min(topn, int(np.isfinite(cosines).sum()))
    best = np.argpartition(-cosines, max(topn - 1, 0))[:topn]
    best = best[np.argsort(-cosines[best])]
    return [(words[i], float(cosines[i])) for i in best]
