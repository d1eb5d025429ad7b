"""Cloze questions in files: the official formats and metric, stories, word vectors.

CMRC2017: a passage is lines `N ||| word word ...`, one of which holds XXXXX, and a last line
`<qid_K> ||| ...` that repeats this sentence; another file has lines `<qid_K> ||| word`, and so
have the answers of a system. PD&CFT: the last line of a passage is `N ||| query ||| answer`,
its query a sentence of the passage or a new one. Words stand between blanks. All is UTF-8, and
read as it is: traditional characters stay what they are, so that 貓 and 猫 are two words.
"""

import bz2
import gzip
import hashlib
import lzma
import re
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from cloze_ccl.batches import words_read
from common.damage import most_unpacked
from common.run import fail, write_text
from data.stories import BLANK, Question, make_cloze, tagger

BAR = " ||| "
OPENERS = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
LONG = 15  # Characters of a sentence that two stories share only if one was copied.
SPLIT_SEED = 4564  # The split does not change with --seed.
SENTENCE_ENDS = "。!?…\uff01\uff1f"
CLOSING = "”」』》)\u2019\uff09"


# --- Lines ---
def read_lines(path):
    """The lines of a file in UTF-8, packed or not; only \\n and \\r\\n end one."""
    path = Path(path)
    try:
        most, data = most_unpacked(path), bytearray()
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            # In pieces: read(most) sets that much memory aside at once.
            while len(data) <= most and (piece := file.read(2**20)):
                data += piece
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        fail(f"cannot read {path}: {getattr(error, 'strerror', None) or error}")
    if len(data) > most:
        fail(f"{path} would unpack to more than {most:,} bytes")
    try:
        return data.decode("utf-8-sig").rstrip("\r\n").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        fail(f"{path}, line {line}: not UTF-8: expected a text file in UTF-8")


def split_line(line, where, expected):
    """The fields of a line between ` ||| `; a line with another separator is the user's mistake."""
    fields = [field.strip() for field in line.split(BAR)]
    if len(fields) < 2 or not fields[0] or BAR.strip() in " ".join(fields):
        fail(f'{where}: expected "{expected}", got {line[:40]!r}')
    return fields


# --- Questions ---
def name_of(path):
    """The name of a file of questions without .doc_query and what it is packed with."""
    return re.sub(r"(\.doc_query)?(\.gz|\.xz|\.bz2)?$", "", Path(path).name, count=1)


def read_questions(path):
    """The list of Questions of a file in one of the official formats.

    The answers are in the file beside `path` that ends in .answer instead of .doc_query, as lines
    `<qid_K> ||| word`, either of them packed or not. Without it they are "".
    """
    path, answers = Path(path), None
    if ".doc_query" in path.suffixes:
        beside = [path.with_name(f"{name_of(path)}.answer{end}") for end in ("", *OPENERS)]
        answers = next((other for other in beside if other.exists()), None)
    known = read_answers(answers) if answers else {}
    questions, sentences, seen = [], [], {}
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        label, text, *answer = split_line(line, where, f"N{BAR}word word ...")
        text = text.replace(BLANK, f" {BLANK} ")  # As PD&CFT has it beside a word, now and then.
        words = tuple(map(sys.intern, text.split()))  # Each word once in memory.
        if label.isdigit() and not answer:
            if label == "1" and sentences:
                fail(f"{where}: a new passage begins, but the one before has no query line")
            sentences.append(words)
            continue
        if answer and not (label.isdigit() and len(answer) == 1 and len(answer[0].split()) == 1):
            fail(f'{where}: expected "N{BAR}query{BAR}answer", got {line[:40]!r}')
        if not answer and not re.fullmatch(r"<qid_\w+>", label):
            fail(f'{where}: expected a number or "<qid_N>" before "|||", got {label[:40]!r}')
        if not sentences:
            fail(f"{where}: a query, but no passage above it")
        id = f"<qid_{len(questions)}>" if answer else label
        if id in seen:
            fail(f"{where}: {id} is already the query of line {seen[id]}")
        seen[id] = number
        if answers and id not in known:
            fail(f"{where}: {id} has no line in {answers}")
        if not any(BLANK in sentence for sentence in sentences):
            sentences.append(words)  # A query of its own: its blank has no other place.
        answer = answer[0] if answer else known.get(id, "")
        questions.append(Question(id, tuple(sentences), answer, len(questions)))
        sentences = []
    if sentences:
        fail(f"{path}, line {number}: the file ends within a passage, before its query line")
    if not questions:
        fail(f"{path} is empty: expected passages and queries")
    if extra := known.keys() - seen.keys():
        fail(f"{answers}: {min(extra)} is not a query of {path}")
    return questions


def read_answers(path):
    """{id: word} of lines `<qid_K> ||| word`; a system may leave a word out: ""."""
    answers = {}
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        id, *words = split_line(f"{line.rstrip()} ", where, f"<qid_N>{BAR}word")
        if not re.fullmatch(r"<qid_\w+>", id) or len(words) != 1:
            fail(f'{where}: expected "<qid_N>{BAR}word", got {line[:40]!r}')
        if id in answers:
            fail(f"{where}: {id} has an answer above already")
        answers[id] = words[0]
    if not answers:
        fail(f"{path} is empty: expected lines <qid_N>{BAR}word")
    return answers


def write_answers(path, answers):
    """Writes {id: word} as the official evaluation reads it."""
    write_text(Path(path), "".join(f"{id}{BAR}{word}\n" for id, word in answers.items()))


def why_unusable(question):
    """Why a model can learn nothing from a question, or "": no blank, two blanks, ..."""
    words = Counter(word for sentence in question.sentences for word in sentence)
    if words[BLANK] != 1:
        return "two blanks" if words[BLANK] else "no blank"
    if question.answer in ("", BLANK):
        return "no answer"
    if not words[question.answer]:
        return "answer not in the passage"
    return "" if question.answer in words_read(question)[0] else "answer too far from the blank"


def usable_only(questions):
    """The questions that can be learnt from, and {reason: how many} of the others."""
    reasons = [why_unusable(question) for question in questions]
    kept = [q for q, reason in zip(questions, reasons, strict=True) if not reason]
    return kept, dict(Counter(filter(None, reasons)))


def fingerprint(data):
    """SHA-256 of the words and answers of {name: Questions}."""
    digest = hashlib.sha256()
    for question in (question for part in data.values() for question in part):
        words = [word for sentence in question.sentences for word in sentence]
        digest.update(" ".join([question.answer, *words]).encode())
    return digest.hexdigest()


def exact_match(predictions, answers):
    """The official metric: how many answers are the very word, out of how many questions.

    Both are {id: word}. A question without a prediction counts as wrong; a prediction for a
    question that is not asked is a ValueError.
    """
    if unasked := predictions.keys() - answers.keys():
        raise ValueError(f"{min(unasked)} is answered, but not asked")
    return sum(predictions.get(id) == word != "" for id, word in answers.items()), len(answers)


# --- Stories ---
def is_segmented(text):
    """Whether words stand between blanks, rather than a blank here and there."""
    return 8 * text.count(" ") > len(text)


def cut(text, keep=()):
    """The words of a text: those between blanks if it has any, else those that jieba finds.

    BLANK is a word of its own everywhere. Of jieba's words, those that together are one of `keep`
    are joined. jieba guesses no word that is not in its dictionary; the post cut its own texts so.
    """
    segmented = is_segmented(re.sub(rf"\s*{BLANK}\s*", "", text))
    words = text.replace(BLANK, f" {BLANK} ").split()
    if segmented:
        return words
    keep = {"".join(word.split()): word for word in keep}
    lcut, longest = tagger().tokenizer.lcut, max(map(len, keep), default=1)
    words = [w for part in words for w in ([part] if part == BLANK else lcut(part, HMM=False))]
    joined, at = [], 0
    while at < len(words):
        some = (n for n in range(longest, 1, -1) if "".join(words[at : at + n]) in keep)
        n = next(some, 1)
        word, at = "".join(words[at : at + n]), at + n
        joined.append(keep.get(word, word))
    return joined


def into_sentences(words):
    """A list of words as sentences, each with its end and the quotation marks that close it."""
    sentences, ended = [[]], False
    for word in words:
        if ended and word not in CLOSING and word not in SENTENCE_ENDS:
            sentences.append([])
        ended = word in SENTENCE_ENDS or (ended and word in CLOSING)
        sentences[-1].append(word)
    return [tuple(sentence) for sentence in sentences if sentence]


def read_stories(path):
    """Stories, each a list of sentences, each a tuple of words, of a file.

    An empty line ends a story. A line is a sentence if its words stand between blanks, and a
    paragraph, which jieba cuts, if they do not. A file without empty lines has a story a line.
    """
    lines = [line.strip() for line in read_lines(path)]
    whole = not any(not line for line in lines[:-1])
    stories = [[]]
    for line in lines:
        if line:
            sentence = is_segmented(line) and not whole
            stories[-1] += [tuple(line.split())] if sentence else into_sentences(cut(line))
        if whole or not line:
            stories.append([])
    stories = [story for story in stories if story]
    if not stories:
        fail(f"{path} is empty: expected stories, an empty line between them")
    return stories


def long_sentences(sentences):
    """The sentences, as text, that are too long to be in two stories by accident."""
    texts = {"".join(words) for words in sentences}
    return {text for text in texts if len(text) >= LONG and BLANK not in text}


def group_stories(stories):
    """The number of its group for each story (a list of sentences): copies share one.

    Stories that share a long sentence are in one group, and so is what they share with others.
    """
    group, first = list(range(len(stories))), {}

    def find(i):
        while group[i] != i:
            group[i] = i = group[group[i]]
        return i

    for i, story in enumerate(stories):
        for text in long_sentences(story):
            group[find(i)] = find(first.setdefault(text, i))
    return [find(i) for i in range(len(stories))]


def split_questions(passages, questions):
    """{"train" | "valid" | "test": questions}: 90, 5 and 5% of the stories.

    passages: {story: its sentences}. Stories that share a long sentence stay together.
    """
    groups = dict(zip(passages, group_stories(list(passages.values())), strict=True))
    draws = np.random.default_rng(SPLIT_SEED).random(len(groups))
    parts = {"train": [], "valid": [], "test": []}
    for question in questions:
        u = draws[groups[question.story]]
        parts["train" if u < 0.9 else "valid" if u < 0.95 else "test"].append(question)
    return parts


def read_tests(paths):
    """{name: Questions} of files of questions, by name_of(path)."""
    tests = {}
    for path in map(Path, paths):
        name = name_of(path)
        while name in tests or name in ("train", "valid", "test"):
            name = f"{path.parent.name} {name}"
        tests[name] = read_questions(path)
        if not any(question.answer for question in tests[name]):
            fail(f"{path} has no answers: expected a third field, or X.answer beside X.doc_query")
    return tests


def find_official(folder, name):
    """The files of this name in a folder, or else packed ones."""
    found = (sorted(Path(folder).rglob(f"{name}{end}")) for end in ("", *OPENERS))
    return next(filter(None, found), [])


def load_files(source, story_files, tests):
    """A name, {"train" | "valid" | "test" or names of tests: Questions}, {left out: how many}."""
    if source:
        path = Path(source)
        files = [path] if path.is_file() else find_official(path, "train.doc_query")
        if not files:
            fail(f"no train.doc_query in {source}: expected the official files, or one file")
        name, questions, left_out = path.name, read_questions(files[0]), {}
        tests = tests or find_official(path, "cloze.valid.doc_query")
        passages = {question.story: question.sentences for question in questions}
    else:
        name = " + ".join(Path(path).name for path in story_files)
        stories = [story for path in story_files for story in read_stories(path)]
        questions, passages = list(make_cloze(stories)), dict(enumerate(stories))
        asked = {question.story for question in questions}
        left_out = {"stories under 95 words or without a noun twice": len(stories) - len(asked)}
    tested = read_tests(tests)
    seen = {t for some in tested.values() for q in some for t in long_sentences(q.sentences)}
    if seen:
        kept = {k: story for k, story in passages.items() if not seen & long_sentences(story)}
        left_out["stories of a test set"] = len(passages) - len(kept)
        passages, questions = kept, [q for q in questions if q.story in kept]
    data = split_questions(passages, questions)
    if tested:  # What would have been held out is trained on.
        data["train"] += data.pop("test")
    return name, data | tested, left_out


# --- Word vectors ---
def read_vectors(path):
    """The words of a file in word2vec's text format, and float32 vectors (words, dimensions).

    A line "WORDS DIMENSION", then a word a line, of equal ones the first counts.
    """
    lines = read_lines(path)
    header = lines[0].split() if lines else []
    if len(header) != 2 or not all(part.isdecimal() and int(part) for part in header):
        fail(f'{path}, line 1: expected the header of word2vec vectors, "WORDS DIMENSION"')
    count, dim = map(int, header)
    if len(lines) - 1 != count:
        fail(f"{path}: the header promises {count:,} words, {len(lines) - 1:,} lines follow")
    rows = {}
    for number, line in enumerate(lines[1:], 2):
        word, _, numbers = line.rstrip().partition(" ")
        try:
            row = np.array(numbers.split(), np.float32)
        except ValueError as error:
            fail(f"{path}, line {number}: {str(error)[:80]}")
        if not word or row.shape != (dim,) or not np.isfinite(row).all():
            fail(f"{path}, line {number}: expected a word and {dim} finite numbers")
        rows.setdefault(word, row)
    return list(rows), np.stack(list(rows.values()))
