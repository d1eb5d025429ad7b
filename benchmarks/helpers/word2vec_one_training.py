"""One training of a word2vec benchmark, in a process of its own. The benchmarks start it.

    python benchmarks/helpers/word2vec_one_training.py JOB

JOB is a JSON object: see base_job in word2vec_vs_gensim.py. "system" is gensim or a backend.

Prints one JSON object: "loop" are the seconds of training alone, without compilation; "whole" are
those from the text file to vectors, with vocabulary and compilation; "peak_mb" is the largest
memory of the process; "quality" and "scores" are there if the job names a split.

What only one of the systems needs is imported by its function, so that the memory and the seconds
of the other one do not count it.
"""

import json
import math
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CHUNK = 4096
BLOCK = 64
NEGATIVES = 32
REAL_SETS = ("240.txt", "297.txt", "morphological.txt", "semantic.txt", "analogy.txt")


def main():
    job = json.loads(sys.argv[1])
    start = time.time()
    if job["system"] == "gensim":
        words, vectors, seconds = train_gensim(job)
    else:
        words, vectors, seconds = train_keras(job)
    result = {"loop": seconds, "whole": time.time() - start}
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if job["split"] is not None:
        result["quality"], result["scores"] = quality(words, vectors, job["eval"], job["split"])
    print(json.dumps(result))


# --- Trainings: each returns (words, vectors, seconds of the loop) ---
def train_gensim(job):
    from gensim.models import Word2Vec

    model = Word2Vec(
        vector_size=job["dim"],
        window=5,
        negative=16,
        workers=os.cpu_count(),
        min_count=job["min_count"],
        sample=job["subsample"],
        sg=int(job["skip_gram"]),
        alpha=job["rate"],
        epochs=job["epochs"],
        seed=job["seed"],
    )
    if job["corpus_file"]:
        source = {"corpus_file": job["corpus"]}
        model.build_vocab(**source)
        source["total_words"] = model.corpus_total_words
    else:  # Lists of words: gensim then hands out batches of them itself.
        with open(job["corpus"], encoding="utf-8") as file:
            source = {"corpus_iterable": [line.split() for line in file]}
        model.build_vocab(**source)
    start = time.time()
    model.train(**source, total_examples=model.corpus_count, epochs=job["epochs"])
    seconds = time.time() - start
    return model.wv.index_to_key, model.wv.vectors, seconds


def train_keras(job):
    from common.memory import keep_freed_memory

    keep_freed_memory()
    import keras

    from word2vec_keras.dataset import load_corpus
    from word2vec_keras.fast import STEPS, FastWord2Vec, compile_fast, fast_chunks, noise_table
    from word2vec_keras.model import EpochBatches, keep_probability

    with tempfile.TemporaryDirectory() as folder:  # No cache: vocabulary and ids are part of it.
        ids, words, counts, total = load_corpus(job["corpus"], job["min_count"], folder=folder)
    keep = keep_probability(counts, total, job["subsample"])
    noise = noise_table(counts)
    chunk_size = job.get("chunk", CHUNK)
    num_steps = math.ceil((counts * keep).sum() / chunk_size / STEPS) * STEPS
    keras.utils.set_random_seed(job["seed"])
    model = FastWord2Vec(
        len(words),
        job["dim"],
        window=5,
        num_negatives=job.get("negatives", NEGATIVES),
        skip_gram=job["skip_gram"],
        chunk_size=chunk_size,
        block_size=BLOCK,
    )
    compile_fast(model, job["rate"], num_steps * job["epochs"])

    # Compilation is not part of "loop": empty chunks, which change nothing, come first.
    def read_nothing(epoch):
        return fast_chunks(ids[:0], keep, noise, STEPS, chunk_size, model.negatives_shape)

    fit(model, EpochBatches(read_nothing, STEPS), epochs=1)
    model.optimizer.iterations.assign(0)

    def read_epoch(epoch):
        return fast_chunks(
            ids,
            keep,
            noise,
            num_steps,
            chunk_size,
            model.negatives_shape,
            seed=(job["seed"], epoch),
        )

    start = time.time()
    fit(model, EpochBatches(read_epoch, num_steps), job["epochs"])
    vectors = keras.ops.convert_to_numpy(model.vectors)[1:]
    return words[1:], vectors, time.time() - start


def fit(model, batches, epochs):
    from word2vec_keras.fast import stream

    steps = batches.steps_per_epoch
    chunks = stream(batches, steps * epochs)
    model.fit(chunks, steps_per_epoch=steps, epochs=epochs, shuffle=False, verbose=0)


# --- Quality ---
def quality(words, vectors, folder, split):
    """The mean score of all sets, and each: Spearman of word pairs, accuracy of analogies."""
    from word2vec_keras.evaluate import evaluate_analogies, evaluate_word_pairs

    if folder is not None:
        pairs, analogies = real_sets(Path(folder), split)
    else:
        pairs, analogies = generated_sets(split)
    scores = {}
    for name, pairs_of_set in pairs.items():
        scores[name] = evaluate_word_pairs(words, vectors, pairs_of_set)["value"]
    for name, questions in analogies.items():
        result = evaluate_analogies(words, vectors, questions, restrict_vocab=30_000)
        scores[name] = result["value"]
    scores = {name: score for name, score in scores.items() if score is not None}
    if not scores:
        raise SystemExit("no word of the evaluation sets is known: give --eval")
    return float(np.mean(list(scores.values()))), scores


def generated_sets(split):
    """({name: word pairs}, {name: analogies}) of the generated text."""
    from data import corpus

    questions = [question for _, *question in corpus.analogies(split)]
    return {"similarity": corpus.word_pairs(split)}, {"analogies": questions}


def real_sets(folder, split):
    """({name: word pairs}, {name: analogies}): one half of the Chinese sets in a folder."""
    from word2vec_keras.evaluate import read_evaluation

    pairs = {}
    analogies = {"CA8": [], "CWE": []}
    for path in sorted(folder.rglob("zh_c*/**/*.txt")):
        if path.name not in REAL_SETS:
            continue
        pairs_of_files, questions_of_files = read_evaluation(path)
        for pairs_of_file in pairs_of_files.values():
            pairs[path.stem] = half_of(pairs_of_file, split)
        name = "CA8"
        if path.name == "analogy.txt":
            name = "CWE"
        for questions in questions_of_files.values():
            analogies[name] += questions
    analogies = {name: half_of(questions, split) for name, questions in analogies.items()}
    return pairs, analogies


def half_of(items, split):
    """A fixed half of a list; the fast model itself was designed on the development half."""
    order = np.random.default_rng(5).permutation(len(items))
    middle = len(items) // 2
    if split == "dev":
        chosen = order[:middle]
    else:
        chosen = order[middle:]
    return [items[i] for i in chosen]


if __name__ == "__main__":
    main()
