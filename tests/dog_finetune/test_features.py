"""Kept features, and batches of them and of augmented images."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from data import dogs
from dog_finetune import features
from dog_finetune.dataset import AugmentedImages


def test_kept_features_equal_direct_ones_and_continue_after_a_stop(tmp_path, tiny_backbone):
    stem, _ = tiny_backbone(16)
    sources = [dogs.draw_dog(5, 0, i) for i in range(25)]

    class StoppedImages(AugmentedImages):
        """The user stops the script while the second chunk is read."""

        def read(self, row):
            if row == 12:
                raise KeyboardInterrupt
            return super().read(row)

    with ThreadPoolExecutor(2) as pool:
        images = AugmentedImages(sources, 16, 0, pool)
        kept = features.keep_features_of_images(tmp_path / "a.npy", stem, images, "ours", 3)
        assert kept.shape[:2] == (25, 3) and kept.dtype == np.float16
        for row, number in ((0, 0), (7, 2), (24, 1)):
            direct = stem.predict(images.augmented("ours", row, number)[None], verbose=0)[0]
            assert np.allclose(kept[row, number], direct, atol=2e-3)

        path = tmp_path / "b.npy"
        stopped = StoppedImages(sources, 16, 0, pool)
        with pytest.raises(KeyboardInterrupt):
            features.keep_features_of_images(path, stem, stopped, "ours", 3, note_every=1)
        assert json.loads((tmp_path / "b.json").read_text())["done"] == 32
        again = features.keep_features_of_images(path, stem, images, "ours", 3)
        assert np.array_equal(kept, again)


def test_batches_start_anywhere_and_no_thread_moves_a_pixel():
    sources = [dogs.draw_dog(5, b, i) for b in range(3) for i in range(4)]
    labels = np.append(np.repeat([0, 1, 2], 4), [-1, -1])
    sources += [dogs.draw_dog(5, 3, i) for i in range(2)]

    def first(count, first_epoch, workers, kind="full", mixup=0.0):
        with ThreadPoolExecutor(workers) as pool:
            images = AugmentedImages(sources, 24, 3, pool, labels)
            targets = features.Targets(labels, 3, ["main", "distance"])
            batches = features.ImageBatches(images, kind, targets, (3, 1), 2, mixup=mixup)
            batches.first_epoch = first_epoch
            return [batches[index] for index in range(count)]

    one, two, late = first(4, 0, 1), first(4, 0, 3), first(2, 1, 2)
    for (x, y), (x2, y2) in zip([*one, *one[2:]], [*two, *late], strict=True):
        assert np.array_equal(x["x"], x2["x"]) and np.array_equal(x["target"], x2["target"])
        assert np.array_equal(y["main"], y2["main"])
        assert x["x"].dtype == np.uint8 and y["main"].sum(1).tolist() == [1] * 6
    assert not np.array_equal(one[0][0]["x"], one[2][0]["x"])
    (x, y), *_ = first(1, 0, 1, "ours", 0.3)
    assert np.allclose(y["main"].sum(1), 1) and ((y["main"] > 0.01).sum(1) > 1).any()
    assert x["x"].dtype == np.uint8


@pytest.mark.parametrize("mixup", [0.0, 0.4])
@pytest.mark.parametrize("kept", [True, False])
def test_a_batch_is_a_function_of_its_index(kept, mixup):
    """Keras on TensorFlow reads the first batches twice."""
    labels = np.array([0, 2, 1, -1, 2, 0, 1, -1])
    targets = features.Targets(labels, 3, ["main", "auxiliary", "distance"])
    with ThreadPoolExecutor(2) as pool:
        if kept:
            x = np.random.default_rng(0).normal(size=(8, 2, 5)).astype("float16")
            batches = features.FeatureBatches(x, targets, (0, 1), 3, mixup=mixup)
        else:
            sources = [dogs.draw_dog(5, 0, i) for i in range(8)]
            images = AugmentedImages(sources, 16, 0, pool, labels)
            batches = features.ImageBatches(images, "full", targets, (0, 1), 3, mixup=mixup)
        in_order = [batches[index] for index in range(7)]
        for index in (3, 0, 6, 6, 1):
            (x, y), (x2, y2) = in_order[index], batches[index]
            assert x.keys() == x2.keys() and y.keys() == y2.keys()
            assert all(np.array_equal(x[name], x2[name]) for name in x)
            assert all(np.array_equal(y[name], y2[name]) for name in y)


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_the_targets_of_a_batch_are_those_of_its_images(mixup):
    labels = np.array([0, 2, 1, -1, 2, 0, 1, -1])
    maps = np.eye(3)[labels][:, None].repeat(2, 1)  # Each image shows what it is.
    maps[labels < 0] = 9
    targets = features.Targets(labels, 3, ["main"])
    batches = features.FeatureBatches(maps, targets, (0,), 4, mixup=mixup, pairs=False)
    seen = []
    for index in range(8):
        inputs, truths = batches[index]
        np.testing.assert_allclose(inputs["x"], truths["main"], atol=1e-6)
        seen.append(truths["main"])
    assert len(np.unique(np.concatenate(seen).round(4), axis=0)) > 3 - (not mixup)
