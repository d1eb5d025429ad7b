"""Word2Vec with a softmax over a few random words: the post's model, and a fast one.

Post:   https://kexue.fm/archives/4515 (2017, after 4402): CBOW in ten lines of Keras, whose
        softmax covers the target and 16 random words. It gives no number and concedes that
        Keras cannot match the speed of gensim. The fast model here does (benchmarks/).
Data:   generated text with known analogies (data/corpus.py); --data takes a file (.gz, .xz and
        .bz2 too) or a folder, one sentence a line, words between blanks, or Chinese: --segment.

    python word2vec_keras/train.py                      # the fast CBOW
    python word2vec_keras/train.py --model cbow         # the post's, same data, same epochs
    python word2vec_keras/train.py --preset full --model fast-skipgram
    python word2vec_keras/train.py --preset post        # the post's model and recipe
    python word2vec_keras/train.py --data wiki.txt.xz --segment --eval word_eval/
    python word2vec_keras/train.py --data more.txt --continue-from vectors.bin
    python word2vec_keras/predict.py                    # neighbours and analogies

Writes runs/word2vec_keras/NAME/, with vectors.txt and vectors.bin as gensim reads them. Read it
from top to bottom: the post's model, data, main. The fast model is in fast.py, evaluation in
vectors.py.
"""

import argparse
import hashlib
import math
import time
from pathlib import Path

import numpy as np

from common.parallel import DataParallel, add_data_parallel
from common.run import Run, fail, keep_memory, keras, layers, ops, parse_run_args, run_script
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
from word2vec_keras.vectors import (
    draw_pairs,
    evaluate,
    evaluation_sets,
    read_vectors,
    start_from,
    tables,
    write_vectors,
)
from word2vec_keras.words import load_corpus, replacing

RATES = {"cbow": 1e-3, "skipgram": 1e-3, "fast-cbow": 0.15, "fast-skipgram": 0.1}
CHUNK, BLOCK = 8192, 64  # Of the fast models.
ARTICLES = 20  # In a batch of the post's models.
FIXES = "masked-padding", "thinned-contexts"  # Of the post's cbow: as word2vec.c does it.


# --- The post's model (needs only keras; copy it) ---
def build_cbow_model(
    vocabulary_size,
    embedding_dim=128,
    window=5,
    num_negatives=16,
    mask_padding=False,
    context_size=None,
):
    """The post's CBOW: a softmax over the target and some random words, with label 0.

    Two Embedding layers are the rows of a Dense layer, of which a step needs only a few:
    scores = W[samples] @ hidden + b[samples]. Train it on sparse categorical cross-entropy.

    Inputs: context ids (batch, 2 * window), 0 beyond the text's ends; target ids (batch, 1).
    Output: probabilities (batch, 1 + num_negatives) of the target and of uniformly random words,
    drawn anew for every target. mask_padding leaves id 0 out of the sum, which the post does not.
    Call it once before loading a saved model: it registers a layer.
    """

    @keras.saving.register_keras_serializable("word2vec_keras")
    class WithNegatives(layers.Layer):
        """Target ids (batch, 1), followed by random ids: (batch, 1 + num_negatives)."""

        def __init__(self, vocabulary_size, num_negatives, **kwargs):
            super().__init__(**kwargs)
            self.vocabulary_size, self.num_negatives = vocabulary_size, num_negatives
            self.seed_generator = keras.random.SeedGenerator()

        def call(self, target):
            shape = (ops.shape(target)[0], self.num_negatives)
            bounds = {"minval": 0, "maxval": self.vocabulary_size, "dtype": "int32"}
            drawn = keras.random.randint(shape, **bounds, seed=self.seed_generator)
            return ops.concatenate([target, drawn], axis=1)

        def compute_output_shape(self, input_shape):
            return input_shape[0], 1 + self.num_negatives

        def get_config(self):
            sizes = {name: getattr(self, name) for name in ("vocabulary_size", "num_negatives")}
            return super().get_config() | sizes

    context = keras.Input((context_size or 2 * window,), dtype="int32", name="context")
    target = keras.Input((1,), dtype="int32", name="target")
    vectors = layers.Embedding(vocabulary_size, embedding_dim, name="word2vec")(context)
    if mask_padding:
        vectors = vectors * ops.cast(ops.expand_dims(context, -1) != 0, "float32")
    hidden = ops.sum(vectors, axis=1, keepdims=True)
    samples = WithNegatives(vocabulary_size, num_negatives, name="samples")(target)
    weights = layers.Embedding(vocabulary_size, embedding_dim, name="W")(samples)
    biases = layers.Embedding(vocabulary_size, 1, name="b")(samples)
    scores = ops.sum(weights * hidden, axis=-1) + ops.squeeze(biases, axis=-1)
    return keras.Model([context, target], ops.softmax(scores))


def build_skipgram_model(vocabulary_size, embedding_dim=128, num_negatives=16):
    """The post's exercise: predicts each word around a word from that word alone.

    Inputs: word ids (batch, 1); ids (batch, 1) of a word in its window. Output as above.
    """
    return build_cbow_model(
        vocabulary_size, embedding_dim, num_negatives=num_negatives, context_size=1
    )


def pieces(ids, size=2_000_000):
    """The ids of a corpus, so many at a time in memory."""
    for start in range(0, len(ids), size):
        yield np.array(ids[start : start + size])


def post_batches(ids, keep, window=5, articles=20, skip_gram=False, thin_contexts=False, seed=0):
    """One pass over the text for the post's models: batches of all words of 20 articles.

    Yields ({"context", "target"}, labels, weights). As in the post, every article has `window`
    zeros at both ends, and subsampling skips a word as a target only: it stays a context, unless
    thin_contexts, which takes it out of the text as word2vec.c does. The rows are filled up to a
    multiple of 1,024 with weight 0, as XLA compiles each shape anew.
    """
    rng, article, rows = np.random.default_rng(seed), np.zeros(0, "int32"), []

    def thinned(x, ids):
        return x[rng.random(len(x), dtype="float32") < keep[ids]]

    def batch():
        x = np.concatenate(rows)
        x = x if thin_contexts else thinned(x, x[:, window])
        target, context = x[:, window : window + 1], np.delete(x, window, axis=1)
        if skip_gram:
            near = context[context > 0]
            target, context = near[:, None], np.repeat(target, (context > 0).sum(1), axis=0)
        missing = -len(target) % 1024 or 1024 * (len(target) == 0)
        pad = ((0, missing), (0, 0))
        x = {"context": np.pad(context, pad), "target": np.pad(target, pad)}
        weights = np.repeat(np.float32([1, 0]), [len(target), missing])
        return x, np.zeros(len(weights), "int32"), weights

    for tokens in pieces(ids):
        tokens = np.append(article, tokens)
        *articles_of_piece, article = np.split(tokens, np.flatnonzero(tokens == 0) + 1)
        for words in articles_of_piece:
            words = thinned(words, words) if thin_contexts else words  # The 0 at its end stays.
            padded = np.pad(words[:-1], (window, window + 1))
            windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * window + 1)
            rows.append(windows[:-1])
            if len(rows) == articles:
                yield batch()
                rows.clear()
    if rows:
        yield batch()


def build_model(model="fast-cbow", vocabulary_size=10_000, **sizes):
    """The model of this name: cbow, skipgram (the post's), fast-cbow or fast-skipgram."""
    if model.startswith("fast"):
        return build_fast_model(vocabulary_size, skip_gram=model == "fast-skipgram", **sizes)
    if model == "skipgram":
        return build_skipgram_model(vocabulary_size, **sizes)
    return build_cbow_model(vocabulary_size, **sizes)


# --- Data ---
def count_sentences(ids):
    """How many sentences there are, and the number of words in the longest."""
    number, longest, before, start = 0, 0, -1, 0
    for piece in pieces(ids):
        ends = start + np.flatnonzero(piece == 0)
        if len(ends):
            longest = max(longest, np.diff(ends, prepend=before).max() - 1)
            number, before = number + len(ends), ends[-1]
        start += len(piece)
    return number, int(longest)


def load_data(source=None, min_count=10, segment=False, smoke=False):
    """ids, words, counts, total (words.load_corpus says what they are) and notes for the record."""
    num_tokens = 200_000 if smoke else corpus.NUM_TOKENS
    name = Path(source).name if source else f"generated text v{corpus.VERSION}"
    loaded = load_corpus(source or corpus.load(num_tokens), min_count, segment)
    ids, words, _, total = loaded
    digest = hashlib.sha256("\n".join(words).encode())
    for piece in pieces(ids):
        digest.update(piece)
    notes = {"name": name, "num_tokens": total, "num_words": len(words) - 1}
    return *loaded, notes | {"min_count": min_count, "sha256": digest.hexdigest()}


# --- Main ---
def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    names = ("cbow", "skipgram", "fast-cbow", "fast-skipgram")
    add("--model", choices=names, help="the post's cbow and skipgram, or ours: fast-...")
    add("--epochs", type=int, help="passes over the text")
    add("--learning-rate", type=float, help="at the start; default: by model")
    add("--embedding-dim", type=int, default=128, help="default: 128")
    add("--window", type=int, default=5, help="words on each side; default: 5")
    add("--num-negatives", type=int, help="random words per target; default: 16, fast: 64")
    add("--min-count", type=int, default=10, help="rarer words are left out; default: 10")
    add("--subsample", type=float, help="threshold above which a word is thinned out")
    add("--segment", action="store_true", help="cut Chinese text into words with jieba")
    add("--fix", nargs="+", default=[], choices=FIXES, help="where the post's cbow is not CBOW")
    add("--eval", metavar="DIR", help="word pairs and analogies; default: the generated text's")
    add("--continue-from", metavar="VECTORS", help="start from a run's vectors.bin, or any such")
    add_data_parallel(parser)
    fast = {"model": "fast-cbow", "epochs": 5, "subsample": 1e-4}
    presets = {
        "smoke": fast | {"epochs": 1},
        "quick": fast,
        "full": fast | {"epochs": 15},
        "post": {"model": "cbow", "epochs": 2, "subsample": 1e-5},
    }
    return parse_run_args(parser, presets, argv)


def main(argv=None):
    args = parse_args(argv)
    if min(args.epochs, args.window, args.embedding_dim, args.min_count) < 1:
        fail("--epochs, --window, --embedding-dim and --min-count start at 1")
    numbers = [n for n in (args.num_negatives, args.learning_rate) if n is not None]
    if not all(0 < number < np.inf for number in numbers) or not args.subsample > 0:
        fail("expected --subsample, --num-negatives and --learning-rate above 0")
    if args.fix and args.model != "cbow":
        fail("--fix is of --model cbow: the fast models are like word2vec.c as they are")
    fast, skip_gram = args.model.startswith("fast"), args.model.endswith("skipgram")
    keep_memory()  # On JAX too: run_script fears a heap for each shape, here are one or a few.
    parallel = DataParallel(args)
    ids, words, counts, total, notes = load_data(
        args.data, args.min_count, args.segment, args.smoke
    )
    num_sentences, longest = count_sentences(ids)
    if args.window >= longest:
        fail(f"--window {args.window}: the longest sentence has only {longest} known words")
    sets, continued = evaluation_sets(args.eval), None
    if args.continue_from:
        old_words, old_vectors = read_vectors(args.continue_from)
        if (size := old_vectors.shape[1]) != args.embedding_dim:
            fail(f"{args.continue_from}: vectors of {size} numbers: give --embedding-dim {size}")
        known = set(words)
        new = [word for word in old_words if word not in known]
        words, counts = words + new, np.append(counts, np.zeros(len(new), counts.dtype))
        continued = hashlib.sha256(
            "\n".join(old_words).encode() + old_vectors.tobytes()
        ).hexdigest()
    keep = keep_probability(counts, total, args.subsample)
    if (left := int((counts * keep).sum())) < 10:  # An epoch might have none to learn from.
        fail(f"--subsample {args.subsample} leaves {left} of {total:,} words: 1 leaves all")
    run = Run(args, "word2vec_keras", [notes["sha256"], continued])
    print(f"{notes['name']}: {total:,} words, {notes['num_words']:,} different ones kept")

    sizes = {"vocabulary_size": len(words), "embedding_dim": args.embedding_dim}
    sizes["num_negatives"] = negatives = args.num_negatives or (64 if fast else 16)
    sizes |= {} if args.model == "skipgram" else {"window": args.window}
    rate = args.learning_rate or RATES[args.model]
    if fast:
        # A small text has small chunks, of at least two blocks.
        chunk_size = min(CHUNK, max(2, left // STEPS // BLOCK) * BLOCK)
        steps = math.ceil(left / chunk_size / STEPS) * STEPS
        noise = noise_table(counts)
        model = build_model(args.model, **sizes, chunk_size=chunk_size, block_size=BLOCK)
        compile_fast(model, rate, steps * args.epochs)
    else:
        sizes |= {"mask_padding": True} if "masked-padding" in args.fix else {}
        steps = math.ceil(num_sentences / ARTICLES)
        model = build_model(args.model, **sizes)
        loss = "sparse_categorical_crossentropy"
        model.compile(keras.optimizers.Adam(rate), loss, weighted_metrics=["accuracy"])
    if args.continue_from:
        start_from(model, args.continue_from, words, old_words, old_vectors)
    checkpoint = run.checkpoint(model, monitor=None)
    first_epoch = len(run.history)

    def batches():
        for epoch in range(first_epoch, args.epochs):
            if fast:
                yield from fast_chunks(
                    ids, keep, noise, steps, negatives, chunk_size, BLOCK, (args.seed, epoch)
                )
            else:
                thin = "thinned-contexts" in args.fix
                yield from post_batches(
                    ids, keep, args.window, ARTICLES, skip_gram, thin, (args.seed, epoch)
                )

    start, speed = time.time(), {}
    if first_epoch < args.epochs:
        own_batches = parallel.own_rows(batches())
        with parallel.spread(model):
            model.fit(
                stream(own_batches) if fast else own_batches,
                steps_per_epoch=steps,
                initial_epoch=first_epoch,
                epochs=args.epochs,
                callbacks=[checkpoint],
                shuffle=False,
                verbose=run.verbose,
            )
        per_second = total * (args.epochs - first_epoch) / (time.time() - start)
        speed["words per second, with compilation"] = f"{per_second:,.0f}"

    vectors, weights, *bias = (ops.convert_to_numpy(table) for table in tables(model))
    # How often a model saw each word: the fast ones see a text that subsampling has thinned.
    output = {"weights": weights, "counts": counts * keep if fast else counts}
    if fast:  # What a softmax over words drawn by their share q learns is log p - log q.
        share = np.maximum(counts, 0.1) ** 0.75
        output |= {"bias": np.log(share / share.sum()).astype("float32")}
        squares = map(ops.convert_to_numpy, model.squares)
        output |= dict(zip(("squares", "weights_squares"), squares, strict=True))
    else:
        output["bias"] = bias[0][:, 0]
    with replacing(run.dir / "output.npz") as file:
        np.savez(file, **output)
    for name in ("vectors.txt", "vectors.bin"):
        write_vectors(run.dir / name, words[1:], vectors[1:])
    metrics, details = evaluate(words[1:], vectors[1:], *sets)
    pictures = {}
    if not args.data and args.embedding_dim > 1:
        draw_pairs(run.dir / "vectors.png", words[1:], vectors[1:])
        pictures = {"vectors.png": "Pairs of words: the same relation, the same direction"}
    return run.finish(
        row=f"{' + '.join([args.model, *args.fix])} x {args.epochs}, {notes['name']}"
        + f", subsample {args.subsample:g}" * (args.subsample != 1e-4),
        data=notes,
        metrics=metrics,
        selection="none: the last epoch; learning rates come from the development questions",
        details=details | speed,
        pictures=pictures,
    )


if __name__ == "__main__":
    run_script(main)
