"""Keeps logs small: ``log`` is the newest file, ``log.1`` the one before, and so on.

conmon writes on into whatever file it has open. So a file is renamed first, and conmon is then told by its
``ctl`` pipe to open the log anew: no line falls between the two. A daemon that ends in the middle leaves no
``log``; the next one tells conmon again.

conmon opens ``log.tmp``, emptied, and renames it to ``log``: whoever tells it twice loses what it wrote in
between. So it is never told while there is a ``log``, nor while it may be at an earlier command.
"""

import array
import contextlib
import fcntl
import logging
import os
import termios
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import trio

from linkspan.sdk.values import frozen

_log: Final = logging.getLogger(__name__)
# conmon's ctl(8) command 2: open the log anew.
_REOPEN: Final = b"2 0 0\n"
_REOPEN_TIMEOUT_S: Final = 2.0
_BUSY_S: Final = 0.02
_IDLE_S: Final = 0.5


@frozen(kw_only=True)
class Rotated:
    """A log that is kept small; ``ctl`` is the pipe of its conmon, ``conmon`` its pid."""

    path: Path
    ctl: Path
    conmon: int
    max_bytes: int
    max_files: int


def older(path: Path, number: int) -> Path:
    """A file of a log by its age: 0 is the newest."""
    return path.with_name(f"{path.name}.{number}") if number else path


def ages(path: Path) -> set[int]:
    """The ages of the files of a log that are there."""
    # One call for all: a name after the other would miss one that is renamed meanwhile.
    try:
        names = {file.name for file in path.parent.iterdir()}
    except FileNotFoundError:
        return set()
    behind = (name.removeprefix(f"{path.name}.") for name in names)
    found = {int(number) for number in behind if number.isdecimal()}
    return found | ({0} if path.name in names else set())


def rotate(log: Rotated) -> None:
    """Begin a new file; blocks until conmon has opened it.

    If it does not (it has ended, say), all stays in the renamed files, which readers know, too.
    """
    # With one file, the old one stays beside the new until the next: what was said last would be lost,
    # as conmon begins a file after the line that filled the one before, not in front of the next line.
    keep = max(log.max_files, 2)
    older(log.path, keep - 1).unlink(missing_ok=True)
    for number in range(keep - 2, -1, -1):
        with contextlib.suppress(FileNotFoundError):
            older(log.path, number).rename(older(log.path, number + 1))
    # There was a ``log``, so conmon is done with the command before.
    _tell(log, at_once=True)


def reopen(log: Rotated) -> bool:
    """Tell conmon to open a log that is not there, and wait until it is; False if that takes too long.

    conmon may have been told already: by this daemon, or by one that was ended in the middle.
    """
    return _tell(log, at_once=False)


def _tell(log: Rotated, *, at_once: bool) -> bool:
    try:
        ctl = os.open(log.ctl, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # conmon has ended
        return False
    try:
        told = False
        deadline = time.monotonic() + _REOPEN_TIMEOUT_S
        while not told or not log.path.exists():
            if not told and (at_once or _at_rest(log.conmon, ctl)):
                # Asked after conmon was seen at rest: what it had been told before, it has done.
                if log.path.exists():
                    return True
                os.write(ctl, _REOPEN)
                told = True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
    except OSError:
        return False
    finally:
        os.close(ctl)
    return True


def _at_rest(conmon: int, ctl: int) -> bool:
    """Whether conmon has no command before it and is at none: it sleeps, as it does between two events."""
    unread = array.array("i", [0])
    fcntl.ioctl(ctl, termios.FIONREAD, unread)
    if unread[0]:
        return False
    # proc(5): the state behind the name in brackets.
    state = Path(f"/proc/{conmon}/stat").read_bytes().rpartition(b")")[2].split()[0]
    return state == b"S"


class Rotation:
    """Looks after the logs of all containers that have a limit."""

    def __init__(self) -> None:
        self._logs: dict[str, Rotated] = {}
        self._sizes: dict[str, int] = {}
        self._some = trio.Event()

    def add(self, name: str, log: Rotated) -> None:
        """From now on, keep a container's log small."""
        self._logs[name] = log
        self._some.set()

    def remove(self, name: str) -> None:
        """It has ended."""
        self._logs.pop(name, None)
        self._sizes.pop(name, None)

    async def run(self) -> None:
        """Look again and again: often while something is written, else twice a second."""
        while True:
            if not self._logs:
                self._some = trio.Event()
                await self._some.wait()
            busy = await trio.to_thread.run_sync(self._look, list(self._logs.items()))
            await trio.sleep(_BUSY_S if busy else _IDLE_S)

    def _look(self, logs: Iterable[tuple[str, Rotated]]) -> bool:
        busy = False
        for name, log in logs:
            try:
                size = log.path.stat().st_size
                if size >= log.max_bytes:
                    rotate(log)
            except FileNotFoundError:
                reopen(log)
                continue
            except OSError:
                _log.exception("log not rotated", extra={"log": str(log.path)})
                continue
            busy = busy or size != self._sizes.get(name)
            self._sizes[name] = size
        return busy
