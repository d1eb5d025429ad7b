"""Written reviews of hotels, books and phones, the embedded data of rnn_saliency.

Each is a short Chinese text, already cut into words, with its label and the places of the words
that cause it. Around neutral clauses stand opinions: an aspect, perhaps an intensifier, a word of
praise or blame, now and then repeated, or negated by a word that turns it round. Most reviews
hold both praise and blame, and how they are joined decides:

    A 但是 B          what follows "but" counts, so does B in: although A, B
    B 虽然 A          what stands under a late "although" does not count
    朋友 说 A 其实 B    what others say does not count, what is "in fact" so does

So no word decides alone, yet a reader is never in doubt. The causes are the words of praise or
blame in the clauses that count, what negates them and, where there is an A, the word that joins.

A review depends on (seed, index) and nothing else. Random numbers are uniform and only
multiplied and compared: the text is the same on every machine. VERSION is part of every record:
raise it with any change that moves a word.
"""

from typing import NamedTuple

import numpy as np

VERSION = 1
SEEDS = {"train": 41, "valid": 42, "test": 43}  # Disjoint streams.

# For each kind of review: aspects, praise, blame, what one did and with what.
KINDS = {
    "hotel": (
        "房间 服务 早餐 位置 前台 卫生间 床 环境 隔音 设施 价格 空调 大堂 餐厅 停车场 窗户",
        "干净 舒适 热情 方便 安静 宽敞 整洁 周到 温馨 便宜 体贴 气派",
        "脏 吵 破旧 冷淡 狭小 潮湿 敷衍 偏僻 阴暗 昂贵 刺鼻 简陋",
        "入住 预订 退房 路过 投宿 办理 等候 续住",
        "酒店 标间 大床房 三楼 电梯 行李 房卡 走廊 早班车 会议室 发票 押金",
    ),
    "book": (
        "内容 文字 情节 印刷 纸张 作者 翻译 插图 包装 结构 封面 结尾 观点 排版 案例 人物",
        "精彩 有趣 感人 深刻 生动 流畅 细腻 严谨 清晰 实用 优美 透彻",
        "枯燥 乏味 混乱 肤浅 粗糙 啰嗦 空洞 幼稚 模糊 拖沓 生硬 牵强",
        "翻阅 购买 借阅 读完 收藏 讨论 整理 摘抄",
        "小说 教材 第二章 书架 目录 序言 书签 全集 图书馆 下册 译本 新版",
    ),
    "phone": (
        "屏幕 电池 系统 外观 信号 按键 手感 相机 音质 做工 充电器 速度 铃声 接口 喇叭 耳机",
        "清晰 流畅 漂亮 灵敏 耐用 精致 轻便 稳定 省电 响亮 顺手 大气",
        "卡顿 模糊 难看 迟钝 脆弱 粗糙 笨重 耗电 发热 刺耳 松动 死板",
        "使用 下单 充电 通话 更换 签收 升级 拍照",
        "手机 屏保 短信 说明书 贴膜 旧机 内存卡 包装盒 蓝牙 套餐 二月 专卖店",
    ),
}
PRAISE = "好 不错 满意 棒 出色 理想 完美 惊喜"
BLAME = "差 糟糕 失望 劣质 可怕 恶劣 离谱 恼火"
INTENSIFIERS = "很 非常 太 真 特别 实在 相当 有点"
NEGATIONS = "不 并不 不算 谈不上"
BUT = "但是 不过 但 可是 然而"
ALTHOUGH = "虽然 尽管 虽说"
IN_FACT = "其实 实际上 结果"
PEOPLE = "朋友 同事 网友 同学 家人 邻居 店员 客服"
TIMES = "昨天 上周 今天 周末 前天 去年 上个月 中午 晚上 春节 下午 暑假"
PLACES = "北京 上海 广州 杭州 成都 西安 南京 武汉 网上 店里 家里 路上 公司 车站"
WITH = "和 跟 陪"
DID = "了 过"
OF = "的 那 个"
# 2,880 names that are each too rare to be learnt, as half the words of a real text are.
FAMILY = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕"
GIVEN = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉兰红梅波辉鹏飞琳雪晨浩宇欣悦佳嘉俊"
GIVEN += "文博思远子涵雨桐一诺梓轩昊天可心若曦语嫣"
COMMA = "\uff0c"
STOP = "\u3002"


class Review(NamedTuple):
    words: tuple
    label: int  # 1 = praise, 0 = blame.
    causes: tuple  # Places in `words`, sorted.


def draw_review(seed, index):
    """One review; its text is "".join(review.words)."""
    rng = np.random.default_rng((VERSION, seed, index))
    return Writer(rng).review()


class Writer:
    """Writes a review of one kind, as a list of (word, whether it causes the label)."""

    def __init__(self, rng):
        self.rng = rng
        kind = list(KINDS)[int(3 * rng.random())]
        aspects, praise, blame, actions, things = KINDS[kind]
        self.aspects = aspects
        self.actions = actions
        self.things = things
        self.judgements = {1: f"{PRAISE} {praise}", 0: f"{BLAME} {blame}"}

    def chance(self, probability):
        return self.rng.random() < probability

    def pick(self, words):
        """One of the words: the first most often, with a long tail."""
        words = words.split()
        return words[int(len(words) * self.rng.random() * self.rng.random())]

    def pick_character(self, characters):
        return characters[int(len(characters) * self.rng.random())]

    def review(self):
        label = int(self.chance(0.5))
        body = self.body(label)
        entries = []
        for _ in range(self.count(1, 0.4)):
            entries += [*self.neutral(), (COMMA, False)]
        entries += [*body, (STOP, False)]
        for _ in range(self.count(0, 0.5, 0.3)):
            entries += [*self.neutral(), (STOP, False)]
        words, causes = zip(*entries, strict=True)
        places = tuple(place for place, is_cause in enumerate(causes) if is_cause)
        return Review(words, label, places)

    def count(self, least, *probabilities):
        """A number of clauses: `least`, and one more with each of the probabilities."""
        count = least
        for probability in probabilities:
            if self.chance(probability):
                count += 1
        return count

    def body(self, label):
        """The clauses that decide, alone or joined with some that do not count."""
        counts = self.opinions(label, True)
        does_not = self.opinions(1 - label, False)
        way = self.rng.random()
        if way < 0.4:
            return counts
        if way < 0.7:
            concession = []
            if self.chance(0.4):
                concession = [(self.pick(ALTHOUGH), False)]
            return [*concession, *does_not, (COMMA, False), (self.pick(BUT), True), *counts]
        if way < 0.85:
            return [*counts, (COMMA, False), (self.pick(ALTHOUGH), True), *does_not]
        others_say = [(self.pick(PEOPLE), False), ("说", False)]
        return [*others_say, *does_not, (COMMA, False), (self.pick(IN_FACT), True), *counts]

    def neutral(self):
        """A clause that tells of the purchase."""
        words = []
        if self.chance(0.6):
            words.append(self.pick(TIMES))
        if self.chance(0.5):
            name = self.pick_character(FAMILY) + self.pick_character(GIVEN)
            words.append(self.pick(WITH))
            words.append(name if self.chance(0.5) else self.pick(PEOPLE))
        if self.chance(0.6):
            words += ["在", self.pick(PLACES)]
        words += [self.pick(self.actions), self.pick(DID)]
        if self.chance(0.4):
            words.append(self.pick(OF))
        words.append(self.pick(self.things))
        return [(word, False) for word in words]

    def opinions(self, label, counts):
        """One to three opinions of this label; `counts`: whether they decide."""
        entries = []
        for number in range(1 + int(3 * self.rng.random() * self.rng.random())):
            if number > 0:
                entries.append((COMMA, False))
            entries.append((self.pick(self.aspects), False))
            if self.chance(0.2):
                entries.append((self.pick(NEGATIONS), counts))
                entries.append((self.pick(self.judgements[1 - label]), counts))
                continue
            if self.chance(0.6):
                entries.append((self.pick(INTENSIFIERS), False))
            word = self.pick(self.judgements[label])
            entries += [(word, counts)] * self.repetitions()
        return entries

    def repetitions(self):
        """How often a word of praise or blame stands in a row: mostly once."""
        times = 1
        if self.chance(0.1):
            times += 2
        if self.chance(0.05):
            times += 1
        return times


def load(split, count):
    """The first `count` reviews of a split ("train", "valid" or "test"), as a list."""
    return [draw_review(SEEDS[split], index) for index in range(count)]
