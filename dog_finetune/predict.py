"""Says what is in a picture, with a trained network.

python dog_finetune/predict.py                       # test pictures: a grid of hits and misses
python dog_finetune/predict.py a.jpg DIR --tta 4     # your files and folders, the five best
python dog_finetune/predict.py --explain a.jpg       # where it looked (Grad-CAM), as a picture
python dog_finetune/predict.py --submission out.txt DIR    # the contest's lines, CLASS<TAB>ID
python dog_finetune/predict.py --export onnx
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

import numpy as np

from common.damage import first_line
from common.pictures import UNREADABLE
from common.run import fail, find_run, keras, load_file, ops, run_script, write_text
from dog_finetune.features import CHUNK, predict
from dog_finetune.pictures import (
    MOST_VIEWS,
    fixed_view,
    heat,
    picture_grid,
    picture_paths,
    read_picture,
)
from dog_finetune.report import blend, scaled

MOST_SHOWN = 60  # Pictures in a grid.


def load_run(run_dir):
    """The network of a run, and its notes: classes, size, share of the main head, temperature."""
    notes = load_file(run_dir / "classes.json")
    needed = {"classes", "share", "temperature", "temperature_of_views", "image_size"}
    if not needed <= set(notes):
        fail(f"{run_dir / 'classes.json'} is damaged")
    return load_file(run_dir / "model.keras"), notes


def probabilities(model, notes, pictures, views=1):
    """Blended over the heads, the mean over so many fixed views: (n, classes)."""
    total = 0
    for number in range(views):
        shown = np.stack([fixed_view(picture, number) for picture in pictures])
        heads = predict(model, shown)
        total = total + blend(heads, notes["share"])
    return scaled(total / views, notes["temperature" if views == 1 else "temperature_of_views"])


def head_gradient(heads, vector, label, share):
    """How the blended logit of a class changes with each entry of the vector (entries,)."""
    weights = {layer.name: layer.get_weights() for layer in heads.layers if layer.weights}
    gradient = weights["main"][0][:, label]
    if "gate" in weights:
        (linear, bias), (gate, gate_bias) = weights["linear"], weights["gate"]
        opened = 1 / (1 + np.exp(-(vector @ gate + gate_bias)))
        slope = (vector @ linear + bias) * opened * (1 - opened)
        gradient = linear @ (gradient * opened) + gate @ (gradient * slope)
    if "auxiliary" in weights:
        gradient = share * gradient + (1 - share) * weights["auxiliary"][0][:, label]
    return gradient


def explain(model, notes, pictures, labels):
    """Grad-CAM: for each picture the shares (rows, columns), 0 to 1, of places in its label.

    Behind the feature maps stand only their mean and the heads, so the gradient is known in
    closed form, on every backend.
    """
    stem, tail, heads = (model.get_layer(name) for name in ("stem", "tail", "heads"))
    places = keras.Model(tail.input, tail.layers[-1].input)
    shares = []
    for maps, label in zip(predict(places, predict(stem, pictures)), labels, strict=True):
        gradient = head_gradient(heads, maps.mean((0, 1)), label, notes["share"])
        weights = np.maximum(maps @ gradient, 0)
        shares.append(weights / max(weights.max(), 1e-9))
    return shares


def export(model, notes, run_dir, kind):
    """The network with one output, in another format; returns its path."""
    name, format = {
        "onnx": ("model.onnx", "onnx"),
        "saved_model": ("saved_model", "tf_saved_model"),
    }[kind]
    logits = ops.log(blend(model.output, notes["share"]) + 1e-12) / notes["temperature"]
    single = keras.Model(model.input, ops.softmax(logits))
    try:
        single(np.zeros((1, *model.input.shape[1:]), "uint8"))  # Keras wants a called model.
        single.export(run_dir / name, format=format, verbose=False)
    except Exception as error:  # Of many kinds, from whichever converter is missing.
        reason = first_line(error)
        hint = '; pip install -e ".[onnx]" may help' if kind == "onnx" else ""
        fail(f"--export {kind} is not possible with {keras.backend.backend()} here: {reason}{hint}")
    return run_dir / name


def list_files(paths):
    """The files of paths and folders."""
    files = []
    for path in paths:
        found = picture_paths(path) if path.is_dir() else [path]
        files += found or fail(f"no pictures in {path} itself")
    return files


def read_each(files, size):
    """Yields each file with its picture, None if it cannot be read: then a line says so."""
    for file in files:
        try:
            picture = read_picture(file, size)
        except UNREADABLE as error:
            print(f"error: {file}: {error}", file=sys.stderr)
            picture = None
        yield file, picture


def draw(path, model, notes, pictures, lines, truths=None, explained=False):
    """A grid of pictures and what was said of them: hit or miss, and where the network looked."""
    texts = [f"{line['label']} {line['probability']:.0%}" for line in lines]
    for i, (line, truth) in enumerate(zip(lines, truths or [], strict=False)):
        texts[i] += "\nhit" if truth == line["label"] else f"\nMISS: {truth}"
    if explained:
        labels = [notes["classes"].index(line["label"]) for line in lines]
        seen = map(heat, pictures, explain(model, notes, np.stack(pictures), labels))
        pictures = [picture for pair in zip(pictures, seen, strict=True) for picture in pair]
        texts = [text for t in texts for text in (t, "where it looked")]
    picture_grid(path, pictures, texts)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("paths", nargs="*", type=Path, help="pictures and folders of pictures")
    add("--tta", type=int, default=1, metavar="N", help="mean over N views; default: 1")
    add("--explain", action="store_true", help=f"where it looked, at most {MOST_SHOWN} pictures")
    add("--submission", type=Path, metavar="FILE", help="write lines CLASS<TAB>ID")
    add("--export", choices=("onnx", "saved_model"), help="write the network for other programs")
    add("--run-dir", type=Path, metavar="RUN", help="default: the newest run")
    add("--json", action="store_true", help="one JSON object a line")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    if not 1 <= args.tta <= MOST_VIEWS:
        fail(f"--tta: expected 1 to {MOST_VIEWS}")
    if args.submission and not args.paths:
        fail("--submission needs pictures: give files or folders")
    if args.submission and (args.submission.is_dir() or not args.submission.parent.is_dir()):
        fail(f"--submission {args.submission}: expected a file in a folder that is there")
    run_dir = find_run("dog_finetune", args.run_dir)
    model, notes = load_run(run_dir)
    names = notes["classes"]
    if args.export:
        if args.paths:
            fail("--export takes no pictures: it writes the network")
        print(export(model, notes, run_dir, args.export))
        return []
    truths = None
    if args.paths:
        found = read_each(list_files(args.paths), notes["image_size"])
    else:
        examples = load_file(run_dir / "examples.npz")
        truths = [names[label] for label in examples["labels"]]
        found = [(f"test picture {n}", x) for n, x in enumerate(examples["pictures"], 1)]
    found, lines, shown, unreadable = iter(found), [], [], 0
    while chunk := list(itertools.islice(found, CHUNK)):
        unreadable += sum(picture is None for _, picture in chunk)
        chunk = [(file, picture) for file, picture in chunk if picture is not None]
        if not chunk:
            continue
        files, some = zip(*chunk, strict=True)
        shares = probabilities(model, notes, some, args.tta)
        best = np.argsort(-shares, -1, kind="stable")[:, :5]
        for file, share, top in zip(files, shares, best, strict=True):
            top5 = [[names[i], round(float(share[i]), 4)] for i in top]
            line = {"path": str(file), "label": top5[0][0], "probability": top5[0][1]}
            line["top5"] = top5
            truth = truths[len(lines)] if truths else None
            lines.append(line)
            if args.json:
                print(json.dumps(line, ensure_ascii=False))
                continue
            text = ", ".join(f"{name} {share:.1%}" for name, share in top5)
            print(f"{file}: {text}" + (f"  (it is {truth})" if truths else ""))
        if args.explain or truths:
            shown += some[: MOST_SHOWN - len(shown)]
    if args.submission and lines:
        rows = [f"{line['label']}\t{Path(line['path']).stem}\n" for line in lines]
        write_text(args.submission, "".join(rows))
    if shown:
        path = run_dir / ("explained.png" if args.explain else "predictions.png")
        draw(path, model, notes, shown, lines[: len(shown)], truths, args.explain)
        first = f", the first {len(shown)}" if len(shown) < len(lines) else ""
        print(f"picture: {path}{first}", file=sys.stderr)
    if unreadable:
        raise SystemExit(2)
    return lines


if __name__ == "__main__":
    run_script(main)
