"""Word2vec in Keras against gensim: what larger vocabularies and vectors cost.

    python benchmarks/word2vec_cost.py             # about ten minutes
    python benchmarks/word2vec_cost.py --quick     # tries every line

One epoch of CBOW over random words with frequencies by Zipf's law, each word at least once, for
10,000, 100,000 and 1,000,000 different words and vectors of 64 to 512 numbers. Words per second
are of training alone, memory is the largest of the process. The last line is the smallest ratio.
"""

import argparse
import importlib.util
import tempfile
from pathlib import Path

import numpy as np
from word2vec_vs_gensim import base_job, run, write_result

SIZES = (
    # (different words, numbers in a vector)
    (10_000, 128),
    (100_000, 64),
    (100_000, 128),
    (100_000, 256),
    (100_000, 512),
    (1_000_000, 128),
)
NUM_TOKENS = 4_000_000
QUICK_TOKENS = 200_000


def write_words(path, num_words, num_tokens, seed=0):
    """A text of lines of 20 words. The i-th most frequent word is about 1/i of the text."""
    rng = np.random.default_rng(seed)
    cumulative = np.cumsum(1 / np.arange(1, num_words + 1))
    drawn = rng.random(num_tokens - num_words)
    drawn = np.searchsorted(cumulative / cumulative[-1], drawn)
    ids = rng.permutation(np.append(np.arange(num_words), drawn))
    ids = ids[: num_tokens // 20 * 20].reshape(-1, 20)
    with path.open("w", encoding="utf-8") as file:
        for line in ids:
            file.write(" ".join(f"w{i}" for i in line) + "\n")


def measure(path, num_words, dim, num_tokens, systems):
    """(the results of all systems, how many times as fast as gensim the faster backend is)."""
    job = base_job(path, real=False)
    job.update(dim=dim, min_count=1)
    row = {"words": num_words, "dim": dim}
    speeds = {}
    shown = []
    for system in systems:
        result = run(system, **job)
        row[system] = result
        speeds[system] = num_tokens / result["loop"]
        shown.append(f"{system} {speeds[system] / 1e6:.2f}M/s {result['peak_mb']:,} MB")
    fastest = max(speeds[system] for system in systems if system != "gensim")
    ratio = fastest / speeds["gensim"]
    print(f"{num_words:,} words, {dim}: {'; '.join(shown)}; ratio {ratio:.2f}", flush=True)
    return row, ratio


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one small size")
    args = parser.parse_args(argv)
    sizes = SIZES
    num_tokens = NUM_TOKENS
    if args.quick:
        sizes = SIZES[:1]
        num_tokens = QUICK_TOKENS
    backends = [name for name in ("jax", "tensorflow") if importlib.util.find_spec(name)]
    rows = []
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for num_words, dim in sizes:
            path = Path(folder) / f"{num_words}.txt"
            if not path.exists():
                write_words(path, num_words, num_tokens)
            row, ratio = measure(path, num_words, dim, num_tokens, ["gensim", *backends])
            rows.append(row)
            ratios.append(ratio)
    if not args.quick:
        write_result("word2vec_cost", {"num_tokens": num_tokens, "rows": rows})
    print(f"smallest ratio of the faster backend: {min(ratios):.2f}")


if __name__ == "__main__":
    main()
