"""The drawn dogs, and the augmentations; the README's example of them beside a copy of the file."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from data import dogs
from dog_finetune import augment


# --- Drawn dogs ---
def test_an_image_depends_on_seed_breed_and_index_alone(tmp_path):
    one, labels = dogs.load("test", range(3, 6), 4, tmp_path / "a", workers=1)
    two, _ = dogs.load("test", range(3, 6), 4, tmp_path / "b", workers=2)
    assert np.array_equal(one, two) and labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert np.array_equal(one[6], dogs.draw_dog(dogs.SEEDS["test"], 4, 2))
    assert len({x.tobytes() for x in one}) == 12 and one.shape[1:] == (96, 96, 3)


def test_every_two_breeds_differ_in_three_parts():
    looks = [list(look.values()) for look in dogs.breeds()]
    assert len(looks) == 100
    for i, look in enumerate(looks):
        assert all(sum(a != b for a, b in zip(look, x, strict=True)) >= 3 for x in looks[:i])


def test_version_pins_the_pixels():
    """A change that moves a pixel must raise VERSION; Pillow's own drawing may differ a little."""
    mean = dogs.draw_dog(21, 0, 0).reshape(-1, 3).mean(0)
    assert dogs.VERSION == 1 and np.abs(mean - DRAWN_MEAN).max() < 1, mean


DRAWN_MEAN = (156.0, 177.4, 216.8)


# --- Augmentations ---
def test_centre_crop_is_the_middle():
    x = np.arange(4 * 7 * 3).reshape(4, 7, 3)
    assert np.array_equal(augment.centre_crop(x), x[:, 1:5])
    assert np.array_equal(augment.centre_crop(x.swapaxes(0, 1)), x.swapaxes(0, 1)[1:5])


def test_rotate_equals_a_loop(make_image):
    x = make_image(size=9)
    assert np.array_equal(augment.rotate(x, 0), x)
    quarter = augment.rotate(x, 90)
    assert np.array_equal(quarter, np.rot90(x)) or np.array_equal(quarter, np.rot90(x, -1))
    turned, angle = augment.rotate(x, 25), np.deg2rad(25)
    for row in range(9):
        for column in range(9):
            y = round(np.cos(angle) * (row - 4) - np.sin(angle) * (column - 4) + 4)
            z = round(np.sin(angle) * (row - 4) + np.cos(angle) * (column - 4) + 4)
            assert np.array_equal(turned[row, column], x[min(max(y, 0), 8), min(max(z, 0), 8)])


def test_zoom_shows_a_part_or_pastes_all_of_it(make_image):
    x, other = make_image(0), make_image(1)
    rng = np.random.default_rng(0)
    assert np.array_equal(augment.zoom_paste(x, 1.0, other, rng), x)
    larger = augment.zoom_paste(x, 2.0, None, rng)
    known = {tuple(pixel) for pixel in x.reshape(-1, 3).tolist()}
    assert {tuple(p) for p in larger.reshape(-1, 3).tolist()} <= known
    assert np.array_equal(larger[::2, ::2][1:, 1:], larger[1::2, 1::2][:-1, :-1]) or np.array_equal(
        larger[::2, ::2], larger[1::2, 1::2]
    )
    smaller = augment.zoom_paste(x, 0.5, other, rng)
    fits = [
        (top, left)
        for top in range(9)
        for left in range(9)
        if np.array_equal(smaller[top : top + 8, left : left + 8], x[::2, ::2])
    ]
    [(top, left)] = fits
    outside = np.ones((16, 16), bool)
    outside[top : top + 8, left : left + 8] = False
    assert np.array_equal(smaller[outside], other[outside])


@pytest.mark.parametrize("quadrant", range(4))
def test_a_masked_quadrant_is_black_and_the_rest_is_not_touched(quadrant, make_image):
    x = make_image() | 1
    masked = augment.mask_quadrant(x, quadrant)
    for row in range(16):
        for column in range(16):
            inside = 2 * (row >= 8) + (column >= 8) == quadrant
            assert np.array_equal(masked[row, column], 0 * x[0, 0] if inside else x[row, column])
    assert x.min() > 0, "the image itself was changed"


@pytest.mark.parametrize("kind", range(4))
def test_a_splice_equals_a_loop(kind, make_image):
    one, two = make_image(0), make_image(1)
    spliced = augment.splice(one, two, kind, 0.25)
    for y in range(16):
        for x in range(16):
            first = (y < 4, x < 4, x > y, x + y < 16)[kind]
            assert np.array_equal(spliced[y, x], (one if first else two)[y, x])


def test_light_augmentation_neither_turns_nor_masks(make_image):
    """It is the zoom and the reflection alone, drawn from the same numbers."""
    x = make_image() | 1
    other = make_image(1) | 1
    num_different = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        light = augment.augment(x, lambda: other, rng, light=True)
        assert light.shape == (16, 16, 3) and light.dtype == np.uint8

        rng = np.random.default_rng(seed)
        factor = rng.uniform(0.8, 1.2)
        expected = augment.zoom_paste(x, factor, other, rng)
        if rng.random() < 0.5:
            expected = expected[:, ::-1]
        assert np.array_equal(light, expected)

        full = augment.augment(x, lambda: other, np.random.default_rng(seed), masks=False)
        num_different += not np.array_equal(full, light)
    assert num_different > 10


def test_half_of_the_full_augmentations_mask_a_quadrant(make_image):
    x = make_image() | 1
    masked = []
    for seed in range(200):
        full = augment.augment(x, lambda: x, np.random.default_rng(seed))
        masked.append((full == 0).all(axis=-1).mean())
        whole = augment.augment(x, lambda: x, np.random.default_rng(seed), masks=False)
        assert (whole > 0).all()
    assert set(masked) == {0, 0.25} and 0.4 < np.mean(np.array(masked) > 0) < 0.6


def test_ours_and_fixed_crops_stay_images():
    x = dogs.draw_dog(1, 1, 1)
    moved = [augment.crop_and_colour(x, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(moved[0], moved[1]) and not np.array_equal(moved[0], moved[2])
    assert all(m.shape == x.shape and m.dtype == np.uint8 for m in moved)
    assert np.array_equal(augment.fixed_crop(x, 0), x)
    assert np.array_equal(augment.fixed_crop(x, 1), x[:, ::-1])
    assert not np.array_equal(augment.fixed_crop(x, 2), x)


def test_the_example_of_the_readme_runs_beside_a_copy_of_augment_py(tmp_path):
    readme = (ROOT / "dog_finetune" / "README.md").read_text(encoding="utf-8")
    _, _, section = readme.partition("\n## Use its augmentations in your code\n")
    section, _, _ = section.partition("\n## ")
    [example] = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    offered = re.findall(r"^- `(\w+)\(", section, re.MULTILINE)
    assert len(offered) == 7 and all(f"{name}(" in example for name in offered)
    shutil.copy(ROOT / "dog_finetune" / "augment.py", tmp_path)
    (tmp_path / "example.py").write_text(example, encoding="utf-8")
    # -I: neither this repository nor PYTHONPATH is on the path.
    run = [sys.executable, "-I", "-c", "import sys; sys.path[:0] = ['.']; import example"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
