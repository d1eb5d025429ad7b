"""Files that were deleted but are still open in some process: they can be copied back whole.

As a reader of post 4491 noted, such a file lives on under /proc/PID/fd until its last process
closes it or ends: so do not stop the process. Copying reads the file alone; it has no name on its
disk any more, so it cannot be written over by its copy, wherever that goes. Deleted files that no
process holds are what another disk is for: choose one as the folder of the copies.
"""

import contextlib
import errno
import json
import os
import stat
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from common.run import fail

DELETED = " (deleted)"
NO_FILES = ("/memfd:", "/SYSV", "/dev/zero", "/dev/shm/", "/[aio]", "/drm mm object", "/i915")
CHUNK = 1 << 20  # Bytes.


@dataclass
class OpenFile:
    pid: int  # Of the first process that holds it.
    command: str
    path: str  # Where it was.
    size: int  # Bytes, when it was looked at.
    link: str  # What to read: /proc/PID/fd/NUMBER.
    identity: tuple  # Its device and inode, as the process may open another file in its place.


def deleted_open_files(denied=None, proc="/proc"):
    """The deleted regular files that processes hold open, each once: a list of OpenFile.

    Args:
        denied: a list that gets the numbers of the processes that we may not look into.
        proc: where the process file system is.
    """
    found = {}
    for process in sorted((p for p in Path(proc).glob("[0-9]*")), key=lambda p: int(p.name)):
        try:
            links = sorted(process.joinpath("fd").iterdir(), key=lambda link: int(link.name))
        except PermissionError:
            if denied is not None:
                denied.append(int(process.name))
            continue
        except OSError:  # It has ended.
            continue
        for link in links:
            try:
                path, status = os.readlink(link), link.stat()
                command = process.joinpath("cmdline").read_bytes().replace(b"\0", b" ")
            except OSError:  # It has been closed.
                continue
            kept = path.endswith(DELETED) and not path.startswith(NO_FILES)
            if kept and stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                path = path.removesuffix(DELETED)
                words = command.decode("utf-8", "replace").strip()
                identity, number = (status.st_dev, status.st_ino), int(process.name)
                entry = OpenFile(number, words, path, status.st_size, str(link), identity)
                found.setdefault(identity, entry)
    return list(found.values())


def open_same(entry):
    """The file itself, open for reading; OSError if the link leads to another one by now."""
    source = os.fdopen(os.open(entry.link, os.O_RDONLY | os.O_NONBLOCK), "rb")
    status = os.fstat(source.fileno())
    if (status.st_dev, status.st_ino) != entry.identity:
        source.close()
        raise OSError(errno.ESTALE, "its process has closed it")
    return source


def copy_open_file(entry, out_dir):
    """Copies the content of one into the folder, under its old name; returns the new path.

    Never over a file that is there: a number is added to the name. What its process writes while
    it is copied may be in the copy or not. Raises OSError, as where the process has ended or has
    closed it.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    name = Path(entry.path).name or "unnamed"
    temporary = out_dir / f".{entry.pid}-{Path(entry.link).name}.part"
    try:
        with open_same(entry) as source, temporary.open("wb") as copy:
            while chunk := source.read(CHUNK):
                copy.write(chunk)
            copy.flush()
            os.fsync(copy.fileno())
        number = 1
        while True:
            path = out_dir / (name if number == 1 else f"{name}.{number}")
            try:
                path.open("xb").close()  # Takes the name, if nobody has it.
            except FileExistsError:
                number += 1
                continue
            os.replace(temporary, path)
            return path
    finally:
        temporary.unlink(missing_ok=True)


def show_open_files(out_dir=None, as_json=False):
    """What predict.py --open-files does: lists them, and copies all where a folder is given.

    Returns the entries. A file that cannot be copied is one line, and the others still are.
    """
    if not Path("/proc/self/fd").is_dir():
        fail("--open-files needs Linux's /proc")
    denied, failed = [], 0
    entries = deleted_open_files(denied)
    for entry in entries:
        copy = None
        if out_dir is not None:
            try:
                copy = copy_open_file(entry, out_dir)
            except OSError as error:
                path = os.fsencode(entry.path).decode("utf-8", "replace")
                print(f"error: {path}: {error.strerror}", file=sys.stderr)
                failed += 1
        if as_json:
            line = asdict(entry) | {"copy": str(copy) if copy else None}
            said = json.dumps(line, ensure_ascii=False)
        else:
            arrow = f"  -> {copy}" if copy else ""
            said = (
                f"{entry.size:>12,} bytes  pid {entry.pid}  {entry.path}  ({entry.command}){arrow}"
            )
        with contextlib.suppress(BrokenPipeError):  # As of `| head`: the others are copied, too.
            print(os.fsencode(said).decode("utf-8", "replace"))  # A name may be no UTF-8.
    if not entries and not as_json:
        seen = " in the processes that can be seen: try sudo" if os.geteuid() else ""
        print(f"no deleted file is still open{seen}")
    if denied:
        rest = f"{len(denied)} processes could not be looked into"
        print(f"{rest}: try sudo {sys.executable} -B ...", file=sys.stderr)
    if failed:
        fail(f"{failed} of {len(entries)} files could not be copied")
    return entries
