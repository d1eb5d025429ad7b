"""common/: flags, run folders, exact resume, intervals, downloads and tables."""

import argparse
import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys

import common.backend

import keras
import numpy as np
import pytest
from conftest import ROOT, calibration_error_by_a_loop
from keras import layers

import common.folders
import common.run
from common import cli
from common.batches import ShuffledBatches
from common.files import fetch, read_arrays, read_json, replacing
from common.folders import find_run
from common.metrics import bootstrap, calibration_error, mean_interval, proportion
from common.run import Run, load_model
from common.table import compare, expected_interval, main, markdown, read_results, table_lines

PRESETS = {
    "quick": {"epochs": 4, "width": 8},
    "full": {"epochs": 9},
    "post": {"epochs": 70},
    "smoke": {"epochs": 1},
}


def parse(*argv):
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--width", type=int, default=5)
    return cli.parse(parser, PRESETS, [str(word) for word in argv])


def train(*argv, after_batch=lambda epoch, batch: None):
    """A tiny training with all the state that a resume must bring back."""
    args = parse(*argv)
    run = Run(args, "toy")
    inputs = keras.Input((6,))
    x = layers.Dense(args.width, activation="relu")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.5)(x)
    outputs = layers.Dense(3, activation="softmax")(x)
    model = keras.Model(inputs, outputs)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    # The highest loss is an early epoch's: a resume that forgets it saves a later model as best.
    save = run.checkpoint(model, monitor="loss")

    def batches():
        for epoch in range(len(run.history), args.epochs):
            rng = np.random.default_rng((args.seed, epoch))
            for _ in range(5):
                yield rng.random((16, 6), "float32"), rng.integers(0, 3, 16)

    after = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: after_batch(len(run.history), batch)
    )
    model.fit(
        batches(),
        steps_per_epoch=5,
        epochs=args.epochs,
        initial_epoch=len(run.history),
        callbacks=[save, after],
        shuffle=False,
        verbose=0,
    )
    return run, model


def kill_in_third_epoch(epoch, batch):
    if (epoch, batch) == (2, 3):
        os.kill(os.getpid(), signal.SIGKILL)


def finish(run, **changes):
    given = {"row": "toy", "data": {"name": "noise", "n_test": 2}, "metrics": {}}
    return run.finish(**given | changes)


def assert_same_training(one, other):
    """Two (run, model) pairs agree bit for bit: weights, optimizer, history, best model."""
    (run, model), (other_run, other_model) = one, other
    for a, b in zip(
        model.variables + model.optimizer.variables,
        other_model.variables + other_model.optimizer.variables,
        strict=True,
    ):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=a.path)
    assert run.history == other_run.history
    best, other_best = (load_model(r.dir / "model.keras") for r in (run, other_run))
    for a, b in zip(best.get_weights(), other_best.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """Every test has a runs/ of its own."""
    monkeypatch.setattr(common.folders, "RUNS", tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return train("--run-dir", tmp_path_factory.mktemp("uninterrupted"))


# --- Flags ---


@pytest.mark.parametrize(
    ("argv", "epochs", "width"),
    [
        ([], 4, 8),
        (["--preset", "full"], 9, 5),
        (["--preset", "full", "--epochs", "2"], 2, 5),
        (["--epochs", "2", "--preset", "post"], 2, 5),
        (["--smoke"], 1, 5),
        (["--smoke", "--preset", "full"], 1, 5),
        (["--smoke", "--epochs", "3", "--width", "6"], 3, 6),
    ],
)
def test_a_flag_beats_the_preset_and_the_preset_beats_the_default(argv, epochs, width):
    args = parse(*argv)
    assert (args.epochs, args.width) == (epochs, width)


def test_the_command_is_kept_so_that_a_shell_reads_it_back():
    argv = ["--data", "my pictures", "--seed", "3"]
    assert parse(*argv).command == "--data 'my pictures' --seed 3"


# --- Run folders ---


def test_runs_without_a_run_dir_never_share_a_folder(runs):
    folders = [Run(parse(*argv), "toy").dir for argv in ([], [], ["--seed", "1"], ["--smoke"])]
    names = ["quick-seed0", "quick-seed0-1", "quick-seed1", "smoke-seed0"]
    assert folders == [runs / "toy" / name for name in names]


def test_a_folder_with_anything_in_it_is_refused_and_left_as_it_was(tmp_path, error_of):
    (tmp_path / "precious").write_text("mine")
    assert str(tmp_path) in error_of(Run, parse("--run-dir", tmp_path), "toy")
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path, error_of):
    (tmp_path / "file").write_text("mine")
    assert "file" in error_of(Run, parse("--run-dir", tmp_path / "file"), "toy")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_killed_before_it_could_be_resumed_is_begun_again(tmp_path):
    for name in ("lock", "arguments.machine-12345.json"):
        (tmp_path / name).write_text("{")
    assert finish(Run(parse("--run-dir", tmp_path), "toy"))


def test_a_folder_in_which_a_run_is_going_on_is_refused(tmp_path, error_of):
    going_on = Run(parse("--run-dir", tmp_path), "toy")
    message = error_of(Run, parse("--run-dir", tmp_path, "--resume"), "toy")
    assert "in use by another process" in message and str(tmp_path) in message
    going_on.lock.close()  # As the end of its process does.
    assert Run(parse("--run-dir", tmp_path, "--resume"), "toy").dir == tmp_path


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["--seed", "1"], "seed was 0, now 1"),
        (["--epochs", "5"], "epochs was 4, now 5"),
        (["--data", "elsewhere"], "data was None, now elsewhere"),
    ],
)
def test_resume_with_other_arguments_is_refused(tmp_path, error_of, argv, reason):
    Run(parse("--run-dir", tmp_path), "toy").lock.close()
    message = error_of(Run, parse("--run-dir", tmp_path, "--resume", *argv), "toy")
    assert "--resume with other arguments" in message and reason in message


def test_resume_with_another_backend_or_other_data_is_refused(tmp_path, error_of, monkeypatch):
    Run(parse("--run-dir", tmp_path), "toy", "0123abcd").lock.close()
    message = error_of(Run, parse("--run-dir", tmp_path, "--resume"), "toy", "4567")
    assert "data_sha256 was 0123abcd, now 4567" in message
    monkeypatch.setattr(keras.backend, "backend", lambda: "another")
    message = error_of(Run, parse("--run-dir", tmp_path, "--resume"), "toy", "0123abcd")
    assert "backend was " in message and "now another" in message


def test_resume_without_a_folder_takes_the_stopped_run_and_not_the_finished_one(runs):
    stopped = Run(parse(), "toy")
    stopped.lock.close()
    finish(Run(parse(), "toy"))
    assert Run(parse("--resume"), "toy").dir == stopped.dir


def test_resume_without_a_folder_passes_over_runs_with_other_arguments(error_of):
    stopped, other = Run(parse(), "toy"), Run(parse("--data", "nowhere"), "toy")
    more = Run(parse(), "toy")  # As with a flag that is kept only where it is given.
    path = more.dir / "arguments.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_parallel": "2 devices"}))
    os.utime(stopped.dir / "arguments.json", (1, 1))
    for run in (stopped, other, more):
        run.lock.close()
    assert Run(parse("--resume"), "toy").dir == stopped.dir
    message = error_of(Run, parse("--resume", "--epochs", "9"), "toy")
    assert str(stopped.dir) in message and "epochs was 4, now 9" in message


def test_resume_with_nothing_to_resume_is_refused(tmp_path, error_of):
    assert "no stopped run" in error_of(Run, parse("--resume"), "toy")
    missing = tmp_path / "missing"
    message = error_of(Run, parse("--resume", "--run-dir", missing), "toy")
    assert "no stopped run" in message and str(missing) in message
    assert not missing.exists()


def test_a_finished_run_is_not_resumed(tmp_path, error_of):
    finish(Run(parse("--run-dir", tmp_path), "toy"))
    message = error_of(Run, parse("--resume", "--run-dir", tmp_path), "toy")
    assert "no stopped run" in message and "that run has ended" in message
    assert "--resume" not in error_of(Run, parse("--run-dir", tmp_path), "toy")


def test_find_run_takes_the_newest_finished_run(runs, error_of):
    assert "python toy/train.py" in error_of(find_run, "toy")
    folders = []
    for age in (200, 100):
        run = Run(parse(), "toy")
        finish(run)
        os.utime(run.dir / "record.json", (1e9 - age, 1e9 - age))
        folders.append(run.dir)
    stopped = Run(parse(), "toy")
    assert find_run("toy") == folders[1]
    assert find_run("toy", folders[0]) == folders[0]
    message = error_of(find_run, "toy", stopped.dir)
    assert str(stopped.dir) in message and "--resume" in message
    odd = folders[0].with_name("odd")
    odd.mkdir()
    (odd / "record.json").write_text("[1, 2]")
    finish(Run(parse("--smoke"), "toy"))
    assert "another experiment" in error_of(find_run, "other", folders[0])
    assert find_run("toy") == folders[1]  # A smoke run is newer, but proves nothing.


def test_the_record_holds_what_a_reader_needs_to_repeat_the_run(tmp_path):
    run = Run(parse("--run-dir", tmp_path, "--seed", "3"), "toy")
    metrics = {"accuracy": proportion(np.int64(9), np.int64(10))}
    record = finish(run, metrics=metrics, selection="best training epoch 2")
    assert json.loads((tmp_path / "record.json").read_text()) == record
    assert record["command"] == f"python toy/train.py --run-dir {tmp_path} --seed 3"
    assert record["arguments"]["epochs"] == 4
    assert record["seed"] == 3 and record["resumed"] is False
    assert record["versions"]["keras"] == keras.__version__
    assert record["backend"] in record["versions"]
    assert record["device"].strip() and len(record["device"].splitlines()) == 1
    assert record["metrics"] == metrics
    assert record["selection"] == "best training epoch 2"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("NVIDIA H100\nNVIDIA H100", "NVIDIA H100"),
        ("NVIDIA L4\nNVIDIA A10", "NVIDIA A10, NVIDIA L4"),
        ("", "tpu:0"),  # No nvidia-smi.
    ],
)
def test_a_record_names_other_devices_in_one_line(tmp_path, monkeypatch, said, expected):
    run = Run(parse("--run-dir", tmp_path), "toy")

    zeros = argparse.Namespace(device="tpu:0")
    monkeypatch.setattr(keras.ops, "zeros", lambda shape: zeros)
    monkeypatch.setattr(common.run, "getoutput", lambda command: said)
    assert finish(run)["device"] == expected


@pytest.mark.parametrize("name", ["train.py", "predict.py"])
def test_only_a_training_that_is_stopped_can_go_on(name, monkeypatch, capsys):
    def main():
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", [f"toy/{name}"])
    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    said = capsys.readouterr().err
    assert stop.value.code == 130 and "stopped" in said
    assert ("--resume" in said) == (name == "train.py")


@pytest.mark.parametrize("call", ["print('line')", "print('line\\n' * 100_000)", "exit(print(1))"])
def test_output_that_nobody_reads_on_is_no_error(call):
    code = f"from common.cli import run; run(lambda: {call})"
    reader, writer = os.pipe()
    os.close(reader)
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, env=buffered)
    os.close(writer)
    assert done.returncode == 1 and done.stderr == b""
    shell = [*words[:2], "import sys; sys.stdout = None; " + code]
    assert subprocess.run(shell, stderr=subprocess.PIPE, env=buffered).stderr == b""


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_script_that_cannot_write_ends_with_one_line(error_of, code):
    def main():
        raise OSError(code, os.strerror(code), "runs/toy")

    assert "runs/toy" in error_of(cli.run, main)


@pytest.mark.parametrize(
    ("backend", "expected"),
    [("theano", "expected tensorflow, jax or torch"), ("jax", "pip install")],
)
def test_a_backend_that_is_not_there_is_one_line(backend, expected, error_of, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    monkeypatch.setattr(common.backend, "find_spec", lambda name: None)
    assert expected in error_of(common.backend.check_backend)


# What they do first, recovering a text and looking up vectors, needs no Keras.
WITHOUT_KERAS = ("linux_undelete/predict.py", "word2vec_keras/predict.py")


@pytest.mark.parametrize("script", ["train.py", "predict.py"])
def test_every_script_checks_the_backend_before_keras(script):
    environment = os.environ | {"KERAS_BACKEND": "theano"}
    for path in sorted(ROOT.glob(f"*/{script}")):
        if path.relative_to(ROOT).as_posix() in WITHOUT_KERAS:
            continue
        words = [sys.executable, path]
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 2, path
        assert done.stderr.startswith("error: KERAS_BACKEND is theano"), path


def test_a_script_hides_no_other_error():
    def main():
        raise FileNotFoundError("a bug of ours")

    with pytest.raises(FileNotFoundError, match="a bug of ours"):
        cli.run(main)


# --- Exact resume ---


def test_a_run_killed_within_an_epoch_and_resumed_equals_an_uninterrupted_one(
    tmp_path, uninterrupted
):
    code = (
        "import sys; from test_common import kill_in_third_epoch, train;"
        "train('--run-dir', sys.argv[1], after_batch=kill_in_third_epoch)"
    )
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths}
    killed = subprocess.run([sys.executable, "-c", code, tmp_path], env=environment)
    assert killed.returncode == -signal.SIGKILL
    with np.load(tmp_path / "state.npz") as state:
        assert len(json.loads(str(state["notes"]))["history"]) == 2
    resumed = train("--run-dir", tmp_path, "--resume")
    assert_same_training(resumed, uninterrupted)
    losses = [entry["loss"] for entry in resumed[0].history]
    assert np.argmax(losses) < 2, "the best epoch must lie before the kill"
    assert finish(resumed[0])["resumed"] is True


def test_a_run_killed_before_its_first_epoch_ends_is_resumed_from_its_start(
    tmp_path, uninterrupted
):
    Run(parse("--run-dir", tmp_path), "toy").lock.close()
    assert_same_training(train("--run-dir", tmp_path, "--resume"), uninterrupted)


def test_the_saved_model_is_that_of_the_best_epoch(uninterrupted):
    run, _ = uninterrupted
    best = 1 + int(np.argmax([entry["loss"] for entry in run.history]))
    assert best < len(run.history)
    _, stopped_there = train("--epochs", best)
    saved = load_model(run.dir / "model.keras")
    for a, b in zip(saved.get_weights(), stopped_there.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_seed_gives_other_numbers(uninterrupted):
    other, _ = train("--seed", "1", "--epochs", "1")
    assert other.history[0] != uninterrupted[0].history[0]


# The first epoch ends with a new best model, which is saved first; the third has none.
@pytest.mark.parametrize(("epoch", "kept"), [(0, False), (2, True)])
def test_a_full_disk_while_saving_is_one_line_and_loses_nothing(
    tmp_path, error_of, uninterrupted, epoch, kept
):
    """A limit on the size of files stands in for the full disk: a write stops half-way."""
    run_dir, with_room = tmp_path / "full", tmp_path / "with_room"
    limits, before = resource.getrlimit(resource.RLIMIT_FSIZE), {}

    def fill_the_disk(now, batch):
        if now == epoch:
            before.update({p.name: p.read_bytes() for p in run_dir.glob("[sm]*")})
            # Python ignores SIGXFSZ, so the write raises an OSError, as on a full disk.
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))

    try:
        message = error_of(train, "--run-dir", run_dir, after_batch=fill_the_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(run_dir) in message and "--resume" in message
    assert before.keys() == ({"state.npz", "model.keras"} if kept else set())
    assert {p.name: p.read_bytes() for p in run_dir.glob("[sm]*")} == before
    shutil.copytree(run_dir, with_room)
    assert_same_training(train("--run-dir", with_room, "--resume"), uninterrupted)


@pytest.mark.parametrize("damage", ["missing", "text", "truncated", "bytes changed", "a folder"])
def test_a_missing_or_damaged_model_is_one_line(tmp_path, error_of, uninterrupted, damage):
    path = tmp_path / "model.keras"
    intact = (uninterrupted[0].dir / "model.keras").read_bytes()
    middle = len(intact) // 2
    if damage == "text":
        path.write_text("not a model")
    elif damage == "truncated":
        path.write_bytes(intact[:middle])
    elif damage == "bytes changed":
        path.write_bytes(intact[:middle] + b"?" * 99 + intact[middle + 99 :])
    elif damage == "a folder":
        path.mkdir()
    assert str(path) in error_of(load_model, path)


# --- Intervals ---


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (46, 100), (9531, 10_000), (7, 7)])
def test_proportion_is_the_wilson_interval(hits, n):
    z, share = 1.959963984540054, hits / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    result = proportion(hits, n)
    assert (result["value"], result["n"]) == (share, n)
    assert result["low"] == pytest.approx(centre - half, abs=1e-12)
    assert result["high"] == pytest.approx(centre + half, abs=1e-12)


def test_mean_interval_is_the_student_interval():
    # 1, 2, 3, 4: mean 2.5, variance 5/3; Student's t at 97.5% with 3 degrees of freedom: 3.182446.
    half = 3.182446305284263 * np.sqrt(5 / 3 / 4)
    expected = {"value": 2.5, "low": 2.5 - half, "high": 2.5 + half}
    assert mean_interval([1, 2, 3, 4]) == pytest.approx(expected, abs=1e-9)


def test_intervals_of_numpy_numbers_can_be_written_as_json():
    for result in (
        proportion(np.float32(3), 4),
        mean_interval(np.array([1, 2], "float32")),
    ):
        assert json.loads(json.dumps(result)) == result


def test_bootstrap_of_a_mean_is_near_the_normal_interval():
    values = np.random.default_rng(1).normal(5, 2, 400)
    result = bootstrap(np.mean, values, rounds=2000)
    half = 1.96 * values.std() / np.sqrt(400)
    assert result["value"] == pytest.approx(values.mean()) and result["n"] == 400
    assert result["high"] - result["value"] == pytest.approx(half, rel=0.1)
    assert result["value"] - result["low"] == pytest.approx(half, rel=0.1)


def test_calibration_error_equals_a_loop():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(4, 0.5), 300).astype("float32")
    probabilities[0] = [1, 0, 0, 0]  # The last bin holds its upper edge, too.
    labels = rng.integers(4, size=300)
    expected = calibration_error_by_a_loop(probabilities, labels)
    assert calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-6)
    assert np.isnan(calibration_error(np.full((3, 4), np.nan), labels[:3]))


# --- Files ---


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "array.npy"
    with replacing(path) as temporary:
        np.save(temporary, np.arange(3))
        assert not path.exists()
    with pytest.raises(InterruptedError), replacing(path) as temporary:
        temporary.write_text("half")
        raise InterruptedError
    assert np.array_equal(np.load(path), np.arange(3))
    assert [p.name for p in path.parent.iterdir()] == ["array.npy"]


@pytest.mark.parametrize(("read", "name"), [(read_json, "x.json"), (read_arrays, "x.npz")])
def test_a_missing_or_damaged_file_is_one_line(tmp_path, error_of, read, name):
    assert name in error_of(read, tmp_path / name)
    (tmp_path / name).write_text("{")
    assert name in error_of(read, tmp_path / name)


# --- Batches ---


def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_one():
    x, y = np.arange(11), 10 * np.arange(11)
    whole = ShuffledBatches((x, y), 3, seed=5)
    resumed = ShuffledBatches((x, y), 3, seed=5, first_epoch=1)
    assert whole.steps_per_epoch == 3
    for step in range(6):
        images, labels = whole[step + 3]
        assert np.array_equal(labels, 10 * images)
        assert np.array_equal(resumed[step][0], images)
    first_epoch = np.concatenate([whole[step][0] for step in range(3)])
    assert len(set(first_epoch)) == 9  # Without the two that fill no batch.
    assert np.array_equal(whole[0][0], first_epoch[:3])  # Asked again, the same.


# --- Downloads ---


@pytest.fixture
def web(tmp_path):
    """A folder of files with file:// addresses."""
    (tmp_path / "good").write_text("the corpus")
    (tmp_path / "bad").write_text("<html>moved</html>")
    urls = {name: (tmp_path / name).as_uri() for name in ("good", "bad", "dead")}
    return urls | {"sha256": hashlib.sha256(b"the corpus").hexdigest()}


@pytest.fixture
def downloads(tmp_path):
    folder = tmp_path / "downloads"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("order", [["good"], ["dead", "good"], ["bad", "good"]])
def test_fetch_takes_the_first_address_with_the_intact_file(web, downloads, order):
    path = fetch("corpus.txt", [web[name] for name in order], web["sha256"], downloads)
    assert path == downloads / "corpus.txt"
    assert path.read_text() == "the corpus"


def test_fetch_loads_a_damaged_copy_again(web, downloads):
    (downloads / "corpus.txt").write_text("the cor")
    path = fetch("corpus.txt", [web["good"]], web["sha256"], downloads)
    assert path.read_text() == "the corpus"


def test_fetch_keeps_a_file_that_it_cannot_replace(web, downloads, error_of):
    (downloads / "corpus.txt").write_text("of my own")
    error_of(fetch, "corpus.txt", [web["dead"], web["bad"]], web["sha256"], downloads)
    assert [p.read_text() for p in downloads.iterdir()] == ["of my own"]


def test_fetch_without_any_intact_file_says_where_to_put_it_by_hand(web, downloads, error_of):
    urls = [web["dead"], web["bad"]]
    message = error_of(fetch, "corpus.txt", urls, web["sha256"], downloads)
    place = downloads / "corpus.txt"
    for part in (*urls, str(place), web["sha256"]):
        assert part in message
    place.write_text("the corpus")
    assert fetch("corpus.txt", [web["dead"]], web["sha256"], downloads) == place


# --- Tables ---


def made_up_record(seed, accuracy, **changes):
    number = {"value": accuracy, "low": accuracy - 0.01, "high": accuracy + 0.01, "n": 400}
    command = f"python toy/train.py --seed {seed} --preset full".replace(" --seed 0", "")
    return {
        "experiment": "toy",
        "row": "ours",
        "seed": seed,
        "command": command,
        "seconds": 60.0 + 60 * seed,
        "device": "abacus",
        "backend": "tensorflow",
        "data": {"name": "drawn"},
        "metrics": {"accuracy": number},
    } | changes


CLAIMS = [
    {"row": "ours", "metric": "accuracy", "post": "85%", "format": ".1%", "status": "beaten"},
    {"row": "post's", "metric": "accuracy", "post": "85%", "format": ".1%", "status": "differs"},
]


def test_a_line_of_one_seed_has_that_seeds_interval_and_a_line_without_records_is_not_tried():
    ours, post = table_lines([made_up_record(0, 0.9)], CLAIMS)
    assert ours == {
        "what": "ours: accuracy",
        "post": "85%",
        "ours (95%)": "**90.0%** (89.0% to 91.0%)",
        "data": "drawn",
        "seeds": 1,
        "n": 400,
        "minutes": "1.0",
        "device": "abacus, tensorflow",
        "command": "`python toy/train.py --preset full`",
        "status": "beaten",
    }
    assert post == {"what": "post's: accuracy", "post": "85%", "status": "not tried"}


def test_a_line_of_several_seeds_has_the_interval_of_their_mean():
    records = [made_up_record(seed, value) for seed, value in enumerate((0.90, 0.92, 0.94))]
    ours, _ = table_lines([*records, made_up_record(0, 0.1, row="another")], CLAIMS)
    half = 4.302652729911275 * 0.02 / np.sqrt(3)  # Student's t with 2 degrees of freedom.
    assert ours["ours (95%)"] == f"**92.0%** ({0.92 - half:.1%} to {0.92 + half:.1%})"
    assert (ours["seeds"], ours["minutes"]) == (3, "2.0")
    records[0] |= {"device": "rule", "backend": "jax"}
    ours, _ = table_lines(records, CLAIMS)
    assert (ours["device"], ours["minutes"]) == ("rule, jax / abacus, tensorflow", "1.0 / 2.5")
    # Seeds that agree have the interval of the test set, and no share is above 1.
    agreeing, _ = table_lines([made_up_record(seed, 0.995) for seed in (0, 1, 2)], CLAIMS)
    assert agreeing["ours (95%)"] == "**99.5%** (98.5% to 100.0%)"
    assert ours["command"] == "`python toy/train.py --preset full`"


def test_the_table_is_markdown_with_a_cell_for_every_column():
    head, rule, *rows = markdown(table_lines([made_up_record(0, 0.9)], CLAIMS)).splitlines()
    assert set(rule) == {"|", " ", "-"} and len(rows) == 2
    assert {line.count("|") for line in (head, rule, *rows)} == {head.count("|")}
    for column in ("post", "ours (95%)", "status", "data", "seeds", "minutes", "device", "command"):
        assert f"| {column} |" in head
    assert "| **90.0%** (89.0% to 91.0%) |" in rows[0]
    assert "| not tried |" in rows[1]


def test_read_results_reads_the_records_and_the_claims(tmp_path):
    results = tmp_path / "toy" / "results"
    results.mkdir(parents=True)
    records = [made_up_record(seed, 0.9) for seed in (0, 1)]
    for record in records:
        (results / f"ours-seed{record['seed']}.json").write_text(json.dumps(record))
    (results / "claims.json").write_text(json.dumps(CLAIMS))
    assert read_results("toy", tmp_path) == (records, CLAIMS)


def test_python_m_common_table_writes_the_table_into_the_readme(tmp_path, error_of):
    (tmp_path / "toy" / "results").mkdir(parents=True)
    (tmp_path / "toy" / "results" / "claims.json").write_text(json.dumps(CLAIMS))
    readme = tmp_path / "toy" / "README.md"
    readme.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "record.json").write_text(json.dumps(made_up_record(0, 0.9)))
    main(["toy", str(run_dir)], tmp_path)
    table = markdown(table_lines([made_up_record(0, 0.9)], CLAIMS))
    marked = f"before\n<!-- results -->\n{table}\n<!-- /results -->\nafter\n"
    assert readme.read_text() == marked
    assert (tmp_path / "toy" / "results" / "ours-seed0.json").exists()
    smoke = made_up_record(1, 0.9) | {"arguments": {"smoke": True}}
    (run_dir / "record.json").write_text(json.dumps(smoke))
    assert "proves no number" in error_of(main, ["toy", str(run_dir)], tmp_path)
    assert readme.read_text() == marked


def test_new_numbers_are_compared_with_the_recorded_interval():
    one, two, three = (made_up_record(0, v)["metrics"]["accuracy"] for v in (0.90, 0.92, 0.94))
    half = 4.302652729911275 * 0.02 / np.sqrt(3)  # Student's t with 2 degrees of freedom.
    low, high = expected_interval([one, two, three], 1)
    assert (low, high) == pytest.approx((0.92 - 2 * half, 0.92 + 2 * half))
    assert compare([one, two, three], [two])[0]
    far = made_up_record(0, 0.7)["metrics"]["accuracy"]
    assert not compare([one, two, three], [far])[0]
    inside, _, high = compare([one, two, three], [two], is_fraction=True)
    assert inside and high == 1
