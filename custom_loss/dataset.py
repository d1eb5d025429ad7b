"""The data of the three losses: digits (drawn or MNIST), and questions with their answers."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from common.batches import ShuffledBatches
from common.cli import fail
from common.files import fetch
from data import faq, glyphs, mnist

SPLIT_SEED = 4493  # The split of a file does not change with --seed.
# Digits. All networks are trained on 0 to 6; 7, 8 and 9 they never see.
NUM_SEEN = 7
NUM_DIGITS = 10
NUM_SHOTS = 5  # Known images of a class that the network was never trained on.
# Texts.
PADDING = 0  # The id that stands for no character.
UNKNOWN = 1  # The id of any unknown character.
MAX_LENGTH = 40  # Characters of a text that are read.
MIN_SENTENCE = 6  # Characters of a sentence of running text that can be a question or an answer.


@dataclass
class LossData:
    """What the chosen losses need.

    Attributes:
        digits: {"train" | "valid" | "test": (uint8 images (n, 28, 28, 1), labels)}, or None.
        texts: {"train" | "valid" | "test": (questions, numbers of their answers, answers)}, or
            None.
        notes: what the record says of the data.
    """

    digits: dict
    texts: dict
    notes: dict


def load(args):
    """The LossData that the flags ask for."""
    digits = None
    texts = None
    names = []
    counts = {}
    digest = hashlib.sha256()
    if "smoothing" in args.loss or "center" in args.loss:
        digits, name = load_digits(
            args.data, args.num_train, args.num_valid, args.num_test, args.batch_size
        )
        names.append(name)
        for split, (images, labels) in digits.items():
            counts[f"num_{split}"] = len(labels)
            digest.update(images.tobytes() + labels.tobytes())
    if "triplet" in args.loss:
        texts, name = load_texts(args.faq, args.num_pairs, args.num_asked, args.batch_size)
        names.append(name)
        counts["num_answers"] = len(texts["test"][2])
        for split, (questions, numbers, answers) in texts.items():
            counts[f"num_{split}_questions"] = len(questions)
            digest.update("\n".join([*questions, *answers]).encode() + numbers.tobytes())
    notes = {"name": " + ".join(names), **counts, "sha256": digest.hexdigest()}
    return LossData(digits, texts, notes)


# --- Digits ---
def load_digits(source, num_train, num_valid, num_test, batch_size=1):
    """{"train" | "valid" | "test": (uint8 images (n, 28, 28, 1), labels)} and their name.

    Args:
        source: None for drawn digits, the path of mnist.npz, or "mnist", which downloads it.
    """
    sizes = {"train": num_train, "valid": num_valid, "test": num_test}
    if source is None:
        path = "drawn digits"
        name = f"drawn digits v{glyphs.VERSION}"
        splits = {split: glyphs.load(split, count) for split, count in sizes.items()}
    else:
        path = source
        if source == "mnist":
            path = fetch("mnist.npz", [mnist.URL], mnist.SHA256)
        try:
            splits, name = mnist.load(path, sizes, SPLIT_SEED)
        except ValueError as error:
            fail(error)
    refuse_rare_digits(path, splits)
    num_seen = (splits["train"][1] < NUM_SEEN).sum()
    if num_seen < batch_size:
        fail(
            f"--batch-size {batch_size}: only {num_seen} digits from 0 to {NUM_SEEN - 1} "
            "to train on"
        )
    digits = {}
    for split, (images, labels) in splits.items():
        digits[split] = (images[..., None], labels.astype("int32"))
    return digits, name


def refuse_rare_digits(path, splits):
    """Ends with one line where a digit is missing, or too rare for the metrics."""
    for split, (_, labels) in splits.items():
        counts = np.bincount(labels, minlength=NUM_DIGITS)
        rarest = counts.argmin()
        needed = 2
        if split == "test":
            needed = NUM_SHOTS + 1
        if counts[rarest] < needed:
            fail(
                f"{path}: class {rarest} has {counts[rarest]} of the {len(labels)} images to "
                f"{split} on, at least {needed} are needed"
            )


def seen_digits(split):
    """The images and labels of the digits 0 to 6."""
    images, labels = split
    seen = labels < NUM_SEEN
    return images[seen], labels[seen]


class CenterBatches(ShuffledBatches):
    """Batches ((images, classes), classes): for the center loss the class is an input, too."""

    def __getitem__(self, index):
        images, labels = super().__getitem__(index)
        return (images, labels), labels


# --- Questions and answers ---
def load_texts(path, num_train, num_asked, batch_size=1):
    """{split: (questions, numbers of their answers, answers)} and the name of the data.

    A FAQ has one list of answers. In stories each split has its own, never seen in training.

    Args:
        path: see read_pairs; None for questions written by code.
        num_train: questions to train on.
        num_asked: questions to validate on, and as many to test.
    """
    if path is None:
        texts = {}
        for split, count in (("train", num_train), ("valid", num_asked), ("test", num_asked)):
            questions, numbers = faq.load(split, count)
            texts[split] = (questions, numbers, faq.answers())
        name = f"FAQ v{faq.VERSION}"
    else:
        texts = load_file(path, num_train, num_asked)
        name = Path(path).name
    num_different = len(np.unique(texts["train"][1]))
    if num_different < batch_size:
        fail(
            f"--batch-size {batch_size}: a batch has no answer twice, take {num_different} at most"
        )
    return texts, name


def load_file(path, num_train, num_asked):
    """load_texts for a file."""
    rows = read_pairs(path)
    splits, share_answers = split_pairs(path, rows)
    num_left_out = len(rows) - sum(map(len, splits.values()))
    if num_left_out > 0:
        print(
            f"{num_left_out} of {len(rows)} pairs repeat a question or an answer, and are left out"
        )
    rng = np.random.default_rng(SPLIT_SEED)
    texts = {}
    for split, rows in splits.items():
        count = num_train if split == "train" else num_asked
        chosen = sorted(rng.permutation(len(rows))[:count])
        chosen_rows = [rows[i] for i in chosen]
        rows_with_answers = splits["train"] if share_answers else chosen_rows
        answers = list(dict.fromkeys(row[2] for row in rows_with_answers))
        places = {answer: i for i, answer in enumerate(answers)}
        numbers = np.array([places[row[2]] for row in chosen_rows])
        texts[split] = ([row[1] for row in chosen_rows], numbers, answers)
    return texts


def read_lines(path):
    """(number, line) of a UTF-8 file; a line in another encoding is a mistake that is named."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        try:
            yield number, line.decode("utf-8").strip(" \r\n\u3000")
        except UnicodeDecodeError:
            fail(f"{path} line {number} is not UTF-8: convert the file (GBK?) to UTF-8")


def read_pairs(path):
    """Rows (line number, question, answer, story) of a file.

    FILE.txt is running text, a sentence a line, an empty line between stories: each sentence is
    the question of the next one. Any other file has question<TAB>answer in a line; its story is
    the answer itself, unless empty lines part it into stories, too.
    """
    if Path(path).suffix == ".txt":
        rows = read_running_text(path)
    else:
        rows = read_columns(path)
    if not rows:
        fail(f"{path} holds no question with an answer")
    return rows


def read_running_text(path):
    rows = []
    story = 0
    previous = ""
    for number, line in read_lines(path):
        line = line.strip()
        if not line:
            story += 1
            previous = ""
            continue
        if "\t" in line:
            fail(f"{path} line {number}: a tab; is it question<TAB>answer? then name it .tsv")
        sentence = line.replace(" ", "")
        if min(len(previous), len(sentence)) >= MIN_SENTENCE:
            rows.append((number, previous, sentence, story))
        previous = sentence
    return rows


def read_columns(path):
    rows = []
    story = 0
    for number, line in read_lines(path):
        if not line:
            story += 1
            continue
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) != 2 or not all(columns):
            if len(columns) == 2:
                found = "an empty text"
            elif len(columns) == 1:
                found = "1 column"
            else:
                found = f"{len(columns)} columns"
            fail(f"{path} line {number}: expected question<TAB>answer, found {found}")
        question, answer = columns
        rows.append((number, question, answer, story))
    return rows


def split_pairs(path, rows):
    """({split: rows}, whether all splits share their answers).

    Whole stories are kept together, and no answer and no question comes twice there: the second
    one is left out. Without stories the different questions of each answer are divided; one that
    has two answers counts for the first.
    """
    stories = sorted({row[3] for row in rows})
    if Path(path).suffix == ".txt" or len(stories) > 1:
        return split_by_story(path, rows, stories), False
    return split_by_answer(path, rows), True


def split_by_story(path, rows, stories):
    """Eight tenths of the stories to train on, one to validate, one to test."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(stories))
    ends = [round(0.8 * len(order)), round(0.9 * len(order))]
    split_of = {}
    for split, part in zip(
        ("train", "valid", "test"), np.split(np.array(stories)[order], ends), strict=True
    ):
        for story in part.tolist():
            split_of[story] = split
    splits = {"train": [], "valid": [], "test": []}
    questions = set()
    answers = set()
    for row in rows:
        _, question, answer, story = row
        if question not in questions and answer not in answers:
            splits[split_of[story]].append(row)
        questions.add(question)
        answers.add(answer)
    if min(map(len, splits.values())) < 2:
        fail(f"{path}: empty lines make {len(stories)} stories: too few to hold some out")
    return splits


def split_by_answer(path, rows):
    """Of each answer one question to test, one to validate, the others to train on."""
    rng = np.random.default_rng(SPLIT_SEED)
    first_line = {}
    answer_of = {}
    questions_of = {}  # {answer: {question: row}}
    for row in rows:
        number, question, answer, _ = row
        first_line.setdefault(answer, number)
        questions = questions_of.setdefault(answer, {})
        if answer_of.setdefault(question, answer) == answer:
            questions.setdefault(question, row)
    splits = {"train": [], "valid": [], "test": []}
    for answer, questions in questions_of.items():
        if len(questions) < 3:
            fail(
                f"{path} line {first_line[answer]}: only {len(questions)} of 3 different "
                f"questions have the answer {answer[:20]!r}; needed: one each to train, validate "
                "and test (of two answers to one the first counts)"
            )
        different = list(questions.values())
        test, valid, *train = rng.permutation(len(different))
        splits["test"].append(different[test])
        splits["valid"].append(different[valid])
        splits["train"] += [different[i] for i in train]
    if len(questions_of) < 2:
        fail(f"{path} has only one answer")
    return splits


# --- Characters as ids ---
def make_vocabulary(texts, size=10_000):
    """{character: id}, the most frequent ones; the ids 0 and 1 are PADDING and UNKNOWN."""
    counts = Counter("".join(texts))
    ordered = sorted(counts, key=lambda character: (-counts[character], character))
    return {character: i for i, character in enumerate(ordered[: size - 2], 2)}


def encode(texts, vocabulary, length):
    """int32 ids (len(texts), length), cut at `length` or filled up with PADDING."""
    ids = []
    for text in texts:
        ids.append([vocabulary.get(character, UNKNOWN) for character in text[:length]])
    return keras.utils.pad_sequences(ids, maxlen=length, padding="post", value=PADDING)


def encode_all(texts):
    """The vocabulary of the training texts, and {split: (ids, answer numbers, answer ids)}."""
    vocabulary = make_vocabulary(texts["train"][0] + texts["train"][2])
    all_questions = [question for questions, _, _ in texts.values() for question in questions]
    all_answers = [answer for _, _, answers in texts.values() for answer in answers]
    num_cut = sum(len(text) > MAX_LENGTH for text in {*all_questions, *all_answers})
    if num_cut > 0:
        print(f"of {num_cut} texts only the first {MAX_LENGTH} characters are read")
    question_length = min(MAX_LENGTH, max(map(len, all_questions)))
    answer_length = min(MAX_LENGTH, max(map(len, all_answers)))
    ids = {}
    for split, (questions, numbers, answers) in texts.items():
        question_ids = encode(questions, vocabulary, question_length)
        ids[split] = (question_ids, numbers, encode(answers, vocabulary, answer_length))
    return vocabulary, ids


def encode_question(text, vocabulary, length):
    """int32 ids (1, length). Raises ValueError for a text without a known character."""
    text = text.strip()
    if not text:
        raise ValueError("the question is empty")
    if not any(character in vocabulary for character in text[:length]):
        raise ValueError(f"the question {text[:20]!r} has no known character")
    return encode([text], vocabulary, length)


# --- Batches of questions ---
class TripletBatches(ShuffledBatches):
    """Endless batches ((questions, their answers),) in which no answer is twice.

    Args:
        questions: ids (n, length).
        numbers: the number of each question's answer (n,).
        answers: ids (answers, length).
    """

    def __init__(self, questions, numbers, answers, batch_size, seed, first_epoch=0):
        super().__init__((questions, numbers), batch_size, seed, first_epoch)
        self.answers = answers
        self.steps_per_epoch = count_steps(numbers, batch_size)

    def __getitem__(self, index):
        questions, numbers = super().__getitem__(index)
        return ((questions, self.answers[numbers]),)

    def rows_of_epoch(self, rng):
        _, numbers = self.arrays
        batches = []
        for rows in rounds(numbers, rng):
            rows = rng.permutation(rows)
            for start in range(0, len(rows) - self.batch_size + 1, self.batch_size):
                batches.append(rows[start : start + self.batch_size])
        return batches


def rounds(numbers, rng):
    """Rows in rounds, each in random order and with every answer at most once."""
    times_seen = Counter()
    found = []
    for row in rng.permutation(len(numbers)).tolist():
        number = int(numbers[row])
        turn = times_seen[number]
        times_seen[number] += 1
        if turn == len(found):
            found.append([])
        found[turn].append(row)
    return found


def count_steps(numbers, batch_size):
    """The batches in an epoch of TripletBatches."""
    counts = np.bincount(numbers)
    return sum(int((counts > turn).sum()) // batch_size for turn in range(counts.max()))
