"""``http-check`` against a server of the test's own."""

import functools

import pytest
import trio

from linkspan.plugins.standard_steps.http_check import CheckFailed, HttpCheckStep

SETTINGS = {"within": 5.0, "interval": 0.01, "timeout": 2.0}


@pytest.fixture
async def server(nursery):
    """Answers each connection with the next of ``answers``, over and over."""

    class Server:
        answers: list[bytes] = []  # noqa: RUF012
        asked = 0
        requests: list[bytes] = []  # noqa: RUF012

        async def handle(self, stream):
            with_body = self.answers[self.asked % len(self.answers)]
            self.asked += 1
            self.requests.append(await stream.receive_some(65536))
            if with_body:
                await stream.send_all(with_body)
            await stream.aclose()

    made = Server()
    made.requests = []
    serve = functools.partial(trio.serve_tcp, made.handle, 0, host="127.0.0.1")
    listeners = await nursery.start(serve)
    made.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"
    return made


def answer(body, status="200 OK", headers=""):
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def check(host, intent, context, server, **settings):
    wish = intent("http-check", url=server.url, **{**SETTINGS, **settings})
    return HttpCheckStep(host).apply(wish, context)


async def test_the_expected_answer_is_success(host, intent, context, server):
    server.answers = [answer("shop 1")]
    outputs = await check(host, intent, context, server, expect={"body": "shop"})
    assert outputs == {"status": 200, "body": "shop 1", "answers": ["shop 1"]}


async def test_it_goes_on_until_the_answer_is_right(host, intent, context, server):
    server.answers = [answer("", "503 Busy"), b"", answer("not yet"), answer("ready")]
    await check(host, intent, context, server, expect={"status": 200, "body": "ready"})
    assert server.asked == 4


async def test_every_replica_has_to_answer(host, intent, context, server):
    server.answers = [answer("a"), answer("b"), answer("a"), answer("c")]
    outputs = await check(host, intent, context, server, replicas=3)
    assert outputs["answers"] == ["a", "b", "c"]
    assert context.lines[1:] == ["answered by a", "answered by b", "answered by c"]


async def test_replicas_may_be_told_apart_by_a_header(host, intent, context, server):
    server.answers = [
        answer("same", headers="X-Task: 1\r\n"),
        answer("same", headers="X-Task: 2\r\n"),
    ]
    outputs = await check(host, intent, context, server, replicas=2, by="X-Task")
    assert outputs["answers"] == ["1", "2"]


async def test_too_few_replicas_fail_by_name(host, intent, context, server):
    server.answers = [answer("a"), answer("b")]
    with pytest.raises(CheckFailed, match="2 of 3 replicas answered: a, b"):
        await check(host, intent, context, server, replicas=3, within=2.0)


async def test_the_last_answer_is_the_reason(host, intent, context, server):
    server.answers = [answer("on fire", "500 Error")]
    with pytest.raises(CheckFailed, match="status 500, expected 200: on fire"):
        await check(host, intent, context, server, within=1.0)


async def test_nobody_there_is_a_reason_too(host, intent, context):
    wish = intent("http-check", url="http://127.0.0.1:9/", **{**SETTINGS, "within": 2.0})
    with pytest.raises(CheckFailed, match="onnect"):
        await HttpCheckStep(host).apply(wish, context)


async def test_a_wrong_address_is_a_reason_too(host, intent, context):
    wish = intent("http-check", url="nonsense", **{**SETTINGS, "within": 0.1})
    with pytest.raises(CheckFailed):
        await HttpCheckStep(host).apply(wish, context)


async def test_headers_are_sent(host, intent, context, server):
    server.answers = [answer("ok")]
    await check(host, intent, context, server, headers={"X-Probe": "yes"})
    assert b"X-Probe: yes" in server.requests[0]
