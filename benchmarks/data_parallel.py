"""What --data-parallel brings: one process on one core against two processes on two cores.

    python benchmarks/data_parallel.py             # needs two cores; JAX
    python benchmarks/data_parallel.py --quick     # tries every line

Processes of one machine, each pinned to a core of its own, stand for hosts; the batch is the same
altogether. The captcha network of captcha_xception and the fast CBOW of word2vec_keras train two
epochs; what Keras says of the second one, without compilation, is compared. Rounds take turns.
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

from common.files import ROOT

EXPERIMENTS = {
    "captcha_xception": ["--num-train", "4096", "--num-valid", "64", "--num-test", "64"],
    "word2vec_keras": [],
}


def seconds_of_last_epoch(experiment, count, flags):
    """Of a training by so many processes; the time is that of the first one's second epoch."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        cores = sorted(os.sched_getaffinity(0))
        command = [sys.executable, f"{experiment}/train.py", "--epochs", "2", *flags]
        command += ["--data-parallel", "--run-dir", str(Path(folder) / "run")]
        environ = os.environ | {"KERAS_BACKEND": "jax"}
        environ |= {"KERAS_DISTRIBUTION_JOB_ADDRESSES": f"127.0.0.1:{port}"}
        environ |= {"KERAS_DISTRIBUTION_NUM_PROCESSES": str(count)}
        started = [
            subprocess.Popen(
                ["taskset", "-c", str(cores[rank]), *command],
                env=environ | {"KERAS_DISTRIBUTION_PROCESS_ID": str(rank)},
                cwd=ROOT,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for rank in range(count)
        ]
        outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        sys.exit(outputs[0])
    pattern = re.compile(r"^(\d+)/\d+ - .*?(\d+)(m|u|)s/step", re.MULTILINE)
    steps, time, unit = pattern.findall(outputs[0])[-1]
    return int(steps) * int(time) * {"": 1, "m": 1e-3, "u": 1e-6}[unit]


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few pictures and words")
    args = parser.parse_args(argv)
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("error: it takes two cores")
    ratios = {experiment: [] for experiment in EXPERIMENTS}
    for _ in range(1 if args.quick else args.rounds):
        for experiment, flags in EXPERIMENTS.items():
            flags = ["--smoke"] if args.quick else flags
            one, two = (seconds_of_last_epoch(experiment, n, flags) for n in (1, 2))
            print(f"{experiment}: one process {one:.1f} s, two {two:.1f} s", flush=True)
            ratios[experiment].append(one / two)
    captchas, words = (np.median(ratios[experiment]) for experiment in EXPERIMENTS)
    print(f"speed of two processes, ratio: {captchas:.2f} (captchas), {words:.2f} (words)")


if __name__ == "__main__":
    main()
