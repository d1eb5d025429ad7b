"""Damaged and hostile files for every loader: read, or refused in one line; never anything else.

`make test` tries a few inputs a loader, `FUZZ=10000 python -m pytest tests/test_hostile.py` many.
"""

import gzip
import io
import json
import lzma
import os
import resource
import signal
import struct
import tempfile
import tracemalloc
import zipfile
from functools import partial
from pathlib import Path

import captcha_xception.pictures
import h5py
import numpy as np
import pytest
from captcha_xception.pictures import labels_from_names
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError

import custom_loss.texts
import dog_finetune.dataset
import linux_undelete.predict
import rnn_saliency.texts
from cloze_ccl import texts as cloze
from common.pictures import UNREADABLE
from common.run import keras, load_file
from data import mnist
from word2vec_keras import vectors, words

COUNT = int(os.environ.get("FUZZ", 30))
SECONDS, MEMORY = 30, 2**30  # That one input may take; that all inputs of a loader may add.


# --- Intact files ---
def picture(kind, mode="RGB"):
    rng, file = np.random.default_rng(0), io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (20, 40, 3), "uint8")).convert(mode).save(file, kind)
    return file.getvalue()


def archive(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def digits():
    pixels, labels = np.zeros((3, 28, 28), "uint8"), np.arange(3)
    return archive(x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)


def sheet(*texts):
    """A spreadsheet of Excel 2: records of a number, a length and what they hold."""
    rows = [
        (4, struct.pack("<HH3xB", row, 0, len(text)) + text)
        for row, text in enumerate(text.encode("gbk") for text in texts)
    ]
    records = [(9, struct.pack("<HH", 2, 16)), (0x42, struct.pack("<H", 936)), *rows, (10, b"")]
    return b"".join(struct.pack("<HH", kind, len(body)) + body for kind, body in records)


def network():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/a.keras")
        return Path(folder, "a.keras").read_bytes()


STORY = "1 ||| 小熊 看见 XXXXX 。\n2 ||| 猴子 笑 了 。\n<qid_1> ||| 小熊 看见 XXXXX 。\n".encode()
THREE = "1 ||| 小熊 看见 猴子 。\n2 ||| XXXXX 笑 了 。 ||| 猴子\n".encode()
ANSWERS = "<qid_1> ||| 猴子\n<qid_2> ||| 小熊\n".encode()
VECTORS = "2 3\n小熊 1.5 -2 1e-3\nword 0 0 7\n".encode()
BINARY = b"2 3\nbear " + np.arange(3, dtype="<f4").tobytes() + b"\nape " + bytes(12) + b"\n"
PAIRS = "question\tanswer\n多少钱\t十元\n".encode()
TABLE = 'text,label\n"很好, 喜欢",1\n差,0\n'.encode()
RUNNING = "小熊 看见 了 一 只 猴子 。\n猴子 对 着 小熊 笑 了 起来 。\n\n另 一 个 故事 。\n".encode()
SETS = b": capital\nParis France Rome Italy\nking queen man woman\n"
DISK = bytes(2000) + "#!/bin/sh\nrm -rf build  # 三\n".encode() + bytes(3000)


def undelete(path):
    out = path.with_name("out")
    flags = ["--image", str(path), "--out", str(out), "--phrase", "rm -rf", "--json"]
    linux_undelete.predict.main(flags)


def read_labels(path):
    stems = path.read_bytes().decode(errors="replace").splitlines()
    labels_from_names(stems)


def square(path):
    return dog_finetune.dataset.read_image(path, 16)


def contest(path):
    return dog_finetune.dataset.list_contest(path.parent)


def corpus(path):
    return words.load_corpus(path, 1, folder=path.parent, workers=1)


def workbook(path):
    return rnn_saliency.texts.read_workbook(path, 0)


KINDS = "png", "jpeg", "gif", "bmp", "webp", "tiff"
# Loader: an intact file, its name, and what a caller catches besides the one line.
LOADERS = {
    **{f"{kind} picture": (picture(kind), f"a.{kind}", square, UNREADABLE) for kind in KINDS},
    "grey picture": (picture("tiff", "I"), "a.tif", dog_finetune.dataset.open_image, UNREADABLE),
    "captcha": (picture("png"), "a.png", captcha_xception.pictures.read_picture, UNREADABLE),
    "captcha in TIFF": (
        picture("tiff"),
        "a.tif",
        captcha_xception.pictures.read_picture,
        UNREADABLE,
    ),
    "digit in TIFF": (
        picture("tiff", "L"),
        "a.tif",
        mnist.read_picture,
        UNREADABLE,
    ),
    "names of captchas": (b"1_abc\n2_xyz", "a", read_labels, (ValueError,)),
    "digit": (picture("png", "L"), "a.png", mnist.read_picture, UNREADABLE),
    "mnist.npz": (digits(), "mnist.npz", mnist.read, (ValueError,)),
    "train.txt": (b"a 1\nb 2\n", "train.txt", contest),
    "doc_query": (STORY, "a.doc_query", cloze.read_questions),
    "three fields": (THREE, "a.txt", cloze.read_questions),
    "answers": (ANSWERS, "a.answer", cloze.read_answers),
    "stories": (RUNNING, "a.txt", cloze.read_stories),
    "packed stories": (gzip.compress(RUNNING), "a.gz", cloze.read_stories),
    "questions and answers": (PAIRS, "a.tsv", custom_loss.texts.read_pairs),
    "running text": (RUNNING, "a.txt", custom_loss.texts.read_pairs),
    "csv": (TABLE, "a.csv", rnn_saliency.texts.read_table),
    "tsv": ("很好\t1\n差\t0\n".encode(), "a.tsv", rnn_saliency.texts.read_table),
    "xls": (sheet("很好, 喜欢", "还可以"), "a.xls", workbook),
    "xls container": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "a.xls", workbook),
    "vectors": (VECTORS, "a.txt", vectors.read_vectors),
    "binary vectors": (BINARY, "a.bin", vectors.read_vectors),
    "evaluation set": (SETS, "a.txt", vectors.read_evaluation),
    "corpus": (RUNNING, "a.txt", corpus),
    "packed corpus": (lzma.compress(RUNNING), "a.xz", corpus),
    "network": (network, "a.keras", load_file),
    "npz": (archive(a=np.arange(3), b=np.ones((2, 2))), "a.npz", load_file),
    "json": (b'{"a": [1, "b"]}', "a.json", load_file),
    "disk image": (DISK, "a.img", undelete),
}
INTERESTING = [
    b"\0",
    b"\xff\xfe",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b",",
    b'"',
    b" ||| ",
    b"XXXXX",
    b"-1",
    b"9" * 30,
    b"1e999",
    b"nan",
    b"../../x",
    b"\xe2\x80\xa8",
    b"\xed\xa0\x80",
    b"{",
    b"[",
]


@st.composite
def damaged(draw, content):
    """The content with a few stretches taken out, doubled, overwritten or put in."""
    data = bytearray(content)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + draw(st.sampled_from([1, 8, 1000])))))
        new = draw(st.sampled_from(INTERESTING) | st.binary(max_size=16))
        kind = draw(st.sampled_from(["replace", "insert", "delete", "double", "cut"]))
        if kind == "replace":
            data[start : start + len(new)] = new
        elif kind == "insert":
            data[start:start] = new
        elif kind == "delete":
            del data[start:end]
        elif kind == "double":
            data[start:start] = data[start:end]
        else:
            del data[start:]
    return bytes(data)


@pytest.mark.parametrize("loader", LOADERS)
def test_a_damaged_file_is_read_or_refused_in_one_line(loader, tmp_path, capsys, monkeypatch):
    content, name, load, *caught = LOADERS[loader]
    content = content() if callable(content) else content
    monkeypatch.chdir(tmp_path)
    folder, outcomes = tmp_path / "in" / "here", []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def too_long(*_):
        raise AssertionError(f"longer than {SECONDS} s")

    def attempt(data):
        folder.mkdir(parents=True)
        (folder / name).write_bytes(data)
        capsys.readouterr()
        signal.alarm(SECONDS)
        try:
            load(folder / name)
            outcomes.append("read")
        except SystemExit as stop:
            errors = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error:")]
            assert stop.code == 2 and len(errors) == 1, errors
            outcomes.append("refused")
        except tuple(*caught) as error:
            assert str(error) or isinstance(error, EOFError | UnidentifiedImageError)
            outcomes.append("refused")
        finally:
            signal.alarm(0)
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            folder.rmdir()
        folder.parent.rmdir()  # Nothing was written beside the folder either ...
        assert not any(tmp_path.iterdir())  # ... nor where the program was started.

    old = signal.signal(signal.SIGALRM, too_long)
    try:
        attempt(content)
        rounds = settings(
            max_examples=COUNT,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        rounds(given(damaged(content))(attempt))()
    finally:
        signal.signal(signal.SIGALRM, old)
    assert outcomes[0] == ("refused" if loader in ("xls container", "train.txt") else "read")
    assert "refused" in outcomes or loader in ("disk image", "names of captchas")
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < MEMORY


# --- Made to do harm ---
def test_a_network_with_code_in_it_is_refused(tmp_path, error_of):
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs))
    model.save(tmp_path / "a.keras")
    assert "a.keras" in error_of(load_file, tmp_path / "a.keras")


def test_a_network_that_reads_other_files_is_refused(tmp_path, error_of):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.arange(6, dtype="<f4").tobytes())
    (tmp_path / "a.keras").write_bytes(network())
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    weights = io.BytesIO(parts["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        names = []
        file.visititems(lambda n, x: names.append(n) if isinstance(x, h5py.Dataset) else None)
        [kernel] = [name for name in names if file[name].shape == (3, 2)]
        del file[kernel]
        outside = [(str(secret), 0, 24)]
        file.create_dataset(kernel, (3, 2), "<f4", external=outside)
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, weights.getvalue() if name.endswith("h5") else data)
    assert "a.keras" in error_of(load_file, tmp_path / "a.keras")


def test_a_network_whose_archive_leads_outside_writes_nothing_there(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "in"))  # Where Keras unpacks, if so.
    (tmp_path / "in" / "a.keras").write_bytes(network())
    with zipfile.ZipFile(tmp_path / "in" / "a.keras", "a") as archive:
        archive.writestr("../../outside.txt", "x")
        archive.writestr("assets/../../outside.txt", "x")
    try:
        load_file(tmp_path / "in" / "a.keras")
    except SystemExit as stop:
        assert stop.code == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "a.keras"]


@pytest.mark.parametrize("pack", [gzip.compress, partial(lzma.compress, preset=0)])
def test_a_bomb_of_text_is_refused(pack, tmp_path, error_of):
    path = tmp_path / ("a.txt.gz" if pack is gzip.compress else "a.txt.xz")
    path.write_bytes(pack(bytes(100_000_000)))
    assert "unpack" in error_of(cloze.read_stories, path)


@pytest.mark.parametrize("pack", [open, gzip.open])
def test_a_text_takes_no_more_memory_than_it_holds(pack, tmp_path):
    path = tmp_path / ("text.txt.gz" if pack is gzip.open else "text.txt")
    with pack(path, "wt") as file:
        file.write("a line\n" * 1000)
    tracemalloc.start()
    try:
        assert len(cloze.read_lines(path)) == 1000
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()


def test_a_bomb_of_arrays_is_refused(tmp_path, error_of):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(100_000_000, "uint8"))
    assert path.stat().st_size < 1e6 and "unpack" in error_of(load_file, path)
    with pytest.raises(ValueError, match="unpack"):
        mnist.read(path)


def test_a_bomb_of_pixels_is_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.new("1", (14_000, 14_000)).save(path)
    for read in (
        captcha_xception.pictures.read_picture,
        dog_finetune.dataset.open_image,
        mnist.read_picture,
    ):
        with pytest.raises(Image.DecompressionBombError):
            read(path)


def test_a_record_of_the_wrong_kind_is_one_line(tmp_path, error_of):
    (tmp_path / "classes.json").write_text(json.dumps([1, 2]))
    from dog_finetune.evaluate import load_classifier

    assert "classes.json" in error_of(load_classifier, tmp_path)
