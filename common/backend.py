"""Checks which backend Keras is to run on. Scripts import this module before Keras.

    import common.backend  # noqa: F401

Keras chooses its backend once, when it is first imported, and ends in a stack trace when that
backend is not installed. Here a wrong KERAS_BACKEND becomes one clear line. Without
KERAS_BACKEND the backend is TensorFlow, whatever ~/.keras/keras.json says: the recorded numbers
come from TensorFlow.
"""

import os
from importlib.util import find_spec

from common.cli import fail

BACKENDS = ("tensorflow", "jax", "torch")


def check_backend():
    """Sets KERAS_BACKEND where it is not set, and checks that the backend is installed."""
    name = os.environ.get("KERAS_BACKEND") or "tensorflow"
    os.environ["KERAS_BACKEND"] = name
    if name not in BACKENDS:
        fail(f"KERAS_BACKEND is {name}: expected tensorflow, jax or torch")
    # TensorFlow is a requirement of this project, so it needs no search.
    if name != "tensorflow" and find_spec(name) is None:
        fail(f'KERAS_BACKEND is {name}, which is not installed: pip install -e ".[{name}]"')


check_backend()
