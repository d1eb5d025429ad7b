"""README tables out of results/: python -m common.table EXPERIMENT [RUN_DIR to add ...]"""

import re
import sys
from pathlib import Path

import numpy as np

from common.run import ROOT, LazyModule, fail, find_run, load_file, write_text

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


def row_interval(numbers):
    """Mean and 95% interval of a row's seeds; as these may agree by luck, never less than one's."""
    value, low, high = (np.mean([n[k] for n in numbers]) for k in ("value", "low", "high"))
    if len(numbers) > 1:
        seeds = mean_interval([n["value"] for n in numbers])
        low, high = min(low, seeds["low"]), max(high, seeds["high"])
    return float(value), float(low), float(high)


def table_lines(records, claims):
    """One dict of texts per claim; the records of one row are its seeds."""
    for claim in claims:
        row, metric, style = claim["row"], claim["metric"], claim["format"]
        line = {"what": f"{row}: {metric}", "post": claim["post"], "status": "not tried"}
        group = [r for r in records if r["row"] == row and metric in r["metrics"]]
        if group:
            numbers, first = [r["metrics"][metric] for r in group], group[0]
            value, low, high = row_interval(numbers)
            low, high = (max(low, 0), min(high, 1)) if style.endswith("%") else (low, high)
            command = re.sub(r" --(seed|run-dir) \S+| --resume", "", first["command"])
            line |= {"ours (95%)": f"**{value:{style}}** ({low:{style}} to {high:{style}})"}
            line |= {"status": claim["status"], "data": first["data"]["name"], "seeds": len(group)}
            line |= {"n": numbers[0].get("n", ""), "command": f"`{command}`"}
            minutes = {}
            for r in group:
                minutes.setdefault(f"{r['device']}, {r['backend']}", []).append(r["seconds"] / 60)
            means = " / ".join(f"{np.mean(some):.1f}" for some in minutes.values())
            line |= {"minutes": means, "device": " / ".join(minutes)}
        yield line


def markdown(lines):
    rows = [[str(line.get(name, "")) for name in COLUMNS] for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in (COLUMNS, ["---"] * len(COLUMNS), *rows))


def read_results(experiment):
    records = [load_file(path) for path in sorted(ROOT.glob(f"{experiment}/results/*-seed*.json"))]
    return records, load_file(ROOT / experiment / "results" / "claims.json")


if __name__ == "__main__":
    experiment, *run_dirs = sys.argv[1:]
    records = [find_run(experiment, Path(run_dir)) / "record.json" for run_dir in run_dirs]
    if smoke := [path for path in records if load_file(path).get("arguments", {}).get("smoke")]:
        fail(f"{smoke[0].parent} is a --smoke run, which proves no number")
    for path in records:
        name = re.sub(r"[^\w.]+", "-", "{row}-seed{seed}.json".format(**load_file(path)))
        write_text(ROOT / experiment / "results" / name, path.read_text(encoding="utf-8"))
    readme = ROOT / experiment / "README.md"
    parts = re.split("(<!-- /?results -->\n)", readme.read_text(encoding="utf-8"))
    parts[2] = markdown(table_lines(*read_results(experiment))) + "\n"
    write_text(readme, "".join(parts))
