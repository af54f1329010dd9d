"""The bytes of a large answer, in large pieces.

httpx hands out a body in parts of at most 64 KiB, each through nine generators and a parser: for the blobs
of an image that is more work than everything else the daemon does with them. What is left of a long body
whose length is known needs no parser, so it is read from the connection itself.
"""

from collections.abc import AsyncIterator
from typing import Any, Final, Self

import httpcore
import httpx

from linkspan.plugins.distribution_registry.transport import abandon, close_response

_LONG_BYTES: Final = 4 << 20
"""A connection that was read past its parser cannot be used again: short bodies keep theirs."""
_PIECE_BYTES: Final = 256 << 10


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
                self._stream = self._response.extensions.get("network_stream")
        return part

    async def _read(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
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
