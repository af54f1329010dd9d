"""The server's side of a WebSocket (RFC 6455), as a stream of bytes: one frame out for each send.

No extensions and no subprotocols: Docker's clients ask for none.
"""

import base64
import hashlib
import struct
from collections.abc import Mapping
from typing import Final

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.http import Duplex, Request

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_FIN: Final = 0x80
_MASKED: Final = 0x80
_MOST_BYTES: Final = 8 << 20
_MOST_CONTROL_BYTES: Final = 125
_NORMAL, _PROTOCOL_ERROR, _TOO_BIG = 1000, 1002, 1009


def accept(request: Request) -> Mapping[str, str]:
    """Headers of the 101 that agrees to what a client asks (section 4.2.2).

    Raises:
        InvalidArgument: It asks for no WebSocket, or for another version.
    """
    headers = request.headers
    key = headers.get("sec-websocket-key", "")
    if headers.get("upgrade", "").lower() != "websocket" or not key:
        raise InvalidArgument("this route speaks WebSocket only: the request asks for no upgrade")
    if headers.get("sec-websocket-version") != "13":
        raise InvalidArgument(
            f"WebSocket version {headers.get('sec-websocket-version', 'none')} is not supported: use 13"
        )
    digest = hashlib.sha1(key.strip().encode() + _GUID, usedforsecurity=False).digest()
    return {"Sec-WebSocket-Accept": base64.b64encode(digest).decode()}


class _Broken(Exception):
    """The client does not keep to the protocol; ``code`` tells it so."""

    def __init__(self, code: int) -> None:
        self.code = code


class WebSocket(Duplex):
    """A connection on which bytes travel in frames; ``receive`` gives what data frames carry."""

    def __init__(self, inner: Duplex) -> None:
        self._inner = inner
        self._buffer = bytearray()
        self._closed = False
        self._inside_message = False

    async def start(self) -> None:
        """See ``Duplex``."""
        await self._inner.start()

    async def send(self, *parts: bytes) -> None:
        """One binary frame of all parts."""
        if self._closed or not any(parts):
            return
        await self._frame(_BINARY, *parts)

    async def send_eof(self) -> None:
        """Say that no more comes."""
        await self._close(_NORMAL)

    async def receive(self) -> bytes:
        """The next data; ``b""`` when the client has closed or broken the protocol."""
        while not self._closed:
            try:
                frame = await self._next_frame()
                if frame is None:
                    return b""
                data = await self._take(*frame)
            except _Broken as error:
                await self._close(error.code)
                return b""
            if data:
                return data
        return b""

    async def _take(self, first: int, payload: bytes) -> bytes:
        """What a frame brings; control frames are answered."""
        kind = first & 0x0F
        if kind >= _CLOSE:
            if not first & _FIN or len(payload) > _MOST_CONTROL_BYTES:
                raise _Broken(_PROTOCOL_ERROR)
            await self._control(kind, payload)
            return b""
        if kind not in (_CONTINUATION, _TEXT, _BINARY):
            raise _Broken(_PROTOCOL_ERROR)
        if (kind == _CONTINUATION) is not self._inside_message:
            raise _Broken(_PROTOCOL_ERROR)
        self._inside_message = not first & _FIN
        return payload

    async def _control(self, kind: int, payload: bytes) -> None:
        if kind == _PING:
            await self._frame(_PONG, payload)
        elif kind == _CLOSE:
            code = struct.unpack(">H", payload[:2])[0] if len(payload) >= 2 else _NORMAL
            await self._close(code)
        elif kind != _PONG:
            raise _Broken(_PROTOCOL_ERROR)

    async def _close(self, code: int) -> None:
        if self._closed:
            return
        await self._frame(_CLOSE, struct.pack(">H", code))
        self._closed = True

    async def _frame(self, kind: int, *parts: bytes) -> None:
        size = sum(map(len, parts))
        if size < 126:
            head = struct.pack(">BB", _FIN | kind, size)
        elif size < 1 << 16:
            head = struct.pack(">BBH", _FIN | kind, 126, size)
        else:
            head = struct.pack(">BBQ", _FIN | kind, 127, size)
        await self._inner.send(head, *parts)

    async def _next_frame(self) -> tuple[int, bytes] | None:
        """The next frame's first byte and its payload, unmasked; None at the end."""
        head = await self._read(2)
        if head is None:
            return None
        first, second = head
        if first & 0x70 or not second & _MASKED:
            raise _Broken(_PROTOCOL_ERROR)
        size = second & 0x7F
        if size >= 126:
            length = await self._read(2 if size == 126 else 8)
            if length is None:
                return None
            size = int.from_bytes(length, "big")
        if size > _MOST_BYTES:
            raise _Broken(_TOO_BIG)
        mask = await self._read(4)
        payload = await self._read(size)
        if mask is None or payload is None:
            return None
        return first, _unmasked(payload, mask)

    async def _read(self, size: int) -> bytes | None:
        while len(self._buffer) < size:
            data = await self._inner.receive()
            if not data:
                return None
            self._buffer += data
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    """Section 5.3, by one operation on big numbers."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
