"""Answers questions, and finds the digits that are like yours.

python custom_loss/predict.py                       # questions never seen, a digit's neighbours
python custom_loss/predict.py --ask "手机能退吗"      # the three best answers, with cosines
python custom_loss/predict.py --digit a.png b.png   # the nearest known digits
python custom_loss/predict.py --json --ask "怎么开发票" "到哪了"

A run that was trained with only some of the losses does what it can.
"""

import json
from pathlib import Path

import common.backend  # noqa: F401  # Before Keras.

import numpy as np

from common import cli
from common.cli import note
from common.folders import find_run
from common.images import UNREADABLE
from custom_loss.evaluate import NUM_NEIGHBOURS, Faq, draw_neighbours, find_neighbours
from data import glyphs
from data.mnist import read_image

NUM_DEMO_DIGITS = 4


def parse_args(argv=None):
    parser = cli.parser_of_predict(__doc__)
    add = parser.add_argument
    add("--ask", nargs="+", default=[], metavar="QUESTION", help="questions to answer")
    add("--digit", nargs="+", default=[], type=Path, metavar="IMAGE", help="images of a digit")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    run_dir = find_run("custom_loss", args.run_dir)
    is_demo = not args.ask and not args.digit
    can_answer = (run_dir / "faq.json").exists()
    can_see = (run_dir / "digits.keras").exists()
    if args.ask and not can_answer:
        cli.fail(f"{run_dir} was trained without --loss triplet: it has no answers")
    if args.digit and not can_see:
        cli.fail(f"{run_dir} was trained with --loss triplet alone: it knows no digits")
    lines = []
    if args.ask or (is_demo and can_answer):
        lines += answer(run_dir, args.ask)
    if args.digit or (is_demo and can_see):
        lines += compare_digits(run_dir, args.digit, draw=not args.json)
    for line in lines:
        print(json.dumps(line, ensure_ascii=False) if args.json else as_text(line))
    return lines


# --- Questions ---
def answer(run_dir, questions):
    """A dict for each question; without questions, for those that the run kept as examples."""
    faq = Faq(run_dir)
    asked = [(question, None) for question in questions] or faq.examples
    lines = []
    for question, right in asked:
        try:
            answers = faq.ask(question)
        except ValueError as error:
            cli.fail(error)
        lines.append({"question": question, "right": right, "answers": answers})
    return lines


# --- Digits ---
def compare_digits(run_dir, paths, draw):
    """A dict for each image; without paths, for some drawn digits."""
    if paths:
        images = read_digits(paths)
        names = [str(path) for path in paths]
    else:
        images, _ = glyphs.load("test", NUM_DEMO_DIGITS)
        names = [f"drawn digit {i + 1}" for i in range(NUM_DEMO_DIGITS)]
    neighbours, gallery = find_neighbours(run_dir, images)
    if draw:
        path = run_dir / "predictions.png"
        draw_neighbours(path, images, gallery, neighbours)
        note(f"image: {path}")
    lines = []
    for name, (label, votes, nearest) in zip(names, neighbours, strict=True):
        near = [{"label": label, "distance": distance} for _, label, distance in nearest]
        lines.append({"path": name, "label": label, "votes": votes, "neighbours": near})
    return lines


def read_digits(paths):
    images = []
    for path in paths:
        try:
            image = read_image(path)
            if not image.any():
                raise ValueError("no digit to be seen in it")
        except UNREADABLE as error:
            cli.fail(f"{path}: {error}")
        images.append(image)
    return np.stack(images)


# --- Showing ---
def as_text(line):
    if "question" in line:
        return answers_as_text(line)
    near = ", ".join(f"{row['label']} at {row['distance']:.2f}" for row in line["neighbours"])
    votes = f"{line['votes']} of {NUM_NEIGHBOURS} neighbours"
    return f"{line['path']}: {line['label']}, as {votes}: {near}"


def answers_as_text(line):
    rows = [line["question"]]
    for text, cosine in line["answers"]:
        mark = ""
        if text == line["right"]:
            mark = "  <- the right one"
        rows.append(f"    {cosine:6.3f}  {text}{mark}")
    return "\n".join(rows)


if __name__ == "__main__":
    cli.run(main)
