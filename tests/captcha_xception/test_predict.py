"""Reading files with a trained network; damaged files and models."""

import json
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from conftest import ROOT

from captcha_xception import dataset, evaluate, predict


def write_bomb(path):
    """The header of a PNG of 50,000 x 50,000 pixels, which is all that may be read of it."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def test_predict_names_bad_files_and_reads_the_others(smoke_run, folder, tmp_path, capsys):
    good = sorted(folder.iterdir())[0]
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:700])
    write_bomb(tmp_path / "bomb.png")
    bad = [tmp_path / "text.jpg", tmp_path / "cut.jpg", tmp_path / "bomb.png", tmp_path / "no.png"]
    with pytest.raises(SystemExit) as stop:
        predict.main(["--json", "--run-dir", str(smoke_run[0]), *map(str, [*bad, good])])
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert len(printed.err.splitlines()) == 4
    for line, path in zip(printed.err.splitlines(), bad, strict=True):
        assert line.startswith(f"error: {path}")
    assert json.loads(printed.out)["path"] == str(good)


def test_missing_and_damaged_models_are_one_line(smoke_run, tmp_path, fails):
    fails(lambda: predict.main(["--run-dir", str(tmp_path)]), "train.py")
    for name in ("record.json", "captcha.json"):
        (tmp_path / name).write_bytes((smoke_run[0] / name).read_bytes())
    fails(lambda: predict.main(["--run-dir", str(tmp_path)]), "model.keras")
    model = (smoke_run[0] / "model.keras").read_bytes()
    (tmp_path / "model.keras").write_bytes(model[: len(model) // 2])
    fails(lambda: predict.main(["--run-dir", str(tmp_path)]), "model.keras")


def test_record_and_prediction_in_a_fresh_process(smoke_run, folder):
    run_dir, record = smoke_run
    assert record["metrics"]["whole captcha"]["n"] == 64
    assert len(record["history"]) == 2
    assert all((run_dir / name).stat().st_size > 1000 for name in record["pictures"])
    command = [sys.executable, ROOT / "captcha_xception" / "predict.py", "--json"]
    done = subprocess.run(
        [*command, "--run-dir", run_dir, folder], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    model, alphabet, size = evaluate.load_reader(run_dir)
    paths = sorted(folder.iterdir())
    x = np.stack([dataset.read_image(path, size) for path in paths])
    expected = evaluate.read_captchas(model, x, alphabet)
    assert [line["path"] for line in lines] == [str(path) for path in paths]
    assert [line["text"] for line in lines] == [text for text, _ in expected]
    assert [line["confidence"] for line in lines] == pytest.approx(
        [c for _, c in expected], abs=1e-3
    )
