"""Runs every experiment and shows the post's numbers beside ours.

    python reproduce.py                              # every experiment, preset quick
    python reproduce.py --smoke                      # every line in seconds; proves no number
    python reproduce.py --only dropout_demo --preset full --seeds 0 1 2

An experiment is a folder with a train.py. Its train.py and predict.py run in processes of
their own; their output goes to runs/EXPERIMENT/NAME.log. At the end: one table here and
runs/report.html. What the same commit has already recorded is not run again, and what was
stopped goes on where it stopped. A number of a row that the repository has records of is told to
lie inside or outside the interval that the mean of so many new seeds should hit.
"""

import argparse
import datetime
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from common.run import fail, run_script, write_text
from common.table import row_interval, table_lines
from report import page, read_log

ROOT = Path(__file__).resolve().parent
COLUMNS = ("experiment", "what", "post", "ours (95%)", "data", "minutes", "status")
# Metrics that another machine cannot have again: a speed, the files that lie on it.
OF_THE_MACHINE = "a second", "of this machine"
FINISHED = "# finished\n"  # The last line of a log: both scripts came to their end.


@dataclass
class Job:
    experiment: str
    seed: int
    arguments: list  # For train.py, without --run-dir and --resume.
    run_dir: Path = None
    resume: bool = False
    recorded: bool = False  # The record was there before this call.
    seconds: float = None
    reason: str = ""  # Why it failed.
    record: dict = None

    @property
    def log(self):
        return self.run_dir.with_name(self.run_dir.name + ".log")


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
    names = sorted(path.parent.name for path in ROOT.glob("*/train.py"))
    for name in args.only or ():
        if name not in names:
            fail(f"no experiment {name}: there are {', '.join(names)}")
    args.only = [name for name in names if name in (args.only or names)]
    data_root = args.data_root
    if data_root and not any((data_root / name).exists() for name in args.only):
        fail(f"{data_root} has none of the sub-folders {', '.join(args.only)}")
    return args


def train_arguments(args, experiment, seed):
    """Only what differs from train.py's defaults, so that a run made by hand counts too."""
    words = ["--smoke"] if args.smoke else []
    if args.preset != "quick" and not args.smoke:
        words += ["--preset", args.preset]
    if seed:
        words += ["--seed", str(seed)]
    if args.data_root and (args.data_root / experiment).exists():
        words += ["--data", os.path.relpath(args.data_root / experiment, ROOT)]
    return words


def without(words, flag):
    """The words, less the flag and its value."""
    at = words.index(flag) if flag in words else len(words)
    return words[:at] + words[at + 2 :]


def recorded_arguments(record):
    """The words that train.py was given, without those that only say where."""
    words = [word for word in shlex.split(record["command"])[2:] if word != "--resume"]
    return without(words, "--run-dir")


def git_state():
    """The commit, and whether files differ from it."""

    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout

    changed = git("status", "-s", "--", ".", ":!*/results", ":!*.md")  # As a record has it.
    return git("rev-parse", "--verify", "-q", "HEAD")[:12].strip(), bool(changed)


def read_records(experiment):
    """Every record of the experiment that is on this disk, with its path."""
    for pattern in (f"runs/{experiment}/*/record.json", f"{experiment}/results/*-seed*.json"):
        for path in sorted(ROOT.glob(pattern)):
            try:
                yield path, json.loads(path.read_bytes())
            except ValueError:
                fail(f"{path} is no intact record: remove it")


def backend():
    return os.environ.get("KERAS_BACKEND") or "tensorflow"


def data_is_newer(job, record_path):
    """Whether a file of the job's --data was changed after the run began."""
    if "--data" not in job.arguments:
        return False
    data = ROOT / job.arguments[job.arguments.index("--data") + 1]
    paths = [data]
    for folder, _, names in os.walk(data, followlinks=True):
        paths += [Path(folder, name) for name in names]
    newest = max((path.stat().st_mtime for path in paths if path.exists()), default=0)
    return newest > record_path.with_name("arguments.json").stat().st_mtime  # Of the start.


def choose_run(job, name, commit, dirty):
    """Finds the job's record, else its stopped run, else a folder that is free."""
    runs = ROOT / "runs" / job.experiment
    runs.mkdir(parents=True, exist_ok=True)
    for path, record in read_records(job.experiment):
        same = (record["commit"], record["dirty"], dirty) == (commit, False, False) and commit
        same = same and record["backend"] == backend() and path.is_relative_to(runs)
        same = same and recorded_arguments(record) == job.arguments
        if same and not data_is_newer(job, path):
            job.run_dir, job.record, job.recorded = path.parent, record, True
            return
    first = f"# {commit}{'+' * dirty}, {backend()}: train.py {shlex.join(job.arguments)}\n"
    for number in count():
        job.run_dir = runs / (f"{name}-seed{job.seed}" + (f"-{number}" if number else ""))
        if not job.run_dir.exists() or not any(job.run_dir.iterdir()):
            job.log.write_text(first)
            return
        files = {path.name for path in job.run_dir.iterdir()}
        stopped = "arguments.json" in files and "record.json" not in files and job.log.exists()
        if stopped and job.log.read_text().startswith(first):
            job.resume = True
            return


def run_process(command, log, tick):
    """Runs a command with its output added to the log; calls tick() while it runs."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"} | os.environ
    quiet["KERAS_BACKEND"] = backend()  # Whatever ~/.keras/keras.json says.
    with log.open("a") as output:
        print("$", shlex.join(["python", *command]), file=output, flush=True)
        # Its own process group: on Ctrl-C only this process hears it, and ends the whole group.
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=quiet,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        try:
            while True:
                try:
                    return process.wait(timeout=0.5)
                except subprocess.TimeoutExpired:
                    tick()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def run_job(job, tick):
    """train.py, then predict.py; leaves the record or the reason why there is none."""
    start = time.monotonic()
    run_dir = ["--run-dir", os.path.relpath(job.run_dir, ROOT)]
    resume = ["--resume"] if job.resume else []
    commands = [[f"{job.experiment}/predict.py", *run_dir]]
    if not job.recorded:
        commands.insert(0, [f"{job.experiment}/train.py", *job.arguments, *run_dir, *resume])
    for command in commands:
        code = run_process(command, job.log, tick)
        if code:
            signalled = f"ended by {signal.Signals(-code).name} after: " if code < 0 else ""
            job.reason = f"{Path(command[0]).name}: {signalled}{last_line(job.log)}"
            break
    else:
        with job.log.open("a") as log:
            log.write(FINISHED)
    try:
        job.record = json.loads((job.run_dir / "record.json").read_bytes())
    except (OSError, ValueError) as error:
        job.reason = job.reason or f"train.py left no record: {error}"
    job.seconds = time.monotonic() - start


def last_line(log):
    return read_log(log).strip().split("\n")[-1]


def expected_seconds(job, jobs):
    """From this call's runs of the experiment, records of the same command, other runs of this
    call, in this order; None: nobody knows.
    """
    wanted = without(job.arguments, "--seed")
    done = [other for other in jobs if other.seconds and not other.recorded and not other.reason]
    for known in (
        [other.seconds for other in done if other.experiment == job.experiment],
        [
            record["seconds"]
            for _, record in read_records(job.experiment)
            if without(recorded_arguments(record), "--seed") == wanted
        ],
        [other.seconds for other in done],
    ):
        if known:
            return sum(known) / len(known)


def clock(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02}"


def run_all(jobs):
    """Runs what is not recorded. A terminal sees one moving line, a file one line per event."""
    terminal, start = sys.stdout.isatty(), time.monotonic()

    def say(text):
        print(("\r\x1b[K" if terminal else "") + text, flush=True)

    for number, job in enumerate(jobs, 1):
        title = f"[{number}/{len(jobs)}] {job.experiment} seed {job.seed}"
        if job.recorded and job.log.exists() and job.log.read_text().endswith(FINISHED):
            say(f"{title}: recorded before")
            continue
        rest = [expected_seconds(other, jobs) for other in jobs[number - 1 :] if not other.recorded]
        left = None if None in rest else sum(rest)
        job_start = time.monotonic()

        def tick(title=title, job=job, left=left, job_start=job_start):
            if terminal:
                now = time.monotonic()
                eta = f", about {clock(max(0, left - now + job_start))} left" if left else ""
                text = f"{title}  {clock(now - start)}{eta}  {last_line(job.log)}"
                width = shutil.get_terminal_size().columns - 1
                print(f"\r\x1b[K{text[:width]}", end="", flush=True)

        if not terminal:
            eta = f", about {clock(left)} left" if left else ""
            say(f"{title}: {'goes on' if job.resume else 'started'}{eta}")
        run_job(job, tick)
        end = f"failed: {job.reason}" if job.reason else "finished"
        say(f"{title}: {end} ({clock(job.seconds)})")
    return time.monotonic() - start


def table_rows(jobs):
    """One dict of texts for each claim that these jobs speak to, and for each failure."""
    rows = []
    for experiment in dict.fromkeys(job.experiment for job in jobs):
        mine = [job for job in jobs if job.experiment == experiment]
        good = [job for job in mine if not job.reason]
        try:
            claims_path = ROOT / experiment / "results" / "claims.json"
            claims = json.loads(claims_path.read_bytes()) if claims_path.exists() else []
            for row in dict.fromkeys(job.record["row"] for job in good):
                group = [job for job in good if job.record["row"] == row]
                rows += claim_rows(experiment, row, group, claims)
        except (OSError, ValueError, LookupError, TypeError) as error:
            good[0].reason = f"its record does not fit claims.json: {error!r}"
        for job in mine:
            if job.reason:
                failed = {"what": f"seed {job.seed}", "status": f"failed: {job.reason}"}
                rows.append({"experiment": experiment} | failed)
    return [{name: row.get(name, "") for name in COLUMNS} for row in rows]


def claim_rows(experiment, row, jobs, claims):
    records = [job.record for job in jobs]
    exact = [claim for claim in claims if claim["row"] == row]
    if not exact:
        # Your own data or sizes, or a smoke run: the same metrics, and nobody has judged them.
        metrics = records[0]["metrics"]
        known = {c["metric"]: c["format"] for c in claims if c["metric"] in metrics}
        same = {"row": row, "post": "", "status": "not judged"}
        known = known or dict.fromkeys(list(metrics)[:1], ".4g")
        exact = [same | {"metric": name, "format": known[name]} for name in known]
    if not exact:
        yield {"experiment": experiment, "what": row, "status": "no metrics"}
    before = sum(job.recorded for job in jobs)
    found = [record for path, record in read_records(experiment) if path.parent.name == "results"]
    committed = [record for record in found if record["row"] == row]
    for line in table_lines(records, exact):
        status = line["status"]
        if records[0]["arguments"].get("smoke"):
            status = "smoke: proves no number"
        if before:
            status += f"; recorded before ({before} of {len(jobs)})"
        metric = line["what"].removeprefix(f"{row}: ")
        [style] = {claim["format"] for claim in exact if claim["metric"] == metric}
        status += against_recorded(committed, records, metric, style.endswith("%"))
        ours = line.get("ours (95%)", "").replace("*", "")
        yield line | {"experiment": experiment, "ours (95%)": ours, "status": status}


def against_recorded(committed, records, metric, share=False):
    """Whether the mean of the records is where the committed ones let expect it."""
    old, new = (
        [record["metrics"][metric] for record in group if metric in record["metrics"]]
        for group in (committed, records)
    )
    if not old or not new or any(part in metric for part in OF_THE_MACHINE):
        return ""
    value, *_ = row_interval(new)
    low, high = expected_interval(old, len(new))
    low, high = (max(low, 0), min(high, 1)) if share else (low, high)
    inside = low <= value <= high
    return f"; {'inside' if inside else 'OUTSIDE'} the expected {low:.4g} to {high:.4g}"


def expected_interval(numbers, num_seeds):
    """Where the mean of so many more seeds lies 95 of 100 times or more: they vary, too.

    Of one record only the test set's share of that is known.
    """
    value, low, high = row_interval(numbers)
    spread = math.sqrt(1 + len(numbers) / num_seeds)
    return value - spread * (value - low), value + spread * (high - value)


def text_table(rows, width=26):
    """The rows as aligned columns; long cells are wrapped."""
    lines = [dict(zip(COLUMNS, COLUMNS, strict=True)), *rows]
    cells = [[textwrap.wrap(line[name], width) or [""] for name in COLUMNS] for line in lines]
    widths = [max(len(part) for row in cells for part in row[i]) for i in range(len(COLUMNS))]
    texts = []
    for row in cells:
        for i in range(max(map(len, row))):
            parts = [cell[i] if i < len(cell) else "" for cell in row]
            texts.append("  ".join(map(str.ljust, parts, widths)).rstrip())
    texts.insert(max(map(len, cells[0])), "  ".join("-" * width for width in widths))
    return "\n".join(texts)


def main(argv=None):
    """Returns the exit code: 0, 1 when an experiment failed, 130 when stopped."""
    args = parse_args(argv)
    commit, dirty = git_state()
    name = "smoke" if args.smoke else args.preset
    jobs = [
        Job(experiment, seed, train_arguments(args, experiment, seed))
        for experiment in args.only
        for seed in dict.fromkeys(args.seeds)
    ]
    for job in jobs:
        choose_run(job, name, commit, dirty)
    try:
        seconds = run_all(jobs)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    rows = table_rows(jobs)
    facts = {
        "commit": (commit or "none") + (" and uncommitted changes" if dirty else ""),
        "date": datetime.datetime.now().astimezone().isoformat(" ", "minutes"),
        "preset": name,
        "time": f"{seconds / 60:.1f} minutes",
    }
    path = ROOT / "runs" / "report.html"
    write_text(path, page(ROOT, facts, COLUMNS, rows, jobs))
    print(f"\n{text_table(rows)}\n\nreport: {path}")
    compared = [row for row in rows if "the expected" in row["status"]]
    if compared:
        inside = sum("; inside the expected" in row["status"] for row in compared)
        print(f"{inside} of {len(compared)} numbers are where the recorded ones let expect them")
    return int(any(job.reason for job in jobs))


if __name__ == "__main__":
    # A closed terminal or a scheduler's stop ends the child, too.
    for stop in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.default_int_handler)
    run_script(lambda: sys.exit(main()))
