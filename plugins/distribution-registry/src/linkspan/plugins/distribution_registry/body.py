"""The bytes of a large answer, in large pieces or straight into a pipe.

httpx hands out a body in parts of at most 64 KiB, each through nine generators and a parser: for the blobs
of an image that is more work than everything else the daemon does with them. What is left of a long body
whose length is known needs no parser, so it is read from the connection itself.
"""

import fcntl
import os
import select
import socket
import sys
import termios
import time
from collections.abc import AsyncIterator
from typing import Any, Final, Self

import httpcore
import httpx
import trio

from linkspan.plugins.distribution_registry.transport import abandon, close_response

_LONG_BYTES: Final = 4 << 20
"""A connection that was read past its parser cannot be used again: short bodies keep theirs."""
_PIECE_BYTES: Final = 256 << 10
_WAKE_BYTES: Final = 128 << 10
"""With fewer on the socket nobody is woken: each time costs as much as copying a hundred kilobytes."""
_MOST_BYTES: Final = 2 << 20
_WHILE_S: Final = 0.1
_DRAIN_S: Final = 0.004
"""A reader that decompresses takes three times as long for what a pipe holds."""
_SPLICE_F_NONBLOCK: Final = 2


class Body(AsyncIterator[bytes]):
    """Iterates over an answer's body as it arrives; ends early if the connection does.

    Raises:
        httpx.TransportError: The connection broke.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._parts = response.aiter_raw()
        self._left = _length(response)
        self._stream: Any = None
        self._socket: trio.socket.SocketType | None = None
        self._wake_bytes = 1

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._stream is not None:
            return await self._read()
        # All that the parser holds comes in the first part: it never has more than one read's.
        part = await anext(self._parts)
        if self._left is not None:
            self._left -= len(part)
            if self._left >= _LONG_BYTES:
                self._read_past_parser()
        return part

    def _read_past_parser(self) -> None:
        self._stream = self._response.extensions.get("network_stream")
        if self._stream is not None and self._stream.get_extra_info("ssl_object") is None:
            self._socket = self._stream.get_extra_info("socket")

    @property
    def is_bare(self) -> bool:
        """Whether nothing but the body's bytes is to come on the socket, so that ``pour`` works."""
        return self._socket is not None

    async def pour(self, pipe: int) -> int:
        """Put what comes next into a pipe that does not block; 0 if the connection ends, or the body.

        Raises:
            httpx.TransportError: The connection broke.
            BrokenPipeError: Nobody reads the pipe any more.
        """
        assert self._left is not None
        timeout_s = self._response.request.extensions["timeout"]["read"]
        silent_since = trio.current_time()
        while self._left:
            try:
                moved, ended = await trio.to_thread.run_sync(self._pour_for_a_while, pipe)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise httpx.ReadError(str(error), request=self._response.request) from error
            if moved or ended:
                self._left -= moved
                return moved
            if self._waiting_bytes():
                # It is the pipe that is full.
                silent_since = trio.current_time()
            elif trio.current_time() - silent_since >= timeout_s:
                raise httpx.ReadTimeout("", request=self._response.request)
        return 0

    def _pour_for_a_while(self, pipe: int) -> tuple[int, bool]:
        """Blocks: what was moved, and whether the connection has ended.

        A thread of its own: the event loop would be busy with waking up for each few pages.
        """
        assert self._socket is not None
        assert self._left is not None
        connection = self._socket.fileno()
        end_s = time.monotonic() + _WHILE_S
        moved, most = 0, min(self._left, _MOST_BYTES)
        self._wake_at(_WAKE_BYTES if self._left >= most + _WAKE_BYTES else 1)
        while moved < most:
            left_s = end_s - time.monotonic()
            late = left_s <= 0 or not _is_ready(connection, select.POLLIN, left_s)
            try:
                count = os.splice(connection, pipe, most - moved, flags=_SPLICE_F_NONBLOCK)
            except BlockingIOError:
                count = -1
            except OSError:
                if moved:
                    # The next call has the same error, and nothing to count.
                    break
                raise
            if not count:
                return moved, True
            moved += max(count, 0)
            if late:
                break
            if count < _WAKE_BYTES and _is_ready(pipe, select.POLLOUT, end_s - time.monotonic()):
                # Any page that its reader frees makes a full pipe writable: let there be many.
                time.sleep(_DRAIN_S)
        return moved, False

    def _waiting_bytes(self) -> int:
        assert self._socket is not None
        found = fcntl.ioctl(self._socket.fileno(), termios.FIONREAD, bytes(4))
        return int.from_bytes(found, sys.byteorder)

    def _wake_at(self, count: int) -> None:
        if self._socket is not None and count != self._wake_bytes:
            self._wake_bytes = count
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    async def _read(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        self._wake_at(1)
        timeout_s = self._response.request.extensions["timeout"]["read"]
        try:
            part: bytes = await self._stream.read(min(self._left, _PIECE_BYTES), timeout_s)
        except httpcore.TimeoutException as error:
            raise httpx.ReadTimeout(str(error), request=self._response.request) from error
        except httpcore.NetworkError as error:
            raise httpx.ReadError(str(error), request=self._response.request) from error
        if not part:
            raise StopAsyncIteration
        self._left -= len(part)
        return part

    async def aclose(self) -> None:
        """Close the connection, or give it back."""
        await abandon(self._parts)
        await close_response(self._response)


def _length(response: httpx.Response) -> int | None:
    """Bytes of a body that comes plain, in one piece, and alone on its connection."""
    length = response.headers.get("content-length", "")
    if "transfer-encoding" in response.headers or not length.isdigit():
        return None
    return int(length) if response.http_version in ("HTTP/1.1", "HTTP/1.0") else None


def _is_ready(fd: int, event: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(max(timeout_s, 0) * 1000))
