"""Classifies digits, and says how unsure the network is.

python dropout_demo/predict.py                  # ten drawn digits, and an image of them
python dropout_demo/predict.py a.png DIR        # your files and folders, one digit per image
python dropout_demo/predict.py --json a.png     # one JSON object per line

The probability is the mean of many passes with dropout on, the uncertainty their standard
deviation.
"""

import json
import sys
from pathlib import Path

import common.backend  # noqa: F401  # Before Keras.

import keras
import numpy as np

from common import cli
from common.folders import find_run
from common.images import ImageFiles, save_grid
from common.run import load_model
from data import glyphs
from data.mnist import read_image
from dropout_demo.evaluate import classify


def parse_args(argv=None):
    parser = cli.parser_of_predict(__doc__)
    parser.add_argument("paths", nargs="*", type=Path, help="images and folders of images")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    run_dir = find_run("dropout_demo", args.run_dir)
    keras.utils.set_random_seed(0)  # Before loading: the same image gives the same numbers.
    network = load_model(run_dir / "model.keras")
    files = ImageFiles(args.paths, read_image)
    if args.paths:
        names = []
        images = []
        for path, image in files:
            names.append(str(path))
            images.append(image)
    else:
        names, images = draw_examples()
    results = []
    if names:
        results = classify(network, np.stack(images))
    for name, result in zip(names, results, strict=True):
        print_result(name, result, args.json)
    if not args.paths:
        titles = [f"{label}   {mean:.0%} ± {deviation:.0%}" for label, mean, deviation in results]
        save_grid(run_dir / "predictions.png", images, titles, columns=5, cell=(1.6, 1.9))
        print(f"image: {run_dir / 'predictions.png'}", file=sys.stderr)
    if files.num_unreadable > 0:
        raise SystemExit(2)
    return results


def draw_examples():
    """Ten digits of the test set, and names that say what is drawn."""
    images, labels = glyphs.load("test", 10)
    return [f"drawn {label}" for label in labels], images


def print_result(name, result, as_json):
    label, probability, uncertainty = result
    if as_json:
        line = {
            "path": name,
            "label": label,
            "probability": round(probability, 4),
            "uncertainty": round(uncertainty, 4),
        }
        print(json.dumps(line, ensure_ascii=False))
    else:
        print(f"{label}  {probability:6.1%} ± {uncertainty:5.1%}  {name}")


if __name__ == "__main__":
    cli.run(main)
