"""Intervals, and README tables out of records: python -m common.table EXPERIMENT [RUN_DIR ...]

results/claims.json lists the lines of the table: row, metric, what the post says, status word.
results/*.json beside it are records; the finished runs named are first copied there.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np

from common.run import ROOT, write_text


def proportion(hits, n):
    """A share with its 95% Wilson interval."""
    from scipy import stats

    low, high = stats.binomtest(int(hits), int(n)).proportion_ci(method="wilson")
    return {"value": hits / n, "n": int(n), "low": float(low), "high": float(high)}


def mean_interval(values):
    """The mean of several runs with its 95% Student interval."""
    from scipy import stats

    mean, half = np.mean(values), stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return {"value": float(mean), "low": float(mean - half), "high": float(mean + half)}


def table_lines(records, claims):
    """One dict of texts per claim; the records of one row are its seeds."""
    for claim in claims:
        group = [r for r in records if r["row"] == claim["row"] and claim["metric"] in r["metrics"]]
        line = {"what": f"{claim['row']}: {claim['metric']}", "post": claim["post"]}
        if group:
            numbers = [record["metrics"][claim["metric"]] for record in group]
            number = mean_interval([n["value"] for n in numbers]) if group[1:] else numbers[0]
            value, low, high = (
                format(number[k], claim["format"]) for k in ("value", "low", "high")
            )
            first, seconds = group[0], np.mean([record["seconds"] for record in group])
            line |= {"ours (95%)": f"**{value}** ({low} to {high})", "data": first["data"]["name"]}
            line |= {
                "seeds": len(group),
                "n": numbers[0].get("n", ""),
                "minutes": f"{seconds / 60:.1f}",
            }
            line |= {"device": f"{first['device']}, {first['backend']}"}
            line |= {"command": f"`{re.sub(' ?--seed [0-9]+', '', first['command'])}`"}
        yield line | {"status": claim["status"] if group else "not tried"}


def markdown(lines):
    names = ["what", "post", "ours (95%)", "status", "data", "seeds", "n", "minutes", "device"]
    names += ["command"]
    rows = [names, ["---"] * len(names)] + [[str(x.get(n, "")) for n in names] for x in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def read_results(experiment):
    """The records and the claims of an experiment."""
    folder = ROOT / experiment / "results"
    records = [json.loads(p.read_text()) for p in sorted(folder.glob("*-seed*.json"))]
    return records, json.loads((folder / "claims.json").read_text())


if __name__ == "__main__":
    experiment, *run_dirs = sys.argv[1:]
    for run_dir in run_dirs:
        record = json.loads((Path(run_dir) / "record.json").read_text())
        name = re.sub(r"\W+", "-", record["row"].lower()) + f"-seed{record['seed']}.json"
        write_text(ROOT / experiment / "results" / name, json.dumps(record, indent=1))
    readme = ROOT / experiment / "README.md"
    table = (
        f"<!-- results -->\n{markdown(table_lines(*read_results(experiment)))}\n<!-- /results -->"
    )
    text = re.sub(
        "<!-- results -->.*<!-- /results -->", lambda _: table, readme.read_text(), flags=re.S
    )
    write_text(readme, text)
