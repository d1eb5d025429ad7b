"""predict.py: files, a grid, the contest's lines, exports, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT

from common.images import ImageFiles
from dog_finetune import evaluate, figures, predict
from dog_finetune.dataset import read_image


def test_predictions_in_a_fresh_process(smoke_run, small_folder, tmp_path):
    run_dir, _ = smoke_run
    breed = small_folder / "breed_0"
    (breed / "cut.jpg").write_bytes((breed / "000.jpg").read_bytes()[:400])
    command = [sys.executable, ROOT / "dog_finetune" / "predict.py", "--json", "--tta", "2"]
    command += ["--submission", tmp_path / "out.txt", "--run-dir", run_dir, breed]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "cut.jpg" in errors[0]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 12 and set(lines[0]) == {"path", "label", "probability", "top5"}
    network, notes = evaluate.load_classifier(run_dir)
    for line in lines:
        x = read_image(Path(line["path"]), 32)
        expected = evaluate.classify(network, notes, [x], 2)[0]
        assert line["probability"] == pytest.approx(expected.max(), abs=1e-3)
    rows = (tmp_path / "out.txt").read_text().splitlines()
    assert rows == [f"{line['label']}\t{Path(line['path']).stem}" for line in lines]


def test_many_images_are_read_a_few_at_a_time(smoke_run, small_folder):
    network, notes = evaluate.load_classifier(smoke_run[0])
    files = ImageFiles(
        sorted((small_folder / "breed_0").iterdir()), lambda path: read_image(path, 32)
    )
    num_read = []

    def read_each():
        for name, image in files:
            num_read.append(name)
            yield name, image

    seen = []
    for line, _ in predict.predict_images(network, notes, read_each(), chunk_size=5):
        assert Path(line["path"]) == num_read[len(seen)]
        seen.append(len(num_read))
    assert seen == [5] * 5 + [10] * 5 + [12] * 2


def test_a_grid_shows_the_first_images_and_says_so(smoke_run, assert_drawn, tmp_path, capsys):
    network, notes = evaluate.load_classifier(smoke_run[0])
    files, truths = predict.load_examples(smoke_run[0], notes["classes"])
    results = predict.predict_images(network, notes, files)
    lines, images = predict.print_results(results, truths, as_json=False, max_images=7)
    assert len(lines) == 12 and len(images) == 7 and images[6] is files[6][1]
    assert len(capsys.readouterr().out.splitlines()) == 12
    predict.draw(tmp_path, network, notes, images, lines, truths, explained=True)
    assert "explained.png, the first 7" in capsys.readouterr().err
    assert_drawn(tmp_path / "explained.png")
    predict.draw(tmp_path, network, notes, images, lines[:7], truths, explained=False)
    assert "the first" not in capsys.readouterr().err
    assert_drawn(tmp_path / "predictions.png")


def test_a_grid_has_an_image_and_a_heat_map_of_each_line(make_image):
    lines = [{"label": "a", "probability": 0.7}, {"label": "b", "probability": 0.5}]
    images = [make_image(0), make_image(1)]
    heat_maps = [np.zeros((2, 2)), np.ones((2, 2))]
    shown, titles = figures.grid_of_predictions(images, lines, ["a", "c"], heat_maps)
    assert len(shown) == len(titles) == 4 and shown[0] is images[0] and shown[2] is images[1]
    assert titles[0] == "a 70%\nhit" and titles[2] == "b 50%\nMISS: c"
    assert titles[1] == titles[3] == "where it looked"
    assert (shown[1][..., 0] == shown[1][..., 1]).all(), "no heat: grey"
    assert shown[3][..., 0].mean() > shown[3][..., 1].mean() + 100, "heat: red"


def test_flags_of_predict_that_make_no_sense_are_one_line(smoke_run, small_folder, usage_error_of):
    flags = ["--run-dir", str(smoke_run[0])]
    assert "--tta" in usage_error_of(predict.main, [*flags, "--tta", "13"])
    assert "needs images" in usage_error_of(predict.main, [*flags, "--submission", "a.txt"])
    words = [str(small_folder / "breed_0"), "--submission"]
    for path in (small_folder, small_folder / "none" / "a.txt"):
        assert "expected a file" in usage_error_of(predict.main, [*flags, *words, str(path)])


def test_without_arguments_a_grid_of_hits_and_misses(smoke_run, assert_drawn, capsys):
    lines = predict.main(["--run-dir", str(smoke_run[0]), "--explain"])
    assert len(lines) == 12 and "it is breed" in capsys.readouterr().out
    assert_drawn(smoke_run[0] / "explained.png")


def test_exports_or_one_line(smoke_run, error_of, tmp_path, monkeypatch, capsys):
    flags = ["--run-dir", str(smoke_run[0]), "--export"]
    monkeypatch.setitem(sys.modules, "onnx", None)  # As where it is not installed.
    assert "--export onnx is not possible" in error_of(predict.main, [*flags, "onnx"])
    if keras.backend.backend() == "torch":  # Keras hands it dicts of inputs that it cannot take.
        assert "--export saved_model is not" in error_of(predict.main, [*flags, "saved_model"])
        return
    predict.main([*flags, "saved_model"])
    assert (smoke_run[0] / "saved_model" / "saved_model.pb").exists()


def test_an_exported_network_says_the_same(smoke_run, tmp_path):
    """With the extra onnx, by another program; skipped where that is not installed."""
    pytest.importorskip("tf2onnx" if keras.backend.backend() == "tensorflow" else "onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    network, notes = evaluate.load_classifier(smoke_run[0])
    pixels = np.load(smoke_run[0] / "examples.npz")["pictures"][:3]
    session = onnxruntime.InferenceSession(predict.export(network, notes, tmp_path, "onnx"))
    [found] = session.run(None, {session.get_inputs()[0].name: pixels})
    assert np.allclose(found, evaluate.classify(network, notes, pixels), atol=1e-5)


def test_missing_and_damaged_models_are_one_line(smoke_run, tmp_path, error_of):
    assert "train.py" in error_of(predict.main, ["--run-dir", str(tmp_path)])
    (tmp_path / "record.json").write_bytes((smoke_run[0] / "record.json").read_bytes())
    (tmp_path / "classes.json").write_text("{}")
    assert "classes.json" in error_of(predict.main, ["--run-dir", str(tmp_path)])
    (tmp_path / "classes.json").write_bytes((smoke_run[0] / "classes.json").read_bytes())
    assert "model.keras" in error_of(predict.main, ["--run-dir", str(tmp_path)])
