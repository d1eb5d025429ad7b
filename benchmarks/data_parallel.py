"""What --data-parallel brings: one process on one core against two processes on two cores.

    python benchmarks/data_parallel.py             # needs two cores; JAX
    python benchmarks/data_parallel.py --quick     # tries every line

The processes of one machine, each pinned to a core of its own, stand for hosts. They share the
same total batch. The captcha network of captcha_xception and the fast CBOW of word2vec_keras are
trained for two epochs; the time is that which Keras prints for the second one, without
compilation. Rounds take turns.
Last line: `speed of two processes, ratio: X (captchas), Y (words)`, medians.
"""

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from common.cli import fail, positive_int
from common.files import ROOT

FLAGS = {
    "captcha_xception": ["--num-train", "4096", "--num-valid", "64", "--num-test", "64"],
    "word2vec_keras": [],
}
# How Keras ends the line of an epoch: "64/64 - 3s - 49ms/step - ...".
EPOCH = re.compile(r"^(\d+)/\d+ - .*?(\d+)(m|u|)s/step", re.MULTILINE)
SECONDS = {"": 1, "m": 1e-3, "u": 1e-6}


def seconds_of_last_epoch(experiment, num_processes, flags):
    """The time of the second epoch of a training by so many processes, as the first one says."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, f"{experiment}/train.py", "--epochs", "2", *flags]
        command += ["--data-parallel", "--run-dir", str(Path(folder) / "run")]
        outputs = run_processes(command, num_processes)
    steps, time, unit = EPOCH.findall(outputs[0])[-1]
    return int(steps) * int(time) * SECONDS[unit]


def run_processes(command, num_processes):
    """Runs a command in processes that find each other. Returns the output of each."""
    cores = sorted(os.sched_getaffinity(0))
    environment = dict(os.environ)
    environment["KERAS_BACKEND"] = "jax"
    environment["KERAS_DISTRIBUTION_JOB_ADDRESSES"] = f"127.0.0.1:{free_port()}"
    environment["KERAS_DISTRIBUTION_NUM_PROCESSES"] = str(num_processes)
    processes = []
    for rank in range(num_processes):
        environment["KERAS_DISTRIBUTION_PROCESS_ID"] = str(rank)
        process = subprocess.Popen(
            ["taskset", "-c", str(cores[rank]), *command],
            env=environment,
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        processes.append(process)
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit(outputs[0])
    return outputs


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive_int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round; few images and words")
    args = parser.parse_args(argv)
    if len(os.sched_getaffinity(0)) < 2:
        fail("it takes two cores")
    flags_of = FLAGS
    rounds = args.rounds
    if args.quick:
        flags_of = {experiment: ["--smoke"] for experiment in FLAGS}
        rounds = 1
    ratios = {experiment: [] for experiment in FLAGS}
    for _ in range(rounds):
        for experiment, flags in flags_of.items():
            one = seconds_of_last_epoch(experiment, 1, flags)
            two = seconds_of_last_epoch(experiment, 2, flags)
            print(f"{experiment}: one process {one:.1f} s, two {two:.1f} s", flush=True)
            ratios[experiment].append(one / two)
    captchas = np.median(ratios["captcha_xception"])
    words = np.median(ratios["word2vec_keras"])
    print(f"speed of two processes, ratio: {captchas:.2f} (captchas), {words:.2f} (words)")


if __name__ == "__main__":
    main()
