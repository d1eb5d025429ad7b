"""How fast the post's Xception goes on this device, and how much memory it takes.

    python benchmarks/dog_xception.py             # 299 pixels; a GPU's work, minutes on a CPU
    python benchmarks/dog_xception.py --quick     # tries every line

In float32 and with mixed_bfloat16: pictures per second of stage 1, which only computes features
of the frozen network, and of stages 2 and 3, which train the heads and the last two blocks in
batches of 32. The pictures are noise and the weights random: they change no speed. Memory is the
peak of what the backend took on the GPU; of a CPU it is not told.
Last line: `bfloat16, ratio: X`, how much faster stages 2 and 3 are with it.
"""

import argparse
import time

import keras
import numpy as np

from dog_finetune import train

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


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a small network")
    flags = parser.parse_args(argv)
    size, name, batch_size = (32, "mobilenetv2-0.35", 8) if flags.quick else (299, "xception", 32)
    args = train.parse_args(["--data", ".", "--weights", "none", "--learning-rate", "1e-4"])
    rng, speeds = np.random.default_rng(0), {}
    pictures = rng.integers(0, 256, (batch_size, size, size, 3), "uint8")
    labels = rng.integers(0, NUM_CLASSES, batch_size).astype("int32")
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        stem, tail = train.build_backbone(name, size, None)
        whole = keras.Model(stem.input, tail(stem.output))
        heads = train.build_heads(tail.output.shape[-1], NUM_CLASSES)
        centres = keras.layers.Embedding(NUM_CLASSES, 64)
        model, outputs = train.compiled(args, [stem, tail, heads], centres, 1)
        shares = np.eye(NUM_CLASSES, dtype="float32")[labels]
        targets = {name: shares for name in outputs} | {"distance": np.zeros((batch_size, 1))}
        peak_memory()
        for stage, step in (
            ("1", lambda whole=whole: whole.predict_on_batch(pictures)),
            (
                "2 and 3",
                lambda model=model, targets=targets: model.train_on_batch(
                    {"x": pictures, "target": labels}, targets
                ),
            ),
        ):
            speeds[policy, stage] = batch_size / time_steps(step, flags.steps)
            print(
                f"{policy}, stage {stage}: {speeds[policy, stage]:.0f} pictures per second, "
                f"{peak_memory():.2f} GiB",
                flush=True,
            )
    keras.config.set_dtype_policy("float32")
    ratio = speeds["mixed_bfloat16", "2 and 3"] / speeds["float32", "2 and 3"]
    print(f"bfloat16, ratio: {ratio:.2f}, {keras.backend.backend()}")


if __name__ == "__main__":
    main()
