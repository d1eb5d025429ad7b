"""The metrics of the record against a loop."""

import numpy as np
import pytest
from keras import ops

from captcha_xception import evaluate
from captcha_xception.model import whole_accuracy


def test_metrics_equal_a_loop():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(5, size=(200, 3)), rng.dirichlet(np.ones(5), (200, 3))
    metrics = evaluate.measure(labels, probabilities)
    confusions = evaluate.confusions(labels, probabilities, "abcde")
    coverage = evaluate.coverage(labels, probabilities)
    whole, per_character, wrong, kept = 0, [0, 0, 0], {}, []
    for truth, row in zip(labels, probabilities, strict=True):
        guess = [max(range(5), key=lambda k, p=p: p[k]) for p in row]
        whole += all(a == b for a, b in zip(truth, guess, strict=True))
        kept.append(np.prod([max(p) for p in row]) >= 0.5)
        for j, (a, b) in enumerate(zip(truth, guess, strict=True)):
            per_character[j] += a == b
            if a != b:
                wrong["abcde"[a], "abcde"[b]] = wrong.get(("abcde"[a], "abcde"[b]), 0) + 1
    assert metrics["whole captcha"]["value"] == whole / 200
    assert [metrics[f"character {j}"]["value"] * 200 for j in (1, 2, 3)] == per_character
    product = metrics["product of the characters"]
    assert np.isclose(product["value"], np.prod(per_character) / 200**3)
    assert product["low"] < product["value"] < product["high"]
    assert confusions[0][2] == max(wrong.values())
    assert len(confusions) == 10
    assert all(wrong[truth, guess] == count for truth, guess, count in confusions)
    assert coverage[1]["read"] == np.mean(kept)
    right = ops.convert_to_numpy(whole_accuracy(labels, probabilities))
    assert right.mean() == pytest.approx(whole / 200)
