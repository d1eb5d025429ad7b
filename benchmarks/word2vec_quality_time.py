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

from word2vec_vs_gensim import RATES, base_job, corpus_path, result_name, run, write_result


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--corpus", help="a text cut into words, a sentence per line; default: generated")
    add("--eval", metavar="DIR", help="folder with zh_cwe/ and zh_ca8/; default: generated sets")
    add("--epochs", type=int, nargs="+", default=[1, 2, 4, 8], help="default: 1 2 4 8")
    add("--rates", type=float, nargs=2, metavar=("GENSIM", "KERAS"), help="instead of trials")
    add("--quick", action="store_true", help="1 and 2 epochs, no trials")
    args = parser.parse_args(argv)
    if args.quick:
        args.epochs = [1, 2]
        args.rates = [RATES["gensim"][1], RATES["keras"][1]]
    return args


def main(argv=None):
    args = parse_args(argv)
    path = corpus_path(args)
    job = base_job(path, real=args.corpus is not None)
    job["eval"] = args.eval
    # Those of train.py: slower than in the race, and better.
    job["chunk"] = 8192
    job["negatives"] = 64
    backends = [name for name in ("jax", "tensorflow") if importlib.util.find_spec(name)]
    points = []
    for epochs in args.epochs:
        job["epochs"] = epochs
        for name, systems in (("gensim", ["gensim"]), ("keras", backends)):
            job["rate"] = choose_rate(args, name, systems[0], job)
            for system in systems:
                points.append(measure(system, job))
    if not args.quick:
        result = {"corpus": path.name, "points": points}
        write_result(result_name("word2vec_quality_time", args), result)
    for backend in backends:
        print_lead(backend, points)


def choose_rate(args, name, system, job):
    """The learning rate of --rates, or the one that scores best on the development half."""
    if args.rates is not None:
        given = dict(zip(("gensim", "keras"), args.rates, strict=True))
        return given[name]
    scores = {}
    for rate in RATES[name]:
        scores[rate] = run(system, **{**job, "rate": rate, "split": "dev"})["quality"]
    return max(scores, key=scores.get)


def measure(system, job):
    """One training and its quality on the test half."""
    result = run(system, **{**job, "split": "test"})
    print(
        f"{system}, {job['epochs']} epochs, rate {job['rate']}: {result['whole']:.0f} s "
        f"(training {result['loop']:.0f} s), quality {result['quality']:.3f}",
        flush=True,
    )
    return {"system": system, "epochs": job["epochs"], "rate": job["rate"], **result}


def print_lead(backend, points):
    """Prints how much better a backend is than gensim at equal time, where that is least."""
    leads = []
    early = 0  # Trainings of gensim that ended before the first of ours.
    for point in points:
        if point["system"] != "gensim":
            continue
        in_time = [
            other["quality"]
            for other in points
            if other["system"] == backend and other["whole"] <= point["whole"]
        ]
        if in_time:
            leads.append(max(in_time) - point["quality"])
        else:
            early += 1
    print(f"{backend}: {early} of gensim's trainings ended before the first of ours")
    print(f"smallest lead of {backend} at equal time: {min(leads, default=float('nan')):+.3f}")


if __name__ == "__main__":
    main()
