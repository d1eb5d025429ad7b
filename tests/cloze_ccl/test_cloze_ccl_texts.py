"""cloze_ccl/texts.py: the official formats and metric, stories, splits, word vectors."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from cloze_ccl import batches, texts, train
from data import stories
from data.stories import BLANK, Question

REAL = Path(__file__).resolve().parents[2] / "data" / "downloads"
CMRC = """1 ||| 小猫 有 苹果 。
2 ||| XXXXX 把 苹果 吃 了 。
<qid_0> ||| XXXXX 把 苹果 吃 了 。
1 ||| 小狗 看見 XXXXX 。
2 ||| 貓 和 猫 笑 了 。
<qid_7> ||| 小狗 看見 XXXXX 。
"""
ANSWERS = "<qid_0> ||| 小猫\n<qid_7> ||| 貓\n"
PD = """1 ||| 小猫 有 苹果 。
2 ||| XXXXX 笑 了 。
3 ||| XXXXX 笑 了 。 ||| 小猫
1 ||| 小狗 有 梨 。
2 ||| 谁 有 梨 ? 是 XXXXX 。 ||| 小狗
"""


@pytest.fixture
def write(tmp_path):
    def call(name, text, encoding="utf-8"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        return tmp_path / name

    return call


# --- Formats ---
def test_the_official_format_is_read_as_it_is(write, write_questions, tmp_path):
    path = write("cloze.doc_query", CMRC)
    write("cloze.answer", ANSWERS)
    first, second = texts.read_questions(path)
    assert first.sentences == (
        ("小猫", "有", "苹果", "。"),
        (BLANK, "把", "苹果", "吃", "了", "。"),
    )
    assert (first.id, first.answer, second.id, second.answer) == (
        "<qid_0>",
        "小猫",
        "<qid_7>",
        "貓",
    )
    write_questions(tmp_path / "again.doc_query", [first, second])
    assert (tmp_path / "again.doc_query").read_text(encoding="utf-8") == CMRC
    texts.write_answers(tmp_path / "again.out", {q.id: q.answer for q in (first, second)})
    assert (tmp_path / "again.out").read_text(encoding="utf-8") == ANSWERS
    assert [q.answer for q in texts.read_questions(write("b.txt", CMRC))] == ["", ""]


def test_the_three_fields_of_pd_and_cft(write):
    first, second = texts.read_questions(write("pd.txt", PD))
    assert first.sentences == (("小猫", "有", "苹果", "。"), (BLANK, "笑", "了", "。"))
    assert (first.answer, second.answer) == ("小猫", "小狗")
    # A query of its own is the passage's last sentence, or its blank would be nowhere.
    assert second.sentences[1] == ("谁", "有", "梨", "?", "是", BLANK, "。")


def test_a_blank_that_touches_a_word_is_a_blank(write):
    text = PD.replace("XXXXX 笑", "XXXXX笑").replace("是 XXXXX 。", "是XXXXX。")
    first, second = texts.read_questions(write("pd.txt", text))
    assert first.sentences[1] == (BLANK, "笑", "了", "。")
    assert second.sentences[1] == ("谁", "有", "梨", "?", "是", BLANK, "。")


def test_packed_files_and_byte_order_marks(write, tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(PD.encode()))
    plain = texts.read_questions(write("pd.txt", PD))
    assert texts.read_questions(tmp_path / "a.gz") == plain
    assert texts.read_questions(write("bom.txt", PD, "utf-8-sig")) == plain
    assert texts.read_questions(write("dos.txt", PD.replace("\n", "\r\n") + "\r\n")) == plain
    (tmp_path / "b.doc_query.gz").write_bytes(gzip.compress(CMRC.encode()))
    for name, packed in (("b.answer.gz", gzip.compress), ("b.answer", bytes)):
        (tmp_path / name).write_bytes(packed(ANSWERS.encode()))
        asked = texts.read_questions(tmp_path / "b.doc_query.gz")
        assert [q.answer for q in asked] == ["小猫", "貓"]
        (tmp_path / name).unlink()


def test_rare_separators_of_unicode_end_no_line(write):
    text = CMRC.replace("小猫", "小\u2028猫")
    assert texts.read_questions(write("a.txt", text))[0].sentences[0][:3] == ("小", "猫", "有")
    words, _ = texts.read_vectors(write("v.txt", "2 1\n\x85a 1\n猫 2\n\n"))
    assert words == ["\x85a", "猫"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 ||| 小猫 笑 了 。\n2|||XXXXX 笑\n", "line 2: expected"),
        ("1 ||| 小猫 笑 了 。\n2\tXXXXX 笑\n", "line 2: expected"),
        ("1 ||| 小猫 笑 了 。\n2 ||| XXXXX 笑 |||小猫\n", "line 2: expected"),
        (PD.replace("3 |||", "<qid_3> |||"), "line 3: expected"),
        (PD.replace("||| 小狗\n", "||| 小狗 ||| 梨\n"), "line 5: expected"),
        (PD.replace("||| 小狗\n", "||| 小狗 梨\n"), "line 5: expected"),
        ("1 ||| 小猫 笑 了 。\nqid_0 ||| XXXXX 笑\n", 'line 2: expected a number or "<qid_N>"'),
        ("1 ||| 小猫 笑 了 。\n1 ||| XXXXX 笑\n", "line 2: a new passage begins"),
        ("<qid_0> ||| XXXXX 笑\n", "line 1: a query, but no passage"),
        ("1 ||| 小猫 XXXXX 了 。\n", "line 1: the file ends within a passage"),
        (CMRC.replace("<qid_7>", "<qid_0>"), "line 6: <qid_0> is already the query of line 3"),
        ("\n\n", "is empty"),
    ],
)
def test_bad_questions_name_file_and_line(write, error_of, text, expected):
    path = write("bad.txt", text)
    line = error_of(texts.read_questions, path)
    assert f"{path}" in line and expected in line


def test_ids_that_do_not_match_name_the_file(write, error_of):
    path = write("a.doc_query", CMRC)
    answers = write("a.answer", ANSWERS.replace("<qid_7>", "<qid_8>"))
    line = error_of(texts.read_questions, path)
    assert f"{path}, line 6: <qid_7> has no line in {answers}" in line
    write("a.answer", ANSWERS + "<qid_9> ||| 树\n")
    assert f"{answers}: <qid_9> is not a query of {path}" in error_of(texts.read_questions, path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<qid_0> ||| 小猫\n<qid_1>|||小狗\n", "line 2: expected"),
        ("<qid_0> ||| 小猫\n<qid_1> ||| 小狗 ||| 小鸟\n", "line 2: expected"),
        ("0 ||| 小猫\n", "line 1: expected"),
        ("<qid_0> ||| 小猫\n<qid_0> ||| 小狗\n", "line 2: <qid_0> has an answer above"),
        ("", "is empty"),
    ],
)
def test_bad_answers_name_file_and_line(write, error_of, text, expected):
    path = write("bad.answer", text)
    line = error_of(texts.read_answers, path)
    assert str(path) in line and expected in line


def test_other_encodings_and_missing_files_are_one_line(write, tmp_path, error_of):
    path = write("gbk.txt", PD, "gb18030")
    assert f"{path}, line 1: not UTF-8" in error_of(texts.read_questions, path)
    missing = tmp_path / "none.txt"
    assert f"cannot read {missing}" in error_of(texts.read_questions, missing)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(PD.encode())[:40])
    assert "cannot read" in error_of(texts.read_questions, tmp_path / "cut.gz")


def test_what_is_unusable_is_counted():
    def question(answer, *sentences):
        return Question("", tuple(tuple(s.split()) for s in sentences), answer)

    some = [
        question("猫", "XXXXX 笑", "猫 笑"),
        question("狗", "XXXXX 笑", "猫 笑"),
        question("猫", "狗 笑", "猫 笑"),
        question("猫", "XXXXX 笑", "猫 XXXXX"),
        question("", "XXXXX 笑", "猫 笑"),
        question(BLANK, "XXXXX 笑", "猫 笑"),
        question("猫", "猫 笑", "狗 " * batches.MAX_WORDS, "XXXXX 笑"),
    ]
    kept, left_out = texts.usable_only(some)
    assert kept == some[:1]
    reasons = ["answer not in the passage", "no blank", "two blanks", "no answer"]
    reasons.append("answer too far from the blank")
    assert left_out == dict.fromkeys(reasons, 1) | {"no answer": 2}


# --- The metric ---
def test_the_metric_by_hand(write):
    answers = {"<qid_0>": "小猫", "<qid_1>": "小狗", "<qid_2>": "鸟", "<qid_3>": "树"}
    system = "<qid_2> ||| 鸟\n<qid_0> ||| 小猫咪\n<qid_1> |||\n"
    said = texts.read_answers(write("said.out", system))
    assert said == {"<qid_2>": "鸟", "<qid_0>": "小猫咪", "<qid_1>": ""}
    assert texts.exact_match(said, answers) == (1, 4)  # A part of a word is wrong, so is no answer.
    assert texts.exact_match(answers, answers) == (4, 4)
    assert texts.exact_match({}, answers) == (0, 4)
    assert texts.exact_match({"<qid_0>": ""}, {"<qid_0>": "", "<qid_1>": "a"}) == (0, 2)
    with pytest.raises(ValueError, match="<qid_9> is answered, but not asked"):
        texts.exact_match({"<qid_9>": "鸟"}, answers)


# --- Stories ---
RAW = "小猫有一个苹果。“给我吧!”小狗说。小猫笑了…\n\n从前有一棵树。\n树上没有苹果。\n"


def test_raw_and_segmented_stories(write):
    first, second = texts.read_stories(write("raw.txt", RAW))
    joined = ["".join(sentence) for sentence in first]
    assert joined == ["小猫有一个苹果。", "“给我吧!”", "小狗说。", "小猫笑了…"]
    assert ["".join(s) for s in second] == ["从前有一棵树。", "树上没有苹果。"]
    assert "苹果" in second[1] and "苹果" in first[0]
    cut = "小猫 有 苹果 。\n” 小狗 说 。\n\n从前 有 一 棵 树 。\n"
    one = [("小猫", "有", "苹果", "。"), ("”", "小狗", "说", "。")]
    assert texts.read_stories(write("cut.txt", cut)) == [
        one,
        [("从前", "有", "一", "棵", "树", "。")],
    ]
    lines = "小猫 有 苹果 。 小狗 笑 。\n从前 有 树 。\n"  # A story a line.
    assert [len(s) for s in texts.read_stories(write("lines.txt", lines))] == [2, 1]


def test_an_empty_text_is_one_line(write, error_of):
    assert "is empty" in error_of(texts.read_stories, write("a.txt", "\n\n"))


def test_cutting_keeps_the_blank_and_the_options_whole():
    assert texts.cut("我XXXXX苹果") == ["我", BLANK, "苹果"]
    assert "大苹果树" in texts.cut("我有大苹果树", ["大苹果树", "苹果"])
    assert texts.cut("小猫有苹果。果然", ["果", "小猫"]) == ["小猫", "有", "苹果", "。", "果然"]
    assert texts.cut("a  b XXXXX") == ["a", "b", BLANK]
    spaced = texts.cut("我住在New York,XXXXX很大,人也很多", ["New York"])
    assert spaced[:3] == ["我", "住", "在"] and spaced[3:6] == ["New York", ",", BLANK]
    assert texts.cut("小猫 有 苹果 。XXXXX 笑") == ["小猫", "有", "苹果", "。", BLANK, "笑"]
    assert texts.cut("小猫看见 XXXXX") == ["小猫", "看见", BLANK]


LONG = tuple("这是一个很长很长的句子它有二十个字的")


def test_copies_of_a_story_stay_on_one_side():
    other = tuple("另外一个很长很长的句子它也有二十个字")
    some = [[LONG, ("a",)], [("b",), LONG], [other, LONG], [other], [("a",)], [("b",)]]
    groups = texts.group_stories(some)
    assert len(set(groups[:4])) == 1 and len(set(groups)) == 3
    many = {k: [LONG if k % 2 else (str(k),)] for k in range(400)}
    asked = [Question("", (), "", story) for story in many]
    parts = texts.split_questions(many, asked)
    assert sum(map(len, parts.values())) == 400
    odd = [name for name, part in parts.items() for q in part if q.story % 2]
    assert len(set(odd)) == 1
    even = {name: sum(q.story % 2 == 0 for q in part) for name, part in parts.items()}
    assert even["train"] > 160 and min(even.values()) > 1
    assert texts.split_questions(many, asked) == parts


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
    data, notes = train.load_data(None, [path], [test])
    assert set(data) == {"train", "valid", "a"} and len(data["a"]) == 1
    used = {q.story for part in ("train", "valid") for q in data[part]}
    assert len(passage[long]) >= texts.LONG and 7 in shared
    assert used == set(range(60)) - shared
    assert notes["left_out"]["stories of a test set"] == len(shared)
    assert notes["left_out"]["stories under 95 words or without a noun twice"] == 0
    path.write_text(f"{lines}\n\n小猫 有 苹果 。", encoding="utf-8")
    assert next(iter(train.load_data(None, [path])[1]["left_out"].values())) == 1
    alone, _ = train.load_data(None, [path])
    sides = [{q.story for q in alone[part]} for part in ("train", "valid", "test")]
    assert all(sides) and not sides[0] & (sides[1] | sides[2]) and not sides[1] & sides[2]


def test_a_folder_with_the_official_files(write_questions, write, tmp_path, error_of):
    write_questions(tmp_path / "train.doc_query", stories.load("train", 30))
    assert set(train.load_data(str(tmp_path))[0]) == {"train", "valid", "test"}
    (tmp_path / "valid").mkdir()
    write_questions(tmp_path / "valid" / "cloze.valid.doc_query", stories.load("test", 2))
    data, notes = train.load_data(str(tmp_path))
    assert set(data) == {"train", "valid", "cloze.valid"} and notes["num_cloze.valid"] == 6
    (tmp_path / "valid" / "cloze.valid.answer").unlink()
    assert "cloze.valid.doc_query has no answers" in error_of(train.load_data, str(tmp_path))
    for name in ("train.doc_query", "train.answer"):
        (tmp_path / f"{name}.bak").write_text("")
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        (tmp_path / name).unlink()
    (tmp_path / "valid" / "cloze.valid.doc_query").unlink()
    assert set(train.load_data(str(tmp_path))[0]) == {"train", "valid", "test"}
    test = write("unknown.txt", CMRC)
    assert f"{test} has no answers" in error_of(train.load_data, None, (), [test], 10)


def test_a_file_of_three_fields_can_be_trained_on(write):
    lines, asked = [], stories.load("train", 30)
    for q in asked:
        lines += [f"{i} ||| {' '.join(words)}" for i, words in enumerate(q.sentences, 1)]
        [query] = [words for words in q.sentences if BLANK in words]
        lines.append(f"{len(q.sentences) + 1} ||| {' '.join(query)} ||| {q.answer}")
    data, notes = train.load_data(str(write("pd.train", "\n".join(lines))))
    assert notes["name"] == "pd.train" and set(data) == {"train", "valid", "test"}
    found = {(q.sentences, q.answer) for part in data.values() for q in part}
    assert found == {(q.sentences, q.answer) for q in asked}


def test_too_few_stories_to_hold_some_out_are_one_line(write, error_of):
    some = [stories.draw_story(1, i).sentences for i in range(8)]
    path = write("few.txt", "\n\n".join("\n".join(map(" ".join, story)) for story in some))
    assert "no question left for" in error_of(train.load_data, None, [path])


# --- Word vectors ---
def test_vectors_are_read(write):
    path = write("v.txt", "3 2\n猫 1 -2.5\n狗 3 4e-1\n猫 9 9\n")
    words, vectors = texts.read_vectors(path)
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
    line = error_of(texts.read_vectors, path)
    assert str(path) in line and expected in line


# --- Real data ---
@pytest.mark.skipif(not (REAL / "cmrc2017").is_dir(), reason="no official validation questions")
def test_the_official_questions(write_questions, tmp_path):
    path = REAL / "cmrc2017" / "cloze.valid.doc_query"
    asked = texts.read_questions(path)
    assert texts.usable_only(asked) == (asked, {})
    write_questions(tmp_path / "again.doc_query", asked)
    written, lines = (p.read_text().split("\n") for p in (tmp_path / "again.doc_query", path))
    for one, other in zip(written, lines, strict=True):
        # The query often lacks the mark that closes the quotation before it.
        bare = (re.sub(rf"[{texts.CLOSING}\s]", "", line) for line in (one, other))
        same = one == " ".join(other.split())  # Blanks at ends of lines.
        assert same or (one.startswith("<qid_") and len(set(bare)) == 1)
    answers = {question.id: question.answer for question in asked}
    assert answers == texts.read_answers(path.with_suffix(".answer"))


@pytest.mark.skipif(not (REAL / "stories").is_dir(), reason="no children's stories")
def test_the_fairy_tale_questions():
    for name, share in (("auto", 0.74), ("human", 0.995)):
        asked = texts.read_questions(REAL / "stories" / f"cft.test.{name}")
        reasons = texts.usable_only(asked)[1]
        assert abs(1 - reasons["answer not in the passage"] / len(asked) - share) < 0.01
        assert reasons.get("no blank", 0) == (name == "human")  # One has no words at all.
