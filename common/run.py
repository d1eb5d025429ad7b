"""What every train.py shares: flags, seed, run folder, exact resume, record.

A run lives in runs/EXPERIMENT/NAME/: arguments.json, state.npz (what --resume needs),
model.keras (the best epoch), pictures and, once it is finished, record.json.
"""

import argparse
import datetime
import errno
import fcntl
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from common.lazy import keras

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs"


def fail(message):
    """A mistake of the user's: one line, exit code 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def run_script(main):
    """Calls main() and turns Ctrl-C and a full or read-only disk into one line."""
    try:
        main()
    except KeyboardInterrupt:
        print("\nstopped; the same command with --resume goes on", file=sys.stderr)
        raise SystemExit(130) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        fail(f"cannot write {error.filename or 'to the disk'}: {error.strerror}")


def parse_run_args(parser, presets, argv):
    """Adds the shared flags. A preset only sets defaults: flags given by hand override it."""
    add = parser.add_argument
    add("--preset", choices=("quick", "full", "post"), default="quick", help="default: quick")
    add("--smoke", action="store_true", help="every line in seconds; proves no number")
    add("--data", metavar="PATH", help="your own data; default: drawn by code")
    add("--seed", type=int, default=0, help="of weights and batches; default: 0")
    add("--run-dir", type=Path, help="default: a new folder in runs/")
    add("--resume", action="store_true", help="go on with a run that was stopped")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    argv = sys.argv[1:] if argv is None else argv
    first, _ = parser.parse_known_args(argv)
    parser.set_defaults(**presets["smoke" if first.smoke else first.preset])
    return argparse.Namespace(**vars(parser.parse_args(argv)), command=shlex.join(argv))


class Run:
    """The folder of one run: never shared with another process, never overwritten."""

    def __init__(self, args, experiment):
        self.experiment, self.args, self.start, self.history = experiment, args, time.time(), []
        kept = {k: v for k, v in vars(args).items() if k not in ("run_dir", "resume", "command")}
        self.arguments = json.loads(json.dumps(kept, default=str))
        self.dir = self._stopped(args.run_dir) if args.resume else self._new(args.run_dir)
        self._lock = (self.dir / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fail(f"{self.dir} is in use by another process")
        write_text(self.dir / "arguments.json", json.dumps(self.arguments, indent=1))
        keras.utils.set_random_seed(args.seed)
        self.verbose = 1 if sys.stdout.isatty() else 2  # A bar, or in a log a line per epoch.
        print(f"run folder: {self.dir}", flush=True)

    def _new(self, folder):
        name, number = f"{'smoke' if self.args.smoke else self.args.preset}", 0
        while folder is None or (folder.exists() and not self.args.run_dir):
            suffix = f"-{number}" if number else ""
            folder = RUNS / self.experiment / f"{name}-seed{self.args.seed}{suffix}"
            number += 1
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            fail(f"{folder} is in use: choose another --run-dir, or --resume it")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _stopped(self, folder):
        starts = (RUNS / self.experiment).glob("*/arguments.json")
        stopped = [path.parent for path in starts if not (path.parent / "record.json").exists()]
        folder = folder or max(stopped, key=os.path.getmtime, default=RUNS / self.experiment)
        if not (folder / "arguments.json").exists() or (folder / "record.json").exists():
            fail(f"nothing to resume in {folder}: it holds no stopped run")
        before = json.loads((folder / "arguments.json").read_text())
        for name, now in self.arguments.items():
            if before.get(name) != now:
                fail(f"--resume with other arguments: {name} was {before.get(name)}, now {now}")
        return folder

    def checkpoint(self, model, monitor, prefix=""):
        """A callback: after each epoch it saves the whole training state and the best model.

        When the run is resumed, the state is put back at once. `run.history` has a dict for
        each epoch done: its length is the `initial_epoch` for fit and for the batches. A run
        that trains several models, one after the other, gives each a `prefix` for its files.
        """
        state_file, model_file = self.dir / f"{prefix}state.npz", self.dir / f"{prefix}model.keras"
        self.history = []
        model.optimizer.build(model.trainable_variables)
        variables = model.variables + model.optimizer.variables
        if self.args.resume and state_file.exists():
            with np.load(state_file, allow_pickle=False) as state:
                notes = json.loads(str(state["notes"]))
                for i, variable in enumerate(variables):
                    variable.assign(state[f"v{i}"])
            self.history = notes["history"]
            self.start = min(self.start, time.time() - notes["seconds"])

        def save(epoch, logs):
            self.history.append({"epoch": epoch + 1} | {k: float(v) for k, v in logs.items()})
            try:
                if logs[monitor] >= max(entry[monitor] for entry in self.history):
                    model.save(self.dir / "next.keras")
                    os.replace(self.dir / "next.keras", model_file)
                # The state goes last: an epoch counts once all of it is on disk.
                notes = {"history": self.history, "seconds": time.time() - self.start}
                arrays = {f"v{i}": np.asarray(v) for i, v in enumerate(variables)}
                np.savez(self.dir / "next.npz", notes=np.array(json.dumps(notes)), **arrays)
                os.replace(self.dir / "next.npz", state_file)
            except OSError as error:
                fail(f"cannot save in {self.dir} ({error}): make room, then --resume")

        return keras.callbacks.LambdaCallback(on_epoch_end=save)

    def finish(self, *, row, data, metrics, selection=None, details=None, pictures=None):
        """Writes record.json and returns it. `row` names its line in the README's table."""

        def git(*words):
            return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout

        backend, version = keras.backend.backend(), importlib.metadata.version
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        command = f"python {self.experiment}/train.py {self.args.command}".strip()
        record = {"experiment": self.experiment, "row": row, "seed": self.args.seed}
        record |= {"command": command, "arguments": self.arguments, "resumed": self.args.resume}
        record |= {"commit": git("rev-parse", "HEAD")[:12], "dirty": bool(git("status", "-s"))}
        record |= {"date": now, "seconds": round(time.time() - self.start, 1)}
        record |= {"backend": backend, "device": device_name()}
        record |= {"versions": {p: version(p) for p in ("keras", backend, "numpy", "pillow")}}
        record |= {"data": data, "selection": selection, "metrics": metrics}
        record |= {"details": details} if details else {}
        record |= {"history": self.history, "pictures": pictures or {}}
        write_text(self.dir / "record.json", json.dumps(record, indent=1, ensure_ascii=False))
        self._lock.close()
        return record


def find_run(experiment, run_dir=None):
    """The given folder of a finished run, or the newest one of the experiment."""
    finished = (RUNS / experiment).glob("*/record.json")
    newest = max(finished, key=os.path.getmtime, default=RUNS / experiment / "record.json")
    run_dir = run_dir or newest.parent
    if not (run_dir / "record.json").exists():
        fail(f"no finished run in {run_dir}: first python {experiment}/train.py")
    return run_dir


def load_model(path):
    """Loads a .keras file; a missing or damaged one is one clear line."""
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:
        fail(f"{path} is missing or no intact Keras model: {str(error).splitlines()[0]}")


def write_text(path, text):
    """Writes under a temporary name, then renames: nobody ever reads half a file."""
    temporary = path.with_name(path.name + ".next")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def device_name():
    """The GPU that Keras computes on, else the processor's kind and its cores."""
    if any(word in str(keras.ops.zeros(1).device).lower() for word in ("gpu", "cuda")):
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True).stdout.strip()
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"
