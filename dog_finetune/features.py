"""What a frozen network makes of images: computed once, kept on disk. And batches of it.

Only the last blocks of the network are trained, so the feature maps that the frozen stem makes of
an image never change. They are computed for a few augmentations of each image and kept, instead
of running the whole network again in every epoch.
"""

import contextlib
import fcntl
import functools
import hashlib
import itertools
import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from common.cli import fail
from common.files import read_json, write_text
from dog_finetune.model import sample_pairs

VERSION = 1  # Raise it when an augmentation moves a pixel, because --maps keeps features for long.
CHUNK_SIZE = 32  # Inputs that go through a network at once.
NOTE_EVERY = 20  # After so many chunks the progress is noted.
IMAGES_AHEAD = 128  # Threads augment so many images ahead of their use.


# --- Running a network ---
def chunks(items, size=CHUNK_SIZE):
    """Arrays of at most `size` items each."""
    items = iter(items)
    while True:
        chunk = list(itertools.islice(items, size))
        if not chunk:
            return
        yield np.stack(chunk)


def apply(model, chunk):
    """The outputs of a model, an array or a dict of them, on at most CHUNK_SIZE inputs.

    The inputs are filled up to CHUNK_SIZE, so that the backend compiles for one shape only.
    """
    num_missing = CHUNK_SIZE - len(chunk)
    padding = np.zeros((num_missing, *chunk.shape[1:]), chunk.dtype)
    outputs = model.predict_on_batch(np.concatenate([chunk, padding]))
    return keras.tree.map_structure(lambda output: output[: len(chunk)], outputs)


def predict(model, inputs):
    """The outputs of a model, an array or a dict of them, on many inputs.

    Kept features may be larger than memory: unlike `model.predict`, this reads only a few at once.
    """
    parts = [apply(model, chunk) for chunk in chunks(map(in_single_precision, inputs))]
    return keras.tree.map_structure(lambda *outputs: np.concatenate(outputs), *parts)


def in_single_precision(x):
    """Feature maps are kept as float16, but computed with as float32."""
    if x.dtype == np.float16:
        return x.astype("float32")
    return x


# --- Keeping features on disk ---
@dataclass
class FeatureFolder:
    """Where features are kept: in the folder of the run, or in one that several runs share.

    Attributes:
        run_dir: of the run.
        prefix: of the files in run_dir.
        shared: the folder of --maps, or None.
        data_sha256: of the images.
        settings: what else the features depend on, besides the weights of the network and the
            number of images.
    """

    run_dir: Path
    prefix: str
    shared: Path | None
    data_sha256: str
    settings: tuple

    def path(self, name, model, shape):
        """The file of the features that `model` makes of (images, augmentations of each)."""
        if self.shared is None:
            return self.private_path(name)
        settings = (*self.settings, shape)
        digest = hashlib.sha256(f"{self.data_sha256} {settings}".encode())
        for weight in model.weights:
            digest.update(np.ascontiguousarray(weight))
        self.shared.mkdir(parents=True, exist_ok=True)
        return self.shared / f"{name}-{digest.hexdigest()[:16]}.npy"

    def private_path(self, name):
        return self.run_dir / f"{self.prefix}{name}.npy"

    def features_of_images(self, name, model, images, kind, count):
        """What a model makes of `count` augmentations of every image: (n, count, ...)."""
        path = self.path(name, model, (len(images.sources), count))
        return keep_features_of_images(path, model, images, kind, count)

    def features_of_features(self, name, model, features):
        """What a model makes of kept features: (n, count, ...)."""
        return keep_features_of_features(self.private_path(name), model, features)


def keep_features_of_images(path, model, images, kind, count, note_every=NOTE_EVERY):
    """Computes what a model makes of `count` augmentations of every image, or continues to.

    Args:
        images: `dataset.AugmentedImages`.
        kind: of augmentation, see `augment.augment_row`.

    Returns:
        A memory map (n, count, ...).
    """
    jobs = list(itertools.product([kind], range(len(images.sources)), range(count)))
    with locked(path):
        done = count_done(path)
        inputs = images.in_order(jobs[done:], IMAGES_AHEAD)
        return fill(path, model, (len(images.sources), count), inputs, note_every)


def keep_features_of_features(path, model, features):
    """Computes what a model makes of kept features (n, count, ...), or continues to."""
    flat = features.reshape(-1, *features.shape[2:])
    with locked(path):
        done = count_done(path)
        inputs = (x.astype("float32") for x in flat[done:])
        return fill(path, model, features.shape[:2], inputs)


@contextlib.contextmanager
def locked(path):
    """Waits while another process computes the same features in a shared folder."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def count_done(path):
    """How many inputs an earlier call of `fill` has finished."""
    note = path.with_suffix(".json")
    if not note.exists():
        return 0
    return read_json(note)["done"]


def fill(path, model, shape, inputs, note_every=NOTE_EVERY):
    """Computes the outputs of a model into a .npy file. It may be stopped at any time.

    Args:
        shape: (images, augmentations of each).
        inputs: those that `count_done` does not count, in order.

    Returns:
        A memory map (*shape, ...): float16 for feature maps, which are large; float32 for vectors.
    """
    total = shape[0] * shape[1]
    done = count_done(path)
    if done == 0:
        make_file(path, model, shape)
    features = np.load(path, mmap_mode="r+")
    flat = features.reshape(total, *features.shape[2:])
    with tqdm(total=total, initial=done, desc=path.stem, unit="image", disable=None) as bar:
        for number, chunk in enumerate(chunks(inputs), 1):
            flat[done : done + len(chunk)] = apply(model, chunk)
            done += len(chunk)
            bar.update(len(chunk))
            if number % note_every == 0 or done == total:
                features.flush()
                write_text(path.with_suffix(".json"), json.dumps({"done": done}))
    return features


def make_file(path, model, shape):
    """A .npy file for the outputs of a model, for which the disk has room."""
    dtype = np.dtype("float32")
    if len(model.output_shape) == 4:
        dtype = np.dtype("float16")
    shape = (*shape, *model.output_shape[1:])
    size = dtype.itemsize * math.prod(shape)
    path.unlink(missing_ok=True)  # Of a run that was killed before its first note.
    if size > shutil.disk_usage(path.parent).free:
        fail(f"{path} takes {size / 1e9:.1f} GB, more than is free: give fewer --views")
    np.lib.format.open_memmap(path, "w+", dtype, shape).flush()
    # A disk that fills up later would kill the process, so the room is taken at once.
    if hasattr(os, "posix_fallocate"):
        try:
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError:
            path.unlink()
            raise


def remove_features(run_dir):
    """Deletes the features in the folder of a run: they are large, and quickly made again."""
    for path in [*run_dir.glob("*-maps.*"), *run_dir.glob("*-vectors.*")]:
        path.unlink()


# --- Batches ---
@dataclass
class Targets:
    """What the outputs of a training model are compared with.

    Attributes:
        labels: classes (n,), -1 where unknown.
        num_classes: of the probabilities.
        outputs: the names of the outputs that have a loss: "main", "auxiliary", "distance".
    """

    labels: np.ndarray
    num_classes: int
    outputs: list

    def one_hot(self, rows):
        """Fractions of each class (rows, num_classes): 1 for the label of each row."""
        labels = self.labels[rows]
        return keras.utils.to_categorical(labels, self.num_classes).astype("float32")

    def join(self, x, fractions):
        """What `fit` takes: (inputs, targets).

        Args:
            x: inputs of the training model.
            fractions: (len(x), num_classes), how much of each class is in them.
        """
        targets = {
            "main": fractions,
            "auxiliary": fractions,
            "distance": np.zeros((len(x), 1), "float32"),
        }
        inputs = {"x": x}
        if "distance" in self.outputs:
            inputs["target"] = fractions.argmax(axis=-1).astype("int32")
        return inputs, {name: targets[name] for name in self.outputs}

    def join_all(self, x):
        """All samples, in order, as validation data for `fit`."""
        return self.join(x, self.one_hot(np.arange(len(x))))


class Batches(keras.utils.PyDataset):
    """Endless batches of labelled samples. A batch is a function of its index and nothing else.

    A subclass has a method `inputs(index, rows, rng)`. Give `fit` the number `steps_per_epoch`
    and shuffle=False.

    Args:
        targets: a Targets.
        seed: a tuple of numbers; with the epoch it decides about everything that is random.
        steps_per_epoch: batches in an epoch.
        mixup: of mixup (arXiv 1710.09412), the parameter of the beta distribution; 0: no mixup.
        pairs: whether a batch has two images of each of at most 16 classes, see `sample_pairs`;
            otherwise it has 32 images of any class.

    Attributes:
        first_epoch: the epoch of batch 0, for a resumed run.
    """

    num_batches = None  # Keras' word for endless.

    def __init__(self, targets, seed, steps_per_epoch, mixup=0.0, pairs=True):
        super().__init__()
        self.targets = targets
        self.seed = seed
        self.steps_per_epoch = steps_per_epoch
        self.mixup = mixup
        self.pairs = pairs
        self.first_epoch = 0
        self.labelled = np.flatnonzero(targets.labels >= 0)
        # Two, as batches are made ahead across the end of an epoch.
        self.rows_of_epoch = functools.lru_cache(maxsize=2)(self.sample_epoch)

    def place(self, index):
        """The epoch and the step of a batch."""
        epoch, step = divmod(index, self.steps_per_epoch)
        return self.first_epoch + epoch, step

    def sample_epoch(self, epoch):
        """The rows of each batch of an epoch."""
        rng = np.random.default_rng((*self.seed, epoch))
        labels = self.targets.labels[self.labelled]
        rows = []
        for _ in range(self.steps_per_epoch):
            if self.pairs:
                sampled = sample_pairs(labels, rng)
            else:
                sampled = rng.choice(len(labels), min(32, len(labels)), replace=False)
            rows.append(self.labelled[sampled])
        return rows

    def rows(self, index):
        """The rows of the samples that batch `index` is made of."""
        epoch, step = self.place(index)
        return self.rows_of_epoch(epoch)[step]

    def __getitem__(self, index):
        rng = np.random.default_rng((*self.seed, *self.place(index)))
        rows = self.rows(index)
        x = self.inputs(index, rows, rng)
        fractions = self.targets.one_hot(rows)
        if self.mixup > 0:
            x, fractions = mix(x, fractions, self.mixup, rng)
        return self.targets.join(x, fractions)


def mix(x, fractions, mixup, rng):
    """Blends each sample of a batch with another one, and what it shows alike."""
    weight = rng.beta(mixup, mixup)
    order = rng.permutation(len(x))
    mixed = weight * x.astype("float32") + (1 - weight) * x[order]
    if x.dtype == np.uint8:
        mixed = np.rint(mixed).astype("uint8")
    fractions = weight * fractions + (1 - weight) * fractions[order]
    return mixed, fractions.astype("float32")


class FeatureBatches(Batches):
    """Batches of kept features (n, count, ...): for each row one of its `count` augmentations."""

    def __init__(self, features, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.features = features

    def inputs(self, index, rows, rng):
        numbers = rng.integers(self.features.shape[1], size=len(rows))
        return self.features[rows, numbers].astype("float32")


class ImageBatches(Batches):
    """Batches of images, augmented anew in each epoch by threads, ahead of their use.

    Args:
        images: `dataset.AugmentedImages`.
        kind: of augmentation, see `augment.augment_row`.
    """

    def __init__(self, images, kind, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.images = images
        self.kind = kind
        self.waiting = {}  # {index of a batch: the futures of its images}

    def inputs(self, index, rows, rng):
        num_ahead = math.ceil(IMAGES_AHEAD / len(rows))
        for later in range(index, index + 1 + num_ahead):
            if later not in self.waiting:
                self.waiting[later] = self.submit(later)
        # A batch that Keras asks for again, as it does with the first ones, is made again.
        return np.stack([future.result() for future in self.waiting.pop(index)])

    def submit(self, index):
        epoch, step = self.place(index)
        rows = self.rows(index).tolist()
        return [self.images.submit((self.kind, row, epoch, step)) for row in rows]
