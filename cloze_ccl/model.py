"""Readers that fill the blank of a passage by pointing at one of its words, and their losses.

The file needs keras and numpy alone: copy it whole, or take one function out of it.

Every reader maps word ids (batch, words) to log-probabilities (batch, words), one for each place of
the passage. The ids are 1 to vocabulary_size for known words, 0 for all unknown words, and -1 for
padding. The readers that see the whole passage expect id 1 at the blank. A reader never answers
with padding or with the blank itself. `sum_by_word` adds up the places where a word stands.

Post: https://kexue.fm/archives/4564
"""

import keras
import numpy as np
from keras import layers, ops

# What can be left out of our reader, to see what it gains.
INGREDIENTS = (
    "characters",
    "features",
    "neighbours",
    "second-reading",
    "dropout",
    "summed-loss",
)
NUM_FEATURES = 9


# --- The post's reader ---
def build_reader(
    vocabulary_size, match="states", num_layers=2, units=128, embedding_dim=128, vectors=None
):
    """The reader of post 4564: both sides of the blank go through the same BiLSTMs.

    The final states of the two sides, averaged, are the question. Each place is scored by the dot
    product of its state and the question. The network treats both sides alike, so they may be
    given in any order.

    Args:
        match: "states" compares the question with the states, "words" with the word vectors. For
            the latter a Dense layer makes the question as long as a word vector.
        num_layers: BiLSTMs on top of each other; the post has two.
        units: of each direction.
        vectors: word vectors (vocabulary_size, embedding_dim), which are not trained; only the
            vector of unknown words is. Without them all word vectors are trained.

    Returns:
        A model with the inputs "left" and "right", word ids (batch, words), that returns
        log-probabilities (batch, words of left + words of right).
    """
    sides = [keras.Input((None,), dtype="int32", name=name) for name in ("left", "right")]
    words = layers.Embedding(vocabulary_size + 1, embedding_dim, name="words")
    unknown = layers.Embedding(1, embedding_dim, name="unknown")
    lstms = [layers.LSTM(units, return_sequences=True) for _ in range(2 * num_layers)]
    ends = []
    candidates = []
    for side in sides:
        ids = ops.maximum(side, 0)
        x = words(ids)
        if vectors is not None:
            is_unknown = ops.cast(ops.expand_dims(ops.equal(ids, 0), -1), "float32")
            x = x + unknown(ops.zeros_like(ids)) * is_unknown
        word_vectors = x
        for i in range(num_layers):
            x, end = read_both_ways(lstms[2 * i : 2 * i + 2], x, side >= 0)
        ends.append(end)
        candidates.append(x if match == "states" else word_vectors)
    if vectors is not None:
        words.trainable = False
        set_vectors(words, vectors)
    question = (ends[0] + ends[1]) / 2
    if match == "words":
        question = layers.Dense(embedding_dim, use_bias=False)(question)
    question = ops.expand_dims(question, 1)
    scores = []
    for side, candidate in zip(sides, candidates, strict=True):
        score = ops.sum(candidate * question, axis=-1)
        # Padding is masked before the softmax: it must not take part of the probability.
        scores.append(ops.where(side >= 0, score, -1e9))
    log_probabilities = ops.log_softmax(ops.concatenate(scores, axis=1))
    return keras.Model({"left": sides[0], "right": sides[1]}, log_probabilities)


def read_both_ways(rnns, x, inside):
    """Reads each row with two RNNs, with the second one from its last word to its first.

    The result is that of layers.Bidirectional with the mask `inside`. But with JAX and torch an
    RNN that is given a mask does not run on cuDNN. So each row is reversed without its padding,
    which stays at the end, and the RNNs need no mask.

    Args:
        rnns: two recurrent layers with return_sequences=True.
        x: (batch, words, channels).
        inside: booleans (batch, words), False for padding.

    Returns:
        The states (batch, words, 2 * units), and the final states of both directions side by side
        (batch, 2 * units).
    """
    inside = ops.cast(inside, "int32")
    ones = ops.ones_like(inside)
    place = ops.cumsum(ones, axis=1) - 1
    last = ops.sum(inside, axis=1, keepdims=True) - 1
    source = ops.where(place <= last, last - place, place)
    # Rows of the batch lie one after the other in the flattened array that is gathered from.
    width = ops.sum(ones, axis=1, keepdims=True)
    source = source + ops.cumsum(width, axis=0) - width

    forward = rnns[0](x)
    backward = rnns[1](take_places(x, source))
    is_last = ops.expand_dims(ops.cast(ops.equal(place, last), forward.dtype), -1)
    # The backward RNN has read a whole row at the same place, as it has not been turned back yet.
    ends = ops.sum(ops.concatenate([forward, backward], axis=-1) * is_last, axis=1)
    states = ops.concatenate([forward, take_places(backward, source)], axis=-1)
    return states, ends


def take_places(x, source):
    """x (batch, words, channels) at the places `source` (batch, words) of its flattened words."""
    return ops.take(ops.reshape(x, (-1, x.shape[-1])), source, axis=0)


def set_vectors(embedding, vectors):
    """Fills an Embedding with one vector per word, and with zeros for id 0."""
    zeros = np.zeros((1, embedding.output_dim))
    embedding.set_weights([np.concatenate([zeros, vectors])])


# --- AS Reader ---
def build_attention_sum_reader(vocabulary_size, units=128, embedding_dim=128, vectors=None):
    """The Attention Sum Reader of Kadlec et al. 2016 (https://arxiv.org/abs/1603.01547).

    One BiGRU reads the passage, another one the sentence with the blank. Each place is scored by
    the dot product of its state and the final states of the sentence. Train it with
    `pointer_sum_loss`.

    Args:
        vectors: word vectors (vocabulary_size, embedding_dim) to start from.

    Returns:
        A model with the inputs "document" and "query", word ids (batch, words), that returns
        log-probabilities (batch, words of the document).
    """
    document = keras.Input((None,), dtype="int32", name="document")
    query = keras.Input((None,), dtype="int32", name="query")
    words = layers.Embedding(vocabulary_size + 1, embedding_dim, name="words")
    document_grus = [layers.GRU(units, return_sequences=True) for _ in range(2)]
    query_grus = [layers.GRU(units, return_sequences=True) for _ in range(2)]
    states, _ = read_both_ways(document_grus, words(ops.maximum(document, 0)), document >= 0)
    _, question = read_both_ways(query_grus, words(ops.maximum(query, 0)), query >= 0)
    if vectors is not None:
        set_vectors(words, vectors)
    scores = ops.sum(states * ops.expand_dims(question, 1), axis=-1)
    scores = ops.where((document >= 0) & (document != 1), scores, -1e9)
    return keras.Model({"document": document, "query": query}, ops.log_softmax(scores))


# --- Our reader ---
def build_context_reader(  # noqa: PLR0913
    vocabulary_size,
    num_characters,
    num_features=NUM_FEATURES,
    units=128,
    embedding_dim=128,
    dropout=0.3,
    vectors=None,
    num_trained=None,
    without=(),
):
    """Ours: a BiGRU reads the whole passage, and its state at the blank asks the question.

    A word is known by its vector and by its first and last character. It is scored by its state,
    by its neighbours (see `score_by_resemblance` and `score_by_fit`), and by features that do not
    depend on which word it is. A second BiGRU reads the passage again, knowing the question.

    Args:
        vectors: word vectors (vocabulary_size, embedding_dim), which are not trained. They are
            added to the trained ones.
        num_trained: the words 1 to num_trained have a trained vector; default: all words.
        without: names out of INGREDIENTS to leave out.

    Returns:
        A model with the inputs "document" (batch, words), "characters" (batch, words, 2) and
        "features" (batch, words, num_features), that returns log-probabilities (batch, words).
        The ids of characters are 1 to num_characters, 0 = unknown or padding; the features are
        those of `word_features`.
    """
    document = keras.Input((None,), dtype="int32", name="document")
    characters = keras.Input((None, 2), dtype="int32", name="characters")
    features = keras.Input((None, num_features), name="features")
    inside = document >= 0
    at_blank = ops.cast(ops.expand_dims(ops.equal(document, 1), -1), "float32")
    if "dropout" in without:
        dropout = 0

    x = embed_words(document, vocabulary_size, embedding_dim, vectors, num_trained)
    if "characters" not in without:
        character_dim = max(1, embedding_dim // 4)
        x = ops.concatenate([x, embed_characters(characters, num_characters, character_dim)], -1)
    x = x * ops.cast(ops.expand_dims(inside, -1), "float32")
    x = layers.Dropout(dropout)(x)

    first_input = x
    if "features" not in without:
        first_input = ops.concatenate([x, features], axis=-1)
    states = read_passage(first_input, inside, units, dropout)
    question = ask_at_blank(states, at_blank, 2 * units, "question")
    if "second-reading" not in without:
        second_input = ops.concatenate([states, states * question], axis=-1)
        states = read_passage(second_input, inside, units, dropout)
        question = ask_at_blank(states, at_blank, 2 * units, "second_question")

    scores = ops.sum(states * question, axis=-1)
    if "neighbours" not in without:
        around = describe_neighbours(x, units)
        scores = scores + score_by_resemblance(around, at_blank, units)
        scores = scores + score_by_fit(x, states, around, at_blank, units)
    if "features" not in without:
        scores = scores + score_by_features(features)
    scores = ops.where(inside & (document != 1), scores, -1e9)
    inputs = {"document": document, "characters": characters, "features": features}
    return keras.Model(inputs, ops.log_softmax(scores))


def embed_words(document, vocabulary_size, embedding_dim, vectors=None, num_trained=None):
    """Trained word vectors (batch, words, embedding_dim), plus fixed ones where there are any."""
    if num_trained is None:
        num_trained = vocabulary_size
    ids = ops.maximum(document, 0)
    trained = layers.Embedding(num_trained + 1, embedding_dim, name="words")
    x = trained(ops.where(ids <= num_trained, ids, 0))
    if vectors is not None:
        fixed = layers.Embedding(vocabulary_size + 1, embedding_dim, trainable=False, name="fixed")
        x = x + fixed(ids)
        set_vectors(fixed, vectors)
    return x


def embed_characters(characters, num_characters, dim):
    """The vectors of the first and the last character of each word: (batch, words, 2 * dim)."""
    x = layers.Embedding(num_characters + 1, dim, name="letters")(characters)
    return layers.Reshape((-1, 2 * dim))(x)


def read_passage(x, inside, units, dropout):
    """The states of a BiGRU with dropout: (batch, words, 2 * units)."""
    grus = [layers.GRU(units, return_sequences=True) for _ in range(2)]
    states, _ = read_both_ways(grus, x, inside)
    return layers.Dropout(dropout)(states)


def ask_at_blank(x, at_blank, units, name):
    """A Dense layer of x at the blank: (batch, 1, units).

    Args:
        x: (batch, words, channels).
        at_blank: (batch, words, 1), 1 at the blank and 0 elsewhere.
    """
    return layers.Dense(units, name=name)(ops.sum(x * at_blank, axis=1, keepdims=True))


def describe_neighbours(x, units):
    """A vector for the two words before and the two words after each place."""
    padded = ops.pad(x, ((0, 0), (2, 2), (0, 0)))
    neighbours = [padded[:, :-4], padded[:, 1:-3], padded[:, 3:-1], padded[:, 4:]]
    neighbours = ops.concatenate(neighbours, axis=-1)
    return layers.Dense(units, activation="tanh", name="around")(neighbours)


def score_by_resemblance(around, at_blank, units):
    """How much the neighbours of each word resemble those of the blank: (batch, words)."""
    return ops.sum(around * ask_at_blank(around, at_blank, units, "resemble"), axis=-1)


def score_by_fit(x, states, around, at_blank, units):
    """How well each word would fit between the neighbours of the blank: (batch, words)."""
    word = layers.Dense(units, name="word")(x)
    context = ops.concatenate([states, around], axis=-1)
    return ops.sum(word * ask_at_blank(context, at_blank, units, "fit"), axis=-1)


def score_by_features(features):
    """A score of each word from its features alone: (batch, words)."""
    hidden = layers.Dense(16, activation="relu", name="hidden")(features)
    return ops.squeeze(layers.Dense(1, name="worth")(hidden), axis=-1)


def word_features(keys, blank, start, end):
    """What can be said of each word of a passage without knowing any word.

    Args:
        keys: whole numbers (batch, words), equal for equal words, -1 for padding.
        blank: (batch, 1), the place of the blank.
        start, end: (batch, 1), where the sentence with the blank starts, and where the next one
            does.

    Returns:
        float32 (batch, words, NUM_FEATURES): the logarithm of how often the word occurs; that of
        its distance to the blank; whether it stands before the blank; whether it stands in the
        sentence of the blank; whether that sentence holds the word anywhere; and whether the word
        before it, the word after it, the two words before it, the two words after it are those of
        the blank. Padding has zeros.
    """
    inside = keys >= 0
    place = np.arange(keys.shape[1])
    same_word = (keys[:, :, None] == keys[:, None, :]) & inside[:, None, :]
    in_sentence = (place >= start) & (place < end)
    is_other = place != blank
    features = np.zeros((*keys.shape, NUM_FEATURES), "float32")
    features[..., 0] = np.log(np.maximum(same_word.sum(axis=2), 1))
    features[..., 1] = np.log1p(np.abs(place - blank)) / 3
    features[..., 2] = place < blank
    features[..., 3] = in_sentence
    features[..., 4] = (same_word & (in_sentence & is_other)[:, None, :]).any(axis=2)
    before = same_neighbour(keys, blank, -1) & is_other
    after = same_neighbour(keys, blank, 1) & is_other
    features[..., 5] = before
    features[..., 6] = after
    features[..., 7] = before & same_neighbour(keys, blank, -2)
    features[..., 8] = after & same_neighbour(keys, blank, 2)
    return features * inside[..., None]


def same_neighbour(keys, blank, step):
    """Whether the word `step` places after a word is the one `step` places after the blank.

    Args:
        step: from -2 to 2.
    """
    padded = np.pad(keys, ((0, 0), (2, 2)), constant_values=-3)
    row = np.arange(len(keys))[:, None]
    place = np.arange(keys.shape[1])
    return padded[row, place + 2 + step] == padded[row, blank + 2 + step]


BUILDERS = {
    "post": build_reader,
    "as-reader": build_attention_sum_reader,
    "ours": build_context_reader,
}


# --- Losses ---
def pointer_loss(targets, log_probabilities):
    """The post's loss: -log p, averaged over all places of the answer.

    Every place of the answer has to be found. A passage without the answer has the loss 0.

    Args:
        targets: (batch, words), 1 at each place of the answer, 0 elsewhere.
        log_probabilities: (batch, words), the output of a reader.

    Returns:
        (batch,)
    """
    # Selected, not multiplied: padding is -inf in float16, and 0 * -inf would be NaN.
    at_answer = ops.where(targets > 0, log_probabilities, 0.0)
    num_places = ops.cast(ops.maximum(ops.sum(targets, -1), 1), at_answer.dtype)
    return -ops.sum(at_answer, -1) / num_places


def pointer_sum_loss(targets, log_probabilities):
    """-log of the sum of p over the places of the answer: finding one of them is enough.

    Arguments and result are those of `pointer_loss`.
    """
    log_sum = ops.logsumexp(ops.where(targets > 0, log_probabilities, -1e9), axis=-1)
    return ops.where(ops.any(targets > 0, axis=-1), -log_sum, 0.0)


# --- Answer ---
def sum_by_word(probabilities, words):
    """Adds up the probabilities of equal words.

    Args:
        probabilities: one for each place of a passage.
        words: the words of the passage.

    Returns:
        A list of (word, probability, [its places]), the most probable word first.
    """
    totals = {}
    places = {}
    for place, (probability, word) in enumerate(zip(probabilities, words, strict=True)):
        totals[word] = totals.get(word, 0.0) + float(probability)
        places.setdefault(word, []).append(place)
    ranked = sorted(totals, key=totals.get, reverse=True)
    return [(word, totals[word], places[word]) for word in ranked]
