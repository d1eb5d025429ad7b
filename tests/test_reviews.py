"""data/reviews.py: written reviews, their labels and the words that cause them."""

from collections import Counter

import numpy as np
import pytest

from data import reviews
from rnn_saliency.dataset import Cutter, build_vocabulary

POLARITY = dict.fromkeys(reviews.PRAISE.split(), 1) | dict.fromkeys(reviews.BLAME.split(), -1)
for _, praise, blame, _, _ in reviews.KINDS.values():
    POLARITY |= dict.fromkeys(praise.split(), 1) | dict.fromkeys(blame.split(), -1)
NEGATIONS = set(reviews.NEGATIONS.split())
JOINING = {name: set(getattr(reviews, name).split()) for name in ("BUT", "ALTHOUGH", "IN_FACT")}


@pytest.fixture(scope="module")
def train():
    return reviews.load("train", 2000)


def places(words, kind):
    return [i for i, word in enumerate(words) if word in JOINING[kind]]


def read(words):
    """(label, places of cause words), as a person reads: an independent account of the grammar."""
    start, end, joining = 0, len(words), []
    if after := places(words, "IN_FACT") or places(words, "BUT"):
        [start], joining = after, after
    elif late := places(words, "ALTHOUGH"):
        [end], joining = late, late
    found = [i for i in range(start, end) if words[i] in POLARITY]
    negated = [i - 1 for i in found if words[i - 1] in NEGATIONS]
    praise = {POLARITY[words[i]] * (-1 if i - 1 in negated else 1) for i in found}
    assert len(praise) == 1, "a reader would be in doubt"
    return int(praise == {1}), tuple(sorted([*found, *negated, *joining]))


def test_a_reader_finds_every_label_and_cause(train):
    for review in train:
        assert read(review.words) == (review.label, review.causes)


def test_a_review_depends_on_seed_and_index_alone(train):
    for index in (17, 3):
        assert train[index] == reviews.draw_review(reviews.SEEDS["train"], index)


def test_splits_share_no_review_and_the_labels_are_balanced():
    drawn = [r.words for split in reviews.SEEDS for r in reviews.load(split, 1000)]
    assert len(set(drawn)) == len(drawn)
    share = np.mean([review.label for review in reviews.load("test", 1000)])
    assert abs(share - 0.5) < 5 * np.sqrt(0.25 / 1000)


def test_no_word_and_no_count_of_words_decides(train):
    """The best single word is right in little more than half, a bag of words in far from all."""
    counts = [Counter(w for r in train if r.label == k for w in set(r.words)) for k in (0, 1)]
    frequent = [word for word in {*counts[0], *counts[1]} if counts[0][word] + counts[1][word] > 40]
    test = reviews.load("test", 1000)
    for word in frequent:
        right = np.mean([(word in review.words) == review.label for review in test])
        assert 0.4 < right < 0.6, word
    ratio = {word: np.log((counts[1][word] + 1) / (counts[0][word] + 1)) for word in frequent}
    guesses = [sum(ratio.get(word, 0) for word in set(r.words)) > 0 for r in test]
    assert 0.5 < np.mean([guess == r.label for guess, r in zip(guesses, test, strict=True)]) < 0.8


def test_negation_contrast_repetition_and_intensifiers_all_come(train):
    texts = [review.words for review in train]
    for kind in JOINING:
        assert 0.08 < np.mean([bool(places(words, kind)) for words in texts]) < 0.6
    assert np.mean([bool(NEGATIONS & set(words)) for words in texts]) > 0.2
    assert np.mean([bool(set(reviews.INTENSIFIERS.split()) & set(w)) for w in texts]) > 0.5
    repeated = [any(w[i] == w[i - 1] == w[i - 2] for i in range(2, len(w))) for w in texts]
    assert np.mean(repeated) > 0.05
    both = [len({POLARITY[word] for word in words if word in POLARITY}) == 2 for words in texts]
    assert np.mean(both) > 0.5


def test_words_are_frequent_and_rare_as_in_a_text(train):
    counts = sorted(Counter(w for review in train for w in review.words).values(), reverse=True)
    assert len(counts) > 1000 and counts[0] > 20 * counts[100] and counts[600] <= 3


def test_the_cutter_of_these_words_cuts_their_text(train):
    """The known words come back in their order; rare names may fall into characters."""
    known = build_vocabulary([review.words for review in train], min_count=10)
    cutter = Cutter(sorted({word for review in train for word in review.words}))
    for review in train[:300]:
        words = [word for word in cutter("".join(review.words)) if word in known]
        assert words == [word for word in review.words if word in known]


def test_version_pins_the_words():
    """A change that moves a word must raise VERSION."""
    review = reviews.draw_review(reviews.SEEDS["train"], 0)
    assert (reviews.VERSION, "".join(review.words)) == (1, FIRST)


# A space stands for the Chinese comma.
FIRST = "昨天在北京收藏了图书馆 上周和张刚借阅了第二章 纸张出色 文字不错。在北京整理了的图书馆。"
FIRST = FIRST.replace(" ", "\uff0c")
