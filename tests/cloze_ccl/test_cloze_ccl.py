"""cloze_ccl: the readers against loops, a run, a kill, predict.py."""

import json
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import keras
import numpy as np
import pytest
from keras import ops

from cloze_ccl import batches, predict, reading, texts, train
from common.run import load_file
from data import stories
from data.stories import BLANK, Question

ROOT = Path(__file__).resolve().parents[2]
UNITS, DIM = 3, 4
TINY = ["--smoke", "--num-stories", "10", "--batch-size", "10", "--without", "second-reading"]


def randomize(model, seed=0):
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, 0.6, w.shape) for w in model.get_weights()])
    return model


def weights_of(model, name):
    return [np.asarray(w, "float64") for w in model.get_layer(name).get_weights()]


def named(model, kind):
    return [layer.name for layer in model.layers if isinstance(layer, kind)]


def pairs(model, kind):
    """The weights of each two RNNs, forward and backward, in the order in which they were made."""
    names = sorted(named(model, kind), key=lambda name: int("0" + name.partition("_")[2]))
    rows = [weights_of(model, name) for name in names]
    return [one + two for one, two in zip(rows[::2], rows[1::2], strict=True)]


# --- References: one word after the other ---
def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(rows, kernel, recurrent, bias):
    h = c = np.zeros(len(recurrent))
    states = []
    for row in rows:
        i, f, g, o = np.split(row @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.array(states)


def gru(rows, kernel, recurrent, bias):
    h, states = np.zeros(len(recurrent)), []
    for row in rows:
        z, r, g = np.split(row @ kernel + bias[0], 3)
        z_h, r_h, g_h = np.split(h @ recurrent + bias[1], 3)
        z = sigmoid(z + z_h)
        h = z * h + (1 - z) * np.tanh(g + sigmoid(r + r_h) * g_h)
        states.append(h)
    return np.array(states)


def both_ways(cell, rows, weights):
    """The states (words, 2 * units), and the ends of both directions side by side."""
    half = len(weights) // 2
    forward = cell(rows, *weights[:half])
    backward = cell(rows[::-1], *weights[half:])[::-1]
    return np.concatenate([forward, backward], 1), np.concatenate([forward[-1], backward[0]])


def log_softmax(scores):
    return scores - np.log(np.exp(scores - scores.max()).sum()) - scores.max()


LEFT = [[3, 0, 5, 2], [0], [7, 7]]  # Unknown words, an empty side, a word twice.
RIGHT = [[1, 4], [2, 8, 0, 1, 6], [9]]


def padded(rows, width):
    return batches.fill_rows(rows, width, -1)


@pytest.mark.parametrize(
    ("match", "num_layers", "with_vectors"),
    [("states", 2, True), ("words", 1, False), ("states", 3, False), ("words", 2, True)],
)
def test_the_posts_reader_equals_a_loop(match, num_layers, with_vectors):
    vectors = np.random.default_rng(1).normal(size=(9, DIM)) if with_vectors else None
    model = train.build_reader(9, match, num_layers, UNITS, DIM, vectors)
    if with_vectors:
        np.testing.assert_allclose(weights_of(model, "words")[0][1:], vectors, rtol=1e-6)
    model = randomize(model)
    inputs = {"left": padded(LEFT, 5), "right": padded(RIGHT, 6)}
    found = ops.convert_to_numpy(model(inputs))
    table = weights_of(model, "words")[0]
    stack = pairs(model, keras.layers.LSTM)
    for row, left, right in zip(found, LEFT, RIGHT, strict=True):
        ends, matched = [], []
        for ids in (left, right):
            x = table[ids]
            if with_vectors:
                x = x + weights_of(model, "unknown")[0][0] * (np.array(ids) == 0)[:, None]
            words = x
            for weights in stack:
                x, end = both_ways(lstm, x, weights)
            ends.append(end)
            matched.append(x if match == "states" else words)
        question = np.mean(ends, 0)
        if match == "words":
            question = question @ weights_of(model, *named(model, keras.layers.Dense))[0]
        expected = log_softmax(np.concatenate(matched) @ question)
        got = np.concatenate([row[: len(left)], row[5 : 5 + len(right)]])
        np.testing.assert_allclose(got, expected, atol=2e-4)
        assert np.exp(row).sum() == pytest.approx(1, abs=1e-4)


def test_the_posts_reader_has_the_posts_parameters_and_treats_sides_alike():
    model = train.build_model("post", vocabulary_size=50, vectors=np.zeros((50, 128)))
    assert sum(np.prod(w.shape) for w in model.trainable_weights) == 657_536
    model = randomize(train.build_reader(9, units=UNITS, embedding_dim=DIM))
    one = ops.convert_to_numpy(model({"left": padded(LEFT, 5), "right": padded(RIGHT, 6)}))
    two = ops.convert_to_numpy(model({"left": padded(RIGHT, 6), "right": padded(LEFT, 5)}))
    np.testing.assert_allclose(one, np.concatenate([two[:, 6:], two[:, :6]], 1), atol=1e-4)


DOCUMENT = [[3, 1, 0, 5, 2, 2], [4, 6, 1]]  # 1 is the blank.
QUERY = [[3, 1, 0], [6, 1]]


def test_the_as_reader_equals_a_loop():
    model = randomize(train.build_attention_sum_reader(7, UNITS, DIM))
    found = ops.convert_to_numpy(
        model({"document": padded(DOCUMENT, 8), "query": padded(QUERY, 4)})
    )
    table = weights_of(model, "words")[0]
    read, ask = pairs(model, keras.layers.GRU)
    for row, document, query in zip(found, DOCUMENT, QUERY, strict=True):
        states, _ = both_ways(gru, table[document], read)
        _, question = both_ways(gru, table[query], ask)
        scores = np.where(np.array(document) == 1, -1e9, states @ question)
        np.testing.assert_allclose(row[: len(document)], log_softmax(scores), atol=2e-4)


def context_inputs(width):
    rng = np.random.default_rng(5)
    characters, features = rng.integers(0, 6, (2, 6, 2)), rng.random((2, 6, 9))
    inputs = {"document": padded(DOCUMENT, width)}
    for name, array in (("characters", characters), ("features", features)):
        array = array * (inputs["document"][:, :6] >= 0)[..., None]
        inputs[name] = np.pad(array, ((0, 0), (0, width - 6), (0, 0)))
    return inputs | {"features": inputs["features"].astype("float32")}


def test_our_reader_equals_a_loop():
    vectors = np.random.default_rng(1).normal(size=(7, DIM))
    model = train.build_context_reader(7, 5, 9, UNITS, DIM, vectors=vectors, num_trained=4)
    model = randomize(model)
    inputs = context_inputs(8)
    found = ops.convert_to_numpy(model(inputs))
    words, fixed, letters = (weights_of(model, n)[0] for n in ("words", "fixed", "letters"))
    first, second = pairs(model, keras.layers.GRU)

    def dense(name, x):
        kernel, bias = weights_of(model, name)
        return x @ kernel + bias

    for row, ids, pair, known in zip(
        found, DOCUMENT, inputs["characters"], inputs["features"], strict=True
    ):
        n, blank = len(ids), ids.index(1)
        x = np.array([words[i if i <= 4 else 0] + fixed[i] for i in ids])
        x = np.array([[*x[t], *letters[pair[t][0]], *letters[pair[t][1]]] for t in range(n)])
        states, _ = both_ways(gru, np.concatenate([x, known[:n]], 1), first)
        question = dense("question", states[blank])
        states, _ = both_ways(gru, np.concatenate([states, states * question], 1), second)
        question = dense("second_question", states[blank])
        none = np.zeros(x.shape[1])
        around = []
        for t in range(n):
            near = [x[u] if 0 <= u < n else none for u in (t - 2, t - 1, t + 1, t + 2)]
            around.append(np.tanh(dense("around", np.concatenate(near))))
        around = np.array(around)
        fit = dense("fit", np.concatenate([states[blank], around[blank]]))
        scores = states @ question + around @ dense("resemble", around[blank])
        scores = scores + dense("word", x) @ fit
        scores = scores + dense("worth", np.maximum(dense("hidden", known[:n]), 0))[:, 0]
        scores[blank] = -1e9
        np.testing.assert_allclose(row[:n], log_softmax(scores), atol=5e-4)
    longer = ops.convert_to_numpy(model(context_inputs(11)))
    np.testing.assert_allclose(longer[:, :8], found, atol=1e-4)
    assert np.exp(longer[:, 8:]).max() == 0 and np.exp(found[0, 1]) == 0


@pytest.mark.parametrize("dim", [1, 3, 6])
def test_vectors_may_have_any_length(dim):
    vectors = np.random.default_rng(1).normal(size=(7, dim))
    model = train.build_context_reader(7, 5, 9, UNITS, dim, vectors=vectors)
    found = ops.convert_to_numpy(model(context_inputs(8)))
    np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=1e-5)


def test_parts_can_be_left_out():
    build = train.build_context_reader
    model = build(7, 5, 9, UNITS, DIM, without=train.INGREDIENTS)
    assert len(pairs(model, keras.layers.GRU)) == 1
    expected = 8 * DIM + 2 * 3 * UNITS * (DIM + UNITS + 2) + (2 * UNITS) * (2 * UNITS + 1)
    assert model.count_params() == expected
    rates = [x.rate for x in model.layers if isinstance(x, keras.layers.Dropout)]
    assert rates and not any(rates)


# --- Loss and answer ---
def test_losses_equal_loops_and_are_never_nan():
    rng = np.random.default_rng(0)
    logs = np.stack([log_softmax(rng.normal(size=6)) for _ in range(4)])
    logs[2, 4:] = -1e9  # Padding.
    targets = np.array([[0, 1, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0] * 6])
    spread = ops.convert_to_numpy(train.pointer_loss(targets, logs.astype("float32")))
    summed = ops.convert_to_numpy(train.pointer_sum_loss(targets, logs.astype("float32")))
    for row, places, one, two in zip(logs, targets, spread, summed, strict=True):
        at = np.flatnonzero(places)
        share = {t: 1 / len(at) for t in at}
        assert one == pytest.approx(-sum(q * row[t] for t, q in share.items()), abs=1e-5)
        expected = -np.log(sum(np.exp(row[t]) for t in at)) if len(at) else 0
        assert two == pytest.approx(expected, abs=1e-5)
    assert spread[3] == summed[3] == 0
    with np.errstate(over="ignore"):
        small = logs.astype("float16")
    half = ops.convert_to_numpy(train.pointer_loss(targets, small))
    np.testing.assert_allclose(half, spread, rtol=2e-3)  # There padding is -inf.


def test_sum_by_word():
    found = train.sum_by_word([0.3, 0.25, 0.2, 0.25], ["a", "b", "c", "b"])
    assert [(w, at) for w, _, at in found] == [("b", [1, 3]), ("a", [0]), ("c", [2])]
    assert [p for _, p, _ in found] == pytest.approx([0.5, 0.3, 0.2])


# --- A run ---
@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    """One small training, through the front door."""
    run_dir = tmp_path_factory.mktemp("tiny") / "run"
    return run_dir, train.main([*TINY, "--seed", "3", "--run-dir", str(run_dir)])


def test_record_of_a_run(tiny_run):
    run_dir, record = tiny_run
    assert record == json.loads((run_dir / "record.json").read_text())
    metrics = record["metrics"]
    names = ["random content word", "most frequent noun", "nearest noun"]
    assert set(metrics) == {"accuracy", *(f"accuracy, {name}" for name in names)}
    assert all(m["low"] <= m["value"] <= m["high"] and m["n"] == 30 for m in metrics.values())
    assert [entry["epoch"] for entry in record["history"]] == [1, 2]
    assert record["row"] == "smoke x 2, written stories v1: ours, without second-reading"
    asked = stories.load("test", 10)
    answers = {q.id: q.answer for q in asked}
    right, total = texts.exact_match(texts.read_answers(run_dir / "test.out"), answers)
    assert metrics["accuracy"]["value"] == right / total
    picture = ElementTree.parse(run_dir / "attention.svg").getroot()
    drawn = "".join(text.text for text in picture.iter("{http://www.w3.org/2000/svg}text"))
    assert "".join(w for s in asked[0].sentences for w in s) in drawn


@pytest.mark.parametrize(
    ("flags", "loss"),
    [
        (["--model", "post"], train.pointer_loss),
        (["--model", "as-reader"], train.pointer_sum_loss),
        ([], train.pointer_sum_loss),
        (["--without", "summed-loss"], train.pointer_loss),
    ],
)
def test_each_reader_has_its_loss(flags, loss, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def compile(model, optimizer, given):
        raise Stop(given)

    monkeypatch.setattr(keras.Model, "compile", compile)
    with pytest.raises(Stop) as stop:
        train.main([*TINY[:-2], *flags, "--run-dir", str(tmp_path / "run")])
    assert stop.value.args == (loss,)


def test_what_is_judged_is_the_best_epoch(tmp_path, monkeypatch):
    best_keys, judged, calls = reading.best_keys, [], []

    def worse_each_time(items, probabilities):
        calls.append(items)
        return [item.answer if len(calls) == 1 else -2 for item in items]

    def evaluate(model, *_):
        judged.extend(model.get_weights())
        monkeypatch.setattr(reading, "best_keys", best_keys)
        return {}, {}

    monkeypatch.setattr(reading, "best_keys", worse_each_time)
    monkeypatch.setattr(reading, "evaluate", evaluate)
    record = train.main([*TINY, "--run-dir", str(tmp_path / "run")])
    assert [entry["val_accuracy"] for entry in record["history"]] == [1, 0]
    assert record["selection"] == "best validation epoch 1 of 2"
    best = load_file(tmp_path / "run" / "model.keras").get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(judged, best, strict=True))
    with np.load(tmp_path / "run" / "state.npz") as state:  # Of the second epoch.
        after = [state[name] for name in state.files if name != "notes"]
    assert not all(any(np.array_equal(a, b) for b in after) for a in best)


def test_a_run_with_word_vectors(tmp_path):
    words = sorted({w for q in stories.load("train", 10) for s in q.sentences for w in s})[::2]
    rows = np.random.default_rng(0).normal(size=(len(words), 6)).astype("float32")
    lines = [f"{w} {' '.join(map(str, row))}" for w, row in zip(words, rows, strict=True)]
    (tmp_path / "v.txt").write_text("\n".join([f"{len(words)} 6", *lines]))
    flags = [*TINY, "--vectors", str(tmp_path / "v.txt"), "--run-dir", str(tmp_path / "run")]
    record = train.main(flags)
    assert record["row"].endswith("with vectors")
    assert record["details"]["vectors"].startswith(f"{len(words)} words, sha256 ")
    model = load_file(tmp_path / "run" / "model.keras")
    vocabulary = json.loads((tmp_path / "run" / "words.json").read_text())["vocabulary"]
    [fixed] = model.get_layer("fixed").get_weights()
    for word, row in zip(words, rows, strict=True):
        np.testing.assert_array_equal(fixed[1 + vocabulary.index(word)], row)


def test_a_killed_run_resumes_to_the_straight_one(tiny_run, tmp_path, assert_same_state):
    """kill -9 amid the second epoch, then --resume."""
    straight, record = tiny_run
    deadly = """if True:
        import os, signal, sys
        from cloze_ccl import batches, train

        build, calls = batches.build_batch, []

        def deadly(kind, items, shape, lookup, batch_size=None):
            calls.append(batch_size)
            if calls.count(10) == 5:  # Of 3 batches an epoch; reading takes 64 at a time.
                os.kill(os.getpid(), signal.SIGKILL)
            return build(kind, items, shape, lookup, batch_size)

        batches.build_batch = deadly
        train.main(sys.argv[1:])
    """
    flags = [*TINY, "--seed", "3", "--run-dir", str(tmp_path / "killed")]
    killed = subprocess.run([sys.executable, "-c", deadly, *flags], cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (tmp_path / "killed" / "record.json").exists()
    resumed = train.main([*flags, "--resume"])
    assert resumed["resumed"]
    for name in ("history", "metrics", "selection", "data"):
        assert resumed[name] == record[name]
    assert_same_state(straight / "state.npz", tmp_path / "killed" / "state.npz", more_than=20)


def test_what_cannot_be_learnt_is_left_out_counted_and_breaks_nothing(tmp_path):
    """The original's defects: an answer not in the passage, an unknown one. No NaN comes of it."""
    asked = stories.load("train", 40)
    asked[0] = asked[0]._replace(answer="火星")
    asked[1] = asked[1]._replace(sentences=(("没有", "空格", asked[1].answer),))
    texts.write_answers(tmp_path / "train.answer", {q.id: q.answer for q in asked})
    lines = []
    for q in asked:
        lines += [f"{i} ||| {' '.join(s)}" for i, s in enumerate(q.sentences, 1)]
        lines.append(f"{q.id} ||| {' '.join(q.sentences[0])}")
    (tmp_path / "train.doc_query").write_text("\n".join(lines))
    data, notes = train.load_data(str(tmp_path))
    counts = {}
    for reason, count in notes["left_out"].items():
        counts[reason.split(": ")[1]] = counts.get(reason.split(": ")[1], 0) + count
    tested = [texts.why_unusable(q) for q in data["test"]]
    for reason in filter(None, tested):
        counts[reason] = counts.get(reason, 0) + 1
    assert counts == {"answer not in the passage": 1, "no blank": 1}
    index = {}
    asked = [
        ("猫", "XXXXX 有 鱼 。 猫 笑 , 猫 叫"),
        ("狗", "狗 有 XXXXX"),
        *[("树", "XXXXX 笑 了")] * 2,
    ]
    asked = [Question("q", (tuple(text.split()),), answer) for answer, text in asked]
    items = batches.encode_all(asked, index)
    lookup = batches.Lookup(index, [BLANK, "鱼"], [])  # Every answer is unknown or not there.
    model = train.build_reader(2, units=UNITS, embedding_dim=DIM, vectors=np.ones((2, DIM)))
    model.compile(keras.optimizers.SGD(1.0), train.pointer_loss)
    x, y, weights, _ = batches.build_batch("post", items, (8, 8), lookup)
    assert y.sum(1).tolist() == [2, 1, 0, 0]
    before = model.get_weights()
    losses = [float(model.train_on_batch(x, y, sample_weight=weights)) for _ in range(3)]
    assert losses[2] < losses[0] and all(np.isfinite(w).all() for w in model.get_weights())
    changed = [np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True)]
    frozen = [w.path for w, c in zip(model.weights, changed, strict=True) if not c]
    assert frozen == [model.get_layer("words").embeddings.path]


def test_flags_that_make_no_sense_are_one_line(tmp_path, error_of):
    for flags, expected in (
        (["--epochs", "0"], "starts at 1"),
        (["--learning-rate", "nan"], "--learning-rate above 0"),
        (["--model", "post", "--without", "dropout"], "--without is of --model ours"),
        (["--match", "words"], "are of --model post"),
        (["--data", str(tmp_path), "--text", "a.txt"], "not both"),
        (["--data", str(tmp_path)], "no train.doc_query"),
        (["--data", str(tmp_path / "none")], "no train.doc_query"),
        (["--text", str(tmp_path / "none.txt")], "none.txt: No such file"),
        (["--vectors", str(tmp_path / "none.txt")], "none.txt: No such file"),
    ):
        said = error_of(train.main, ["--smoke", "--run-dir", str(tmp_path / "run"), *flags])
        assert expected in said
    assert not (tmp_path / "run").exists()


# --- predict.py ---
def test_ten_questions_are_answered_without_arguments(tiny_run, capsys):
    results = predict.main(["--run-dir", str(tiny_run[0])])
    output = capsys.readouterr()
    assert len(results) == 10 and output.out.count("<qid_") == 10 and "accuracy" in output.err
    for result in results:
        assert len(result["best"]) == 5
        shown = [entry["probability"] for entry in result["best"]]
        assert shown == sorted(shown, reverse=True) and BLANK not in str(result["best"])
        assert sum(result["probabilities"]) == pytest.approx(1, abs=1e-3)
        for entry in result["best"]:
            assert {result["words"][place] for place in entry["places"]} == {entry["word"]}
            total = sum(result["probabilities"][place] for place in entry["places"])
            assert entry["probability"] == pytest.approx(total, abs=1e-4)


def test_text_options_and_json(tiny_run, capsys):
    flags = ["--run-dir", str(tiny_run[0]), "--json"]
    [cut] = predict.main([*flags, "--text", "小猫 有 一个 苹果 。 XXXXX 吃 了 苹果 。"])
    assert cut["words"] == "小猫 有 一个 苹果 。 XXXXX 吃 了 苹果 。".split()  # noqa: SIM905
    capsys.readouterr()
    text = "小猫有一个苹果。大白鹅没有。XXXXX吃了苹果。"
    [result] = predict.main([*flags, "--text", text, "--options", "大白鹅", "小猫", "飞船"])
    line = json.loads(capsys.readouterr().out)
    assert line.keys() == {"id", "answer", "best"} and line["best"] == result["best"]
    assert "大白鹅" in result["words"] and BLANK in result["words"]
    found = {entry["word"]: entry["probability"] for entry in result["best"]}
    assert set(found) == {"大白鹅", "小猫", "飞船"} and found["飞船"] == 0
    assert sum(found.values()) == pytest.approx(1, abs=1e-3)
    text = "小猫有苹果。果然,XXXXX很甜。"
    options = ["苹果", "果", "果", "小猫", "小狗", "小马", "小羊"]
    [result] = predict.main([*flags, "--text", text, "--options", *options])
    found = {entry["word"]: entry["places"] for entry in result["best"]}
    assert len(result["best"]) == 6 and set(found) == set(options)
    assert found["果"] == [] and found["苹果"] == [2]


def test_official_files_in_and_out(tiny_run, tmp_path, write_questions, capsys):
    asked = stories.load("valid", 5)
    asked[0] = asked[0]._replace(answer="火星")
    write_questions(tmp_path / "a.doc_query", asked)
    flags = ["--run-dir", str(tiny_run[0]), str(tmp_path / "a.doc_query")]
    out, page = tmp_path / "a.out", tmp_path / "page.html"
    results = predict.main([*flags, "--output", str(out), "--html", str(page)])
    assert out.read_text().splitlines() == [
        f"{q.id} ||| {r['best'][0]['word']}" for q, r in zip(asked, results, strict=True)
    ]
    answers = {q.id: q.answer for q in asked}
    right, total = texts.exact_match(texts.read_answers(out), answers)
    said = capsys.readouterr().err
    assert f"{right} of {total}; cannot be right: 1 x answer not in the passage" in said
    words, strengths = [], []

    class Spans(HTMLParser):
        inside = False

        def handle_starttag(self, tag, attributes):
            self.inside = tag == "span"
            if self.inside:
                found = re.search(r"rgba\(.*,([\d.]+)\)", dict(attributes)["style"])
                strengths.append(float(found[1]) if found else None)

        def handle_data(self, data):
            if self.inside:
                words.append(data)
            self.inside = False

    Spans().feed(page.read_text())
    assert words == [word for result in results for word in result["words"]]
    probabilities = np.concatenate([result["probabilities"] for result in results])
    shaded = np.array([word != BLANK for word in words])
    expected = 0.85 * probabilities[shaded] ** 0.5
    assert [strength is not None for strength in strengths] == shaded.tolist()
    np.testing.assert_allclose([s for s in strengths if s is not None], expected, atol=6e-4)


def test_answers_of_any_system_are_scored(tmp_path, write_questions, error_of, capsys):
    asked = stories.load("valid", 2)[:4]
    write_questions(tmp_path / "a.doc_query", asked)
    out, flags = tmp_path / "a.out", [str(tmp_path / "a.doc_query"), "--score"]
    said = {q.id: q.answer for q in asked[:2]} | {asked[3].id: asked[3].answer + "们"}
    texts.write_answers(out, said)  # The third question is left out.
    predict.main([*flags, str(out)])
    assert capsys.readouterr().out == "accuracy: 50.00%, 2 of 4\n"
    write_questions(tmp_path / "a.doc_query", [asked[0]._replace(answer="火星")])
    out.write_text(f"{asked[0].id} ||| 火星\n")
    predict.main([*flags, str(out)])
    assert capsys.readouterr().out.startswith("accuracy: 100.00%, 1 of 1; no reader that points")
    out.write_text("<qid_99> ||| 猫\n")
    assert "a.out: <qid_99> is answered, but not asked" in error_of(
        predict.main, [*flags, str(out)]
    )
    assert "no other flag" in error_of(predict.main, [*flags, str(out), "--json"])
    assert "no other flag" in error_of(predict.main, [*flags[1:], str(out)])
    (tmp_path / "a.answer").unlink()
    assert "no answers" in error_of(predict.main, [*flags, str(out)])


def test_several_runs_answer_with_their_mean(tiny_run, tmp_path):
    train.main([*TINY[:-2], "--model", "as-reader", "--seed", "4", "--run-dir", str(tmp_path)])
    runs = [str(tiny_run[0]), str(tmp_path)]
    flags = [["--run-dir", run] for run in runs]
    one, other, both = map(predict.main, (flags[0], flags[1], flags[0] + flags[1]))
    for results in zip(one, other, both, strict=True):
        first, second, mean = (np.array(result["probabilities"]) for result in results)
        np.testing.assert_allclose(mean, (first + second) / 2, rtol=1e-12)
        assert not np.allclose(first, second)


def test_empty_sides_and_long_passages_are_answered(tiny_run, capsys):
    flags = ["--run-dir", str(tiny_run[0]), "--text"]
    for text in ("XXXXX 有 苹果 。", "小猫 看见 XXXXX", f"XXXXX {'小猫 有 苹果 。 ' * 1250}"):
        [result] = predict.main([*flags, text])
        assert result["best"][0]["probability"] > 0
        assert sum(result["probabilities"]) == pytest.approx(1)
    notes = [line for line in capsys.readouterr().err.splitlines() if "note" in line]
    assert notes == ["note: text: of 5,001 words the 1,024 around the blank are read"]
    text = f"大象 走 了 。 {'小猫 有 苹果 。 ' * 1250} XXXXX 笑"
    [result] = predict.main([*flags, text, "--options", "大象", "小猫"])
    found = {entry["word"]: entry for entry in result["best"]}
    assert found["大象"]["probability"] == 0 and found["大象"]["places"] == [0]
    assert [text.split()[place] for place in found["小猫"]["places"]] == ["小猫"] * 1250
    assert "小猫   word 5, 9, 13, 17, 21, 25, 29, 33, 37 and 1241 more" in capsys.readouterr().out


def test_the_posts_reader_gives_an_empty_side_nothing():
    index = {}
    asked = [Question("q", (tuple(f"{BLANK} 小猫 有 鱼 。".split()),), "鱼")]
    items = batches.encode_all(asked, index)
    model = train.build_reader(3, units=UNITS, embedding_dim=DIM)
    [row] = reading.read(model, "post", items, batches.Lookup(index, [BLANK, "小猫", "鱼"], []))
    assert row[0] == 0 and row.sum() == pytest.approx(1) and (row[1:] > 0).all()


def test_bad_passages_are_one_line(tiny_run, tmp_path, error_of):
    flags = ["--run-dir", str(tiny_run[0])]
    assert "0 blanks" in error_of(predict.main, [*flags, "--text", "小猫 有 苹果 。"])
    assert "2 blanks" in error_of(predict.main, [*flags, "--text", "XXXXX 有 XXXXX 。"])
    assert "nothing but" in error_of(predict.main, [*flags, "--text", "XXXXX"])
    assert "0 blanks" in error_of(predict.main, [*flags, "--text", ""])
    assert "is known" in error_of(predict.main, [*flags, "--text", "zq XXXXX qz zz"])
    options = ["--text", "小猫 有 XXXXX 。", "--options", "飞船", "火星"]
    assert "none of the options" in error_of(predict.main, [*flags, *options])
    options = ["--text", "小猫 有 XXXXX 。", "--options", "", "小猫"]
    assert "an option is empty" in error_of(predict.main, [*flags, *options])
    assert "is a folder" in error_of(predict.main, [*flags, "--output", str(tmp_path)])
    assert "is a folder" in error_of(predict.main, [*flags, "--html", "."])
    assert "of --text" in error_of(predict.main, [*flags, "--options", "猫"])
    missing = ["--text", "小猫 有 XXXXX 。", "--html", str(tmp_path / "missing" / "page.html")]
    assert "there is no folder" in error_of(predict.main, [*flags, *missing])
    both = [*flags, str(tmp_path / "a.doc_query"), "--text", "a XXXXX"]
    assert "not both" in error_of(predict.main, both)
    assert "no finished run" in error_of(predict.main, ["--run-dir", str(tmp_path)])


def test_a_file_with_a_passage_without_a_blank(tiny_run, tmp_path, capsys):
    lines = ["1 ||| 小猫 有 XXXXX 。", "<qid_0> ||| 小猫 有 XXXXX 。"]
    lines += ["1 ||| 小狗 有 苹果 。", "<qid_1> ||| 小狗 有 苹果 。"]
    (tmp_path / "a.doc_query").write_text("\n".join(lines))
    with pytest.raises(SystemExit) as stop:
        predict.main(["--run-dir", str(tiny_run[0]), str(tmp_path / "a.doc_query")])
    output = capsys.readouterr()
    assert stop.value.code == 2 and output.out.count("<qid_0>") == 1
    assert "<qid_1> (no blank)" in output.err and "1 of 2 passages" in output.err
    (tmp_path / "b.doc_query").write_text(
        f"1 ||| zq XXXXX qz\n<qid_0> ||| zq XXXXX qz\n{lines[0]}\n<qid_1> ||| {lines[0][6:]}"
    )
    flags = ["--run-dir", str(tiny_run[0]), str(tmp_path / "b.doc_query")]
    with pytest.raises(SystemExit):
        predict.main([*flags, "--output", str(tmp_path / "b.out")])
    assert "1 of 2 passages have no answer: <qid_0> (no word is known)" in capsys.readouterr().err
    assert (tmp_path / "b.out").read_text().startswith("<qid_1> ||| ")
