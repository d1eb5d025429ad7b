"""Reads a command line or a shell script and warns of the accidents of post 4491. Runs nothing.

python linux_undelete/check.py 'mv a /* b'          # one command line, in quotes
python linux_undelete/check.py --script backup.sh   # a script; - is standard input
python linux_undelete/check.py --json --script backup.sh

Exit code: 0 nothing found, 1 something found, 2 cannot be read. It warns of a space before /*, a
variable that may be empty before a slash, dd and > onto a disk, mkfs of a mounted one, a file that
is emptied before it is read, find -delete before its tests, and rm of /, ~ or a system folder. No
warning does not mean that a command is safe.
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

from common import cli
from common.cli import fail
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
SET_BY_THE_SHELL = {"#", "?", "$", "!", "-", "0", "BASH_SOURCE", "LINENO", "SECONDS", "RANDOM"}
SET_BY_THE_LOGIN = {"HOME", "PWD", "USER", "SHELL", "PATH", "HOSTNAME", "UID", "EUID", "PPID"}
ALWAYS_SET = SET_BY_THE_SHELL | SET_BY_THE_LOGIN
DECLARING = {"export", "local", "declare", "readonly", "typeset"}
SHELLS = {"sh", "bash", "dash", "ash", "zsh", "ksh", "su"}
TESTING = {"[", "test", "[[", "case"}
READERS = {
    "cat",
    "sort",
    "sed",
    "awk",
    "gawk",
    "grep",
    "egrep",
    "fgrep",
    "cut",
    "head",
    "tail",
    "uniq",
    "nl",
    "tac",
    "rev",
    "fold",
    "fmt",
    "iconv",
    "jq",
    "diff",
    "comm",
    "join",
    "paste",
    "column",
    "gzip",
    "zcat",
    "base64",
    "envsubst",
    "wc",
}
FIRST_IS_NO_FILE = {"sed", "awk", "gawk", "grep", "egrep", "fgrep", "jq"}
GIVES_THE_FIRST = {"-e", "-f", "--file", "--expression"}
# Tests of find that choose nothing.
NO_TESTS = {"-type", "-xdev", "-mount", "-depth", "-d", "-follow", "-print", "-print0", "-ls"}
TESTS = {
    "-name",
    "-iname",
    "-path",
    "-ipath",
    "-regex",
    "-iregex",
    "-type",
    "-size",
    "-mtime",
    "-mmin",
    "-atime",
    "-amin",
    "-ctime",
    "-cmin",
    "-newer",
    "-user",
    "-group",
    "-perm",
    "-empty",
    "-links",
    "-samefile",
    "-inum",
}
ACTIONS = {"-exec", "-execdir", "-ok", "-okdir"}
MAX_DEPTH = 5  # Of commands within commands.
FILLED = "\ufffc"  # Stands for what a variable or a command gives.
SPACE = "a space before the slash or star makes it an argument of its own: everything in "
LOOK = "print it first: put echo before the command, or ls in its place"


class Finding(NamedTuple):
    line: int
    command: str
    problem: str
    why: str
    safer: str


class Variables:
    """What is known of a script's variables up to a line.

    Attributes:
        known: the names of those that are not empty.
        emptied: the names of those that were set to an empty text.
        nounset: whether an unset variable is an error (set -u).
    """

    def __init__(self, nounset):
        self.known = set(ALWAYS_SET)
        self.emptied = set()
        self.nounset = nounset

    def may_be_empty(self, name, modifier=""):
        """Whether a variable may be empty.

        Args:
            modifier: what follows the name in ${NAME...}, such as ":-default".
        """
        if re.match(r":?[?]", modifier):
            return False
        default = re.match(r":?[-=](.*)", modifier)
        if default:
            text, _ = self.when_empty(bare(default[1]))
            if text:
                return False
        elif self.nounset:  # Only ${NAME:-} may be unset there without an error.
            return name in self.emptied
        return name not in self.known

    def when_empty(self, text):
        """The text without every variable that may be empty, and the names of these."""
        empty = []

        def value(match):
            name = match[2] or match[4]
            modifier = match[3] or ""
            if name == "HOME" and not modifier:
                return match[0]
            if match[1] == "#" or not self.may_be_empty(name, modifier):
                return FILLED
            empty.append("$" + name)
            return ""

        for command in substitutions(text):
            text = text.replace(f"$({command})", FILLED)
            text = text.replace(f"`{command}`", FILLED)
        return VARIABLE.sub(value, text), empty

    def set_filled(self, name):
        self.known.add(name)
        self.emptied.discard(name)

    def set_empty(self, name):
        self.known.discard(name)
        self.emptied.add(name)

    def note_required(self, words):
        """Remembers which variables a command requires, as ${D:?} does."""
        for word in words:
            for _, name, modifier, _ in VARIABLE.findall(bare(word)):
                if re.match(r":?([?]|=.)", modifier):
                    self.set_filled(name)

    def note_command(self, words):
        """Remembers what a command says of variables: which ones are set or tested."""
        texts = [bare(word) for word in words]
        name = texts[0]
        if name in TESTING:
            self.note_tested(" ".join(texts))
        elif name == "set":
            self.note_options(texts)
        elif name in ("for", "select") and len(texts) > 1:
            self.known.add(texts[1])
        elif name in ("read", "unset"):
            self.known -= set(texts[1:])
        for word, text in zip(words, texts, strict=True):
            assignment = ASSIGNMENT.fullmatch(text)
            if assignment:
                self.note_assignment(word, assignment)
            elif name not in DECLARING:
                break

    def note_tested(self, text):
        for match in VARIABLE.finditer(text):
            tested = match[2] or match[4]
            if tested in "#@*":  # The number of arguments.
                self.known |= {str(i) for i in range(1, 10)}
            else:
                self.known.add(tested)

    def note_options(self, texts):
        """What `set -u`, `set +u` and `set -o nounset` do."""
        for flag, value in itertools.pairwise([*texts, ""]):
            if re.match("[-+][a-z]*u", flag) or (flag[1:] == "o" and value == "nounset"):
                self.nounset = flag[0] == "-"

    def note_assignment(self, word, assignment):
        name, is_added, value = assignment.groups()
        text, _ = self.when_empty(value)
        if text or "=(" in word:
            self.set_filled(name)
        elif not is_added:
            self.set_empty(name)


class Script:
    """Reads a script, and keeps the warnings so far."""

    def __init__(self, mounts, nounset=False):
        self.mounts = mounts
        self.variables = Variables(nounset)
        self.warnings = []

    def warn(self, command, problem, why, safer):
        words = [*command.words]
        for operator, word in command.redirections:
            words.append(f"{operator} {word}")
        finding = Finding(command.line, " ".join(words), reveal(problem), reveal(why), safer)
        if finding not in self.warnings:
            self.warnings.append(finding)

    def read(self, text, line=1, depth=0):
        if depth >= MAX_DEPTH:
            return
        for pipeline in parse(text, line):
            for command in pipeline:
                self.read_command(command, depth)
            self.check_overwritten(pipeline)

    def read_command(self, command, depth):
        for word in command.words:
            for inner in substitutions(word):
                self.read(inner, command.line, depth + 1)
        name, operands = unwrap([bare(word) for word in command.words])
        self.variables.note_required(command.words)
        self.check(command, name, operands)
        self.variables.note_command(command.words or ["true"])
        if name in SHELLS:
            self.read(script_of_shell(command, operands), command.line, depth + 1)
        elif name in ("eval", "trap") and operands:
            self.read(reveal(operands[0]), command.line, depth + 1)

    # --- One command ---
    def check(self, command, name, operands):
        if name in ("mv", "cp"):
            operands = target_last(operands)
        options = [word for word in operands if re.match("-.", word)]
        paths = [word for word in operands if not re.match("-.", word)]
        letters = "".join(word for word in options if not word.startswith("--"))
        is_recursive = "--recursive" in options or "r" in letters or "R" in letters
        if name in ("rm", "mv", "cp", "chmod", "chown", "chgrp", "shred"):
            self.check_paths(command, name, paths, is_recursive)
            self.check_spaces(command, name, paths)
        elif name == "find":
            self.check_find(command, operands)
        self.check_disks(command, written_files(command, name, operands, paths))
        if re.match(r"mkfs|mke2fs$|mkswap$|mkntfs$|wipefs$|blkdiscard$|shred$", name):
            self.check_formatting(command, name, paths)
        if name == "mv" and paths[-1:] == ["/dev/null"]:
            why = "/dev/null becomes a plain file, and what was moved is lost"
            self.warn(command, "moves a file over /dev/null", why, "rm, or > /dev/null")

    def check_paths(self, command, name, paths, is_recursive):
        """Warns where /, a system folder or the home folder is removed, moved or changed."""
        goes_deep = is_recursive or name in ("mv", "shred")
        if name in ("mv", "cp"):
            paths = paths[:-1]
        for place, path in enumerate(paths):
            text, empty = self.variables.when_empty(path)
            is_root = ROOT.fullmatch(text)
            is_system = SYSTEM_FOLDER.fullmatch(text)
            has_star = text.rstrip("/").endswith("*")
            if empty:
                is_wide = is_root or (is_system and name != "cp")
                if is_wide and (goes_deep or has_star):
                    self.warn_of_empty(command, empty, f"{name} {text}")
                continue
            if name == "cp" and not (is_root and place > 0 and has_star):
                continue
            removes_star = has_star and name == "rm"
            is_home = HOME.fullmatch(path) and name not in ("chmod", "chown", "chgrp")
            if is_root and (goes_deep or removes_star or (has_star and name == "cp")):
                self.warn(command, f"{name} of {path}, everything there is", SPACE + "/", LOOK)
            elif is_system and (goes_deep or removes_star):
                self.warn(command, f"{name} of the system folder {path}", SPACE + path, LOOK)
            elif is_home and (goes_deep or removes_star):
                self.warn(command, f"{name} of your home folder", SPACE + path, LOOK)

    def warn_of_empty(self, command, empty, shown):
        names = ", ".join(dict.fromkeys(empty))
        self.warn(
            command,
            f"{names} may be empty, and then this is {shown}",
            "an unset variable is an empty text, and no error",
            f"write ${{{empty[0][1:]}:?}}, or set -u at the top",
        )

    def check_spaces(self, command, name, paths):
        """Warns of a space inside a path, as in `rm -r build/ *` and `rm * .o`."""
        for first, second in itertools.pairwise(paths):
            in_folder = re.search("[^/]/$", first) and second == "*" and name in ("rm", "mv")
            in_ending = first == "*" and re.match(r"\.\w|~$", second) and name == "rm"
            if in_folder or in_ending:
                problem = f"a space inside {first}{second}"
                self.warn(command, problem, f"{first} and {second} are two arguments", LOOK)

    def check_find(self, command, words):
        """Warns where find deletes before its tests, or everywhere."""
        deletions = []
        for place, word in enumerate(words):
            runs_rm = word in ACTIONS and unwrap(words[place + 1 :])[0] == "rm"
            if word == "-delete" or runs_rm:
                deletions.append(place)
        if not deletions:
            return
        tests = [place for place, word in enumerate(words) if word in TESTS]
        if tests and deletions[0] < tests[0]:
            why = "find reads from left to right: it deletes each file before it looks at the test"
            safer = "the tests first, -delete last; run it with -print in its place"
            self.warn(command, f"find deletes before {words[tests[0]]}", why, safer)
        num_paths = len(words)
        for place, word in enumerate(words):
            if re.match(r"[-(!]", word):
                num_paths = place
                break
        before_deletion = words[num_paths : deletions[0]]
        chosen = {word for word in before_deletion if re.match("-[a-z]", word)}
        for path in words[:num_paths]:
            text, empty = self.variables.when_empty(path)
            is_wide = ROOT.fullmatch(text) or SYSTEM_FOLDER.fullmatch(text) or HOME.fullmatch(text)
            if is_wide and (empty or chosen <= NO_TESTS):
                subject = "find"
                if empty:
                    subject = f"{', '.join(empty)} may be empty, and then find"
                problem = f"{subject} deletes from {text} on"
                self.warn(command, problem, "it goes everywhere", LOOK)

    def check_disks(self, command, targets):
        """Warns where a command writes onto a disk."""
        for target in targets:
            if not DISK.match(target):
                continue
            problem = f"writes over the disk {target}"
            folder = self.mounted(target)
            if folder:
                problem += f", mounted at {folder}"
            self.warn(
                command,
                problem,
                "what was on it is gone from the first byte on, and grep finds no phrase there",
                f"lsblk -o NAME,SIZE,MODEL,MOUNTPOINTS {target} shows which disk this is",
            )

    def check_formatting(self, command, name, paths):
        """Warns where a mounted device is formatted."""
        for path in paths:
            folder = self.mounted(path)
            if folder:
                problem = f"{name} of {path}, which is mounted at {folder}"
                self.warn(command, problem, "it is in use", "umount it, and look with lsblk")

    def mounted(self, device):
        """Where the device or one of its partitions is mounted, or None."""
        if device.startswith("/dev/disk/"):
            device = os.path.realpath(device)
        for name, folder in self.mounts:
            if re.fullmatch(re.escape(device) + r"(p?\d+)?", name):
                return folder
        return None

    # --- One pipeline ---
    def check_overwritten(self, pipeline):
        """Warns of a file that > empties before a command of the same pipeline reads it."""
        sources = []
        targets = []  # (command, file)
        for command in pipeline:
            name, operands = unwrap([bare(word) for word in command.words])
            files = files_of(name, operands)
            if name in READERS:
                sources += files
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


def script_of_shell(command, operands):
    """What `sh -c TEXT` runs, or the here-document that a shell reads."""
    for flag, text in itertools.pairwise(operands):
        if re.match("-[a-z]*c$", flag):
            return reveal(text)
    return reveal(command.body)


def written_files(command, name, operands, paths):
    """The files that a command writes to."""
    targets = [bare(word) for operator, word in command.redirections if ">" in operator]
    if name == "dd":
        targets += [word[3:] for word in operands if word.startswith("of=")]
    elif name == "tee":
        targets += paths
    elif name in ("cp", "mv"):
        targets += paths[-1:]
    return targets


def files_of(name, operands):
    """The operands that are files: sed and some others take a program first."""
    files = [word for word in operands if not re.match("-.", word)]
    if name in FIRST_IS_NO_FILE and not GIVES_THE_FIRST & set(operands):
        return files[1:]
    return files


# --- Scripts ---
def read_mounts(path="/proc/mounts"):
    """[(device, where it is mounted)], empty where the system does not say."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []
    return [tuple(line.split()[:2]) for line in lines if line.startswith("/dev/")]


def check_text(text, mounts=None):
    """The warnings for a command line or script, by line; ValueError if it is not shell."""
    if mounts is None:
        mounts = read_mounts()
    script = Script(mounts, nounset=bool(re.match(r"#!.*\s-\w*u", text)))
    script.read(text)
    return sorted(script.warnings, key=lambda warning: warning.line)


def read_script(name):
    """The text of a shell script, or one clear line."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read()
        else:
            data = Path(name).read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        fail(f"cannot read {name}: {error.strerror}")
    except UnicodeDecodeError:
        fail(f"{name} is not a text in UTF-8")
    if re.match(r"#!(?!.*\b(sh|bash|dash|ksh|zsh|ash)\b)", text):
        fail(f"{name} is not a shell script: it begins with {text.splitlines()[0]}")
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
    num_warnings = 0
    for name, text in texts_to_check(args).items():
        try:
            warnings = check_text(text)
        except ValueError as error:
            fail(f"{name}:{error}")
        num_warnings += len(warnings)
        for warning in warnings:
            print_warning(name, warning, args.json)
    raise SystemExit(1 if num_warnings > 0 else 0)


def texts_to_check(args):
    """{name: text} of the command line or of the scripts."""
    words = args.command
    if words[:1] == ["--"]:
        words = words[1:]
    if words[1:] == ["--json"] and " " in words[0]:  # After a quoted command it is our flag.
        args.json = True
        words = words[:1]
    if bool(words) == bool(args.script) or (len(words) > 1 and " " in words[0]):
        fail("give one command line in quotes, or --script FILE")
    if args.script:
        return {name: read_script(name) for name in args.script}
    if len(words) == 1:
        return {"command line": words[0]}
    return {"command line": shlex.join(words)}


def print_warning(name, warning, as_json):
    if as_json:
        print(json.dumps({"file": name, **warning._asdict()}, ensure_ascii=False))
    else:
        print(f"{name}:{warning.line}: warning: {warning.problem}")
        print(f"    {warning.command}\n    why: {warning.why}\n    safer: {warning.safer}")


if __name__ == "__main__":
    cli.run(main)
