"""Compares two runs of the same command: python tests/compare_runs.py BEFORE AFTER

BEFORE and AFTER are run folders, one made by the code before a change, one by the code after it.
Prints every saved array and every part of the record that differs. Exit code 1: something differs.
"""

import sys
from pathlib import Path

import numpy as np

from common.files import read_arrays, read_json
from common.table import belongs_to_the_machine

PARTS = ("row", "arguments", "data", "selection", "metrics", "details", "history", "pictures")


def different_arrays(before, after):
    """Weights, optimizer and random generators of each training, and what else was saved."""
    paths = [
        path.relative_to(folder) for folder in (before, after) for path in folder.glob("*.npz")
    ]
    for path in sorted(set(paths)):
        if not (before / path).exists() or not (after / path).exists():
            yield f"{path}: only one run has it"
            continue
        old = read_arrays(before / path)
        new = read_arrays(after / path)
        for name in {**old, **new}:
            if name == "notes":  # History and seconds; the record has the history as well.
                continue
            if name not in old or name not in new or not np.array_equal(old[name], new[name]):
                yield f"{path}: {name}"


def different_parts(before, after):
    old = read_json(before / "record.json")
    new = read_json(after / "record.json")
    for part in PARTS:
        yield from differences(part, old.get(part), new.get(part))


def differences(name, old, new):
    """The names of the innermost values that differ, except speeds."""
    if belongs_to_the_machine(name):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from differences(f"{name}, {key}", old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (old_item, new_item) in enumerate(zip(old, new, strict=True)):
            yield from differences(f"{name}, {index}", old_item, new_item)
    elif old != new and not (is_nan(old) and is_nan(new)):
        yield f"{name}: {old} before, {new} after"


def is_nan(value):
    return isinstance(value, float) and np.isnan(value)


def main():
    before, after = (Path(word) for word in sys.argv[1:])
    found = [*different_arrays(before, after), *different_parts(before, after)]
    if found:
        print("\n".join(found))
        sys.exit(1)
    print("the same")


if __name__ == "__main__":
    main()
