"""Frames of HTTP/2 as they travel (RFC 9113, section 4): cut out of what arrives, put together to be sent."""

import struct
from collections.abc import Iterator
from typing import Final

DATA: Final = 0
HEADERS: Final = 1
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY: Final = 0x20

INITIAL_WINDOW: Final = 65535
MAX_WINDOW: Final = (1 << 31) - 1
MAX_FRAME_BYTES: Final = 16384
"""Of a payload, as long as nobody has agreed to more; we do not ask for more."""
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Error codes (section 7)
NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
INTERNAL_ERROR: Final = 2
FLOW_CONTROL_ERROR: Final = 3
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
ENHANCE_YOUR_CALM: Final = 11

_HEAD: Final = struct.Struct(">HBBBI")
_HEAD_BYTES: Final = 9


class Http2Error(Exception):
    """The other side breaks the protocol: the connection ends.

    Attributes:
        code: Of RFC 9113, section 7.
    """

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame, whole."""
    size = len(payload)
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def numbers(*values: int) -> bytes:
    """Numbers of 32 bits after each other."""
    return struct.pack(f">{len(values)}I", *values)


def setting(name: int, value: int) -> bytes:
    """One entry of SETTINGS."""
    return struct.pack(">HI", name, value)


def settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """Entries of SETTINGS. Raises Http2Error."""
    if len(payload) % 6:
        raise Http2Error(FRAME_SIZE_ERROR, "settings are cut off")
    return struct.iter_unpack(">HI", payload)


def number(payload: bytes) -> int:
    """A payload of one number of 32 bits. Raises Http2Error."""
    if len(payload) != 4:
        raise Http2Error(FRAME_SIZE_ERROR, f"a number has {len(payload)} bytes")
    return int.from_bytes(payload, "big")


def unpadded(flags: int, payload: bytes) -> bytes:
    """A payload without its padding and priority. Raises Http2Error."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload or payload[0] >= end:
            raise Http2Error(PROTOCOL_ERROR, "more padding than payload")
        start, end = 1, end - payload[0]
    if flags & PRIORITY:
        start += 5
    if start > end:
        raise Http2Error(PROTOCOL_ERROR, "a frame is cut off")
    return payload[start:end]


class FrameReader:
    """Cuts frames out of the bytes of a connection."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Kind, flags, stream and payload of each frame that is complete now; read them all.

        Thousands of small frames of data that follow each other in one stream are one long frame here.

        Raises:
            Http2Error: A frame is longer than we allow.
        """
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        unpack = _HEAD.unpack_from
        run: list[bytes] = []
        running = 0
        while end - at >= _HEAD_BYTES:
            high, low, kind, flags, stream = unpack(data, at)
            size = high << 8 | low
            if size > MAX_FRAME_BYTES:
                raise Http2Error(FRAME_SIZE_ERROR, f"a frame has {size} bytes")
            following = at + _HEAD_BYTES + size
            if following > end:
                break
            payload = data[at + _HEAD_BYTES : following]
            at = following
            if kind or flags or stream != running:
                if run:
                    yield DATA, 0, running & MAX_WINDOW, b"".join(run)
                    run = []
                if kind or flags:
                    running = 0
                    yield kind, flags, stream & MAX_WINDOW, payload
                    continue
                running = stream
            run.append(payload)
        self._rest = data[at:]
        if run:
            yield DATA, 0, running & MAX_WINDOW, b"".join(run)
