"""word2vec_keras/predict.py on a run made by hand: questions, answers, mistakes."""

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

import common.folders
from data import corpus
from word2vec_keras import predict
from word2vec_keras.vectors import write_vectors

SAVED = Path(__file__).parent / "saved_by_1fae3ac"
WORDS = ["the", "man", "woman", "king", "queen", "e-mail", "国王", "女王", "Kings"]
VECTORS = np.array(
    [
        [1, 1, 1, -9, 0],
        [4, 0, 1, 0, 0],
        [0, 4, 1, 0, 0],
        [4, 0, 9, 0, 0],
        [0, 4, 9, 0, 0],
        [0, 0, -3, 5, 0],
        [3, 0, 8, 0, 1],
        [0, 3, 8, 0, 1],
        [4, 0, 6, 1, 1],
    ],
    "float32",
)


def make_run(run_dir, model="cbow", words=WORDS, vectors=VECTORS):
    rng = np.random.default_rng(0)
    run_dir.mkdir(parents=True)
    record = {"experiment": "word2vec_keras", "arguments": {"model": model}}
    (run_dir / "record.json").write_text(json.dumps(record))
    write_vectors(run_dir / "vectors.bin", words, vectors)
    counts = np.array([0, *sorted(rng.integers(5, 500, len(words)))[::-1]])
    weights = rng.normal(0, 0.2, (len(words) + 1, vectors.shape[1])).astype("float32")
    bias = rng.normal(0, 0.5, len(words) + 1).astype("float32")
    bias[0] = 9  # Of the padding: it would take nearly all of the probability.
    np.savez(run_dir / "output.npz", weights=weights, bias=bias, counts=counts)
    return run_dir


@pytest.fixture
def ask(tmp_path, capsys):
    """Asks the hand-made run; returns what main returns and what it prints."""
    run_dir = make_run(tmp_path / "run")

    def call(*words):
        answers = predict.main(["--run-dir", str(run_dir), *words])
        return answers, capsys.readouterr().out.splitlines()

    return call


# --- Answers ---
def cosine(a, b):
    x, y = (VECTORS[WORDS.index(word)].astype(float) for word in (a, b))
    return x @ y / math.sqrt(x @ x * (y @ y))


def test_nearest_words(ask):
    answers, lines = ask("--nearest", "king", "女王", "--topn", "2")
    assert [answer["nearest"] for answer in answers] == ["king", "女王"]
    [(first, high), (second, low)] = answers[0]["words"]
    assert (first, second) == ("国王", "Kings")
    expected = cosine("king", "国王"), cosine("king", "Kings")
    assert (high, low) == pytest.approx(expected, abs=1e-4)
    assert lines[0] == f"king: 国王 {expected[0]:.3f}, Kings {expected[1]:.3f}"
    assert len(lines) == 2 and lines[1].startswith("女王: queen ")


def test_all_other_words_are_listed_if_so_many_are_wanted(ask):
    [answer], _ = ask("--nearest", "the", "--topn", "99")
    assert sorted(word for word, _ in answer["words"]) == sorted(WORDS[1:])
    cosines = [cosine for _, cosine in answer["words"]]
    assert cosines == sorted(cosines, reverse=True)


@pytest.mark.parametrize(
    "terms",
    [
        ["king - man + woman"],
        ["king", "-", "man", "+", "woman"],
        ["king-man+woman"],
        ["woman + king - man"],
        [" + king  +woman -man"],
        ["king - the + woman - man + the"],
    ],
)
def test_analogies(ask, terms):
    [answer], [line] = ask("--analogy", *terms, "--topn", "1")
    assert answer["words"][0][0] == "queen"
    assert line.startswith(" ".join(terms) + " = queen 0.8")


@pytest.mark.parametrize(
    ("expression", "added", "taken"),
    [
        ("king", ["king"], []),
        ("C++ + +", ["C++", "+"], []),
        ("e-mail - the", ["e-mail"], ["the"]),
        ("国王-man+woman", ["国王", "woman"], ["man"]),
        ("- man + king", ["king"], ["man"]),
    ],
)
def test_a_word_may_hold_a_sign(expression, added, taken):
    words = [*WORDS, "C++", "+", "-"]
    known = predict.WordVectors(words, np.ones((len(words), 5)))
    rows = predict.parse_analogy(expression, known)
    assert [[words[row] for row in side] for side in rows] == [added, taken]


def test_similarity(ask):
    [answer], [line] = ask("--similarity", "king", "Kings")
    assert answer["similarity"] == ["king", "Kings"]
    assert answer["cosine"] == pytest.approx(cosine("king", "Kings"), abs=1e-4)
    assert line == f"king, Kings: {answer['cosine']}"


def log_softmax_by_hand(weights, bias, hidden):
    scores = [bias[w] + sum(weights[w][i] * hidden[i] for i in range(5)) for w in range(1, 10)]
    total = sum(math.exp(score) for score in scores)
    return [score - math.log(total) for score in scores]


def log_probability_by_hand(run_dir, model, word, context):
    """In loops over the words; row 0 of the output is the padding, which is no word."""
    with np.load(run_dir / "output.npz") as file:
        weights, bias, counts = (file[name].tolist() for name in ("weights", "bias", "counts"))
    rows, vectors = [WORDS.index(one) for one in context], VECTORS.tolist()
    if "skipgram" not in model:
        hidden = [sum(vectors[row][i] for row in rows) for i in range(5)]
        if model == "fast-cbow":
            hidden = [x / len(rows) for x in hidden]
        return log_softmax_by_hand(weights, bias, hidden)[WORDS.index(word)]
    each = [log_softmax_by_hand(weights, bias, vectors[row]) for row in rows]
    total = [
        sum(one[w] for one in each) - (len(rows) - 1) * math.log(counts[w + 1] / sum(counts))
        for w in range(9)
    ]
    normal = math.log(sum(math.exp(x) for x in total))
    return total[WORDS.index(word)] - normal


@pytest.mark.parametrize("context", [["the"], ["the", "国王", "the", "man"]])
@pytest.mark.parametrize("model", ["cbow", "skipgram", "fast-cbow", "fast-skipgram"])
def test_log_probabilities_equal_a_loop(model, context, tmp_path, capsys):
    run_dir = make_run(tmp_path / "run", model)
    values = []
    for word in WORDS:
        asked = ["--log-probability", word, "--context", *context]
        [answer] = predict.main(["--run-dir", str(run_dir), *asked, "--json"])
        by_hand = log_probability_by_hand(run_dir, model, word, context)
        assert answer["value"] == pytest.approx(by_hand, abs=1e-4)
        assert json.loads(capsys.readouterr().out) == answer
        values.append((answer["value"], -answer["place"]))
    assert sum(math.exp(value) for value, _ in values) == pytest.approx(1, abs=1e-3)
    assert [-place for _, place in sorted(values, reverse=True)] == list(range(1, 10))


def test_the_line_of_a_probability(ask):
    [answer], [line] = ask("--log-probability", "king", "--context", "the", "man")
    share = math.exp(answer["value"])
    start = f"log p(king | the man) = {answer['value']:.4f}: "
    assert line.startswith(start) and line.endswith(f"%, place {answer['place']} of 9")
    assert float(line[len(start) :].split("%")[0]) == pytest.approx(100 * share, abs=0.01)


def test_json_is_an_object_a_line(ask):
    asked = ["--nearest", "king", "man", "--analogy", "king - man", "--similarity", "man", "the"]
    answers, lines = ask(*asked, "--log-probability", "man", "--context", "the", "--json")
    assert [json.loads(line) for line in lines] == json.loads(json.dumps(answers))
    assert [next(iter(json.loads(line))) for line in lines] == [
        "nearest",
        "nearest",
        "analogy",
        "similarity",
        "log_probability",
    ]


@pytest.mark.parametrize("name", ["vectors.txt", "vectors.bin"])
def test_a_file_of_vectors_needs_no_run(name, tmp_path, capsys):
    write_vectors(tmp_path / name, WORDS, VECTORS)
    [answer] = predict.main(["--vectors", str(tmp_path / name), "--nearest", "queen"])
    assert answer["words"][0][0] == "女王"


# --- Without a question ---
@pytest.mark.parametrize("right", [False, True])
def test_the_newest_run_is_shown_in_examples(right, tmp_path, monkeypatch, capsys):
    """The analogies of the embedded corpus, with their answers, where its words are known."""
    monkeypatch.setattr(common.folders, "RUNS", tmp_path)
    questions = [list(question) for question in corpus.analogies("test")]
    words = list(dict.fromkeys(word for _, *four in questions for word in four))
    vectors = np.random.default_rng(0).normal(size=(len(words), 20)).astype("float32")
    _, a, b, c, d = questions[0]
    if right:
        rows = [words.index(word) for word in (a, b, c, d)]
        vectors[rows[3]] = vectors[rows[1]] - vectors[rows[0]] + vectors[rows[2]]
    make_run(tmp_path / "word2vec_keras" / "a", words=words, vectors=vectors)
    answers = predict.main([])
    lines = capsys.readouterr().out.splitlines()
    asked = [answer for answer in answers if "analogy" in answer]
    assert len(asked) == len({question[0] for question in questions}) > 3
    assert len(lines) == len(answers) > len(asked)
    assert asked[0]["analogy"] == f"{b} - {a} + {c}" and asked[0]["expected"] == d
    line = next(line for line in lines if line.startswith(asked[0]["analogy"]))
    assert line.endswith("(right)" if right else f"(expected: {d})")
    assert (asked[0]["words"][0][0] == d) is right and len(asked[0]["words"]) == 3


def test_vectors_of_another_text_are_shown_by_frequency(ask):
    answers, _ = ask()
    assert answers[0]["nearest"] == "the" and len(answers) > 3
    assert all(len(answer["words"]) == 5 for answer in answers)


def test_a_run_of_an_older_version_answers_as_it_did(capsys):
    """A fast skip-gram of 28 words, and what predict.py said of it, all by commit 1fae3ac."""
    asked = ["--nearest", "我们", "--analogy", "我们", "-", "北京大学", "+", "公园"]
    asked += [
        "--similarity",
        "我们",
        "公园",
        "--log-probability",
        "公园",
        "--context",
        "我们",
        "去",
    ]
    predict.main([*asked, "--topn", "3", "--json", "--run-dir", str(SAVED / "run")])
    expected = (SAVED / "answers.jsonl").read_text(encoding="utf-8")
    assert len(expected.splitlines()) == 4
    assert capsys.readouterr().out == expected


# --- Mistakes ---
@pytest.mark.parametrize(
    ("word", "near"), [("kings", "Kings, king"), ("quen", "queen"), ("国玉", "国王"), ("zzz", "")]
)
def test_an_unknown_word_is_one_line_with_near_spellings(word, near, ask, error_of):
    for asked in (
        ["--nearest", word],
        ["--nearest", "the", word],
        ["--analogy", f"king - {word}"],
        ["--similarity", "king", word],
        ["--log-probability", word, "--context", "the"],
        ["--log-probability", "the", "--context", word],
    ):
        line = error_of(ask, *asked)
        assert line == f"error: {word!r} is not among the 9 words" + (
            f"; spelled alike: {near}" if near else ""
        )


def test_near_spellings_among_a_million_words_take_seconds_at_most():
    letters = np.array(list("abcdefghijklmnopqrst"))
    drawn = letters[np.random.default_rng(0).integers(0, 20, (1_000_000, 8))]
    words = ["".join(word) for word in drawn]
    start = time.perf_counter()
    assert words[-1] in predict.near_spellings(words[-1][:-1], words)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("expression", ["king man", "king - - man", "king -", "-", "king + ", ""])
def test_an_analogy_that_cannot_be_read_is_one_line(expression, ask, error_of):
    assert "as in" in error_of(ask, "--analogy", "the", "+", expression)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("--topn 0", "--topn: expected a whole number of at least 1"),
        ("--context the", "need each other"),
        ("--log-probability the", "need each other"),
        ("--log-probability a --context b --vectors x.txt", "needs a run"),
        ("--run-dir a --vectors b", "not allowed with"),
    ],
)
def test_flags_that_make_no_sense_are_refused(asked, expected, capsys):
    with pytest.raises(SystemExit) as stop:
        predict.main(asked.split())
    assert stop.value.code == 2
    assert expected in capsys.readouterr().err.splitlines()[-1]


def test_a_damaged_run_is_one_line(tmp_path, error_of):
    asked = ["--log-probability", "the", "--context", "king", "--run-dir"]
    run_dir = make_run(tmp_path / "a")
    data = (run_dir / "output.npz").read_bytes()
    (run_dir / "output.npz").write_bytes(data[:-100])
    assert "output.npz is missing or damaged" in error_of(predict.main, [*asked, str(run_dir)])
    (run_dir / "output.npz").unlink()
    assert "output.npz is missing or damaged" in error_of(predict.main, [*asked, str(run_dir)])
    np.savez(run_dir / "output.npz", weights=np.ones((3, 5)), bias=np.ones(3))
    assert "output.npz is missing or damaged" in error_of(predict.main, [*asked, str(run_dir)])
    np.savez(run_dir / "output.npz", weights=1.0, bias=2.0, counts=3.0)
    assert "output.npz is missing or damaged" in error_of(predict.main, [*asked, str(run_dir)])
    bomb = np.zeros((2**24 + 1, 1), "float32")
    np.savez_compressed(run_dir / "output.npz", weights=bomb, bias=bomb, counts=bomb)
    assert "would unpack to" in error_of(predict.main, [*asked, str(run_dir)])
    ones = np.ones(3)
    np.savez(run_dir / "output.npz", weights=np.ones((3, 5)), bias=ones, counts=ones)
    assert "are not of one run" in error_of(predict.main, [*asked, str(run_dir)])
    run_dir = make_run(tmp_path / "b", model="glove")
    assert "unknown model glove" in error_of(predict.main, [*asked, str(run_dir)])
    (run_dir / "vectors.bin").unlink()
    assert "no vectors in" in error_of(predict.main, [*asked, str(run_dir)])
    assert "no finished run" in error_of(predict.main, [*asked, str(tmp_path / "c")])
