"""The drawn digits, MNIST's file, and images of your own."""

from functools import partial

import numpy as np
from conftest import write_mnist
from PIL import Image

import common.files
from data import glyphs, mnist
from data.mnist import read_image
from dropout_demo.dataset import load_data


# --- Drawn digits ---
def test_a_digit_depends_on_seed_and_index_alone():
    images, labels = glyphs.load("test", 20)
    assert images.shape == (20, 28, 28) and images.dtype == np.uint8
    for index in (17, 3):
        image, label = glyphs.draw_glyph(glyphs.SEEDS["test"], index)
        assert np.array_equal(images[index], image) and labels[index] == label


def test_splits_share_no_digit_and_all_digits_come():
    splits = {split: glyphs.load(split, 500) for split in glyphs.SEEDS}
    assert len({image.tobytes() for x, _ in splits.values() for image in x}) == 1500
    counts = np.bincount(np.concatenate([y for _, y in splits.values()]), minlength=10)
    assert len(counts) == 10 and np.abs(counts - 150).max() < 5 * np.sqrt(135)


def test_digits_are_light_and_inside_the_image():
    images, _ = glyphs.load("train", 500)
    border = np.concatenate([images[:, 0], images[:, -1]]).mean()
    assert border < 25 and images[:, 8:20, 8:20].mean() > 3 * border
    assert (images.max((1, 2)) > 100).all()


def test_version_pins_the_pixels():
    """A change that moves a pixel must raise VERSION; Pillow's own drawing may differ a little."""
    images, labels = glyphs.load("train", 100)
    assert (glyphs.VERSION, labels[:8].tolist()) == (1, [6, 3, 6, 8, 4, 2, 5, 6])
    assert abs(images.mean() - DRAWN_MEAN) < 0.2


DRAWN_MEAN = 40.7


# --- MNIST's file ---
write_npz = partial(write_mnist, num_train=60, num_test=20)


def test_mnist_is_split_three_ways_whatever_the_run_seed(tmp_path):
    path, arrays = write_npz(tmp_path / "mnist.npz")
    splits, notes = load_data(str(path), 30, 25, 15)
    assert [len(y) for _, y in splits.values()] == [30, 25, 15]
    drawn = {p.tobytes() for split in ("train", "valid") for p in splits[split][0]}
    assert len(drawn) == 55 and drawn <= {p.tobytes() for p in arrays["x_train"]}
    assert {p.tobytes() for p in splits["test"][0]} <= {p.tobytes() for p in arrays["x_test"]}
    label_of = dict(zip((p.tobytes() for p in arrays["x_train"]), arrays["y_train"], strict=True))
    assert all(label_of[p.tobytes()] == y for p, y in zip(*splits["valid"], strict=True))
    assert notes["name"] == "MNIST" and notes["num_valid"] == 25
    assert load_data(str(path), 30, 25, 15)[1] == notes


def test_bad_files_of_data_are_one_line(tmp_path, error_of):
    good, arrays = write_npz(tmp_path / "mnist.npz")
    truncated, text = tmp_path / "truncated.npz", tmp_path / "text.npz"
    truncated.write_bytes(good.read_bytes()[:-5000])
    text.write_text("no digits here")
    np.save(tmp_path / "one.npy", arrays["x_test"])
    (tmp_path / "empty").mkdir()
    for path in (truncated, text, tmp_path / "none.npz", tmp_path / "empty", tmp_path / "one.npy"):
        assert str(path) in error_of(load_data, str(path), 30, 25, 15)
    keys, _ = write_npz(tmp_path / "keys.npz", without=["x_test", "y_train"])
    assert "has no y_train, x_test" in error_of(load_data, str(keys), 30, 25, 15)
    shape, _ = write_npz(tmp_path / "shape.npz", x_test=np.zeros((20, 32, 32), "uint8"))
    assert "(n, 28, 28)" in error_of(load_data, str(shape), 30, 25, 15)
    labels, _ = write_npz(tmp_path / "labels.npz", y_test=np.full(20, 10))
    assert "label 10 of image 0" in error_of(load_data, str(labels), 30, 25, 15)
    assert "too few" in error_of(load_data, str(good), 30, 31, 15)
    splits, _ = load_data(str(tmp_path), 30, 25, 15)  # The folder that holds mnist.npz.
    assert len(splits["train"][1]) == 30


def test_the_word_mnist_is_a_verified_download(tmp_path, monkeypatch, error_of):
    """A file that is not MNIST is not taken for it, whatever its name."""
    monkeypatch.setattr(common.files, "DOWNLOADS", tmp_path / "downloads")
    other, _ = write_npz(tmp_path / "other.npz")
    monkeypatch.setattr(mnist, "URL", other.as_uri())
    assert mnist.SHA256 in error_of(load_data, "mnist", 30, 25, 15)


# --- Own images ---
def test_own_images_of_any_kind_become_mnists_kind(tmp_path):
    """One drawn digit, saved eight ways, gives eight almost equal 28 x 28 images."""
    ink = np.asarray(glyphs.glyph("DejaVuSans", 5, 1).resize((200, 180)))
    dark = Image.fromarray(255 - ink)
    clear = Image.new("RGBA", dark.size, (0, 0, 0, 0))
    clear.paste((20, 20, 20, 255), mask=Image.fromarray(ink))
    ways = {
        "light.png": Image.fromarray(ink),
        "dark.png": dark,
        "rgb.jpg": dark.convert("RGB"),
        "palette.gif": dark.convert("P"),
        "bits.png": dark.convert("1"),
        "deep.png": Image.fromarray((255 - ink).astype("uint16") * 256),
        "clear.png": clear,
        "alpha.png": dark.convert("LA"),
    }
    read = []
    for name, way in ways.items():
        way.save(tmp_path / name)
        read.append(read_image(tmp_path / name).astype(float))
    for image in read:
        assert image.shape == (28, 28) and image.max() > 200
        middle = [image.sum(1 - axis) @ np.arange(28) / image.sum() for axis in (0, 1)]
        assert np.abs(np.subtract(middle, 14)).max() < 0.6
        assert np.flatnonzero(image.any(1)).size == 20 and np.abs(image - read[0]).mean() < 8
    small = glyphs.load("test", 1)[0][0]
    for name, array in (("small.png", small), ("inverted.png", 255 - small)):
        Image.fromarray(array).save(tmp_path / name)
        assert np.array_equal(read_image(tmp_path / name), small)
    Image.new("L", (50, 70), 255).save(tmp_path / "empty.png")
    assert read_image(tmp_path / "empty.png").max() == 0
