"""WebSockets: examples of RFC 6455, and clients that do not keep to it."""

import struct

import pytest

from linkspan.plugins.docker_api.websocket import WebSocket
from linkspan.sdk.http import Duplex


class Wire(Duplex):
    """A connection: gives what a test has put there, piece by piece, and keeps what is sent."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.sent = b""

    async def start(self) -> None:
        pass

    async def receive(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    async def send(self, *parts: bytes) -> None:
        self.sent += b"".join(parts)

    async def send_eof(self) -> None:
        raise AssertionError("a WebSocket says so by a frame")


def frame(kind: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A masked frame, as a client sends it."""
    first = (0x80 if fin else 0) | kind
    if len(payload) < 126:
        head = struct.pack(">BB", first, 0x80 | len(payload))
    elif len(payload) < 1 << 16:
        head = struct.pack(">BBH", first, 0x80 | 126, len(payload))
    else:
        head = struct.pack(">BBQ", first, 0x80 | 127, len(payload))
    mask = b"\x37\xfa\x21\x3d"
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


async def read_all(socket: WebSocket) -> bytes:
    found = b""
    while data := await socket.receive():
        found += data
    return found


def closed_with(wire: Wire) -> int:
    """The code of the close frame that was sent last."""
    assert wire.sent[-4:-2] == b"\x88\x02"
    return int(struct.unpack(">H", wire.sent[-2:])[0])


async def test_the_masked_example_of_the_rfc_is_read() -> None:
    wire = Wire(bytes.fromhex("818537fa213d7f9f4d5158"))
    assert await WebSocket(wire).receive() == b"Hello"


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 300_000])
async def test_frames_of_every_length_go_both_ways(size: int) -> None:
    data = bytes(at % 251 for at in range(size))
    whole = frame(2, data) + frame(8, b"")
    wire = Wire(*(whole[at : at + 10_001] for at in range(0, len(whole), 10_001)))
    assert await read_all(WebSocket(wire)) == data
    out = Wire()
    await WebSocket(out).send(data[:7], data[7:])
    if size == 0:
        assert out.sent == b""
        return
    length = out.sent[1]
    head = 2 if length < 126 else 4 if length == 126 else 10
    assert (out.sent[0], out.sent[head:]) == (0x82, data)


async def test_a_message_in_parts_with_a_ping_between() -> None:
    wire = Wire(
        frame(1, b"one ", fin=False) + frame(9, b"there?"),
        frame(0, b"two ", fin=False) + frame(0, b"three") + frame(8, struct.pack(">H", 1001)),
    )
    socket = WebSocket(wire)
    assert await read_all(socket) == b"one two three"
    assert wire.sent.startswith(b"\x8a\x06there?")
    assert closed_with(wire) == 1001
    await socket.send(b"late")
    assert closed_with(wire) == 1001


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x82\x03abc", 1002),  # not masked
        (b"\xc2" + frame(2, b"a")[1:], 1002),  # a reserved bit
        (frame(3, b"a"), 1002),  # a kind that there is not
        (frame(11, b"a"), 1002),
        (frame(0, b"a"), 1002),  # goes on with nothing
        (frame(2, b"a", fin=False) + frame(2, b"b"), 1002),
        (frame(9, b"a" * 126), 1002),
        (frame(9, b"a", fin=False), 1002),
        (b"\x82\xff" + struct.pack(">Q", 1 << 40), 1009),
    ],
)
async def test_a_client_that_breaks_the_protocol_is_told_and_left(data: bytes, code: int) -> None:
    wire = Wire(data, frame(2, b"more"))
    socket = WebSocket(wire)
    await read_all(socket)
    assert closed_with(wire) == code
    assert await socket.receive() == b""


@pytest.mark.parametrize("cut", [1, 3, 5, 7])
async def test_a_connection_that_ends_in_a_frame_is_the_end(cut: int) -> None:
    assert await WebSocket(Wire(frame(2, b"abc")[:cut])).receive() == b""


async def test_the_end_is_said_once() -> None:
    wire = Wire()
    socket = WebSocket(wire)
    await socket.send_eof()
    await socket.send_eof()
    assert wire.sent == b"\x88\x02\x03\xe8"
