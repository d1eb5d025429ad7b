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


@pytest.fixture
def usage_error_of(capsys):
    """Calls main with flags that argparse must refuse; returns the last line, after the usage."""

    def call(main, argv):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(argv)
        lines = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2
        assert lines[0].startswith("usage: ") and "error: " in lines[-1], lines
        return lines[-1]

    return call
