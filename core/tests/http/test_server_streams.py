"""Answers of unknown length: chunks, and clients that go or take nothing."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from linkspan.core.http import Limits
from linkspan.sdk.errors import Conflict, NotFound
from linkspan.sdk.http import (
    Request,
    Response,
    Stream,
    Writer,
)

HEAD = b"GET /x HTTP/1.1\r\nHost: d\r\n\r\n"


async def echo(request: Request) -> Response:
    return Response(body=await request.read())


async def reading(served: Any, run: Callable[[Writer], Awaitable[None]]) -> Any:
    """A client that has read the head of what ``run`` writes."""

    async def stream(_: Request) -> Stream:
        return Stream(run=run)

    served.add("GET", "/x", stream)
    await served.start()
    client = await served.client()
    await client.send(HEAD)
    await client.head()
    return client


async def test_the_headers_of_a_stream_come_before_its_first_chunk(served) -> None:
    go = trio.Event()

    async def run(writer: Writer) -> None:
        await go.wait()
        await writer.write(b'{"StatusCode":0}')

    async def wait(_: Request) -> Stream:
        return Stream(run=run)

    served.add("POST", "/wait", wait)
    await served.start()
    client = await served.client()
    await client.send(b"POST /wait HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
    assert (await client.head())[2]["transfer-encoding"] == "chunked"
    go.set()
    assert await client.chunk() == b'{"StatusCode":0}'
    assert await client.chunk() == b""
    go = trio.Event()
    go.set()
    assert (await client.ask("POST", "/wait")).status == 200


async def test_parts_of_a_chunk_stay_together(served) -> None:
    big = os.urandom(3_000_000)

    async def run(writer: Writer) -> None:
        await writer.write(b"head", big, b"tail")
        await writer.write(b"")
        await writer.write(*[b"x"] * 2000)

    client = await reading(served, run)
    assert await client.chunk() == b"head" + big + b"tail"
    assert await client.chunk() == b"x" * 2000
    assert await client.chunk() == b""


async def test_an_error_before_a_late_head_is_answered_as_any_error(served) -> None:
    async def run(_: Writer) -> None:
        raise NotFound("manifest unknown")

    async def pull(_: Request) -> Stream:
        return Stream(run=run, headers_at_once=False)

    served.add("POST", "/x", pull)
    await served.start()
    client = await served.client()
    assert (await client.ask("POST", "/x")).status == 404
    assert (await client.ask("POST", "/x")).json()["message"] == "manifest unknown"


async def test_a_stream_that_breaks_off_ends_without_its_last_chunk(served) -> None:
    async def run(writer: Writer) -> None:
        await writer.write(b"a")
        raise Conflict("half way")

    client = await reading(served, run)
    assert await client.chunk() == b"a"
    assert await client.closed()


async def test_a_stream_is_cancelled_when_its_client_goes(served) -> None:
    cancelled = trio.Event()

    async def run(_: Writer) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    client = await reading(served, run)
    await client.stream.aclose()
    with trio.fail_after(5):
        await cancelled.wait()


async def test_a_client_that_is_ahead_with_its_next_request_is_still_seen_to_go(served) -> None:
    cancelled = trio.Event()
    go = trio.Event()

    async def run(writer: Writer) -> None:
        try:
            await go.wait()
            await writer.write(b"done")
        finally:
            cancelled.set()

    client = await reading(served, run)
    await client.send(HEAD)
    await trio.testing.wait_all_tasks_blocked(0.01)
    go.set()
    assert await client.chunk() == b"done"
    assert await client.chunk() == b""
    assert (await client.head())[0] == 200
    assert await client.chunk() == b"done"
    assert await client.chunk() == b""
    go = trio.Event()
    await client.send(HEAD)
    await client.head()
    await client.send(HEAD)
    await trio.testing.wait_all_tasks_blocked(0.01)
    cancelled = trio.Event()
    await client.stream.aclose()
    with trio.fail_after(30):
        await cancelled.wait()


async def test_a_stream_may_be_written_while_the_body_is_read(served) -> None:
    async def build(request: Request) -> Stream:
        async def run(writer: Writer) -> None:
            async for data in request.body():
                await writer.write(data.upper())

        return Stream(run=run, headers_at_once=False)

    served.add("POST", "/x", build)
    await served.start()
    client = await served.client()
    await client.send(
        b"POST /x HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    )
    await client.head()
    assert await client.chunk() == b"ABC"
    await client.send(b"1\r\nd\r\n0\r\n\r\n")
    assert await client.chunk() == b"D"
    assert await client.chunk() == b""


async def test_a_client_that_goes_in_the_middle_of_its_body_ends_the_handler(served) -> None:
    ended = trio.Event()

    async def build(request: Request) -> Response:
        try:
            return Response(body=await request.read())
        finally:
            ended.set()

    served.add("POST", "/x", build)
    await served.start()
    client = await served.client()
    await client.send(b"POST /x HTTP/1.1\r\nHost: d\r\nContent-Length: 10\r\n\r\nabc")
    await client.stream.aclose()
    with trio.fail_after(5):
        await ended.wait()


async def test_a_client_that_takes_nothing_stalls_nobody_else(served) -> None:
    async def flood(writer: Writer) -> None:
        while True:
            await writer.write(b"z" * 65536)

    async def stream(_: Request) -> Stream:
        return Stream(run=flood)

    served.add("GET", "/flood", stream)
    served.add("GET", "/x", echo)
    await served.start()
    slow = await served.client()
    await slow.send(b"GET /flood HTTP/1.1\r\nHost: d\r\n\r\n")
    await slow.head()
    quick = await served.client()
    with trio.fail_after(20):
        for _ in range(20):
            assert (await quick.ask("GET", "/x")).status == 200


async def test_an_answer_that_nobody_takes_is_given_up(served) -> None:
    async def page(_: Request) -> Response:
        return Response(body=b"z" * 10_000_000)

    served.add("GET", "/x", page)
    await served.start(limits=Limits(send_timeout_s=0.05))
    client = await served.client()
    await client.send(HEAD)
    await client.head()
    await trio.sleep(0.2)
    with pytest.raises(EOFError):
        await client.exactly(10_000_000)
