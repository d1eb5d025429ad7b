"""The runs that reproduce.py asks for: which are recorded, and which folders the others use."""

import os
import re
import shlex
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from common.files import ROOT, read_json
from common.folders import RUNS

FINISHED = "# finished\n"  # The last line of a log when train.py and predict.py both succeeded.


@dataclass
class Job:
    """One run of an experiment's train.py and predict.py.

    Attributes:
        arguments: a list of words for train.py, without --run-dir and --resume.
        run_dir: the run folder; `choose_folder` sets it.
        resume: whether the folder holds a stopped run of this job.
        recorded: whether the record was there before this call.
        record: what record.json holds.
        seconds: how long the job took in this call.
        failure: why it failed, in one line; empty if it did not.
    """

    experiment: str
    seed: int
    arguments: list
    run_dir: Path | None = None
    resume: bool = False
    recorded: bool = False
    record: dict | None = None
    seconds: float | None = None
    failure: str = ""

    @property
    def log(self):
        """The file beside the run folder that holds the output of both scripts."""
        return self.run_dir.with_name(self.run_dir.name + ".log")

    @property
    def complete(self):
        """Whether an earlier call has trained and predicted already."""
        return self.recorded and self.log.exists() and read_log(self.log).endswith(FINISHED)


def backend():
    """The name of the backend that the scripts will use."""
    return os.environ.get("KERAS_BACKEND") or "tensorflow"


def read_log(path):
    """The text of a log, without the messages that TensorFlow prints at every start."""
    text = path.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
    return re.sub(r"^(WARNING: All log messages before absl|[IW]0000 ).*\n", "", text, flags=re.M)


# --- Records ---
def read_run_records(experiment):
    """{run folder: record} of the finished runs in runs/."""
    paths = sorted((RUNS / experiment).glob("*/record.json"))
    return {path.parent: read_json(path) for path in paths}


def read_committed_records(experiment):
    """The records in the results/ of an experiment; there may be none."""
    paths = sorted((ROOT / experiment / "results").glob("*-seed*.json"))
    return [read_json(path) for path in paths]


def recorded_arguments(record):
    """The arguments of train.py in a record, without those that only choose the run folder."""
    words = shlex.split(record["command"])[2:]  # After "python EXPERIMENT/train.py".
    words = [word for word in words if word != "--resume"]
    return without_flag(words, "--run-dir")


def without_flag(words, flag):
    """The words of a command line without this flag and its value."""
    if flag not in words:
        return words
    position = words.index(flag)
    return words[:position] + words[position + 2 :]


# --- Run folders ---
def choose_folder(job, preset, commit, dirty):
    """Gives the job its record's folder, else that of its stopped run, else a free one.

    Args:
        preset: the name that a new folder begins with.
        commit, dirty: the state of the code, as `common.git.git_state` returns it.
    """
    folder = None
    if commit and not dirty:
        folder = find_recorded(job, commit)
    if folder is not None:
        job.run_dir = folder
        job.record = read_json(folder / "record.json")
        job.recorded = True
        return
    (RUNS / job.experiment).mkdir(parents=True, exist_ok=True)
    header = log_header(job, commit, dirty)
    for folder in possible_folders(job, preset):
        job.run_dir = folder
        if is_free(folder):
            job.log.write_text(header)
            return
        if was_stopped(folder) and job.log.exists() and read_log(job.log).startswith(header):
            job.resume = True
            return


def find_recorded(job, commit):
    """The folder of a finished run of the same code, backend, arguments and data, or None."""
    for folder, record in read_run_records(job.experiment).items():
        same_code = record["commit"] == commit and not record["dirty"]
        same_backend = record["backend"] == backend()
        same_arguments = recorded_arguments(record) == job.arguments
        if same_code and same_backend and same_arguments and not data_changed(job, folder):
            return folder
    return None


def data_changed(job, folder):
    """Whether a file of the job's --data was changed after the run in this folder began."""
    if "--data" not in job.arguments:
        return False
    data = ROOT / job.arguments[job.arguments.index("--data") + 1]
    paths = [data]
    for parent, _, names in os.walk(data, followlinks=True):
        paths += [Path(parent, name) for name in names]
    last_change = max((path.stat().st_mtime for path in paths if path.exists()), default=0)
    # A run writes its arguments when it begins.
    return last_change > (folder / "arguments.json").stat().st_mtime


def log_header(job, commit, dirty):
    """The first line of a log. A stopped run is only resumed by a job with the same line."""
    code = commit
    if dirty:
        code += "+"
    return f"# {code}, {backend()}: train.py {shlex.join(job.arguments)}\n"


def possible_folders(job, preset):
    """quick-seed0, quick-seed0-1, quick-seed0-2 and so on."""
    name = f"{preset}-seed{job.seed}"
    yield RUNS / job.experiment / name
    for number in count(1):
        yield RUNS / job.experiment / f"{name}-{number}"


def is_free(folder):
    return not folder.exists() or not any(folder.iterdir())


def was_stopped(folder):
    return (folder / "arguments.json").exists() and not (folder / "record.json").exists()
