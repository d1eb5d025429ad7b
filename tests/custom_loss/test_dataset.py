"""custom_loss: batches, measures, and files of users."""

import json
import os
import types
from functools import partial

import numpy as np
import pytest
from conftest import ROOT, calibration_error_by_a_loop, write_mnist

from common.metrics import bootstrap, calibration_error
from custom_loss import dataset, evaluate
from data import glyphs


# --- Batches and measures ---
def test_center_batches_hold_the_class_twice():
    x = np.arange(10)
    straight = dataset.CenterBatches((x, x + 10), 3, seed=1)
    (images, classes), targets = straight[4]
    assert np.array_equal(classes, images + 10) and np.array_equal(targets, classes)
    later = dataset.CenterBatches((x, x + 10), 3, seed=1, first_epoch=1)
    assert np.array_equal(later[1][1], targets)


def test_triplet_batches_hold_no_answer_twice():
    rng = np.random.default_rng(0)
    numbers = np.concatenate([np.arange(20), rng.integers(0, 20, 37)])
    questions, answers = np.arange(57)[:, None], 100 + np.arange(20)[:, None]
    batches = dataset.TripletBatches(questions, numbers, answers, 8, seed=1)
    steps = batches.steps_per_epoch
    assert steps == dataset.count_steps(numbers, 8)
    for epoch in range(3):
        asked = []
        for step in range(steps):
            [(question, answer)] = batches[epoch * steps + step]
            assert len(np.unique(answer)) == 8
            assert np.array_equal(answer, answers[numbers[question[:, 0]]])
            asked += question[:, 0].tolist()
        assert len(asked) == len(set(asked)), "a question came twice in an epoch"
    again = dataset.TripletBatches(questions, numbers, answers, 8, seed=1, first_epoch=2)
    assert np.array_equal(again[0][0][0][:, 0], asked[:8])


def test_calibration_error_by_a_loop():
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(4), 500), rng.integers(4, size=500)
    probabilities[0] = 1, 0, 0, 0
    total = calibration_error_by_a_loop(probabilities, labels)
    assert calibration_error(probabilities, labels) == pytest.approx(total)
    metric = bootstrap(calibration_error, probabilities, labels)
    assert metric["low"] < metric["value"] < metric["high"] and metric["n"] == 500


def test_distance_ratio_by_hand_and_at_any_scale():
    features = np.array([[0.0, 0], [2, 0], [10, 0], [10, 4]])
    labels = np.array([3, 3, 5, 5])
    # Centres (1, 0) and (10, 2): squares within 1, 1, 4, 4; between (81 + 4) / 4.
    expected = 2.5 / 21.25
    assert evaluate.distance_ratio(features, labels) == pytest.approx(expected)
    assert evaluate.distance_ratio(7 * features + 3, labels) == pytest.approx(expected)


def test_few_shot_accuracy_is_one_for_apart_classes_and_chance_for_none():
    rng = np.random.default_rng(0)
    labels = rng.integers(7, 10, 300)
    apart = rng.normal(size=(300, 5)) + 50 * labels[:, None]
    assert (evaluate.few_shot_accuracies(apart, labels) == 1).all()
    noise = evaluate.few_shot_accuracies(rng.normal(size=(300, 5)), labels).mean()
    assert noise == pytest.approx(1 / 3, abs=0.06)


def test_ranks_count_ties_against_the_answer():
    scores = np.array([[0.9, 0.1, 0.5], [0.2, 0.2, 0.2], [0.3, 0.2, 0.1]])
    assert evaluate.ranks_of(scores, np.array([0, 1, 2])).tolist() == [1, 3, 3]
    scores[0] = scores[1, 0] = np.nan
    assert evaluate.ranks_of(scores, np.array([0, 1, 2])).tolist() == [3, 3, 3]


def test_word_scores_by_hand():
    """TF-IDF with log((1 + n) / df), as cosines: one common pair, weighed by rarity."""
    [scores] = evaluate.TfIdf(["ab", "ac", "d"]).cosines(["ab"])
    a, b, ab = np.log(4 / 2), np.log(4), np.log(4)
    c, ac = np.log(4), np.log(4)
    length = np.sqrt(a**2 + b**2 + ab**2)
    expected = [1, a**2 / length / np.sqrt(a**2 + c**2 + ac**2), 0]
    np.testing.assert_allclose(scores, expected, atol=1e-7)
    assert evaluate.TfIdf(["ab"]).cosines(["zz"]).tolist() == [[0]]


def test_noise_has_no_digit_but_its_pixels():
    pictures = glyphs.load("test", 50)[0][..., None]
    noises = evaluate.noise_images(pictures)
    assert noises["noise"].shape == (1000, 28, 28, 1)
    assert abs(noises["noise"].mean() - 127.5) < 1
    same = np.sort(noises["shuffled digits"].reshape(50, -1), 1)
    assert np.array_equal(same, np.sort(pictures.reshape(50, -1), 1))
    assert (noises["shuffled digits"] != pictures).any((1, 2, 3)).all()


# --- Files of users ---
write_npz = partial(write_mnist, num_train=400, num_test=120)


def test_mnist_is_split_three_ways_whatever_the_run_seed(tmp_path):
    path, arrays = write_npz(tmp_path / "mnist.npz")
    splits, name = dataset.load_digits(str(path), 200, 100, 110)
    assert name == "MNIST" and [len(y) for _, y in splits.values()] == [200, 100, 110]
    labels = {p.tobytes(): y for p, y in zip(arrays["x_train"], arrays["y_train"], strict=True)}
    drawn = [p.tobytes() for split in ("train", "valid") for p in splits[split][0]]
    assert len(set(drawn)) == 300
    ys = np.concatenate([splits["train"][1], splits["valid"][1]])
    assert all(labels[p] == y for p, y in zip(drawn, ys, strict=True))
    assert dataset.load_digits(str(tmp_path), 200, 100, 110)[1] == "MNIST"  # The folder of it.


def test_bad_files_of_digits_are_one_line(tmp_path, error_of):
    sizes = 200, 100, 110
    good, arrays = write_npz(tmp_path / "mnist.npz")
    truncated, text = tmp_path / "truncated.npz", tmp_path / "text.npz"
    truncated.write_bytes(good.read_bytes()[:-5000])
    text.write_text("no digits here")
    for path in (truncated, text, tmp_path / "none.npz"):
        assert str(path) in error_of(dataset.load_digits, str(path), *sizes)
    assert "there is no" in error_of(dataset.load_digits, str(tmp_path / "none.npz"), *sizes)

    def error_with(num_test=110, **changes):
        path, _ = write_npz(tmp_path / "bad.npz", **changes)
        return error_of(dataset.load_digits, str(path), 200, 100, num_test)

    assert "has no y_train" in error_with(without=["y_train"])
    wide = np.zeros((120, 32, 32), "uint8")
    assert "(n, 28, 28)" in error_with(x_test=wide)
    assert "label 10 of image 7" in error_with(
        y_train=np.where(np.arange(400) == 7, 10, arrays["y_train"])
    )
    assert "label -1 of image 0" in error_with(y_test=np.full(120, -1))
    # The wrong column: probabilities, names, one-hot rows.
    for labels in (np.linspace(0, 1, 400), np.full(400, "seven"), np.eye(10)[np.arange(400) % 10]):
        assert "as label" in error_with(y_train=labels)
    rare = np.arange(400) % 9
    rare[5] = 9
    assert "class 9 has" in error_with(y_train=rare.astype("uint8"))
    alone = np.where(np.arange(120) % 10 == 8, 0, np.arange(120) % 10)
    alone[3] = 8
    assert "class 8 has 1 of the 120 images to test on" in error_with(
        y_test=alone.astype("uint8"), num_test=120
    )
    assert "too few" in error_of(dataset.load_digits, str(good), 300, 101, 110)


def write_faq(path, num_answers=6, num_questions=4, ending="\n", encoding="utf-8"):
    lines = [
        f"问题{chr(0x4E00 + 10 * i + j)}怎么办\t答案{chr(0x5E00 + i)}如下"
        for i in range(num_answers)
        for j in range(num_questions)
    ]
    path.write_bytes("".join(line + ending for line in lines).encode(encoding))
    return path


def test_a_faq_keeps_a_question_of_each_answer_to_validate_and_one_to_test(tmp_path):
    path = write_faq(tmp_path / "faq.tsv", ending="\r\n")
    loaded, name = dataset.load_texts(str(path), 100, 100)
    assert name == "faq.tsv"
    assert [len(questions) for questions, _, _ in loaded.values()] == [12, 6, 6]
    everything = set().union(*(questions for questions, _, _ in loaded.values()))
    assert len(everything) == 24, "a question is in two splits"
    for questions, numbers, answers in loaded.values():
        assert answers == loaded["train"][2] and len(answers) == 6
        for question, number in zip(questions, numbers, strict=True):
            assert ord(answers[number][2]) - 0x5E00 == (ord(question[2]) - 0x4E00) // 10
    again = dataset.load_texts(str(path), 100, 100)[0]
    assert again["test"][0] == loaded["test"][0]
    path.write_text(path.read_text(encoding="utf-8") * 3, encoding="utf-8")
    assert dataset.load_texts(str(path), 100, 100)[0]["test"][0] == loaded["test"][0]
    # Asked again with another answer, a question still stands in one split, with its first one.
    lines = path.read_text(encoding="utf-8").splitlines()
    twice = [f"{line.split(chr(9))[0]}\t{loaded['train'][2][0]}" for line in lines]
    path.write_text("\n".join(lines + twice), encoding="utf-8")
    assert dataset.load_texts(str(path), 100, 100)[0]["test"][0] == loaded["test"][0]


def test_stories_are_held_out_whole(tmp_path):
    path = tmp_path / "stories.txt"
    stories = [
        [f"故事{chr(0x4E00 + s)}的 第{chr(0x5E00 + i)}句话" for i in range(6)] for s in range(30)
    ]
    stories[29] = stories[28]  # The second is left out.
    stories[5].insert(2, "短句")  # Too short to be asked or to be an answer.
    path.write_text("\n\n".join("\n".join(lines) for lines in stories))
    loaded, _ = dataset.load_texts(str(path), 1000, 1000)
    origin = {}
    for split, (questions, numbers, answers) in loaded.items():
        for question, number in zip(questions, numbers, strict=True):
            assert origin.setdefault(question[2], split) == split, "a story was torn apart"
            assert " " not in question and "短句" not in (question, answers[number])
            i, j = (ord(text[5]) - 0x5E00 for text in (question, answers[number]))
            assert j == i + 1
    assert set(origin.values()) == {"train", "valid", "test"}
    counts = [len(questions) for questions, _, _ in loaded.values()]
    everything = set().union(*(questions for questions, _, _ in loaded.values()))
    assert len(everything) == sum(counts) == 29 * 5 - 1  # Around the short one a pair is lost.


def test_the_answers_of_all_splits_are_kept_for_predict(tmp_path):
    """Each split of stories has its own; the user's question may be about any of them."""
    loaded = {
        split: ([f"{split} question"], np.array([0]), [f"{split} answer", "common"])
        for split in ("train", "valid", "test")
    }
    encoder = types.SimpleNamespace(save=lambda path: None)
    model = types.SimpleNamespace(question_encoder=encoder, answer_encoder=encoder)
    histories = {"one": [{"val_mean_reciprocal_rank": 0.5}]}
    evaluate.save_texts(tmp_path, {"one": model}, histories, {}, loaded)
    saved = json.loads((tmp_path / "faq.json").read_text(encoding="utf-8"))
    assert saved["answers"] == ["train answer", "common", "valid answer", "test answer"]
    assert saved["examples"] == [["test question", "test answer"]]


def test_long_texts_are_said_to_be_cut(capsys):
    answers = ["短", "长" * 41]
    one = (["问"] * 2, np.array([0, 1]), answers)
    dataset.encode_all({"train": one, "valid": one, "test": one})
    assert "of 1 texts only the first 40" in capsys.readouterr().out


def test_bad_files_of_questions_are_one_line(tmp_path, error_of):
    path = tmp_path / "faq.tsv"

    def error_with(text, encoding="utf-8"):
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return error_of(dataset.load_texts, str(path), 100, 100)

    good = write_faq(path).read_text()
    assert "faq.tsv line 25: expected question<TAB>answer, found 1 column" in error_with(
        good + "没有答案的问题\n"
    )
    assert "line 25" in error_with(good + "问题\t答案\t标签\n")
    assert "found 3 columns" in error_with(good + "问题\t答案\t标签\n")
    assert "line 25: expected question<TAB>answer, found an empty text" in error_with(
        good + " \t答案\n"
    )
    mixed = good.encode() + "怎么退货\t寄回来\n".encode("gbk")
    assert "faq.tsv line 25 is not UTF-8" in error_with(mixed)
    assert "holds no question" in error_with("\n\n")
    alone = error_with(good + "只问一次\t只答一次\n")
    assert "line 25: only 1 of 3 different questions have the answer '只答一次'" in alone
    again = error_with(
        good + "".join(f"{line.split(chr(9))[0]}\t又答\n" for line in good.split("\n")[:5])
    )
    assert "line 25: only 0 of 3 different questions have the answer '又答'" in again
    assert "only one answer" in error_with("甲\t丁\n乙\t丁\n丙\t丁\n")
    assert "empty lines make 2 stories" in error_with("甲\t丁\n\n乙\t戊\n")
    (tmp_path / "faq.txt").write_text("怎么退货\t寄回来\n", encoding="utf-8")
    said = error_of(dataset.load_texts, str(tmp_path / "faq.txt"), 100, 100)
    assert "faq.txt line 1: a tab" in said and ".tsv" in said
    assert "of two answers to one the first counts" in again
    missing = str(tmp_path / "none.tsv")
    assert missing in error_of(dataset.load_texts, missing, 100, 100)


def test_what_is_left_out_or_cut_is_said(tmp_path, capsys):
    lines = [f"{i} 号是不是{word}\t{word}" for word in "红绿" for i in range(9)]
    lines += ["3 号是不是红\t绿", f"{'很' * 60}长\t绿", "3 号是不是红\t红"]
    (tmp_path / "faq.tsv").write_text("\n".join(lines), encoding="utf-8")
    loaded, _ = dataset.load_texts(str(tmp_path / "faq.tsv"), 100, 100)
    assert sum(len(questions) for questions, *_ in loaded.values()) == 19
    assert "2 of 21 pairs" in capsys.readouterr().out
    _, ids = dataset.encode_all(loaded)
    assert {x.shape[1] for x, _, _ in ids.values()} == {dataset.MAX_LENGTH}
    assert "of 1 texts only the first 40" in capsys.readouterr().out


def test_running_text_may_be_indented(tmp_path):
    lines = [f"\t这是第{i}个很长的句子\t" if i % 5 else "" for i in range(100)]
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    loaded, _ = dataset.load_texts(str(tmp_path / "a.txt"), 100, 100)
    assert all("\t" not in text for asked, *_ in loaded.values() for text in asked)


def test_texts_are_cut_into_characters():
    vocabulary = dataset.make_vocabulary(["退货退", "货到"], size=4)
    assert vocabulary == {"货": 2, "退": 3} or vocabulary == {"退": 2, "货": 3}
    ids = dataset.encode(["退货到", "退"], vocabulary, 2)
    assert ids.tolist() == [[vocabulary["退"], vocabulary["货"]], [vocabulary["退"], 0]]
    assert dataset.encode(["到"], vocabulary, 3).tolist() == [[dataset.UNKNOWN, 0, 0]]
    long = dataset.encode_question("退" * 100_000, vocabulary, 40)
    assert long.shape == (1, 40)
    for bad in ("", "  ", "xyz"):
        with pytest.raises(ValueError, match="question"):
            dataset.encode_question(bad, vocabulary, 40)


@pytest.mark.skipif(
    not os.path.exists(ROOT / "data/downloads/stories/stories.txt"), reason="no stories here"
)
def test_real_stories_share_no_text_between_splits():
    path = ROOT / "data/downloads/stories/stories.txt"
    loaded, _ = dataset.load_texts(str(path), 10_000, 1000)
    sets = {split: set(q) for split, (q, _, _) in loaded.items()}
    assert [len(q) for q in sets.values()] == [10_000, 1000, 1000]
    assert not sets["train"] & sets["test"] and not sets["train"] & sets["valid"]
    told = {split: {a[i] for i in n} for split, (_, n, a) in loaded.items()}
    assert not told["train"] & told["test"]
