"""Pipes whose writing end does not block."""

import os
from collections.abc import Sequence
from typing import Final

import trio

# writev takes at most IOV_MAX buffers (1024 on Linux).
_MAX_PIECES: Final = 512


async def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write to a pipe that does not block.

    Raises:
        BrokenPipeError: Nobody reads any more.
    If cancelled: some of it is written.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(fd)
    await trio.lowlevel.checkpoint()


async def write_pieces(fd: int, pieces: Sequence[memoryview]) -> int:
    """As ``write_all``, several pieces without joining them; return their bytes."""
    rest, first = list(pieces), 0
    while first < len(rest):
        try:
            written = os.writev(fd, rest[first : first + _MAX_PIECES])
        except BlockingIOError:
            await trio.lowlevel.wait_writable(fd)
            continue
        while first < len(rest) and written >= len(rest[first]):
            written -= len(rest[first])
            first += 1
        if written:
            rest[first] = rest[first][written:]
    await trio.lowlevel.checkpoint()
    return sum(map(len, pieces))
