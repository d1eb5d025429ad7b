"""Downloads that are checked."""

from common.damage import first_line
from common.run import ROOT, fail, keras

DOWNLOADS = ROOT / "data" / "downloads"


def fetch(name, urls, sha256):
    """Path of the file `name`, from the first of `urls` that still has it intact."""
    for url in urls:
        try:
            return keras.utils.get_file(name, url, file_hash=sha256, cache_subdir=DOWNLOADS)
        except Exception as error:  # A dead address and a wrong hash alike: try the next.
            print(f"{url}: {first_line(error)}")
    fail(f"no {name} at {', '.join(urls)}: put it at {DOWNLOADS / name}, SHA-256 {sha256}")
