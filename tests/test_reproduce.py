"""reproduce.py and its report, on three tiny experiments that need no Keras."""

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT

import reproduce
import reproduce_report
from common.jobs import Job
from common.table import compare, expected_interval

TRAIN = '''"""Learns <nothing> & quickly.

Blog post: https://kexue.fm/archives/1
"""
import argparse, json, os, subprocess, sys, time
from pathlib import Path

from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("--preset", default="quick")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--data")
parser.add_argument("--run-dir", type=Path)
parser.add_argument("--smoke", action="store_true")
parser.add_argument("--resume", action="store_true")
args = parser.parse_args()
name = Path(__file__).parent.name
print("training on", args.data)
if name == "broken_demo":
    raise ValueError("no <such> file")
args.run_dir.mkdir(parents=True, exist_ok=True)
arguments = {k: v for k, v in vars(args).items() if k not in ("run_dir", "resume")}
(args.run_dir / "arguments.json").write_text(json.dumps(arguments))
if name == "slow_demo" and Path("hold").exists():
    time.sleep(60)
Image.new("RGB", (20, 10), "red").save(args.run_dir / "red.png")
commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout[:12]
history = [{"epoch": i, "loss": 1 / i, "val_loss": 2 / i, "accuracy": 0.5} for i in (1, 2, 3)]
record = {
    "row": "ours, <quick>", "command": f"python {name}/train.py {' '.join(sys.argv[1:])}",
    "seed": args.seed, "arguments": arguments, "resumed": args.resume, "commit": commit,
    "dirty": False, "date": "2026-01-02", "seconds": 90,
    "backend": os.environ.get("KERAS_BACKEND") or "tensorflow",
    "device": "abacus", "versions": {"keras": "3"}, "data": {"name": "drawn"},
    "history": history, "pictures": {"red.png": "A <red> picture", "lost.png": "A lost one"},
    "metrics": {"accuracy": {"value": 0.9 + args.seed / 100, "n": 50, "low": 0.8, "high": 0.96}},
}
(args.run_dir / "record.json").write_text(json.dumps(record))
'''

PREDICT = """import sys
from pathlib import Path

from PIL import Image

assert Path(sys.argv[2], "record.json").exists()
Image.new("RGB", (20, 10), "blue").save(Path(sys.argv[2]) / "predictions.png")
print("I read <abcd>")
"""

CLAIMS = [
    {
        "row": "ours, <quick>",
        "metric": "accuracy",
        "post": ">= 85%",
        "format": ".1%",
        "status": "same trend",
    }
]


def git(root, *words):
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    subprocess.run(["git", *identity, *words], cwd=root, check=True)


@pytest.fixture
def tree(tmp_path):
    """A repository like this one, with three experiments of its own."""
    shutil.copytree(ROOT / "common", tmp_path / "common")
    for path in ROOT.glob("reproduce*"):
        shutil.copy(path, tmp_path)
    for name in ("broken_demo", "good_demo", "slow_demo"):
        (tmp_path / name / "results").mkdir(parents=True)
        (tmp_path / name / "train.py").write_text(TRAIN)
        (tmp_path / name / "predict.py").write_text(PREDICT)
        (tmp_path / name / "results" / "claims.json").write_text(json.dumps(CLAIMS))
    (tmp_path / ".gitignore").write_text("runs/\nhold\n__pycache__/\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def call(tree, *words, environment=None):
    """Runs reproduce.py of the tree to its end."""
    return subprocess.run(
        [sys.executable, "reproduce.py", *words],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
    )


def reproduced(tree, *words, environment=None):
    """What reproduce.py prints when every run succeeds."""
    done = call(tree, *words, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def records(tree):
    return sorted(str(path.parent.relative_to(tree / "runs")) for path in tree.rglob("record.json"))


def test_failure_does_not_stop_the_others(tree):
    done = call(tree)
    assert done.returncode == 1
    out = done.stdout
    assert records(tree) == ["good_demo/quick-seed0", "slow_demo/quick-seed0"]
    assert "[1/3] broken_demo seed 0: failed: train.py: ValueError: no <such> file" in out
    assert "[3/3] slow_demo seed 0: finished" in out
    table = out[out.index("experiment  ") :]
    for text in ("good_demo", ">= 85%", "90.0% (80.0% to 96.0%)", "drawn", "1.5", "same trend"):
        assert text in table
    assert "**" not in table

    page = (tree / "runs" / "report.html").read_text()
    assert "2 of 3 runs succeeded" in page
    assert "ValueError: no &lt;such&gt; file" in page and "no <such>" not in page
    assert "I read &lt;abcd&gt;" in page
    assert page.count('<div class="status near">same trend<') == 2
    assert page.count("<img ") == 4 == page.count("data:image/png;base64,")
    assert 'alt="A &lt;red&gt; picture"' in page
    assert page.count("lost.png (A lost one) is missing") == 2
    assert page.count("loss by epoch") == 2 * 2  # A caption and a label, two experiments.
    # Links are the only addresses: nothing is fetched.
    assert set(re.findall(r"(?:href|src|url)\W{1,2}(\w+:)?", page)) <= {"", "data:", "https:"}
    assert not re.findall(r"(?:src=|url\(|@import|<link[^>]*href=)[\"']?https?:", page)


def test_a_run_of_another_backend_is_another_run(tree):
    environment = dict(os.environ)
    environment["KERAS_BACKEND"] = "jax"
    reproduced(tree, "--only", "good_demo", environment=environment)
    del environment["KERAS_BACKEND"]
    out = reproduced(tree, "--only", "good_demo", environment=environment)
    assert "recorded before" not in out
    assert records(tree) == ["good_demo/quick-seed0", "good_demo/quick-seed0-1"]


def test_recorded_runs_are_skipped(tree):
    only = ["--only", "good_demo"]
    reproduced(tree, *only)
    stamp = (tree / "runs/good_demo/quick-seed0/record.json").stat().st_mtime_ns
    out = reproduced(tree, *only)
    assert "[1/1] good_demo seed 0: recorded before" in out
    assert "same trend; recorded" in out
    assert (tree / "runs/good_demo/quick-seed0/record.json").stat().st_mtime_ns == stamp

    # Other arguments, a changed file and another commit are other runs.
    out = reproduced(tree, *only, "--smoke")
    assert "smoke: proves no number" in " ".join(out.split())
    with (tree / "good_demo" / "train.py").open("a") as file:
        file.write("# changed\n")
    reproduced(tree, *only)
    git(tree, "commit", "-qam", "second")
    reproduced(tree, *only)
    names = ["quick-seed0", "quick-seed0-1", "quick-seed0-2", "smoke-seed0"]
    assert records(tree) == [f"good_demo/{name}" for name in names]


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [(0.88, 0.84, 0.903, "inside the expected 0.831 to 0.9082"), (0.6, 0.5, 0.7, "OUTSIDE the")],
)
def test_numbers_are_compared_with_the_recorded_ones(value, low, high, expected, tree):
    """Two new seeds, mean .905, against one committed record: 1.22 times its interval."""
    metrics = {"accuracy": {"value": value, "n": 50, "low": low, "high": high}}
    old = {"row": "ours, <quick>", "metrics": metrics, "command": "python good_demo/train.py --old"}
    more = {"commit": "0" * 12, "dirty": False, "backend": "tensorflow", "seconds": 90}
    path = tree / "good_demo" / "results" / "ours-seed0.json"
    path.write_text(json.dumps(old | more))
    out = reproduced(tree, "--only", "good_demo", "slow_demo", "--seeds", "0", "1")
    inside = int(expected.startswith("inside"))
    out = " ".join(out.split())
    assert f"{inside} of 1 numbers are where the recorded ones let expect" in out
    page = (tree / "runs" / "report.html").read_text()
    assert expected in page and page.count("the expected") == 1


@pytest.mark.parametrize("count", [1, 3])
def test_new_seeds_are_expected_where_95_of_100_lie(count):
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        old = rng.normal(0, 1, 5)
        new = rng.normal(0, 1, count).mean()
        metrics = [{"value": x, "low": x, "high": x} for x in old]
        low, high = expected_interval(metrics, count)
        if low <= new <= high:
            hits += 1
    assert 0.935 < hits / 2000 < 0.965


def comparison(committed, new, metric="accuracy", style=".3f"):
    """What reproduce.py makes of the metrics of a committed and of a new record."""
    claim = {"metric": metric, "format": style}
    return reproduce.compare_with_recorded([{"metrics": committed}], [{"metrics": new}], claim)


def test_speeds_are_not_compared():
    slow = {"value": 1000, "low": 900, "high": 1100}
    fast = {"value": 9000, "low": 8100, "high": 9900}
    speed = "blocks a second"
    assert comparison({speed: slow}, {speed: fast}, metric=speed) is None
    inside, _, _ = comparison({"blocks": slow}, {"blocks": fast}, metric="blocks")
    assert not inside


def test_an_expected_fraction_ends_at_1():
    metric = {"value": 0.98, "low": 0.9, "high": 1.0}
    inside, low, high = compare([metric], [metric], is_fraction=True)
    assert inside
    assert f"{low:.4g} to {high:.4g}" == "0.8669 to 1"
    accuracy = {"accuracy": metric}
    assert comparison(accuracy, accuracy, style=".1%") == (inside, low, high)


def test_a_metric_that_only_one_side_has_is_not_compared():
    accuracy = {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}}
    inside, _, _ = comparison(accuracy, accuracy)
    assert inside
    assert comparison(accuracy, {}) is None
    assert comparison({}, accuracy) is None


def test_failed_prediction_is_tried_again(tree):
    (tree / "good_demo" / "predict.py").write_text("raise SystemExit('no picture')")
    git(tree, "commit", "-qam", "broken")
    for _ in range(2):
        done = call(tree, "--only", "good_demo")
        assert done.returncode == 1
        assert "failed: predict.py: no picture" in done.stdout
    assert records(tree) == ["good_demo/quick-seed0"]


def test_seeds_preset_and_data(tree):
    (tree / "mine" / "good_demo").mkdir(parents=True)
    words = ["--only", "good_demo", "slow_demo", "--preset", "full", "--seeds", "0", "2"]
    out = reproduced(tree, *words, "--data-root", str(tree / "mine"))
    assert "92.0%" not in out  # The two seeds are one row: their mean.
    names = [f"{name}/full-seed{seed}" for name in ("good_demo", "slow_demo") for seed in (0, 2)]
    assert records(tree) == names
    arguments = [
        json.loads((tree / "runs" / name / "record.json").read_text())["arguments"]
        for name in names
    ]
    assert [a["data"] for a in arguments] == ["mine/good_demo"] * 2 + [None] * 2
    assert [a["seed"] for a in arguments] == [0, 2, 0, 2]
    assert {a["preset"] for a in arguments} == {"full"}
    assert "91.0%" in (tree / "runs" / "report.html").read_text()


def test_changed_data_are_trained_on_again(tree):
    data = tree / "mine" / "good_demo"
    data.mkdir(parents=True)
    words = ["--only", "good_demo", "--data-root", str(tree / "mine")]
    for expected in (0, 1):
        assert reproduced(tree, *words).count("recorded before") == expected
    (data / "more.txt").touch()
    os.utime(data / "more.txt", (time.time() + 5,) * 2)
    assert "recorded before" not in reproduced(tree, *words)


def test_a_record_without_metrics_is_a_row(tree):
    train = tree / "good_demo" / "train.py"
    (tree / "good_demo" / "results" / "claims.json").unlink(missing_ok=True)
    train.write_text(re.sub(r'"metrics": \{.*\},', '"metrics": {},', train.read_text()))
    git(tree, "commit", "-qam", "measures nothing")
    assert "no metrics" in reproduced(tree, "--only", "good_demo")
    assert "good_demo" in (tree / "runs" / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "nothing"], "there are broken_demo, good_demo, slow_demo"),
        (["--data-root", "absent"], "has none of the sub-folders"),
    ],
)
def test_bad_input_is_one_line(words, message, tree):
    done = call(tree, *words)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ") and message in line


def hear_ctrl_c():
    """Where the tests run in the background of a shell, Ctrl-C is ignored from the start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_goes_on(stop, tree):
    (tree / "hold").touch()
    process = subprocess.Popen(
        [sys.executable, "reproduce.py", "--only", "slow_demo"],
        cwd=tree,
        preexec_fn=hear_ctrl_c,
        stderr=subprocess.PIPE,
        text=True,
    )
    started = tree / "runs/slow_demo/quick-seed0/arguments.json"
    deadline = time.monotonic() + 60
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(stop)
    start = time.monotonic()
    assert "the same command goes on" in process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert time.monotonic() - start < 9  # The child did not sleep on, and was not killed.
    (tree / "hold").unlink()
    reproduced(tree, "--only", "slow_demo")
    assert records(tree) == ["slow_demo/quick-seed0"]
    assert json.loads((started.parent / "record.json").read_text())["resumed"]


def test_time_left_comes_from_records():
    job = Job("good_demo", 1, ["--seed", "1"])
    other = Job("slow_demo", 0, [], seconds=7)
    assert reproduce.expected_seconds(job, [job], []) is None
    assert reproduce.expected_seconds(job, [job, other], []) == 7
    records = [
        {"command": "python good_demo/train.py", "seconds": 60},
        {"command": "python good_demo/train.py --preset full", "seconds": 160},
    ]
    assert reproduce.expected_seconds(job, [job, other], records) == 60


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.5, 0.5), (-3, -1), (-2e-3, 3e4), (0, 0)])
def test_ticks_enclose(low, high):
    ticks = reproduce_report.ticks(low, high)
    assert 2 <= len(ticks) <= 8 and ticks == sorted(ticks)
    assert ticks[0] <= low and ticks[-1] >= high


def job_with_history(seed, history):
    run_dir = ROOT / "runs" / "dropout_demo" / "of-a-test"  # It does not exist.
    record = {
        "history": history,
        "pictures": {},
        "versions": {},
        "seconds": 60,
        "date": "2026-01-02",
        "device": "abacus",
        "backend": "tensorflow",
        "command": "python dropout_demo/train.py",
    }
    return Job("dropout_demo", seed, [], run_dir=run_dir, record=record)


def test_curves_of_several_networks():
    history = [
        {"epoch": epoch, "network": f"rate {rate}", "loss": rate + 1 / epoch, "note": None}
        for rate in (0, 0.5)
        for epoch in (1, 2, 3)
    ]
    history.append({"epoch": 4, "network": "rate 0.5", "loss": float("nan")})
    jobs = [job_with_history(0, history), job_with_history(1, history)]
    page = reproduce_report.page({}, [], jobs)
    [figure] = re.findall("<figure>.*?</figure>", page, re.DOTALL)
    assert figure.count("<polyline") == 2 * 2 + 2  # Two networks, two seeds, and the legend.
    assert "</svg>rate 0</li>" in figure and "</svg>rate 0.5</li>" in figure
    assert "nan" not in figure


BROWSERS = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
CHROMIUM = next((path for path in BROWSERS if path), None)


def render(path, profile):
    """The page's DOM after rendering, and what the browser logged."""
    quiet = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    quiet += " disable-component-update disable-sync headless dump-dom enable-logging=stderr v=0"
    command = [CHROMIUM, *(f"--{flag}" for flag in quiet.split()), f"--user-data-dir={profile}"]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120)
    return done.stdout, done.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_page_in_chromium(tree, tmp_path):
    assert call(tree).returncode == 1
    path = tree / "runs" / "report.html"
    dom, log = render(path, tmp_path / "profile")
    assert dom.count("<section") == 3 and dom.count("<tr") == 4 and "<polyline" in dom
    assert "CONSOLE" not in log, log

    # In a frame as wide as a phone, the body must not be wider than the frame; and an image
    # has a size only when it was decoded.
    probe = tmp_path / "probe.html"
    probe.write_text(
        f'<iframe width="360" height="800" srcdoc="{html.escape(path.read_text())}"></iframe>'
        "<script>onload = () => { const page = document.querySelector('iframe').contentDocument;"
        "console.error('probe');"
        "document.title = page.documentElement.scrollWidth + ' ' + page.images.length + ' '"
        "+ [...page.images].filter(image => image.naturalWidth).length }</script>"
    )
    dom, log = render(probe, tmp_path / "profile")
    assert "CONSOLE" in log  # The browser does report what the first check looks for.
    width, images, decoded = re.search(r"<title>(\d+) (\d+) (\d+)</title>", dom).groups()
    assert int(width) <= 360
    assert images == decoded == "4"
