"""TCP, for clients that show a certificate of an authority that the daemon was given (mutual TLS).

The server reads sockets. Each encrypted connection is carried to it through a pair of them, so that all
the rest (hang-ups, taken-over connections, limits) is the same for both.
"""

import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import attrs
import trio

from linkspan.core.http.streams import RECEIVE_BYTES
from linkspan.sdk.errors import InvalidArgument, Unavailable

log = logging.getLogger(__name__)

HANDSHAKE_S = 10.0
CLOSE_S = 2.0
PLAIN_HTTP = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
"""What Docker's daemon answers, as every server of Go's library."""
Serve = Callable[[trio.SocketStream], Awaitable[None]]


@attrs.frozen(kw_only=True)
class TlsFiles:
    """What mutual TLS takes, in PEM.

    Attributes:
        ca: The authorities whose clients may do everything.
        cert: The daemon's own certificate, with what leads to its authority.
        key: Of that.
    """

    ca: Path
    cert: Path
    key: Path


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.2 or newer; who shows no certificate of the authority is refused.

    Raises:
        InvalidArgument: A file cannot be read, or is not what it should be.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    # From Python 3.13 on, authorities have to say more than those that Docker's manual tells people to make.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    for path in (files.ca, files.cert, files.key):
        if not path.is_file():
            raise InvalidArgument(f"{path}: no such file", code="no_tls_file")
    try:
        context.load_verify_locations(cafile=str(files.ca))
        context.load_cert_chain(str(files.cert), str(files.key))
    except (ssl.SSLError, OSError) as error:
        raise InvalidArgument(
            f"the certificates in {files.ca}, {files.cert} and {files.key} cannot be used: {error}",
            code="bad_tls_file",
        ) from error
    return context


async def open_tcp_listeners(url: str) -> list[trio.SocketListener]:
    """Listen at ``tcp://HOST:PORT``.

    Raises:
        InvalidArgument: It is no such address.
        Unavailable: It cannot be had.
    """
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidArgument(f"'{url}' is not of the form tcp://HOST:PORT")
    try:
        return await trio.open_tcp_listeners(int(port), host=host.strip("[]") or None)
    except OSError as error:
        raise Unavailable(f"cannot listen at {url}: {error}") from error


async def serve_encrypted(
    listeners: list[trio.SocketListener],
    context: ssl.SSLContext,
    serve: Serve,
    connections: trio.Nursery,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Carry connections to ``serve`` until cancelled; those that are open go on in their nursery."""

    async def carry(stream: trio.SocketStream) -> None:
        await _carry(stream, context, serve)

    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(trio.serve_listeners, handler_nursery=connections), carry, listeners
        )
        task_status.started()


async def _carry(stream: trio.SocketStream, context: ssl.SSLContext, serve: Serve) -> None:
    """One connection, to its end; never raises but Cancelled."""
    outer = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
    try:
        with trio.fail_after(HANDSHAKE_S):
            if await _speaks_http(stream):
                await _part(stream, PLAIN_HTTP)
                return
            await outer.do_handshake()
    except (trio.TooSlowError, trio.BrokenResourceError, ssl.SSLError, OSError) as error:
        log.info("TLS refused", extra={"reason": str(error.__cause__ or error)})
        # trio leaves unsent what OpenSSL has to say to a client that it refuses.
        await _part(stream, outer._outgoing.read())
        return
    ours, theirs = (trio.socket.from_stdlib_socket(end) for end in socket.socketpair())
    inner = trio.SocketStream(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, trio.SocketStream(theirs))
        nursery.start_soon(_from_client, outer, inner)
        await _to_client(outer, inner)
        with trio.move_on_after(CLOSE_S):
            await outer.aclose()
        await trio.aclose_forcefully(outer)
        await inner.aclose()
        nursery.cancel_scope.cancel()


async def _speaks_http(stream: trio.SocketStream) -> bool:
    """Whether a client begins as one of plain HTTP does: with a method, not with a TLS record."""
    first = await stream.socket.recv(1, socket.MSG_PEEK)
    return first.isalpha()


async def _part(stream: trio.SocketStream, last_words: bytes) -> None:
    """Say why, and close once the client has had time to read it: data unread by us would undo it."""
    with trio.move_on_after(CLOSE_S), suppress(trio.BrokenResourceError, OSError):
        if last_words:
            await stream.send_all(last_words)
        await stream.send_eof()
        while await stream.receive_some(RECEIVE_BYTES):
            pass
    await trio.aclose_forcefully(stream)


async def _from_client(outer: trio.SSLStream[trio.SocketStream], inner: trio.SocketStream) -> None:
    try:
        while data := await outer.receive_some(RECEIVE_BYTES):
            await inner.send_all(data)
        await inner.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        # It broke off: the server sees that its client has gone.
        await inner.aclose()


async def _to_client(outer: trio.SSLStream[trio.SocketStream], inner: trio.SocketStream) -> None:
    try:
        while data := await inner.receive_some(RECEIVE_BYTES):
            await outer.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return
