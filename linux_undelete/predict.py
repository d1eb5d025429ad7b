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
import time
from pathlib import Path

from common.run import fail, run_script
from linux_undelete import scan
from linux_undelete.browse import browse, make_classifier
from linux_undelete.disk import Disk, check_output, note
from linux_undelete.recover import Recovery, unbroken
from linux_undelete.report import describe, excerpt, printable, write_index
from linux_undelete.texts import grow_best

WINDOW = 64 << 10  # Bytes on either side of a hit in which its neighbouring lines are looked for.


def make_finder(args):
    """(terms, finder) of the phrases or regular expressions."""
    make = scan.compile_expressions if args.regex else scan.encode_phrases
    terms = make(args.phrase, args.encodings)
    for phrase in () if args.regex else args.phrase:
        found = {encoding for term in terms if term.phrase == phrase for encoding in term.encodings}
        if missing := [encoding for encoding in args.encodings if encoding not in found]:
            note(f"{phrase!r} is not looked for in {', '.join(missing)}: too short there, or none")
    finder = (scan.Expressions if args.regex else scan.Literals)([term.pattern for term in terms])
    return terms, finder


@contextlib.contextmanager
def progress(disk, start):
    """Yields a function of (place, hits) that moves a bar with bytes/s and the time left."""
    if not sys.stderr.isatty():
        yield lambda place, hits: None
        return
    from tqdm import tqdm

    settings = {"unit": "B", "unit_scale": True, "desc": "scanning"}
    with tqdm(total=disk.size, initial=start, **settings) as bar:

        def advance(place, hits):
            bar.set_postfix(hits=hits, refresh=False)
            bar.update(place - bar.n)

        yield advance


def lines_around(disk, offset, length, before, after, encoding):
    """The lines of a hit, as grep -B and -A show them: (end on the disk, text)."""
    low = max(offset - WINDOW, 0)
    left, right = disk.read(low, offset - low), disk.read(offset, length + WINDOW)
    line_end = "\n".encode(encoding)
    left = left.split(line_end)[-before - 1 :]
    right = right.split(line_end)[: after + 1]
    text = (line_end.join(left) + line_end.join(right)).decode(encoding, "replace")
    return offset + len(line_end.join(right)), text


def print_lines(args, disk, terms, finder):
    """The plain form of the post; hits within lines that are already shown are not repeated."""
    shown, count = 0, 0
    for _, hits in scan.scan(disk, finder):
        for offset, length, term in scan.aligned(hits, terms):
            count += 1
            if offset < shown:
                continue
            encoding = grow_best(disk, offset, length, term.encodings).encoding
            around = (args.lines_before or 0, args.lines_after or 0)
            shown, text = lines_around(disk, offset, length, *around, encoding)
            print(f"-- byte {offset:,}, {encoding}\n{printable(text)}")
    if not count:
        note("no hit")
    return count


def recover(args, disk, terms, finder, checked):
    """Scans, or goes on with a scan; returns (summary, groups, whether it was stopped)."""
    image = os.fsencode(args.image).decode("utf-8", "replace")  # A name may be no UTF-8.
    given = {"image": image, "phrases": args.phrase, "regex": args.regex}
    given |= {"encodings": list(args.encodings), "browse": args.browse}
    classify = make_classifier(args.run_dir) if args.browse else None
    recovery = Recovery(disk, args.out, given, args.limit, args.resume)
    start, stopped = recovery.state["position"], False
    note(checked)
    with progress(disk, start) as advance:
        try:
            if args.browse:
                browse(recovery, disk, start, classify, advance)
            else:
                for place, hits in scan.scan(disk, finder, start):
                    with unbroken():
                        for offset, length, term in scan.aligned(hits, terms):
                            recovery.add(offset, length, term.phrase, term.encodings)
                        recovery.reached(place)
                    advance(place, recovery.state["hits"])
        except KeyboardInterrupt:
            stopped = True
    with contextlib.suppress(KeyboardInterrupt), unbroken():
        recovery.close()
    facts, groups = write_index(args.out, recovery.state, disk)
    return facts, groups, stopped


def show(out, facts, groups, as_json):
    """Prints the texts, the best first: as JSON, one object a line, or for people."""
    for number, group in enumerate(groups, 1):
        for version, text in enumerate(group, 1):
            before, phrase, after = excerpt(out, text, around=60)
            if as_json:
                found = text | {"path": str(out / text["file"]), "group": number}
                found |= {"version": version, "whole": not text["why_piece"]}
                print(json.dumps(found | {"excerpt": before + phrase + after}, ensure_ascii=False))
            elif number <= 20 and version <= 5:
                name = "best guess" if number == version == 1 else f"text {number}.{version}"
                print(f"{name}: {out / text['file']}\n  {describe(text)}")
                for why in text["why_piece"]:
                    print(f"  possible piece: {why}")
                print("  ..." + f"{before}{phrase}{after}".replace("\n", "\n  ...") + "\n")
    report = sys.stderr if as_json else sys.stdout
    more = f", {facts['hits_in_no_written_text']:,} hits in no written text (--limit)"
    more = more if facts["hits_in_no_written_text"] else ""
    print(f"{facts['hits']:,} hits, {facts['texts']:,} texts{more}", file=report)
    if facts["unreadable"]:
        print(f"unreadable: {facts['unreadable_bytes']:,} bytes", file=report)
        for low, high in facts["unreadable"][:10]:
            print(f"  bytes {low:,} to {high:,}", file=report)
    print(f"index: {out / 'index.html'}", file=report)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--image", type=Path, metavar="DISK_OR_IMAGE", help="a block device or an image file")
    add("--phrase", action="append", default=[], metavar="TEXT", help="may be given several times")
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
    add("--resume", action="store_true", help="go on with a scan that was stopped")
    add("--limit", type=int, help="texts that are written at most; default: 1000")
    add("--lines-before", type=int, metavar="N", help="only print N lines before each hit, like -B")
    add("--lines-after", type=int, metavar="N", help="only print N lines after each hit, like -A")
    add("--json", action="store_true", help="one JSON object a line for each recovered text")
    add("--browse", action="store_true", help="lists every text, where no phrase is remembered")
    add("--run-dir", type=Path, metavar="RUN", help="of --browse's model; default: the newest run")
    add("--open-files", action="store_true", help="copies deleted files that are still open")
    add("--check", metavar="COMMAND", help="warns of accidents in a command line, runs nothing")
    return parser.parse_args(argv)


def demo(as_json):
    """Deletes two versions of a script and a Chinese note in an image, and gets them back."""
    import tempfile

    from linux_undelete.demo import PHRASES, write_demo_image

    folder = Path(tempfile.mkdtemp(prefix="undelete-"))
    image, phrases = folder / "disk.img", [f"--phrase={phrase}" for phrase in PHRASES]
    write_demo_image(image)
    note(f"{image}: random blocks, a deleted script in two versions, its note in GBK")
    words = ["--image", str(image), "--out", str(folder / "found"), *phrases]
    return main([*words, *["--json"] * as_json])


def main(argv=None):
    args = parse_args(argv)
    if args.check is not None:
        from linux_undelete import check

        asked = vars(args) | {"check": None, "json": None}
        if any(value not in (None, False, []) for value in asked.values()):
            fail("--check only reads a command: --json alone goes with it")
        return check.main(["--json"] * args.json + ["--", args.check])
    plain = args.lines_before is not None or args.lines_after is not None
    limited = args.limit is not None
    scanning = args.phrase or args.browse or args.regex or args.encodings or limited
    if args.open_files:
        from linux_undelete.open_files import show_open_files

        if args.image or scanning or plain or args.resume or args.run_dir:
            fail("--open-files looks at processes, not at a disk: only --out and --json go with it")
        return show_open_files(args.out, args.json)
    if not args.image:
        if scanning or plain or args.out or args.resume:
            fail("--image is missing: a block device (see lsblk) or an image file")
        return demo(args.json)
    if bool(args.phrase) == args.browse:
        fail("give either a --phrase that the lost text contained, or --browse")
    if args.browse and (args.regex or args.encodings):
        fail("--regex and --encodings are of a --phrase: --browse looks for every text")
    if args.run_dir and not args.browse:
        fail("--run-dir is of --browse: a phrase needs no model")
    if plain and (args.out or args.json or args.resume or limited):
        text = "leave out --out, --json, --limit and --resume"
        fail(f"--lines-before and --lines-after only print: {text}")
    if plain and args.browse:
        fail("--lines-before and --lines-after print the lines around a --phrase")
    if not (plain or args.out):
        fail("--out is missing: a new folder on another disk than the one that is scanned")
    args.limit = args.limit if limited else 1000
    if min(args.lines_before or 0, args.lines_after or 0) < 0 or args.limit < 1:
        fail("--lines-before and --lines-after are at least 0, --limit at least 1")
    args.encodings = args.encodings or scan.ENCODINGS
    terms, finder = make_finder(args) if args.phrase else ((), None)
    stdout = None
    with contextlib.suppress(OSError):  # It may be closed.
        stdout = os.fstat(1)
    disk = Disk(args.image)
    try:
        if stdout and stat.S_ISREG(stdout.st_mode):  # As of `> FILE`.
            if os.path.samestat(stdout, os.fstat(disk.fd)):
                fail(f"stdout would be written into {args.image}: choose another disk")
            check_output(args.image, "/dev/stdout")
        if plain:
            return print_lines(args, disk, terms, finder)
        checked, start = check_output(args.image, args.out), time.monotonic()
        facts, groups, stopped = recover(args, disk, terms, finder, checked)
        show(args.out, facts, groups, args.json)
        seconds = time.monotonic() - start
        note(f"{facts['scanned_to'] / 1e6:,.0f} MB in {seconds:.2f} s")
        if stopped:
            note("stopped; everything found so far is kept, the same command with --resume goes on")
            raise SystemExit(130)
        return groups
    finally:
        disk.close()


if __name__ == "__main__":
    run_script(main)
