"""Questions as numbers: vocabulary, and batches of few shapes.

A question is kept as the keys of its words, one number for each different word seen, known to the
vocabulary or not. So two unknown words stay two words: an answer that no vocabulary holds can be
pointed to, and probabilities are summed over the places of one word, never over all unknown ones.
"""

import hashlib
import json
from typing import NamedTuple

import numpy as np

from common.run import fail, write_text
from data.stories import BLANK

MAX_WORDS = 1024  # Of a longer passage those around the blank are read.
STEPS = 32  # Sides, passages and queries are padded to the next multiple of this many words.
FEATURES = 9
KINDS = "post", "as-reader", "ours"


class Item(NamedTuple):
    keys: np.ndarray  # int32, a key for each word of the passage.
    blank: int  # The place of the blank.
    start: int  # Of the sentence with the blank,
    end: int  # and where it ends.
    answer: int  # The key of the answer, -1 if it is not among these words.


def words_read(question):
    """Those around the blank, at most MAX_WORDS, and how many of the passage come before them."""
    words = [word for sentence in question.sentences for word in sentence]
    blank = words.index(BLANK)
    first = min(max(0, blank - MAX_WORDS // 2), max(0, len(words) - MAX_WORDS))
    return words[first : first + MAX_WORDS], first


def encode(question, index):
    """The Item of a question with one blank. New words are added to `index`, {word: key}.

    Without a blank: ValueError.
    """
    words, first = words_read(question)
    lengths = [len(sentence) for sentence in question.sentences]
    blank, ends = words.index(BLANK), np.cumsum(lengths)
    sentence = int(np.searchsorted(ends, first + blank, side="right"))
    start, end = int(ends[sentence]) - lengths[sentence], int(ends[sentence])
    keys = np.array([index.setdefault(word, len(index)) for word in words], "int32")
    answer = index[question.answer] if question.answer in words else -1
    return Item(keys, blank, max(0, start - first), min(end - first, len(words)), answer)


def encode_all(questions, index):
    """The Items of the questions; one that has no blank, or two, has the Item None."""
    return [
        encode(q, index) if sum(s.count(BLANK) for s in q.sentences) == 1 else None
        for q in questions
    ]


# --- Vocabulary ---
def build_vocabulary(items, index, min_count, more=()):
    """The words that occur so often, most frequent first, after BLANK; then `more`.

    Word i of the list has id i + 1; 0 = unknown. The second result is how many words come before
    those of `more`.
    """
    counts = np.zeros(len(index), int)
    for item in items:
        counts += np.bincount(item.keys, minlength=len(index))
    kept = [(-counts[key], word) for word, key in index.items() if counts[key] >= min_count]
    words = [BLANK, *(word for _, word in sorted(kept) if word != BLANK)]
    known = set(words)
    return words + [word for word in more if word not in known], len(words)


def choose_words(kind, items, index, min_count, embedding_dim, vector_words=(), vectors=None):
    """The vocabulary for a kind of reader, its characters, and arguments of the reader's builder.

    With vectors the post knows the words that have one, and no others. Ours knows those of the
    training questions too, and learns something about these only. vectors: (words, dimensions),
    a row for each of vector_words; words without one have zeros.
    """
    if len(vector_words) and not any(word in index for word in vector_words if word != BLANK):
        fail("no word of the questions has a word vector: expected words cut as --vectors has them")
    if kind == "post" and len(vector_words):
        words, trained = [BLANK, *(word for word in vector_words if word != BLANK)], 0
    else:
        words, trained = build_vocabulary(items, index, min_count, vector_words)
    sizes = {"vocabulary_size": len(words), "embedding_dim": embedding_dim}
    if len(vector_words):
        rows = dict(zip(vector_words, vectors, strict=True))
        none = np.zeros(vectors.shape[1], "float32")
        sizes["vectors"] = np.stack([rows.get(word, none) for word in words])
        sizes["embedding_dim"] = vectors.shape[1]
    characters = sorted({letter for word in words for letter in (word[0], word[-1])})
    if kind == "ours":
        sizes |= {"num_trained": trained, "num_characters": len(characters)}
    return words, characters, sizes


def fingerprint(index, vector_words, vectors):
    """SHA-256 of the vectors that are used: of the words in `index`, in the order of the words."""
    rows = {word: row for word, row in zip(vector_words, vectors, strict=True) if word in index}
    digest = hashlib.sha256()
    for word in sorted(rows):
        digest.update(word.encode() + np.asarray(rows[word], "<f4").tobytes())
    return f"{len(rows):,} words, sha256 {digest.hexdigest()}"


def save_words(path, model, vocabulary, characters):
    """What predict.py needs to number words as train.py did."""
    words = {"model": model, "vocabulary": vocabulary, "characters": characters}
    write_text(path, json.dumps(words, ensure_ascii=False))


class Lookup:
    """Numbers of words: from keys to ids of words, and of their first and last character."""

    def __init__(self, index, vocabulary, characters):
        ids = {word: i for i, word in enumerate(vocabulary, 1)}
        letters = {letter: i for i, letter in enumerate(characters, 1)}
        self.ids = np.array([ids.get(word, 0) for word in index], "int32")
        self.characters = np.array(
            [[letters.get(word[0], 0), letters.get(word[-1], 0)] for word in index], "int32"
        ).reshape(-1, 2)


# --- Batches ---
def sizes(kind, items):
    """What has to be padded, (items, 1 or 2): sides, passage and query, or the passage.

    The reader of the post treats both sides alike, so the shorter one comes first: batches of
    like shapes are then many times fewer than with left and right.
    """
    if kind == "post":
        sides = np.array([(i.blank, len(i.keys) - i.blank - 1) for i in items]).reshape(-1, 2)
        return np.maximum(1, np.sort(sides, axis=1))
    if kind == "as-reader":
        return np.array([(i.end - i.start, len(i.keys)) for i in items])
    return np.array([(len(i.keys),) for i in items])


def plan(all_sizes, batch_size, seed=None, pool=50):
    """[(numbers of the items of a batch, its shape)].

    With a seed the items are shuffled; within pools of `pool` batches those of like size come
    together, and the batches are shuffled again. all_sizes: (items, 1 or 2). All shapes are
    multiples of STEPS, so that there are 32 of them for passages, of which the official ones use
    14, and a few dozens for two sides: nearly all are seen, and compiled, in the first epoch.
    """
    rng = np.random.default_rng(seed)
    order = np.arange(len(all_sizes)) if seed is None else rng.permutation(len(all_sizes))
    rounded = -(-all_sizes // STEPS) * STEPS
    size = len(order) if seed is None else pool * batch_size
    batches = []
    for start in range(0, len(order), max(size, 1)):
        some = order[start : start + size]
        some = some[np.lexsort((*all_sizes[some].T[:1], rounded[some, -1]))]
        for first in range(0, len(some), batch_size):
            chosen = some[first : first + batch_size]
            batches.append((chosen, tuple(map(int, rounded[chosen].max(0)))))
    if seed is None:
        return batches
    return [batches[i] for i in rng.permutation(len(batches))]


def fill_rows(rows, width, value):
    """The rows as one array, filled up with `value` at their ends."""
    array = np.full((len(rows), width), value, "int32")
    for line, row in zip(array, rows, strict=True):
        line[: len(row)] = row
    return array


def columns(kind, item):
    """The places of the passage that a reader's row of input stands for, a list for each input."""
    places = np.arange(len(item.keys))
    if kind != "post":
        return [places]
    return sorted([places[: item.blank], places[item.blank + 1 :]], key=len)


def build_batch(kind, items, shape, lookup, batch_size=None):
    """(inputs, targets, weights, places) of a reader of this kind, as NumPy arrays.

    Word ids are 0 for unknown words and -1 beyond the end. targets are 1 at all places of the
    answer, places (the same shape) say which word of the passage a column is, -1 if none. A batch
    that is not full is filled with rows of weight 0, the others weighing more: the mean is theirs.
    """
    rows = [columns(kind, item) for item in items]
    widths = shape if kind == "post" else shape[-1:]
    places = [
        fill_rows([row[part] for row in rows], width, -1) for part, width in enumerate(widths)
    ]
    keys = fill_rows([item.keys for item in items], max(len(i.keys) for i in items), -1)
    line = np.arange(len(items))[:, None]

    def take(table, at, missing):
        """table at the keys of these places, `missing` beyond the end."""
        return np.where(
            (at < 0).reshape(at.shape + (1,) * (table.ndim - 1)),
            missing,
            table[keys[line, np.maximum(at, 0)]],
        )

    if kind == "post":
        inputs = {
            name: take(lookup.ids, at, -1)
            for name, at in zip(("left", "right"), places, strict=True)
        }
        for part, at in enumerate(places):  # The post reads one unknown word where a side is empty.
            inputs[("left", "right")[part]][(at < 0).all(1), 0] = 0
    else:
        inputs = {"document": take(lookup.ids, places[0], -1)}
    if kind == "as-reader":
        at = fill_rows([np.arange(item.start, item.end) for item in items], shape[0], -1)
        inputs["query"] = take(lookup.ids, at, -1)
    if kind == "ours":
        inputs["characters"] = take(lookup.characters, places[0], 0)
        inputs["features"] = features(items, take(np.arange(len(lookup.ids)), places[0], -1))
    places = np.concatenate(places, axis=1)
    found = take(np.arange(len(lookup.ids)), places, -2)
    targets = (found == np.array([[item.answer] for item in items])).astype("float32")
    weights = np.ones(len(items), "float32")
    if batch_size and len(items) < batch_size:
        row = np.arange(batch_size) % len(items)
        inputs = {name: array[row] for name, array in inputs.items()}
        targets, places, weights = targets[row], places[row], weights[row]
        weights[len(items) :] = 0
        weights *= batch_size / len(items)
    return inputs, targets, weights, places


def features(items, keys):
    """What can be said of each word without knowing any: float32 (items, words, FEATURES).

    The logarithm of how often it occurs; of its distance to the blank; whether it stands before
    it; whether in its sentence; whether the word also stands in that sentence; whether the one or
    two words to the left, to the right are those of the blank. keys: (items, words), -1 beyond.
    """
    inside = keys >= 0
    same = (keys[:, :, None] == keys[:, None, :]) & inside[:, None, :]
    place = np.arange(keys.shape[1])
    blank, start, end = (
        np.array([[getattr(i, n)] for i in items]) for n in ("blank", "start", "end")
    )
    near = (place >= start) & (place < end)
    result = np.zeros((*keys.shape, FEATURES), "float32")
    result[..., 0] = np.log(np.maximum(same.sum(2), 1))
    result[..., 1] = np.log1p(np.abs(place - blank)) / 3
    result[..., 2] = place < blank
    result[..., 3] = near
    result[..., 4] = (same & near[:, None, :] & (place != blank)[:, None, :]).any(2)
    padded = np.pad(keys, ((0, 0), (2, 2)), constant_values=-3)
    line = np.arange(len(items))[:, None]
    for column, steps in ((5, (-1,)), (6, (1,)), (7, (-1, -2)), (8, (1, 2))):
        result[..., column] = np.all(
            [padded[line, place + 2 + k] == padded[line, blank + 2 + k] for k in steps], axis=0
        )
    result[..., 5:] *= (place != blank)[..., None]
    return result * inside[..., None]
