"""The tests' surroundings: set here because Keras reads them when it is first imported."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = sorted(path.parent.name for path in ROOT.glob("*/train.py"))
_keras_home = tempfile.TemporaryDirectory()
os.environ |= {
    "KERAS_HOME": _keras_home.name,
    "MPLBACKEND": "Agg",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


@pytest.fixture
def error_of(capsys):
    """Calls a function that must end as a mistake of the user does; returns the message.

    The message is one line: alone, or after the usage that argparse prints for a wrong flag.
    """

    def call(function, *args, **keywords):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            function(*args, **keywords)
        lines = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2
        if lines[0].startswith("usage: "):
            assert ": error: " in lines[-1], lines
        else:
            assert len(lines) == 1 and lines[0].startswith("error: "), lines
        return lines[-1]

    return call


@pytest.fixture
def usage_error_of(capsys):
    """Calls a function of flags that argparse must refuse; returns the last line of stderr."""

    def call(function, argv):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            function(argv)
        lines = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2
        assert lines[0].startswith("usage: ") and "error: " in lines[-1], lines
        return lines[-1]

    return call


def write_mnist(path, without=(), *, num_train, num_test, **changes):
    """A file in the layout of mnist.npz, with noise for pictures: (path, its arrays)."""
    rng = np.random.default_rng(0)
    arrays = {"x_train": rng.integers(0, 256, (num_train, 28, 28), "uint8")}
    arrays |= {"x_test": rng.integers(0, 256, (num_test, 28, 28), "uint8")}
    arrays |= {"y_train": np.arange(num_train, dtype="uint8") % 10}
    arrays |= {"y_test": np.arange(num_test, dtype="uint8") % 10}
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if k not in without})
    return path, arrays


def calibration_error_by_a_loop(probabilities, labels):
    """The reference: 15 bins of the confidence, one sample after the other."""
    n, total = len(labels), 0
    for i in range(15):
        inside = [p for p in range(n) if i <= probabilities[p].max() * 15 < i + 1]
        inside += [p for p in range(n) if i == 14 and probabilities[p].max() == 1]
        if inside:
            confidence = np.mean([probabilities[p].max() for p in inside])
            accuracy = np.mean([probabilities[p].argmax() == labels[p] for p in inside])
            total += len(inside) / n * abs(confidence - accuracy)
    return total


@pytest.fixture
def write_questions():
    """Writes questions to a file in the format of CMRC2017, the answers beside it in .answer."""

    def write(path, questions):
        lines, answers = [], []
        for q in questions:
            [query] = [s for s in q.sentences if "XXXXX" in s]
            lines += [f"{i} ||| {' '.join(s)}" for i, s in enumerate(q.sentences, 1)]
            lines.append(f"{q.id} ||| {' '.join(query)}")
            answers.append(f"{q.id} ||| {q.answer}")
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        path.with_suffix(".answer").write_text("\n".join(answers) + "\n", encoding="utf-8")

    return write


# Ends itself in the second epoch of the networks whose prefix begins so, after the second batch
# or, where Keras runs several batches in one call, after the first call.
DEADLY = """if True:
    import importlib, os, signal, sys

    import common.backend
    from common.checkpoint import Checkpoint

    experiment, prefix, *flags = sys.argv[1:]

    def die_in_second_epoch(checkpoint, batch, logs=None):
        right_network = checkpoint.state_path.name.startswith(prefix)
        if right_network and len(checkpoint.history) == 1 and batch >= 1:
            os.kill(os.getpid(), signal.SIGKILL)

    Checkpoint.on_train_batch_end = die_in_second_epoch
    importlib.import_module(f"{experiment}.train").main(flags)
"""


@pytest.fixture
def kill_in_second_epoch():
    """Starts an experiment's train.py in a process that kill -9 ends in its second epoch."""

    def run(experiment, flags, prefix=""):
        command = [sys.executable, "-c", DEADLY, experiment, prefix, *flags]
        killed = subprocess.run(command, cwd=ROOT, capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()

    return run


@pytest.fixture
def assert_same_state():
    """Two state.npz hold the same arrays, bit for bit, and more than so many."""

    def check(first, second, more_than=10):
        with np.load(first) as one, np.load(second) as two:
            arrays = [name for name in one.files if name != "notes"]
            assert len(arrays) > more_than and one.files == two.files
            assert all(np.array_equal(one[name], two[name]) for name in arrays)

    return check


@pytest.fixture
def assert_drawn():
    """A large enough picture in many shades, not an empty sheet."""

    def check(path):
        with Image.open(path) as image:
            assert image.width > 400
            shades, counts = np.unique(np.asarray(image.convert("L")), return_counts=True)
        assert len(shades) > 10 and counts.max() < 0.97 * counts.sum()

    return check
