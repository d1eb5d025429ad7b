"""Batches for `fit` in an order that a resumed run can continue."""

import keras
import numpy as np


class ShuffledBatches(keras.utils.PyDataset):
    """Endless batches. The order of each epoch follows from (seed, epoch) alone.

    Batch `index` is a function of its index and nothing else, so a run that starts in a later
    epoch sees the batches that an uninterrupted run would have seen. Give `fit` the number
    `steps_per_epoch` and shuffle=False. Rows that do not fill a last batch wait for another
    epoch, which has another order.

    Args:
        arrays: a tuple of arrays with one row per sample, such as (images, labels).
        first_epoch: the epoch of batch 0, for a resumed run.
    """

    num_batches = None  # Keras' word for endless.

    def __init__(self, arrays, batch_size, seed, first_epoch=0):
        super().__init__()
        self.arrays = arrays
        self.batch_size = batch_size
        self.seed = seed
        self.first_epoch = first_epoch
        self.num_samples = len(arrays[-1])
        self.steps_per_epoch = self.num_samples // batch_size
        self.last_epoch = (None, None)  # The epoch that was asked for last, and its rows.

    def rows(self, index):
        """The rows of the arrays that batch `index` is made of."""
        epoch, step = divmod(index, self.steps_per_epoch)
        epoch += self.first_epoch
        known, batches = self.last_epoch
        if known != epoch:
            batches = self.rows_of_epoch(np.random.default_rng((self.seed, epoch)))
            self.last_epoch = (epoch, batches)
        return batches[step]

    def rows_of_epoch(self, rng):
        """The rows of each batch of an epoch. A subclass may choose others."""
        order = rng.permutation(self.num_samples)
        order = order[: self.steps_per_epoch * self.batch_size]
        return order.reshape(self.steps_per_epoch, self.batch_size)

    def __getitem__(self, index):
        rows = self.rows(index)
        return tuple(array[rows] for array in self.arrays)
