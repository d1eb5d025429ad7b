"""Cloze questions and stories in files: the official formats, and any text.

CMRC2017: a passage is lines `N ||| word word ...`, one of which holds XXXXX, and a last line
`<qid_K> ||| ...` that repeats this sentence. Another file has lines `<qid_K> ||| word`, and so
have the answers of a system. PD&CFT: the last line of a passage is `N ||| query ||| answer`, where
the query is a sentence of the passage or a new one. Words are separated by spaces. All files are
UTF-8, and read as they are: traditional characters are kept, so that 貓 and 猫 are two words.
"""

import re
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from common.cli import fail
from common.files import OPENERS, read_packed, write_text
from data.stories import BLANK, Question, tagger

SEPARATOR = " ||| "
QUESTION_ID = re.compile(r"<qid_\w+>")
MAX_WORDS = 1024  # Of a longer passage only so many words around the blank are read.
SENTENCE_ENDS = "。!?…\uff01\uff1f"
CLOSING_MARKS = "”」』》)\u2019\uff09"


# --- Lines ---
def read_lines(path):
    r"""The lines of a UTF-8 file, packed or not. Only \n and \r\n end a line."""
    try:
        data = read_packed(path)
    except ValueError as error:
        fail(error)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        fail(f"{path}, line {line}: not UTF-8: expected a text file in UTF-8")
    return text.rstrip("\r\n").replace("\r\n", "\n").split("\n")


def split_line(line, where, expected):
    """The fields of a line between ` ||| `. Another separator is a mistake of the user."""
    fields = [field.strip() for field in line.split(SEPARATOR)]
    if len(fields) < 2 or not fields[0] or SEPARATOR.strip() in " ".join(fields):
        fail(f'{where}: expected "{expected}", got {line[:40]!r}')
    return fields


# --- Questions ---
class Line(NamedTuple):
    """A line of a file of questions.

    Attributes:
        label: a number, or the id of a question.
        words: a sentence or a query.
        answer: the third field of PD&CFT, or None.
    """

    label: str
    words: tuple
    answer: str | None

    @property
    def is_sentence(self):
        return self.label.isdigit() and self.answer is None


def read_questions(path):
    """The list of Questions of a file in one of the official formats.

    The answers are in the file beside `path` that ends in .answer instead of .doc_query, either of
    them packed or not. Without it they are "".
    """
    path = Path(path)
    answers_path = find_answers(path)
    answers = {}
    if answers_path is not None:
        answers = read_answers(answers_path)
    questions = []
    line_of_id = {}
    for number, sentences, query in read_passages(path):
        where = f"{path}, line {number}"
        question = to_question(sentences, query, len(questions), answers)
        if question.id in line_of_id:
            first = line_of_id[question.id]
            fail(f"{where}: {question.id} is already the query of line {first}")
        if answers_path is not None and question.id not in answers:
            fail(f"{where}: {question.id} has no line in {answers_path}")
        line_of_id[question.id] = number
        questions.append(question)
    if not questions:
        fail(f"{path} is empty: expected passages and queries")
    not_asked = answers.keys() - line_of_id.keys()
    if not_asked:
        fail(f"{answers_path}: {min(not_asked)} is not a query of {path}")
    return questions


def read_passages(path):
    """Yields the passages of a file: (number of the query's line, sentences, the query's Line)."""
    sentences = []
    lines = read_lines(path)
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        where = f"{path}, line {number}"
        line = parse_line(text, where)
        if line.is_sentence:
            if line.label == "1" and sentences:
                fail(f"{where}: a new passage begins, but the one before has no query line")
            sentences.append(line.words)
        else:
            if not sentences:
                fail(f"{where}: a query, but no passage above it")
            yield number, sentences, line
            sentences = []
    if sentences:
        fail(f"{path}, line {len(lines)}: the file ends within a passage, before its query line")


def parse_line(text, where):
    """The Line that a text of two or three fields stands for."""
    label, sentence, *rest = split_line(text, where, f"N{SEPARATOR}word word ...")
    # In PD&CFT the blank sometimes touches a word.
    sentence = sentence.replace(BLANK, f" {BLANK} ")
    # Interned, each word is held in memory only once.
    words = tuple(sys.intern(word) for word in sentence.split())
    if not rest:
        if not label.isdigit() and not QUESTION_ID.fullmatch(label):
            fail(f'{where}: expected a number or "<qid_N>" before "|||", got {label[:40]!r}')
        return Line(label, words, None)
    if not label.isdigit() or len(rest) > 1 or len(rest[0].split()) != 1:
        fail(f'{where}: expected "N{SEPARATOR}query{SEPARATOR}answer", got {text[:40]!r}')
    return Line(label, words, rest[0])


def to_question(sentences, query, number, answers):
    """The Question of a passage and its query line.

    Args:
        query: a Line.
        number: how many questions stand above it in the file.
        answers: {id: word} of the questions that have no answer in their query line.
    """
    if query.answer is None:
        id = query.label
        answer = answers.get(id, "")
    else:
        id = f"<qid_{number}>"
        answer = query.answer
    if not any(BLANK in sentence for sentence in sentences):
        # The query is a sentence of its own, and the only one that has a blank.
        sentences = [*sentences, query.words]
    return Question(id, tuple(sentences), answer, number)


def name_of(path):
    """The name of a file of questions without .doc_query and what it is packed with."""
    return re.sub(r"(\.doc_query)?(\.gz|\.xz|\.bz2)?$", "", Path(path).name, count=1)


def find_answers(path):
    """The file with the answers to the questions in `path`, or None."""
    if ".doc_query" not in path.suffixes:
        return None
    for suffix in ("", *OPENERS):
        answers_path = path.with_name(f"{name_of(path)}.answer{suffix}")
        if answers_path.exists():
            return answers_path
    return None


def read_answers(path):
    """{id: word} of lines `<qid_K> ||| word`. A system may leave a word out: ""."""
    answers = {}
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        # With a space at its end, a line without a word still has its whole separator.
        id, *words = split_line(f"{line.rstrip()} ", where, f"<qid_N>{SEPARATOR}word")
        if not QUESTION_ID.fullmatch(id) or len(words) != 1:
            fail(f'{where}: expected "<qid_N>{SEPARATOR}word", got {line[:40]!r}')
        if id in answers:
            fail(f"{where}: {id} has an answer above already")
        answers[id] = words[0]
    if not answers:
        fail(f"{path} is empty: expected lines <qid_N>{SEPARATOR}word")
    return answers


def write_answers(path, answers):
    """Writes {id: word} as the official evaluation reads it."""
    lines = [f"{id}{SEPARATOR}{word}\n" for id, word in answers.items()]
    write_text(path, "".join(lines))


# --- Questions that cannot be used ---
def words_to_read(question, max_words=MAX_WORDS):
    """The words around the blank, at most max_words, and how many come before them."""
    words = [word for sentence in question.sentences for word in sentence]
    half = max_words // 2
    first = max(0, words.index(BLANK) - half)
    first = min(first, max(0, len(words) - max_words))
    return words[first : first + max_words], first


def why_unusable(question):
    """Why a reader can learn nothing from a question, or "" where it can."""
    counts = Counter(word for sentence in question.sentences for word in sentence)
    if counts[BLANK] == 0:
        return "no blank"
    if counts[BLANK] > 1:
        return "two blanks"
    if question.answer in ("", BLANK):
        return "no answer"
    if counts[question.answer] == 0:
        return "answer not in the passage"
    words, _ = words_to_read(question)
    if question.answer not in words:
        return "answer too far from the blank"
    return ""


def usable_only(questions):
    """The questions that can be learnt from, and {reason: how many} of the others."""
    usable = []
    left_out = Counter()
    for question in questions:
        reason = why_unusable(question)
        if reason:
            left_out[reason] += 1
        else:
            usable.append(question)
    return usable, dict(left_out)


# --- Stories ---
def read_stories(path):
    """The stories of a file, each a list of sentences, each a tuple of words.

    An empty line ends a story. A line is a sentence if its words are separated by spaces, and a
    paragraph, which jieba cuts, if they are not. In a file without empty lines each line is a
    story.
    """
    lines = [line.strip() for line in read_lines(path)]
    story_per_line = "" not in lines[:-1]
    stories = []
    story = []
    for line in lines:
        if is_segmented(line) and not story_per_line:
            story.append(tuple(line.split()))
        else:
            story += into_sentences(cut(line))
        if story_per_line or line == "":
            stories.append(story)
            story = []
    stories.append(story)
    stories = [story for story in stories if story]
    if not stories:
        fail(f"{path} is empty: expected stories, an empty line between them")
    return stories


def is_segmented(text):
    """Whether words are separated by spaces, rather than a space standing here and there."""
    return 8 * text.count(" ") > len(text)


def cut(text, keep=()):
    """The words of a text: those between spaces if it has any, else those that jieba finds.

    BLANK is always a word of its own. jieba does not guess words that are not in its dictionary:
    so the post cut its own texts.

    Args:
        keep: texts that become one word, wherever jieba's words make up one of them.
    """
    without_blank = re.sub(rf"\s*{BLANK}\s*", "", text)
    parts = text.replace(BLANK, f" {BLANK} ").split()
    if is_segmented(without_blank):
        return parts
    words = []
    for part in parts:
        if part == BLANK:
            words.append(part)
        else:
            words += tagger().tokenizer.lcut(part, HMM=False)
    return join_words(words, keep)


def join_words(words, keep):
    """The words, where words that together are one of `keep` are joined: the longest match first.

    A text to keep may hold spaces, which the words do not.
    """
    kept = {"".join(text.split()): text for text in keep}
    longest = max((len(text) for text in kept), default=1)
    joined = []
    start = 0
    while start < len(words):
        end = start + 1
        word = words[start]
        for candidate_end in range(start + longest, start + 1, -1):
            candidate = "".join(words[start:candidate_end])
            if candidate in kept:
                end = candidate_end
                word = candidate
                break
        joined.append(kept.get(word, word))
        start = end
    return joined


def into_sentences(words):
    """The sentences of a list of words, each with its end and the marks that close it."""
    sentences = []
    sentence = []
    ended = False
    for word in words:
        if ended and word not in CLOSING_MARKS and word not in SENTENCE_ENDS:
            sentences.append(tuple(sentence))
            sentence = []
            ended = False
        sentence.append(word)
        if word in SENTENCE_ENDS:
            ended = True
    if sentence:
        sentences.append(tuple(sentence))
    return sentences
