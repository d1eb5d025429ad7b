"""Fills the blank of a passage with a word of that passage.

python cloze_ccl/predict.py                                     # ten questions, answered
python cloze_ccl/predict.py --text "小猫 有 一个 苹果 。 XXXXX 把 苹果 吃 了 。"
python cloze_ccl/predict.py --text "小猫有苹果,小狗有梨。XXXXX吃了苹果。" --options 小猫 小狗 小鸟
python cloze_ccl/predict.py cloze.valid.doc_query --output cloze.valid.out    # official files
python cloze_ccl/predict.py cloze.valid.doc_query --html page.html --json
python cloze_ccl/predict.py cloze.valid.doc_query --score a.out    # the answers of any system

For each passage: the five best words, their probability, and which words of the passage they are.
"""

import argparse
import json
from pathlib import Path

import common.backend  # noqa: F401  # Before Keras.

import numpy as np

from cloze_ccl.dataset import encode_all
from cloze_ccl.evaluate import (
    answers_of,
    colours,
    exact_match,
    load_reader,
    read_passages,
)
from cloze_ccl.model import sum_by_word
from cloze_ccl.questions import (
    cut,
    into_sentences,
    read_answers,
    read_questions,
    usable_only,
    why_unusable,
    write_answers,
)
from common import cli
from common.files import write_text
from common.folders import find_run
from common.html import shaded_words_page
from data.stories import BLANK, Question, load

NUM_BEST = 5  # Words shown for each passage.
PLACES_SHOWN = 9  # Of a word that stands in more places the others are only counted.
WORDS_AROUND = 12  # Words shown on each side of the blank.


# --- Flags ---
def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("questions", nargs="?", type=Path, help="a file of questions; default: ten written ones")
    add("--text", help=f"one passage with {BLANK}; jieba cuts it if it has no spaces")
    add(
        "--options",
        nargs="+",
        type=some_word,
        default=[],
        metavar="WORD",
        help="of --text: only these may be answers",
    )
    add("--output", type=new_file, metavar="FILE", help="write the answers as the contest does")
    add("--html", type=new_file, metavar="FILE", help="write a page with shaded passages")
    add("--score", type=Path, metavar="FILE", help="how many answers of such a file are right")
    add(
        "--run-dir",
        type=Path,
        action="append",
        metavar="RUN",
        help="default: the newest run; given several times: the mean of these runs",
    )
    add("--json", action="store_true", help="print one JSON object per line")
    args = parser.parse_args(argv)
    if args.text is not None and args.questions is not None:
        parser.error("give a file of questions or --text, not both")
    if args.options and args.text is None:
        parser.error("--options are of --text")
    other_flags = (args.text, args.output, args.html, args.run_dir)
    has_other_flags = args.json or any(flag is not None for flag in other_flags)
    if args.score is not None and (args.questions is None or has_other_flags):
        parser.error("--score takes a file of questions and no other flag")
    return args


def some_word(text):
    """A type for argparse: a text that is more than spaces."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an option is empty: expected words")
    return text


def new_file(text):
    """A type for argparse: the path of a file that can be written."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder: expected the name of a file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path}: there is no folder {path.parent}")
    return path


# --- The story ---
def main(argv=None):
    args = parse_args(argv)
    if args.score is not None:
        return print_score(args.questions, args.score)
    run_dirs = [find_run("cloze_ccl", run_dir) for run_dir in args.run_dir or [None]]
    questions = questions_of(args)
    word_keys = {}
    encoded = encode_all(questions, word_keys)
    probabilities, is_known = read_with_runs(run_dirs, encoded, word_keys)
    all_words = list(word_keys)
    results = []
    unanswered = []
    for question, numbers, row in zip(questions, encoded, probabilities, strict=True):
        reason = why_unanswered(question, numbers, is_known)
        if reason:
            unanswered.append(f"{question.id} ({reason})")
        else:
            words = [all_words[key] for key in numbers.keys]
            result = answer(question, words, row, args.options)
            results.append(result)
            print_result(result, args.json)
    finish(args, questions, results)
    if unanswered:
        count = f"{len(unanswered)} of {len(questions)}"
        cli.fail(f"{count} passages have no answer: {unanswered[0]}")
    return results


# --- Questions ---
def questions_of(args):
    """The Questions that the flags ask for."""
    if args.text is not None:
        return [question_of_text(args.text, args.options)]
    if args.questions is not None:
        return read_questions(args.questions)
    return load("test", 4)[:10]


def question_of_text(text, options=()):
    """The Question of a text with one blank. Its answer is not known."""
    words = cut(text, options)
    num_blanks = words.count(BLANK)
    if num_blanks != 1:
        cli.fail(f"{num_blanks} blanks in the text: expected one {BLANK}")
    if len(words) == 1:
        cli.fail(f"the text is nothing but {BLANK}: expected a passage around it")
    return Question("text", tuple(into_sentences(words)), "")


# --- Answers ---
def read_with_runs(run_dirs, encoded, word_keys):
    """Lets the reader of each run read the passages.

    Args:
        encoded: EncodedQuestions, or None.

    Returns:
        For each question the probability of each word, the mean of all runs; None for None. And a
        boolean for each key: whether a run knows the word.
    """
    is_known = np.zeros(len(word_keys), bool)
    rows_of_runs = []
    for run_dir in run_dirs:
        reader = load_reader(run_dir)
        lookup = reader.lookup(word_keys)
        is_known |= lookup.word_ids > 0
        batch_size = min(64, len(encoded))
        rows = read_passages(reader.name, reader.network, encoded, lookup, batch_size)
        rows_of_runs.append(rows)
    probabilities = []
    for i, numbers in enumerate(encoded):
        row = None
        if numbers is not None:
            row = np.mean([rows[i] for rows in rows_of_runs], axis=0)
        probabilities.append(row)
    return probabilities, is_known


def why_unanswered(question, numbers, is_known):
    """Why a question has no answer, or "" where it has one.

    Args:
        numbers: the EncodedQuestion, or None.
        is_known: a boolean for each key.
    """
    if numbers is None:
        return why_unusable(question)
    note_if_long(question, len(numbers.keys))
    others = numbers.keys[numbers.keys != numbers.keys[numbers.blank]]
    if not is_known[others].any():
        return "no word is known"
    return ""


def note_if_long(question, num_read):
    num_words = sum(len(sentence) for sentence in question.sentences)
    if num_words > num_read:
        note = f"of {num_words:,} words the {num_read:,} around the blank are read"
        cli.note(f"note: {question.id}: {note}")


def answer(question, words, probabilities, options=()):
    """The best words of a passage.

    Args:
        words: those that were read.
        probabilities: one for each of them.
        options: only these words may be answers; default: all.

    Returns:
        A dict with "id", "answer" (as the file has it), "best" (a list of "word", "probability"
        and "places", which are counted in the whole passage), "words" and "probabilities".
    """
    ranked = [entry for entry in sum_by_word(probabilities, words) if entry[0] != BLANK]
    if options:
        ranked = only_options(ranked, options)
    passage = [word for sentence in question.sentences for word in sentence]
    best = []
    for word, probability, _ in ranked[: max(NUM_BEST, len(options))]:
        places = [place for place, other in enumerate(passage) if other == word]
        best.append({"word": word, "probability": round(probability, 4), "places": places})
    return {
        "id": question.id,
        "answer": question.answer,
        "best": best,
        "words": words,
        "probabilities": probabilities,
    }


def only_options(ranked, options):
    """The options, their probabilities scaled to a sum of 1. Options that were not read have 0.

    Args:
        ranked: a list of (word, probability, places).
    """
    kept = [entry for entry in ranked if entry[0] in options]
    if not kept:
        cli.fail(f"none of the options {', '.join(options)} is a word of the passage as read")
    total = max(sum(probability for _, probability, _ in kept), 1e-30)
    scaled = [(word, probability / total, places) for word, probability, places in kept]
    read = {word for word, _, _ in kept}
    for option in dict.fromkeys(options):
        if option not in read:
            scaled.append((option, 0.0, []))
    return scaled


# --- Output ---
def print_result(result, as_json):
    if as_json:
        shown = {name: result[name] for name in ("id", "answer", "best")}
        print(json.dumps(shown, ensure_ascii=False))
        return
    print(f"{result['id']} {around_blank(result['words'])}{known_answer(result)}")
    for entry in result["best"]:
        where = describe_places(entry["places"])
        print(f"  {entry['probability']:6.1%}  {entry['word']}   {where}")


def around_blank(words):
    """The words around the blank as one text."""
    blank = words.index(BLANK)
    first = max(0, blank - WORDS_AROUND)
    text = "".join(words[first : blank + WORDS_AROUND + 1])
    if first > 0:
        return f"…{text}"
    return text


def known_answer(result):
    if result["answer"]:
        return f"   ({result['answer']})"
    return ""


def describe_places(places):
    """Where a word stands, its places counted from 1."""
    if not places:
        return "not in the passage"
    shown = ", ".join(str(place + 1) for place in places[:PLACES_SHOWN])
    text = f"word {shown}"
    if len(places) > PLACES_SHOWN:
        text += f" and {len(places) - PLACES_SHOWN} more"
    return text


def finish(args, questions, results):
    """Writes the files that the flags ask for, and says how many answers are right."""
    predictions = {result["id"]: result["best"][0]["word"] for result in results}
    if args.output is not None:
        write_answers(args.output, predictions)
        cli.note(f"answers: {args.output}")
    if args.html is not None:
        write_text(args.html, page(results))
        cli.note(f"page: {args.html}")
    if any(question.answer for question in questions):
        cli.note(accuracy(predictions, questions, "cannot be right"))


def page(results):
    """An HTML page of the passages, each word as dark as it is probable."""
    texts = []
    for result in results:
        best = [f"{entry['word']} {entry['probability']:.1%}" for entry in result["best"]]
        shaded = []
        for word, probability in zip(result["words"], result["probabilities"], strict=True):
            background, foreground = colours(word, probability)
            style = f"background:{background};color:{foreground}"
            shaded.append({"word": word, "tooltip": f"{probability:.1%}", "style": style})
        texts.append({"heading": ", ".join(best), "words": shaded})
    return shaded_words_page(
        "Where the reader looks",
        "The darker a word, the more probable it is; the places of equal words are added. "
        "The pointer shows the probability of a place.",
        texts,
    )


# --- Score ---
def print_score(questions_path, answers_path):
    """Prints how many answers in a file, of whatever system, are right."""
    questions = read_questions(questions_path)
    if not any(question.answer for question in questions):
        cli.fail(f"{questions_path} has no answers: expected a file .answer beside it")
    predictions = read_answers(answers_path)
    try:
        print(accuracy(predictions, questions, "no reader that points is right"))
    except ValueError as error:
        cli.fail(f"{answers_path}: {error}")


def accuracy(predictions, questions, remark):
    """One line: how many of the answers {id: word} are right, by the official metric.

    Args:
        remark: what to say of questions that no reader can answer.
    """
    hits, total = exact_match(predictions, answers_of(questions))
    text = f"accuracy: {hits / total:.2%}, {hits} of {total}"
    _, unusable = usable_only(questions)
    if unusable:
        reasons = [f"{count} x {reason}" for reason, count in unusable.items()]
        text += f"; {remark}: {', '.join(reasons)}"
    return text


if __name__ == "__main__":
    cli.run(main)
