"""cloze_ccl/dataset.py: splits, word vectors, questions as numbers, batches."""

import gzip

import numpy as np
import pytest

from cloze_ccl import dataset, model
from cloze_ccl.questions import MAX_WORDS, why_unusable, words_to_read, write_answers
from data import stories
from data.stories import BLANK, Question


def question_of(text, answer):
    """A Question; the sentences of the text are separated by |."""
    return Question("<qid_0>", tuple(tuple(s.split()) for s in text.split("|")), answer)


# --- Splits ---
LONG = tuple("这是一个很长很长的句子它有二十个字的")


def test_copies_of_a_story_stay_on_one_side():
    other = tuple("另外一个很长很长的句子它也有二十个字")
    some = [[LONG, ("a",)], [("b",), LONG], [other, LONG], [other], [("a",)], [("b",)]]
    groups = dataset.group_stories(some)
    assert len(set(groups[:4])) == 1 and len(set(groups)) == 3
    many = {k: [LONG if k % 2 else (str(k),)] for k in range(400)}
    asked = [Question("", (), "", story) for story in many]
    parts = dataset.split_questions(many, asked)
    assert sum(map(len, parts.values())) == 400
    odd = [name for name, part in parts.items() for q in part if q.story % 2]
    assert len(set(odd)) == 1
    even = {name: sum(q.story % 2 == 0 for q in part) for name, part in parts.items()}
    assert even["train"] > 160 and min(even.values()) > 1
    assert dataset.split_questions(many, asked) == parts


def test_stories_of_a_test_set_are_not_trained_on(write):
    text = [[[w for w in s] for s in stories.draw_story(1, i).sentences] for i in range(60)]
    lines = "\n\n".join("\n".join(" ".join(s) for s in story) for story in text)
    path = write("stories.txt", lines)
    passage = [*("".join(s) for s in text[7])]
    long = max(range(len(passage)), key=lambda i: len(passage[i]))
    shared = {i for i, story in enumerate(text) if any("".join(s) == passage[long] for s in story)}
    query = "XXXXX 笑 了 。"
    test = write(
        "a.doc_query", f"1 ||| {' '.join(text[7][long])}\n2 ||| {query}\n<qid_0> ||| {query}\n"
    )
    write("a.answer", "<qid_0> ||| 树\n")
    data, notes = dataset.load_data(None, [path], [test])
    assert set(data) == {"train", "valid", "a"} and len(data["a"]) == 1
    used = {q.story for part in ("train", "valid") for q in data[part]}
    assert len(passage[long]) >= dataset.COPIED_LENGTH and 7 in shared
    assert used == set(range(60)) - shared
    assert notes["left_out"]["stories of a test set"] == len(shared)
    assert notes["left_out"]["stories under 95 words or without a noun twice"] == 0
    path.write_text(f"{lines}\n\n小猫 有 苹果 。", encoding="utf-8")
    assert next(iter(dataset.load_data(None, [path])[1]["left_out"].values())) == 1
    alone, _ = dataset.load_data(None, [path])
    sides = [{q.story for q in alone[part]} for part in ("train", "valid", "test")]
    assert all(sides) and not sides[0] & (sides[1] | sides[2]) and not sides[1] & sides[2]


def test_a_folder_with_the_official_files(write_questions, write, tmp_path, error_of):
    write_questions(tmp_path / "train.doc_query", stories.load("train", 30))
    assert set(dataset.load_data(str(tmp_path))[0]) == {"train", "valid", "test"}
    (tmp_path / "valid").mkdir()
    write_questions(tmp_path / "valid" / "cloze.valid.doc_query", stories.load("test", 2))
    data, notes = dataset.load_data(str(tmp_path))
    assert set(data) == {"train", "valid", "cloze.valid"} and notes["num_cloze.valid"] == 6
    (tmp_path / "valid" / "cloze.valid.answer").unlink()
    assert "cloze.valid.doc_query has no answers" in error_of(dataset.load_data, str(tmp_path))
    for name in ("train.doc_query", "train.answer"):
        (tmp_path / f"{name}.bak").write_text("")
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        (tmp_path / name).unlink()
    (tmp_path / "valid" / "cloze.valid.doc_query").unlink()
    assert set(dataset.load_data(str(tmp_path))[0]) == {"train", "valid", "test"}
    test = write("unknown.txt", "1 ||| 小猫 看见 XXXXX 。\n<qid_0> ||| 小猫 看见 XXXXX 。\n")
    assert f"{test} has no answers" in error_of(dataset.load_data, None, (), [test], 10)


def test_a_file_of_three_fields_can_be_trained_on(write):
    lines, asked = [], stories.load("train", 30)
    for q in asked:
        lines += [f"{i} ||| {' '.join(words)}" for i, words in enumerate(q.sentences, 1)]
        [query] = [words for words in q.sentences if BLANK in words]
        lines.append(f"{len(q.sentences) + 1} ||| {' '.join(query)} ||| {q.answer}")
    data, notes = dataset.load_data(str(write("pd.train", "\n".join(lines))))
    assert notes["name"] == "pd.train" and set(data) == {"train", "valid", "test"}
    found = {(q.sentences, q.answer) for part in data.values() for q in part}
    assert found == {(q.sentences, q.answer) for q in asked}


def test_too_few_stories_to_hold_some_out_are_one_line(write, error_of):
    some = [stories.draw_story(1, i).sentences for i in range(8)]
    path = write("few.txt", "\n\n".join("\n".join(map(" ".join, story)) for story in some))
    assert "no question left for" in error_of(dataset.load_data, None, [path])


def test_what_cannot_be_learnt_is_left_out_and_counted(tmp_path):
    """Defects of the post's script: an answer not in the passage, a passage without a blank."""
    asked = stories.load("train", 40)
    asked[0] = asked[0]._replace(answer="火星")
    asked[1] = asked[1]._replace(sentences=(("没有", "空格", asked[1].answer),))
    write_answers(tmp_path / "train.answer", {q.id: q.answer for q in asked})
    lines = []
    for q in asked:
        lines += [f"{i} ||| {' '.join(s)}" for i, s in enumerate(q.sentences, 1)]
        lines.append(f"{q.id} ||| {' '.join(q.sentences[0])}")
    (tmp_path / "train.doc_query").write_text("\n".join(lines))
    data, notes = dataset.load_data(str(tmp_path))
    counts = {}
    for reason, count in notes["left_out"].items():
        counts[reason.split(": ")[1]] = counts.get(reason.split(": ")[1], 0) + count
    tested = [why_unusable(q) for q in data["test"]]
    for reason in filter(None, tested):
        counts[reason] = counts.get(reason, 0) + 1
    assert counts == {"answer not in the passage": 1, "no blank": 1}


# --- Word vectors ---
def test_vectors_are_read(write):
    path = write("v.txt", "3 2\n猫 1 -2.5\n狗 3 4e-1\n猫 9 9\n")
    words, vectors = dataset.read_vectors(path)
    assert words == ["猫", "狗"] and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[1, -2.5], [3, 0.4]])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("猫 1 2\n", "line 1: expected the header"),
        ("0 2\n", "line 1: expected the header"),
        ("² 2\n", "line 1: expected the header"),
        ("2 2\n猫 1 2\n", "promises 2 words, 1 lines follow"),
        ("2 2\n猫 1 2\n狗 1\n", "line 3: expected a word and 2 finite numbers"),
        ("1 2\n 3 4\n", "line 2: expected a word and 2 finite numbers"),
        ("1 2\n猫 1 nan\n", "line 2: expected a word and 2 finite"),
        ("1 2\n猫 1 x\n", "line 2: "),
        ("", "line 1: expected the header"),
    ],
)
def test_bad_vectors_name_file_and_line(write, error_of, text, expected):
    path = write("v.txt", text)
    line = error_of(dataset.read_vectors, path)
    assert str(path) in line and expected in line


# --- Questions as numbers ---


QUESTIONS = [
    question_of("猫 有 鱼 。|XXXXX 吃 鱼 。|猫 笑 了 。", "猫"),
    question_of("XXXXX 有 鱼 。|狗 没有 。", "狗"),
    question_of("狗 跑 了 。|鸟 飞 到 XXXXX", "树"),
]


@pytest.fixture
def encoded():
    index = {}
    items = dataset.encode_all(QUESTIONS, index)
    vocabulary = dataset.choose_vocabulary("ours", items, index, 2)
    words = vocabulary.words
    assert words[0] == BLANK and vocabulary.num_trained == len(words)
    assert set(words) == {BLANK, "猫", "有", "鱼", "。", "狗", "了"}
    lookup = dataset.Lookup(index, words, sorted("猫有鱼狗"))
    return index, words, items, lookup


def test_items_say_where_the_blank_and_its_sentence_are(encoded):
    index, _, items, _ = encoded
    assert [(i.blank, i.start, i.end) for i in items] == [(4, 4, 8), (0, 0, 4), (7, 4, 8)]
    words = list(index)
    for item, q in zip(items, QUESTIONS, strict=True):
        assert [words[key] for key in item.keys] == [w for s in q.sentences for w in s]
    assert [i.answer for i in items] == [index["猫"], index["狗"], -1]
    none = [question_of("猫 有 鱼", "猫"), question_of("XXXXX 有 XXXXX", "有")]
    assert dataset.encode_all(none, {}) == [None, None]


@pytest.mark.parametrize("kind", model.BUILDERS)
def test_a_batch_equals_a_loop(encoded, kind):
    _, vocabulary, items, lookup = encoded
    shape = {"post": (7, 13), "as-reader": (5, 13), "ours": (13,)}[kind]
    batch = dataset.build_batch(kind, items, shape, lookup)
    inputs, targets, weights, places = dataset.fill_batch(batch, 4)
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
    found = dataset.build_batch("ours", items, (13,), lookup).inputs["features"]
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
    plan = dataset.plan_batches(sizes, 32, (1, 0), pool=10)
    assert sorted(i for chosen, _ in plan for i in chosen) == list(range(1000))
    assert sorted({len(chosen) for chosen, _ in plan}) == [1000 % 320 % 32, 32]
    for chosen, shape in plan:
        assert (sizes[chosen].max(0) <= shape).all() and not any(n % dataset.STEP for n in shape)
    again = dataset.plan_batches(sizes, 32, (1, 0), pool=10)
    assert all((a[0] == b[0]).all() for a, b in zip(plan, again, strict=True))
    other = dataset.plan_batches(sizes, 32, (1, 1), pool=10)
    assert any(
        (a[0] != b[0]).any() for a, b in zip(plan, other, strict=False) if len(a[0]) == len(b[0])
    )
    naive = sizes[: 32 * 31].reshape(31, 32, 2).max(1).sum()
    assert sum(sum(shape) for _, shape in plan) < 0.85 * naive
    assert dataset.plan_batches(np.zeros((0, 1), int), 8) == []
    assert dataset.plan_batches(dataset.lengths("post", []), 8) == []


@pytest.mark.parametrize(("columns", "most"), [(1, 16), (2, 136)])
def test_shapes_are_few_and_hardly_any_is_new_after_the_first_epoch(columns, most):
    sizes = np.sort(np.random.default_rng(0).integers(1, 500, (20_000, columns)), 1)
    first, second = (
        {shape for _, shape in dataset.plan_batches(sizes, 32, (1, epoch))} for epoch in (0, 1)
    )
    assert 1 < len(first) <= most and len(second - first) <= 0.1 * len(first)


def test_a_long_passage_is_read_around_its_blank():
    for place in (0, 2500, 4999):
        words = [f"w{i}" for i in range(5000)]
        words[place] = BLANK
        index = {}
        question = Question("q", (tuple(words),), f"w{place + (1, -1)[place > 9]}")
        item, (read, first) = dataset.encode(question, index), words_to_read(question)
        assert len(item.keys) == MAX_WORDS and list(index)[item.keys[item.blank]] == BLANK
        assert item.answer >= 0 and (item.start, item.end) == (0, MAX_WORDS)
        assert words[first : first + MAX_WORDS] == list(index) == read


@pytest.mark.parametrize("kind", ["post", "ours"])
def test_each_word_has_its_vector(encoded, kind, error_of):
    index, _, items, _ = encoded
    words, vectors = ["鱼", "飞船", "吃"], np.arange(1, 7, dtype="float32").reshape(3, 2)
    word_vectors = dataset.WordVectors(words, vectors)
    vocabulary = dataset.choose_vocabulary(kind, items, index, 2, word_vectors)
    assert vocabulary.vectors.shape == (len(vocabulary.words), 2)
    assert {*words, BLANK} <= set(vocabulary.words)
    assert ({"猫", "狗"} <= set(vocabulary.words)) == (kind == "ours")
    assert vocabulary.num_trained == (len(vocabulary.words) - 2 if kind == "ours" else 0)
    expected = {word: row.tolist() for word, row in zip(words, vectors, strict=True)}
    for word, row in zip(vocabulary.words, vocabulary.vectors, strict=True):
        assert row.tolist() == expected.get(word, [0, 0])
    foreign = dataset.WordVectors(["cat", "dog"], vectors[:2])
    said = error_of(dataset.choose_vocabulary, kind, items, index, 2, foreign)
    assert "no word of the questions has a word vector" in said


def test_the_sha256_of_vectors_is_that_of_the_words_in_the_questions(encoded):
    index, _, _, _ = encoded
    words, vectors = ["鱼", "飞船", "吃"], np.arange(1, 7, dtype="float32").reshape(3, 2)

    def noted(words, vectors):
        return dataset.vectors_sha256(dataset.WordVectors(words, vectors), index)

    assert noted(words, vectors).startswith("2 words")
    assert noted(words, vectors) == noted(words[::-1], vectors[::-1])
    assert noted(words, vectors) != noted(words, vectors + 1)
