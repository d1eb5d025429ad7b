"""README tables out of results/: python -m common.table EXPERIMENT [RUN_DIR to add ...]"""

import json
import re
import sys
from pathlib import Path

import numpy as np

from common.run import ROOT, LazyModule, find_run, write_text

stats = LazyModule("scipy.stats")
COLUMNS = "what|post|ours (95%)|status|data|seeds|n|minutes|device|command".split("|")  # noqa: SIM905


def proportion(hits, n):
    """A share with its 95% Wilson interval."""
    low, high = stats.binomtest(int(hits), int(n)).proportion_ci(method="wilson")
    return {"value": float(hits / n), "n": int(n), "low": float(low), "high": float(high)}


def mean_interval(values):
    """The mean of several runs with its 95% Student interval."""
    mean, half = np.mean(values), stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return {"value": float(mean), "low": float(mean - half), "high": float(mean + half)}


def table_lines(records, claims):
    """One dict of texts per claim; the records of one row are its seeds."""
    for claim in claims:
        row, metric, style = claim["row"], claim["metric"], claim["format"]
        group = [r for r in records if r["row"] == row and metric in r["metrics"]]
        line = {"what": f"{row}: {metric}", "post": claim["post"], "status": "not tried"}
        if group:
            numbers, first = [r["metrics"][metric] for r in group], group[0]
            one = mean_interval([n["value"] for n in numbers]) if group[1:] else numbers[0]
            low = min(one["low"], np.mean([n["low"] for n in numbers]))  # Seeds agree by luck.
            high = max(one["high"], np.mean([n["high"] for n in numbers]))
            high = min(high, 1) if style.endswith("%") else high
            value, low, high = (format(x, style) for x in (one["value"], low, high))
            minutes = np.mean([r["seconds"] for r in group]) / 60
            command = re.sub(r" --(seed|run-dir) \S+", "", first["command"])
            line |= {"ours (95%)": f"**{value}** ({low} to {high})", "status": claim["status"]}
            line |= {"data": first["data"]["name"], "n": numbers[0].get("n", "")}
            line |= {"seeds": len(group), "minutes": f"{minutes:.1f}", "command": f"`{command}`"}
            line |= {"device": f"{first['device']}, {first['backend']}"}
        yield line


def markdown(lines):
    rows = [[str(line.get(name, "")) for name in COLUMNS] for line in lines]
    rows = (COLUMNS, ["---"] * len(COLUMNS), *rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def read_results(experiment):
    records = sorted((ROOT / experiment / "results").glob("*-seed*.json"))
    claims = ROOT / experiment / "results" / "claims.json"
    return [json.loads(path.read_text()) for path in records], json.loads(claims.read_text())


if __name__ == "__main__":
    experiment, *run_dirs = sys.argv[1:]
    for run_dir in run_dirs:
        text = (find_run(experiment, Path(run_dir)) / "record.json").read_text()
        name = re.sub(r"[^\w.]+", "-", "{row}-seed{seed}.json".format(**json.loads(text)))
        write_text(ROOT / experiment / "results" / name, text)
    readme = ROOT / experiment / "README.md"
    parts = re.split("(<!-- /?results -->\n)", readme.read_text())
    parts[2] = markdown(table_lines(*read_results(experiment))) + "\n"
    write_text(readme, "".join(parts))
