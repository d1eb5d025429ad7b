"""From the network and the rule to metrics, and to an image of what is taken for what."""

import time

import numpy as np
from matplotlib.figure import Figure

from common.metrics import mean_interval, proportion
from data.blocks import KINDS
from linux_undelete.model import classify_blocks
from linux_undelete.rule import best_encoding, is_text_rule, kind_rule

THRESHOLDS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)  # Of the rule.


# --- Answers of the rule and of the network ---
def choose_threshold(blocks, labels):
    """The threshold with which the rule is right most often on these blocks; the highest one.

    Args:
        blocks: validation blocks, uint8 (n, 4096).
        labels: their kinds; 0 is "other".
    """
    fractions = np.array([best_encoding(block)[0] for block in blocks])
    is_text = labels != 0
    accuracy = {}
    for threshold in THRESHOLDS:
        accuracy[threshold] = ((fractions <= threshold) == is_text).mean()
    return max(THRESHOLDS, key=lambda threshold: (accuracy[threshold], threshold))


def apply_rule(blocks, threshold):
    """Whether the rule calls each block a text: booleans (n,)."""
    return np.array([is_text_rule(block, threshold) for block in blocks], bool)


def name_kinds(blocks, network=None, threshold=0.002):
    """A name of KINDS for each block: the rule says whether it is text, the network what kind.

    predict.py uses both in this way, because the rule is better at the first question. Without a
    network the rule answers the second question, too.
    """
    if network is None:
        return [kind_rule(block, threshold) for block in blocks]
    is_text = apply_rule(blocks, threshold)
    kinds = np.zeros(len(is_text), int)
    probabilities = classify_blocks(network, np.asarray(blocks)[is_text])
    kinds[is_text] = 1 + probabilities[:, 1:].argmax(axis=1)
    return [KINDS[kind] for kind in kinds]


def answers(network, threshold, blocks):
    """{method: whether it calls each block a text}, and the probabilities of the network."""
    probabilities = classify_blocks(network, blocks)
    by_network = probabilities[:, 0] < 0.5
    by_rule = apply_rule(blocks, threshold)
    called = {"model": by_network, "rule": by_rule, "rule and model": by_network & by_rule}
    return called, probabilities


# --- Metrics ---
def evaluate(network, threshold, test):
    """The metrics and details of the test blocks, and the kinds that rule and network name."""
    blocks, labels, files = test
    called, probabilities = answers(network, threshold, blocks)
    metrics = measure_text("", called, labels, files)
    kinds = {
        "model": [KINDS[kind] for kind in probabilities.argmax(axis=-1)],
        "rule": name_kinds(blocks, None, threshold),
        "rule, then model": name_kinds(blocks, network, threshold),
    }
    truth = np.array(KINDS)[labels]
    for method, names in kinds.items():
        metrics[f"kind, {method}"] = proportion_over_files(np.array(names) == truth, files)
    metrics.update(measure_speed(network, threshold, blocks[::8]))
    details = errors_by_kind(called, labels)
    return metrics, details, kinds["rule, then model"]


def measure_text(prefix, called, labels, files):
    """Of each method: how often it is right, its false alarms, and its misses.

    Args:
        prefix: of the names of the metrics.
        called: {method: whether it calls each block a text}.
        labels: 0 where a block is not text.
        files: the file of each block.
    """
    files = np.array(files)
    is_text = labels != 0
    metrics = {}
    for method, calls in called.items():
        hits = proportion_over_files(calls == is_text, files)
        false_alarms = proportion_over_files(calls[~is_text], files[~is_text])
        misses = proportion_over_files(~calls[is_text], files[is_text])
        metrics[f"{prefix}text or not, {method}"] = hits
        metrics[f"{prefix}false alarms, {method}"] = false_alarms
        metrics[f"{prefix}misses, {method}"] = misses
    return metrics


def proportion_over_files(hits, files):
    """A proportion with the wider of two intervals: Wilson's, and that of resampled files.

    Blocks of one file are alike, so they say less than as many files would.
    """
    result = proportion(hits.sum(), len(hits))
    _, file_of_block = np.unique(files, return_inverse=True)
    counts = np.stack([np.bincount(file_of_block, hits), np.bincount(file_of_block)])
    num_files = counts.shape[1]
    samples = np.random.default_rng(0).integers(num_files, size=(500, num_files))
    hits_of_sample, blocks_of_sample = counts[:, samples].sum(axis=-1)
    low, high = np.quantile(hits_of_sample / blocks_of_sample, [0.025, 0.975]).tolist()
    result["low"] = min(result["low"], low)
    result["high"] = max(result["high"], high)
    return result


def measure_speed(network, threshold, blocks):
    """Blocks a second of the network, of the rule, and of the rule with the kind."""
    functions = {
        "model": lambda x: classify_blocks(network, x),
        "rule, text or not": lambda x: apply_rule(x, threshold),
        "rule, kind": name_kinds,
    }
    metrics = {}
    for method, function in functions.items():
        metrics[f"blocks a second, {method}"] = blocks_per_second(function, blocks)
    return metrics


def blocks_per_second(function, blocks, repeats=4):
    """The mean rate of several calls, with its interval."""
    function(blocks[:256])  # The first call builds things, which does not count.
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(blocks)
        rates.append(len(blocks) / (time.perf_counter() - start))
    result = mean_interval(rates)
    result["n"] = len(blocks)
    return result


def errors_by_kind(called, labels):
    """One line per method: of each kind, the fraction that is wrongly called text or not."""
    details = {}
    for method, calls in called.items():
        wrong = calls != (labels != 0)
        parts = []
        for label, kind in enumerate(KINDS):
            if label in labels:
                parts.append(f"{kind} {wrong[labels == label].mean():.1%}")
        details[f"text or not, wrong by kind, {method}"] = ", ".join(parts)
    return details


# --- Image ---
def draw_confusion(path, labels, kinds):
    """Of the blocks of each kind (a row), the fraction that is taken for each kind (a column)."""
    predicted = [KINDS.index(kind) for kind in kinds]
    counts = np.zeros((len(KINDS), len(KINDS)))
    np.add.at(counts, (labels, predicted), 1)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axis = figure.subplots()
    axis.imshow(fractions**0.5, "Blues")
    for (row, column), value in np.ndenumerate(fractions):
        if counts[row, column] > 0:
            colour = "white" if value > 0.4 else "black"
            axis.text(column, row, f"{value:.1%}", ha="center", va="center", size=7, color=colour)
    axis.set(xlabel="taken for", ylabel="is", yticks=range(len(KINDS)), yticklabels=KINDS)
    axis.set_xticks(range(len(KINDS)), KINDS, rotation=45, ha="right")
    figure.savefig(path, dpi=110)
