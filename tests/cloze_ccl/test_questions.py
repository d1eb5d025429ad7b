"""cloze_ccl/questions.py: the official formats, unusable questions, stories."""

import gzip
import re

import pytest
from conftest import ROOT

from cloze_ccl import dataset, questions
from data.stories import BLANK, Question

REAL = ROOT / "data" / "downloads"
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


# --- Formats ---
def test_the_official_format_is_read_as_it_is(write, write_questions, tmp_path):
    path = write("cloze.doc_query", CMRC)
    write("cloze.answer", ANSWERS)
    first, second = questions.read_questions(path)
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
    questions.write_answers(tmp_path / "again.out", {q.id: q.answer for q in (first, second)})
    assert (tmp_path / "again.out").read_text(encoding="utf-8") == ANSWERS
    assert [q.answer for q in questions.read_questions(write("b.txt", CMRC))] == ["", ""]


def test_the_three_fields_of_pd_and_cft(write):
    first, second = questions.read_questions(write("pd.txt", PD))
    assert first.sentences == (("小猫", "有", "苹果", "。"), (BLANK, "笑", "了", "。"))
    assert (first.answer, second.answer) == ("小猫", "小狗")
    # A query of its own is the passage's last sentence, or its blank would be nowhere.
    assert second.sentences[1] == ("谁", "有", "梨", "?", "是", BLANK, "。")


def test_a_blank_that_touches_a_word_is_a_blank(write):
    text = PD.replace("XXXXX 笑", "XXXXX笑").replace("是 XXXXX 。", "是XXXXX。")
    first, second = questions.read_questions(write("pd.txt", text))
    assert first.sentences[1] == (BLANK, "笑", "了", "。")
    assert second.sentences[1] == ("谁", "有", "梨", "?", "是", BLANK, "。")


def test_packed_files_and_byte_order_marks(write, tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(PD.encode()))
    plain = questions.read_questions(write("pd.txt", PD))
    assert questions.read_questions(tmp_path / "a.gz") == plain
    assert questions.read_questions(write("bom.txt", PD, "utf-8-sig")) == plain
    assert questions.read_questions(write("dos.txt", PD.replace("\n", "\r\n") + "\r\n")) == plain
    (tmp_path / "b.doc_query.gz").write_bytes(gzip.compress(CMRC.encode()))
    for name, packed in (("b.answer.gz", gzip.compress), ("b.answer", bytes)):
        (tmp_path / name).write_bytes(packed(ANSWERS.encode()))
        asked = questions.read_questions(tmp_path / "b.doc_query.gz")
        assert [q.answer for q in asked] == ["小猫", "貓"]
        (tmp_path / name).unlink()


def test_rare_separators_of_unicode_end_no_line(write):
    text = CMRC.replace("小猫", "小\u2028猫")
    assert questions.read_questions(write("a.txt", text))[0].sentences[0][:3] == ("小", "猫", "有")
    words, _ = dataset.read_vectors(write("v.txt", "2 1\n\x85a 1\n猫 2\n\n"))
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
    line = error_of(questions.read_questions, path)
    assert f"{path}" in line and expected in line


def test_ids_that_do_not_match_name_the_file(write, error_of):
    path = write("a.doc_query", CMRC)
    answers = write("a.answer", ANSWERS.replace("<qid_7>", "<qid_8>"))
    line = error_of(questions.read_questions, path)
    assert f"{path}, line 6: <qid_7> has no line in {answers}" in line
    write("a.answer", ANSWERS + "<qid_9> ||| 树\n")
    assert f"{answers}: <qid_9> is not a query of {path}" in error_of(
        questions.read_questions, path
    )


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
    line = error_of(questions.read_answers, path)
    assert str(path) in line and expected in line


def test_other_encodings_and_missing_files_are_one_line(write, tmp_path, error_of):
    path = write("gbk.txt", PD, "gb18030")
    assert f"{path}, line 1: not UTF-8" in error_of(questions.read_questions, path)
    missing = tmp_path / "none.txt"
    assert f"cannot read {missing}" in error_of(questions.read_questions, missing)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(PD.encode())[:40])
    assert "cannot read" in error_of(questions.read_questions, tmp_path / "cut.gz")


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
        question("猫", "猫 笑", "狗 " * questions.MAX_WORDS, "XXXXX 笑"),
    ]
    kept, left_out = questions.usable_only(some)
    assert kept == some[:1]
    reasons = ["answer not in the passage", "no blank", "two blanks", "no answer"]
    reasons.append("answer too far from the blank")
    assert left_out == dict.fromkeys(reasons, 1) | {"no answer": 2}


# --- Stories ---
RAW = "小猫有一个苹果。“给我吧!”小狗说。小猫笑了…\n\n从前有一棵树。\n树上没有苹果。\n"


def test_raw_and_segmented_stories(write):
    first, second = questions.read_stories(write("raw.txt", RAW))
    joined = ["".join(sentence) for sentence in first]
    assert joined == ["小猫有一个苹果。", "“给我吧!”", "小狗说。", "小猫笑了…"]
    assert ["".join(s) for s in second] == ["从前有一棵树。", "树上没有苹果。"]
    assert "苹果" in second[1] and "苹果" in first[0]
    cut = "小猫 有 苹果 。\n” 小狗 说 。\n\n从前 有 一 棵 树 。\n"
    one = [("小猫", "有", "苹果", "。"), ("”", "小狗", "说", "。")]
    assert questions.read_stories(write("cut.txt", cut)) == [
        one,
        [("从前", "有", "一", "棵", "树", "。")],
    ]
    lines = "小猫 有 苹果 。 小狗 笑 。\n从前 有 树 。\n"  # A story a line.
    assert [len(s) for s in questions.read_stories(write("lines.txt", lines))] == [2, 1]


def test_an_empty_text_is_one_line(write, error_of):
    assert "is empty" in error_of(questions.read_stories, write("a.txt", "\n\n"))


def test_cutting_keeps_the_blank_and_the_options_whole():
    assert questions.cut("我XXXXX苹果") == ["我", BLANK, "苹果"]
    assert "大苹果树" in questions.cut("我有大苹果树", ["大苹果树", "苹果"])
    assert questions.cut("小猫有苹果。果然", ["果", "小猫"]) == ["小猫", "有", "苹果", "。", "果然"]
    assert questions.cut("a  b XXXXX") == ["a", "b", BLANK]
    spaced = questions.cut("我住在New York,XXXXX很大,人也很多", ["New York"])
    assert spaced[:3] == ["我", "住", "在"] and spaced[3:6] == ["New York", ",", BLANK]
    assert questions.cut("小猫 有 苹果 。XXXXX 笑") == ["小猫", "有", "苹果", "。", BLANK, "笑"]
    assert questions.cut("小猫看见 XXXXX") == ["小猫", "看见", BLANK]


# --- Real data ---
@pytest.mark.skipif(not (REAL / "cmrc2017").is_dir(), reason="no official validation questions")
def test_the_official_questions(write_questions, tmp_path):
    path = REAL / "cmrc2017" / "cloze.valid.doc_query"
    asked = questions.read_questions(path)
    assert questions.usable_only(asked) == (asked, {})
    write_questions(tmp_path / "again.doc_query", asked)
    written, lines = (p.read_text().split("\n") for p in (tmp_path / "again.doc_query", path))
    for one, other in zip(written, lines, strict=True):
        # The query often lacks the mark that closes the quotation before it.
        bare = (re.sub(rf"[{questions.CLOSING_MARKS}\s]", "", line) for line in (one, other))
        same = one == " ".join(other.split())  # Blanks at ends of lines.
        assert same or (one.startswith("<qid_") and len(set(bare)) == 1)
    answers = {question.id: question.answer for question in asked}
    assert answers == questions.read_answers(path.with_suffix(".answer"))


@pytest.mark.skipif(not (REAL / "stories").is_dir(), reason="no children's stories")
def test_the_fairy_tale_questions():
    for name, share in (("auto", 0.74), ("human", 0.995)):
        asked = questions.read_questions(REAL / "stories" / f"cft.test.{name}")
        reasons = questions.usable_only(asked)[1]
        assert abs(1 - reasons["answer not in the passage"] / len(asked) - share) < 0.01
        assert reasons.get("no blank", 0) == (name == "human")  # One has no words at all.
