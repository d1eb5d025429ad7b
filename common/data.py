"""Downloads that are checked."""

from common.lazy import keras
from common.run import ROOT, fail

DOWNLOADS = ROOT / "data" / "downloads"


def fetch(name, urls, sha256):
    """Path of the file `name`, from the first of `urls` that still has it intact."""
    where, reasons = {"cache_dir": DOWNLOADS, "cache_subdir": ""}, []
    for url in urls:
        try:
            return keras.utils.get_file(name, url, file_hash=sha256, **where)
        except Exception as error:  # A dead address and a wrong hash alike: try the next.
            reasons.append(f"{url}: {str(error).splitlines()[0]}")
    path = DOWNLOADS / name
    fail(f"no intact {name} ({'; '.join(reasons)}): put it at {path} by hand, SHA-256 {sha256}")
