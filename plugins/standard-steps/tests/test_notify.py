"""``notify`` to a server of the test's own."""

import functools
import json

import pytest
import trio

from linkspan.plugins.standard_steps.notify import Channel, NotDelivered, NotifyConfig, NotifyStep
from linkspan.sdk.errors import InvalidArgument, NotFound, Unavailable


@pytest.fixture
async def hook(nursery):
    class Hook:
        status = "200 OK"
        requests: list[bytes]

        async def handle(self, stream):
            data = b""
            while b"\r\n\r\n" not in data:
                data += await stream.receive_some(65536)
            head, _, body = data.partition(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            )
            while len(body) < length:
                body += await stream.receive_some(65536)
            self.requests.append(head + b"\r\n\r\n" + body)
            answer = f"HTTP/1.1 {self.status}\r\nContent-Length: 4\r\n\r\nword"
            await stream.send_all(answer.encode())
            await stream.aclose()

        @property
        def body(self):
            return self.requests[-1].partition(b"\r\n\r\n")[2]

    made = Hook()
    made.requests = []
    listeners = await nursery.start(
        functools.partial(trio.serve_tcp, made.handle, 0, host="127.0.0.1")
    )
    made.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/T0KEN/x"
    return made


def notify(hook, intent, context, known=None, **settings):
    step = NotifyStep(NotifyConfig(channels={"releases": known} if known else {}))
    where = {"channel": "releases"} if known else {"url": hook.url}
    wish = intent("notify", **{"text": "all is well", "timeout": 5.0, **where, **settings})
    return step.apply(wish, context)


async def test_a_message_says_what_and_from_where(hook, intent, context):
    assert await notify(hook, intent, context, title="release", level="success") == {"status": 200}
    body = json.loads(hook.body)
    assert (body["title"], body["text"], body["level"]) == ("release", "all is well", "success")
    assert {"run", "job", "step"} <= body.keys()
    assert b"idempotency-key: " in hook.requests[0].lower()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("slack", {"text": "*t*\nall is well"}), ("text", None), ("teams", {"title": "t"})],
)
async def test_each_format_is_what_the_other_side_reads(hook, intent, context, kind, expected):
    await notify(hook, intent, context, Channel(url=hook.url, format=kind), title="t")
    if expected is None:
        assert hook.body == b"t\nall is well"
    else:
        assert expected.items() <= json.loads(hook.body).items()


async def test_the_address_with_its_token_is_never_shown(hook, intent, context):
    hook.status = "404 Not Found"
    with pytest.raises(NotDelivered) as caught:
        await notify(hook, intent, context)
    assert "T0KEN" not in str(caught.value)
    assert "answered 404: word" in str(caught.value)
    with pytest.raises(Unavailable) as caught:
        await notify(hook, intent, context, url="http://127.0.0.1:1/T0KEN")
    assert "T0KEN" not in str(caught.value)
    assert not any("T0KEN" in line for line in context.lines)


@pytest.mark.parametrize("status", ["429 Slow", "500 Oops", "503 Busy"])
async def test_a_busy_server_can_be_asked_again(hook, intent, context, status):
    hook.status = status
    with pytest.raises(Unavailable, match=status[:3]):
        await notify(hook, intent, context)


async def test_an_unknown_channel_names_those_that_are_there(hook, intent, context):
    with pytest.raises(NotFound, match=r"no channel 'nobody' .* \(there is: releases\)"):
        await notify(hook, intent, context, Channel(url=hook.url), channel="nobody")


@pytest.mark.parametrize("url", ["ftp://a/b", "nothing", "http://", "http://[", "file:///etc/x"])
async def test_an_address_that_is_none_is_refused(hook, intent, context, url):
    with pytest.raises(InvalidArgument, match="not http:// or https://"):
        await notify(hook, intent, context, url=url)


async def test_one_place_is_wanted(hook, intent, context):
    with pytest.raises(InvalidArgument, match="either 'channel' or 'url'"):
        await notify(hook, intent, context, channel="a")
