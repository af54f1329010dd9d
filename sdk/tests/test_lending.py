"""Streams that another process reads: where the reader stands is carried there and back."""

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from linkspan.sdk.framing import Framing
from linkspan.sdk.lending import Borrowed, Interrupted

CHUNKED = b"5\r\nhello\r\n1;ext=1\r\n \r\n00a\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nGET /next"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def borrowed(theirs: socket.socket, framing: Framing, limit_s: float = 60.0) -> Borrowed:
    terms = {"framing": framing.state(), "limit_s": limit_s}
    return Borrowed(theirs.fileno(), json.loads(json.dumps(terms)))


def read(stream: Borrowed) -> bytes:
    return b"".join(piece for group in stream.groups() for piece in group)


def report(stream: Borrowed) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(json.dumps(stream.report()))
    return told


@pytest.mark.parametrize("at", range(len(CHUNKED) - len(b"GET /next")))
def test_a_reader_goes_on_wherever_another_stopped(
    ends: tuple[socket.socket, socket.socket], at: int
) -> None:
    ours, theirs = ends
    here = Framing(None, CHUNKED[:at])
    before = b"".join(here.pieces())
    ours.sendall(CHUNKED[at:])
    stream = borrowed(theirs, here)
    assert before + read(stream) == b"hello 0123456789"
    here.go_to(report(stream)["framing"])
    assert here.done
    assert here.rest == b"GET /next"


def test_a_body_of_known_length_ends_where_the_next_message_begins(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    here = Framing(10, b"\xff123")
    assert b"".join(here.pieces()) == b"\xff123"
    ours.sendall(b"456789what follows\xff")
    stream = borrowed(theirs, here)
    assert read(stream) == b"456789"
    here.go_to(report(stream)["framing"])
    assert (here.done, here.rest) == (True, b"what follows\xff")


def test_very_many_thin_pieces_are_whole(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    stream = borrowed(theirs, Framing(None, b""))
    groups = stream.groups()
    found = []
    for number in range(100):
        ours.sendall(b"4\r\n%04d\r\n" % number)
        found += next(groups)
    ours.sendall(b"0\r\n\r\n")
    assert list(groups) == []
    assert b"".join(found) == b"".join(b"%04d" % number for number in range(100))


def test_a_sender_that_goes_stalls_or_errs_is_told_apart(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    ours.sendall(b"5\r\nhel")
    stalling = borrowed(theirs, Framing(None, b""), limit_s=0.01)
    with pytest.raises(Interrupted):
        read(stalling)
    assert stalling.report()["fault"] == "stalled"
    ours.sendall(b"x\r\n")
    erring = borrowed(theirs, Framing(None, b""))
    with pytest.raises(Interrupted):
        read(erring)
    assert erring.report()["fault"] == "a chunk has no size"
    ours.close()
    gone = borrowed(theirs, Framing(5, b""))
    with pytest.raises(Interrupted):
        read(gone)
    assert gone.report()["fault"] == "gone"


def test_nothing_is_read_behind_the_end(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    stream = borrowed(theirs, Framing(3, b""))
    ours.sendall(b"abc")
    assert read(stream) == b"abc"
    ours.sendall(b"next")
    assert list(stream.groups()) == []
    assert os.read(theirs.fileno(), 100) == b"next"
