"""The tests' surroundings: set here because Keras reads them when it is first imported."""

import os
import tempfile

import pytest

_keras_home = tempfile.TemporaryDirectory()
os.environ |= {
    "KERAS_HOME": _keras_home.name,
    "MPLBACKEND": "Agg",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


@pytest.fixture
def error_of(capsys):
    """Calls a function that must end as a user's mistake does; returns its one line."""

    def call(function, *args, **keywords):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            function(*args, **keywords)
        lines = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2
        assert len(lines) == 1 and lines[0].startswith("error: "), lines
        return lines[0]

    return call
