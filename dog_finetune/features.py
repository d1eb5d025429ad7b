"""Views of pictures made by threads, what the frozen part makes of them kept on disk, batches."""

import fcntl
import itertools
import json
import os
import shutil
from collections import deque

import numpy as np
from tqdm import tqdm

from common.pictures import UNREADABLE
from common.run import fail, load_file, write_text
from dog_finetune.pictures import read_picture

VERSION = 1  # Of the views: raise it where one moves a pixel, as --maps keeps them.
KINDS = ("plain", "full", "light", "ours", "test")
CHUNK = 32  # Inputs that go through a network at once.
NOTED = 20  # After so many chunks it is noted how far the maps are.


class Views:
    """Augmented views of pictures: one depends on (seed, kind, row, number), on no thread.

    make(kind, row, number, rng, read) makes one; read(row) is the plain picture.
    """

    def __init__(self, sources, size, seed, make, pool):
        self.sources, self.size, self.seed, self.make = list(sources), size, seed, make
        self.pool = pool

    def read(self, row):
        try:
            return read_picture(self.sources[row], self.size)
        except UNREADABLE as error:
            fail(f"{self.sources[row]}: {error}")

    def view(self, job):
        kind, row, *number = job
        rng = np.random.default_rng((self.seed, KINDS.index(kind), row, *number))
        return self.make(kind, row, number, rng, self.read)

    def in_order(self, jobs, ahead=128):
        """The views of the jobs (kind, row, number ...), made ahead of their use."""
        waiting = deque()
        for job in jobs:
            waiting.append(self.pool.submit(self.view, job))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def in_chunks(items, size=CHUNK):
    items = iter(items)
    while chunk := list(itertools.islice(items, size)):
        yield np.stack(chunk)


def fill(path, model, shape, items):
    """model's output on shape[0] x shape[1] inputs as a memory map (*shape, ...), made once.

    items(first) yields the inputs from the first on. Stopped at any time, it goes on where it
    was when it is called again. Maps are kept in half precision, as vectors need not be.
    """
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Of --maps: another run may be making it now.
        return fill_locked(path, model, shape, items)


def fill_locked(path, model, shape, items):
    total, note = shape[0] * shape[1], path.with_suffix(".json")
    done = load_file(note)["done"] if note.exists() else 0
    if not done:
        dtype = "float16" if len(model.output_shape) == 4 else "float32"
        shape = (*shape, *model.output_shape[1:])
        size = np.dtype(dtype).itemsize * np.prod(shape, dtype=float)
        path.unlink(missing_ok=True)  # Of a run that was killed before its first note.
        if size > shutil.disk_usage(path.parent).free:
            fail(f"{path} takes {size / 1e9:.1f} GB, more than is free: give fewer --views")
        np.lib.format.open_memmap(path, "w+", dtype, shape).flush()
        if hasattr(os, "posix_fallocate"):  # Or a disk that fills up later kills the process.
            try:
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError:
                path.unlink()
                raise
    maps = np.load(path, mmap_mode="r+")
    flat = maps.reshape(total, *maps.shape[2:])
    name = path.stem
    with tqdm(total=total, initial=done, desc=name, unit="view", disable=None) as bar:
        for count, chunk in enumerate(in_chunks(items(done)) if done < total else (), 1):
            flat[done : done + len(chunk)] = apply(model, chunk)
            done += len(chunk)
            bar.update(len(chunk))
            if count % NOTED == 0 or done == total:
                maps.flush()
                write_text(note, json.dumps({"done": done}))
    return maps


def view_maps(path, model, views, kind, count):
    """The maps of `count` views of every picture."""
    jobs = list(itertools.product([kind], range(len(views.sources)), range(count)))
    shape = (len(views.sources), count)
    return fill(path, model, shape, lambda first: views.in_order(jobs[first:]))


def fill_again(path, model, maps):
    """The model's output on kept maps, kept likewise."""
    flat = maps.reshape(-1, *maps.shape[2:])
    return fill(path, model, maps.shape[:2], lambda first: (x.astype("f4") for x in flat[first:]))


def apply(model, chunk):
    """What the model makes of at most CHUNK inputs, always as so many: a graph is built once."""
    rest = CHUNK - len(chunk)
    padded = np.concatenate([chunk, np.zeros((rest, *chunk.shape[1:]), chunk.dtype)])
    outputs = model.predict_on_batch(padded)
    if isinstance(outputs, dict):
        return {name: output[: len(chunk)] for name, output in outputs.items()}
    return outputs[: len(chunk)]


def predict(model, maps):
    """The outputs of a model, an array or a dict of them, on many maps, a few at a time."""
    full = (x.astype("float32") if x.dtype == np.float16 else x for x in maps)
    parts = [apply(model, chunk) for chunk in in_chunks(full)]
    if isinstance(parts[0], dict):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)


def with_targets(x, shares, outputs):
    """What fit wants for inputs x; shares (n, classes) says how much of each class is in one."""
    truths = {"main": shares, "auxiliary": shares, "distance": np.zeros((len(x), 1), "float32")}
    inputs = {"x": x}
    if "distance" in outputs:
        inputs["target"] = shares.argmax(-1).astype("int32")
    return inputs, {name: truths[name] for name in outputs}


def batches(get, labels, sample, outputs, num_classes, seed, steps, first_epoch=0, mixup=0.0):
    """Endless batches; those of an epoch follow from (seed, epoch) alone.

    sample(labels, rng) chooses the rows of one; get is from_maps or from_views.
    """
    known = np.flatnonzero(labels >= 0)

    def plans():
        for epoch in itertools.count(first_epoch):
            rng = np.random.default_rng((*seed, epoch))
            for step in range(steps):
                rows = known[sample(labels[known], rng)]
                plan = [(int(row), epoch, step) for row in rows]
                yield plan, np.random.default_rng((*seed, epoch, step))

    for plan, rng, x in get(plans()):
        shares = np.eye(num_classes, dtype="float32")[labels[[row for row, *_ in plan]]]
        if mixup:
            share, order = rng.beta(mixup, mixup), rng.permutation(len(x))
            mixed = share * x.astype("float32") + (1 - share) * x[order]
            x = np.rint(mixed).astype(x.dtype) if x.dtype == np.uint8 else mixed
            shares = share * shares + (1 - share) * shares[order]
        yield with_targets(x, shares.astype("float32"), outputs)


def from_maps(maps):
    """For batches: one of the kept views of each row."""

    def get(plans):
        for plan, rng in plans:
            rows = np.array([row for row, *_ in plan])
            yield plan, rng, maps[rows, rng.integers(maps.shape[1], size=len(rows))].astype("f4")

    return get


def from_views(views, kind):
    """For batches: fresh views, never the same twice; the next batches are made meanwhile."""

    def get(plans):
        first, second = itertools.tee(plans)
        pictures = views.in_order((kind, *job) for plan, _ in second for job in plan)
        for plan, rng in first:
            yield plan, rng, np.stack(list(itertools.islice(pictures, len(plan))))

    return get
