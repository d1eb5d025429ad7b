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
REDIRECTIONS = {"&>>", "&>", ">&", "<&", "<<<", "<<", "<<-", "<>", ">>", ">|", "<", ">"}
OPENING = {"if", "then", "elif", "else", "do", "while", "until", "!", "{", "coproc"}
ASSIGNMENT = re.compile(r"(\w+)(\+?)=(.*)", re.DOTALL)
# Words that stand before a command, and those of their options that take a value.
PREFIXES = {
    "sudo": (
        "-u -g -h -p -C -r -t -R -T -U -D --user --group --host --prompt --chdir --chroot "
        "--close-from --command-timeout --other-user --role --type"
    ),
    "doas": "-u -C",
    "env": "-u -C --unset --chdir",
    "nice": "-n --adjustment",
    "ionice": "-c -n --class --classdata",
    "timeout": "-s -k --signal --kill-after",
    "stdbuf": "-i -o -e --input --output --error",
    "nohup": "",
    "setsid": "",
    "exec": "-a",
    "xargs": "-a -d -E -I -L -n -P -s --arg-file --delimiter --max-args --max-procs",
    "command": "",
    "builtin": "",
    "busybox": "",
    "time": "-f -o",
}
HIDDEN = 0xE000  # Added to a character that quotes have made an ordinary one.


@dataclass
class Command:
    line: int
    words: list = field(default_factory=list)  # As they were written, with quotes.
    redirections: list = field(default_factory=list)  # (operator, word)
    body: str = ""  # Of a here-document.


# --- Words ---
def hide(text, pattern):
    return re.sub(pattern, lambda match: chr(HIDDEN + ord(match[0])), text)


def reveal(text):
    """The text with its hidden characters as they are."""
    return re.sub("[\ue000-\ue0ff]", lambda match: chr(ord(match[0]) - HIDDEN), text)


def bare(word):
    """The word without its quotes; * ? ~ [ in quotes and $ in single ones are hidden."""
    return _PIECE.sub(without_quotes, word)


def without_quotes(match):
    """A piece of a word, which _PIECE has matched, without its quotes."""
    kind = match.lastgroup
    text = match[kind]
    if kind == "escaped" and text == "\n":  # A continued line.
        return ""
    if kind in ("escaped", "single"):
        return hide(text, r"[*?~\[$`]")
    if kind == "double":
        inside = re.compile(rf"({_RUN})|\\([$`\"\\\n])|([*?~\[])", re.DOTALL)
        return inside.sub(lambda m: m[1] or hide(m[2] or m[3], r"[*?~\[$`]"), text)
    return text


# --- Commands ---
def parse(text, line=1):
    """The pipelines of a text: each a list of Commands.

    Raises ValueError, with the number of the line, where a quote or a bracket is not closed.
    """
    return Parser(text, line).parse()


class Parser:
    """Reads a text token by token."""

    def __init__(self, text, line):
        self.text = text
        self.line = line
        self.pipelines = [[]]
        self.command = Command(line)
        self.redirection = None  # The operator that waits for its word.
        self.here_documents = []  # (command, operator, end) whose lines follow the next line feed.

    def parse(self):
        place = 0
        while place < len(self.text):
            match = _TOKEN.match(self.text, place)
            if not match:
                rest = self.text[place : place + 20].partition("\n")[0]
                raise ValueError(f"{self.line}: {rest!r} is not closed")
            token = match[0]
            place = match.end()
            if match["word"] is not None:
                self.add_word(token, self.text[place : place + 1])
            elif match["operator"] is not None:
                self.add_operator(token)
            self.line += token.count("\n")
            if token == "\n" and self.here_documents:
                place = self.read_here_documents(place)
        self.end_command(ends_pipeline=True)
        return [pipeline for pipeline in self.pipelines if pipeline]

    def add_word(self, word, next_character):
        if self.redirection:
            self.command.redirections.append((self.redirection, word))
            if self.redirection in ("<<", "<<-"):
                self.here_documents.append((self.command, self.redirection, bare(word)))
            self.redirection = None
        elif word.isdecimal() and next_character in ("<", ">"):
            return  # The number of a redirection, as in 2>.
        else:
            if not self.command.words:
                self.command.line = self.line
            self.command.words.append(word)

    def add_operator(self, operator):
        if operator in REDIRECTIONS:
            self.redirection = operator
            return
        self.redirection = None
        self.end_command(ends_pipeline=operator not in ("|", "|&"))

    def end_command(self, ends_pipeline):
        words = self.command.words
        while words and words[0] in OPENING:
            del words[0]
        if words or self.command.redirections:
            self.pipelines[-1].append(self.command)
        self.command = Command(self.line)
        if ends_pipeline and self.pipelines[-1]:
            self.pipelines.append([])

    def read_here_documents(self, place):
        """Gives the lines from `place` on to the commands that wait; returns the place after."""
        for command, operator, end in self.here_documents:
            lines = re.findall(r".*\n|.+", self.text[place:])
            length = len(lines)
            for number, line in enumerate(lines):
                content = line.rstrip("\r\n")
                if operator == "<<-":
                    content = content.lstrip("\t")
                if content == end:
                    length = number
                    break
            command.body = "".join(lines[:length])
            place += len("".join(lines[: length + 1]))
            self.line += length + 1
        self.here_documents = []
        self.command.line = self.line
        return place


def substitutions(word):
    """The commands inside $( ), <( ), >( ) and backticks of a word: a list of texts."""
    pattern = rf"(?<!\\)[$<>](?!\(\()({_DEEP})|`((?:[^`\\]|\\.)*)`"
    commands = []
    for in_brackets, in_backticks in re.findall(pattern, bare(word)):
        if in_brackets:
            commands.append(in_brackets[1:-1])
        else:
            commands.append(in_backticks.replace("\\`", "`"))
    return commands


def unwrap(words):
    """The command behind assignments, sudo, env, ...: (its name, its other words)."""
    words = list(words)
    while words:
        name = Path(words[0]).name
        if ASSIGNMENT.fullmatch(words[0]):
            del words[0]
        elif name in PREFIXES:
            del words[0]
            skip_options(words, name)
        else:
            return name, words[1:]
    return "", []


def skip_options(words, prefix):
    """Removes the options of sudo, env, ... from the front of the words, in place."""
    valued = PREFIXES[prefix].split()
    while words and re.match("-.", words[0]):
        option = words.pop(0)
        split_string = re.fullmatch("-S(.*)|--split-string=(.*)", option)
        if prefix == "env" and split_string:
            command = split_string[1] or split_string[2]
            if not command and words:
                command = words.pop(0)
            words[:0] = (command or "").split()
        elif takes_next(option, valued) and words:
            del words[0]
    if prefix == "timeout" and words:  # The duration.
        del words[0]


def takes_next(option, valued):
    """Whether the value of an option is the next word: of -iu it is, of -uroot it is not."""
    if option.startswith("--"):
        return option in valued
    for place, letter in enumerate(option):
        if f"-{letter}" in valued:
            return place == len(option) - 1
    return False


def target_last(operands):
    """The words of mv or cp with the folder of -t, if there is one, at the end."""
    words = list(operands)
    for i, word in enumerate(words):
        if word == "--":
            break
        match = re.fullmatch(r"--target-directory=(.+)|(?:-[a-zA-Z]*?t)(.+)", word)
        if match:
            return [*words[:i], *words[i + 1 :], match[1] or match[2]]
        if re.fullmatch(r"--target-directory|-[a-zA-Z]*t", word) and words[i + 1 :]:
            return [*words[:i], *words[i + 2 :], words[i + 1]]
    return words
