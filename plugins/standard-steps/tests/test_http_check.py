"""``http-check`` against a server of the test's own."""

import functools
from types import SimpleNamespace

import pytest
import trio

from linkspan.plugins.standard_steps.http_check import CheckFailed, HttpCheckStep
from linkspan.sdk.errors import NotFound
from linkspan.sdk.model.network import Endpoint, EndpointSpec

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


class Networks:
    """``front``, in which tasks of ``web`` and a container ``box`` are."""

    def __init__(self):
        self.here = {
            "one": Endpoint(
                id="e1", network_id="n", network_name="front", ipv4_address="127.0.0.1"
            ),
            "two": Endpoint(
                id="e2", network_id="n", network_name="front", ipv4_address="127.0.0.2"
            ),
            "box": Endpoint(
                id="e3",
                network_id="n",
                network_name="front",
                ipv4_address="127.0.0.3",
                spec=EndpointSpec(aliases=("tool",)),
            ),
            "gone": Endpoint(
                id="e4", network_id="n", network_name="front", ipv4_address="127.0.0.4"
            ),
        }

    def inspect(self, ref):
        if ref != "front":
            raise NotFound(f"network {ref} not found")

    def endpoints(self, ref):
        self.inspect(ref)
        return self.here


class Containers:
    def inspect(self, ref):
        if ref == "gone":
            raise NotFound("No such container")
        labels = {} if ref == "box" else {"com.docker.swarm.service.name": "web"}
        return SimpleNamespace(name=ref, labels=labels)


@pytest.fixture
async def front(host, nursery):
    """Answers at any address of loopback with that address and the name it was asked for."""
    host.engine.networks, host.engine.containers = Networks(), Containers()

    async def handle(stream):
        async with stream:
            asked = (await stream.receive_some(65536)).decode()
            name = next(h.split()[1] for h in asked.split("\r\n") if h.lower().startswith("host:"))
            await stream.send_all(answer(f"{stream.socket.getsockname()[0]} {name}"))

    serve = functools.partial(trio.serve_tcp, handle, 0, host="0.0.0.0")
    listeners = await nursery.start(serve)
    return listeners[0].socket.getsockname()[1]


def at(host, intent, context, url, **settings):
    wish = intent("http-check", url=url, **{**SETTINGS, **settings})
    return HttpCheckStep(host).apply(wish, context)


async def test_the_tasks_of_a_service_are_asked_by_its_name_in_a_network(
    host, intent, context, front
):
    for name, more in ((f"web.front:{front}", {}), (f"web:{front}", {"network": "front"})):
        outputs = await at(host, intent, context, f"http://{name}/", replicas=2, **more)
        assert outputs["answers"] == [f"127.0.0.1 {name}", f"127.0.0.2 {name}"]


async def test_containers_and_aliases_have_names_in_a_network_too(host, intent, context, front):
    for name in ("box.front", "tool.front"):
        outputs = await at(host, intent, context, f"http://{name}:{front}/")
        assert outputs["body"] == f"127.0.0.3 {name}:{front}"


@pytest.mark.parametrize(
    ("url", "more", "words"),
    [
        ("http://nobody.front/", {}, "nothing is called 'nobody' in network front"),
        ("http://web/", {"network": "back"}, "network back not found"),
        ("http://[/", {"network": "front"}, "Invalid IPv6 URL"),
    ],
)
async def test_who_is_not_there_is_named(host, intent, context, front, url, more, words):
    with pytest.raises(CheckFailed, match=words):
        await at(host, intent, context, url, **{"within": 0.2, **more})


async def test_a_network_that_is_missing_is_told_by_the_plan(host, intent, front):
    step = HttpCheckStep(host)
    await step.plan(intent("http-check", url="http://web/", network="front"))
    with pytest.raises(NotFound) as caught:
        await step.plan(intent("http-check", url="http://web/", network="back"))
    assert caught.value.details == {"missing": "network back"}
