"""Runs every experiment and shows the post's numbers beside ours.

    python reproduce.py                              # every experiment, preset quick
    python reproduce.py --smoke                      # every line in seconds; proves no number
    python reproduce.py --only dropout_demo --preset full --seeds 0 1 2

An experiment is a folder with a train.py. Its train.py and predict.py run in processes of
their own; their output goes to runs/EXPERIMENT/NAME.log. At the end there is a table here and a
page, runs/report.html. What the same commit has recorded is not run again, and a stopped run is
resumed. Where the repository has records of a row, the table says whether the new number lies in
the interval that the mean of so many new seeds should hit.
"""

import argparse
import datetime
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from itertools import zip_longest
from pathlib import Path

from common import cli
from common.files import ROOT, write_text
from common.folders import RUNS
from common.git import git_state
from common.jobs import (
    FINISHED,
    Job,
    backend,
    choose_folder,
    read_committed_records,
    read_log,
    read_run_records,
    recorded_arguments,
    without_flag,
)
from common.table import belongs_to_the_machine, compare, table_lines
from reproduce_report import page

COLUMNS = ("experiment", "what", "post", "ours (95%)", "data", "minutes", "status")


def main(argv=None):
    """Returns the exit code: 0, 1 when an experiment failed, 130 when stopped."""
    args = parse_args(argv)
    commit, dirty = git_state()
    jobs = []
    for experiment in args.only:
        for seed in dict.fromkeys(args.seeds):
            job = Job(experiment, seed, train_arguments(args, experiment, seed))
            choose_folder(job, preset_of(args), commit, dirty)
            jobs.append(job)
    start = time.monotonic()
    try:
        run_all(jobs)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    facts = {
        "commit": describe_commit(commit, dirty),
        "date": datetime.datetime.now().astimezone().isoformat(" ", "minutes"),
        "preset": preset_of(args),
        "time": f"{(time.monotonic() - start) / 60:.1f} minutes",
    }
    rows = table_rows(jobs)
    path = RUNS / "report.html"
    write_text(path, page(facts, rows, jobs))
    print(f"\n{text_table(rows)}\n\nreport: {path}")
    compared = [row["inside"] for row in rows if row["inside"] is not None]
    if compared:
        inside = compared.count(True)
        print(f"{inside} of {len(compared)} numbers are where the recorded ones let expect them")
    if any(job.failure for job in jobs):
        return 1
    return 0


# --- Command line ---
def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", nargs="+", metavar="NAME", help="these experiments; default: all")
    add("--smoke", action="store_true", help="every line in seconds; proves no number")
    add("--preset", choices=("quick", "full", "post"), default="quick", help="default: quick")
    add("--seeds", nargs="+", type=int, default=[0], metavar="N", help="default: 0")
    add("--data-root", type=Path, metavar="DIR", help="your data: one sub-folder per experiment")
    args = parser.parse_args(argv)
    experiments = sorted(path.parent.name for path in ROOT.glob("*/train.py"))
    if args.only is None:
        args.only = experiments
    for name in args.only:
        if name not in experiments:
            cli.fail(f"no experiment {name}: there are {', '.join(experiments)}")
    args.only = [name for name in experiments if name in args.only]
    data_root = args.data_root
    if data_root and not any((data_root / name).exists() for name in args.only):
        cli.fail(f"{data_root} has none of the sub-folders {', '.join(args.only)}")
    return args


def preset_of(args):
    if args.smoke:
        return "smoke"
    return args.preset


def train_arguments(args, experiment, seed):
    """Only what differs from train.py's defaults, so that a run made by hand counts, too."""
    words = []
    if args.smoke:
        words.append("--smoke")
    elif args.preset != "quick":
        words += ["--preset", args.preset]
    if seed:
        words += ["--seed", str(seed)]
    if args.data_root and (args.data_root / experiment).exists():
        words += ["--data", os.path.relpath(args.data_root / experiment, ROOT)]
    return words


def describe_commit(commit, dirty):
    text = commit or "none"
    if dirty:
        text += " and uncommitted changes"
    return text


# --- Running ---
def run_all(jobs):
    """Runs every job that an earlier call did not complete."""
    records = {}
    for job in jobs:
        records[job.experiment] = [
            *read_run_records(job.experiment).values(),
            *read_committed_records(job.experiment),
        ]
    progress = Progress()
    for index, job in enumerate(jobs):
        title = f"[{index + 1}/{len(jobs)}] {job.experiment} seed {job.seed}"
        if job.complete:
            progress.say(f"{title}: recorded before")
            continue
        progress.begin(title, job, seconds_left(jobs[index:], jobs, records))
        run_job(job, progress)
        progress.end(job)


def run_job(job, progress):
    """Runs train.py and predict.py. The job gets its record, or the reason why there is none."""
    start = time.monotonic()
    for command in commands_of(job):
        code = run_process(command, job.log, progress)
        if code:
            job.failure = describe_failure(command, code, job.log)
            break
    if not job.failure:
        with job.log.open("a") as log:
            log.write(FINISHED)
    try:
        job.record = json.loads((job.run_dir / "record.json").read_bytes())
    except (OSError, ValueError) as error:
        if not job.failure:
            job.failure = f"train.py left no record: {error}"
    job.seconds = time.monotonic() - start


def commands_of(job):
    """The command lines of a job, without the interpreter. Only what is not recorded is trained."""
    run_dir = ["--run-dir", os.path.relpath(job.run_dir, ROOT)]
    train = [f"{job.experiment}/train.py", *job.arguments, *run_dir]
    predict = [f"{job.experiment}/predict.py", *run_dir]
    if job.recorded:
        return [predict]
    if job.resume:
        train.append("--resume")
    return [train, predict]


def describe_failure(command, code, log):
    script = Path(command[0]).name
    if code < 0:
        return f"{script}: ended by {signal.Signals(-code).name} after: {last_line(log)}"
    return f"{script}: {last_line(log)}"


def last_line(log):
    return read_log(log).strip().split("\n")[-1]


def run_process(command, log, progress):
    """Runs a command with its output added to the log. Returns its exit code."""
    environment = dict(os.environ)
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    environment.setdefault("PYTHONUNBUFFERED", "1")
    environment["KERAS_BACKEND"] = backend()  # Whatever ~/.keras/keras.json says.
    with log.open("a") as output:
        print("$", shlex.join(["python", *command]), file=output, flush=True)
        # In a process group of its own it does not hear Ctrl-C: this process hears it, and then
        # stops the whole group.
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        try:
            return wait_for(process, log, progress)
        finally:
            stop(process)


def wait_for(process, log, progress):
    while True:
        try:
            return process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            progress.update(log)


def stop(process):
    """Ends a process and its children, if it is still running: first as Ctrl-C would."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# --- Progress ---
class Progress:
    """Tells how far the jobs are: a terminal sees one moving line, a file one line per event."""

    def __init__(self):
        self.is_terminal = sys.stdout.isatty()
        self.start = time.monotonic()
        self.title = ""  # Of the job that runs.
        self.job_start = self.start
        self.seconds_left = None  # At the start of the job that runs.

    def begin(self, title, job, seconds_left):
        """Tells that a job starts.

        Args:
            title: names the job.
            seconds_left: what this job and all that follow will take; None where nobody knows.
        """
        self.title = title
        self.job_start = time.monotonic()
        self.seconds_left = seconds_left
        if not self.is_terminal:
            event = "started"
            if job.resume:
                event = "goes on"
            self.say(f"{title}: {event}{self.time_left()}")

    def update(self, log):
        """Shows the last line of the job's log. It is called twice a second."""
        if not self.is_terminal:
            return
        passed = clock(time.monotonic() - self.start)
        text = f"{self.title}  {passed}{self.time_left()}  {last_line(log)}"
        width = shutil.get_terminal_size().columns - 1
        self.clear_line()
        print(text[:width], end="", flush=True)

    def end(self, job):
        outcome = "finished"
        if job.failure:
            outcome = f"failed: {job.failure}"
        self.say(f"{self.title}: {outcome} ({clock(job.seconds)})")

    def say(self, text):
        self.clear_line()
        print(text, flush=True)

    def clear_line(self):
        if self.is_terminal:
            print("\r\x1b[K", end="")

    def time_left(self):
        if not self.seconds_left:
            return ""
        left = self.seconds_left - (time.monotonic() - self.job_start)
        return f", about {clock(max(0, left))} left"


def seconds_left(waiting, jobs, records):
    """How long the waiting jobs will take; None where one of them is unknown."""
    total = 0
    for job in waiting:
        if job.recorded:
            continue
        seconds = expected_seconds(job, jobs, records[job.experiment])
        if seconds is None:
            return None
        total += seconds
    return total


def expected_seconds(job, jobs, records):
    """How long a job will take, judged by runs that are finished; None where there is none.

    Runs of the same experiment in this call count first, then records of the same command with
    any seed, then other runs of this call.

    Args:
        jobs: all jobs of this call.
        records: of the job's experiment.
    """
    finished = [
        other for other in jobs if other.seconds and not other.recorded and not other.failure
    ]
    same_experiment = [other.seconds for other in finished if other.experiment == job.experiment]
    arguments = without_flag(job.arguments, "--seed")
    same_command = [
        record["seconds"]
        for record in records
        if without_flag(recorded_arguments(record), "--seed") == arguments
    ]
    others = [other.seconds for other in finished]
    for seconds in (same_experiment, same_command, others):
        if seconds:
            return sum(seconds) / len(seconds)
    return None


def clock(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02}"


# --- Table ---
def table_rows(jobs):
    """One dict for each claim that these jobs measured, and for each failure.

    Each has a text for every column; "inside" says whether the number agrees with the recorded
    ones, or is None where nothing was compared.
    """
    rows = []
    for experiment in dict.fromkeys(job.experiment for job in jobs):
        jobs_of_experiment = [job for job in jobs if job.experiment == experiment]
        succeeded = [job for job in jobs_of_experiment if not job.failure]
        if succeeded:
            try:
                rows += rows_of_experiment(experiment, succeeded)
            except (OSError, ValueError, LookupError, TypeError) as error:
                succeeded[0].failure = f"its record does not fit claims.json: {error!r}"
        rows += [failure_row(job) for job in jobs_of_experiment if job.failure]
    for row in rows:
        row.setdefault("inside", None)
        for name in COLUMNS:
            row.setdefault(name, "")
    return rows


def failure_row(job):
    return {
        "experiment": job.experiment,
        "what": f"seed {job.seed}",
        "status": f"failed: {job.failure}",
    }


def rows_of_experiment(experiment, jobs):
    claims = []
    path = ROOT / experiment / "results" / "claims.json"
    if path.exists():
        claims = json.loads(path.read_bytes())
    committed = read_committed_records(experiment)
    rows = []
    for name in dict.fromkeys(job.record["row"] for job in jobs):
        jobs_of_row = [job for job in jobs if job.record["row"] == name]
        committed_of_row = [record for record in committed if record["row"] == name]
        rows += rows_of_seeds(name, jobs_of_row, claims, committed_of_row)
    return rows


def rows_of_seeds(name, jobs, claims, committed):
    """The rows of jobs whose records have the same row name: they differ in their seeds only."""
    records = [job.record for job in jobs]
    claims_of_row = [claim for claim in claims if claim["row"] == name]
    if not claims_of_row:
        claims_of_row = unjudged_claims(name, records[0]["metrics"], claims)
    if not claims_of_row:
        return [{"experiment": jobs[0].experiment, "what": name, "status": "no metrics"}]
    rows = []
    for claim in claims_of_row:
        [row] = table_lines(records, [claim])
        comparison = compare_with_recorded(committed, records, claim)
        row["experiment"] = jobs[0].experiment
        row["ours (95%)"] = row.get("ours (95%)", "").replace("*", "")
        row["status"] = describe_status(row["status"], jobs, comparison)
        if comparison is not None:
            row["inside"] = comparison[0]
        rows.append(row)
    return rows


def unjudged_claims(name, metrics, claims):
    """Claims for a row that claims.json does not have: a smoke run, or your own data or sizes.

    It shows the metrics that claims.json judges in other rows, else the record's first metric.
    """
    formats = {}
    for claim in claims:
        if claim["metric"] in metrics:
            formats[claim["metric"]] = claim["format"]
    if not formats:
        formats = dict.fromkeys(list(metrics)[:1], ".4g")
    return [
        {"row": name, "metric": metric, "post": "", "status": "not judged", "format": style}
        for metric, style in formats.items()
    ]


def compare_with_recorded(committed, new, claim):
    """Compares new records with the committed ones of their row, as `common.table.compare` does.

    Returns:
        (inside, low, high), or None where there is nothing to compare.
    """
    metric = claim["metric"]
    if belongs_to_the_machine(metric):
        return None
    committed_metrics = [r["metrics"][metric] for r in committed if metric in r["metrics"]]
    new_metrics = [r["metrics"][metric] for r in new if metric in r["metrics"]]
    if not committed_metrics or not new_metrics:
        return None
    return compare(committed_metrics, new_metrics, is_fraction=claim["format"].endswith("%"))


def describe_status(status, jobs, comparison):
    if jobs[0].record["arguments"].get("smoke"):
        status = "smoke: proves no number"
    recorded = [job for job in jobs if job.recorded]
    if recorded:
        status += f"; recorded before ({len(recorded)} of {len(jobs)})"
    if comparison is not None:
        inside, low, high = comparison
        place = "OUTSIDE"
        if inside:
            place = "inside"
        status += f"; {place} the expected {low:.4g} to {high:.4g}"
    return status


def text_table(rows, width=26):
    """The rows as aligned columns; long cells are wrapped."""
    wrapped = [[[name] for name in COLUMNS]]
    for row in rows:
        wrapped.append([textwrap.wrap(row[name], width) for name in COLUMNS])
    widths = []
    for cells in zip(*wrapped, strict=True):
        widths.append(max(len(line) for cell in cells for line in cell))
    lines = []
    for row in wrapped:
        for parts in zip_longest(*row, fillvalue=""):
            padded = [part.ljust(size) for part, size in zip(parts, widths, strict=True)]
            lines.append("  ".join(padded).rstrip())
    lines.insert(1, "  ".join("-" * size for size in widths))
    return "\n".join(lines)


if __name__ == "__main__":
    # A closed terminal or a scheduler's stop ends the child, too.
    for stop_signal in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop_signal, signal.default_int_handler)
    cli.run(lambda: sys.exit(main()))
