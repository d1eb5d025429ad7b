"""Runs: recipes, wrong flags, starting from another run, a kill."""

import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from captcha_xception import dataset, train
from data import captchas


@pytest.mark.parametrize("recipe", ["ours", "post"])
@pytest.mark.parametrize("own", [True, False])
def test_rates_and_augmentation_of_a_recipe(recipe, own, folder, tmp_path, monkeypatch):
    seen = {}

    def fit(model, batches, epochs, steps_per_epoch, **_):
        seen.update(x=batches[0][0], last=epochs * steps_per_epoch, rates=[])
        for step in range(seen["last"] + 1):
            model.optimizer.iterations.assign(step)
            seen["rates"].append(float(model.optimizer.learning_rate))
        raise InterruptedError

    monkeypatch.setattr(keras.Model, "fit", fit)
    words = ["--smoke", "--recipe", recipe, "--batch-size", "4", "--run-dir", str(tmp_path / "run")]
    words += ["--data", str(folder)] if own else []
    with pytest.raises(InterruptedError):
        train.main(words)
    steps, last = np.arange(seen["last"] + 1), seen["last"]
    warmup = last // 10
    falling = (1 + np.cos(np.pi * (steps - warmup) / (last - warmup))) / 2
    ours = 2e-3 * np.where(steps < warmup, steps / warmup, falling)
    assert warmup >= 4
    assert np.allclose(seen["rates"], ours if recipe == "ours" else 1e-3, rtol=1e-4, atol=1e-8)
    known = {x.tobytes() for x in dataset.load(train.parse_args(words)).splits["train"][0]}
    as_they_are = all(x.tobytes() in known for x in seen["x"])
    assert as_they_are == (recipe == "post" or not own)


def test_a_folder_of_other_sizes_trains(folder, tmp_path):
    for index, path in enumerate(sorted(folder.iterdir())[:5]):
        Image.open(path).convert("L").resize((200, 70 + index)).save(path)
    broken = sorted(folder.iterdir())[7]
    broken.write_bytes(broken.read_bytes()[:600])
    arguments = ["--smoke", "--data", str(folder), "--run-dir", str(tmp_path / "run")]
    record = train.main([*arguments, "--batch-size", "16", "--epochs", "1"])
    assert record["data"]["num_train"] + record["data"]["num_valid"] == 107
    assert record["data"]["num_test"] == 12
    assert len(record["data"]["skipped"]) == 1 and broken.name in record["data"]["skipped"][0]


def test_init_from_nowhere_is_one_line_and_leaves_no_folder(tmp_path, fails):
    words = ["--smoke", "--init", str(tmp_path / "none"), "--run-dir", str(tmp_path / "run")]
    fails(lambda: train.main(words), "none", "missing")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words", [["--epochs", "0"], ["--batch-size", "-5"], ["--num-test", "0"], ["--length", "0"]]
)
def test_numbers_out_of_range_are_one_line(words, tmp_path, fails):
    call = ["--smoke", "--run-dir", str(tmp_path / "run"), *words]
    fails(lambda: train.main(call), "at least 1")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--length", "4"], "are for --data"),
        (["--case-sensitive"], "are for --data"),
        (["--data", ".", "--num-train", "99"], "are for drawn captchas"),
    ],
)
def test_flags_for_names_of_files_need_files(words, expected, tmp_path, fails):
    call = ["--smoke", "--run-dir", str(tmp_path / "run"), *words]
    fails(lambda: train.main(call), expected)


def test_imagenet_weights_out_of_reach_are_one_line(tmp_path, fails):
    words = ["--smoke", "--model", "xception", "--weights", str(tmp_path / "none.weights.h5")]
    args = train.parse_args(words)
    data = made_up_data((53, 129, 3))
    fails(lambda: train.build_network(args, data), "none.weights.h5", "--weights none")


def test_an_image_too_narrow_for_a_model_is_one_line(fails):
    args = train.parse_args(["--smoke", "--model", "cnn2016"])
    fails(lambda: train.build_network(args, made_up_data((53, 40, 3))), "cannot build cnn2016")


def made_up_data(image_shape):
    images = np.zeros((2, *image_shape), "uint8")
    labels = np.zeros((2, 4), "int8")
    return dataset.CaptchaData({"train": (images, labels)}, captchas.ALPHABET, {})


def test_init_from_another_model_is_one_line(smoke_run, tmp_path, fails):
    words = ["--smoke", "--model", "cnn2016", "--init", str(smoke_run[0])]
    words += ["--run-dir", str(tmp_path / "run")]
    fails(lambda: train.main(words), "--init", "--model")


def test_killed_in_the_middle_of_an_epoch_and_resumed(tmp_path):
    """kill -9 in the second epoch; after --resume every weight equals the uninterrupted run's."""
    command = [sys.executable, ROOT / "captcha_xception" / "train.py", "--smoke", "--num-test", "8"]
    command += ["--num-train", "256", "--num-valid", "8", "--epochs", "3", "--batch-size", "8"]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    subprocess.run([*command, "--run-dir", straight], check=True, **quiet)
    with subprocess.Popen([*command, "--run-dir", killed], **quiet) as process:
        while not (killed / "state.npz").exists():
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGKILL)
    assert not (killed / "record.json").exists()
    subprocess.run([*command, "--run-dir", killed, "--resume"], check=True, **quiet)
    with np.load(straight / "state.npz") as one, np.load(killed / "state.npz") as two:
        assert one.files == two.files
        arrays = [name for name in one.files if name != "notes"]
        assert len(arrays) > 50
        assert all(np.array_equal(one[name], two[name]) for name in arrays)
    records = [json.loads((d / "record.json").read_text()) for d in (straight, killed)]
    assert records[0]["history"] == records[1]["history"]
    assert records[1]["resumed"]
