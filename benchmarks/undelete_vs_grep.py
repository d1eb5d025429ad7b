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

import numpy as np
from word2vec_vs_gensim import busy_seconds, own_seconds, write_result

from linux_undelete.undelete.demo import planted_text
from linux_undelete.undelete.disk import Disk
from linux_undelete.undelete.extent import grow_best

ROOT = Path(__file__).resolve().parent.parent
PREDICT = ROOT / "linux_undelete" / "predict.py"
PHRASES = {"code": "def load_results_from(", "chinese": "恢复误删的脚本"}
MEGABYTE, BLOCK = 1 << 20, 4096
TOOLS = os.environ["PATH"] + ":/usr/sbin:/sbin"


def write_image(path, size):
    """Random, compressed and text megabytes in turns, with each phrase in 20 files.

    The texts are the standard library's, each from a block border on, its last block filled up.
    """
    random, sources = (
        np.random.default_rng(0),
        sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")),
    )
    files = [source.read_bytes() for source in sources]
    text = b"".join(data.ljust(-(-len(data) // BLOCK) * BLOCK, b"\0") for data in files)
    packed = zlib.compress(text + random.bytes(4 * MEGABYTE))
    with path.open("wb") as file:
        for number in range(size // MEGABYTE):
            part = random.bytes(MEGABYTE)
            if number % 3:
                whole = packed if number % 3 == 1 else text
                start = int(random.integers(0, len(whole) - MEGABYTE)) // BLOCK * BLOCK
                part = whole[start : start + MEGABYTE]
            file.write(part)
        for number in range(20):
            for at, phrase in enumerate(PHRASES.values()):
                file.seek((size // 21 * (number + 1) // BLOCK + at) * BLOCK)
                file.write(f"# version {number}\n{phrase}path)\n".encode().ljust(BLOCK, b"\0"))


def run(command, image, output, locale="C.UTF-8"):
    """{"whole": seconds, "processor": seconds, "peak": bytes, "others": share} and stderr.

    The output goes into a file, as in the post: into /dev/null grep would stop at its first hit.
    "others" is the share of the machine that other processes used meanwhile.
    """
    with image.open("rb") as file:
        while file.read(MEGABYTE):
            pass
    environment = os.environ | {"LC_ALL": locale, "PYTHONPATH": str(ROOT)}
    with output.open("wb") as out, output.with_suffix(".err").open("wb") as errors:
        before, start, peak = busy_seconds() - own_seconds(), time.perf_counter(), 0
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=errors)
        status = Path(f"/proc/{process.pid}/status")
        ended, used = 0, None
        while not ended:
            found = re.search(r"VmHWM:\s+(\d+)", status.read_text())
            peak = max(peak, int(found[1]) * 1024 if found else 0)
            time.sleep(0.005)
            ended, code, used = os.wait4(process.pid, os.WNOHANG)
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(code)
    others = (busy_seconds() - own_seconds() - before) / seconds / os.cpu_count()
    errors = output.with_suffix(".err").read_text()
    if process.returncode:
        raise SystemExit(f"{command}: {errors}")
    result = {"whole": seconds, "processor": used.ru_utime + used.ru_stime, "peak": peak}
    return result | {"others": max(others, 0)}, errors


def speeds(image, phrase, folder, rounds):
    """A list of rounds: {system: what run() measured, and the seconds of the scan alone}."""
    results = []
    for number in range(rounds):
        found = {}
        for locale in ("C", "C.UTF-8"):
            command = ["grep", "-a", "-B", "5", "-A", "10", "-e", phrase, str(image)]
            found[f"grep {locale}"], _ = run(command, image, folder / "output", locale)
            found[f"grep {locale}"]["scan"] = found[f"grep {locale}"]["whole"]
        for name, words in (("four encodings", []), ("UTF-8 only", ["--encodings", "utf-8"])):
            out = folder / "recovered"
            command = [sys.executable, str(PREDICT), "--image", str(image), "--phrase", phrase]
            command += [*words, "--out", str(out)]
            found[name], errors = run(command, image, folder / "output")
            found[name]["scan"] = float(re.search(r"in ([0-9.]+) s$", errors, re.MULTILINE)[1])
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
    rounded = [round(value, 3) for value in (statistics.median(values), min(values), max(values))]
    return dict(zip(("value", "low", "high"), rounded, strict=True))


def exact_ends(path):
    """{neighbour: [texts grown to their exact ends, texts]}: from a place within, by decoding only.

    Sources of the standard library and Chinese texts lie between blocks of a neighbour, as files
    do; "text, no slack" are texts that fill their last block, with another text on both sides.
    """
    draw, random = np.random.default_rng(1), np.random.default_rng(2)
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [("utf-8", data) for data in (s.read_bytes() for s in sources) if 200 < len(data) < 2e5]
    for i in range(100):
        encoding = ("utf-8", "gbk", "utf-16-le")[i % 3]
        data = planted_text(i, int(draw.integers(200, 20_000)) * 2, "utf-8", True)[0]
        texts.append((encoding, data.decode().encode(encoding)))
    code = compile(b"".join(s.read_bytes() + b"\n" for s in sources[:1]), "x", "exec").co_code
    packed = zlib.compress(b"".join(data for _, data in texts))
    near = {"random": random.bytes(BLOCK), "compressed": packed[BLOCK : 2 * BLOCK]}
    near |= {"zeros": bytes(BLOCK), "bytecode": (code * BLOCK)[:BLOCK]}
    near |= {"text": texts[0][1][:100].ljust(BLOCK, b"\0"), "text, no slack": b""}
    counts = {}
    for name, neighbour in near.items():
        counts[name] = [0, 0]
        for encoding, data in texts:
            before = after = neighbour
            if name == "text, no slack":
                data = data[: len(data) // BLOCK * BLOCK]
                before = after = texts[counts[name][1]][1][:BLOCK].ljust(BLOCK, b" ")
            if not data:
                continue
            filled = data.ljust(-(-len(data) // BLOCK) * BLOCK, b"\0")
            path.write_bytes(before + filled + after)
            disk = Disk(path)
            place = int(draw.integers(0, len(data))) // BLOCK * BLOCK
            while encoding != "utf-16-le" and not 9 <= data[place] < 64:
                place = (place + 1) % len(data)  # A byte at which a character begins.
            extent = grow_best(disk, BLOCK + place, 1, (encoding,))
            disk.close()
            counts[name][0] += (extent.start, extent.end) == (BLOCK, BLOCK + len(data))
            counts[name][1] += 1
        print(f"ends beside {name}: {counts[name][0]} of {counts[name][1]} exact", flush=True)
    return counts


def quiet(command, folder, **more):
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, **more)


def recall(folder):
    """{system: [texts back byte for byte, texts whose phrase is in a recovered file]} of 50."""
    needed = {name: shutil.which(name, path=TOOLS) for name in ("mke2fs", "debugfs")}
    if None in needed.values():
        print("recall: mke2fs or debugfs is not installed")
        return {}
    files, planted = folder / "files", {}
    files.mkdir()
    for i in range(50):
        size, encoding = int(200 * 1000 ** (i / 49)), "gbk" if i % 2 else "utf-8"
        data, phrase = planted_text(i, size, encoding, chinese=i % 4 > 1)
        planted[f"text{i:02d}.txt"] = data, phrase, phrase.encode(encoding)
        (files / f"text{i:02d}.txt").write_bytes(data)
    image = folder / "ext4.img"
    quiet([needed["mke2fs"], "-q", "-t", "ext4", "-d", str(files), str(image), "512M"], folder)
    (folder / "commands").write_text("".join(f"rm {name}\n" for name in planted))
    quiet([needed["debugfs"], "-w", "-f", str(folder / "commands"), str(image)], folder)
    phrases = [f"--phrase={phrase}" for _, phrase, _ in planted.values()]
    scan = "partition_none,options,fileopt,txt,enable,search"
    commands = {
        "linux_undelete": [sys.executable, str(PREDICT), "--image", str(image), *phrases, "--out"],
        "photorec": ["photorec", "/log", "/cmd", str(image), scan],
        "extundelete": ["extundelete", "--restore-all", str(image)],
    }
    counts = {}
    for name, command in commands.items():
        if name != "linux_undelete" and not shutil.which(name, path=TOOLS):
            print(f"recall: {name} is not installed")
            continue
        out = folder / name
        if name == "linux_undelete":
            command.append(str(out))
        else:  # These write into the current folder.
            out.mkdir()
            command[1:1] = ["/d", str(out / "found")] if name == "photorec" else []
        environment = os.environ | {"PATH": TOOLS, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
        where = out if out.exists() else folder
        done = quiet(command, where, env=environment, stdin=subprocess.DEVNULL)
        files = [path for path in folder.glob(f"{name}*/**/*") if path.is_file()]
        lists = (".json", ".jsonl", ".html")  # Of ours: they name what was looked for.
        back = [path.read_bytes() for path in files if path.suffix not in lists]
        back = [data for data in back if len(data) < 10 * MEGABYTE]
        exact = sum(data in back for data, _, _ in planted.values())
        parts = sum(any(phrase in data for data in back) for _, _, phrase in planted.values())
        counts[name] = [exact, parts]
        print(f"recall: {name}: {exact} of 50 byte for byte, {parts} phrases found", flush=True)
        if done.returncode:
            print(f"  ended with {done.returncode}: {(done.stderr or done.stdout)[-300:]}")
    return counts


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", type=int, default=2048, help="megabytes of the image")
    parser.add_argument("--quick", action="store_true", help="one round on 64 MB")
    args = parser.parse_args(argv)
    if args.quick:
        args.rounds, args.size = 1, 64
    result = {
        "arguments": vars(args),
        "grep": quiet(["grep", "--version"], ".").stdout.split("\n")[0],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = folder / "image"
        write_image(image, args.size * MEGABYTE)
        for kind, phrase in PHRASES.items():
            results = speeds(image, phrase, folder, args.rounds)
            ratios = {}
            for system in ("four encodings", "UTF-8 only"):
                for key in ("whole", "scan", "processor"):
                    ratios[f"{system}, {key}"] = found = ratio(results, system, key)
                    print(f"{kind}: {system}, {key}: {found['value']:.2f} x grep ", end="")
                    print(f"({found['low']:.2f} to {found['high']:.2f})")
            peaks = {s: max(found[s]["peak"] for found in results) for s in results[0]}
            print(f"{kind}: peak memory { ({s: f'{p / 1e6:.0f} MB' for s, p in peaks.items()}) }")
            result[kind] = {"phrase": phrase, "ratios": ratios, "peak_bytes": peaks}
            result[kind]["rounds"] = [
                {s: {k: float(f"{v:.4g}") for k, v in found.items()} for s, found in one.items()}
                for one in results
            ]
        image.unlink()
        result["recall_of_50"] = recall(folder)
        result["exact_ends"] = exact_ends(image)
    if not args.quick:
        write_result("undelete_vs_grep", result)
    worst = min(result[kind]["ratios"]["four encodings, scan"]["value"] for kind in PHRASES)
    print(f"speed ratio: {worst:.2f}")


if __name__ == "__main__":
    main()
