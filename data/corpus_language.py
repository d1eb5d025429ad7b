"""The language of the generated text: its words, how they inflect, and how often each is drawn.

Words that have a meaning are the forms of lemmas: "king" and "kings" are two forms of one lemma.
Each form has a role (singular, past, capital, ...) and each lemma a topic. The words come from
corpus_words.json. Function words are those of English, and the long tail of rare words is
invented.
"""

import json
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

VERSION = 1  # Part of every record: raise it with any change that moves a word of the text.
NUM_WORDS = 20_000

WORDS = json.loads((Path(__file__).parent / "corpus_words.json").read_text(encoding="utf-8"))
FUNCTION_WORDS = WORDS["function_words"]
# The cues of a role: words that stand before and after a form of that role.
ROLES = {role: (cues["before"], cues["after"]) for role, cues in WORDS["roles"].items()}
# Each topic has countable nouns, regular verbs, and adjectives that are compared by endings.
TOPICS = WORDS["topics"]
PEOPLE = WORDS["people"]  # {topic: [(male, female), ...]}
COUNTRIES = WORDS["countries"]  # [(country, capital, currency), ...]

COMPANIONS = 8  # Words that often stand near a form.
OWN = 0.2  # The fraction of its companions that a form does not share with its lemma.
POOL = 100  # The words of each topic's tail that may be companions.
# Zipf's law: the weight of a word is 1 / (rank + offset).
FORM_OFFSET = 30
TAIL_OFFSET = 300
MOST_WORDS = 1_000_000  # As many as `invented_words` makes.


class Language(NamedTuple):
    """The words, and the weights by which they are drawn. An id is a place in `words`.

    What belongs to topic t lies from first_...[t] to first_...[t + 1]. Weights are cumulative.
    """

    words: list  # words[0] ends a sentence.
    functions: np.ndarray  # Ids of the function words.
    function_weights: np.ndarray
    cues: np.ndarray  # (roles, before or after, n): ids, repeated so that all have n.
    forms: np.ndarray  # (forms, 2): id, role.
    companions: np.ndarray  # (forms, COMPANIONS): ids.
    first_form: np.ndarray
    form_weights: np.ndarray
    tail: np.ndarray  # Ids of the invented words.
    first_tail: np.ndarray
    tail_weights: np.ndarray


# --- Lemmas and their forms ---
def inflect(word, ending):
    """A word with an ending in English spelling.

    bake + ing = baking, story + s = stories, match + s = matches, heavy + er = heavier.
    """
    if word.endswith("y") and word[-2] not in "aeiou" and ending != "ing":
        if ending == "s":
            word = word[:-1] + "ie"
        else:
            word = word[:-1] + "i"
    elif ending == "s" and word.endswith(("s", "x", "ch", "sh")):
        word += "e"
    elif ending != "s" and word.endswith("e"):
        word = word[:-1]
    return word + ending


@cache
def lemmas():
    """Every lemma: [(topic, {role: form})]."""
    entries = []
    for topic, words in TOPICS.items():
        for noun in words["nouns"]:
            forms = {"singular": noun, "plural": inflect(noun, "s")}
            entries.append((topic, forms))
        for verb in words["verbs"]:
            forms = {"verb": verb, "past": inflect(verb, "ed"), "gerund": inflect(verb, "ing")}
            entries.append((topic, forms))
        for adjective in words["adjectives"]:
            forms = {
                "adjective": adjective,
                "comparative": inflect(adjective, "er"),
                "superlative": inflect(adjective, "est"),
            }
            entries.append((topic, forms))
        for male, female in PEOPLE.get(topic, []):
            entries.append((topic, {"male": male, "female": female}))
    for country, capital, currency in COUNTRIES:
        entries.append(("world", forms_of_country(country, capital, currency)))
    return entries


def forms_of_country(country, capital, currency):
    """The language of belmora is belmorish, its citizen a belmoran."""
    stem = country.removesuffix("a")
    return {
        "country": country,
        "capital": capital,
        "currency": currency,
        "language": stem.removesuffix("i") + "ish",
        "citizen": stem + "an",
    }


def topics():
    """The topic of each word that is a form of a lemma: {word: topic}."""
    topic_of = {}
    for topic, forms in lemmas():
        for word in forms.values():
            topic_of[word] = topic
    return topic_of


# --- All words ---
def invented_words():
    """A million words of two syllables, in an order that looks random."""
    onsets = [*"bdfghklmnprstvz", "br", "dr", "gr", "st", "tr"]
    syllables = ["".join(parts) for parts in product(onsets, "aeiou", "dklmnprstx")]
    for number in range(MOST_WORDS):
        first, second = divmod(number * 617_353 % MOST_WORDS, len(syllables))
        yield syllables[first] + syllables[second]


def core_words():
    """All words that are not invented, each once, behind the mark that ends a sentence."""
    words = ["\n", *FUNCTION_WORDS]
    for before, after in ROLES.values():
        words += before
        words += after
    for _, forms in lemmas():
        words += forms.values()
    return list(dict.fromkeys(words))


def all_words(num_words):
    """The core words, and invented ones until there are `num_words` and the end of a sentence."""
    words = dict.fromkeys(core_words())
    fewest = len(words) - 1 + POOL * len(TOPICS)
    if not fewest <= num_words <= MOST_WORDS:
        raise ValueError(f"num_words is {num_words}: must be from {fewest} to {MOST_WORDS}")
    for word in invented_words():
        if len(words) > num_words:
            break
        words[word] = None
    return list(words)


def cumulative(weights):
    """Sums of the first 0, 1, 2, ... weights."""
    return np.concatenate([[0], np.cumsum(weights)])


def forms_by_topic(ids):
    """Arrays with one entry per form, ordered by topic: topic, lemma, role, id."""
    topic_names = list(TOPICS)
    role_names = list(ROLES)
    rows = []
    for lemma, (topic, forms) in enumerate(lemmas()):
        for role, word in forms.items():
            rows.append((topic_names.index(topic), lemma, role_names.index(role), ids[word]))
    return np.array(sorted(rows)).T


def cues_by_role(ids):
    """Ids (roles, 2, n): the cues before and after, each list repeated to the longest length."""
    longest = max(len(side) for sides in ROLES.values() for side in sides)
    cues = []
    for sides in ROLES.values():
        for side in sides:
            repeated = (side * longest)[:longest]
            cues.append([ids[word] for word in repeated])
    return np.array(cues).reshape(len(ROLES), 2, longest)


@cache
def language(num_words=NUM_WORDS):
    """The Language with so many words. Raises ValueError for too few and too many."""
    rng = np.random.default_rng(VERSION)
    words = all_words(num_words)
    ids = {word: i for i, word in enumerate(words)}
    topic_boundaries = np.arange(len(TOPICS) + 1)

    topic_of_form, lemma, role, form = forms_by_topic(ids)
    rank_of_form = rng.random(len(form)).argsort(kind="stable")

    # The invented words are dealt to the topics in turn, so every topic has frequent and rare ones.
    tail = np.arange(len(core_words()), len(words))
    topic_of_tail = np.arange(len(tail)) % len(TOPICS)
    rank_of_tail = topic_of_tail.argsort(kind="stable")
    first_tail = np.searchsorted(topic_of_tail[rank_of_tail], topic_boundaries)
    tail = tail[rank_of_tail]

    shared, own = rng.random((2, len(form), COMPANIONS))
    is_own = rng.random(own.shape) < OWN
    companion = np.where(is_own, own, shared[lemma])
    companion = first_tail[topic_of_form][:, None] + (companion * POOL).astype(int)

    num_functions = len(FUNCTION_WORDS)
    return Language(
        words=words,
        functions=np.arange(1, num_functions + 1),
        function_weights=cumulative(1 / np.arange(1, num_functions + 1)),
        cues=cues_by_role(ids),
        forms=np.stack([form, role], axis=1),
        companions=tail[companion],
        first_form=np.searchsorted(topic_of_form, topic_boundaries),
        form_weights=cumulative(1 / (rank_of_form + FORM_OFFSET)),
        tail=tail,
        first_tail=first_tail,
        tail_weights=cumulative(1 / (rank_of_tail + TAIL_OFFSET)),
    )
