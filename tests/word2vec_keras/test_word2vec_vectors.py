"""word2vec_keras: the formats of vectors, evaluation sets, evaluators that equal gensim's."""

import resource
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from word2vec_keras.vectors import (
    evaluate_analogies,
    evaluate_word_pairs,
    most_similar,
    normalize,
    read_evaluation,
    read_vectors,
    write_vectors,
)

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data" / "word_eval"
FORMATS = ["vectors.txt", "vectors.bin"]
each_format = pytest.mark.parametrize("name", FORMATS)
each_real_set = pytest.mark.parametrize(
    "file",
    [
        "zh_cwe/240.txt",
        "zh_cwe/297.txt",
        "zh_cwe/analogy.txt",
        "zh_ca8/testsets/CA8/morphological.txt",
        "zh_ca8/testsets/CA8/semantic.txt",
        "en/ws/ws353.txt",
        "en/ws/bruni_men.txt",
    ],
)


@pytest.fixture
def rng():
    return np.random.default_rng(4515)


@pytest.fixture
def drawn(rng):
    """Words of many scripts and numbers of many sizes, as hard to write as float32 gets."""
    words = ["the", "of", "国王", "naïve", "e-mail", "\u3000", "x\ty", "🐴", "\x85", "12", "nan"]
    scale = 10.0 ** rng.integers(-30, 30, (len(words), 7))
    vectors = (rng.normal(size=scale.shape) * scale).astype("float32")
    vectors[0, :5] = 0, -0.0, 1e-45, np.finfo("float32").max, np.finfo("float32").tiny
    return words, vectors


def keyed_vectors(words, vectors):
    models = pytest.importorskip("gensim.models", reason="gensim is only in benchmarks/")
    theirs = models.KeyedVectors(vectors.shape[1])
    theirs.add_vectors(words, vectors)
    return theirs


# --- Vectors ---
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
def test_what_gensim_writes_is_read(name, drawn, tmp_path):
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
        ("a.txt", b"2 2\nof 3 4\nking 1\n", ":3: expected a word without blanks and 2 numbers"),
        ("a.txt", b"2 2\nof 3 4\nking 1 2 3\n", ":3: expected a word without blanks and 2 numbers"),
        ("a.txt", b"1 2\nNew York 1 2\n", ":2: expected a word without blanks and 2 numbers"),
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


# --- Evaluation sets ---
def write(path, text, encoding="utf-8"):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


PAIRS = [("sun", "light", 9.5), ("sun", "sea", 2.0)]
QUESTIONS = [("man", "king", "woman", "queen"), ("he", "his", "she", "her")]


@pytest.mark.parametrize(
    "text",
    [
        "sun light 9.5\nsun sea 2\n",
        "sun\tlight\t9.5\r\nsun\t sea \t2.0\r\n\r\n",
        "\ufeff# made by hand\nsun\tlight\t9.5\nsun\tsea\t2",
        "word1\tword2\tPOS\tSimLex999\nsun\tlight\tN\t9.5\nsun\tsea\tN\t2\n",
        "Word 1\tWord 2\tHuman (mean)\nsun\tlight\t9.5\nsun\tsea\t2\n",
        "sun\tlight\tN\t9.5\tSYNONYMS\t3\nsun\tsea\tN\t2\tNONE\t4\n",
        "sun\tlight\t9.5\t10\t9\nsun\tsea\t2\t1\t3\n",
    ],
    ids=["blanks", "tabs", "mark", "simlex", "wordsim", "simverb", "raters"],
)
def test_the_formats_of_word_pairs(text, tmp_path):
    assert read_evaluation(write(tmp_path / "set.txt", text)) == ({"set.txt": PAIRS}, {})
    assert read_evaluation(tmp_path) == ({"set.txt": PAIRS}, {})


@pytest.mark.parametrize(
    "text",
    [
        ": family\nman king woman queen\nhe his she her\n",
        ": royal\r\nman\tking\twoman\tqueen\r\n: family\r\nhe\this\tshe\ther",
        "man king woman queen\n\nhe his she her\n",
    ],
    ids=["blanks", "tabs", "no sections"],
)
def test_the_formats_of_analogies(text, tmp_path):
    file = write(tmp_path / "family.txt", text)
    assert read_evaluation(file) == ({}, {"family.txt": QUESTIONS})


def test_a_folder_is_searched_and_what_is_no_set_is_passed_over(tmp_path):
    write(tmp_path / "a" / "pairs.txt", "sun light 9.5\nsun sea 2\n")
    write(tmp_path / "b" / "family.txt", ": family\nman king woman queen\nhe his she her\n")
    write(tmp_path / "README.md", "# Sets\n\nFour words are here: see `family.txt`.\nOf 2 files.\n")
    write(tmp_path / "LICENSE", "MIT\n\nPermission is hereby granted to any person\n")
    write(tmp_path / "empty.txt", "")
    (tmp_path / "table.xlsx").write_bytes(b"PK\x03\x04" + np.random.default_rng(0).bytes(3000))
    pairs, analogies = read_evaluation(tmp_path)
    assert pairs == {"a/pairs.txt": PAIRS} and analogies == {"b/family.txt": QUESTIONS}


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("sun light 9.5\nsun sea two\nsun moon 3\n", "utf-8", ':2: expected "word word number"'),
        ("sun light 9.5\nsun sea\n", "utf-8", ":2: expected \"word word number\", got 'sun sea'"),
        ("sun\tlight\t9.5\n\tsea\t2\nsun\tsea\t2\n", "utf-8", ':2: expected "word word number"'),
        ("sun\tlight\tnan\nsun\tsea\t2\n", "utf-8", ':1: expected "word word number"'),
        (": family\nman king woman\na b c d\n", "utf-8", ":2: expected four words, got 'man"),
        (": family\na b c d\na b c d e\n", "utf-8", ":3: expected four words"),
        ("国王\t女王\t9.5\n太阳\t海\t2\n", "gb18030", ", byte 0: not UTF-8"),
        (": a\n国王 女王 男 女\n", "gb18030", ", byte 4: not UTF-8"),
    ],
)
def test_a_broken_line_of_a_set_is_one_clear_line(text, encoding, expected, error_of, tmp_path):
    file = write(tmp_path / "set.txt", text, encoding)
    assert error_of(read_evaluation, file).startswith(f"error: {file}{expected}")
    assert error_of(read_evaluation, tmp_path).startswith(f"error: {file}{expected}")


@pytest.mark.parametrize(
    ("data", "line"),
    [(b"", 1), (b"# only\n", 1), (b"a b 1\nSome prose here.\nand more of it still\n1\n2", 2)],
)
def test_a_file_that_is_no_set_is_one_clear_line_when_asked_for(data, line, error_of, tmp_path):
    (tmp_path / "x.txt").write_bytes(data)
    expected = f'error: {tmp_path / "x.txt"}:{line}: expected "word word number" or four words'
    assert error_of(read_evaluation, tmp_path / "x.txt").startswith(expected)
    assert "no evaluation sets" in error_of(read_evaluation, tmp_path)
    assert "no such file or folder" in error_of(read_evaluation, tmp_path / "none")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real sets are not on this machine")
def test_the_real_sets_are_all_found():
    pairs, analogies = read_evaluation(REAL)
    sizes = {name: len(one) for name, one in pairs.items()}
    assert sizes["zh_cwe/240.txt"] == 240 and sizes["zh_cwe/297.txt"] == 297
    assert sizes["en/ws/ws353.txt"] == 353 and sizes["en/ws/bruni_men.txt"] == 3000
    simlex = pairs["en/ws/SimLex-999/SimLex-999.txt"]
    assert simlex == pairs["en/ws/SimLex999.txt"] and len(simlex) == 999
    assert ("教授", "黄瓜", 0.296) in pairs["zh_cwe/297.txt"]  # A blank behind the tab.
    sizes = {name: len(one) for name, one in analogies.items()}
    folder = "zh_ca8/testsets/CA8"
    assert sizes[f"{folder}/morphological.txt"] + sizes[f"{folder}/semantic.txt"] == 17_813
    assert sizes["zh_cwe/analogy.txt"] == 953 and all(
        len(question) == 4 for one in analogies.values() for question in one
    )
    assert sizes["en/analogy/google.txt"] == 19_544 and len(pairs) + len(analogies) == 16


# --- Evaluators ---
def words_and_vectors(rng, n=400):
    """Few letters in any case, so that many words are spellings of one, near each other."""
    words = {}
    while len(words) < n:
        words["".join(rng.choice(list("abcABCéÉ"), rng.integers(1, 4)))] = None
    center = {word.upper(): rng.normal(size=12) for word in words}
    vectors = [center[word.upper()] + 0.3 * rng.normal(size=12) for word in words]
    return list(words), np.array(vectors, "float32")


def theirs_on_pairs(theirs, pairs, path, **keywords):
    path.write_text("".join(f"{a}\t{b}\t{score}\n" for a, b, score in pairs), encoding="utf-8")
    _, spearman, unknown = theirs.evaluate_word_pairs(str(path), **keywords)
    return spearman.statistic, 1 - unknown / 100


def sections_of(path):
    """{section: questions} of a file of analogies."""
    sections, section = {}, None
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        if line.startswith(":"):
            section = line.lstrip(": ").strip()
        elif line.strip():
            sections.setdefault(section, []).append(tuple(line.split()))
    return sections


def theirs_on_analogies(theirs, sections, path, **keywords):
    text = "".join(
        f": {name}\n" + "".join(" ".join(one) + "\n" for one in questions)
        for name, questions in sections.items()
    )
    path.write_text(text, encoding="utf-8")
    _, found = theirs.evaluate_word_analogies(str(path), **keywords)
    return {x["section"]: (len(x["correct"]), len(x["correct"] + x["incorrect"])) for x in found}


def counts(result):
    return round((result["value"] or 0) * result["n"]), result["n"]


def our_counts(words, vectors, sections, **keywords):
    sections = sections | {"Total accuracy": [one for part in sections.values() for one in part]}
    return {
        name: counts(evaluate_analogies(words, vectors, questions, **keywords))
        for name, questions in sections.items()
    }


@pytest.mark.parametrize("restrict_vocab", [300_000, 150])
def test_word_pairs_equal_gensims(rng, tmp_path, restrict_vocab):
    words, vectors = words_and_vectors(rng)
    vectors[7] = 0
    drawn = rng.choice([*words, "unknown", "ABCABC"], (500, 2)).tolist()
    drawn += [(word, word.lower()) for word in words[:50]] + [drawn[0], drawn[0]]
    pairs = [(a, b, round(float(rng.normal()), 1)) for a, b in drawn]
    ours = evaluate_word_pairs(words, vectors, pairs, restrict_vocab)
    theirs = keyed_vectors(words, vectors)
    rho, coverage = theirs_on_pairs(
        theirs, pairs, tmp_path / "pairs.tsv", restrict_vocab=restrict_vocab
    )
    assert ours["value"] == pytest.approx(rho, abs=1e-12)
    assert ours["coverage"] == pytest.approx(coverage) and 0 < coverage < 1
    assert ours["n"] == round(coverage * len(pairs))


@pytest.mark.parametrize("restrict_vocab", [300_000, 250])
def test_analogies_equal_gensims(rng, tmp_path, restrict_vocab):
    """On spellings near each other, words given twice, answers among the words given."""
    words, vectors = words_and_vectors(rng)
    sections = {}
    for name, some in (("few", words[:12]), ("all", words), ("unknown", ["x", "y"])):
        sections[name] = list(map(tuple, rng.choice(some, (600, 4)).tolist()))
    unit = normalize(vectors)
    for a, b, c, _ in sections["all"][:200]:  # Random words are never right: ask what is.
        rows = [words.index(word) for word in (a, b, c)]
        near = most_similar(words, unit, [rows[1], rows[2]], [rows[0]], topn=6)
        sections["few"] += [(a, b, c, word) for word, _ in near]
    theirs = keyed_vectors(words, vectors)
    path = tmp_path / "questions.txt"
    found = theirs_on_analogies(theirs, sections, path, restrict_vocab=restrict_vocab)
    ours = our_counts(words, vectors, sections, restrict_vocab=restrict_vocab)
    assert ours == found and ours["Total accuracy"][0] > 100 and ours["unknown"] == (0, 0)


@each_real_set
@pytest.mark.skipif(not REAL.is_dir(), reason="the real sets are not on this machine")
def test_the_evaluators_equal_gensims_on_real_sets(file, rng, tmp_path):
    """Over 90% of the words of the set and 2,000 others; halves of a line are made alike."""
    pairs, analogies = read_evaluation(REAL / file)
    [lines] = (pairs or analogies).values()
    known = sorted({word for line in lines for word in line if isinstance(word, str)})
    words = [word for word in known if rng.random() < 0.9] + [f"word{i}" for i in range(2000)]
    words = [words[i] for i in rng.permutation(len(words))]
    vectors = rng.normal(size=(len(words), 20)).astype("float32")
    rows = {word: row for row, word in enumerate(words)}
    for line in lines:
        if set(line[:4]) <= set(rows):  # An analogy: make it hold, more or less.
            a, b, c, d = (rows[word] for word in line)
            vectors[d] = vectors[b] - vectors[a] + vectors[c] + 0.5 * rng.normal(size=20)
    theirs = keyed_vectors(words, vectors)
    if pairs:
        ours = evaluate_word_pairs(words, vectors, lines)
        # delimiter=None: gensim would look for "黄瓜" with the blank that stands before it.
        _, spearman, unknown = theirs.evaluate_word_pairs(str(REAL / file), delimiter=None)
        assert ours["value"] == pytest.approx(spearman.statistic, abs=1e-12)
        assert ours["coverage"] == pytest.approx(1 - unknown / 100) and ours["coverage"] > 0.7
    else:
        sections = sections_of(REAL / file)
        assert [one for part in sections.values() for one in part] == lines
        found = theirs_on_analogies(theirs, sections, tmp_path / "questions.txt")
        ours = our_counts(words, vectors, sections)
        right, asked = ours["Total accuracy"]
        assert ours == found and right > 0.01 * asked


def test_most_similar_equals_gensims(rng):
    words, vectors = words_and_vectors(rng)
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


def test_a_perfect_analogy_by_hand():
    words = ["the", "man", "king", "woman", "queen", "King"]
    vectors = np.array([[9, 9, 9], [1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1], [1, 1, 0]])
    sections = {"royal": [("man", "king", "woman", "queen"), ("man", "king", "woman", "the")]}
    sections["given"] = [("man", "king", "man", "king"), ("MAN", "KING", "Woman", "Queen")]
    sections["other"] = [("a", "b", "c", "d")]
    questions = [one for part in sections.values() for one in part]
    ours = evaluate_analogies(words, vectors, questions)
    assert ours["value"] == 0.5 and ours["n"] == 4 and ours["coverage"] == 0.8
    assert ours["low"] == pytest.approx(0.15, abs=0.001)  # Wilson's, of 2 in 4.
    assert ours["high"] == pytest.approx(0.85, abs=0.001)
    parts = [evaluate_analogies(words, vectors, part) for part in sections.values()]
    assert [part["value"] for part in parts] == [0.5, 0.5, None]
    assert [part["coverage"] for part in parts] == [1, 1, 0]
    small = evaluate_analogies(words, vectors, questions[:4], restrict_vocab=4)
    assert counts(small) == (1, 2) and small["coverage"] == 0.5


def test_where_no_word_is_left_to_answer_nothing_is_right():
    ours = evaluate_analogies(["a", "b", "c"], np.eye(3), [("a", "b", "c", "a")])
    assert ours["value"] == 0 and ours["n"] == 1


def test_the_interval_of_rho_by_hand():
    """Of 13 pairs: z = arctanh(rho), half a width of 1.96 * sqrt(1.06 / 10)."""
    words = [f"w{i}" for i in range(14)]
    angles = np.linspace(0, 1.5, 14)
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1)
    scores = [13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 1, 2]
    pairs = [("w0", word, score) for word, score in zip(words[1:], scores, strict=True)]
    ours = evaluate_word_pairs(words, vectors, [*pairs, ("w0", "nowhere", 1)])
    rho = 1 - 6 * 2 / (13 * (13**2 - 1))
    assert ours["value"] == pytest.approx(rho) and ours["n"] == 13
    assert ours["coverage"] == pytest.approx(13 / 14)
    ends = np.tanh(np.arctanh(rho) + 1.96 * np.sqrt(0.106) * np.array([-1, 1]))
    assert [ours["low"], ours["high"]] == pytest.approx(ends.tolist())
    assert evaluate_word_pairs(words, vectors, pairs[:4])["high"] == 1


@pytest.mark.parametrize("pairs", [[], [("w0", "w1", 1)], [("w0", "w1", 1), ("w1", "w2", 1)]])
def test_no_correlation_has_no_value(pairs):
    ours = evaluate_word_pairs(["w0", "w1", "w2"], np.eye(3), pairs)
    assert ours["value"] is None and (ours["low"], ours["high"]) == (-1, 1)
    assert ours["n"] == len(pairs)


def test_nothing_asked_has_no_value():
    for questions in ([], [("a", "b", "c", "unknown")]):
        ours = evaluate_analogies(["a", "b", "c"], np.eye(3), questions)
        assert ours["value"] is None and ours["n"] == ours["coverage"] == 0
