"""Classifiers of texts, and scores that say which words made them decide.

The file needs keras and numpy alone: copy it whole, or take one function out of it.

Post: https://kexue.fm/archives/4582
"""

import itertools
import zlib

import keras
import numpy as np
from keras import layers, ops


# --- Classifiers ---
def build_classifier(
    vocabulary_size, embedding_dim=128, units=128, cell="lstm", bidirectional=False, dropout=0.5
):
    """The post's: word vectors, an LSTM, dropout on its final state, a sigmoid.

    Bidirectional, the final states of both directions stand side by side.

    Input: word ids (batch, words) from 1 to vocabulary_size. Id 0 stands for no word or an unknown
    one and is skipped: the state stays what it was. Output: probability of praise (batch, 1).
    """
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(vocabulary_size + 1, embedding_dim, mask_zero=True, name="words")(inputs)
    layer = {"lstm": layers.LSTM, "gru": layers.GRU}[cell]
    # cuDNN can skip zeros only at the end, but unknown words stand anywhere.
    rnn = layer(units, return_sequences=True, return_state=True, use_cudnn=False, name="rnn")
    if bidirectional:
        rnn = layers.Bidirectional(rnn, name="rnn")
    # The last states are h and, of an LSTM, c; bidirectional: first forward, then backward.
    _, *last = rnn(x)
    final = last[0]
    if bidirectional:
        final = ops.concatenate([last[0], last[len(last) // 2]], axis=-1)
    final = layers.Dropout(dropout)(final)
    log_odds = layers.Dense(1, name="decision")(final)
    return keras.Model(inputs, layers.Activation("sigmoid")(log_odds))


def build_ngram_classifier(ratios, dropout=0.5):
    """Ours: a linear model of n-grams, each weighted by what naive Bayes thinks of it.

    The log-odds of a review are the sum of r * w over its n-grams, divided by the square root of
    their number: r, fixed, is the n-gram's log-count ratio, w is learnt from 0. After Wang and
    Manning 2012 (NBSVM), with hashed n-grams.

    Args:
        ratios: from log_count_ratios.

    Input: n-gram ids (batch, n-grams), see ngram_ids. Output: probability of praise (batch, 1).
    """
    inputs = keras.Input((None,), dtype="int32")
    fixed = layers.Embedding(len(ratios), 1, trainable=False, name="ratios")
    weights = layers.Embedding(len(ratios), 1, embeddings_initializer="zeros", name="weights")
    r = fixed(inputs)
    w = weights(inputs)
    fixed.set_weights([np.reshape(ratios, (-1, 1))])
    number = ops.sum(ops.cast(r != 0, "float32"), axis=1)
    total = ops.sum(layers.Dropout(dropout)(r * w), axis=1)
    log_odds = 3 * total / ops.sqrt(ops.maximum(number, 1))
    # A Dense layer on one number: the scale and the bias of the whole.
    log_odds = layers.Dense(1, kernel_initializer="ones", name="decision")(log_odds)
    return keras.Model(inputs, layers.Activation("sigmoid")(log_odds))


def ngram_ids(words, buckets=2**20, max_ngrams=1500):
    """Ids from 1 to buckets - 1 of a review's words, pairs of words, and 1 to 3 characters.

    Each different n-gram counts once. Of more than max_ngrams the smallest ids stay: an id is a
    hash, so they are as good as drawn.
    """
    text = f"\x02{''.join(words)}\x03"  # The ends of a text are characters, too.
    ngrams = {f"word {word}" for word in words}
    ngrams |= {f"pair {first} {second}" for first, second in itertools.pairwise(words)}
    for size in (1, 2, 3):
        ngrams |= {f"part {text[i : i + size]}" for i in range(len(text) - size + 1)}
    ids = {zlib.crc32(ngram.encode()) % (buckets - 1) + 1 for ngram in ngrams}
    return sorted(ids)[:max_ngrams]


def log_count_ratios(ids, labels, buckets=2**20, min_count=2):
    """The log of how much more often each n-gram stands in praise than in blame: (buckets,).

    It is 0 for id 0, which fills up the rows of `ids`, and for what occurs less than min_count
    times.
    """
    counts = [np.bincount(ids[labels == k].ravel(), minlength=buckets) + 1.0 for k in (0, 1)]
    blame, praise = (count / count[1:].sum() for count in counts)
    ratios = np.log(praise / blame)
    is_rare = sum(counts) - 2 < min_count
    ratios[is_rare | (np.arange(buckets) == 0)] = 0
    return ratios.astype("float32")


# --- Scores ---
def build_reader(model):
    """A model that scores the words of a review in one pass, made of one by build_classifier.

    Input: ids (batch, words). Outputs: the probability (batch, 1); the post's scores; how far each
    word moved the log-odds, both (batch, words). Skipped words score exactly 0. A word is scored by
    the state after it and the state before it; before the first word the state is 0.

    The post's score is (|h_n - h_before| - |h_n - h_after|) / |h_n|: the scores of a review add up
    to 1. The log-odds w.h + b move by w.(h_after - h_before), which adds up to w.h_n.
    Bidirectional, each direction has its own h_n: forward after the last word, backward after the
    first. The numerators of both are added and divided by the sum of both |h_n|.
    """
    rnn = model.get_layer("rnn")
    if isinstance(rnn, layers.Bidirectional):
        # Otherwise it shows zeros where a skipped word left the state as it was.
        rnn.forward_layer.zero_output_for_mask = False
        rnn.backward_layer.zero_output_for_mask = False
    states, *last = rnn.output
    units = last[0].shape[-1]
    num_directions = states.shape[-1] // units
    closer = 0
    moved = 0
    length = 0
    for direction in range(num_directions):
        after = states[..., direction * units : (direction + 1) * units]
        if direction == 1:
            after = ops.flip(after, axis=1)  # In the order of reading.
        before = ops.pad(after[:, :-1], ((0, 0), (1, 0), (0, 0)))
        final = last[direction * len(last) // 2]
        scores = norm(final[:, None] - before) - norm(final[:, None] - after)
        change = moved_log_odds(model.get_layer("decision"), after - before, direction)
        if direction == 1:
            scores = ops.flip(scores, axis=1)
            change = ops.flip(change, axis=1)
        closer = closer + scores
        moved = moved + change
        length = length + norm(final)
    # Without a known word the length is 0, and so are all scores.
    closer = closer / ops.expand_dims(ops.maximum(length, 1e-7), -1)
    return keras.Model(model.input, [model.output, closer, moved])


def norm(x):
    """ops.norm(x, axis=-1), which Keras 3.15 with JAX 0.10 cannot compile."""
    return ops.sqrt(ops.sum(ops.square(x), axis=-1))


def moved_log_odds(decision, step, direction):
    """How far a step of the state of one direction moves the output of the last layer.

    Args:
        decision: a Dense layer with one unit.
        step: (batch, words, units).
        direction: 0 forward, 1 backward.
    """
    num_directions = decision.kernel.shape[0] // step.shape[-1]
    none = ops.zeros_like(step)
    parts = [none] * num_directions
    nothing = ops.concatenate(parts, axis=-1)
    parts[direction] = step
    moved = decision(ops.concatenate(parts, axis=-1)) - decision(nothing)
    return ops.squeeze(moved, axis=-1)


def state_saliency(model, ids):
    """The post's score of each word of ids (batch, words), same shape; a review's sum is 1.

    Above 0: the word brought the state closer to the final one, so it helped the decision.
    """
    return build_reader(model).predict(np.asarray(ids), verbose=0)[1]


def word_effects(model):
    """What each word alone does to the log-odds, once read: (vocabulary_size + 1,), 0 for id 0."""
    num_words = model.get_layer("words").input_dim
    ids = np.arange(num_words, dtype="int32")[:, None]
    return build_reader(model).predict(ids, batch_size=1024, verbose=0)[2][:, 0]


def change_saliency(model, ids, alone=1.0):
    """Ours: how far each word moved the log-odds towards the decision; as cheap as the post's.

    What the word would do alone is added, times `alone`: a table, made once for a model. How far a
    word moves depends on what was read before, the table on nothing: their errors differ.
    """
    ids = np.asarray(ids)
    probability, _, moved = build_reader(model).predict(ids, verbose=0)
    return np.where(probability >= 0.5, 1, -1) * (moved + alone * word_effects(model)[ids])
