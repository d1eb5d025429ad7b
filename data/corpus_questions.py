"""Questions about the generated text whose answers are known: analogies and graded word pairs.

The lemmas are split into two halves, "dev" and "test", which share no word.
"""

from functools import cache
from itertools import permutations

import numpy as np

from data.corpus_language import VERSION, lemmas

# The relations that are asked for: {section: (role of a, role of b)}.
SECTIONS = {
    "capital": ("country", "capital"),
    "currency": ("country", "currency"),
    "language": ("country", "language"),
    "citizen": ("country", "citizen"),
    "female": ("male", "female"),
    "plural": ("singular", "plural"),
    "past": ("verb", "past"),
    "gerund": ("verb", "gerund"),
    "comparative": ("adjective", "comparative"),
    "superlative": ("adjective", "superlative"),
}
PAIRS = 20  # The pairs of each section in each half.
SPLITS = ("dev", "test")


@cache
def halves():
    """{"dev" | "test": indices of lemmas}, shuffled; both have about as many of each kind."""
    rng = np.random.default_rng((VERSION, 1))
    shuffled = rng.random(len(lemmas())).argsort(kind="stable")
    lemmas_of_kind = {}
    for lemma in shuffled:
        _, forms = lemmas()[lemma]
        kind = tuple(forms)  # Its roles.
        lemmas_of_kind.setdefault(kind, []).append(lemma)
    split = {"dev": [], "test": []}
    for kind in sorted(lemmas_of_kind):
        split["dev"] += lemmas_of_kind[kind][::2]
        split["test"] += lemmas_of_kind[kind][1::2]
    return split


def analogies(split):
    """[(section, a, b, c, d)] of "dev" or "test": a is to b as c is to d.

    Within a section each pair (a, b) meets each other one.
    """
    forms_of_split = [lemmas()[lemma][1] for lemma in halves()[split]]
    questions = []
    for section, (first, second) in SECTIONS.items():
        pairs = [(forms[first], forms[second]) for forms in forms_of_split if first in forms]
        for (a, b), (c, d) in permutations(pairs[:PAIRS], 2):
            questions.append((section, a, b, c, d))
    return questions


def word_pairs(split, count=100):
    """[(word, word, similarity)] of "dev" or "test", `count` of each similarity.

    Similarity 3: forms of one lemma; 2: one topic and one role; 1: one topic, two roles;
    0: two topics and two roles.
    """
    words = []
    for lemma in halves()[split]:
        topic, forms = lemmas()[lemma]
        for role, word in forms.items():
            words.append((word, lemma, topic, role))
    rng = np.random.default_rng((VERSION, 2, SPLITS.index(split)))
    pairs_of_grade = {3: {}, 2: {}, 1: {}, 0: {}}
    while any(len(pairs) < count for pairs in pairs_of_grade.values()):
        first, second = (words[int(u * len(words))] for u in rng.random(2))
        grade = grade_of(first, second)
        if grade is not None and len(pairs_of_grade[grade]) < count:
            pair = tuple(sorted((first[0], second[0])))
            pairs_of_grade[grade][pair] = None
    graded = []
    for grade, pairs in pairs_of_grade.items():
        graded += [(first, second, grade) for first, second in pairs]
    return graded


def grade_of(first, second):
    """The similarity of two (word, lemma, topic, role). None where the pair is not asked for."""
    first_word, first_lemma, first_topic, first_role = first
    second_word, second_lemma, second_topic, second_role = second
    if first_word == second_word:
        return None
    if first_lemma == second_lemma:
        return 3
    if first_topic == second_topic:
        if first_role == second_role:
            return 2
        return 1
    if first_role == second_role:
        return None
    return 0
