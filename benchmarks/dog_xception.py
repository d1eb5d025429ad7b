"""How fast the post's Xception goes on this device, and how much memory it takes.

    python benchmarks/dog_xception.py             # 299 pixels; a GPU's work, minutes on a CPU
    python benchmarks/dog_xception.py --quick     # tries every line

In float32 and with mixed_bfloat16: images per second of stage 1, which only computes features of
the frozen network, and of stages 2 and 3, which train the heads and the last two blocks in
batches of 32. The images are noise and the weights random: they change no speed. Memory is the
peak of what the backend took on the GPU; on a CPU it is not known.
Last line: `bfloat16, ratio: X`, how much faster stages 2 and 3 are with it.
"""

import argparse
import time

import common.backend  # noqa: F401  # Before Keras.

import keras
import numpy as np

from dog_finetune import features, model, stages, train

NUM_CLASSES = 100


def peak_memory():
    """GiB the backend took at most on the GPU since the last call (JAX: the start), or nan."""
    if keras.backend.backend() == "torch":
        import torch

        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated() / 2**30
            torch.cuda.reset_peak_memory_stats()
            return peak
    if keras.backend.backend() == "jax":
        import jax

        stats = jax.devices()[0].memory_stats() or {}
        return stats.get("peak_bytes_in_use", np.nan) / 2**30
    return np.nan


def time_steps(step, num_steps):
    """Seconds a step; the first two, which compile, are not counted."""
    for _ in range(2):
        step()
    start = time.perf_counter()
    for _ in range(num_steps):
        step()
    return (time.perf_counter() - start) / num_steps


def time_policy(policy, name, images, labels, num_steps):
    """Images per second of stage 1, and of stages 2 and 3, with a policy for mixed precision."""
    keras.config.set_dtype_policy(policy)
    args = train.parse_args(
        ["--data", ".", "--weights", "none", "--learning-rate", "1e-4", "--fresh"]
    )
    stem, tail = model.build_backbone(name, images.shape[1], None)
    whole = keras.Model(stem.input, tail(stem.output))
    heads = model.build_heads(tail.output.shape[-1], NUM_CLASSES)
    centres = keras.layers.Embedding(NUM_CLASSES, 64)
    network = stages.Network(stem, tail, heads, centres)
    training_model, outputs = stages.compile_last_blocks(args, network, num_steps)
    inputs, targets = features.Targets(labels, NUM_CLASSES, outputs).join_all(images)

    def compute_features():
        whole.predict_on_batch(images)

    def train_blocks():
        training_model.train_on_batch(inputs, targets)

    peak_memory()
    speeds = []
    for stage, step in (("1", compute_features), ("2 and 3", train_blocks)):
        speeds.append(len(images) / time_steps(step, num_steps))
        print(
            f"{policy}, stage {stage}: {speeds[-1]:.0f} images per second, {peak_memory():.2f} GiB",
            flush=True,
        )
    keras.config.set_dtype_policy("float32")
    return speeds


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a small network")
    flags = parser.parse_args(argv)
    size = 299
    name = "xception"
    batch_size = 32
    if flags.quick:
        size = 32
        name = "mobilenetv2-0.35"
        batch_size = 8
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, size, size, 3), "uint8")
    labels = rng.integers(0, NUM_CLASSES, batch_size).astype("int32")
    _, single = time_policy("float32", name, images, labels, flags.steps)
    _, half = time_policy("mixed_bfloat16", name, images, labels, flags.steps)
    print(f"bfloat16, ratio: {half / single:.2f}, {keras.backend.backend()}")


if __name__ == "__main__":
    main()
