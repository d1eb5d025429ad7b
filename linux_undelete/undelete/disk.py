"""A disk or an image of one, opened for reading only."""

import errno
import os
import stat
import sys
from pathlib import Path

from common.cli import fail

PAGE = 4096  # The kernel reads whole pages: this much is lost with a bad sector.
MAX_BAD = 100_000  # Unreadable ranges.
# The errors of a bad sector; macOS does not know EREMOTEIO.
UNREADABLE = (errno.EIO, errno.ENODATA, errno.EILSEQ, getattr(errno, "EREMOTEIO", errno.EIO))


class Disk:
    """A file or block device for reading only. Unreadable pages read as zeros and are noted.

    Attributes:
        size: in bytes.
        bad: (start, end) of unreadable bytes, in no particular order.
    """

    def __init__(self, path, max_bad=MAX_BAD):
        self.path = Path(path)
        self.max_bad = max_bad
        self.bad = []
        try:
            mode = os.stat(path).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                kind = "a folder" if stat.S_ISDIR(mode) else "neither a file nor a disk"
                fail(f"{path} is {kind}: give a block device (see lsblk) or an image file")
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            fail(f"there is no {path}: give a block device (see lsblk) or an image file")
        except PermissionError:
            fail(f"no permission to read {path}: a disk needs root: sudo {sys.executable} -B ...")
        self.size = os.lseek(self.fd, 0, os.SEEK_END)
        self.is_file = stat.S_ISREG(mode)
        if self.size == 0 and not self.is_file:  # Happens on macOS.
            fail(f"{path} does not tell its size: copy it into an image with dd, and scan that")

    def close(self):
        os.close(self.fd)

    def extents(self, start=0):
        """(start, end) of what is stored: the holes of a sparse file are left out."""
        while start < self.size:
            end = self.size
            if self.is_file:
                try:
                    start = os.lseek(self.fd, start, os.SEEK_DATA)
                    end = os.lseek(self.fd, start, os.SEEK_HOLE)
                except OSError as error:
                    if error.errno == errno.ENXIO:  # Only a hole is left, up to the end.
                        return
            yield start, end
            start = end

    def read_into(self, view, offset):
        """Fills a memoryview from `offset` on; returns how many bytes there were."""
        done = 0
        step = len(view)
        while done < len(view):
            part = view[done : done + step]
            try:
                count = os.preadv(self.fd, [part], offset + done)
            except OSError as error:
                if error.errno not in UNREADABLE:
                    raise
                if step > PAGE:  # From here on page by page, so that only the bad ones are lost.
                    step = PAGE - (offset + done) % PAGE
                    continue
                part[:] = bytes(len(part))
                self.note_bad(offset + done, offset + done + len(part))
                count = len(part)
            if count == 0:
                break
            done += count
            if step < PAGE:  # The first page was begun in its middle.
                step = PAGE
        return done

    def read(self, offset, length):
        """The bytes from `offset` on; fewer at the end of the disk."""
        buffer = bytearray(max(min(length, self.size - offset), 0))
        with memoryview(buffer) as view:
            return bytes(view[: self.read_into(view, offset)])

    def note_bad(self, start, end):
        if any(low <= start and end <= high for low, high in self.bad):
            return  # Known already: chunks overlap, and texts are read again.
        if self.bad and self.bad[-1][1] == start:
            self.bad[-1] = (self.bad[-1][0], end)
        elif len(self.bad) < self.max_bad:
            self.bad.append((start, end))
        else:
            fail(
                f"{self.path} has too many unreadable places: copy it with ddrescue, scan the copy"
            )
