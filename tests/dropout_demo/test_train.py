"""The flags, the record of a run, and a run that is killed and resumed."""

import json
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT

from common.batches import ShuffledBatches
from data import glyphs
from dropout_demo import evaluate, train


def test_variants_are_read_and_bad_ones_are_one_line(tmp_path, usage_error_of):
    assert train.parse_variant("0.5") == (0.5, (None, None, None))
    assert train.parse_variant("0.2:batch,word,1") == (0.2, (None, None, 1))
    assert train.parse_variant("0.3:1,1,channel") == (0.3, (1, 1, None))
    for bad in ("1", "-0.1", "a", "0.5:batch,word", "0.5:word,batch,1", "0.5:batch,2,channel"):
        flags = ["--smoke", "--run-dir", str(tmp_path / "run"), f"--variants={bad}"]
        assert f"variant '{bad}'" in usage_error_of(train.main, flags)
    flags = ["--smoke", "--run-dir", str(tmp_path / "run")]
    assert "at least one" in usage_error_of(train.main, [*flags, "--variants", "0"])
    assert "at least 1" in usage_error_of(train.main, [*flags, "--epochs", "0"])
    assert "at least one" in usage_error_of(train.main, [*flags, "--batch-size", "500"])
    assert "at least 1" in usage_error_of(train.main, [*flags, "--batch-size", "0"])
    assert not (tmp_path / "run").exists()


def test_record_of_a_run(smoke_run, assert_drawn):
    run_dir, record = smoke_run
    assert record == json.loads((run_dir / "record.json").read_text())
    metrics = record["metrics"]
    names = ["dropout 0", "dropout 0.5:batch,word,1"]
    for name in names:
        assert metrics[f"accuracy, {name}"]["n"] == 100
        entries = [e for e in record["history"] if e["variant"] == name]
        assert [e["epoch"] for e in entries] == [1, 2]
        assert all({"loss", "accuracy", "val_accuracy", "test_accuracy"} < set(e) for e in entries)
        # Chosen on validation; its point of the test curve is what the saved model reaches.
        best = max(entries, key=lambda e: (e["val_accuracy"], e["epoch"]))
        assert metrics[f"accuracy, {name}"]["value"] == best["test_accuracy"]
        saved = name.removeprefix("dropout ").replace(":", "-").replace(",", "-")
        network = keras.saving.load_model(run_dir / f"{saved}-model.keras", compile=False)
        hits = evaluate.count_correct(network, *glyphs.load("test", 100))
        assert hits == round(100 * best["test_accuracy"])
    for name in ("plain pass", "mean of 1 random", "mean of 10 random", "mean of 100 random"):
        for kind in ("accuracy", "log loss", "calibration error"):
            number = metrics[f"{kind}, {name}"]
            assert number["low"] <= number["value"] <= number["high"]
    assert metrics["accuracy, plain pass"] == metrics[f"accuracy, {names[1]}"]
    for name in record["pictures"]:
        assert_drawn(run_dir / name)
    assert not list(run_dir.glob("*epoch*")), "the weights of the epochs are in the way"


# Ends itself when the test accuracies of the first variant are read, and the second ones begin.
KILLED_IN_TEST = """if True:
    import os, signal, sys

    import numpy as np
    from dropout_demo import train

    load = np.load

    def deadly(path, **keywords):
        if "0.5-batch-word-1-epoch1" in str(path):
            os.kill(os.getpid(), signal.SIGKILL)
        return load(path, **keywords)

    np.load = deadly
    train.main(sys.argv[1:])
"""


@pytest.mark.parametrize("place", ["training", "testing"])
def test_same_seed_same_run_and_a_killed_one_resumes_to_it(
    smoke_run, smoke_flags, tmp_path, place, kill_in_second_epoch, assert_same_state
):
    """kill -9 in the middle, then --resume."""
    straight, record = smoke_run
    flags = [*smoke_flags, "--run-dir", str(tmp_path / "killed")]
    if place == "training":
        kill_in_second_epoch("dropout_demo", flags, prefix="0.5")
    else:
        command = [sys.executable, "-c", KILLED_IN_TEST, *flags]
        killed = subprocess.run(command, cwd=ROOT, capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (tmp_path / "killed" / "record.json").exists()
    resumed = train.main([*flags, "--resume"])
    assert resumed["resumed"] and not list((tmp_path / "killed").glob("*epoch*"))
    for name in ("history", "metrics", "selection", "data"):
        assert resumed[name] == record[name]
    for state in ("0-state.npz", "0.5-batch-word-1-state.npz"):
        assert_same_state(straight / state, tmp_path / "killed" / state, more_than=20)


def test_batches_shuffle_and_can_start_anywhere():
    x = np.arange(10)
    straight = ShuffledBatches((x, x), 3, seed=1)
    later = ShuffledBatches((x, x), 3, seed=1, first_epoch=1)
    epochs = [[straight[3 * epoch + i][0].tolist() for i in range(3)] for epoch in range(2)]
    assert [later[i][0].tolist() for i in range(3)] == epochs[1] != epochs[0]
    assert all(len(np.unique(epoch)) == 9 for epoch in epochs)
    other = ShuffledBatches((x, x), 3, seed=2)[0][0].tolist()
    assert other != epochs[0][0]
