"""Word2vec in Keras against gensim: words per second and quality, in one run.

    python benchmarks/word2vec_vs_gensim.py                                    # generated text
    python benchmarks/word2vec_vs_gensim.py --corpus cut_wiki.txt --eval word_eval/
    python benchmarks/word2vec_vs_gensim.py --skip-gram
    python benchmarks/word2vec_vs_gensim.py --quick                            # tries every line

Both learn CBOW (dim 128, window 5, min_count 10) from the same words for as many epochs; gensim
with 16 negatives per word and 2 workers. Learning rates are chosen on the development half of the
evaluation sets, three trials each; the other half is read once for each of three seeds. Rounds are
interleaved, each training in a process of its own (helpers/word2vec_one_training.py). "loop" is
training alone, without compilation; "whole" goes from the text file to vectors, with vocabulary
and compilation.
"""

import argparse
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from common.files import ROOT
from common.metrics import mean_interval
from data import corpus

QUIET = 0.03  # Others may use such a fraction of the machine during a training.
SYSTEMS = ("gensim", "jax", "tensorflow", "torch")
RATES = {"gensim": (0.05, 0.1, 0.15), "keras": (0.1, 0.15, 0.2)}
SKIPGRAM_RATES = {"gensim": (0.025, 0.05, 0.1), "keras": (0.05, 0.1, 0.15)}
NUM_SEEDS = 3  # Rounds whose quality is read.


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--corpus", help="a text cut into words, a sentence per line; default: generated")
    add("--eval", metavar="DIR", help="folder with zh_cwe/ and zh_ca8/; default: generated sets")
    add("--epochs", type=int, default=3)
    add("--rounds", type=int, default=5)
    add("--skip-gram", action="store_true")
    add("--quick", action="store_true", help="one round of one epoch, no trials")
    args = parser.parse_args(argv)
    if args.quick:
        args.epochs = 1
        args.rounds = 1
    return args


def main(argv=None):
    args = parse_args(argv)
    path = corpus_path(args)
    tokens = count_tokens(path)
    systems = [name for name in SYSTEMS if importlib.util.find_spec(name)]
    print(f"installed, and so compared: {', '.join(systems)}")
    job = base_job(path, real=args.corpus is not None)
    job["eval"] = args.eval
    job["epochs"] = args.epochs
    job["skip_gram"] = args.skip_gram
    job["corpus_file"] = is_corpus_file_faster(job)
    gensim_source = "lists in memory"
    if job["corpus_file"]:
        gensim_source = "corpus_file"
    print(
        f"{path.name}: {tokens:,} words, {args.epochs} epochs; "
        f"gensim is faster with {gensim_source}",
        flush=True,
    )

    trials = try_rates(args, job, systems)
    rates = {name: max(scores, key=scores.get) for name, scores in trials.items()}
    rounds = []
    for number in range(args.rounds):
        results = run_round(number, job, systems, rates)
        rounds.append(results)
        speeds = {
            system: f"{tokens * args.epochs / result['loop'] / 1e6:.2f}M words/s"
            for system, result in results.items()
        }
        print(f"round {number}: {speeds}", flush=True)

    for system in systems:
        print_system(system, rounds, tokens * args.epochs)
    busy = [result["others"] for results in rounds for result in results.values()]
    print(f"other processes took {max(busy):.1%} of the machine at the most during a training")
    backends = [system for system in systems if system != "gensim"]
    speed_ratios = {system: float(np.median(ratios(rounds, system, "loop"))) for system in backends}
    best = max(speed_ratios, key=speed_ratios.get)
    quality_ratio = median_quality_ratio(rounds, best)
    if not args.quick:
        arguments = {**vars(args), "corpus": path.name, "eval": args.eval is not None}
        result = {
            "corpus": path.name,
            "tokens": tokens,
            "arguments": arguments,
            "rounds": rounds,
            "trials": trials,
            "gensim_source": gensim_source,
            "speed_ratios": speed_ratios,
            "quality_ratio": quality_ratio,
        }
        write_result(result_name("word2vec_vs_gensim", args), result)
    print(f"speed ratio: {speed_ratios[best]:.2f}")
    print(f"quality ratio: {quality_ratio:.2f}")


# --- What is trained on ---
def corpus_path(args):
    """The text that --corpus names, or the generated one."""
    if args.corpus is not None:
        path = Path(args.corpus)
    elif args.quick:
        path = corpus.load(200_000)
    else:
        path = corpus.load(corpus.NUM_TOKENS)
    if not path.is_file():
        raise SystemExit(f"{path}: expected a text file, already cut into words")
    return path


def count_tokens(path):
    with path.open(encoding="utf-8") as file:
        return sum(len(line.split()) for line in file)


def base_job(path, real):
    """What all trainings of one script share, as helpers/word2vec_one_training.py reads it.

    Args:
        real: whether the text is a real one: it is larger, so frequent words are thinned out more.
    """
    subsample = 1e-4
    if real:
        subsample = 1e-5
    return {
        "corpus": str(path),
        "eval": None,
        "dim": 128,
        "epochs": 1,
        "seed": 0,
        "min_count": 10,
        "subsample": subsample,
        "skip_gram": False,
        "corpus_file": True,  # How gensim reads: a file, or lists of words in memory.
        "split": None,  # The half of the evaluation sets: "dev" or "test".
        "rate": 0.1,
    }


def result_name(benchmark, args):
    """The name of the file in benchmarks/results/."""
    name = f"{benchmark}-generated-text"
    if args.corpus is not None:
        name = f"{benchmark}-{Path(args.corpus).stem}"
    if getattr(args, "skip_gram", False):
        name += "-skipgram"
    return name


# --- Trainings ---
def is_corpus_file_faster(job):
    """Whether gensim is faster with a file than with lists in memory."""
    seconds = {}
    for way in (True, False):
        trial = {**job, "rate": 0.05, "epochs": 1, "corpus_file": way}
        seconds[way] = run("gensim", **trial)["loop"]
    return seconds[True] <= seconds[False]


def try_rates(args, job, systems):
    """Scores on the development half: {"gensim" | "keras": {learning rate: score}}."""
    fastest = next(system for system in systems if system != "gensim")
    trials = {}
    for name, system in (("gensim", "gensim"), ("keras", fastest)):
        rates = RATES[name]
        if args.skip_gram:
            rates = SKIPGRAM_RATES[name]
        if args.quick:
            rates = rates[1:2]
        trials[name] = {}
        for rate in rates:
            trials[name][rate] = run(system, **{**job, "rate": rate, "split": "dev"})["quality"]
        print(f"{name}: development scores by learning rate {trials[name]}", flush=True)
    return trials


def run_round(number, job, systems, rates):
    """{system: result} of one training each."""
    results = {}
    for system in systems:
        if system == "torch" and number > 0:
            continue  # One round shows how far behind it is.
        rate = rates["keras"]
        if system == "gensim":
            rate = rates["gensim"]
        timed = {**job, "rate": rate, "seed": number}
        if number < NUM_SEEDS:
            timed["split"] = "test"
        results[system] = run(system, **timed)
    return results


def run(system, **job):
    """One training in a process of its own; again, twice at most, if others used the machine.

    "others" is the fraction of all cores that other processes took meanwhile.
    """
    environment = dict(os.environ)
    environment.update(PYTHONHASHSEED="0", TF_CPP_MIN_LOG_LEVEL="3", PYTHONPATH=str(ROOT))
    if system != "gensim":
        environment["KERAS_BACKEND"] = system
    script = ROOT / "benchmarks" / "helpers" / "word2vec_one_training.py"
    command = [sys.executable, str(script), json.dumps({**job, "system": system})]
    for _ in range(3):
        start = time.time()
        others_before = busy_seconds() - own_seconds()
        done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
        others = busy_seconds() - own_seconds() - others_before
        if done.returncode != 0:
            raise SystemExit(f"{system}: {done.stderr[-2000:]}")
        result = json.loads(done.stdout.splitlines()[-1])
        result["others"] = round(max(others, 0) / (time.time() - start) / os.cpu_count(), 3)
        if result["others"] < QUIET:
            break
    return result


# --- Comparisons ---
def ratios(rounds, system, key):
    """How many times as fast as gensim a system was in each round."""
    return [
        results["gensim"][key] / results[system][key] for results in rounds if system in results
    ]


def qualities(rounds, system):
    """The quality of a system in the rounds that have one."""
    results = [round_[system] for round_ in rounds if system in round_]
    return [result["quality"] for result in results if "quality" in result]


def median_quality_ratio(rounds, system):
    """The quality of a system in units of gensim's, seed by seed."""
    pairs = zip(qualities(rounds, system), qualities(rounds, "gensim"), strict=False)
    return float(np.median([ours / theirs for ours, theirs in pairs]))


def print_system(system, rounds, num_words):
    """Prints the speeds and the quality of a system."""
    results = [round_[system] for round_ in rounds if system in round_]
    loop = np.median([num_words / result["loop"] for result in results])
    whole = np.median([num_words / result["whole"] for result in results])
    line = f"{system}: loop {loop:,.0f} words/s, whole {whole:,.0f}"
    if system != "gensim":
        for key in ("loop", "whole"):
            values = ratios(rounds, system, key)
            line += f"; {key} {np.median(values):.2f} x gensim"
            line += f" ({min(values):.2f} to {max(values):.2f})"
        line += f"; quality {median_quality_ratio(rounds, system):.2f} x gensim"
    values = qualities(rounds, system)
    interval = {"value": values[0]}
    if len(values) > 1:
        interval = mean_interval(values)
    print(f"{line}; quality {interval}")
    print(f"   {[result['scores'] for result in results if 'scores' in result]}")


# --- The machine ---
def busy_seconds():
    """Processor seconds that anybody has used on this machine, and that its host took away."""
    first_line = Path("/proc/stat").read_text().split("\n")[0]
    user, nice, system, _, _, irq, softirq, steal = map(int, first_line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    """Processor seconds of this process and of its children that have ended."""
    seconds = 0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        seconds += usage.ru_utime + usage.ru_stime
    return seconds


def write_result(name, result):
    """Into benchmarks/results/, with the machine and the date."""
    path = ROOT / "benchmarks/results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    notes = {
        "machine": machine_name(),
        "date": time.strftime("%F"),
        "python": platform.python_version(),
    }
    path.write_text(json.dumps({**notes, **result}, indent=1) + "\n")


def machine_name():
    """The processor, its cores and the vector instructions that XLA uses."""
    info = Path("/proc/cpuinfo").read_text()
    name = platform.machine()  # Many an ARM processor does not say its name.
    for line in info.split("\n"):
        if "model name" in line:
            name = line.split(": ")[1]
            break
    features = [feature for feature in ("avx2", "avx512f") if feature in info]
    return f"{name}, {os.cpu_count()} cores, {' '.join(features)}"


if __name__ == "__main__":
    main()
