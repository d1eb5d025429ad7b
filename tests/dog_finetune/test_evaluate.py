"""Metrics, temperature, what is chosen on validation images, and Grad-CAM."""

import numpy as np
import pytest

from common.metrics import calibration_error
from dog_finetune import dataset, evaluate, features, model, train
from dog_finetune.augment import fixed_crop
from dog_finetune.dataset import DogData, read_image
from dog_finetune.evaluate import Result


def test_calibration_error_equals_a_loop():
    rng = np.random.default_rng(0)
    p, labels = rng.dirichlet(np.ones(4), 300), rng.integers(4, size=300)
    error = 0
    for low in np.arange(15) / 15:
        inside = (p.max(1) >= low) & (p.max(1) < low + 1 / 15)
        if inside.any():
            gap = p[inside].max(1).mean() - (p[inside].argmax(1) == labels[inside]).mean()
            error += inside.mean() * abs(gap)
    assert calibration_error(p, labels) == pytest.approx(error)


def test_the_temperature_undoes_one_and_keeps_the_order():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(5), 4000)
    labels = (p.cumsum(1) > rng.random((4000, 1))).argmax(1)  # Just as likely as p says.
    flat = evaluate.scale(p, 3.0)
    assert evaluate.fit_temperature(p, labels) == pytest.approx(1, abs=0.1)
    assert evaluate.fit_temperature(flat, labels) == pytest.approx(1 / 3, abs=0.04)
    assert np.allclose(evaluate.scale(flat, 1 / 3), p, atol=1e-6)
    assert np.array_equal(flat.argsort(1), p.argsort(1))
    for temperature in (0.5, 2.0):  # No other is likelier.
        assert log_loss(evaluate.scale(p, temperature), labels) > log_loss(p, labels)


def log_loss(p, labels):
    return -np.log(p[np.arange(len(labels)), labels]).mean()


def test_one_view_has_a_temperature_of_its_own():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=40)
    main, auxiliary = rng.dirichlet(np.ones(3), (2, 40, 2)).astype("float32")
    data = DogData({"valid": ([], labels)}, ["a", "b", "c"], {})
    predictions = {"valid": {"main": main, "auxiliary": auxiliary}}
    choice = evaluate.choose(Result(data, {"stage3": predictions}, {}, []), "stage3")
    fraction = model.choose_blend(main.mean(1), auxiliary.mean(1), labels)
    assert choice.fraction == fraction
    blended = fraction * main + (1 - fraction) * auxiliary
    assert choice.temperature == evaluate.fit_temperature(blended.mean(1), labels)
    assert choice.temperature_of_one_view == evaluate.fit_temperature(blended[:, 0], labels)
    assert choice.temperature != choice.temperature_of_one_view


def test_without_validation_images_nothing_is_chosen():
    data = DogData({}, ["a", "b"], {})
    result = Result(data, {"stage1": {"test": {"main": np.ones((2, 1, 2)) / 2}}}, {}, [])
    assert evaluate.choose(result, "stage1") == evaluate.Choice(1.0, 1.0, 1.0)


def test_the_recorded_accuracy_is_that_of_the_saved_model(smoke_run):
    run_dir, record = smoke_run
    data = dataset.load(train.parse_args(["--smoke"]))
    sources, labels = data.splits["test"]
    network, notes = evaluate.load_classifier(run_dir)
    shown = [read_image(x, notes["image_size"]) for x in sources]
    probabilities = evaluate.classify(network, notes, shown, 1)
    hits = probabilities.argmax(-1) == labels
    assert hits.mean() == record["metrics"]["accuracy"]["value"]


def test_each_number_of_views_is_scaled_by_its_own_temperature(smoke_run, make_image):
    network, notes = evaluate.load_classifier(smoke_run[0])
    notes = {**notes, "temperature": 1.5, "temperature_of_views": 2.5}
    shown = [make_image(seed, 32) for seed in range(3)]
    for views, temperature in ((1, 1.5), (2, 2.5)):
        crops = [[fixed_crop(x, i) for x in shown] for i in range(views)]
        heads = [features.predict(network, np.stack(x)) for x in crops]
        mean = np.mean([evaluate.blend(x, notes["share"]) for x in heads], axis=0)
        found = evaluate.classify(network, notes, shown, views)
        np.testing.assert_allclose(found, evaluate.scale(mean, temperature), rtol=1e-4)


@pytest.mark.parametrize("gated", [True, False])
def test_the_gradient_of_grad_cam_equals_differences(gated):
    heads = model.build_heads(6, 3, units=4, gated=gated)
    weights = {
        x.name: [w.astype(float) for w in x.get_weights()] for x in heads.layers if x.weights
    }
    rng = np.random.default_rng(0)
    vector = rng.normal(size=6)

    def logit(x):
        hidden = x
        if gated:
            (a, b), (c, d) = weights["linear"], weights["gate"]
            hidden = (x @ a + b) / (1 + np.exp(-(x @ c + d)))
        main, auxiliary = weights["main"][0], weights["auxiliary"][0]
        return 0.7 * hidden @ main[:, 1] + 0.3 * x @ auxiliary[:, 1]

    found = evaluate.gradient_of_logit(heads, vector, 1, 0.7)
    steps = 1e-5 * np.eye(6)
    expected = [(logit(vector + s) - logit(vector - s)) / 2e-5 for s in steps]
    assert np.allclose(found, expected, atol=1e-5)
