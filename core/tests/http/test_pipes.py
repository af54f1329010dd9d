"""Bodies out of pipes, over sockets that take their pages and over those that do not."""

import os
import socket

import pytest
import trio

from linkspan.core.http.streams import ClientGone, send_from_pipe

DATA = os.urandom(300_000)


def pair(family: socket.AddressFamily) -> tuple[socket.socket, socket.socket]:
    if family is socket.AF_UNIX:
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    return ours, theirs


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
async def test_what_is_in_a_pipe_arrives(family: socket.AddressFamily) -> None:
    ours, theirs = map(trio.socket.from_stdlib_socket, pair(family))
    reading, writing = os.pipe()
    received = bytearray()
    with ours, theirs:

        async def send() -> None:
            for start in range(0, len(DATA), 60_000):
                part = DATA[start : start + 60_000]
                os.write(writing, part)
                await send_from_pipe(ours, reading, len(part))
            ours.shutdown(socket.SHUT_WR)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while data := await theirs.recv(7000):
                received += data
    os.close(reading)
    os.close(writing)
    assert received == DATA


async def test_a_client_that_has_gone_is_noticed() -> None:
    ours, theirs = map(trio.socket.from_stdlib_socket, socket.socketpair())
    reading, writing = os.pipe()
    with ours:
        theirs.close()
        os.write(writing, b"x")
        with pytest.raises(ClientGone):
            await send_from_pipe(ours, reading, 1)
    os.close(reading)
    os.close(writing)
