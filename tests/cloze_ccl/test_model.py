"""cloze_ccl/model.py: the readers against loops, word after word; losses; sums by word."""

import keras
import numpy as np
import pytest
from keras import ops

from cloze_ccl.dataset import pad
from cloze_ccl.model import (
    INGREDIENTS,
    build_attention_sum_reader,
    build_context_reader,
    build_reader,
    pointer_loss,
    pointer_sum_loss,
    sum_by_word,
)

UNITS, DIM = 3, 4


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
    return pad(rows, width)


@pytest.mark.parametrize(
    ("match", "num_layers", "with_vectors"),
    [("states", 2, True), ("words", 1, False), ("states", 3, False), ("words", 2, True)],
)
def test_the_posts_reader_equals_a_loop(match, num_layers, with_vectors):
    vectors = np.random.default_rng(1).normal(size=(9, DIM)) if with_vectors else None
    model = build_reader(9, match, num_layers, UNITS, DIM, vectors)
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
    model = build_reader(vocabulary_size=50, vectors=np.zeros((50, 128)))
    assert sum(np.prod(w.shape) for w in model.trainable_weights) == 657_536
    model = randomize(build_reader(9, units=UNITS, embedding_dim=DIM))
    one = ops.convert_to_numpy(model({"left": padded(LEFT, 5), "right": padded(RIGHT, 6)}))
    two = ops.convert_to_numpy(model({"left": padded(RIGHT, 6), "right": padded(LEFT, 5)}))
    np.testing.assert_allclose(one, np.concatenate([two[:, 6:], two[:, :6]], 1), atol=1e-4)


DOCUMENT = [[3, 1, 0, 5, 2, 2], [4, 6, 1]]  # 1 is the blank.
QUERY = [[3, 1, 0], [6, 1]]


def test_the_as_reader_equals_a_loop():
    model = randomize(build_attention_sum_reader(7, UNITS, DIM))
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
    model = build_context_reader(7, 5, 9, UNITS, DIM, vectors=vectors, num_trained=4)
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
    model = build_context_reader(7, 5, 9, UNITS, dim, vectors=vectors)
    found = ops.convert_to_numpy(model(context_inputs(8)))
    np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=1e-5)


def test_parts_can_be_left_out():
    model = build_context_reader(7, 5, 9, UNITS, DIM, without=INGREDIENTS)
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
    spread = ops.convert_to_numpy(pointer_loss(targets, logs.astype("float32")))
    summed = ops.convert_to_numpy(pointer_sum_loss(targets, logs.astype("float32")))
    for row, places, one, two in zip(logs, targets, spread, summed, strict=True):
        at = np.flatnonzero(places)
        share = {t: 1 / len(at) for t in at}
        assert one == pytest.approx(-sum(q * row[t] for t, q in share.items()), abs=1e-5)
        expected = -np.log(sum(np.exp(row[t]) for t in at)) if len(at) else 0
        assert two == pytest.approx(expected, abs=1e-5)
    assert spread[3] == summed[3] == 0
    with np.errstate(over="ignore"):
        small = logs.astype("float16")
    half = ops.convert_to_numpy(pointer_loss(targets, small))
    np.testing.assert_allclose(half, spread, rtol=2e-3)  # There padding is -inf.


def test_sum_by_word():
    found = sum_by_word([0.3, 0.25, 0.2, 0.25], ["a", "b", "c", "b"])
    assert [(w, at) for w, _, at in found] == [("b", [1, 3]), ("a", [0]), ("c", [2])]
    assert [p for _, p, _ in found] == pytest.approx([0.5, 0.3, 0.2])
