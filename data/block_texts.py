"""Writers of texts of every kind: what data/blocks.py cuts where no real files are at hand.

A writer takes a numpy Generator and a `source`, the text of one real Python file, whose names and
docstrings it may use, and returns a text of random length. So whatever is made from a file stays
on that file's side of the split.
"""

# ruff: noqa: RUF001  Chinese has full-width punctuation.
import ast
import base64
import html
import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from data import faq, reviews

LENGTHS = (200, 12_000)  # Characters of a text, uniform on a logarithmic scale.
STOPS = ["。", "。", "。", "！", "？", "；"]
HTML_KEYWORDS = "def class return import from for in if else while try except with as not and or"


def pick(rng, choices):
    return choices[int(len(choices) * rng.random())]


def fill(rng, part):
    """Joins what part() returns until the length that was drawn is reached."""
    low, high = np.log(LENGTHS)
    length = np.exp(low + (high - low) * rng.random())
    parts = []
    total = 0
    while total < length:
        parts.append(part())
        total += len(parts[-1])
    return "".join(parts)


def names_of(source):
    """The names and words of a Python file, as often as they occur; never none."""
    return re.findall(r"[A-Za-z_]{3,}", source) or ["name"]


@cache
def docstrings(source):
    """The docstrings of a Python file without their indentation: its English prose."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError):
        return ()
    kinds = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    found = (ast.get_docstring(node) for node in nodes if isinstance(node, kinds))
    return tuple(text for text in found if text and len(text) > 60 and text.isascii())


# --- Chinese ---
@cache
def dictionary():
    """The words of jieba's dictionary and their cumulated frequencies."""
    [folder] = find_spec("jieba").submodule_search_locations
    lines = (Path(folder) / "dict.txt").read_text(encoding="utf-8").splitlines()
    words, counts, _ = zip(*(line.rsplit(" ", 2) for line in lines), strict=True)
    return words, np.cumsum(np.array(counts, float)) / sum(map(int, counts))


def write_chinese(rng, source=""):
    """Reviews, questions with answers, or words at random as often as they occur in Chinese."""
    way = pick(rng, ["review", "faq", "words", "words"])
    line = pick(rng, ["\n", "\n", "\r\n"])
    indent = pick(rng, ["", "\u3000\u3000", "  "])

    def sentence():
        words, shares = dictionary()
        chosen = np.searchsorted(shares, rng.random(3 + int(22 * rng.random())))
        parts = [words[i] for i in chosen]
        for place in range(4, len(parts), 7):
            parts[place] += pick(rng, ["，", "，", "、", "：", "“", "”", "（", "）", "《", "》"])
        if rng.random() < 0.2:
            parts[0] = pick(rng, [str(int(3000 * rng.random())), pick(rng, names_of(source))])
        return "".join(parts) + pick(rng, STOPS)

    def paragraph():
        if way == "review":
            number = int(1e6 * rng.random())
            return "".join(reviews.draw_review(number, int(1e6 * rng.random())).words) + line
        if way == "faq":
            question = faq.write_question("train", int(1e6 * rng.random()))[0]
            return f"问：{question}{line}答：{pick(rng, faq.answers())}{line * 2}"
        heading = pick(rng, ["", "", "", "# ", "一、", "1. ", "- "])
        if heading:
            return heading + sentence()[:-1] + line
        return indent + "".join(sentence() for _ in range(1 + int(6 * rng.random()))) + line

    return fill(rng, paragraph)


# --- English and what programs read ---
def write_english(rng, source):
    """The docstrings of the file, or its words at random where it has none."""
    texts = docstrings(source)
    words = names_of(source)
    if texts:
        return pick(rng, ["\n\n", "\n", "\n\n\n"]).join(texts) + "\n"

    def paragraph():
        chosen = [pick(rng, words).lower() for _ in range(8 + int(60 * rng.random()))]
        lines = [" ".join(chosen[i : i + 11]) for i in range(0, len(chosen), 11)]
        return "\n".join(lines).capitalize() + ".\n\n"

    return fill(rng, paragraph)


def write_c(rng, source):
    """Headers, structures, comments and functions with loops."""
    return fill(rng, CWriter(rng, source).part)


class CWriter:
    """Writes C out of the names of a Python file."""

    TYPES = ("int", "char *", "double", "size_t", "uint32_t", "struct node *", "const char *")
    EXPRESSIONS = ("{0}[{1}]", "{0}->{1}", "{0} + 1", "{0}({1}, &{2})", "({0} << 4) | {1}")
    STATEMENTS = ("return {0};", "{1} = {0};", "/* {2} {1} */", 'printf("%s\\n", {1});', "{1}++;")

    def __init__(self, rng, source):
        self.rng = rng
        self.source = source
        self.words = names_of(source)
        self.tab = pick(rng, ["    ", "\t", "  "])

    def name(self):
        return pick(self.rng, self.words)

    def type(self):
        return pick(self.rng, self.TYPES)

    def expression(self):
        form = pick(self.rng, self.EXPRESSIONS)
        return form.format(self.name(), self.name(), self.name())

    def statement(self, depth=1):
        pad = self.tab * depth
        way = int(6 * self.rng.random())
        if way == 0 and depth < 4:
            condition = f"{self.expression()} == NULL"
            return f"{pad}if ({condition}) {{\n{self.statement(depth + 1)}{pad}}}\n"
        if way == 1 and depth < 4:
            i = pick(self.rng, "ijkn")
            loop = f"for (int {i} = 0; {i} < {self.name()}; {i}++)"
            body = self.statement(depth + 1) + self.statement(depth + 1)
            return f"{pad}{loop} {{\n{body}{pad}}}\n"
        form = pick(self.rng, self.STATEMENTS)
        return pad + form.format(self.expression(), self.name(), self.name()) + "\n"

    def part(self):
        """An include, a macro, a structure, a comment or a function."""
        way = int(6 * self.rng.random())
        if way == 0:
            return "".join(f"#include <{self.name().lower()}.h>\n" for _ in range(4)) + "\n"
        if way == 1:
            name = f"{self.name().upper()}_{self.name().upper()}"
            return f"#define {name} {int(999 * self.rng.random())}\n"
        if way == 2:
            fields = "".join(f"{self.tab}{self.type()} {self.name()};\n" for _ in range(5))
            return f"typedef struct {self.name()} {{\n{fields}}} {self.name()}_t;\n\n"
        texts = docstrings(self.source)
        if way == 3 and texts:
            return "/*\n * " + pick(self.rng, texts).replace("\n", "\n * ") + "\n */\n"
        return self.function()

    def function(self):
        head = f"static {self.type()} {self.name()}({self.type()} {self.name()})"
        num_statements = 2 + int(8 * self.rng.random())
        body = "".join(self.statement() for _ in range(num_statements))
        return f"{head}\n{{\n{body}}}\n\n"


def write_json(rng, source):
    """Documentation of a file, records or numbers, in the common ways of indenting."""
    words = names_of(source)
    way = pick(rng, ["docs", "records", "numbers", "lines"])
    style = {"indent": pick(rng, [None, None, 1, 2, 4]), "ensure_ascii": rng.random() < 0.5}
    chinese = [""]
    if rng.random() < 0.3:
        chinese = write_chinese(rng, source).splitlines()

    def value(depth=0):
        kind = int(8 * rng.random())
        if kind == 0 and depth < 3:
            return {pick(rng, words): value(depth + 1) for _ in range(4)}
        if kind == 1 and depth < 3:
            return [value(depth + 1) for _ in range(1 + int(4 * rng.random()))]
        if kind == 2:
            return pick(rng, [True, False, None, "", 0])
        if kind == 3:
            return pick(rng, chinese) or " ".join(pick(rng, words) for _ in range(5))
        number = 1000 * rng.random()
        return pick(rng, [int(number), round(number, 3), pick(rng, words), f"/{pick(rng, words)}"])

    keys = [pick(rng, words) for _ in range(3 + int(8 * rng.random()))]
    size = 1 + int(150 * rng.random() ** 2)
    if way == "lines":
        return "".join(json.dumps({k: value(2) for k in keys}) + "\n" for _ in range(size))
    if way == "docs" and docstrings(source):
        entries = [{"name": pick(rng, words), "doc": text} for text in docstrings(source)]
        return json.dumps({"module": pick(rng, words), "entries": entries}, **style)
    if way == "numbers":
        pairs = [[round(x, 5) for x in pair] for pair in (180 * rng.random((8 * size, 2))).tolist()]
        return json.dumps({"type": pick(rng, words), "coordinates": pairs}, **style)
    return json.dumps([{k: value() for k in keys} for _ in range(size)], **style)


def write_html(rng, source):
    """Pages of prose (some in Chinese), listings of code, XML records."""
    way = pick(rng, ["prose", "chinese", "code", "xml"])
    words = names_of(source)
    tags = ["p", "li", "div", "td", "h2", "pre", "span", "blockquote"]
    prose = [pick(rng, words) for _ in range(40)]
    if way == "prose" and docstrings(source):
        prose = "\n".join(docstrings(source)).splitlines()
    elif way == "chinese":
        prose = write_chinese(rng, source).splitlines()

    def element():
        tag = pick(rng, tags)
        inner = html.escape(pick(rng, prose).strip())
        if rng.random() < 0.3:
            inner += f' <a href="{pick(rng, words)}.html#{pick(rng, words)}">{pick(rng, words)}</a>'
        attribute = ""
        if rng.random() < 0.4:
            attribute = f' class="{pick(rng, words)}"'
        return f"<{tag}{attribute}>{inner}</{tag}>\n"

    def record():
        fields = "".join(f"    <{w}>{len(w) * 7}</{w}>\n" for w in (pick(rng, words),) * 2)
        return f'  <{words[0]} id="{int(1e4 * rng.random())}">\n{fields}  </{words[0]}>\n'

    if way == "xml":
        return '<?xml version="1.0" encoding="UTF-8"?>\n<root>\n' + fill(rng, record) + "</root>\n"
    title = f"<!DOCTYPE html>\n<html>\n<head><meta charset='utf-8'><title>{words[0]}</title>\n"
    rules = "".join(
        f".{pick(rng, words)} {{ margin: {i}px; color: #{i}a{i}; }}\n" for i in range(8)
    )
    title += f"<style>\n{rules}</style>\n</head>\n<body>\n"
    if way == "code":
        keyword = re.compile(rf"\b({HTML_KEYWORDS.replace(' ', '|')})\b")
        listing = keyword.sub(r'<span class="k">\1</span>', html.escape(source, quote=False))
        return f"{title}<pre>{listing}</pre>\n</body>\n</html>\n"
    return title + fill(rng, element) + "</body>\n</html>\n"


def write_table(rng, source):
    """What machines write: CSV, logs, settings, hexadecimal dumps, base64."""
    way = pick(rng, ["csv", "log", "ini", "hex", "base64"])
    words = names_of(source)
    separator = pick(rng, [",", "\t", ";", "  "])
    columns = 2 + int(9 * rng.random())
    if way == "base64":
        return base64.encodebytes(rng.bytes(300 + int(20_000 * rng.random()))).decode()

    def line():
        number = int(1e6 * rng.random())
        if way == "log":
            clock = f"{number // 9 % 24:02}:{number % 60:02}:{number // 7 % 60:02}"
            level = pick(rng, ["INFO", "DEBUG", "WARNING", "ERROR"])
            address = ".".join(str(int(256 * x)) for x in rng.random(4))
            day = f"2026-{1 + number % 12:02}-{1 + number % 28:02}"
            message = " ".join(pick(rng, words) for _ in range(1 + int(7 * rng.random())))
            return f"{day} {clock} {level} {address} {message}\n"
        if way == "ini":
            head = ""
            if number % 7 == 0:
                head = f"\n[{pick(rng, words)}]\n"
            return f"{head}{pick(rng, words)} = {pick(rng, [number, pick(rng, words), 'yes'])}\n"
        if way == "hex":
            return f"{16 * (number % 65536):08x}  {rng.bytes(16).hex(' ')}\n"
        cells = [f"{x:.{columns % 5}f}" for x in 1000 * rng.random(columns)]
        return separator.join([pick(rng, words), *cells[1:]]) + "\n"

    return fill(rng, line)
