"""Connections that a route takes over."""

import json
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from linkspan.sdk.errors import Conflict
from linkspan.sdk.http import (
    Duplex,
    Hijack,
    Request,
    Response,
)


async def echo(request: Request) -> Response:
    return Response(body=await request.read())


Run = Callable[[Duplex], Awaitable[None]]


def hijacked(run: Run) -> Callable[[Request], Awaitable[Hijack]]:
    async def handler(request: Request) -> Hijack:
        await request.read()
        return Hijack(run=run)

    return handler


UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


@pytest.mark.parametrize("body", [b"", json.dumps({"Detach": False}).encode()])
async def test_an_upgrade_is_101_and_then_raw_both_ways(served, body) -> None:
    async def cat(duplex: Duplex) -> None:
        while data := await duplex.receive():
            await duplex.send(b"<", data, b">")
        await duplex.send(b"end")

    served.add("POST", "/attach", hijacked(cat))
    await served.start()
    client = await served.client()
    await client.send(
        f"POST /attach HTTP/1.1\r\nHost: d\r\nContent-Length: {len(body)}\r\n{UPGRADE}\r\n".encode()
        + body
    )
    status, reason, headers = await client.head()
    assert (status, reason) == (101, "UPGRADED")
    assert (headers["connection"], headers["upgrade"]) == ("Upgrade", "tcp")
    assert headers["content-type"] == "application/vnd.docker.raw-stream"
    await client.send(b"hi")
    assert await client.exactly(4) == b"<hi>"
    await client.stream.send_eof()
    assert await client.exactly(3) == b"end"
    assert await client.closed()


async def test_output_never_comes_in_one_piece_with_the_head(served) -> None:
    async def speak(duplex: Duplex) -> None:
        await duplex.send(b"first words")

    served.add("POST", "/attach", hijacked(speak))
    await served.start()
    client = await served.client()
    await client.send(f"POST /attach HTTP/1.1\r\nHost: d\r\n{UPGRADE}\r\n".encode())
    # Whoever reads as much as there is gets the head alone, however late it comes to read.
    await trio.testing.wait_all_tasks_blocked()
    head = await client.stream.receive_some(65536)
    assert head.endswith(b"\r\n\r\n")
    assert await client.exactly(11) == b"first words"


async def test_without_upgrade_the_stream_is_a_raw_200_and_early_input_is_kept(served) -> None:
    async def cat(duplex: Duplex) -> None:
        await duplex.send(await duplex.receive())

    served.add("POST", "/attach", hijacked(cat))
    await served.start()
    client = await served.client()
    await client.send(b"POST /attach HTTP/1.1\r\nHost: d\r\n\r\nearly")
    status, _, headers = await client.head()
    assert status == 200
    assert "transfer-encoding" not in headers
    assert "content-length" not in headers
    assert await client.exactly(5) == b"early"


async def test_a_hijack_outlives_a_closed_input_and_ends_with_the_client(served) -> None:
    cancelled, got_end = trio.Event(), trio.Event()

    async def run(duplex: Duplex) -> None:
        try:
            assert await duplex.receive() == b""
            got_end.set()
            await trio.sleep_forever()
        finally:
            cancelled.set()

    served.add("POST", "/attach", hijacked(run))
    await served.start()
    client = await served.client()
    await client.send(f"POST /attach HTTP/1.1\r\nHost: d\r\n{UPGRADE}\r\n".encode())
    await client.head()
    await client.stream.send_eof()
    await got_end.wait()
    await trio.sleep(0.02)
    assert not cancelled.is_set()
    await client.stream.aclose()
    with trio.fail_after(5):
        await cancelled.wait()


async def test_input_that_the_process_leaves_does_not_cost_its_output(served) -> None:
    async def run(duplex: Duplex) -> None:
        await duplex.receive()
        await duplex.send(b"done")

    served.add("POST", "/attach", hijacked(run))
    await served.start()
    client = await served.client()
    await client.send(f"POST /attach HTTP/1.1\r\nHost: d\r\n{UPGRADE}\r\n".encode())
    await client.head()
    await client.send(b"z" * 150_000)
    assert await client.exactly(4) == b"done"
    assert await client.closed()


async def test_an_error_before_the_connection_is_used_is_answered_as_any_error(served) -> None:
    async def run(_: Duplex) -> None:
        raise Conflict("container is paused")

    served.add("POST", "/exec", hijacked(run))
    await served.start()
    client = await served.client()
    for _ in range(2):
        reply = await client.ask("POST", "/exec", b"{}", headers=UPGRADE)
        assert (reply.status, reply.json()["message"]) == (409, "container is paused")


async def test_a_hijack_that_says_nothing_is_a_head_and_an_end(served) -> None:
    async def run(_: Duplex) -> None:
        await trio.lowlevel.checkpoint()

    served.add("POST", "/exec", hijacked(run))
    await served.start()
    client = await served.client()
    await client.send(f"POST /exec HTTP/1.1\r\nHost: d\r\n{UPGRADE}\r\n".encode())
    assert (await client.head())[0] == 101
    assert await client.closed()


async def test_an_upgrade_that_the_route_does_not_want_is_a_plain_answer(served) -> None:
    served.add("GET", "/x", echo)
    await served.start()
    client = await served.client()
    assert (await client.ask("GET", "/x", headers=UPGRADE)).status == 200
    assert (await client.ask("GET", "/x")).status == 200
