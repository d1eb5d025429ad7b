"""Word2vec as in the post: CBOW whose softmax covers the target and a few random words.

The file needs keras and numpy alone: copy it whole, or take one function out of it. The fast
models are in fast.py, which can be copied in the same way.

A text is one array of word ids with a 0 after each sentence; 0 is also the padding. The functions
run in this order: `keep_probability` says how often each word is a target, `post_batches` cuts the
text into batches, `build_cbow_model` or `build_skipgram_model` learns from them.

Post: https://kexue.fm/archives/4515 (after https://kexue.fm/archives/4402)
"""

import keras
import numpy as np
from keras import layers, ops


# --- Models ---
@keras.saving.register_keras_serializable("word2vec_keras")
class WithNegatives(layers.Layer):
    """Target ids (batch, 1), followed by random ids: (batch, 1 + num_negatives).

    The random ids are uniform, drawn anew for every target and in every step.
    """

    def __init__(self, vocabulary_size, num_negatives, **kwargs):
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.num_negatives = num_negatives
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, target):
        negatives = keras.random.randint(
            (ops.shape(target)[0], self.num_negatives),
            minval=0,
            maxval=self.vocabulary_size,
            dtype="int32",
            seed=self.seed_generator,
        )
        return ops.concatenate([target, negatives], axis=1)

    def compute_output_shape(self, input_shape):
        return input_shape[0], 1 + self.num_negatives

    def get_config(self):
        config = super().get_config()
        config["vocabulary_size"] = self.vocabulary_size
        config["num_negatives"] = self.num_negatives
        return config


def build_cbow_model(
    vocabulary_size,
    embedding_dim=128,
    window=5,
    num_negatives=16,
    mask_padding=False,
    context_size=None,
):
    """The post's CBOW: a softmax over the target and some random words; the target is class 0.

    A Dense layer over all words would be slow, and a step needs only a few of its rows. So two
    Embedding layers hold the rows: scores = W[samples] @ hidden + b[samples]. Train the model on
    sparse categorical crossentropy. The word vectors are the weights of the layer "word2vec".

    Args:
        vocabulary_size: the number of ids, with 0.
        window: words on each side of the target.
        num_negatives: random words per target.
        mask_padding: leave id 0 out of the sum. The post adds its vector like any other.
        context_size: words of a context; default: 2 * window.

    Inputs: context ids (batch, 2 * window), 0 beyond the ends of the text; target ids (batch, 1).
    Output: probabilities (batch, 1 + num_negatives) of the target and of the random words.
    """
    if context_size is None:
        context_size = 2 * window
    context = keras.Input((context_size,), dtype="int32", name="context")
    target = keras.Input((1,), dtype="int32", name="target")
    vectors = layers.Embedding(vocabulary_size, embedding_dim, name="word2vec")(context)
    if mask_padding:
        is_word = ops.cast(ops.expand_dims(context, -1) != 0, "float32")
        vectors = vectors * is_word
    hidden = ops.sum(vectors, axis=1, keepdims=True)
    samples = WithNegatives(vocabulary_size, num_negatives, name="samples")(target)
    weights = layers.Embedding(vocabulary_size, embedding_dim, name="W")(samples)
    biases = layers.Embedding(vocabulary_size, 1, name="b")(samples)
    scores = ops.sum(weights * hidden, axis=-1) + ops.squeeze(biases, axis=-1)
    return keras.Model([context, target], ops.softmax(scores))


def build_skipgram_model(vocabulary_size, embedding_dim=128, num_negatives=16):
    """The post's exercise, skip-gram: one word predicts each of the words around it.

    Inputs: ids (batch, 1) of a word; ids (batch, 1) of a word in its window. Output and arguments
    are those of `build_cbow_model`.
    """
    return build_cbow_model(
        vocabulary_size, embedding_dim, num_negatives=num_negatives, context_size=1
    )


# --- Subsampling ---
def keep_probability(counts, total, subsample=1e-5):
    """The probability with which each word is kept: t / f + sqrt(t / f), at most 1.

    f is the word's fraction of the text and t is `subsample`. This is the form of word2vec.c and
    of the post. Id 0, the end of a sentence, is always kept.

    Args:
        counts: how often each id occurs.
        total: the number of words in the text, including those that have no id.

    Returns:
        float32 array with one number per id.
    """
    ratio = subsample * total / np.maximum(counts, 1)
    keep = np.minimum(ratio + np.sqrt(ratio), 1).astype("float32")
    keep[0] = 1
    return keep


# --- Batches ---
def pieces(ids, size=2_000_000):
    """A long array in parts that fit into memory; `ids` may be a memory-mapped file."""
    for start in range(0, len(ids), size):
        yield np.array(ids[start : start + size])


def split_articles(ids):
    """The articles of a text of ids, each with the 0 at its end."""
    rest = np.zeros(0, "int32")
    for piece in pieces(ids):
        piece = np.append(rest, piece)
        *articles, rest = np.split(piece, np.flatnonzero(piece == 0) + 1)
        yield from articles


def windows_of(article, window):
    """Rows (words, 2 * window + 1): each word of an article in the middle of its neighbours.

    The 0 at the end of the article gets no row.
    """
    # One 0 too many at the right end, so that an article without words has a window to cut off.
    padded = np.pad(article[:-1], (window, window + 1))
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * window + 1)[:-1]


def skip_gram_pairs(context, target):
    """Each target beside each word of its context: (words (n, 1), words to predict (n, 1))."""
    is_word = context > 0
    predicted = context[is_word]
    words = np.repeat(target, is_word.sum(axis=1), axis=0)
    return words, predicted[:, None]


def fill_up(context, target, multiple=1024):
    """One batch for `fit`, with rows of weight 0 up to a multiple of `multiple`.

    XLA compiles each shape anew, so there should be few shapes.

    Returns:
        ({"context", "target"}, labels, weights). All labels are 0: the target is class 0.
    """
    num_rows = len(target)
    num_missing = -num_rows % multiple
    if num_rows == 0:
        num_missing = multiple
    padding = ((0, num_missing), (0, 0))
    inputs = {"context": np.pad(context, padding), "target": np.pad(target, padding)}
    weights = np.repeat(np.float32([1, 0]), [num_rows, num_missing])
    labels = np.zeros(len(weights), "int32")
    return inputs, labels, weights


def post_batches(ids, keep, window=5, articles=20, skip_gram=False, thin_contexts=False, seed=0):
    """One pass over the text for the post's models: batches of all words of 20 articles.

    As in the post every article has `window` zeros at both ends. Subsampling skips a word as a
    target only, and it stays in the contexts of others; with thin_contexts it is taken out of the
    text altogether, as in word2vec.c.

    Args:
        ids: int32 array, a 0 after each article.
        keep: the probability with which each id is a target, see `keep_probability`.
        skip_gram: whether the batches are for `build_skipgram_model`.

    Yields:
        ({"context", "target"}, labels, weights), see `fill_up`.
    """
    rng = np.random.default_rng(seed)

    def batch(rows):
        rows = np.concatenate(rows)
        if not thin_contexts:
            rows = rows[rng.random(len(rows), dtype="float32") < keep[rows[:, window]]]
        target = rows[:, window : window + 1]
        context = np.delete(rows, window, axis=1)
        if skip_gram:
            context, target = skip_gram_pairs(context, target)
        return fill_up(context, target)

    rows = []
    for article in split_articles(ids):
        if thin_contexts:
            article = article[rng.random(len(article), dtype="float32") < keep[article]]
        rows.append(windows_of(article, window))
        if len(rows) == articles:
            yield batch(rows)
            rows = []
    if rows:
        yield batch(rows)


class EpochBatches(keras.utils.PyDataset):
    """Endless batches for `fit` out of a generator that makes the batches of one epoch.

    A batch is a function of its index and nothing else, so a run that starts in a later epoch
    sees the batches that an uninterrupted run would have seen. Give `fit` the number
    `steps_per_epoch` and shuffle=False. Batches are cheap in order only: any other index begins
    its epoch anew. Keras asks in order, except that on TensorFlow it reads the first two twice.

    Args:
        read_epoch: a function of the number of an epoch that returns an iterator over the
            `steps_per_epoch` batches of that epoch, the same ones in every call.
        first_epoch: the epoch of batch 0, for a resumed run.
    """

    num_batches = None  # Keras' word for endless.

    def __init__(self, read_epoch, steps_per_epoch, first_epoch=0):
        super().__init__()
        self.read_epoch = read_epoch
        self.steps_per_epoch = steps_per_epoch
        self.first_epoch = first_epoch
        # The epoch that is being read, its iterator, and how many batches have been read from it.
        self.epoch = None
        self.batches = None
        self.step = 0

    def __getitem__(self, index):
        epoch, step = divmod(index, self.steps_per_epoch)
        epoch += self.first_epoch
        if epoch != self.epoch or step < self.step:
            self.batches = iter(self.read_epoch(epoch))
            self.epoch = epoch
            self.step = 0
        while self.step < step:
            next(self.batches)
            self.step += 1
        self.step += 1
        return next(self.batches)
