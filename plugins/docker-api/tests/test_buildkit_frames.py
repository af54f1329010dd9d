"""Frames of HTTP/2, cut out of bytes in pieces of any size."""

import random

import pytest

from linkspan.plugins.docker_api.buildkit import frames
from linkspan.plugins.docker_api.buildkit.frames import FrameReader, Http2Error, frame


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_pieces_each_stream_gets_its_frames_in_order(seed: int) -> None:
    chance = random.Random(seed)
    sent: list[tuple[int, int, int, bytes]] = []
    for _ in range(200):
        payload = chance.randbytes(chance.choice((0, 1, 40, 40, 40, 3000)))
        kind = chance.choice((frames.DATA,) * 8 + (frames.HEADERS, frames.PING))
        flags = chance.choice((0,) * 8 + (frames.END_STREAM,))
        sent.append((kind, flags, chance.choice((1, 1, 1, 3)), payload))
    wire = b"".join(map(frame, *zip(*sent, strict=True)))
    reader, got = FrameReader(), list[tuple[int, int, int, bytes]]()
    at = 0
    while at < len(wire):
        size = chance.choice((1, 9, 50, 5000))
        got += reader.feed(wire[at : at + size])
        at += size
    assert _joined(got) == _joined(sent)
    assert len(got) < len(sent)


def _joined(each: list[tuple[int, int, int, bytes]]) -> list[tuple[int, int, int, bytes]]:
    """Plain frames of data that follow each other in a stream as one; none that are empty."""
    found: list[tuple[int, int, int, bytes]] = []
    for kind, flags, stream, payload in each:
        if (kind, flags) == (frames.DATA, 0):
            if not payload:
                continue
            if found and found[-1][:3] == (frames.DATA, 0, stream):
                payload = found.pop()[3] + payload
        found.append((kind, flags, stream, payload))
    return found


def test_a_frame_that_is_too_long_is_refused_before_it_is_here() -> None:
    head = frame(frames.DATA, 0, 1, b"")[3:]
    size = frames.MAX_FRAME_BYTES + 1
    with pytest.raises(Http2Error, match=str(size)):
        list(FrameReader().feed(size.to_bytes(3, "big") + head))
