"""cloze_ccl: questions as numbers, batches, features, baselines, the answer of a reader."""

import numpy as np
import pytest

from cloze_ccl import batches, reading
from data.stories import BLANK, Question


def question(text, answer, id="<qid_0>"):
    return Question(id, tuple(tuple(s.split()) for s in text.split("|")), answer)


QUESTIONS = [
    question("猫 有 鱼 。|XXXXX 吃 鱼 。|猫 笑 了 。", "猫"),
    question("XXXXX 有 鱼 。|狗 没有 。", "狗"),
    question("狗 跑 了 。|鸟 飞 到 XXXXX", "树"),
]


@pytest.fixture
def encoded():
    index = {}
    items = batches.encode_all(QUESTIONS, index)
    vocabulary, kept = batches.build_vocabulary(items, index, 2)
    assert vocabulary[0] == BLANK and kept == len(vocabulary)
    assert set(vocabulary) == {BLANK, "猫", "有", "鱼", "。", "狗", "了"}
    lookup = batches.Lookup(index, vocabulary, sorted("猫有鱼狗"))
    return index, vocabulary, items, lookup


def test_items_say_where_the_blank_and_its_sentence_are(encoded):
    index, _, items, _ = encoded
    assert [(i.blank, i.start, i.end) for i in items] == [(4, 4, 8), (0, 0, 4), (7, 4, 8)]
    words = list(index)
    for item, q in zip(items, QUESTIONS, strict=True):
        assert [words[key] for key in item.keys] == [w for s in q.sentences for w in s]
    assert [i.answer for i in items] == [index["猫"], index["狗"], -1]
    none = [question("猫 有 鱼", "猫"), question("XXXXX 有 XXXXX", "有")]
    assert batches.encode_all(none, {}) == [None, None]


@pytest.mark.parametrize("kind", batches.KINDS)
def test_a_batch_equals_a_loop(encoded, kind):
    _, vocabulary, items, lookup = encoded
    shape = {"post": (7, 13), "as-reader": (5, 13), "ours": (13,)}[kind]
    inputs, targets, weights, places = batches.build_batch(kind, items, shape, lookup, 4)
    assert weights.tolist() == pytest.approx([4 / 3] * 3 + [0])
    ids = {word: i for i, word in enumerate(vocabulary, 1)}
    for row, q in enumerate(QUESTIONS):
        words = [w for s in q.sentences for w in s]
        blank = words.index(BLANK)
        if kind == "post":
            sides = sorted([words[:blank], words[blank + 1 :]], key=len)
            for name, side, width in zip(("left", "right"), sides, shape, strict=True):
                expected = [ids.get(w, 0) for w in side] or [0]
                assert inputs[name][row].tolist() == expected + [-1] * (width - len(expected))
        else:
            expected = [ids.get(word, 0) for word in words]
            assert inputs["document"][row].tolist() == expected + [-1] * (13 - len(words))
        if kind == "as-reader":
            [sentence] = [s for s in q.sentences if BLANK in s]
            expected = [ids.get(word, 0) for word in sentence]
            assert inputs["query"][row].tolist() == expected + [-1] * (5 - len(sentence))
        for column, place in enumerate(places[row]):
            hit = place >= 0 and words[place] == q.answer
            assert targets[row, column] == hit
        seen = sorted(place for place in places[row] if place >= 0)
        assert seen == [p for p in range(len(words)) if kind != "post" or p != blank]
    assert all(len(array) == 4 for array in inputs.values())


def test_features_equal_a_loop(encoded):
    _, _, items, lookup = encoded
    found = batches.build_batch("ours", items, (13,), lookup)[0]["features"]
    for row, q in zip(found, QUESTIONS, strict=True):
        words = [w for s in q.sentences for w in s]
        n, blank = len(words), words.index(BLANK)
        start = sum(len(s) for s in q.sentences[: [BLANK in s for s in q.sentences].index(True)])
        [sentence] = [s for s in q.sentences if BLANK in s]
        end = start + len(sentence)

        def word(place, words=words):
            return words[place] if 0 <= place < len(words) else None

        for t in range(n):
            elsewhere = [words[u] for u in range(start, end) if u != blank]
            expected = [np.log(words.count(words[t])), np.log1p(abs(t - blank)) / 3, t < blank]
            expected += [start <= t < end, words[t] in elsewhere]
            for steps in ((-1,), (1,), (-1, -2), (1, 2)):
                alike = all(word(t + k) == word(blank + k) for k in steps)
                expected.append(alike and t != blank)
            np.testing.assert_allclose(row[t], expected, atol=1e-6)
        assert not row[n:].any()


def test_batches_hold_each_question_once_and_few_shapes():
    rng = np.random.default_rng(0)
    sizes = np.sort(rng.integers(1, 500, (1000, 2)), 1)
    plan = batches.plan(sizes, 32, (1, 0), pool=10)
    assert sorted(i for chosen, _ in plan for i in chosen) == list(range(1000))
    assert sorted({len(chosen) for chosen, _ in plan}) == [1000 % 320 % 32, 32]
    for chosen, shape in plan:
        assert (sizes[chosen].max(0) <= shape).all() and not any(n % batches.STEPS for n in shape)
    again = batches.plan(sizes, 32, (1, 0), pool=10)
    assert all((a[0] == b[0]).all() for a, b in zip(plan, again, strict=True))
    other = batches.plan(sizes, 32, (1, 1), pool=10)
    assert any(
        (a[0] != b[0]).any() for a, b in zip(plan, other, strict=False) if len(a[0]) == len(b[0])
    )
    naive = sizes[: 32 * 31].reshape(31, 32, 2).max(1).sum()
    assert sum(sum(shape) for _, shape in plan) < 0.85 * naive
    assert batches.plan(np.zeros((0, 1), int), 8) == []
    assert batches.plan(batches.sizes("post", []), 8) == []


@pytest.mark.parametrize(("columns", "most"), [(1, 16), (2, 136)])
def test_shapes_are_few_and_hardly_any_is_new_after_the_first_epoch(columns, most):
    sizes = np.sort(np.random.default_rng(0).integers(1, 500, (20_000, columns)), 1)
    first, second = (
        {shape for _, shape in batches.plan(sizes, 32, (1, epoch))} for epoch in (0, 1)
    )
    assert 1 < len(first) <= most and len(second - first) <= 0.1 * len(first)


def test_a_long_passage_is_read_around_its_blank():
    for place in (0, 2500, 4999):
        words = [f"w{i}" for i in range(5000)]
        words[place] = BLANK
        index = {}
        question = Question("q", (tuple(words),), f"w{place + (1, -1)[place > 9]}")
        item, (read, first) = batches.encode(question, index), batches.words_read(question)
        assert len(item.keys) == batches.MAX_WORDS and list(index)[item.keys[item.blank]] == BLANK
        assert item.answer >= 0 and (item.start, item.end) == (0, batches.MAX_WORDS)
        assert words[first : first + batches.MAX_WORDS] == list(index) == read


def test_baselines_by_hand():
    text = "妈妈 说 , 苹果 很 甜 。|苹果 树 下 , XXXXX 在 找 妈妈 的 帽子 和 苹果"
    [item] = batches.encode_all([question(text, "妈妈")], index := {})
    words = list(index)
    found = {name: words[keys[0]] for name, keys in reading.baselines([item], words).items()}
    assert found["most frequent noun"] == "苹果" and found["nearest noun"] == "妈妈"
    drawn = {
        words[reading.baselines([item], words, s)["random content word"][0]] for s in range(50)
    }
    assert drawn == {"妈妈", "苹果", "帽子"}


def test_the_best_key_has_the_largest_sum_over_its_places():
    keys = [np.array(keys, "int32") for keys in ([5, 7, 5, 9], [9, 5], [3])]
    items = [batches.Item(k, 0, 0, len(k), -1) for k in keys]
    rows = [np.array(row) for row in ([0.3, 0.4, 0.2, 0.1], [0.4, 0.6], [1.0])]
    assert reading.best_keys(items, rows) == [5, 5, 3]


@pytest.mark.parametrize("kind", ["post", "ours"])
def test_each_word_has_its_vector(encoded, kind, error_of):
    index, _, items, _ = encoded
    words, vectors = ["鱼", "飞船", "吃"], np.arange(1, 7, dtype="float32").reshape(3, 2)
    vocabulary, _, sizes = batches.choose_words(kind, items, index, 2, 128, words, vectors)
    assert sizes["embedding_dim"] == 2 and {*words, BLANK} <= set(vocabulary)
    assert ({"猫", "狗"} <= set(vocabulary)) == (kind == "ours")
    assert sizes.get("num_trained", 0) == (len(vocabulary) - 2 if kind == "ours" else 0)
    expected = {word: row.tolist() for word, row in zip(words, vectors, strict=True)}
    assert len(sizes["vectors"]) == sizes["vocabulary_size"] == len(vocabulary)
    for word, row in zip(vocabulary, sizes["vectors"], strict=True):
        assert row.tolist() == expected.get(word, [0, 0])
    said = error_of(batches.choose_words, kind, items, index, 2, 128, ["cat", "dog"], vectors[:2])
    assert "no word of the questions has a word vector" in said
    noted = batches.fingerprint(index, words, vectors)
    assert noted.startswith("2 words") and noted == batches.fingerprint(
        index, words[::-1], vectors[::-1]
    )
    assert noted != batches.fingerprint(index, words, vectors + 1)
