"""cloze_ccl/predict.py: passages, official files, scores, mistakes."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from cloze_ccl import evaluate, predict, train
from cloze_ccl.questions import read_answers, write_answers
from data import stories
from data.stories import BLANK


def test_ten_questions_are_answered_without_arguments(tiny_run, capsys):
    results = predict.main(["--run-dir", str(tiny_run[0])])
    output = capsys.readouterr()
    assert len(results) == 10 and output.out.count("<qid_") == 10 and "accuracy" in output.err
    for result in results:
        assert len(result["best"]) == 5
        shown = [entry["probability"] for entry in result["best"]]
        assert shown == sorted(shown, reverse=True) and BLANK not in str(result["best"])
        assert sum(result["probabilities"]) == pytest.approx(1, abs=1e-3)
        for entry in result["best"]:
            assert {result["words"][place] for place in entry["places"]} == {entry["word"]}
            total = sum(result["probabilities"][place] for place in entry["places"])
            assert entry["probability"] == pytest.approx(total, abs=1e-4)


def test_text_options_and_json(tiny_run, capsys):
    flags = ["--run-dir", str(tiny_run[0]), "--json"]
    [cut] = predict.main([*flags, "--text", "小猫 有 一个 苹果 。 XXXXX 吃 了 苹果 。"])
    assert cut["words"] == "小猫 有 一个 苹果 。 XXXXX 吃 了 苹果 。".split()  # noqa: SIM905
    capsys.readouterr()
    text = "小猫有一个苹果。大白鹅没有。XXXXX吃了苹果。"
    [result] = predict.main([*flags, "--text", text, "--options", "大白鹅", "小猫", "飞船"])
    line = json.loads(capsys.readouterr().out)
    assert line.keys() == {"id", "answer", "best"} and line["best"] == result["best"]
    assert "大白鹅" in result["words"] and BLANK in result["words"]
    found = {entry["word"]: entry["probability"] for entry in result["best"]}
    assert set(found) == {"大白鹅", "小猫", "飞船"} and found["飞船"] == 0
    assert sum(found.values()) == pytest.approx(1, abs=1e-3)
    text = "小猫有苹果。果然,XXXXX很甜。"
    options = ["苹果", "果", "果", "小猫", "小狗", "小马", "小羊"]
    [result] = predict.main([*flags, "--text", text, "--options", *options])
    found = {entry["word"]: entry["places"] for entry in result["best"]}
    assert len(result["best"]) == 6 and set(found) == set(options)
    assert found["果"] == [] and found["苹果"] == [2]


def test_official_files_in_and_out(tiny_run, tmp_path, write_questions, capsys):
    asked = stories.load("valid", 5)
    asked[0] = asked[0]._replace(answer="火星")
    write_questions(tmp_path / "a.doc_query", asked)
    flags = ["--run-dir", str(tiny_run[0]), str(tmp_path / "a.doc_query")]
    out, page = tmp_path / "a.out", tmp_path / "page.html"
    results = predict.main([*flags, "--output", str(out), "--html", str(page)])
    assert out.read_text().splitlines() == [
        f"{q.id} ||| {r['best'][0]['word']}" for q, r in zip(asked, results, strict=True)
    ]
    answers = {q.id: q.answer for q in asked}
    right, total = evaluate.exact_match(read_answers(out), answers)
    said = capsys.readouterr().err
    assert f"{right} of {total}; cannot be right: 1 x answer not in the passage" in said
    words, strengths = [], []

    class Spans(HTMLParser):
        inside = False

        def handle_starttag(self, tag, attributes):
            self.inside = tag == "span"
            if self.inside:
                found = re.search(r"rgba\(.*,([\d.]+)\)", dict(attributes)["style"])
                strengths.append(float(found[1]) if found else None)

        def handle_data(self, data):
            if self.inside:
                words.append(data)
            self.inside = False

    Spans().feed(page.read_text())
    assert words == [word for result in results for word in result["words"]]
    probabilities = np.concatenate([result["probabilities"] for result in results])
    shaded = np.array([word != BLANK for word in words])
    expected = 0.85 * probabilities[shaded] ** 0.5
    assert [strength is not None for strength in strengths] == shaded.tolist()
    np.testing.assert_allclose([s for s in strengths if s is not None], expected, atol=6e-4)


def test_answers_of_any_system_are_scored(tmp_path, write_questions, error_of, capsys):
    asked = stories.load("valid", 2)[:4]
    write_questions(tmp_path / "a.doc_query", asked)
    out, flags = tmp_path / "a.out", [str(tmp_path / "a.doc_query"), "--score"]
    said = {q.id: q.answer for q in asked[:2]} | {asked[3].id: asked[3].answer + "们"}
    write_answers(out, said)  # The third question is left out.
    predict.main([*flags, str(out)])
    assert capsys.readouterr().out == "accuracy: 50.00%, 2 of 4\n"
    write_questions(tmp_path / "a.doc_query", [asked[0]._replace(answer="火星")])
    out.write_text(f"{asked[0].id} ||| 火星\n")
    predict.main([*flags, str(out)])
    assert capsys.readouterr().out.startswith("accuracy: 100.00%, 1 of 1; no reader that points")
    out.write_text("<qid_99> ||| 猫\n")
    assert "a.out: <qid_99> is answered, but not asked" in error_of(
        predict.main, [*flags, str(out)]
    )
    assert "no other flag" in error_of(predict.main, [*flags, str(out), "--json"])
    assert "no other flag" in error_of(predict.main, [*flags[1:], str(out)])
    (tmp_path / "a.answer").unlink()
    assert "no answers" in error_of(predict.main, [*flags, str(out)])


def test_several_runs_answer_with_their_mean(tiny_run, tiny_flags, tmp_path):
    train.main([*tiny_flags, "--model", "as-reader", "--seed", "4", "--run-dir", str(tmp_path)])
    runs = [str(tiny_run[0]), str(tmp_path)]
    flags = [["--run-dir", run] for run in runs]
    one, other, both = map(predict.main, (flags[0], flags[1], flags[0] + flags[1]))
    for results in zip(one, other, both, strict=True):
        first, second, mean = (np.array(result["probabilities"]) for result in results)
        np.testing.assert_allclose(mean, (first + second) / 2, rtol=1e-12)
        assert not np.allclose(first, second)


def test_empty_sides_and_long_passages_are_answered(tiny_run, capsys):
    flags = ["--run-dir", str(tiny_run[0]), "--text"]
    for text in ("XXXXX 有 苹果 。", "小猫 看见 XXXXX", f"XXXXX {'小猫 有 苹果 。 ' * 1250}"):
        [result] = predict.main([*flags, text])
        assert result["best"][0]["probability"] > 0
        assert sum(result["probabilities"]) == pytest.approx(1)
    notes = [line for line in capsys.readouterr().err.splitlines() if "note" in line]
    assert notes == ["note: text: of 5,001 words the 1,024 around the blank are read"]
    text = f"大象 走 了 。 {'小猫 有 苹果 。 ' * 1250} XXXXX 笑"
    [result] = predict.main([*flags, text, "--options", "大象", "小猫"])
    found = {entry["word"]: entry for entry in result["best"]}
    assert found["大象"]["probability"] == 0 and found["大象"]["places"] == [0]
    assert [text.split()[place] for place in found["小猫"]["places"]] == ["小猫"] * 1250
    assert "小猫   word 5, 9, 13, 17, 21, 25, 29, 33, 37 and 1241 more" in capsys.readouterr().out


def test_bad_passages_are_one_line(tiny_run, tmp_path, error_of):
    flags = ["--run-dir", str(tiny_run[0])]
    assert "0 blanks" in error_of(predict.main, [*flags, "--text", "小猫 有 苹果 。"])
    assert "2 blanks" in error_of(predict.main, [*flags, "--text", "XXXXX 有 XXXXX 。"])
    assert "nothing but" in error_of(predict.main, [*flags, "--text", "XXXXX"])
    assert "0 blanks" in error_of(predict.main, [*flags, "--text", ""])
    assert "is known" in error_of(predict.main, [*flags, "--text", "zq XXXXX qz zz"])
    options = ["--text", "小猫 有 XXXXX 。", "--options", "飞船", "火星"]
    assert "none of the options" in error_of(predict.main, [*flags, *options])
    options = ["--text", "小猫 有 XXXXX 。", "--options", "", "小猫"]
    assert "an option is empty" in error_of(predict.main, [*flags, *options])
    assert "is a folder" in error_of(predict.main, [*flags, "--output", str(tmp_path)])
    assert "is a folder" in error_of(predict.main, [*flags, "--html", "."])
    assert "of --text" in error_of(predict.main, [*flags, "--options", "猫"])
    missing = ["--text", "小猫 有 XXXXX 。", "--html", str(tmp_path / "missing" / "page.html")]
    assert "there is no folder" in error_of(predict.main, [*flags, *missing])
    both = [*flags, str(tmp_path / "a.doc_query"), "--text", "a XXXXX"]
    assert "not both" in error_of(predict.main, both)
    assert "no finished run" in error_of(predict.main, ["--run-dir", str(tmp_path)])


def test_a_file_with_a_passage_without_a_blank(tiny_run, tmp_path, capsys):
    lines = ["1 ||| 小猫 有 XXXXX 。", "<qid_0> ||| 小猫 有 XXXXX 。"]
    lines += ["1 ||| 小狗 有 苹果 。", "<qid_1> ||| 小狗 有 苹果 。"]
    (tmp_path / "a.doc_query").write_text("\n".join(lines))
    with pytest.raises(SystemExit) as stop:
        predict.main(["--run-dir", str(tiny_run[0]), str(tmp_path / "a.doc_query")])
    output = capsys.readouterr()
    assert stop.value.code == 2 and output.out.count("<qid_0>") == 1
    assert "<qid_1> (no blank)" in output.err and "1 of 2 passages" in output.err
    (tmp_path / "b.doc_query").write_text(
        f"1 ||| zq XXXXX qz\n<qid_0> ||| zq XXXXX qz\n{lines[0]}\n<qid_1> ||| {lines[0][6:]}"
    )
    flags = ["--run-dir", str(tiny_run[0]), str(tmp_path / "b.doc_query")]
    with pytest.raises(SystemExit):
        predict.main([*flags, "--output", str(tmp_path / "b.out")])
    assert "1 of 2 passages have no answer: <qid_0> (no word is known)" in capsys.readouterr().err
    assert (tmp_path / "b.out").read_text().startswith("<qid_1> ||| ")
