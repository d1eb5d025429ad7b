"""How good word vectors are: evaluation sets, scores that equal gensim's, and a plot.

Also the softmax of a trained run: `save_softmax` writes it and `read_softmax` reads it, for
`log_probabilities`.
"""

import re
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy import stats
from scipy.special import logsumexp

from common.cli import fail
from common.files import read_arrays, read_json, replacing
from common.metrics import proportion
from data import corpus
from word2vec_keras.vectors import normalize

MODELS = ("cbow", "skipgram", "fast-cbow", "fast-skipgram")
LARGEST_SET = 2**26  # Bytes: a larger file in a folder is a corpus, say, and no set.
FORMATS = {3: '"word word number"', 4: "four words"}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")


# --- Evaluation sets ---
def evaluation_sets(folder=None):
    """({name: word pairs}, {name: analogies}): those of `read_evaluation`.

    Without a folder they are the sets of the generated text.
    """
    if folder is not None:
        return read_evaluation(folder)
    questions = [question for _, *question in corpus.analogies("test")]
    return {"similarity": corpus.word_pairs("test")}, {"analogies": questions}


def read_evaluation(path):
    """({file: word pairs}, {file: analogies}) of a file, or of a folder and all below it.

    Word pairs are a list of (word, word, score), analogies of (a, b, c, d): a is to b as c is to
    d. Files of a folder that are neither, such as its README, are passed over.
    """
    path = Path(path)
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        files = [file for file in files if file.stat().st_size <= LARGEST_SET]
    elif path.is_file():
        files = [path]
    else:
        fail(f"no evaluation sets in {path}: there is no such file or folder")
    pairs = {}
    analogies = {}
    for file in files:
        name = file.name
        if path.is_dir():
            name = file.relative_to(path).as_posix()
        num_columns, entries = read_set(file, must_be_set=not path.is_dir())
        if num_columns == 3:
            pairs[name] = entries
        elif num_columns == 4:
            analogies[name] = entries
    if not pairs and not analogies:
        fail(f'no evaluation sets in {path}: no file has lines "word word number" or of four words')
    return pairs, analogies


def read_set(file, must_be_set):
    """(3, word pairs) or (4, analogies), by what most lines are. The names of sections are dropped.

    Args:
        must_be_set: whether a file that is no evaluation set is a mistake. If it is not, such a
            file gives (None, []).
    """
    data = file.read_bytes()
    text = data.decode("utf-8-sig", errors="replace")
    lines = []  # (number, the line, what it holds)
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.startswith("#"):
            lines.append((number, line.strip(), parse_line(line.strip())))
    sizes = [count_columns(parsed) for _, _, parsed in lines]
    num_columns = max((3, 4), key=sizes.count)
    is_set = len(lines) > 0 and 2 * sizes.count(num_columns) >= len(lines)
    if not is_set:
        if must_be_set:
            fail_at_odd_line(file, lines)
        return None, []
    if num_columns == 3 and is_header(lines[0]):
        del lines[0]
    for number, line, parsed in lines:
        if count_columns(parsed) != num_columns:
            fail(f"{file}:{number}: expected {FORMATS[num_columns]}, got {line[:60]!r}")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        fail(f"{file}, byte {error.start}: not UTF-8")
    return num_columns, [parsed for _, _, parsed in lines if not isinstance(parsed, str)]


def fail_at_odd_line(file, lines):
    """Names the first line of a file that fits into no evaluation set."""
    expected = " or ".join(FORMATS.values())
    for number, line, parsed in lines:
        if parsed is None:
            fail(f"{file}:{number}: expected {expected}, got {line[:60]!r}")
    fail(f"{file}:1: expected {expected}, the file is empty")


def is_header(line):
    """Whether this first line holds the names of the columns, as in SimLex-999."""
    _, text, parsed = line
    return count_columns(parsed) != 3 and "word" in text.lower()


def count_columns(parsed):
    """3 for a word pair, 4 for an analogy and for the name of a section of analogies, else 0."""
    if parsed is None:
        return 0
    if isinstance(parsed, str):
        return 4
    return len(parsed)


def parse_line(line):
    """(word, word, score), the four words of an analogy, the name of a section, or None."""
    if line.startswith(":"):
        return line.lstrip(": ")
    has_tabs = "\t" in line
    if has_tabs:
        fields = [field.strip() for field in line.split("\t")]
    else:
        fields = line.split()
    scores = [float(field) for field in fields[2:] if NUMBER.fullmatch(field)]
    if scores and all(fields[:2]) and (len(fields) == 3 or has_tabs):
        return fields[0], fields[1], scores[0]  # The first number of many columns.
    if len(fields) == 4 and all(fields):
        return tuple(fields)
    return None


# --- Scores ---
def evaluate(words, vectors, pairs, analogies):
    """The metrics of the record, and as details how much of each set is covered."""
    results = {}
    for name, pairs_of_set in pairs.items():
        results[f"Spearman, {name}"] = evaluate_word_pairs(words, vectors, pairs_of_set)
    for name, questions in analogies.items():
        results[f"accuracy, {name}"] = evaluate_analogies(words, vectors, questions)
    metrics = {}
    details = {}
    for name, result in results.items():
        details[f"coverage, {name}"] = f"{result['coverage']:.1%}"
        if result["value"] is not None:
            metrics[name] = {key: result[key] for key in ("value", "low", "high", "n")}
    return metrics, details


def rows_of_words(words):
    """{word in capitals: row of its first spelling}: how gensim's evaluators look words up."""
    rows = {}
    for row, word in enumerate(words):
        rows.setdefault(word.upper(), row)
    return rows


def evaluate_word_pairs(words, vectors, pairs, restrict_vocab=300_000):
    """Spearman's rho of the pairs' scores and the cosines of their words; equals gensim's.

    Args:
        restrict_vocab: only so many of the first words are known.

    Returns:
        {"value", "n", "low", "high", "coverage"}. The 95% interval is Fisher's with Fieller's
        variance 1.06 / (n - 3). Coverage is the fraction of pairs with both words known. The
        value is None where all cosines or all scores are equal.
    """
    vectors = np.asarray(vectors, np.float32)
    rows = rows_of_words(words[:restrict_vocab])
    cosines = []
    scores = []
    for first, second, score in pairs:
        if first.upper() in rows and second.upper() in rows:
            first_unit = unit_vector(vectors[rows[first.upper()]])
            second_unit = unit_vector(vectors[rows[second.upper()]])
            cosines.append(float(np.dot(first_unit, second_unit)))
            scores.append(score)
    n = len(scores)
    result = {"value": None, "n": n, "low": -1.0, "high": 1.0}
    result["coverage"] = n / max(len(pairs), 1)
    if len(set(cosines)) > 1 and len(set(scores)) > 1:
        rho = float(np.clip(stats.spearmanr(scores, cosines).statistic, -1, 1))
        result["value"] = rho
        if n > 3:
            half = 1.96 * np.sqrt(1.06 / (n - 3))
            with np.errstate(divide="ignore"):  # arctanh(1) is infinite, which is right here.
                z = np.arctanh(rho)
            result["low"] = float(np.tanh(z - half))
            result["high"] = float(np.tanh(z + half))
    return result


def unit_vector(vector):
    """A vector of length 1 in gensim's precision, so that what ties there ties here."""
    vector = vector.astype(np.float64)
    length = np.linalg.norm(vector) or 1
    return (vector * (1 / length)).astype(np.float32)


def evaluate_analogies(words, vectors, questions, restrict_vocab=300_000):
    """The fraction of analogies whose d is the word nearest to b - a + c (3CosAdd), as in gensim.

    So an analogy with an unknown word is not asked, which the coverage tells; case does not
    count; and a, b and c are no answers, even where d is one of them.

    Args:
        questions: a list of (a, b, c, d).
        restrict_vocab: only so many of the first words are known.

    Returns:
        {"value", "n", "low", "high", "coverage"} with Wilson's interval. The value is None where
        nothing was asked.
    """
    words = words[:restrict_vocab]
    rows = rows_of_words(words)
    unit = normalize(vectors[: len(words)])
    spelling = np.array([rows[word.upper()] for word in words])  # The same for "king" and "King".
    asked = [[rows.get(word.upper()) for word in question] for question in questions]
    asked = [question for question in asked if None not in question]
    asked = np.array(asked, int).reshape(-1, 4)
    num_right = 0
    step = max(1, 2**24 // max(len(words), 1))  # 64 MiB of scores at a time.
    for start in range(0, len(asked), step):
        num_right += count_right(asked[start : start + step], unit, spelling)
    if len(asked) > 0:
        result = proportion(num_right, len(asked))
    else:
        result = {"value": None, "n": 0, "low": 0.0, "high": 1.0}
    result["coverage"] = len(asked) / max(len(questions), 1)
    return result


def count_right(asked, unit, spelling):
    """How many of these analogies are answered right.

    Args:
        asked: rows of words (n, 4).
        unit: normalized vectors of all words.
        spelling: for each word the row of its first spelling.
    """
    given = asked[:, :3]
    a, b, c, d = asked.T
    scores = (unit[b] + unit[c] - unit[a]) @ unit.T
    np.put_along_axis(scores, given, -np.inf, axis=1)
    best = scores.argmax(axis=1)
    # Another spelling of a given word ("King" for "king") is passed over. gensim looks at no more
    # than five words, and so does this.
    for i in np.flatnonzero((spelling[best][:, None] == given).any(axis=1)):
        for _ in range(4):
            scores[i, best[i]] = -np.inf
            best[i] = scores[i].argmax()
            if spelling[best[i]] not in given[i]:
                break
    is_right = (spelling[best] == d) & (scores.max(axis=1) > -np.inf)
    return int(is_right.sum())


# --- The softmax of a run ---
def log_noise(counts):
    """log q of each word, float32, where q is how often the fast models draw it as a negative.

    What a softmax over words drawn with probability q learns is log p - log q, so log q is its
    bias.
    """
    weights = np.maximum(counts, 0.1) ** 0.75
    return np.log(weights / weights.sum()).astype("float32")


def save_softmax(path, arrays):
    """Writes a run's output.npz.

    Args:
        arrays: "weights", "bias" and "counts" with a row per id, and whatever else the training
            of the run could be continued with.
    """
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)


def read_softmax(run_dir, num_words):
    """The run's --model and its softmax: weights, bias and counts of the words, no padding.

    Args:
        num_words: in the run's vectors.bin.
    """
    record = read_json(run_dir / "record.json")
    model = str(record.get("arguments", {}).get("model"))
    if model not in MODELS:
        fail(f"{run_dir / 'record.json'}: unknown model {model}")
    path = run_dir / "output.npz"
    saved = read_arrays(path)
    names = ("weights", "bias", "counts")
    for name in names:
        if name not in saved or saved[name].ndim == 0:
            fail(f"{path} is missing or damaged: expected {', '.join(names)} in it")
    weights, bias, counts = (saved[name][1:] for name in names)
    if not len(weights) == len(bias) == len(counts) == num_words:
        fail(f"{path} and vectors.bin are not of one run: {len(weights)} and {num_words} words")
    return model, weights, bias, counts


def log_probabilities(model, vectors, softmax, context):
    """log p(word | context) of all words.

    A skip-gram predicts from one word. If the context's words are independent given w, Bayes says
    log p(w | w1..wk) = sum of log p(w | wi) - (k - 1) log p(w) + a constant.

    Args:
        model: the --model of the run.
        vectors: (words, dimension).
        softmax: (weights, bias, counts), as from `read_softmax`.
        context: a list of rows.
    """
    weights, bias, counts = softmax
    if model in ("skipgram", "fast-skipgram"):
        scores = (vectors[context] @ weights.T + bias).astype(np.float64)
        scores -= logsumexp(scores, axis=1, keepdims=True)
        frequency = np.maximum(counts, 1) / counts.sum()
        scores = scores.sum(axis=0) - (len(context) - 1) * np.log(frequency)
    else:
        hidden = vectors[context].sum(axis=0)
        if model == "fast-cbow":  # It takes the mean, the post's CBOW the sum.
            hidden = hidden / len(context)
        scores = (weights @ hidden + bias).astype(np.float64)
    return scores - logsumexp(scores)


# --- Plot ---
def draw_pairs(path, words, vectors, sections=("capital", "female", "past"), count=8):
    """Draws the pairs (a, b) of some relations of the generated text, on their first two axes."""
    row_of_word = {word: row for row, word in enumerate(words)}
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axis, section in zip(figure.subplots(1, len(sections)), sections, strict=True):
        pairs = pairs_of_section(section, row_of_word)[:count]
        if not pairs:  # With a large --min-count.
            continue
        rows = [[row_of_word[word] for word in pair] for pair in pairs]
        ends_of_pairs = on_two_axes(vectors[np.array(rows)])
        for pair, ends in zip(pairs, ends_of_pairs, strict=True):
            axis.plot(*ends.T, color="grey", linewidth=0.8)
            for word, place, color in zip(pair, ends, ("C0", "C3"), strict=True):
                axis.annotate(word, tuple(place), color=color, fontsize=8, ha="center")
        axis.set(title=section, xticks=[], yticks=[])
        axis.margins(0.15)
    figure.savefig(path, dpi=110)


def pairs_of_section(section, known):
    """The different pairs (a, b) of a section of the analogies whose words are known."""
    pairs = {}
    for name, a, b, *_ in corpus.analogies("test"):
        if name == section and a in known and b in known:
            pairs[a, b] = None
    return list(pairs)


def on_two_axes(vectors):
    """Vectors (pairs, 2, dimension) with length 1, on their first two principal axes."""
    vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    flat = vectors.reshape(-1, vectors.shape[-1])
    _, _, axes = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    return vectors @ axes[:2].T
