"""linux_undelete against grep in bytes per second, and against photorec and extundelete in recall.

    python benchmarks/undelete_vs_grep.py            # an image of 2 GB in a temporary folder
    python benchmarks/undelete_vs_grep.py --quick    # tries every line

The post's command, grep -a -B 5 -A 10 PHRASE IMAGE, in LC_ALL=C and in a UTF-8 locale (the faster
one counts), and predict.py with all four encodings and with UTF-8 alone, on the same image of
random, compressed and text blocks, which is read once before each run so that it lies in the page
cache. Rounds are interleaved; a ratio is the median over the rounds. "whole" is the whole command
with the start of the program, "scan" leaves out Python's start, "processor" are the seconds of all
cores together. Recall is counted on an ext4 image
from which 50 texts were deleted; what is not installed is left out. Last line: `speed ratio: X`.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from word2vec_vs_gensim import busy_seconds, own_seconds, write_result

from linux_undelete.undelete.demo import planted_text
from linux_undelete.undelete.disk import Disk
from linux_undelete.undelete.extent import grow_best

ROOT = Path(__file__).resolve().parent.parent
PREDICT = ROOT / "linux_undelete" / "predict.py"
PHRASES = {"code": "def load_results_from(", "chinese": "恢复误删的脚本"}
MEGABYTE = 1 << 20
BLOCK = 4096
TOOLS = os.environ["PATH"] + ":/usr/sbin:/sbin"


def write_image(path, size):
    """Random, compressed and text megabytes in turns, with each phrase in 20 files.

    The texts are the standard library's, each from a block border on, its last block filled up.
    """
    rng = np.random.default_rng(0)
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text = b"".join(fill_blocks(source.read_bytes()) for source in sources)
    packed = zlib.compress(text + rng.bytes(4 * MEGABYTE))
    with path.open("wb") as file:
        for number in range(size // MEGABYTE):
            part = rng.bytes(MEGABYTE)
            if number % 3 == 1:
                part = random_part(rng, packed)
            elif number % 3 == 2:
                part = random_part(rng, text)
            file.write(part)
        for number in range(20):
            for at, phrase in enumerate(PHRASES.values()):
                file.seek((size // 21 * (number + 1) // BLOCK + at) * BLOCK)
                file.write(f"# version {number}\n{phrase}path)\n".encode().ljust(BLOCK, b"\0"))


def fill_blocks(data):
    """The bytes of a file as a disk holds them: the last block is filled up with zeros."""
    return data.ljust(-(-len(data) // BLOCK) * BLOCK, b"\0")


def random_part(rng, data):
    """A megabyte of the data, from a block border on."""
    start = int(rng.integers(0, len(data) - MEGABYTE)) // BLOCK * BLOCK
    return data[start : start + MEGABYTE]


def run(command, image, output, locale="C.UTF-8"):
    """{"whole": seconds, "processor": seconds, "peak": bytes, "others": fraction} and stderr.

    The output goes into a file, as in the post: into /dev/null grep would stop at its first hit.
    "others" is the fraction of the machine that other processes used meanwhile.
    """
    with image.open("rb") as file:
        while file.read(MEGABYTE):
            pass
    environment = os.environ | {"LC_ALL": locale, "PYTHONPATH": str(ROOT)}
    with output.open("wb") as out, output.with_suffix(".err").open("wb") as errors:
        before = busy_seconds() - own_seconds()
        start = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=errors)
        status = Path(f"/proc/{process.pid}/status")
        peak = 0
        ended = 0
        while not ended:
            found = re.search(r"VmHWM:\s+(\d+)", status.read_text())
            if found:
                peak = max(peak, int(found[1]) * 1024)
            time.sleep(0.005)
            ended, code, used = os.wait4(process.pid, os.WNOHANG)
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(code)
    others = (busy_seconds() - own_seconds() - before) / seconds / os.cpu_count()
    errors = output.with_suffix(".err").read_text()
    if process.returncode:
        raise SystemExit(f"{command}: {errors}")
    result = {
        "whole": seconds,
        "processor": used.ru_utime + used.ru_stime,
        "peak": peak,
        "others": max(others, 0),
    }
    return result, errors


def speeds(image, phrase, folder, rounds):
    """A list of rounds: {system: what run() measured, and the seconds of the scan alone}."""
    results = []
    for number in range(rounds):
        found = {}
        for locale in ("C", "C.UTF-8"):
            command = ["grep", "-a", "-B", "5", "-A", "10", "-e", phrase, str(image)]
            measured, _ = run(command, image, folder / "output", locale)
            measured["scan"] = measured["whole"]
            found[f"grep {locale}"] = measured
        for name, words in (("four encodings", []), ("UTF-8 only", ["--encodings", "utf-8"])):
            out = folder / "recovered"
            command = [sys.executable, str(PREDICT), "--image", str(image), "--phrase", phrase]
            command += [*words, "--out", str(out)]
            measured, errors = run(command, image, folder / "output")
            measured["scan"] = float(re.search(r"in ([0-9.]+) s$", errors, re.MULTILINE)[1])
            found[name] = measured
            shutil.rmtree(out)
        results.append(found)
        size = image.stat().st_size / 1e9
        shown = {name: f"{size / seconds['whole']:.2f} GB/s" for name, seconds in found.items()}
        print(f"round {number + 1}: {shown}", flush=True)
    return results


def ratio(results, name, key):
    """The median over the rounds of our speed over the faster grep's, with the extremes."""
    values = []
    for found in results:
        grep = min(found["grep C"][key], found["grep C.UTF-8"][key])
        values.append(grep / found[name][key])
    return {
        "value": round(statistics.median(values), 3),
        "low": round(min(values), 3),
        "high": round(max(values), 3),
    }


def exact_ends(path):
    """{neighbour: [texts grown to their exact ends, texts]}: from a place within, by decoding only.

    Sources of the standard library and Chinese texts lie between blocks of a neighbour, as files
    do; "text, no slack" are texts that fill their last block, with another text on both sides.
    """
    rng = np.random.default_rng(1)
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = texts_to_grow(rng, sources)
    counts = {}
    for name, neighbour in neighbours(sources, texts).items():
        num_exact = 0
        num_texts = 0
        for encoding, data in texts:
            if name == "text, no slack":
                data = data[: len(data) // BLOCK * BLOCK]
                neighbour = texts[num_texts][1][:BLOCK].ljust(BLOCK, b" ")
            if not data:
                continue
            path.write_bytes(neighbour + fill_blocks(data) + neighbour)
            extent = grow_within(rng, path, data, encoding)
            if (extent.start, extent.end) == (BLOCK, BLOCK + len(data)):
                num_exact += 1
            num_texts += 1
        counts[name] = [num_exact, num_texts]
        print(f"ends beside {name}: {num_exact} of {num_texts} exact", flush=True)
    return counts


def texts_to_grow(rng, sources):
    """[(encoding, bytes)]: Python files of moderate length, and 100 Chinese texts."""
    texts = []
    for source in sources:
        data = source.read_bytes()
        if 200 < len(data) < 200_000:
            texts.append(("utf-8", data))
    for i in range(100):
        encoding = ("utf-8", "gbk", "utf-16-le")[i % 3]
        data, _ = planted_text(i, int(rng.integers(200, 20_000)) * 2, "utf-8", chinese=True)
        texts.append((encoding, data.decode().encode(encoding)))
    return texts


def neighbours(sources, texts):
    """{name: a block that lies on both sides of a text}."""
    code = compile(sources[0].read_bytes() + b"\n", "x", "exec").co_code
    packed = zlib.compress(b"".join(data for _, data in texts))
    _, first_text = texts[0]
    return {
        "random": np.random.default_rng(2).bytes(BLOCK),
        "compressed": packed[BLOCK : 2 * BLOCK],
        "zeros": bytes(BLOCK),
        "bytecode": (code * BLOCK)[:BLOCK],
        "text": first_text[:100].ljust(BLOCK, b"\0"),
        "text, no slack": b"",  # The head of another text, which differs from text to text.
    }


def grow_within(rng, path, data, encoding):
    """The Extent that is found from a random place in a text that lies at the second block."""
    place = int(rng.integers(0, len(data))) // BLOCK * BLOCK
    while encoding != "utf-16-le" and not 9 <= data[place] < 64:
        place = (place + 1) % len(data)  # To a byte at which a character begins.
    disk = Disk(path)
    extent = grow_best(disk, BLOCK + place, 1, (encoding,))
    disk.close()
    return extent


def quiet(command, folder, **more):
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, **more)


def recall(folder):
    """{system: [texts back byte for byte, texts whose phrase is in a recovered file]} of 50."""
    needed = {name: shutil.which(name, path=TOOLS) for name in ("mke2fs", "debugfs")}
    if None in needed.values():
        print("recall: mke2fs or debugfs is not installed")
        return {}
    planted = plant_texts(folder / "files")
    image = folder / "ext4.img"
    quiet(
        [needed["mke2fs"], "-q", "-t", "ext4", "-d", str(folder / "files"), str(image), "512M"],
        folder,
    )
    (folder / "commands").write_text("".join(f"rm {text.name}\n" for text in planted))
    quiet([needed["debugfs"], "-w", "-f", str(folder / "commands"), str(image)], folder)
    counts = {}
    for name, command in recovery_commands(folder, image, planted).items():
        if name != "linux_undelete" and not shutil.which(name, path=TOOLS):
            print(f"recall: {name} is not installed")
            continue
        where = folder
        if name != "linux_undelete":  # These write into the current folder.
            where = folder / name
            where.mkdir()
        environment = os.environ | {"PATH": TOOLS, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
        done = quiet(command, where, env=environment, stdin=subprocess.DEVNULL)
        recovered = recovered_files(folder, name)
        num_exact = sum(text.data in recovered for text in planted)
        num_phrases = 0
        for text in planted:
            num_phrases += any(text.encoded_phrase in data for data in recovered)
        counts[name] = [num_exact, num_phrases]
        print(f"recall: {name}: {num_exact} of 50 byte for byte, {num_phrases} phrases found")
        if done.returncode:
            print(f"  ended with {done.returncode}: {(done.stderr or done.stdout)[-300:]}")
    return counts


class PlantedText(NamedTuple):
    name: str  # Of its file.
    data: bytes
    phrase: str
    encoded_phrase: bytes


def plant_texts(folder):
    """Writes 50 texts of 200 bytes to 200 kB: code and Chinese, in UTF-8 and GBK."""
    folder.mkdir()
    planted = []
    for i in range(50):
        size = int(200 * 1000 ** (i / 49))
        encoding = ("utf-8", "gbk")[i % 2]
        data, phrase = planted_text(i, size, encoding, chinese=i % 4 > 1)
        name = f"text{i:02d}.txt"
        planted.append(PlantedText(name, data, phrase, phrase.encode(encoding)))
        (folder / name).write_bytes(data)
    return planted


def recovery_commands(folder, image, planted):
    """{system: the command that recovers what it can from the image into folder / system}."""
    ours = [sys.executable, str(PREDICT), "--image", str(image)]
    ours += [f"--phrase={text.phrase}" for text in planted]
    ours += ["--out", str(folder / "linux_undelete")]
    photorec = ["photorec", "/d", str(folder / "photorec" / "found"), "/log", "/cmd", str(image)]
    photorec.append("partition_none,options,fileopt,txt,enable,search")
    extundelete = ["extundelete", "--restore-all", str(image)]
    return {"linux_undelete": ours, "photorec": photorec, "extundelete": extundelete}


def recovered_files(folder, name):
    """What a system has recovered: the bytes of each file."""
    recovered = []
    for path in folder.glob(f"{name}*/**/*"):
        # Our lists name what was looked for, so they do not count.
        if path.is_file() and path.suffix not in (".json", ".jsonl", ".html"):
            data = path.read_bytes()
            if len(data) < 10 * MEGABYTE:
                recovered.append(data)
    return recovered


def compare_speed(kind, phrase, image, folder, rounds):
    """Prints the ratios for one phrase; returns what the result says of it."""
    results = speeds(image, phrase, folder, rounds)
    ratios = {}
    for system in ("four encodings", "UTF-8 only"):
        for key in ("whole", "scan", "processor"):
            found = ratio(results, system, key)
            ratios[f"{system}, {key}"] = found
            print(
                f"{kind}: {system}, {key}: {found['value']:.2f} x grep "
                f"({found['low']:.2f} to {found['high']:.2f})"
            )
    peaks = {}
    for system in results[0]:
        peaks[system] = max(found[system]["peak"] for found in results)
    shown = {system: f"{peak / 1e6:.0f} MB" for system, peak in peaks.items()}
    print(f"{kind}: peak memory {shown}")
    return {
        "phrase": phrase,
        "ratios": ratios,
        "peak_bytes": peaks,
        "rounds": [rounded(found) for found in results],
    }


def rounded(found):
    """One round's measurements with four digits."""
    result = {}
    for system, measured in found.items():
        result[system] = {name: float(f"{value:.4g}") for name, value in measured.items()}
    return result


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", type=int, default=2048, help="megabytes of the image")
    parser.add_argument("--quick", action="store_true", help="one round on 64 MB")
    args = parser.parse_args(argv)
    if args.quick:
        args.rounds = 1
        args.size = 64
    result = {
        "arguments": vars(args),
        "grep": quiet(["grep", "--version"], ".").stdout.split("\n")[0],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = folder / "image"
        write_image(image, args.size * MEGABYTE)
        for kind, phrase in PHRASES.items():
            result[kind] = compare_speed(kind, phrase, image, folder, args.rounds)
        image.unlink()
        result["recall_of_50"] = recall(folder)
        result["exact_ends"] = exact_ends(image)
    if not args.quick:
        write_result("undelete_vs_grep", result)
    worst = min(result[kind]["ratios"]["four encodings, scan"]["value"] for kind in PHRASES)
    print(f"speed ratio: {worst:.2f}")


if __name__ == "__main__":
    main()
