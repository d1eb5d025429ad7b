"""rnn_saliency: the models, the scores against references, the measures, a kill, a run."""

import json
import subprocess
import sys
from html.parser import HTMLParser

import keras
import numpy as np
import pytest
from conftest import ROOT
from keras import ops
from scipy.stats import spearmanr

from data import reviews
from rnn_saliency import dataset, evaluate, faithfulness, predict, train
from rnn_saliency.gradients import gradient_function
from rnn_saliency.model import (
    build_classifier,
    build_ngram_classifier,
    build_reader,
    change_saliency,
    log_count_ratios,
    ngram_ids,
    state_saliency,
    word_effects,
)

KINDS = {
    "lstm": {"cell": "lstm"},
    "gru": {"cell": "gru"},
    "bidirectional": {"cell": "lstm", "bidirectional": True},
}
# Unknown words, id 0, amid the reviews, at their start and as padding.
IDS = np.array(
    [[3, 1, 0, 2, 7, 7, 7, 4], [0, 5, 6, 0, 2, 0, 0, 0], [8, 0, 0, 0, 0, 0, 0, 0]], "int32"
)


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    """A small network with random weights, large enough for states far from 0."""
    keras.utils.set_random_seed(1)
    model = build_classifier(9, embedding_dim=6, units=5, **KINDS[request.param])
    rng = np.random.default_rng(2)
    model.set_weights([rng.normal(0, 0.7, w.shape) for w in model.get_weights()])
    return model


def states_by_prefix(model, ids):
    """What the network holds after each word of one review, from runs on its beginnings.

    A list of (states before, states after, weights of the decision), one for each direction;
    backward, a beginning is an end of the review. The reference for build_reader.
    """
    reader = keras.Model(model.input, model.get_layer("rnn").output)
    weights = model.get_layer("decision").get_weights()[0][:, 0]
    size = model.get_layer("rnn").output[1].shape[-1]
    found = []
    for direction in range(len(weights) // size):
        pieces = [ids[i:] for i in range(len(ids))] if direction else None
        pieces = pieces or [ids[: i + 1] for i in range(len(ids))]
        ends = [reader(np.array([piece]))[1:] for piece in pieces]
        after = np.stack([ops.convert_to_numpy(e[direction * len(e) // 2])[0] for e in ends])
        zero = np.zeros((1, size))
        before = np.concatenate([after[1:], zero] if direction else [zero, after[:-1]])
        found.append((before, after, weights[direction * size : (direction + 1) * size]))
    return found


# --- Models ---
def test_the_posts_model_has_the_posts_parameters():
    for cell, gates in (("lstm", 4 * (128 + 128 + 1)), ("gru", 3 * (128 + 128 + 2))):
        model = build_classifier(1000, cell=cell)
        assert model.count_params() == 1001 * 128 + 128 * gates + 129
    model = build_classifier(vocabulary_size=1000, bidirectional=True)
    assert model.count_params() == 1001 * 128 + 2 * 128 * 4 * 257 + 257
    rates = [x.rate for x in model.layers if isinstance(x, keras.layers.Dropout)]
    assert rates == [0.5] and model.output_shape == (None, 1)


def test_ngrams_are_those_of_a_loop():
    words, text = ["不", "好", "不", "好"], "\x02不好不好\x03"
    count = len({"不", "好"}) + len({("不", "好"), ("好", "不")})
    count += len({text[i : i + n] for n in (1, 2, 3) for i in range(len(text) - n + 1)})
    ids = ngram_ids(words)
    assert len(ids) == count and ids == sorted(set(ids)) and ids[0] > 0 and ids[-1] < 2**20
    assert ids == ngram_ids(words) and ngram_ids(words, max_ngrams=3) == ids[:3]
    assert set(ngram_ids(words, buckets=10)) <= set(range(1, 10))


def test_ratios_and_the_ngram_model_equal_a_loop():
    ids, labels = np.array([[1, 2, 3], [1, 2, 0], [2, 3, 5], [3, 0, 0]]), np.array([1, 1, 0, 0])
    ratios = log_count_ratios(ids, labels, buckets=8)
    expected = np.zeros(8)
    praise, blame = {1: 2, 2: 2, 3: 1}, {2: 1, 3: 2, 5: 1}
    for i in (1, 2, 3):  # Id 5 occurs once only.
        p, b = ((c.get(i, 0) + 1) / (sum(c.values()) + 7) for c in (praise, blame))
        expected[i] = np.log(p / b)
    np.testing.assert_allclose(ratios, expected, rtol=1e-5)
    model = build_ngram_classifier(ratios=ratios)
    assert [w.name for w in model.trainable_variables] == ["embeddings", "kernel", "bias"]
    weights = np.linspace(-1, 1, 8)
    model.get_layer("weights").set_weights([weights[:, None]])
    for row, found in zip(ids, model.predict(ids, verbose=0)[:, 0], strict=True):
        known = [i for i in row if expected[i]]
        log_odds = 3 * sum(expected[i] * weights[i] for i in known) / np.sqrt(len(known))
        assert found == pytest.approx(1 / (1 + np.exp(-log_odds)), rel=1e-4)


# --- Scores ---
def test_the_scores_equal_those_from_states_of_prefixes(model):
    posts, changes = state_saliency(model, IDS), change_saliency(model, IDS, alone=0)
    probability = model.predict(IDS, verbose=0)[:, 0]
    for row, post, change, p in zip(IDS, posts, changes, probability, strict=True):
        closer, length, moved = 0, 0, 0
        for before, after, weights in states_by_prefix(model, row):
            final = after[0] if length else after[-1]  # Backward, the first word is the last.
            distance = [np.linalg.norm(final - h, axis=1) for h in (before, after)]
            closer, length = closer + distance[0] - distance[1], length + np.linalg.norm(final)
            moved = moved + (after - before) @ weights
        np.testing.assert_allclose(post, closer / length, atol=1e-5)
        np.testing.assert_allclose(change, np.sign(p - 0.5) * moved, atol=1e-5)


def test_invariants_of_the_scores(model):
    reader = build_reader(model)
    probability, closer, moved = reader.predict_on_batch(IDS)
    bias = model.get_layer("decision").get_weights()[1][0]
    log_odds = np.log(probability / (1 - probability))[:, 0]
    np.testing.assert_allclose(closer.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(moved.sum(1), log_odds - bias, atol=1e-4)
    np.testing.assert_allclose(probability, model.predict(IDS, verbose=0), atol=1e-6)
    for place, found in ((1, closer), (2, moved)):
        assert found.shape == IDS.shape
        assert (found[IDS == 0] == 0).all() and (found[IDS > 0] != 0).all()
        one_by_one = [ops.convert_to_numpy(reader(row[None])[place]) for row in IDS]
        np.testing.assert_allclose(found, np.concatenate(one_by_one), atol=1e-5)
        for before, after in ((0, 3), (2, 0)):  # Padding; unknown words before the review.
            pad = ((0, 0), (before, after))
            again = ops.convert_to_numpy(reader(np.pad(IDS, pad))[place])
            np.testing.assert_allclose(again, np.pad(found, pad), atol=1e-5)


def test_a_review_without_a_known_word_scores_0(model):
    for scores in (state_saliency, change_saliency):
        assert not scores(model, np.zeros((1, 4), "int32")).any()


def test_effects_of_single_words(model):
    effects = word_effects(model)
    alone = [
        sum((after @ weights)[0] for _, after, weights in states_by_prefix(model, [word]))
        for word in range(10)
    ]
    np.testing.assert_allclose(effects, alone, atol=1e-5)
    assert effects[0] == 0
    sign = np.sign(model.predict(IDS, verbose=0) - 0.5)
    added = change_saliency(model, IDS, 2) - change_saliency(model, IDS, 0)
    np.testing.assert_allclose(added, 2 * sign * effects[IDS], atol=1e-5)


# --- Methods ---
@pytest.fixture(scope="module")
def subject(model):
    return faithfulness.Explainer(model)


def test_gradients_equal_finite_differences(model, subject):
    vectors, known = subject.vectors[IDS].astype("float64"), IDS > 0
    gradient = gradient_function(model)
    log_odds, slope = gradient(vectors, known)
    probability = model.predict(IDS, verbose=0)[:, 0]
    np.testing.assert_allclose(1 / (1 + np.exp(-log_odds)), probability, atol=1e-6)
    step = 0.01
    for place in np.ndindex(IDS.shape[1], 6):
        moved = np.zeros_like(vectors)
        moved[:, place[0], place[1]] = step
        up, down = (gradient(vectors + x, known)[0] for x in (moved, -moved))
        expected = (up - down).astype("float64") / (2 * step)
        np.testing.assert_allclose(slope[:, place[0], place[1]], expected, atol=3e-4)


def test_methods_from_gradients(subject):
    known, vectors = IDS > 0, subject.vectors[IDS]
    log_odds, slope = subject.gradient(vectors, known)
    towards = np.sign(log_odds)[:, None] * known
    expected = towards * np.einsum("bwd,bwd->bw", slope, vectors)
    np.testing.assert_allclose(subject.scores("gradient-x-input", IDS), expected, atol=1e-5)
    integrated = subject.scores("integrated-gradients", IDS)
    slopes = [subject.gradient(vectors * (k + 0.5) / 32, known)[1] for k in range(32)]
    expected = towards * (np.mean(slopes, 0) * vectors).sum(-1)
    np.testing.assert_allclose(integrated, expected, atol=1e-5)
    assert subject.completeness_gap(IDS, integrated) < 0.01
    assert subject.completeness_gap(IDS, 2 * integrated) > 0.5
    smooth = subject.scores("smoothgrad", IDS)
    assert np.isfinite(smooth).all() and (smooth[~known] == 0).all()
    assert np.array_equal(smooth, subject.scores("smoothgrad", IDS))


def test_occlusion_is_the_review_without_the_word(model, subject):
    scores = subject.scores("occlusion", IDS)
    for row, found in zip(IDS, scores, strict=True):
        whole = model.predict(row[None], verbose=0)[0, 0]
        for place in range(len(row)):
            shorter = np.delete(row, place)[None]
            less = whole - model.predict_on_batch(shorter)[0, 0]
            expected = (less if whole >= 0.5 else -less) if row[place] else 0
            assert found[place] == pytest.approx(expected, abs=1e-5)


def test_one_path_for_the_studys_scores_and_the_copied_ones(model, subject):
    np.testing.assert_allclose(subject.scores("state", IDS), state_saliency(model, IDS), atol=1e-5)
    for method, alone in (("change", 0), ("change+alone", 1)):
        expected = change_saliency(model, IDS, alone)
        np.testing.assert_allclose(subject.scores(method, IDS), expected, atol=1e-5)


# --- Measures ---
class Linear:
    """Log-odds that are the sum of a number for each word: all can be done by hand."""

    worth = np.array([0, 2.0, -1.0, 0.5, 0.1, 1.0])

    def sign(self, ids):
        return np.sign(self.worth[ids].sum(1)).astype(int)

    def confidence(self, ids, sign):
        return 1 / (1 + np.exp(-sign * self.worth[ids].sum(1)))


def test_comprehensiveness_sufficiency_and_deletion_by_hand():
    ids, subject = np.array([[1, 2, 0, 3, 4, 5]]), Linear()
    scores = np.array([[3.0, -2.0, 99.0, 1.0, 0.5, 2.0]])  # What id 0 scores counts nothing.
    found = faithfulness.faithfulness(subject, ids, scores)
    best, worth = [1, 5, 3, 4, 2], subject.worth  # The words by score.

    def sure(words):
        return 1 / (1 + np.exp(-worth[words].sum()))

    whole, number = sure(best), [1, 1, 1, 1, 3]  # Of five words 1, 5, 10, 20 and 50%.
    expected = [whole - sure(best[k:]) for k in number]
    np.testing.assert_allclose(found["comprehensiveness"][0], expected)
    expected = [whole - sure(best[:k]) for k in number]
    np.testing.assert_allclose(found["sufficiency"][0], expected)
    curve = [sure(best[k:]) for k in (0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5)]
    assert found["deletion AUC"][0] == pytest.approx(np.trapezoid(curve, dx=0.1))


def test_better_orders_are_more_faithful():
    rng = np.random.default_rng(0)
    ids, subject = rng.integers(1, 6, (200, 12)), Linear()
    true = subject.sign(ids)[:, None] * subject.worth[ids]
    means = [
        {k: v.mean() for k, v in faithfulness.faithfulness(subject, ids, scores).items()}
        for scores in (true, rng.random(ids.shape), -true)
    ]
    for name, direction in (("comprehensiveness", 1), ("sufficiency", -1), ("deletion AUC", -1)):
        good, random, bad = (direction * mean[name] for mean in means)
        assert good > random > bad


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(3)
    ids = np.array([[1, 2, 3, 0, 4], [1, 1, 1, 1, 1], [2, 0, 0, 0, 0]])
    first, second = rng.normal(size=(2, 3, 5))
    found = faithfulness.rank_correlation(ids, first, second)
    known = [row > 0 for row in ids[:2]]
    expected = [spearmanr(a[k], b[k]).statistic for a, b, k in zip(first, second, known)]  # noqa: B905
    np.testing.assert_allclose(found, expected)


def test_precision_by_hand():
    ids = np.array([[1, 2, 3, 4], [5, 0, 6, 7], [1, 2, 3, 4]])
    scores = np.array([[0.1, 0.9, 0.5, 0.2], [0.3, 9.0, 0.1, 0.4], [1, 2, 3, 4]])
    found = faithfulness.precision(ids, scores, [(1, 3), (0, 1, 2), (8,)])
    # The second review's cause at place 1 is unknown; the third's lies behind the end.
    assert found["precision at 1"].tolist() == [1, 0]
    assert found["precision at k"].tolist() == [0.5, 0.5]


def test_bootstrap_is_as_wide_as_a_normal_interval():
    values = np.random.default_rng(4).normal(3, 2, 400)
    found = faithfulness.mean_over_reviews(values)
    assert found["value"] == pytest.approx(values.mean()) and found["n"] == 400
    half = 1.96 * values.std() / 20
    assert found["high"] - found["low"] == pytest.approx(2 * half, rel=0.15)


# --- A run ---
@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory):
    """One small training with its study, through the front door."""
    run_dir = tmp_path_factory.mktemp("smoke") / "run"
    return run_dir, train.main(["--smoke", "--seed", "3", "--run-dir", str(run_dir)])


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A .csv file of 300 written reviews."""
    path = tmp_path_factory.mktemp("table") / "reviews.csv"
    rows = [f"{r.label},{''.join(r.words)}" for r in reviews.load("valid", 300)]
    path.write_text("\n".join(["label,review", *rows]))
    return path


def test_record_of_a_run(smoke_run):
    run_dir, record = smoke_run
    assert record == json.loads((run_dir / "record.json").read_text())
    metrics = record["metrics"]
    for number in metrics.values():
        assert number["low"] <= number["value"] <= number["high"] and number["n"] > 0
    names = ["comprehensiveness", "sufficiency", "deletion AUC", "precision at 1"]
    names += ["rank correlation with occlusion", "precision at k"]
    for method in faithfulness.METHODS:
        assert all(f"{name}, {method}" in metrics for name in names)
    assert metrics["rank correlation with occlusion, occlusion"]["value"] == pytest.approx(1)
    best = max(record["history"], key=lambda entry: (entry["val_accuracy"], entry["epoch"]))
    assert f"epoch {best['epoch']} of 2" in record["selection"]
    model = keras.saving.load_model(run_dir / "model.keras", compile=False)
    words = json.loads((run_dir / "words.json").read_text())
    test = reviews.load("test", 60)
    ids = dataset.encode([r.words for r in test], words["vocabulary"], words["max_words"])
    right = (model.predict(ids, verbose=0)[:, 0] >= 0.5) == [r.label for r in test]
    assert metrics["accuracy"]["value"] == right.mean() and metrics["accuracy"]["n"] == 60


def test_a_killed_run_resumes_to_the_straight_one(
    tmp_path, kill_in_second_epoch, assert_same_state
):
    """kill -9 amid the second epoch, then --resume."""
    flags = ["--smoke", "--study", "0", "--seed", "5", "--run-dir"]
    straight = train.main([*flags, str(tmp_path / "straight")])
    kill_in_second_epoch("rnn_saliency", [*flags, str(tmp_path / "killed")])
    assert not (tmp_path / "killed" / "record.json").exists()
    resumed = train.main([*flags, str(tmp_path / "killed"), "--resume"])
    assert resumed["resumed"]
    for name in ("history", "metrics", "selection", "data"):
        assert resumed[name] == straight[name]
    assert_same_state(tmp_path / "straight" / "state.npz", tmp_path / "killed" / "state.npz")


def test_a_stopped_run_does_not_go_on_with_other_data(table, tmp_path, monkeypatch, error_of):
    def stop(*_, **__):
        raise KeyboardInterrupt

    own = tmp_path / "own.csv"
    own.write_text(table.read_text())
    flags = ["--smoke", "--model", "ours", "--data", str(own), "--columns", "review", "label"]
    flags += ["--run-dir", str(tmp_path / "run")]
    monkeypatch.setattr(keras.Model, "fit", stop)
    with pytest.raises(KeyboardInterrupt):
        train.main(flags)
    own.write_text("\n".join(table.read_text().split("\n")[:-2]))
    assert "data_sha256 was" in error_of(train.main, [*flags, "--resume"])


def test_ours_learns_and_explains(table, tmp_path, capsys, error_of):
    flags = ["--smoke", "--model", "ours", "--data", str(table), "--columns", "review", "label"]
    run_dir = tmp_path / "run"
    record = train.main([*flags, "--min-count", "2", "--run-dir", str(run_dir)])
    assert record["row"] == "smoke, n-grams, reviews.csv, deduplicated split"
    text = "房间很干净"
    [result] = predict.main(["--run-dir", str(run_dir), text])
    assert "".join(word["word"] for word in result["words"]) == text
    model = keras.saving.load_model(run_dir / "model.keras", compile=False)
    words = [word["word"] for word in result["words"]]
    for place in range(len(words)):
        ids = [ngram_ids(some) for some in (words, words[:place] + words[place + 1 :])]
        whole, less = (model.predict(np.array([row]), verbose=0)[0, 0] for row in ids)
        expected = (whole - less) * (1 if whole >= 0.5 else -1)
        assert result["words"][place]["score"] == pytest.approx(expected, abs=1e-4)
        assert result["label"] == ("positive" if whole >= 0.5 else "negative")
    asked = ["--run-dir", str(run_dir), "--method", "state", text]
    assert "knows occlusion only" in error_of(predict.main, asked)


def test_bad_flags_are_one_line(error_of, tmp_path):
    flags = ["--smoke", "--run-dir", str(tmp_path / "run")]
    assert "at least 1" in error_of(train.main, [*flags, "--epochs", "0"])
    assert "at least 1" in error_of(train.main, [*flags, "--max-words", "0"])
    assert "given with --data" in error_of(train.main, [*flags, "--columns", "a", "b"])
    assert "no states" in error_of(train.main, [*flags, "--model", "ours", "--cell", "gru"])
    assert "lower --min-count" in error_of(train.main, [*flags, "--min-count", "9999"])
    ids = {part: np.array([[1, 0], [0, 0]]) for part in ("valid", "test")}
    said = error_of(faithfulness.study, None, None, ids, {"valid": None, "test": None}, 5)
    assert "no valid review has two known words" in said
    assert not (tmp_path / "run").exists()


# --- predict.py ---
def test_nine_sentences_show_words_and_marks(smoke_run, capsys, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    results = predict.main(["--run-dir", str(smoke_run[0])])
    assert len(results) == 9
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "+++" in shown
    [repeated] = [r for r in results if r["text"].count("糟糕") == 3]
    scores = [word["score"] for word in repeated["words"] if word["word"] == "糟糕"]
    assert len(scores) == 3 and len(set(scores)) == 3
    total = sum(word["score"] for word in repeated["words"])
    assert total == pytest.approx(1, abs=1e-3)  # The post's score.


def test_colours_tell_sign_and_strength():
    words = [{"word": w, "score": s} for w, s in (("好", 0.6), ("差", -0.3), ("的", 0.01))]
    result = {"text": "好差的", "label": "positive", "probability": 0.9, "words": words}
    plain, coloured = (predict.in_terminal(result, in_colour) for in_colour in (False, True))
    assert "好+++ 差-- 的" in plain and "好 +0.600" in plain and "差 -0.300" in plain
    assert "\x1b[30;48;5;120m好" in coloured and "\x1b[30;48;5;217m差" in coloured
    assert coloured.count("\x1b[0m") == 2


def test_json_and_page_in_a_fresh_process(smoke_run, tmp_path):
    """Cut as in training; a line without a known word is an error, the others are explained."""
    file = tmp_path / "reviews.txt"
    file.write_text("房间很干净\n\n<b>房间</b>很脏\nx\u2028yz\n", encoding="utf-8")
    flags = ["--json", "--file", str(file), "--html", str(tmp_path / "page.html")]
    command = [sys.executable, "rnn_saliency/predict.py", "--run-dir", str(smoke_run[0]), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    [error] = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "yz': no known word, in 1 of 3 texts" in error
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == 2
    for result, text in zip(results, ("房间很干净", "<b>房间</b>很脏"), strict=True):
        assert result.keys() == {"text", "label", "probability", "words"}
        assert result["text"] == text and 0.5 <= result["probability"] <= 1
        assert "".join(word["word"] for word in result["words"]) == text
        assert all(word.keys() == {"word", "score"} for word in result["words"])
    assert [word["word"] for word in results[0]["words"]] == ["房间", "很", "干净"]
    page = (tmp_path / "page.html").read_text()
    tags, parser = [], HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)
    parser.feed(page)
    assert tags.count("p") == 3 and tags.count("h2") == 2 and "&lt;" in page
    assert "http" not in page and "<script" not in page


class TextsThatNoteReading(list):
    """A list that notes how many of its texts were read by slices."""

    num_read = 0

    def __getitem__(self, key):
        part = super().__getitem__(key)
        self.num_read += len(part)
        return part


def test_a_long_file_is_explained_a_few_reviews_at_a_time(smoke_run, tmp_path, capsys):
    file = tmp_path / "reviews.txt"
    file.write_text("\n".join(predict.SENTENCES), encoding="utf-8")
    assert predict.main(["--run-dir", str(smoke_run[0]), "--json", "--file", str(file)]) == []
    at_once = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [x["text"] for x in at_once] == predict.SENTENCES

    few = []
    num_read = []
    texts = TextsThatNoteReading(predict.SENTENCES)
    for result in evaluate.explain(smoke_run[0], texts, batch_size=4):
        few.append(result)
        num_read.append(texts.num_read)
    assert num_read == [4] * 4 + [8] * 4 + [9]
    for one, other in zip(at_once, few, strict=True):
        scores = [[word["score"] for word in x["words"]] for x in (one, other)]
        np.testing.assert_allclose(*scores, atol=2e-4)


def test_bad_texts_are_one_line(smoke_run, tmp_path, error_of, capsys):
    run_dir = ["--run-dir", str(smoke_run[0])]
    assert "the text is empty" in error_of(predict.main, [*run_dir, "  "])
    assert "not allowed with" in error_of(predict.main, [*run_dir, "好", "--file", "a.txt"])
    assert "no known word" in error_of(predict.main, [*run_dir, "hello"])
    for path in (tmp_path, tmp_path / "none" / "page.html"):
        said = error_of(predict.main, [*run_dir, "好", "--html", str(path)])
        assert "expected a file in a folder" in said
    (tmp_path / "empty.txt").write_text("\n")
    assert "is empty" in error_of(predict.main, [*run_dir, "--file", str(tmp_path / "empty.txt")])
    assert "none.txt" in error_of(predict.main, [*run_dir, "--file", str(tmp_path / "none.txt")])
    assert "no finished run" in error_of(predict.main, ["--run-dir", str(tmp_path), "好"])


def test_a_review_of_100000_characters_is_read_as_in_training(smoke_run, capsys):
    long = "房间很干净" * 20_000
    capsys.readouterr()
    [result] = predict.main(["--run-dir", str(smoke_run[0]), long])
    [note] = capsys.readouterr().err.splitlines()
    assert note.startswith("note: of 60,000 words the first 100 are read")
    assert len(result["words"]) == 100


def test_damaged_runs_are_one_line(smoke_run, tmp_path, error_of):
    (tmp_path / "record.json").write_text('{"experiment": "rnn_saliency"}')
    flags = ["--run-dir", str(tmp_path), "好"]
    assert "model.keras" in error_of(predict.main, flags)
    (tmp_path / "model.keras").write_bytes((smoke_run[0] / "model.keras").read_bytes())
    assert "words.json" in error_of(predict.main, flags)
    (tmp_path / "words.json").write_text("[]")
    assert "no vocabulary" in error_of(predict.main, flags)


def test_the_readme_shows_the_study():
    text = (ROOT / "rnn_saliency" / "README.md").read_text()
    block = text.partition("<!-- methods -->\n")[2].partition("\n<!-- /methods -->")[0]
    tables = "\n\n".join(map(faithfulness.methods_table, faithfulness.study_rows()))
    assert block == tables and tables, "run python -m rnn_saliency.faithfulness"
