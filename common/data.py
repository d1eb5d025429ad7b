"""Downloads that are checked."""

import hashlib
import os
from pathlib import Path

from common.damage import first_line
from common.run import ROOT, fail, keras

DOWNLOADS = ROOT / "data" / "downloads"


def fetch(name, urls, sha256):
    """Path of the file `name`, from the first of `urls` that still has it intact."""
    # Under another name, as get_file deletes what it finds and cannot load.
    path, part = DOWNLOADS / name, f"{name}.{os.uname().nodename}-{os.getpid()}"
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
        return path
    for url in urls:
        try:
            new = keras.utils.get_file(part, url, file_hash=sha256, cache_subdir=DOWNLOADS)
            return Path(new).replace(path)
        except Exception as error:  # A dead address and a wrong hash alike: try the next.
            (DOWNLOADS / part).unlink(missing_ok=True)
            print(f"{url}: {first_line(error)}")
    fail(f"no {name} at {', '.join(urls)}: put it at {DOWNLOADS / name}, SHA-256 {sha256}")
