"""rnn_saliency/dataset.py: reviews in files, splits, words."""

import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

from rnn_saliency import dataset

ROWS = [("房间很好", 1), ("书很枯燥, 不好", 0), ("a\tb", 1)]


def workbook(path, **_):
    """In place of xlrd: a workbook whose rows are the lines of the file."""
    lines = path.read_text().splitlines()
    sheet = SimpleNamespace(nrows=len(lines), cell_value=lambda row, _: lines[row])
    return SimpleNamespace(sheet_by_index=lambda _: sheet)


@pytest.fixture
def fake_xlrd(monkeypatch):
    monkeypatch.setitem(sys.modules, "xlrd", SimpleNamespace(open_workbook=workbook))


# --- Files ---
def test_spreadsheets_are_read_by_their_names(tmp_path, fake_xlrd):
    (tmp_path / "pos.xls").write_text("好\n很好")
    (tmp_path / "neg.xls").write_text("差")
    rows, name = dataset.read_source(tmp_path)
    assert rows == {"all": [("差", 0), ("好", 1), ("很好", 1)]} and name == "pos.xls + neg.xls"


def test_missing_spreadsheets_and_missing_xlrd_are_one_line(
    tmp_path, fake_xlrd, monkeypatch, error_of
):
    assert f"no {tmp_path / 'neg.xls'}: expected pos.xls" in error_of(dataset.read_source, tmp_path)
    (tmp_path / "neg.xls").write_text("差")
    line = error_of(dataset.read_source, tmp_path)
    assert str(tmp_path / "pos.xls") in line and "one review a row" in line
    assert "give the folder" in error_of(dataset.read_source, tmp_path / "neg.xls")
    monkeypatch.setitem(sys.modules, "xlrd", None)
    assert "pip install xlrd" in error_of(dataset.read_source, tmp_path)


def test_a_damaged_spreadsheet_is_one_line(tmp_path, error_of):
    for name in ("neg.xls", "pos.xls"):
        (tmp_path / name).write_text("no spreadsheet")
    line = error_of(dataset.read_source, tmp_path)
    assert str(tmp_path / "neg.xls") in line and "not an intact .xls file" in line


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_tables_with_and_without_a_header(tmp_path, encoding):
    table = tmp_path / "a.csv"
    table.write_text('label,review\n1,房间很好\nneg,"书很枯燥, 不好"\n\n正面,a\tb', encoding)
    assert dataset.read_table(table, ("review", "label")) == ROWS
    table = tmp_path / "a.tsv"
    table.write_text('房间"很好\t1\n书很枯燥\t0\n', encoding)
    assert dataset.read_table(table) == [('房间"很好', 1), ("书很枯燥", 0)]
    assert dataset.read_source(table)[0] == {"all": dataset.read_table(table)}


def test_the_authors_later_split(tmp_path):
    for part, text in (("train", "a\t1\nb\t0"), ("valid", "c\t1"), ("test", "d\t0")):
        (tmp_path / f"sentiment.{part}.data").write_text(text)
    expected = {"train": [("a", 1), ("b", 0)], "valid": [("c", 1)], "test": [("d", 0)]}
    for source in (tmp_path, tmp_path / "sentiment.train.data"):
        assert dataset.read_source(source) == (expected, "sentiment.train.data")


def test_bad_tables_are_one_line_with_file_and_line(tmp_path, error_of):
    def line_of(content, *columns, name="a.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        line = error_of(dataset.read_table, path, *[columns] * bool(columns))
        assert str(path) in line
        return line

    assert "line 2: label '很好'" in line_of("text,label\n1,很好")
    assert "--columns" in line_of("1,房间很好")
    assert "no columns text and stars" in line_of("text,label\n好,1", "text", "stars")
    assert "line 1: no columns text and label" in line_of("a,b,c\n好,1,2")
    assert "line 3: 1 columns, expected 2" in line_of("text,label\n好,1\n差")
    good, gbk = "text,label\n房间很好,1\n", "书很枯燥,0\n".encode("gbk")
    assert "line 3: GBK, but the lines before are UTF-8" in line_of(good.encode() + gbk)
    mixed = b"text,label\n" + gbk + "房间很好,1\n".encode()
    assert "line 3: UTF-8, but the lines before are GBK" in line_of(mixed)
    assert "line 2: neither UTF-8 nor GBK" in line_of(b"text,label\n\xff\xff\xff,1")
    assert "no" in error_of(dataset.read_source, tmp_path / "none.csv")


def test_long_texts_and_quotes_are_read(tmp_path):
    long = "房间很好" * 50_000
    (tmp_path / "a.csv").write_text(f'text,label\n"{long}",1')
    assert dataset.read_table(tmp_path / "a.csv") == [(long, 1)]


# --- Splits ---
def rows_with_copies():
    rows = [(f"review {i}", i % 2) for i in range(600)]
    rows += [(f"review  {i} ", i % 2) for i in range(200)]  # Copies, but for white space.
    return [*rows, ("review 7", 0), (" ", 0), ("", 1)]


def test_deduplicated_parts_share_no_text():
    parts, left_out = dataset.split_rows({"all": rows_with_copies()}, "a", True)
    keys = {p: {"".join(text.split()) for text, _ in rows} for p, rows in parts.items()}
    assert sum(map(len, keys.values())) == sum(map(len, parts.values())) == 599
    assert len(set.union(*keys.values())) == 599 and "review7" not in set.union(*keys.values())
    assert left_out == {"copies": 199, "with both labels": 3, "empty": 2}
    assert [len(parts[p]) for p in dataset.PARTS] == [426, 57, 116]
    assert parts == dataset.split_rows({"all": rows_with_copies()}, "a", True)[0]


def test_the_posts_split_leaks():
    parts, left_out = dataset.split_rows({"all": rows_with_copies()}, "a", False)
    keys = {p: {"".join(text.split()) for text, _ in rows} for p, rows in parts.items()}
    assert sum(map(len, parts.values())) == 801 and left_out == {"empty": 2}
    assert len(keys["train"] & keys["test"]) > 20


def test_a_split_that_comes_with_the_data_is_kept():
    rows = {"train": [("a", 1), ("b", 0), ("c", 0), ("d", 0)], "valid": [("b ", 0), ("e", 1)]}
    rows["test"] = [("c", 0), ("f", 1)]
    parts, left_out = dataset.split_rows(rows, "a", True)
    assert parts == rows | {"train": [("a", 1), ("d", 0)]} and left_out == {"copies": 2}
    assert dataset.split_rows(rows, "a", False) == (rows, {})


def test_too_few_of_a_class_is_one_line(error_of):
    rows = [(f"good {i}", 1) for i in range(30)] + [("bad", 0)]
    line = error_of(dataset.split_rows, {"all": rows}, "a.csv", True)
    assert line == "error: a.csv: 1 negative reviews, expected 10 or more of each kind"
    rows = {"train": rows, "valid": rows[:2], "test": rows}
    assert "the valid part has" in error_of(dataset.split_rows, rows, "a.csv", False)


# --- Words ---
def test_vocabulary_and_ids():
    reviews = [["a", "b", "a"], ["b", "c", "a"], ["d"]]
    vocabulary = dataset.build_vocabulary(reviews, min_count=1)
    assert vocabulary == ["a", "b", "c", "d"]
    assert dataset.build_vocabulary(reviews, min_count=2) == ["a", "b"]
    ids = dataset.encode([["a", "x", "b", "c"], ["d"], []], vocabulary, max_words=3)
    assert ids.tolist() == [[1, 0, 2], [4, 0, 0], [0, 0, 0]] and ids.dtype == "int32"
    assert dataset.encode([["a"]], vocabulary, 100).shape == (1, 1)


def test_a_cutter_comes_back_from_its_file(tmp_path):
    for words in (None, ["很", "很好", "房间"]):
        cutter = dataset.Cutter(words)
        dataset.save_words(tmp_path / "words.json", ["好"], cutter, max_words=7)
        settings, again = dataset.load_words(tmp_path / "words.json")
        assert settings["vocabulary"] == ["好"] and settings["max_words"] == 7
        text = "这家酒店的房间很好 very good"
        assert again(text) == cutter(text) and "房间" in again(text)
        assert "".join(again(text)) == text.replace(" ", "")
    assert dataset.Cutter(["很", "好"])("很好") == ["很", "好"]


# --- The post's data, where it is at hand ---
def test_the_posts_files():
    folder = ROOT / "data" / "downloads" / "sentiment"
    if not (folder / "pos.xls").exists():
        pytest.skip("no data/downloads/sentiment")
    rows, name = dataset.read_source(folder)
    assert len(rows["all"]) == 21_107 and sum(label for _, label in rows["all"]) == 10_679
    parts, left_out = dataset.split_rows(rows, name, False)
    assert left_out == {"empty": 2} and len(parts["train"]) == 15_000
    parts, left_out = dataset.split_rows(rows, name, True)
    assert sum(map(len, parts.values())) + sum(left_out.values()) == 21_107
