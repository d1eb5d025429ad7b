"""Generated text with known word relations, the embedded corpus of word2vec_keras.

Each clause is about one form of a lemma ("kings", "belmora"). Around it stand cues of its role
(plural, capital, ...), its companions, most of which all forms of the lemma share, words of its
topic, function words and noise. So forms of one lemma, of one role and of one topic are alike,
each in its own way, and b - a is regular for the pairs (a, b) of a relation. Some companions
belong to one form only, and frequencies follow Zipf's law, so no method answers every question.

The language is fixed (corpus_language.py); `seed` draws other sentences of it. Sentences come in
blocks that depend on (seed, block) and nothing else, so a long corpus starts with the shorter
one. Random numbers are uniform and only added, multiplied and compared: the text is the same on
every machine. VERSION is part of every record: raise it with any change that moves a word.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.files import replacing
from data.corpus_language import (
    COMPANIONS,
    FUNCTION_WORDS,
    NUM_WORDS,
    ROLES,
    VERSION,
    language,
    lemmas,
    topics,
)
from data.corpus_questions import PAIRS, SECTIONS, analogies, word_pairs

__all__ = [
    "FUNCTION_WORDS",
    "NUM_TOKENS",
    "NUM_WORDS",
    "PAIRS",
    "ROLES",
    "SECTIONS",
    "VERSION",
    "analogies",
    "blocks",
    "language",
    "lemmas",
    "load",
    "topics",
    "word_pairs",
    "write",
]

CACHE = Path(__file__).parent / "downloads"
NUM_TOKENS = 2_000_000

# What stands in each place of a clause. B and A: cues before and after; W: the form; C: a
# companion; T: a word of the topic; F: a function word; G: any word of the tail.
CLAUSES = (
    "FBWACFT",
    "BWTCTFG",
    "FTFBWAFC",
    "TFBWGFCT",
    "FBWFCGTF",
    "GFBWATFCT",
)
MAX_CLAUSES = 3  # In a sentence.
BLOCK = 4096  # Sentences.


# --- Drawing sentences ---
def draw(rng, weights, low, high):
    """One place from low to high - 1 for each pair (low, high), by cumulative weights."""
    start = weights[low]
    end = weights[high]
    value = start + rng.random(len(low)) * (end - start)
    return np.clip(np.searchsorted(weights, value, side="right") - 1, low, high - 1)


def draw_any(rng, weights, count):
    """`count` places, by cumulative weights."""
    low = np.zeros(count, int)
    return draw(rng, weights, low, low + len(weights) - 1)


def draw_of_topic(rng, weights, first, topic):
    """One place for each topic, out of its own: those from first[topic] to first[topic + 1]."""
    return draw(rng, weights, first[topic], first[topic + 1])


def draw_early(rng, num_places, count):
    """`count` places below `num_places`; the first ones are drawn most often."""
    u = rng.random(count)
    return (u * u * num_places).astype(int)


def draw_clauses(rng, num_clauses):
    """The letters of CLAUSES as rows (clauses, width), filled up with blanks.

    The last column joins the clause to the next one by a function word, F, or ends the sentence.

    Args:
        num_clauses: of each sentence.
    """
    width = max(map(len, CLAUSES)) + 1
    patterns = np.array([list(clause.ljust(width)) for clause in CLAUSES])
    chosen = (rng.random(num_clauses.sum()) * len(CLAUSES)).astype(int)
    letters = patterns[chosen]
    letters[:, -1] = "F"
    letters[np.cumsum(num_clauses) - 1, -1] = "."
    return letters


def draw_block(seed, block, num_words=NUM_WORDS):
    """The ids of BLOCK sentences, a 0 after each sentence, as one array."""
    known = language(num_words)
    rng = np.random.default_rng((VERSION, seed, block))
    num_clauses = 1 + (rng.random(BLOCK) * MAX_CLAUSES).astype(int)
    # A first form of each sentence decides on its topic, then each clause gets a form of that.
    form = draw_any(rng, known.form_weights, BLOCK)
    topic = np.searchsorted(known.first_form, form, side="right") - 1
    topic = np.repeat(topic, num_clauses)
    form = draw_of_topic(rng, known.form_weights, known.first_form, topic)
    word, role = known.forms[form].T

    letters = draw_clauses(rng, num_clauses)
    places = {letter: np.nonzero(letters == letter) for letter in "WBACTFG"}
    clause_of = {letter: rows for letter, (rows, _) in places.items()}
    count = {letter: len(rows) for letter, rows in clause_of.items()}
    # The order of these draws is part of VERSION.
    num_cues = known.cues.shape[2]
    before = draw_early(rng, num_cues, count["B"])
    after = draw_early(rng, num_cues, count["A"])
    companion = draw_early(rng, COMPANIONS, count["C"])
    topic_word = draw_of_topic(rng, known.tail_weights, known.first_tail, topic[clause_of["T"]])
    function = draw_any(rng, known.function_weights, count["F"])
    noise = draw_any(rng, known.tail_weights, count["G"])

    ids = np.zeros(letters.shape, int)
    ids[places["W"]] = word
    ids[places["B"]] = known.cues[role[clause_of["B"]], 0, before]
    ids[places["A"]] = known.cues[role[clause_of["A"]], 1, after]
    ids[places["C"]] = known.companions[form[clause_of["C"]], companion]
    ids[places["T"]] = known.tail[topic_word]
    ids[places["F"]] = known.functions[function]
    ids[places["G"]] = known.tail[noise]
    return ids[letters != " "]


# --- The text ---
def blocks(num_tokens=NUM_TOKENS, seed=0, num_words=NUM_WORDS):
    """The text as arrays of ids, a 0 after each sentence. The last sentence is whole.

    Args:
        num_tokens: at least so many words; a few more, to the end of the sentence.
        num_words: the size of the language.
    """
    block = 0
    missing = num_tokens
    while missing > 0:
        ids = draw_block(seed, block, num_words)
        ends = np.flatnonzero(ids == 0)
        tokens = ends - np.arange(len(ends))  # Up to the end of each sentence.
        last = min(np.searchsorted(tokens, missing), len(ends) - 1)
        yield ids[: ends[last] + 1]
        missing -= tokens[last]
        block += 1


def write(path, num_tokens=NUM_TOKENS, seed=0, num_words=NUM_WORDS):
    """Writes the text, a sentence per line, and returns the number of its tokens."""
    words = np.array(language(num_words).words, object)
    written = 0
    bar = tqdm(total=num_tokens, desc="writing the corpus", unit="token", disable=None)
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
        bar,
    ):
        for ids in blocks(num_tokens, seed, num_words):
            text = " ".join(words[ids])
            file.write(text.replace(" \n ", "\n").replace(" \n", "\n"))
            num_written = np.count_nonzero(ids)
            written += num_written
            bar.update(num_written)
    return written


def load(num_tokens=NUM_TOKENS, seed=0, num_words=NUM_WORDS, folder=CACHE):
    """The path of the text, which is written once."""
    path = folder / f"corpus-v{VERSION}-{num_tokens}-{seed}-{num_words}.txt"
    if not path.exists():
        write(path, num_tokens, seed, num_words)
    return path
