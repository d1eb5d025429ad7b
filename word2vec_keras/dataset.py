"""The text: from files to a vocabulary and one flat array of ids.

A source is a text file (UTF-8, one sentence per line, white space between words; .gz, .xz and
.bz2 are unpacked) or a folder of such files. Text is read in blocks, which worker processes count
and encode: memory is bounded by the vocabulary, whatever the size of the text or of a line.

This module imports no Keras, because every worker process imports it.
"""

import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import warnings
from collections import Counter, deque
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from common.cli import fail
from common.files import DOWNLOADS, OPENERS, UNPACKING_ERRORS, read_json, replacing, write_text
from data import corpus

VERSION = 1  # Of the files in the cache: raise it with any change of what they hold.
CACHE = DOWNLOADS
SMOKE_TOKENS = 200_000
MAX_SENTENCE = 10_000  # Words; gensim cuts longer sentences there, too.
BLOCK = 1 << 18  # Bytes of text in one task: its words fit into a processor's cache.
SMALL = 1 << 24  # Bytes: this process reads a smaller text alone.
HAND_OVER = 1_000_000  # Different words that a worker counts before it hands the counts over.
PIECE = 2_000_000  # Ids in memory at a time.

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# A line too long for one block is cut at white space; Chinese also at full stops and commas.
SPACES = (b" ", b"\t", b"\r", "\u3000".encode())
CHINESE_BREAKS = (*SPACES, "\u3002".encode(), "\u3001".encode(), "\uff0c".encode())
# White space that str.split() splits at and bytes.split() does not.
WIDE_SPACE = re.compile("[^\\S \t\n\r\x0b\x0c]")


@dataclass
class Corpus:
    """A text as ids.

    Attributes:
        ids: flat int32 array, which may be a memory-mapped file: the ids of each sentence, then
            one 0.
        words: list of str by falling count; words[0] is "", the padding.
        counts: int64 array (len(words),).
        total: the number of words in the text, including those that are too rare to have an id.
        notes: what the record says of the data.
    """

    ids: np.ndarray
    words: list
    counts: np.ndarray
    total: int
    notes: dict

    def add_words(self, words):
        """Gives those words that the text does not hold an id, too, with a count of 0."""
        known = set(self.words)
        new = [word for word in words if word not in known]
        self.words = self.words + new
        self.counts = np.append(self.counts, np.zeros(len(new), self.counts.dtype))

    def count_sentences(self):
        """How many sentences there are, and the number of words in the longest."""
        number = 0
        longest = 0
        last_end = -1
        for start in range(0, len(self.ids), PIECE):
            ends = start + np.flatnonzero(self.ids[start : start + PIECE] == 0)
            if len(ends) > 0:
                lengths = np.diff(ends, prepend=last_end) - 1
                longest = max(longest, int(lengths.max()))
                number += len(ends)
                last_end = ends[-1]
        return number, longest


def load(args):
    """The Corpus that the flags ask for: the user's text, or the generated one."""
    if args.data is not None:
        source = args.data
        name = Path(source).name
    else:
        num_tokens = corpus.NUM_TOKENS
        if args.smoke:
            num_tokens = SMOKE_TOKENS
        source = corpus.load(num_tokens)
        name = f"generated text v{corpus.VERSION}"
    ids, words, counts, total = load_corpus(source, args.min_count, args.segment)
    digest = hashlib.sha256("\n".join(words).encode())
    digest.update(ids)
    notes = {
        "name": name,
        "num_tokens": total,
        "num_words": len(words) - 1,
        "min_count": args.min_count,
        "sha256": digest.hexdigest(),
    }
    return Corpus(ids, words, counts, total, notes)


def load_corpus(source, min_count=10, segment=False, folder=CACHE, workers=None, block_size=BLOCK):
    """Vocabulary and ids of a source. What is made of it is kept in `folder`.

    Args:
        source: the path of a file or folder, or an iterable of lists of words, which is written
            to a file first.
        min_count: rarer words get no id.
        segment: whether jieba cuts Chinese text into words first.
        workers: the number of processes; default: one per core, for a small text only this one.

    Returns:
        ids: read-only int32 memmap, flat: the ids of the known words of each sentence, then one
            0. Sentences of more than 10,000 words are cut; those without a known word are left
            out.
        words, counts, total: as from `build_vocabulary`.
    """
    if not isinstance(source, str | os.PathLike):
        source = save_sentences(source, folder)
    if segment:
        source = cut_words(source, folder, workers, block_size)
    path = cache_path(folder, find_files(source), ".npy", min_count)
    vocabulary_path = path.with_suffix(".json")
    if not (path.exists() and vocabulary_path.exists()):
        words, counts, total = build_vocabulary(
            source, min_count, workers=workers, block_size=block_size
        )
        encode_corpus(source, words, path, workers, block_size)
        vocabulary = {"words": words, "counts": counts.tolist(), "total": total}
        write_text(vocabulary_path, json.dumps(vocabulary))  # Last: now the ids are complete.
    vocabulary = read_json(vocabulary_path)
    counts = np.array(vocabulary["counts"], dtype="int64")
    ids = np.load(path, mmap_mode="r")
    return ids, vocabulary["words"], counts, vocabulary["total"]


def cache_path(folder, files, suffix, *details):
    """Where in the cache is what was made of these files, as they are now."""
    states = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    digest = hashlib.sha256(json.dumps([VERSION, states, details]).encode()).hexdigest()
    return Path(folder) / f"{files[0].name}-{digest[:16]}{suffix}"


def save_sentences(sentences, folder=CACHE):
    """The path of a text made of lists of words, one sentence per line, named by its content.

    Any iterable will do, also a generator, as it is read once.
    """
    digest = hashlib.sha256()
    unnamed = Path(folder) / f"sentences-{os.uname().nodename}-{os.getpid()}"
    with replacing(unnamed) as temporary, temporary.open("wb") as file:
        for number, words in enumerate(sentences, 1):
            line = ""
            if not isinstance(words, str):
                line = " ".join(map(str, words))
            if line.split() != list(words):
                fail(f"sentence {number}: not a list of str without spaces: {words!r:.60}")
            data = f"{line}\n".encode()
            file.write(data)
            digest.update(data)
    named = unnamed.with_name(f"sentences-{digest.hexdigest()[:16]}.txt")
    if named.exists():  # An older file keeps its time, by which the cache finds what it has of it.
        unnamed.unlink()
    else:
        unnamed.rename(named)
    return named


# --- Files in blocks ---
class TextError(Exception):
    """What is wrong with the user's text. Raised in any process, one line in the parent."""


class Block(NamedTuple):
    """Some whole lines of a file, or a piece of a very long line, which ends with no line break."""

    path: Path
    offset: int  # Where it starts in the unpacked file.
    data: bytes


def find_files(source):
    """The files of a source, sorted; what is hidden in a folder is left out."""
    path = Path(source)
    if path.is_file():
        return [path]
    if not path.is_dir():
        fail(f"{path}: no such file or folder")
    files = []
    for file in path.rglob("*"):
        is_hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if file.is_file() and not is_hidden:
            files.append(file)
    if not files:
        fail(f"{path}: no files in this folder")
    return sorted(files)


class TextBlocks:
    """Iterates once over all blocks of a source, with a progress bar.

    Args:
        source: the path of a file or folder.
        title: of the progress bar.
        breaks: where a line that is longer than a block may be cut.

    Attributes:
        size: about how many bytes the unpacked text has.
        long_lines: the lines that were cut so far: [(path, number of the line)].
    """

    def __init__(self, source, title, breaks=SPACES, block_size=BLOCK):
        self.files = find_files(source)
        self.title = title
        self.breaks = breaks
        self.block_size = block_size
        self.long_lines = []

    @property
    def size(self):
        size = 0
        for path in self.files:
            if path.suffix in OPENERS:
                size += 4 * path.stat().st_size
            else:
                size += path.stat().st_size
        return size

    def __iter__(self):
        total = sum(path.stat().st_size for path in self.files)
        with tqdm(desc=self.title, total=total, unit="B", unit_scale=True, disable=None) as bar:
            for path in self.files:
                yield from self.read_file(path, bar)

    def read_file(self, path, bar):
        rest = b""
        offset = 0
        line = 1
        for data in self.read_raw(path, bar):
            if data:
                data = rest + data
            elif rest:  # The last line has no line break.
                data = rest + b"\n"
            if offset == 0 and data.startswith(BYTE_ORDER_MARK):
                data = data[len(BYTE_ORDER_MARK) :]
                offset = len(BYTE_ORDER_MARK)
            end = data.rfind(b"\n") + 1
            if end == 0 and len(data) >= self.block_size:
                end = self.cut_long_line(data, path, line)
            if end > 0:
                yield Block(path, offset, data[:end])
            rest = data[end:]
            offset += end
            line += data.count(b"\n", 0, end)

    def read_raw(self, path, bar):
        """The unpacked bytes of a file, `block_size` at a time, and b"" at its end.

        The progress bar counts the bytes of the file as it lies on the disk.
        """
        with path.open("rb") as raw:
            file = raw
            if path.suffix in OPENERS:
                file = OPENERS[path.suffix](raw)
            data = None
            while data != b"":
                before = raw.tell()
                try:
                    data = file.read(self.block_size)
                except UNPACKING_ERRORS as error:
                    if getattr(error, "errno", None) is not None:  # The disk fails, not the file.
                        raise
                    raise TextError(f"{path}: truncated or damaged: {error}") from None
                bar.update(raw.tell() - before)
                yield data

    def cut_long_line(self, data, path, line):
        """Where the last word ends in a line of which no end is in sight."""
        end = 0
        for mark in self.breaks:
            # One byte is left over, so that the end of the line is never an empty piece.
            place = data.rfind(mark, 0, -1)
            if place >= 0:
                end = max(end, place + len(mark))
        if end == 0:
            raise TextError(f"{path}: line {line}: {self.block_size} bytes without white space")
        if (path, line) not in self.long_lines[-1:]:
            self.long_lines.append((path, line))
        return end


def decode(block):
    """The text of a block. Raises TextError for anything but UTF-8, and for NUL."""
    try:
        text = block.data.decode()
        place = block.data.find(b"\0")
    except UnicodeDecodeError as error:
        place = error.start
    if place < 0:
        return text
    unpacked = ""
    if block.path.suffix in OPENERS:
        unpacked = "unpacked, "
    raise TextError(f"{block.path}: not UTF-8 text: {unpacked}at byte {block.offset + place}")


def split_words(block, mark_ends=False):
    """The words of a block as bytes, which are faster to count than str.

    Args:
        mark_ends: whether each sentence is followed by b"\\0".
    """
    text = decode(block)
    data = block.data
    if WIDE_SPACE.search(text):
        data = WIDE_SPACE.sub(" ", text).encode()
    if mark_ends:
        ends_with_line = data.endswith(b"\n")
        data = data.replace(b"\n", b" \0 ")
        if not ends_with_line:
            data += b" \0"
    return data.split()


# --- Worker processes ---
def in_workers(make_job, blocks, workers=None):
    """Yields job(block) for all blocks in order, then job(None) of each worker.

    Args:
        make_job: a function without arguments that makes the job, in each worker.
        blocks: TextBlocks.
        workers: the number of processes; default: one per core, for a small text only this one.
    """
    if workers is None:
        workers = 1
        if blocks.size >= SMALL:
            workers = os.cpu_count()
    tasks = itertools.chain(blocks, [None] * workers)
    try:
        if workers == 1:
            yield from map(make_job(), tasks)
        else:
            yield from in_pools(make_job, tasks, workers)
    except TextError as error:
        fail(error)


def in_pools(make_job, tasks, workers):
    """Yields the results of all tasks in order, worked on by processes in turn."""
    pools = []
    waiting = deque()
    try:
        # A pool for each process, so that the last task of each is its own.
        pools += start_pools(make_job, workers)
        for pool, task in zip(itertools.cycle(pools), tasks, strict=False):
            if len(waiting) == 3 * workers:
                yield waiting.popleft().result()
            waiting.append(pool.submit(run_job, task))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def start_pools(make_job, workers):
    """Starts pools of one process each."""
    # Not by fork: a copy of a process that has loaded a Keras backend may hang.
    spawn = multiprocessing.get_context("spawn")
    pools = []
    with unknown_script():
        for _ in range(workers):
            pool = ProcessPoolExecutor(1, spawn, start_worker, (make_job,))
            pool.submit(int)  # A first task, whatever it is, starts the process.
            pools.append(pool)
    return pools


@contextlib.contextmanager
def unknown_script():
    """A block in which new processes do not import the script that is running.

    They would import train.py, and with it Keras, which takes seconds and much memory.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def start_worker(make_job):
    """The first thing that a worker process runs."""
    global job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent handles Ctrl-C.
    threading.Thread(target=end_with_parent, daemon=True).start()
    job = make_job()


def end_with_parent():
    """Ends this process when its parent ends; it would outlive a parent that is killed."""
    multiprocessing.parent_process().join()
    os._exit(1)


def run_job(task):
    return job(task)


# --- Vocabulary ---
class WordCounter:
    """A job: (the number of words of a block, counts of words).

    The counts are handed over when they have become many, and at the end. In between they are {}.
    """

    def __init__(self, hand_over):
        self.hand_over = hand_over
        self.counts = Counter()

    def __call__(self, block):
        words = []
        if block is not None:
            words = split_words(block)
        self.counts.update(words)
        counts = {}
        if block is None or len(self.counts) >= self.hand_over:
            counts = dict(self.counts)
            self.counts.clear()
        return len(words), counts


def build_vocabulary(
    source,
    min_count=10,
    max_words=20_000_000,
    workers=None,
    block_size=BLOCK,
    hand_over=HAND_OVER,
):
    """Counts the words of a source and keeps those that occur `min_count` times.

    Beyond `max_words` different words the rarest are forgotten, as in word2vec.c and gensim:
    memory is bounded, counts of rare words become lower bounds, and a note is printed.

    Returns:
        words: list of str by falling count, then by code point; words[0] is "", the padding.
        counts: int64 array (len(words),); counts[0] is 0.
        total: the number of words in the source, including rare ones.
    """
    counts = Counter()
    total = 0
    threshold = 0
    make_job = partial(WordCounter, min(hand_over, max_words))
    blocks = TextBlocks(source, "counting", block_size=block_size)
    for num_words, counts_of_worker in in_workers(make_job, blocks, workers):
        total += num_words
        counts.update(counts_of_worker)
        while len(counts) > max_words:
            threshold += 1
            for word in [word for word, count in counts.items() if count <= threshold]:
                del counts[word]
    if total == 0:
        fail(f"{source}: no words in it")
    if threshold > 0:
        print(f"note: more than {max_words} different words: rare ones were dropped on the way")
    most = max(counts.values(), default=0)
    if most < min_count:
        fail(
            f"{source}: the most frequent word occurs {most} times, --min-count is {min_count}; "
            "Chinese in one piece needs --segment"
        )
    kept = sorted((-count, word) for word, count in counts.items() if count >= min_count)
    words = [""]
    kept_counts = [0]
    for negative_count, word in kept:
        words.append(word.decode())
        kept_counts.append(-negative_count)
    return words, np.array(kept_counts, dtype="int64"), total


# --- Ids ---
class Encoder:
    """A job: the ids of a block, int32, each sentence followed by one 0."""

    def __init__(self, words):
        self.ids = {word.encode(): i for i, word in enumerate(words)}
        self.ids[b"\0"] = 0

    def __call__(self, block):
        words = []
        if block is not None:
            words = split_words(block, mark_ends=True)
        ids = map(self.ids.get, words, itertools.repeat(-1))
        ids = cut_long_sentences(np.fromiter(ids, np.int32, len(words)))
        ids = ids[ids >= 0]
        # A sentence without a known word leaves nothing: its 0 follows another 0.
        before = np.append(0, ids)[:-1]
        return ids[(ids > 0) | (before > 0)]


def cut_long_sentences(ids):
    """The ids with a 0 after every 10,000 words of a longer sentence."""
    ends = np.flatnonzero(ids == 0)
    starts = np.append(0, ends + 1)[: len(ends)]
    is_long = ends - starts > MAX_SENTENCE
    cuts = []
    for start, end in zip(starts[is_long], ends[is_long], strict=True):
        cuts += range(start + MAX_SENTENCE, end, MAX_SENTENCE)
    if not cuts:
        return ids
    return np.insert(ids, cuts, 0)


def encode_corpus(source, words, path, workers=None, block_size=BLOCK):
    """Writes the ids of a source, as `load_corpus` describes them, into the .npy file `path`."""
    header = {"descr": "<i4", "fortran_order": False, "shape": (0,)}
    size = 0
    blocks = TextBlocks(source, "encoding", block_size=block_size)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for ids in in_workers(partial(Encoder, words), blocks, workers):
            file.write(ids)
            size += len(ids)
        header["shape"] = (size,)
        file.seek(0)  # NumPy pads the header so that every length fits in.
        np.lib.format.write_array_header_1_0(file, header)
    if blocks.long_lines:
        path, line = blocks.long_lines[0]
        count = len(blocks.long_lines)
        print(f"note: {path}: line {line} is very long and was cut; lines like it: {count}")


# --- Chinese ---
class Cutter:
    """A job: the text of a block as bytes, with spaces between the words that jieba finds."""

    def __init__(self):
        with warnings.catch_warnings():  # jieba uses what newer Pythons warn of.
            warnings.simplefilter("ignore")
            import jieba  # Here, because only --segment needs it.
        jieba.setLogLevel("WARNING")
        self.cut = jieba.cut

    def __call__(self, block):
        if block is None:
            return b""
        lines = []
        for line in decode(block).split("\n"):
            lines.append(" ".join(word for word in self.cut(line) if not word.isspace()))
        data = "\n".join(lines).encode()
        if not block.data.endswith(b"\n"):
            data += b" "
        return data


def cut_words(source, folder=CACHE, workers=None, block_size=BLOCK):
    """The path of the source's text cut into words by jieba, line by line; made once, cached."""
    path = cache_path(folder, find_files(source), ".txt", version("jieba"))
    if not path.exists():
        blocks = TextBlocks(source, "cutting", CHINESE_BREAKS, block_size)
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.writelines(in_workers(Cutter, blocks, workers))
    return path
