"""Labelled reviews in files, cut into words and numbered.

A source is a folder with pos.xls and neg.xls (one review a row, no header), a folder with
files NAME.train.EXT, NAME.valid.EXT and NAME.test.EXT, the first of these files, or any one
.csv or .tsv file with a column of texts and a column of labels. Text is UTF-8 or GB18030.
"""

import csv
import importlib.metadata
import io
import json
import logging
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.damage import first_line
from common.run import fail, load_file, write_text

SPLIT_SEED = 4582  # The split does not change with --seed.
LABELS = {"0": 0, "neg": 0, "negative": 0, "负": 0, "负面": 0, "差评": 0}
LABELS |= {"1": 1, "pos": 1, "positive": 1, "正": 1, "正面": 1, "好评": 1}
COLUMNS = ("text", "label")
PARTS = ("train", "valid", "test")


# --- Files ---
def read_workbook(path, label):
    """[(text, label)] of the first column of a spreadsheet in the old Excel format."""
    if not path.is_file():
        fail(f"no {path}: expected pos.xls and neg.xls, one review a row")
    try:
        import xlrd
    except ImportError:
        fail(f"{path} needs the package xlrd: pip install xlrd")
    try:
        # Of a damaged file xlrd tells in many lines on its log.
        sheet = xlrd.open_workbook(path, logfile=io.StringIO()).sheet_by_index(0)
        texts = [str(sheet.cell_value(row, 0)) for row in range(sheet.nrows)]
    except Exception as error:  # Of a dozen kinds, as a file may be cut anywhere.
        fail(f"{path} is no intact .xls file: {first_line(error)}")
    return [(text, label) for text in texts]


def read_text(path):
    """The text of a file in UTF-8 or GB18030; one that mixes them is named with its line."""
    try:
        data = path.read_bytes()
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    first = None
    for number, line in enumerate(data.splitlines(), 1):
        if line.isascii():
            continue
        try:
            # So many characters in a row are valid UTF-8 by accident in one line of thousands.
            sure = len(re.findall(r"[^\x00-\x7f]", line.decode("utf-8"))) >= 4
            kind = "UTF-8" if sure else first or "UTF-8"
        except UnicodeDecodeError:
            kind = "GBK"
            try:
                line.decode("gb18030")
            except UnicodeDecodeError:
                fail(f"{path}, line {number}: neither UTF-8 nor GBK")
        first = first or kind
        if kind != first:
            fail(f"{path}, line {number}: {kind}, but the lines before are {first}: save it as one")
    try:
        return data.decode("gb18030")
    except UnicodeDecodeError as error:  # A line may end within a character of another.
        line = data.count(b"\n", 0, error.start) + 1
        fail(f"{path}, line {line}: neither UTF-8 nor GBK")


def read_table(path, columns=COLUMNS):
    """[(text, label)] of a .csv file, or of any other with tabs, with or without a header."""
    csv.field_size_limit(sys.maxsize)
    style = {"delimiter": ","}
    if path.suffix != ".csv":  # With tabs a quotation mark is one like any other.
        style = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    lines = csv.reader(io.StringIO(read_text(path), newline=""), **style)
    rows, places = [], None
    try:
        for row in lines:
            where = f"{path}, line {lines.line_num}"
            if places is None:
                names = [name.strip() for name in row]
                places = [names.index(name) for name in columns if name in names]
                if len(places) == 2:
                    continue
                if tuple(columns) != COLUMNS or len(row) != 2:
                    names = " and ".join(columns)
                    fail(f"{where}: no columns {names} in {', '.join(row)[:80]!r}; see --columns")
                places = [0, 1]  # Two columns without a header: text and label.
            if not any(row):
                continue
            if len(row) <= max(places):
                fail(f"{where}: {len(row)} columns, expected {max(places) + 1} or more")
            text, label = (row[place] for place in places)
            if (known := label.strip().lower()) not in LABELS:
                fail(
                    f"{where}: label {label[:20]!r}, expected one of {', '.join(LABELS)}; "
                    "--columns TEXT LABEL names the columns of a header"
                )
            rows.append((text, LABELS[known]))
    except csv.Error as error:
        fail(f"{path}, line {lines.line_num}: {error}")
    return rows


def read_source(source, columns=COLUMNS):
    """{"all": rows} or {"train" | "valid" | "test": rows}, each row (text, label), and a name."""
    path = Path(source)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix == ".xls")
        parts = sorted(p for p in path.iterdir() if ".train." in p.name)
        if found or not parts:
            rows = [
                row for k in (0, 1) for row in read_workbook(path / ("neg.xls", "pos.xls")[k], k)
            ]
            return {"all": rows}, "pos.xls + neg.xls"
        path = parts[0]
    if not path.is_file():
        fail(f"no {path}: expected pos.xls and neg.xls in a folder, or a .csv or .tsv file")
    if path.suffix == ".xls":
        fail(f"{path}: give the folder that holds pos.xls and neg.xls")
    if ".train." in path.name:
        paths = {p: path.with_name(path.name.replace(".train.", f".{p}.")) for p in PARTS}
        return {part: read_table(p, columns) for part, p in paths.items()}, path.name
    return {"all": read_table(path, columns)}, path.name


# --- Splits ---
def split_rows(rows, name, deduplicated):
    """{"train" | "valid" | "test": rows}, and how many rows were left out, and why.

    Rows are drawn: of 21,105 the post trains on 15,000; a third of the others is for validation.
    A split that comes with the data is kept. deduplicated: of texts that are equal but for white
    space one is kept (in the test part if it is there, or else in the validation part), and none
    of those that occur with both labels.
    """
    key = {row: "".join(row[0].split()) for part in rows.values() for row in part}
    labels, left_out, parts, seen = {}, Counter(), {}, set()
    for (_, label), text in key.items():
        labels.setdefault(text, set()).add(label)
    for part in ("all", "test", "valid", "train"):
        parts[part] = []
        for row in rows.get(part, ()):
            text = key[row]
            if not text:
                left_out["empty"] += 1
            elif deduplicated and len(labels[text]) > 1:
                left_out["with both labels"] += 1
            elif deduplicated and text in seen:
                left_out["copies"] += 1
            else:
                parts[part].append(row)
                seen.add(text)
    if "all" in rows:
        rows = parts["all"]
        counts = Counter(label for _, label in rows)
        for label, what in enumerate(("negative", "positive")):
            if counts[label] < 10:
                fail(f"{name}: {counts[label]} {what} reviews, expected 10 or more of each kind")
        order = np.random.default_rng(SPLIT_SEED).permutation(len(rows))
        num_train = round(len(rows) * 15_000 / 21_105)
        num_valid = (len(rows) - num_train) // 3
        places = np.split(order, [num_train, num_train + num_valid])
        parts = {p: [rows[i] for i in some] for p, some in zip(PARTS, places, strict=True)}
    for part in PARTS:
        if {label for _, label in parts[part]} != {0, 1}:
            fail(f"{name}: the {part} part has {len(parts[part])} reviews, not of both kinds")
    return {part: parts[part] for part in PARTS}, dict(left_out)


# --- Words ---
class Cutter:
    """Cuts text into words, always the same: jieba, with its own dictionary or these words."""

    def __init__(self, words=None):
        import jieba  # Here, so that --help answers at once.

        jieba.setLogLevel(logging.WARNING)
        self.words, self.tokenizer = words, jieba.Tokenizer()
        if words:
            lines = "\n".join(f"{word} 1" for word in words)
            table = self.tokenizer.gen_pfdict(io.BytesIO(lines.encode()))
            self.tokenizer.FREQ, self.tokenizer.total = table
            self.tokenizer.initialized = True

    def __call__(self, text):
        """The list of words; white space is none. HMM guesses words of no dictionary."""
        return [w for w in self.tokenizer.cut(text, HMM=not self.words) if not w.isspace()]

    def cut_all(self, texts):
        """The words of many texts."""
        return [self(text) for text in tqdm(list(texts), desc="cut into words", disable=None)]


def build_vocabulary(reviews, min_count):
    """The words that occur so often, most frequent first; word i of the list has id i + 1."""
    counts = Counter(word for words in reviews for word in words)
    kept = [word for word, count in counts.items() if count >= min_count]
    return sorted(kept, key=lambda word: (-counts[word], word))


def encode(reviews, vocabulary, max_words):
    """int32 (reviews, words): ids of the first words; 0 = unknown, and fills up at the end."""
    index = {word: number for number, word in enumerate(vocabulary, 1)}
    longest = max((len(words) for words in reviews), default=0)
    ids = np.zeros((len(reviews), max(1, min(max_words, longest))), "int32")
    for row, words in zip(ids, reviews, strict=True):
        known = [index.get(word, 0) for word in words[:max_words]]
        row[: len(known)] = known
    return ids


def save_words(path, vocabulary, cutter, **settings):
    """What predict.py needs to number the words of a text as train.py did."""
    words = {"vocabulary": vocabulary, "dictionary": cutter.words} | settings
    words["jieba"] = importlib.metadata.version("jieba")
    write_text(path, json.dumps(words, ensure_ascii=False))


def load_words(path):
    """The dict that save_words wrote, and its Cutter."""
    words = load_file(path)
    if not isinstance(words, dict) or "vocabulary" not in words:
        fail(f"{path} is damaged: no vocabulary in it")
    if (version := importlib.metadata.version("jieba")) != words["jieba"]:
        note = f"note: jieba {version} may cut otherwise than {words['jieba']}, as in training"
        print(note, file=sys.stderr)
    return words, Cutter(words["dictionary"])
