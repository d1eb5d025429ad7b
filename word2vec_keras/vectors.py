"""Vectors on disk and how good they are: word2vec's formats, evaluation sets, two evaluators."""

import mmap
import os
import re
from pathlib import Path

import numpy as np

from common.run import fail, load_file, ops
from common.table import proportion, stats
from data import corpus
from word2vec_keras.words import replacing


# --- Vectors ---
def write_vectors(path, words, vectors):
    """Writes word2vec's format: binary for a name that ends in .bin, else text."""
    path, vectors = Path(path), np.asarray(vectors, "<f4")
    for word, finite in zip(words, np.isfinite(vectors).all(1), strict=True):
        if not word or " " in word or "\n" in word:
            fail(f"{path}: this format has no empty words and none with blanks: {word!r}")
        if not finite:
            fail(f"{path}: the vector of {word!r} is not finite: the training diverged")
    numbers = " ".join(["%.9g"] * vectors.shape[1]) + "\n"  # Nine digits tell float32 apart.
    with replacing(path) as file:
        file.write(b"%d %d\n" % vectors.shape)
        for word, vector in zip(words, vectors, strict=True):
            binary = path.suffix == ".bin"
            row = vector.tobytes() if binary else (numbers % tuple(vector.tolist())).encode()
            file.write(word.encode() + b" " + row)


def read_vectors(path):
    """The words and float32 vectors of a file in word2vec's text or binary format.

    As in gensim the first of two equal words stays. The header's promise is checked against
    the file's size before memory is taken.
    """
    path = Path(path)
    if not path.is_file():
        fail(f"no vectors in {path}: there is no such file")
    with path.open("rb") as file:
        line = file.readline(100)
        header, start, sample = line.split(), file.tell(), file.read(65536)
        size = file.seek(0, os.SEEK_END) - start
        file.seek(start)
        if len(header) != 2 or not all(map(bytes.isdigit, header)) or line[-1:] != b"\n":
            fail(f'{path}:1: expected the header of word2vec vectors, "WORDS DIMENSION"')
        count, dim = map(int, header)
        control = sample.translate(None, bytes({*range(32, 256), *b"\t\n\r"}))
        binary = path.suffix == ".bin" or len(control) > len(sample) / 100
        smallest = count * (2 + dim * (4 if binary else 2))  # A row is at least "w 0 0\n".
        if not count or not dim or smallest > size:
            rest = f"{count:,} words of {dim:,} numbers, {size:,} bytes follow"
            fail(f"{path}:1: the header promises {rest}")
        vectors, index = np.empty((count, dim), np.float32), {}
        for where, name, row in (binary_rows if binary else text_rows)(file, path, count, dim):
            try:
                word = name.decode()
            except UnicodeDecodeError:
                fail(f"{where}: the word {name[:40]!r} is not UTF-8")
            if not word or "\n" in word:
                fail(f"{where}: expected a word, got {word[:40]!r}")
            if word not in index:
                with np.errstate(over="ignore"):  # What float32 cannot hold is found below.
                    vectors[len(index)] = row
                if not np.isfinite(vectors[len(index)]).all():
                    fail(f"{where}: the vector of {word[:40]!r} has a number that is not finite")
                index[word] = len(index)
    return list(index), vectors[: len(index)]


def text_rows(file, path, count, dim):
    """The rows of the text format: (where it stands, word, numbers)."""
    number = 1
    for number, line in enumerate(file, 2):
        where, (name, *numbers) = f"{path}:{number}", line.rstrip().split(b" ")
        if number > count + 1 and line.strip():
            fail(f"{where}: the header promises {count:,} words, here is one more")
        if number > count + 1:
            continue
        if not line.endswith(b"\n"):
            fail(f"{where}: the file ends within this line: it was cut short")
        if len(numbers) != dim:
            got = f"{len(numbers)} after {name[:40].decode(errors='replace')!r}"
            fail(f"{where}: expected a word without blanks and {dim} numbers, got {got}")
        try:
            yield where, name, [float(x) for x in numbers]
        except ValueError as error:
            fail(f"{where}: {str(error)[:80]}")
    if number < count + 1:
        fail(f"{path}:{number}: the header promises {count:,} words, the file ends here")


def binary_rows(file, path, count, dim):
    """The rows of the binary format; word2vec.c ends each with a line break, gensim does not."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = file.tell()
        for _ in range(count):
            while data[at : at + 1] == b"\n":
                at += 1
            blank = data.find(b" ", at)
            if blank < 0 or blank + 1 + 4 * dim > len(data):
                fail(f"{path}, byte {at}: the header promises {count:,} words, the file ends here")
            row = np.frombuffer(data, "<f4", dim, blank + 1).copy()  # A view keeps the map open.
            yield f"{path}, byte {at}", data[at:blank], row
            at = blank + 1 + 4 * dim
        if data[at : at + 2] not in (b"", b"\n"):
            fail(f"{path}, byte {at}: the header promises {count:,} words, the file goes on")


def tables(model):
    """The variables of a model: word vectors, the softmax's rows and, in the post's, biases."""
    if hasattr(model, "vectors"):
        return model.vectors, model.targets
    return tuple(model.get_layer(name).embeddings for name in ("word2vec", "W", "b"))


def start_from(model, path, words, old_words, old_vectors):
    """Puts the vectors of a file into a model, with all else that a run has saved beside it."""
    rows = dict(zip(words, range(len(words)), strict=True))
    rows, saved = [rows[word] for word in old_words], {"vectors": old_vectors}
    if (output := Path(path).with_name("output.npz")).exists():
        found = {name: table[1:] for name, table in load_file(output).items() if table.ndim}
        saved |= found if {len(table) for table in found.values()} == {len(rows)} else {}
    variables = dict(zip(("vectors", "weights", "bias"), tables(model), strict=False))
    if hasattr(model, "squares"):
        variables |= dict(zip(("squares", "weights_squares"), model.squares, strict=True))
    for name in variables.keys() & saved:
        table = ops.convert_to_numpy(variables[name]).copy()
        if saved[name].size != table[rows].size:
            fail(f"{output}: {name} has {saved[name].shape[1:]} a word, not {table.shape[1:]}")
        table[rows] = saved[name].reshape(len(rows), *table.shape[1:])
        variables[name].assign(table)


# --- Evaluation sets ---
def read_evaluation(path):
    """({file: word pairs}, {file: analogies}) of a file, or of a folder and all below it.

    Word pairs are a list of (word, word, score), analogies of (a, b, c, d): a is to b as c is to
    d. Files of a folder that are neither, such as its README, are passed over.
    """
    path, pairs, analogies = Path(path), {}, {}
    if not path.exists():
        fail(f"no evaluation sets in {path}: there is no such file or folder")
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not file.is_file() or (path.is_dir() and file.stat().st_size > 2**26):
            continue  # No set has 64 MiB, but a corpus may lie beside the sets.
        columns, lines = read_set(file, path.is_dir())
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        if columns:
            (pairs if columns == 3 else analogies)[name] = lines
    if not pairs and not analogies:
        fail(f'no evaluation sets in {path}: no file has lines "word word number" or of four words')
    return pairs, analogies


def read_set(file, in_folder):
    """(3, word pairs) or (4, analogies): what most lines are; names of sections are dropped."""
    data = file.read_bytes()
    lines = enumerate(data.decode("utf-8-sig", errors="replace").split("\n"), 1)
    lines = [(n, line.strip()) for n, line in lines if line.strip() and line[0] != "#"]
    parsed = [parse_line(line) for _, line in lines]
    sizes = [4 if isinstance(one, str) else len(one or ()) for one in parsed]
    columns = max((3, 4), key=sizes.count)
    known = bool(lines) and 2 * sizes.count(columns) >= len(lines)
    if in_folder and not known:
        return None, []
    if known and columns == 3 != sizes[0] and "word" in lines[0][1].lower():
        del lines[0], parsed[0], sizes[0]  # The names of the columns, as in SimLex-999.
    formats = {3: '"word word number"', 4: "four words"}
    expected = formats[columns] if known else " or ".join(formats.values())
    for (number, line), size in zip(lines, sizes, strict=True):
        if size != columns if known else not size:
            fail(f"{file}:{number}: expected {expected}, got {line[:60]!r}")
    if not lines:
        fail(f"{file}:1: expected {expected}, the file is empty")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        fail(f"{file}, byte {error.start}: not UTF-8")
    return columns, [one for one in parsed if not isinstance(one, str)]


def parse_line(line):
    """(word, word, score), the four words of an analogy, the name of a section, or None."""
    if line.startswith(":"):
        return line.lstrip(": ")
    fields = [x.strip() for x in line.split("\t")] if "\t" in line else line.split()
    scores = [float(x) for x in fields[2:] if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", x)]
    if scores and all(fields[:2]) and (len(fields) == 3 or "\t" in line):
        return fields[0], fields[1], scores[0]  # Of many columns the first number.
    return tuple(fields) if len(fields) == 4 and all(fields) else None


# --- How good vectors are ---
def normalize(vectors):
    vectors = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


def most_similar(words, unit, positive, negative=(), topn=10):
    """The [(word, cosine)] nearest to some rows less others, which are themselves left out.

    `unit` is normalize(vectors).
    """
    query = unit[list(positive)].sum(0) - unit[list(negative)].sum(0)
    cosines = unit @ normalize(query[None])[0]
    cosines[[*positive, *negative]] = -np.inf
    topn = min(topn, int(np.isfinite(cosines).sum()))
    best = np.argpartition(-cosines, max(topn - 1, 0))[:topn]
    return [(words[i], float(cosines[i])) for i in best[np.argsort(-cosines[best])]]


def rows_of_words(words):
    """{word in capitals: row of its first spelling}: how gensim's evaluators look words up."""
    rows = {}
    for row, word in enumerate(words):
        rows.setdefault(word.upper(), row)
    return rows


def evaluate_word_pairs(words, vectors, pairs, restrict_vocab=300_000):
    """Spearman's rho of the pairs' scores and their words' cosines; equals gensim's.

    The 95% interval is Fisher's with Fieller's variance 1.06 / (n - 3). Coverage is the share
    of pairs with both words known. The value is None where no two cosines or scores differ.
    """

    def unit(word):  # In gensim's precision, so that what ties there ties here.
        vector = vectors[rows[word.upper()]].astype(np.float64)
        return (vector * (1 / (np.linalg.norm(vector) or 1))).astype(np.float32)

    vectors, rows = np.asarray(vectors, np.float32), rows_of_words(words[:restrict_vocab])
    known = [pair for pair in pairs if pair[0].upper() in rows and pair[1].upper() in rows]
    cosines = [float(np.dot(unit(a), unit(b))) for a, b, _ in known]
    scores, n = [score for *_, score in known], len(known)
    result = {"value": None, "n": n, "low": -1.0, "high": 1.0, "coverage": n / max(len(pairs), 1)}
    if len(set(cosines)) > 1 and len(set(scores)) > 1:
        rho = result["value"] = float(np.clip(stats.spearmanr(scores, cosines).statistic, -1, 1))
        if n > 3:
            with np.errstate(divide="ignore"):  # arctanh(1): infinity is right here.
                z, half = np.arctanh(rho), 1.96 * np.sqrt(1.06 / (n - 3))
            result |= {"low": float(np.tanh(z - half)), "high": float(np.tanh(z + half))}
    return result


def evaluate_analogies(words, vectors, questions, restrict_vocab=300_000):
    """Share of analogies whose d is the word nearest to b - a + c (3CosAdd); equals gensim's.

    So an analogy with an unknown word is not asked (the coverage tells), case does not count,
    and a, b, c are no answers, even where d is one of them. The interval is Wilson's, the value
    None where nothing was asked.
    """
    words = words[:restrict_vocab]
    rows, unit = rows_of_words(words), normalize(vectors[: len(words)])
    same = np.array([rows[word.upper()] for word in words])  # The spellings of a word share one.
    asked = [[rows.get(word.upper()) for word in question] for question in questions]
    asked = np.array([given for given in asked if None not in given], int).reshape(-1, 4)
    right = np.zeros(len(asked), bool)
    step = max(1, 2**24 // max(len(words), 1))  # 64 MiB of scores at a time.
    for start in range(0, len(asked), step):
        given, d = asked[start : start + step, :3], asked[start : start + step, 3]
        scores = (unit[given[:, 1]] + unit[given[:, 2]] - unit[given[:, 0]]) @ unit.T
        np.put_along_axis(scores, given, -np.inf, 1)
        best = scores.argmax(1)
        # Another spelling of a given word ("King" of "king") is passed over. gensim looks no
        # further than five words; so do we.
        for i in np.flatnonzero((same[best][:, None] == given).any(1)):
            for _ in range(4):
                scores[i, best[i]] = -np.inf
                best[i] = scores[i].argmax()
                if same[best[i]] not in given[i]:
                    break
        right[start : start + step] = (same[best] == d) & (scores.max(1) > -np.inf)

    nothing = {"value": None, "n": 0, "low": 0.0, "high": 1.0}
    result = proportion(right.sum(), len(right)) if len(right) else nothing
    return result | {"coverage": len(right) / max(len(questions), 1)}


def evaluation_sets(folder=None):
    """What read_evaluation finds in a folder; by default the sets of the generated text."""
    if folder:
        return read_evaluation(folder)
    questions = [question for _, *question in corpus.analogies("test")]
    return {"similarity": corpus.word_pairs("test")}, {"analogies": questions}


def evaluate(words, vectors, pairs, analogies):
    """Metrics for the record, and how much of each set is covered, as text."""
    results = {f"Spearman, {k}": evaluate_word_pairs(words, vectors, v) for k, v in pairs.items()}
    for name, questions in analogies.items():
        results[f"accuracy, {name}"] = evaluate_analogies(words, vectors, questions)
    coverage = {f"coverage, {name}": f"{r['coverage']:.1%}" for name, r in results.items()}
    kept = ("value", "low", "high", "n")
    found = {name: r for name, r in results.items() if r["value"] is not None}
    return {name: {k: r[k] for k in kept} for name, r in found.items()}, coverage


def draw_pairs(path, words, vectors, sections=("capital", "female", "past"), count=8):
    """The pairs (a, b) of some relations of the generated text, on their first two axes."""
    from matplotlib.figure import Figure  # Here, because --help need not wait for it.

    index = {word: i for i, word in enumerate(words)}
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axis, section in zip(figure.subplots(1, len(sections)), sections, strict=True):
        pairs = {(a, b): None for name, a, b, *_ in corpus.analogies("test") if name == section}
        pairs = [pair for pair in pairs if all(word in index for word in pair)][:count]
        if not pairs:  # With a large --min-count.
            continue
        x = np.array([[vectors[index[word]] for word in pair] for pair in pairs])
        x = x / np.linalg.norm(x, axis=-1, keepdims=True)
        flat = x.reshape(-1, x.shape[-1])
        axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:2]
        for pair, line in zip(pairs, x @ axes.T, strict=True):
            axis.plot(*line.T, color="grey", linewidth=0.8)
            for word, (left, top), color in zip(pair, line, ("C0", "C3"), strict=True):
                axis.annotate(word, (left, top), color=color, fontsize=8, ha="center")
        axis.set(title=section, xticks=[], yticks=[])
        axis.margins(0.15)
    figure.savefig(path, dpi=110)
