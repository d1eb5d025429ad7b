"""Gradients with respect to the word vectors: one function per backend, as Keras has none."""

import keras
import numpy as np
from keras import ops


def gradient_function(model):
    """A function (vectors, known) -> log-odds (batch,) and their gradient, shaped like the vectors.

    Args:
        model: from build_classifier.
    """
    makers = {"tensorflow": tensorflow_gradient, "jax": jax_gradient, "torch": torch_gradient}
    gradient = makers[keras.backend.backend()](build_head(model))

    def in_numpy(vectors, known):
        log_odds, slope = gradient(np.asarray(vectors, "float32"), np.asarray(known))
        return ops.convert_to_numpy(log_odds)[:, 0], ops.convert_to_numpy(slope)

    return in_numpy


def build_head(model):
    """What follows the word vectors: (vectors, known) -> log-odds (batch, 1).

    vectors: (batch, words, embedding_dim); known: bool (batch, words), False = skipped.
    """
    rnn = model.get_layer("rnn")
    vectors = keras.Input((None, model.get_layer("words").output_dim))
    known = keras.Input((None,), dtype="bool")
    states, *last = rnn(vectors, mask=known)
    final = last[0]
    if states.shape[-1] != final.shape[-1]:  # Both directions.
        final = ops.concatenate([last[0], last[len(last) // 2]], axis=-1)
    return keras.Model([vectors, known], model.get_layer("decision")(final))


def tensorflow_gradient(head):
    import tensorflow as tf

    @tf.function
    def compiled(vectors, known):
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            log_odds = head([vectors, known])
        return log_odds, tape.gradient(log_odds, vectors)

    return lambda vectors, known: compiled(tf.constant(vectors), tf.constant(known))


def jax_gradient(head):
    import jax

    def total(vectors, known, values):
        log_odds, _ = head.stateless_call(*values, [vectors, known])
        return log_odds.sum(), log_odds

    compiled = jax.jit(jax.grad(total, has_aux=True))

    def gradient(vectors, known):
        # The variables are read at each call, because `predict` replaces their arrays.
        trainable = [variable.value for variable in head.trainable_variables]
        other = [variable.value for variable in head.non_trainable_variables]
        slope, log_odds = compiled(vectors, known, [trainable, other])
        return log_odds, slope

    return gradient


def torch_gradient(head):
    import torch

    def gradient(vectors, known):
        vectors = ops.convert_to_tensor(vectors).requires_grad_()
        log_odds = head([vectors, ops.convert_to_tensor(known)])
        return log_odds, torch.autograd.grad(log_odds.sum(), vectors)[0]

    return gradient
