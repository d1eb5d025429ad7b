"""Image files of every kind, folders and the contest's layout, the split, hidden labels."""

import io
import struct
import zlib

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image, ImageOps

from common.images import UNREADABLE
from data import dogs
from dog_finetune import dataset, train

REAL = ROOT / "data" / "downloads" / "flowers102"


def load(path, *words, draw=0):
    data = dataset.load(train.parse_args(["--data", str(path), *words]), draw)
    return data.splits, data.class_names, data.notes


# --- One image ---
def block(mode="RGB", size=(40, 40)):
    """A dark left half and a light right half."""
    x = np.zeros((size[1], size[0]), "uint8")
    x[:, size[0] // 2 :] = 200
    return Image.fromarray(x).convert(mode)


def halves(path, size=16):
    x = dataset.read_image(path, size)
    assert x.shape == (size, size, 3) and x.dtype == np.uint8
    return x[:, : size // 2 - 2].mean(), x[:, size // 2 + 2 :].mean()


def test_every_mode_is_read(tmp_path):
    for name, image in {
        "grey.png": block("L"),
        "one.png": block("1"),
        "palette.png": block().quantize(8),
        "alpha.png": block("RGBA"),
        "cmyk.jpg": block("CMYK"),
        "cmyk.tif": block("CMYK"),
        "plain.bmp": block(),
        "web.webp": block(),
    }.items():
        image.save(tmp_path / name)
        dark, light = halves(tmp_path / name)
        assert dark < 12 and light > 180, name
    grey = np.zeros((40, 40), "uint16")
    grey[:, 20:] = 51_200
    Image.fromarray(grey).save(tmp_path / "16.png")
    assert np.allclose(halves(tmp_path / "16.png"), (0, 200), atol=1)
    Image.fromarray(grey.astype("float32")).save(tmp_path / "float.tif")
    assert halves(tmp_path / "float.tif") == (0, 255)
    clear = np.zeros((40, 40, 4), "uint8")
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert halves(tmp_path / "clear.png") == (255, 255)


def test_an_animation_shows_its_first_frame(tmp_path):
    frames = [block(), Image.new("RGB", (40, 40), "white")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    dark, light = halves(tmp_path / "a.gif")
    assert dark < 12 and 180 < light < 220


def test_an_image_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was turned: the top is at the right.
    block().transpose(Image.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif)
    dark, light = halves(tmp_path / "turned.jpg")
    assert dark < 12 and light > 180


@pytest.mark.filterwarnings("ignore")  # Pillow's, of the damage.
def test_damaged_exif_data_do_not_hide_an_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "camera", 72.0
    block().save(tmp_path / "a.jpg", exif=exif)
    data, raised = (tmp_path / "a.jpg").read_bytes(), set()
    start, rng = data.index(b"Exif\0\0") + 6, np.random.default_rng(0)
    for _ in range(1000):
        damaged = bytearray(data)
        for place in start + rng.integers(0, 60, 2):
            damaged[place] = rng.integers(256)
        assert dataset.open_image(io.BytesIO(damaged)).size == (40, 40)
        try:
            with Image.open(io.BytesIO(damaged)) as image:
                ImageOps.exif_transpose(image)
        except Exception as error:  # So that the damage was one.
            raised.add(type(error))
    assert len(raised) > 1


def test_damaged_pixels_are_not_an_image(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), "uint8")
    Image.fromarray(noise).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[len(data) // 2] ^= 255
    with pytest.raises(UNREADABLE):
        dataset.open_image(io.BytesIO(data))


def test_one_pixel_and_long_strips_are_read(tmp_path):
    Image.new("RGB", (1, 1), (9, 90, 200)).save(tmp_path / "1.png")
    assert (dataset.read_image(tmp_path / "1.png", 16) == (9, 90, 200)).all()
    block(size=(400, 3)).save(tmp_path / "strip.png")
    assert dataset.read_image(tmp_path / "strip.png", 16).shape == (16, 16, 3)


def test_a_large_jpeg_is_the_middle_square(tmp_path):
    x = np.zeros((300, 900, 3), "uint8")
    x[:, 300:600] = (200, 100, 50)
    Image.fromarray(x).save(tmp_path / "wide.jpg", quality=95)
    read = dataset.read_image(tmp_path / "wide.jpg", 32)
    assert np.abs(read[2:-2, 2:-2].astype(int) - (200, 100, 50)).max() < 8


def bomb():
    """The header of a PNG of 50,000 x 50,000 pixels, which is all that may be read of it."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def bad_files():
    buffer = io.BytesIO()
    Image.fromarray(dogs.draw_dog(7, 0, 0)).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    return {
        "cut.jpg": jpeg[:700],
        "empty.jpg": b"",
        "text.jpg": b"no picture",
        "bomb.png": bomb(),
        "damaged.png": b"\x89PNG\r\n\x1a\n" + 50 * b"x",
    }


@pytest.mark.parametrize("name", bad_files())
def test_one_bad_file_among_many_is_skipped_and_named(name, tmp_path, error_of, save_dogs):
    # Many of one breed: the fraction that may be bad is one in a hundred.
    save_dogs(tmp_path / "own" / "a", 0, 60)
    save_dogs(tmp_path / "own" / "b", 1, 60)
    (tmp_path / "own" / "a" / name).write_bytes(bad_files()[name])
    splits, _, notes = load(tmp_path / "own")
    assert len(notes["skipped"]) == 1 and name in notes["skipped"][0]
    assert sum(len(y) for _, y in splits.values()) == 120
    (tmp_path / "own" / "b" / "worse.jpg").write_bytes(b"")
    assert "2 of 122" in error_of(load, tmp_path / "own")


# --- The split ---
def test_the_split_is_stratified_disjoint_and_fixed(folder):
    one, names, notes = load(folder, "--seed", "0")
    two, *_ = load(folder, "--seed", "1")
    assert names == ["breed_0", "breed_1", "breed_2"]
    assert [notes[f"num_{s}"] for s in ("train", "valid", "test")] == [48, 6, 6]
    for split, each in (("train", 16), ("valid", 2), ("test", 2)):
        assert np.bincount(one[split][1]).tolist() == [each] * 3
        assert one[split][0] == two[split][0]
    paths = [path for sources, _ in one.values() for path in sources]
    assert len(set(paths)) == 60
    other, *_ = load(folder, draw=1)
    assert other["test"][0] != one["test"][0]
    few, *_ = load(folder, "--shares", "0.3", "0")
    assert [len(few[s][1]) for s in ("train", "valid", "test")] == [42, 0, 18]


def test_near_duplicates_stay_on_one_side(folder):
    for number, path in enumerate(sorted((folder / "breed_0").iterdir())):
        with Image.open(path) as image:
            duplicate = image.resize((140, 140)) if number % 2 else image.copy()
            duplicate.save(folder / "breed_0" / f"copy_{path.name}", quality=60)
    splits, _, notes = load(folder)
    assert notes["near_duplicates"] == 20
    side = {path: split for split, (sources, _) in splits.items() for path in sources}
    assert len(side) == 80
    for path in folder.glob("breed_0/[0-9]*"):
        assert side[path] == side[path.with_name(f"copy_{path.name}")]


def test_groups_of_near_duplicates_equal_a_loop():
    rng = np.random.default_rng(0)
    prints = rng.integers(0, 2**63, (1200, 2)).astype("uint64")
    prints[700] = prints[3] ^ np.uint64(0b1011)
    prints[1100] = prints[700] ^ np.uint64(0b111 << 40)
    groups = dataset.near_duplicate_groups(prints)
    assert groups[3] == groups[700] == groups[1100] and len(np.unique(groups)) == 1198


def test_given_parts_are_taken_and_cleaned_of_near_duplicates(folder, tmp_path, save_dogs):
    given = tmp_path / "given"
    for part, first, count in (("train", 0, 12), ("valid", 12, 3), ("test", 15, 4)):
        for breed in range(2):
            save_dogs(given / part / f"breed_{breed}", breed, count, first)
    same = (given / "test" / "breed_1" / "015.jpg").read_bytes()
    (given / "train" / "breed_1" / "same.jpg").write_bytes(same)
    splits, _, notes = load(given)
    assert [len(splits[s][1]) for s in ("train", "valid", "test")] == [24, 6, 8]
    assert notes["left_out"] == 1 and not any(p.name == "same.jpg" for p in splits["train"][0])

    # Nor is a picture for validation that is also one for the test.
    (given / "valid" / "breed_1" / "same.jpg").write_bytes(same)
    splits, _, notes = load(given)
    assert [len(splits[s][1]) for s in ("train", "valid", "test")] == [24, 6, 8]
    assert notes["left_out"] == 2 and not any(p.name == "same.jpg" for p in splits["valid"][0])
    (given / "valid" / "breed_1" / "same.jpg").unlink()

    # Without test pictures the given validation pictures are them.
    (given / "test").rename(tmp_path / "elsewhere")
    splits, *_ = load(given)
    assert {p.parent.parent.name for p in splits["test"][0]} == {"valid"}
    assert {p.parent.parent.name for p in splits["valid"][0]} == {"train"}
    splits, *_ = load(given, "--valid", str(given / "valid"))
    assert {p.parent.parent.name for p in splits["valid"][0]} == {"valid"}
    assert {p.parent.parent.name for p in splits["test"][0]} == {"train"}
    splits, *_ = load(given, "--test", str(tmp_path / "elsewhere"))
    assert [len(splits[s][1]) for s in ("valid", "test")] == [6, 8]
    splits, *_ = load(folder, "--unlabelled", str(given / "train" / "breed_0"))
    kept = {p.name for part in ("valid", "test") for p in splits[part][0] if "breed_0" in str(p)}
    assert {p.name for p in splits["unlabelled"][0]} == {f"{i:03d}.jpg" for i in range(12)} - kept


def test_folders_that_make_no_sense_are_one_line(folder, tmp_path, error_of, save_dogs):
    assert "not a folder" in error_of(load, tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    assert "one sub-folder per class" in error_of(load, tmp_path / "bare")
    (folder / "nothing").mkdir()
    assert "class nothing is empty" in error_of(load, folder)
    save_dogs(folder / "nothing", 5, 1)
    assert "class nothing has 1 images, 1 that differ" in error_of(load, folder)
    twice = ["--valid", str(folder), "--test", str(folder)]
    assert "validation and test set" in error_of(load, folder, *twice)
    save_dogs(tmp_path / "one" / "wolf", 5, 12)
    assert "one class, wolf" in error_of(load, tmp_path / "one")
    save_dogs(tmp_path / "test" / "wolf", 5, 1)
    assert "class wolf" in error_of(load, folder, "--test", str(tmp_path / "test"))
    assert "--unlabelled" in error_of(load, folder, "--unlabelled", "1.5")
    assert "--unlabelled" in error_of(load, folder, "--unlabelled", "nowhere")


# --- Hidden labels ---
def test_hidden_labels_are_a_fraction_of_each_class():
    labels = np.repeat([0, 1, 2], [10, 1, 4])
    splits = {"train": (np.arange(15), labels), "unlabelled": ([], np.empty(0, int))}
    data = dataset.DogData(splits, ["a", "b", "c"], {})
    dataset.hide_labels(data, 0.5)
    parts = data.splits
    assert np.bincount(parts["train"][1]).tolist() == [5, 1, 2]
    assert np.bincount(parts["unlabelled"][1]).tolist() == [5, 0, 2]
    assert sorted([*parts["train"][0], *parts["unlabelled"][0]]) == list(range(15))


def test_nothing_unlabelled_is_one_line(error_of):
    for given in ("0", "0.01"):
        args = train.parse_args(["--smoke", "--unlabelled", given])
        assert "no image whose label" in error_of(dataset.load, args)


# --- The contest's layout ---
def contest(folder, lines, present, save_dogs):
    save_dogs(folder / "train", 0, present)
    for path in (folder / "train").iterdir():
        path.rename(path.with_stem(f"id{int(path.stem)}"))
    (folder / "train.txt").write_text("\n".join(lines) + "\n")


def test_the_contest_lists_ids_and_classes_with_gaps(tmp_path, save_dogs):
    lines = [f"id{i} {(0, 7, 133)[i % 3]} http://where/{i}" for i in range(120)]
    contest(tmp_path / "c", [*lines, "id5 7 again", "id119 0 another class", ""], 119, save_dogs)
    splits, names, notes = load(tmp_path / "c")
    assert names == ["0", "7", "133"] and notes["two_labels"] == 2
    assert notes["missing"] == []
    assert sum(len(y) for _, y in splits.values()) == 118
    lines = [line for line in lines if not line.startswith("id119 ")]
    contest(tmp_path / "d", [*lines, "id900 7 url"], 119, save_dogs)
    splits, _, notes = load(tmp_path / "d")
    assert notes["missing"] == ["id900.jpg"] and notes["two_labels"] == 0
    assert sum(len(y) for _, y in splits.values()) == 119


def test_contest_lists_that_do_not_fit_are_one_line(tmp_path, error_of, save_dogs):
    contest(tmp_path / "c", [f"id{i} {i % 2}" for i in range(12)], 9, save_dogs)
    assert "names 3 images" in error_of(load, tmp_path / "c")
    (tmp_path / "c" / "train.txt").write_text("id0 1\nid1\n")
    assert "train.txt:2" in error_of(load, tmp_path / "c")
    (tmp_path / "c" / "train.txt").write_text("\n")
    assert "names no image" in error_of(load, tmp_path / "c")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real flowers are not on this machine")
def test_real_flowers_are_split_as_the_readme_says():
    splits, names, notes = load(REAL)
    assert len(names) == 102 and not notes["skipped"] and len(splits["test"][1]) == 518
    assert {path.parent.parent.name for path in splits["test"][0]} == {"valid"}
    assert {path.parent.parent.name for path in splits["valid"][0]} == {"train"}
    total = notes["num_train"] + notes["num_valid"] + notes["left_out"]
    assert total == 3055 and 250 < notes["num_valid"] < 350
