"""Webhook deliveries that were taken, so that one that is sent again starts nothing, also after a restart."""

import json
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import trio

from linkspan.sdk.files import replace_file

log = logging.getLogger(__name__)

_REMEMBERED: Final = 10_000
_MAX_AGE_S: Final = 90 * 24 * 3600.0
"""What GitHub signs has no date: the longer it is remembered, the better; it sends again for a month at most."""


class Deliveries:
    """The names of those that were taken lately: the last 10 000, for 90 days.

    In the file there is a line for each, ``[SECONDS, NAME]``; it is written anew when half of it is old.

    Args:
        file: Where they outlive the daemon; None: nowhere.
        limit: How many are remembered.
        now: Seconds since the epoch.
    """

    def __init__(
        self,
        file: Path | None = None,
        *,
        limit: int = _REMEMBERED,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._file = file
        self._limit = limit
        self._now = now
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._kept: set[str] = set()
        self._lines = 0
        self._turn = trio.Lock()

    async def load(self) -> None:
        """Read what an earlier daemon has kept; a line that cannot be read is left out."""
        if self._file is None:
            return
        try:
            for at, name in await trio.to_thread.run_sync(_read, self._file):
                self._seen[name] = at
                self._kept.add(name)
            self._drop_old()
            if self._kept:
                # A line that was cut off must not swallow the next one.
                async with self._turn:
                    await self._write_anew(self._file)
        except OSError as error:
            _complain(error)

    def is_new(self, name: str) -> bool:
        """Whether it was not seen; it is from now on."""
        self._drop_old()
        if name in self._seen:
            return False
        self._seen[name] = self._now()
        self._drop_old()
        return True

    def forget(self, name: str) -> None:
        """It came to nothing, and may be sent again."""
        self._seen.pop(name, None)

    async def keep(self, name: str) -> None:
        """It has started something: remember it on disk as well.

        A disk that takes nothing is no failure of the delivery, which has started its run; that is logged.
        """
        if self._file is None:
            return
        async with self._turn:
            self._kept.add(name)
            try:
                if self._lines >= 2 * self._limit:
                    await self._write_anew(self._file)
                else:
                    line = _line(self._seen.get(name, self._now()), name)
                    await trio.to_thread.run_sync(_append, self._file, line)
                    self._lines += 1
            except OSError as error:
                _complain(error)

    def _drop_old(self) -> None:
        oldest = self._now() - _MAX_AGE_S
        while self._seen:
            name, at = next(iter(self._seen.items()))
            if at >= oldest and len(self._seen) <= self._limit:
                return
            del self._seen[name]

    async def _write_anew(self, file: Path) -> None:
        self._kept &= self._seen.keys()
        lines = [_line(at, name) for name, at in self._seen.items() if name in self._kept]
        await trio.to_thread.run_sync(partial(replace_file, file, b"".join(lines), durable=True))
        self._lines = len(lines)


def _line(at: float, name: str) -> bytes:
    return json.dumps([round(at), name]).encode() + b"\n"


def _complain(error: OSError) -> None:
    log.error("webhook deliveries are not remembered on disk", extra={"reason": str(error)})


def _append(file: Path, line: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(line)
        opened.flush()
        os.fdatasync(opened.fileno())


def _read(file: Path) -> list[tuple[float, str]]:
    found = []
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return []
    for line in data.splitlines():
        try:
            at, name = json.loads(line)
            found.append((float(at), str(name)))
        except (ValueError, TypeError):
            continue
    return found
