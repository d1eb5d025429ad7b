"""Flags, whole runs of every recipe, the stages, kept features in a shared folder, a kill."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from common.parallel import DataParallel
from common.run import Run
from dog_finetune import evaluate, stages, train

SMOKE = ["--smoke", "--run-dir"]
SMALL = ["--backbone", "small", "--weights", "none", "--image-size", "16", "--steps", "2"]


# --- Flags ---
@pytest.mark.parametrize(
    "words",
    [
        ["--epochs", "3"],
        ["--epochs", "0", "1", "1"],
        ["--shares", "0", "0.1"],
        ["--breeds", "99"],
        ["--draws", "2"],
        ["--data", ".", "--weights", "drawn"],
        ["--views", "0"],
        ["--image-size", "0"],
        ["--blocks", "0"],
        ["--steps", "0"],
        ["--learning-rate", "0"],
        ["--recipe", "ours", "--mixup", "-1"],
        ["--mixup", "0.4"],
    ],
)
def test_settings_that_make_no_sense_are_one_line(words, usage_error_of):
    usage_error_of(train.parse_args, words)


def test_a_folder_that_no_piece_uses_is_refused(tmp_path, usage_error_of):
    words = ["--smoke", "--unlabelled", str(tmp_path)]
    for more in (["--recipe", "ours"], ["--without", "pseudo"]):
        assert "only the post's recipe" in usage_error_of(train.parse_args, [*words, *more])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--tta", "13"], "argument --tta: invalid choice: 13"),
        (["--decay", "-0.5"], "argument --decay: expected a number above 0, at most 1"),
        (["--mixup", "nan"], "argument --mixup: expected 0 or more"),
        (["--learning-rate", "nan"], "above 0"),
        (["--data", ""], "an argument is empty"),
        (["--recipe", "ours", "--without", "glu"], "of --recipe post"),
        (["--test", "."], "are for --data"),
        (["--unlabelled", "."], "is for --data"),
    ],
)
def test_flags_that_make_no_sense_are_one_line(words, expected, usage_error_of):
    assert expected in usage_error_of(train.parse_args, ["--smoke", *words])


# --- Runs ---
def test_record_of_the_three_stages(smoke_run, assert_drawn):
    run_dir, record = smoke_run
    stages_seen = [entry["stage"] for entry in record["history"]]
    assert stages_seen == [f"stage{i}" for i in range(4) for _ in range(2)]
    metrics = record["metrics"]
    assert metrics["accuracy"]["n"] == 12
    assert metrics["accuracy"]["value"] + metrics["error rate"]["value"] == pytest.approx(1)
    assert {f"accuracy after stage {i}" for i in (1, 2, 3)} < set(metrics)
    assert metrics["calibration error"]["value"] <= 1
    assert record["details"]["temperature"][0] > 0 and "calibration error, scaled" in metrics
    assert record["details"]["weights"] == "drawn"
    assert not list(run_dir.glob("*-maps.*")) and not list(run_dir.glob("*-vectors.*"))
    for name in record["pictures"]:
        assert_drawn(run_dir / name)


class YesThenNo(keras.utils.PyDataset):
    """Five batches that say one thing, then others that say the contrary."""

    num_batches = None
    steps_per_epoch = 5

    def __init__(self, yes, no):
        super().__init__()
        self.yes = yes
        self.no = no
        self.first_epoch = 0

    def __getitem__(self, index):
        step = 5 * self.first_epoch + index
        return self.yes if step < 5 else self.no


def test_a_stage_ends_at_its_best_epoch(tmp_path):
    """Of two epochs the first teaches what the validation images ask, the second the contrary."""
    args = train.parse_args([*SMOKE, str(tmp_path / "run")])
    inputs = keras.Input((2,), name="x")
    outputs = {"main": layers.Dense(2, activation="softmax", name="main")(inputs)}
    model = keras.Model({"x": inputs}, outputs)
    crossentropy = {"main": "categorical_crossentropy"}
    model.compile(keras.optimizers.SGD(1.0), crossentropy, metrics={"main": "accuracy"})
    x = {"x": np.ones((4, 2), "float32")}
    yes, no = ({"main": np.tile(np.eye(2, dtype="float32")[i], (4, 1))} for i in (1, 0))

    fitter = stages.Fitter(Run(args, "dog_finetune"), DataParallel(args), prefix="")
    fitter.fit("stage1", model, YesThenNo((x, yes), (x, no)), 2, (x, yes))
    assert [entry["val_accuracy"] for entry in fitter.history] == [1, 0]
    assert (ops.convert_to_numpy(model(x)["main"]).argmax(-1) == 1).all()


def test_killed_and_resumed_in_every_stage(
    smoke_run, tmp_path, kill_in_second_epoch, assert_same_state
):
    """kill -9 in the second epoch of each stage; at the end all is as in the smooth run."""
    run_dir, flags = tmp_path / "killed", [*SMOKE, str(tmp_path / "killed")]
    for stage in range(4):
        resume = ["--resume"] if stage else []
        kill_in_second_epoch("dog_finetune", [*flags, *resume], prefix=f"stage{stage}-")
    assert not (run_dir / "record.json").exists()
    record = train.main([*flags, "--resume"])
    for stage in range(4):
        name = f"stage{stage}-state.npz"
        assert_same_state(smoke_run[0] / name, run_dir / name)
    assert record["metrics"] == smoke_run[1]["metrics"]
    assert record["history"] == smoke_run[1]["history"] and record["resumed"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--recipe", "probe"], []),
        (
            ["--recipe", "ours", "--epochs", "2", "--fresh", "--tta", "2", "--blocks", "3"],
            ["stage2", "stage2"],
        ),
        (
            ["--epochs", "1", "1", "1", "--fresh", "--without", "glu", "light"],
            ["stage1", "stage2", "stage3"],
        ),
        (
            ["--epochs", "1", "1", "1", "--unlabelled", "0.4"],
            ["stage1", "stage2", "stage3", "pseudo2", "pseudo3"],
        ),
        (
            ["--epochs", "1", "1", "1", "--shares", "0.2", "0", "--draws", "2"],
            [f"draw{draw}-stage{stage}" for draw in (0, 1) for stage in (1, 2, 3)],
        ),
    ],
)
def test_recipes_and_pieces(words, expected, small_folder, tmp_path):
    flags = [*SMOKE, str(tmp_path / "run"), "--data", str(small_folder), *SMALL]
    record = train.main([*flags, *words])
    names = [entry["stage"] for entry in record["history"]]
    assert names == expected
    metrics = record["metrics"]["accuracy"]
    assert metrics["low"] <= metrics["value"] <= metrics["high"]
    if "--draws" in words:
        assert record["data"]["num_valid"] == 0 and record["row"].endswith("2 draws")
    if "--unlabelled" in words:
        assert record["data"]["num_unlabelled"] > 8 and "0.4 unlabelled" in record["row"]
        assert record["details"]["pseudo-labels"] == record["data"]["num_unlabelled"]
        assert 0 <= record["details"]["pseudo-labels that are right"] <= 1
    if "--tta" in words:
        assert "accuracy, one view" in record["metrics"]


def test_every_number_of_views_has_a_temperature(small_folder, tmp_path):
    flags = [*SMOKE, str(tmp_path / "run"), "--data", str(small_folder), *SMALL, "--tta", "2"]
    record = train.main([*flags, "--epochs", "1", "1", "1"])
    _, notes = evaluate.load_classifier(tmp_path / "run")
    [temperature] = record["details"]["temperature"]
    assert notes["temperature_of_views"] == temperature
    assert notes["temperature"] == record["details"]["temperature of one view"] != temperature


def test_maps_are_shared_by_runs_that_need_the_same(small_folder, tmp_path):
    """Another head finds them; another seed, other pieces or weights make their own."""
    flags = ["--data", str(small_folder), *SMALL]
    flags += ["--epochs", "1", "1", "1", "--maps", str(tmp_path / "maps")]

    def run(name, *words):
        record = train.main([*SMOKE, str(tmp_path / name), *flags, *words])
        return record, {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("maps/*.npy")}

    first, made = run("first")
    assert {name.rsplit("-", 1)[0] for name in made} == {
        *("full-maps", "light-maps", "test-maps", "valid-maps")
    }
    again, same = run("again")
    assert same.keys() == made.keys() and again["metrics"] == first["metrics"]
    alone = train.main([*SMOKE, str(tmp_path / "alone"), *flags[:-2]])
    assert alone["metrics"] == first["metrics"] and alone["history"] == first["history"]
    assert run("heads", "--without", "glu")[1].keys() == made.keys()
    assert len(run("pieces", "--without", "masks")[1]) > len(made)
    assert len(run("seed", "--seed", "1")[1]) > len(made) + 2
    hidden = run("hidden", "--unlabelled", "0.5", "--without", "pseudo")[1]
    assert len(run("pseudo", "--unlabelled", "0.5")[1]) > len(hidden)  # Of more images.


def test_the_probe_is_where_the_gradient_vanishes():
    """The minimum of a convex loss, by Keras' own loss and by differences."""
    rng = np.random.default_rng(0)
    x, y = 3 + 2 * rng.normal(size=(60, 4)), rng.integers(3, size=60)
    deviation = (x - x.mean(0)).std()
    z = (x - x.mean(0)) / deviation

    def loss(kernel, bias):
        entropy = keras.losses.sparse_categorical_crossentropy(
            y, (z @ kernel + bias).astype("float32"), from_logits=True
        )
        return ops.convert_to_numpy(entropy).mean() + 0.05 * (kernel**2).sum()

    kernel, bias = stages.fit_linear_probe(x.astype("float32"), y, 3, penalty=0.1)
    scaled, moved = kernel * deviation, bias + x.mean(0) @ kernel
    assert np.allclose(z @ scaled + moved, x @ kernel + bias)
    least = loss(scaled, moved)
    for _ in range(20):
        step = 0.1 * rng.normal(size=scaled.shape)
        assert loss(scaled + step, moved) > least
        assert loss(scaled, moved + step[0, 0] * np.eye(3)[0]) > least
