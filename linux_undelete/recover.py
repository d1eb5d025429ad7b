"""Keeps what a scan finds: each text once, as a file; each hit as a line; a state to go on from."""

import contextlib
import hashlib
import json
import os
import signal
import threading
import time

from common.run import fail, load_file, write_text
from linux_undelete.texts import grow_best

STATE, HITS = "state.json", "hits.jsonl"
MAX_OFFSETS = 100  # Of one text's hits that are remembered; all are counted and in hits.jsonl.
MAX_LINES = 1_000_000  # Of hits.jsonl.
SAVE_EVERY = 5  # Seconds.


@contextlib.contextmanager
def unbroken():
    """Ctrl-C waits until the end of the block, so that what is saved is consistent."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = []
    before = signal.signal(signal.SIGINT, lambda *_: asked.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt


class Recovery:
    """The texts found so far, in the folder `out`; memory does not grow with the hits.

    `texts` are dictionaries, one for each text: file, start, end, encoding, sha256, hits (their
    number), offsets (of the first), phrases, why_piece, copies (where the same bytes lie again, the
    first of them), num_copies and last_copy.
    Only `limit` texts are written; later hits are counted and listed. `arguments` must be the same
    when a stopped scan is resumed.
    """

    def __init__(self, disk, out, arguments, limit=1000, resume=False):
        self.disk, self.out, self.limit, self.saved = disk, out, limit, time.monotonic()
        self.state = {"arguments": arguments | {"size": disk.size, "limit": limit}}
        self.state |= {"position": 0, "hits": 0, "not_written": 0, "listed_bytes": 0, "texts": []}
        if resume:
            if not (out / STATE).exists():
                fail(f"there is nothing to resume in {out}: the scan leaves a {STATE} there")
            state = load_file(out / STATE)
            needed = {*self.state, "bad"}
            missing = needed - (state.keys() if isinstance(state, dict) else set())
            if missing or any("last_copy" not in text for text in state["texts"]):
                fail(f"{out / STATE} is damaged, or of an older version: scan anew")
            for name, value in self.state["arguments"].items():
                if state["arguments"].get(name) != value:
                    was = state["arguments"].get(name)
                    fail(f"--resume with other arguments: {name} was {was}, now {value}")
            self.state = state
            disk.bad = [tuple(bad) for bad in state["bad"]]
        elif out.exists() and (not out.is_dir() or any(out.iterdir())):
            fail(f"{out} is in use: choose a new folder, or go on there with --resume")
        out.mkdir(parents=True, exist_ok=True)
        self.texts = self.state["texts"]
        self.known = {text["sha256"]: number for number, text in enumerate(self.texts)}
        self.recent = list(range(len(self.texts)))  # Those that later hits may lie in.
        self.listed = (out / HITS).open("r+b" if (out / HITS).exists() else "w+b")
        self.listed.truncate(self.state["listed_bytes"])
        self.listed.seek(0, os.SEEK_END)

    def add(self, offset, length, phrase, encodings):
        """Notes a hit, and recovers the text around it unless another hit lay in it."""
        self.state["hits"] += 1
        self.recent = [i for i in self.recent if self.end_of(i) > offset]
        number = next(
            (i for i in self.recent if self.lies_in(self.texts[i], offset, length, encodings)), None
        )
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
        if self.state["hits"] <= MAX_LINES:
            line = {"offset": offset, "length": length, "encodings": encodings, "phrase": phrase}
            line = json.dumps(line | {"file": file}, ensure_ascii=False) + "\n"
            self.listed.write(line.encode("utf-8", "replace"))
        return number

    def places(self, text):
        return [text["start"], *text["copies"], text["last_copy"]]

    def end_of(self, number):
        text = self.texts[number]
        return max(self.places(text)) + text["end"] - text["start"]

    def lies_in(self, text, offset, length, encodings):
        size = text["end"] - text["start"]
        return text["encoding"] in encodings and any(
            start <= offset and offset + length <= start + size for start in self.places(text)
        )

    def write_text_around(self, offset, length, encodings):
        """The number of the text; one whose bytes are known becomes a copy of the known one."""
        lowest = max(
            (
                text["end"]
                for text in self.texts[-8:]
                if text["end"] <= offset and any("longer" in why for why in text["why_piece"])
            ),
            default=0,
        )
        extent = grow_best(self.disk, offset, length, encodings, lowest)
        data = self.disk.read(extent.start, extent.end - extent.start)
        digest = hashlib.sha256(data).hexdigest()
        number = self.known.get(digest)
        if number is not None:
            text = self.texts[number]
            text |= {"num_copies": text["num_copies"] + 1, "last_copy": extent.start}
            if len(text["copies"]) < MAX_OFFSETS:
                text["copies"].append(extent.start)
        else:
            number = self.known[digest] = len(self.texts)
            name = f"{extent.start:015d}-{extent.end - extent.start}-{extent.encoding}.txt"
            (self.out / name).write_bytes(data)
            text = {"file": name, "start": extent.start, "end": extent.end}
            text |= {"encoding": extent.encoding, "sha256": digest, "hits": 0, "offsets": []}
            text |= {"phrases": [], "why_piece": list(extent.why_piece), "copies": []}
            text |= {"num_copies": 0, "last_copy": extent.start}
            self.texts.append(text)
        if number not in self.recent:
            self.recent.append(number)
        return number

    def reached(self, position):
        """All hits before `position` are in; saved every few seconds."""
        self.state["position"] = position
        if time.monotonic() - self.saved > SAVE_EVERY:
            self.save()

    def save(self):
        self.listed.flush()
        self.state["listed_bytes"] = self.listed.tell()
        self.state["bad"] = self.disk.bad
        write_text(self.out / STATE, json.dumps(self.state, ensure_ascii=False))
        self.saved = time.monotonic()

    def close(self):
        self.save()
        self.listed.close()
