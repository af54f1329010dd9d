"""Pipes whose writing end does not block."""

import os

import trio


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
