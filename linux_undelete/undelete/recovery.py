"""Keeps what a scan finds: each text as a file, each hit as a line, and a state to resume from."""

import contextlib
import hashlib
import json
import os
import signal
import threading
import time

from common.cli import fail
from common.files import read_json, write_text
from linux_undelete.undelete.extent import grow_best

STATE = "state.json"
HITS = "hits.jsonl"
MAX_OFFSETS = 100  # Of the hits of one text that are remembered; all are counted and in HITS.
MAX_LINES = 1_000_000  # Of HITS.
SAVE_EVERY = 5  # Seconds.


@contextlib.contextmanager
def unbroken():
    """Ctrl-C waits until the end of the block, so that what is saved is consistent."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupts = []
    before = signal.signal(signal.SIGINT, lambda *_: interrupts.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupts:
        raise KeyboardInterrupt


class Recovery:
    """The texts found so far, in the folder `out`. Its memory does not grow with the hits.

    Args:
        disk: a Disk.
        arguments: of the scan; a stopped scan is resumed only with the same ones.
        limit: only so many texts are written; later hits are counted and listed.
        resume: whether to continue with the state in the folder.
        max_lines: of the list of hits.

    Attributes:
        state: what is saved: the arguments, the position on the disk, the numbers of hits.
        texts: one dict for each text: file, start, end, encoding, sha256, hits (their number),
            offsets (of the first ones), phrases, why_piece, copies (where the same bytes lie
            again, the first ones), num_copies and last_copy.
    """

    def __init__(self, disk, out, arguments, limit=1000, resume=False, max_lines=MAX_LINES):
        self.disk = disk
        self.out = out
        self.limit = limit
        self.max_lines = max_lines
        self.saved = time.monotonic()
        arguments = {**arguments, "size": disk.size, "limit": limit}
        self.state = {
            "arguments": arguments,
            "position": 0,
            "hits": 0,
            "not_written": 0,
            "listed_bytes": 0,
            "texts": [],
        }
        if resume:
            self.state = self.read_state(arguments)
            disk.bad = [tuple(bad) for bad in self.state["bad"]]
        elif out.exists() and (not out.is_dir() or any(out.iterdir())):
            fail(f"{out} is in use: choose a new folder, or continue there with --resume")
        out.mkdir(parents=True, exist_ok=True)
        self.texts = self.state["texts"]
        self.known = {text["sha256"]: number for number, text in enumerate(self.texts)}
        self.recent = list(range(len(self.texts)))  # Those that later hits may lie in.
        mode = "r+b" if (out / HITS).exists() else "w+b"
        self.hits_file = (out / HITS).open(mode)
        self.hits_file.truncate(self.state["listed_bytes"])
        self.hits_file.seek(0, os.SEEK_END)

    def read_state(self, arguments):
        """The state of a stopped scan with the same arguments."""
        path = self.out / STATE
        if not path.exists():
            fail(f"there is nothing to resume in {self.out}: the scan leaves a {STATE} there")
        state = read_json(path)
        needed = {*self.state, "bad"}
        is_complete = isinstance(state, dict) and needed <= state.keys()
        if not is_complete or any("last_copy" not in text for text in state["texts"]):
            fail(f"{path} is damaged, or of an older version: scan anew")
        for name, value in arguments.items():
            before = state["arguments"].get(name)
            if before != value:
                fail(f"--resume with other arguments: {name} was {before}, now {value}")
        return state

    # --- Hits ---
    def add(self, offset, length, phrase, encodings):
        """Notes a hit, and recovers the text around it unless another hit lay in that text.

        Returns:
            The number of the text; None where the limit is reached.
        """
        self.state["hits"] += 1
        number = self.text_that_holds(offset, length, encodings)
        if number is None and len(self.texts) < self.limit:
            number = self.write_text_around(offset, length, encodings)
        file = None
        if number is None:
            self.state["not_written"] += 1
        else:
            text = self.texts[number]
            file = text["file"]
            text["hits"] += 1
            if len(text["offsets"]) < MAX_OFFSETS:
                text["offsets"].append(offset)
            if phrase not in text["phrases"]:
                text["phrases"].append(phrase)
        if self.state["hits"] <= self.max_lines:
            hit = {
                "offset": offset,
                "length": length,
                "encodings": encodings,
                "phrase": phrase,
                "file": file,
            }
            line = json.dumps(hit, ensure_ascii=False) + "\n"
            self.hits_file.write(line.encode("utf-8", "replace"))
        return number

    def text_that_holds(self, offset, length, encodings):
        """The number of a known text in which these bytes lie, or None."""
        self.recent = [number for number in self.recent if self.end_of(number) > offset]
        for number in self.recent:
            text = self.texts[number]
            size = text["end"] - text["start"]
            if text["encoding"] not in encodings:
                continue
            for start in places_of(text):
                if start <= offset and offset + length <= start + size:
                    return number
        return None

    def end_of(self, number):
        """Where the last copy of a text ends."""
        text = self.texts[number]
        return max(places_of(text)) + text["end"] - text["start"]

    # --- Texts ---
    def write_text_around(self, offset, length, encodings):
        """The number of the text. One whose bytes are known becomes a copy of the known one."""
        lowest = self.end_of_longer_text(offset)
        extent = grow_best(self.disk, offset, length, encodings, lowest)
        data = self.disk.read(extent.start, extent.end - extent.start)
        digest = hashlib.sha256(data).hexdigest()
        number = self.known.get(digest)
        if number is None:
            number = self.write_new_text(extent, data, digest)
        else:
            text = self.texts[number]
            text["num_copies"] += 1
            text["last_copy"] = extent.start
            if len(text["copies"]) < MAX_OFFSETS:
                text["copies"].append(extent.start)
        if number not in self.recent:
            self.recent.append(number)
        return number

    def end_of_longer_text(self, offset):
        """Where the last text before the offset ends that is longer than what is recovered."""
        lowest = 0
        for text in self.texts[-8:]:
            is_longer = any("longer" in why for why in text["why_piece"])
            if is_longer and text["end"] <= offset:
                lowest = max(lowest, text["end"])
        return lowest

    def write_new_text(self, extent, data, digest):
        number = len(self.texts)
        self.known[digest] = number
        name = f"{extent.start:015d}-{extent.end - extent.start}-{extent.encoding}.txt"
        (self.out / name).write_bytes(data)
        self.texts.append(
            {
                "file": name,
                "start": extent.start,
                "end": extent.end,
                "encoding": extent.encoding,
                "sha256": digest,
                "hits": 0,
                "offsets": [],
                "phrases": [],
                "why_piece": list(extent.why_piece),
                "copies": [],
                "num_copies": 0,
                "last_copy": extent.start,
            }
        )
        return number

    # --- The state ---
    def reached(self, position):
        """All hits before `position` are in. The state is saved every few seconds."""
        self.state["position"] = position
        if time.monotonic() - self.saved > SAVE_EVERY:
            self.save()

    def save(self):
        self.hits_file.flush()
        self.state["listed_bytes"] = self.hits_file.tell()
        self.state["bad"] = self.disk.bad
        write_text(self.out / STATE, json.dumps(self.state, ensure_ascii=False))
        self.saved = time.monotonic()

    def close(self):
        self.save()
        self.hits_file.close()


def places_of(text):
    """Where the bytes of a text begin on the disk: the first place, and copies."""
    return [text["start"], *text["copies"], text["last_copy"]]
