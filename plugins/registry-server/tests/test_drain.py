"""Serving ends: requests in flight are answered, everybody else is closed."""

import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from linkspan.plugins.registry_server.component import serve_registry
from linkspan.plugins.registry_server.config import RegistryServerConfig
from linkspan.sdk.testing.host import FakeHost

BLOB = os.urandom(6_000_000)
DIGEST = "sha256:" + hashlib.sha256(BLOB).hexdigest()
PING = b"GET /v2/ HTTP/1.1\r\nHost: r\r\n\r\n"


@attrs.frozen
class Serving:
    """A registry at work; cancelling ``scope`` ends its serving, and then ``over`` is set."""

    address: str
    root: Path
    scope: trio.CancelScope
    over: trio.Event

    async def connect(self) -> trio.SocketStream:
        host, _, port = self.address.rpartition(":")
        return await trio.open_tcp_stream(host, int(port))

    def has_blob(self) -> bool:
        return (self.root / "blobs" / "sha256" / DIGEST[7:]).exists()

    def has_bytes(self) -> bool:
        return any(path.is_file() and path.stat().st_size for path in self.root.rglob("*"))

    async def begin_upload(self, data: bytes) -> trio.SocketStream:
        """A connection on which an upload of BLOB has come as far as ``data``."""
        stream = await self.connect()
        head = (
            f"POST /v2/app/blobs/uploads/?digest={DIGEST} HTTP/1.1\r\nHost: r\r\n"
            f"Content-Length: {len(BLOB)}\r\n\r\n"
        )
        await stream.send_all(head.encode() + data)
        await until(self.has_bytes)
        return stream


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not holds():  # noqa: ASYNC110 - files have no event
            await trio.sleep(0.01)


@pytest.fixture
async def serving(tmp_path: Path) -> AsyncIterator[Serving]:
    """A registry whose serving can be cancelled; requests have half a minute to end then."""
    async with trio.open_nursery() as nursery:
        over, scope = trio.Event(), trio.CancelScope()

        async def run(task_status: trio.TaskStatus[str]) -> None:
            with scope:
                config = RegistryServerConfig(listen="127.0.0.1:0", drain_s=30.0)
                host = FakeHost(root=tmp_path, nursery=nursery)
                await serve_registry(config, host, task_status=task_status)
            over.set()

        address = await nursery.start(run)
        yield Serving(address, tmp_path / "state" / "registry", scope, over)
        nursery.cancel_scope.cancel()


async def received(stream: trio.SocketStream) -> bytes:
    """All that comes until the other side closes; the connection is closed then."""
    with trio.fail_after(20), contextlib.suppress(trio.BrokenResourceError):
        async with stream:
            return b"".join([part async for part in stream])
    return b""


async def test_an_upload_in_flight_ends_and_nobody_new_is_let_in(serving: Serving) -> None:
    resting = await serving.connect()
    await resting.send_all(PING)
    assert (await resting.receive_some()).startswith(b"HTTP/1.1 200")
    uploading = await serving.begin_upload(BLOB[:5_000_000])

    serving.scope.cancel()
    assert await received(resting) == b""
    with pytest.raises(OSError, match=r"refused|all attempts"):
        await serving.connect()
    assert not serving.over.is_set()
    # What stands behind it is not answered any more.
    await uploading.send_all(BLOB[5_000_000:] + PING)
    answer = await received(uploading)
    assert answer.startswith(b"HTTP/1.1 201")
    assert b"HTTP/1.1 200" not in answer
    with trio.fail_after(20):
        await serving.over.wait()
    assert serving.has_blob()


async def test_a_download_in_flight_ends(serving: Serving) -> None:
    async with await serving.begin_upload(BLOB) as uploading:
        with trio.fail_after(20):
            assert (await uploading.receive_some()).startswith(b"HTTP/1.1 201")
    stream = await serving.connect()
    await stream.send_all(f"GET /v2/app/blobs/{DIGEST} HTTP/1.1\r\nHost: r\r\n\r\n".encode())
    first = await stream.receive_some()
    assert first.startswith(b"HTTP/1.1 200")

    serving.scope.cancel()
    await trio.testing.wait_all_tasks_blocked(0.1)
    whole = first + await received(stream)
    assert whole.partition(b"\r\n\r\n")[2] == BLOB


async def test_a_request_that_does_not_end_is_cut_off(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        host = FakeHost(root=tmp_path, nursery=nursery)
        config = RegistryServerConfig(listen="127.0.0.1:0", drain_s=0.2)
        address = await nursery.start(serve_registry, config, host)
        root = tmp_path / "state" / "registry"
        serving = Serving(address, root, nursery.cancel_scope, trio.Event())
        stream = await serving.begin_upload(BLOB[:2_000_000])
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            assert await received(stream) == b""
