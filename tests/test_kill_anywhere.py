"""kill -9 at random moments of every experiment; resumed each time, it ends as if never stopped.

`KILLS=10 python -m pytest tests/test_kill_anywhere.py` runs it, in some twenty minutes; the
tests of each experiment kill it at one chosen moment.
"""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import EXPERIMENTS, ROOT

KILLS = int(os.environ.get("KILLS", 0))


def start(experiment, run_dir):
    """Its --smoke run, new or resumed, in a process of its own."""
    command = [sys.executable, f"{experiment}/train.py", "--smoke", "--run-dir", str(run_dir)]
    command += ["--resume"] if (run_dir / "arguments.json").exists() else []
    log = (run_dir.parent / f"{run_dir.name}.log").open("a")
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)


@pytest.mark.skipif(not KILLS, reason="KILLS=10 runs it")
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_killed_at_random_moments_and_resumed(experiment, tmp_path, assert_same_state):
    whole, run, number, begin = tmp_path / "whole", tmp_path / "killed-0", 0, time.monotonic()
    assert start(experiment, whole).wait() == 0, whole.with_name("whole.log").read_text()
    seconds = time.monotonic() - begin
    states = sorted(path.relative_to(whole) for path in whole.rglob("*state.npz"))
    assert states

    def check(run):
        one, other = (json.loads((r / "record.json").read_text()) for r in (whole, run))
        assert one["history"] == other["history"]
        for name in states:
            assert_same_state(whole / name, run / name, more_than=3)

    moments = iter(np.random.default_rng(0).uniform(0, seconds, 100))
    deaths = 0
    while deaths < KILLS:
        process = start(experiment, run)
        try:
            code = process.wait(next(moments))
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        log = run.with_name(f"{run.name}.log").read_text()
        assert code in (0, -signal.SIGKILL), log
        deaths += code != 0
        if (run / "record.json").exists():  # It came to its end first, or all but: the next one.
            check(run)
            number += 1
            run = tmp_path / f"killed-{number}"
    if run.exists():
        assert start(experiment, run).wait() == 0, log
        check(run)
    print(f"{experiment}: {deaths} deaths, {number + run.exists()} runs of {seconds:.0f} s")
