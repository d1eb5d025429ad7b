"""Saving a training after every epoch, so that it can continue exactly."""

import json
import os
import time

import keras
import numpy as np

from common.cli import fail
from common.files import read_arrays


class Checkpoint(keras.callbacks.Callback):
    """Saves the whole state of a training after each epoch, and the best model so far.

    Keras' own BackupAndRestore does not continue exactly: it forgets the state of the random
    generators and the history. Here a resumed run ends with the same weights, bit for bit.

    Args:
        folder: of the run. The state is `{prefix}state.npz`, the model `{prefix}model.keras`.
        model: a compiled model.
        monitor: the metric by which the best epoch is chosen: the highest value wins, and of
            equal ones the latest. None: no model is saved.
        seed: of the run.
        resume: whether to load the state that the folder holds.

    Attributes:
        history: one dict per finished epoch: "epoch", counted from 1, and the logs.
        start: when the training would have begun, had it never been stopped (seconds).
    """

    def __init__(self, folder, model, monitor, seed, resume, prefix=""):
        super().__init__()
        self.folder = folder
        self.network = model
        self.state_path = folder / f"{prefix}state.npz"
        self.model_path = folder / f"{prefix}model.keras"
        self.monitor = monitor
        self.seed = seed
        self.history = []
        self.start = time.time()
        model.optimizer.build(model.trainable_variables)
        self.variables = model.variables + model.optimizer.variables
        if resume and self.state_path.exists():
            self.load()

    def load(self):
        state = read_arrays(self.state_path)
        notes = json.loads(str(state["notes"]))
        self.history = notes["history"]
        self.start -= notes["seconds"]
        for i, variable in enumerate(self.variables):
            variable.assign(state[f"arr_{i}"])

    # `fit` calls the first two of these; a training loop of one's own calls the other two.
    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.begin_epoch()

    def on_epoch_end(self, epoch, logs=None):
        self.end_epoch(epoch, logs)

    def begin_epoch(self):
        """Makes the random numbers of the epoch the same after --resume as without it."""
        # On torch, Dropout draws from a global generator, which is not one of the variables.
        if keras.backend.backend() == "torch":
            keras.utils.set_random_seed((self.seed + 1000 * len(self.history)) % 2**32)

    def end_epoch(self, epoch, logs):
        """Adds the epoch, counted from 0, to the history, and saves what is to be saved."""
        entry = {"epoch": epoch + 1}
        for name, value in logs.items():
            entry[name] = float(value)
        self.history.append(entry)
        try:
            if self.monitor and self.is_best():
                self.save_model()
            self.save_state()  # Last: only now does this epoch count as finished.
        except (OSError, RuntimeError) as error:  # On a full disk HDF5 raises either.
            fail(f"cannot save in {self.folder} ({error}): make room, then --resume")

    def is_best(self):
        best = max(entry[self.monitor] for entry in self.history)
        return self.history[-1][self.monitor] >= best

    def save_model(self):
        temporary = self.folder / "next.keras"
        self.network.save(temporary)
        os.replace(temporary, self.model_path)

    def save_state(self):
        temporary = self.folder / "next.npz"
        notes = {"history": self.history, "seconds": time.time() - self.start}
        arrays = [np.asarray(variable) for variable in self.variables]
        np.savez(temporary, *arrays, notes=json.dumps(notes))
        os.replace(temporary, self.state_path)
