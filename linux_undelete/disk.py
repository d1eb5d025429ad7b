"""A disk or an image, opened read-only, and the check that nothing is written onto it."""

import errno
import os
import re
import stat
import sys
from pathlib import Path

from common.run import fail

PAGE = 4096  # The kernel reads whole pages: this much is lost with a bad sector.
MAX_BAD = 100_000  # Unreadable ranges.
# What a bad sector gives; macOS knows no EREMOTEIO.
UNREADABLE = errno.EIO, errno.ENODATA, errno.EILSEQ, getattr(errno, "EREMOTEIO", errno.EIO)
SYSTEM = Path("/sys/dev/block")
MOUNTS = Path("/proc/self/mountinfo")


def devices_below(number, system=SYSTEM, mounts=MOUNTS, stat_of=os.stat):
    """All block devices that hold the data of the device `number` = (major, minor).

    A partition lies on its disk; an encrypted, LVM or RAID volume on others; a btrfs on all of
    its devices; a loop device in a file, which is returned as a path, and on what that lies on.
    Read from /sys/dev/block (the same tree as /sys/class/block) and /sys/fs/btrfs.
    """
    found, waiting, volumes = set(), [number], []
    for folder in system.parent.parent.glob("fs/btrfs/*/devices"):
        volumes.append({read_number(file) for file in folder.glob("*/dev")})
    while waiting:
        number = waiting.pop()
        if number in found:
            continue
        found.add(number)
        if isinstance(number, Path):
            continue
        folder = system / f"{number[0]}:{number[1]}"
        above = [*folder.glob("slaves/*/dev")]
        if (folder / "partition").exists():
            above.append(folder.resolve().parent / "dev")
        waiting += map(read_number, above)
        for members in volumes:
            waiting += members if number in members else ()
        if (folder / "loop/backing_file").exists():
            file = Path((folder / "loop/backing_file").read_text().rstrip("\n")).resolve()
            place = device_of_folder(file.parent, mounts, stat_of)
            waiting += [file, place] if place else [file]
    return found


def read_number(file):
    """The (major, minor) that a file of /sys says."""
    major, minor = file.read_text().split(":")
    return int(major), int(minor)


def device_of_folder(folder, mounts=MOUNTS, stat_of=os.stat):
    """The (major, minor) a folder is stored on, or None where the kernel does not say."""
    while not folder.exists():
        folder = folder.parent
    number = stat_of(folder).st_dev
    if os.major(number):
        return os.major(number), os.minor(number)
    # Btrfs and some others number each of their volumes 0:N, and the mount table 0:M.
    lines = [fields for fields in mount_table(mounts) if folder.is_relative_to(fields[4])]
    return (
        device_of_mount(max(reversed(lines), key=lambda f: len(f[4])), stat_of) if lines else None
    )


def device_of_mount(fields, stat_of=os.stat):
    """The (major, minor) of the device that a line of the mount table is of, or None."""
    major, minor = map(int, fields[2].split(":"))
    source = fields[fields.index("-") + 2]
    if not major and source.startswith("/dev/"):
        try:
            device = stat_of(source).st_rdev
        except OSError:  # As /dev/root.
            return None
        major, minor = os.major(device), os.minor(device)
    return (major, minor) if major else None


def check_output(image, out, system=SYSTEM, mounts=MOUNTS, stat_of=os.stat):
    """Ends with one line if writing to the folder `out` could overwrite what `image` holds.

    Looks at names and device numbers only: nothing of the image is read. Returns a sentence on
    what was checked.
    """
    image, out = Path(image), Path(out).resolve()
    status = stat_of(image)
    place = device_of_folder(out, mounts, stat_of)
    below = devices_below(place, system, mounts, stat_of) if place else set()
    if stat.S_ISREG(status.st_mode):
        if out == image.resolve() or image.resolve() in below:
            fail(f"{out} would be written into {image}: choose another disk")
        return f"reading {image} (a file, read-only), writing to {out}"
    number = os.major(status.st_rdev), os.minor(status.st_rdev)
    if number in below:
        fail(f"{out} lies on {image}, whose deleted data it would overwrite: use another disk")
    said = f"reading {image} (read-only), writing to {out} on another disk or partition"
    if place is None or not system.exists():
        said = f"reading {image} (read-only); see that {out} lies on another disk: no telling here"
    for fields in mount_table(mounts):
        mounted = device_of_mount(fields, stat_of)
        if not mounted or "rw" not in fields[5].split(","):
            continue
        if number in devices_below(mounted, system, mounts, stat_of):
            said += (
                f"\n{image} is mounted at {fields[4]}: every write may destroy what you look for;"
            )
            said += f" umount it, or mount -o remount,ro {fields[4]}"
    return said


def mount_table(mounts):
    """The fields of each line of /proc/self/mountinfo; the fifth is where it is mounted."""
    text = mounts.read_text(errors="surrogateescape") if mounts.exists() else ""
    lines = [line.split(" ") for line in text.split("\n") if line]
    for fields in lines:  # A blank is written \040 there.
        fields[4] = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), fields[4])
    return lines


class Disk:
    """A file or block device for reading only. Unreadable pages read as zeros and are noted.

    `bad` lists (start, end) of unreadable bytes, in no order.
    """

    def __init__(self, path):
        self.path, self.bad = Path(path), []
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
        self.regular = stat.S_ISREG(mode)
        if not self.size and not self.regular:  # As on macOS.
            fail(f"{path} does not tell its size: copy it into an image with dd, and scan that")

    def close(self):
        os.close(self.fd)

    def extents(self, start=0):
        """(start, end) of what is stored, holes of a sparse file left out."""
        while start < self.size:
            end = self.size
            if self.regular:
                try:
                    start = os.lseek(self.fd, start, os.SEEK_DATA)
                    end = os.lseek(self.fd, start, os.SEEK_HOLE)
                except OSError as error:
                    if error.errno == errno.ENXIO:  # Nothing but a hole up to the end.
                        return
            yield start, end
            start = end

    def read_into(self, view, offset):
        """Fills a memoryview from `offset` on; returns how many bytes there were."""
        done, step = 0, len(view)
        while done < len(view):
            part = view[done : done + step]
            try:
                count = os.preadv(self.fd, [part], offset + done)
            except OSError as error:
                if error.errno not in UNREADABLE:
                    raise
                if step > PAGE:  # From here on page by page, so that only bad ones are lost.
                    step = PAGE - (offset + done) % PAGE
                    continue
                part[:] = bytes(len(part))
                self.note_bad(offset + done, offset + done + len(part))
                count = len(part)
            if not count:
                break
            done += count
            step = PAGE if step <= PAGE else step
        return done

    def read(self, offset, length):
        """The bytes from `offset` on, fewer at the end of the disk."""
        buffer = bytearray(max(min(length, self.size - offset), 0))
        with memoryview(buffer) as view:
            return bytes(view[: self.read_into(view, offset)])

    def note_bad(self, start, end):
        if any(low <= start and end <= high for low, high in self.bad):
            return  # Known: chunks overlap, and texts are read again.
        if self.bad and self.bad[-1][1] == start:
            self.bad[-1] = (self.bad[-1][0], end)
        elif len(self.bad) < MAX_BAD:
            self.bad.append((start, end))
        else:
            fail(
                f"{self.path} has too many unreadable places: copy it with ddrescue, scan the copy"
            )


def note(message):
    print(message, file=sys.stderr, flush=True)
