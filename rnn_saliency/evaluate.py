"""From a trained classifier to its accuracy, and to words and their scores for any text."""

from dataclasses import dataclass

import keras
import numpy as np

from common.cli import fail, note
from common.metrics import proportion
from common.run import load_model
from rnn_saliency.dataset import Cutter, encode, encode_ngrams, load_words
from rnn_saliency.faithfulness import BATCH, METHODS, Explainer
from rnn_saliency.model import ngram_ids

WIDTH_STEP = 32  # Reviews of a long file are padded to multiples of it: JAX compiles each width.


def accuracy(model, ids, labels):
    """The accuracy with its interval."""
    correct = (model.predict(ids, verbose=0)[:, 0] >= 0.5) == labels
    return proportion(correct.sum(), len(correct))


# --- A trained classifier ---
@dataclass
class Trained:
    """A classifier and what it takes to encode a text as in training."""

    model: keras.Model
    cutter: Cutter
    vocabulary: list
    max_words: int
    reads_ngrams: bool


def load_trained(run_dir):
    model = load_model(run_dir / "model.keras")
    settings, cutter = load_words(run_dir / "words.json")
    return Trained(
        model,
        cutter,
        settings["vocabulary"],
        settings["max_words"],
        reads_ngrams=settings["model"] == "ours",
    )


# --- Explaining texts ---
def explain(run_dir, texts, method=None, batch_size=BATCH):
    """Yields a dict of text, label, probability and scored words for each text of a list.

    It is None where no word is known. A line on stderr says where only the beginning of a text is
    read, as in training.

    Args:
        method: one of METHODS; default: "state", and for n-grams "occlusion".
        batch_size: texts that are explained at once, so that a long file needs no more memory.
    """
    trained = load_trained(run_dir)
    if trained.reads_ngrams:
        if method not in (None, "occlusion"):
            fail(f"--method {method}: the n-gram model of {run_dir} knows occlusion only")
        explainer = None
    else:
        explainer = Explainer(trained.model, batch_size=min(batch_size, len(texts)))
    width_step = 1
    if len(texts) > batch_size:
        width_step = WIDTH_STEP
    for start in range(0, len(texts), batch_size):
        group = texts[start : start + batch_size]
        reviews = [cut_as_in_training(trained, text) for text in group]
        if explainer is None:
            explained = explain_ngrams(trained.model, reviews)
        else:
            ids = encode(reviews, trained.vocabulary, trained.max_words)
            explained = explain_words(explainer, reviews, ids, method or METHODS[0], width_step)
        for text, words, (praise, scores, is_known) in zip(group, reviews, explained, strict=True):
            yield describe(text, words, praise, scores) if is_known else None


def cut_as_in_training(trained, text):
    """The words of a text that the model reads."""
    words = trained.cutter(text)
    if len(words) > trained.max_words:
        message = f"of {len(words):,} words the first {trained.max_words:,} are read"
        note(f"note: {message}, as in training: {text[:20]}...")
        words = words[: trained.max_words]
    if trained.reads_ngrams:
        number = len(ngram_ids(words, max_ngrams=None))
        num_read = len(ngram_ids(words))
        if number > num_read:
            message = f"of {number:,} n-grams {num_read:,} are read"
            note(f"note: {message}, as in training: {text[:20]}...")
    return words


def explain_ngrams(model, reviews):
    """Yields (probability of praise, scores of the words, whether one is known).

    A word's score is how much less probable the label is when the word is left out.
    """
    known_ngrams = model.get_layer("ratios").get_weights()[0]
    for words in reviews:
        shorter = [words[:i] + words[i + 1 :] for i in range(len(words))]
        ids = encode_ngrams([words, *shorter])
        praise = model.predict(ids, batch_size=64, verbose=0)[:, 0]
        towards = 1 if praise[0] >= 0.5 else -1
        yield praise[0], towards * (praise[0] - praise[1:]), known_ngrams[ids[0]].any()


def explain_words(explainer, reviews, ids, method, width_step=1):
    """The same for a model of build_classifier, by one of METHODS."""
    ids = np.pad(ids, ((0, 0), (0, -ids.shape[1] % width_step)))
    praise = explainer.probability(ids)
    scores = explainer.scores(method, ids)
    for words, row, probability, line in zip(reviews, ids, praise, scores, strict=True):
        yield probability, line[: len(words)], row.any()


def describe(text, words, praise, scores):
    """What predict.py prints of a text."""
    label = "positive"
    probability = praise
    if praise < 0.5:
        label = "negative"
        probability = 1 - praise
    scored = []
    for word, score in zip(words, scores, strict=True):
        scored.append({"word": word, "score": round(float(score), 4) + 0.0})  # No minus zero.
    return {
        "text": text,
        "label": label,
        "probability": round(float(probability), 4),
        "words": scored,
    }
