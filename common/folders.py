"""Finding run folders: a new one, a finished one, or a stopped one to resume. Needs no Keras."""

from common.cli import fail
from common.files import ROOT, read_json

RUNS = ROOT / "runs"


def new_folder(args, experiment):
    """A folder in runs/ that does not exist yet, such as quick-seed0 or quick-seed0-1."""
    preset = "smoke" if args.smoke else args.preset
    path = RUNS / experiment / f"{preset}-seed{args.seed}"
    number = 0
    while path.exists():
        number += 1
        path = RUNS / experiment / f"{preset}-seed{args.seed}-{number}"
    return path


def refuse_used_folder(folder):
    """A folder that holds anything is refused, unless a run was killed as it began there."""
    if folder.is_dir():
        names = {path.name for path in folder.iterdir()}
        used = {name for name in names if name != "lock" and not is_unfinished(name)}
        if not used:
            return
    elif not folder.exists():
        return
    hint = ""
    if not (folder / "record.json").exists():
        hint = ", or --resume it"
    fail(f"{folder} is in use: choose another --run-dir{hint}")


def is_unfinished(name):
    """Whether this is the temporary file of an arguments.json that was never completed."""
    return name.startswith("arguments.") and name != "arguments.json"


def find_run(experiment, run_dir=None):
    """The folder of a finished run: the given one, or the newest one of the experiment.

    A run made with --smoke is taken only where there is no other. Ends the script with one line
    where there is no such run.
    """
    found = []
    for path in paths_of("record.json", experiment, run_dir):
        record = read_json(path)
        if isinstance(record, dict) and record.get("experiment") == experiment:
            is_smoke = bool(record.get("arguments", {}).get("smoke"))
            found.append((not is_smoke, path.stat().st_mtime, path.parent))
    if found:
        return max(found)[-1]
    hint = f"first python {experiment}/train.py"
    if run_dir is not None:
        if (run_dir / "record.json").exists():
            hint = "it is a run of another experiment"
        elif (run_dir / "arguments.json").exists():
            hint = "that run was stopped: finish it with --resume"
    fail(f"no finished run of {experiment} in {run_dir or RUNS / experiment}: {hint}")


def find_stopped_run(experiment, run_dir, arguments):
    """The folder of a run that was stopped: the given one, or the newest one with these arguments.

    Where no run has these arguments it is the newest one of all, for the error message to say
    which argument differs.
    """
    found = []
    for path in paths_of("arguments.json", experiment, run_dir):
        before = read_json(path)
        if isinstance(before, dict) and not path.with_name("record.json").exists():
            same = difference(before, arguments) is None
            found.append((same, path.stat().st_mtime, path.parent))
    if found:
        return max(found)[-1]
    hint = f"first python {experiment}/train.py"
    if run_dir is not None and (run_dir / "record.json").exists():
        hint = "that run has ended"
    fail(f"no stopped run of {experiment} in {run_dir or RUNS / experiment}: {hint}")


def paths_of(name, experiment, run_dir):
    """The files of this name in the given run folder, or in all run folders of the experiment."""
    if run_dir is not None:
        return list(run_dir.glob(name))
    return list((RUNS / experiment).glob(f"*/{name}"))


def difference(before, now):
    """The first argument that differs: (name, old value, new value), or None.

    A flag that only one of them knows counts as None there: older runs do not know newer flags.
    """
    for name in {**now, **before}:
        if before.get(name) != now.get(name):
            return name, before.get(name), now.get(name)
    return None


def refuse_other_arguments(folder, arguments):
    """Resuming with other arguments than before would make a run that no command describes."""
    changed = difference(read_json(folder / "arguments.json"), arguments)
    if changed is not None:
        name, before, now = changed
        fail(f"--resume with other arguments than {folder}: {name} was {before}, now {now}")
