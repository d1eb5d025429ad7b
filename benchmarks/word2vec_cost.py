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
from word2vec_vs_gensim import run, write_result

SIZES = (10_000, 128), (100_000, 64), (100_000, 128), (100_000, 256), (100_000, 512)
SIZES += ((1_000_000, 128),)


def write_words(path, num_words, num_tokens, seed=0):
    """A text of lines of 20 words, of which the i-th most frequent one has a share of about 1/i."""
    rng = np.random.default_rng(seed)
    share = np.cumsum(1 / np.arange(1, num_words + 1))
    drawn = np.searchsorted(share / share[-1], rng.random(num_tokens - num_words))
    ids = rng.permutation(np.append(np.arange(num_words), drawn))[: num_tokens // 20 * 20]
    with path.open("w", encoding="utf-8") as file:
        for line in ids.reshape(-1, 20):
            file.write(" ".join(map("w{}".format, line)) + "\n")


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one small size")
    args = parser.parse_args(argv)
    num_tokens = 200_000 if args.quick else 4_000_000
    backends = [s for s in ("jax", "tensorflow") if importlib.util.find_spec(s)]
    rows, ratios = [], []
    with tempfile.TemporaryDirectory() as folder:
        for num_words, dim in SIZES[:1] if args.quick else SIZES:
            path = Path(folder) / f"{num_words}.txt"
            if not path.exists():
                write_words(path, num_words, num_tokens)
            job = {"corpus": str(path), "dim": dim, "epochs": 1, "seed": 0, "min_count": 1}
            job |= {"subsample": 1e-4, "skip_gram": False, "corpus_file": True, "split": None}
            row = {"words": num_words, "dim": dim}
            for system in ("gensim", *backends):
                row[system] = run(system, **job, rate=0.1)
            speed = {s: num_tokens / row[s]["loop"] for s in ("gensim", *backends)}
            best = max(speed[s] for s in backends) / speed["gensim"]
            ratios.append(best)
            shown = (f"{s} {v / 1e6:.2f}M/s {row[s]['peak_mb']:,} MB" for s, v in speed.items())
            print(f"{num_words:,} words, {dim}: {'; '.join(shown)}; ratio {best:.2f}", flush=True)
            rows.append(row)
    if not args.quick:
        write_result("word2vec_cost", {"num_tokens": num_tokens, "rows": rows})
    print(f"smallest ratio of the faster backend: {min(ratios):.2f}")


if __name__ == "__main__":
    main()
