"""The attention over a passage as shading: a picture (SVG) and a page (HTML)."""

import html
import math
import unicodedata

from common.run import write_text
from data.stories import BLANK

WIDTH, SIZE, LINE = 880, 18, 32  # Of a picture, in pixels: its width, a Chinese character, a line.


def shade(probability):
    """0 to 1: square roots, as otherwise only the best word would be seen."""
    return math.sqrt(min(max(probability, 0), 1))


def lines_of_words(words, shades):
    """[(word, shade, x, line)] and how many lines there are."""
    x, line, placed = 0, 0, []
    for word, strength in zip(words, shades, strict=True):
        wide = sum(1 if unicodedata.east_asian_width(c) in "WFA" else 0.6 for c in word)
        width = SIZE * wide + 6
        if x + width > WIDTH - 40:
            x, line = 0, line + 1
        placed.append((word, strength, x, width, line))
        x += width
    return placed, line + 1


def svg(entries):
    """A picture of [(title, words, probabilities)]."""
    parts, top = [], 12
    for title, words, probabilities in entries:
        parts.append(f'<text x="20" y="{top + 20}" font-weight="bold">{html.escape(title)}</text>')
        placed, count = lines_of_words(words, map(shade, probabilities))
        for word, strength, x, width, line in placed:
            y = top + 36 + line * LINE
            fill = "#ffe08a" if word == BLANK else f"rgba(30,110,210,{0.85 * strength:.3f})"
            ink = "#fff" if strength > 0.6 else "#222"
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
            strength = shade(probability)
            style = f"background:rgba(30,110,210,{0.85 * strength:.3f})"
            style += ";color:#fff" * (strength > 0.6)
            style = "background:#ffe08a" if word == BLANK else style
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
