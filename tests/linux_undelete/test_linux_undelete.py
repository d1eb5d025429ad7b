"""linux_undelete: blocks and their split, the rule, the network, a run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT

from common.metrics import proportion
from data import block_files, block_texts, blocks
from data.blocks import BLOCK, KINDS
from linux_undelete import dataset, evaluate, rule, train
from linux_undelete.model import build_model, classify_blocks

SIZES = {"train": 12, "valid": 3, "test": 6}
CHINESE = "他说：今天的天气很好，我们去公园散步吧。\n"  # noqa: RUF001
TEXTS = {
    "english": "It was a bright day, and the clocks were slow.\n",
    "python": "def add(a, b):\n    return a + b\n",
    "c": "int add(int a, int b)\n{\n\treturn a + b;\n}\n",
}


@pytest.fixture(scope="module")
def loaded():
    return blocks.load(SIZES)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return build_model()


def wrong_share(block):
    return rule.best_encoding(block)[0]


def block_of(data):
    return data[:BLOCK].ljust(BLOCK, b"\0")


def test_blocks_of_odd_length_are_judged():
    assert wrong_share(b"\xff" * 4095) > 0.99
    assert rule.best_encoding("一个文本。\n".encode("utf-16-le") * 3 + b"\n")[1] == "utf-16-le"


# --- Blocks ---
def test_files_are_cut_as_a_file_system_does():
    content = bytes(range(1, 256)) * 40  # 10,200 bytes.
    cut = blocks.cut(content)
    assert cut.shape == (3, BLOCK) and cut.dtype == np.uint8
    assert cut.tobytes() == content + bytes(3 * BLOCK - len(content))
    assert blocks.cut(content[:BLOCK]).shape == (1, BLOCK) and blocks.cut(b"").shape == (0, BLOCK)


def test_blocks_of_each_kind_in_the_numbers_asked_for(loaded):
    for split, (x, y, names) in loaded.items():
        assert x.shape == (len(y), BLOCK) and x.dtype == np.uint8 and len(names) == len(y)
        wanted = [blocks.OTHERS * SIZES[split]] + [SIZES[split]] * (len(KINDS) - 1)
        assert np.bincount(y, minlength=len(KINDS)).tolist() == wanted


def test_splits_share_no_file_nor_what_is_made_of_it(loaded):
    """Names are like "FILE", "FILE compiled" and "SPLIT KIND NUMBER, after FILE"."""
    files = {}
    for split, (x, _, names) in loaded.items():
        sources = {re.sub(r".*, after | compiled$", "", name) for name in names}
        files[split] = {name for name in sources if not name.startswith(f"{split} ")}
        assert len(files[split]) > 5 and len({block.tobytes() for block in x}) == len(x)
    assert not files["train"] & files["test"] and not files["valid"] & files["test"]
    assert not files["train"] & files["valid"]
    everything = [block.tobytes() for x, _, _ in loaded.values() for block in x]
    assert len(set(everything)) == len(everything)


def test_the_split_is_that_of_the_files_bytes():
    contents = [str(i).encode() for i in range(2000)]
    counts = [sum(block_files.split_of(c) == split for c in contents) for split in SIZES]
    for count, share in zip(counts, (0.7, 0.1, 0.2), strict=True):
        assert abs(count - 2000 * share) < 5 * np.sqrt(2000 * share * (1 - share))
    for name, path in block_files.files_of("test", ".py")[:5]:
        assert block_files.split_of(path.read_bytes()[: block_files.MAX_READ]) == "test", name


def test_the_same_again(loaded):
    assert blocks.digest(blocks.load(SIZES)) == blocks.digest(loaded)


def test_a_fresh_process_compiles_to_the_same_bytes():
    """In one process they would depend on what it has loaded."""
    first = block_files.compiled("valid", 5)
    block_files.compiled.cache_clear()
    assert block_files.compiled("valid", 5) == first and all(len(code) > 100 for _, code in first)


def test_texts_are_in_the_encoding_of_their_kind(loaded):
    x, y, _ = loaded["train"]
    starts = 0
    for kind, encoding in (("chinese-utf8", "utf-8"), ("chinese-gbk", "gbk")):
        for block in x[y == KINDS.index(kind)]:
            text = bytes(block).rstrip(b"\0").decode(encoding, "ignore")
            assert len(re.findall("[\u3400-\u9fff]", text)) > len(text) / 3
            starts += encoding == "utf-8" and block[0] & 0xC0 == 0x80
    assert starts, "none begins in the middle of a character"
    ends = sum(not block[-1] for block in x[y > 3])
    assert 0 < ends < len(x[y > 3]), "files end inside a block"
    for block in x[y == KINDS.index("utf16")]:
        assert (block == 0).mean() > 0.02 or (block[0::2] > 0x4D).mean() > 0.3


def test_writers_depend_on_their_generator_alone():
    source = Path(block_texts.__file__).read_text()
    for write in (block_texts.write_chinese, *blocks.TEXT_WRITERS.values()):
        one, two, other = (write(np.random.default_rng(seed), source) for seed in (1, 1, 2))
        assert one == two and len(one) > 100
        assert one != other or write is block_texts.write_english  # That one needs no chance.
    for seed in range(20):
        text = block_texts.write_json(np.random.default_rng(seed), source)
        for part in [text] if text[0] in "[{" and "\n{" not in text else text.splitlines():
            json.loads(part)


def test_blocks_of_the_machine_are_text_or_not():
    x, y, names = blocks.load_shifted(6)
    assert x.shape == (len(y), BLOCK) and len(names) == len(y)
    if not len(y):
        pytest.skip("no system folders here")
    assert set(y.tolist()) <= {0, 1}
    for name, label in zip(names, y, strict=True):
        magic = Path(name).read_bytes()[:8].startswith(blocks.MAGIC)
        assert magic != bool(label) or name.endswith(".gz")


# --- The rule ---
@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "utf-16-le", "utf-16-be", "utf-16"])
@pytest.mark.parametrize("start", range(4))
def test_the_rule_knows_text_in_any_encoding(encoding, start):
    """Also where the block begins in the middle of a character, or holds only a text's end."""
    if encoding.startswith("utf-16"):
        start -= start % 2  # A block begins at an even place.
    for text in (CHINESE, *TEXTS.values(), "".join(TEXTS.values()) + CHINESE):
        for length in (64, 300, 2000, BLOCK):
            data = (text * 200).encode(encoding)[start : start + length]
            assert rule.is_text_rule(block_of(data)), (text, length)


def test_the_rule_refuses_what_is_no_text():
    rng = np.random.default_rng(0)
    numbers = np.arange(BLOCK // 4, dtype="<i4").tobytes()
    for data in (
        bytes(BLOCK),
        b"\xff" * BLOCK,
        rng.bytes(BLOCK),
        numbers,
        rng.normal(size=BLOCK // 8).tobytes(),
        b"\x7fELF" + rng.bytes(300),
        b"names\0of\0symbols\0" * 200,
        Path(sys.executable).resolve().read_bytes()[:BLOCK],
    ):
        assert not rule.is_text_rule(block_of(data)), data[:20]


def test_the_share_that_is_wrong_by_hand():
    text = b"abcdefghi\n" * 400
    assert wrong_share(block_of(text)) == 0
    dirty = bytearray(text)
    dirty[100:140] = b"\1" * 40
    assert wrong_share(bytes(dirty)) == pytest.approx(0.01)
    assert rule.is_text_rule(bytes(dirty), 0.0101) and not rule.is_text_rule(bytes(dirty), 0.0099)
    undecodable = text[:1000] + b"\xff" * 10 + text[1010:]
    assert wrong_share(undecodable) == pytest.approx(10 / 4000)
    assert wrong_share(np.zeros(BLOCK, "uint8")) == 1


def test_the_rule_is_right_on_nearly_all_blocks(loaded):
    """The records say 99.7% of 6000; a slip in it costs a whole kind, a tenth."""
    x, y, _ = loaded["train"]
    right = [rule.is_text_rule(block) == (label != 0) for block, label in zip(x, y, strict=True)]
    assert np.mean(right) > 0.96


def test_the_threshold_is_the_best_one():
    def block_with(fraction):
        return bytes(round(1000 * fraction) * [1]) + (1000 - round(1000 * fraction)) * b"a"

    labels = np.array([1, 1, 1, 0, 0])
    fractions = (0, 0.004, 0.004, 0.11, 0.12)
    assert evaluate.choose_threshold([block_with(x) for x in fractions], labels) == 0.1
    fractions = (0, 0.004, 0.004, 0.01, 0.01)
    assert evaluate.choose_threshold([block_with(x) for x in fractions], labels) == 0.005


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "other"])
def test_the_plain_rule_names_the_kind_of_most_blocks(loaded, kind):
    x, y, _ = loaded["train"]
    named = [rule.kind_rule(block) for block in x[y == KINDS.index(kind)]]
    assert named.count(kind) > len(named) / 2


def test_the_rule_says_whether_and_the_network_what(model, loaded):
    x, _, _ = loaded["test"]
    named = evaluate.name_kinds(x, model)
    best = 1 + classify_blocks(model, x)[:, 1:].argmax(1)
    for block, name, place in zip(x, named, best, strict=True):
        assert name == (KINDS[place] if rule.is_text_rule(block) else "other")
    assert evaluate.name_kinds(x) == [rule.kind_rule(block) for block in x]
    assert evaluate.name_kinds(np.zeros((3, BLOCK), "uint8"), model) == ["other"] * 3


# --- The network ---
def test_together_or_one_by_one_is_the_same(model, loaded):
    x = loaded["test"][0][:9]
    together = classify_blocks(model, x, batch_size=4)
    assert together.shape == (9, len(KINDS)) and together.dtype == np.float32
    np.testing.assert_allclose(together.sum(1), 1, rtol=1e-5)
    single = np.concatenate([classify_blocks(model, block[None]) for block in x])
    np.testing.assert_allclose(single, together, atol=1e-5)
    assert classify_blocks(model, x[:0]).shape == (0, len(KINDS))


def test_the_network_is_small_and_survives_being_saved(model, loaded, tmp_path):
    assert model.count_params() < 100_000
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    x = loaded["test"][0][:5]
    np.testing.assert_array_equal(classify_blocks(again, x), classify_blocks(model, x))


def test_one_step_moves_every_weight(loaded):
    model = build_model()
    before = [np.array(w) for w in model.get_weights()]
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y, _ = loaded["train"]
    model.train_on_batch(x[::5], y[::5])
    moved = [np.abs(a - b).max() for a, b in zip(before, model.get_weights(), strict=True)]
    assert all(moved)


# --- Metrics ---
def test_intervals_are_those_of_files_not_of_blocks():
    hits = np.repeat([True, True, True, False], 50)
    alone = evaluate.proportion_over_files(hits, np.arange(200).astype(str))
    together = evaluate.proportion_over_files(hits, np.repeat(list("abcd"), 50))
    plain = proportion(150, 200)
    assert alone["value"] == together["value"] == plain["value"] == 0.75
    for found in (alone, together):
        assert found["n"] == 200 and found["low"] <= plain["low"] < plain["high"] <= found["high"]
    assert alone["high"] - alone["low"] < 0.14 and together["low"] < 0.4


def test_false_alarms_and_misses_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 2, 3, 4, 5, 6])
    called = np.array([1, 0, 0, 0, 1, 1, 1, 1, 0, 0], bool)
    found = evaluate.measure_text("x, ", {"rule": called}, labels, [str(i) for i in range(10)])
    values = {name: metric["value"] for name, metric in found.items()}
    assert values == {
        "x, text or not, rule": 0.7,
        "x, false alarms, rule": 0.25,
        "x, misses, rule": pytest.approx(1 / 3),
    }
    assert [found[name]["n"] for name in found] == [10, 4, 6]


# --- A run ---
@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder of someone's own files."""
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    for kind in ("other", *TEXTS):
        (folder / kind / "deep").mkdir(parents=True)
        (folder / kind / "empty").touch()  # Of no use, so not counted.
        for i in range(12):
            data = rng.bytes(9000) if kind == "other" else (TEXTS[kind] * (90 + i))[i:].encode()
            (folder / kind / ("deep" if i % 2 else ".") / f"{i}.x").write_bytes(data)
    return folder


def run_flags(own, run_dir):
    flags = ["--data", str(own), "--num-train", "2", "--num-test", "1", "--epochs", "3"]
    return [*flags, "--batch-size", "16", "--seed", "3", "--run-dir", str(run_dir)]


@pytest.fixture(scope="module")
def own_run(own, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    return run_dir, train.main(run_flags(own, run_dir))


def test_own_files_are_split_by_file(own):
    data = dataset.load(str(own), 2)
    splits, notes = data.splits, data.notes
    files = {split: set(names) for split, (_, _, names) in splits.items()}
    assert sorted(map(len, files.values())) == [4, 8, 36] and len(set.union(*files.values())) == 48
    assert notes["num_train"] == len(splits["train"][1]) and notes["test_files"] == 8
    for _, y, names in splits.values():
        assert all(n.split("/")[0] == KINDS[label] for n, label in zip(names, y, strict=True))


def test_of_equal_files_one_is_taken(own, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(own, again)
    for path in [path for path in again.rglob("*.x") if int(path.stem) < 6]:
        path.with_name(f"copy-{path.name}").write_bytes(path.read_bytes())
    splits = dataset.load(str(own), 2).splits
    twice = dataset.load(str(again), 2).splits
    for split in splits:
        assert np.array_equal(twice[split][0], splits[split][0])


def test_equal_blocks_of_own_files_are_in_no_two_splits(own, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(own, again)
    head = (TEXTS["c"] * 200)[:BLOCK].encode()  # As a licence is at the head of all files.
    for path in again.glob("c/**/*.x"):
        path.write_bytes(head + path.read_bytes())
    splits = dataset.load(str(again), 5).splits
    seen = [block.tobytes() for x, _, _ in splits.values() for block in x]
    assert len(seen) == len(set(seen)) and seen.count(head) == 1


def test_own_files_of_one_name_are_different_files(own, tmp_path):
    again = tmp_path / "again"
    for number, path in enumerate(own.rglob("*.x")):
        place = again / path.relative_to(own).parts[0] / str(number)
        place.mkdir(parents=True)
        shutil.copyfile(path, place / "__init__.py")
    notes = dataset.load(str(again), 2).notes
    assert [notes[f"{split}_files"] for split in ("train", "valid", "test")] == [36, 4, 8]


def test_own_files_beyond_the_most_are_left_out(own):
    splits = blocks.load_folder(own, 2, max_blocks={"train": 5, "valid": 2, "test": 3})
    counts = [np.bincount(y)[np.unique(y)] for _, y, _ in splits.values()]
    assert (counts[0] == 5).all() and counts[1].max() == 2 and counts[2].max() == 3


def test_bad_folders_and_flags_are_one_line(own, tmp_path, error_of):
    for bad in (tmp_path, tmp_path / "missing", own / "python"):
        assert str(bad) in error_of(dataset.load, str(bad))
    for kind in ("other", "c"):
        (tmp_path / "same" / kind).mkdir(parents=True)
        for i in range(10):  # Of ten files of zeros, a block of zeros.
            (tmp_path / "same" / kind / str(i)).write_bytes(bytes(10 + i))
    assert "too few different blocks" in error_of(dataset.load, str(tmp_path / "same"))
    (tmp_path / "same" / "c" / "0").unlink()
    assert "c has 9 different files" in error_of(dataset.load, str(tmp_path / "same"))
    (tmp_path / "same" / "Java").mkdir()
    assert "Java is not a kind" in error_of(dataset.load, str(tmp_path / "same"))
    flags = run_flags(own, tmp_path / "run")
    assert "at least 1" in error_of(train.main, [*flags, "--epochs", "0"])
    assert "above 0" in error_of(train.main, [*flags, "--learning-rate", "nan"])
    assert "--batch-size" in error_of(train.main, [*flags, "--batch-size", "9999"])
    assert not (tmp_path / "run").exists()


def test_record_of_a_run(own_run, assert_drawn):
    run_dir, record = own_run
    assert record == json.loads((run_dir / "record.json").read_text())
    metrics = record["metrics"]
    for method in ("model", "rule", "rule and model"):
        for name in ("text or not", "false alarms", "misses"):
            metric = metrics[f"{name}, {method}"]
            assert metric["low"] <= metric["value"] <= metric["high"]
        assert f"text or not, wrong by kind, {method}" in record["details"]
    speeds = {
        method: metrics[f"blocks a second, {method}"]["value"]
        for method in ("model", "rule, text or not", "rule, kind")
    }
    # To name a kind is several times the work of telling text from other bytes.
    assert speeds["rule, text or not"] > speeds["rule, kind"] > 0 and speeds["model"] > 0
    best = max(record["history"], key=lambda e: (e["val_accuracy"], e["epoch"]))
    assert record["selection"].startswith(f"best validation epoch {best['epoch']} of 3; ")
    assert_drawn(run_dir / "confusion.png")
    # What was recorded is what the saved model gives.
    splits = dataset.load(record["arguments"]["data"], 2).splits
    x, y, _ = splits["test"]
    saved = keras.saving.load_model(run_dir / "model.keras", compile=False)
    right = (classify_blocks(saved, x).argmax(1) == y).mean()
    assert metrics["kind, model"]["value"] == pytest.approx(right)


def test_same_seed_same_run_and_a_killed_one_resumes_to_it(
    own, own_run, tmp_path, kill_in_second_epoch, assert_same_state
):
    """kill -9 in the middle of the second epoch, then --resume."""
    straight, record = own_run
    flags = run_flags(own, tmp_path / "killed")
    kill_in_second_epoch("linux_undelete", flags)
    resumed = train.main([*flags, "--resume"])
    assert resumed["resumed"] and len(record["history"]) == 3
    assert resumed["history"] == record["history"] and resumed["data"] == record["data"]
    assert_same_state(straight / "state.npz", tmp_path / "killed" / "state.npz")


def test_the_embedded_set_in_a_smoke_run(tmp_path):
    """Every line of it, with the files of this machine; the numbers prove nothing."""
    record = train.main(["--smoke", "--run-dir", str(tmp_path / "run")])
    assert record["data"]["name"] == f"blocks of files v{blocks.VERSION}"
    assert len(record["data"]["sha256"]) == 64 and record["data"]["num_test"] > 100
    assert "other files of this machine" in record["details"]


@pytest.mark.parametrize("words", [["predict.py", "--help"], ["check.py", "ls"], ["predict.py"]])
def test_recovering_and_checking_start_without_keras(words, tmp_path):
    script, *flags = words
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['x', *{flags!r}]\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / 'linux_undelete' / script)!r}, run_name='__main__')\n"
        "except SystemExit:\n"
        "    pass\n"
        "print({'keras', 'tensorflow', 'matplotlib'} & set(sys.modules), file=sys.stderr)\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "set()"
