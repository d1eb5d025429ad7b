"""Labelled reviews: written by code, or read from files; cut into words and encoded as ids.

A source of your own is a folder with pos.xls and neg.xls (one review a row, no header), a folder
with files NAME.train.EXT, NAME.valid.EXT and NAME.test.EXT, the first of these files, or any one
.csv or .tsv file with a column of texts and a column of labels. Text is UTF-8 or GB18030.
"""

import csv
import hashlib
import importlib.metadata
import io
import json
import logging
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import jieba
import keras
import numpy as np
from tqdm import tqdm

from common.cli import fail, first_line, note
from common.files import read_json, write_text
from data import reviews
from rnn_saliency.model import ngram_ids

SPLIT_SEED = 4582  # The split does not change with --seed.
LABELS = {
    "0": 0,
    "neg": 0,
    "negative": 0,
    "负": 0,
    "负面": 0,
    "差评": 0,
    "1": 1,
    "pos": 1,
    "positive": 1,
    "正": 1,
    "正面": 1,
    "好评": 1,
}
COLUMNS = ("text", "label")
PARTS = ("train", "valid", "test")
SIZES = (6000, 1000, 1000)  # Written reviews of each part.
SMOKE_SIZES = (300, 60, 60)
MIN_REVIEWS = 10  # Of each label.
# Of 21,105 reviews the post trains on 15,000.
TRAIN_FRACTION = 15_000 / 21_105


@dataclass
class ReviewData:
    """Reviews, cut into words.

    Attributes:
        words: {"train" | "valid" | "test": list of lists of words}.
        labels: {part: int array}; 1 is praise, 0 is blame.
        causes: {part: places of the words that cause the label, for each review; None where
            nobody knows}.
        cutter: cuts other texts in the same way.
        notes: what the record says of the data.
    """

    words: dict
    labels: dict
    causes: dict
    cutter: "Cutter"
    notes: dict


# --- Loading ---
def load(source=None, split="deduplicated", columns=COLUMNS, sizes=SIZES):
    """The ReviewData of a source, or of written reviews.

    Args:
        source: a path, or None.
        split: "post" or "deduplicated", see split_rows.
        columns: the names of the columns of texts and labels, of a table.
        sizes: how many reviews are written for each part.
    """
    if source is None:
        words, labels, causes = write_reviews(sizes)
        cutter = Cutter(sorted({word for review in words["train"] for word in review}))
        notes = {"name": f"written reviews v{reviews.VERSION}"}
    else:
        rows, name = read_source(source, columns)
        rows, left_out = split_rows(rows, name, split == "deduplicated")
        cutter = Cutter()
        words = {part: cutter.cut_all(text for text, _ in rows[part]) for part in PARTS}
        labels = {part: [label for _, label in rows[part]] for part in PARTS}
        causes = dict.fromkeys(PARTS)
        notes = {"name": name, "split": split, "left_out": left_out}
    digest = hashlib.sha256()
    for part in PARTS:
        digest.update("\n".join("\t".join(review) for review in words[part]).encode())
        digest.update(bytes(labels[part]))
        notes[f"num_{part}"] = len(labels[part])
    notes["sha256"] = digest.hexdigest()
    labels = {part: np.array(values) for part, values in labels.items()}
    return ReviewData(words, labels, causes, cutter, notes)


def write_reviews(sizes):
    """{part: words}, {part: labels}, {part: causes} of written reviews."""
    words = {}
    labels = {}
    causes = {}
    for part, count in zip(PARTS, sizes, strict=True):
        written = reviews.load(part, count)
        words[part] = [review.words for review in written]
        labels[part] = [review.label for review in written]
        causes[part] = [review.causes for review in written]
    return words, labels, causes


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
        # About a damaged file xlrd writes many lines to its log.
        sheet = xlrd.open_workbook(path, logfile=io.StringIO()).sheet_by_index(0)
        texts = [str(sheet.cell_value(row, 0)) for row in range(sheet.nrows)]
    except Exception as error:  # A damaged file raises errors of a dozen classes.
        fail(f"{path} is not an intact .xls file: {first_line(error)}")
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
        refuse_mixed_encodings(path, data)
    try:
        return data.decode("gb18030")
    except UnicodeDecodeError as error:  # A line may end within a character of another.
        line = data.count(b"\n", 0, error.start) + 1
        fail(f"{path}, line {line}: neither UTF-8 nor GBK")


def refuse_mixed_encodings(path, data):
    """Ends with one line where some lines are UTF-8 and others GBK."""
    encoding = None
    for number, line in enumerate(data.splitlines(), 1):
        if line.isascii():
            continue
        found = encoding_of_line(line, encoding)
        if found is None:
            fail(f"{path}, line {number}: neither UTF-8 nor GBK")
        if encoding is None:
            encoding = found
        if found != encoding:
            fail(
                f"{path}, line {number}: {found}, but the lines before are {encoding}: "
                "save it as one"
            )


def encoding_of_line(line, before):
    """UTF-8, GBK or None; `before` is the encoding of the lines before."""
    try:
        characters = re.findall(r"[^\x00-\x7f]", line.decode("utf-8"))
    except UnicodeDecodeError:
        try:
            line.decode("gb18030")
        except UnicodeDecodeError:
            return None
        return "GBK"
    # So many characters are valid UTF-8 by accident in one line of thousands.
    if len(characters) >= 4 or before is None:
        return "UTF-8"
    return before


def read_table(path, columns=COLUMNS):
    """[(text, label)] of a .csv file, or of any other with tabs, with or without a header."""
    csv.field_size_limit(sys.maxsize)
    file = io.StringIO(read_text(path), newline="")
    if path.suffix == ".csv":
        lines = csv.reader(file)
    else:  # In a file with tabs a quotation mark is a character like any other.
        lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    rows = []
    places = None
    try:
        for row in lines:
            where = f"{path}, line {lines.line_num}"
            if places is None:
                places, is_header = find_columns(row, columns, where)
                if is_header:
                    continue
            if any(row):
                rows.append(read_row(row, places, where))
    except csv.Error as error:
        fail(f"{path}, line {lines.line_num}: {error}")
    return rows


def find_columns(row, columns, where):
    """(the places of text and label, whether the first row is a header)."""
    names = [name.strip() for name in row]
    places = [names.index(name) for name in columns if name in names]
    if len(places) == 2:
        return places, True
    # Two columns without a header are text and label, unless other names were asked for.
    if tuple(columns) != COLUMNS or len(row) != 2:
        expected = " and ".join(columns)
        fail(f"{where}: no columns {expected} in {', '.join(row)[:80]!r}; see --columns")
    return [0, 1], False


def read_row(row, places, where):
    """(text, label) of a row."""
    if len(row) <= max(places):
        fail(f"{where}: {len(row)} columns, expected {max(places) + 1} or more")
    text = row[places[0]]
    label = row[places[1]]
    known = label.strip().lower()
    if known not in LABELS:
        fail(
            f"{where}: label {label[:20]!r}, expected one of {', '.join(LABELS)}; "
            "--columns TEXT LABEL names the columns of a header"
        )
    return text, LABELS[known]


def read_source(source, columns=COLUMNS):
    """({"all": rows} or {part: rows}, the name of the data); each row is (text, label)."""
    path = Path(source)
    if path.is_dir():
        parts = sorted(p for p in path.iterdir() if ".train." in p.name)
        if not parts or any(p.suffix == ".xls" for p in path.iterdir()):
            rows = read_workbook(path / "neg.xls", 0) + read_workbook(path / "pos.xls", 1)
            return {"all": rows}, "pos.xls + neg.xls"
        path = parts[0]
    if not path.is_file():
        fail(f"no {path}: expected pos.xls and neg.xls in a folder, or a .csv or .tsv file")
    if path.suffix == ".xls":
        fail(f"{path}: give the folder that holds pos.xls and neg.xls")
    if ".train." in path.name:
        rows = {}
        for part in PARTS:
            name = path.name.replace(".train.", f".{part}.")
            rows[part] = read_table(path.with_name(name), columns)
        return rows, path.name
    return {"all": read_table(path, columns)}, path.name


# --- Splits ---
def split_rows(rows, name, deduplicated):
    """({part: rows}, how many rows were left out, and why).

    Without a split of its own the data are split at random: of 21,105 reviews the post trains on
    15,000; a third of the others is for validation. A split that comes with the data is kept.

    Args:
        rows: {"all": rows} or {part: rows}.
        name: of the data, for messages.
        deduplicated: of texts that are equal but for white space one is kept (in the test part if
            it is there, or else in the validation part), and none of those that occur with both
            labels.
    """
    kept, left_out = choose_rows(rows, deduplicated)
    if "all" in rows:
        kept = split_at_random(kept["all"], name)
    for part in PARTS:
        if {label for _, label in kept[part]} != {0, 1}:
            fail(f"{name}: the {part} part has {len(kept[part])} reviews, not of both kinds")
    return {part: kept[part] for part in PARTS}, dict(left_out)


def choose_rows(rows, deduplicated):
    """({part: the rows that are kept}, a count of the others by reason)."""
    labels = {}
    for row in (row for part in rows.values() for row in part):
        labels.setdefault(without_spaces(row), set()).add(row[1])
    kept = {}
    left_out = Counter()
    seen = set()
    for part in ("all", "test", "valid", "train"):
        kept[part] = []
        for row in rows.get(part, ()):
            text = without_spaces(row)
            if not text:
                left_out["empty"] += 1
            elif deduplicated and len(labels[text]) > 1:
                left_out["with both labels"] += 1
            elif deduplicated and text in seen:
                left_out["copies"] += 1
            else:
                kept[part].append(row)
                seen.add(text)
    return kept, left_out


def without_spaces(row):
    """What two equal texts share."""
    text, _ = row
    return "".join(text.split())


def split_at_random(rows, name):
    counts = Counter(label for _, label in rows)
    for label, word in enumerate(("negative", "positive")):
        if counts[label] < MIN_REVIEWS:
            fail(
                f"{name}: {counts[label]} {word} reviews, "
                f"expected {MIN_REVIEWS} or more of each kind"
            )
    order = np.random.default_rng(SPLIT_SEED).permutation(len(rows))
    num_train = round(len(rows) * TRAIN_FRACTION)
    num_valid = (len(rows) - num_train) // 3
    places = np.split(order, [num_train, num_train + num_valid])
    return {part: [rows[i] for i in some] for part, some in zip(PARTS, places, strict=True)}


# --- Words ---
class Cutter:
    """Cuts text into words, always in the same way.

    Args:
        words: a dictionary for jieba; None: jieba's own dictionary.
    """

    def __init__(self, words=None):
        jieba.setLogLevel(logging.WARNING)
        self.words = words
        self.tokenizer = jieba.Tokenizer()
        if words:
            lines = "\n".join(f"{word} 1" for word in words)
            frequencies, total = self.tokenizer.gen_pfdict(io.BytesIO(lines.encode()))
            self.tokenizer.FREQ = frequencies
            self.tokenizer.total = total
            self.tokenizer.initialized = True

    def __call__(self, text):
        """The list of words, without white space."""
        # HMM guesses words that are in no dictionary.
        words = self.tokenizer.cut(text, HMM=not self.words)
        return [word for word in words if not word.isspace()]

    def cut_all(self, texts):
        """The words of many texts."""
        return [self(text) for text in tqdm(list(texts), desc="cutting into words", disable=None)]


def build_vocabulary(texts, min_count):
    """The words that occur so often, most frequent first; word i of the list has id i + 1."""
    counts = Counter(word for words in texts for word in words)
    kept = [word for word, count in counts.items() if count >= min_count]
    return sorted(kept, key=lambda word: (-counts[word], word))


def encode(texts, vocabulary, max_words):
    """int32 (texts, words): ids of the first words; 0 stands for unknown ones, and at the end."""
    index = {word: number for number, word in enumerate(vocabulary, 1)}
    ids = [[index.get(word, 0) for word in words[:max_words]] for words in texts]
    return pad(ids)


def encode_ngrams(texts):
    """int32 (texts, n-grams): the n-gram ids of each text, filled up with 0."""
    return pad([ngram_ids(words) for words in texts])


def pad(rows):
    """Lists of ids as an int32 array with at least one column, filled up with 0 at the end."""
    longest = max((len(row) for row in rows), default=0)
    return keras.utils.pad_sequences(rows, maxlen=max(1, longest), padding="post")


def save_words(path, vocabulary, cutter, **settings):
    """Writes what predict.py needs to encode a text as train.py did."""
    words = {
        "vocabulary": vocabulary,
        "dictionary": cutter.words,
        **settings,
        "jieba": importlib.metadata.version("jieba"),
    }
    write_text(path, json.dumps(words, ensure_ascii=False))


def load_words(path):
    """The dict that save_words wrote, and its Cutter."""
    words = read_json(path)
    if not isinstance(words, dict) or "vocabulary" not in words:
        fail(f"{path} is damaged: no vocabulary in it")
    version = importlib.metadata.version("jieba")
    if version != words["jieba"]:
        note(f"note: jieba {version} may cut otherwise than {words['jieba']}, as in training")
    return words, Cutter(words["dictionary"])
