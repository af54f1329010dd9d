"""What a step made, by the digest of all that went into it.

One line of JSON a record, appended when the step is done: a crash loses at most the line that was
being written, and a half-written last line is ignored. The layers themselves belong to the snapshots
driver; a record whose layer is gone is forgotten when it is looked up.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import attrs


@attrs.frozen(kw_only=True)
class StepRecord:
    """The result of a step.

    Attributes:
        layer: Name of the layer it made; empty if it changed nothing.
        diff_id: The layer's, empty like the layer.
        size_bytes: The layer's.
        created: When it was made, RFC 3339.
    """

    layer: str = ""
    diff_id: str = ""
    size_bytes: int = 0
    created: str = ""


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
                record = StepRecord(**fields) if fields else None
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            if record is None:
                self._records.pop(key, None)
            else:
                self._records[key] = record
        if self._lines > len(self._records):
            self._rewrite()

    def get(self, key: str) -> StepRecord | None:
        """The record of a key; does not block."""
        return self._records.get(key)

    def put(self, key: str, record: StepRecord) -> None:
        """Remember, on disk too."""
        self._records[key] = record
        self._append([{"key": key, **attrs.asdict(record)}])

    def forget(self, keys: Iterable[str]) -> None:
        """Drop records, on disk too."""
        gone = [key for key in keys if self._records.pop(key, None) is not None]
        if gone:
            self._append([{"key": key} for key in gone])

    def clear(self) -> None:
        """Forget everything, on disk too."""
        self._records.clear()
        self._rewrite()

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
        fresh = self._path.with_suffix(".new")
        fresh.write_text(
            "".join(
                json.dumps({"key": key, **attrs.asdict(record)}, separators=(",", ":")) + "\n"
                for key, record in self._records.items()
            )
        )
        fresh.replace(self._path)
        self._lines = len(self._records)
