"""Requests and answers over a connection."""

import contextlib
import errno
import logging
import os

import pytest
import trio
import trio.testing

from linkspan.core.http import Limits
from linkspan.sdk.errors import Conflict, NotFound, NotModified
from linkspan.sdk.http import (
    AnswerError,
    Request,
    Response,
    Stream,
    Writer,
    json_response,
)
from linkspan.sdk.pouring import Pourable

HEAD = b"GET /x HTTP/1.1\r\nHost: d\r\n\r\n"


async def echo(request: Request) -> Response:
    return Response(body=await request.read())


async def facts(request: Request) -> Response:
    return json_response(
        {
            "path": request.path,
            "params": dict(request.params),
            "query": dict(request.query),
            "all": {k: list(v) for k, v in request.query_all.items()},
            "version": list(request.api_version),
            "uid": request.peer_uid,
            "header": request.headers.get("x-thing"),
        }
    )


async def test_a_name_that_is_no_text_is_told_all_the_same(served) -> None:
    async def fail(_: Request) -> Response:
        raise NotFound(b"no file a\xff".decode(errors="surrogateescape"))

    served.add("GET", "/x", fail)
    await served.start()
    client = await served.client()
    reply = await client.ask("GET", "/x")
    assert (reply.status, reply.json()["message"]) == (404, "no file a?")


async def test_a_request_has_path_parameters_query_version_and_user(served) -> None:
    served.add("GET", "/images/{name:path}/json", facts)
    await served.start()
    client = await served.client()
    reply = await client.ask(
        "GET",
        "/v1.43/images/h:5%2Fa%20b/json?a=1&a=2&e=&t=%C3%A4+b",
        headers="X-Thing: a\r\nX-Thing: b\r\n",
    )
    assert reply.json() == {
        "path": "/images/h:5/a b/json",
        "params": {"name": "h:5/a b"},
        "query": {"a": "1", "e": "", "t": "ä b"},
        "all": {"a": ["1", "2"], "e": [""], "t": ["ä b"]},
        "version": [1, 43],
        "uid": os.getuid(),
        "header": "a,b",
    }
    assert reply.headers["api-version"] == "1.50"
    assert reply.headers["ostype"] == "linux"


async def test_a_connection_takes_many_requests(served) -> None:
    served.add("POST", "/echo", echo)
    await served.start()
    client = await served.client()
    for size in (0, 1, 70_000, 3):
        assert (await client.ask("POST", "/echo", b"z" * size)).body == b"z" * size


async def test_requests_sent_ahead_are_answered_in_order(served) -> None:
    served.add("POST", "/echo", echo)
    await served.start()
    client = await served.client()
    one = b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\n\r\n"
    await client.send(one + b"1" + one + b"2" + one + b"3")
    assert [(await client.reply()).body for _ in range(3)] == [b"1", b"2", b"3"]


async def test_a_chunked_body_is_read(served) -> None:
    served.add("POST", "/echo", echo)
    await served.start()
    client = await served.client()
    await client.send(
        b"POST /echo HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    )
    await trio.testing.wait_all_tasks_blocked(0.01)
    await client.send(b"2\r\nde\r\n0\r\n\r\n")
    assert (await client.reply()).body == b"abcde"


async def test_a_body_in_very_many_small_chunks_is_whole(served) -> None:
    served.add("POST", "/echo", echo)
    await served.start()
    client = await served.client()
    await client.send(b"POST /echo HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(1000):
        await client.send(b"4\r\n%04d\r\n" % number)
    await client.send(b"0\r\n\r\n")
    assert (await client.reply()).body == b"".join(b"%04d" % number for number in range(1000))


async def test_a_body_may_be_poured_into_a_pipe(served) -> None:
    found: list[bytes] = []

    async def pour(request: Request) -> Response:
        body = request.body()
        assert isinstance(body, Pourable)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(writing, False)
        try:
            async with trio.open_nursery() as nursery:

                async def drain() -> None:
                    while data := await trio.to_thread.run_sync(os.read, reading, 7_000):
                        found.append(data)

                nursery.start_soon(drain)
                count = 0
                try:
                    while poured := await body.pour(writing):
                        count += poured
                finally:
                    os.close(writing)
        finally:
            os.close(reading)
        return json_response({"bytes": count})

    served.add("POST", "/x", pour)
    await served.start()
    client = await served.client()
    await client.send(b"POST /x HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n")
    pieces = [bytes([number]) * (number * 900 + 1) for number in range(100)]
    for piece in pieces:
        await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
    await client.send(b"0\r\n\r\n")
    whole = b"".join(pieces)
    assert (await client.reply()).json() == {"bytes": len(whole)}
    assert b"".join(found) == whole


async def test_a_client_that_expects_100_gets_it_when_the_body_is_wanted(served) -> None:
    served.add("POST", "/echo", echo)
    await served.start()
    client = await served.client()
    await client.send(
        b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    )
    assert (await client.head())[0] == 100
    await client.send(b"ok")
    assert (await client.reply()).body == b"ok"


async def test_a_client_that_expects_100_may_get_the_final_answer_instead(served) -> None:
    async def refuse(_: Request) -> Response:
        raise Conflict("no")

    served.add("POST", "/x", refuse)
    await served.start()
    client = await served.client()
    await client.send(
        b"POST /x HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    )
    reply = await client.reply()
    assert (reply.status, reply.headers["connection"]) == (409, "close")
    assert await client.closed()


async def test_a_small_unread_body_leaves_the_connection_usable(served) -> None:
    async def ignore(_: Request) -> Response:
        return Response(status=204)

    served.add("POST", "/x", ignore)
    await served.start()
    client = await served.client()
    assert (await client.ask("POST", "/x", b"y" * 100_000)).status == 204
    assert (await client.ask("POST", "/x")).status == 204


async def test_an_answer_before_a_huge_body_reaches_the_client(served) -> None:
    async def refuse(_: Request) -> Response:
        raise NotFound("no such thing")

    served.add("POST", "/x", refuse)
    await served.start()
    client = await served.client()
    await client.send(b"POST /x HTTP/1.1\r\nHost: d\r\nContent-Length: 100000000\r\n\r\n")
    async with trio.open_nursery() as nursery:

        async def upload() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                while True:
                    await client.send(b"z" * 65536)

        nursery.start_soon(upload)
        reply = await client.reply()
        assert (reply.status, reply.json()["message"]) == (404, "no such thing")
        nursery.cancel_scope.cancel()


async def test_a_body_beyond_the_limit_is_413(served) -> None:
    async def small(request: Request) -> Response:
        return Response(body=await request.read(limit_bytes=10))

    served.add("POST", "/x", small)
    await served.start()
    announced = await (await served.client()).ask("POST", "/x", b"z" * 11)
    assert announced.status == 413
    client = await served.client()
    await client.send(
        b"POST /x HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n"
        + b"z" * 11
        + b"\r\n"
    )
    assert (await client.reply()).status == 413


async def test_nobody_waits_for_the_rest_of_a_body_that_is_too_large(served, mock_clock) -> None:
    async def small(request: Request) -> Response:
        return Response(body=await request.read(limit_bytes=10))

    served.add("POST", "/x", small)
    await served.start()
    client = await served.client()
    # Time stands still: an answer that comes after a wait would never come.
    await client.send(b"POST /x HTTP/1.1\r\nHost: d\r\nContent-Length: 1000000000000\r\n\r\nz")
    assert (await client.reply()).status == 413
    assert mock_clock.current_time() == 0


async def test_more_parameters_than_anybody_needs_are_refused(served) -> None:
    async def page(_: Request) -> Response:
        return Response(body=b"OK")

    served.add("GET", "/x", page)
    await served.start()
    fine = "&".join(f"a{number}=1" for number in range(1000))
    assert (await (await served.client()).ask("GET", f"/x?{fine}")).status == 200
    refused = await (await served.client()).ask("GET", f"/x?{fine}&b=1")
    assert refused.status == 400
    assert refused.json()["message"] == "bad request: more than 1000 parameters"


async def test_head_has_the_headers_of_get_and_no_body(served) -> None:
    async def page(_: Request) -> Response:
        return Response(body=b"OK", headers={"Content-Type": "text/plain"})

    served.add("GET", "/_ping", page)
    await served.start()
    client = await served.client()
    head = await client.ask("HEAD", "/_ping", head_only=True)
    assert (head.status, head.headers["content-length"]) == (200, "2")
    assert (await client.ask("GET", "/_ping")).body == b"OK"


async def test_an_old_http_1_0_client_gets_a_body_that_ends_with_the_connection(served) -> None:
    async def run(writer: Writer) -> None:
        await writer.write(b"a", b"b")
        await writer.write(b"c")

    async def stream(_: Request) -> Stream:
        return Stream(run=run)

    served.add("GET", "/x", stream)
    await served.start()
    client = await served.client()
    await client.send(b"GET /x HTTP/1.0\r\n\r\n")
    status, _, headers = await client.head()
    assert status == 200
    assert "transfer-encoding" not in headers
    body = client.buffer
    while data := await client.stream.receive_some(10):
        body += data
    assert body == b"abc"


# Errors


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (NotFound("No such container: x"), 404, "No such container: x"),
        (AnswerError("port taken", status=500, code="port_taken"), 500, "port taken"),
        (ExceptionGroup("g", [Conflict("busy")]), 409, "busy"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/data"),
            507,
            "no space left on device (/data)",
        ),
    ],
)
async def test_an_error_is_its_status_and_a_message(served, error, status, message) -> None:
    async def fail(_: Request) -> Response:
        raise error

    served.add("GET", "/x", fail)
    await served.start()
    client = await served.client()
    reply = await client.ask("GET", "/x")
    assert (reply.status, reply.json()["message"]) == (status, message)
    assert (await client.ask("GET", "/nothing")).json()["message"] == "page not found"


async def test_not_modified_has_no_body(served) -> None:
    async def fail(_: Request) -> Response:
        raise NotModified("it runs")

    served.add("POST", "/x", fail)
    await served.start()
    client = await served.client()
    assert (await client.ask("POST", "/x")).status == 304
    assert (await client.ask("POST", "/x")).status == 304


async def test_a_bug_is_500_with_an_id_that_the_log_has_too(served, caplog) -> None:
    async def bug(_: Request) -> Response:
        raise ZeroDivisionError("secret detail")

    served.add("GET", "/x", bug)
    await served.start()
    reply = await (await served.client()).ask("GET", "/x")
    assert reply.status == 500
    fault_id = reply.json()["details"]["fault_id"]
    assert fault_id in reply.json()["message"]
    assert "secret detail" not in reply.json()["message"]
    assert [r.fault_id for r in caplog.records if r.levelno == logging.ERROR] == [fault_id]


@pytest.mark.parametrize(
    "bad",
    [
        b"NONSENSE\r\n\r\n",
        b"GET /x HTTP/1.1\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: d\r\nContent-Length: -1\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /x HTTP/1.1\r\nHost: d\r\nA: b\x00c\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: d\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_a_request_that_is_no_http_is_400_and_closed(served, bad) -> None:
    served.add("GET", "/x", echo)
    served.add("POST", "/x", echo)
    await served.start()
    client = await served.client()
    await client.send(bad)
    assert (await client.reply()).status == 400
    assert await client.closed()


@pytest.mark.parametrize(
    "head", [b"GET /x HTTP/9.9\r\nHost: d\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
)
async def test_another_version_of_http_is_505_and_closed(served, head) -> None:
    await served.start()
    client = await served.client()
    await client.send(head)
    reply = await client.reply()
    assert (reply.status, "use HTTP/1.1" in reply.json()["message"]) == (505, True)
    assert await client.closed()


async def test_a_head_beyond_the_limit_is_431(served) -> None:
    await served.start(limits=Limits(head_bytes=1000))
    client = await served.client()
    await client.send(b"GET /x HTTP/1.1\r\nHost: d\r\nA: " + b"z" * 2000)
    assert (await client.reply()).status == 431


async def test_a_slow_head_is_408_and_an_idle_connection_is_closed(served) -> None:
    served.add("GET", "/x", echo)
    await served.start(limits=Limits(head_timeout_s=0.05, idle_timeout_s=0.1))
    slow = await served.client()
    await slow.send(HEAD[:20])
    assert (await slow.reply()).status == 408
    idle = await served.client()
    await idle.ask("GET", "/x")
    assert await idle.closed()


async def test_a_body_that_stalls_is_408(served) -> None:
    served.add("POST", "/echo", echo)
    await served.start(limits=Limits(body_idle_timeout_s=0.05, linger_s=0.05))
    client = await served.client()
    await client.send(b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 10\r\n\r\nabc")
    assert (await client.reply()).status == 408


async def test_a_poured_body_stalls_by_its_client_only(served, mock_clock) -> None:
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    async def pour(request: Request) -> Response:
        body = request.body()
        assert isinstance(body, Pourable)
        while await body.pour(writing):
            pass
        return json_response({})

    served.add("POST", "/x", pour)
    await served.start(limits=Limits(body_idle_timeout_s=10, linger_s=1))
    client = await served.client()
    await client.send(b"POST /x HTTP/1.1\r\nHost: d\r\nContent-Length: 1000000\r\n\r\n")
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, b"z" * 500_000)
            await trio.testing.wait_all_tasks_blocked(0.05)
            # The pipe is full. However long that takes, it is not the client's fault.
            mock_clock.jump(100)
            await trio.testing.wait_all_tasks_blocked(0.05)
            left = 500_000
            while left:
                await trio.lowlevel.wait_readable(reading)
                left -= len(os.read(reading, 65536))
        mock_clock.autojump_threshold = 0.05
        assert (await client.reply()).status == 408
    finally:
        os.close(reading)
        os.close(writing)


async def test_one_connection_too_many_is_503_and_room_is_made_by_leaving(served) -> None:
    served.add("GET", "/x", echo)
    await served.start(limits=Limits(connections=1))
    first = await served.client()
    assert (await first.ask("GET", "/x")).status == 200
    second = await served.client()
    assert (await second.reply()).status == 503
    await first.stream.aclose()
    await trio.sleep(0.01)
    assert (await (await served.client()).ask("GET", "/x")).status == 200


async def test_every_request_is_announced(served) -> None:
    seen = []
    served.add("GET", "/x/{id}", echo)
    await served.start(
        on_request=lambda request: seen.append((request.method, request.params["id"]))
    )
    await (await served.client()).ask("GET", "/v1.40/x/1")
    assert seen == [("GET", "1")]
