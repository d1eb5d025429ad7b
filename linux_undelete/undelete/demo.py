"""Planted texts with a phrase of their own, and a small image in which a script was "deleted"."""

# ruff: noqa: RUF001  Chinese has full-width punctuation.
import random

BLOCK = 4096
WORDS = "the disk keeps what was written until another file needs its place so wait".split()  # noqa: SIM905
CHINESE = "硬盘 上的 内容 不会 马上 消失 只是 没有 名字 请 先 停止 写入 再 慢慢 寻找 文本".split()  # noqa: SIM905
CODE = """def load_{name}(path, size={number}):
    \"\"\"Reads {words}.\"\"\"
    with open(path, encoding="utf-8") as file:
        lines = [line.split() for line in file if len(line) > {number}]
    return lines[:size]  # {words}
"""
NOTE = "第{number}条记录：{chinese}，{more}。\n"
PHRASES = ("def load_results(", "恢复误删的脚本")

FIRST_VERSION = """#!/usr/bin/env python3
import json


def load_results(path):
    with open(path) as file:
        return json.load(file)
"""
SECOND_VERSION = """#!/usr/bin/env python3
import json


def load_results(path):
    # 恢复误删的脚本: the version of the next day
    with open(path, encoding='utf-8') as file:
        results = json.load(file)
    return sorted(results, key=lambda result: result['score'])


if __name__ == '__main__':
    print(load_results('results.json'))
"""
LESSON = """今天的教训：先备份，再删除。
万一删错，可以用恢复误删的脚本，从原始分区里把文字找回来。
"""


def planted_text(index, size, encoding="utf-8", chinese=False):
    """(bytes of exactly `size`, a phrase that only this text has); a function of its arguments."""
    rng = random.Random(f"{index} {size} {encoding} {chinese}")
    if chinese:
        phrase = f"第{index:03d}份稿子的题目"
        title = f"标题{phrase}\n"
    else:
        phrase = f"the planted title {index:03d} "
        title = f"# {phrase}\n"
    parts = [title.encode(encoding)]
    length = len(parts[0])
    while length < size:
        parts.append(random_line(rng, chinese).encode(encoding))
        length += len(parts[-1])
    # One byte is left for the last line feed, and a character must not be cut.
    data = b"".join(parts)[: size - 1].decode(encoding, "ignore").encode(encoding)
    return data + b"." * (size - 1 - len(data)) + b"\n", phrase


def random_line(rng, chinese):
    """A few lines of code, or a Chinese sentence."""
    words = {
        "number": rng.randrange(10_000),
        "name": rng.choice(WORDS),
        "words": " ".join(rng.choices(WORDS, k=7)),
        "chinese": "".join(rng.choices(CHINESE, k=6)),
        "more": "".join(rng.choices(CHINESE, k=6)),
    }
    if chinese:
        return NOTE.format(**words)
    return CODE.format(**words)


def write_demo_image(path):
    """An image of 4 MB: random blocks, a script in two versions, and a note in GBK.

    Each is stored as a file system does: from a block border on, the last block filled with zeros.
    """
    rng = random.Random(4491)
    texts = {
        100: FIRST_VERSION.encode(),
        411: SECOND_VERSION.encode(),
        700: LESSON.encode("gbk"),
    }
    with open(path, "wb") as file:
        for block in range(1024):
            content = texts.get(block)
            if content is None:
                content = rng.randbytes(BLOCK)
            file.write(content.ljust(BLOCK, b"\0"))
