"""Tables out of the records in results/: python -m common.table EXPERIMENT [RUN_DIR to add ...]"""

import math
import re
import sys
from pathlib import Path

import numpy as np

from common.cli import fail
from common.files import ROOT, read_json, write_text
from common.folders import find_run
from common.metrics import row_interval

COLUMNS = (
    "what",
    "post",
    "ours (95%)",
    "status",
    "data",
    "seeds",
    "n",
    "minutes",
    "device",
    "command",
)
# Metrics that another machine cannot have again: a speed, the files that lie on it.
OF_THE_MACHINE = ("a second", "of this machine")


# --- Lines of a table ---
def table_lines(records, claims):
    """One dict of texts per claim. Records with the same row are its seeds."""
    for claim in claims:
        records_of_row = [
            record
            for record in records
            if record["row"] == claim["row"] and claim["metric"] in record["metrics"]
        ]
        yield table_line(claim, records_of_row)


def table_line(claim, records):
    line = {"what": f"{claim['row']}: {claim['metric']}", "post": claim["post"]}
    if not records:
        line["status"] = "not tried"
        return line
    metrics = [record["metrics"][claim["metric"]] for record in records]
    style = claim["format"]
    value, low, high = row_interval(metrics)
    if style.endswith("%"):
        low, high = max(low, 0), min(high, 1)
    minutes = minutes_by_device(records)
    line["ours (95%)"] = f"**{value:{style}}** ({low:{style}} to {high:{style}})"
    line["status"] = claim["status"]
    line["data"] = records[0]["data"]["name"]
    line["seeds"] = len(records)
    line["n"] = metrics[0].get("n", "")
    line["minutes"] = " / ".join(f"{np.mean(values):.1f}" for values in minutes.values())
    line["device"] = " / ".join(minutes)
    line["command"] = f"`{general_command(records[0]['command'])}`"
    return line


def minutes_by_device(records):
    """{device and backend: [minutes of each of its runs]}."""
    minutes = {}
    for record in records:
        device = f"{record['device']}, {record['backend']}"
        minutes.setdefault(device, []).append(record["seconds"] / 60)
    return minutes


def general_command(command):
    """The command without what belongs to one run only."""
    return re.sub(r" --(seed|run-dir) \S+| --resume", "", command)


def markdown(lines):
    """The lines as a Markdown table."""
    rows = [[str(line.get(name, "")) for name in COLUMNS] for line in lines]
    rows = [list(COLUMNS), ["---"] * len(COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def read_results(experiment, root=ROOT):
    """The records in the results/ of an experiment, and its claims.json."""
    folder = root / experiment / "results"
    records = [read_json(path) for path in sorted(folder.glob("*-seed*.json"))]
    return records, read_json(folder / "claims.json")


# --- New numbers against recorded ones ---
def compare(recorded, new, is_fraction=False):
    """Whether new runs agree with the recorded ones of the same row.

    Args:
        recorded, new: the metric in the records of each, {"value", "low", "high"}.

    Returns:
        (inside, low, high): the interval that the mean of so many new seeds should hit.
    """
    value, _, _ = row_interval(new)
    low, high = expected_interval(recorded, len(new))
    if is_fraction:
        low, high = max(low, 0), min(high, 1)
    return low <= value <= high, low, high


def expected_interval(metrics, num_seeds):
    """Where the mean of so many further seeds lies at least 95 times of 100.

    The new seeds vary as well, so the interval is wider than that of the recorded mean. With a
    single record only the variation of the test set is known.
    """
    value, low, high = row_interval(metrics)
    spread = math.sqrt(1 + len(metrics) / num_seeds)
    return value - spread * (value - low), value + spread * (high - value)


def belongs_to_the_machine(metric):
    """Whether another machine cannot be expected to give this number again."""
    return any(words in metric for words in OF_THE_MACHINE)


# --- Writing ---
def add_records(experiment, run_dirs, root=ROOT):
    """Copies the records of finished runs into results/."""
    paths = [find_run(experiment, Path(run_dir)) / "record.json" for run_dir in run_dirs]
    for path in paths:
        if read_json(path).get("arguments", {}).get("smoke"):
            fail(f"{path} is a --smoke run, which proves no number")
    for path in paths:
        record = read_json(path)
        name = re.sub(r"[^\w.]+", "-", f"{record['row']}-seed{record['seed']}.json")
        write_text(root / experiment / "results" / name, path.read_text(encoding="utf-8"))


def write_table(experiment, root=ROOT):
    """Writes the table between the two marks of the folder's README."""
    readme = root / experiment / "README.md"
    parts = re.split("(<!-- /?results -->\n)", readme.read_text(encoding="utf-8"))
    parts[2] = markdown(table_lines(*read_results(experiment, root))) + "\n"
    write_text(readme, "".join(parts))


def main(argv, root=ROOT):
    experiment, *run_dirs = argv
    add_records(experiment, run_dirs, root)
    write_table(experiment, root)


if __name__ == "__main__":
    main(sys.argv[1:])
