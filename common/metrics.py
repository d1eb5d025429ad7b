"""Metrics with 95% intervals: each is {"value", "low", "high"}, and "n" where it counts samples."""

import numpy as np
from scipy import stats


def proportion(hits, n):
    """A proportion with its Wilson interval."""
    low, high = stats.binomtest(int(hits), int(n)).proportion_ci(method="wilson")
    return {"value": float(hits / n), "n": int(n), "low": float(low), "high": float(high)}


def mean_interval(values):
    """The mean of several runs with its Student interval."""
    mean = np.mean(values)
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return {"value": float(mean), "low": float(mean - half), "high": float(mean + half)}


def row_interval(metrics):
    """(value, low, high) of a table's row: the mean over its seeds, and an interval.

    Three seeds may agree by luck, so the interval is never narrower than that of one seed.
    """
    value = np.mean([metric["value"] for metric in metrics])
    low = np.mean([metric["low"] for metric in metrics])
    high = np.mean([metric["high"] for metric in metrics])
    if len(metrics) > 1:
        seeds = mean_interval([metric["value"] for metric in metrics])
        low = min(low, seeds["low"])
        high = max(high, seeds["high"])
    return float(value), float(low), float(high)


def bootstrap(metric, *arrays, rounds=200):
    """A metric with an interval from samples drawn with replacement.

    Args:
        metric: a function of the arrays that returns one number of at least 0.
        arrays: one row per sample.

    The interval is 1.96 standard deviations of the resampled metric on each side.
    """
    n = len(arrays[0])
    samples = np.random.default_rng(0).integers(n, size=(rounds, n))
    resampled = [metric(*(array[rows] for array in arrays)) for rows in samples]
    value = float(metric(*arrays))
    half = 1.96 * float(np.std(resampled))
    return {"value": value, "n": n, "low": max(0.0, value - half), "high": value + half}


def calibration_error(probabilities, labels, bins=15):
    """Expected calibration error: the mean gap between confidence and accuracy.

    Samples are put into bins by their confidence, the probability of their best class. Each bin
    counts |mean confidence - accuracy|, weighted with the fraction of the samples in it.

    Args:
        probabilities: (samples, classes).
        labels: (samples,) whole numbers.
    """
    confidence = np.asarray(probabilities.max(axis=-1), "float64")
    correct = probabilities.argmax(axis=-1) == labels
    # A network that diverged gives NaN: its confidence counts as 0 here, and the error is NaN.
    bin_of = np.minimum((np.nan_to_num(confidence) * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, confidence - correct, minlength=bins)
    return np.abs(gaps).sum() / len(labels)
