"""Says which breed is in an image, with a trained network.

python dog_finetune/predict.py                       # test images: a grid of hits and misses
python dog_finetune/predict.py a.jpg DIR --tta 4     # your files and folders, the five best
python dog_finetune/predict.py --explain a.jpg       # where it looked (Grad-CAM), as an image
python dog_finetune/predict.py --submission out.txt DIR    # the contest's lines, CLASS<TAB>ID
python dog_finetune/predict.py --export onnx
"""

import itertools
import json
import sys
from pathlib import Path

import common.backend  # noqa: F401  # Before Keras.

import keras
import numpy as np
from keras import ops

from common import cli
from common.files import read_arrays, write_text
from common.folders import find_run
from common.images import ImageFiles
from dog_finetune.augment import MAX_TEST_VIEWS
from dog_finetune.dataset import read_image
from dog_finetune.evaluate import blend, classify, explain, load_classifier
from dog_finetune.features import CHUNK_SIZE
from dog_finetune.figures import draw_predictions

MAX_SHOWN = 60  # Images in a grid.
EXPORTS = {
    "onnx": ("model.onnx", "onnx"),
    "saved_model": ("saved_model", "tf_saved_model"),
}


# --- Flags ---
def parse_args(argv=None):
    parser = cli.parser_of_predict(__doc__)
    add = parser.add_argument
    add("paths", nargs="*", type=Path, help="images and folders of images")
    add(
        "--tta",
        type=int,
        choices=range(1, MAX_TEST_VIEWS + 1),
        default=1,
        metavar="N",
        help=f"average over N crops, at most {MAX_TEST_VIEWS}; default: 1",
    )
    add("--explain", action="store_true", help=f"where it looked, at most {MAX_SHOWN} images")
    add("--submission", type=Path, metavar="FILE", help="write lines CLASS<TAB>ID")
    add("--export", choices=sorted(EXPORTS), help="write the network for other programs")
    args = parser.parse_args(argv)
    if args.submission is not None:
        if not args.paths:
            parser.error("--submission needs images: give files or folders")
        if args.submission.is_dir() or not args.submission.parent.is_dir():
            parser.error(f"--submission {args.submission}: expected a file in an existing folder")
    if args.export is not None and args.paths:
        parser.error("--export takes no images: it writes the network")
    return args


# --- The script ---
def main(argv=None):
    args = parse_args(argv)
    run_dir = find_run("dog_finetune", args.run_dir)
    network, notes = load_classifier(run_dir)
    if args.export is not None:
        print(export(network, notes, run_dir, args.export))
        return []
    truths = None
    if args.paths:
        files = ImageFiles(args.paths, lambda path: read_image(path, notes["image_size"]))
    else:
        files, truths = load_examples(run_dir, notes["classes"])

    results = predict_images(network, notes, files, args.tta)
    lines, images = print_results(results, truths, args.json)
    if args.submission is not None and lines:
        write_submission(args.submission, lines)
    if images and (args.explain or truths is not None):
        draw(run_dir, network, notes, images, lines, truths, args.explain)
    if args.paths and files.num_unreadable > 0:
        raise SystemExit(2)
    return lines


def print_results(results, truths, as_json, max_images=MAX_SHOWN):
    """Prints what was said of each image.

    Args:
        results: of `predict_images`.
        truths: the true names of the classes, if they are known.

    Returns:
        All lines as dicts, and the first images.
    """
    lines = []
    images = []
    for line, image in results:
        truth = None
        if truths is not None:
            truth = truths[len(lines)]
        print_line(line, truth, as_json)
        lines.append(line)
        if len(images) < max_images:
            images.append(image)
    return lines, images


def predict_images(network, notes, images, num_views=1, chunk_size=CHUNK_SIZE):
    """Yields what the network says of each image, a few images at a time, and the image.

    Args:
        images: pairs of a name and a uint8 array (size, size, 3); they may come one by one.
    """
    images = iter(images)
    while True:
        chunk = list(itertools.islice(images, chunk_size))
        if not chunk:
            return
        probabilities = classify(network, notes, [image for _, image in chunk], num_views)
        for (name, image), p in zip(chunk, probabilities, strict=True):
            yield describe(name, p, notes["classes"]), image


def describe(name, probabilities, class_names):
    """What is printed of an image: its path, its likeliest class, and the five likeliest ones."""
    best = np.argsort(-probabilities, kind="stable")[:5]
    top5 = [[class_names[i], round(float(probabilities[i]), 4)] for i in best]
    label, probability = top5[0]
    return {"path": str(name), "label": label, "probability": probability, "top5": top5}


def print_line(line, truth, as_json):
    if as_json:
        print(json.dumps(line, ensure_ascii=False))
        return
    text = ", ".join(f"{name} {probability:.1%}" for name, probability in line["top5"])
    if truth is not None:
        text += f"  (it is {truth})"
    print(f"{line['path']}: {text}")


# --- Images ---
def load_examples(run_dir, class_names):
    """The test images that the run kept, with their names, and the names of their classes."""
    examples = read_arrays(run_dir / "examples.npz")
    truths = [class_names[label] for label in examples["labels"]]
    images = [(f"test picture {n}", image) for n, image in enumerate(examples["pictures"], 1)]
    return images, truths


# --- Files that are written ---
def write_submission(path, lines):
    """Writes what the contest asks for: CLASS<TAB>ID of each image."""
    rows = [f"{line['label']}\t{Path(line['path']).stem}\n" for line in lines]
    write_text(path, "".join(rows))


def draw(run_dir, network, notes, images, lines, truths, explained):
    """Writes a grid of the first images and of what was said of them."""
    name = "predictions.png"
    heat_maps = None
    num_lines = len(lines)
    lines = lines[: len(images)]
    if explained:
        name = "explained.png"
        labels = [notes["classes"].index(line["label"]) for line in lines]
        heat_maps = explain(network, notes, np.stack(images), labels)
    draw_predictions(run_dir / name, images, lines, truths, heat_maps)
    message = f"image: {run_dir / name}"
    if len(lines) < num_lines:
        message += f", the first {len(lines)}"
    print(message, file=sys.stderr)


def export(network, notes, folder, kind):
    """Writes the network with one output in another format; returns the path."""
    name, export_format = EXPORTS[kind]
    logits = ops.log(blend(network.output, notes["share"]) + 1e-12) / notes["temperature"]
    single = keras.Model(network.input, ops.softmax(logits))
    try:
        single(np.zeros((1, *network.input.shape[1:]), "uint8"))  # Keras wants a called model.
        single.export(folder / name, format=export_format, verbose=False)
    except Exception as error:  # Of many kinds, from whichever converter is missing.
        hint = ""
        if kind == "onnx":
            hint = '; pip install -e ".[onnx]" may help'
        cli.fail(
            f"--export {kind} is not possible with {keras.backend.backend()} here: "
            f"{cli.first_line(error)}{hint}"
        )
    return folder / name


if __name__ == "__main__":
    cli.run(main)
