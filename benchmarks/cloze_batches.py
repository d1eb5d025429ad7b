"""Batches of like sizes and few shapes against a padded naive batcher, in steps per second.

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

import numpy as np
from word2vec_vs_gensim import write_result

from cloze_ccl import batches
from cloze_ccl.texts import read_questions
from cloze_ccl.train import build_reader, pointer_loss
from common.run import ROOT, keras
from data import stories


def naive_batches(items, lookup, batch_size, seed):
    """Inputs and targets in random order, each side padded to the longest of the batch."""
    order = np.random.default_rng(seed).permutation(len(items))
    for start in range(0, len(order) - batch_size + 1, batch_size):
        some = [items[i] for i in order[start : start + batch_size]]
        answers, x, targets = np.array([[item.answer] for item in some]), {}, []
        left = [item.keys[: item.blank] for item in some]
        right = [item.keys[item.blank + 1 :] for item in some]
        for name, rows in (("left", left), ("right", right)):
            width = max(1, max(map(len, rows)))
            x[name] = batches.fill_rows([lookup.ids[row] for row in rows], width, -1)
            x[name][(x[name] < 0).all(1), 0] = 0
            targets.append(batches.fill_rows(rows, width, -2) == answers)
        yield x, np.concatenate(targets, 1).astype("float32")


def batches_by_length(items, lookup, batch_size, seed):
    """The same with the batches of this repository."""
    for chosen, shape in batches.plan(batches.sizes("post", items), batch_size, seed):
        if len(chosen) == batch_size:
            some = [items[i] for i in chosen]
            x, targets, _, _ = batches.build_batch("post", some, shape, lookup)
            yield x, targets


def run_epoch(model, epoch):
    """Steps per second of an epoch, and to how many words a passage was padded."""
    start, steps, padded = time.perf_counter(), 0, 0
    for x, targets in epoch:
        model.train_on_batch(x, targets)
        steps, padded = steps + 1, padded + targets.shape[1]
    return steps / (time.perf_counter() - start), padded / steps


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few passages, a small reader")
    args = parser.parse_args(argv)
    if "KERAS_BACKEND" not in os.environ:
        for backend in filter(importlib.util.find_spec, ("tensorflow", "jax")):
            words = [sys.executable, __file__, *(sys.argv[1:] if argv is None else argv)]
            subprocess.run(words, env=os.environ | {"KERAS_BACKEND": backend}, check=True)
        return
    path = ROOT / "data" / "downloads" / "cmrc2017" / "cloze.valid.doc_query"
    questions = read_questions(path) if path.exists() else stories.load("train", 340)
    questions = questions[:64] if args.quick else questions
    batch_size = 16 if args.quick else args.batch_size
    backend, index = keras.backend.backend(), {}
    source = path.name if path.exists() else "written stories"
    print(f"{len(questions)} passages of {source}, batches of {batch_size}, {backend}")
    items = batches.encode_all(questions, index)
    vocabulary, characters, _ = batches.choose_words("post", items, index, 2, 128)
    lookup = batches.Lookup(index, vocabulary, characters)
    systems = {"naive": naive_batches, "by length": batches_by_length}
    models, speeds = {}, {name: [] for name in systems}
    for name in systems:
        keras.utils.set_random_seed(0)
        models[name] = build_reader(len(vocabulary), units=8 if args.quick else 128)
        models[name].compile("adam", pointer_loss)
    for number in range(1 + (1 if args.quick else args.rounds)):
        for name, make in systems.items():
            speed, padded = run_epoch(models[name], make(items, lookup, batch_size, (1, number)))
            print(
                f"{name}, epoch {number}: {speed:.2f} steps per second, passages padded to "
                f"{padded:.0f} words",
                flush=True,
            )
            if number:
                speeds[name].append(speed)
    ratios = np.array(speeds["by length"]) / np.array(speeds["naive"])
    print(f"steps per second, ratio: {np.median(ratios):.2f}, {backend}")
    if not args.quick:
        result = {"backend": backend, "passages": source, "num_passages": len(questions)}
        result |= {"batch_size": batch_size, "steps per second": speeds}
        write_result(f"cloze_batches-{backend}", result | {"ratio": float(np.median(ratios))})


if __name__ == "__main__":
    main()
