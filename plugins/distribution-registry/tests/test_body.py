"""Large blobs over a real connection: what is read past the HTTP parser is the same bytes."""

import functools
import hashlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from linkspan.plugins.distribution_registry.addresses import InsecureHosts
from linkspan.plugins.distribution_registry.client import DistributionClient
from linkspan.plugins.distribution_registry.config import DistributionConfig
from linkspan.sdk.errors import LinkspanError, Unavailable
from linkspan.sdk.model.image import Credentials, Descriptor
from linkspan.sdk.pouring import Pourable
from linkspan.sdk.reference import parse_reference

BLOB = os.urandom(9_000_001)
DIGEST = "sha256:" + hashlib.sha256(BLOB).hexdigest()
DESCRIPTOR = Descriptor(
    media_type="application/vnd.oci.image.layer.v1.tar", digest=DIGEST, size_bytes=len(BLOB)
)

Cut = Callable[[int], int | None]


class BlobServer:
    """Answers ``GET`` with BLOB from where it is asked for; ``cut`` says after how many bytes it hangs up.

    Attributes:
        asked: The offset of each request for the blob.
        connections: How many there were.
    """

    def __init__(self, cut: Cut, *, chunked: bool = False) -> None:
        self.asked: list[int] = []
        self.connections = 0
        self._cut = cut
        self._chunked = chunked

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        head = b""
        async with stream:
            while True:
                try:
                    while b"\r\n\r\n" not in head:
                        more = await stream.receive_some()
                        if not more:
                            return
                        head += more
                    request, _, head = head.partition(b"\r\n\r\n")
                    if not await self._answer(stream, request):
                        return
                except trio.BrokenResourceError:
                    return

    async def _answer(self, stream: trio.SocketStream, request: bytes) -> bool:
        if b"/blobs/" not in request:
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return True
        found = re.search(rb"(?i)range: bytes=(\d+)-", request)
        offset = int(found[1]) if found else 0
        self.asked.append(offset)
        end = self._cut(len(self.asked))
        data = BLOB[offset:] if end is None else BLOB[offset : offset + end]
        status = b"200 OK"
        if offset:
            status = b"206 Partial Content\r\nContent-Range: bytes %d-%d/%d" % (
                offset,
                len(BLOB) - 1,
                len(BLOB),
            )
        if self._chunked:
            framing, data = (
                b"Transfer-Encoding: chunked",
                b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data),
            )
        else:
            framing = b"Content-Length: %d" % (len(BLOB) - offset)
        # The head and the first bytes in one piece, as many servers send them.
        await stream.send_all(b"HTTP/1.1 %b\r\n%b\r\n\r\n" % (status, framing) + data)
        return end is None


Take = Callable[[AsyncIterator[bytes]], Awaitable[bytes]]


async def iterated(parts: AsyncIterator[bytes]) -> bytes:
    return b"".join([part async for part in parts])


async def poured(parts: AsyncIterator[bytes]) -> bytes:
    """What goes through a pipe that somebody reads; it is full most of the time."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    found: list[bytes] = []

    def read() -> None:
        with os.fdopen(reading, "rb") as file:
            found.append(file.read())

    assert isinstance(parts, Pourable)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, read)
        try:
            while await parts.pour(writing):
                pass
        except LinkspanError as error:
            failure = error
        finally:
            os.close(writing)
    if failure is not None:
        raise failure
    return found[0]


either_way = pytest.mark.parametrize("take", [iterated, poured])


@asynccontextmanager
async def serving(
    server: BlobServer, take: Take, **settings: float
) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
    """A function that downloads BLOB from the server, while it runs."""
    async with trio.open_nursery() as nursery:
        serve = functools.partial(trio.serve_tcp, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(serve, server.serve, 0)
        port = listeners[0].socket.getsockname()[1]
        config = DistributionConfig(
            docker_config=Path("/nonexistent/config.json"),
            retry_delay_s=0.001,
            **settings,  # type: ignore[arg-type]
        )
        client = DistributionClient(config, InsecureHosts.of(()))
        reference = parse_reference(f"127.0.0.1:{port}/team/app:1")

        async def download() -> bytes:
            async with client.blob(reference, DESCRIPTOR, Credentials(), 0) as parts:
                return await take(parts)

        try:
            yield download
        finally:
            await client.aclose()
            nursery.cancel_scope.cancel()


@either_way
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_blob_arrives_whole_however_it_is_framed(take: Take, chunked: bool) -> None:
    server = BlobServer(lambda _: None, chunked=chunked)
    async with serving(server, take) as download:
        for _ in range(2):
            assert hashlib.sha256(await download()).hexdigest() == DIGEST[7:]
    assert server.asked == [0, 0]
    # One that was read past its parser cannot be used again.
    assert server.connections == (1 if chunked else 2)


@either_way
async def test_a_large_blob_that_breaks_off_goes_on_at_the_same_byte(take: Take) -> None:
    server = BlobServer(lambda count: 6_000_000 if count == 1 else None)
    async with serving(server, take) as download:
        assert await download() == BLOB
    assert server.asked == [0, 6_000_000]


@either_way
async def test_a_large_blob_that_always_breaks_off_says_how_far_it_came(take: Take) -> None:
    server = BlobServer(lambda count: 6_000_000 if count == 1 else 0)
    async with serving(server, take, attempts=3) as download:
        with pytest.raises(Unavailable, match="after 6000000 of 9000001 bytes") as caught:
            await download()
    assert caught.value.code == "download_interrupted"


@either_way
async def test_a_registry_that_falls_silent_in_a_large_blob_is_asked_again(take: Take) -> None:
    server = BlobServer(lambda count: None)
    silent = trio.Event()
    answer = server._answer

    async def fall_silent(stream: trio.SocketStream, request: bytes) -> bool:
        if b"/blobs/" not in request or silent.is_set():
            return await answer(stream, request)
        silent.set()
        server.asked.append(0)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BLOB)
        await stream.send_all(head + BLOB[:5_000_000])
        # Until the client has had enough and closes.
        await stream.receive_some()
        return False

    server._answer = fall_silent  # type: ignore[method-assign]
    async with serving(server, take, idle_timeout_s=0.3) as download:
        assert await download() == BLOB
    assert server.asked[0] == 0
    assert server.asked[-1] > 0


async def test_a_slow_registry_is_no_silent_one() -> None:
    """What has come when the time-out is over is taken, however little it is."""
    server = BlobServer(lambda _: None)
    arrived = 0

    async def dribble(stream: trio.SocketStream, request: bytes) -> bool:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
        if b"/blobs/" not in request:
            await stream.send_all(head % 0)
            return True
        server.asked.append(0)
        await stream.send_all(head % len(BLOB) + BLOB[:5_000_000])
        for end in (5_050_000, 5_100_000):
            await stream.send_all(BLOB[end - 50_000 : end])
            with trio.fail_after(20):
                while arrived < end:  # noqa: ASYNC110 - a pipe has no event
                    await trio.sleep(0.01)
        await stream.send_all(BLOB[5_100_000:])
        return True

    async def taken(parts: AsyncIterator[bytes]) -> bytes:
        nonlocal arrived
        assert isinstance(parts, Pourable)
        reading, writing = os.pipe()
        try:
            os.set_blocking(writing, False)
            found = b""
            while count := await parts.pour(writing):
                found += os.read(reading, count)
                arrived += count
            return found
        finally:
            os.close(reading)
            os.close(writing)

    server._answer = dribble  # type: ignore[method-assign]
    async with serving(server, taken, idle_timeout_s=1.0) as download:
        assert await download() == BLOB
    assert server.asked == [0]
