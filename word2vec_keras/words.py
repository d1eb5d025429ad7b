"""Words on disk: text -> vocabulary -> one flat array of ids.

A source is a text file (UTF-8, one sentence a line, white space between words; .gz, .xz and
.bz2 are unpacked) or a folder of such files. Text is read in blocks, counted and encoded in
worker processes: memory is bounded by the vocabulary, whatever the size of the corpus or of a
line.
"""

import bz2
import gzip
import hashlib
import itertools
import json
import lzma
import multiprocessing
import os
import re
import signal
import threading
import warnings
import zlib
from collections import Counter, deque
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.run import ROOT, fail, load_file

VERSION = 1  # Of the files in the cache: change what they hold, raise it.
CACHE = ROOT / "data" / "downloads"
MAX_SENTENCE = 10_000  # Words; gensim cuts there too.
BLOCK = 1 << 18  # Bytes of text in one task: its words fit into a processor's cache.
HAND_OVER = 1_000_000  # Different words that a worker counts before the parent takes them.
PACKED = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
# Where a line too long for one block may be cut: at white space, in Chinese at stops and commas.
SPACES = (b" ", b"\t", b"\r", b"\xe3\x80\x80")
CHINESE_BREAKS = (*SPACES, b"\xe3\x80\x82", b"\xe3\x80\x81", b"\xef\xbc\x8c")
WIDE_SPACE = re.compile("[^\\S \t\n\r\x0b\x0c]")  # bytes.split() leaves it, str.split() does not.


class TextError(Exception):
    """What is wrong with the user's text: raised in any process, one line in the parent."""


def find_files(source):
    """The files of a source, sorted."""
    path = Path(source)
    if not path.is_dir():
        return [path] if path.is_file() else fail(f"{path}: no such file or folder")
    shown = (p for p in path.rglob("*") if "/." not in f"/{p.relative_to(path)}")
    return sorted(filter(Path.is_file, shown)) or fail(f"{path}: no files in this folder")


def read_file(path, breaks, bar, long_lines):
    """Yields the blocks of a file: its path, where in it, unpacked, they start, and their bytes:
    whole lines, or a piece of a line longer than BLOCK, which does not end with a line break.
    """
    rest, offset, line, more = b"", 0, 1, True
    with path.open("rb") as raw:
        file = PACKED[path.suffix](raw) if path.suffix in PACKED else raw
        while more:
            before = raw.tell()
            try:
                data = file.read(BLOCK)
            except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
                if getattr(error, "errno", None):  # Of the disk, not of what is on it.
                    raise
                raise TextError(f"{path}: truncated or damaged: {error}") from None
            bar.update(raw.tell() - before)
            more, data = bool(data), rest + (data or b"\n" * bool(rest))
            if offset == 0 and data.startswith(b"\xef\xbb\xbf"):  # A byte order mark.
                data, offset = data[3:], 3
            end = data.rfind(b"\n") + 1
            if not end and len(data) >= BLOCK:
                # A byte is left over, so that the end of the line is never an empty piece.
                places = ((data.rfind(mark, 0, -1), len(mark)) for mark in breaks)
                end = max((place + length for place, length in places if place >= 0), default=0)
                if not end:
                    raise TextError(f"{path}: line {line}: {BLOCK} bytes without white space")
                if (path, line) not in long_lines[-1:]:
                    long_lines.append((path, line))
            if end:
                yield path, offset, data[:end]
            rest, offset, line = data[end:], offset + end, line + data.count(b"\n", 0, end)


def read_blocks(files, title, breaks, long_lines):
    """Yields the blocks of files, with a progress bar; lists the lines that it had to cut."""
    size = sum(path.stat().st_size for path in files)
    with tqdm(desc=title, total=size, unit="B", unit_scale=True, disable=None) as bar:
        for path in files:
            yield from read_file(path, breaks, bar, long_lines)


def decode(path, offset, data):
    """The text of a block; anything but UTF-8, and NUL, is an error."""
    try:
        text, place = data.decode(), data.find(b"\0")
    except UnicodeDecodeError as error:
        place = error.start
    if place < 0:
        return text
    unpacked = "unpacked, " if path.suffix in PACKED else ""
    raise TextError(f"{path}: not UTF-8 text: {unpacked}at byte {offset + place}")


def split(block, ends=False):
    """The words of a block, as bytes: faster to count than str; `ends` adds b"\\0" to sentences."""
    text, data = decode(*block), block[-1]
    if WIDE_SPACE.search(text):
        data = WIDE_SPACE.sub(" ", text).encode()
    if ends:
        data = data.replace(b"\n", b" \0 ") + (b"" if data.endswith(b"\n") else b" \0")
    return data.split()


def start_worker(make_job):
    global job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle.
    # Without it a worker outlives a parent that was killed.
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    job = make_job()


def run_job(task):
    return job(task)


def in_workers(make_job, source, title, workers, long_lines, small=1 << 24, breaks=SPACES):
    """Yields job(block) for all blocks in order, then job(None), where job = make_job(), of each
    worker. For text of less than `small` bytes the parent is the only one.
    """
    files = find_files(source)
    size = sum(p.stat().st_size * (4 if p.suffix in PACKED else 1) for p in files)
    workers = workers or (os.cpu_count() if size >= small else 1)
    blocks = read_blocks(files, title, breaks, long_lines)
    tasks, pools, waiting = itertools.chain(blocks, [None] * workers), [], deque()
    try:
        if workers == 1:
            yield from map(make_job(), tasks)
            return
        # Spawn: a fork of a process that has loaded a Keras backend may hang.
        spawn, start = multiprocessing.get_context("spawn"), (start_worker, (make_job,))
        # A pool for each process, so that the last task of each is its own.
        pools += (ProcessPoolExecutor(1, spawn, *start) for _ in range(workers))
        for pool, task in zip(itertools.cycle(pools), tasks, strict=False):
            if len(waiting) == 3 * workers:
                yield waiting.popleft().result()
            waiting.append(pool.submit(run_job, task))
        while waiting:
            yield waiting.popleft().result()
    except TextError as error:
        fail(error)
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def make_counter(hand_over):
    """A job: the number of words of a block, and counts, when they are many and at the end."""
    counts = Counter()

    def count(block):
        words = split(block) if block else []
        counts.update(words)
        handed_over = {}
        if block is None or len(counts) >= hand_over:
            handed_over.update(counts)
            counts.clear()
        return len(words), handed_over

    return count


def build_vocabulary(source, min_count=10, max_words=20_000_000, workers=None):
    """Counts the words of a source and keeps those that occur `min_count` times.

    Beyond `max_words` different words the rarest are forgotten, as in word2vec.c and gensim:
    memory is bounded, counts of rare words become lower bounds, and a note is printed.

    Returns:
        words: list of str by falling count, then by code point; words[0] is "", the padding.
        counts: int64 array (len(words),); counts[0] is 0.
        total: the number of words in the source, rare ones included.
    """
    counts, total, threshold = Counter(), 0, 0
    job = partial(make_counter, min(HAND_OVER, max_words))
    for size, counted in in_workers(job, source, "counting", workers, []):
        total += size
        counts.update(counted)
        while len(counts) > max_words:
            threshold += 1
            for word in [word for word, count in counts.items() if count <= threshold]:
                del counts[word]
    if not total:
        fail(f"{source}: no words in it")
    if threshold:
        print(f"note: more than {max_words} different words: rare ones were dropped on the way")
    most = max(counts.values(), default=0)
    if most < min_count:
        seen = f"the most frequent word occurs {most} times"
        fail(f"{source}: {seen}, --min-count is {min_count}; Chinese in one piece needs --segment")
    kept = sorted((-count, word) for word, count in counts.items() if count >= min_count)
    words = ["", *(word.decode() for _, word in kept)]
    return words, np.array([0, *(-count for count, _ in kept)], dtype="int64"), total


def make_encoder(words):
    """A job: the ids of a block, int32, each sentence followed by one 0."""
    ids = {word.encode(): i for i, word in enumerate(words)} | {b"\0": 0}

    def encode(block):
        found = split(block, ends=True) if block else ()
        found = np.fromiter(map(ids.get, found, itertools.repeat(-1)), np.int32, len(found))
        ends = np.flatnonzero(found == 0)
        starts = np.append(0, ends + 1)[: len(ends)]
        long = zip(starts, ends, strict=True) if (ends - starts > MAX_SENTENCE).any() else ()
        cuts = [np.arange(start + MAX_SENTENCE, end, MAX_SENTENCE) for start, end in long]
        found = np.insert(found, np.concatenate([ends[:0], *cuts]), 0)
        found = found[found >= 0]
        # A sentence without a known word leaves nothing.
        return found[(found > 0) | (np.append(0, found)[:-1] > 0)]

    return encode


@contextmanager
def replacing(path):
    """A new file, in bytes, that takes its name only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.uname().nodename}-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def encode_corpus(source, words, path, workers=None):
    """Writes the ids of a source, as load_corpus describes them, into the .npy file `path`."""
    job, size, long_lines = partial(make_encoder, words), 0, []
    header = {"descr": "<i4", "fortran_order": False, "shape": (0,)}
    with replacing(Path(path)) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for ids in in_workers(job, source, "encoding", workers, long_lines):
            file.write(ids)
            size += len(ids)
        file.seek(0)  # NumPy pads the header so that every length fits in.
        np.lib.format.write_array_header_1_0(file, header | {"shape": (size,)})
    if long_lines:
        (path, line), count = long_lines[0], len(long_lines)
        print(f"note: {path}: line {line} is very long and was cut; lines like it: {count}")


def make_cutter():
    """A job: the text of a block, in bytes, with spaces between the words that jieba finds."""
    with warnings.catch_warnings():  # jieba uses what newer Pythons warn of.
        warnings.simplefilter("ignore")
        import jieba
    jieba.setLogLevel("WARNING")

    def cut(block):
        if block is None:
            return b""
        lines = decode(*block).split("\n")
        lines = (" ".join(w for w in jieba.cut(line) if not w.isspace()) for line in lines)
        return "\n".join(lines).encode() + (b"" if block[-1].endswith(b"\n") else b" ")

    return cut


def cache_path(folder, files, suffix, *details):
    """Where in the cache is what was made of these files, as they are now."""
    states = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    digest = hashlib.sha256(json.dumps([VERSION, states, details]).encode()).hexdigest()
    return Path(folder) / f"{files[0].name}-{digest[:16]}{suffix}"


def cut_words(source, folder=CACHE, workers=None):
    """Path of the source's text cut into words by jieba, line by line; made once, cached."""
    path = cache_path(folder, find_files(source), ".txt", version("jieba"))
    if not path.exists():
        cut = in_workers(make_cutter, source, "cutting", workers, [], BLOCK, CHINESE_BREAKS)
        with replacing(path) as file:
            file.writelines(cut)
    return path


def save_sentences(sentences, folder=CACHE):
    """Path of a text made of lists of words, a sentence a line, named by what it holds.

    Any iterable will do, a generator too, as it is gone through once.
    """
    digest, path = hashlib.sha256(), Path(folder) / f"sentences-{os.uname().nodename}-{os.getpid()}"
    with replacing(path) as file:
        for number, words in enumerate(sentences, 1):
            line = "" if isinstance(words, str) else " ".join(map(str, words))
            if line.split() != list(words):
                fail(f"sentence {number}: not a list of str without spaces: {words!r:.60}")
            file.write(f"{line}\n".encode())
            digest.update(f"{line}\n".encode())
    named = path.with_name(f"sentences-{digest.hexdigest()[:16]}.txt")
    if named.exists():  # An older file keeps its time, by which what was made of it is found.
        path.unlink()
        return named
    return path.rename(named)


def load_corpus(source, min_count=10, segment=False, folder=CACHE, workers=None):
    """Vocabulary and ids of a source; what was made of it is kept in `folder`.

    An iterable of lists of words is written to a file first. With `segment`, jieba cuts Chinese
    text into words first. `workers` is a number of processes; default: one for each core, for a
    small text only this one.

    Returns:
        ids: read-only int32 memmap, flat: the ids of the known words of each sentence, then one
            0. Sentences of more than 10,000 words are cut, those without a known word left out.
        words, counts, total: as from build_vocabulary.
    """
    if not isinstance(source, str | os.PathLike):
        source = save_sentences(source, folder)
    if segment:
        source = cut_words(source, folder, workers)
    path = cache_path(folder, find_files(source), ".npy", min_count)
    vocabulary = path.with_suffix(".json")
    if not (path.exists() and vocabulary.exists()):
        words, counts, total = build_vocabulary(source, min_count, workers=workers)
        encode_corpus(source, words, path, workers)
        saved = {"words": words, "counts": counts.tolist(), "total": total}
        with replacing(vocabulary) as file:  # Last: where it is, the ids are complete.
            file.write(json.dumps(saved).encode())
    saved, ids = load_file(vocabulary), np.load(path, mmap_mode="r")
    return ids, saved["words"], np.array(saved["counts"], dtype="int64"), saved["total"]
