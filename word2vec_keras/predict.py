"""Asks trained word vectors: neighbours, analogies, similarity, probability.

python word2vec_keras/predict.py                                  # the newest run, in examples
python word2vec_keras/predict.py --nearest king bread
python word2vec_keras/predict.py --analogy "king - man + woman"
python word2vec_keras/predict.py --similarity king queen
python word2vec_keras/predict.py --log-probability king --context the old of
python word2vec_keras/predict.py --vectors vectors.txt --json --nearest king   # any such file

It needs no Keras, so it answers at once.
"""

import argparse
import difflib
import heapq
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np

from common import cli
from common.folders import find_run
from data import corpus
from word2vec_keras.evaluate import log_probabilities, read_softmax
from word2vec_keras.vectors import most_similar, normalize, read_vectors


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--nearest", nargs="+", default=[], metavar="WORD", help="the words most like each")
    add("--analogy", nargs="+", metavar="TERM", help='as in "king - man + woman"')
    add("--similarity", nargs=2, metavar="WORD", help="the cosine of two words")
    add("--log-probability", metavar="WORD", help="log p(WORD | context), needs a run")
    add("--context", nargs="+", metavar="WORD", help="of --log-probability")
    add("--topn", type=cli.positive_int, default=10, help="how many words to list; default: 10")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--run-dir", type=Path, metavar="RUN", help="default: the newest run")
    source.add_argument("--vectors", type=Path, metavar="FILE", help="word2vec text or binary")
    add("--json", action="store_true", help="print one JSON object per line")
    args = parser.parse_args(argv)
    if (args.log_probability is None) != (args.context is None):
        parser.error("--log-probability WORD and --context WORD ... need each other")
    if args.log_probability is not None and args.vectors is not None:
        parser.error("--log-probability needs a run: a file of vectors holds no softmax")
    return args


def main(argv=None):
    args = parse_args(argv)
    run_dir = None
    path = args.vectors
    if path is None:
        run_dir = find_run("word2vec_keras", args.run_dir)
        path = run_dir / "vectors.bin"
    known = WordVectors(*read_vectors(path))
    if args.nearest or args.analogy or args.similarity or args.context:
        answers = answer_questions(args, known, run_dir)
    else:
        answers = answer_examples(known)
    shown = []
    for text, fields in answers:
        if args.json:
            text = json.dumps(fields, ensure_ascii=False)
        print(text)
        shown.append(fields)
    return shown


class WordVectors:
    """The words that can be asked for, with their vectors.

    Attributes:
        words: list of str, in most files by falling frequency.
        vectors: float32 (words, dimension).
        unit: the vectors with length 1.
        row_of: {word: row}.
    """

    def __init__(self, words, vectors):
        self.words = words
        self.vectors = vectors
        self.unit = normalize(vectors)
        self.row_of = {word: row for row, word in enumerate(words)}

    def find_row(self, word):
        """The row of a word. An unknown word ends the script with one line and near spellings."""
        if word in self.row_of:
            return self.row_of[word]
        message = f"{word!r} is not among the {len(self.words):,} words"
        near = near_spellings(word, self.row_of)
        if near:
            message += f"; spelled alike: {', '.join(near)}"
        cli.fail(message)


# --- Answers: each is (a line, what --json shows) ---
def answer_questions(args, known, run_dir):
    """Yields the answers to what the flags ask."""
    for word in args.nearest:
        yield answer_nearest(known, word, args.topn)
    if args.analogy:
        yield answer_analogy(known, " ".join(args.analogy), args.topn)
    if args.similarity:
        yield answer_similarity(known, *args.similarity)
    if args.context:
        yield answer_log_probability(known, run_dir, args.log_probability, args.context)


def answer_examples(known):
    """Yields neighbours and analogies to look at, when nothing is asked for."""
    words, analogies = choose_examples(known)
    for word in words:
        yield answer_nearest(known, word, topn=5)
    for a, b, c, d in analogies:
        yield answer_analogy(known, f"{b} - {a} + {c}", topn=3, expected=d)


def answer_nearest(known, word, topn):
    nearest = most_similar(known.words, known.unit, [known.find_row(word)], topn=topn)
    return f"{word}: {as_text(nearest)}", {"nearest": word, "words": rounded(nearest)}


def answer_analogy(known, expression, topn, expected=None):
    added, taken = parse_analogy(expression, known)
    nearest = most_similar(known.words, known.unit, added, taken, topn)
    text = f"{expression} = {as_text(nearest)}"
    fields = {"analogy": expression, "words": rounded(nearest)}
    if expected is not None:
        fields["expected"] = expected
        first_word, _ = nearest[0]
        if first_word == expected:
            text += "   (right)"
        else:
            text += f"   (expected: {expected})"
    return text, fields


def answer_similarity(known, first, second):
    first_unit, second_unit = (known.unit[known.find_row(word)] for word in (first, second))
    cosine = round(float(first_unit @ second_unit), 4)
    return f"{first}, {second}: {cosine}", {"similarity": [first, second], "cosine": cosine}


def answer_log_probability(known, run_dir, word, context):
    row = known.find_row(word)
    context_rows = [known.find_row(other) for other in context]
    model, *softmax = read_softmax(run_dir, len(known.words))
    table = log_probabilities(model, known.vectors, softmax, context_rows)
    value = float(table[row])
    place = 1 + int((table > table[row]).sum())
    text = f"log p({word} | {' '.join(context)}) = {value:.4f}"
    text += f": {np.exp(value):.3%}, place {place:,} of {len(known.words):,}"
    fields = {"log_probability": word, "context": context, "value": round(value, 4)}
    fields["place"] = place
    return text, fields


def as_text(nearest):
    return ", ".join(f"{word} {cosine:.3f}" for word, cosine in nearest)


def rounded(nearest):
    return [(word, round(cosine, 4)) for word, cosine in nearest]


# --- Questions ---
def near_spellings(word, words):
    """Up to five words spelled like `word`.

    difflib is slow, so it sees no more than the 500 words that share most pairs of letters.
    """
    letters = set(word.lower())
    pairs = set(pairwise(word.lower()))

    def fraction_shared(other):
        return len(pairs.intersection(pairwise(other.lower()))) / (len(other) + 1)

    candidates = []
    for other in words:
        is_as_long = abs(len(other) - len(word)) <= 2
        if is_as_long and 2 * len(letters.intersection(other.lower())) >= len(letters):
            candidates.append(other)
    candidates = heapq.nlargest(500, candidates, key=fraction_shared)
    spelling = {other.lower(): other for other in reversed(candidates)}
    near = difflib.get_close_matches(word.lower(), spelling, n=5, cutoff=0.5)
    return [spelling[other] for other in near]


def parse_analogy(expression, known):
    """The rows of the words added and of those taken away: "king - man + woman"."""
    parts = []
    for token in expression.split():
        if token in known.row_of:  # A word may itself hold a sign: e-mail, C++.
            parts.append(token)
        else:
            parts += [part for part in re.split(r"([+-])", token) if part]
    if not parts or parts[0] not in ("+", "-"):
        parts.insert(0, "+")
    signs = parts[::2]
    names = parts[1::2]
    two_signs = any(name in ("+", "-") and name not in known.row_of for name in names)
    if len(signs) != len(names) or not set(signs) <= {"+", "-"} or two_signs:
        cli.fail(f'{expression!r}: expected words with + and - between, as in "king - man + woman"')
    added = []
    taken = []
    for sign, name in zip(signs, names, strict=True):
        if sign == "+":
            added.append(known.find_row(name))
        else:
            taken.append(known.find_row(name))
    return added, taken


def choose_examples(known):
    """Words, and analogies (a, b, c, d), to show when nothing is asked for.

    The first known analogy of each section of the generated text; for another text words from
    frequent to rare.
    """
    analogy_of = {}
    for section, *analogy in corpus.analogies("test"):
        if section not in analogy_of and all(word in known.row_of for word in analogy):
            analogy_of[section] = analogy
    if analogy_of:
        examples = dict.fromkeys(a for a, *_ in analogy_of.values())
        return list(examples), list(analogy_of.values())
    rows = np.geomspace(1, len(known.words), 8).astype(int) - 1
    return [known.words[row] for row in np.unique(rows)], []


if __name__ == "__main__":
    cli.run(main)
