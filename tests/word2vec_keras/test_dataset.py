"""word2vec_keras/dataset.py: each result against a plain loop, each mistake against one line."""

import bz2
import gzip
import json
import lzma
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from word2vec_keras.dataset import Corpus, build_vocabulary, cut_words, load_corpus

PACK = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}


def draw_lines(number=4000, seed=0):
    """Sentences of Chinese and English words with every kind of white space between them."""
    rng = np.random.default_rng(seed)
    names = [f"word{i}" for i in range(300)] + [chr(0x4E00 + i) * 2 for i in range(300)]
    spaces = [" "] * 9 + ["\t", "  ", "\u3000", "\xa0", "\u2028", "\x1c", "\x85", "\r"]
    lines = []
    for length in rng.integers(0, 30, number):
        drawn = (rng.pareto(1.0, length) * 5).astype(int) % len(names)
        lines.append("".join(names[i] + spaces[rng.integers(len(spaces))] for i in drawn))
    return lines


def plain_loop(sentences, min_count):
    """What load_corpus must return, from lists of words that all fit in memory."""
    counts = Counter(word for sentence in sentences for word in sentence)
    kept = sorted((-n, word) for word, n in counts.items() if n >= min_count)
    words = ["", *(word for _, word in kept)]
    index, ids = {word: i for i, word in enumerate(words)}, []
    for sentence in sentences:
        for start in range(0, len(sentence), 10_000):
            piece = [index[w] for w in sentence[start : start + 10_000] if w in index]
            ids += [*piece, 0] if piece else []
    return ids, words, [0, *(-n for n, _ in kept)], sum(counts.values())


def assert_equal(loaded, expected):
    ids, words, counts, total = loaded
    assert isinstance(ids, np.memmap) and ids.dtype == np.int32 and not ids.flags.writeable
    assert counts.dtype == np.int64
    assert (ids.tolist(), words, counts.tolist(), total) == expected


@pytest.fixture(scope="module")
def lines():
    return draw_lines()


@pytest.fixture(scope="module")
def expected(lines):
    return plain_loop([line.split() for line in lines], 10)


KINDS = [("", 1), ("", 2), (".txt", 1), (".gz", 1), (".gz", 2), (".xz", 1), (".bz2", 1)]


@pytest.mark.parametrize(("suffix", "workers"), KINDS)
def test_a_file_gives_what_a_plain_loop_gives(lines, expected, suffix, workers, tmp_path):
    data = "\n".join(lines).encode()  # No "\n" at the end.
    path = tmp_path / f"corpus{suffix}"
    path.write_bytes(PACK.get(suffix, bytes)(data))
    assert_equal(load_corpus(path, folder=tmp_path / "cache", workers=workers), expected)


def test_small_blocks_change_nothing(lines, expected, tmp_path):
    """Lines that lie across the ends of blocks, and workers that hand over often."""
    path = tmp_path / "corpus"
    path.write_text("\n".join(lines) + "\n", newline="")
    assert_equal(load_corpus(path, folder=tmp_path, workers=2, block_size=1000), expected)
    words, counts, total = build_vocabulary(path, workers=2, block_size=1000, hand_over=50)
    assert (words, counts.tolist(), total) == expected[1:]


def test_a_folder_is_read_in_order_without_hidden_files(lines, expected, tmp_path):
    folder = tmp_path / "corpus"
    (folder / "deeper" / ".git").mkdir(parents=True)
    (folder / ".hidden").write_text("hidden " * 99)
    (folder / "deeper" / ".git" / "config").write_text("hidden " * 99)
    (folder / "a").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines[:1000]).encode())
    (folder / "b.gz").write_bytes(gzip.compress("\n".join(lines[1000:2000]).encode()))
    (folder / "deeper" / "c").write_text("\n".join(lines[2000:]) + "\n", newline="")
    assert_equal(load_corpus(folder, folder=tmp_path, workers=1), expected)


def test_lists_of_words(lines, expected, tmp_path):
    class Sentences:
        def __iter__(self):
            return (line.split() for line in lines)

    for sentences in (list(Sentences()), Sentences(), iter(Sentences())):
        assert_equal(load_corpus(sentences, folder=tmp_path, workers=1), expected)
    for suffix in (".txt", ".npy"):  # The same text, the same files.
        assert len(list(tmp_path.glob(f"*{suffix}"))) == 1
    assert_equal(
        load_corpus((line.split() for line in lines[:9] * 50), folder=tmp_path),
        (plain_loop([line.split() for line in lines[:9] * 50], 10)),
    )


def test_long_sentences_are_cut_at_10000_words(tmp_path):
    sentences = [["a"] * n for n in (9_999, 10_000, 10_001, 20_000, 35_000)] + [["b"] * 15_000]
    (tmp_path / "corpus").write_text("\n".join(map(" ".join, sentences)))
    for workers in (1, 2):
        loaded = load_corpus(tmp_path / "corpus", folder=tmp_path / str(workers), workers=workers)
        assert_equal(loaded, plain_loop(sentences, 10))


def test_a_line_of_ten_million_words(tmp_path, capsys):
    (tmp_path / "corpus").write_bytes(b"b b\n" + b"a " * 10_000_000 + b"\nb\n")
    ids, words, counts, total = load_corpus(tmp_path / "corpus", 3, folder=tmp_path, workers=1)
    assert (words, counts.tolist(), total) == (["", "a", "b"], [0, 10**7, 3], 10**7 + 3)
    assert np.bincount(ids)[1:].tolist() == [10**7, 3]
    ends = np.flatnonzero(ids == 0)
    assert np.diff(ends).max() == 10_001
    assert ids[:4].tolist() == [2, 2, 0, 1] and ids[-4:].tolist() == [1, 0, 2, 0]
    [note] = capsys.readouterr().out.splitlines()
    assert f"{tmp_path / 'corpus'}: line 2 is very long" in note


def test_pieces_of_a_long_line_split_no_word(tmp_path):
    sentence = [f"词{i}\u4e2d" for i in range(2000)]
    for space in (" ", "\t", "\u3000"):
        (tmp_path / "corpus").write_text(space.join(sentence))
        ids, words, *_ = load_corpus(
            tmp_path / "corpus", 1, folder=tmp_path, workers=1, block_size=100
        )
        assert [words[i] for i in ids if i] == sentence


def test_words_beyond_the_limit_are_forgotten(tmp_path, capsys):
    """The frequent words survive with counts that are right or, at most, too low."""
    rng = np.random.default_rng(0)
    drawn = [f"frequent{i}" for i in rng.integers(0, 20, 40_000)]
    drawn += [f"rare{i}" for i in range(40_000)]
    rng.shuffle(drawn)
    (tmp_path / "corpus").write_text("\n".join(drawn))
    true = Counter(drawn)
    for workers in (1, 2):
        words, counts, total = build_vocabulary(tmp_path / "corpus", 100, 1000, workers)
        assert total == 80_000 and len(words) == 21
        for word, count in zip(words[1:], counts[1:], strict=True):
            assert 0.8 * true[word] < count <= true[word]
        assert "more than 1000 different words" in capsys.readouterr().out


def times(folder):
    """When each file of the cache was written."""
    return {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_the_cache_is_used_until_a_file_changes(lines, expected, tmp_path):
    path, cache = tmp_path / "corpus", tmp_path / "cache"
    path.write_text("\n".join(lines), newline="")
    assert_equal(load_corpus(path, folder=cache), expected)
    written = times(cache)
    assert_equal(load_corpus(path, folder=cache), expected)
    assert times(cache) == written
    assert len(load_corpus(path, min_count=50, folder=cache)[1]) < len(expected[1])
    path.write_text("\n".join(lines[::-1]), newline="")  # Of the same size.
    os.utime(path, (1, 1))
    assert load_corpus(path, folder=cache)[0].tolist() != expected[0]
    assert {file.suffix for file in cache.iterdir()} == {".npy", ".json"}


CHINESE = [
    "今天天气很好\uff0c我们去公园散步。",
    "",
    "  北京大学的学生 前来应聘\u3000算法工程师\r",
    "Keras 3.15",
]


@pytest.mark.parametrize("workers", [1, 2])
def test_jieba_cuts_in_workers_as_it_does_here(workers, tmp_path, capfd):
    import jieba

    path, cache = tmp_path / "corpus.xz", tmp_path / "cache"
    text = CHINESE * 50
    path.write_bytes(lzma.compress("\n".join(text).encode()))
    jieba.initialize()
    capfd.readouterr()
    cut = cut_words(path, cache, workers)
    assert capfd.readouterr() == ("", "")
    expected = [[w for w in jieba.cut(line) if not w.isspace()] for line in text]
    assert [
        line.split(" ") if line else [] for line in cut.read_text().split("\n")[:-1]
    ] == expected
    loaded = load_corpus(path, segment=True, folder=cache, workers=workers)
    assert_equal(loaded, plain_loop(expected, 10))
    written = times(cache)
    load_corpus(path, segment=True, folder=cache)
    assert times(cache) == written  # Neither cut nor counted again.


def test_a_long_chinese_line_is_cut_as_a_whole_one_would_be(tmp_path):
    import jieba

    text = CHINESE[0] * 40
    (tmp_path / "corpus").write_text(text + "\n" + CHINESE[0])
    cut = cut_words(tmp_path / "corpus", tmp_path, 1, block_size=300).read_text().split("\n")
    assert [line.split() for line in cut[:2]] == [jieba.lcut(text), jieba.lcut(CHINESE[0])]
    assert cut[2:] == [""]


def write(path, data):
    path.write_bytes(data)
    return path


TEXT = ("some words and more\n" * 30_000).encode()
MISTAKES = {
    "missing": (lambda folder: folder / "none", "none: no such file or folder"),
    "empty folder": (lambda folder: folder, "no files in this folder"),
    "empty": (lambda folder: write(folder / "a", b""), "a: no words in it"),
    "empty .gz": (lambda folder: write(folder / "a.gz", b""), "a.gz: no words in it"),
    "blank": (lambda folder: write(folder / "a", b" \n\n\xe3\x80\x80\n"), "a: no words in it"),
    "rare words": (
        lambda folder: write(folder / "a", b"x x x y"),
        "a: the most frequent word occurs 3 times, --min-count is 10",
    ),
    "Latin-1": (
        lambda folder: write(folder / "a", TEXT + "caf\xe9 au lait".encode("latin-1")),
        f"a: not UTF-8 text: at byte {len(TEXT) + 3}",
    ),
    "Latin-1 in .bz2": (
        lambda folder: write(folder / "a.bz2", bz2.compress(b"\xef\xbb\xbf" + TEXT + b"\xe9")),
        f"a.bz2: not UTF-8 text: unpacked, at byte {len(TEXT) + 3}",
    ),
    "UTF-16": (
        lambda folder: write(folder / "a", TEXT.decode().encode("utf-16")),
        "a: not UTF-8 text: at byte 0",
    ),
    "binary": (
        lambda folder: write(folder / "a", TEXT + b"\0" + TEXT),
        f"a: not UTF-8 text: at byte {len(TEXT)}",
    ),
    "no white space": (
        lambda folder: write(folder / "a", b"x\n" + b"y" * 600_000),
        "a: line 2: 262144 bytes without white space",
    ),
    "strings": (lambda folder: ["some words"] * 99, "sentence 1: not a list of str"),
    "numbers": (lambda folder: [["a"], ["a", 1]] * 99, "sentence 2: not a list of str"),
    "spaces": (lambda folder: [["New York"]] * 99, "sentence 1: not a list of str"),
    "empty list": (lambda folder: [], "no words in it"),
} | {
    f"truncated {suffix}": (
        lambda folder, suffix=suffix: write(folder / f"a{suffix}", PACK[suffix](TEXT)[:-20]),
        f"a{suffix}: truncated or damaged",
    )
    for suffix in PACK
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake, error_of, tmp_path):
    make, message = MISTAKES[mistake]
    (tmp_path / "data").mkdir()
    source = make(tmp_path / "data")
    for workers in (1, 2) if mistake in ("Latin-1", "truncated .gz") else (1,):
        assert message in error_of(load_corpus, source, folder=tmp_path / "cache", workers=workers)
    cache = tmp_path / "cache"
    left = list(cache.iterdir()) if cache.exists() else []
    assert not [path for path in left if not path.name.startswith("sentences-")]


def test_damaged_packed_files_and_wrong_suffixes(error_of, tmp_path):
    rng = np.random.default_rng(0)
    for suffix, pack in PACK.items():
        damaged = bytearray(pack(rng.bytes(10_000).hex().encode()))
        damaged[5000:5100] = bytes(100)
        for data in (bytes(damaged), TEXT):
            path = write(tmp_path / f"a{suffix}", data)
            assert "truncated or damaged" in error_of(build_vocabulary, path)


LIMITED = """
import json, resource, sys
import numpy as np
from concurrent.futures import process
from word2vec_keras.dataset import build_vocabulary, encode_corpus

if __name__ == "__main__":
    path, out, allowed = sys.argv[1], sys.argv[2], int(sys.argv[3])
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + allowed
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        open(path, "rb").read()
        sys.exit("the corpus fits in memory: the test shows nothing")
    except MemoryError:
        pass
    words, counts, total = build_vocabulary(path, workers=2)
    encode_corpus(path, words, out, workers=2)
    print(json.dumps([words, counts.tolist(), total]))
"""


def test_a_corpus_ten_times_the_allowed_memory(tmp_path):
    """RLIMIT_AS holds for the parent, less what it has after its imports, and each worker.

    The ids are compared here, in windows: a map needs address space, though no memory.
    """
    allowed, sentences = 16 << 20, [line.split() for line in draw_lines(20_000)]
    text = "\n".join(map(" ".join, sentences)) + "\n"
    repeats = 10 * allowed // len(text.encode()) + 1
    with (tmp_path / "corpus").open("wb") as file:
        file.writelines([text.encode()] * repeats)
    script, out = tmp_path / "limited.py", tmp_path / "ids.npy"
    script.write_text(LIMITED)
    command = ["bash", "-c", 'ulimit -s 512 && exec "$@"', "-", sys.executable, script]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MALLOC_ARENA_MAX": "1"}
    result = subprocess.run(
        [*command, tmp_path / "corpus", out, str(allowed)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    ids, words, counts, total = plain_loop(sentences, 1)
    expected = [words, [repeats * n for n in counts], repeats * total]
    assert json.loads(result.stdout) == expected
    found = np.load(out, mmap_mode="r")
    assert len(found) == repeats * len(ids)
    for start in range(0, len(found), len(ids)):
        assert np.array_equal(found[start : start + len(ids)], ids)
    (tmp_path / "corpus").unlink()


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "corpus").write_bytes(TEXT * 20)
    script = tmp_path / "stop.py"
    script.write_text(
        "import time\nfrom functools import partial\n"
        "from word2vec_keras.dataset import TextBlocks, WordCounter, in_workers\n"
        "if __name__ == '__main__':\n"
        f"    blocks = TextBlocks({str(tmp_path / 'corpus')!r}, '')\n"
        "    counts = in_workers(partial(WordCounter, 10**6), blocks, 2)\n"
        "    next(counts)\n    print(flush=True)\n    time.sleep(60)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, script]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        process.stdout.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGKILL)
    deadline = time.time() + 20
    while any(Path(f"/proc/{child}").exists() for child in children) and time.time() < deadline:
        time.sleep(0.1)
    assert children and not any(Path(f"/proc/{child}").exists() for child in children)


def test_workers_do_not_import_the_script_that_runs(tmp_path):
    """A script like train.py loads Keras; each worker would load it again."""
    (tmp_path / "corpus").write_bytes(TEXT)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom word2vec_keras.dataset import build_vocabulary\n"
        "print('imported', flush=True)\n"
        "if __name__ == '__main__':\n"
        f"    build_vocabulary({str(tmp_path / 'corpus')!r}, workers=2)\n"
        "    assert sys.modules['__main__'].__file__ == __file__\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "imported\n"


def test_importing_the_module_loads_no_keras():
    code = "import sys, word2vec_keras.dataset; print('keras' in sys.modules)"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- The corpus ---
def small_corpus():
    ids = np.array([1, 2, 0, 3, 0, 1, 1, 2, 3, 0], "int32")
    return Corpus(ids, ["", "a", "b", "c"], np.array([0, 3, 2, 2]), 9, {})


def test_sentences_are_counted():
    assert small_corpus().count_sentences() == (3, 4)


def test_new_words_get_an_id_and_a_count_of_0():
    corpus = small_corpus()
    corpus.add_words(["c", "d", "a", "e"])
    assert corpus.words == ["", "a", "b", "c", "d", "e"]
    assert corpus.counts.tolist() == [0, 3, 2, 2, 0, 0]
