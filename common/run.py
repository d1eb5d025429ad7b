"""The folder of a run: what was asked, the trained model, and the record of what came out."""

import fcntl
import importlib.metadata
import json
import os
import sys
import time
from subprocess import getoutput

import keras
from keras import ops

from common.checkpoint import Checkpoint
from common.cli import fail, first_line
from common.files import refuse_bomb, write_text
from common.folders import find_stopped_run, new_folder, refuse_other_arguments, refuse_used_folder
from common.git import git_state


class Run:
    """The folder of one run. It is never shared with another process and never overwritten.

    Args:
        args: the flags, as `common.cli.parse` returns them.
        experiment: the name of the experiment's folder.
        data_sha256: of the data; a run is not resumed with other data.

    Attributes:
        dir: the folder.
        history: one dict per finished epoch of the training that was begun last.
        verbose: for `fit`: a progress bar on a terminal, in a log one line per epoch.
    """

    def __init__(self, args, experiment, data_sha256=None):
        self.args = args
        self.start = time.time()
        self.history = []
        self.verbose = 1 if sys.stdout.isatty() else 2
        commit, dirty = git_state()  # Asked now: this is the code that will run.
        arguments = arguments_of(args, data_sha256)
        self.record = {
            "experiment": experiment,
            "seed": args.seed,
            "arguments": arguments,
            "command": f"python {experiment}/train.py {args.command}".strip(),
            "commit": commit,
            "dirty": dirty,
        }
        if args.resume:
            self.dir = find_stopped_run(experiment, args.run_dir, arguments)
            refuse_other_arguments(self.dir, arguments)
        else:
            self.dir = args.run_dir or new_folder(args, experiment)
            refuse_used_folder(self.dir)
            self.dir.mkdir(parents=True, exist_ok=True)
        self.lock = (self.dir / "lock").open("w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fail(f"{self.dir} is in use by another process")
        write_text(self.dir / "arguments.json", json.dumps(arguments, indent=1))
        keras.utils.set_random_seed(args.seed)
        print(f"run folder: {self.dir}", flush=True)

    @property
    def epoch(self):
        """How many epochs are finished: where `fit` begins."""
        return len(self.history)

    def checkpoint(self, model, monitor, prefix=""):
        """A callback for `fit` that saves every epoch. With --resume it loads what was saved.

        See `common.checkpoint.Checkpoint` for the arguments.
        """
        callback = Checkpoint(
            self.dir, model, monitor, self.args.seed, self.args.resume, prefix=prefix
        )
        self.history = callback.history
        self.start = min(self.start, callback.start)
        return callback

    def best_epoch(self, monitor):
        """The entry of the history whose model was saved as the best one."""
        return max(self.history, key=lambda entry: (entry[monitor], entry["epoch"]))

    def load_best(self, prefix=""):
        """The model of the best epoch."""
        return load_model(self.dir / f"{prefix}model.keras")

    def finish(self, *, row, data, metrics, selection=None, details=None, images=None):
        """Writes record.json, prints what came out, and returns the record.

        Args:
            row: the name of the row of the results that this run belongs to.
            data: the name, counts and SHA-256 of the data.
            metrics: {name: {"value", "low", "high", ...}}, see `common.metrics`.
            selection: how the epoch was chosen.
            details: {name: anything that JSON can hold}, beside the metrics.
            images: {file name in the run folder: caption}.
        """
        backend = keras.backend.backend()
        packages = ("keras", backend, "numpy", "pillow")
        record = dict(self.record)
        record["row"] = row
        record["resumed"] = self.args.resume
        record["backend"] = backend
        record["date"] = time.strftime("%F %T %z")
        record["seconds"] = round(time.time() - self.start, 1)
        record["versions"] = {name: importlib.metadata.version(name) for name in packages}
        record["device"] = device_name()
        record["data"] = data
        record["selection"] = selection
        record["metrics"] = metrics
        record["details"] = details
        record["history"] = self.history
        record["pictures"] = images or {}
        write_text(self.dir / "record.json", json.dumps(record, indent=1, ensure_ascii=False))
        print_results(metrics, details or {})
        print(f"record: {self.dir / 'record.json'}")
        return record


def arguments_of(args, data_sha256):
    """The flags that decide what a run computes, as JSON gives them back."""
    arguments = dict(vars(args))
    for name in ("run_dir", "resume", "command"):
        arguments.pop(name, None)
    arguments["backend"] = keras.backend.backend()
    arguments["data_sha256"] = data_sha256
    return json.loads(json.dumps(arguments, default=str))


def device_name():
    """The GPUs by name, or the kind of CPU and its number of cores."""
    device = str(ops.zeros(1).device)
    if "cpu" in device.lower():
        return f"{os.uname().machine} CPU, {os.cpu_count()} cores"
    names = getoutput("2>/dev/null nvidia-smi --query-gpu=name --format=csv,noheader")
    return ", ".join(sorted(set(names.split("\n")))) or device


def print_results(metrics, details):
    for name, metric in metrics.items():
        print(f"{name}: {metric['value']:.4g} ({metric['low']:.4g} to {metric['high']:.4g})")
    for name, detail in details.items():
        if isinstance(detail, float):
            print(f"{name}: {detail:.4g}")
        elif not isinstance(detail, list | dict):  # Lists and tables are only for the record.
            print(f"{name}: {detail}")


def load_model(path):
    """A saved Keras model. A missing or damaged file ends the script with one line."""
    try:
        refuse_bomb(path)
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Errors of a dozen classes, as a file may be cut anywhere.
        fail(f"{path} is missing or damaged: {first_line(error)}")
