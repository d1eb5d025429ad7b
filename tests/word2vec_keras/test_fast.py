"""word2vec_keras/fast.py: the chunks, and the model against finite differences."""

import platform
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT
from keras import ops

from word2vec_keras import fast
from word2vec_keras.model import EpochBatches, keep_probability

SIZES = {"vocabulary_size": 25, "embedding_dim": 6, "window": 3}
BLOCKS = {"chunk_size": 32, "block_size": 8, "num_negatives": 5}
NOISE = np.arange(1, 100, dtype="int32")


def softmax(scores):
    return np.exp(scores - np.max(scores)) / np.sum(np.exp(scores - np.max(scores)))


def loss_of_chunk(words, targets, strangers, ids, sentences, negatives, skip_gram, window=3):
    """The loss of a chunk as a plain loop; words, targets, strangers hold a row a place."""
    places, loss = len(ids), 0.0
    for i in range(places):
        near = {
            j: 1 - (abs(i - j) - 1) / window
            for j in range(max(0, i - window), min(places, i + window + 1))
            if j != i and sentences[i] == sentences[j]
        }
        if not near:
            continue
        block = i // (places // len(negatives))
        drawn = [strangers[block, n] for n, word in enumerate(negatives[block]) if word != ids[i]]
        if skip_gram:
            hidden, wanted = words[i], near
        else:
            hidden = sum(w * words[j] for j, w in near.items()) / sum(near.values())
            wanted = {i: 1.0}
        for j, weight in wanted.items():
            scores = np.array([hidden @ row for row in (targets[j], *drawn)])
            loss -= weight * np.log(softmax(scores)[0])
    return loss


def gradient_of_chunk(tables, *chunk, step=1e-5):
    """Central differences of loss_of_chunk with respect to every number."""
    gradients = []
    for table in tables:
        gradient = np.zeros_like(table)
        for place in np.ndindex(table.shape):
            before, values = table[place], []
            for sign in (1, -1):
                table[place] = before + sign * step
                values.append(loss_of_chunk(*tables, *chunk))
            table[place] = before
            gradient[place] = (values[0] - values[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


@pytest.mark.parametrize("skip_gram", [False, True])
def test_the_fast_step_equals_dense_adagrad_on_finite_differences(skip_gram):
    """Tables and accumulators after two steps, to 1e-5; the reference shares no formula."""
    rng, rate = np.random.default_rng(5), 0.1
    model = fast.FastWord2Vec(skip_gram=skip_gram, **SIZES, **BLOCKS)
    model.compile(keras.optimizers.SGD(rate), jit_compile=keras.backend.backend() != "torch")
    variables = [model.vectors, model.targets, *model.squares]
    for variable in variables[:2]:
        variable.assign(rng.normal(size=variable.shape))
    for variable in variables[2:]:
        variable.assign(rng.uniform(0.1, 1, variable.shape))
    tables = [ops.convert_to_numpy(variable).astype("float64") for variable in variables]

    chunks = []
    for _ in range(2):
        ids = rng.integers(1, 25, 32)
        sentences = np.sort(rng.integers(0, 6, 32))
        ids[-3:], sentences[-3:] = 0, [-2, -3, -4]  # Padding.
        chunks.append([ids, sentences, rng.integers(1, 25, (4, 5))])
    chunks = [tuple(part.astype("int32") for part in chunk) for chunk in chunks]
    history = model.fit((chunk for chunk in chunks), steps_per_epoch=2, verbose=0)

    losses = []
    for ids, sentences, negatives in chunks:
        chunk = ids, sentences, negatives, skip_gram
        rows = [tables[0][ids], tables[1][ids], tables[1][negatives]]
        near = [
            1 - (abs(d) - 1) / 3
            for i in range(32)
            for d in (-3, -2, -1, 1, 2, 3)
            if 0 <= i + d < 32 and sentences[i] == sentences[i + d]
        ]
        alone = [(sentences == s).sum() == 1 for s in sentences]
        losses.append((loss_of_chunk(*rows, *chunk), sum(near) if skip_gram else 32 - sum(alone)))
        of_words, of_targets, of_strangers = gradient_of_chunk(rows, *chunk)
        changes = [(0, ids, of_words), (1, ids, of_targets)]
        changes += [(1, negatives.ravel(), of_strangers.reshape(20, 6))]
        for i, where, gradient in changes:
            for word, row in zip(where, gradient, strict=True):
                tables[2 + i][word] += np.mean(row**2)
        for i, where, gradient in changes:
            for word, row in zip(where, gradient, strict=True):
                tables[i][word] -= rate * row / (tables[2 + i][word] + 1e-10) ** 0.4
    for variable, table in zip(variables, tables, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(variable), table, atol=1e-5, rtol=1e-5)
    mean_loss = np.divide(*np.sum(losses, axis=0))
    assert history.history["loss"][0] == pytest.approx(mean_loss, rel=1e-5)


def test_a_step_touches_only_its_words():
    model = fast.FastWord2Vec(**SIZES, **BLOCKS)
    model.compile(keras.optimizers.SGD(0.1), jit_compile=keras.backend.backend() != "torch")
    before = ops.convert_to_numpy(model.vectors).copy()
    # Equal rows would leave a gradient of rounding errors only.
    model.targets.assign(np.random.default_rng(7).normal(size=model.targets.shape))
    ids = np.tile(np.arange(1, 5, dtype="int32"), 8)
    chunk = ids, np.repeat(np.arange(4, dtype="int32"), 8), np.full((4, 5), 9, "int32")
    model.fit((c for c in [chunk]), steps_per_epoch=1, verbose=0)
    changed = (ops.convert_to_numpy(model.vectors) != before).any(1)
    assert changed.nonzero()[0].tolist() == [1, 2, 3, 4]


def sentences_of(chunks):
    """The sentences in chunks, as tuples of ids; padding is left out."""
    found = {}
    for ids, numbers, _ in chunks:
        for word, number in zip(ids.tolist(), numbers.tolist(), strict=True):
            if number >= 0:
                found.setdefault(number, []).append(word)
    return sorted(map(tuple, found.values()))


def test_chunks_hold_each_sentence_once():
    rng = np.random.default_rng(6)
    sentences = [tuple(rng.integers(1, 100, rng.integers(1, 6))) for _ in range(200)]
    ids = np.concatenate([[*sentence, 0] for sentence in sentences]).astype("int32")
    sizes = {"num_chunks": 60, "chunk_size": 16, "negatives_shape": (2, 3)}
    chunks = list(fast.fast_chunks(ids, np.ones(100), NOISE, **sizes, seed=1))
    assert len(chunks) == 60
    assert all([part.shape for part in c] == [(16,), (16,), (2, 3)] for c in chunks)
    assert all(part.dtype == "int32" for chunk in chunks for part in chunk)
    assert sentences_of(chunks) == sorted(s for s in sentences if len(s) > 1)
    again, other = (
        list(fast.fast_chunks(ids, np.ones(100), NOISE, **sizes, seed=seed)) for seed in (1, 2)
    )
    for part in range(3):
        first, second, third = (np.stack([c[part] for c in x]) for x in (chunks, again, other))
        assert np.array_equal(first, second) and not np.array_equal(first, third)


def test_negatives_follow_the_power_of_the_counts():
    counts = np.array([0, 1000, 100, 10, 1])
    noise = fast.noise_table(counts)
    share = np.bincount(noise, minlength=5) / len(noise)
    np.testing.assert_allclose(share, counts**0.75 / (counts**0.75).sum(), atol=1e-6)


def test_words_stay_with_the_formulas_probability():
    counts, total = np.array([0, 100_000, 10_000, 100]), 200_000
    keep = keep_probability(counts, total, 1e-3)
    expected = [0.001 / f + (0.001 / f) ** 0.5 for f in (0.5, 0.05)]
    np.testing.assert_allclose(keep, [1, *expected, 1], rtol=1e-6)
    ids = np.tile([1, 1, 1, 1, 1, 1, 1, 1, 2, 0], 20_000).astype("int32")
    chunks = fast.fast_chunks(ids, np.array([1, 0.5, 0.2]), NOISE, num_chunks=100)
    drawn = np.concatenate([words for words, *_ in chunks])
    assert (drawn == 1).sum() / 160_000 == pytest.approx(0.5, abs=0.02)
    assert (drawn == 2).sum() / 20_000 == pytest.approx(0.2, abs=0.02)


def test_fit_sees_the_chunks_of_a_stream_in_order():
    """Two epochs of `fit` end with the tables of so many calls of train_on_batch in order."""
    rng = np.random.default_rng(8)
    ids = np.concatenate([[*rng.integers(1, 25, 9), 0] for _ in range(40)]).astype("int32")

    def read_epoch(epoch):
        return fast.fast_chunks(ids, np.ones(25), NOISE[NOISE < 25], 16, 32, (4, 5), seed=epoch)

    tables = []
    for streamed in (True, False):
        keras.utils.set_random_seed(0)
        model = fast.FastWord2Vec(**SIZES, **BLOCKS)
        assert model.negatives_shape == (4, 5)
        fast.compile_fast(model, 0.1, 32)
        if streamed:
            chunks = fast.stream(EpochBatches(read_epoch, 16), 32)
            model.fit(chunks, steps_per_epoch=16, epochs=2, shuffle=False, verbose=0)
        else:
            for chunk in (*read_epoch(0), *read_epoch(1)):
                model.fit((c for c in [chunk]), steps_per_epoch=1, verbose=0)
        tables.append([ops.convert_to_numpy(v) for v in (model.vectors, model.targets)])
        assert int(model.optimizer.iterations) == 32
    for one, two in zip(*tables, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("skip_gram", [False, True])
def test_the_fast_model_survives_saving(skip_gram, tmp_path):
    model = fast.FastWord2Vec(skip_gram=skip_gram, power=0.3, **SIZES, **BLOCKS)
    model.targets.assign(np.random.default_rng(9).normal(size=model.targets.shape))
    model.squares[1].assign(np.arange(25.0))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.get_config() == model.get_config()
    assert again.skip_gram is skip_gram and again.power == 0.3 and again.chunk_size == 32
    for one, two in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_prefetched_chunks_are_the_same_and_errors_come_through():
    chunks = [(np.full(3, i), np.full(2, -i)) for i in range(50)]
    for count in (1, 16, 100):
        got = list(fast.prefetch(iter(chunks), count))
        assert [first is a for (first, _), (a, _) in zip(got, chunks, strict=True)] == [True] * 50

    def failing():
        yield chunks[0]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(fast.prefetch(failing()))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc's malloc")
def test_kept_memory_is_not_fetched_again_page_by_page():
    code = """if True:
        import resource, sys
        import numpy as np
        from common.memory import keep_freed_memory

        if sys.argv[1] == "keep":
            keep_freed_memory()
        block = np.ones(10_000_000, "float32")  # 40 MB, larger than any block that malloc keeps.
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            block + 1
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """
    faults = {}
    for way in ("keep", "default"):
        run = [sys.executable, "-c", code, way]
        done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
        faults[way] = int(done.stdout)
    assert faults["keep"] < 0.2 * faults["default"]
