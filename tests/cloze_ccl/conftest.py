"""What the tests of cloze_ccl share."""

import pytest

from cloze_ccl import train

TINY = ["--smoke", "--num-stories", "10", "--batch-size", "10"]


@pytest.fixture(scope="session")
def tiny_flags():
    """A training of seconds."""
    return TINY


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """One small training through the front door, shared by the tests that need a run."""
    run_dir = tmp_path_factory.mktemp("tiny") / "run"
    flags = [*TINY, "--without", "second-reading", "--seed", "3"]
    return run_dir, train.main([*flags, "--run-dir", str(run_dir)])


@pytest.fixture
def write(tmp_path):
    """Writes a text file; returns its path."""

    def call(name, text, encoding="utf-8"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        return tmp_path / name

    return call
