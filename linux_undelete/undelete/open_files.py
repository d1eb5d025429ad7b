"""Files that were deleted but are still open in some process: they can be copied back whole.

As a reader of post 4491 noted, such a file lives on under /proc/PID/fd until its last process
closes it or ends: so do not stop the process. Copying reads the file alone. It has no name on its
disk any more, so its copy cannot overwrite it, wherever that goes. Deleted files that no process
holds are what another disk is for: choose one as the folder of the copies.
"""

import contextlib
import errno
import json
import os
import stat
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from common.cli import fail

DELETED = " (deleted)"
# Not files of a user, although they look deleted.
SYSTEM_FILES = (
    "/memfd:",
    "/SYSV",
    "/dev/zero",
    "/dev/shm/",
    "/[aio]",
    "/drm mm object",
    "/i915",
)
CHUNK = 1 << 20  # Bytes.


@dataclass
class OpenFile:
    pid: int  # Of the first process that holds it.
    command: str
    path: str  # Where it was.
    size: int  # Bytes, when it was looked at.
    link: str  # What to read: /proc/PID/fd/NUMBER.
    identity: tuple  # Its device and inode, as the process may open another file in its place.


# --- Finding ---
def deleted_open_files(denied=None, proc="/proc"):
    """The deleted regular files that processes hold open, each once: a list of OpenFile.

    Args:
        denied: a list that gets the numbers of the processes that we may not look into.
        proc: where the process file system is.
    """
    found = {}
    for process in sorted(Path(proc).glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            links = sorted(process.joinpath("fd").iterdir(), key=lambda link: int(link.name))
        except PermissionError:
            if denied is not None:
                denied.append(int(process.name))
            continue
        except OSError:  # It has ended.
            continue
        for link in links:
            entry = look_at(process, link)
            if entry is not None:
                found.setdefault(entry.identity, entry)
    return list(found.values())


def look_at(process, link):
    """The OpenFile behind a link of /proc/PID/fd; None where it is not a deleted file."""
    try:
        path = os.readlink(link)
        status = link.stat()
        command = process.joinpath("cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:  # It has been closed.
        return None
    if not path.endswith(DELETED) or path.startswith(SYSTEM_FILES):
        return None
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 0:
        return None
    return OpenFile(
        pid=int(process.name),
        command=command.decode("utf-8", "replace").strip(),
        path=path.removesuffix(DELETED),
        size=status.st_size,
        link=str(link),
        identity=(status.st_dev, status.st_ino),
    )


# --- Copying ---
def open_same(entry):
    """The file itself, open for reading; OSError if its link leads to another file by now."""
    source = os.fdopen(os.open(entry.link, os.O_RDONLY | os.O_NONBLOCK), "rb")
    status = os.fstat(source.fileno())
    if (status.st_dev, status.st_ino) != entry.identity:
        source.close()
        raise OSError(errno.ESTALE, "its process has closed it")
    return source


def copy_open_file(entry, out_dir):
    """Copies the content of a file into the folder, under its old name; returns the new path.

    A file that is there is never overwritten: a number is added to the name. What its process
    writes while it is copied may be in the copy or not. Raises OSError, for instance where the
    process has ended or has closed the file.
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
        path = take_free_name(out_dir, name)
        os.replace(temporary, path)
        return path
    finally:
        temporary.unlink(missing_ok=True)


def take_free_name(folder, name):
    """Creates an empty file NAME, or NAME.2, NAME.3 ... where that exists; returns its path."""
    path = folder / name
    number = 1
    while True:
        try:
            path.open("xb").close()
            return path
        except FileExistsError:
            number += 1
            path = folder / f"{name}.{number}"


# --- The command ---
def show_open_files(out_dir=None, as_json=False):
    """What predict.py --open-files does: lists them, and copies all where a folder is given.

    Returns the entries. A file that cannot be copied is one line, and the others still are.
    """
    if not Path("/proc/self/fd").is_dir():
        fail("--open-files needs Linux's /proc")
    denied = []
    num_failed = 0
    entries = deleted_open_files(denied)
    for entry in entries:
        copy = None
        if out_dir is not None:
            try:
                copy = copy_open_file(entry, out_dir)
            except OSError as error:
                print(f"error: {readable(entry.path)}: {error.strerror}", file=sys.stderr)
                num_failed += 1
        with contextlib.suppress(BrokenPipeError):  # `| head`: the others are copied, too.
            print(readable(describe(entry, copy, as_json)))
    if not entries and not as_json:
        hint = " in the processes that can be seen: try sudo" if os.geteuid() else ""
        print(f"no deleted file is still open{hint}")
    if denied:
        message = f"{len(denied)} processes could not be looked into"
        print(f"{message}: try sudo {sys.executable} -B ...", file=sys.stderr)
    if num_failed > 0:
        fail(f"{num_failed} of {len(entries)} files could not be copied")
    return entries


def describe(entry, copy, as_json):
    """One line about a file and its copy."""
    if as_json:
        line = asdict(entry)
        line["copy"] = None if copy is None else str(copy)
        return json.dumps(line, ensure_ascii=False)
    line = f"{entry.size:>12,} bytes  pid {entry.pid}  {entry.path}  ({entry.command})"
    if copy is not None:
        line += f"  -> {copy}"
    return line


def readable(text):
    """A text that can be printed: a file name need not be valid UTF-8."""
    return os.fsencode(text).decode("utf-8", "replace")
