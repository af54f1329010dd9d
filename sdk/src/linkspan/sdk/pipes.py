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


def put_pieces(fd: int, pieces: Sequence[memoryview]) -> Sequence[memoryview]:
    """Write what a pipe that does not block takes now, without joining the pieces; return what is left.

    Raises:
        BrokenPipeError: Nobody reads any more.
    """
    try:
        written = os.writev(fd, pieces[:_MAX_PIECES])
    except BlockingIOError:
        return pieces
    for at, piece in enumerate(pieces):
        if written < len(piece):
            return [piece[written:], *pieces[at + 1 :]]
        written -= len(piece)
    return ()


async def write_pieces(fd: int, pieces: Sequence[memoryview]) -> None:
    """As ``write_all``, several pieces. No checkpoint where it need not wait."""
    while pieces := put_pieces(fd, pieces):
        await trio.lowlevel.wait_writable(fd)
