"""From a trained reader and test questions to answers, metrics, and an image of where it looks."""

import json
import math
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np

from cloze_ccl.dataset import Lookup, QuestionBatches
from cloze_ccl.questions import usable_only, write_answers
from common.cli import fail
from common.files import read_json, write_text
from common.html import render
from common.metrics import proportion
from common.run import load_model
from data.stories import BLANK, is_noun, part_of_speech


# --- A trained reader ---
@dataclass
class Reader:
    """A network and what its inputs mean.

    Attributes:
        name: "post", "as-reader" or "ours".
        network: the Keras model.
        words, characters: of its vocabulary; word i has the id i + 1.
    """

    name: str
    network: keras.Model
    words: list
    characters: list

    def lookup(self, word_keys):
        """The Lookup of these words, {word: key}."""
        return Lookup(word_keys, self.words, self.characters)


def save_words(folder, reader, vocabulary):
    """Writes what predict.py must know beside the network."""
    words = {
        "model": reader,
        "vocabulary": vocabulary.words,
        "characters": vocabulary.characters,
    }
    write_text(folder / "words.json", json.dumps(words, ensure_ascii=False))


def load_reader(folder):
    """The Reader of a run."""
    network = load_model(folder / "model.keras")
    words = read_json(folder / "words.json")
    try:
        return Reader(words["model"], network, words["vocabulary"], words["characters"])
    except (KeyError, TypeError) as error:
        fail(f"{folder / 'words.json'} is damaged: {error}")


# --- Answers ---
def read_passages(reader, network, encoded, lookup, batch_size=64):
    """How probable each word of each passage is as the answer.

    Args:
        reader: "post", "as-reader" or "ours".
        encoded: EncodedQuestions, or None.

    Returns:
        For each question an array with one number per word that was read; None for None. The
        numbers add up to 1: what the post's reader gives to an empty side belongs to no word.
    """
    readable = [i for i, question in enumerate(encoded) if question is not None]
    batches = QuestionBatches(reader, [encoded[i] for i in readable], lookup, batch_size)
    all_probabilities = [None] * len(encoded)
    for step, (numbers, _) in enumerate(batches.plan):
        batch = batches.batch(step)
        log_probabilities = network.predict_on_batch(batch.inputs)
        rows = np.exp(np.asarray(log_probabilities, "float64"))
        # The rows that only fill the batch come last and belong to no number.
        for number, row, places in zip(numbers, rows, batch.places, strict=False):
            i = readable[number]
            probabilities = np.zeros(len(encoded[i].keys))
            probabilities[places[places >= 0]] = row[places >= 0]
            probabilities /= max(probabilities.sum(), 1e-30)
            all_probabilities[i] = probabilities
    return all_probabilities


def best_keys(encoded, probabilities):
    """For each question the key of the word with the largest sum of probabilities."""
    best = []
    for question, row in zip(encoded, probabilities, strict=True):
        keys, key_of_place = np.unique(question.keys, return_inverse=True)
        sums = np.bincount(key_of_place, row)
        best.append(int(keys[sums.argmax()]))
    return best


def accuracy(reader, network, encoded, lookup):
    """The fraction of questions whose best word is the answer, for choosing the epoch."""
    guesses = best_keys(encoded, read_passages(reader, network, encoded, lookup))
    hits = 0
    for guess, question in zip(guesses, encoded, strict=True):
        if guess == question.answer:
            hits += 1
    return hits / len(encoded)


# --- Baselines ---
def is_content(word):
    """Nouns, verbs, adjectives and fixed phrases of at least two characters."""
    return len(word) > 1 and part_of_speech(word)[0] in "nsvailz" and word[0] >= "\u3400"


def baselines(encoded, words, seed=0):
    """What can be answered without reading.

    Args:
        encoded: EncodedQuestions.
        words: the word of each key.

    Returns:
        {name: [the key answered to each question]}: a random content word; the most frequent
        noun, of equally frequent ones the first; the noun nearest to the blank, of two the left
        one.
    """
    rng = np.random.default_rng(seed)
    answers = {"random content word": [], "most frequent noun": [], "nearest noun": []}
    for question in encoded:
        candidates = candidate_words(question, words)
        content = candidates.content
        random_word = content[int(rng.random() * len(content))]
        frequent, _ = Counter(candidates.nouns or content).most_common(1)[0]
        answers["random content word"].append(random_word)
        answers["most frequent noun"].append(frequent)
        answers["nearest noun"].append(nearest(question.blank, candidates))
    return answers


class Candidates(NamedTuple):
    """Keys of the words of a passage that a baseline chooses from.

    Attributes:
        content: different content words, sorted; all words where there is none.
        nouns: one for each place of a noun.
        noun_places: these places.
    """

    content: list
    nouns: list
    noun_places: list


def candidate_words(question, words):
    """The Candidates of a question."""
    keys = []
    nouns = []
    noun_places = []
    for place, key in enumerate(question.keys.tolist()):
        if place == question.blank:
            continue
        keys.append(key)
        if is_noun(words[key]):
            nouns.append(key)
            noun_places.append(place)
    content = sorted({key for key in keys if is_content(words[key])})
    if not content:
        content = keys or [-1]  # A passage may be nothing but its blank.
    return Candidates(content, nouns, noun_places)


def nearest(blank, candidates):
    """The key of the noun nearest to the blank, or of any word where there is no noun."""
    if not candidates.nouns:
        return candidates.content[0]
    distances = [abs(place - blank) for place in candidates.noun_places]
    return candidates.nouns[distances.index(min(distances))]


# --- Metrics ---
def exact_match(predictions, answers):
    """The official metric: how many answers are the very word, and how many questions there are.

    A question without a prediction counts as wrong. Raises ValueError where a question that does
    not exist is answered.

    Args:
        predictions, answers: {id: word}.
    """
    not_asked = predictions.keys() - answers.keys()
    if not_asked:
        raise ValueError(f"{min(not_asked)} is answered, but not asked")
    hits = 0
    for id, word in answers.items():
        if word != "" and predictions.get(id) == word:
            hits += 1
    return hits, len(answers)


def evaluate(reader, splits, encoded, word_keys, folder):
    """The metrics and details of the record. Writes answers and an image to the folder of a run.

    Args:
        reader: a Reader.
        splits: {"train" | "valid" | name of a test set: Questions}.
        encoded: {the same names: EncodedQuestions}.
        word_keys: {word: key}.
    """
    metrics = {}
    details = {}
    lookup = reader.lookup(word_keys)
    words = list(word_keys)
    known_words = word_keys.keys() & set(reader.words)
    test_sets = [name for name in splits if name not in ("train", "valid")]
    for name in test_sets:
        suffix = ""
        if name != "test":
            suffix = f" on {name}"
        questions = splits[name]
        probabilities = read_passages(reader.name, reader.network, encoded[name], lookup)
        answers = answer_all(questions, encoded[name], probabilities, words)
        for method, predictions in answers.items():
            hits, total = exact_match(predictions, answers_of(questions))
            metrics[method.replace("accuracy", f"accuracy{suffix}")] = proportion(hits, total)
        for key, detail in describe(questions, answers["accuracy"], known_words).items():
            details[f"{key}{suffix}"] = detail
        write_answers(folder / f"{name}.out", answers["accuracy"])
    # The image shows the last test set.
    image = draw_attention(questions, encoded[name], probabilities)
    write_text(folder / "attention.svg", image)
    return metrics, details


def answers_of(questions):
    """{id: answer} of Questions."""
    return {question.id: question.answer for question in questions}


def answer_all(questions, encoded, probabilities, words):
    """{name of a metric: {id: word}}: the answers of the reader, and those of the baselines."""
    readable = [i for i, question in enumerate(encoded) if question is not None]
    encoded = [encoded[i] for i in readable]
    keys = {"accuracy": best_keys(encoded, [probabilities[i] for i in readable])}
    for name, baseline_keys in baselines(encoded, words).items():
        keys[f"accuracy, {name}"] = baseline_keys
    answers = {}
    for name, keys_of_method in keys.items():
        answers[name] = {}
        for i, key in zip(readable, keys_of_method, strict=True):
            answers[name][questions[i].id] = words[key]
    return answers


def describe(questions, predictions, known_words):
    """What else there is to say about the answers to some questions.

    Args:
        predictions: {id: word} of the reader.
        known_words: the words of the questions that are in the vocabulary.
    """
    num_unknown = sum(question.answer not in known_words for question in questions)
    _, unusable = usable_only(questions)
    details = {
        "test questions with an unknown answer": f"{num_unknown} of {len(questions)}",
        "unusable test questions": json.dumps(unusable),
    }
    asked = Counter()
    right = Counter()
    for question in questions:
        if question.kind:
            asked[question.kind] += 1
            if predictions.get(question.id) == question.answer:
                right[question.kind] += 1
    if asked:
        parts = [f"{kind} {right[kind] / asked[kind]:.3f}" for kind in asked]
        details["accuracy by kind"] = ", ".join(parts)
    return details


# --- Where the reader looks ---
SVG_WIDTH = 880  # Pixels of the image,
FONT_SIZE = 18  # of a Chinese character,
LINE_HEIGHT = 32  # and of a line of text.
SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{{ width }}" height="{{ height }}" \
viewBox="0 0 {{ width }} {{ height }}" font-family="sans-serif" font-size="{{ font_size }}">
<rect width="{{ width }}" height="{{ height }}" fill="#fff"/>
{% for passage in passages %}
<text x="20" y="{{ passage.title_y }}" font-weight="bold">{{ passage.title }}</text>
{% for word in passage.words %}
<rect x="{{ word.rect_x }}" y="{{ word.rect_y }}" width="{{ word.rect_width }}" height="27" \
rx="4" fill="{{ word.background }}"/>
<text x="{{ word.text_x }}" y="{{ word.text_y }}" fill="{{ word.foreground }}">\
{{ word.text }}</text>
{% endfor %}
{% endfor %}
</svg>
"""


def colours(word, probability):
    """The CSS colours of a word's background and of its text.

    The shade is the square root of the probability: otherwise only the best words would be seen.
    """
    if word == BLANK:
        return "#ffe08a", "#222"
    strength = math.sqrt(min(max(probability, 0), 1))
    text_colour = "#222"
    if strength > 0.6:
        text_colour = "#fff"
    return f"rgba(30,110,210,{0.85 * strength:.3f})", text_colour


def draw_attention(questions, encoded, probabilities, count=3):
    """An SVG image of the first questions, each word as dark as it is probable."""
    passages = []
    top = 12
    for question, numbers, row in zip(questions, encoded, probabilities, strict=True):
        words = [word for sentence in question.sentences for word in sentence]
        # A long passage is only read in part, and one without a blank not at all.
        was_read_whole = numbers is not None and len(words) == len(row)
        if was_read_whole and len(passages) < count:
            placed, num_lines = place_words(words, row, top + 36)
            title = f"{question.id}: {question.answer}"
            passages.append({"title": title, "title_y": top + 20, "words": placed})
            top += 60 + num_lines * LINE_HEIGHT
    return render(SVG, width=SVG_WIDTH, height=top, font_size=FONT_SIZE, passages=passages)


def place_words(words, probabilities, top):
    """Sets words in lines from `top` on: what SVG needs for each word, and the number of lines."""
    placed = []
    x = 0
    line = 0
    for word, probability in zip(words, probabilities, strict=True):
        width = width_of(word)
        if x + width > SVG_WIDTH - 40:
            x = 0
            line += 1
        y = top + line * LINE_HEIGHT
        background, foreground = colours(word, probability)
        placed.append(
            {
                "text": word,
                "rect_x": f"{20 + x:.1f}",
                "rect_y": y,
                "rect_width": f"{width - 1:.1f}",
                "text_x": f"{23 + x:.1f}",
                "text_y": y + 20,
                "background": background,
                "foreground": foreground,
            }
        )
        x += width
    return placed, line + 1


def width_of(word):
    """The width of a word and the space around it, in pixels: an estimate, as there is no font."""
    characters = 0
    for character in word:
        if unicodedata.east_asian_width(character) in "WFA":
            characters += 1
        else:
            characters += 0.6
    return FONT_SIZE * characters + 6
