"""What the tests of dropout_demo share."""

import pytest

from dropout_demo import train

SMOKE = ["--smoke", "--variants", "0", "0.5:batch,word,1", "--seed", "3"]


@pytest.fixture(scope="session")
def smoke_flags():
    return SMOKE


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """One small training through the front door, shared by the tests that need a run."""
    run_dir = tmp_path_factory.mktemp("smoke") / "run"
    return run_dir, train.main([*SMOKE, "--run-dir", str(run_dir)])
