"""What a reader answers, how often it is right, and where it looks: pictures and pages."""

import html
import json
import math
import unicodedata
from collections import Counter

import numpy as np

from cloze_ccl import batches
from cloze_ccl.texts import exact_match, usable_only, write_answers
from common.run import write_text
from common.table import proportion
from data.stories import BLANK, is_noun, part_of_speech

WIDTH, SIZE, LINE = 880, 18, 32  # Of a picture, in pixels: its width, a Chinese character, a line.


# --- Answers ---
def read(model, kind, items, lookup, batch_size=64):
    """For each item the probability of each word of its passage: arrays, None for no Item.

    They add up to 1: what the post's reader gives to an empty side is no word's.
    """
    found, asked = [None] * len(items), [i for i, item in enumerate(items) if item]
    for chosen, shape in batches.plan(batches.sizes(kind, [items[i] for i in asked]), batch_size):
        chosen = [asked[i] for i in chosen]
        some = [items[i] for i in chosen]
        inputs, _, _, places = batches.build_batch(kind, some, shape, lookup, batch_size)
        rows = np.exp(np.asarray(model.predict_on_batch(inputs), "float64"))
        for i, row, at in zip(chosen, rows, places, strict=False):
            found[i] = np.zeros(len(items[i].keys))
            found[i][at[at >= 0]] = row[at >= 0]
            found[i] /= max(found[i].sum(), 1e-30)
    return found


def best_keys(items, probabilities):
    """The key of the word with the largest sum of probabilities, for each item."""
    best = []
    for item, row in zip(items, probabilities, strict=True):
        keys, place = np.unique(item.keys, return_inverse=True)
        best.append(int(keys[np.bincount(place, row).argmax()]))
    return best


def is_content(word):
    """Nouns, verbs, adjectives and fixed phrases of at least two characters."""
    return len(word) > 1 and part_of_speech(word)[0] in "nsvailz" and word[0] >= "\u3400"


def baselines(items, words, seed=0):
    """{name: keys answered}: what can be said without reading.

    A random content word; the most frequent noun, of several the first; the noun nearest to the
    blank, of two the left one. words: the word of each key.
    """
    rng = np.random.default_rng(seed)
    names = "random content word", "most frequent noun", "nearest noun"
    answers = {name: [] for name in names}
    for item in items:
        keys = [int(key) for place, key in enumerate(item.keys) if place != item.blank]
        content = sorted({key for key in keys if is_content(words[key])}) or keys or [-1]
        nouns = [key for key in keys if is_noun(words[key])]
        near = [
            (abs(place - item.blank), place, int(key))
            for place, key in enumerate(item.keys)
            if place != item.blank and is_noun(words[key])
        ]
        answers[names[0]].append(content[int(rng.random() * len(content))])
        answers[names[1]].append(Counter(nouns or content).most_common(1)[0][0])
        answers[names[2]].append(min(near)[2] if near else content[0])
    return answers


def judge(questions, items, probabilities, words, vocabulary):
    """The answers {id: word}, metrics {name: number}, and what is to say about the questions."""
    asked = [(q, i, p) for q, i, p in zip(questions, items, probabilities, strict=True) if i]
    answers = {question.id: question.answer for question in questions}
    found = {"accuracy": best_keys([i for _, i, _ in asked], [p for *_, p in asked])}
    plain = baselines([item for _, item, _ in asked], words)
    found |= {f"accuracy, {name}": keys for name, keys in plain.items()}
    metrics, given = {}, {}
    for name, keys in found.items():
        said = {q.id: words[key] for (q, *_), key in zip(asked, keys, strict=True)}
        given = given or said
        metrics[name] = proportion(*exact_match(said, answers))
    unknown = sum(question.answer not in vocabulary for question in questions)
    notes = {"test questions with an unknown answer": f"{unknown} of {len(questions)}"}
    notes["unusable test questions"] = json.dumps(usable_only(questions)[1])
    kinds = Counter(question.kind for question in questions if question.kind)
    if kinds:
        right = Counter(q.kind for q in questions if given.get(q.id) == q.answer)
        notes["accuracy by kind"] = ", ".join(f"{k} {right[k] / kinds[k]:.3f}" for k in kinds)
    return given, metrics, notes


def evaluate(model, kind, data, encoded, lookup, words, folder):
    """Metrics and details of all test sets in `encoded`; writes answers and a picture to folder.

    data: {name of a test set: Questions}; encoded: {its name: their Items}; words: of each key.
    """
    metrics, details, known = {}, {}, {w for w, i in zip(words, lookup.ids, strict=True) if i}
    for part, items in encoded.items():
        name = "" if part == "test" else f" on {part}"
        rows = read(model, kind, items, lookup)
        answers, found, said = judge(data[part], items, rows, words, known)
        write_answers(folder / f"{part}.out", answers)
        metrics |= {what.replace("accuracy", f"accuracy{name}"): m for what, m in found.items()}
        details |= {f"{what}{name}": note for what, note in said.items()}
    write_picture(folder / "attention.svg", data[part], items, rows)  # Of the last one.
    return metrics, details


# --- Where it looks ---
def colours(word, probability):
    """Of a word's ground and ink: by square roots, as otherwise only the best would be seen."""
    if word == BLANK:
        return "#ffe08a", "#222"
    strength = math.sqrt(min(max(probability, 0), 1))
    return f"rgba(30,110,210,{0.85 * strength:.3f})", "#fff" if strength > 0.6 else "#222"


def lines_of_words(words):
    """[(x, width, line)] of each word, and how many lines there are."""
    x, line, placed = 0, 0, []
    for word in words:
        wide = sum(1 if unicodedata.east_asian_width(c) in "WFA" else 0.6 for c in word)
        width = SIZE * wide + 6
        if x + width > WIDTH - 40:
            x, line = 0, line + 1
        placed.append((x, width, line))
        x += width
    return placed, line + 1


def svg(entries):
    """A picture of [(title, words, probabilities)]."""
    parts, top = [], 12
    for title, words, probabilities in entries:
        parts.append(f'<text x="20" y="{top + 20}" font-weight="bold">{html.escape(title)}</text>')
        placed, count = lines_of_words(words)
        for word, p, (x, width, line) in zip(words, probabilities, placed, strict=True):
            y, (fill, ink) = top + 36 + line * LINE, colours(word, p)
            parts.append(
                f'<rect x="{20 + x:.1f}" y="{y}" width="{width - 1:.1f}" height="27" rx="4" '
                f'fill="{fill}"/><text x="{23 + x:.1f}" y="{y + 20}" fill="{ink}">'
                f"{html.escape(word)}</text>"
            )
        top += 60 + count * LINE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" '
        f'viewBox="0 0 {WIDTH} {top}" font-family="sans-serif" font-size="{SIZE}">'
        f'<rect width="{WIDTH}" height="{top}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def write_picture(path, questions, items, probabilities, count=3):
    """Draws the first questions with what a reader made of them."""
    entries = []
    for question, item, row in zip(questions, items, probabilities, strict=True):
        words = [word for sentence in question.sentences for word in sentence]
        if item and len(words) == len(row) and len(entries) < count:
            entries.append((f"{question.id}: {question.answer}", words, row))
    write_text(path, svg(entries))


def page(results):
    """A page of the results of predict.py: shaded passages, the best words above."""
    parts = []
    for result in results:
        spans = []
        for word, probability in zip(result["words"], result["probabilities"], strict=True):
            ground, ink = colours(word, probability)
            style = f"background:{ground};color:{ink}"
            spans.append(
                f'<span title="{probability:.1%}" style="{style}">{html.escape(word)}</span>'
            )
        best = ", ".join(f"{w['word']} {w['probability']:.1%}" for w in result["best"])
        parts.append(f"<h2>{html.escape(best)}</h2><p>{' '.join(spans)}</p>")
    return (
        '<!doctype html><html lang="zh"><meta charset="utf-8"><title>Where the reader looks</title>'
        "<style>body{font:18px/1.9 sans-serif;max-width:50em;margin:2em auto;padding:0 1em}"
        "span{padding:.1em .15em;border-radius:.2em}h2{font-size:1em}</style>"
        "<h1>Where the reader looks</h1><p>The darker a word, the more probable it is; "
        "the places of equal words are added. The pointer shows the probability of a "
        "place.</p>\n" + "\n".join(parts) + "\n"
    )
