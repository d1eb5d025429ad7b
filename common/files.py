"""Files: written whole or not at all, packed, damaged, downloaded, in several encodings."""

import bz2
import contextlib
import gzip
import hashlib
import json
import lzma
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from common.cli import fail, first_line

ROOT = Path(__file__).resolve().parent.parent
DOWNLOADS = ROOT / "data" / "downloads"
OPENERS = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
# What Python raises for a packed file that is damaged.
UNPACKING_ERRORS = (OSError, EOFError, lzma.LZMAError, zlib.error)


# --- Hashing ---
def sha256_of_arrays(arrays):
    """SHA-256 of the bytes of arrays, one after the other; shapes and types do not count."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


# --- Writing ---
@contextlib.contextmanager
def replacing(path):
    """A temporary path beside `path`; what is written there takes its name at the end.

    Nobody ever reads half a file, and two processes that write the same file do not mix it. When
    the block ends with an error, what was there before stays.

        with replacing(path) as temporary:
            np.save(temporary, array)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name keeps its ending, as np.save and Keras add one where it is missing.
    temporary = path.with_name(f"{path.stem}.{os.uname().nodename}-{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path, text):
    """Writes a UTF-8 file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


# --- Reading ---
def read_json(path):
    """What a .json file holds. A missing or damaged file ends the script with one line."""
    try:
        return json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        fail(f"{path} is missing or damaged: {first_line(error)}")


def read_arrays(path):
    """{name: array} of a .npz file. A missing or damaged file ends the script with one line."""
    try:
        refuse_bomb(path)
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except Exception as error:  # A damaged archive raises errors of a dozen classes.
        fail(f"{path} is missing or damaged: {first_line(error)}")


def max_unpacked_size(path):
    """How many bytes a packed file may unpack to.

    Text packs to a tenth of its size and trained weights hardly at all. A file that unpacks to a
    hundred times its size was made to fill the memory.
    """
    return max(2**26, 100 * Path(path).stat().st_size)


def refuse_bomb(path):
    """Raises ValueError for a zip archive (.npz, .keras) that would unpack to far too much."""
    with zipfile.ZipFile(path) as archive:
        size = sum(part.file_size for part in archive.infolist())
    if size > max_unpacked_size(path):
        raise ValueError(f"{path} would unpack to {size:,} bytes")


def open_packed(path):
    """Opens a file for reading bytes; .gz, .xz and .bz2 are unpacked while they are read."""
    opener = OPENERS.get(Path(path).suffix, open)
    return opener(path, "rb")


def read_packed(path):
    """All bytes of a file, packed or not. Raises ValueError, one line, where it is damaged."""
    data = bytearray()
    try:
        limit = max_unpacked_size(path)
        with open_packed(path) as file:
            # In pieces: read(limit) would set that much memory aside at once.
            while piece := file.read(2**20):
                data += piece
                if len(data) > limit:
                    raise ValueError(f"{path} would unpack to more than {limit:,} bytes")
    except UNPACKING_ERRORS as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ValueError(f"cannot read {path}: {reason}") from None
    return bytes(data)


# --- Downloads ---
def fetch(name, urls, sha256, folder=DOWNLOADS):
    """The path of the file `name` in `folder`, from the first address that has it intact.

    A file that is there already is used if its SHA-256 is right. When no address has the file,
    one line says where to put it by hand.
    """
    path = folder / name
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
        return path
    # Imported here, because most users of this module need no Keras.
    from keras.utils import get_file

    for url in urls:
        try:
            # Under another name first, as get_file deletes a damaged file that is in its way.
            with replacing(path) as temporary:
                get_file(temporary.name, url, file_hash=sha256, cache_subdir=temporary.parent)
            return path
        except Exception as error:  # A dead address and a wrong hash alike: try the next one.
            print(f"{url}: {first_line(error)}")
    fail(f"no {name} at {', '.join(urls)}: put it at {path}, SHA-256 {sha256}")
