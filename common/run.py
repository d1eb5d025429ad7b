"""What every train.py shares: flags, seed, run folder, exact resume, record."""

import argparse
import ctypes
import fcntl
import importlib.metadata
import json
import os
import shlex
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from subprocess import getoutput
from types import ModuleType

import numpy as np

from common.damage import first_line, refuse_bomb


class LazyModule(ModuleType):  # Loaded on first use, so that --help answers at once.
    def __getattr__(self, attribute):
        return getattr(importlib.import_module(self.__name__), attribute)


def fail(message):
    """A mistake of the user's: one line, exit code 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def check_backend():
    """A backend that is asked for and not there is one line."""
    name = os.environ["KERAS_BACKEND"] = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if name not in ("tensorflow", "jax", "torch"):
        fail(f"KERAS_BACKEND is {name}: expected tensorflow, jax or torch")
    if name != "tensorflow" and not find_spec(name):
        fail(f'KERAS_BACKEND is {name}, which is not installed: pip install -e ".[{name}]"')


def load_file(path):
    """What a .keras, .npz or .json file holds; a missing or damaged one is one clear line."""
    if path.suffix == ".keras":
        check_backend()
    try:
        if path.suffix in (".keras", ".npz"):
            refuse_bomb(path)
        if path.suffix == ".keras":
            return keras.saving.load_model(path, compile=False)
        return dict(np.load(path)) if path.suffix == ".npz" else json.loads(path.read_bytes())
    except Exception as error:  # Of a dozen kinds, as a file may be cut anywhere.
        fail(f"{path} is missing or damaged: {first_line(error)}")


ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs"
keras, layers, ops = LazyModule("keras"), LazyModule("keras.layers"), LazyModule("keras.ops")


def keep_memory():
    """Has glibc keep what a step frees: to get it again page by page may take half of a step."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # Neither macOS nor musl has it.
    if mallopt:
        mallopt(-8, 1)  # M_ARENA_MAX: one heap, as others end with their last block.
        mallopt(-4, 0)  # M_MMAP_MAX: no block is a mapping of its own.
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap does not shrink.


def run_script(main):
    """Calls main() and turns Ctrl-C and a disk that is full or read-only into one line."""
    if os.environ.get("KERAS_BACKEND") != "jax":  # It would keep a heap for each shape.
        keep_memory()
    try:
        try:
            main()
        finally:
            print(end="", flush=True)  # Here a broken pipe is caught.
    except KeyboardInterrupt:
        training = Path(sys.argv[0]).name == "train.py"
        more = "; the same command with --resume goes on" if training else ""
        print(f"\nstopped{more}", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # As of `| head`: nobody reads on.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno is None:
            raise  # Not the system's word: a bug of ours.
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
    if not 0 <= first.seed < 2**32 or "" in argv:
        parser.error("expected --seed of 0 to 2**32 - 1, and no empty argument")
    preset = presets["smoke" if first.smoke else first.preset]
    args = parser.parse_args(argv, argparse.Namespace(**preset, command=shlex.join(argv)))
    check_backend()
    return args


class Run:
    """The folder of one run: never shared with another process, never overwritten."""

    def __init__(self, args, experiment, data_sha256=None):
        self.args, self.start, self.history = args, time.time(), []
        kept = {k: v for k, v in vars(args).items() if k not in ("run_dir", "resume", "command")}
        kept |= {"backend": keras.backend.backend(), "data_sha256": data_sha256}
        given = json.loads(json.dumps(kept, default=str))
        git = f"2>/dev/null git -C {shlex.quote(str(ROOT))}"  # Asked now: the code that will run.
        self.record = {"experiment": experiment, "seed": args.seed, "arguments": given}
        self.record["command"] = f"python {experiment}/train.py {args.command}".strip()
        self.record["commit"] = getoutput(f"{git} rev-parse --verify --short=12 HEAD")
        self.record["dirty"] = bool(getoutput(f"{git} status -s -- . ':!*/results' ':!*.md'"))
        if args.resume:
            self.dir = find_run(experiment, args.run_dir, stopped=given)
            was = dict.fromkeys(given) | load_file(self.dir / "arguments.json")
            for name in was:
                if was[name] != (now := given.get(name)):
                    text = f"{name} was {was[name]}, now {now}"
                    fail(f"--resume with other arguments than {self.dir}: {text}")
        else:
            name = f"{'smoke' if args.smoke else args.preset}-seed{args.seed}"
            paths = (RUNS / experiment / (f"{name}-{i}" if i else name) for i in range(10_000))
            self.dir = args.run_dir or next(path for path in paths if not path.exists())
            begun = {"lock", "arguments.json.next"}  # By a run killed before it could be resumed.
            if self.dir.is_file() or {path.name for path in self.dir.glob("*")} - begun:
                end = "" if (self.dir / "record.json").exists() else ", or --resume it"
                fail(f"{self.dir} is in use: choose another --run-dir{end}")
            self.dir.mkdir(parents=True, exist_ok=True)
        self._lock = (self.dir / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fail(f"{self.dir} is in use by another process")
        write_text(self.dir / "arguments.json", json.dumps(given, indent=1))
        keras.utils.set_random_seed(args.seed)
        self.verbose = 1 if sys.stdout.isatty() else 2  # A bar, or in a log a line per epoch.
        print(f"run folder: {self.dir}", flush=True)

    def checkpoint(self, model, monitor, prefix=""):
        """Saves all state and, by `monitor`, the best model each epoch; --resume loads it here."""
        state_file, model_file = self.dir / f"{prefix}state.npz", self.dir / f"{prefix}model.keras"
        model.optimizer.build(model.trainable_variables)
        variables, self.history = model.variables + model.optimizer.variables, []
        if self.args.resume and state_file.exists():
            state = load_file(state_file)
            self.history, seconds = json.loads(str(state["notes"])).values()
            self.start = min(self.start, time.time() - seconds)
            for i, variable in enumerate(variables):
                variable.assign(state[f"arr_{i}"])

        def seed_epoch(batch, logs=None):  # torch's Dropout draws from a generator, no variable.
            if batch == 0 and keras.backend.backend() == "torch":
                keras.utils.set_random_seed((self.args.seed + 1000 * len(self.history)) % 2**32)

        def save(epoch, logs):
            self.history.append({"epoch": epoch + 1} | {k: float(v) for k, v in logs.items()})
            try:
                if monitor and logs[monitor] >= max(entry[monitor] for entry in self.history):
                    model.save(self.dir / "next.keras")
                    os.replace(self.dir / "next.keras", model_file)
                notes = json.dumps({"history": self.history, "seconds": time.time() - self.start})
                np.savez(self.dir / "next.npz", *map(np.asarray, variables), notes=notes)
                os.replace(self.dir / "next.npz", state_file)  # Last: now this epoch counts.
            except (OSError, RuntimeError) as error:  # HDF5 raises either on a full disk.
                fail(f"cannot save in {self.dir} ({error}): make room, then --resume")

        return keras.callbacks.LambdaCallback(on_train_batch_begin=seed_epoch, on_epoch_end=save)

    def finish(self, *, row, data, metrics, selection=None, details=None, pictures=None):
        """Writes record.json and returns it. `row` names its line in the README's table."""
        backend, version = keras.backend.backend(), importlib.metadata.version
        device, place = f"{os.uname().machine} CPU, {os.cpu_count()} cores", ops.zeros(1).device
        if "cpu" not in str(place).lower():
            names = getoutput("2>/dev/null nvidia-smi --query-gpu=name --format=csv,noheader")
            device = ", ".join(sorted(set(names.split("\n")))) or str(place)
        record = self.record | {"row": row, "resumed": self.args.resume, "backend": backend}
        record |= {"date": time.strftime("%F %T %z"), "seconds": round(time.time() - self.start, 1)}
        record |= {"versions": {p: version(p) for p in ("keras", backend, "numpy", "pillow")}}
        record |= {"device": device, "data": data, "selection": selection, "metrics": metrics}
        record |= {"details": details, "history": self.history, "pictures": pictures or {}}
        write_text(self.dir / "record.json", json.dumps(record, indent=1, ensure_ascii=False))
        for name, m in metrics.items():
            print(f"{name}: {m['value']:.4g} ({m['low']:.4g} to {m['high']:.4g})")
        for name, detail in (details or {}).items():
            if not isinstance(detail, list | dict):  # These are for the record.
                print(f"{name}: {detail:.4g}" if isinstance(detail, float) else f"{name}: {detail}")
        print(f"record: {self.dir / 'record.json'}")
        return record


def find_run(experiment, run_dir=None, stopped=None):
    """The given folder of a finished run, or the newest one of the experiment, --smoke runs last.

    `stopped` are the arguments of a run that was stopped: then these, and the newest with them.
    """
    where, name = run_dir or RUNS / experiment, "arguments.json" if stopped else "record.json"
    paths = where.glob(name if run_dir else f"*/{name}")
    paths = [p for p in paths if bool(stopped) != p.with_name("record.json").exists()]
    found = {p: x for p in paths if isinstance(x := load_file(p), dict)}
    if not stopped:
        found = {p: x for p, x in found.items() if x.get("experiment") == experiment}
    if not found:
        hint = f"first python {experiment}/train.py"
        if run_dir and (run_dir / "record.json").exists():
            hint = "that run has ended" if stopped else "it is another experiment's"
        elif run_dir and (run_dir / "arguments.json").exists():
            hint = "that run was stopped: end it with --resume"
        fail(f"no {'stopped' if stopped else 'finished'} run of {experiment} in {where}: {hint}")

    def preference(path):
        x = found[path]
        same = stopped and dict.fromkeys(stopped) | x == dict.fromkeys(x) | stopped
        return same or not (stopped or x.get("arguments", {}).get("smoke")), os.path.getmtime(path)

    return max(found, key=preference).parent


def write_text(path, text):
    """Writes under a temporary name, then renames: nobody ever reads half a file."""
    Path(f"{path}.next").write_text(text, encoding="utf-8")
    os.replace(f"{path}.next", path)
