"""Reads a command line or a shell script and warns of the accidents of post 4491. Runs nothing.

python linux_undelete/check.py 'mv a /* b'          # one command line, in quotes
python linux_undelete/check.py --script backup.sh   # a script; - is standard input
python linux_undelete/check.py --json --script backup.sh

Exit code: 0 nothing found, 1 something found, 2 cannot be read. Warned of are: a blank before /*,
a variable that may be empty before a slash, dd and > onto a disk, mkfs of a mounted one, a file
that is emptied before it is read, find -delete before its tests, and rm of /, ~ or a system
folder. No warning does not mean that a command is safe.
"""

import argparse
import itertools
import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

from common.run import fail, run_script
from linux_undelete.shell import (
    ASSIGNMENT,
    bare,
    parse,
    reveal,
    substitutions,
    target_last,
    unwrap,
)

SYSTEM = "usr|etc|(?:usr/)?(?:s?bin|lib(?:32|64|x32)?)|home|var|boot|dev|proc|sys|root|opt"
SYSTEM += "|Users|System|Library|Applications"
# / or all that lies in it.
ROOT = re.compile(r"/+(\.{1,2}/+)*\.{0,2}((\.?\*+|\.\[[^/]*\]\*|\.\?\*?)/*)?")
SYSTEM_FOLDER = re.compile(rf"/+({SYSTEM})(/+\.?\**)?/*")
HOME = re.compile(r"(~|\$HOME|\$\{HOME\})(/+\.?\**)?/*")
DISKS = r"r?disk\d|[shv]d[a-z]|xvd[a-z]|nvme\d|mmcblk\d|md\d|dm-\d|loop\d|nbd\d|mapper/|disk/"
DISK = re.compile(rf"/dev/({DISKS}|[\w.-]*vg[\w.-]*/)")
VARIABLE = re.compile(r"\$\{([!#]?)(\w+|[@*#?$!-])([^}]*)\}|\$(\w+|[@*#?$!-])")
ALWAYS_SET = {"HOME", "PWD", "USER", "SHELL", "PATH", "RANDOM", "HOSTNAME", "UID", "EUID", "PPID"}
ALWAYS_SET |= {"#", "?", "$", "!", "-", "0", "BASH_SOURCE", "LINENO", "SECONDS"}
DECLARING = {"export", "local", "declare", "readonly", "typeset"}
READERS = (
    "cat sort sed awk gawk grep egrep fgrep cut head tail uniq nl tac rev fold fmt iconv jq diff "
    "comm join paste column gzip zcat base64 envsubst wc"
)
FIRST_IS_NO_FILE = {"sed", "awk", "gawk", "grep", "egrep", "fgrep", "jq"}
NO_TESTS = {"-type", "-xdev", "-mount", "-depth", "-d", "-follow", "-print", "-print0", "-ls"}
TESTS = (
    "-name -iname -path -ipath -regex -iregex -type -size -mtime -mmin -atime -amin -ctime -cmin "
    "-newer -user -group -perm -empty -links -samefile -inum"
)
FILLED = "\ufffc"  # Stands for what a variable or a command gives.
BLANK = "a blank before the slash or star makes it an argument of its own: everything in "
LOOK = "print it first: put echo before the command, or ls in its place"


class Finding(NamedTuple):
    line: int
    command: str
    problem: str
    why: str
    safer: str


class Script:
    """What is known of a script's variables up to a line, and the warnings so far."""

    def __init__(self, mounts):
        self.mounts, self.known, self.emptied = mounts, set(ALWAYS_SET), set()
        self.nounset, self.warnings = False, []

    def may_be_empty(self, name, modifier=""):
        default = re.match(r":?[-=](.*)", modifier)
        if re.match(r":?[?]", modifier) or (default and self.when_empty(bare(default[1]))[0]):
            return False
        if self.nounset and not default:  # There ${D:-} may be empty without an error.
            return name in self.emptied
        return name not in self.known

    def when_empty(self, text):
        """The text with every variable that may be empty left out, and their names."""
        empty = []

        def value(match):
            name, modifier = match[2] or match[4], match[3] or ""
            if name == "HOME" and not modifier:
                return match[0]
            if match[1] == "#" or not self.may_be_empty(name, modifier):
                return FILLED
            empty.append("$" + name)
            return ""

        for inside in substitutions(text):
            text = text.replace(f"$({inside})", FILLED).replace(f"`{inside}`", FILLED)
        return VARIABLE.sub(value, text), empty

    def ask(self, words):
        """Remembers which variables a command asks for, as ${D:?}."""
        for word in words:
            for _, name, modifier, _ in VARIABLE.findall(bare(word)):
                if re.match(r":?([?]|=.)", modifier):
                    self.known.add(name)
                    self.emptied.discard(name)

    def note(self, words):
        """Remembers what a command says of variables: set or tested."""
        texts = [bare(word) for word in words]
        name = texts[0]
        if name in ("[", "test", "[[", "case"):
            for match in VARIABLE.finditer(" ".join(texts)):
                tested = match[2] or match[4]
                self.known |= {str(i) for i in range(1, 10)} if tested in "#@*" else {tested}
        elif name == "set":
            for flag, value in itertools.pairwise([*texts, ""]):
                if re.match("[-+][a-z]*u", flag) or (flag[1:] == "o" and value == "nounset"):
                    self.nounset = flag[0] == "-"
        elif name in ("for", "select") and len(texts) > 1:
            self.known.add(texts[1])
        elif name in ("read", "unset"):
            self.known -= set(texts[1:])
        for word, text in zip(words, texts, strict=True):
            match = ASSIGNMENT.fullmatch(text)
            if not match:
                if name not in DECLARING:
                    break
                continue
            filled = self.when_empty(match[3])[0] or "=(" in word
            if filled:
                self.known.add(match[1])
                self.emptied.discard(match[1])
            elif not match[2]:
                self.known.discard(match[1])
                self.emptied.add(match[1])

    def warn(self, command, problem, why, safer):
        words = " ".join(command.words + [f"{a} {b}" for a, b in command.redirections])
        found = Finding(command.line, words, reveal(problem), reveal(why), safer)
        if found not in self.warnings:
            self.warnings.append(found)

    def read(self, text, line=1, depth=0):
        for pipeline in parse(text, line) if depth < 5 else ():
            for command in pipeline:
                words = [bare(word) for word in command.words]
                for word in command.words:
                    for inside in substitutions(word):
                        self.read(inside, command.line, depth + 1)
                name, operands = unwrap(words)
                self.ask(command.words)
                self.check(command, name, operands)
                self.note(command.words or ["true"])
                if name in ("sh", "bash", "dash", "ash", "zsh", "ksh", "su"):
                    pairs = itertools.pairwise(operands)
                    inner = [text for flag, text in pairs if re.match("-[a-z]*c$", flag)]
                    self.read(reveal(inner[0]) if inner else command.body, command.line, depth + 1)
                elif name in ("eval", "trap") and operands:
                    self.read(reveal(operands[0]), command.line, depth + 1)
            self.check_overwritten(pipeline)

    def check(self, command, name, operands):
        operands = target_last(operands) if name in ("mv", "cp") else operands
        options = [word for word in operands if re.match("-.", word)]
        paths = [word for word in operands if not re.match("-.", word)]
        letters = "".join(word for word in options if not word.startswith("--"))
        recursive = "--recursive" in options or "r" in letters or "R" in letters
        if name in ("rm", "mv", "cp", "chmod", "chown", "chgrp", "shred"):
            self.check_paths(command, name, paths, recursive)
        elif name == "find":
            self.check_find(command, operands)
        targets = [bare(word) for operator, word in command.redirections if ">" in operator]
        if name == "dd":
            targets += [word[3:] for word in operands if word.startswith("of=")]
        elif name in ("tee", "cp", "mv"):
            targets += paths if name == "tee" else paths[-1:]
        for target in targets:
            if DISK.match(target):
                where = self.mounted(target)
                self.warn(
                    command,
                    f"writes over the disk {target}" + (f", mounted at {where}" if where else ""),
                    "what was on it is gone from the first byte on, and grep finds no phrase there",
                    f"lsblk -o NAME,SIZE,MODEL,MOUNTPOINTS {target} shows which disk this is",
                )
        if re.match(r"mkfs|mke2fs$|mkswap$|mkntfs$|wipefs$|blkdiscard$|shred$", name):
            for path in paths:
                if where := self.mounted(path):
                    problem = f"{name} of {path}, which is mounted at {where}"
                    self.warn(command, problem, "it is in use", "umount it, and look with lsblk")
        if name == "mv" and paths[-1:] == ["/dev/null"]:
            why = "/dev/null becomes a plain file, and what was moved is lost"
            self.warn(command, "moves a file over /dev/null", why, "rm, or > /dev/null")

    def check_paths(self, command, name, paths, recursive):
        mode = name in ("chmod", "chown", "chgrp")
        deep = recursive or name in ("mv", "shred")
        moved = paths[:-1] if name in ("mv", "cp") else paths
        for place, path in enumerate(moved):
            text, empty = self.when_empty(path)
            everything, one = ROOT.fullmatch(text), SYSTEM_FOLDER.fullmatch(text)
            star = text.rstrip("/").endswith("*")
            if empty and (everything or (one and name != "cp")) and (deep or star):
                shown = " ".join([name, text])
                self.warn(
                    command,
                    f"{', '.join(dict.fromkeys(empty))} may be empty, and then this is {shown}",
                    "an unset variable is an empty text, and no error",
                    f"write ${{{empty[0][1:]}:?}}, or set -u at the top",
                )
            elif empty or (name == "cp" and not (everything and place and star)):
                continue
            elif everything and (deep or (star and name in ("rm", "cp"))):
                self.warn(command, f"{name} of {path}, everything there is", BLANK + "/", LOOK)
            elif one and (deep or (star and name == "rm")):
                self.warn(command, f"{name} of the system folder {path}", BLANK + path, LOOK)
            elif HOME.fullmatch(path) and (deep or (star and name == "rm")) and not mode:
                self.warn(command, f"{name} of your home folder", BLANK + path, LOOK)
        for first, second in itertools.pairwise(paths):
            folder = re.search("[^/]/$", first) and second == "*" and name in ("rm", "mv")
            ending = first == "*" and re.match(r"\.\w|~$", second) and name == "rm"
            if folder or ending:
                problem = f"a blank inside {first}{second}"
                self.warn(command, problem, f"{first} and {second} are two arguments", LOOK)

    def check_find(self, command, words):
        starts = next((i for i, w in enumerate(words) if re.match(r"[-(!]", w)), len(words))
        acts = "-exec", "-execdir", "-ok", "-okdir"
        rm = [w in acts and unwrap(words[i + 1 :])[0] == "rm" for i, w in enumerate(words)]
        kills = [i for i, word in enumerate(words) if word == "-delete" or rm[i]]
        tests = [i for i, word in enumerate(words) if word in TESTS.split()]
        if kills and tests and kills[0] < tests[0]:
            why = "find reads from left to right: it deletes each file before it looks at the test"
            safer = "the tests first, -delete last; run it with -print in its place"
            self.warn(command, f"find deletes before {words[tests[0]]}", why, safer)
        chosen = {w for w in words[starts : kills[0]] if re.match("-[a-z]", w)} if kills else set()
        for path in words[:starts] if kills else ():
            text, empty = self.when_empty(path)
            whole = ROOT.fullmatch(text) or SYSTEM_FOLDER.fullmatch(text) or HOME.fullmatch(text)
            if whole and (empty or chosen <= NO_TESTS):
                what = f"{', '.join(empty)} may be empty, and then find" if empty else "find"
                self.warn(command, f"{what} deletes from {text} on", "it goes everywhere", LOOK)

    def check_overwritten(self, pipeline):
        """A file that > empties before a command of the same pipeline reads it."""
        sources, targets = [], []
        for command in pipeline:
            name, operands = unwrap([bare(word) for word in command.words])
            files = [word for word in operands if not re.match("-.", word)]
            given = any(word in ("-e", "-f", "--file", "--expression") for word in operands)
            if name in FIRST_IS_NO_FILE and not given:
                files = files[1:]
            sources += files if name in READERS.split() else []
            for operator, word in command.redirections:
                if operator in (">", ">|", "&>"):
                    targets.append((command, bare(word)))
                elif operator == "<":
                    sources.append(bare(word))
            if name == "tee" and "-a" not in operands:
                targets += [(command, file) for file in files]
        read = {os.path.normpath(source) for source in sources}
        for command, target in targets:
            if os.path.normpath(target) in read and not target.startswith("/dev/"):
                self.warn(
                    command,
                    f"{target} is emptied before it is read",
                    "the shell opens the target of > first, so the command reads an empty file",
                    f"write to another name, then mv it to {target} (sort has -o, sed has -i)",
                )

    def mounted(self, device):
        """Where the device or one of its partitions is mounted, or None."""
        device = os.path.realpath(device) if device.startswith("/dev/disk/") else device
        for name, point in self.mounts:
            if re.fullmatch(re.escape(device) + r"(p?\d+)?", name):
                return point
        return None


def read_mounts(path="/proc/mounts"):
    """[(device, where it is mounted)], empty where the system does not say."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []
    return [tuple(line.split()[:2]) for line in lines if line.startswith("/dev/")]


def check_text(text, mounts=None):
    """The warnings for a command line or script, by line; ValueError if it is not shell."""
    script = Script(read_mounts() if mounts is None else mounts)
    script.nounset = bool(re.match(r"#!.*\s-\w*u", text))
    script.read(text)
    return sorted(script.warnings, key=lambda warning: warning.line)


def read_script(name):
    """The text of a shell script, or one clear line."""
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        fail(f"cannot read {name}: {error.strerror}")
    except UnicodeDecodeError:
        fail(f"{name} is no text in UTF-8")
    if re.match(r"#!(?!.*\b(sh|bash|dash|ksh|zsh|ash)\b)", text):
        fail(f"{name} is no shell script: it begins with {text.splitlines()[0]}")
    return text


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("command", nargs=argparse.REMAINDER, help="a command line, best as one quoted text")
    add("--script", nargs="+", metavar="FILE", help="shell scripts; - is stdin")
    add("--json", action="store_true", help="one JSON object a warning")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    words, found = args.command[args.command[:1] == ["--"] :], 0
    if words[1:] == ["--json"] and " " in words[0]:  # Behind a quoted command it is ours.
        args.json = bool(words.pop())
    if bool(words) == bool(args.script) or (len(words) > 1 and " " in words[0]):
        fail("give one command line in quotes, or --script FILE")
    texts = {"command line": words[0] if len(words) == 1 else shlex.join(words)}
    if args.script:
        texts = {name: read_script(name) for name in args.script}
    for name, text in texts.items():
        try:
            warnings = check_text(text)
        except ValueError as error:
            fail(f"{name}:{error}")
        found += len(warnings)
        for warning in warnings:
            if args.json:
                print(json.dumps({"file": name} | warning._asdict(), ensure_ascii=False))
            else:
                print(f"{name}:{warning.line}: warning: {warning.problem}")
                print(f"    {warning.command}\n    why: {warning.why}\n    safer: {warning.safer}")
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    run_script(main)
