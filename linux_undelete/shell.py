"""Reads shell commands as far as check.py must: words, redirections, pipelines. Runs nothing.

Quotes, backslashes, comments, here-documents, continued lines, $( ), backticks and assignments are
known; functions, loops and branches are read straight through, as if each of them ran once.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

_DEEP = r"\((?:[^()]|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))*\)"  # Four levels of ( ).
_RUN = (
    rf"\$\(\({_DEEP}\)\)|\$?(?<=[$<>=?*+@!]){_DEEP}|[$<>]{_DEEP}|`(?:[^`\\]|\\.)*`|\$\{{[^}}]*\}}"
)
_WORD = rf"""(?:(?P<run>{_RUN}) | \\(?P<escaped>.)
    | \$?'(?P<single>(?<!\$')[^']*|(?<=\$')(?:[^'\\]|\\.)*)'
    | "(?P<double>(?:{_RUN}|\\.|[^"\\`])*)" | (?P<plain>[^\s;|&<>()'"\\`]))"""
_PIECE = re.compile(_WORD, re.VERBOSE | re.DOTALL)
_TOKEN = re.compile(
    rf"""(?P<blank>(?:[ \t\r]|\\\r?\n)+) | (?P<comment>\#[^\n]*) | (?P<arithmetic>\({_DEEP}\))
    | (?P<word>{_WORD.replace("(?P<", "(?P<in_")}+)
    | (?P<operator>&>>?|[<>]&|<<<|<<-?|<>|>>|>\||[<>]|;;&|;;|;&|&&|\|\||\|&|[;|&()\n])""",
    re.VERBOSE | re.DOTALL,
)
KINDS = "blank", "comment", "arithmetic", "word", "operator"
REDIRECTIONS = "&>> &> >& <& <<< << <<- <> >> >| < >".split()  # noqa: SIM905
OPENING = {"if", "then", "elif", "else", "do", "while", "until", "!", "{", "coproc"}
ASSIGNMENT = re.compile(r"(\w+)(\+?)=(.*)", re.DOTALL)
# Words that stand before a command, and those of their options that take a value.
PREFIXES = {"sudo": "-u -g -h -p -C -r -t -R -T -U -D --user --group --host --prompt --chdir"}
PREFIXES["sudo"] += " --chroot --close-from --command-timeout --other-user --role --type"
PREFIXES |= {"doas": "-u -C", "env": "-u -C --unset --chdir", "nice": "-n --adjustment"}
PREFIXES |= {"ionice": "-c -n --class --classdata", "timeout": "-s -k --signal --kill-after"}
PREFIXES |= {"stdbuf": "-i -o -e --input --output --error", "nohup": "", "setsid": "", "exec": "-a"}
PREFIXES |= {"xargs": "-a -d -E -I -L -n -P -s --arg-file --delimiter --max-args --max-procs"}
PREFIXES |= {"command": "", "builtin": "", "busybox": "", "time": "-f -o"}
HIDDEN = 0xE000  # Added to a character that quotes have made an ordinary one.


@dataclass
class Command:
    line: int
    words: list = field(default_factory=list)  # As they were written, with quotes.
    redirections: list = field(default_factory=list)  # (operator, word)
    body: str = ""  # Of a here-document.


def hide(text, what):
    return re.sub(what, lambda match: chr(HIDDEN + ord(match[0])), text)


def reveal(text):
    """The text with its hidden characters as they are."""
    return re.sub("[\ue000-\ue0ff]", lambda match: chr(ord(match[0]) - HIDDEN), text)


def bare(word):
    """The word less its quotes; * ? ~ [ in quotes and $ in single ones are hidden."""

    def strip(match):
        kind, text = match.lastgroup, match[match.lastgroup]
        if kind == "escaped":
            return "" if text == "\n" else hide(text, r"[*?~\[$`]")
        if kind == "single":
            return hide(text, r"[*?~\[$`]")
        if kind == "double":
            inside = re.compile(rf"({_RUN})|\\([$`\"\\\n])|([*?~\[])", re.DOTALL)
            return inside.sub(lambda m: m[1] or hide(m[2] or m[3], r"[*?~\[$`]"), text)
        return text

    return _PIECE.sub(strip, word)


def parse(text, line=1):
    """The pipelines of a text: each a list of Commands.

    Raises ValueError, with the number of the line, where a quote or a bracket is not closed.
    """
    pipelines, command, waiting, place = [[]], Command(line), [], 0
    redirecting = None

    def finish(new_pipeline):
        nonlocal command
        while command.words and command.words[0] in OPENING:
            del command.words[0]
        if command.words or command.redirections:
            pipelines[-1].append(command)
        command = Command(line)
        if new_pipeline and pipelines[-1]:
            pipelines.append([])

    while place < len(text):
        match = _TOKEN.match(text, place)
        if not match:
            raise ValueError(
                f"{line}: {text[place : place + 20].partition(chr(10))[0]!r} is not closed"
            )
        token, place = match[0], match.end()
        kind = next(kind for kind in KINDS if match[kind] is not None)
        if kind == "word":
            digits = token.isdecimal() and text[place : place + 1] in ("<", ">")
            if redirecting:
                command.redirections.append((redirecting, token))
                if redirecting.startswith("<<") and redirecting != "<<<":
                    waiting.append((command, redirecting, bare(token)))
                redirecting = None
            elif not digits:  # Else it is the number of a redirection.
                if not command.words:
                    command.line = line
                command.words.append(token)
        elif kind == "operator":
            if token in REDIRECTIONS:
                redirecting = token
            else:
                redirecting = None
                finish(token not in ("|", "|&"))
        line += token.count("\n")
        if token == "\n" and waiting:
            for owner, operator, end in waiting:
                lines = re.findall(r".*\n|.+", text[place:])
                ends = (x.rstrip("\r\n").lstrip("\t" * (operator == "<<-")) for x in lines)
                length = next((i for i, x in enumerate(ends) if x == end), len(lines))
                owner.body = "".join(lines[:length])
                place += len("".join(lines[: length + 1]))
                line += length + 1
            waiting = []
            command.line = line
    finish(True)
    return [pipeline for pipeline in pipelines if pipeline]


def substitutions(word):
    """The commands inside $( ), <( ), >( ) and backticks of a word: a list of texts."""
    found = re.findall(rf"(?<!\\)[$<>](?!\(\()({_DEEP})|`((?:[^`\\]|\\.)*)`", bare(word))
    return [inside[1:-1] if inside else ticks.replace("\\`", "`") for inside, ticks in found]


def unwrap(words):
    """The command behind assignments, sudo, env, ...: (its name, its other words)."""
    words = list(words)
    while words and (ASSIGNMENT.fullmatch(words[0]) or Path(words[0]).name in PREFIXES):
        word = words.pop(0)
        prefix = "" if ASSIGNMENT.fullmatch(word) else Path(word).name
        while prefix in PREFIXES and words and re.match("-.", words[0]):
            option = words.pop(0)
            if prefix == "env" and (text := re.fullmatch("-S(.*)|--split-string=(.*)", option)):
                words[:0] = (text[1] or text[2] or (words.pop(0) if words else "")).split()
            elif takes_next(option, PREFIXES[prefix].split()) and words:
                del words[0]
        if prefix == "timeout" and words:
            del words[0]
    return (Path(words[0]).name, words[1:]) if words else ("", [])


def takes_next(option, valued):
    """Whether the value of an option is the next word: of -iu it is, of -uroot it is not."""
    if option.startswith("--"):
        return option in valued
    first = next((i for i, letter in enumerate(option) if f"-{letter}" in valued), None)
    return first == len(option) - 1


def target_last(operands):
    """The words of mv or cp with the folder of -t, if there is one, at the end."""
    words = list(operands)
    for i, word in enumerate(words):
        if word == "--":
            break
        if match := re.fullmatch(r"--target-directory=(.+)|(?:-[a-zA-Z]*?t)(.+)", word):
            return [*words[:i], *words[i + 1 :], match[1] or match[2]]
        if re.fullmatch(r"--target-directory|-[a-zA-Z]*t", word) and words[i + 1 :]:
            return [*words[:i], *words[i + 2 :], words[i + 1]]
    return words
