"""Reads captchas with a trained network.

python captcha_xception/predict.py                  # ten drawn captchas, and an image of them
python captcha_xception/predict.py a.png DIR        # your files and folders
python captcha_xception/predict.py --json a.png     # one JSON object per line
"""

import json
import sys
from pathlib import Path

import common.backend  # noqa: F401  # Before Keras.

import numpy as np
from PIL import Image

from captcha_xception.dataset import read_image
from captcha_xception.evaluate import load_reader, read_captchas, save_captchas
from common import cli
from common.folders import find_run
from common.images import ImageFiles
from data import captchas


def parse_args(argv=None):
    parser = cli.parser_of_predict(__doc__)
    parser.add_argument("paths", nargs="*", type=Path, help="images and folders of images")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    run_dir = find_run("captcha_xception", args.run_dir)
    network, alphabet, size = load_reader(run_dir)
    files = ImageFiles(args.paths, lambda path: read_image(path, size))
    if args.paths:
        names = []
        images = []
        for path, image in files:
            names.append(str(path))
            images.append(image)
    else:
        names, images = draw_examples(size)
    results = []
    if images:
        results = read_captchas(network, np.stack(images), alphabet)
    for name, (text, confidence) in zip(names, results, strict=True):
        print_result(name, text, confidence, args.json)
    if not args.paths:
        titles = [f"{text} {confidence:.0%}" for text, confidence in results]
        save_captchas(run_dir / "predictions.png", images, titles)
        print(f"image: {run_dir / 'predictions.png'}", file=sys.stderr)
    if files.num_unreadable > 0:
        raise SystemExit(2)
    return results


def draw_examples(size):
    """Ten captchas of the test set, and names that say what is drawn."""
    names = []
    images = []
    for index in range(10):
        image, label = captchas.draw_captcha(captchas.SEEDS["test"], index)
        images.append(Image.fromarray(image).resize(size))
        names.append(f"drawn {label}")
    return names, images


def print_result(name, text, confidence, as_json):
    if as_json:
        line = {"path": name, "text": text, "confidence": round(confidence, 4)}
        print(json.dumps(line, ensure_ascii=False))
    else:
        print(f"{text}  {confidence:6.1%}  {name}")


if __name__ == "__main__":
    cli.run(main)
