"""cloze_ccl: the readers against loops, batches, a run, a kill, predict.py."""

import json
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
from data import stories
from data.stories import BLANK, Question

ROOT = Path(__file__).parent.parent
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


def test_sum_by_word():
    found = train.sum_by_word([0.3, 0.25, 0.2, 0.25], ["a", "b", "c", "b"])
    assert [(w, at) for w, _, at in found] == [("b", [1, 3]), ("a", [0]), ("c", [2])]
    assert [p for _, p, _ in found] == pytest.approx([0.5, 0.3, 0.2])


# --- Batches ---
def question(text, answer, id="<qid_0>"):
    return Question(id, tuple(tuple(s.split()) for s in text.split("|")), answer)


QUESTIONS = [
    question("猫 有 鱼 。|XXXXX 吃 鱼 。|猫 笑 了 。", "猫"),
    question("XXXXX 有 鱼 。|狗 没有 。", "狗"),
    question("狗 跑 了 。|鸟 飞 到 XXXXX", "树"),
]


@pytest.fixture
def encoded():
    index = {}
    items = batches.encode_all(QUESTIONS, index)
    vocabulary, kept = batches.build_vocabulary(items, index, 2)
    assert vocabulary[0] == BLANK and kept == len(vocabulary)
    assert set(vocabulary) == {BLANK, "猫", "有", "鱼", "。", "狗", "了"}
    lookup = batches.Lookup(index, vocabulary, sorted("猫有鱼狗"))
    return index, vocabulary, items, lookup


def test_items_say_where_the_blank_and_its_sentence_are(encoded):
    index, _, items, _ = encoded
    assert [(i.blank, i.start, i.end) for i in items] == [(4, 4, 8), (0, 0, 4), (7, 4, 8)]
    words = list(index)
    for item, q in zip(items, QUESTIONS, strict=True):
        assert [words[key] for key in item.keys] == [w for s in q.sentences for w in s]
    assert [i.answer for i in items] == [index["猫"], index["狗"], -1]
    none = [question("猫 有 鱼", "猫"), question("XXXXX 有 XXXXX", "有")]
    assert batches.encode_all(none, {}) == [None, None]


@pytest.mark.parametrize("kind", batches.KINDS)
def test_a_batch_equals_a_loop(encoded, kind):
    _, vocabulary, items, lookup = encoded
    shape = {"post": (7, 13), "as-reader": (5, 13), "ours": (13,)}[kind]
    inputs, targets, weights, places = batches.build_batch(kind, items, shape, lookup, 4)
    assert weights.tolist() == pytest.approx([4 / 3] * 3 + [0])
    ids = {word: i for i, word in enumerate(vocabulary, 1)}
    for row, q in enumerate(QUESTIONS):
        words = [w for s in q.sentences for w in s]
        blank = words.index(BLANK)
        if kind == "post":
            sides = sorted([words[:blank], words[blank + 1 :]], key=len)
            for name, side, width in zip(("left", "right"), sides, shape, strict=True):
                expected = [ids.get(w, 0) for w in side] or [0]
                assert inputs[name][row].tolist() == expected + [-1] * (width - len(expected))
        else:
            expected = [ids.get(word, 0) for word in words]
            assert inputs["document"][row].tolist() == expected + [-1] * (13 - len(words))
        if kind == "as-reader":
            [sentence] = [s for s in q.sentences if BLANK in s]
            expected = [ids.get(word, 0) for word in sentence]
            assert inputs["query"][row].tolist() == expected + [-1] * (5 - len(sentence))
        for column, place in enumerate(places[row]):
            hit = place >= 0 and words[place] == q.answer
            assert targets[row, column] == hit
        seen = sorted(place for place in places[row] if place >= 0)
        assert seen == [p for p in range(len(words)) if kind != "post" or p != blank]
    assert all(len(array) == 4 for array in inputs.values())


def test_features_equal_a_loop(encoded):
    _, _, items, lookup = encoded
    found = batches.build_batch("ours", items, (13,), lookup)[0]["features"]
    for row, q in zip(found, QUESTIONS, strict=True):
        words = [w for s in q.sentences for w in s]
        n, blank = len(words), words.index(BLANK)
        start = sum(len(s) for s in q.sentences[: [BLANK in s for s in q.sentences].index(True)])
        [sentence] = [s for s in q.sentences if BLANK in s]
        end = start + len(sentence)

        def word(place, words=words):
            return words[place] if 0 <= place < len(words) else None

        for t in range(n):
            elsewhere = [words[u] for u in range(start, end) if u != blank]
            expected = [np.log(words.count(words[t])), np.log1p(abs(t - blank)) / 3, t < blank]
            expected += [start <= t < end, words[t] in elsewhere]
            for steps in ((-1,), (1,), (-1, -2), (1, 2)):
                alike = all(word(t + k) == word(blank + k) for k in steps)
                expected.append(alike and t != blank)
            np.testing.assert_allclose(row[t], expected, atol=1e-6)
        assert not row[n:].any()


def test_batches_hold_each_question_once_and_few_shapes():
    rng = np.random.default_rng(0)
    sizes = np.sort(rng.integers(1, 500, (1000, 2)), 1)
    plan = batches.plan(sizes, 32, (1, 0), pool=10)
    assert sorted(i for chosen, _ in plan for i in chosen) == list(range(1000))
    assert all(len(chosen) == 32 for chosen, _ in plan[:-1]) or len(plan) == 32
    for chosen, shape in plan:
        assert (sizes[chosen].max(0) <= shape).all() and not any(n % batches.STEPS for n in shape)
    assert len({shape for _, shape in plan}) <= 40
    again = batches.plan(sizes, 32, (1, 0), pool=10)
    assert all((a[0] == b[0]).all() for a, b in zip(plan, again, strict=True))
    other = batches.plan(sizes, 32, (1, 1), pool=10)
    assert any(
        (a[0] != b[0]).any() for a, b in zip(plan, other, strict=False) if len(a[0]) == len(b[0])
    )
    naive = sizes[: 32 * 31].reshape(31, 32, 2).max(1).sum()
    assert sum(sum(shape) for _, shape in plan) < 0.85 * naive
    assert batches.plan(np.zeros((0, 1), int), 8) == []
    assert batches.plan(batches.sizes("post", []), 8) == []


def test_a_long_passage_is_read_around_its_blank():
    for place in (0, 2500, 4999):
        words = [f"w{i}" for i in range(5000)]
        words[place] = BLANK
        index = {}
        item = batches.encode(
            Question("q", (tuple(words),), f"w{place + (1, -1)[place > 9]}"), index
        )
        assert len(item.keys) == batches.MAX_WORDS and list(index)[item.keys[item.blank]] == BLANK
        assert item.answer >= 0 and (item.start, item.end) == (0, batches.MAX_WORDS)


def test_baselines_by_hand():
    text = "妈妈 说 , 苹果 很 甜 。|苹果 树 下 , XXXXX 在 找 妈妈 的 帽子 和 苹果"
    [item] = batches.encode_all([question(text, "妈妈")], index := {})
    words = list(index)
    found = {name: words[keys[0]] for name, keys in reading.baselines([item], words).items()}
    assert found["most frequent noun"] == "苹果" and found["nearest noun"] == "妈妈"
    drawn = {
        words[reading.baselines([item], words, s)["random content word"][0]] for s in range(50)
    }
    assert drawn == {"妈妈", "苹果", "帽子"}


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
    items = batches.encode_all([*QUESTIONS, QUESTIONS[2]], index)
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
    for flags in (
        ["--epochs", "0"],
        ["--model", "post", "--without", "dropout"],
        ["--match", "words"],
        ["--data", str(tmp_path), "--text", "a.txt"],
        ["--data", str(tmp_path)],
        ["--text", str(tmp_path / "none.txt")],
        ["--vectors", str(tmp_path / "none.txt")],
    ):
        error_of(train.main, ["--smoke", "--run-dir", str(tmp_path / "run"), *flags])
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


def test_official_files_in_and_out(tiny_run, tmp_path, capsys):
    asked = stories.load("valid", 5)
    texts.write_questions(tmp_path / "a.doc_query", asked)
    flags = ["--run-dir", str(tiny_run[0]), str(tmp_path / "a.doc_query")]
    out, page = tmp_path / "a.out", tmp_path / "page.html"
    results = predict.main([*flags, "--output", str(out), "--html", str(page)])
    assert out.read_text().splitlines() == [
        f"{q.id} ||| {r['best'][0]['word']}" for q, r in zip(asked, results, strict=True)
    ]
    answers = {q.id: q.answer for q in asked}
    right, total = texts.exact_match(texts.read_answers(out), answers)
    assert f"{right} of {total}" in capsys.readouterr().err
    words = []

    class Spans(HTMLParser):
        inside = False

        def handle_starttag(self, tag, attributes):
            self.inside = tag == "span"

        def handle_data(self, data):
            if self.inside:
                words.append(data)
            self.inside = False

    Spans().feed(page.read_text())
    assert words == [word for result in results for word in result["words"]]


def test_several_runs_answer_with_their_mean(tiny_run, tmp_path):
    train.main([*TINY[:-2], "--model", "post", "--seed", "4", "--run-dir", str(tmp_path)])
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
    notes = [line for line in capsys.readouterr().err.splitlines() if "note" in line]
    assert notes == ["note: text: of 5,001 words the 1,024 around the blank are read"]


def test_bad_passages_are_one_line(tiny_run, tmp_path, error_of):
    flags = ["--run-dir", str(tiny_run[0])]
    assert "0 blanks" in error_of(predict.main, [*flags, "--text", "小猫 有 苹果 。"])
    assert "2 blanks" in error_of(predict.main, [*flags, "--text", "XXXXX 有 XXXXX 。"])
    assert "nothing but" in error_of(predict.main, [*flags, "--text", "XXXXX"])
    assert "0 blanks" in error_of(predict.main, [*flags, "--text", ""])
    assert "is known" in error_of(predict.main, [*flags, "--text", "zq XXXXX qz zz"])
    options = ["--text", "小猫 有 XXXXX 。", "--options", "飞船", "火星"]
    assert "none of the options" in error_of(predict.main, [*flags, *options])
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
