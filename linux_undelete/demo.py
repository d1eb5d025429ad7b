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
PHRASES = "def load_results(", "恢复误删的脚本"


def planted_text(index, size, encoding="utf-8", chinese=False):
    """(bytes of exactly `size`, a phrase that only this text has); a function of its arguments."""
    draw = random.Random(f"{index} {size} {encoding} {chinese}")
    phrase = f"第{index:03d}份稿子的题目" if chinese else f"the planted title {index:03d} "

    def line():
        words = {"number": draw.randrange(10_000), "name": draw.choice(WORDS)}
        words |= {"words": " ".join(draw.choices(WORDS, k=7))}
        words |= {name: "".join(draw.choices(CHINESE, k=6)) for name in ("chinese", "more")}
        return (NOTE if chinese else CODE).format(**words)

    text = f"{'标题' if chinese else '# '}{phrase}\n"
    parts, length = [text.encode(encoding)], len(text.encode(encoding))
    while length < size:
        parts.append(line().encode(encoding))
        length += len(parts[-1])
    data = b"".join(parts)[: size - 1].decode(encoding, "ignore").encode(encoding)
    return data + b"." * (size - 1 - len(data)) + b"\n", phrase


def write_demo_image(path):
    """An image of 4 MB: random blocks, a script in two versions, and a note in GBK.

    Each is stored as a file system does: from a block border on, the last block filled with zeros.
    """
    draw = random.Random(4491)
    head = "#!/usr/bin/env python3\nimport json\n\n\ndef load_results(path):\n"
    first = head + "    with open(path) as file:\n        return json.load(file)\n"
    second = head + (
        "    # 恢复误删的脚本: the version of the next day\n"
        "    with open(path, encoding='utf-8') as file:\n        results = json.load(file)\n"
        "    return sorted(results, key=lambda result: result['score'])\n\n\n"
        "if __name__ == '__main__':\n    print(load_results('results.json'))\n"
    )
    note = (
        "今天的教训：先备份，再删除。\n万一删错，可以用恢复误删的脚本，从原始分区里把文字找回来。\n"
    )
    texts = {100: first.encode(), 411: second.encode(), 700: note.encode("gbk")}
    with open(path, "wb") as file:
        for block in range(1024):
            file.write((texts.get(block) or draw.randbytes(BLOCK)).ljust(BLOCK, b"\0"))
