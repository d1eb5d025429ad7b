"""Ways to say which words made a classifier decide, and metrics of how true they are.

Each method gives every known word of a review a score: above 0, it helped the decision. The words
are then removed by these scores, as ERASER does (DeYoung et al. 2020): id 0 instead of a word
means that the RNN skips it. `python -m rnn_saliency.faithfulness` writes the README's table.
"""

import re
import time

import keras
import numpy as np
from keras import ops
from scipy.stats import rankdata

from common.cli import fail
from common.files import ROOT, write_text
from common.metrics import mean_interval
from common.table import read_results
from rnn_saliency.gradients import gradient_function
from rnn_saliency.model import build_reader, word_effects

METHODS = (
    "state",
    "change",
    "alone",
    "change+alone",
    "gradient-x-input",
    "integrated-gradients",
    "smoothgrad",
    "occlusion",
    "random",
)
OURS = ("change", "alone", "change+alone")  # The best on validation reviews is chosen.
FRACTIONS = (0.01, 0.05, 0.1, 0.2, 0.5)  # Of a review's known words, rounded up: ERASER's.
CURVE = tuple(k / 10 for k in range(1, 11))  # Fractions of the deletion curve.
BATCH = 100  # Rows of a call: always as many, so that nothing is compiled twice.
STEPS = 32  # Of integrated gradients.
DRAWS = 16  # Of SmoothGrad.
NOISE = 0.15  # Of SmoothGrad, times the range of the word vectors.
NUM_CONTROL = 200  # Reviews that the network with random weights explains, too.
NUM_CHOICE = 300  # Validation reviews by which the best of ours is chosen.


# --- Methods ---
def in_batches(function, size, *arrays):
    """The function's results for rows in batches of one size; the last is filled up with zeros."""
    results = []
    for start in range(0, len(arrays[0]), size):
        batch = [array[start : start + size] for array in arrays]
        missing = size - len(batch[0])
        padded = [pad_rows(array, missing) for array in batch]
        results.append(np.asarray(function(*padded))[: size - missing])
    return np.concatenate(results)


def pad_rows(array, count):
    """The array with so many rows of zeros at the end."""
    zeros = np.zeros((count, *array.shape[1:]), array.dtype)
    return np.concatenate([array, zeros])


class Explainer:
    """A classifier, and the methods that explain its decisions.

    Args:
        model: from build_classifier.
        seed: of the methods that draw.
        batch_size: of every call.
    """

    def __init__(self, model, seed=0, batch_size=BATCH):
        self.model = model
        self.seed = seed
        self.batch_size = batch_size
        self.effects = word_effects(model)
        self.vectors = ops.convert_to_numpy(model.get_layer("words").embeddings)
        self.gradient = gradient_function(model)
        reader = build_reader(model)
        probability, closer, moved = reader.output
        self.by_state = keras.Model(reader.input, [probability, closer])
        self.by_change = keras.Model(reader.input, [probability, moved])

    def probability(self, ids):
        """The probability of praise: (batch,)."""
        return in_batches(lambda x: self.model.predict_on_batch(x)[:, 0], self.batch_size, ids)

    def confidence(self, ids, sign):
        """The probability of the class that `sign` stands for: +1 praise, -1 blame."""
        probability = self.probability(ids)
        return np.where(sign > 0, probability, 1 - probability)

    def sign(self, ids):
        """+1 where praise is predicted, -1 where blame is: (batch,)."""
        return np.where(self.probability(ids) >= 0.5, 1, -1)

    def scores(self, method, ids):
        """(batch, words) by one of METHODS, towards the class that is predicted."""
        if method == "occlusion":
            return self.occlusion(ids)
        if method == "random":
            rng = np.random.default_rng(self.seed)
            return rng.random(ids.shape) * (ids > 0)
        return in_batches(lambda x: self.scores_of_batch(method, x), self.batch_size, ids)

    def scores_of_batch(self, method, ids):
        if method == "state":
            return self.by_state.predict_on_batch(ids)[1]
        if method in OURS:
            return self.ours(method, ids)
        vectors = self.vectors[ids]
        known = ids > 0
        log_odds, slope = self.gradient(vectors, known)
        if method == "integrated-gradients":
            slope = self.integrated_slope(vectors, known)
        elif method == "smoothgrad":
            slope = self.smooth_slope(vectors, known)
        towards = np.where(log_odds >= 0, 1, -1)[:, None]
        return towards * (slope * vectors).sum(-1) * known

    def ours(self, method, ids):
        """How far the words moved the log-odds, what they do alone, or both added."""
        probability, moved = self.by_change.predict_on_batch(ids)
        towards = np.where(probability >= 0.5, 1, -1)
        if method == "change":
            return towards * moved
        if method == "alone":
            return towards * self.effects[ids]
        return towards * (moved + self.effects[ids])

    def integrated_slope(self, vectors, known):
        """The mean gradient on the way from vectors of zeros to the words' own."""
        places = (np.arange(STEPS) + 0.5) / STEPS
        return sum(self.gradient(vectors * place, known)[1] for place in places) / STEPS

    def smooth_slope(self, vectors, known):
        """The mean gradient at vectors with noise."""
        rng = np.random.default_rng(self.seed)
        width = NOISE * np.ptp(self.vectors)
        slope = 0
        for _ in range(DRAWS):
            noise = rng.normal(0, width, vectors.shape)
            slope = slope + self.gradient(vectors + noise, known)[1]
        return slope / DRAWS

    def occlusion(self, ids):
        """How much less probable the class is when the word is left out."""
        rows, places = np.nonzero(ids)
        without = ids[rows]
        without[np.arange(len(rows)), places] = 0
        sign = self.sign(ids)
        scores = np.zeros(ids.shape)
        scores[rows, places] = self.confidence(ids, sign)[rows]
        scores[rows, places] -= self.confidence(without, sign[rows])
        return scores

    def completeness_gap(self, ids, scores):
        """How far the sum of the scores misses what it should be, as a fraction; the mean.

        It should be the log-odds minus the log-odds of vectors of zeros.
        """

        def difference(x):
            known = x > 0
            vectors = self.vectors[x]
            return self.gradient(vectors, known)[0] - self.gradient(vectors * 0, known)[0]

        reached = in_batches(difference, self.batch_size, ids)
        missed = np.abs(scores.sum(1) - self.sign(ids) * reached)
        return missed.mean() / np.abs(reached).mean()


# --- Metrics: one number per review ---
def ranks(ids, scores):
    """0 for the known word with the highest score, 1 for the next; unknown words come last."""
    order = np.argsort(np.where(ids > 0, -scores, np.inf), axis=1, kind="stable")
    return np.argsort(order, axis=1, kind="stable")


def faithfulness(explainer, ids, scores):
    """Comprehensiveness and sufficiency (batch, FRACTIONS), and the area of the deletion curve.

    Comprehensiveness: what the probability loses without the best words; high is good.
    Sufficiency: what it loses with the best words only; low is good. Deletion AUC: the area under
    the probability while words are removed, best first, until none is left; low is good.
    """
    rank = ranks(ids, scores)
    num_known = (ids > 0).sum(1)
    sign = explainer.sign(ids)
    whole = explainer.confidence(ids, sign)
    without = {}
    only = {}
    for fraction in {*FRACTIONS, *CURVE}:
        best = rank < np.ceil(fraction * num_known - 1e-9)[:, None]
        without[fraction] = explainer.confidence(np.where(best, 0, ids), sign)
        if fraction in FRACTIONS:
            only[fraction] = explainer.confidence(np.where(best, ids, 0), sign)
    curve = np.stack([whole, *(without[fraction] for fraction in CURVE)])
    return {
        "comprehensiveness": np.stack([whole - without[f] for f in FRACTIONS], axis=1),
        "sufficiency": np.stack([whole - only[f] for f in FRACTIONS], axis=1),
        "deletion AUC": np.trapezoid(curve, dx=0.1, axis=0),
    }


def rank_correlation(ids, first, second):
    """Spearman's, of the scores of each review's known words; of reviews with two or more."""
    correlations = []
    for known, one, other in zip(ids > 0, first, second, strict=True):
        a = rankdata(np.round(one[known], 9))
        b = rankdata(np.round(other[known], 9))
        if len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0:
            correlations.append(np.corrcoef(a, b)[0, 1])
    return np.array(correlations)


def precision(ids, scores, causes):
    """The fraction of true cause words among the first, and among as many as there are."""
    best = np.argsort(ranks(ids, scores), axis=1).tolist()
    at_one = []
    at_k = []
    for row, order, places in zip(ids, best, causes, strict=True):
        true = {place for place in places if place < len(row) and row[place] > 0}
        if true:
            at_one.append(float(order[0] in true))
            at_k.append(len(true & set(order[: len(true)])) / len(true))
    return {"precision at 1": np.array(at_one), "precision at k": np.array(at_k)}


def mean_over_reviews(values, resamples=1000):
    """The mean over reviews with its 95% interval, from reviews drawn with replacement."""
    drawn = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    low, high = np.quantile(np.asarray(values)[drawn].mean(1), (0.025, 0.975))
    mean = float(np.mean(values))
    return {
        "value": mean,
        "n": len(values),
        "low": min(mean, float(low)),
        "high": max(mean, float(high)),
    }


def seconds(function, repeats):
    """The seconds of each of so many calls, after one that compiles."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return np.array(times)


# --- The study ---
def study(model, control_model, ids, causes, count, seed=0):
    """Metrics and details for the record: every method on `count` test reviews.

    Args:
        model, control_model: the trained classifier, and one with random weights.
        ids: {"valid" | "test": ids of the reviews}.
        causes: {"valid" | "test": the places of the true cause words, or None}.
    """
    valid_rows = choose_rows(ids, "valid", count)
    test_rows = choose_rows(ids, "test", count)
    batch_size = min(BATCH, count)
    explainer = Explainer(model, seed, batch_size)
    control = Explainer(control_model, seed, batch_size)
    chosen = best_of_ours(explainer, ids["valid"][valid_rows][:NUM_CHOICE])
    details = {"best of ours, by comprehensiveness on validation": chosen}

    test_ids = ids["test"][test_rows]
    true = None
    if causes["test"] is not None:
        true = [causes["test"][row] for row in test_rows]
    scores = {method: explainer.scores(method, test_ids) for method in METHODS}
    metrics = {}
    lost = {}
    for method in METHODS:
        measured = faithfulness(explainer, test_ids, scores[method])
        lost[method] = measured["comprehensiveness"].mean(1)
        for name in ("comprehensiveness", "sufficiency"):
            values = " ".join(f"{value:.3f}" for value in measured[name].mean(0))
            details[f"{name} at 1, 5, 10, 20, 50%, {method}"] = values
        measured = {name: mean_of_fractions(values) for name, values in measured.items()}
        correlation = rank_correlation(test_ids, scores[method], scores["occlusion"])
        measured["rank correlation with occlusion"] = correlation
        if method != "random":
            some = test_ids[:NUM_CONTROL]
            others = control.scores(method, some)
            correlation = rank_correlation(some, scores[method][:NUM_CONTROL], others)
            measured["rank correlation with random weights"] = correlation
        if true is not None:
            measured.update(precision(test_ids, scores[method], true))
        for name, values in measured.items():
            if len(values) > 0:
                metrics[f"{name}, {method}"] = mean_over_reviews(values)
    gain = lost[chosen] - lost["integrated-gradients"]
    name = "comprehensiveness, best of ours minus integrated gradients"
    metrics[name] = mean_over_reviews(gain)
    gap = explainer.completeness_gap(test_ids, scores["integrated-gradients"])
    details["completeness gap of integrated gradients"] = f"{gap:.4f}"
    metrics.update(measure_time(explainer, test_ids))
    return metrics, details


def choose_rows(ids, part, count):
    """The rows of the first reviews that have two known words or more."""
    rows = np.flatnonzero((ids[part] > 0).sum(1) > 1)[:count]
    if len(rows) == 0:
        fail(f"no {part} review has two known words: --study 0 does without explanations")
    return rows


def best_of_ours(explainer, ids):
    """The method of ours with the highest comprehensiveness on these reviews."""
    means = {}
    for method in OURS:
        measured = faithfulness(explainer, ids, explainer.scores(method, ids))
        means[method] = measured["comprehensiveness"].mean()
    return max(OURS, key=means.get)


def mean_of_fractions(values):
    """One number per review: the mean over FRACTIONS, where there are several."""
    if values.ndim > 1:
        return values.mean(1)
    return values


def measure_time(explainer, ids):
    """Milliseconds per review of each method, and of ours as a multiple of a forward pass."""
    some = np.resize(ids, (explainer.batch_size, ids.shape[1]))
    metrics = {}
    for method in METHODS[:-1]:
        times = seconds(lambda method=method: explainer.scores(method, some), 3)
        interval = mean_interval(1000 * times / explainer.batch_size)
        metrics[f"milliseconds per review, {method}"] = {**interval, "n": len(times)}
    for method in ("state", "change+alone"):
        ratios = []
        for _ in range(20):  # In turn, because the speed of a machine wanders.
            forward = seconds(lambda: explainer.probability(some), 1)
            scoring = seconds(lambda method=method: explainer.scores(method, some), 1)
            ratios.append(scoring[0] / forward[0])
        metrics[f"times a forward pass, {method}"] = {**mean_interval(ratios), "n": 20}
    return metrics


# --- The README's table ---
def studies():
    """The records that hold a study."""
    records, _ = read_results("rnn_saliency")
    return [record for record in records if "comprehensiveness, state" in record["metrics"]]


def methods_table(row):
    """A line for each method, the mean of the studies of this row, as Markdown."""
    records = [record for record in studies() if record["row"] == row]
    names = [
        name.removesuffix(", state")
        for name in records[0]["metrics"]
        if name.endswith(", state") and not name.startswith("times")
    ]
    lines = [[f"{row}, {len(records)} seeds", *names], ["---"] * (1 + len(names))]
    for method in METHODS:
        cells = [mean_of_records(records, f"{name}, {method}") for name in names]
        lines.append([method, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def mean_of_records(records, name):
    """The mean of a metric over the records; a dash where one of them does not have it."""
    if not all(name in record["metrics"] for record in records):
        return "\u2013"
    return f"{np.mean([record['metrics'][name]['value'] for record in records]):.3f}"


def study_rows():
    return sorted({record["row"] for record in studies()})


def main():
    readme = ROOT / "rnn_saliency" / "README.md"
    parts = re.split("(<!-- /?methods -->\n)", readme.read_text(encoding="utf-8"))
    parts[2] = "\n\n".join(map(methods_table, study_rows())) + "\n"
    write_text(readme, "".join(parts))


if __name__ == "__main__":
    main()
