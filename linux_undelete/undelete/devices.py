"""Which devices hold which data, and the check that nothing is written onto the scanned disk.

Looks at names and device numbers only; nothing of an image is read.
"""

import os
import re
import stat
from pathlib import Path

from common.cli import fail

SYSTEM = Path("/sys/dev/block")
MOUNTS = Path("/proc/self/mountinfo")


def check_output(image, out, system=SYSTEM, mounts=MOUNTS, stat_of=os.stat):
    """Ends with one line if writing to the folder `out` could overwrite what `image` holds.

    Args:
        system, mounts, stat_of: where the kernel says which device lies on which.

    Returns:
        A message about what was checked.
    """
    image = Path(image)
    out = Path(out).resolve()
    status = stat_of(image)
    place = device_of_folder(out, mounts, stat_of)
    below = set()
    if place is not None:
        below = devices_below(place, system, mounts, stat_of)
    if stat.S_ISREG(status.st_mode):
        if out == image.resolve() or image.resolve() in below:
            fail(f"{out} would be written into {image}: choose another disk")
        return f"reading {image} (a file, read-only), writing to {out}"
    number = (os.major(status.st_rdev), os.minor(status.st_rdev))
    if number in below:
        fail(f"{out} lies on {image}, whose deleted data it would overwrite: use another disk")
    message = f"reading {image} (read-only), writing to {out} on another disk or partition"
    if place is None or not system.exists():
        message = (
            f"reading {image} (read-only); make sure that {out} lies on another disk: "
            "it cannot be checked here"
        )
    for folder in writable_mounts(number, system, mounts, stat_of):
        message += (
            f"\n{image} is mounted at {folder}: every write may destroy what you look for;"
            f" umount it, or mount -o remount,ro {folder}"
        )
    return message


def writable_mounts(number, system=SYSTEM, mounts=MOUNTS, stat_of=os.stat):
    """Where file systems that lie on the device are mounted and can be written to."""
    for fields in mount_table(mounts):
        mounted = device_of_mount(fields, stat_of)
        if mounted is None or "rw" not in fields[5].split(","):
            continue
        if number in devices_below(mounted, system, mounts, stat_of):
            yield fields[4]


def devices_below(number, system=SYSTEM, mounts=MOUNTS, stat_of=os.stat):
    """All block devices that hold the data of the device `number` = (major, minor).

    A partition lies on its disk; an encrypted, LVM or RAID volume on others; a btrfs on all of
    its devices; a loop device in a file, which is returned as a path, and on what that lies on.
    Read from /sys/dev/block (the same tree as /sys/class/block) and /sys/fs/btrfs.
    """
    btrfs_volumes = []
    for folder in system.parent.parent.glob("fs/btrfs/*/devices"):
        btrfs_volumes.append({read_number(file) for file in folder.glob("*/dev")})
    found = set()
    waiting = [number]
    while waiting:
        number = waiting.pop()
        if number in found:
            continue
        found.add(number)
        if isinstance(number, Path):
            continue
        folder = system / f"{number[0]}:{number[1]}"
        waiting += map(read_number, folder.glob("slaves/*/dev"))
        if (folder / "partition").exists():
            waiting.append(read_number(folder.resolve().parent / "dev"))
        for members in btrfs_volumes:
            if number in members:
                waiting += members
        if (folder / "loop/backing_file").exists():
            file = Path((folder / "loop/backing_file").read_text().rstrip("\n")).resolve()
            waiting.append(file)
            place = device_of_folder(file.parent, mounts, stat_of)
            if place is not None:
                waiting.append(place)
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
    candidates = [fields for fields in mount_table(mounts) if folder.is_relative_to(fields[4])]
    if not candidates:
        return None
    # The longest path is the innermost mount; of equal ones the last line counts.
    innermost = max(reversed(candidates), key=lambda fields: len(fields[4]))
    return device_of_mount(innermost, stat_of)


def device_of_mount(fields, stat_of=os.stat):
    """The (major, minor) of the device that a line of the mount table is of, or None."""
    major, minor = map(int, fields[2].split(":"))
    source = fields[fields.index("-") + 2]
    if major == 0 and source.startswith("/dev/"):
        try:
            device = stat_of(source).st_rdev
        except OSError:  # Such as /dev/root, which is not there.
            return None
        major, minor = os.major(device), os.minor(device)
    if major == 0:
        return None
    return major, minor


def mount_table(mounts):
    """The fields of each line of /proc/self/mountinfo; the fifth is where it is mounted."""
    if not mounts.exists():
        return []
    table = []
    for line in mounts.read_text(errors="surrogateescape").split("\n"):
        if line:
            fields = line.split(" ")
            # A space is written \040 there.
            fields[4] = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), fields[4])
            table.append(fields)
    return table
