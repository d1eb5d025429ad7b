"""Gradients with respect to the word vectors, which Keras has no word for: a function a backend."""

import numpy as np

from common.run import keras, ops


def build_head(model):
    """What follows the word vectors: (vectors, known) -> log-odds (batch, 1).

    vectors: (batch, words, embedding_dim); known: bool (batch, words), False = skipped.
    """
    rnn, size = model.get_layer("rnn"), model.get_layer("words").output_dim
    vectors, known = keras.Input((None, size)), keras.Input((None,), dtype="bool")
    states, *last = rnn(vectors, mask=known)
    both = states.shape[-1] != last[0].shape[-1]
    final = ops.concatenate([last[0], last[len(last) // 2]], axis=-1) if both else last[0]
    return keras.Model([vectors, known], model.get_layer("decision")(final))


def tensorflow_gradient(head):
    import tensorflow as tf

    @tf.function
    def gradient(vectors, known):
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            log_odds = head([vectors, known])
        return log_odds, tape.gradient(log_odds, vectors)

    return lambda vectors, known: gradient(tf.constant(vectors), tf.constant(known))


def jax_gradient(head):
    import jax

    def total(vectors, known, values):
        log_odds, _ = head.stateless_call(*values, [vectors, known])
        return log_odds.sum(), log_odds

    gradient = jax.jit(jax.grad(total, has_aux=True))

    def now(vectors, known):  # Variables are read at each call: `predict` replaces their arrays.
        state = head.trainable_variables, head.non_trainable_variables
        values = [[variable.value for variable in variables] for variables in state]
        return gradient(vectors, known, values)[::-1]

    return now


def torch_gradient(head):
    import torch

    def gradient(vectors, known):
        vectors = ops.convert_to_tensor(vectors).requires_grad_()
        log_odds = head([vectors, ops.convert_to_tensor(known)])
        return log_odds, torch.autograd.grad(log_odds.sum(), vectors)[0]

    return gradient


def gradient_function(model):
    """(vectors, known) -> log-odds (batch,) and their gradient, shaped like the vectors."""
    makers = {"tensorflow": tensorflow_gradient, "jax": jax_gradient, "torch": torch_gradient}
    gradient = makers[keras.backend.backend()](build_head(model))

    def in_numpy(vectors, known):
        found = gradient(np.asarray(vectors, "float32"), np.asarray(known))
        log_odds, slope = (ops.convert_to_numpy(x) for x in found)
        return log_odds[:, 0], slope

    return in_numpy
