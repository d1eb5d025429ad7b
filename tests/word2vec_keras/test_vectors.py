"""word2vec_keras/vectors.py: the file formats, and neighbours that equal gensim's."""

import resource
import struct
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from word2vec_keras.vectors import most_similar, normalize, read_vectors, write_vectors

FORMATS = ["vectors.txt", "vectors.bin"]
each_format = pytest.mark.parametrize("name", FORMATS)


@pytest.fixture
def drawn(rng):
    """Words of many scripts and numbers of many sizes, as hard to write as float32 gets."""
    words = ["the", "of", "国王", "naïve", "e-mail", "\u3000", "x\ty", "🐴", "\x85", "12", "nan"]
    scale = 10.0 ** rng.integers(-30, 30, (len(words), 7))
    vectors = (rng.normal(size=scale.shape) * scale).astype("float32")
    vectors[0, :5] = 0, -0.0, 1e-45, np.finfo("float32").max, np.finfo("float32").tiny
    return words, vectors


# --- Files ---
@each_format
def test_what_is_written_is_read_back_exactly(name, drawn, tmp_path):
    words, vectors = drawn
    write_vectors(tmp_path / name, words, vectors)
    read_words, read = read_vectors(tmp_path / name)
    assert read_words == words
    assert read.dtype == np.float32 and read.tobytes() == vectors.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@each_format
def test_gensim_reads_what_is_written(name, drawn, tmp_path):
    words, vectors = drawn
    models = pytest.importorskip("gensim.models", reason="gensim is only in benchmarks/")
    write_vectors(tmp_path / name, words, vectors)
    theirs = models.KeyedVectors.load_word2vec_format(tmp_path / name, binary=name[-3:] == "bin")
    assert theirs.index_to_key == words
    assert theirs.vectors.tobytes() == vectors.tobytes()


@each_format
def test_what_gensim_writes_is_read(name, drawn, keyed_vectors, tmp_path):
    words, vectors = drawn
    theirs = keyed_vectors(words, vectors)
    theirs.save_word2vec_format(tmp_path / name, binary=name[-3:] == "bin")
    read_words, read = read_vectors(tmp_path / name)
    assert read_words == words and read.tobytes() == vectors.tobytes()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        # word2vec.c and fastText end a row with a blank, the first also binary rows with a break.
        ("c.txt", b"2 2\nking 0.500000 -1.250000 \nof 3.000000 0.000000 \n"),
        ("fasttext.vec", b"2 2\nking 0.5 -1.25 \nof 3 0 \n"),
        ("windows.txt", b"2 2\r\nking 0.5 -1.25\r\nof 3 0\r\n"),
        ("twice.txt", b"3 2\nking 0.5 -1.25\nking 7 7\nof 3 0\n"),
        ("blank-end.txt", b"2 2\nking 0.5 -1.25\nof 3 0\n\n"),
        ("c.bin", b"2 2\nking \0\0\0?\0\0\xa0\xbf\nof \0\0@@\0\0\0\0\n"),
        ("gensim.bin", b"2 2\nking \0\0\0?\0\0\xa0\xbfof \0\0@@\0\0\0\0"),
        ("any-name", b"2 2\nking \0\0\0?\0\0\xa0\xbfof \0\0@@\0\0\0\0"),
    ],
)
def test_the_rows_of_other_producers_are_read(name, data, tmp_path):
    (tmp_path / name).write_bytes(data)
    words, vectors = read_vectors(tmp_path / name)
    assert words == ["king", "of"]
    np.testing.assert_array_equal(vectors, np.float32([[0.5, -1.25], [3, 0]]))


NAN = struct.pack("<f", np.nan)


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.txt", b"", ":1: expected the header"),
        ("a.txt", b"king 1 2\nof 3 4\n", ":1: expected the header"),  # GloVe has no header.
        ("a.txt", b"two 2\nof 3 4\n", ":1: expected the header"),
        ("a.txt", b"-1 2\nof 3 4\n", ":1: expected the header"),
        ("a.bin", bytes.fromhex("ba164f2f0c000000"), ":1: expected the header"),  # fastText's own.
        ("a.txt", b"0 2\n", ":1: the header promises 0 words"),
        ("a.txt", b"2 0\na\nb\n", ":1: the header promises 2 words of 0 numbers"),
        ("a.txt", b"1000000000000 2\nof 3 4\n", ":1: the header promises 1,000,000,000,000 words"),
        ("a.bin", b"1000000000000 2\nof \0\0\0\0\0\0\0\0", ":1: the header promises"),
        ("a.txt", b"1 1000000000000\nof 3 4\n", ":1: the header promises 1 words of 1,000,000"),
        ("a.txt", b"2 2\nof 0.25 0.125\n", ":2: the header promises 2 words, the file ends here"),
        ("a.txt", b"2 2\nof 3 4\nking 1.5 2", ":3: the file ends within this line"),
        ("a.txt", b"1 2\nof 3 4\nking 1 2\n", ":3: the header promises 1 words"),
        ("a.txt", b"2 2\nof 3 4\nking 1\n", ":3: expected a word without spaces and 2 numbers"),
        ("a.txt", b"2 2\nof 3 4\nking 1 2 3\n", ":3: expected a word without spaces and 2 numbers"),
        ("a.txt", b"1 2\nNew York 1 2\n", ":2: expected a word without spaces and 2 numbers"),
        ("a.txt", b"1 2\nof 3 four\n", ":2: could not convert"),
        ("a.txt", b"1 2\nof 3 nan\n", ":2: the vector of 'of' has a number that is not finite"),
        ("a.txt", b"1 2\nof 3 1e39\n", ":2: the vector of 'of' has a number that is not finite"),
        ("a.txt", b"1 2\n 3.0 4.0\n", ":2: expected a word, got "),
        ("a.txt", b"1 2\n\xb9\xfa 3 4\n", r":2: the word b'\xb9\xfa' is not UTF-8"),
        ("a.bin", b"1 1\nof " + NAN, ", byte 4: the vector of 'of' has a number that is not"),
        ("a.bin", b"1 1\n\xb9\xfa " + b"\0" * 4, r", byte 4: the word b'\xb9\xfa' is not UTF-8"),
        ("a.bin", b"2 1\nof \0\0\0\0king \0\0", ", byte 11: the header promises 2 words, the file"),
        ("a.bin", b"1 1\nof \0\0\0\0king \0\0\0\0", ", byte 11: the header promises 1 words, the"),
        ("a.bin", b"1 1\na\nb \0\0\0\0", ", byte 4: expected a word, got 'a"),
        ("a.bin", b"1 2\n" + b"x" * 99, ", byte 4: the header promises 1 words, the file ends"),
    ],
)
def test_bad_vectors_are_one_clear_line(name, data, expected, error_of, tmp_path):
    (tmp_path / name).write_bytes(data)
    assert error_of(read_vectors, tmp_path / name).startswith(f"error: {tmp_path / name}{expected}")


def test_vectors_that_are_not_there(error_of, tmp_path):
    assert "there is no such file" in error_of(read_vectors, tmp_path / "none.txt")
    assert "there is no such file" in error_of(read_vectors, tmp_path)


@each_format
def test_a_file_cut_anywhere_is_refused(name, drawn, error_of, tmp_path):
    write_vectors(tmp_path / name, drawn[0][:5], drawn[1][:5])
    data = (tmp_path / name).read_bytes()
    for end in range(len(data)):
        (tmp_path / name).write_bytes(data[:end])
        assert str(tmp_path / name) in error_of(read_vectors, tmp_path / name)


@pytest.mark.parametrize("row", [b"a 1 1\n", b"a \0\0\0\0\0\0\0\0"], ids=["text", "binary"])
def test_memory_is_bounded_by_the_size_of_the_file(row, tmp_path):
    """Where the header promises a thousand times as much, less than 2 GiB of memory suffices."""
    path = tmp_path / "vectors.bin" if b"\0" in row else tmp_path / "vectors.txt"
    path.write_bytes(b"1000000000 2\n" + row * 1_000_000)
    code = f"from word2vec_keras.vectors import read_vectors; read_vectors({str(path)!r})"

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))

    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {path}:1: the header promises")


@each_format
@pytest.mark.parametrize("word", ["", "New York", "a\nb"])
def test_words_the_format_cannot_hold_are_refused(name, word, error_of, tmp_path):
    line = error_of(write_vectors, tmp_path / name, ["of", word], np.ones((2, 3)))
    assert repr(word) in line and not list(tmp_path.iterdir())


@each_format
def test_a_diverged_training_is_not_written_over_good_vectors(name, error_of, tmp_path):
    write_vectors(tmp_path / name, ["of", "king"], np.ones((2, 3)))
    bad = np.array([[1, 1, 1], [1, np.inf, 1]])
    assert "the vector of 'king' is not finite" in error_of(
        write_vectors, tmp_path / name, ["of", "king"], bad
    )
    np.testing.assert_array_equal(read_vectors(tmp_path / name)[1], np.ones((2, 3)))


# --- Neighbours ---
def test_most_similar_equals_gensims(rng, words_and_vectors, keyed_vectors):
    words, vectors = words_and_vectors
    theirs, unit = keyed_vectors(words, vectors), normalize(vectors)
    for _ in range(50):
        rows = rng.choice(len(words), 3, replace=False).tolist()
        ours = most_similar(words, unit, rows[:2], rows[2:], topn=7)
        names = [words[row] for row in rows]
        expected = theirs.most_similar(positive=names[:2], negative=names[2:], topn=7)
        assert [word for word, _ in ours] == [word for word, _ in expected]
        np.testing.assert_allclose([x for _, x in ours], [x for _, x in expected], atol=1e-6)


def test_most_similar_lists_no_more_words_than_there_are():
    words, unit = ["a", "b", "c"], normalize(np.eye(3) + 0.1)
    assert {word for word, _ in most_similar(words, unit, [0])} == {"b", "c"}
    assert most_similar(words, unit, [0, 1], [2]) == []
