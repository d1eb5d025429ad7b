"""Batches of similar lengths and few shapes against a padded naive batcher, in steps per second.

    python benchmarks/cloze_batches.py             # official questions, or written ones
    python benchmarks/cloze_batches.py --quick     # tries every line

The post's reader is trained, with the same batch size, on the same passages: the validation
questions of CMRC2017 if they lie in data/downloads/cmrc2017, else written stories. The naive
batcher does as the post's script did: passages in random order, each side of a batch padded to its
longest. Both begin with an epoch that is not counted, then take turns; an epoch of the naive
one has shapes that were never seen, for which XLA (JAX) compiles anew, as it would in a training.
Last line: `steps per second, ratio: X`, the median of the rounds; all is written into
benchmarks/results/, but for --quick. Without KERAS_BACKEND it does so for TensorFlow, then JAX.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import time

import keras
import numpy as np
from word2vec_vs_gensim import write_result

from cloze_ccl import dataset
from cloze_ccl.model import build_reader, pointer_loss
from cloze_ccl.questions import read_questions
from common.files import ROOT
from data import stories

OFFICIAL = ROOT / "data" / "downloads" / "cmrc2017" / "cloze.valid.doc_query"


def naive_batches(questions, lookup, batch_size, seed):
    """Yields inputs and targets in random order, each side padded to the longest of the batch."""
    order = np.random.default_rng(seed).permutation(len(questions))
    for start in range(0, len(order) - batch_size + 1, batch_size):
        some = [questions[i] for i in order[start : start + batch_size]]
        answers = np.array([[question.answer] for question in some])
        left = [question.keys[: question.blank] for question in some]
        right = [question.keys[question.blank + 1 :] for question in some]
        inputs = {}
        targets = []
        for name, rows in (("left", left), ("right", right)):
            width = max(1, max(len(row) for row in rows))
            ids = dataset.pad([lookup.word_ids[row] for row in rows], width)
            is_empty = (ids < 0).all(axis=1)
            ids[is_empty, 0] = 0
            inputs[name] = ids
            targets.append(dataset.pad(rows, width, value=-2) == answers)
        yield inputs, np.concatenate(targets, axis=1).astype("float32")


def batches_by_length(questions, lookup, batch_size, seed):
    """Yields the same with the batches of this repository."""
    batches = dataset.QuestionBatches("post", questions, lookup, batch_size, seed)
    for step, (numbers, _) in enumerate(batches.plan):
        if len(numbers) == batch_size:
            batch = batches.batch(step)
            yield batch.inputs, batch.targets


SYSTEMS = {"naive": naive_batches, "by length": batches_by_length}


def run_epoch(network, epoch):
    """Steps per second of an epoch, and to how many words a passage was padded."""
    start = time.perf_counter()
    steps = 0
    padded = 0
    for inputs, targets in epoch:
        network.train_on_batch(inputs, targets)
        steps += 1
        padded += targets.shape[1]
    return steps / (time.perf_counter() - start), padded / steps


def run_on_each_backend(argv):
    """Runs this script once for each backend that is installed."""
    for backend in ("tensorflow", "jax"):
        if importlib.util.find_spec(backend):
            command = [sys.executable, __file__, *argv]
            subprocess.run(command, env={**os.environ, "KERAS_BACKEND": backend}, check=True)


def load_passages(num_passages=None):
    """Questions, the first num_passages of them, and where they come from."""
    if OFFICIAL.exists():
        return read_questions(OFFICIAL)[:num_passages], OFFICIAL.name
    return stories.load("train", 340)[:num_passages], "written stories"


def measure(questions, batch_size, units, rounds):
    """{name: steps per second of each round} of both systems, which take turns."""
    word_keys = {}
    encoded = dataset.encode_all(questions, word_keys)
    vocabulary = dataset.choose_vocabulary("post", encoded, word_keys, min_count=2)
    lookup = dataset.Lookup(word_keys, vocabulary.words, vocabulary.characters)
    networks = {}
    for name in SYSTEMS:
        keras.utils.set_random_seed(0)
        networks[name] = build_reader(len(vocabulary.words), units=units)
        networks[name].compile("adam", pointer_loss)
    speeds = {name: [] for name in SYSTEMS}
    for number in range(1 + rounds):
        for name, make_batches in SYSTEMS.items():
            epoch = make_batches(encoded, lookup, batch_size, (1, number))
            speed, padded = run_epoch(networks[name], epoch)
            print(
                f"{name}, epoch {number}: {speed:.2f} steps per second, passages padded to "
                f"{padded:.0f} words",
                flush=True,
            )
            if number > 0:
                speeds[name].append(speed)
    return speeds


def parse_args(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few passages, a small reader")
    return parser.parse_args(argv)


def main(argv):
    args = parse_args(argv)
    # common.backend is not imported, because it sets KERAS_BACKEND where it is not set.
    if "KERAS_BACKEND" not in os.environ:
        run_on_each_backend(argv)
        return
    if args.quick:
        questions, source = load_passages(64)
        batch_size = 16
        units = 8
        rounds = 1
    else:
        questions, source = load_passages()
        batch_size = args.batch_size
        units = 128
        rounds = args.rounds
    backend = keras.backend.backend()
    print(f"{len(questions)} passages of {source}, batches of {batch_size}, {backend}")
    speeds = measure(questions, batch_size, units, rounds)
    ratio = float(np.median(np.array(speeds["by length"]) / np.array(speeds["naive"])))
    print(f"steps per second, ratio: {ratio:.2f}, {backend}")
    if not args.quick:
        result = {
            "backend": backend,
            "passages": source,
            "num_passages": len(questions),
            "batch_size": batch_size,
            "steps per second": speeds,
            "ratio": ratio,
        }
        write_result(f"cloze_batches-{backend}", result)


if __name__ == "__main__":
    main(sys.argv[1:])
