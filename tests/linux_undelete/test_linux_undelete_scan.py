"""linux_undelete: phrases found at every place, texts back byte for byte, from real file systems.

The ext4 and FAT images are made by mke2fs, debugfs and mtools, which need no root and no mount.
"""

# ruff: noqa: RUF001  Chinese has full-width punctuation.
import errno
import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

import common.run
from common import folders
from data.blocks import KINDS
from linux_undelete import evaluate, predict
from linux_undelete.undelete import devices, extent, recovery, report, scan, versions
from linux_undelete.undelete.demo import planted_text
from linux_undelete.undelete.disk import Disk

TOOLS = os.environ["PATH"] + os.pathsep + "/usr/sbin" + os.pathsep + "/sbin"
SIZES = [int(200 * 1000 ** (i / 49)) for i in range(50)]  # 200 bytes to 200 kB.


def tool(name):
    return shutil.which(name, path=TOOLS) or pytest.skip(f"{name} is not installed")


def call(*words):
    done = subprocess.run([tool(words[0]), *words[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def planted():
    """50 texts: {file name: (bytes, phrase)}, code and Chinese, every other one in GBK."""
    made = {}
    for i, size in enumerate(SIZES):
        encoding = "gbk" if i % 2 else "utf-8"
        made[f"text{i:02d}.txt"] = planted_text(i, size, encoding, chinese=i % 4 > 1)
    return made


def write_files(folder, files):
    folder.mkdir()
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return folder


def find(image, out, *words, phrases=()):
    """index.json of a scan through the front door."""
    phrases = [f"--phrase={phrase}" for phrase in phrases]
    predict.main(["--image", str(image), "--out", str(out), *phrases, *words])
    return json.loads((out / "index.json").read_text(encoding="utf-8"))


def recovered(index, out, phrase):
    """[(bytes, text)] of the recovered texts that hold a phrase."""
    found = [t for group in index["groups"] for t in group if phrase in t["phrases"]]
    return [((out / text["file"]).read_bytes(), text) for text in found]


def image_of(path, parts, size=1 << 20):
    """An image of random bytes (no zeros) in which {offset: bytes} are written."""
    noise = np.random.default_rng(0).integers(1, 256, size, dtype=np.uint8).tobytes()
    path.write_bytes(noise)
    with path.open("r+b") as file:
        for offset, data in parts.items():
            file.seek(offset)
            file.write(data)
    return path


# --- Real file systems ---
def deleted_from_ext4(folder, files, size):
    """The image of a file system from which the files were deleted."""
    image, commands = folder / "ext4.img", folder / "commands"
    write_files(folder / "files", files)
    call("mke2fs", "-q", "-t", "ext4", "-d", str(folder / "files"), str(image), size)
    commands.write_text("".join(f"rm {name}\n" for name in files))
    call("debugfs", "-w", "-f", str(commands), str(image))
    assert "text" not in call("debugfs", "-R", "ls -p", str(image))
    return image


def deleted_from_fat(folder, files, size):
    tool("mdel")
    image = folder / "fat.img"
    write_files(folder / "files", files)
    call("mformat", "-C", "-F", "-T", size, "-i", str(image), "::")
    call("mcopy", "-i", str(image), *(str(folder / "files" / name) for name in files), "::")
    call("mdel", "-i", str(image), *(f"::{name}" for name in files))
    assert "text" not in call("mdir", "-i", str(image), "-b", "::").lower()
    return image


@pytest.fixture(scope="module")
def ext4(tmp_path_factory):
    """(image, files): a file system with today's defaults, from which 50 texts were deleted."""
    files = planted()
    image = deleted_from_ext4(tmp_path_factory.mktemp("ext4"), files, "512M")
    assert image.stat().st_blocks * 512 < image.stat().st_size / 4  # Sparse: most is not read.
    return image, files


def test_ext4_gives_back_every_deleted_text_byte_for_byte(tmp_path, ext4):
    image, files = ext4
    index = find(image, tmp_path / "out", phrases=[phrase for _, phrase in files.values()])
    for data, phrase in files.values():
        (found, text), *more = recovered(index, tmp_path / "out", phrase)
        assert found == data and not more
        assert not text["why_piece"], text


@pytest.mark.parametrize("judged_by", ["rules", "network"])
def test_browsing_finds_the_same_texts_without_a_phrase(tmp_path, ext4, monkeypatch, judged_by):
    image, files = ext4
    monkeypatch.setattr(folders, "RUNS", tmp_path)
    words = ["--browse"]
    if judged_by == "network":  # One that calls everything JSON; the rule says what is text.

        def classify_blocks(model, blocks):
            return np.eye(len(KINDS))[np.full(len(blocks), KINDS.index("json"))]

        monkeypatch.setattr(folders, "find_run", lambda *_: tmp_path)
        monkeypatch.setattr(common.run, "load_model", lambda path: path)
        monkeypatch.setattr(evaluate, "classify_blocks", classify_blocks)
        words += ["--run-dir", str(tmp_path)]
    index = find(image, tmp_path / "out", *words)
    texts_found = [text for group in index["groups"] for text in group]
    found = {(tmp_path / "out" / text["file"]).read_bytes() for text in texts_found}
    assert {data for data, _ in files.values()} <= found
    kinds = {kind for text in texts_found for kind in text["phrases"]}
    assert kinds <= set(KINDS) - {"other"} and (kinds == {"json"}) == (judged_by == "network")


@pytest.mark.parametrize(
    ("make", "size"), [(deleted_from_ext4, "64M"), (deleted_from_fat, "131072")]
)
def test_browsing_finds_short_texts_where_blocks_are_small(tmp_path, monkeypatch, make, size):
    """Blocks of 1,024 and 512 bytes: in 4 KiB lie the ends of some files and others whole."""
    monkeypatch.setattr(folders, "RUNS", tmp_path)
    files = {name: entry for name, entry in planted().items() if len(entry[0]) < 12_000}
    index = find(make(tmp_path, files, size), tmp_path / "out", "--browse")
    names = [text["file"] for group in index["groups"] for text in group]
    found = {(tmp_path / "out" / name).read_bytes() for name in names}
    assert len(files) > 25 and {data for data, _ in files.values()} <= found


@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "utf-16-le", "utf-16-be"])
def test_browsing_knows_the_encoding_of_short_and_long_texts(tmp_path, monkeypatch, encoding):
    monkeypatch.setattr(folders, "RUNS", tmp_path)
    lines = (
        "小猫有一个苹果。" * 20,
        "春天来了,它们都醒了。" * 200,
        "plain words, and some more of them. " * 9,
    )
    made = [f"{line}\n".encode(encoding) for line in lines]
    padded = [data + bytes(-len(data) % 512) for data in made]
    places = [3 * 512, 64 * 512, 300 * 512]
    image = image_of(tmp_path / "image", dict(zip(places, padded, strict=True)))
    index = find(image, tmp_path / "out", "--browse")
    texts_found = [text for group in index["groups"] for text in group]
    assert sorted(text["start"] for text in texts_found) == places
    found = {(tmp_path / "out" / text["file"]).read_bytes() for text in texts_found}
    assert found == set(made)


def test_fat_gives_back_every_deleted_text_byte_for_byte(tmp_path):
    files = planted()
    image = deleted_from_fat(tmp_path, files, "131072")
    index = find(image, tmp_path / "out", phrases=[phrase for _, phrase in files.values()])
    for data, phrase in files.values():
        (found, text), *more = recovered(index, tmp_path / "out", phrase)
        assert found == data and not more
        assert not text["why_piece"], text


def test_a_fragmented_text_comes_back_in_pieces_that_say_so(tmp_path):
    """Every other file of a full file system is deleted; what is written then is scattered."""
    draw = random.Random(1)
    filler = {f"fill{i:04d}": (draw.randbytes(4096), "") for i in range(1500)}
    folder = write_files(tmp_path / "files", filler)
    image = tmp_path / "ext4.img"
    call("mke2fs", "-q", "-t", "ext4", "-d", str(folder), str(image), "8M")
    encodings = ("utf-8", False), ("utf-8", True), ("gbk", True)
    commands = [f"rm {name}\n" for name in list(filler)[:400:2]]
    for i, (encoding, chinese) in enumerate(encodings):
        (tmp_path / f"t{i}").write_bytes(planted_text(i, 60_000, encoding, chinese)[0])
        commands.append(f"write {tmp_path}/t{i} t{i}\n")
    (tmp_path / "commands").write_text("".join(commands))
    call("debugfs", "-w", "-f", str(tmp_path / "commands"), str(image))
    disk_bytes = image.read_bytes()
    pieces, phrases = [], []
    for i, (encoding, _) in enumerate(encodings):
        data = (tmp_path / f"t{i}").read_bytes()
        numbers = [int(n) for n in call("debugfs", "-R", f"blocks t{i}", str(image)).split()]
        blocks = [disk_bytes[n * 1024 : (n + 1) * 1024] for n in numbers]
        if len(numbers) > -(-len(data) // 1024):  # The list begins with a block of the file's map.
            numbers, blocks = numbers[1:], blocks[1:]
        assert b"".join(blocks).rstrip(b"\0") == data
        runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
        assert len(runs) > 10  # It really is in pieces.
        for run_of_blocks in runs:
            piece = disk_bytes[run_of_blocks[0] * 1024 : (run_of_blocks[-1] + 1) * 1024]
            words = piece[300:700].decode(encoding, "ignore")[10:40].split("\n")
            phrases.append(max(words, key=len))
            pieces.append((piece.rstrip(b"\0"), phrases[-1], run_of_blocks is runs[-1]))
    out = tmp_path / "out"
    index = find(image, out, phrases=phrases)
    for piece, phrase, last in pieces:
        assert piece in [found for found, _ in recovered(index, out, phrase)]
        for found, text in recovered(index, out, phrase):
            if found == piece and not last:  # The last piece ends as a whole file does.
                assert any(why.startswith("ends") for why in text["why_piece"])
    assert len({text["sha256"] for group in index["groups"] for text in group}) == len(pieces)


# --- The search ---
def test_all_patterns_are_found_where_the_plain_search_finds_them():
    draw = random.Random(0)
    data = bytes(draw.choices(b"ab\0", k=20_000))
    for sizes in ([4], [5, 9], [6, 8, 30], [20, 41]):
        patterns = [data[at : at + n] for n in sizes for at in draw.sample(range(10_000), 2)]
        patterns = list(dict.fromkeys(patterns))
        expected = sorted(
            (at, len(pattern), i)
            for i, pattern in enumerate(patterns)
            for at in range(len(data))
            if data.startswith(pattern, at)
        )
        assert scan.Literals(patterns)(np.frombuffer(data, np.uint8)) == expected


@pytest.mark.parametrize("regex", [False, True])
def test_a_phrase_is_found_at_every_place_around_the_border_of_a_chunk(tmp_path, regex):
    make = scan.compile_expressions if regex else scan.encode_phrases
    terms = make(["误删的file"], ("utf-8",) if regex else scan.ENCODINGS)
    patterns = [term.pattern for term in terms]
    finder = (scan.Expressions if regex else scan.Literals)(patterns)
    chunk, encodings = 64, ("utf-8",) if regex else scan.ENCODINGS
    for encoding in encodings:
        word = "误删的file".encode(encoding)
        for place in [*range(chunk - 30, chunk + 3), chunk * scan.STRETCH - 7, 1200 - len(word)]:
            opened = Disk(image_of(tmp_path / "image", {place: word}, 1200))
            found = [hit[:2] for _, hits in scan.scan(opened, finder, chunk=chunk) for hit in hits]
            opened.close()
            assert found == [(place, len(word))]


@pytest.mark.parametrize("encoding", scan.ENCODINGS)
def test_each_encoding_is_recovered_to_its_ends(tmp_path, encoding):
    text = "# 第一行\n" + "硬盘上的文字 is not gone，只是没有名字。\n" * 300 + "误删的文件 end\n"
    data = text.encode(encoding)
    parts = {40_960: data.ljust(-(-len(data) // 512) * 512, b"\0")}
    image = image_of(tmp_path / "image", parts)
    index = find(image, tmp_path / "out", phrases=["误删的文件"])
    ((found, entry),) = recovered(index, tmp_path / "out", "误删的文件")
    assert found == data and entry["encoding"] == encoding and not entry["why_piece"]


def test_a_phrase_in_ascii_finds_the_encoding_of_the_text(tmp_path):
    text = "第一条记录\n" * 20 + "load_config\n" + "最后一条\n" * 20
    parts = {i * 8192: text.encode(e).ljust(1024, b"\0") for i, e in enumerate(scan.ENCODINGS)}
    index = find(image_of(tmp_path / "image", parts), tmp_path / "out", phrases=["load_config"])
    found = {
        entry["encoding"]: data for data, entry in recovered(index, tmp_path / "out", "load_config")
    }
    assert found == {encoding: text.encode(encoding) for encoding in scan.ENCODINGS}


def test_a_regular_expression_in_both_encodings(tmp_path):
    lines = "共有 第12条记录录 和 set-up\n"
    parts = {4096: lines.encode().ljust(512, b"\0"), 9216: lines.encode("gbk").ljust(512, b"\0")}
    image = image_of(tmp_path / "image", parts)
    index = find(image, tmp_path / "out", "--regex", phrases=["第[0-9]+条记录+ 和 s(e|x)t"])
    assert index["hits"] == 2
    assert {t["encoding"] for group in index["groups"] for t in group} == {"utf-8", "gbk"}


# --- Large, dense, empty, broken ---
MEASURED = """
import json, sys
from linux_undelete import predict
try:
    predict.main(sys.argv[1:])
finally:
    status = open("/proc/self/status").read()
    print(json.dumps({"peak": int(status.split("VmHWM:")[1].split()[0]) * 1024}), file=sys.stderr)
"""


def peak_memory(*words):
    """Of a scan in a process of its own; the system counts it from the program's start."""
    run_it = [sys.executable, "-c", MEASURED, *map(str, words)]
    done = subprocess.run(run_it, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stderr.splitlines()[-1])["peak"]


def test_a_sparse_image_of_4_gib_is_quick(tmp_path):
    image = tmp_path / "image"
    data, phrase = planted_text(1, 5000)
    with image.open("wb") as file:
        file.truncate(4 << 30)
        file.seek(3 << 30)
        file.write(data)
    start = time.perf_counter()
    with image.open("rb", buffering=0) as file:
        while file.read(1 << 24):
            pass
    read = time.perf_counter()
    peak = peak_memory("--image", image, "--phrase", phrase, "--out", tmp_path / "out")
    # A command that looked at the hole in four encodings would need several times a plain read.
    assert time.perf_counter() - read < 2 * (read - start) and peak < 100e6
    index = json.loads((tmp_path / "out/index.json").read_text())
    assert index["size"] == index["scanned_to"] == 4 << 30
    assert recovered(index, tmp_path / "out", phrase)[0][0] == data


def test_100_000_hits_in_bounded_memory(tmp_path):
    """50,000 in different texts, 50,000 in a long one that is cut into parts."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        for i in range(50_000):
            file.write(f"text {i} has the phrase\n".encode().ljust(512, b"\0"))
        for i in range(50_000):
            file.write(f"line {i:06d} of a long file has the phrase, too{'.' * 60}\n".encode())
    words = ["--image", image, "--phrase", "has the phrase", "--limit", "300"]
    peak = peak_memory(*words, "--out", tmp_path / "out")
    assert peak < 100e6
    index = json.loads((tmp_path / "out/index.json").read_text())
    assert index["hits"] == 100_000 and index["texts"] == 300
    assert index["hits_in_no_written_text"] == 100_000 - 300
    assert len((tmp_path / "out/hits.jsonl").read_bytes().splitlines()) == 100_000


def test_a_long_text_is_recovered_in_parts_that_join(tmp_path, monkeypatch):
    monkeypatch.setattr(extent, "CAP", 100_000)
    data = b"".join(f"line {i:06d} of a long file{'.' * 80}\n".encode() for i in range(3000))
    assert len(data) > 3 * extent.CAP
    image = image_of(tmp_path / "image", {4096: data.ljust(-(-len(data) // 512) * 512, b"\0")})
    index = find(image, tmp_path / "out", phrases=["of a long file"])
    parts = sorted(
        (t["start"], found) for found, t in recovered(index, tmp_path / "out", "of a long file")
    )
    assert b"".join(part for _, part in parts) == data and index["hits"] == 3000


def test_no_hit(tmp_path, capsys):
    index = find(image_of(tmp_path / "image", {}), tmp_path / "out", phrases=["not there"])
    assert index["hits"] == 0 and index["groups"] == [] and index["complete"]
    shown = capsys.readouterr()
    assert "0 hits" in shown.out and "not looked for" not in shown.err
    find(tmp_path / "image", tmp_path / "short", phrases=["def"])
    assert "'def' is not looked for in utf-8, gbk" in capsys.readouterr().err


@pytest.mark.parametrize("short_reads", [False, True])
def test_unreadable_sectors_are_skipped_and_reported(tmp_path, monkeypatch, short_reads):
    """The error is injected: a real one needs a broken disk, or root and a device mapper."""
    parts = {at: f"a phrase at {at}\n".encode().ljust(512, b"\0") for at in (0, 8192, 40_960)}
    image = image_of(tmp_path / "image", parts)
    broken = range(12_288, 20_480)
    real = os.preadv

    def preadv(fd, buffers, offset):
        (view,) = buffers
        if offset < broken.stop and offset + len(view) > broken.start:
            if offset >= broken.start or not short_reads:
                raise OSError(errno.EIO, "Input/output error")
            return real(fd, [view[: broken.start - offset]], offset)
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    index = find(image, tmp_path / "out", phrases=["a phrase at"])
    assert index["hits"] == 3
    assert index["unreadable"] == [[12_288, 20_480]] and index["unreadable_bytes"] == 8192
    assert "12,288 to 20,480" in (tmp_path / "out/index.html").read_text()


# --- Stopping and going on ---
KILLED = """
import os, signal, sys
from linux_undelete import predict
from linux_undelete.undelete import recovery, scan
recovery.SAVE_EVERY, scan.STRETCH, kill_at = 0, 1, 3
real, calls = recovery.Recovery.reached, []
def reached(self, position):
    real(self, position)
    calls.append(position)
    if len(calls) == kill_at:
        self.add(position, 4, "half done", ("utf-8",))
        self.hits_file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
recovery.Recovery.reached = reached
predict.main(sys.argv[1:])
"""


def test_a_scan_that_was_killed_goes_on_to_the_same_index(tmp_path, error_of):
    draw = random.Random(3)
    parts = {}
    for i, place in enumerate(draw.sample(range(1, 8 << 20 >> 12), 60)):
        size = draw.randrange(100, 4000)
        parts[place << 12] = planted_text(i, size)[0].ljust(4096, b"\0")
    image = image_of(tmp_path / "image", parts, 8 << 20)
    words = ["--phrase=the planted title", "--image", str(image), "--out"]
    predict.main([*words, str(tmp_path / "whole")])
    out = tmp_path / "killed"
    for more in ([], ["--resume"]):
        run_it = [sys.executable, "-c", KILLED, *words, str(out), *more]
        done = subprocess.run(run_it, cwd=ROOT, capture_output=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (out / "index.json").exists()
    assert "in use" in error_of(predict.main, [*words, str(out)])
    assert "other arguments" in error_of(
        predict.main, ["--phrase=x y z", *words, str(out), "--resume"]
    )
    predict.main([*words, str(out), "--resume"])
    for name in ("index.json", "index.html", "hits.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_ctrl_c_keeps_what_was_found(tmp_path, monkeypatch, capsys):
    data, phrase = planted_text(1, 3000)
    image = image_of(tmp_path / "image", {4096: data.ljust(4096, b"\0")})
    real = scan.scan

    def interrupted(*arguments):
        place, hits = next(iter(real(*arguments)))
        yield place - 1, hits
        raise KeyboardInterrupt

    monkeypatch.setattr(scan, "scan", interrupted)
    with pytest.raises(SystemExit) as stop:
        find(image, tmp_path / "out", phrases=[phrase])
    assert stop.value.code == 130 and "--resume" in capsys.readouterr().err
    index = json.loads((tmp_path / "out/index.json").read_text())
    assert not index["complete"]
    assert recovered(index, tmp_path / "out", phrase)[0][0] == data


# --- Never onto the disk that is scanned ---
@pytest.fixture
def system(tmp_path):
    """A made-up /sys/dev/block: sda with sda5, an encrypted volume on it, a loop device."""
    devices = tmp_path / "devices"
    for name, number in {"sda": "8:0", "sda/sda5": "8:5", "dm-0": "253:0", "loop0": "7:0"}.items():
        (devices / name).mkdir(parents=True)
        (devices / name / "dev").write_text(number + "\n")
        (tmp_path / "sys/dev/block").mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/dev/block" / number).symlink_to(devices / name)
    (devices / "sda/sda5/partition").write_text("5\n")
    (devices / "dm-0/slaves").mkdir()
    (devices / "dm-0/slaves/sda5").symlink_to(devices / "sda/sda5")
    (devices / "loop0/loop").mkdir()
    (devices / "loop0/loop/backing_file").write_text(f"{tmp_path}/image\n")
    return tmp_path / "sys/dev/block"


def test_the_devices_below_a_device(system):
    assert devices.devices_below((253, 0), system) == {(253, 0), (8, 5), (8, 0)}
    assert devices.devices_below((8, 0), system) == {(8, 0)}
    members = system.parent.parent / "fs/btrfs/made-up/devices"
    members.mkdir(parents=True)
    for name in ("dm-0", "loop0"):
        (members / name).symlink_to(system.parent.parent.parent / "devices" / name)
    (system.parent.parent / "fs/btrfs/features").mkdir()
    image, other = system.parent.parent.parent / "image", (9, 1)
    lies_on_other = {"st_dev": os.makedev(*other)}
    below = devices.devices_below(
        (253, 0), system, stat_of=lambda path: types.SimpleNamespace(**lies_on_other)
    )
    assert below == {(253, 0), (8, 5), (8, 0), (7, 0), image, other}


@pytest.mark.parametrize(
    ("scanned", "place", "refused"),
    [
        ((8, 5), (8, 5), True),
        ((8, 0), (8, 5), True),  # The whole disk of the partition.
        ((8, 5), (253, 0), True),  # An encrypted volume on it.
        ((8, 6), (8, 5), False),  # Another partition.
        ((8, 5), (0, 35), True),  # Btrfs: the mount table names the device, by another number.
        ((8, 0), (0, 35), True),
        ((8, 6), (0, 35), False),
        ((8, 5), (0, 36), False),  # In memory.
        ((9, 1), (7, 0), True),  # A loop device, whose file lies on it.
    ],
)
def test_output_on_the_scanned_device_is_refused(
    tmp_path, system, error_of, scanned, place, refused
):
    def stat_of(path):
        scanned_or_mounted = (8, 5) if str(path) == "/dev/there" else scanned
        lies_on = (9, 1) if path == tmp_path else place  # As the file of the loop device does.
        devices = {"st_dev": os.makedev(*lies_on), "st_rdev": os.makedev(*scanned_or_mounted)}
        return types.SimpleNamespace(st_mode=stat.S_IFBLK, **devices)

    mounts, folder = tmp_path / "mounts", tmp_path / "a folder"
    folder.mkdir()
    here = str(folder).replace(" ", "\\040")
    source = {35: "btrfs /dev/there", 36: "tmpfs tmpfs"}.get(place[1], "ext4 /dev/sda5")
    lines = "1 0 0:30 / / rw - btrfs /dev/none rw", f"2 0 0:31 / {here} rw - {source} rw"
    mounts.write_text("\n".join([*lines, "3 0 8:6 / /home rw,relatime - ext4 /dev/sda6 rw\n"]))
    words = "/dev/fake", folder / "new/out", system, mounts, stat_of
    if refused:
        assert "/dev/fake" in error_of(devices.check_output, *words)
    else:
        said = devices.check_output(*words)
        assert "read-only" in said and ("remount,ro /home" in said) == (scanned == (8, 6))
        said = devices.check_output(*words[:2], tmp_path / "none", *words[3:])
        assert "it cannot be checked here" in said


@pytest.mark.parametrize(
    ("line", "scanned", "named"),
    [
        ("1 0 0:31 / /data rw - btrfs /dev/there rw", (8, 5), "/data"),
        ("1 0 8:5 / /data rw - ext4 /dev/sda5 rw", (8, 0), "/data"),  # A partition of the disk.
        ("1 0 8:5 / /my\\040data rw - ext4 /dev/sda5 rw", (8, 5), "/my data"),
        ("1 0 8:5 / /data ro - ext4 /dev/sda5 ro", (8, 5), None),
        ("1 0 0:31 / /data rw - tmpfs tmpfs rw", (8, 5), None),
        ("1 0 0:31 / /data rw - ext4 /dev/none rw", (8, 5), None),
    ],
)
def test_a_scanned_disk_that_is_mounted_for_writing_is_named(
    tmp_path, system, line, scanned, named
):
    def stat_of(path):
        if str(path) == "/dev/none":
            raise FileNotFoundError
        number = (8, 5) if str(path) == "/dev/there" else scanned
        devices = {"st_dev": os.makedev(9, 1), "st_rdev": os.makedev(*number)}
        return types.SimpleNamespace(st_mode=stat.S_IFBLK, **devices)

    (tmp_path / "mounts").write_text(line + "\n")
    words = "/dev/fake", tmp_path / "out", system, tmp_path / "mounts", stat_of
    said = devices.check_output(*words)
    assert (f"mounted at {named}:" in said) if named else "mounted" not in said


def test_the_image_itself_is_refused_and_nothing_was_read(tmp_path, monkeypatch, system, error_of):
    image = image_of(tmp_path / "image", {})
    monkeypatch.setattr(os, "preadv", lambda *_: pytest.fail("it was read"))
    assert "written into" in error_of(find, image, image, phrases=["some words"])
    monkeypatch.setattr(
        devices, "device_of_folder", lambda *_: (7, 0)
    )  # A loop device of the image.
    assert "written into" in error_of(devices.check_output, image, tmp_path / "out", system)
    assert "a file" in devices.check_output(tmp_path / "image", tmp_path, tmp_path)


def test_the_image_is_only_read(tmp_path, monkeypatch):
    data, phrase = planted_text(1, 3000)
    image = image_of(tmp_path / "image", {4096: data.ljust(4096, b"\0")})
    before, opened, real = (image.read_bytes(), image.stat().st_mtime_ns), [], os.open
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", lambda *words: opened.append(words) or real(*words))
        find(image, tmp_path / "out", phrases=[phrase])
    flags = [words[1] for words in opened if Path(words[0]) == image]
    assert flags and all(flag & os.O_ACCMODE == os.O_RDONLY for flag in flags)
    assert (image.read_bytes(), image.stat().st_mtime_ns) == before
    now = Disk(image)
    assert fcntl.fcntl(now.fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    now.close()


# --- A user's mistake is one line ---
UTF_16 = "--encodings", "utf-16-le"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--image", "{image}", "--phrase", "", "--out", "{out}"], "empty"),
        (
            ["--image", "{image}", "--phrase", "ab", "--encodings", "utf-8", "--out", "{out}"],
            "4 by",
        ),
        (["--image", "{image}", "--phrase", "é😀", "--encodings", "gbk", "--out", "{out}"], "gbk"),
        (["--image", "{image}", "--regex", "--phrase", "a(b", "--out", "{out}"], "a(b"),
        (["--image", "{image}", "--regex", "--phrase", "a*", "--out", "{out}"], "everywhere"),
        (["--image", "{image}", "--regex", "--phrase", "[你我]", "--out", "{out}"], "ASCII"),
        (
            ["--image={image}", "--out={out}", "--regex", "--phrase=abcd", *UTF_16],
            "utf-16-le cannot",
        ),
        (["--image", "{image}", "--browse", "--lines-before", "5"], "leave out --lines-before"),
        (
            ["--image", "{image}", "--phrase", "abcd", "--out", "x", "--lines-after", "1"],
            "only print",
        ),
        (
            ["--image", "{image}", "--browse", "--phrase", "words", "--out", "{out}"],
            "not allowed with",
        ),
        (["--image={image}", "--phrase=words", "--lines-before=1", "--json"], "leave out --json"),
        (
            ["--image={image}", "--phrase=words", "--lines-before=1", "--resume"],
            "leave out --resume",
        ),
        (["--image={image}", "--phrase=words", "--run-dir=x", "--out={out}"], "--browse"),
        (["--image={image}", "--browse", "--regex", "--out={out}"], "leave out --regex"),
        (["--image={image}", "--browse", *UTF_16, "--out={out}"], "leave out --encodings"),
        (["--open-files", "--image={image}", "--out={out}"], "not allowed with"),
        (["--open-files", "--phrase=words", "--out={out}"], "processes"),
        (["--open-files", "--limit=5"], "processes"),
        (["--limit=5"], "--image"),
        (
            ["--image={image}", "--phrase=words", "--lines-before=1", "--limit=5"],
            "leave out --limit",
        ),
        (["--check=ls", "--open-files"], "not allowed with"),
        (["--check=ls", "--image={image}"], "not allowed with"),
        (["--check=ls", "--out={out}"], "--check only"),
        (["--lines-before=1"], "--image"),
        (["--image", "{image}", "--phrase", "words"], "--out"),
        (["--image", "{image}", "--out", "{out}"], "--phrase"),
        (["--phrase", "words", "--out", "{out}"], "--image"),
        (["--image", "{image}", "--phrase", "words", "--out", "{out}", "--resume"], "resume"),
        (["--image", "{image}", "--phrase", "words", "--out", "{folder}"], "in use"),
        (["--image", "{out}", "--phrase", "words", "--out", "{out}"], "no "),
        (["--image", "{folder}", "--phrase", "words", "--out", "{out}"], "folder"),
        (["--image", "/dev/null", "--phrase", "words", "--out", "{out}"], "neither"),
    ],
)
def test_mistakes(tmp_path, error_of, words, said):
    image_of(tmp_path / "image", {})
    paths = {"image": tmp_path / "image", "out": tmp_path / "out", "folder": tmp_path}
    assert said in error_of(predict.main, [word.format(**paths) for word in words])
    assert not (tmp_path / "out").exists()


def test_no_permission(tmp_path, monkeypatch, error_of):
    image = image_of(tmp_path / "image", {})

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)  # Root may read a file whatever its mode is.
        line = error_of(find, image, tmp_path / "out", phrases=["some words"])
    assert "sudo" in line and str(image) in line


# --- What is shown ---
def test_versions_are_grouped_the_best_first_with_their_diff(tmp_path):
    lines = [f"value_{i} = {i * i}\n" for i in range(30)]
    first, second = "".join(lines[:20]), "".join(lines).replace("value_3 ", "value_three ")
    other = "# value_1 = 1 is another file\n" + "something else\n" * 3
    parts = {i * 8192: x.encode().ljust(1024, b"\0") for i, x in enumerate((first, second, other))}
    parts[65_536] = first.encode().ljust(1024, b"\0")
    image, out = image_of(tmp_path / "image", parts), tmp_path / "out"
    index = find(image, out, phrases=["value_1 = 1", "value_25 ="])
    best, rest = index["groups"]
    assert [(out / text["file"]).read_text() for text in best] == [second, first]
    assert best[1]["copies"] == [65_536] and best[1]["hits"] == 2 and len(rest) == 1
    (changed,) = versions.differences(best, lambda text: report.read_text(out, text))
    assert "-value_three = 9\n" in changed and "+value_3 = 9\n" in changed
    assert "-value_three = 9\n" in (out / "index.html").read_text()


@pytest.mark.parametrize("words", [["--phrase=the lost title"], ["--browse"]])
def test_copies_beyond_those_remembered_are_counted_once(tmp_path, monkeypatch, words):
    monkeypatch.setattr(recovery, "MAX_OFFSETS", 3)
    text = (
        "the lost title\n" + "a line of a text that fills more than two blocks\n" * 200
    ).encode()
    parts = {i * 16_384: text.ljust(12_288, b"\0") for i in range(8)}
    index = find(image_of(tmp_path / "image", parts), tmp_path / "out", *words)
    [[found]] = index["groups"]
    assert found["num_copies"] == 7 and found["hits"] == index["hits"] == 8
    assert found["copies"] == [16_384, 32_768, 49_152]
    assert "7 more copies" in (tmp_path / "out" / "index.html").read_text()


def test_the_page_escapes_what_it_shows(tmp_path, capsys):
    text = b"<script>alert('words')</script> \xc2\x9b31m & \"the phrase\"\n"
    image = image_of(tmp_path / "image", {512: text.ljust(512, b"\0")})
    find(image, tmp_path / "out", phrases=["the phrase"])
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page and "\x9b" not in page
    assert "\x9b" not in capsys.readouterr().out


def test_a_page_of_many_diffs_is_written_group_by_group(tmp_path):
    """The whole page takes more memory than one group of it."""
    texts = []
    for group in range(150):
        lines = [f"group {group}, line {i}\n" for i in range(100)]
        added = [f"group {group}, added {i}, {'word ' * 8}\n" for i in range(400)]
        for number, data in enumerate(("".join(lines), "".join(lines + added))):
            name = f"{group}-{number}.txt"
            (tmp_path / name).write_text(data)
            start = 1_000_000 * len(texts)
            text = {"file": name, "start": start, "end": start + len(data), "encoding": "utf-8"}
            text |= {"hits": 1, "offsets": [start], "phrases": ["group"]}
            texts.append(text | {"why_piece": [], "num_copies": 0})
    state = {"arguments": {"image": "an image", "phrases": ["group"]}, "position": 10, "hits": 300}
    state |= {"not_written": 0, "texts": texts}
    tracemalloc.start()
    report.write_index(tmp_path, state, types.SimpleNamespace(bad=[], size=10))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = (tmp_path / "index.html").stat().st_size
    assert size > 2.5e6 and peak < 1.5 * size


def test_json_lines(tmp_path, capsys):
    data, phrase = planted_text(1, 3000, chinese=True)
    image = image_of(tmp_path / "image", {4096: data.ljust(4096, b"\0")})
    find(image, tmp_path / "out", "--json", phrases=[phrase])
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert Path(found["path"]).read_bytes() == data
    assert found["whole"] and phrase in found["excerpt"] and found["offsets"] == [4096 + 6]


@pytest.mark.parametrize("encoding", ["utf-8", "gbk"])
def test_the_posts_plain_form_is_what_grep_prints(tmp_path, capsys, encoding):
    data = "".join(f"第 {i} 行{' the phrase' * (i % 40 == 20)}\n" for i in range(100))
    image = tmp_path / "image"
    image.write_text(data, encoding="utf-8")
    words = ["--lines-before", "3", "--lines-after", "2"]
    encoded = tmp_path / "encoded"
    encoded.write_text(data, encoding=encoding)
    predict.main(["--image", str(encoded), "--phrase", "the phrase", *words])
    ours = [line for line in capsys.readouterr().out.split("\n") if line and line[:2] != "--"]
    grep = call("grep", "-a", "-B", "3", "-A", "2", "the phrase", str(image))
    assert ours == [line for line in grep.splitlines() if line != "--"]


@pytest.mark.parametrize("byte", [b"\xff", b"\x07", b"\x7f"])
def test_a_text_that_ends_at_other_bytes_is_not_called_whole(tmp_path, byte):
    first, second = b"first line of it\n" * 100, b"another line\n" * 100
    image = image_of(tmp_path / "image", {4096: (first + byte + second).ljust(4096, b"\0")})
    index = find(image, tmp_path / "out", phrases=["first line", "another line"])
    [(head, text)] = recovered(index, tmp_path / "out", "first line")
    assert head == first and text["why_piece"][-1] == "ends before bytes that are no text"
    [(tail, text)] = recovered(index, tmp_path / "out", "another line")
    assert tail == second and "begins in the middle of a block" in text["why_piece"][0]


def test_texts_that_begin_together_are_two_files(tmp_path):
    text = b"words of a text\n" * 32 + b"ten bytes\n"  # 512 bytes and ten more, then no text.
    image = image_of(tmp_path / "image", {4096: b"\0" * 2048})
    with image.open("r+b") as file:
        file.seek(4096)
        file.write(text + b"\x01\x02")
    index = find(image, tmp_path / "out", phrases=["words of", "ten bytes"])
    texts = [text for group in index["groups"] for text in group]
    assert len({text["file"] for text in texts}) == len(texts)
    for text in texts:
        data = (tmp_path / "out" / text["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == text["sha256"]


@pytest.mark.parametrize("words", [["--lines-before=1"], ["--json", "--out={out}"]])
def test_stdout_that_leads_onto_the_image_is_refused(tmp_path, words):
    image = image_of(tmp_path / "image", {5000: b"the phrase"})
    before = image.read_bytes()
    words = [word.format(out=tmp_path / "out") for word in words]
    script = [sys.executable, str(Path(predict.__file__))]
    with image.open("ab") as stdout:
        done = subprocess.run(
            [*script, "--image", str(image), "--phrase=the phrase", *words],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2 and "would be written into" in done.stderr
    assert image.read_bytes() == before


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_no_hit_is_hidden_by_the_lines_of_another(tmp_path, capsys, encoding):
    text = "the phrase 1\n" + "x" * 70_000 + "the phrase 2\nmore\n"
    (tmp_path / "image").write_bytes(text.encode(encoding))
    words = ["--image", str(tmp_path / "image"), "--phrase=the phrase", "--lines-after=0"]
    assert predict.main(words) == 2
    said = capsys.readouterr().out
    assert said.count("the phrase 1") == said.count("the phrase 2") == 1


def test_the_demo_recovers_both_versions_and_the_note(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    best, note = predict.main([])
    assert len(best) == 2 and note[0]["encoding"] == "gbk"
    assert "best guess" in capsys.readouterr().out
    predict.main(["--json", "--run-dir", str(tmp_path)])  # As reproduce.py calls every predict.py.
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["encoding"] for line in lines] == ["utf-8", "utf-8", "gbk"]
