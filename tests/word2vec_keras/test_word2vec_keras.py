"""word2vec_keras: both models against loops, the stream of chunks, training through the front."""

import json
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from word2vec_keras import fast, predict, train, vectors

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ["--smoke", "--epochs", "2", "--seed", "3"]


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory):
    """One small training through the front door, shared by the tests that need a run."""
    run_dir = tmp_path_factory.mktemp("smoke") / "run"
    return run_dir, train.main([*SMOKE, "--run-dir", str(run_dir)])


def softmax(scores):
    return np.exp(scores - np.max(scores)) / np.sum(np.exp(scores - np.max(scores)))


# --- The post's models ---
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
        model, width = train.build_skipgram_model(**sizes), 1
    else:
        masked = kind.startswith("masked")
        model, width = train.build_cbow_model(window=3, mask_padding=masked, **sizes), 6
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
    model = train.build_cbow_model(10, 4, window=2, num_negatives=16)
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
    model = train.build_cbow_model(size, 5, window=2, num_negatives=size - 1)
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
    model = train.build_skipgram_model(size, 16)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    x = {"context": context[:, None], "target": target[:, None]}
    model.fit(x, np.zeros(len(context)), batch_size=500, epochs=3, verbose=0)
    word2vec, w, b = (ops.convert_to_numpy(v) for v in train.tables(model))
    learnt = np.stack([softmax(w @ word2vec[c] + b[:, 0]) for c in (1, 2, 3)])
    assert np.abs(learnt - true).sum(1).max() / 2 < 0.12  # Total variation.
    assert np.abs(1 / size - true).sum(1).max() / 2 > 0.3


def test_the_posts_model_survives_saving(tmp_path):
    model = train.build_cbow_model(20, 4, window=2)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.get_layer("samples").get_config()["num_negatives"] == 16
    for one, two in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


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
    batches = list(train.post_batches(ids, keep, 2, 2, skip_gram, thin_contexts))
    assert len(batches) == 3
    for (x, labels, weights), rows in zip(batches, expected, strict=True):
        n = len(rows)
        assert len(labels) == len(weights) == 1024 and not labels.any()
        assert weights.tolist() == [1] * n + [0] * (1024 - n)
        assert [(c.tolist(), int(t[0])) for c, t in zip(x["context"], x["target"], strict=True)][
            :n
        ] == rows


# --- The fast model ---
SIZES = {"vocabulary_size": 25, "embedding_dim": 6, "window": 3}
BLOCKS = {"chunk_size": 32, "block_size": 8, "num_negatives": 5}
NOISE = np.arange(1, 100, dtype="int32")


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
    model = fast.build_fast_model(skip_gram=skip_gram, **SIZES, **BLOCKS)
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
    model = fast.build_fast_model(**SIZES, **BLOCKS)
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
    sizes = {"num_chunks": 60, "num_negatives": 3, "chunk_size": 16, "block_size": 8}
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
    keep = fast.keep_probability(counts, total, 1e-3)
    expected = [0.001 / f + (0.001 / f) ** 0.5 for f in (0.5, 0.05)]
    np.testing.assert_allclose(keep, [1, *expected, 1], rtol=1e-6)
    ids = np.tile([1, 1, 1, 1, 1, 1, 1, 1, 2, 0], 20_000).astype("int32")
    chunks = fast.fast_chunks(ids, np.array([1, 0.5, 0.2]), NOISE, num_chunks=100)
    drawn = np.concatenate([words for words, *_ in chunks])
    assert (drawn == 1).sum() / 160_000 == pytest.approx(0.5, abs=0.02)
    assert (drawn == 2).sum() / 20_000 == pytest.approx(0.2, abs=0.02)


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
        from common.run import keep_memory

        if sys.argv[1] == "keep":
            keep_memory()
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


# --- Training ---
def test_the_record_and_what_gensim_and_predict_read(smoke_run, capsys):
    run_dir, record = smoke_run
    assert json.loads((run_dir / "record.json").read_text())["metrics"] == record["metrics"]
    assert {"Spearman, similarity", "accuracy, analogies"} <= set(record["metrics"])
    words, text = vectors.read_vectors(run_dir / "vectors.txt")
    _, binary = vectors.read_vectors(run_dir / "vectors.bin")
    assert text.shape == (record["data"]["num_words"], 128)
    np.testing.assert_array_equal(text, binary)
    with np.load(run_dir / "output.npz") as output:
        assert output["weights"].shape == (len(words) + 1, 128)
        assert (np.diff(output["counts"][1:]) <= 0).all()
        # As often as the model saw them: for p(w), by which skip-grams are put together.
        given = record["arguments"]
        _, _, counts, total, _ = train.load_data(None, given["min_count"], smoke=True)
        seen = counts * fast.keep_probability(counts, total, given["subsample"])
        np.testing.assert_allclose(output["counts"], seen)
        assert (seen < counts).any()
    capsys.readouterr()
    predict.main(["--run-dir", str(run_dir), "--json", "--nearest", words[0]])
    assert len(json.loads(capsys.readouterr().out)["words"]) == 10


@pytest.mark.parametrize("model", ["cbow", "skipgram", "fast-skipgram"])
def test_the_other_models_train(tmp_path, model):
    run_dir = tmp_path / "run"
    flags = ["--smoke", "--model", model, "--embedding-dim", "16"]
    record = train.main([*flags, "--run-dir", str(run_dir)])
    assert np.isfinite(record["history"][-1]["loss"])
    words, _ = vectors.read_vectors(run_dir / "vectors.bin")
    asked = ["--log-probability", words[0], "--context", *words[1:4]]
    shown = predict.main(["--run-dir", str(run_dir), *asked])
    assert -20 < shown[0]["value"] < 0


def test_a_killed_run_resumes_to_the_same_tables(smoke_run, tmp_path):
    """kill -9 in the middle of the second epoch, then --resume."""
    straight, record = smoke_run
    deadly = """if True:
        import os, signal, sys
        from word2vec_keras import train

        checkpoint = train.Run.checkpoint

        def with_death(run, *arguments, **keywords):
            saving = checkpoint(run, *arguments, **keywords)

            def die(step, logs):
                if len(run.history) == 1 and step > 5:
                    os.kill(os.getpid(), signal.SIGKILL)

            saving.on_train_batch_end = die
            return saving

        train.Run.checkpoint = with_death
        train.main(sys.argv[1:])
    """
    flags = [*SMOKE, "--run-dir", str(tmp_path / "killed")]
    killed = subprocess.run([sys.executable, "-c", deadly, *flags], cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert (tmp_path / "killed" / "state.npz").exists()
    resumed = train.main([*flags, "--resume"])
    assert resumed["resumed"] and resumed["metrics"] == record["metrics"]
    for name in ("vectors.bin", "vectors.txt"):
        assert (straight / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    speed = "words per second, with compilation"
    (tmp_path / "killed" / "record.json").unlink()  # Stopped after the last epoch.
    again = train.main([*flags, "--resume"])
    assert again["metrics"] == record["metrics"]
    assert speed in resumed["details"] and speed not in again["details"]


def test_training_goes_on_from_vectors_with_new_words(smoke_run, tmp_path, error_of):
    straight, _ = smoke_run
    words, before = vectors.read_vectors(straight / "vectors.bin")
    text = tmp_path / "more.txt"
    frequent = words[:30]
    text.write_text("\n".join(" ".join(["novelty", *frequent, "novelty"]) for _ in range(50)))
    known = tmp_path / "known"
    known.mkdir()
    for name in ("vectors.bin", "output.npz"):
        shutil.copyfile(straight / name, known / name)
    flags = ["--smoke", "--data", str(text), "--continue-from", str(known / "vectors.bin")]
    flags += ["--subsample", "1", "--run-dir", str(tmp_path / "run")]
    train.main(flags)
    after_words, after = vectors.read_vectors(tmp_path / "run" / "vectors.bin")
    assert set(after_words) == {*words, "novelty"}
    row = {word: i for i, word in enumerate(after_words)}
    unseen = [word for word in words if word not in frequent]
    old = np.array([before[words.index(word)] for word in unseen[:100]])
    np.testing.assert_array_equal(after[[row[word] for word in unseen[:100]]], old)
    assert (after[row[frequent[0]]] != before[0]).any()
    assert np.linalg.norm(after[row["novelty"]]) > 0.1
    (tmp_path / "run" / "record.json").unlink()
    vectors.write_vectors(known / "vectors.bin", words[::-1], before)
    assert "data_sha256 was" in error_of(train.main, [*flags, "--resume"])


# --- Bad input ---
def test_bad_input_is_one_line(tmp_path, error_of, smoke_run):
    text = tmp_path / "short.txt"
    text.write_text("a b c\n" * 20)
    start = ["--smoke", "--data", str(text), "--run-dir", str(tmp_path / "run")]
    assert "longest sentence has only 3" in error_of(train.main, [*start, "--window", "3"])
    assert "--min-count is 50" in error_of(train.main, [*start, "--min-count", "50"])
    assert "start at 1" in error_of(train.main, [*start, "--epochs", "0"])
    for flag in ("--num-negatives", "--learning-rate"):
        for value in ("0", "-1"):
            assert "above 0" in error_of(train.main, [*start, flag, value])
    few = tmp_path / "few.txt"
    few.write_text("the cat sat on the mat here\n" * 20)
    flags = [*start, "--data", str(few), "--min-count", "1", "--subsample", "1e-5"]
    assert "leaves 1 of 140 words" in error_of(train.main, flags)
    assert "--model cbow" in error_of(train.main, [*start, "--fix", "masked-padding"])
    (tmp_path / "empty.txt").write_text("")
    assert "empty.txt" in error_of(train.main, ["--smoke", "--data", str(tmp_path / "empty.txt")])
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("a b 1.0\na b c d e\n")
    line = error_of(train.main, [*start, "--window", "2", "--eval", str(wrong)])
    assert "wrong.txt" in line
    other = tmp_path / "other.bin"
    vectors.write_vectors(other, ["a", "b"], np.ones((2, 5)))
    line = error_of(train.main, [*start, "--window", "2", "--continue-from", str(other)])
    assert "--embedding-dim" in line
    go_on = [*start, "--window", "2", "--embedding-dim", "5", "--continue-from", str(other)]
    go_on += ["--subsample", "1"]
    np.savez(tmp_path / "output.npz", counts=np.ones(3), weights=np.ones((3, 7)))
    assert "weights has (7,) a word" in error_of(train.main, go_on)
    assert not (tmp_path / "run" / "record.json").exists()
