"""A step's log: every line on disk as it comes, the last ones at hand, listeners told.

One line of the file is ``TIME STREAM TEXT``: RFC 3339, then ``o`` (stdout), ``e`` (stderr) or ``-``
(said by the runner or a driver). Memory does not grow with the log.
"""

import codecs
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from linkspan.sdk.model.process import StreamKind
from linkspan.workflows.journal import now
from linkspan.workflows.masking import Masks

TAIL_LINES: Final = 20
MAX_LINE: Final = 16 * 1024
"""Characters; a longer line is cut into several."""
_FEW_LINES: Final = 100
"""Lines that come at once; of more only these are told to listeners. The file has all."""
_FLUSH_BYTES: Final = 256 * 1024
_GATHER_S: Final = 0.05

OnLine = Callable[[str, str], None]
"""Called with stream and text of each line."""


class LogWriter:
    """Writes logs behind those who fill them, several in one go: most say a line or two, and a file that
    is made may have to wait for the disk."""

    def __init__(self, nursery: trio.Nursery | None = None) -> None:
        """Make one.

        Args:
            nursery: Carries the writing while there is something to write; None if only ``write`` does.
        """
        self._nursery = nursery
        self._waiting: dict[StepLog, None] = {}
        self._runs = False
        self._lock = trio.Lock()

    def wants(self, log: "StepLog") -> None:
        """Something was added to a log."""
        self._waiting[log] = None
        if not self._runs and self._nursery is not None:
            self._runs = True
            self._nursery.start_soon(self._run, name="logs of a run")

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self.write()
                # A few lines at a time would cost a thread each; a twentieth of a second gathers them.
                await trio.sleep(_GATHER_S)
        finally:
            self._runs = False

    async def write(self) -> None:
        """Write what was added to any of the logs. If cancelled: it is written all the same."""
        if not self._waiting and not self._lock.locked():
            return
        with trio.CancelScope(shield=True):
            async with self._lock:
                logs, self._waiting = list(self._waiting), {}
                texts = [(log, text) for log in logs if (text := log.take())]
                if texts:
                    await trio.to_thread.run_sync(_write_all, texts)
        for log, _ in texts:
            log.look()


def _write_all(texts: "list[tuple[StepLog, str]]") -> None:
    for log, text in texts:
        try:
            _append(log.path, text)
        except OSError as fault:
            log.fault = fault


def _append(path: Path, text: str) -> None:
    try:
        file = path.open("a", encoding="utf-8")
    except FileNotFoundError:
        # A job that needs no files has no folder before it says something.
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8")
    with file:
        file.write(text)


class StepLog:
    """Takes lines at once (``add``) and writes them in batches, behind them or by ``flush``."""

    def __init__(
        self, path: Path, on_line: OnLine, masks: Masks, writer: LogWriter | None = None
    ) -> None:
        """Make a log; its file is made with its first line.

        Args:
            path: Its file.
            on_line: Gets each line.
            masks: What must not be in it.
            writer: Writes it behind those who fill it; None if only ``flush`` does.
        """
        self.path = path
        self._writer = writer or LogWriter()
        self._masks = masks
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._on_line = on_line
        self.fault: OSError | None = None
        self._faulty = False
        self._buffer: list[str] = []
        self._size = 0
        self._closed = False
        self._text = ""
        self._partial: dict[StreamKind, str] = {}
        self._decoders: dict[StreamKind, codecs.IncrementalDecoder] = {}

    def add(self, text: str, stream: str = "-") -> None:
        """Add one line, or several; does not block."""
        if self._closed:
            return
        if not text.isascii():
            # What stands for a byte that is no UTF-8, as in the name of a file, can be in no log.
            text = text.encode("utf-8", "replace").decode()
        for line in self._masks.mask(text).splitlines() or [""]:
            for start in range(0, len(line) or 1, MAX_LINE):
                self._add(line[start : start + MAX_LINE], stream)

    def _add(self, line: str, stream: str) -> None:
        entry = f"{now()} {stream} {line}\n"
        self._buffer.append(entry)
        self._size += len(entry)
        self.tail.append(line)
        self._on_line(stream, line)
        self._writer.wants(self)

    def _add_many(self, lines: list[str], mark: str) -> None:
        """Add a flood of lines: what is done for each of them is done once; only the last are told."""
        plain = "\n".join(line.rstrip("\r") for line in lines)
        masked = self._masks.mask(plain).split("\n")
        start = f"{now()} {mark} "
        entry = "".join(f"{start}{line}\n" for line in masked)
        self._buffer.append(entry)
        self._size += len(entry)
        self.tail.extend(masked[-TAIL_LINES:])
        for line in masked[-_FEW_LINES:]:
            self._on_line(mark, line)
        self._writer.wants(self)

    def add_text(self, text: str) -> None:
        """Add text whose lines may come in pieces; does not block."""
        *lines, self._text = (self._text + text).split("\n")
        for line in lines:
            self.add(line.rstrip("\r"))

    async def feed(self, stream: StreamKind, data: bytes) -> None:
        """Add output of a process; waits for the disk when it comes faster than that."""
        if stream not in self._decoders:
            self._decoders[stream] = codecs.getincrementaldecoder("utf-8")("replace")
        text = self._partial.get(stream, "") + self._decoders[stream].decode(data)
        *lines, rest = text.split("\n")
        mark = "e" if stream is StreamKind.STDERR else "o"
        if len(lines) > _FEW_LINES and max(map(len, lines)) <= MAX_LINE:
            self._add_many(lines, mark)
        else:
            for line in lines:
                self.add(line.rstrip("\r"), mark)
        # A secret must not be cut in two: as much as may be its beginning is held back.
        held = self._masks.longest
        while len(rest) > MAX_LINE + held:
            rest = self._masks.mask(rest)
            self._add(rest[:MAX_LINE], mark)
            rest = rest[MAX_LINE:]
        self._partial[stream] = rest
        if self._size > _FLUSH_BYTES:
            await self.flush()

    def end(self) -> None:
        """Add what came without a newline at its end."""
        for stream, rest in self._partial.items():
            if rest:
                self.add(rest, "e" if stream is StreamKind.STDERR else "o")
        self._partial.clear()
        if self._text:
            self.add_text("\n")

    def close(self) -> None:
        """Take nothing more: whoever was left behind may go on talking."""
        self._closed = True

    async def flush(self) -> None:
        """Write what was added. If cancelled: it is written all the same."""
        await self._writer.write()

    # for the writer

    def take(self) -> str:
        """What is not written yet, which is in the caller's hands then; empty after a fault."""
        lines, self._buffer, self._size = self._buffer, [], 0
        return "" if self.fault is not None else "".join(lines)

    def look(self) -> None:
        """Say it if the log could not be written: a full disk must not change how a step ends; the
        journal speaks up itself."""
        if self.fault is not None and not self._faulty:
            self._faulty = True
            self._on_line("-", f"the log cannot be written any more: {self.fault}")
