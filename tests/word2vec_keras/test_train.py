"""word2vec_keras/train.py: trainings through the front door, resumed, continued, and mistakes."""

import json
import shutil

import numpy as np
import pytest

from word2vec_keras import dataset, model, predict, train, vectors

SMOKE = ["--smoke", "--epochs", "2", "--seed", "3"]


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory):
    """One small training through the front door, shared by the tests that need a run."""
    run_dir = tmp_path_factory.mktemp("smoke") / "run"
    return run_dir, train.main([*SMOKE, "--run-dir", str(run_dir)])


# --- Training ---
def test_the_record_and_what_gensim_and_predict_read(smoke_run, capsys):
    run_dir, record = smoke_run
    assert json.loads((run_dir / "record.json").read_text())["metrics"] == record["metrics"]
    assert {"Spearman, similarity", "accuracy, analogies"} <= set(record["metrics"])
    words, text = vectors.read_vectors(run_dir / "vectors.txt")
    _, binary = vectors.read_vectors(run_dir / "vectors.bin")
    assert text.shape == (record["data"]["num_words"], 128)
    np.testing.assert_array_equal(text, binary)
    with np.load(run_dir / "output.npz") as output:
        assert output["weights"].shape == (len(words) + 1, 128)
        assert (np.diff(output["counts"][1:]) <= 0).all()
        # As often as the model saw them: for p(w), by which skip-grams are put together.
        given = record["arguments"]
        corpus = dataset.load(train.parse_args(SMOKE))
        keep = model.keep_probability(corpus.counts, corpus.total, given["subsample"])
        np.testing.assert_allclose(output["counts"], corpus.counts * keep)
        assert (keep < 1).any()
    capsys.readouterr()
    predict.main(["--run-dir", str(run_dir), "--json", "--nearest", words[0]])
    assert len(json.loads(capsys.readouterr().out)["words"]) == 10


@pytest.mark.parametrize("model", ["cbow", "skipgram", "fast-skipgram"])
def test_the_other_models_train(tmp_path, model):
    run_dir = tmp_path / "run"
    flags = ["--smoke", "--model", model, "--embedding-dim", "16"]
    record = train.main([*flags, "--run-dir", str(run_dir)])
    assert np.isfinite(record["history"][-1]["loss"])
    words, _ = vectors.read_vectors(run_dir / "vectors.bin")
    asked = ["--log-probability", words[0], "--context", *words[1:4]]
    shown = predict.main(["--run-dir", str(run_dir), *asked])
    assert -20 < shown[0]["value"] < 0


def test_a_killed_run_resumes_to_the_same_tables(smoke_run, tmp_path, kill_in_second_epoch):
    """kill -9 in the second epoch, then --resume."""
    straight, record = smoke_run
    flags = [*SMOKE, "--run-dir", str(tmp_path / "killed")]
    kill_in_second_epoch("word2vec_keras", flags)
    assert (tmp_path / "killed" / "state.npz").exists()
    resumed = train.main([*flags, "--resume"])
    assert resumed["resumed"] and resumed["metrics"] == record["metrics"]
    for name in ("vectors.bin", "vectors.txt"):
        assert (straight / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    speed = "words per second, with compilation"
    (tmp_path / "killed" / "record.json").unlink()  # Stopped after the last epoch.
    again = train.main([*flags, "--resume"])
    assert again["metrics"] == record["metrics"]
    assert speed in resumed["details"] and speed not in again["details"]


def test_training_goes_on_from_vectors_with_new_words(smoke_run, tmp_path, error_of):
    straight, _ = smoke_run
    words, before = vectors.read_vectors(straight / "vectors.bin")
    text = tmp_path / "more.txt"
    frequent = words[:30]
    text.write_text("\n".join(" ".join(["novelty", *frequent, "novelty"]) for _ in range(50)))
    known = tmp_path / "known"
    known.mkdir()
    for name in ("vectors.bin", "output.npz"):
        shutil.copyfile(straight / name, known / name)
    flags = ["--smoke", "--data", str(text), "--continue-from", str(known / "vectors.bin")]
    flags += ["--subsample", "1", "--run-dir", str(tmp_path / "run")]
    train.main(flags)
    after_words, after = vectors.read_vectors(tmp_path / "run" / "vectors.bin")
    assert set(after_words) == {*words, "novelty"}
    row = {word: i for i, word in enumerate(after_words)}
    unseen = [word for word in words if word not in frequent]
    old = np.array([before[words.index(word)] for word in unseen[:100]])
    np.testing.assert_array_equal(after[[row[word] for word in unseen[:100]]], old)
    assert (after[row[frequent[0]]] != before[0]).any()
    assert np.linalg.norm(after[row["novelty"]]) > 0.1
    (tmp_path / "run" / "record.json").unlink()
    vectors.write_vectors(known / "vectors.bin", words[::-1], before)
    assert "data_sha256 was" in error_of(train.main, [*flags, "--resume"])


# --- Bad input ---
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--epochs 0", "--epochs: expected a whole number of at least 1"),
        ("--window 0", "--window: expected a whole number of at least 1"),
        ("--embedding-dim 0", "--embedding-dim: expected a whole number of at least 1"),
        ("--min-count -1", "--min-count: expected a whole number of at least 1"),
        ("--num-negatives 0", "--num-negatives: expected a whole number of at least 1"),
        ("--num-negatives -1", "--num-negatives: expected a whole number of at least 1"),
        ("--learning-rate 0", "--learning-rate: expected a number above 0"),
        ("--learning-rate -1", "--learning-rate: expected a number above 0"),
        ("--subsample 0", "--subsample: expected a number above 0"),
        ("--subsample nan", "--subsample: expected a number above 0"),
        ("--fix masked-padding", "--fix is for --model cbow"),
        ("--fix nothing --model cbow", "invalid choice: 'nothing'"),
        ("--model glove", "invalid choice: 'glove'"),
    ],
)
def test_a_bad_flag_is_refused(flags, expected, usage_error_of):
    assert expected in usage_error_of(train.main, ["--smoke", *flags.split()])


def test_bad_input_is_one_line(tmp_path, error_of, smoke_run):
    text = tmp_path / "short.txt"
    text.write_text("a b c\n" * 20)
    start = ["--smoke", "--data", str(text), "--run-dir", str(tmp_path / "run")]
    assert "longest sentence has only 3" in error_of(train.main, [*start, "--window", "3"])
    assert "--min-count is 50" in error_of(train.main, [*start, "--min-count", "50"])
    few = tmp_path / "few.txt"
    few.write_text("the cat sat on the mat here\n" * 20)
    flags = [*start, "--data", str(few), "--min-count", "1", "--subsample", "1e-5"]
    assert "leaves 1 of 140 words" in error_of(train.main, flags)
    (tmp_path / "empty.txt").write_text("")
    assert "empty.txt" in error_of(train.main, ["--smoke", "--data", str(tmp_path / "empty.txt")])
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("a b 1.0\na b c d e\n")
    line = error_of(train.main, [*start, "--window", "2", "--eval", str(wrong)])
    assert "wrong.txt" in line
    other = tmp_path / "other.bin"
    vectors.write_vectors(other, ["a", "b"], np.ones((2, 5)))
    line = error_of(train.main, [*start, "--window", "2", "--continue-from", str(other)])
    assert "--embedding-dim" in line
    go_on = [*start, "--window", "2", "--embedding-dim", "5", "--continue-from", str(other)]
    go_on += ["--subsample", "1"]
    np.savez(tmp_path / "output.npz", counts=np.ones(3), weights=np.ones((3, 7)))
    assert "weights has (7,) a word" in error_of(train.main, go_on)
    assert not (tmp_path / "run" / "record.json").exists()
