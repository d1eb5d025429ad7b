"""runs/report.html: one offline page with the table, the curves and the pictures."""

import ast
import base64
import math
import mimetypes
import re
from html import escape

STYLE = """
:root { color-scheme: light dark; --ground: #fbfbfa; --card: #fff; --ink: #1c1d21;
  --soft: #62656e; --line: #e3e3e0; --good: #137a4b; --near: #1d5fc4; --off: #a35200;
  --bad: #c02b2b; --c0: #2b6cd4; --c1: #d9660a; --c2: #0c8a7d; --c3: #b83280; --c4: #7446c9;
  --c5: #6b8e06; --c6: #8a6d3b; --c7: #5f6b7a; }
@media (prefers-color-scheme: dark) { :root { --ground: #141518; --card: #1c1e22; --ink: #e9e9e6;
  --soft: #a0a4ad; --line: #33363c; --good: #4fc98d; --near: #7fb0ff; --off: #f0a04b;
  --bad: #ff7b72; --c0: #6ea8ff; --c1: #ff9d4d; --c2: #3ccfbe; --c3: #f080bd; --c4: #b594ff;
  --c5: #a9cf3d; --c6: #d0b07a; --c7: #a3afbd; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 74rem; padding: 2.5rem 1.25rem 5rem; background: var(--ground);
  color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
  "PingFang SC", "Microsoft YaHei", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; line-height: 1.2; letter-spacing: -.02em; margin: 0 0 .3rem; }
h2 { font-size: 1.35rem; letter-spacing: -.01em; margin: 0 0 .3rem; }
h3 { font-size: .8rem; letter-spacing: .06em; text-transform: uppercase; color: var(--soft);
  margin: 2rem 0 .7rem; }
p { margin: 0 0 1rem; max-width: 44rem; }
a { color: var(--near); text-underline-offset: .15em; }
code, pre { font: .85em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { margin: .75rem 0; padding: .9rem 1rem; overflow: auto; max-height: 24rem;
  border: 1px solid var(--line); border-radius: .5rem; white-space: pre-wrap; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr));
  gap: 1rem 2rem; margin: 1.5rem 0 2rem; padding: 1rem 0; border: solid var(--line);
  border-width: 1px 0; }
dt { font-size: .78rem; color: var(--soft); }
dd { margin: 0; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--near); }
table { border-collapse: collapse; width: 100%; min-width: 46rem; font-size: .92rem;
  overflow-wrap: normal; }
th, td { padding: .7rem .9rem; text-align: left; vertical-align: top; }
thead th { font-size: .78rem; font-weight: 600; color: var(--soft); white-space: nowrap; }
tbody tr > * { border-top: 1px solid var(--line); }
tbody th { font-weight: 600; }
small { display: block; color: var(--soft); font-size: .85em; font-weight: 400; }
td b { font-size: 1.1em; font-variant-numeric: tabular-nums; }
td b, td b + small { white-space: nowrap; }
.status { min-width: 10rem; max-width: 22rem; overflow-wrap: anywhere; }
.status::before { content: ""; display: inline-block; width: .55em; height: .55em;
  margin-right: .5em; border-radius: 50%; background: currentColor; }
.good { color: var(--good); } .near { color: var(--near); } .off { color: var(--off); }
.bad { color: var(--bad); } .none { color: var(--soft); }
section { margin-top: 3.5rem; padding-top: 2rem; border-top: 1px solid var(--line); }
.charts { display: grid; gap: 1.25rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
figure { margin: 0; padding: 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; }
figure svg, figure img { display: block; width: 100%; height: auto; }
.pictures { display: flex; flex-wrap: wrap; gap: 1.25rem; }
.pictures figure { flex: 1 1 auto; max-width: 100%; }
.pictures img { width: auto; max-width: 100%; margin: 0 auto; border-radius: .3rem;
  background: #fff; }
figcaption { font-size: .9rem; color: var(--soft); }
.pictures figcaption { margin-top: .7rem; }
.charts figcaption { color: var(--ink); font-weight: 600; margin-bottom: .4rem; }
svg text { font-size: 11px; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); }
svg polyline { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
svg .dashed { stroke-dasharray: 4 3; stroke-width: 1.5; }
svg circle { fill: currentColor; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .5rem 0 0; padding: 0;
  list-style: none; font-size: .82rem; color: var(--soft); }
.legend svg { display: inline-block; width: 1.5rem; height: .6rem; margin-right: .4rem; }
details { margin-top: .6rem; padding: .6rem 1rem; background: var(--card);
  border: 1px solid var(--line); border-radius: .6rem; }
summary { cursor: pointer; }
details .facts { display: block; margin: .8rem 0; padding: 0; border: 0; font-size: .9rem; }
details .facts div { display: grid; grid-template-columns: 7rem 1fr; padding: .15rem 0; }
""" + "".join(f".c{i} {{ color: var(--c{i}); }}\n" for i in range(8))

HEADS = {"post": "post's claim"}
KINDS = {"reproduced": "good", "beaten": "good", "same trend": "near", "differs": "off"}


def page(root, facts, columns, rows, jobs):
    """The report as one HTML text; `jobs` are what reproduce.py ran, `rows` its table."""
    names = list(dict.fromkeys(job.experiment for job in jobs))
    records = [job.record for job in jobs if job.record]
    for key in ("device", "backend"):
        facts = facts | {key: ", ".join(sorted({record[key] for record in records})) or "unknown"}
    failed = sum(bool(job.reason) for job in jobs)
    outcome = f"{len(jobs) - failed} of {len(jobs)} runs succeeded."
    sections = [section(root, name, [j for j in jobs if j.experiment == name]) for name in names]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>kexue-keras: what the posts claim, what we measure</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>What the posts claim, what we measure</h1>
<p>Experiments of the blog kexue.fm, run again in Keras 3. {outcome}</p>
{fact_list(facts)}
</header>
<main>
{table([name for name in columns if name != "what"], rows)}
{"".join(sections)}
</main>
</body>
</html>
"""


def fact_list(facts):
    items = (f"<div><dt>{escape(k)}</dt><dd>{escape(str(v))}</dd></div>" for k, v in facts.items())
    return f'<dl class="facts">{"".join(items)}</dl>'


def table(columns, rows):
    head = "".join(f'<th scope="col">{HEADS.get(name, name)}</th>' for name in columns)
    body = "".join(f"<tr>{''.join(cell(name, row) for name in columns)}</tr>" for row in rows)
    return (
        '<div class="scroll" role="region" aria-label="Results" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def cell(name, row):
    text = escape(str(row[name]))
    if name == "experiment":
        what = escape(row["what"])
        return f'<th scope="row"><a href="#{text}">{text}</a><small>{what}</small></th>'
    if name == "status":
        word, _, note = text.partition("; ")
        kind = "bad" if text.startswith("failed") else KINDS.get(word, "none")
        word, note = (text, "") if kind == "bad" else (word, note)
        return f'<td><div class="status {kind}">{word}<small>{note}</small></div></td>'
    if name == "ours (95%)":
        value, _, interval = text.partition(" ")
        return f"<td><b>{value}</b><small>{interval.strip('()')}</small></td>"
    return f"<td>{text}</td>"


def section(root, name, jobs):
    docstring = ast.get_docstring(ast.parse((root / name / "train.py").read_bytes())) or ""
    about = escape(" ".join(docstring.partition("\n\n")[0].split()))
    post = re.search(r"https://kexue\.fm/archives/\d+", docstring)
    link = f' <a href="{post[0]}">The post</a>' if post else ""
    curves = "".join(charts([(job.seed, job.record["history"]) for job in jobs if job.record]))
    curves = f'<h3>Curves</h3><div class="charts">{curves}</div>' if curves else ""
    first = next((job for job in jobs if job.record), None)
    shown = "".join(pictures(first)) if first else ""
    shown = (
        f'<h3>Pictures, seed {first.seed}</h3><div class="pictures">{shown}</div>' if shown else ""
    )
    runs = "".join(run(root, job) for job in jobs)
    return (
        f'<section id="{name}"><h2>{name}</h2><p>{about}{link}</p>'
        f"{curves}{shown}<h3>Runs</h3>{runs}</section>"
    )


def read_log(path):
    """The text of a log, without the greetings that TensorFlow cannot be kept from printing."""
    text = path.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
    return re.sub(r"^(WARNING: All log messages before absl|[IW]0000 ).*\n", "", text, flags=re.M)


def run(root, job):
    """What one run was, and what its predict.py (or, when it failed, all of it) printed."""
    log = read_log(job.log) if job.log.exists() else ""
    facts, title = {}, f"seed {job.seed}"
    if job.record:
        versions = ", ".join(" ".join(item) for item in job.record["versions"].items())
        facts = {"train.py took": f"{job.record['seconds'] / 60:.1f} minutes"}
        facts |= {"date": job.record["date"], "device": job.record["device"], "versions": versions}
        facts |= {"command": job.record["command"]}
        title += ", recorded before" if job.recorded else ""
    if job.reason:
        output = "\n".join(log.splitlines()[-20:])
        title += f": <span class=bad>failed: {escape(job.reason)}</span>"
    else:
        output = re.split(r"^\$ .*predict\.py.*\n", log, flags=re.M)[-1].removesuffix(
            "# finished\n"
        )
        output = output.strip() and f"predict.py printed:\n\n{output.strip()}"
    facts |= {"folder": job.run_dir.relative_to(root)}
    output = f"<pre>{escape(output)}</pre>" if output else ""
    state = "open" if job.reason else ""
    return f"<details {state}><summary>{title}</summary>{fact_list(facts)}{output}</details>"


def pictures(job):
    """The record's pictures and the one that predict.py draws, each in the page itself."""
    listed = job.record["pictures"]
    for name, caption in ({"predictions.png": "What predict.py made of it"} | listed).items():
        path = job.run_dir / name
        if path.exists():
            kind, _ = mimetypes.guess_type(name)
            data = base64.b64encode(path.read_bytes()).decode()
            image = f'<img src="data:{kind};base64,{data}" alt="{escape(caption)}">'
            yield f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"
        elif name in listed:
            yield f"<p>{escape(name)} ({escape(caption)}) is missing in the run folder.</p>"


def charts(histories):
    """One figure per metric: training dashed, validation solid, every seed a line of its own.

    Texts in a history entry name the network it belongs to, where a run trains several.
    """
    found = {}  # {metric: {(network, is validation): {(seed, restart): [(epoch, value)]}}}
    for seed, history in histories:
        restart, last = 0, 0
        for entry in history:
            restart += entry["epoch"] <= last
            last = entry["epoch"]
            network = ", ".join(value for value in entry.values() if isinstance(value, str))
            for key, value in entry.items():
                number = isinstance(value, int | float) and math.isfinite(value)
                if key == "epoch" or not number:
                    continue
                kinds = found.setdefault(key.removeprefix("val_"), {})
                lines = kinds.setdefault((network, key.startswith("val_")), {})
                lines.setdefault((seed, restart), []).append((entry["epoch"], value))
    for metric, kinds in found.items():
        networks = list(dict.fromkeys(network for network, _ in kinds))
        drawn, legend = [], []
        for (network, validation), lines in kinds.items():
            colour = networks.index(network) % 8 if networks[1:] else int(validation)
            paired = (network, not validation) in kinds
            style = f"c{colour}", "" if validation or not paired else "dashed"
            part = ("validation" if validation else "training") if paired else ""
            drawn += [(style, points) for points in lines.values()]
            legend.append((style, ", ".join(filter(None, (network, part)))))
        yield figure(metric, drawn, legend)


def figure(metric, drawn, legend):
    points = [point for _, line in drawn for point in line]
    epochs, values = ([point[i] for point in points] for i in (0, 1))
    first, last = min(epochs), max(epochs)
    across = sorted({round(first + (last - first) * i / 4) for i in range(5)})
    up = ticks(min(values), max(values))
    left, right, top, bottom = 46, 312, 8, 176

    def x(epoch):
        return left + (right - left) * (epoch - first) / max(last - first, 1)

    def y(value):
        return bottom - (bottom - top) * (value - up[0]) / (up[-1] - up[0])

    parts = [
        f'<line class="grid" x1="{left}" x2="{right}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>'
        f'<text x="{left - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
        for v in up
    ]
    parts += [
        f'<text x="{x(epoch):.1f}" y="192" text-anchor="middle">{epoch}</text>' for epoch in across
    ]
    for (colour, dash), line in drawn:
        path = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in line)
        end = f'<circle cx="{x(line[-1][0]):.1f}" cy="{y(line[-1][1]):.1f}" r="2.5"/>'
        parts.append(f'<g class="{colour}"><polyline class="{dash}" points="{path}"/>{end}</g>')
    name = escape(metric.replace("_", " "))
    ends = escape(f"{metric} by epoch, from {values[0]:.4g} to {values[-1]:.4g}")
    swatches = "".join(
        f'<li><svg viewBox="0 0 24 8" class="{colour}" aria-hidden="true">'
        f'<polyline class="{dash}" points="0,4 24,4"/></svg>{escape(text)}</li>'
        for (colour, dash), text in legend
        if text
    )
    keys = f'<ul class="legend">{swatches}</ul>' if swatches else ""
    return (
        f"<figure><figcaption>{name} by epoch</figcaption>"
        f'<svg viewBox="0 0 320 198" role="img" aria-label="{ends}">{"".join(parts)}</svg>'
        f"{keys}</figure>"
    )


def ticks(low, high):
    """About five round numbers that enclose low and high."""
    rough = max((high - low) / 4, abs(high) * 1e-3, 1e-9)
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * i for i in (1, 2, 5, 10) if power * i >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]
