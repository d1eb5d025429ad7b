"""Questions for the readers: training and test questions, vocabulary, and batches of numbers.

A question is encoded as the keys of its words: one number for each different word ever seen,
whether it is in the vocabulary or not. So two unknown words stay two words. An answer outside the
vocabulary can still be pointed at, and probabilities are summed over the places of one word,
never over all unknown words.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cloze_ccl.model import word_features
from cloze_ccl.questions import (
    name_of,
    read_lines,
    read_questions,
    read_stories,
    usable_only,
    words_to_read,
)
from common.cli import fail
from common.files import OPENERS
from data import stories
from data.stories import BLANK, make_cloze

SPLIT_SEED = 4564  # The split does not change with --seed.
COPIED_LENGTH = 15  # Two stories share a sentence of so many characters only if one was copied.
STEP = 32  # Passages, sides and queries are padded to a multiple of so many words.
POOL = 50  # Batches that are sorted by length together.


# --- Questions in splits ---
@dataclass
class Corpus:
    """Questions to be split, and the whole texts they were made of.

    Attributes:
        name: for the record.
        questions: Questions; `story` is the key of their text.
        passages: {story: its sentences}.
        left_out: {reason: how many stories or questions are left out}.
    """

    name: str
    questions: list
    passages: dict
    left_out: dict


def load_data(source=None, story_files=(), test_files=(), num_stories=1500):
    """The questions in splits, and what the record says of them.

    Args:
        source: a file of questions, or a folder with train.doc_query and train.answer, and
            perhaps the test set cloze.valid.doc_query.
        story_files: files of stories to make questions of, if there is no source.
        test_files: files of questions. No story that shares a sentence with them is trained on.
        num_stories: how many written stories to train on, where there are no files.

    Returns:
        {"train" | "valid" | the name of a test set: Questions}, and a dict of notes. Without
        test_files a test set named "test" is held out.
    """
    if source:
        test_files = test_files or find_files(source, "cloze.valid.doc_query")
        name, splits, left_out = split_corpus(read_corpus(source), test_files)
    elif story_files:
        name, splits, left_out = split_corpus(make_corpus(story_files), test_files)
    else:
        name = f"written stories v{stories.VERSION}"
        splits = write_splits(num_stories, test_files)
        left_out = {}
    for split in ("train", "valid"):
        splits[split], unusable = usable_only(splits[split])
        for reason, count in unusable.items():
            left_out[f"{split}: {reason}"] = count
    notes = {"name": name}
    for split, questions in splits.items():
        if not questions:
            fail(f"{name}: no question left for {split}; left out: {left_out or 'none'}")
        notes[f"num_{split}"] = len(questions)
    notes["left_out"] = left_out
    notes["sha256"] = sha256(splits)
    return splits, notes


def write_splits(num_stories, test_files=()):
    """Questions about stories that are written by code, in splits."""
    splits = {
        "train": stories.load("train", max(10, num_stories)),
        "valid": stories.load("valid", max(10, num_stories // 10)),
    }
    if test_files:
        splits.update(read_test_sets(test_files))
    else:
        splits["test"] = stories.load("test", max(10, num_stories // 5))
    return splits


def read_corpus(source):
    """The Corpus of a file of questions, or of a folder with train.doc_query."""
    path = Path(source)
    files = [path]
    if not path.is_file():
        files = find_files(path, "train.doc_query")
    if not files:
        fail(f"no train.doc_query in {source}: expected the official files, or one file")
    questions = read_questions(files[0])
    passages = {question.story: question.sentences for question in questions}
    return Corpus(path.name, questions, passages, {})


def find_files(folder, name):
    """The files of this name in a folder and below; packed ones where there are no others."""
    for suffix in ("", *OPENERS):
        paths = sorted(Path(folder).rglob(f"{name}{suffix}"))
        if paths:
            return paths
    return []


def make_corpus(story_files):
    """The Corpus of questions made of the stories in some files."""
    name = " + ".join(Path(path).name for path in story_files)
    all_stories = []
    for path in story_files:
        all_stories += read_stories(path)
    questions = list(make_cloze(all_stories))
    num_asked = len({question.story for question in questions})
    left_out = {"stories under 95 words or without a noun twice": len(all_stories) - num_asked}
    return Corpus(name, questions, dict(enumerate(all_stories)), left_out)


def read_test_sets(paths):
    """{name: Questions} of files of questions. Each name comes from the name of the file."""
    test_sets = {}
    for path in paths:
        path = Path(path)
        name = name_of(path)
        while name in test_sets or name in ("train", "valid", "test"):
            name = f"{path.parent.name} {name}"
        questions = read_questions(path)
        if not any(question.answer for question in questions):
            fail(f"{path} has no answers: expected a third field, or X.answer beside X.doc_query")
        test_sets[name] = questions
    return test_sets


def split_corpus(corpus, test_files):
    """The name of a Corpus, its splits with the test sets of some files, and what is left out."""
    test_sets = read_test_sets(test_files)
    questions = corpus.questions
    passages = corpus.passages
    left_out = dict(corpus.left_out)
    test_sentences = set()
    for test_set in test_sets.values():
        for question in test_set:
            test_sentences |= long_sentences(question.sentences)
    if test_sentences:
        passages = {}
        for story, sentences in corpus.passages.items():
            if test_sentences.isdisjoint(long_sentences(sentences)):
                passages[story] = sentences
        left_out["stories of a test set"] = len(corpus.passages) - len(passages)
        questions = [question for question in questions if question.story in passages]
    splits = split_questions(passages, questions)
    if test_sets:
        # There is a test set already, so what would have been held out is trained on.
        splits["train"] += splits.pop("test")
        splits.update(test_sets)
    return corpus.name, splits, left_out


def split_questions(passages, questions):
    """{"train" | "valid" | "test": questions} of 90%, 5% and 5% of the stories.

    Near-duplicates stay together.

    Args:
        passages: {story: its sentences}.
    """
    groups = dict(zip(passages, group_stories(list(passages.values())), strict=True))
    draws = np.random.default_rng(SPLIT_SEED).random(len(groups))
    splits = {"train": [], "valid": [], "test": []}
    for question in questions:
        draw = draws[groups[question.story]]
        if draw < 0.9:
            splits["train"].append(question)
        elif draw < 0.95:
            splits["valid"].append(question)
        else:
            splits["test"].append(question)
    return splits


def group_stories(stories):
    """For each story the number of the first one of its group of near-duplicates.

    Stories that share a long sentence are in one group, and so is what they share with others.

    Args:
        stories: lists of sentences.
    """
    first_story = {}
    rows = []
    columns = []
    for number, sentences in enumerate(stories):
        for text in long_sentences(sentences):
            rows.append(number)
            columns.append(first_story.setdefault(text, number))
    size = len(stories)
    shared = coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    _, group_of_story = connected_components(shared, directed=False)
    _, first_of_group = np.unique(group_of_story, return_index=True)
    return first_of_group[group_of_story].tolist()


def long_sentences(sentences):
    """The sentences, as text, that are too long to be in two stories by accident."""
    texts = {"".join(words) for words in sentences}
    return {text for text in texts if len(text) >= COPIED_LENGTH and BLANK not in text}


def sha256(splits):
    """SHA-256 of the words and answers of {name: Questions}."""
    digest = hashlib.sha256()
    for questions in splits.values():
        for question in questions:
            words = [word for sentence in question.sentences for word in sentence]
            digest.update(" ".join([question.answer, *words]).encode())
    return digest.hexdigest()


# --- Word vectors ---
class WordVectors(NamedTuple):
    """Words, and float32 vectors (words, dimensions)."""

    words: list
    vectors: np.ndarray


def read_vectors(path):
    """The WordVectors of a file in word2vec's text format.

    The first line is "WORDS DIMENSION", each other line a word and its numbers. Of equal words the
    first one counts.
    """
    lines = read_lines(path)
    header = lines[0].split()
    if len(header) != 2 or not all(part.isdecimal() and int(part) > 0 for part in header):
        fail(f'{path}, line 1: expected the header of word2vec vectors, "WORDS DIMENSION"')
    num_words = int(header[0])
    dim = int(header[1])
    if len(lines) - 1 != num_words:
        fail(f"{path}: the header promises {num_words:,} words, {len(lines) - 1:,} lines follow")
    vectors = {}
    for number, line in enumerate(lines[1:], 2):
        word, _, numbers = line.rstrip().partition(" ")
        try:
            vector = np.array(numbers.split(), np.float32)
        except ValueError as error:
            fail(f"{path}, line {number}: {str(error)[:80]}")
        if not word or vector.shape != (dim,) or not np.isfinite(vector).all():
            fail(f"{path}, line {number}: expected a word and {dim} finite numbers")
        vectors.setdefault(word, vector)
    return WordVectors(list(vectors), np.stack(list(vectors.values())))


def vectors_sha256(word_vectors, word_keys):
    """What the record says of word vectors: the SHA-256 of those of the words in the questions."""
    vector_of = {}
    for word, vector in zip(word_vectors.words, word_vectors.vectors, strict=True):
        if word in word_keys:
            vector_of[word] = vector
    digest = hashlib.sha256()
    for word in sorted(vector_of):
        digest.update(word.encode() + np.asarray(vector_of[word], "<f4").tobytes())
    return f"{len(vector_of):,} words, sha256 {digest.hexdigest()}"


# --- Encoding ---
class EncodedQuestion(NamedTuple):
    """A question as numbers.

    Attributes:
        keys: int32, the key of each word of the passage, or of the MAX_WORDS around the blank.
        blank: the place of the blank.
        start, end: where the sentence with the blank starts, and where the next one does.
        answer: the key of the answer, -1 where it is not among these words.
    """

    keys: np.ndarray
    blank: int
    start: int
    end: int
    answer: int


def encode_all(questions, word_keys):
    """The EncodedQuestion of each question; None for one that has no blank, or two.

    Args:
        word_keys: {word: key}; new words are added.
    """
    encoded = []
    for question in questions:
        num_blanks = sum(sentence.count(BLANK) for sentence in question.sentences)
        if num_blanks == 1:
            encoded.append(encode(question, word_keys))
        else:
            encoded.append(None)
    return encoded


def encode(question, word_keys):
    """The EncodedQuestion of a question with one blank; see `encode_all`."""
    words, first = words_to_read(question)
    blank = words.index(BLANK)
    ends = np.cumsum([len(sentence) for sentence in question.sentences])
    sentence = int(np.searchsorted(ends, first + blank, side="right"))
    end = int(ends[sentence])
    start = end - len(question.sentences[sentence])
    keys = [word_keys.setdefault(word, len(word_keys)) for word in words]
    answer = -1
    if question.answer in words:
        answer = word_keys[question.answer]
    return EncodedQuestion(
        keys=np.array(keys, "int32"),
        blank=blank,
        start=max(0, start - first),
        end=min(end - first, len(words)),
        answer=answer,
    )


# --- Vocabulary ---
@dataclass
class Vocabulary:
    """What a reader knows.

    Attributes:
        words: word i has the id i + 1; the first one is BLANK.
        characters: first and last characters of words; character i has the id i + 1.
        num_trained: so many of the first words have a trained vector.
        vectors: float32 (words, dimensions), zeros for words without a vector; or None.
    """

    words: list
    characters: list
    num_trained: int
    vectors: np.ndarray | None


def choose_vocabulary(reader, encoded, word_keys, min_count, word_vectors=None):
    """The Vocabulary of a reader: the words that occur often enough.

    With word vectors the post's reader knows the words that have one, and no others. The other
    readers know those of the training questions as well.

    Args:
        reader: "post", "as-reader" or "ours".
        encoded: the EncodedQuestions of the training set.
        min_count: how often a word must occur in them.
        word_vectors: WordVectors, or None.
    """
    if word_vectors is None:
        words = frequent_words(encoded, word_keys, min_count)
        return Vocabulary(words, end_characters(words), len(words), None)
    more_words = [word for word in word_vectors.words if word != BLANK]
    if not any(word in word_keys for word in more_words):
        fail("no word of the questions has a word vector: expected words cut as --vectors has them")
    if reader == "post":
        words = [BLANK, *more_words]
        num_trained = 0
    else:
        words = frequent_words(encoded, word_keys, min_count)
        num_trained = len(words)
        known = set(words)
        words += [word for word in more_words if word not in known]
    vectors = rows_of_vectors(words, word_vectors)
    return Vocabulary(words, end_characters(words), num_trained, vectors)


def frequent_words(encoded, word_keys, min_count):
    """The words that occur at least min_count times: BLANK, then the most frequent ones first."""
    counts = np.zeros(len(word_keys), int)
    for question in encoded:
        counts += np.bincount(question.keys, minlength=len(word_keys))
    kept = []
    for word, key in word_keys.items():
        if counts[key] >= min_count and word != BLANK:
            kept.append((-counts[key], word))
    return [BLANK, *(word for _, word in sorted(kept))]


def rows_of_vectors(words, word_vectors):
    """float32 (words, dimensions): the vector of each word, zeros for those without one."""
    row_of = {word: row for row, word in enumerate(word_vectors.words)}
    vectors = np.zeros((len(words), word_vectors.vectors.shape[1]), "float32")
    for i, word in enumerate(words):
        if word in row_of:
            vectors[i] = word_vectors.vectors[row_of[word]]
    return vectors


def end_characters(words):
    """The first and last characters of the words, sorted."""
    characters = set()
    for word in words:
        characters.add(word[0])
        characters.add(word[-1])
    return sorted(characters)


class Lookup:
    """From the keys of words to what a reader is given.

    Args:
        word_keys: {word: key}.
        words, characters: of a Vocabulary.

    Attributes:
        word_ids: int32 (keys,), 0 for unknown words.
        character_ids: int32 (keys, 2) of the first and last character, 0 for unknown ones.
    """

    def __init__(self, word_keys, words, characters):
        id_of_word = {word: id for id, word in enumerate(words, 1)}
        id_of_character = {character: id for id, character in enumerate(characters, 1)}
        self.word_ids = np.zeros(len(word_keys), "int32")
        self.character_ids = np.zeros((len(word_keys), 2), "int32")
        for word, key in word_keys.items():
            self.word_ids[key] = id_of_word.get(word, 0)
            self.character_ids[key, 0] = id_of_character.get(word[0], 0)
            self.character_ids[key, 1] = id_of_character.get(word[-1], 0)


# --- Batches ---
class Batch(NamedTuple):
    """Arrays for a reader.

    Attributes:
        inputs: {name of an input: array}.
        targets: float32 (batch, words), 1 at all places of the answer, else 0.
        weights: float32 (batch,), 0 for rows that only fill the batch.
        places: int32, of the shape of the targets: which word of the passage a column stands for,
            -1 for padding.
    """

    inputs: dict
    targets: np.ndarray
    weights: np.ndarray
    places: np.ndarray


class QuestionBatches(keras.utils.PyDataset):
    """The batches of one epoch, (inputs, targets, weights), each of passages of similar length.

    Args:
        reader: "post", "as-reader" or "ours".
        encoded: EncodedQuestions.
        seed: of the order; None keeps it the same each time. See `plan_batches`.

    Attributes:
        plan: [(numbers of the questions in a batch, shape)].
    """

    def __init__(self, reader, encoded, lookup, batch_size, seed=None):
        super().__init__()
        self.reader = reader
        self.encoded = encoded
        self.lookup = lookup
        self.batch_size = batch_size
        self.plan = plan_batches(lengths(reader, encoded), batch_size, seed)

    def __len__(self):
        return len(self.plan)

    def __getitem__(self, index):
        batch = self.batch(index)
        return batch.inputs, batch.targets, batch.weights

    def batch(self, index):
        """The whole Batch, filled up to batch_size rows."""
        numbers, shape = self.plan[index]
        questions = [self.encoded[i] for i in numbers]
        batch = build_batch(self.reader, questions, shape, self.lookup)
        return fill_batch(batch, self.batch_size)


def lengths(reader, encoded):
    """How many words each input of a reader has: (questions, 1 or 2).

    The post's reader treats both sides of the blank alike, so the shorter one comes first: there
    are then many times fewer shapes than with left and right.
    """
    rows = []
    for question in encoded:
        num_words = len(question.keys)
        if reader == "post":
            left = question.blank
            right = num_words - question.blank - 1
            rows.append((max(1, min(left, right)), max(1, left, right)))
        elif reader == "as-reader":
            rows.append((question.end - question.start, num_words))
        else:
            rows.append((num_words,))
    num_columns = 1 if reader == "ours" else 2
    return np.array(rows, int).reshape(-1, num_columns)


def plan_batches(lengths, batch_size, seed=None, pool=POOL):
    """Which questions form a batch, and the shape it is padded to: [(numbers, shape)].

    With a seed the questions are shuffled. Within pools of `pool` batches those of similar length
    come together, and then the batches are shuffled. Without a seed all are sorted by length.

    Every new shape is compiled anew, which takes seconds. All shapes are multiples of STEP: there
    are 32 of them for passages, of which the official ones use 14, and a few dozen for two sides.
    Nearly all of them occur in the first epoch.

    Args:
        lengths: (questions, 1 or 2).
    """
    rng = np.random.default_rng(seed)
    if seed is None:
        order = np.arange(len(lengths))
        pool_size = max(1, len(lengths))
    else:
        order = rng.permutation(len(lengths))
        pool_size = pool * batch_size
    rounded = -(-lengths // STEP) * STEP
    plan = []
    for start in range(0, len(order), pool_size):
        numbers = order[start : start + pool_size]
        # By the rounded length of the last input; of equal ones, by that of the first input.
        by_length = np.lexsort((lengths[numbers, 0], rounded[numbers, -1]))
        numbers = numbers[by_length]
        for first in range(0, len(numbers), batch_size):
            chosen = numbers[first : first + batch_size]
            shape = tuple(rounded[chosen].max(axis=0).tolist())
            plan.append((chosen, shape))
    if seed is None:
        return plan
    return [plan[i] for i in rng.permutation(len(plan))]


def build_batch(reader, questions, shape, lookup):
    """The Batch of some questions.

    Args:
        reader: "post", "as-reader" or "ours".
        questions: EncodedQuestions.
        shape: the lengths to pad to, as in `plan_batches`.
    """
    most_words = max(len(question.keys) for question in questions)
    keys = pad([question.keys for question in questions], most_words)
    if reader == "post":
        inputs, places = inputs_of_sides(questions, keys, shape, lookup)
    else:
        places = pad([np.arange(len(question.keys)) for question in questions], shape[-1])
        inputs = {"document": look_up(lookup.word_ids, keys, places, padding=-1)}
    if reader == "as-reader":
        inputs["query"] = input_of_query(questions, keys, shape, lookup)
    if reader == "ours":
        inputs["characters"] = look_up(lookup.character_ids, keys, places, padding=0)
        inputs["features"] = features_of(questions, keys, places)
    every_key = np.arange(len(lookup.word_ids))
    answers = np.array([[question.answer] for question in questions])
    # Padding is -2 here, because an answer that is not in the passage is -1.
    targets = look_up(every_key, keys, places, padding=-2) == answers
    weights = np.ones(len(questions), "float32")
    return Batch(inputs, targets.astype("float32"), weights, places)


def inputs_of_sides(questions, keys, shape, lookup):
    """The inputs "left" and "right", the shorter side as "left", and the places of both."""
    shorter = []
    longer = []
    for question in questions:
        places = np.arange(len(question.keys))
        sides = [places[: question.blank], places[question.blank + 1 :]]
        sides.sort(key=len)
        shorter.append(sides[0])
        longer.append(sides[1])
    inputs = {}
    all_places = []
    for name, rows, width in (("left", shorter, shape[0]), ("right", longer, shape[1])):
        places = pad(rows, width)
        ids = look_up(lookup.word_ids, keys, places, padding=-1)
        is_empty = (places < 0).all(axis=1)
        ids[is_empty, 0] = 0  # As in the post, an empty side is read as one unknown word.
        inputs[name] = ids
        all_places.append(places)
    return inputs, np.concatenate(all_places, axis=1)


def input_of_query(questions, keys, shape, lookup):
    """The word ids of the sentence with the blank."""
    places = pad([np.arange(question.start, question.end) for question in questions], shape[0])
    return look_up(lookup.word_ids, keys, places, padding=-1)


def features_of(questions, keys, places):
    """The features of our reader; see `model.word_features`."""
    every_key = np.arange(keys.max() + 1)
    padded_keys = look_up(every_key, keys, places, padding=-1)
    blank = np.array([[question.blank] for question in questions])
    start = np.array([[question.start] for question in questions])
    end = np.array([[question.end] for question in questions])
    return word_features(padded_keys, blank, start, end)


def pad(rows, width, value=-1):
    """Rows of different lengths as one int32 array (rows, width), filled up at their ends."""
    return keras.utils.pad_sequences(rows, width, padding="post", truncating="post", value=value)


def look_up(table, keys, places, padding):
    """What the table says of the word at each place.

    Args:
        table: one row for each key.
        keys: (batch, words) of whole passages.
        places: (batch, columns) of words in these passages, -1 for padding.
        padding: what the result has there.
    """
    row = np.arange(len(keys))[:, None]
    values = table[keys[row, np.maximum(places, 0)]]
    values[places < 0] = padding
    return values


def fill_batch(batch, batch_size):
    """Repeats rows of a batch until it has batch_size of them: a new shape would be compiled.

    These rows have weight 0. The others weigh more, so that the mean is theirs alone.
    """
    num_rows = len(batch.weights)
    if num_rows >= batch_size:
        return batch
    rows = np.arange(batch_size) % num_rows
    weights = np.zeros(batch_size, "float32")
    weights[:num_rows] = batch_size / num_rows
    return Batch(
        inputs={name: array[rows] for name, array in batch.inputs.items()},
        targets=batch.targets[rows],
        weights=weights,
        places=batch.places[rows],
    )
