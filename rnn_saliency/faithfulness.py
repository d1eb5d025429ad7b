"""Ways to say which words made a classifier decide, and measures of how true they are.

Each method gives every known word of a review a score: above 0, it helped the decision. The words
are then taken away by these scores, as ERASER does (DeYoung et al. 2020): id 0 instead of a word
means that the RNN skips it. `python -m rnn_saliency.faithfulness` writes the README's table.
"""

import re
import time

import numpy as np

from common.run import ROOT, fail, keras, ops, write_text
from common.table import mean_interval, read_results
from rnn_saliency.gradients import gradient_function

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
CHEAP = METHODS[1:4]  # Ours; the best of them on validation reviews is the one of choice.
SHARES = 0.01, 0.05, 0.1, 0.2, 0.5  # Of a review's known words, rounded up: ERASER's.
CURVE = tuple(k / 10 for k in range(1, 11))  # Of the deletion curve.
BATCH = 100  # Rows of a call, always as many, so that nothing is compiled twice.
STEPS, DRAWS, NOISE = 32, 16, 0.15  # Of integrated gradients; of SmoothGrad, times the range.
CONTROL = 200  # Reviews that the network with random weights explains too.
CHOICE = 300  # Validation reviews that the best of ours is chosen by.


# --- Methods ---
def in_batches(function, size, *arrays):
    """The function's results for rows in batches of one size; the last is filled up with zeros."""
    parts = []
    for start in range(0, len(arrays[0]), size):
        rows = [array[start : start + size] for array in arrays]
        missing = size - len(rows[0])
        rows = [np.pad(x, [(0, missing), *[(0, 0)] * (x.ndim - 1)]) for x in rows]
        parts.append(np.asarray(function(*rows))[: size - missing])
    return np.concatenate(parts)


class Subject:
    """A classifier and what explains it.

    reader, effects: what build_reader and word_effects of train.py give for the model.
    """

    def __init__(self, model, reader, effects, seed=0, batch=BATCH):
        self.model, self.effects, self.seed, self.batch = model, effects, seed, batch
        self.vectors = ops.convert_to_numpy(model.get_layer("words").embeddings)
        self.gradient = gradient_function(model)
        self.by_state, self.by_change = (
            keras.Model(reader.input, [reader.output[0], reader.output[k]]) for k in (1, 2)
        )

    def probability(self, ids):
        """Of praise: (batch,)."""
        return in_batches(lambda x: self.model.predict_on_batch(x)[:, 0], self.batch, ids)

    def sureness(self, ids, sign):
        """The probability of the class that `sign` stands for: +1 praise, -1 blame."""
        probability = self.probability(ids)
        return np.where(sign > 0, probability, 1 - probability)

    def sign(self, ids):
        return np.where(self.probability(ids) >= 0.5, 1, -1)

    def scores(self, method, ids):
        """(batch, words) of one of METHODS, towards the class that is predicted."""
        if method == "occlusion":
            return self.occlusion(ids)
        if method == "random":
            rng = np.random.default_rng(self.seed)
            return rng.random(ids.shape) * (ids > 0)
        return in_batches(lambda x: self.batch_scores(method, x), self.batch, ids)

    def batch_scores(self, method, ids):
        if method == "state":
            return self.by_state.predict_on_batch(ids)[1]
        if method in CHEAP:
            probability, moved = self.by_change.predict_on_batch(ids)
            moved = moved if "change" in method else 0
            moved = moved + (self.effects[ids] if "alone" in method else 0)
            return np.where(probability >= 0.5, 1, -1) * moved
        vectors, known = self.vectors[ids], ids > 0
        log_odds, slope = self.gradient(vectors, known)
        if method == "integrated-gradients":  # From vectors of zeros to the words' own.
            places = (np.arange(STEPS) + 0.5) / STEPS
            slope = sum(self.gradient(vectors * a, known)[1] for a in places) / STEPS
        elif method == "smoothgrad":
            rng, width = np.random.default_rng(self.seed), NOISE * np.ptp(self.vectors)
            noise = (rng.normal(0, width, vectors.shape) for _ in range(DRAWS))
            slope = sum(self.gradient(vectors + some, known)[1] for some in noise) / DRAWS
        towards = np.where(log_odds >= 0, 1, -1)[:, None]
        return towards * (slope * vectors).sum(-1) * known

    def occlusion(self, ids):
        """How much less probable the class is when the word is left out."""
        rows, places = np.nonzero(ids)
        without = ids[rows]
        without[np.arange(len(rows)), places] = 0
        sign, scores = self.sign(ids), np.zeros(ids.shape)
        scores[rows, places] = self.sureness(ids, sign)[rows]
        scores[rows, places] -= self.sureness(without, sign[rows])
        return scores

    def completeness_gap(self, ids, scores):
        """|sum of scores - (log-odds - log-odds of zero vectors)| over |that difference|, mean."""

        def difference(x):
            ends = [self.gradient(self.vectors[x] * a, x > 0)[0] for a in (1, 0)]
            return ends[0] - ends[1]

        reached = in_batches(difference, self.batch, ids)
        missed = np.abs(scores.sum(1) - self.sign(ids) * reached)
        return missed.mean() / np.abs(reached).mean()


# --- Measures: one number a review ---
def ranks(ids, scores):
    """0 for the known word of the highest score, 1 for the next; unknown words come last."""
    order = np.argsort(np.where(ids > 0, -scores, np.inf), axis=1, kind="stable")
    return np.argsort(order, axis=1, kind="stable")


def faithfulness(subject, ids, scores):
    """Comprehensiveness and sufficiency (batch, SHARES) and the area of the deletion curve.

    Comprehensiveness: what the probability loses without the best words; high is good.
    Sufficiency: what it loses with the best words only; low is good. Area under the probability
    while words are taken away, best first, until none is left; low is good.
    """
    place, known = ranks(ids, scores), (ids > 0).sum(1)
    sign = subject.sign(ids)
    whole = subject.sureness(ids, sign)

    def top(share):
        return place < np.ceil(share * known - 1e-9)[:, None]

    without = {s: subject.sureness(np.where(top(s), 0, ids), sign) for s in {*SHARES, *CURVE}}
    only = {s: subject.sureness(np.where(top(s), ids, 0), sign) for s in SHARES}
    curve = np.stack([whole, *(without[s] for s in CURVE)])
    return {
        "comprehensiveness": np.stack([whole - without[s] for s in SHARES], axis=1),
        "sufficiency": np.stack([whole - only[s] for s in SHARES], axis=1),
        "deletion AUC": np.trapezoid(curve, dx=0.1, axis=0),
    }


def rank_correlation(ids, first, second):
    """Spearman's, of the scores of each review's known words; reviews of two or more."""
    from scipy.stats import rankdata  # Here, so that --help answers at once.

    found = []
    for row, *pair in zip(ids > 0, first, second, strict=True):
        a, b = (rankdata(np.round(scores[row], 9)) for scores in pair)
        if len(a) > 1 and np.ptp(a) and np.ptp(b):
            found.append(np.corrcoef(a, b)[0, 1])
    return np.array(found)


def precision(ids, scores, causes):
    """The share of true cause words among the best ones: of the first, and of as many as true."""
    best = np.argsort(ranks(ids, scores), axis=1)
    true = [
        {p for p in places if p < ids.shape[1] and row[p]}
        for row, places in zip(ids, causes, strict=True)
    ]
    pairs = [(row, places) for row, places in zip(best.tolist(), true, strict=True) if places]
    return {
        "precision at 1": np.array([row[0] in places for row, places in pairs], float),
        "precision at k": np.array(
            [len(places & set(row[: len(places)])) / len(places) for row, places in pairs]
        ),
    }


def bootstrap(values, resamples=1000):
    """The mean over reviews with its 95% interval: reviews are drawn again, with repetition."""
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
    """Of each of so many calls, after one that compiles."""
    function()
    starts = [(time.perf_counter(), function(), time.perf_counter()) for _ in range(repeats)]
    return np.array([end - start for start, _, end in starts])


# --- The study ---
def study(subjects, x, causes, count, seed=0):
    """Metrics and details for the record: every method on `count` test reviews.

    Args:
        subjects: (model, reader, effects) of the trained network and of one with random weights.
        x: ids of "valid" and "test" reviews. causes: places of the true cause words, or None.
    """
    subject, control = (Subject(*parts, seed, min(BATCH, count)) for parts in subjects)

    def choose(part):
        rows = np.flatnonzero((x[part] > 0).sum(1) > 1)[:count]
        if not len(rows):
            fail(f"no {part} review has two known words: --study 0 does without explanations")
        return x[part][rows], causes[part] and [causes[part][row] for row in rows]

    ids = choose("valid")[0][:CHOICE]
    found = {m: faithfulness(subject, ids, subject.scores(m, ids)) for m in CHEAP}
    chosen = max(CHEAP, key=lambda m: found[m]["comprehensiveness"].mean())
    details = {"best of ours, by comprehensiveness on validation": chosen}

    ids, true = choose("test")
    metrics, lost = {}, {}
    scores = {method: subject.scores(method, ids) for method in METHODS}
    for method in METHODS:
        measured = faithfulness(subject, ids, scores[method])
        lost[method] = measured["comprehensiveness"].mean(1)
        at = " ".join(f"{share:.3f}" for share in measured["comprehensiveness"].mean(0))
        details[f"comprehensiveness at 1, 5, 10, 20, 50%, {method}"] = at
        at = " ".join(f"{share:.3f}" for share in measured["sufficiency"].mean(0))
        details[f"sufficiency at 1, 5, 10, 20, 50%, {method}"] = at
        measured = {k: v.mean(1) if v.ndim > 1 else v for k, v in measured.items()}
        correlation = rank_correlation(ids, scores[method], scores["occlusion"])
        measured["rank correlation with occlusion"] = correlation
        some = ids[:CONTROL]
        if method != "random":
            other = control.scores(method, some)
            correlation = rank_correlation(some, scores[method][:CONTROL], other)
            measured["rank correlation with random weights"] = correlation
        measured |= precision(ids, scores[method], true) if true else {}
        metrics |= {f"{name}, {method}": bootstrap(v) for name, v in measured.items() if len(v)}
    metrics["comprehensiveness, best of ours minus integrated gradients"] = bootstrap(
        lost[chosen] - lost["integrated-gradients"]
    )
    gap = subject.completeness_gap(ids, scores["integrated-gradients"])
    details["completeness gap of integrated gradients"] = f"{gap:.4f}"
    return metrics | measure_time(subject, ids), details


def measure_time(subject, ids):
    """Milliseconds per review of each method, and of ours as a multiple of a forward pass."""
    some = np.resize(ids, (subject.batch, ids.shape[1]))
    metrics = {}
    for method in METHODS[:-1]:
        taken = seconds(lambda method=method: subject.scores(method, some), 3)
        interval = mean_interval(1000 * taken / subject.batch)
        metrics[f"milliseconds per review, {method}"] = interval | {"n": len(taken)}
    for method in ("state", "change+alone"):  # In turn, as the machine's speed wanders.
        pairs = [
            seconds(lambda: subject.probability(some), 1)
            / seconds(lambda m=method: subject.scores(m, some), 1)
            for _ in range(20)
        ]
        metrics[f"times a forward pass, {method}"] = mean_interval(1 / np.concatenate(pairs)) | {
            "n": 20
        }
    return metrics


# --- The README's table ---
def studies():
    """The records that hold a study."""
    records = read_results("rnn_saliency")[0]
    return [record for record in records if "comprehensiveness, state" in record["metrics"]]


def methods_table(row):
    """A line for each method, the mean of the studies of this row, as markdown."""
    records = [record for record in studies() if record["row"] == row]
    names = [
        name.removesuffix(", state")
        for name in records[0]["metrics"]
        if name.endswith(", state") and not name.startswith("times")
    ]
    lines = [[f"{row}, {len(records)} seeds", *names], ["---"] * (1 + len(names))]
    for method in METHODS:
        cells = []
        for name in names:
            found = [r["metrics"].get(f"{name}, {method}", {}).get("value") for r in records]
            cells.append("\u2013" if None in found else f"{np.mean(found):.3f}")
        lines.append([method, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def study_rows():
    return sorted({record["row"] for record in studies()})


if __name__ == "__main__":
    readme = ROOT / "rnn_saliency" / "README.md"
    parts = re.split("(<!-- /?methods -->\n)", readme.read_text())
    parts[2] = "\n\n".join(map(methods_table, study_rows())) + "\n"
    write_text(readme, "".join(parts))
