"""What several tests of captcha_xception need: a trained network, a folder of captchas."""

import pytest
from PIL import Image

from captcha_xception import train
from data import captchas


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """One small training through the front door, shared by the tests that need a model."""
    run_dir = tmp_path_factory.mktemp("smoke") / "run"
    return run_dir, train.main(["--smoke", "--run-dir", str(run_dir)])


@pytest.fixture
def folder(tmp_path):
    """120 drawn captchas as JPEG files named 0000_abcd.jpg."""
    path = tmp_path / "own"
    path.mkdir()
    for index in range(120):
        image, label = captchas.draw_captcha(99, index)
        Image.fromarray(image).save(path / f"{index:04d}_{label}.jpg", quality=90)
    return path


@pytest.fixture
def fails(error_of):
    """The call ends as a mistake of the user does, with a message that holds the words."""

    def check(call, *words):
        message = error_of(call)
        for word in words:
            assert word in message

    return check
