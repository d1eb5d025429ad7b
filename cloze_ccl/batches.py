"""Questions as numbers: vocabulary, batches of few shapes, what a reader answers, baselines.

A question is kept as the keys of its words, one number for each different word seen, known to the
vocabulary or not. So two unknown words stay two words: an answer that no vocabulary holds can be
pointed to, and probabilities are summed over the places of one word, never over all unknown ones.
"""

import json
from collections import Counter
from typing import NamedTuple

import numpy as np

from cloze_ccl.pages import write_picture
from cloze_ccl.texts import exact_match, usable_only, write_answers
from common.table import proportion
from data.stories import BLANK, is_noun, part_of_speech

MAX_WORDS = 1024  # Of a longer passage those around the blank are read.
STEPS = 32  # Sides, passages and queries are padded to the next multiple of this many words.
FEATURES = 9
KINDS = "post", "as-reader", "ours"


class Item(NamedTuple):
    keys: np.ndarray  # int32, a key for each word of the passage.
    blank: int  # The place of the blank.
    start: int  # Of the sentence with the blank,
    end: int  # and where it ends.
    answer: int  # The key of the answer, -1 if it is not in the passage.


def encode(question, index):
    """The Item of a question with one blank. New words are added to `index`, {word: key}."""
    lengths = [len(sentence) for sentence in question.sentences]
    words = [word for sentence in question.sentences for word in sentence]
    blank = words.index(BLANK)
    ends = np.cumsum(lengths)
    sentence = int(np.searchsorted(ends, blank, side="right"))
    start, end = int(ends[sentence]) - lengths[sentence], int(ends[sentence])
    first = min(max(0, blank - MAX_WORDS // 2), max(0, len(words) - MAX_WORDS))
    words = words[first : first + MAX_WORDS]
    keys = np.array([index.setdefault(word, len(index)) for word in words], "int32")
    answer = index[question.answer] if question.answer in words else -1
    blank, end = blank - first, min(end - first, len(words))
    return Item(keys, blank, max(0, start - first), end, answer)


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
    training questions too, and learns something about these only.
    """
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
        sides = [(i.blank, len(i.keys) - i.blank - 1) for i in items]
        return np.maximum(1, np.sort(sides, axis=1))
    if kind == "as-reader":
        return np.array([(i.end - i.start, len(i.keys)) for i in items])
    return np.array([(len(i.keys),) for i in items])


def plan(all_sizes, batch_size, seed=None, pool=50):
    """[(numbers of the items of a batch, its shape)], each a multiple of STEPS.

    With a seed the items are shuffled; within pools of `pool` batches those of like size come
    together, and the batches are shuffled again. All shapes are multiples of STEPS, so that there
    are 32 of them for passages, of which the official ones use 14, and a few dozens for two sides:
    nothing is compiled after the first epoch.
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


# --- Answers ---
def read(model, kind, items, lookup, batch_size=64):
    """For each item the probability of each word of its passage: arrays, None for no Item."""
    found, asked = [None] * len(items), [i for i, item in enumerate(items) if item]
    for chosen, shape in plan(sizes(kind, [items[i] for i in asked]), batch_size):
        chosen = [asked[i] for i in chosen]
        some = [items[i] for i in chosen]
        inputs, _, _, places = build_batch(kind, some, shape, lookup, batch_size)
        rows = np.exp(np.asarray(model.predict_on_batch(inputs), "float64"))
        for i, row, at in zip(chosen, rows, places, strict=False):
            found[i] = np.zeros(len(items[i].keys))
            found[i][at[at >= 0]] = row[at >= 0]
    return found


def best_keys(items, probabilities):
    """The key of the word with the largest sum of probabilities, for each item."""
    best = []
    for item, row in zip(items, probabilities, strict=True):
        keys, place = np.unique(item.keys, return_inverse=True)
        best.append(int(keys[np.bincount(place, row).argmax()]))
    return best


def is_content(word):
    """Nouns, verbs, adjectives and fixed phrases of at least two characters."""
    return len(word) > 1 and part_of_speech(word)[0] in "nsvailz" and word[0] >= "\u3400"


def baselines(items, words, seed=0):
    """{name: keys answered}: what can be said without reading.

    A random content word; the most frequent noun, of several the first; the noun nearest to the
    blank, of two the left one. words: the word of each key.
    """
    rng = np.random.default_rng(seed)
    names = "random content word", "most frequent noun", "nearest noun"
    answers = {name: [] for name in names}
    for item in items:
        keys = [int(key) for place, key in enumerate(item.keys) if place != item.blank]
        content = sorted({key for key in keys if is_content(words[key])}) or keys or [-1]
        nouns = [key for key in keys if is_noun(words[key])]
        near = [
            (abs(place - item.blank), place, int(key))
            for place, key in enumerate(item.keys)
            if place != item.blank and is_noun(words[key])
        ]
        answers[names[0]].append(content[int(rng.random() * len(content))])
        answers[names[1]].append(Counter(nouns or content).most_common(1)[0][0])
        answers[names[2]].append(min(near)[2] if near else content[0])
    return answers


def judge(questions, items, probabilities, words, vocabulary):
    """The answers {id: word}, metrics {name: number}, and what is to say about the questions."""
    asked = [(q, i, p) for q, i, p in zip(questions, items, probabilities, strict=True) if i]
    answers = {question.id: question.answer for question in questions}
    found = {"accuracy": best_keys([i for _, i, _ in asked], [p for *_, p in asked])}
    plain = baselines([item for _, item, _ in asked], words)
    found |= {f"accuracy, {name}": keys for name, keys in plain.items()}
    metrics, given = {}, {}
    for name, keys in found.items():
        said = {q.id: words[key] for (q, *_), key in zip(asked, keys, strict=True)}
        given = given or said
        metrics[name] = proportion(*exact_match(said, answers))
    unknown = sum(question.answer not in vocabulary for question in questions)
    notes = {"test questions with an unknown answer": f"{unknown} of {len(questions)}"}
    notes["unusable test questions"] = json.dumps(usable_only(questions)[1])
    kinds = Counter(question.kind for question in questions if question.kind)
    if kinds:
        right = Counter(q.kind for q in questions if given.get(q.id) == q.answer)
        notes["accuracy by kind"] = ", ".join(f"{k} {right[k] / kinds[k]:.3f}" for k in kinds)
    return given, metrics, notes


def evaluate(model, kind, data, encoded, lookup, words, folder):
    """Metrics and details of all test sets in `encoded`; writes answers and a picture to folder.

    data: {name of a test set: Questions}; encoded: {its name: their Items}; words: of each key.
    """
    metrics, details, known = {}, {}, {w for w, i in zip(words, lookup.ids, strict=True) if i}
    for part, items in encoded.items():
        name = "" if part == "test" else f" on {part}"
        rows = read(model, kind, items, lookup)
        answers, found, said = judge(data[part], items, rows, words, known)
        write_answers(folder / f"{part}.out", answers)
        metrics |= {what.replace("accuracy", f"accuracy{name}"): m for what, m in found.items()}
        details |= {f"{what}{name}": note for what, note in said.items()}
        write_picture(folder / "attention.svg", data[part], items, rows)
    return metrics, details
