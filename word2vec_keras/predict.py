"""Asks trained word vectors: neighbours, analogies, similarity, probability.

python word2vec_keras/predict.py                                  # the newest run, in examples
python word2vec_keras/predict.py --nearest king bread
python word2vec_keras/predict.py --analogy "king - man + woman"
python word2vec_keras/predict.py --similarity king queen
python word2vec_keras/predict.py --log-probability king --context the old of
python word2vec_keras/predict.py --vectors vectors.txt --json --nearest king   # any such file
"""

import argparse
import difflib
import heapq
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np

from common.run import fail, find_run, load_file, run_script
from data import corpus
from word2vec_keras.vectors import most_similar, normalize, read_vectors


# --- Probability of a word, given others ---
def log_probabilities(model, vectors, weights, bias, counts, context):
    """log p(word | context) of all words; `context` holds rows.

    A skip-gram predicts from one word. If the context's words are independent given w, Bayes says
    log p(w | w1..wk) = sum of log p(w | wi) - (k - 1) log p(w) + a constant.
    """
    from scipy.special import logsumexp  # Here, so that --help answers at once.

    if "skipgram" in model:
        scores = (vectors[context] @ weights.T + bias).astype(np.float64)
        scores -= logsumexp(scores, axis=1, keepdims=True)
        frequency = np.maximum(counts, 1) / counts.sum()
        scores = scores.sum(0) - (len(context) - 1) * np.log(frequency)
    else:  # The post's CBOW sums, the fast one takes the mean.
        hidden = vectors[context].sum(0) / (len(context) if model == "fast-cbow" else 1)
        scores = (weights @ hidden + bias).astype(np.float64)
    return scores - logsumexp(scores)


def read_output(run_dir, num_words):
    """The run's model and its softmax: weights, bias and counts of the words, no padding."""
    model = str(load_file(run_dir / "record.json").get("arguments", {}).get("model"))
    path, names = run_dir / "output.npz", ("weights", "bias", "counts")
    if model not in ("cbow", "skipgram", "fast-cbow", "fast-skipgram"):
        fail(f"{run_dir / 'record.json'}: unknown model {model}")
    saved = load_file(path)
    if not saved.keys() >= set(names) or not all(saved[name].ndim for name in names):
        fail(f"{path} is missing or damaged: expected {', '.join(names)} in it")
    weights, bias, counts = (saved[name][1:] for name in names)
    if not len(weights) == len(bias) == len(counts) == num_words:
        fail(f"{path} and vectors.bin are not of one run: {len(weights)} and {num_words} words")
    return model, weights, bias, counts


# --- Words ---
def find_row(word, index):
    """The row of a word; an unknown one is one line with words spelled alike."""
    if word in index:
        return index[word]
    near = ", ".join(near_spellings(word, index))
    fail(f"{word!r} is not among the {len(index):,} words{near and f'; spelled alike: {near}'}")


def near_spellings(word, words):
    """Up to five words; difflib, which is slow, sees the 500 that share most pairs of letters."""
    letters, pairs = set(word.lower()), set(pairwise(word.lower()))

    def shared(other):
        return len(pairs.intersection(pairwise(other.lower()))) / (len(other) + 1)

    close = (x for x in words if abs(len(x) - len(word)) <= 2)
    close = (x for x in close if 2 * len(letters.intersection(x.lower())) >= len(letters))
    known = {x.lower(): x for x in reversed(heapq.nlargest(500, close, key=shared))}
    return [known[x] for x in difflib.get_close_matches(word.lower(), known, n=5, cutoff=0.5)]


def parse_analogy(expression, index):
    """Rows of the words added and of those taken away: "king - man + woman"."""
    parts = []
    for token in expression.split():  # A word may itself hold a sign: e-mail, C++.
        parts += [token] if token in index else filter(None, re.split(r"([+-])", token))
    if parts[:1] not in (["+"], ["-"]):
        parts.insert(0, "+")
    signs, names = parts[::2], parts[1::2]
    doubled = {"+", "-"}.intersection(names).difference(index)
    if len(signs) != len(names) or not {*signs} <= {"+", "-"} or doubled:
        fail(f'{expression!r}: expected words with + and - between, as in "king - man + woman"')
    rows = [find_row(name, index) for name in names]
    added = [row for sign, row in zip(signs, rows, strict=True) if sign == "+"]
    return added, [row for sign, row in zip(signs, rows, strict=True) if sign == "-"]


def examples(words, index):
    """Words, and analogies with their answers, to show when nothing is asked for."""
    known = {}
    for section, *analogy in corpus.analogies("test"):
        if section not in known and all(word in index for word in analogy):
            known[section] = analogy
    if known:
        return list(dict.fromkeys(a for a, *_ in known.values())), list(known.values())
    rows = np.unique(np.geomspace(1, len(words), 8).astype(int) - 1)  # From frequent to rare.
    return [words[row] for row in rows], []


# --- Main ---
def listed(found):
    """Words with their cosines, as text and for JSON."""
    text = ", ".join(f"{word} {cosine:.3f}" for word, cosine in found)
    return text, [(word, round(cosine, 4)) for word, cosine in found]


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
    add("--topn", type=int, default=10, help="how many words to list; default: 10")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--run-dir", type=Path, metavar="RUN", help="default: the newest run")
    source.add_argument("--vectors", type=Path, metavar="FILE", help="word2vec text or binary")
    add("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args(argv)
    if (args.log_probability is None) != (args.context is None):
        parser.error("--log-probability WORD and --context WORD ... need each other")
    if args.log_probability is not None and args.vectors:
        parser.error("--log-probability needs a run: a file of vectors holds no softmax")
    if args.topn < 1:
        parser.error("--topn: expected 1 or more")
    return args


def main(argv=None):
    args = parse_args(argv)
    run_dir = None if args.vectors else find_run("word2vec_keras", args.run_dir)
    words, vectors = read_vectors(args.vectors or run_dir / "vectors.bin")
    index, unit = {word: row for row, word in enumerate(words)}, normalize(vectors)
    answers = []

    def answer(text, **fields):
        answers.append(fields)
        print(json.dumps(fields, ensure_ascii=False) if args.json else text)

    def show_nearest(word, topn=args.topn):
        text, found = listed(most_similar(words, unit, [find_row(word, index)], topn=topn))
        answer(f"{word}: {text}", nearest=word, words=found)

    def show_analogy(expression, topn=args.topn, **expected):
        rows = parse_analogy(expression, index)
        text, found = listed(most_similar(words, unit, *rows, topn=topn))
        for word in expected.values():
            text += "   (right)" if found[0][0] == word else f"   (expected: {word})"
        answer(f"{expression} = {text}", analogy=expression, words=found, **expected)

    for word in args.nearest:
        show_nearest(word)
    if args.analogy:
        show_analogy(" ".join(args.analogy))
    if args.similarity:
        first, second = (unit[find_row(word, index)] for word in args.similarity)
        cosine = round(float(first @ second), 4)
        answer(f"{', '.join(args.similarity)}: {cosine}", similarity=args.similarity, cosine=cosine)
    if args.context:
        row, *context = (find_row(word, index) for word in [args.log_probability, *args.context])
        model, *output = read_output(run_dir, len(words))
        table = log_probabilities(model, vectors, *output, context)
        value, rank = float(table[row]), 1 + int((table > table[row]).sum())
        text = f"log p({args.log_probability} | {' '.join(args.context)}) = {value:.4f}"
        text += f": {np.exp(value):.3%}, place {rank:,} of {len(words):,}"
        fields = {"log_probability": args.log_probability, "context": args.context}
        answer(text, **fields, value=round(value, 4), place=rank)
    if not (args.nearest or args.analogy or args.similarity or args.context):
        asked, analogies = examples(words, index)
        for word in asked:
            show_nearest(word, topn=5)
        for a, b, c, d in analogies:
            show_analogy(f"{b} - {a} + {c}", topn=3, expected=d)
    return answers


if __name__ == "__main__":
    run_script(main)
