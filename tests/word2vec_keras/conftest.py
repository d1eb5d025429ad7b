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


@pytest.fixture
def flag_error_of(capsys):
    """Calls a main with flags that argparse must refuse; returns the last line on stderr."""

    def call(main, argv):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(argv)
        lines = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2
        assert lines[0].startswith("usage: ") and "error: " in lines[-1], lines
        return lines[-1]

    return call
