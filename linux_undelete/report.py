"""The index of recovered texts: index.json for machines, index.html for people.

The page is one file without scripts. The texts on it are untrusted: they are escaped, characters
that are not printable are shown as a box, and the page may load nothing.
"""

import html
import json
from itertools import zip_longest

from common.run import write_text
from linux_undelete.versions import differences, group_versions

EXCERPT = 300  # Characters of a text on either side of its first hit.
SHOWN = 20_000  # Characters of a diff on the page.
STYLE = """body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}
pre{background:#f4f4f4;padding:.6em;overflow:auto;white-space:pre-wrap;word-break:break-word}
.piece{color:#a04000}mark{background:#ffe08a}section{border-top:1px solid #ccc;margin-top:1.5em}"""


def printable(text):
    """Text that is safe to show: line ends and tabs stay, other control characters do not."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in text)


def read_text(out, text):
    """The words of a recovered file; parts of characters at a cut are left out."""
    data = (out / text["file"]).read_bytes()
    return data.decode(text["encoding"], "ignore").replace("\r\n", "\n")


def excerpt(out, text, around=EXCERPT):
    """(before, hit, after): what stands around the first phrase that is found in the text."""
    data = (out / text["file"]).read_bytes()
    place = max(text["offsets"][0] - text["start"], 0) if text["offsets"] else 0
    place = place if place < len(data) else 0  # The first hit lay in a copy.
    before, after = (str(part, text["encoding"], "ignore") for part in (data[:place], data[place:]))
    phrase = next((p for p in text["phrases"] if after.startswith(p)), "")
    return printable(before[-around:]), printable(phrase), printable(after[len(phrase) :][:around])


def summary(state, disk):
    """What the scan did, in numbers."""
    complete = state["position"] >= disk.size
    return {
        "image": state["arguments"]["image"],
        "size": disk.size,
        "scanned_to": state["position"],
        "complete": complete,
        "phrases": state["arguments"]["phrases"],
        "hits": state["hits"],
        "texts": len(state["texts"]),
        "hits_in_no_written_text": state["not_written"],
        "unreadable_bytes": sum(high - low for low, high in merged(disk.bad)),
        "unreadable": merged(disk.bad),
    }


def merged(ranges):
    """Sorted ranges, those that touch made one."""
    out = []
    for low, high in sorted(ranges):
        if out and low <= out[-1][1]:
            out[-1][1] = max(out[-1][1], high)
        else:
            out.append([low, high])
    return out


def describe(text):
    """One line on a text: where, how long, how many hits and copies."""
    size = text["end"] - text["start"]
    line = f"{size:,} bytes at {text['start']:,}, {text['encoding']}, hits: {text['hits']:,}"
    if text["num_copies"]:
        line += f", {text['num_copies']:,} more copies"
    return line


def page_of_text(out, text):
    before, phrase, after = (html.escape(part) for part in excerpt(out, text))
    piece = f"<p class=piece>Possible piece: {'; '.join(text['why_piece'])}.</p>"
    return (
        f'<h3><a href="{html.escape(text["file"])}">{html.escape(text["file"])}</a></h3>'
        f"<p>{html.escape(describe(text))}</p>{piece if text['why_piece'] else ''}"
        f"<pre>{before}<mark>{phrase}</mark>{after}</pre>\n"
    )


def page(out, facts, groups, read):
    """The index as HTML."""
    yield (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv='
        "\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Recovered texts</title><style>{STYLE}</style><h1>Recovered texts</h1>\n"
    )
    ended = "whole" if facts["complete"] else f"only up to byte {facts['scanned_to']:,}"
    phrases = ", ".join(facts["phrases"]) or "(every text)"
    yield (
        f"<p>{html.escape(facts['image'])}, {facts['size']:,} bytes, {ended}; looked for "
        f"<b>{html.escape(printable(phrases))}</b>: {facts['hits']:,} hits, {facts['texts']:,} "
        "texts. The best guess comes first: most phrases, whole, longest.</p>\n"
    )
    if facts["hits_in_no_written_text"]:
        yield (
            f"<p class=piece>{facts['hits_in_no_written_text']:,} more hits lie in texts that were "
            "not written: choose a rarer phrase, or a higher --limit. hits.jsonl lists the first "
            "million hits.</p>\n"
        )
    if facts["unreadable"]:
        places = "; ".join(f"{low:,} to {high:,}" for low, high in facts["unreadable"][:100])
        yield f"<p class=piece>{facts['unreadable_bytes']:,} bytes unreadable: {places}.</p>\n"
    for group in groups:
        versions = f"{len(group)} versions" if len(group) > 1 else "1 text"
        yield f"<section><h2>{versions}</h2>\n"
        for text, changed in zip_longest(group, differences(group, read)):
            yield page_of_text(out, text)
            if changed is not None:
                shown = html.escape(printable(changed[:SHOWN])) or "(no line differs)"
                yield f"<details><summary>diff to the next</summary><pre>{shown}</pre></details>\n"
        yield "</section>\n"
    yield "</html>\n"


def write_index(out, state, disk):
    """Writes index.json and index.html; returns (summary, groups of versions)."""

    def read(text):
        return read_text(out, text)

    facts, groups = summary(state, disk), group_versions(state["texts"], read)
    index = json.dumps(facts | {"groups": groups}, indent=1, ensure_ascii=False)
    write_text(out / "index.json", index)
    next_page = out / "index.html.next"
    with next_page.open("w", encoding="utf-8", errors="replace") as file:
        file.writelines(page(out, facts, groups, read))
    next_page.replace(out / "index.html")
    return facts, groups
