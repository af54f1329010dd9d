"""What a stop of the daemon does with connections."""

import pytest
import trio
import trio.testing

from linkspan.core.http import Stopping
from linkspan.sdk.http import (
    Duplex,
    Hijack,
    Request,
    Response,
    Stream,
    Writer,
)

HEAD = b"GET /x HTTP/1.1\r\nHost: d\r\n\r\n"


@pytest.fixture
def stopping() -> Stopping:
    return Stopping(trio.Event(), grace_s=30)


async def test_a_stop_lets_a_request_end_and_closes_what_is_idle(served, stopping) -> None:
    asked, go = trio.Event(), trio.Event()

    async def slow(_: Request) -> Response:
        asked.set()
        await go.wait()
        return Response(body=b"done")

    served.add("GET", "/x", slow)
    await served.start(stopping=stopping)
    idle, busy = await served.client(), await served.client()
    await busy.send(HEAD)
    with trio.fail_after(10):
        await asked.wait()
        stopping.begun.set()
        assert await idle.closed()
        with pytest.raises(OSError, match=r".*"):
            await served.client()
        go.set()
        reply = await busy.reply()
        assert (reply.body, reply.headers["connection"]) == (b"done", "close")
        assert await busy.closed()


async def test_a_request_that_takes_longer_than_a_stop_allows_is_broken_off(served) -> None:
    asked, cancelled = trio.Event(), trio.Event()

    async def endless(_: Request) -> Response:
        asked.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    served.add("GET", "/x", endless)
    stopping = Stopping(trio.Event(), grace_s=0.05)
    await served.start(stopping=stopping)
    client = await served.client()
    await client.send(HEAD)
    with trio.fail_after(10):
        await asked.wait()
        stopping.begun.set()
        await cancelled.wait()
        assert await client.closed()


@pytest.mark.parametrize("at_stop", ["end", "break"])
async def test_a_stop_ends_what_would_not_end_or_breaks_it_off(served, stopping, at_stop) -> None:
    async def run(writer: Writer) -> None:
        await writer.write(b"one")
        await trio.sleep_forever()

    async def stream(_: Request) -> Stream:
        return Stream(run=run, at_stop=at_stop)

    served.add("GET", "/x", stream)
    await served.start(stopping=stopping)
    client = await served.client()
    await client.send(HEAD)
    with trio.fail_after(10):
        await client.head()
        assert await client.chunk() == b"one"
        stopping.begun.set()
        if at_stop == "end":
            assert await client.chunk() == b""
        assert await client.closed()


async def test_a_chunk_that_a_stop_tore_is_not_followed_by_an_end(served, stopping) -> None:
    async def run(writer: Writer) -> None:
        await writer.write(bytes(8 << 20))

    async def stream(_: Request) -> Stream:
        return Stream(run=run, at_stop="end")

    served.add("GET", "/x", stream)
    await served.start(stopping=stopping)
    client = await served.client()
    await client.send(HEAD)
    with trio.fail_after(10):
        await client.head()
        stopping.begun.set()
        with pytest.raises(EOFError):
            await client.chunk()


async def test_a_stop_ends_a_connection_that_was_taken_over(served, stopping) -> None:
    async def run(duplex: Duplex) -> None:
        await duplex.send(b"hello")
        await trio.sleep_forever()

    async def attach(_: Request) -> Hijack:
        return Hijack(run=run)

    served.add("GET", "/x", attach)
    await served.start(stopping=stopping)
    client = await served.client()
    await client.send(HEAD)
    with trio.fail_after(10):
        await client.head()
        assert await client.exactly(5) == b"hello"
        stopping.begun.set()
        assert await client.closed()
