"""The index of recovered texts: index.json for machines, index.html for people.

The page is one file without scripts. The texts on it are not trusted: they are escaped, characters
that are not printable are shown as a box, and the page may load nothing.
"""

import json
from itertools import zip_longest

from common.files import write_text
from common.html import write_page
from linux_undelete.undelete.versions import differences, group_versions

EXCERPT = 300  # Characters of a text on either side of its first hit.
SHOWN = 20_000  # Characters of a diff on the page.
PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Recovered texts</title>
<style>
body { font: 15px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
pre { background: #f4f4f4; padding: .6em; overflow: auto; white-space: pre-wrap; \
word-break: break-word }
.piece { color: #a04000 }
mark { background: #ffe08a }
section { border-top: 1px solid #ccc; margin-top: 1.5em }
</style>
<h1>Recovered texts</h1>
<p>{{ facts.image }}, {{ "{:,}".format(facts.size) }} bytes, {{ scanned }}; looked for
<b>{{ phrases }}</b>: {{ "{:,}".format(facts.hits) }} hits,
{{ "{:,}".format(facts.texts) }} texts. The best guess comes first: most phrases, whole,
longest.</p>
{% if facts.hits_in_no_written_text %}
<p class=piece>{{ "{:,}".format(facts.hits_in_no_written_text) }} more hits lie in texts that were
not written: choose a rarer phrase, or a higher --limit. hits.jsonl lists the first million
hits.</p>
{% endif %}
{% if facts.unreadable %}
<p class=piece>{{ "{:,}".format(facts.unreadable_bytes) }} bytes unreadable: {{ unreadable }}.</p>
{% endif %}
{% for versions in groups %}
<section><h2>{{ "1 text" if versions|length == 1 else "%d versions" % versions|length }}</h2>
{% for version in versions %}
<h3><a href="{{ version.file }}">{{ version.file }}</a></h3>
<p>{{ version.description }}</p>
{% if version.why_piece %}
<p class=piece>Possible piece: {{ version.why_piece }}.</p>
{% endif %}
<pre>{{ version.before }}<mark>{{ version.phrase }}</mark>{{ version.after }}</pre>
{% if version.diff is not none %}
<details><summary>diff to the next</summary><pre>{{ version.diff }}</pre></details>
{% endif %}
{% endfor %}
</section>
{% endfor %}
</html>
"""


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
    place = 0
    if text["offsets"]:
        place = max(text["offsets"][0] - text["start"], 0)
    if place >= len(data):  # The first hit lay in a copy.
        place = 0
    before = str(data[:place], text["encoding"], "ignore")
    after = str(data[place:], text["encoding"], "ignore")
    phrase = next((phrase for phrase in text["phrases"] if after.startswith(phrase)), "")
    after = after[len(phrase) :]
    return printable(before[-around:]), printable(phrase), printable(after[:around])


def summary(state, disk):
    """What the scan did, in numbers."""
    unreadable = merge(disk.bad)
    return {
        "image": state["arguments"]["image"],
        "size": disk.size,
        "scanned_to": state["position"],
        "complete": state["position"] >= disk.size,
        "phrases": state["arguments"]["phrases"],
        "hits": state["hits"],
        "texts": len(state["texts"]),
        "hits_in_no_written_text": state["not_written"],
        "unreadable_bytes": sum(high - low for low, high in unreadable),
        "unreadable": unreadable,
    }


def merge(ranges):
    """Sorted ranges; those that touch become one."""
    merged = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], high)
        else:
            merged.append([low, high])
    return merged


def describe(text):
    """One line about a text: where, how long, how many hits and copies."""
    size = text["end"] - text["start"]
    line = f"{size:,} bytes at {text['start']:,}, {text['encoding']}, hits: {text['hits']:,}"
    if text["num_copies"]:
        line += f", {text['num_copies']:,} more copies"
    return line


def write_html(out, facts, groups, read):
    """Writes index.html. Only one group of versions is in memory at a time."""
    scanned = "whole"
    if not facts["complete"]:
        scanned = f"only up to byte {facts['scanned_to']:,}"
    places = [f"{low:,} to {high:,}" for low, high in facts["unreadable"][:100]]
    write_page(
        out / "index.html",
        PAGE,
        facts=facts,
        scanned=scanned,
        phrases=printable(", ".join(facts["phrases"]) or "(every text)"),
        unreadable="; ".join(places),
        groups=(describe_versions(out, group, read) for group in groups),
    )


def describe_versions(out, group, read):
    """What the page says of each version of a text."""
    versions = []
    for text, diff in zip_longest(group, differences(group, read)):
        before, phrase, after = excerpt(out, text)
        if diff is not None:
            diff = printable(diff[:SHOWN]) or "(no line differs)"
        versions.append(
            {
                "file": text["file"],
                "description": describe(text),
                "why_piece": "; ".join(text["why_piece"]),
                "before": before,
                "phrase": phrase,
                "after": after,
                "diff": diff,
            }
        )
    return versions


def write_index(out, state, disk):
    """Writes index.json and index.html; returns (summary, groups of versions)."""

    def read(text):
        return read_text(out, text)

    facts = summary(state, disk)
    groups = group_versions(state["texts"], read)
    index = {**facts, "groups": groups}
    write_text(out / "index.json", json.dumps(index, indent=1, ensure_ascii=False))
    write_html(out, facts, groups, read)
    return facts, groups
