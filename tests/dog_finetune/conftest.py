"""What several tests of dog_finetune need: a trained network, drawn dogs as files."""

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from data import dogs
from dog_finetune import model, train


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """One small training through the front door, shared by the tests that need a model."""
    run_dir = tmp_path_factory.mktemp("smoke") / "run"
    return run_dir, train.main(["--smoke", "--run-dir", str(run_dir)])


@pytest.fixture(scope="session")
def make_image():
    """Makes an image of noise."""

    def make(seed=0, size=16):
        return np.random.default_rng(seed).integers(0, 256, (size, size, 3), "uint8")

    return make


@pytest.fixture(scope="session")
def save_dogs():
    """Writes `count` drawn dogs of a breed as JPEG files."""

    def save(folder, breed, count, first=0):
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(first, first + count):
            Image.fromarray(dogs.draw_dog(7, breed, index)).save(folder / f"{index:03d}.jpg")

    return save


@pytest.fixture
def folder(tmp_path, save_dogs):
    """Three breeds of 20 drawn dogs."""
    for breed in range(3):
        save_dogs(tmp_path / "own" / f"breed_{breed}", breed, 20)
    return tmp_path / "own"


@pytest.fixture
def small_folder(tmp_path, save_dogs):
    """Three breeds of 12 drawn dogs."""
    for breed in range(3):
        save_dogs(tmp_path / "own" / f"breed_{breed}", breed, 12)
    return tmp_path / "own"


@pytest.fixture
def tiny_backbone():
    """Builds a stem and a tail of one convolution each."""

    def build(image_size):
        inputs = keras.Input((image_size, image_size, 3), dtype="uint8", name="picture")
        x = layers.Rescaling(1 / 255)(inputs)
        cut = layers.Conv2D(6, 3, 2, activation="relu")(x)
        x = layers.BatchNormalization()(layers.Conv2D(8, 3, activation="relu")(cut))
        stem = keras.Model(inputs, cut, name="stem")
        tail = keras.Model(cut, layers.GlobalAveragePooling2D()(x), name="tail")
        stem.trainable = False
        model.freeze_batch_norm(tail)
        return stem, tail

    return build
