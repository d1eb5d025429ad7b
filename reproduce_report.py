"""The page runs/report.html: the table, the curves and the images in one offline file.

The page itself is the Jinja2 template reproduce_report.html.j2; this module collects what it shows.
"""

import ast
import base64
import math
import mimetypes
import re
from pathlib import Path

from common.files import ROOT
from common.html import render
from common.jobs import FINISHED, read_log

TEMPLATE = Path(__file__).with_suffix(".html.j2")
STATUS_COLOURS = {
    "reproduced": "good",
    "beaten": "good",
    "same trend": "near",
    "differs": "off",
}
NUM_COLOURS = 8  # Of curves.

# The plot of a chart, in units of the SVG: 320 wide, 198 high.
LEFT = 46
RIGHT = 312
TOP = 8
BOTTOM = 176


def page(facts, rows, jobs):
    """The report as one HTML text.

    Args:
        facts: {name: text} about this call.
        rows: the table of reproduce.py, one dict of texts per row.
        jobs: what was run.
    """
    records = [job.record for job in jobs if job.record]
    succeeded = [job for job in jobs if not job.failure]
    facts = dict(facts)
    facts["device"] = join_values(records, "device")
    facts["backend"] = join_values(records, "backend")
    experiments = dict.fromkeys(job.experiment for job in jobs)
    return render(
        TEMPLATE.read_text(encoding="utf-8"),
        num_colours=NUM_COLOURS,
        outcome=f"{len(succeeded)} of {len(jobs)} runs succeeded.",
        facts=facts,
        rows=[table_row(row) for row in rows],
        sections=[
            section(name, [job for job in jobs if job.experiment == name]) for name in experiments
        ],
    )


def join_values(records, key):
    return ", ".join(sorted({record[key] for record in records})) or "unknown"


def table_row(row):
    """The texts of a row, with the main part of a cell apart from what stands below it."""
    value, _, interval = row["ours (95%)"].partition(" ")
    if row["status"].startswith("failed"):
        status = row["status"]
        note = ""
        colour = "bad"
    else:
        status, _, note = row["status"].partition("; ")
        colour = STATUS_COLOURS.get(status, "none")
    return {
        "experiment": row["experiment"],
        "what": row["what"],
        "post": row["post"],
        "value": value,
        "interval": interval.strip("()"),
        "data": row["data"],
        "minutes": row["minutes"],
        "status": status,
        "note": note,
        "colour": colour,
    }


# --- Sections ---
def section(experiment, jobs):
    """What the page shows of one experiment."""
    docstring = ast.get_docstring(ast.parse((ROOT / experiment / "train.py").read_bytes())) or ""
    first_paragraph = docstring.partition("\n\n")[0]
    post = re.search(r"https://kexue\.fm/archives/\d+", docstring)
    jobs_with_record = [job for job in jobs if job.record]
    content = {
        "name": experiment,
        "about": " ".join(first_paragraph.split()),
        "post": None,
        "charts": charts([job.record["history"] for job in jobs_with_record]),
        "images": [],
        "runs": [run(job) for job in jobs],
    }
    if post is not None:
        content["post"] = post[0]
    if jobs_with_record:
        content["seed_of_images"] = jobs_with_record[0].seed
        content["images"] = images(jobs_with_record[0])
    return content


def run(job):
    """What one run was, and what its predict.py printed; of a failed run the end of its log."""
    facts = {}
    if job.record:
        versions = [f"{package} {version}" for package, version in job.record["versions"].items()]
        facts["train.py took"] = f"{job.record['seconds'] / 60:.1f} minutes"
        facts["date"] = job.record["date"]
        facts["device"] = job.record["device"]
        facts["versions"] = ", ".join(versions)
        facts["command"] = job.record["command"]
    facts["folder"] = job.run_dir.relative_to(ROOT)
    log = ""
    if job.log.exists():
        log = read_log(job.log)
    return {
        "seed": job.seed,
        "recorded": job.record and job.recorded,
        "failure": job.failure,
        "facts": facts,
        "output": output_to_show(job, log),
    }


def output_to_show(job, log):
    if job.failure:
        return "\n".join(log.splitlines()[-20:])
    output = re.split(r"^\$ .*predict\.py.*\n", log, flags=re.M)[-1]
    output = output.removesuffix(FINISHED).strip()
    if output:
        output = f"predict.py printed:\n\n{output}"
    return output


def images(job):
    """The image that predict.py draws and those of the record: name, caption, address.

    The address holds the image itself; None: the file is missing.
    """
    captions = {"predictions.png": "What predict.py made of it"}
    captions.update(job.record["pictures"])
    shown = []
    for name, caption in captions.items():
        path = job.run_dir / name
        address = None
        if path.exists():
            kind, _ = mimetypes.guess_type(name)
            address = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
        # Not every predict.py draws an image, so a missing one is worth a line only if recorded.
        if address is not None or name in job.record["pictures"]:
            shown.append({"name": name, "caption": caption, "address": address})
    return shown


# --- Curves ---
def charts(histories):
    """One chart per metric: training dashed, validation solid, every run a line of its own.

    Args:
        histories: of the runs. Texts in a history entry name the network that it belongs to,
            where a run trains several.
    """
    curves = {}  # {metric: {(network, is validation): [line, ...]}}, a line is [(epoch, value)].
    for history in histories:
        for training in split_at_restarts(history):
            for (metric, network, validation), line in lines_of(training).items():
                lines = curves.setdefault(metric, {}).setdefault((network, validation), [])
                lines.append(line)
    return [chart(metric, lines) for metric, lines in curves.items()]


def split_at_restarts(history):
    """The history in parts of growing epochs, as each training of a run begins at epoch 1."""
    trainings = []
    last_epoch = math.inf
    for entry in history:
        if entry["epoch"] <= last_epoch:
            trainings.append([])
        trainings[-1].append(entry)
        last_epoch = entry["epoch"]
    return trainings


def lines_of(training):
    """{(metric, network, is validation): [(epoch, value), ...]} of the finite numbers."""
    lines = {}
    for entry in training:
        network = ", ".join(value for value in entry.values() if isinstance(value, str))
        for key, value in entry.items():
            is_number = isinstance(value, int | float) and math.isfinite(value)
            if key == "epoch" or not is_number:
                continue
            metric = key.removeprefix("val_")
            line = lines.setdefault((metric, network, key.startswith("val_")), [])
            line.append((entry["epoch"], value))
    return lines


def chart(metric, curves):
    """What the template draws of a metric.

    Args:
        curves: {(network, is validation): [line, ...]}.
    """
    points = [point for lines in curves.values() for line in lines for point in line]
    epochs = [epoch for epoch, _ in points]
    values = [value for _, value in points]
    first, last = min(epochs), max(epochs)
    value_ticks = ticks(min(values), max(values))
    lowest, highest = value_ticks[0], value_ticks[-1]

    def x(epoch):
        return f"{LEFT + (RIGHT - LEFT) * (epoch - first) / max(last - first, 1):.1f}"

    def y(value, shift=0):
        return f"{BOTTOM - (BOTTOM - TOP) * (value - lowest) / (highest - lowest) + shift:.1f}"

    drawn = []
    legend = []
    for (network, validation), lines in curves.items():
        style = curve_style(network, validation, curves)
        if style["name"]:
            legend.append(style)
        for line in lines:
            end_epoch, end_value = line[-1]
            drawn.append(
                {
                    "style": style,
                    "points": " ".join(f"{x(epoch)},{y(value)}" for epoch, value in line),
                    "end": (x(end_epoch), y(end_value)),
                }
            )
    epoch_ticks = sorted({round(first + (last - first) * i / 4) for i in range(5)})
    return {
        "title": f"{metric.replace('_', ' ')} by epoch",
        "label": f"{metric} by epoch, from {values[0]:.4g} to {values[-1]:.4g}",
        "frame": {"left": LEFT, "right": RIGHT},
        "value_ticks": [
            {"text": f"{tick:g}", "y": y(tick), "text_y": y(tick, shift=4)} for tick in value_ticks
        ],
        "epoch_ticks": [{"text": epoch, "x": x(epoch)} for epoch in epoch_ticks],
        "lines": drawn,
        "legend": legend,
    }


def curve_style(network, validation, curves):
    """The colour, the dashes and the name of a curve.

    A colour stands for a network; where there is only one, for training or validation.
    """
    networks = list(dict.fromkeys(name for name, _ in curves))
    if len(networks) > 1:
        colour = networks.index(network) % NUM_COLOURS
    else:
        colour = int(validation)
    names = []
    if network:
        names.append(network)
    has_both = (network, not validation) in curves
    if has_both and validation:
        names.append("validation")
    elif has_both:
        names.append("training")
    return {
        "colour": f"c{colour}",
        "dashed": has_both and not validation,
        "name": ", ".join(names),
    }


def ticks(low, high):
    """About five round numbers that enclose low and high."""
    rough_step = max((high - low) / 4, abs(high) * 1e-3, 1e-9)
    power = 10 ** math.floor(math.log10(rough_step))
    step = next(power * i for i in (1, 2, 5, 10) if power * i >= rough_step * 0.999)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [round(i * step, 12) for i in range(first, last + 1)]
