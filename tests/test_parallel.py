"""--data-parallel, with processes of this machine in the place of hosts. By make test-backends."""

import contextlib
import json
import os
import socket
import subprocess
import sys

import pytest
from conftest import DEADLY, ROOT

if os.environ.get("KERAS_BACKEND") != "jax":
    pytest.skip("make test-backends runs it", allow_module_level=True)
EXPERIMENTS = {
    "captcha_xception": ["--num-train", "128", "--epochs", "2"],
    "word2vec_keras": ["--epochs", "2"],
    "dog_finetune": ["--breeds", "4"],
}


def start(command, count, environ=()):
    """The outputs and exit codes of so many processes that know of each other."""
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    base = os.environ | {"KERAS_BACKEND": "jax", "KERAS_DISTRIBUTION_NUM_PROCESSES": str(count)}
    base |= {"KERAS_DISTRIBUTION_JOB_ADDRESSES": address} | dict(environ)
    started = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=base | {"KERAS_DISTRIBUTION_PROCESS_ID": str(rank)},
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(count)
    ]
    outputs = [process.communicate(timeout=600)[0] for process in started]
    return outputs, [process.returncode for process in started]


def train(experiment, run_dir, count, *flags, devices=1):
    """The record of a run on so many processes with so many devices each."""
    flags = ["--smoke", *EXPERIMENTS[experiment], *flags, "--data-parallel", "--run-dir", run_dir]
    environ = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    outputs, codes = start([f"{experiment}/train.py", *flags], count, environ)
    assert codes == [0] * count, outputs
    return json.loads((run_dir / "record.json").read_text())


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_loss_curve_of_several_processes_and_devices_is_that_of_one(
    experiment, tmp_path, assert_same_state
):
    expected = train(experiment, tmp_path / "1", 1)["history"]
    for count, devices in ((2, 1), (4, 1), (1, 4), (2, 2)):
        run = tmp_path / f"{count}x{devices}"
        record = train(experiment, run, count, devices=devices)
        shared = f"{count} processes, {count * devices} devices"
        assert record["arguments"]["data_parallel"] == shared
        for entry, other in zip(expected, record["history"], strict=True):
            losses = {k: v for k, v in entry.items() if k.endswith("loss")}
            assert losses == pytest.approx({k: other[k] for k in losses}, rel=2e-3)
        states = list(run.glob("*state.npz"))
        assert states
        for rank in range(1, count):  # All end with the same weights.
            for path in states:
                other = tmp_path / f"{run.name}-process{rank}" / path.name
                assert_same_state(path, other, more_than=3)


def test_killed_and_resumed_on_two_processes(tmp_path, assert_same_state):
    expected = train("captcha_xception", tmp_path / "whole", 2)
    flags = ["--smoke", *EXPERIMENTS["captcha_xception"], "--data-parallel", "--run-dir"]
    command = ["-c", DEADLY, "captcha_xception", "", *flags, tmp_path / "killed"]
    _, codes = start(command, 2)
    assert all(codes) and not (tmp_path / "killed" / "record.json").exists()
    (tmp_path / "killed-process1" / "state.npz").write_bytes(b"cut")  # Only the first's counts.
    record = train("captcha_xception", tmp_path / "killed", 2, "--resume")
    assert record["history"] == expected["history"]
    assert_same_state(tmp_path / "whole" / "state.npz", tmp_path / "killed" / "state.npz")


@pytest.mark.parametrize(
    ("count", "environ", "flags", "expected"),
    [
        (1, {"KERAS_BACKEND": "tensorflow"}, [], "set KERAS_BACKEND=jax"),
        (2, {}, [], "give all processes the same --run-dir"),
        (2, {}, ["--batch-size", "33", "--run-dir", "RUN"], "2 devices cannot share 33 rows"),
    ],
)
def test_what_cannot_be_shared_is_one_line(count, environ, flags, expected, tmp_path):
    flags = [tmp_path / "run" if flag == "RUN" else flag for flag in flags]
    command = ["captcha_xception/train.py", "--smoke", "--data-parallel", *flags]
    outputs, codes = start(command, count, environ)
    assert 2 in codes and 0 not in codes
    errors = [line for line in outputs[0].splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and expected in errors[0]
    assert "Traceback" not in outputs[0]
