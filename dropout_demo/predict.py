"""Classifies digits, and says how unsure the network is.

python dropout_demo/predict.py                  # ten drawn digits, and a picture
python dropout_demo/predict.py a.png DIR        # your files and folders, one digit a picture
python dropout_demo/predict.py --json a.png     # one JSON object a line

The probability is the mean of many passes with dropout on, the uncertainty their standard
deviation.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from common.pictures import UNREADABLE
from common.run import fail, find_run, keras, load_file, run_script
from data import glyphs
from data.mnist import read_picture
from dropout_demo.pictures import draw_predictions, picture_paths
from dropout_demo.train import monte_carlo


def classify(model, pictures, passes=100):
    """A list of (label, probability, uncertainty); pictures: uint8 (n, 28, 28)."""
    probabilities = monte_carlo(model, pictures, passes)
    labels = probabilities.mean(0).argmax(-1)
    chosen = probabilities[:, np.arange(len(labels)), labels]
    return list(zip(labels.tolist(), chosen.mean(0).tolist(), chosen.std(0).tolist(), strict=True))


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path, help="pictures and folders of pictures")
    parser.add_argument("--run-dir", type=Path, metavar="RUN", help="default: the newest run")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    run_dir = find_run("dropout_demo", args.run_dir)
    keras.utils.set_random_seed(0)  # Before loading: the same picture, the same numbers.
    model = load_file(run_dir / "model.keras")
    names, pictures, unreadable = [], [], 0
    for path in args.paths:
        found = picture_paths(path) if path.is_dir() else [path]
        if not found:
            fail(f"no pictures in {path}")
        for file in found:
            try:
                pictures.append(read_picture(file))
                names.append(str(file))
            except UNREADABLE as error:
                print(f"error: {file}: {error}", file=sys.stderr)
                unreadable += 1
    if not args.paths:
        pictures, labels = glyphs.load("test", 10)
        names = [f"drawn {label}" for label in labels]
    read = classify(model, np.stack(pictures)) if names else []
    for name, (label, probability, uncertainty) in zip(names, read, strict=True):
        if args.json:
            line = {"path": name, "label": label, "probability": round(probability, 4)}
            line["uncertainty"] = round(uncertainty, 4)
            print(json.dumps(line, ensure_ascii=False))
        else:
            print(f"{label}  {probability:6.1%} ± {uncertainty:5.1%}  {name}")
    if not args.paths:
        texts = [f"{label}   {p:.0%} ± {u:.0%}" for label, p, u in read]
        draw_predictions(run_dir / "predictions.png", pictures, texts)
        print(f"picture: {run_dir / 'predictions.png'}", file=sys.stderr)
    if unreadable:
        raise SystemExit(2)
    return read


if __name__ == "__main__":
    run_script(main)
