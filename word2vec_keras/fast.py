"""The fast word2vec of this folder: one file from the ids of a text to the update of the tables.

Its functions need only numpy and keras: copy the file.
"""

import itertools
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from common.run import keras, ops

STEPS = 8  # So many are one call of Keras: the number of chunks of an epoch is a multiple.


# --- Batches ---
def keep_probability(counts, total, subsample=1e-5):
    """With what probability each word stays in the text: t / f + sqrt(t / f), at most 1.

    f is a word's share of the `total` words; this is word2vec.c's form, and the post's. Row 0,
    the end of a sentence, always stays.
    """
    ratio = subsample * total / np.maximum(counts, 1)
    keep = np.minimum(ratio + np.sqrt(ratio), 1).astype("float32")
    keep[0] = 1
    return keep


def fast_chunks(
    ids, keep, noise, num_chunks, num_negatives=64, chunk_size=8192, block_size=64, seed=0
):
    """One pass over the text for build_fast_model: `num_chunks` chunks, the last ones padded.

    A word stays with probability keep[id]; one that does not is no context either. Negatives
    are drawn from `noise` (ids, each as often as it is likely). The sentences of a piece of the
    text are shuffled, so that a chunk holds many topics.
    """
    rng, number, made, piece = np.random.default_rng(seed), 0, 0, 2_000_000
    rest = np.zeros((2, 0), "int32")

    def chunk(ids, sentences):
        drawn = rng.integers(0, len(noise), (chunk_size // block_size, num_negatives))
        return ids, sentences, noise[drawn]

    for start in range(0, len(ids), piece):
        tokens = np.append(ids[start : start + piece], np.int32(0))
        tokens = tokens[rng.random(len(tokens), dtype="float32") < keep[tokens]]
        ends = np.flatnonzero(tokens == 0)
        starts = np.append(0, ends[:-1] + 1)
        order = rng.permutation(np.flatnonzero(ends - starts > 1))  # One word has no context.
        lengths = (ends - starts)[order]
        places = np.repeat(starts[order] - np.cumsum(lengths) + lengths, lengths)
        numbers = np.repeat(np.arange(len(order)) + number, lengths)
        new = tokens[places + np.arange(len(places))], numbers.astype("int32")
        rest, number = np.concatenate([rest, new], axis=1), number + len(order)
        full = min(rest.shape[1] // chunk_size, num_chunks - made)
        for i in range(0, full * chunk_size, chunk_size):
            yield chunk(*rest[:, i : i + chunk_size])
        rest, made = rest[:, full * chunk_size :], made + full
    for _ in range(num_chunks - made):
        missing = chunk_size - rest.shape[1]
        alone = -2 - np.arange(missing, dtype="int32")  # Sentences of nothing.
        yield chunk(np.append(rest[0], 0 * alone), np.append(rest[1], alone))
        rest = rest[:, :0]


def noise_table(counts, power=0.75, size=2**22):
    """Ids, each in the share of its count ** power: a random entry is word2vec's negative."""
    share = np.cumsum(np.asarray(counts, "float64") ** power)
    return np.searchsorted(share / share[-1], (np.arange(size) + 0.5) / size).astype("int32")


def stream(chunks):
    """The chunks for `fit`, made in a thread of their own while the model trains.

    Keras would make a tf.data.Dataset of a generator, but an autotuned one: when it ends,
    tf.data may wait for its tuning thread to wake up, which can double the time of a training.
    """
    if keras.backend.backend() != "tensorflow":
        return prefetch(chunks)
    import tensorflow as tf

    first = next(chunks)
    specs = tuple(tf.TensorSpec(part.shape, part.dtype) for part in first)
    dataset = tf.data.Dataset.from_generator(
        lambda: itertools.chain([first], chunks), output_signature=specs
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(16).with_options(options)


def prefetch(chunks, count=16):
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, chunks, None) for _ in range(count))
        while (chunk := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, chunks, None))
            yield chunk


# --- Model ---
def add_rows_tensorflow(variable, ids, rows):
    import tensorflow as tf

    # The return value of variable.scatter_add would be a copy of the whole table.
    tf.raw_ops.ResourceScatterAdd(resource=variable.value.handle, indices=ids, updates=rows)


def add_rows_jax(variable, ids, rows):
    variable.assign(variable.value.at[ids].add(rows))  # In place, as fit donates the old table.


def add_rows_torch(variable, ids, rows):
    variable.value.data.index_add_(0, ids, rows)


def build_fast_model(
    vocabulary_size,
    embedding_dim=128,
    window=5,
    num_negatives=64,
    skip_gram=False,
    chunk_size=8192,
    block_size=64,
    power=0.4,
):
    """CBOW or skip-gram over chunks of running text; a batch of `fit` is one chunk.

    What makes it fast: each vector of a chunk is fetched once, a window is a sum of shifted
    chunks, and the targets of a block share their negatives, so that scores are products of
    matrices. Gradients are written by hand and touch only the rows in use: no table is ever
    copied or passed over. compile_fast sets the optimizer, which gives the learning rate. The
    step is Adagrad's with one sum of squares for a row, to the power 0.4 instead of 0.5:
    frequent words go on learning for longer.

    Args:
        window: words on each side; further ones count less, by 1 - (distance - 1) / window, the
            mean of word2vec's random window. CBOW takes the weighted mean of their vectors.

    A chunk is ids (chunk_size,), sentence numbers (chunk_size,) and ids (chunk_size //
    block_size, num_negatives), all int32: windows end where the number changes, id 0 is padding.
    The loss is the post's softmax over target and negatives.
    """
    add_rows = {"tensorflow": add_rows_tensorflow, "jax": add_rows_jax, "torch": add_rows_torch}
    add_rows = add_rows[keras.backend.backend()]
    distances = [d for d in range(-window, window + 1) if d != 0]
    num_blocks = chunk_size // block_size

    def shifted(x, distances):
        """For each distance d an array with x[i + d] at place i, zeros beyond the ends."""
        padded = ops.pad(x, [(window, window)] + [(0, 0)] * (len(x.shape) - 1))
        return [padded[window + d : window + d + chunk_size] for d in distances]

    def window_sum(x, near):
        return sum(w[:, None] * y for w, y in zip(near, shifted(x, distances), strict=True))

    def blocks(x):
        return ops.reshape(x, (num_blocks, block_size, *x.shape[1:]))

    class FastWord2Vec(keras.Model):
        def __init__(self):
            super().__init__()
            sizes = {"shape": (vocabulary_size, embedding_dim), "trainable": False}
            start = keras.initializers.RandomUniform(-0.5 / embedding_dim, 0.5 / embedding_dim)
            self.vectors = self.add_weight(name="word2vec", initializer=start, **sizes)
            self.targets = self.add_weight(name="W", initializer="zeros", **sizes)
            sizes = {"shape": (vocabulary_size,), "trainable": False, "initializer": "zeros"}
            names = ("word2vec_squares", "W_squares")
            self.squares = [self.add_weight(name=name, **sizes) for name in names]
            self.loss_tracker, self.built = keras.metrics.Mean(name="loss"), True

        @property
        def metrics(self):
            return [self.loss_tracker]

        def train_step(self, *args):
            if len(args) == 1:  # TensorFlow and torch change variables in place.
                return self.update(*args[0])
            state, data = args  # In JAX the step is a function of all variables.
            groups = [self.trainable_variables, self.non_trainable_variables]
            groups += [self.optimizer.variables, self.metrics_variables]
            pairs = zip(itertools.chain(*groups), itertools.chain(*state), strict=True)
            with keras.StatelessScope(state_mapping=pairs) as scope:
                logs = self.update(*data)
            return logs, tuple([scope.get_current_value(v) for v in group] for group in groups)

        def update(self, ids, sentences, negatives):
            """One step: the softmax of every target in the chunk, and its gradients."""
            ids, sentences = ops.reshape(ids, [chunk_size]), ops.reshape(sentences, [chunk_size])
            negatives = ops.reshape(negatives, [num_blocks, num_negatives])
            words = ops.take(self.vectors, ids, axis=0)
            targets = ops.take(self.targets, ids, axis=0)

            # near[d] is the weight of the word d places on: 0 in another sentence.
            near = [
                ops.cast(other == sentences + 1, "float32") * (1 - (abs(d) - 1) / window)
                for d, other in zip(distances, shifted(sentences + 1, distances), strict=True)
            ]
            if skip_gram:  # Each word predicts its neighbours ...
                hidden, places, share_of_loss = words, distances, near
            else:  # ... or the mean of its neighbours predicts the word.
                total = sum(near)
                has_context = ops.cast(total > 0, "float32")
                scale = ops.expand_dims(has_context / ops.maximum(total, 1e-6), -1)
                hidden, places, share_of_loss = scale * window_sum(words, near), [0], [has_context]

            strangers = ops.take(self.targets, negatives, axis=0)
            scores = ops.matmul(blocks(hidden), ops.transpose(strangers, (0, 2, 1)))
            wrong = ops.expand_dims(negatives, 1) == ops.expand_dims(blocks(ids), 2)
            exp_scores = ops.where(wrong, 0.0, ops.exp(ops.clip(scores, -30.0, 30.0)))
            rest = ops.reshape(ops.sum(exp_scores, axis=-1), [chunk_size])

            loss, push, hidden_gradient, target_gradient = 0.0, 0.0, 0.0, 0.0
            shifted_targets = shifted(targets, places)
            for d, weight, target in zip(places, share_of_loss, shifted_targets, strict=True):
                score = ops.exp(ops.clip(ops.sum(hidden * target, axis=-1), -30.0, 30.0))
                loss -= ops.sum(weight * ops.log(score / (score + rest)))
                pull = ops.expand_dims(weight * rest / (score + rest), -1)
                push += weight / (score + rest)
                hidden_gradient -= pull * target
                target_gradient -= shifted(pull * hidden, [-d])[0]
            excess = exp_scores * blocks(push)[:, :, None]
            hidden_gradient += ops.reshape(ops.matmul(excess, strangers), hidden.shape)
            gradient = ops.matmul(ops.transpose(excess, (0, 2, 1)), blocks(hidden))
            gradient = ops.reshape(gradient, [-1, embedding_dim])
            if not skip_gram:  # Shifting to and fro is symmetric, so back is the same sum.
                hidden_gradient = window_sum(scale * hidden_gradient, near)

            rate = self.optimizer.learning_rate
            self.optimizer.iterations.assign_add(1)
            target_ids = ops.concatenate([ids, ops.reshape(negatives, [-1])])
            target_gradient = ops.concatenate([target_gradient, gradient])
            changes = (
                (self.vectors, self.squares[0], ids, hidden_gradient),
                (self.targets, self.squares[1], target_ids, target_gradient),
            )
            for table, squares, ids, rows in changes:
                add_rows(squares, ids, ops.mean(ops.square(rows), axis=-1))
                scale = (ops.take(squares, ids, axis=0) + 1e-10) ** -power
                add_rows(table, ids, -rate * scale[:, None] * rows)
            count = sum(ops.sum(weight) for weight in share_of_loss)
            self.loss_tracker.update_state(loss / ops.maximum(count, 1e-6), sample_weight=count)
            return {"loss": self.loss_tracker.result()}

    return FastWord2Vec()


def compile_fast(model, learning_rate, steps):
    """Compiles a build_fast_model for so many steps, over which the rate falls to 0."""
    rate = keras.optimizers.schedules.PolynomialDecay(learning_rate, steps, 0.0)
    compiled = keras.backend.backend() != "torch"
    settings = {"jit_compile": compiled, "steps_per_execution": STEPS if compiled else 1}
    model.compile(keras.optimizers.SGD(rate), **settings)
