"""Connections are kept for a while, and not for ever."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import trio
import trio.testing

from linkspan.plugins.distribution_registry.addresses import InsecureHosts
from linkspan.plugins.distribution_registry.config import DistributionConfig
from linkspan.plugins.distribution_registry.driver import DistributionRegistry
from linkspan.plugins.distribution_registry.transport import Outgoing, Transport, close_response
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.reference import parse_reference
from linkspan.sdk.testing.host import FakeHost

NOWHERE = Path("/nonexistent/config.json")


class SlowBody(httpx.AsyncByteStream):
    """Two parts, an hour apart."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"one"
        await trio.sleep(3600)
        yield b"two"


async def test_connections_are_closed_when_nothing_was_asked_for_a_while_and_opened_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    base = httpx.MockTransport(lambda request: httpx.Response(200, content=b"x"))
    config = DistributionConfig(docker_config=NOWHERE, keep_connections_s=10)
    transport = Transport(config, InsecureHosts.of(()), base=base)
    get = Outgoing(method="GET", url=httpx.URL("http://127.0.0.1/"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.close_unused)
        await close_response(await transport.send(get))
        (client,) = transport._clients.values()
        await trio.sleep(9)
        await close_response(await transport.send(get))
        await trio.sleep(9)
        assert not client.is_closed
        await trio.sleep(2)
        assert client.is_closed
        assert autojump_clock.rate == 0
        await close_response(await transport.send(get))
        (another,) = transport._clients.values()
        await trio.sleep(11)
        assert another.is_closed
        nursery.cancel_scope.cancel()


async def test_a_long_answer_keeps_its_connection(autojump_clock: trio.testing.MockClock) -> None:
    base = httpx.MockTransport(lambda request: httpx.Response(200, stream=SlowBody()))
    config = DistributionConfig(docker_config=NOWHERE, keep_connections_s=10)
    transport = Transport(config, InsecureHosts.of(()), base=base)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.close_unused)
        answer = await transport.send(Outgoing(method="GET", url=httpx.URL("http://127.0.0.1/")))
        (client,) = transport._clients.values()
        assert b"".join([part async for part in answer.aiter_raw()]) == b"onetwo"
        assert not client.is_closed
        await close_response(answer)
        await trio.sleep(21)
        assert client.is_closed
        nursery.cancel_scope.cancel()


async def test_a_registry_sees_the_connection_end(fake_host: FakeHost) -> None:
    """A real one; without another request, and without anybody closing the driver."""
    ended = trio.Event()

    async def answer(stream: trio.SocketStream) -> None:
        async for _ in stream:
            await stream.send_all(
                b"HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n" + b'{"tags": ["1"]}   '
            )
        ended.set()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, answer, 0)
        port = listeners[0].socket.getsockname()[1]
        config = DistributionConfig(docker_config=NOWHERE, keep_connections_s=0.2)
        async with DistributionRegistry.open(config, fake_host) as registry:
            app = parse_reference(f"127.0.0.1:{port}/app")
            assert await registry.tags(app, Credentials()) == ["1"]
            with trio.fail_after(30):
                await ended.wait()
            assert await registry.tags(app, Credentials()) == ["1"]
        nursery.cancel_scope.cancel()
