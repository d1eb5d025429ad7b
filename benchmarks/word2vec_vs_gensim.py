"""Word2vec in Keras against gensim: words per second and quality, in one run.

    python benchmarks/word2vec_vs_gensim.py                                    # generated text
    python benchmarks/word2vec_vs_gensim.py --corpus cut_wiki.txt --eval word_eval/
    python benchmarks/word2vec_vs_gensim.py --skip-gram
    python benchmarks/word2vec_vs_gensim.py --quick                            # tries every line

Both learn CBOW (dim 128, window 5, min_count 10) from the same words for as many epochs; gensim
with 16 negatives a word and 2 workers. Learning rates are chosen on the development half of the
evaluation sets, three trials each; the other half is read once for each of three seeds. Rounds are
interleaved, each training in a process of its own. "loop" is training alone, without compilation;
"whole" goes from the text file to vectors, with vocabulary and compilation.
"""

import argparse
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from word2vec_keras.words import load_corpus

from common.run import keep_memory
from common.table import mean_interval
from data import corpus
from word2vec_keras.fast import (
    STEPS,
    build_fast_model,
    compile_fast,
    fast_chunks,
    keep_probability,
    noise_table,
    stream,
)
from word2vec_keras.vectors import evaluate_analogies, evaluate_word_pairs, read_evaluation

ROOT = Path(__file__).resolve().parent.parent
QUIET = 0.03  # Others may use so much of the machine during a training.
CHUNK, BLOCK, NEGATIVES = 4096, 64, 32
RATES = {"gensim": (0.05, 0.1, 0.15), "keras": (0.1, 0.15, 0.2)}
SKIPGRAM_RATES = {"gensim": (0.025, 0.05, 0.1), "keras": (0.05, 0.1, 0.15)}
REAL_SETS = "240.txt", "297.txt", "morphological.txt", "semantic.txt", "analogy.txt"


def half_of(items, split):
    """A fixed half of a list; the fast model itself was designed on the development half."""
    order = np.random.default_rng(5).permutation(len(items))
    chosen = order[: len(items) // 2] if split == "dev" else order[len(items) // 2 :]
    return [items[i] for i in chosen]


def quality(words, vectors, folder, split):
    """The mean score of all sets, and each: Spearman of word pairs, accuracy of analogies."""
    if folder:
        pairs, analogies = {}, {"CA8": [], "CWE": []}
        for path in sorted(Path(folder).rglob("zh_c*/**/*.txt")):
            if path.name in REAL_SETS:
                found, questions = read_evaluation(path)
                for pairs_of_file in found.values():
                    pairs[path.stem] = half_of(pairs_of_file, split)
                for questions_of_file in questions.values():
                    analogies["CWE" if path.name == "analogy.txt" else "CA8"] += questions_of_file
        analogies = {name: half_of(x, split) for name, x in analogies.items()}
    else:
        pairs = {"similarity": corpus.word_pairs(split)}
        analogies = {"analogies": [question for _, *question in corpus.analogies(split)]}
    scores = {name: evaluate_word_pairs(words, vectors, x)["value"] for name, x in pairs.items()}
    for name, x in analogies.items():
        scores[name] = evaluate_analogies(words, vectors, x, restrict_vocab=30_000)["value"]
    scores = {name: score for name, score in scores.items() if score is not None}
    if not scores:
        raise SystemExit("no word of the evaluation sets is known: give --eval")
    return float(np.mean(list(scores.values()))), scores


def train_gensim(job):
    """(words, vectors, seconds of the loop), as from train_keras."""
    from gensim.models import Word2Vec

    settings = {"vector_size": job["dim"], "window": 5, "negative": 16, "workers": os.cpu_count()}
    settings |= {
        "min_count": job["min_count"],
        "sample": job["subsample"],
        "sg": int(job["skip_gram"]),
    }
    model = Word2Vec(**settings, alpha=job["rate"], epochs=job["epochs"], seed=job["seed"])
    source = {"corpus_file": job["corpus"]}
    if not job["corpus_file"]:  # Lists of words: gensim then hands out batches of them itself.
        with open(job["corpus"], encoding="utf-8") as file:
            source = {"corpus_iterable": [line.split() for line in file]}
    model.build_vocab(**source)
    more = {} if not job["corpus_file"] else {"total_words": model.corpus_total_words}
    start = time.time()
    model.train(**source, **more, total_examples=model.corpus_count, epochs=job["epochs"])
    seconds = time.time() - start
    return model.wv.index_to_key, model.wv.vectors, seconds


def train_keras(job):
    keep_memory()
    import keras

    with tempfile.TemporaryDirectory() as folder:  # No cache: vocabulary and ids are part of it.
        ids, words, counts, total = load_corpus(job["corpus"], job["min_count"], folder=folder)
    keep, noise = keep_probability(counts, total, job["subsample"]), noise_table(counts)
    chunk, negatives = job.get("chunk", CHUNK), job.get("negatives", NEGATIVES)
    steps = int(np.ceil((counts * keep).sum() / chunk / STEPS)) * STEPS
    keras.utils.set_random_seed(job["seed"])
    model = build_fast_model(len(words), job["dim"], 5, negatives, job["skip_gram"], chunk, BLOCK)
    compile_fast(model, job["rate"], steps * job["epochs"])

    def fit(chunks, steps, epochs):
        settings = {"steps_per_epoch": steps, "epochs": epochs, "shuffle": False, "verbose": 0}
        model.fit(stream(chunks), **settings)

    # Compilation is not part of "loop": empty chunks, which change nothing, come first.
    fit(fast_chunks(ids[:0], keep, noise, STEPS, negatives, chunk, BLOCK), STEPS, 1)
    model.optimizer.iterations.assign(0)
    chunks = (
        one
        for epoch in range(job["epochs"])
        for one in fast_chunks(
            ids, keep, noise, steps, negatives, chunk, BLOCK, (job["seed"], epoch)
        )
    )
    start = time.time()
    fit(chunks, steps, job["epochs"])
    vectors = keras.ops.convert_to_numpy(model.vectors)[1:]
    return words[1:], vectors, time.time() - start


def child(job):
    start = time.time()
    words, vectors, seconds = (train_gensim if job["system"] == "gensim" else train_keras)(job)
    result = {"loop": seconds, "whole": time.time() - start}
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if job["split"]:
        result["quality"], result["scores"] = quality(words, vectors, job["eval"], job["split"])
    print(json.dumps(result))


def busy_seconds():
    """Processor seconds that anybody has used on this machine, and that its host took away."""
    user, nice, system, _, _, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    who = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    return sum(r.ru_utime + r.ru_stime for r in map(resource.getrusage, who))


def run(system, **job):
    """One training in a process of its own; again, twice at most, if others used the machine.

    "others" is the share of all cores that other processes took meanwhile.
    """
    environment = os.environ | {"PYTHONHASHSEED": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment |= {"PYTHONPATH": str(ROOT)} | (
        {} if system == "gensim" else {"KERAS_BACKEND": system}
    )
    script = Path(__file__).parent / "word2vec_vs_gensim.py"
    command = [sys.executable, str(script), "--child", json.dumps(job | {"system": system})]
    for _ in range(3):
        start, before = time.time(), busy_seconds() - own_seconds()
        done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
        others = busy_seconds() - own_seconds() - before
        if done.returncode:
            raise SystemExit(f"{system}: {done.stderr[-2000:]}")
        result = json.loads(done.stdout.splitlines()[-1])
        result["others"] = round(max(others, 0) / (time.time() - start) / os.cpu_count(), 3)
        if result["others"] < QUIET:
            break
    return result


def write_result(name, result):
    """Into benchmarks/results/, with the machine and the date."""
    path = ROOT / "benchmarks/results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    models = [x for x in Path("/proc/cpuinfo").read_text().split("\n") if "model name" in x]
    models = models or [f"model name: {platform.machine()}"]  # Many an ARM does not say.
    features = [x for x in ("avx2", "avx512f") if x in Path("/proc/cpuinfo").read_text()]
    machine = f"{models[0].split(': ')[1]}, {os.cpu_count()} cores, {' '.join(features)}"
    notes = {"machine": machine, "date": time.strftime("%F"), "python": platform.python_version()}
    path.write_text(json.dumps(notes | result, indent=1) + "\n")


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--corpus", help="a text cut into words, a sentence a line; default: generated")
    add(
        "--eval", metavar="DIR", help="folder with zh_cwe/ and zh_ca8/; default: the generated sets"
    )
    add("--epochs", type=int, default=3)
    add("--rounds", type=int, default=5)
    add("--skip-gram", action="store_true")
    add("--quick", action="store_true", help="one round of one epoch, no trials")
    add("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        return child(json.loads(args.child))
    path = Path(args.corpus or corpus.load(200_000 if args.quick else corpus.NUM_TOKENS))
    if not path.is_file():
        raise SystemExit(f"{path}: expected a text file, already cut into words")
    if args.quick:
        args.epochs = args.rounds = 1
    tokens = sum(len(line.split()) for line in path.open(encoding="utf-8"))
    known = ("gensim", "jax", "tensorflow", "torch")
    systems = [s for s in known if importlib.util.find_spec(s)]
    print(f"installed, and so compared: {', '.join(systems)}")
    job = {"corpus": str(path), "eval": args.eval, "dim": 128, "epochs": args.epochs, "seed": 0}
    job |= {"subsample": 1e-5 if args.corpus else 1e-4, "skip_gram": args.skip_gram}
    job |= {"split": None, "corpus_file": True, "min_count": 10}

    trial = job | {"rate": 0.05, "epochs": 1}
    speeds = {way: run("gensim", **trial | {"corpus_file": way})["loop"] for way in (True, False)}
    job["corpus_file"] = min(speeds, key=speeds.get)
    how = "corpus_file" if job["corpus_file"] else "lists in memory"
    print(
        f"{path.name}: {tokens:,} words, {args.epochs} epochs; gensim is faster with {how}",
        flush=True,
    )

    fastest, chosen, trials = next(s for s in systems if s != "gensim"), {}, {}
    for name, system in (("gensim", "gensim"), ("keras", fastest)):
        rates = (SKIPGRAM_RATES if args.skip_gram else RATES)[name]
        rates = rates[1:2] if args.quick else rates
        trials[name] = {
            r: run(system, **job | {"rate": r, "split": "dev"})["quality"] for r in rates
        }
        chosen[name] = max(trials[name], key=trials[name].get)
        print(f"{name}: development scores by learning rate {trials[name]}", flush=True)

    rounds = []
    for number in range(args.rounds):
        results = {}
        for system in systems:
            if system == "torch" and number:
                continue  # One round shows how far behind it is.
            rate = chosen["gensim" if system == "gensim" else "keras"]
            split = "test" if number < 3 else None
            timed = job | {"rate": rate, "split": split, "seed": number}
            results[system] = run(system, **timed)
        rounds.append(results)
        shown = {
            s: f"{tokens * args.epochs / r['loop'] / 1e6:.2f}M words/s" for s, r in results.items()
        }
        print(f"round {number}: {shown}", flush=True)

    def ratios(system, key):
        return [r["gensim"][key] / r[system][key] for r in rounds if system in r]

    def better(system):
        both = [(r[system], r["gensim"]) for r in rounds if "quality" in r.get(system, ())]
        return float(np.median([ours["quality"] / theirs["quality"] for ours, theirs in both]))

    backends = [s for s in systems if s != "gensim"]
    speed = {s: float(np.median(ratios(s, "loop"))) for s in backends}
    for system in systems:
        loops = [tokens * args.epochs / r[system]["loop"] for r in rounds if system in r]
        wholes = [tokens * args.epochs / r[system]["whole"] for r in rounds if system in r]
        line = f"{system}: loop {np.median(loops):,.0f} words/s, whole {np.median(wholes):,.0f}"
        if system in backends:
            for key in ("loop", "whole"):
                values = ratios(system, key)
                low, high = min(values), max(values)
                line += f"; {key} {np.median(values):.2f} x gensim ({low:.2f} to {high:.2f})"
            line += f"; quality {better(system):.2f} x gensim"
        values = [r[system]["quality"] for r in rounds if "quality" in r.get(system, ())]
        interval = mean_interval(values) if len(values) > 1 else {"value": values[0]}
        print(f"{line}; quality {interval}")
        print(f"   {[r[system]['scores'] for r in rounds if 'scores' in r.get(system, ())]}")
    busy = [r["others"] for results in rounds for r in results.values()]
    print(f"other processes took {max(busy):.1%} of the machine at the most during a training")
    best = max(speed, key=speed.get)
    given = vars(args) | {"corpus": path.name, "eval": bool(args.eval)}
    result = {"corpus": path.name, "tokens": tokens, "arguments": given, "rounds": rounds}
    result |= {"trials": trials, "gensim_source": how}
    result |= {"speed_ratios": speed, "quality_ratio": better(best)}
    if not args.quick:
        name = path.stem if args.corpus else "generated-text"
        write_result(f"word2vec_vs_gensim-{name}{'-skipgram' * args.skip_gram}", result)
    print(f"speed ratio: {speed[best]:.2f}")
    print(f"quality ratio: {better(best):.2f}")


if __name__ == "__main__":
    main()
