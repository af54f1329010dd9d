"""A container's streams through conmon's attach socket.

The socket is SEQPACKET: each packet of ours is a piece of stdin, each of conmon's begins with a byte that
names the stream (2 stdout, 3 stderr). Packets of one stream that are there already are joined.
"""

import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from linkspan.sdk.model.process import Chunk, ProcessStreams, StreamKind

_KINDS: Final = {2: StreamKind.STDOUT, 3: StreamKind.STDERR}
_PACKET_BYTES: Final = 32769  # conmon reads 32 KiB at a time and puts one byte before
_JOIN_BYTES: Final = 1 << 18
_SEND_BYTES: Final = 16 << 10  # half of conmon's buffer, which cuts off what is longer


class AttachedStreams(ProcessStreams):
    """See the module."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._pending: Chunk | None = None
        self._over = False

    async def receive(self) -> Chunk | None:
        """The next output of one stream."""
        chunk = self._take()
        while chunk is None and not self._over:
            await trio.lowlevel.wait_readable(self._socket)
            chunk = self._take()
        await trio.lowlevel.checkpoint()
        return chunk

    def _take(self) -> Chunk | None:
        """What has arrived, up to a change of stream."""
        kind: StreamKind | None = None
        parts: list[bytes] = []
        size = 0
        if self._pending is not None:
            kind, parts = self._pending.stream, [self._pending.data]
            self._pending = None
        while size < _JOIN_BYTES and not self._over:
            try:
                packet = self._socket.recv(_PACKET_BYTES)
            except BlockingIOError:
                break
            except ConnectionResetError:
                # conmon has gone without reading all of stdin. The kernel says so once, ahead of
                # the packets that conmon sent before; they, or the end, come with the next call.
                continue
            except OSError:
                packet = b""
            if not packet:
                self._over = True
                break
            if len(packet) == 1:
                continue
            found = Chunk(_KINDS.get(packet[0], StreamKind.STDOUT), packet[1:])
            if kind is not None and found.stream is not kind:
                self._pending = found
                break
            kind = found.stream
            parts.append(found.data)
            size += len(found.data)
        return None if kind is None else Chunk(kind, b"".join(parts))

    async def send(self, data: bytes) -> None:
        """Write to stdin."""
        view = memoryview(data)
        while view:
            try:
                sent = self._socket.send(view[:_SEND_BYTES])
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)
                continue
            except OSError:
                break  # it ended
            view = view[sent:]
        await trio.lowlevel.checkpoint()

    async def close_stdin(self) -> None:
        """End of input; conmon passes it on if the container was made with ``stdin_once``."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def attach(bundle: Path) -> AsyncIterator[AttachedStreams]:
    """Connect to a container's conmon.

    Raises:
        OSError: conmon is gone.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        # Through the folder's descriptor: the path itself may be too long for a socket's address.
        folder = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{folder}/attach")
        finally:
            os.close(folder)
        await trio.lowlevel.checkpoint()
        yield AttachedStreams(connection)
