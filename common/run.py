"""What every train.py shares: flags, seed, run folder, exact resume, record."""

import argparse
import errno
import fcntl
import importlib.metadata
import itertools
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs"


class LazyModule:  # Loaded on first use, so that --help answers at once.
    def __init__(self, name):
        self.name = name

    def __getattr__(self, attribute):
        return getattr(importlib.import_module(self.name), attribute)


keras, layers, ops = LazyModule("keras"), LazyModule("keras.layers"), LazyModule("keras.ops")


def fail(message):
    """A mistake of the user's: one line, exit code 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def run_script(main):
    """Calls main() and turns Ctrl-C and a disk that is full or read-only into one line."""
    try:
        main()
    except KeyboardInterrupt:
        print("\nstopped; a training goes on with the same command and --resume", file=sys.stderr)
        raise SystemExit(130) from None
    except OSError as error:
        user_errors = {"ENOSPC", "EDQUOT", "EROFS", "EACCES", "ENOTDIR", "EISDIR", "ENAMETOOLONG"}
        if errno.errorcode.get(error.errno) not in user_errors:
            raise
        fail(f"cannot read or write {error.filename or 'the disk'}: {error.strerror}")


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
    args = parser.parse_args(argv)
    if args.seed < 0:
        parser.error("--seed: expected 0 or more")
    return argparse.Namespace(**vars(args), command=shlex.join(argv))


class Run:
    """The folder of one run: never shared with another process, never overwritten."""

    def __init__(self, args, experiment):
        self.experiment, self.args, self.start, self.history = experiment, args, time.time(), []
        kept = {k: v for k, v in vars(args).items() if k not in ("run_dir", "resume", "command")}
        self.arguments = json.loads(json.dumps(kept, default=str))
        git = ["git", "-C", str(ROOT)]  # Asked now: the code that runs is the code of now.
        paths = [".", ":!*/results", ":!*.md"]  # They cannot move a number.
        self.commit, self.changes = (
            subprocess.run([*git, *words], capture_output=True, text=True).stdout.strip()
            for words in (["rev-parse", "-q", "--verify", "HEAD"], ["status", "-s", "--", *paths])
        )
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
        name = f"{'smoke' if self.args.smoke else self.args.preset}-seed{self.args.seed}"
        paths = (RUNS / self.experiment / (f"{name}-{i}" if i else name) for i in itertools.count())
        folder = folder or next(path for path in paths if not path.exists())
        if folder.exists() and (folder.is_file() or any(folder.iterdir())):
            fail(f"{folder} is in use: choose another --run-dir, or --resume it")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _stopped(self, folder):
        starts = (RUNS / self.experiment).glob("*/arguments.json")
        stopped = [path for path in starts if not path.with_name("record.json").exists()]
        newest = max(stopped, key=os.path.getmtime, default=RUNS / self.experiment / "none")
        folder = folder or newest.parent
        if not (folder / "arguments.json").exists() or (folder / "record.json").exists():
            fail(f"nothing to resume in {folder}: it holds no stopped run")
        before = read_json(folder / "arguments.json")
        for name, now in self.arguments.items():
            if before.get(name) != now:
                fail(f"--resume with other arguments: {name} was {before.get(name)}, now {now}")
        return folder

    def checkpoint(self, model, monitor, prefix=""):
        """A callback: saves after each epoch all training state, and the best model so far.

        A resumed run gets its state back at once. The length of `run.history`, a dict for each
        epoch done, is the `initial_epoch`. A run of several models gives each a `prefix`.
        """
        state_file, model_file = self.dir / f"{prefix}state.npz", self.dir / f"{prefix}model.keras"
        model.optimizer.build(model.trainable_variables)
        variables, self.history = model.variables + model.optimizer.variables, []
        if self.args.resume and state_file.exists():
            try:
                state = dict(np.load(state_file, allow_pickle=False))
                notes = json.loads(str(state["notes"]))
            except Exception as error:  # Of a dozen kinds, as the file may be cut anywhere.
                fail(f"{state_file} is damaged: {error}")
            self.history = notes["history"]
            self.start = min(self.start, time.time() - notes["seconds"])
            for i, variable in enumerate(variables):
                variable.assign(state[f"v{i}"])

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
            except (OSError, RuntimeError) as error:  # HDF5 raises either on a full disk.
                fail(f"cannot save in {self.dir} ({error}): make room, then --resume")

        return keras.callbacks.LambdaCallback(on_epoch_end=save)

    def finish(self, *, row, data, metrics, selection=None, details=None, pictures=None):
        """Writes record.json and returns it. `row` names its line in the README's table."""
        backend, version = keras.backend.backend(), importlib.metadata.version
        command = f"python {self.experiment}/train.py {self.args.command}".strip()
        on_gpu = any(word in str(ops.zeros(1).device).lower() for word in ("gpu", "cuda"))
        device = f"{os.uname().machine} CPU, {os.cpu_count()} cores"
        if on_gpu:
            device = subprocess.getoutput("nvidia-smi --query-gpu=name --format=csv,noheader")
        record = {"experiment": self.experiment, "row": row, "seed": self.args.seed}
        record |= {"command": command, "arguments": self.arguments, "resumed": self.args.resume}
        record |= {"commit": self.commit[:12], "dirty": bool(self.changes), "backend": backend}
        record |= {"date": time.strftime("%F %T %z"), "seconds": round(time.time() - self.start, 1)}
        record |= {"versions": {p: version(p) for p in ("keras", backend, "numpy", "pillow")}}
        record |= {"device": device, "data": data, "selection": selection, "metrics": metrics}
        record |= {"details": details, "history": self.history, "pictures": pictures or {}}
        write_text(self.dir / "record.json", json.dumps(record, indent=1, ensure_ascii=False))
        for name, m in metrics.items():
            print(f"{name}: {m['value']:.4g} ({m['low']:.4g} to {m['high']:.4g})")
        for name, detail in (details or {}).items():
            print(f"{name}: {detail}")
        self._lock.close()
        return record


def find_run(experiment, run_dir=None):
    """The given folder of a finished run, or the newest one of the experiment."""
    finished = (RUNS / experiment).glob("*/record.json")
    newest = max(finished, key=os.path.getmtime, default=RUNS / experiment / "record.json")
    run_dir = run_dir or newest.parent
    if not (run_dir / "record.json").exists():
        fail(f"no finished run in {run_dir}: first python {experiment}/train.py")
    if read_json(run_dir / "record.json").get("experiment") != experiment:
        fail(f"{run_dir} is a run of another experiment than {experiment}")
    return run_dir


def load_model(path):
    """Loads a .keras file; a missing or damaged one is one clear line."""
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:
        fail(f"{path} is missing or no intact Keras model: {str(error).splitlines()[0]}")


def read_json(path):
    """The dict in a JSON file; a missing or damaged file is one clear line."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        fail(f"{path} is missing or damaged: {error}")


def write_text(path, text):
    """Writes under a temporary name, then renames: nobody ever reads half a file."""
    path.with_name(path.name + ".next").write_text(text, encoding="utf-8")
    os.replace(path.with_name(path.name + ".next"), path)
