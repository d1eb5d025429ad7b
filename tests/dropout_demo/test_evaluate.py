"""The metrics of the record."""

import keras
import numpy as np
import pytest
from conftest import calibration_error_by_a_loop

from common.metrics import calibration_error
from dropout_demo import evaluate


def test_metrics_of_the_comparison():
    metrics = evaluate.compare_with_keras()
    assert metrics["largest difference from Keras, same mask"]["value"] == 0
    for name in ("NumPy", "Keras"):
        kept = metrics[f"share kept at rate 0.5, {name}"]
        assert kept["n"] == 1_000_000 and abs(kept["value"] - 0.5) < 0.0025


def test_calibration_error_by_hand_and_by_a_loop():
    sure = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    # Bins of the confidence: 0.9 twice, half of them right; 0.8 wrong; 0.6 right.
    expected = (2 * 0.4 + 0.8 + 0.4) / 4
    assert calibration_error(sure, np.array([0, 1, 0, 1]), bins=10) == pytest.approx(expected)
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(4), 500), rng.integers(4, size=500)
    probabilities[0] = 1, 0, 0, 0
    total = calibration_error_by_a_loop(probabilities, labels)
    assert calibration_error(probabilities, labels) == pytest.approx(total)
    many = np.tile(probabilities, (300, 1)).astype("float16")
    assert calibration_error(many, np.tile(labels, 300)) == pytest.approx(total, abs=1e-3)
    assert np.isnan(calibration_error(np.full((9, 2), np.nan), np.zeros(9, int)))


def test_metrics_equal_keras_and_its_intervals_hold_it():
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(10), 300), rng.integers(10, size=300)
    metrics = evaluate.measure("x", probabilities, labels)
    loss = keras.losses.SparseCategoricalCrossentropy()(labels, probabilities)
    assert metrics["log loss, x"]["value"] == pytest.approx(float(loss), rel=1e-5)
    assert metrics["accuracy, x"]["value"] == (probabilities.argmax(-1) == labels).mean()
    for metric in metrics.values():
        assert metric["low"] < metric["value"] < metric["high"] and metric["n"] == 300
