"""word2vec_keras/evaluate.py: the formats of evaluation sets, and scores that equal gensim's."""

import numpy as np
import pytest
from conftest import ROOT

from word2vec_keras.evaluate import (
    evaluate_analogies,
    evaluate_word_pairs,
    read_evaluation,
)
from word2vec_keras.vectors import most_similar, normalize

REAL = ROOT.parent / "shared" / "data" / "word_eval"
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
def test_word_pairs_equal_gensims(rng, words_and_vectors, keyed_vectors, tmp_path, restrict_vocab):
    words, vectors = words_and_vectors
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
def test_analogies_equal_gensims(rng, words_and_vectors, keyed_vectors, tmp_path, restrict_vocab):
    """On spellings near each other, words given twice, answers among the words given."""
    words, vectors = words_and_vectors
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
def test_the_evaluators_equal_gensims_on_real_sets(file, rng, keyed_vectors, tmp_path):
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
