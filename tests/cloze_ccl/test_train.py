"""cloze_ccl/train.py: a run, its losses, a kill, wrong flags; an old run."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import keras
import numpy as np
import pytest
from conftest import ROOT

from cloze_ccl import dataset, evaluate, model, train
from cloze_ccl.questions import read_answers
from common.run import load_model
from data import stories
from data.stories import BLANK, Question

# Ends itself in the second of three batches of the second epoch.
DEADLY = """if True:
    import os, signal, sys

    from cloze_ccl import train
    import keras

    calls = []
    train_on_batch = keras.Model.train_on_batch

    def deadly(*args, **keywords):
        calls.append(args)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return train_on_batch(*args, **keywords)

    keras.Model.train_on_batch = deadly
    train.main(sys.argv[1:])
"""


def kill_in_second_epoch(flags):
    """Trains in a process that kill -9 ends in its second epoch."""
    command = [sys.executable, "-c", DEADLY, *flags]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()


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
    right, total = evaluate.exact_match(read_answers(run_dir / "test.out"), answers)
    assert metrics["accuracy"]["value"] == right / total
    picture = ElementTree.parse(run_dir / "attention.svg").getroot()
    drawn = "".join(text.text for text in picture.iter("{http://www.w3.org/2000/svg}text"))
    assert "".join(w for s in asked[0].sentences for w in s) in drawn


@pytest.mark.parametrize(
    ("flags", "loss"),
    [
        (["--model", "post"], model.pointer_loss),
        (["--model", "as-reader"], model.pointer_sum_loss),
        ([], model.pointer_sum_loss),
        (["--without", "summed-loss"], model.pointer_loss),
    ],
)
def test_each_reader_has_its_loss(flags, loss, tiny_flags):
    args = train.parse_args([*tiny_flags, *flags])
    vocabulary = dataset.Vocabulary([BLANK, "猫"], ["X", "猫"], 2, None)
    network = train.build_network(args, vocabulary, num_steps=6)
    assert network.loss is loss


def test_what_is_judged_is_the_best_epoch(tiny_flags, tmp_path):
    run_dir = tmp_path / "run"
    flags = [*tiny_flags, "--run-dir", str(run_dir)]
    kill_in_second_epoch(flags)
    with np.load(run_dir / "state.npz") as file:
        state = dict(file)
    notes = json.loads(str(state["notes"]))
    notes["history"][0]["val_accuracy"] = 1.0  # As if all answers of the first epoch were right.
    np.savez(run_dir / "state.npz", **{**state, "notes": json.dumps(notes)})
    record = train.main([*flags, "--resume"])
    accuracies = [entry["val_accuracy"] for entry in record["history"]]
    assert accuracies[0] == 1 and accuracies[1] < 1
    assert record["selection"] == "best validation epoch 1 of 2"
    # The best epoch, judged once more, gives the same answers and the same probabilities.
    reader = evaluate.load_reader(run_dir)
    questions = {"test": stories.load("test", 10)}
    word_keys = {}
    encoded = {"test": dataset.encode_all(questions["test"], word_keys)}
    (tmp_path / "again").mkdir()
    metrics, _ = evaluate.evaluate(reader, questions, encoded, word_keys, tmp_path / "again")
    assert metrics["accuracy"] == record["metrics"]["accuracy"]
    for name in ("test.out", "attention.svg"):
        assert (run_dir / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    best = reader.network.get_weights()
    with np.load(run_dir / "state.npz") as state:  # Of the second epoch.
        after = [state[name] for name in state.files if name != "notes"]
    assert not all(any(np.array_equal(a, b) for b in after) for a in best)


def test_a_run_with_word_vectors(tiny_flags, tmp_path):
    words = sorted({w for q in stories.load("train", 10) for s in q.sentences for w in s})[::2]
    rows = np.random.default_rng(0).normal(size=(len(words), 6)).astype("float32")
    lines = [f"{w} {' '.join(map(str, row))}" for w, row in zip(words, rows, strict=True)]
    (tmp_path / "v.txt").write_text("\n".join([f"{len(words)} 6", *lines]))
    flags = [*tiny_flags, "--without", "second-reading", "--vectors", str(tmp_path / "v.txt")]
    record = train.main([*flags, "--run-dir", str(tmp_path / "run")])
    assert record["row"].endswith("with vectors")
    assert record["details"]["vectors"].startswith(f"{len(words)} words, sha256 ")
    network = load_model(tmp_path / "run" / "model.keras")
    vocabulary = json.loads((tmp_path / "run" / "words.json").read_text())["vocabulary"]
    [fixed] = network.get_layer("fixed").get_weights()
    for word, row in zip(words, rows, strict=True):
        np.testing.assert_array_equal(fixed[1 + vocabulary.index(word)], row)


def test_a_killed_run_resumes_to_the_straight_one(
    tiny_run, tiny_flags, tmp_path, assert_same_state
):
    """kill -9 amid the second epoch, then --resume."""
    straight, record = tiny_run
    flags = [*tiny_flags, "--without", "second-reading", "--seed", "3"]
    flags += ["--run-dir", str(tmp_path / "killed")]
    kill_in_second_epoch(flags)
    assert not (tmp_path / "killed" / "record.json").exists()
    resumed = train.main([*flags, "--resume"])
    assert resumed["resumed"]
    for name in ("history", "metrics", "selection", "data"):
        assert resumed[name] == record[name]
    assert_same_state(straight / "state.npz", tmp_path / "killed" / "state.npz", more_than=20)


def test_what_cannot_be_learnt_breaks_nothing():
    """Unknown answers, and answers that are not in the passage: the post's script ended in NaN."""
    index = {}
    asked = [
        ("猫", "XXXXX 有 鱼 。 猫 笑 , 猫 叫"),
        ("狗", "狗 有 XXXXX"),
        *[("树", "XXXXX 笑 了")] * 2,
    ]
    asked = [Question("q", (tuple(text.split()),), answer) for answer, text in asked]
    items = dataset.encode_all(asked, index)
    lookup = dataset.Lookup(index, [BLANK, "鱼"], [])  # Every answer is unknown or not there.
    network = model.build_reader(2, units=3, embedding_dim=4, vectors=np.ones((2, 4)))
    network.compile(keras.optimizers.SGD(1.0), model.pointer_loss)
    x, y, weights, _ = dataset.build_batch("post", items, (8, 8), lookup)
    assert y.sum(1).tolist() == [2, 1, 0, 0]
    before = network.get_weights()
    losses = [float(network.train_on_batch(x, y, sample_weight=weights)) for _ in range(3)]
    assert losses[2] < losses[0] and all(np.isfinite(w).all() for w in network.get_weights())
    changed = [np.any(a != b) for a, b in zip(before, network.get_weights(), strict=True)]
    frozen = [w.path for w, c in zip(network.weights, changed, strict=True) if not c]
    assert frozen == [network.get_layer("words").embeddings.path]


def test_flags_that_make_no_sense_are_one_line(tmp_path, error_of):
    for flags, expected in (
        (["--epochs", "0"], "--epochs: expected a whole number of at least 1"),
        (["--learning-rate", "nan"], "--learning-rate: expected a number above 0"),
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


# --- A run of an older version ---
def test_a_run_of_the_old_code_is_read_as_before():
    """Saved by commit 1fae3ac, which answered the text below with these probabilities."""
    reader = evaluate.load_reader(Path(__file__).parent / "saved_by_1fae3ac")
    text = "小猫 有 一个 苹果 。|小狗 没有 苹果 。|XXXXX 吃 了 苹果 。"
    sentences = tuple(tuple(sentence.split()) for sentence in text.split("|"))
    word_keys = {}
    encoded = dataset.encode_all([Question("text", sentences, "")], word_keys)
    lookup = reader.lookup(word_keys)
    [row] = evaluate.read_passages(reader.name, reader.network, encoded, lookup, batch_size=1)
    expected = [0.083349, 0.085674, 0.083398, 0.091907, 0.088768, 0.077383, 0.07692, 0.084832]
    expected += [0.079295, 0, 0.063869, 0.065213, 0.058893, 0.0605]
    np.testing.assert_allclose(row, expected, atol=1e-5)
