"""Drawn captchas, folders of captchas, splits, batches and augmentation."""

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from captcha_xception import dataset, train
from common.batches import ShuffledBatches
from data import captchas

REAL = ROOT.parent / "shared" / "data" / "captcha_letters6"


def test_an_image_depends_on_seed_and_index_alone(tmp_path):
    one = captchas.load("test", 30, folder=tmp_path / "a", workers=1)
    two = captchas.load("test", 30, folder=tmp_path / "b", workers=2)
    assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])
    image, label = captchas.draw_captcha(captchas.SEEDS["test"], 17)
    assert np.array_equal(one[0][17], image)
    assert "".join(captchas.ALPHABET[i] for i in one[1][17]) == label
    assert one[0].shape == (30, 53, 129, 3) and one[0].dtype == np.uint8


def test_splits_and_styles_share_nothing():
    drawn = [captchas.draw_captcha(seed, i)[0] for seed in (11, 12, 13) for i in range(100)]
    assert len({image.tobytes() for image in drawn}) == 300
    plain, unseen = (set(style["fonts"]) for style in captchas.STYLES.values())
    assert not plain & unseen
    assert not np.array_equal(captchas.draw_captcha(11, 0, "unseen")[0], drawn[0])


def test_letters_are_even_and_lower_case():
    labels = "".join(captchas.draw_captcha(5, i)[1] for i in range(500))
    counts = np.array([labels.count(c) for c in captchas.ALPHABET])
    assert labels.islower() and counts.sum() == 2000
    # i and l are drawn in one case only, so they come half as often as the others.
    expected = np.array([1 if c in "il" else 2 for c in captchas.ALPHABET]) * 2000 / 50
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_version_pins_the_pixels():
    """A change that moves a pixel must raise VERSION; Pillow's own drawing may differ a little."""
    image, label = captchas.draw_captcha(11, 0)
    assert (captchas.VERSION, label) == (1, DRAWN_LABEL)
    assert np.abs(image.reshape(-1, 3).mean(0) - DRAWN_MEAN).max() < 1


DRAWN_LABEL, DRAWN_MEAN = "gjad", (187.9, 189.7, 151.1)


def test_batches_shuffle_and_can_start_anywhere():
    x, y = np.arange(10)[:, None, None, None], np.arange(10)[:, None]
    batches = ShuffledBatches((x, y), 5, seed=3)
    epochs = [batches[i] for i in range(6)]
    seen = [np.concatenate([b.ravel() for _, b in epochs[i : i + 2]]) for i in (0, 2, 4)]
    for order in seen:
        assert sorted(order) == list(range(10)) and list(order) != list(range(10))
    assert list(seen[0]) != list(seen[1])
    resumed = ShuffledBatches((x, y), 5, seed=3, first_epoch=2)[0][1].ravel()
    assert list(resumed) == list(seen[2][:5])
    assert list(ShuffledBatches((x, y), 5, seed=4)[0][1].ravel()) != list(seen[0][:5])


def test_augmented_batches_follow_from_their_index():
    """Keras reads the first batches twice, and a resumed run starts in a later epoch."""
    x, y = captchas.draw_many(3, "plain", range(8))
    batches = dataset.AugmentedBatches((x, y), 4, seed=3)
    epochs = [batches[i] for i in range(6)]
    for index in (0, 1, 5):
        assert np.array_equal(batches[index][0], epochs[index][0])
    assert not np.array_equal(epochs[0][0], epochs[2][0])
    resumed = dataset.AugmentedBatches((x, y), 4, seed=3, first_epoch=2)
    for index in (0, 1):
        assert np.array_equal(resumed[index][0], epochs[4 + index][0])


def test_augmented_images_move_but_stay_images():
    x, _ = captchas.draw_many(3, "plain", range(8))
    moved = dataset.augment(x, np.random.default_rng(0))
    assert moved.shape == x.shape and moved.dtype == np.uint8
    assert all(not np.array_equal(a, b) for a, b in zip(x, moved, strict=True))
    assert np.array_equal(moved, dataset.augment(x, np.random.default_rng(0)))
    assert abs(float(moved.mean()) - float(x.mean())) < 10


def test_label_ends_the_name():
    label = dataset.labels_from_names
    assert label(["ABCD", "x_12_efgh", "0-Ij9z"]) == ["abcd", "efgh", "ij9z"]
    assert label(["aB"], case_sensitive=True) == ["aB"]
    assert label(["1234abcd", "zabce"], length=4) == ["abcd", "abce"]
    with pytest.raises(ValueError, match="different lengths"):
        label(["abcd", "abcd", "abc"])
    for stems in (["abcd", "ab"], ["ab", "ab"]):
        with pytest.raises(ValueError, match="shorter"):
            label(stems, length=3)
    with pytest.raises(ValueError, match="letters and digits"):
        label(["ab?d"], length=4)


def test_every_mode_is_read_on_white(tmp_path):
    rgb = np.full((53, 129, 3), 255, "uint8")
    rgb[20:30, 40:60] = (200, 30, 30)
    alpha = np.dstack([rgb, np.where(rgb[..., 1] == 255, 0, 255).astype("uint8")])
    alpha[alpha[..., 3] == 0, :3] = 0  # Black, but transparent.
    for mode, image in {
        "RGB": Image.fromarray(rgb),
        "RGBA": Image.fromarray(alpha),
        "P": Image.fromarray(rgb).quantize(4),
    }.items():
        image.save(tmp_path / f"{mode}.png")
        read = np.asarray(dataset.read_image(tmp_path / f"{mode}.png")).astype(int)
        assert np.abs(read - rgb).max() <= 1, mode
    grey = np.linspace(0, 65535, 53 * 129).reshape(53, 129).astype("uint16")
    Image.fromarray(grey).save(tmp_path / "16.png")
    read = np.asarray(dataset.read_image(tmp_path / "16.png"))
    assert np.abs(read[..., 0].astype(int) - grey // 256).max() <= 1


def test_split_is_disjoint_shuffled_and_fixed(folder):
    args = ["--data", str(folder), "--seed"]
    one, two = (dataset.load(train.parse_args([*args, seed])).splits for seed in "01")
    images_seen = [p.tobytes() for split in one.values() for p in split[0]]
    assert len(set(images_seen)) == 120
    assert all(np.array_equal(one[s][0], two[s][0]) for s in one)
    paths = sorted(folder.iterdir())
    text_of = {np.asarray(dataset.read_image(p)).tobytes(): p.stem[-4:] for p in paths}
    alphabet = "".join(sorted(set("".join(text_of.values()))))
    for x, y in one.values():
        shown = [text_of[image.tobytes()] for image in x]
        assert ["".join(alphabet[i] for i in row) for row in y] == shown
    held_out = {text_of[p.tobytes()] for split in ("valid", "test") for p in one[split][0]}
    assert one["train"][1].shape == (97, 4)
    assert held_out - {p.stem[-4:] for p in paths[:23]}  # Not the first or the last of the folder.
    assert held_out - {p.stem[-4:] for p in paths[-23:]}
    assert held_out - set(sorted(text_of.values())[-23:])


def test_bad_folders_are_one_line(folder, tmp_path, fails):
    def load(*words):
        return lambda: dataset.load(train.parse_args(["--data", str(folder), *words]))

    (tmp_path / "empty").mkdir()
    empty = train.parse_args(["--data", str(tmp_path / "empty")])
    fails(lambda: dataset.load(empty), "empty", "0 images")
    missing = train.parse_args(["--data", str(tmp_path / "nowhere")])
    fails(lambda: dataset.load(missing), "nowhere", "not a folder")
    first, second, third = sorted(folder.iterdir())[:3]
    first.rename(folder / "0000_abcde.jpg")
    fails(load(), "different lengths", "0000_abcde", "--length")
    (folder / "0000_abcde.jpg").rename(folder / "0000_ab!d.jpg")
    fails(load("--length", "4"), "ab!d", "letters and digits")
    (folder / "0000_ab!d.jpg").rename(first)
    few = tmp_path / "few"
    few.mkdir()
    for index, path in enumerate(sorted(folder.iterdir())):
        (few / f"{index:04d}_{index % 10}.jpg").write_bytes(path.read_bytes())
    digits = train.parse_args(["--data", str(few), "--length", "1"])
    fails(lambda: dataset.load(digits), "10 different texts", "20")
    Image.new("RGB", (20, 3000)).save(first)
    Image.new("RGB", (20, 3000)).save(second)
    fails(load(), "2 of 120", "20 x 3000")
    Image.new("RGB", (129, 53)).save(first)
    second.write_text("not an image")
    third.write_text("not an image either")
    fails(load(), "2 of 120", second.name)


def test_images_of_one_text_stay_together(folder):
    paths = sorted(folder.iterdir())
    for path in paths[:40]:
        (folder / f"twin_{path.name}").write_bytes(path.read_bytes())
    splits = dataset.load(train.parse_args(["--data", str(folder)])).splits
    texts = {split: {tuple(row) for row in labels} for split, (_, labels) in splits.items()}
    assert sum(len(labels) for _, labels in splits.values()) == 160
    assert not texts["train"] & texts["test"] and not texts["valid"] & texts["test"]
    assert not texts["train"] & texts["valid"]


@pytest.mark.skipif(not REAL.is_dir(), reason="the real captchas are not on this machine")
def test_real_captchas_are_understood():
    x, labels, alphabet, skipped = dataset.load_folder(REAL)
    assert x.shape[1:] == (53, 151, 3) and labels.shape == (len(x), 6)
    assert len(x) == 3540 and alphabet == "abcefghjklmnprtuxy" and not skipped
