"""Labels Chinese reviews and shows which words made the network decide.

python rnn_saliency/predict.py                                  # nine sentences
python rnn_saliency/predict.py "房间很干净, 但是服务太差"
python rnn_saliency/predict.py --file reviews.txt --html page.html      # one review a line
python rnn_saliency/predict.py --json --method occlusion "房间很干净"

A word above 0 helped the decision (green, +), one below 0 spoke against it (red, -), the stronger
the more; unknown words score 0. The probability is that of the label.
"""

import argparse
import html
import json
import os
import sys
from pathlib import Path

import numpy as np

from common.run import fail, find_run, load_file, run_script, write_text
from rnn_saliency.faithfulness import BATCH, METHODS, Subject
from rnn_saliency.texts import encode, load_words, read_text
from rnn_saliency.train import build_reader, ngram_ids, ngram_rows, word_effects

SENTENCES = (  # Of our own; a space stands for the Chinese comma.
    "房间很干净 服务很热情 位置也方便。|糟糕 糟糕 糟糕 再也不用了。|满意 满意 满意 下次还用。"
    "|虽然外观很漂亮 但是电池太差。|虽然价格有点昂贵 但是环境真不错。"
    "|内容不错 可是印刷粗糙 翻译生硬。"
    "|服务不好 前台冷淡 房间很吵。|按键灵敏 屏幕清晰 非常满意。|屏幕不清晰 电池发热 实在失望。"
)
SENTENCES = SENTENCES.replace(" ", "\uff0c").split("|")
LEVELS = 3  # Of strength, that colours and marks show; weaker words have none.
GROUND = {1: (194, 157, 120), -1: (224, 217, 210)}  # ANSI: shades of green and of red.


# --- Explaining ---
def explain_ngrams(model, reviews):
    """(probability of praise, scores of the words, whether one is known), by leaving words out."""
    for words in reviews:
        texts = [words, *(words[:i] + words[i + 1 :] for i in range(len(words)))]
        ids = ngram_rows(texts)
        praise = model.predict(ids, batch_size=64, verbose=0)[:, 0]
        known = model.get_layer("ratios").get_weights()[0][ids[0]].any()
        towards = 1 if praise[0] >= 0.5 else -1
        yield praise[0], towards * (praise[0] - praise[1:]), known


def explain_words(subject, reviews, method, vocabulary, max_words, step=1):
    """The same for a model of build_classifier, by one of METHODS; widths are multiples of step."""
    ids = encode(reviews, vocabulary, max_words)
    ids = np.pad(ids, ((0, 0), (0, -ids.shape[1] % step)))
    praise, scores = subject.probability(ids), subject.scores(method, ids)
    for words, row, probability, line in zip(reviews, ids, praise, scores, strict=True):
        yield probability, line[: len(words)], row.any()


def explain(run_dir, texts, method=None):
    """Yields a dict of text, label, probability and scored words for each of the texts, a list;
    None if no word is known.

    Says in a line on stderr where only the beginning of a text is read, as in training.
    """
    model = load_file(run_dir / "model.keras")
    settings, cutter = load_words(run_dir / "words.json")
    most, ours = settings["max_words"], settings["model"] == "ours"
    if ours and method not in (None, "occlusion"):
        fail(f"--method {method}: the n-gram model of {run_dir} knows occlusion only")
    if not ours:
        batch = min(BATCH, len(texts))
        subject = Subject(model, build_reader(model), word_effects(model), batch=batch)
    for start in range(0, len(texts), BATCH):  # So that a long file needs no more memory.
        group, reviews = texts[start : start + BATCH], []
        for text in group:
            words = cutter(text)
            if len(words) > most:
                note = f"note: of {len(words):,} words the first {most:,} are read, as in training"
                print(f"{note}: {text[:20]}...", file=sys.stderr)
            reviews.append(words[:most])
            if ours:
                number = len(ngram_ids(reviews[-1], max_ngrams=None))
                if number > (read := len(ngram_ids(reviews[-1]))):
                    note = f"note: of {number:,} n-grams {read:,} are read, as in training"
                    print(f"{note}: {text[:20]}...", file=sys.stderr)
        if ours:
            found = explain_ngrams(model, reviews)
        else:
            vocabulary = settings["vocabulary"]
            # Few widths in a long file, as JAX compiles each.
            wide = (most, 32 if len(texts) > BATCH else 1)
            found = explain_words(subject, reviews, method or METHODS[0], vocabulary, *wide)
        for text, words, (praise, scores, known) in zip(group, reviews, found, strict=True):
            label, probability = ("positive", praise) if praise >= 0.5 else ("negative", 1 - praise)
            scored = [
                {"word": word, "score": round(float(score), 4) + 0.0}  # + 0.0: no minus zero.
                for word, score in zip(words, scores, strict=True)
            ]
            result = {"text": text, "label": label, "probability": round(float(probability), 4)}
            yield result | {"words": scored} if known else None


# --- Showing ---
def levels(words):
    """-LEVELS to LEVELS for each word: sign and strength, beside the review's strongest word."""
    strongest = max(abs(word["score"]) for word in words) or 1
    return [round(LEVELS * word["score"] / strongest) for word in words]


def in_terminal(result, colour):
    """Three lines: label, the words with colours or marks, the best words with their scores."""
    shown = []
    for word, level in zip(result["words"], levels(result["words"]), strict=True):
        text, sign = word["word"], 1 if level > 0 else -1
        if level and colour:
            shade = GROUND[sign][abs(level) - 1]
            text = f"\x1b[30;48;5;{shade}m{text}\x1b[0m"
        elif level:
            text += ("+" if level > 0 else "-") * abs(level)
        shown.append(text)
    best = sorted(result["words"], key=lambda word: -word["score"])
    best = [word for word in (*best[:4], best[-1]) if word["score"]]
    best = dict.fromkeys(f"{word['word']} {word['score']:+.3f}" for word in best)
    lines = f"{result['label']} {result['probability']:.1%}", " ".join(shown), ", ".join(best)
    return "\n  ".join(lines)


def in_html(results, method):
    """A page that needs no other file: each word on its colour, its score under the pointer."""
    paragraphs = []
    for result in results:
        spans = []
        for word, level in zip(result["words"], levels(result["words"]), strict=True):
            colour = "0,150,60" if level > 0 else "210,40,40"
            line = ";text-decoration:underline" if level < 0 else ""
            spans.append(
                f'<span title="{word["score"]:+.3f}" style="background:rgba({colour},'
                f'{0.25 * abs(level):g}){line}">{html.escape(word["word"])}</span>'
            )
        head = f"{result['label']} {result['probability']:.1%}"
        paragraphs.append(f"<p><b>{head}</b><br>{' '.join(spans)}</p>")
    return (
        '<!doctype html><html lang="zh"><meta charset="utf-8"><title>Words that decided</title>'
        "<style>body{font:18px/1.9 sans-serif;max-width:50em;margin:2em auto;padding:0 1em}"
        "span{padding:.1em .15em;border-radius:.2em}</style><h1>Words that decided</h1>"
        f"<p>Scores by {html.escape(method)}. Green: helped the decision. Red and underlined: spoke"
        " against it. The pointer on a word shows its score.</p>\n" + "\n".join(paragraphs) + "\n"
    )


# --- Main ---
def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("text", nargs="?", help="a review; default: nine sentences")
    add("--file", type=Path, metavar="FILE", help="reviews, one a line")
    add("--method", choices=METHODS[:-1], help="default: state, the post's; ours: occlusion")
    add("--html", type=Path, metavar="FILE", help="write a page with the coloured words")
    add("--run-dir", type=Path, metavar="RUN", help="default: the newest run")
    add("--json", action="store_true", help="one JSON object a line")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    if args.text is not None and args.file:
        fail("give a text or --file, not both")
    if args.text is not None and not args.text.strip():
        fail("the text is empty: expected a review")
    if args.html and (args.html.is_dir() or not args.html.parent.is_dir()):
        fail(f"--html {args.html}: expected a file in a folder that is there")
    texts = list(SENTENCES) if args.text is None else [args.text]
    if args.file:
        texts = [line.strip() for line in read_text(args.file).split("\n") if line.strip()]
        if not texts:
            fail(f"{args.file} is empty: expected reviews, one a line")
    found = explain(find_run("rnn_saliency", args.run_dir), texts, args.method)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    results, unknown = [], []
    for text, result in zip(texts, found, strict=True):
        if result is None:
            unknown.append(text)
            continue
        print(json.dumps(result, ensure_ascii=False) if args.json else in_terminal(result, colour))
        if args.html or not args.file:
            results.append(result)
    if args.html:
        write_text(args.html, in_html(results, args.method or "the default method"))
        print(f"page: {args.html}", file=sys.stderr)
    if unknown:
        fail(f"{unknown[0][:30]!r}: no known word, in {len(unknown)} of {len(texts)} texts")
    return results


if __name__ == "__main__":
    run_script(main)
