"""Bad clients, full disks, crashes, and a configuration that cannot work."""

import errno
import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from linkspan.plugins.registry_server.component import open_listeners
from linkspan.plugins.registry_server.config import RegistryServerConfig, parse_listen
from linkspan.plugins.registry_server.plugin import linkspan_register_components, run
from linkspan.sdk.errors import Conflict, InvalidArgument
from linkspan.sdk.testing.host import FakeHost

BLOB = bytes(range(256)) * 2000


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    with trio.fail_after(10):
        while True:
            if await holds():
                return
            await trio.sleep(0.01)


async def has_range(api: Any, at: str, expected: str) -> bool:
    return bool((await api("GET", at)).headers["Range"] == expected)


async def nothing_arrives(api: Any) -> bool:
    await trio.lowlevel.checkpoint()
    return not api.uploads()


async def is_up(api: Any) -> bool:
    return bool((await api("GET", "/v2/")).status == 200)


async def receive_all(stream: trio.SocketStream) -> bytes:
    found = b""
    with trio.fail_after(10):
        try:
            async for part in stream:
                found += part
        except trio.BrokenResourceError:
            pass
    return found


# --- configuration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:5000", ("127.0.0.1", 5000)),
        ("localhost:5000", ("127.0.0.1", 5000)),
        ("[::1]:5000", ("::1", 5000)),
        ("127.9.9.9:1", ("127.9.9.9", 1)),
    ],
)
def test_loopback_addresses_can_be_listened_on(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected
    assert RegistryServerConfig(listen=text).listen == text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("0.0.0.0:5000", "listen_not_loopback"),
        ("192.168.1.1:5000", "listen_not_loopback"),
        ("[::]:5000", "listen_not_loopback"),
        (":5000", "listen_not_loopback"),
        ("example.com:5000", "listen_not_loopback"),
        ("127.0.0.1", "listen_invalid"),
        ("127.0.0.1:http", "listen_invalid"),
        ("127.0.0.1:65536", "listen_invalid"),
    ],
)
def test_other_addresses_are_refused_with_the_reason(text: str, code: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        RegistryServerConfig(listen=text)
    assert caught.value.code == code
    assert text in caught.value.message


async def test_it_is_off_by_default(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        host = FakeHost(root=tmp_path, nursery=nursery)
        assert await nursery.start(run, RegistryServerConfig(), host) == ""
        assert not (tmp_path / "state" / "registry").exists()
        nursery.cancel_scope.cancel()


async def test_a_taken_port_is_named(start: Any) -> None:
    api = await start()
    port = api.address.rpartition(":")[2]
    with pytest.raises(Conflict) as caught:
        await open_listeners(f"127.0.0.1:{port}")
    assert caught.value.code == "port_taken"
    assert f"port {port} is already in use" in caught.value.message
    assert f"sport = :{port}" in caught.value.help


async def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="must be a loopback address"):
        await open_listeners("10.255.255.1:5000")


async def test_the_daemon_gets_the_component(tmp_path: Path) -> None:
    @attrs.define
    class Components:
        added: dict[str, Any] = attrs.field(factory=dict)

        def add(self, name: str, run: Any, *, config_type: Any = None) -> None:
            self.added[name] = (run, config_type)

    components = Components()
    linkspan_register_components(components=components)
    run, config_type = components.added["registry-server"]
    assert config_type is RegistryServerConfig
    async with trio.open_nursery() as nursery:
        host = FakeHost(root=tmp_path, nursery=nursery)
        address = await nursery.start(run, config_type(listen="127.0.0.1:0"), host)
        assert address.startswith("127.0.0.1:")
        nursery.cancel_scope.cancel()


# --- clients


async def test_a_slow_head_is_cut_off(start: Any) -> None:
    api = await start(head_timeout_s=0.3)
    stream = await api.connect()
    await stream.send_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n")
    with trio.move_on_after(5) as scope:
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                while True:
                    await trio.sleep(0.05)
                    await stream.send_all(b"X-A: b\r\n")

            nursery.start_soon(drip)
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += await stream.receive_some(4096)
            nursery.cancel_scope.cancel()
    assert not scope.cancelled_caught
    assert answer.startswith(b"HTTP/1.1 408 ")
    await stream.aclose()


async def test_a_silent_connection_is_closed(start: Any) -> None:
    api = await start(head_timeout_s=0.2, idle_timeout_s=0.2)
    stream = await api.connect()
    assert b"200" not in await receive_all(stream)
    await stream.aclose()
    stream = await api.connect()
    await stream.send_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await receive_all(stream)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"{}"), "kept alive, then closed without a word"
    await stream.aclose()


async def test_a_slow_body_is_cut_off_and_what_came_stays(start: Any) -> None:
    api = await start(idle_timeout_s=0.3)
    at = (await api("POST", "/v2/app/blobs/uploads/")).headers["Location"]
    stream = await api.connect()
    head = f"PATCH {at} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BLOB)}\r\n\r\n"
    await stream.send_all(head.encode() + BLOB[:100_000])
    assert await receive_all(stream) == b""
    await stream.aclose()
    status = await api("GET", at)
    assert status.headers["Range"] == "0-99999"
    done = await api("PUT", f"{at}?digest={sha256(BLOB)}", BLOB[100_000:])
    assert done.status == 201


async def test_a_client_that_takes_nothing_is_cut_off(start: Any) -> None:
    api = await start(idle_timeout_s=0.3)
    data = bytes(64 << 20)
    await api("POST", f"/v2/app/blobs/uploads/?digest={sha256(data)}", data)
    stream = await api.connect()
    await stream.send_all(f"GET /v2/app/blobs/{sha256(data)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await trio.sleep(1.0)
    assert len(await receive_all(stream)) < len(data)
    await stream.aclose()


async def test_a_client_that_leaves_in_the_middle_can_go_on(api: Any) -> None:
    at = (await api("POST", "/v2/app/blobs/uploads/")).headers["Location"]
    stream = await api.connect()
    head = (
        f"PUT {at}?digest={sha256(BLOB)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BLOB)}\r\n\r\n"
    )
    await stream.send_all(head.encode() + BLOB[:200_000])
    await stream.aclose()
    await until(lambda: has_range(api, at, "0-199999"))
    assert api.blobs() == set()
    answer = await api("PATCH", at, BLOB[200_000:], Content_Range=f"200000-{len(BLOB) - 1}")
    assert answer.status == 202
    assert (await api("PUT", f"{at}?digest={sha256(BLOB)}")).status == 201


async def test_a_chunked_body_that_breaks_off_is_no_blob(api: Any) -> None:
    stream = await api.connect()
    head = (
        f"POST /v2/app/blobs/uploads/?digest={sha256(BLOB)} HTTP/1.1\r\nHost: x\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    await stream.send_all(head.encode() + b"3e8\r\n" + BLOB[:500])
    await stream.aclose()
    await until(lambda: nothing_arrives(api))
    assert api.blobs() == set()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), b"400"),
        (b"GET /v2/ HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", b"431"),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (
            b"POST /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"400",
        ),
    ],
    ids=["text", "tls", "no host", "long head", "negative length", "two lengths"],
)
async def test_what_is_not_http_is_answered_and_closed(
    api: Any, data: bytes, status: bytes
) -> None:
    stream = await api.connect()
    await stream.send_all(data)
    assert (await receive_all(stream)).startswith(b"HTTP/1.1 " + status)
    await stream.aclose()
    assert (await api("GET", "/v2/")).status == 200


async def test_too_many_connections_are_told_to_come_back(start: Any) -> None:
    api = await start(max_connections=3)
    held = [await api.connect() for _ in range(3)]
    for stream in held:
        await stream.send_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await stream.receive_some(1000)).startswith(b"HTTP/1.1 200")
    answer = await api("GET", "/v2/")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    for stream in held:
        await stream.aclose()
    await until(lambda: is_up(api))


async def test_a_connection_serves_many_requests_also_sent_ahead(api: Any) -> None:
    stream = await api.connect()
    await stream.send_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    await stream.send_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await receive_all(stream)
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    await stream.aclose()


async def test_a_client_may_ask_before_it_sends(api: Any) -> None:
    at = (await api("POST", "/v2/app/blobs/uploads/")).headers["Location"]
    stream = await api.connect()
    head = (
        f"PUT {at}?digest={sha256(b'hello')} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
        "Expect: 100-continue\r\n\r\n"
    )
    await stream.send_all(head.encode())
    assert (await stream.receive_some(1000)).startswith(b"HTTP/1.1 100")
    await stream.send_all(b"hello")
    assert (await stream.receive_some(1000)).startswith(b"HTTP/1.1 201")
    await stream.aclose()


async def test_a_refusal_reaches_a_client_that_is_still_sending(api: Any) -> None:
    """The connection is not reset under an answer that nobody has read yet."""
    for _ in range(5):
        answer = await api("PUT", "/v2/app/blobs/uploads/none?digest=sha256:x", bytes(8 << 20))
        assert answer.status == 404


async def test_http_1_0_is_answered(api: Any) -> None:
    stream = await api.connect()
    await stream.send_all(b"GET /v2/ HTTP/1.0\r\n\r\n")
    assert (await receive_all(stream)).startswith(b"HTTP/1.1 200 OK")
    await stream.aclose()


# --- disk and crashes


@pytest.mark.parametrize("form", ["put", "patch", "post"])
async def test_a_full_disk_is_said_and_leaves_nothing(
    api: Any, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    at = (await api("POST", "/v2/app/blobs/uploads/")).headers["Location"]

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    method, target = {
        "put": ("PUT", f"{at}?digest={sha256(BLOB)}"),
        "patch": ("PATCH", at),
        "post": ("POST", f"/v2/app/blobs/uploads/?digest={sha256(BLOB)}"),
    }[form]
    answer = await api(method, target, BLOB)
    assert answer.status == 507
    assert b"no space left on device" in answer.body
    monkeypatch.undo()
    assert len(api.uploads()) == (1 if form == "post" else 0)
    assert api.blobs() == set()
    done = await api("POST", f"/v2/app/blobs/uploads/?digest={sha256(BLOB)}", BLOB)
    assert done.status == 201


async def test_a_fault_of_ours_is_500_and_the_server_lives_on(
    api: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pwrite", broken)
    answer = await api("POST", f"/v2/app/blobs/uploads/?digest={sha256(BLOB)}", BLOB)
    assert answer.status == 500
    assert "registry request failed" in caplog.text
    monkeypatch.undo()
    assert (await api("GET", "/v2/")).status == 200
    assert api.uploads() == []


async def test_everything_is_there_after_a_restart(start: Any) -> None:
    first = await start()
    await first("POST", f"/v2/app/blobs/uploads/?digest={sha256(BLOB)}", BLOB)
    at = (await first("POST", "/v2/app/blobs/uploads/")).headers["Location"]
    await first("PATCH", at, BLOB[:100])
    orphan = first.root / "blobs" / "sha256" / ("0" * 64)
    orphan.write_bytes(b"renamed, but its link was never written")
    half = first.root / "repositories" / "app" / "_blobs" / "sha256" / ".x.tmp"
    half.write_bytes(b"")
    second = await start()
    assert (await second("GET", f"/v2/app/blobs/{sha256(BLOB)}")).body == BLOB
    assert (await second("GET", at)).status == 404
    assert second.uploads() == []
    assert not orphan.exists()
    assert not half.exists()


async def test_an_upload_without_news_is_forgotten(start: Any) -> None:
    api = await start(upload_expiry_s=0.2)
    at = (await api("POST", "/v2/app/blobs/uploads/")).headers["Location"]
    await until(lambda: nothing_arrives(api))
    assert (await api("GET", at)).status == 404


async def test_uploads_are_counted(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linkspan.plugins.registry_server.uploads.MAX_UPLOADS", 2)
    for _ in range(2):
        assert (await api("POST", "/v2/app/blobs/uploads/")).status == 202
    answer = await api("POST", "/v2/app/blobs/uploads/")
    assert (answer.status, answer.headers["Retry-After"]) == (429, "5")
