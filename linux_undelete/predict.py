"""Gets a deleted text back from a disk or an image, by a phrase that you remember.

    python linux_undelete/predict.py                # a demo on an image of its own
    python linux_undelete/predict.py --image /dev/sda5 --phrase "def load_config" --out usb/found
    python linux_undelete/predict.py --image a.img --phrase 恢复误删 --phrase grep --out found
    python linux_undelete/predict.py --image a.img --phrase TEXT --lines-before 5 --lines-after 10
    python linux_undelete/predict.py --image a.img --browse --out found  # no phrase remembered
    python linux_undelete/predict.py --open-files --out rescued  # deleted, but open somewhere

Stop writing to the disk first. The disk is only read, and --out must lie on another one. Phrases
need neither Keras nor a trained model. A disk needs root: sudo .venv/bin/python -B.
Open found/index.html, best guess first.
"""

import argparse
import contextlib
import json
import os
import stat
import sys
import tempfile
import time
from pathlib import Path

from common import cli
from common.cli import note
from linux_undelete import check
from linux_undelete.undelete import scan
from linux_undelete.undelete.browse import browse, make_classifier
from linux_undelete.undelete.demo import PHRASES, write_demo_image
from linux_undelete.undelete.devices import check_output
from linux_undelete.undelete.disk import Disk
from linux_undelete.undelete.extent import grow_best
from linux_undelete.undelete.open_files import show_open_files
from linux_undelete.undelete.recovery import Recovery, unbroken
from linux_undelete.undelete.report import describe, excerpt, printable, write_index

WINDOW = 64 << 10  # Bytes on either side of a hit in which its neighbouring lines are looked for.
DEFAULT_LIMIT = 1000
MAX_SHOWN_GROUPS = 20
MAX_SHOWN_VERSIONS = 5


# --- Flags ---
def parse_args(argv=None):
    parser = cli.parser_of_predict(__doc__)
    add = parser.add_argument
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--image", type=Path, metavar="DISK_OR_IMAGE", help="a block device or an image file"
    )
    mode.add_argument(
        "--open-files", action="store_true", help="copies deleted files that are still open"
    )
    mode.add_argument(
        "--check", metavar="COMMAND", help="warns of accidents in a command line, runs nothing"
    )
    sought = parser.add_mutually_exclusive_group()
    sought.add_argument(
        "--phrase", action="append", default=[], metavar="TEXT", help="may be given several times"
    )
    sought.add_argument(
        "--browse", action="store_true", help="lists every text, where no phrase is remembered"
    )
    add("--out", type=Path, metavar="DIR", help="a new folder, on another disk")
    add(
        "--regex", action="store_true", help="phrases are regular expressions (of bytes, 4096 long)"
    )
    add(
        "--encodings",
        nargs="+",
        choices=scan.ENCODINGS,
        metavar="ENCODING",
        help=f"default: {' '.join(scan.ENCODINGS)}",
    )
    add("--resume", action="store_true", help="continue a scan that was stopped")
    add("--limit", type=cli.positive_int, help="at most so many texts are written; default: 1000")
    add("--lines-before", type=whole_number, metavar="N", help="only print N lines before each hit")
    add("--lines-after", type=whole_number, metavar="N", help="only print N lines after each hit")
    args = parser.parse_args(argv)
    args.only_print = args.lines_before is not None or args.lines_after is not None
    check_flags(parser, args)
    return args


def whole_number(text):
    """A whole number of at least 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, not {text}")
    return number


def check_flags(parser, args):
    """Refuses flags that would do nothing beside the others, and those that are missing."""
    of_a_scan = given_flags(
        args, "phrase", "browse", "regex", "encodings", "limit", "lines_before", "lines_after"
    )
    of_a_scan += given_flags(args, "resume")
    if args.check is not None:
        refuse(
            parser, "--check only reads a command", of_a_scan + given_flags(args, "out", "run_dir")
        )
    elif args.open_files:
        others = of_a_scan + given_flags(args, "run_dir")
        refuse(parser, "--open-files looks at processes, not at a disk", others)
    elif args.image is None:
        if of_a_scan or args.out is not None:
            parser.error("--image is missing: a block device (see lsblk) or an image file")
    else:
        check_flags_of_a_scan(parser, args)


def check_flags_of_a_scan(parser, args):
    if not args.phrase and not args.browse:
        parser.error("give either a --phrase that the lost text contained, or --browse")
    if args.browse:
        refuse(
            parser,
            "--browse looks for every text",
            given_flags(args, "regex", "encodings", "lines_before", "lines_after"),
        )
    if args.run_dir is not None and not args.browse:
        parser.error("--run-dir is of --browse: a phrase needs no model")
    if args.only_print:
        refuse(
            parser,
            "--lines-before and --lines-after only print",
            given_flags(args, "out", "json", "resume", "limit"),
        )
    elif args.out is None:
        parser.error("--out is missing: a new folder on another disk than the one that is scanned")


def given_flags(args, *names):
    """Those of the flags that were given."""
    return [f"--{name.replace('_', '-')}" for name in names if is_given(getattr(args, name))]


def is_given(value):
    return value is not None and value is not False and value != []


def refuse(parser, reason, flags):
    if flags:
        parser.error(f"{reason}: leave out {', '.join(flags)}")


# --- Main ---
def main(argv=None):
    args = parse_args(argv)
    if args.check is not None:
        words = ["--", args.check]
        if args.json:
            words.insert(0, "--json")
        return check.main(words)
    if args.open_files:
        return show_open_files(args.out, args.json)
    if args.image is None:
        return demo(args.json)
    args.limit = args.limit or DEFAULT_LIMIT
    args.encodings = args.encodings or scan.ENCODINGS
    terms = ()
    finder = None
    if args.phrase:
        terms, finder = make_finder(args)
    disk = Disk(args.image)
    try:
        check_stdout(args.image, disk)
        if args.only_print:
            return print_lines(args, disk, terms, finder)
        return recover_and_show(args, disk, terms, finder)
    finally:
        disk.close()


def demo(as_json):
    """Deletes two versions of a script and a Chinese note in an image, and gets them back."""
    folder = Path(tempfile.mkdtemp(prefix="undelete-"))
    image = folder / "disk.img"
    write_demo_image(image)
    note(f"{image}: random blocks, a deleted script in two versions, its note in GBK")
    words = ["--image", str(image), "--out", str(folder / "found")]
    words += [f"--phrase={phrase}" for phrase in PHRASES]
    if as_json:
        words.append("--json")
    return main(words)


def make_finder(args):
    """(terms, finder) of the phrases or regular expressions."""
    if args.regex:
        terms = scan.compile_expressions(args.phrase, args.encodings)
        return terms, scan.Expressions([term.pattern for term in terms])
    terms = scan.encode_phrases(args.phrase, args.encodings)
    for phrase in args.phrase:
        used = {encoding for term in terms if term.phrase == phrase for encoding in term.encodings}
        missing = [encoding for encoding in args.encodings if encoding not in used]
        if missing:
            note(f"{phrase!r} is not looked for in {', '.join(missing)}: too short there, or none")
    return terms, scan.Literals([term.pattern for term in terms])


def check_stdout(image, disk):
    """Refuses output that is redirected into the image, or onto the scanned disk."""
    try:
        stdout = os.fstat(1)
    except OSError:  # It may be closed.
        return
    if stat.S_ISREG(stdout.st_mode):  # `> FILE`
        if os.path.samestat(stdout, os.fstat(disk.fd)):
            cli.fail(f"stdout would be written into {image}: choose another disk")
        check_output(image, "/dev/stdout")


# --- Printing lines, as grep does ---
def print_lines(args, disk, terms, finder):
    """The plain form of the post. Hits within lines that are already shown are not repeated."""
    shown_to = 0
    count = 0
    for _, hits in scan.scan(disk, finder):
        for offset, length, term in scan.aligned(hits, terms):
            count += 1
            if offset < shown_to:
                continue
            encoding = grow_best(disk, offset, length, term.encodings).encoding
            shown_to, text = lines_around(args, disk, offset, length, encoding)
            print(f"-- byte {offset:,}, {encoding}\n{printable(text)}")
    if count == 0:
        note("no hit")
    return count


def lines_around(args, disk, offset, length, encoding):
    """The lines of a hit, as grep -B and -A show them: (their end on the disk, text)."""
    num_before = args.lines_before or 0
    num_after = args.lines_after or 0
    low = max(offset - WINDOW, 0)
    before = disk.read(low, offset - low)
    after = disk.read(offset, length + WINDOW)
    line_end = "\n".encode(encoding)
    before = line_end.join(before.split(line_end)[-num_before - 1 :])
    after = line_end.join(after.split(line_end)[: num_after + 1])
    return offset + len(after), (before + after).decode(encoding, "replace")


# --- Recovering ---
def recover_and_show(args, disk, terms, finder):
    """Scans the disk, writes the texts, and prints them, the best one first."""
    checked = check_output(args.image, args.out)
    start = time.monotonic()
    recovery, was_stopped = recover(args, disk, terms, finder, checked)
    facts, groups = write_index(args.out, recovery.state, disk)
    show(args.out, facts, groups, args.json)
    seconds = time.monotonic() - start
    note(f"{facts['scanned_to'] / 1e6:,.0f} MB in {seconds:.2f} s")
    if was_stopped:
        note("stopped; everything found so far is kept, the same command with --resume continues")
        raise SystemExit(130)
    return groups


def recover(args, disk, terms, finder, checked):
    """Scans, or resumes a scan; returns (the Recovery, whether it was stopped)."""
    arguments = {
        "image": os.fsencode(args.image).decode("utf-8", "replace"),  # A name may be no UTF-8.
        "phrases": args.phrase,
        "regex": args.regex,
        "encodings": list(args.encodings),
        "browse": args.browse,
    }
    classify = None
    if args.browse:
        classify = make_classifier(args.run_dir)
    recovery = Recovery(disk, args.out, arguments, args.limit, args.resume)
    start = recovery.state["position"]
    was_stopped = False
    note(checked)
    with progress(disk, start) as advance:
        try:
            if args.browse:
                browse(recovery, disk, start, classify, advance)
            else:
                add_hits(recovery, scan.scan(disk, finder, start), terms, advance)
        except KeyboardInterrupt:
            was_stopped = True
    with contextlib.suppress(KeyboardInterrupt), unbroken():
        recovery.close()
    return recovery, was_stopped


def add_hits(recovery, found, terms, advance):
    """Adds the hits of a scan to the recovery."""
    for place, hits in found:
        with unbroken():
            for offset, length, term in scan.aligned(hits, terms):
                recovery.add(offset, length, term.phrase, term.encodings)
            recovery.reached(place)
        advance(place, recovery.state["hits"])


@contextlib.contextmanager
def progress(disk, start):
    """Yields a function of (place, hits) that moves a bar with bytes/s and the time left."""
    if not sys.stderr.isatty():
        yield lambda place, hits: None
        return
    from tqdm import tqdm  # Here, because it slows the start down.

    with tqdm(total=disk.size, initial=start, unit="B", unit_scale=True, desc="scanning") as bar:

        def advance(place, hits):
            bar.set_postfix(hits=hits, refresh=False)
            bar.update(place - bar.n)

        yield advance


# --- Showing ---
def show(out, facts, groups, as_json):
    """Prints the texts, the best first: as JSON, one object per line, or for people."""
    for number, group in enumerate(groups, 1):
        for version, text in enumerate(group, 1):
            if as_json:
                print(text_as_json(out, text, number, version))
            elif number <= MAX_SHOWN_GROUPS and version <= MAX_SHOWN_VERSIONS:
                print(text_for_people(out, text, number, version))
    report = sys.stderr if as_json else sys.stdout
    summary = f"{facts['hits']:,} hits, {facts['texts']:,} texts"
    if facts["hits_in_no_written_text"]:
        summary += f", {facts['hits_in_no_written_text']:,} hits in no written text (--limit)"
    print(summary, file=report)
    if facts["unreadable"]:
        print(f"unreadable: {facts['unreadable_bytes']:,} bytes", file=report)
        for low, high in facts["unreadable"][:10]:
            print(f"  bytes {low:,} to {high:,}", file=report)
    print(f"index: {out / 'index.html'}", file=report)


def text_as_json(out, text, number, version):
    before, phrase, after = excerpt(out, text, around=60)
    line = {
        **text,
        "path": str(out / text["file"]),
        "group": number,
        "version": version,
        "whole": not text["why_piece"],
        "excerpt": before + phrase + after,
    }
    return json.dumps(line, ensure_ascii=False)


def text_for_people(out, text, number, version):
    name = f"text {number}.{version}"
    if number == 1 and version == 1:
        name = "best guess"
    lines = [f"{name}: {out / text['file']}", f"  {describe(text)}"]
    for why in text["why_piece"]:
        lines.append(f"  possible piece: {why}")
    before, phrase, after = excerpt(out, text, around=60)
    shown = f"{before}{phrase}{after}".replace("\n", "\n  ...")
    lines.append(f"  ...{shown}\n")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
