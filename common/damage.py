"""Files that are damaged or made to do harm: what their errors say, decompression bombs."""

import zipfile
from pathlib import Path


def first_line(error):
    """What an exception says, in one line; its name where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def most_unpacked(path):
    """So many bytes may be in a packed file: text packs to a tenth, trained weights hardly."""
    return max(2**26, 100 * Path(path).stat().st_size)


def refuse_bomb(path):
    """Raises ValueError for a zip archive (.npz, .keras) that would unpack to more than that."""
    with zipfile.ZipFile(path) as archive:
        size = sum(part.file_size for part in archive.infolist())
    if size > most_unpacked(path):
        raise ValueError(f"{path} would unpack to {size:,} bytes")
