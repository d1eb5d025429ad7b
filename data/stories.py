"""Short Chinese stories with a blank that reading fills, and cloze questions from any text.

The embedded data of cloze_ccl. A story is written by a grammar, so it is already cut into words
and the part of speech of every noun is known. Some characters each have a thing and a place;
things change hands; between these sentences others meet and chat. A later (or earlier) sentence
says one of these facts again, and there the noun is blanked: who has it, what someone has, where
someone is, who gave it and who got it, and in the hardest kind where a thing was left, by whoever
had it and wherever that one was. Each character, thing and place stands for one fact, so a reader
is never in doubt, while counting words or looking at the nearest noun says little.

A story depends on (seed, index) and nothing else. Random numbers are uniform and only multiplied
and compared: the text is the same on every machine. VERSION is part of every record: change a
line that moves a word, raise it.

`make_cloze` makes questions of any text that is cut into words, as the training set of CMRC2017
was made: a noun that occurs at least twice in the passage is blanked, one blank a question.
"""

from collections import Counter
from functools import cache
from typing import NamedTuple

import numpy as np

VERSION = 1
SEEDS = {"train": 51, "valid": 52, "test": 53}  # Disjoint streams.
BLANK = "XXXXX"

ANIMALS = (
    "小猫 小狗 小兔 小熊 小鹿 小马 小羊 小猪 小鸡 小鸭 小鹅 小象 小猴 小鼠 小牛 小虎 狐狸 松鼠 "
    "刺猬 乌龟 青蛙 老虎 狮子 大象 猴子 兔子 山羊 绵羊 骆驼 河马 犀牛 斑马 长颈鹿 袋鼠 考拉 熊猫 "
    "孔雀 公鸡 母鸡 鸭子 喜鹊 乌鸦 麻雀 燕子 猫头鹰 啄木鸟 蜜蜂 蝴蝶 蜻蜓 蚂蚁 蜗牛 螃蟹 黄牛 "
    "白马 灰狼 花猫 鹦鹉 天鹅 仙鹤 海豚"
)
# 3,306 names: most of those in the test stories are in none of 1,500 training stories.
FIRST = (
    "阿多米豆果糖乐欢童星月晨朵露叶花冰雪青红蓝白金银玉石木竹松柏梅兰菊莲桃李杏枣栗瓜谷麦稻禾"
    "云雨风雷霜虹溪江湖海山林泉沙"
)
SECOND = (
    "咪咕嘟嘀啦噜哒哩吱呱喵汪咩哞叽喳嗒铃珠球团圆尾耳角毛羽翅爪牙鼻眼眉脸手脚腿背肚心头儿宝贝"
    "妞娃崽仔丫妹弟哥姐奇妙灵巧"
)
THINGS = (
    "苹果 南瓜 萝卜 白菜 西瓜 葡萄 香蕉 草莓 核桃 花生 玉米 土豆 面包 蛋糕 饼干 糖果 蜂蜜 鸡蛋 "
    "风筝 皮球 雨伞 帽子 围巾 手套 毯子 枕头 镜子 梳子 口琴 笛子 铃铛 灯笼 蜡烛 水壶 篮子 箱子 "
    "钥匙 铲子 锤子 绳子 梯子 画笔 信封 日记 图书 地图 邮票 硬币 宝石 项链 戒指 羽毛 贝壳 树叶 "
    "石子 种子 木马 积木 陀螺 气球 竹竿 扇子 书包 手表"
)
PLACES = (
    "河边 山洞 草地 果园 菜园 花园 树林 池塘 海边 沙滩 小岛 山顶 山脚 谷仓 磨坊 木屋 城堡 学校 "
    "教室 操场 车站 码头 市场 商店 医院 邮局 书店 茶馆 厨房 阁楼 地窖 院子 井边 桥头 村口 田野 "
    "麦田 竹林 温泉 瀑布"
)
# In a template {c} and {d} are characters, {o} is a thing, {p} a place; /n marks any other noun.
# The Chinese comma, exclamation and question mark and colon are written , ! ? :
OPENINGS = """
从前 , 大 山/n 旁边 住 着 {all} 。
很久 以前 , 有 一个 小 村子/n , 里面 住 着 {all} 。
{all} 是 邻居/n 。
这 是 {all} 的 故事/n 。
春天 来 了 , {all} 都 醒 了 。
"""
HAS = """
{c} 有 一个 {o} , 天天 带 着 它 。
清早 , {c} 抱 着 {o} 出 了 门/n 。
{c} 最 喜欢 {o} , 连 睡觉 也 抱 着 。
奶奶/n 给 {c} 买 了 一个 {o} 。
{c} 起 得 很 早 。 他 拿 着 {o} , 高高兴兴 地 唱 起 歌/n 来 。
有人 在 门口/n 放 了 一个 {o} , {c} 把 它 捡 了 回去 。
“ 你 的 {o} 真 漂亮 ! ” 大家 对 {c} 说 。
"""
IS_AT = """
{c} 一个 人/n 来到 {p} , 坐 下来 休息 。
{c} 住 在 {p} , 很 少 出来 。
{c} 走 累 了 。 他 在 {p} 睡 着 了 。
天/n 亮 了 , {c} 慢慢 走 到 {p} 。
{p} 很 安静 , {c} 喜欢 在 那里 看书 。
听说 {p} 很 美 , {c} 就 搬 过去 了 。
"""
GIVES = """
{c} 把 {o} 送给 了 {d} 。
{c} 想 了 想 , 拿 出 {o} , 交给 了 {d} 。
{d} 没有 {o} , {c} 就 把 自己 的 给 了 他 。
{d} 从 {c} 手里 接过 {o} , 高兴 得 跳 了 起来 。
"""
MEETS = """
{c} 看见 {d} , 挥 了 挥 手/n 。
{c} 和 {d} 点 了 点 头/n 。
{d} 跟 {c} 开 了 一个 玩笑/n 。
{c} 说 : “ 今天 天气/n 真 好 ! ”
太阳/n 出来 了 , {c} 眯 起 了 眼睛/n 。
“ 大家 好 ! ” {c} 说 。
{c} 打 了 一个 喷嚏/n 。
{d} 问 {c} : “ 你 吃 饭/n 了 吗 ? ”
风/n 停 了 , 雨/n 也 停 了 。
{c} 想起 {d} , 笑 了 。
小鸟/n 在 树/n 上 唱歌 。
"""
# What says a fact again, with the noun that may be blanked in brackets.
AGAIN = {
    "owner": """
“ 谁 也 别 动 我 的 {o} ! ” [{c}] 说 。
大家 都 知道 , {o} 是 [{c}] 的 。
[{c}] 摸 了 摸 自己 的 {o} , 笑 了 。
要 借 {o} , 就 得 去 找 [{c}] 。
""",
    "thing": """
“ 我 的 [{o}] 呢 ? ” {c} 问 。
{c} 找 了 半天 , 才 找到 自己 的 [{o}] 。
路上 , {c} 不 小心 弄丢 了 [{o}] 。
只要 有 [{o}] , {c} 就 很 快乐 。
""",
    "place": """
“ 我 在 [{p}] 等 你们 。 ” {c} 说 。
要 找 {c} , 就 得 去 [{p}] 。
晚上 , {c} 还 没有 离开 [{p}] 。
""",
    "dweller": """
谁 在 {p} 呢 ? 是 [{c}] 。
“ {p} 是 我 的 家/n 。 ” [{c}] 说 。
信/n 送 到 了 {p} , [{c}] 正在 那里 。
""",
    "receiver": """
[{d}] 谢 了 又 谢 , 收 好 了 {o} 。
现在 , {o} 归 [{d}] 了 。
“ 谢谢 你 的 {o} ! ” [{d}] 说 。
""",
    "giver": """
“ 谢谢 你 的 {o} ! ” 说 着 , {d} 拉住 了 [{c}] 的 手/n 。
舍得 把 {o} 送给 别人 的 , 只有 [{c}] 。
""",
    "left": """
后来 , 有人 在 [{p}] 看见 了 {o} 。
{o} 被 忘 在 了 [{p}] 。
""",
}
MARKS = {",": "\uff0c", "!": "\uff01", "?": "\uff1f", ":": "\uff1a"}


class Story(NamedTuple):
    sentences: tuple  # Of tuples of words.
    tags: tuple  # The same, each word's part of speech: "n", or "x" for all that is no noun.
    blanks: tuple  # Of (kind, sentence, place of the word in it): what reading can fill.


class Question(NamedTuple):
    id: str
    sentences: tuple  # Of tuples of words, one of which is BLANK.
    answer: str  # "" where it is not known.
    story: int = 0  # Questions of one story may not lie on both sides of a split.
    kind: str = ""


# --- The embedded stories ---
@cache
def parse(templates):
    """The templates of a text, each a list of tokens."""
    return [template.split() for template in templates.split("\n") if template]


def fill(template, names):
    """The sentences of a template: [[(word, tag, whether it may be blanked)]]."""
    sentences, entries = [], []
    for token in template:
        marked, token = token[0] == "[", token.strip("[]")
        if token == "{all}":
            for number, name in enumerate(names["all"]):
                between = "和" if number == len(names["all"]) - 1 else "、"
                entries += [(between, "x", False)] if number else []
                entries.append((name, "n", False))
        elif token[0] == "{":
            entries.append((names[token[1:-1]], "n", marked))
        else:
            word, _, tag = token.partition("/")
            entries.append((MARKS.get(word, word), tag or "x", False))
        if token == "。":
            sentences.append(entries)
            entries = []
    return sentences + [entries] * bool(entries)


def draw_story(seed, index):
    """One story of three or four characters, about 90 to 200 words."""
    rng = np.random.default_rng((VERSION, seed, index))

    def below(number):
        return int(number * rng.random())

    def sample(words, number):
        """So many different ones."""
        words, drawn = list(words), []
        for _ in range(number):
            drawn.append(words.pop(below(len(words))))
        return drawn

    number = 3 + (rng.random() < 0.3)
    characters = sample(ANIMALS.split(), number)
    for i in range(number):
        name = FIRST[below(len(FIRST))] + SECOND[below(len(SECOND))]
        if rng.random() < 0.25 and name not in characters:
            characters[i] = name
    things, places = sample(THINGS.split(), number), sample(PLACES.split(), number)
    facts = [{"c": c, "o": o, "p": p} for c, o, p in zip(characters, things, places, strict=True)]

    def write(templates, names):
        choices = parse(templates)
        return fill(choices[below(len(choices))], names)

    def meeting():
        c, d = sample(characters, 2)
        return write(MEETS, {"c": c, "d": d})

    # Whoever gives or gets a thing has none or two of them: their things are not asked for.
    gift = sample(facts, 2)
    gift = gift[0] | {"d": gift[1]["c"]}
    keepers = [fact for fact in facts if fact["c"] not in (gift["c"], gift["d"])]
    parts = [write(HAS, fact) for fact in facts] + [write(IS_AT, fact) for fact in facts]
    parts += [meeting() for _ in range(1 + below(3))]
    parts = sample(parts, len(parts))
    had = max(i for i, p in enumerate(parts) if any(gift["o"] == w for s in p for w, *_ in s))
    given = had + 1 + below(len(parts) - had)
    parts.insert(given, write(GIVES, gift))

    wanted = [("receiver" if rng.random() < 0.6 else "giver", gift, given + 1)]
    for kind in sample(("owner", "thing", "place", "dweller", "left"), 2):
        fact = sample(facts if kind in ("place", "dweller") else keepers, 1)[0]
        wanted.append((kind, fact, 0))
    marked = []
    for kind, names, first in wanted:
        place = first + below(len(parts) - first + 1)
        said = write(AGAIN[kind], names)
        marked.append((kind, said))
        parts.insert(place, said)
    parts.insert(0, write(OPENINGS, {"all": characters}))

    entries = [sentence for part in parts for sentence in part]
    blanks = tuple(
        (kind, i, place)
        for kind, said in marked
        for i, sentence in enumerate(entries)
        if any(sentence is one for one in said)
        for place, (_, _, may) in enumerate(sentence)
        if may
    )
    sentences, tags = (
        tuple(tuple(entry[column] for entry in sentence) for sentence in entries)
        for column in (0, 1)
    )
    return Story(sentences, tags, blanks)


def load(split, count):
    """The questions of the first `count` stories of a split ("train", "valid" or "test")."""
    questions = []
    for index in range(count):
        story = draw_story(SEEDS[split], index)
        for kind, sentence, place in story.blanks:
            id = f"<qid_{len(questions)}>"
            questions.append(blank(story.sentences, sentence, place, id, index, kind))
    return questions


# --- Questions from any text ---
def blank(sentences, sentence, place, id, story=0, kind=""):
    """The Question that has this word of these sentences blanked."""
    sentences = [tuple(words) for words in sentences]
    words = sentences[sentence]
    sentences[sentence] = (*words[:place], BLANK, *words[place + 1 :])
    return Question(id, tuple(sentences), words[place], story, kind)


@cache
def tagger():
    import logging

    import jieba.posseg  # Here, as it reads its dictionary for a second.

    jieba.setLogLevel(logging.WARNING)
    jieba.initialize()
    return jieba.posseg.dt


@cache
def part_of_speech(word):
    """jieba's tag of a word, without regard to the words around it; of a compound, of its head."""
    pairs = tagger().lcut(word)
    return pairs[-1].flag if pairs else "x"


def is_noun(word):
    """Nouns, names, and places (岸边), as jieba tags them; no punctuation, no Latin letters."""
    han = all("\u3400" <= character <= "\u9fff" for character in word)
    return han and part_of_speech(word)[0] in "ns"


def cut_passages(sentences, min_words, max_words):
    """Cuts a story at ends of sentences into passages of about equal length, none longer.

    What is left and shorter than min_words, and a sentence of more than max_words, is dropped.
    """
    total = sum(map(len, sentences))
    target = total / max(1, -(-total // max_words))
    passage, size = [], 0
    for words in [*sentences, None]:
        end = words is None or len(words) > max_words
        if passage and (end or size >= target or size + len(words) > max_words):
            if size >= min_words:
                yield passage
            passage, size = [], 0
        if not end:
            passage.append(words)
            size += len(words)


def make_cloze(stories, per_passage=40, seed=0, min_words=95, max_words=480, noun=is_noun):
    """Cloze questions from stories, each a list of sentences, each a list of words.

    Each blank is a noun that occurs at least twice in the passage; a passage gives at most
    per_passage of them, drawn by (seed, number of the story). By default a passage has as many
    words as those of CMRC2017, 95 to 480. `noun` says whether a word is one.
    """
    number = 0
    for index, story in enumerate(stories):
        rng = np.random.default_rng((seed, index))
        for sentences in cut_passages(story, min_words, max_words):
            words = [word for sentence in sentences for word in sentence]
            if BLANK in words:
                continue
            counts = Counter(words)
            places = [
                (i, j)
                for i, sentence in enumerate(sentences)
                for j, word in enumerate(sentence)
                if counts[word] > 1 and noun(word)
            ]
            chosen = rng.random(len(places)).argsort(kind="stable")[:per_passage]
            for k in sorted(chosen):
                yield blank(sentences, *places[k], f"<qid_{number}>", index)
                number += 1
