"""Questions of customers with known answers, the embedded text of custom_loss.

A topic is a wish (return, invoice, ...) about one product; its answer never names the product or
the wish in the customer's words, so that counting common characters does not find it. A question
puts a name of the product into a phrase for the wish, that into a frame ("how can I ..."), and
adds politeness. Of the 12 pairs of a name and a phrase that a topic has, 8 are in the training
questions, 2 in the validation and 2 in the test questions: each name and each phrase is known,
the combination is new.

A question depends on (seed, index) and nothing else. VERSION is part of every record: change a
line that moves a character, raise it.
"""

# ruff: noqa: RUF001  Chinese has full-width punctuation.
import numpy as np

VERSION = 1
SEEDS = {"train": 41, "valid": 42, "test": 43}  # Disjoint streams.
# How many of the pairs of a name and a phrase each split has.
SHARES = {"train": 8, "valid": 2, "test": 2}

# Three names that customers use, and the one in the answers.
PRODUCTS = [
    ("手机 智能机 移动电话", "通讯终端"),
    ("电脑 笔记本 手提电脑", "计算设备"),
    ("耳机 耳塞 耳麦", "听音配件"),
    ("冰箱 电冰箱 雪柜", "制冷家电"),
    ("洗衣机 滚筒机 波轮机", "洗涤家电"),
    ("电饭锅 电饭煲 煮饭锅", "厨房小电"),
    ("吸尘器 除尘机 吸灰机", "清洁工具"),
    ("电视 电视机 彩电", "影音大屏"),
    ("运动鞋 跑鞋 球鞋", "足部穿着"),
    ("外套 夹克 风衣", "上身服装"),
    ("裤子 长裤 牛仔裤", "下装"),
    ("书包 双肩包 背包", "通勤袋具"),
    ("行李箱 拉杆箱 旅行箱", "出行用具"),
    ("手表 腕表 电子表", "计时饰品"),
    ("自行车 单车 脚踏车", "骑行器材"),
    ("图书 书本 书籍", "纸质读物"),
    ("奶粉 婴儿奶粉 配方奶", "母婴食品"),
    ("水果 鲜果 果篮", "生鲜"),
    ("沙发 布沙发 长沙发", "客厅家具"),
    ("床垫 席梦思 弹簧垫", "寝具"),
]

# Four phrases of customers, {} is the product's name, and the answer.
WISHES = [
    (
        "退{} 把{}退掉 退还买来的{} 给{}办退货",
        "签收七日内提交申请，{}寄回仓库验收无误，款项原路返还。",
    ),
    (
        "换{} 把{}换成新的 给{}办换货 更换有问题的{}",
        "先拍照上传，核实后寄出同款{}，旧件由快递员带走。",
    ),
    (
        "改{}的收货地址 把{}寄到别的地方 换{}的送货地点 让{}送到另一个地址",
        "出库前进入详情页编辑收件信息；{}已在途中的，联系配送员转送。",
    ),
    (
        "给{}开发票 要{}的发票 补{}的发票 拿到{}的报销票据",
        "提交抬头和税号，{}的电子凭证一个工作日内发到邮箱。",
    ),
    (
        "查{}的物流 看{}送到哪了 跟踪{}的快递 知道{}几天能到",
        "打开运单页面即可看见轨迹，{}一般两三日抵达。",
    ),
    (
        "处理收到就坏的{} 给破损的{}要赔偿 为有毛病的{}找说法 反映{}的质量问题",
        "请保留外箱并留下影像，{}经核定有缺陷的，我们承担全部损失。",
    ),
    (
        "取消{}的订单 不买{}了 撤掉{}的单子 把{}的下单作废",
        "付款后半小时内点击撤销，{}尚未拣货的，金额当日返回账户。",
    ),
    (
        "分期买{} 用分期付{}的钱 给{}分几个月付款 月付{}",
        "结算时选择信用支付，{}最多拆成十二份，每份自动扣款。",
    ),
    (
        "买{}用优惠券 给{}打折 领{}的红包 便宜点买{}",
        "活动页每天十点发放满减，结算{}时勾选抵扣即可。",
    ),
    (
        "给{}退差价 买贵了{}补差价 {}降价了要回多付的钱 申请{}的保价",
        "三十日内售价下调的，凭截图联系我们，{}的差额返到余额。",
    ),
    (
        "给{}包成礼物 送人的{}加礼盒 把{}包装得好看 给{}附贺卡",
        "结算页勾选赠礼服务，{}会配丝带与留言，不放价签。",
    ),
    (
        "找少发的{} 补寄漏掉的{} 要回没收到的{} 处理{}数量不对",
        "请核对装箱清单并告知缺口，{}会从最近的仓库加急发出。",
    ),
    (
        "批发{} 大量买{} 团购{} 一次订很多{}",
        "十件以上请找企业顾问，{}按阶梯报价并签合同。",
    ),
    (
        "等{}到货 预订没货的{} 让{}补货时通知我 买缺货的{}",
        "点击提醒并留下号码，{}入库后系统会发短信。",
    ),
    (
        "辨别{}真假 验{}是不是正品 确认{}不是假货 查{}的防伪码",
        "刮开标签涂层输入十六位数字，{}的来源当场显示。",
    ),
    (
        "自己去拿{} 到店取{} 自提{} 在门店领{}",
        "下单时选附近网点，凭短信里的提货数字带走{}，免运费。",
    ),
]

FRAMES = (
    "怎么{} 如何{} 怎样才能{} 能不能{} 我想{}",
    "{}要怎么弄 {}该怎么办 可以{}吗 {}行不行 我要{}怎么操作",
)
OPENINGS = ("", "", "请问", "你好，", "麻烦问一下，", "亲，", "在吗，", "打扰了，")
ENDINGS = ("", "", "？", "呢", "啊", "，谢谢", "，急", "，求回复")

NUM_TOPICS = len(PRODUCTS) * len(WISHES)


def answers():
    """The answer of each topic, all different: a list of NUM_TOPICS texts."""
    return [answer.format(name) for _, answer in WISHES for _, name in PRODUCTS]


def pairs(topic, split):
    """The (name, phrase) pairs of a topic that the questions of a split use."""
    wish, product = divmod(topic, len(PRODUCTS))
    names, phrases = PRODUCTS[product][0].split(), WISHES[wish][0].split()
    every = [(name, phrase) for name in names for phrase in phrases]
    order = np.random.default_rng((VERSION, topic)).permutation(len(every))
    splits = list(SHARES)
    start = sum(SHARES[earlier] for earlier in splits[: splits.index(split)])
    return [every[i] for i in order[start : start + SHARES[split]]]


def write_question(split, index):
    """The question with this index, and its topic; the topics take turns."""
    topic = index % NUM_TOPICS
    rng = np.random.default_rng((VERSION, SEEDS[split], index))
    name, phrase = rng.choice(pairs(topic, split))
    frame, opening, ending = (rng.choice(x) for x in (" ".join(FRAMES).split(), OPENINGS, ENDINGS))
    return str(opening + frame.format(phrase.format(name)) + ending), topic


def load(split, count):
    """The first `count` questions of a split ("train", "valid" or "test") and their topics."""
    questions, topics = zip(*(write_question(split, i) for i in range(count)), strict=True)
    return list(questions), np.array(topics)
