"""Downloads that are checked."""

from common.run import ROOT, fail, keras

DOWNLOADS = ROOT / "data" / "downloads"


def fetch(name, urls, sha256):
    """Path of the file `name`, from the first of `urls` that still has it intact."""
    DOWNLOADS.mkdir(parents=True, exist_ok=True)  # Without it Keras would use one of its own.
    where, reasons = {"cache_dir": DOWNLOADS, "cache_subdir": "", "file_hash": sha256}, []
    for url in urls:
        try:
            return keras.utils.get_file(name, url, **where)
        except Exception as error:  # A dead address and a wrong hash alike: try the next.
            reasons.append(f"{url}: {str(error).splitlines()[0]}")
    fail(
        f"no {name} ({'; '.join(reasons)}): put {DOWNLOADS / name} there by hand, SHA-256 {sha256}"
    )
