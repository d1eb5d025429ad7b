"""Answers questions, and finds the digits that are like yours.

python custom_loss/predict.py                       # questions never seen, a digit's neighbours
python custom_loss/predict.py --ask "手机能退吗"      # the three best answers, with cosines
python custom_loss/predict.py --digit a.png b.png   # the nearest known digits
python custom_loss/predict.py --json --ask "怎么开发票" "到哪了"

A run that was trained with only some of the losses does what it can.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from common.pictures import UNREADABLE
from common.run import fail, find_run, load_file, run_script
from custom_loss.digits import apply, draw_neighbours
from custom_loss.texts import LENGTH, encode, encode_question
from data import glyphs
from data.mnist import read_picture

NEAREST, ANSWERS = 5, 3


class Faq:
    """The encoders of a run and its answers."""

    def __init__(self, run_dir):
        self.saved = load_file(run_dir / "faq.json")
        self.question_encoder = load_file(run_dir / "question_encoder.keras")
        answers = encode(self.saved["answers"], self.saved["vocabulary"], LENGTH)
        encoder = load_file(run_dir / "answer_encoder.keras")
        self.vectors = apply(encoder, answers)

    def ask(self, question):
        """The best answers with their cosines. Raises ValueError for an unreadable question."""
        ids = encode_question(question, self.saved["vocabulary"], LENGTH)
        if len(question.strip()) > LENGTH:
            print(f"{question[:10]}...: {LENGTH} characters are read", file=sys.stderr)
        cosines = self.vectors @ apply(self.question_encoder, ids)[0]
        best = np.argsort(-cosines, kind="stable")[:ANSWERS]
        return [(self.saved["answers"][i], float(cosines[i])) for i in best]


def find_neighbours(run_dir, pictures):
    """[(label, its votes, [(place in the gallery, label, distance), ...]), ...] and the gallery.

    The label is that of most neighbours, among equals that of the nearest: it can be a 7, 8 or 9,
    which the network never saw.
    """
    model, gallery = load_file(run_dir / "digits.keras"), load_file(run_dir / "gallery.npz")
    known, _ = apply(model, gallery["pictures"])
    features, _ = apply(model, pictures[..., None])
    found = []
    for feature in features:
        distances = np.sqrt(np.square(known - feature).sum(-1))
        nearest = np.argsort(distances, kind="stable")[:NEAREST].tolist()
        rows = [(i, int(gallery["labels"][i]), float(distances[i])) for i in nearest]
        [(label, votes)] = Counter(label for _, label, _ in rows).most_common(1)
        found.append((label, votes, rows))
    return found, gallery["pictures"][..., 0]


def read_digits(paths):
    pictures = []
    for path in paths:
        try:
            pictures.append(read_picture(path))
            if not pictures[-1].any():
                raise ValueError("no digit to be seen in it")
        except UNREADABLE as error:
            fail(f"{path}: {error}")
    return np.stack(pictures)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--ask", nargs="+", default=[], metavar="QUESTION", help="questions to answer")
    add("--digit", nargs="+", default=[], type=Path, metavar="IMAGE", help="pictures of a digit")
    add("--run-dir", type=Path, metavar="RUN", help="default: the newest run")
    add("--json", action="store_true", help="one JSON object a line")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    run_dir = find_run("custom_loss", args.run_dir)
    demo = not args.ask and not args.digit
    can_ask, can_see = (run_dir / "faq.json").exists(), (run_dir / "digits.keras").exists()
    if args.ask and not can_ask:
        fail(f"{run_dir} was trained without --loss triplet: it has no answers")
    if args.digit and not can_see:
        fail(f"{run_dir} was trained with --loss triplet alone: it knows no digits")
    lines = []
    if args.ask or (demo and can_ask):
        faq = Faq(run_dir)
        asked = faq.saved["examples"] if demo else [(question, None) for question in args.ask]
        for question, right in asked:
            try:
                lines.append({"question": question, "right": right, "answers": faq.ask(question)})
            except ValueError as error:
                fail(error)
    if args.digit or (demo and can_see):
        pictures = glyphs.load("test", 4)[0] if demo else read_digits(args.digit)
        found, gallery = find_neighbours(run_dir, pictures)
        names = [f"drawn digit {i + 1}" for i in range(4)] if demo else map(str, args.digit)
        for name, (label, votes, nearest) in zip(names, found, strict=True):
            neighbours = [{"label": near, "distance": far} for _, near, far in nearest]
            line = {"path": name, "label": label, "votes": votes}
            lines.append(line | {"neighbours": neighbours})
        if not args.json:
            path = run_dir / "predictions.png"
            draw_neighbours(path, pictures, gallery, found)
            print(f"picture: {path}", file=sys.stderr)
    for line in lines:
        print(json.dumps(line, ensure_ascii=False) if args.json else as_text(line))
    return lines


def as_text(line):
    if "question" in line:
        rows = [line["question"]]
        for answer, cosine in line["answers"]:
            mark = "  <- the right one" if answer == line["right"] else ""
            rows.append(f"    {cosine:6.3f}  {answer}{mark}")
        return "\n".join(rows)
    near = ", ".join(f"{row['label']} at {row['distance']:.2f}" for row in line["neighbours"])
    return f"{line['path']}: {line['label']}, as {line['votes']} of {NEAREST} neighbours: {near}"


if __name__ == "__main__":
    run_script(main)
