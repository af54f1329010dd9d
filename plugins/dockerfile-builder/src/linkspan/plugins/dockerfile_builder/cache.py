"""What a step made, by the digest of all that went into it.

One line of JSON a record, appended when the step is done: a crash loses at most the line that was
being written, and a half-written last line is ignored. The layers themselves belong to the snapshots
driver; a record whose layer is gone is forgotten when it is looked up.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from linkspan.sdk.files import replace_file
from linkspan.sdk.values import define, frozen


@frozen(kw_only=True)
class StepRecord:
    """The result of a step.

    Attributes:
        layer: Name of the layer it made; empty if it changed nothing.
        diff_id: The layer's, empty like the layer.
        size_bytes: The layer's.
        created: When it was made, RFC 3339.
        parent: Name of the layer below.
        step: The instruction, as the image's history tells it.
        also: Another key of the same step: what a copy holds, where this one is by what it names.
        made_at: As ``created``, in seconds since the epoch; 0 if not known.
    """

    layer: str = ""
    diff_id: str = ""
    size_bytes: int = 0
    created: str = ""
    parent: str = ""
    step: str = ""
    also: str = ""
    made_at: float = 0.0


@define
class Use:
    """When a record was last used, seconds since the epoch, and how often."""

    at: float = 0.0
    count: int = 0


def step_key(**facts: object) -> str:
    """sha256 over the facts (JSON types) that decide what a step makes."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class StepCache:
    """The records of one daemon. All methods that touch the file block; for a worker thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: dict[str, StepRecord] = {}
        self._lines = 0
        self._uses: dict[str, Use] = {}
        self._unsaved: set[str] = set()

    def load(self) -> None:
        """Read the file, and write it anew when it holds more lines than records."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        for line in data.splitlines():
            self._lines += 1
            try:
                fields = json.loads(line)
                key = fields.pop("key")
                used = fields.pop("used", None)
                record = StepRecord(**fields) if fields else None
                if used is not None:
                    self._uses[key] = Use(float(used[0]), int(used[1]))
                    continue
            except (ValueError, KeyError, TypeError, AttributeError, IndexError):
                continue
            if record is None:
                self._records.pop(key, None)
            else:
                self._records[key] = record
        # What a crash has cut off must not be built on.
        if self._lines > 2 * len(self._records) or not data.endswith(b"\n"):
            self._rewrite()

    def get(self, key: str) -> StepRecord | None:
        """The record of a key; does not block."""
        return self._records.get(key)

    def mark_used(self, key: str) -> None:
        """It saved work just now; written down by :meth:`save_uses`. Does not block."""
        use = self._uses.setdefault(key, Use())
        use.at, use.count = time.time(), use.count + 1
        self._unsaved.add(key)

    def use_of(self, key: str) -> Use:
        """When and how often a record was used; does not block."""
        record = self._records.get(key)
        use = self._uses.get(key, Use())
        return Use(max(use.at, record.made_at if record else 0.0), use.count)

    def save_uses(self) -> None:
        """Write down what was used since the last time."""
        keys, self._unsaved = self._unsaved, set()
        lines: list[dict[str, object]] = [
            {"key": key, "used": [round(self._uses[key].at, 3), self._uses[key].count]}
            for key in keys
            if key in self._records and key in self._uses
        ]
        if lines:
            self._append(lines)

    def records(self) -> dict[str, StepRecord]:
        """Key → record; does not block."""
        return dict(self._records)

    def put(self, key: str, record: StepRecord) -> None:
        """Remember, on disk too."""
        self.put_all({key: record})

    def put_all(self, records: Mapping[str, StepRecord]) -> None:
        """Remember several."""
        self._records.update(records)
        if records:
            self._append([{"key": k, **attrs.asdict(record)} for k, record in records.items()])

    def forget(self, keys: Iterable[str]) -> None:
        """Drop records, on disk too."""
        gone = [key for key in keys if self._records.pop(key, None) is not None]
        for key in gone:
            self._uses.pop(key, None)
        if gone:
            self._append([{"key": key} for key in gone])

    def layers(self) -> dict[str, StepRecord]:
        """Layer name → one record that made it; does not block."""
        return {record.layer: record for record in self._records.values() if record.layer}

    def keys_of(self, layers: Iterable[str]) -> list[str]:
        """Keys of the records that made one of these layers; does not block."""
        wanted = set(layers)
        return [key for key, record in self._records.items() if record.layer in wanted]

    def _append(self, lines: list[dict[str, object]]) -> None:
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # A crash may have left half a line; a new one must not be glued to it.
            if self._lines == 0 and os.fstat(fd).st_size:
                text = "\n" + text
            os.write(fd, text.encode())
        finally:
            os.close(fd)
        self._lines += len(lines)

    def _rewrite(self) -> None:
        lines: list[dict[str, object]] = []
        for key, record in self._records.items():
            lines.append({"key": key, **attrs.asdict(record)})
            if use := self._uses.get(key):
                lines.append({"key": key, "used": [round(use.at, 3), use.count]})
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        replace_file(self._path, text.encode())
        self._lines = len(lines)
