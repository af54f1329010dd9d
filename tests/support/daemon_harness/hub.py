"""Docker Hub as a test wants it: a proxy that leads every HTTPS name to a registry of the test."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from daemon_harness.scripted import ScriptedRegistry

NAMES = ("registry-1.docker.io", "auth.docker.io", "index.docker.io")


@attrs.frozen
class Hub:
    """What a daemon's environment has to say, and which names were asked for through it.

    Attributes:
        environment: Of a daemon that is to take this for Docker Hub.
        asked: Host and port of each connection.
    """

    environment: dict[str, str]
    asked: list[str]


async def _certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "hub.pem", folder / "hub.key"
    await trio.run_process(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=hub"),
            *("-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in NAMES)),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        capture_stderr=True,
    )
    return certificate, key


@asynccontextmanager
async def docker_hub(registry: ScriptedRegistry, folder: Path) -> AsyncIterator[Hub]:
    """A proxy behind which all names are the registry, over TLS that the daemon verifies."""
    certificate, key = await _certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    asked: list[str] = []

    async def connect(client: trio.SocketStream) -> None:
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                part = await client.receive_some(65536)
                if not part:
                    return
                head += part
            asked.append(head.split()[1].decode())
            await client.send_all(b"HTTP/1.1 200 Connected\r\n\r\n")
            host, _, port = registry.address.rpartition(":")
            inner = trio.SSLStream(client, context, server_side=True, https_compatible=True)
            async with (
                inner,
                await trio.open_tcp_stream(host, int(port)) as server,
                trio.open_nursery() as both,
            ):
                both.start_soon(_pass_on, inner, server, both.cancel_scope)
                both.start_soon(_pass_on, server, inner, both.cancel_scope)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, connect, 0)
        port = listeners[0].socket.getsockname()[1]
        proxy = f"http://127.0.0.1:{port}"
        environment = {
            "HTTPS_PROXY": proxy,
            "https_proxy": proxy,
            "SSL_CERT_FILE": str(certificate),
        }
        yield Hub(environment, asked)
        nursery.cancel_scope.cancel()


async def _pass_on(
    source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, scope: trio.CancelScope
) -> None:
    """Until one of them ends; then both do."""
    try:
        while part := await source.receive_some(65536):
            await sink.send_all(part)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    scope.cancel()
