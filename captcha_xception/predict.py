"""Reads captchas with a trained model.

python captcha_xception/predict.py                  # ten drawn captchas, and a picture
python captcha_xception/predict.py a.png DIR        # your files and folders
python captcha_xception/predict.py --json a.png     # one JSON object a line
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from captcha_xception.pictures import picture_grid, picture_paths, read_picture
from captcha_xception.train import load_run
from common.pictures import UNREADABLE
from common.run import fail, find_run, run_script
from data import captchas


def read_captchas(model, pictures, alphabet):
    """A list of (text, confidence); pictures: uint8 (n, height, width, 3) of the run's size.

    The confidence is the product of the probabilities of the characters.
    """
    probabilities = model.predict(pictures, batch_size=256, verbose=0)
    texts = ["".join(alphabet[i] for i in row) for row in probabilities.argmax(-1)]
    return list(zip(texts, probabilities.max(-1).prod(-1).tolist(), strict=True))


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
    run_dir = find_run("captcha_xception", args.run_dir)
    model, alphabet, size = load_run(run_dir)
    names, pictures, unreadable = [], [], 0
    if args.paths:
        for path in args.paths:
            found = picture_paths(path) if path.is_dir() else [path]
            if not found:
                fail(f"no pictures in {path}")
            for file in found:
                try:
                    pictures.append(read_picture(file, size))
                    names.append(str(file))
                except UNREADABLE as error:
                    print(f"error: {file}: {error}", file=sys.stderr)
                    unreadable += 1
    else:
        for index in range(10):
            picture, label = captchas.draw_captcha(captchas.SEEDS["test"], index)
            pictures.append(Image.fromarray(picture).resize(size))
            names.append(f"drawn {label}")
    read = read_captchas(model, np.stack(pictures), alphabet) if pictures else []
    for name, (text, confidence) in zip(names, read, strict=True):
        if args.json:
            line = {"path": name, "text": text, "confidence": round(confidence, 4)}
            print(json.dumps(line, ensure_ascii=False))
        else:
            print(f"{text}  {confidence:6.1%}  {name}")
    if not args.paths:
        texts = [f"{text} {confidence:.0%}" for text, confidence in read]
        picture_grid(run_dir / "predictions.png", pictures, texts)
        print(f"picture: {run_dir / 'predictions.png'}", file=sys.stderr)
    if unreadable:
        raise SystemExit(2)
    return read


if __name__ == "__main__":
    run_script(main)
