"""Fills the blank of a passage with a word of that passage.

python cloze_ccl/predict.py                                     # ten questions, answered
python cloze_ccl/predict.py --text "小猫 有 一个 苹果 。 XXXXX 把 苹果 吃 了 。"
python cloze_ccl/predict.py --text "小猫有苹果,小狗有梨。XXXXX吃了苹果。" --options 小猫 小狗 小鸟
python cloze_ccl/predict.py cloze.valid.doc_query --output cloze.valid.out    # official files
python cloze_ccl/predict.py cloze.valid.doc_query --html page.html --json
python cloze_ccl/predict.py cloze.valid.doc_query --score a.out    # the answers of any system

Of each passage: the five best words, their probability, and which words of the passage they are.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from cloze_ccl import batches, reading
from cloze_ccl.texts import (
    cut,
    exact_match,
    into_sentences,
    read_answers,
    read_questions,
    usable_only,
    why_unusable,
    write_answers,
)
from cloze_ccl.train import sum_by_word
from common.run import fail, find_run, load_file, run_script, write_text
from data.stories import BLANK, Question, load


def question_of(text, options=()):
    """The Question of a text with one blank, whose answer nobody knows."""
    words = cut(text, options)
    if words.count(BLANK) != 1:
        fail(f"{words.count(BLANK)} blanks in the text: expected one {BLANK}")
    if len(words) == 1:
        fail(f"the text is nothing but {BLANK}: expected a passage around it")
    return Question("text", tuple(into_sentences(words)), "")


def read_passages(run_dirs, questions, options=()):
    """A dict of id, answer, best words, and the words read with their probabilities, of each.

    Instead, why a question has no answer: no blank, two, or no word that a run knows. Probabilities
    are the mean of the runs'. options: only these words may be answers. The places of the best
    words are those in the passage, of which no more than batches.MAX_WORDS words are read.
    """
    index, read, known = {}, [], False
    items = batches.encode_all(questions, index)
    for run_dir in run_dirs:
        model, settings = (load_file(run_dir / name) for name in ("model.keras", "words.json"))
        lookup = batches.Lookup(index, settings["vocabulary"], settings["characters"])
        read.append(reading.read(model, settings["model"], items, lookup, min(64, len(items))))
        known = known | (lookup.ids > 0)
    all_words = list(index)
    for question, item, *rows in zip(questions, items, *read, strict=True):
        if item is None:
            yield why_unusable(question)
            continue
        row = np.mean(rows, axis=0)
        passage = [word for sentence in question.sentences for word in sentence]
        if len(passage) > len(row):
            note = f"of {len(passage):,} words the {len(row):,} around the blank are read"
            print(f"note: {question.id}: {note}", file=sys.stderr)
        words = [all_words[key] for key in item.keys]
        if not known[item.keys[item.keys != item.keys[item.blank]]].any():
            yield "no word is known"
            continue
        found = [entry for entry in sum_by_word(row, words) if entry[0] != BLANK]
        if options:
            found = [entry for entry in found if entry[0] in options]
            total = sum(probability for _, probability, _ in found)
            if not found:
                fail(f"none of the options {', '.join(options)} is a word of the passage as read")
            found = [(word, p / max(total, 1e-30), at) for word, p, at in found]
            found += [(word, 0.0, []) for word in dict.fromkeys(options) if word not in words]
        best = [
            {
                "word": word,
                "probability": round(p, 4),
                "places": [place for place, other in enumerate(passage) if other == word],
            }
            for word, p, _ in found[: max(5, len(options))]
        ]
        result = {"id": question.id, "answer": question.answer, "best": best}
        yield result | {"words": words, "probabilities": row}


def in_terminal(result):
    """The sentence with the blank, and a line for each of the best words."""
    words, blank = result["words"], result["words"].index(BLANK)
    first = max(0, blank - 12)
    around = ("…" * bool(first)) + "".join(words[first : blank + 13])
    known = f"   ({result['answer']})" if result["answer"] else ""
    lines = [f"{result['id']} {around}{known}"]
    for entry in result["best"]:
        places = [str(place + 1) for place in entry["places"]]
        at = f"word {', '.join(places[:9])}" if places else "not in the passage"
        at += f" and {len(places) - 9} more" * (len(places) > 9)
        lines.append(f"  {entry['probability']:6.1%}  {entry['word']}   {at}")
    return "\n".join(lines)


def accuracy(given, questions, unfit="cannot be right"):
    """How many of the answers {id: word} are right, by the official metric, in one line."""
    right, total = exact_match(given, {question.id: question.answer for question in questions})
    wrong = usable_only(questions)[1]
    note = ", ".join(f"{count} x {reason}" for reason, count in wrong.items())
    note = f"; {unfit}: {note}" if wrong else ""
    return f"accuracy: {right / total:.2%}, {right} of {total}{note}"


def score(args):
    """Prints how many answers of the file --score, of whatever system, are right."""
    if not args.questions or args.text or args.output or args.html or args.run_dir or args.json:
        fail("--score takes a file of questions and no other flag")
    questions = read_questions(args.questions)
    if not any(question.answer for question in questions):
        fail(f"{args.questions} has no answers: expected a file .answer beside it")
    try:
        print(accuracy(read_answers(args.score), questions, "no reader that points is right"))
    except ValueError as error:
        fail(f"{args.score}: {error}")


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("questions", nargs="?", type=Path, help="a file of questions; default: ten written ones")
    add("--text", help=f"one passage with {BLANK}; jieba cuts it if it has no blanks")
    add("--options", nargs="+", default=[], metavar="WORD", help="only these may be answers")
    add("--output", type=Path, metavar="FILE", help="write the answers as the contest wants them")
    add("--html", type=Path, metavar="FILE", help="write a page with shaded passages")
    add("--score", type=Path, metavar="FILE", help="how many answers of such a file are right")
    again = {"action": "append", "metavar": "RUN"}
    add("--run-dir", type=Path, help="default: the newest run; given again: their mean", **again)
    add("--json", action="store_true", help="one JSON object a line")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    if args.text is not None and args.questions:
        fail("give a file of questions or --text, not both")
    if args.options and args.text is None:
        fail("--options are of --text")
    if args.score:
        return score(args)
    if not all(map(str.strip, args.options)):
        fail("an option is empty: expected words")
    for path in (args.output, args.html):
        if path and path.is_dir():
            fail(f"{path} is a folder: expected the name of a file")
        if path and not path.parent.is_dir():
            fail(f"{path}: there is no folder {path.parent}")
    run_dirs = [find_run("cloze_ccl", run_dir) for run_dir in args.run_dir or [None]]
    if args.text is not None:
        questions = [question_of(args.text, args.options)]
    else:
        questions = read_questions(args.questions) if args.questions else load("test", 4)[:10]
    results, unusable = [], []
    for question, result in zip(
        questions, read_passages(run_dirs, questions, args.options), strict=True
    ):
        if isinstance(result, str):
            unusable.append(f"{question.id} ({result})")
            continue
        results.append(result)
        shown = {name: result[name] for name in ("id", "answer", "best")}
        print(json.dumps(shown, ensure_ascii=False) if args.json else in_terminal(result))
    given = {result["id"]: result["best"][0]["word"] for result in results}
    if args.output:
        write_answers(args.output, given)
        print(f"answers: {args.output}", file=sys.stderr)
    if args.html:
        write_text(args.html, reading.page(results))
        print(f"page: {args.html}", file=sys.stderr)
    if any(question.answer for question in questions):
        print(accuracy(given, questions), file=sys.stderr)
    if unusable:
        fail(f"{len(unusable)} of {len(questions)} passages have no answer: {unusable[0]}")
    return results


if __name__ == "__main__":
    run_script(main)
