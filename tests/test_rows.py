"""One row of each README's table is made again: the fastest that needs no data but its own.

`make test` does so where it takes seconds, `ROWS=1 python -m pytest tests/test_rows.py` for every
folder, a quarter of an hour on two cores.
"""

import json
import os
import subprocess
import sys

import pytest
from conftest import EXPERIMENTS, ROOT

from common.jobs import backend, recorded_arguments
from common.table import belongs_to_the_machine, compare, read_results

SHORT = 30  # Seconds that a row's records took, up to which `make test` makes it again.


def fastest_row(experiment):
    """The records of the row whose command names no file, TensorFlow's, in the least time."""
    records, _ = read_results(experiment)
    rows = {}
    for record in sorted(records, key=lambda record: record["row"]):
        names_a_file = any("/" in word for word in recorded_arguments(record))
        if record["backend"] == "tensorflow" and not names_a_file:
            rows.setdefault(record["row"], []).append(record)
    return min(rows.values(), key=fewest_seconds)


def fewest_seconds(records):
    return min(record["seconds"] for record in records)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_fastest_row_has_its_numbers_again(experiment, tmp_path):
    records = fastest_row(experiment)
    seconds = fewest_seconds(records)
    if backend() != "tensorflow":
        pytest.skip("the numbers are TensorFlow's")
    if not os.environ.get("ROWS") and seconds > SHORT:
        pytest.skip(f"{seconds / 60:.0f} minutes: ROWS=1 asks for it")
    first = min(records, key=lambda record: record["seed"])
    words = [*recorded_arguments(first), "--run-dir", str(tmp_path / "run")]
    subprocess.run([sys.executable, f"{experiment}/train.py", *words], cwd=ROOT, check=True)
    again = json.loads((tmp_path / "run" / "record.json").read_text())
    assert again["row"] == first["row"]
    compared = 0
    outside = {}
    _, claims = read_results(experiment)
    for claim in claims:
        metric = claim["metric"]
        if claim["row"] != again["row"] or belongs_to_the_machine(metric):
            continue
        compared += 1
        recorded = [record["metrics"][metric] for record in records]
        new = again["metrics"][metric]
        inside, low, high = compare(recorded, [new])
        if not inside:
            outside[metric] = (new["value"], low, high)
    assert compared and not outside
