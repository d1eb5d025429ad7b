"""One row of each README's table is made again: the fastest that needs no data but its own.

`make test` does so where it takes seconds, `ROWS=1 python -m pytest tests/test_rows.py` for every
folder, a quarter of an hour on two cores.
"""

import json
import os
import subprocess
import sys
from itertools import groupby

import pytest
from conftest import EXPERIMENTS

from common.run import ROOT, keras
from common.table import read_results
from reproduce import OF_THE_MACHINE, expected_interval, recorded_arguments

SHORT = 30  # Seconds that a row's records took, up to which `make test` makes it again.


def fastest_row(experiment):
    """The records of the row whose command names no file, TensorFlow's, in the least time."""
    records = [
        record
        for record in read_results(experiment)[0]
        if record["backend"] == "tensorflow"
        and not any("/" in word for word in recorded_arguments(record))
    ]
    rows = groupby(sorted(records, key=lambda r: r["row"]), key=lambda r: r["row"])
    return min((list(row) for _, row in rows), key=lambda row: min(r["seconds"] for r in row))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_fastest_row_has_its_numbers_again(experiment, tmp_path):
    records = fastest_row(experiment)
    seconds = min(record["seconds"] for record in records)
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the numbers are TensorFlow's")
    if not os.environ.get("ROWS") and seconds > SHORT:
        pytest.skip(f"{seconds / 60:.0f} minutes: ROWS=1 asks for it")
    first = min(records, key=lambda record: record["seed"])
    words = [*recorded_arguments(first), "--run-dir", str(tmp_path / "run")]
    subprocess.run([sys.executable, f"{experiment}/train.py", *words], cwd=ROOT, check=True)
    again = json.loads((tmp_path / "run" / "record.json").read_text())
    assert again["row"] == first["row"]
    compared, outside = 0, {}
    for claim in read_results(experiment)[1]:
        metric = claim["metric"]
        if claim["row"] != again["row"] or any(part in metric for part in OF_THE_MACHINE):
            continue
        compared += 1
        low, high = expected_interval([record["metrics"][metric] for record in records], 1)
        if not low <= (found := again["metrics"][metric]["value"]) <= high:
            outside[metric] = found, low, high
    assert compared and not outside
