"""Blocks of 4 KiB and what kind of text they hold: drawn from installed files, or your own."""

from dataclasses import dataclass
from pathlib import Path

from common.cli import fail
from data import blocks


@dataclass
class BlockData:
    """Blocks in splits.

    Attributes:
        splits: {"train" | "valid" | "test": (uint8 blocks (n, 4096), labels (n,) as places in
            data.blocks.KINDS, the file of each block)}.
        notes: what the record says of the data.
    """

    splits: dict
    notes: dict


def load(source=None, num_train=500, num_valid=130, num_test=400):
    """The BlockData of a folder of your own, or of the files of the Python installation.

    Args:
        source: a folder with one sub-folder per kind, or None.
        num_train: blocks of each kind of text; of a folder: blocks of each file.
        num_valid, num_test: blocks of each kind of text; not used for a folder.
    """
    if source is None:
        splits = blocks.load({"train": num_train, "valid": num_valid, "test": num_test})
        notes = {"name": f"blocks of files v{blocks.VERSION}"}
    else:
        try:
            splits = blocks.load_folder(Path(source), num_train)
        except ValueError as error:
            fail(f"{source}: {error}")
        notes = {"name": Path(source).resolve().name}
    for name, (_, labels, files) in splits.items():
        notes[f"num_{name}"] = len(labels)
        notes[f"{name}_files"] = len(set(files))
    notes["sha256"] = blocks.digest(splits)
    return BlockData(splits, notes)
