"""cloze_ccl/evaluate.py: the official metric, baselines, the answer of a reader."""

import numpy as np
import pytest

from cloze_ccl import dataset, evaluate
from cloze_ccl.model import build_reader
from cloze_ccl.questions import read_answers
from data.stories import BLANK, Question


# --- The metric ---
def test_the_metric_by_hand(write):
    answers = {"<qid_0>": "小猫", "<qid_1>": "小狗", "<qid_2>": "鸟", "<qid_3>": "树"}
    system = "<qid_2> ||| 鸟\n<qid_0> ||| 小猫咪\n<qid_1> |||\n"
    said = read_answers(write("said.out", system))
    assert said == {"<qid_2>": "鸟", "<qid_0>": "小猫咪", "<qid_1>": ""}
    assert evaluate.exact_match(said, answers) == (
        1,
        4,
    )  # A part of a word is wrong, so is no answer.
    assert evaluate.exact_match(answers, answers) == (4, 4)
    assert evaluate.exact_match({}, answers) == (0, 4)
    assert evaluate.exact_match({"<qid_0>": ""}, {"<qid_0>": "", "<qid_1>": "a"}) == (0, 2)
    with pytest.raises(ValueError, match="<qid_9> is answered, but not asked"):
        evaluate.exact_match({"<qid_9>": "鸟"}, answers)


def test_baselines_by_hand():
    text = "妈妈 说 , 苹果 很 甜 。|苹果 树 下 , XXXXX 在 找 妈妈 的 帽子 和 苹果"
    sentences = tuple(tuple(s.split()) for s in text.split("|"))
    index = {}
    [item] = dataset.encode_all([Question("<qid_0>", sentences, "妈妈")], index)
    words = list(index)
    found = {name: words[keys[0]] for name, keys in evaluate.baselines([item], words).items()}
    assert found["most frequent noun"] == "苹果" and found["nearest noun"] == "妈妈"
    drawn = {
        words[evaluate.baselines([item], words, s)["random content word"][0]] for s in range(50)
    }
    assert drawn == {"妈妈", "苹果", "帽子"}


def test_the_best_key_has_the_largest_sum_over_its_places():
    keys = [np.array(keys, "int32") for keys in ([5, 7, 5, 9], [9, 5], [3])]
    items = [dataset.EncodedQuestion(k, 0, 0, len(k), -1) for k in keys]
    rows = [np.array(row) for row in ([0.3, 0.4, 0.2, 0.1], [0.4, 0.6], [1.0])]
    assert evaluate.best_keys(items, rows) == [5, 5, 3]


def test_the_posts_reader_gives_an_empty_side_nothing():
    index = {}
    asked = [Question("q", (tuple(f"{BLANK} 小猫 有 鱼 。".split()),), "鱼")]
    items = dataset.encode_all(asked, index)
    network = build_reader(3, units=3, embedding_dim=4)
    lookup = dataset.Lookup(index, [BLANK, "小猫", "鱼"], [])
    [row] = evaluate.read_passages("post", network, items, lookup)
    assert row[0] == 0 and row.sum() == pytest.approx(1) and (row[1:] > 0).all()
