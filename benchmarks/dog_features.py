"""Features that are kept against a network run anew each epoch, and threads against a plain loop.

    python benchmarks/dog_features.py             # MobileNetV2 at 224 pixels
    python benchmarks/dog_features.py --quick     # tries every line

Stage 1 of dog_finetune, the heads on a frozen network: the naive loop draws views and runs
the whole network in every epoch; the other computes the features of --views views of each
picture once, which is counted, and trains the same heads on them. Both are timed over one epoch,
and the one-time work is spread over --epochs.
And pictures per second of the threads that decode and augment, against one loop over Pillow
that does the same; and whether the threads keep all cores busy.
Last line: `stage 1, ratio: X; loader, ratio: Y`, medians of the rounds. Pictures are those of
data/downloads/flowers102 if it is there, else drawn dogs written as JPEG files of 500 x 375. The
weights are random: they change no speed.
"""

import argparse
import functools
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from common.run import ROOT
from data import dogs
from dog_finetune import features, pictures, train


def find_pictures(folder, num):
    """Paths and labels of `num` pictures."""
    real = ROOT / "data" / "downloads" / "flowers102" / "train"
    if real.is_dir():
        found = sorted(real.glob("*/*.jpg"))
        paths = [found[i] for i in np.linspace(0, len(found) - 1, num).astype(int)]
        names = [path.parent.name for path in paths]
        return paths, np.unique(names, return_inverse=True)[1]
    paths, labels = [], np.arange(num) % 20
    for number, label in enumerate(labels):
        dog = Image.fromarray(dogs.draw_dog(3, int(label), number)).resize((500, 375))
        paths.append(Path(folder) / f"{number}.jpg")
        dog.save(paths[-1], quality=90)
    return paths, labels


def heads_model(args, parts, num_classes, size):
    heads = train.build_heads(size, num_classes)
    centres = keras.layers.Embedding(num_classes, 64)
    return train.compiled(args, [*parts, heads], centres, 1)


def time_stage(args, views, labels, stem, tail, epochs, folder, number):
    """Seconds of an epoch of stage 1, naive and with kept features (one-time work spread)."""
    num_classes, steps = int(labels.max()) + 1, max(1, len(labels) // 32)
    spent = {}
    whole = keras.Model(stem.input, tail(stem.output))
    tail.trainable = False
    for name, parts in (("naive", [stem, tail]), ("kept", [])):
        model, outputs = heads_model(args, parts, num_classes, tail.output.shape[-1])
        if parts:  # compiled() takes several parts for a later stage, with its optimizer.
            model.compile(keras.optimizers.Adam(1e-3), model.loss, jit_compile=False)
        get, once = features.from_views(views, "full"), 0.0
        if not parts:
            start = time.perf_counter()
            path = Path(folder) / f"{number}.npy"
            get = features.from_maps(features.view_maps(path, whole, views, "full", args.views))
            once = time.perf_counter() - start
        made = features.batches(
            get, labels, train.sample_pairs, outputs, num_classes, (0, number), steps
        )
        model.fit(made, steps_per_epoch=1, shuffle=False, verbose=0)  # Compiles.
        start = time.perf_counter()
        model.fit(made, steps_per_epoch=steps, shuffle=False, verbose=0)
        spent[name] = time.perf_counter() - start + once / epochs
        text = f"{spent[name]:.2f} s an epoch of {32 * steps} pictures, {epochs} epochs"
        print(f"stage 1, {name}: {text}", flush=True)
    return spent["naive"] / spent["kept"]


def plain_loop(paths, labels, size):
    """What a script would write: open, crop, resize, augment, one picture after the other."""
    for row in range(len(paths)):
        rng = np.random.default_rng(row)

        def read(row):
            with Image.open(paths[row]) as image:
                side = min(image.size)
                left, top = (image.width - side) // 2, (image.height - side) // 2
                box = (left, top, left + side, top + side)
                return np.asarray(image.convert("RGB").resize((size, size), Image.BILINEAR, box))

        yield train.make_view(labels, (), "full", row, (), rng, read)


def time_loader(views, paths, labels, size):
    """Pictures per second of the plain loop and of the threads, and cores the latter use."""
    start = time.perf_counter()
    for _ in plain_loop(paths, labels, size):
        pass
    plain = len(paths) / (time.perf_counter() - start)
    start, used = time.perf_counter(), time.process_time()
    for _ in views.in_order(("full", row) for row in range(len(paths))):
        pass
    seconds = time.perf_counter() - start
    cores = (time.process_time() - used) / seconds
    print(
        f"loader: plain {plain:.0f}, threads {len(paths) / seconds:.0f} pictures per second "
        f"on {cores:.2f} cores",
        flush=True,
    )
    return len(paths) / seconds / plain


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few pictures, a small network")
    flags = parser.parse_args(argv)
    num, size, name = flags.pictures, 224, "mobilenetv2"
    if flags.quick:
        num, size, name, flags.rounds, flags.views = 64, 32, "mobilenetv2-0.35", 1, 2
    args = train.parse_args(["--data", ".", "--views", str(flags.views)])
    stem, tail = train.build_backbone(name, size, None)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        paths, labels = find_pictures(folder, num)
        make = functools.partial(train.make_view, labels, ())
        views = features.Views(paths, size, 0, make, pool)
        for path in paths:  # Now they are in the cache of the disk.
            pictures.read_picture(path, size)
        # The loader first: after a training, what fit has ordered ahead keeps the threads busy.
        loaders = [time_loader(views, paths, labels, size) for _ in range(flags.rounds)]
        ratios = [
            time_stage(args, views, labels, stem, tail, flags.epochs, folder, number)
            for number in range(flags.rounds)
        ]
    stage, loader = np.median(ratios), np.median(loaders)
    print(f"stage 1, ratio: {stage:.1f}; loader, ratio: {loader:.2f}, {keras.backend.backend()}")


if __name__ == "__main__":
    main()
