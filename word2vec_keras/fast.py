"""The fast word2vec, from the ids of a text to the update of the tables.

The file needs keras and numpy alone: copy it whole. It runs in this order: `noise_table` prepares
the random words, `fast_chunks` cuts a text into chunks, `stream` reads ahead for `fit`,
`FastWord2Vec` learns from the chunks, and `compile_fast` sets its learning rate. The argument
`keep`, how often each word stays in the text, comes from `keep_probability` in model.py.

What makes it fast: each vector of a chunk is fetched once, a window is a sum of shifted chunks,
and the targets of a block share their negatives, so that scores are products of matrices.
Gradients are written by hand and touch only the rows in use: no table is ever copied or passed
over.
"""

import itertools
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
from keras import ops

STEPS = 8  # Keras runs so many chunks in one call: an epoch should have a multiple of them.
PIECE = 2_000_000  # So many ids of the text are in memory at a time.


# --- Chunks ---
def noise_table(counts, power=0.75, size=2**22):
    """Ids, each as often as it is likely: a random entry is one of word2vec's negatives.

    The probability of a word goes with its count ** power.
    """
    cumulative = np.cumsum(np.asarray(counts, "float64") ** power)
    places = (np.arange(size) + 0.5) / size
    return np.searchsorted(cumulative / cumulative[-1], places).astype("int32")


def shuffle_sentences(tokens, keep, rng):
    """Thins out a piece of the text and shuffles its sentences.

    Args:
        tokens: int32 ids, a 0 after each sentence. A last sentence may lack its 0.
        keep: the probability with which each id stays in the text.

    Returns:
        The words that are left, without the zeros, the number of each word's sentence from 0 on,
        and how many sentences there are. A sentence of one word has no context and is left out.
    """
    tokens = np.append(tokens, np.int32(0))
    tokens = tokens[rng.random(len(tokens), dtype="float32") < keep[tokens]]
    ends = np.flatnonzero(tokens == 0)
    starts = np.append(0, ends[:-1] + 1)
    order = rng.permutation(np.flatnonzero(ends - starts > 1))
    lengths = (ends - starts)[order]
    # Where each word is fetched from: the start of its sentence, and its place in the sentence.
    new_starts = np.cumsum(lengths) - lengths
    places = np.repeat(starts[order] - new_starts, lengths) + np.arange(lengths.sum())
    sentences = np.repeat(np.arange(len(order)), lengths)
    return tokens[places], sentences.astype("int32"), len(order)


def fast_chunks(ids, keep, noise, num_chunks, chunk_size=8192, negatives_shape=(128, 64), seed=0):
    """One pass over the text for FastWord2Vec: `num_chunks` chunks, the last ones padded.

    A word that is thinned out is no context either. The sentences of each piece of the text are
    shuffled, so that a chunk holds many topics.

    Args:
        ids: int32 array, a 0 after each sentence; it may be a memory-mapped file.
        keep: the probability with which each id stays in the text.
        noise: see `noise_table`.
        chunk_size, negatives_shape: those of the model.

    Yields:
        (ids (chunk_size,), numbers of sentences (chunk_size,), ids of negatives
        (negatives_shape)), all int32.
    """
    rng = np.random.default_rng(seed)

    def with_negatives(words, sentences):
        drawn = rng.integers(0, len(noise), negatives_shape)
        return words, sentences, noise[drawn]

    words = np.zeros(0, "int32")
    sentences = np.zeros(0, "int32")
    num_sentences = 0
    num_made = 0
    for start in range(0, len(ids), PIECE):
        tokens = np.array(ids[start : start + PIECE])
        new_words, new_sentences, num_new = shuffle_sentences(tokens, keep, rng)
        words = np.append(words, new_words)
        sentences = np.append(sentences, new_sentences + np.int32(num_sentences))
        num_sentences += num_new
        num_full = min(len(words) // chunk_size, num_chunks - num_made)
        num_made += num_full
        end = num_full * chunk_size
        for first in range(0, end, chunk_size):
            chunk = slice(first, first + chunk_size)
            yield with_negatives(words[chunk], sentences[chunk])
        words = words[end:]
        sentences = sentences[end:]
    for _ in range(num_chunks - num_made):
        num_missing = chunk_size - len(words)
        # Each word of the padding is a sentence of its own, so it has no context.
        padding = -2 - np.arange(num_missing, dtype="int32")
        yield with_negatives(np.pad(words, (0, num_missing)), np.append(sentences, padding))
        words = words[:0]
        sentences = sentences[:0]


def stream(batches, num_batches):
    """The first batches of a PyDataset for `fit`, made in a thread while the model trains.

    `fit` would take the PyDataset itself. But on TensorFlow it makes an autotuned tf.data.Dataset
    of it: at the end tf.data may wait for its tuning thread to wake up, which can double the time
    of a training. With workers=2 it does not, but then two threads ask for batches, out of order.
    """
    chunks = (batches[i] for i in range(num_batches))
    if keras.backend.backend() != "tensorflow":
        return prefetch(chunks)
    import tensorflow as tf  # Here, because the other backends run without it.

    first = next(chunks)
    specs = tuple(tf.TensorSpec(part.shape, part.dtype) for part in first)
    dataset = tf.data.Dataset.from_generator(
        lambda: itertools.chain([first], chunks), output_signature=specs
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(16).with_options(options)


def prefetch(chunks, count=16):
    """The items of an iterator, `count` of them made ahead in a thread."""
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, chunks, None) for _ in range(count))
        while True:
            chunk = waiting.popleft().result()
            if chunk is None:
                return
            waiting.append(thread.submit(next, chunks, None))
            yield chunk


# --- Adding rows to a table in place, which Keras has no function for ---
def add_rows_tensorflow(variable, ids, rows):
    import tensorflow as tf

    # variable.scatter_add would return, and so make, a copy of the whole table.
    tf.raw_ops.ResourceScatterAdd(resource=variable.value.handle, indices=ids, updates=rows)


def add_rows_jax(variable, ids, rows):
    # In place all the same, because `fit` donates the old table to the step.
    variable.assign(variable.value.at[ids].add(rows))


def add_rows_torch(variable, ids, rows):
    variable.value.data.index_add_(0, ids, rows)


ADD_ROWS = {
    "tensorflow": add_rows_tensorflow,
    "jax": add_rows_jax,
    "torch": add_rows_torch,
}


# --- Model ---
@keras.saving.register_keras_serializable("word2vec_keras")
class FastWord2Vec(keras.Model):
    """CBOW or skip-gram over chunks of running text; a batch of `fit` is one chunk.

    A chunk is ids (chunk_size,), numbers of sentences (chunk_size,) and ids of negatives
    (chunk_size // block_size, num_negatives), all int32, as `fast_chunks` makes them. Windows end
    where the number of the sentence changes; id 0 is padding. The loss is the post's softmax over
    the target and the negatives. A step is Adagrad's, with one sum of squares for each row, and
    to the power 0.4 instead of 0.5: frequent words go on learning for longer.

    Args:
        vocabulary_size: the number of ids, with 0.
        window: words on each side. Further ones count less, by 1 - (distance - 1) / window: the
            mean of word2vec's random window. CBOW takes the weighted mean of their vectors.
        num_negatives: random words that the targets of one block share.
        block_size: a divisor of chunk_size.
        power: of the sum of squares in a step.

    Attributes:
        vectors: the word vectors, (vocabulary_size, embedding_dim).
        targets: the rows of the softmax, of the same shape.
        squares: two variables (vocabulary_size,), the sums of squares of both tables.
    """

    def __init__(  # noqa: PLR0913
        self,
        vocabulary_size,
        embedding_dim=128,
        window=5,
        num_negatives=64,
        skip_gram=False,
        chunk_size=8192,
        block_size=64,
        power=0.4,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.embedding_dim = embedding_dim
        self.window = window
        self.num_negatives = num_negatives
        self.skip_gram = skip_gram
        self.chunk_size = chunk_size
        self.block_size = block_size
        self.power = power
        limit = 0.5 / embedding_dim
        self.vectors = self.add_weight(
            name="word2vec",
            shape=(vocabulary_size, embedding_dim),
            initializer=keras.initializers.RandomUniform(-limit, limit),
            trainable=False,
        )
        self.targets = self.add_weight(
            name="W",
            shape=(vocabulary_size, embedding_dim),
            initializer="zeros",
            trainable=False,
        )
        self.squares = [
            self.add_weight(
                name=name, shape=(vocabulary_size,), initializer="zeros", trainable=False
            )
            for name in ("word2vec_squares", "W_squares")
        ]
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.built = True

    def get_config(self):
        config = super().get_config()
        config["vocabulary_size"] = self.vocabulary_size
        config["embedding_dim"] = self.embedding_dim
        config["window"] = self.window
        config["num_negatives"] = self.num_negatives
        config["skip_gram"] = self.skip_gram
        config["chunk_size"] = self.chunk_size
        config["block_size"] = self.block_size
        config["power"] = self.power
        return config

    @property
    def metrics(self):
        return [self.loss_tracker]

    @property
    def distances(self):
        """Where the words of a window stand, seen from the word in its middle."""
        return [d for d in range(-self.window, self.window + 1) if d != 0]

    @property
    def num_blocks(self):
        return self.chunk_size // self.block_size

    @property
    def negatives_shape(self):
        """The shape of a chunk's negatives."""
        return self.num_blocks, self.num_negatives

    # --- One step ---
    def train_step(self, *args):
        """Keras calls it with a chunk; on JAX with the values of all variables and a chunk."""
        if keras.backend.backend() == "jax":
            state, chunk = args
            return self.stateless_step(state, chunk)
        [chunk] = args
        return self.update(*chunk)

    def stateless_step(self, state, chunk):
        """The step as JAX wants it: a function of all variables that returns the new ones."""
        groups = (
            self.trainable_variables,
            self.non_trainable_variables,
            self.optimizer.variables,
            self.metrics_variables,
        )
        variables = itertools.chain(*groups)
        values = itertools.chain(*state)
        with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)) as scope:
            logs = self.update(*chunk)
        new_state = tuple([scope.get_current_value(v) for v in group] for group in groups)
        return logs, new_state

    def update(self, ids, sentences, negatives):
        """Learns from one chunk: the softmax of every target, its gradients, and the step."""
        ids = ops.reshape(ids, [self.chunk_size])
        sentences = ops.reshape(sentences, [self.chunk_size])
        negatives = ops.reshape(negatives, self.negatives_shape)
        words = ops.take(self.vectors, ids, axis=0)
        targets = ops.take(self.targets, ids, axis=0)
        negative_targets = ops.take(self.targets, negatives, axis=0)

        # `hidden` at each place predicts the words at some distances, which count by `weights`.
        near = self.weights_of_neighbours(sentences)
        if self.skip_gram:  # Each word predicts its neighbours ...
            hidden = words
            distances = self.distances
            weights = near
        else:  # ... or the mean of its neighbours predicts the word.
            scale, has_context = self.scale_of_mean(near)
            hidden = scale * self.window_sum(words, near)
            distances = [0]
            weights = [has_context]

        exp_scores = self.exp_scores_of_negatives(hidden, ids, negatives, negative_targets)
        rest = ops.reshape(ops.sum(exp_scores, axis=-1), [self.chunk_size])
        loss, push, hidden_gradient, target_gradient = self.gradients_of_targets(
            hidden, targets, rest, distances, weights
        )
        more_hidden_gradient, negative_gradient = self.gradients_of_negatives(
            hidden, negative_targets, exp_scores, push
        )
        hidden_gradient += more_hidden_gradient
        if self.skip_gram:
            word_gradient = hidden_gradient
        else:  # A word is near another one as the other is near it: back is the same sum.
            word_gradient = self.window_sum(scale * hidden_gradient, near)

        learning_rate = self.optimizer.learning_rate
        self.optimizer.iterations.assign_add(1)
        self.adagrad(self.vectors, self.squares[0], ids, word_gradient, learning_rate)
        target_ids = ops.concatenate([ids, ops.reshape(negatives, [-1])])
        target_gradient = ops.concatenate([target_gradient, negative_gradient])
        self.adagrad(self.targets, self.squares[1], target_ids, target_gradient, learning_rate)

        count = sum(ops.sum(weight) for weight in weights)
        self.loss_tracker.update_state(loss / ops.maximum(count, 1e-6), sample_weight=count)
        return {"loss": self.loss_tracker.result()}

    # --- Windows ---
    def shifted(self, x, distances):
        """For each distance d an array with x[i + d] at place i, zeros beyond the ends."""
        # One padded array for all: padded one by one, XLA pads again in every use, which is slow.
        padding = [(self.window, self.window)]
        padding += [(0, 0) for _ in x.shape[1:]]
        padded = ops.pad(x, padding)
        arrays = []
        for distance in distances:
            start = self.window + distance
            arrays.append(padded[start : start + self.chunk_size])
        return arrays

    def weights_of_neighbours(self, sentences):
        """For each distance, how much the word so far away counts at each place.

        It counts 0 in another sentence.
        """
        numbers = sentences + 1  # 0 stands for beyond the ends.
        weights = []
        for distance, other in zip(
            self.distances, self.shifted(numbers, self.distances), strict=True
        ):
            weight = 1 - (abs(distance) - 1) / self.window
            weights.append(ops.cast(other == numbers, "float32") * weight)
        return weights

    def window_sum(self, x, near):
        """At each place the weighted sum of the rows of x around it."""
        neighbours = self.shifted(x, self.distances)
        return sum(weight[:, None] * rows for weight, rows in zip(near, neighbours, strict=True))

    def scale_of_mean(self, near):
        """What turns the sum of a window into its mean, (chunk_size, 1), and 1 or 0 per place.

        Both are 0 where a word has no neighbour.
        """
        total = sum(near)
        has_context = ops.cast(total > 0, "float32")
        scale = ops.expand_dims(has_context / ops.maximum(total, 1e-6), -1)
        return scale, has_context

    # --- Softmax and gradients ---
    def blocks(self, x):
        """The rows of x in blocks, (num_blocks, block_size, ...)."""
        return ops.reshape(x, (self.num_blocks, self.block_size, *x.shape[1:]))

    def exp_scores_of_negatives(self, hidden, ids, negatives, negative_targets):
        """exp(score) of each negative at each place, (num_blocks, block_size, num_negatives).

        It is 0 where the negative is the word that stands there.
        """
        scores = ops.matmul(self.blocks(hidden), ops.transpose(negative_targets, (0, 2, 1)))
        is_target = ops.expand_dims(negatives, 1) == ops.expand_dims(self.blocks(ids), 2)
        return ops.where(is_target, 0.0, ops.exp(ops.clip(scores, -30.0, 30.0)))

    def gradients_of_targets(self, hidden, targets, rest, distances, weights):
        """The loss, and what follows for the vectors from the scores of the targets.

        Args:
            hidden, targets: (chunk_size, embedding_dim).
            rest: the sum of exp(score) over the negatives of each place.
            distances, weights: of the targets of each place, and how much each counts.

        Returns:
            The loss, summed over all targets; `push`, by which exp(score) of a negative becomes
            the gradient of that score; the gradients of `hidden` and of `targets`.
        """
        loss = 0.0
        push = 0.0
        hidden_gradient = 0.0
        target_gradient = 0.0
        targets_at = self.shifted(targets, distances)
        for distance, weight, target in zip(distances, weights, targets_at, strict=True):
            score = ops.exp(ops.clip(ops.sum(hidden * target, axis=-1), -30.0, 30.0))
            loss -= ops.sum(weight * ops.log(score / (score + rest)))
            pull = ops.expand_dims(weight * rest / (score + rest), -1)
            push += weight / (score + rest)
            hidden_gradient -= pull * target
            [moved_back] = self.shifted(pull * hidden, [-distance])
            target_gradient -= moved_back
        return loss, push, hidden_gradient, target_gradient

    def gradients_of_negatives(self, hidden, negative_targets, exp_scores, push):
        """The gradients of `hidden` and of the negatives that the negatives' scores add.

        The second one has a row per negative, (num_blocks * num_negatives, embedding_dim).
        """
        score_gradient = exp_scores * self.blocks(push)[:, :, None]
        hidden_gradient = ops.reshape(ops.matmul(score_gradient, negative_targets), hidden.shape)
        negative_gradient = ops.matmul(
            ops.transpose(score_gradient, (0, 2, 1)), self.blocks(hidden)
        )
        return hidden_gradient, ops.reshape(negative_gradient, [-1, self.embedding_dim])

    def adagrad(self, table, squares, ids, gradient, learning_rate):
        """One step of the rows `ids` of a table; a row that occurs twice takes both gradients."""
        add_rows = ADD_ROWS[keras.backend.backend()]
        add_rows(squares, ids, ops.mean(ops.square(gradient), axis=-1))
        scale = (ops.take(squares, ids, axis=0) + 1e-10) ** -self.power
        add_rows(table, ids, -learning_rate * scale[:, None] * gradient)


def compile_fast(model, learning_rate, num_steps):
    """Compiles a FastWord2Vec for so many steps, over which the learning rate falls to 0."""
    schedule = keras.optimizers.schedules.PolynomialDecay(learning_rate, num_steps, 0.0)
    optimizer = keras.optimizers.SGD(schedule)
    if keras.backend.backend() == "torch":  # Its steps are not compiled here.
        model.compile(optimizer, jit_compile=False, steps_per_execution=1)
    else:
        model.compile(optimizer, jit_compile=True, steps_per_execution=STEPS)
