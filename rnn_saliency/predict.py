"""Labels Chinese reviews and shows which words made the network decide.

python rnn_saliency/predict.py                                  # nine sentences
python rnn_saliency/predict.py "房间很干净, 但是服务太差"
python rnn_saliency/predict.py --file reviews.txt --html page.html      # one review a line
python rnn_saliency/predict.py --json --method occlusion "房间很干净"

A word above 0 helped the decision (green, +), one below 0 spoke against it (red, -), the stronger
the more; unknown words score 0. The probability is that of the label.
"""

import json
import os
import sys
from pathlib import Path

import common.backend  # noqa: F401  # Before Keras.

from common import cli
from common.cli import note
from common.files import write_text
from common.folders import find_run
from common.html import shaded_words_page
from rnn_saliency.dataset import read_text
from rnn_saliency.evaluate import explain
from rnn_saliency.faithfulness import METHODS

# Our own sentences; a space stands for the Chinese comma.
SENTENCES = [
    sentence.replace(" ", "\uff0c")
    for sentence in (
        "房间很干净 服务很热情 位置也方便。",
        "糟糕 糟糕 糟糕 再也不用了。",
        "满意 满意 满意 下次还用。",
        "虽然外观很漂亮 但是电池太差。",
        "虽然价格有点昂贵 但是环境真不错。",
        "内容不错 可是印刷粗糙 翻译生硬。",
        "服务不好 前台冷淡 房间很吵。",
        "按键灵敏 屏幕清晰 非常满意。",
        "屏幕不清晰 电池发热 实在失望。",
    )
]
NUM_LEVELS = 3  # Of strength, which colours and marks show; weaker words have none.
GREENS = (194, 157, 120)  # ANSI colours, from weak to strong.
REDS = (224, 217, 210)


# --- Showing ---
def levels(words):
    """-3 to 3 for each word: its sign and its strength, beside the review's strongest word."""
    strongest = max(abs(word["score"]) for word in words) or 1
    return [round(NUM_LEVELS * word["score"] / strongest) for word in words]


def in_terminal(result, in_colour):
    """Three lines: the label, the words with colours or marks, the best words and their scores."""
    words = result["words"]
    mark = coloured if in_colour else marked
    shown = [mark(word["word"], level) for word, level in zip(words, levels(words), strict=True)]
    ordered = sorted(words, key=lambda word: -word["score"])
    best = [word for word in (*ordered[:4], ordered[-1]) if word["score"] != 0]
    best = dict.fromkeys(f"{word['word']} {word['score']:+.3f}" for word in best)
    lines = [
        f"{result['label']} {result['probability']:.1%}",
        " ".join(shown),
        ", ".join(best),
    ]
    return "\n  ".join(lines)


def coloured(word, level):
    """The word on a green or red background."""
    if level == 0:
        return word
    shades = GREENS if level > 0 else REDS
    return f"\x1b[30;48;5;{shades[abs(level) - 1]}m{word}\x1b[0m"


def marked(word, level):
    """The word with up to three plus or minus signs."""
    sign = "+" if level > 0 else "-"
    return word + sign * abs(level)


def in_html(results, method):
    """A page that needs no other file: each word on its colour, its score under the pointer."""
    texts = []
    for result in results:
        words = []
        for word, level in zip(result["words"], levels(result["words"]), strict=True):
            words.append(
                {
                    "word": word["word"],
                    "tooltip": f"{word['score']:+.3f}",
                    "style": style_of(level),
                }
            )
        heading = f"{result['label']} {result['probability']:.1%}"
        texts.append({"heading": heading, "words": words})
    explanation = (
        f"Scores by {method}. Green: helped the decision. Red and underlined: spoke against it. "
        "The pointer on a word shows its score."
    )
    return shaded_words_page("Words that decided", explanation, texts)


def style_of(level):
    """The CSS of a word."""
    opacity = 0.25 * abs(level)
    if level > 0:
        return f"background: rgba(0, 150, 60, {opacity:g})"
    if level < 0:
        return f"background: rgba(210, 40, 40, {opacity:g}); text-decoration: underline"
    return ""


# --- Main ---
def parse_args(argv=None):
    parser = cli.parser_of_predict(__doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("text", nargs="?", help="a review; default: nine sentences")
    source.add_argument("--file", type=Path, metavar="FILE", help="reviews, one a line")
    add = parser.add_argument
    add("--method", choices=METHODS[:-1], help="default: state, the post's; ours: occlusion")
    add("--html", type=Path, metavar="FILE", help="write a page with the coloured words")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    if args.html and (args.html.is_dir() or not args.html.parent.is_dir()):
        cli.fail(f"--html {args.html}: expected a file in a folder that is there")
    texts = read_texts(args)
    explained = explain(find_run("rnn_saliency", args.run_dir), texts, args.method)
    in_colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    results = []
    unknown = []
    for text, result in zip(texts, explained, strict=True):
        if result is None:
            unknown.append(text)
            continue
        if args.json:
            print(json.dumps(result, ensure_ascii=False))
        else:
            print(in_terminal(result, in_colour))
        if args.html or not args.file:  # The results of a long file are not kept.
            results.append(result)
    if args.html:
        write_text(args.html, in_html(results, args.method or "the default method"))
        note(f"page: {args.html}")
    if unknown:
        cli.fail(f"{unknown[0][:30]!r}: no known word, in {len(unknown)} of {len(texts)} texts")
    return results


def read_texts(args):
    """The reviews to explain."""
    if args.file:
        texts = [line.strip() for line in read_text(args.file).split("\n") if line.strip()]
        if not texts:
            cli.fail(f"{args.file} is empty: expected reviews, one a line")
        return texts
    if args.text is None:
        return SENTENCES
    if not args.text.strip():
        cli.fail("the text is empty: expected a review")
    return [args.text]


if __name__ == "__main__":
    cli.run(main)
