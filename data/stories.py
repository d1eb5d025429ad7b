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

import logging
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
    """A story in words.

    Attributes:
        sentences: a tuple of sentences, each a tuple of words.
        tags: the same for the part of speech of each word: "n" for nouns, else "x".
        blanks: a tuple of (kind, number of the sentence, place of the word in it): the words that
            a reader of the story can fill in.
    """

    sentences: tuple
    tags: tuple
    blanks: tuple


class Question(NamedTuple):
    """A passage with a blank.

    Attributes:
        id: <qid_N>.
        sentences: a tuple of sentences, each a tuple of words; one word is BLANK.
        answer: the word that was blanked, "" where it is not known.
        story: questions of one story must not lie on both sides of a split.
        kind: what is asked for, a key of AGAIN; "" where the text was not written by the grammar.
    """

    id: str
    sentences: tuple
    answer: str
    story: int = 0
    kind: str = ""


class Token(NamedTuple):
    """A word of a story that is being written.

    Attributes:
        tag: "n" for nouns, else "x".
        kind: for a word that may be blanked the key of AGAIN, else "".
    """

    word: str
    tag: str
    kind: str = ""


# --- The embedded stories ---
@cache
def parse(templates):
    """The templates of a text, one in each line, as lists of their words."""
    return [template.split() for template in templates.split("\n") if template]


def fill(template, names, kind=""):
    """The sentences of a template, each a list of Tokens.

    Args:
        template: a list of words, see above.
        names: what {c}, {d}, {o}, {p} and {all} stand for.
        kind: the kind of question for which the noun in brackets may be blanked.
    """
    sentences = []
    tokens = []
    for part in template:
        name = part.strip("[]")
        if name == "{all}":
            tokens += enumeration(names["all"])
        elif name.startswith("{"):
            kind_of_token = ""
            if part.startswith("["):
                kind_of_token = kind
            tokens.append(Token(names[name[1:-1]], "n", kind_of_token))
        else:
            word, _, tag = part.partition("/")
            tokens.append(Token(MARKS.get(word, word), tag or "x"))
        if part == "。":
            sentences.append(tokens)
            tokens = []
    if tokens:
        sentences.append(tokens)
    return sentences


def enumeration(names):
    """The names as Tokens: A、B和C."""
    tokens = [Token(names[0], "n")]
    for name in names[1:-1]:
        tokens += [Token("、", "x"), Token(name, "n")]
    return [*tokens, Token("和", "x"), Token(names[-1], "n")]


class Writer:
    """Writes one story. Its random numbers are uniform and only multiplied and compared."""

    def __init__(self, seed, index):
        self.rng = np.random.default_rng((VERSION, seed, index))

    def chance(self, probability):
        return self.rng.random() < probability

    def below(self, number):
        """A whole number from 0 to number - 1."""
        return int(number * self.rng.random())

    def sample(self, items, number):
        """So many different items, in random order."""
        items = list(items)
        return [items.pop(self.below(len(items))) for _ in range(number)]

    def write(self, templates, names, kind=""):
        """The sentences of one of the templates."""
        choices = parse(templates)
        return fill(choices[self.below(len(choices))], names, kind)

    def choose_characters(self, number):
        """So many different animals, a quarter of which have a name instead."""
        characters = self.sample(ANIMALS.split(), number)
        for i in range(number):
            name = FIRST[self.below(len(FIRST))] + SECOND[self.below(len(SECOND))]
            if self.chance(0.25) and name not in characters:
                characters[i] = name
        return characters

    def write_meeting(self, characters):
        c, d = self.sample(characters, 2)
        return self.write(MEETS, {"c": c, "d": d})

    def choose_facts(self, facts, gift):
        """The facts that the story says again, with a noun that may be blanked: [(kind, names)].

        The first one is who gave or who got the gift, then come two other kinds. Whoever gives or
        gets a thing ends up with none or two, so what they had first is not asked for.
        """
        kind = "giver"
        if self.chance(0.6):
            kind = "receiver"
        chosen = [(kind, gift)]
        keepers = [fact for fact in facts if fact["c"] not in (gift["c"], gift["d"])]
        for kind in self.sample(("owner", "thing", "place", "dweller", "left"), 2):
            candidates = keepers
            if kind in ("place", "dweller"):
                candidates = facts
            [fact] = self.sample(candidates, 1)
            chosen.append((kind, fact))
        return chosen


def draw_story(seed, index):
    """One story of three or four characters, about 90 to 200 words."""
    writer = Writer(seed, index)
    number = 3
    if writer.chance(0.3):
        number = 4
    characters = writer.choose_characters(number)
    things = writer.sample(THINGS.split(), number)
    places = writer.sample(PLACES.split(), number)
    facts = []
    for character, thing, place in zip(characters, things, places, strict=True):
        facts.append({"c": character, "o": thing, "p": place})
    giver, receiver = writer.sample(facts, 2)
    gift = {**giver, "d": receiver["c"]}

    # The parts of a story are lists of sentences. First all facts and some small talk, shuffled.
    parts = [writer.write(HAS, fact) for fact in facts]
    parts += [writer.write(IS_AT, fact) for fact in facts]
    num_meetings = 1 + writer.below(3)
    parts += [writer.write_meeting(characters) for _ in range(num_meetings)]
    parts = writer.sample(parts, len(parts))
    # A thing can be given once its owner has it.
    first = last_part_with(gift["o"], parts) + 1
    given = first + writer.below(len(parts) - first + 1)
    parts.insert(given, writer.write(GIVES, gift))
    # Only who gave and who got the gift must be asked for after it was given.
    first = given + 1
    kinds = []
    for kind, names in writer.choose_facts(facts, gift):
        place = first + writer.below(len(parts) - first + 1)
        parts.insert(place, writer.write(AGAIN[kind], names, kind))
        kinds.append(kind)
        first = 0
    parts.insert(0, writer.write(OPENINGS, {"all": characters}))
    return to_story(parts, kinds)


def last_part_with(word, parts):
    """The number of the last part that holds this word."""
    numbers = []
    for number, part in enumerate(parts):
        if any(token.word == word for sentence in part for token in sentence):
            numbers.append(number)
    return max(numbers)


def to_story(parts, kinds):
    """The Story of these parts; its blanks come in the order of `kinds`."""
    sentences = [sentence for part in parts for sentence in part]
    blanks = []
    for kind in kinds:
        for number, sentence in enumerate(sentences):
            for place, token in enumerate(sentence):
                if token.kind == kind:
                    blanks.append((kind, number, place))
    words = tuple(tuple(token.word for token in sentence) for sentence in sentences)
    tags = tuple(tuple(token.tag for token in sentence) for sentence in sentences)
    return Story(words, tags, tuple(blanks))


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
    """The Question in which one word of these sentences is blanked.

    Args:
        sentence: the number of its sentence.
        place: where it stands in this sentence.
    """
    sentences = [tuple(words) for words in sentences]
    words = sentences[sentence]
    sentences[sentence] = (*words[:place], BLANK, *words[place + 1 :])
    return Question(id, tuple(sentences), words[place], story, kind)


@cache
def tagger():
    """jieba's part-of-speech tagger."""
    import jieba.posseg  # Here, because it takes a second that most users need not wait.

    jieba.setLogLevel(logging.WARNING)
    jieba.initialize()
    return jieba.posseg.dt


@cache
def part_of_speech(word):
    """jieba's tag of a word, without regard to the words around it; of a compound, of its head."""
    pairs = tagger().lcut(word)
    if not pairs:
        return "x"
    return pairs[-1].flag


def is_noun(word):
    """Nouns, names, and places (岸边), as jieba tags them; no punctuation, no Latin letters."""
    is_chinese = all("\u3400" <= character <= "\u9fff" for character in word)
    return is_chinese and part_of_speech(word)[0] in "ns"


def cut_passages(sentences, min_words, max_words):
    """Cuts a story at ends of sentences into passages of about equal length.

    No passage is longer than max_words. What is left and shorter than min_words, and a sentence
    of more than max_words, is dropped.
    """
    total = sum(len(words) for words in sentences)
    num_passages = max(1, -(-total // max_words))
    target = total / num_passages
    passage = []
    size = 0
    for words in sentences:
        is_too_long = len(words) > max_words
        if size >= target or size + len(words) > max_words:
            if passage and size >= min_words:
                yield passage
            passage = []
            size = 0
        if not is_too_long:
            passage.append(words)
            size += len(words)
    if passage and size >= min_words:
        yield passage


def make_cloze(stories, per_passage=40, seed=0, min_words=95, max_words=480, noun=is_noun):
    """Cloze questions from stories, each a list of sentences, each a list of words.

    Each blank is a noun that occurs at least twice in the passage. A passage gives at most
    per_passage of them, drawn by (seed, number of the story). By default a passage has as many
    words as those of CMRC2017, 95 to 480.

    Args:
        noun: a function that says whether a word is a noun.
    """
    num_questions = 0
    for index, story in enumerate(stories):
        rng = np.random.default_rng((seed, index))
        for sentences in cut_passages(story, min_words, max_words):
            if any(BLANK in sentence for sentence in sentences):
                continue
            places = repeated_nouns(sentences, noun)
            chosen = rng.random(len(places)).argsort(kind="stable")[:per_passage]
            for i in sorted(chosen):
                sentence, place = places[i]
                id = f"<qid_{num_questions}>"
                yield blank(sentences, sentence, place, id, index)
                num_questions += 1


def repeated_nouns(sentences, noun):
    """[(number of the sentence, place in it)] of the nouns that occur at least twice."""
    counts = Counter(word for sentence in sentences for word in sentence)
    places = []
    for number, sentence in enumerate(sentences):
        for place, word in enumerate(sentence):
            if counts[word] > 1 and noun(word):
                places.append((number, place))
    return places
