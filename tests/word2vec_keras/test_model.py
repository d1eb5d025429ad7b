"""word2vec_keras/model.py: the post's models and batches against plain loops."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from word2vec_keras.model import (
    EpochBatches,
    build_cbow_model,
    build_skipgram_model,
    post_batches,
)

SAVED = Path(__file__).parent / "saved_by_1fae3ac"


def softmax(scores):
    return np.exp(scores - np.max(scores)) / np.sum(np.exp(scores - np.max(scores)))


# --- Models ---
def randomized(model, seed=1):
    """The model with weights of about 1 and its tables W, b and word2vec as arrays."""
    rng = np.random.default_rng(seed)
    tables = {}
    for name in ("word2vec", "W", "b"):
        variable = model.get_layer(name).embeddings
        tables[name] = rng.normal(size=variable.shape).astype("float32")
        variable.assign(tables[name])
    return tables


@pytest.mark.parametrize("kind", ["cbow", "masked cbow", "skipgram"])
def test_the_posts_model_equals_a_loop(kind):
    sizes = {"vocabulary_size": 30, "embedding_dim": 6, "num_negatives": 4}
    if kind == "skipgram":
        model, width = build_skipgram_model(**sizes), 1
    else:
        masked = kind.startswith("masked")
        model, width = build_cbow_model(window=3, mask_padding=masked, **sizes), 6
    tables = randomized(model)
    rng = np.random.default_rng(2)
    context, target = rng.integers(0, 4, (50, width)), rng.integers(1, 30, (50, 1))
    both = keras.Model(model.inputs, [model.get_layer("samples").output, model.output])
    samples, outputs = map(ops.convert_to_numpy, both([context, target]))
    assert samples.shape == (50, 5) and (samples[:, 0] == target[:, 0]).all()
    for words, drawn, output in zip(context, samples, outputs, strict=True):
        hidden = np.zeros(6)
        for word in words:
            if word != 0 or kind != "masked cbow":
                hidden += tables["word2vec"][word]
        scores = [tables["W"][word] @ hidden + tables["b"][word, 0] for word in drawn]
        np.testing.assert_allclose(output, softmax(scores), atol=1e-5)


def test_negatives_are_uniform_and_drawn_anew():
    model = build_cbow_model(10, 4, window=2, num_negatives=16)
    layer = model.get_layer("samples")
    first, second = (ops.convert_to_numpy(layer(np.ones((2000, 1), "int32"))) for _ in range(2))
    assert not np.array_equal(first, second)
    counts = np.bincount(first[:, 1:].ravel(), minlength=10)
    # Chi-square with 9 degrees of freedom: 33.7 is passed with probability 0.0001.
    assert ((counts - 3200) ** 2 / 3200).sum() < 33.7


def test_with_all_words_as_negatives_it_is_the_full_softmax(monkeypatch):
    """The sum over random words is an estimate of the one over all: here it is that one."""
    size = 12
    monkeypatch.setattr(
        keras.random,
        "randint",
        lambda shape, *_, **__: ops.broadcast_to(ops.arange(1, size, dtype="int32"), shape),
    )
    model = build_cbow_model(size, 5, window=2, num_negatives=size - 1)
    tables = randomized(model)
    context = np.random.default_rng(3).integers(1, size, (20, 4))
    target = np.zeros((20, 1), "int32")  # So that target and negatives are all words once.
    outputs = ops.convert_to_numpy(model([context, target]))
    for words, output in zip(context, outputs, strict=True):
        scores = tables["W"] @ tables["word2vec"][words].sum(0) + tables["b"][:, 0]
        np.testing.assert_allclose(output, softmax(scores), atol=1e-5)


def test_trained_with_16_of_40_words_it_finds_the_full_softmax():
    """Sampled or full, the optimum is the words' distribution given the context."""
    rng, size = np.random.default_rng(4), 40
    true = np.stack([softmax(row) for row in rng.normal(size=(3, size))])
    context = rng.integers(1, 4, 60_000)
    target = np.array([rng.choice(size, p=true[c - 1]) for c in context])
    model = build_skipgram_model(size, 16)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    x = {"context": context[:, None], "target": target[:, None]}
    model.fit(x, np.zeros(len(context)), batch_size=500, epochs=3, verbose=0)
    names = ("word2vec", "W", "b")
    word2vec, w, b = (ops.convert_to_numpy(model.get_layer(n).embeddings) for n in names)
    learnt = np.stack([softmax(w @ word2vec[c] + b[:, 0]) for c in (1, 2, 3)])
    assert np.abs(learnt - true).sum(1).max() / 2 < 0.12  # Total variation.
    assert np.abs(1 / size - true).sum(1).max() / 2 > 0.3


def test_the_posts_model_survives_saving(tmp_path):
    model = build_cbow_model(20, 4, window=2)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.get_layer("samples").get_config()["num_negatives"] == 16
    for one, two in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_model_saved_by_an_older_version_loads():
    """By commit 1fae3ac: a masked CBOW of 20 words, and what it scores each of them.

    The output itself differs from call to call, as it is about random words.
    """
    model = keras.saving.load_model(SAVED / "cbow.keras", compile=False)
    notes = json.loads((SAVED / "cbow.json").read_text())
    context = np.array(notes["context"])
    both = keras.Model(model.inputs, [model.get_layer("samples").output, model.output])
    samples, outputs = map(ops.convert_to_numpy, both([context, np.array([[1], [2], [3]])]))
    assert samples.shape == (3, 7) and samples[:, 0].tolist() == [1, 2, 3]
    for scores, drawn, output in zip(notes["scores"], samples, outputs, strict=True):
        np.testing.assert_allclose(output, softmax(np.array(scores)[drawn]), atol=1e-4)


# --- Batches ---
@pytest.mark.parametrize("kind", ["cbow", "thinned contexts", "skipgram"])
def test_the_posts_batches_equal_a_loop(kind):
    skip_gram, thin_contexts = kind == "skipgram", kind == "thinned contexts"
    articles = [[1, 2, 3], [4], [5, 6, 7, 8], [9, 1], [2]]
    ids = np.concatenate([[*article, 0] for article in articles]).astype("int32")
    keep = np.ones(10, "float32")
    keep[[2, 7]] = 0  # Never a target, still a context, unless contexts are thinned out too.
    expected = []
    for start in (0, 2, 4):
        rows = []
        for article in articles[start : start + 2]:
            article = [word for word in article if not (thin_contexts and word in (2, 7))]
            padded = [0, 0, *article, 0, 0]
            for i, word in enumerate(article, 2):
                around = padded[i - 2 : i] + padded[i + 1 : i + 3]
                if word in (2, 7):
                    continue
                if skip_gram:
                    rows += [([word], other) for other in around if other]
                else:
                    rows.append((around, word))
        expected.append(rows)
    batches = list(post_batches(ids, keep, 2, 2, skip_gram, thin_contexts))
    assert len(batches) == 3
    for (x, labels, weights), rows in zip(batches, expected, strict=True):
        n = len(rows)
        assert len(labels) == len(weights) == 1024 and not labels.any()
        assert weights.tolist() == [1] * n + [0] * (1024 - n)
        assert [(c.tolist(), int(t[0])) for c, t in zip(x["context"], x["target"], strict=True)][
            :n
        ] == rows


def test_epoch_batches_depend_on_their_index_alone():
    read = []

    def read_epoch(epoch):
        read.append(epoch)
        return ((epoch, step) for step in range(3))

    batches = EpochBatches(read_epoch, steps_per_epoch=3)
    assert [batches[i] for i in (0, 1, 0, 1, 2, 3, 4, 5, 6)] == [
        (0, 0),
        (0, 1),
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 0),
        (1, 1),
        (1, 2),
        (2, 0),
    ]
    assert read == [0, 0, 1, 2]  # In order, an epoch is read once.
    assert [batches[i] for i in (5, 1, 1, 3)] == [(1, 2), (0, 1), (0, 1), (1, 0)]
    resumed = EpochBatches(read_epoch, steps_per_epoch=3, first_epoch=4)
    assert [resumed[i] for i in range(4)] == [(4, 0), (4, 1), (4, 2), (5, 0)]
