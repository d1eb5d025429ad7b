"""The digits: drawn ones, or MNIST's file."""

import itertools

from common.cli import fail
from common.files import fetch, sha256_of_arrays
from data import glyphs, mnist

SPLIT_SEED = 4521  # The split of a file does not change with --seed.


def load_data(source=None, num_train=2000, num_valid=2000, num_test=5000):
    """The digits in three splits.

    Args:
        source: None for drawn digits, a file in the layout of mnist.npz or the folder that holds
            it, or the word "mnist", which downloads it.

    Returns:
        {"train" | "valid" | "test": (uint8 images (n, 28, 28), labels (n,))}, and what the record
        says of the data.
    """
    sizes = {"train": num_train, "valid": num_valid, "test": num_test}
    if source is None:
        splits = {split: glyphs.load(split, size) for split, size in sizes.items()}
        name = f"drawn digits v{glyphs.VERSION}"
    else:
        splits, name = load_file(source, sizes)
    notes = {"name": name}
    for split, size in sizes.items():
        notes[f"num_{split}"] = size
    notes["sha256"] = sha256_of_arrays(itertools.chain(*splits.values()))
    return splits, notes


def load_file(source, sizes):
    """The splits of a file, and its name. An unusable file ends the script with one line."""
    path = source
    if source == "mnist":
        path = fetch("mnist.npz", [mnist.URL], mnist.SHA256)
    try:
        return mnist.load(path, sizes, SPLIT_SEED)
    except ValueError as error:
        fail(error)
