"""predict.py: your own images, and ten drawn ones."""

import json
import struct
import subprocess
import sys
import zlib

import keras
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from data import glyphs
from dropout_demo import predict
from dropout_demo.evaluate import classify
from dropout_demo.model import monte_carlo


def png_of_size(width, height):
    """A PNG whose header claims a size; its few bytes hold no image."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def test_bad_images_are_one_line_each(smoke_run, tmp_path, error_of):
    run_dir = ["--run-dir", str(smoke_run[0])]
    Image.fromarray(glyphs.load("test", 1)[0][0]).save(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "truncated.png").write_bytes((tmp_path / "good.png").read_bytes()[:200])
    (tmp_path / "bomb.png").write_bytes(png_of_size(50_000, 50_000))
    (tmp_path / "empty").mkdir()
    for name in ("text.png", "truncated.png", "bomb.png", "missing.png", "empty"):
        line = error_of(predict.main, [*run_dir, str(tmp_path / name)])
        assert str(tmp_path / name) in line
    assert "no finished run" in error_of(predict.main, ["--run-dir", str(tmp_path)])


def test_a_damaged_model_is_one_line(smoke_run, tmp_path, error_of):
    (tmp_path / "record.json").write_text('{"experiment": "dropout_demo"}')
    assert "model.keras" in error_of(predict.main, ["--run-dir", str(tmp_path)])
    whole = (smoke_run[0] / "model.keras").read_bytes()
    (tmp_path / "model.keras").write_bytes(whole[: len(whole) // 2])
    assert "model.keras" in error_of(predict.main, ["--run-dir", str(tmp_path)])


def test_prediction_is_the_mean_and_spread_of_the_passes(smoke_run):
    def network():
        keras.utils.set_random_seed(1)
        return keras.saving.load_model(smoke_run[0] / "model.keras", compile=False)

    x = glyphs.load("valid", 5)[0]
    results = classify(network(), x, passes=20)
    passes = monte_carlo(network(), x, passes=20)
    for i, (label, probability, uncertainty) in enumerate(results):
        values = [passes[k, i, label] for k in range(20)]
        assert label == passes[:, i].mean(0).argmax()
        assert probability == pytest.approx(np.mean(values), rel=1e-5)
        assert uncertainty == pytest.approx(np.std(values), rel=1e-3) and uncertainty > 0


def test_predict_in_a_fresh_process(smoke_run, tmp_path):
    """Good and bad together: a JSON line for the one, an error line for the other, exit code 2."""
    run_dir, _ = smoke_run
    Image.fromarray(glyphs.load("test", 1)[0][0]).save(tmp_path / "b.png")
    (tmp_path / "a.png").write_text("not an image")
    command = [sys.executable, "dropout_demo/predict.py", "--json", "--run-dir", str(run_dir)]
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    [error] = [s for s in done.stderr.splitlines() if s.startswith("error:")]
    assert "a.png" in error and "Traceback" not in done.stderr
    [line] = map(json.loads, done.stdout.splitlines())
    assert line.keys() == {"path", "label", "probability", "uncertainty"}
    assert line["path"] == str(tmp_path / "b.png") and line["label"] in range(10)
    assert 0 <= line["probability"] <= 1 and 0 <= line["uncertainty"] <= 0.5


def test_predict_without_arguments_draws_ten(smoke_run, capsys, assert_drawn):
    run_dir, _ = smoke_run
    (run_dir / "predictions.png").unlink(missing_ok=True)
    results = predict.main(["--run-dir", str(run_dir)])
    assert len(results) == 10
    assert capsys.readouterr().out.count("drawn") == 10
    assert_drawn(run_dir / "predictions.png")
    assert results == predict.main(["--run-dir", str(run_dir)])
