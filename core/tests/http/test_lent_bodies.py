"""Bodies of requests that another reader takes from the socket."""

from collections.abc import Mapping
from typing import Any

import trio
import trio.testing

from linkspan.core.http import Limits
from linkspan.sdk.errors import Conflict
from linkspan.sdk.http import Request, Response, json_response
from linkspan.sdk.lending import Borrowed, Interrupted, Lendable, Loan

HEAD = b"POST /x HTTP/1.1\r\nHost: d\r\n"


async def lent(request: Request) -> Loan | None:
    body = request.body()
    assert isinstance(body, Lendable)
    return await body.lend()


def read(descriptor: int, terms: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
    borrowed = Borrowed(descriptor, terms)
    found = bytearray()
    try:
        for group in borrowed.groups():
            found += b"".join(group)
    except Interrupted:
        pass
    return bytes(found), borrowed.report()


async def elsewhere(request: Request) -> Response:
    """Say what somebody else has read, and what was here already."""
    loan = await lent(request)
    if loan is None:
        return json_response({"here": (await request.read()).decode(), "there": None})
    found, report = await trio.to_thread.run_sync(read, loan.descriptor, loan.terms)
    loan.given_back(report)
    assert await request.read() == b""
    return json_response({"here": loan.ahead.decode(), "there": found.decode()})


async def test_who_borrows_a_body_leaves_what_follows_it(served) -> None:
    served.add("POST", "/x", elsewhere)
    await served.start()
    client = await served.client()
    await client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r")
    await trio.testing.wait_all_tasks_blocked(0.01)
    await client.send(b"\ndefg\r\n0\r\n\r\n" + HEAD + b"Content-Length: 5\r\n\r\nhello")
    assert (await client.reply()).json() == {"here": "abc", "there": "defg"}
    assert (await client.reply()).json() == {"here": "hello", "there": None}
    await client.send(HEAD + b"Content-Length: 7\r\nExpect: 100-continue\r\n\r\n")
    assert (await client.head())[0] == 100
    await client.send(b"and so ")
    assert (await client.reply()).json() == {"here": "", "there": "and so "}


async def test_a_borrowed_body_stalls_as_one_that_is_read_here(served) -> None:
    served.add("POST", "/x", elsewhere)
    await served.start(limits=Limits(body_idle_timeout_s=0.05, linger_s=0.05))
    client = await served.client()
    await client.send(HEAD + b"Content-Length: 10\r\n\r\nabc")
    assert (await client.reply()).status == 408


async def test_a_borrowed_body_breaks_as_one_that_is_read_here(served) -> None:
    served.add("POST", "/x", elsewhere)
    await served.start(limits=Limits(linger_s=0.05))
    erring = await served.client()
    await erring.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await trio.testing.wait_all_tasks_blocked(0.01)
    await erring.send(b"no size\r\n")
    reply = await erring.reply()
    assert reply.status == 400
    assert "a chunk has no size" in reply.json()["message"]
    leaving = await served.client()
    await leaving.send(HEAD + b"Content-Length: 10\r\n\r\nabc")
    await leaving.stream.send_eof()
    assert await leaving.closed()


async def test_a_body_that_was_not_given_back_ends_the_connection(served) -> None:
    asked: list[str] = []
    sent = trio.Event()

    async def keep(request: Request) -> Response:
        asked.append(request.path)
        assert await lent(request) is not None
        await sent.wait()
        raise Conflict("the borrower has died")

    served.add("POST", "/x", keep)
    await served.start(limits=Limits(linger_s=0.05))
    client = await served.client()
    # As much as would be thrown away so that the connection can go on, if one knew where it ends.
    await client.send(HEAD + b"Content-Length: 10\r\n\r\n")
    await trio.testing.wait_all_tasks_blocked(0.01)
    await client.send(HEAD + b"Content-Length: 0\r\n\r\n")
    sent.set()
    reply = await client.reply()
    assert (reply.status, reply.headers["connection"]) == (409, "close")
    assert await client.closed()
    assert asked == ["/x"]
