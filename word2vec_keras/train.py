"""Trains word vectors with a softmax over a few random words: the post's model, and a fast one.

Post 4515 (https://kexue.fm/archives/4515, 2017, after 4402) writes CBOW in ten lines of Keras. Its
softmax covers the target and 16 random words. It gives no number and concedes that Keras cannot
match the speed of gensim. The fast models here do (benchmarks/word2vec_vs_gensim.py). The default
text is generated and has known analogies (data/corpus.py). --data takes a file (.gz, .xz and .bz2
too) or a folder, one sentence per line, with spaces between words, or Chinese with --segment.

    python word2vec_keras/train.py                      # the fast CBOW
    python word2vec_keras/train.py --model cbow         # the post's, same data, same epochs
    python word2vec_keras/train.py --preset full --model fast-skipgram
    python word2vec_keras/train.py --preset post        # the post's model and recipe
    python word2vec_keras/train.py --data wiki.txt.xz --segment --eval word_eval/
    python word2vec_keras/train.py --data more.txt --continue-from vectors.bin
    python word2vec_keras/predict.py                    # neighbours and analogies

Writes runs/word2vec_keras/NAME/, with vectors.txt and vectors.bin as gensim reads them.
"""

import argparse
import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path

import common.backend  # noqa: F401  # Before Keras.

import keras
import numpy as np
from keras import ops

from common import cli
from common.files import read_arrays
from common.memory import keep_freed_memory
from common.parallel import DataParallel, add_data_parallel
from common.run import Run
from word2vec_keras import dataset, evaluate, fast, model
from word2vec_keras.vectors import read_vectors, write_vectors

PRESETS = {
    "quick": {"model": "fast-cbow", "epochs": 5, "subsample": 1e-4},
    "full": {"model": "fast-cbow", "epochs": 15, "subsample": 1e-4},
    "post": {"model": "cbow", "epochs": 2, "subsample": 1e-5},
    "smoke": {"model": "fast-cbow", "epochs": 1, "subsample": 1e-4},
}
LEARNING_RATES = {"cbow": 1e-3, "skipgram": 1e-3, "fast-cbow": 0.15, "fast-skipgram": 0.1}
CHUNK = 8192  # Words in a step of the fast models,
BLOCK = 64  # so many of which share their negatives.
ARTICLES = 20  # In a batch of the post's models.
# Where the post's cbow differs from word2vec.c, and may be made like it.
FIXES = ("masked-padding", "thinned-contexts")


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", choices=evaluate.MODELS, help="the post's cbow and skipgram, or ours: fast-...")
    add("--epochs", type=cli.positive_int, help="passes over the text")
    add("--learning-rate", type=cli.positive_float, help="at the start; default: by model")
    add("--embedding-dim", type=cli.positive_int, default=128, help="default: 128")
    add("--window", type=cli.positive_int, default=5, help="words on each side; default: 5")
    add(
        "--num-negatives",
        type=cli.positive_int,
        help="random words per target; default: 16, fast: 64",
    )
    add(
        "--min-count",
        type=cli.positive_int,
        default=10,
        help="rarer words are left out; default: 10",
    )
    add("--subsample", type=cli.positive_float, help="threshold above which a word is thinned out")
    add("--segment", action="store_true", help="cut Chinese text into words with jieba")
    add("--fix", nargs="+", default=[], choices=FIXES, help="where the post's cbow is not CBOW")
    add("--eval", metavar="DIR", help="word pairs and analogies; default: the generated text's")
    add("--continue-from", metavar="VECTORS", help="start from a run's vectors.bin, or any such")
    add_data_parallel(parser)
    args = cli.parse(parser, PRESETS, argv)
    if args.fix and args.model != "cbow":
        parser.error("--fix is for --model cbow: the fast models are like word2vec.c as they are")
    return args


def main(argv=None):
    args = parse_args(argv)
    keep_freed_memory()  # On JAX, too, where cli.run does not: the shapes are few here.
    parallel = DataParallel(args)
    corpus = dataset.load(args)
    num_sentences = check_sentences(args, corpus)
    pairs, analogies = evaluate.evaluation_sets(args.eval)
    saved = read_saved(args)
    saved_sha256 = None
    if saved is not None:
        corpus.add_words(saved.words)
        saved_sha256 = saved.sha256()
    keep = model.keep_probability(corpus.counts, corpus.total, args.subsample)
    num_kept = check_subsample(args, corpus, keep)
    run = Run(args, "word2vec_keras", [corpus.notes["sha256"], saved_sha256])
    name = corpus.notes["name"]
    print(f"{name}: {corpus.total:,} words, {corpus.notes['num_words']:,} different ones kept")

    if is_fast(args):
        network, num_steps = build_fast(args, len(corpus.words), num_kept)
    else:
        network, num_steps = build_post(args, len(corpus.words), num_sentences)
    if saved is not None:
        copy_rows(saved, network, corpus.words)
    checkpoint = run.checkpoint(network, monitor=None)
    num_epochs = args.epochs - run.epoch  # Those that a resumed run has left.
    batches = training_batches(args, corpus, keep, network, num_steps, run.epoch)
    begin = time.time()
    if num_epochs > 0:
        batches = parallel.own_rows(batches)
        if is_fast(args):
            batches = fast.stream(batches, num_steps * num_epochs)
        with parallel.spread(network):
            network.fit(
                batches,
                steps_per_epoch=num_steps,
                initial_epoch=run.epoch,
                epochs=args.epochs,
                callbacks=[checkpoint],
                shuffle=False,
                verbose=run.verbose,
            )
    seconds = time.time() - begin

    arrays = softmax_arrays(network, corpus.counts, keep)
    words = corpus.words[1:]  # The first one is the padding.
    vectors = arrays.pop("vectors")[1:]
    evaluate.save_softmax(run.dir / "output.npz", arrays)
    write_vectors(run.dir / "vectors.txt", words, vectors)
    write_vectors(run.dir / "vectors.bin", words, vectors)
    metrics, details = evaluate.evaluate(words, vectors, pairs, analogies)
    if num_epochs > 0:
        speed = corpus.total * num_epochs / seconds
        details["words per second, with compilation"] = f"{speed:,.0f}"
    images = {}
    if args.data is None and args.embedding_dim > 1:
        evaluate.draw_pairs(run.dir / "vectors.png", words, vectors)
        images["vectors.png"] = "Pairs of words: the same relation, the same direction"
    return run.finish(
        row=row_name(args, name),
        data=corpus.notes,
        metrics=metrics,
        selection="none: the last epoch; learning rates come from the development questions",
        details=details,
        images=images,
    )


def is_fast(args):
    return args.model in ("fast-cbow", "fast-skipgram")


# --- What must be true of the text ---
def check_sentences(args, corpus):
    """The number of sentences. One at least must be longer than the window."""
    num_sentences, longest = corpus.count_sentences()
    if args.window >= longest:
        cli.fail(f"--window {args.window}: the longest sentence has only {longest} known words")
    return num_sentences


def check_subsample(args, corpus, keep):
    """About how many words an epoch keeps. If they are few it might have none to learn from."""
    num_kept = int((corpus.counts * keep).sum())
    if num_kept < 10:
        cli.fail(
            f"--subsample {args.subsample} leaves {num_kept} of {corpus.total:,} words: "
            "1 leaves all"
        )
    return num_kept


# --- Networks ---
def build_fast(args, vocabulary_size, num_kept):
    """A compiled fast model, and the number of its steps in an epoch."""
    # A small text has small chunks, of at least two blocks.
    num_blocks = max(2, num_kept // fast.STEPS // BLOCK)
    chunk_size = min(CHUNK, num_blocks * BLOCK)
    num_steps = math.ceil(num_kept / chunk_size / fast.STEPS) * fast.STEPS
    network = fast.FastWord2Vec(
        vocabulary_size,
        args.embedding_dim,
        args.window,
        args.num_negatives or 64,
        skip_gram=args.model == "fast-skipgram",
        chunk_size=chunk_size,
        block_size=BLOCK,
    )
    rate = args.learning_rate or LEARNING_RATES[args.model]
    fast.compile_fast(network, rate, num_steps * args.epochs)
    return network, num_steps


def build_post(args, vocabulary_size, num_sentences):
    """The post's compiled model, and the number of its steps in an epoch."""
    num_negatives = args.num_negatives or 16
    if args.model == "skipgram":
        network = model.build_skipgram_model(vocabulary_size, args.embedding_dim, num_negatives)
    else:
        network = model.build_cbow_model(
            vocabulary_size,
            args.embedding_dim,
            args.window,
            num_negatives,
            mask_padding="masked-padding" in args.fix,
        )
    network.compile(
        optimizer=keras.optimizers.Adam(args.learning_rate or LEARNING_RATES[args.model]),
        loss="sparse_categorical_crossentropy",
        weighted_metrics=["accuracy"],
    )
    return network, math.ceil(num_sentences / ARTICLES)


def training_batches(args, corpus, keep, network, num_steps, first_epoch):
    """Endless batches, epoch after epoch, as a PyDataset."""
    if is_fast(args):
        noise = fast.noise_table(corpus.counts)

        def read_epoch(epoch):
            return fast.fast_chunks(
                corpus.ids,
                keep,
                noise,
                num_steps,
                network.chunk_size,
                network.negatives_shape,
                seed=(args.seed, epoch),
            )
    else:

        def read_epoch(epoch):
            return model.post_batches(
                corpus.ids,
                keep,
                args.window,
                ARTICLES,
                skip_gram=args.model == "skipgram",
                thin_contexts="thinned-contexts" in args.fix,
                seed=(args.seed, epoch),
            )

    return model.EpochBatches(read_epoch, num_steps, first_epoch)


# --- What a network has learnt, and starting from that ---
def tables(network):
    """The variables with one row per id, by their names in a run's output.npz.

    "vectors" are the word vectors, "weights" and "bias" belong to the softmax. The fast models
    have no bias, but sums of squares of Adagrad.
    """
    if isinstance(network, fast.FastWord2Vec):
        squares, weights_squares = network.squares
        return {
            "vectors": network.vectors,
            "weights": network.targets,
            "squares": squares,
            "weights_squares": weights_squares,
        }
    return {
        "vectors": network.get_layer("word2vec").embeddings,
        "weights": network.get_layer("W").embeddings,
        "bias": network.get_layer("b").embeddings,
    }


def softmax_arrays(network, counts, keep):
    """The tables as arrays, with a bias (words,), and how often the model saw each word."""
    arrays = {}
    for name, variable in tables(network).items():
        arrays[name] = ops.convert_to_numpy(variable)
    if isinstance(network, fast.FastWord2Vec):
        arrays["bias"] = evaluate.log_noise(counts)
        arrays["counts"] = counts * keep  # It sees a text that subsampling has thinned out.
    else:
        arrays["bias"] = arrays["bias"][:, 0]
        arrays["counts"] = counts
    return arrays


@dataclass
class SavedVectors:
    """The words and vectors that --continue-from names, and the path of their file."""

    words: list
    vectors: np.ndarray
    path: Path

    def sha256(self):
        data = "\n".join(self.words).encode() + self.vectors.tobytes()
        return hashlib.sha256(data).hexdigest()

    @property
    def output_path(self):
        """Where a run has saved the rest of what it learnt, beside its vectors."""
        return self.path.with_name("output.npz")

    def arrays(self):
        """{name, as in `tables`: array with a row per word}: the vectors, and the rest."""
        arrays = {"vectors": self.vectors}
        if self.output_path.exists():
            output = read_arrays(self.output_path)
            output = {name: array[1:] for name, array in output.items() if array.ndim > 0}
            # A file of vectors may lie beside the output of another run.
            if all(len(array) == len(self.words) for array in output.values()):
                arrays.update(output)
        return arrays


def read_saved(args):
    """The SavedVectors that --continue-from names; None without the flag."""
    if args.continue_from is None:
        return None
    path = Path(args.continue_from)
    words, vectors = read_vectors(path)
    _, size = vectors.shape
    if size != args.embedding_dim:
        cli.fail(f"{path}: vectors of {size} numbers: give --embedding-dim {size}")
    return SavedVectors(words, vectors, path)


def copy_rows(saved, network, words):
    """Puts SavedVectors into a network.

    Args:
        words: those of the network, which include the saved ones.
    """
    row_of_word = {word: row for row, word in enumerate(words)}
    rows = [row_of_word[word] for word in saved.words]
    arrays = saved.arrays()
    for name, variable in tables(network).items():
        if name not in arrays:
            continue
        table = ops.convert_to_numpy(variable).copy()
        array = arrays[name]
        if array.size != table[rows].size:
            cli.fail(
                f"{saved.output_path}: {name} has {array.shape[1:]} a word, not {table.shape[1:]}"
            )
        table[rows] = array.reshape(len(rows), *table.shape[1:])
        variable.assign(table)


def row_name(args, data_name):
    """The row of the results that this run belongs to."""
    recipe = " + ".join([args.model, *args.fix])
    name = f"{recipe} x {args.epochs}, {data_name}"
    if args.subsample != 1e-4:
        name += f", subsample {args.subsample:g}"
    return name


if __name__ == "__main__":
    cli.run(main)
