"""dog_finetune: the drawn dogs, and the views of a picture."""

import numpy as np
import pytest

from data import dogs
from dog_finetune import pictures, train


def picture(seed=0, size=16):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), "uint8")


# --- Drawn dogs ---
def test_a_picture_depends_on_seed_breed_and_index_alone(tmp_path):
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


# --- Views ---
def test_centre_crop_is_the_middle():
    x = np.arange(4 * 7 * 3).reshape(4, 7, 3)
    assert np.array_equal(train.centre_crop(x), x[:, 1:5])
    assert np.array_equal(train.centre_crop(x.swapaxes(0, 1)), x.swapaxes(0, 1)[1:5])


def test_rotate_equals_a_loop():
    x = picture(size=9)
    assert np.array_equal(train.rotate(x, 0), x)
    quarter = train.rotate(x, 90)
    assert np.array_equal(quarter, np.rot90(x)) or np.array_equal(quarter, np.rot90(x, -1))
    turned, angle = train.rotate(x, 25), np.deg2rad(25)
    for row in range(9):
        for column in range(9):
            y = round(np.cos(angle) * (row - 4) - np.sin(angle) * (column - 4) + 4)
            z = round(np.sin(angle) * (row - 4) + np.cos(angle) * (column - 4) + 4)
            assert np.array_equal(turned[row, column], x[min(max(y, 0), 8), min(max(z, 0), 8)])


def test_zoom_shows_a_part_or_pastes_all_of_it():
    x, other = picture(0), picture(1)
    rng = np.random.default_rng(0)
    assert np.array_equal(train.zoom_paste(x, 1.0, other, rng), x)
    larger = train.zoom_paste(x, 2.0, None, rng)
    known = {tuple(pixel) for pixel in x.reshape(-1, 3).tolist()}
    assert {tuple(p) for p in larger.reshape(-1, 3).tolist()} <= known
    assert np.array_equal(larger[::2, ::2][1:, 1:], larger[1::2, 1::2][:-1, :-1]) or np.array_equal(
        larger[::2, ::2], larger[1::2, 1::2]
    )
    smaller = train.zoom_paste(x, 0.5, other, rng)
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
def test_a_masked_quadrant_is_black_and_the_rest_is_not_touched(quadrant):
    x = picture() | 1
    masked = train.mask_quadrant(x, quadrant)
    for row in range(16):
        for column in range(16):
            inside = 2 * (row >= 8) + (column >= 8) == quadrant
            assert np.array_equal(masked[row, column], 0 * x[0, 0] if inside else x[row, column])
    assert x.min() > 0, "the picture itself was changed"


@pytest.mark.parametrize("kind", range(4))
def test_a_splice_equals_a_loop(kind):
    one, two = picture(0), picture(1)
    spliced = train.splice(one, two, kind, 0.25)
    for y in range(16):
        for x in range(16):
            first = (y < 4, x < 4, x > y, x + y < 16)[kind]
            assert np.array_equal(spliced[y, x], (one if first else two)[y, x])


def test_light_views_are_neither_turned_nor_masked(monkeypatch):
    monkeypatch.setattr(train, "rotate", None)
    monkeypatch.setattr(train, "mask_quadrant", None)
    for seed in range(20):
        view = train.augment(picture(), lambda: picture(1), np.random.default_rng(seed), light=True)
        assert view.shape == (16, 16, 3) and view.dtype == np.uint8
    with pytest.raises(TypeError):
        train.augment(picture(), lambda: picture(1), np.random.default_rng(0))


def test_ours_and_fixed_views_stay_pictures():
    x = dogs.draw_dog(1, 1, 1)
    moved = [pictures.crop_and_colour(x, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(moved[0], moved[1]) and not np.array_equal(moved[0], moved[2])
    assert all(m.shape == x.shape and m.dtype == np.uint8 for m in moved)
    assert np.array_equal(pictures.fixed_view(x, 0), x)
    assert np.array_equal(pictures.fixed_view(x, 1), x[:, ::-1])
    assert not np.array_equal(pictures.fixed_view(x, 2), x)
