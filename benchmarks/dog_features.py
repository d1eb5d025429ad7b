"""Features that are kept against a network run anew each epoch, and threads against a plain loop.

    python benchmarks/dog_features.py             # MobileNetV2 at 224 pixels
    python benchmarks/dog_features.py --quick     # tries every line

Stage 1 of dog_finetune trains the heads on a frozen network. The naive loop augments the images
and runs the whole network in every epoch. The other one computes the features of --views
augmentations of each image once, which is counted, and trains the same heads on them. Both are
timed over one epoch, and the one-time work is spread over --epochs.
Then: images per second of the threads that decode and augment, against one loop over Pillow that
does the same; and whether the threads keep all cores busy.
Last line: `stage 1, ratio: X; loader, ratio: Y`, medians of the rounds. The images are those of
data/downloads/flowers102 if it is there, else drawn dogs written as JPEG files of 500 x 375. The
weights are random: they change no speed.
"""

import argparse
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import common.backend  # noqa: F401  # Before Keras.

import keras
import numpy as np
from PIL import Image

from common.files import ROOT
from data import dogs
from dog_finetune import features, model, stages, train
from dog_finetune.augment import augment_row
from dog_finetune.dataset import AugmentedImages, read_image


def find_images(folder, num):
    """Paths and labels of `num` images."""
    real = ROOT / "data" / "downloads" / "flowers102" / "train"
    if real.is_dir():
        found = sorted(real.glob("*/*.jpg"))
        paths = [found[i] for i in np.linspace(0, len(found) - 1, num).astype(int)]
        names = [path.parent.name for path in paths]
        _, labels = np.unique(names, return_inverse=True)
        return paths, labels
    paths = []
    labels = np.arange(num) % 20
    for number, label in enumerate(labels):
        dog = Image.fromarray(dogs.draw_dog(3, int(label), number)).resize((500, 375))
        paths.append(Path(folder) / f"{number}.jpg")
        dog.save(paths[-1], quality=90)
    return paths, labels


# --- Stage 1 ---
def time_stage(args, images, stem, tail, path, epochs):
    """How much faster an epoch of stage 1 is with kept features (one-time work spread)."""
    tail.trainable = False
    naive = time_naive(images, stem, tail)
    kept = time_kept(args, images, stem, tail, path, epochs)
    num_images = 32 * count_steps(images)
    for name, seconds in (("naive", naive), ("kept", kept)):
        print(
            f"stage 1, {name}: {seconds:.2f} s an epoch of {num_images} images, {epochs} epochs",
            flush=True,
        )
    return naive / kept


def time_naive(images, stem, tail):
    """Seconds of an epoch that runs the whole network."""
    heads, centres, targets = make_heads(images, tail)
    whole = model.build_training_model([stem, tail, heads], centres)
    losses = {
        "main": "categorical_crossentropy",
        "auxiliary": "categorical_crossentropy",
        "distance": model.output_is_loss,
    }
    whole.compile(keras.optimizers.Adam(1e-3), losses, jit_compile=False)
    batches = features.ImageBatches(images, "full", targets, (0, 0), count_steps(images))
    return time_epoch(whole, batches)


def time_kept(args, images, stem, tail, path, epochs):
    """Seconds of an epoch on kept features, with its part of the time that computed them."""
    start = time.perf_counter()
    whole = keras.Model(stem.input, tail(stem.output))
    kept = features.keep_features_of_images(path, whole, images, "full", args.views)
    once = time.perf_counter() - start
    heads, centres, targets = make_heads(images, tail)
    network = stages.Network(stem, tail, heads, centres)
    training_model, _ = stages.compile_heads(args, network)
    batches = features.FeatureBatches(kept, targets, (0, 0), count_steps(images))
    return time_epoch(training_model, batches) + once / epochs


def make_heads(images, tail):
    """The heads of the post, the centres, and the targets of the images."""
    num_classes = int(images.labels.max()) + 1
    heads = model.build_heads(tail.output.shape[-1], num_classes)
    centres = keras.layers.Embedding(num_classes, 64)
    targets = features.Targets(images.labels, num_classes, ["main", "auxiliary", "distance"])
    return heads, centres, targets


def count_steps(images):
    return max(1, len(images.labels) // 32)


def time_epoch(training_model, batches):
    training_model.fit(batches, steps_per_epoch=1, shuffle=False, verbose=0)  # Compiles.
    start = time.perf_counter()
    training_model.fit(batches, steps_per_epoch=batches.steps_per_epoch, shuffle=False, verbose=0)
    return time.perf_counter() - start


# --- The loader ---
@dataclass
class PlainImages:
    """Images as a script would read them: open, crop, resize."""

    paths: list
    labels: np.ndarray
    size: int
    splices: bool = True
    masks: bool = True

    def read(self, row):
        with Image.open(self.paths[row]) as image:
            side = min(image.size)
            left = (image.width - side) // 2
            top = (image.height - side) // 2
            box = (left, top, left + side, top + side)
            size = (self.size, self.size)
            return np.asarray(image.convert("RGB").resize(size, Image.BILINEAR, box))


def time_loader(images):
    """How much faster the threads are than a plain loop, in images per second."""
    num = len(images.sources)
    plain = PlainImages(images.sources, images.labels, images.size)
    start = time.perf_counter()
    for row in range(num):
        augment_row(plain, row, "full", (), np.random.default_rng(row))
    plain_speed = num / (time.perf_counter() - start)
    start = time.perf_counter()
    start_of_process = time.process_time()
    for _ in images.in_order(("full", row) for row in range(num)):
        pass
    seconds = time.perf_counter() - start
    cores = (time.process_time() - start_of_process) / seconds
    print(
        f"loader: plain {plain_speed:.0f}, threads {num / seconds:.0f} images per second "
        f"on {cores:.2f} cores",
        flush=True,
    )
    return num / seconds / plain_speed


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few images, a small network")
    flags = parser.parse_args(argv)
    flags.size = 224
    flags.network = "mobilenetv2"
    if flags.quick:
        flags.pictures = 64
        flags.size = 32
        flags.network = "mobilenetv2-0.35"
        flags.rounds = 1
        flags.views = 2
    return flags


def main(argv=None):
    flags = parse_args(argv)
    args = train.parse_args(["--data", ".", "--views", str(flags.views)])
    stem, tail = model.build_backbone(flags.network, flags.size, None)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        paths, labels = find_images(folder, flags.pictures)
        images = AugmentedImages(paths, flags.size, 0, pool, labels)
        for path in paths:  # So that they are in the cache of the disk.
            read_image(path, flags.size)
        # The loader first: after a training, what fit has ordered ahead keeps the threads busy.
        loaders = [time_loader(images) for _ in range(flags.rounds)]
        ratios = []
        for number in range(flags.rounds):
            path = Path(folder) / f"{number}.npy"
            ratios.append(time_stage(args, images, stem, tail, path, flags.epochs))
    stage = np.median(ratios)
    loader = np.median(loaders)
    print(f"stage 1, ratio: {stage:.1f}; loader, ratio: {loader:.2f}, {keras.backend.backend()}")


if __name__ == "__main__":
    main()
