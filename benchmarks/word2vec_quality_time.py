"""Word2vec in Keras against gensim: quality at every wall time.

    python benchmarks/word2vec_quality_time.py                  # generated text
    python benchmarks/word2vec_quality_time.py --corpus cut_wiki.txt --eval word_eval/
    python benchmarks/word2vec_quality_time.py --quick          # tries every line

Trains each system for 1, 2, 4, ... epochs, each time from the start and with its learning rate
falling to zero in the end, as one who has so much time would. Rates are chosen on the development
half for each number of epochs, three trials each, or given. Time goes from the text file to the
vectors. The last line is the smallest difference in quality (test half, one seed) between a
training of gensim's and the best of ours that took no longer.
"""

import argparse
import importlib.util
from pathlib import Path

from word2vec_vs_gensim import RATES, run, write_result

from data import corpus


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--corpus", help="a text cut into words, a sentence a line; default: generated")
    add("--eval", metavar="DIR", help="folder with zh_cwe/ and zh_ca8/; default: generated sets")
    add("--epochs", type=int, nargs="+", default=[1, 2, 4, 8], help="default: 1 2 4 8")
    add("--rates", type=float, nargs=2, metavar=("GENSIM", "KERAS"), help="instead of trials")
    add("--quick", action="store_true", help="1 and 2 epochs, no trials")
    args = parser.parse_args(argv)
    if args.quick:
        args.epochs, args.rates = [1, 2], [RATES["gensim"][1], RATES["keras"][1]]
    path = Path(args.corpus or corpus.load(200_000 if args.quick else corpus.NUM_TOKENS))
    job = {"corpus": str(path), "eval": args.eval, "dim": 128, "seed": 0, "min_count": 10}
    job |= {"subsample": 1e-5 if args.corpus else 1e-4, "skip_gram": False, "corpus_file": True}
    job |= {"chunk": 8192, "negatives": 64}  # Those of train.py: slower than in the race, better.
    backends = [s for s in ("jax", "tensorflow") if importlib.util.find_spec(s)]
    points = []
    for epochs in args.epochs:
        job["epochs"] = epochs
        for name, systems in (("gensim", ["gensim"]), ("keras", backends)):
            if args.rates:
                rate = args.rates[name == "keras"]
            else:
                trials = {r: run(systems[0], **job, rate=r, split="dev") for r in RATES[name]}
                rate = max(trials, key=lambda r: trials[r]["quality"])
            for system in systems:
                result = run(system, **job, rate=rate, split="test")
                points.append({"system": system, "epochs": epochs, "rate": rate} | result)
                print(
                    f"{system}, {epochs} epochs, rate {rate}: {result['whole']:.0f} s "
                    f"(training {result['loop']:.0f} s), quality {result['quality']:.3f}",
                    flush=True,
                )
    if not args.quick:
        name = f"word2vec_quality_time-{path.stem if args.corpus else 'generated-text'}"
        write_result(name, {"corpus": path.name, "points": points})
    for backend in backends:
        ours = [p for p in points if p["system"] == backend]
        lead = []
        for p in points:
            in_time = [q["quality"] for q in ours if q["whole"] <= p["whole"]]
            if p["system"] == "gensim" and in_time:
                lead.append(max(in_time) - p["quality"])
        early = len(args.epochs) - len(lead)
        print(f"{backend}: {early} of gensim's trainings ended before the first of ours")
        print(f"smallest lead of {backend} at equal time: {min(lead, default=float('nan')):+.3f}")


if __name__ == "__main__":
    main()
