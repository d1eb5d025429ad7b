"""What several test files of word2vec_keras share."""

import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(4515)


@pytest.fixture
def keyed_vectors():
    """Makes gensim's KeyedVectors of words and vectors; skips where gensim is not installed."""
    models = pytest.importorskip("gensim.models", reason="gensim is only in benchmarks/")

    def make(words, vectors):
        theirs = models.KeyedVectors(vectors.shape[1])
        theirs.add_vectors(words, vectors)
        return theirs

    return make


@pytest.fixture
def words_and_vectors(rng):
    """Few letters in any case, so that many words are spellings of one, near each other."""
    words = {}
    while len(words) < 400:
        words["".join(rng.choice(list("abcABCéÉ"), rng.integers(1, 4)))] = None
    center = {word.upper(): rng.normal(size=12) for word in words}
    vectors = [center[word.upper()] + 0.3 * rng.normal(size=12) for word in words]
    return list(words), np.array(vectors, "float32")
