"""Bodies of requests, in pieces of any size."""

import pytest

from linkspan.core.http.body import BodyReader
from linkspan.core.http.streams import ClientGone
from linkspan.sdk.http import AnswerError

CHUNKED = b"5\r\nhello\r\n1;ext=1\r\n \r\n00a\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nGET /next"


async def whole(length: int | None, wire: bytes, size: int) -> tuple[bytes, bytes]:
    """The body, and what is left of the wire."""
    pieces = [wire[start : start + size] for start in range(0, len(wire), size)]
    reader = BodyReader(length, pieces.pop(0) if pieces else b"")

    async def receive() -> bytes:
        return pieces.pop(0) if pieces else b""

    parts = []
    while part := await reader.next(receive):
        parts.append(part)
    assert reader.done
    return b"".join(parts), reader.rest + b"".join(pieces)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_chunks_are_joined_and_what_follows_is_left(size: int) -> None:
    assert await whole(None, CHUNKED, size) == (b"hello 0123456789", b"GET /next")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_pieces_are_the_same_bytes_and_never_empty(size: int) -> None:
    wire = [CHUNKED[start : start + size] for start in range(0, len(CHUNKED), size)]
    reader = BodyReader(None, b"")

    async def receive() -> bytes:
        return wire.pop(0)

    found: list[memoryview] = []
    while pieces := await reader.next_pieces(receive):
        found += pieces
    assert b"".join(found) == b"hello 0123456789"
    assert all(len(piece) for piece in found)
    assert reader.done
    assert reader.rest + b"".join(wire) == b"GET /next"


@pytest.mark.parametrize("size", [1, 4, 1000])
async def test_a_length_is_kept_to(size: int) -> None:
    assert await whole(5, b"hellowhat follows", size) == (b"hello", b"what follows")
    assert await whole(0, b"what follows", size) == (b"", b"what follows")


@pytest.mark.parametrize(
    "wire",
    [
        b"x\r\n",
        b"-1\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"\r\n\r\n",
        b"5\r\nhelloXX",
        b"5\r\nhello\rX",
        b"00000000000000001\r\nx\r\n",
        b"1" * 20_000,
        b"0\r\n" + b"a: b\r\n" * 200,
    ],
)
async def test_broken_framing_is_refused(wire: bytes) -> None:
    for size in (1000, 100_000):
        with pytest.raises(AnswerError, match="bad request body"):
            await whole(None, wire, size)


@pytest.mark.parametrize(
    ("length", "wire"), [(None, b"5\r\nhel"), (None, b"5\r\nhello\r\n"), (9, b"x")]
)
async def test_an_end_in_the_middle_is_a_client_that_went(length: int | None, wire: bytes) -> None:
    with pytest.raises(ClientGone):
        await whole(length, wire, 100)
