"""TLS for connections over TCP.

The rest of the client wants a plain socket that it can half close and wait for. So a thread passes bytes
between one end of a socket pair and the encrypted connection; the other end is what the client gets.
"""

import selectors
import socket
import ssl
import threading  # noqa: TID251 - a command has no event loop
from contextlib import suppress
from typing import Final

from linkspan.core.client.address import Address
from linkspan.core.client.errors import Unreachable

_READ: Final = 64 * 1024
_HIGH: Final = 256 * 1024
"""Bytes that wait for one side before no more are read from the other."""
_HANDSHAKE_TIMEOUT_S: Final = 15.0


def wrap(sock: socket.socket, address: Address, host: str) -> socket.socket:
    """The plain end of an encrypted connection.

    Args:
        sock: Connected; closed with the connection.
        address: Whose certificates are used.
        host: Whom the server's certificate has to name.

    Raises:
        Unreachable: The other side has no TLS, or is not who it should be.
    """
    try:
        pump = _Pump(sock, context_of(address), host)
        pump.handshake()
    except ssl.SSLCertVerificationError as exc:
        sock.close()
        reason = f"its certificate is not accepted: {exc.verify_message}"
        raise Unreachable(address.url, "refused", reason, "linkspan context inspect") from exc
    except (ssl.SSLError, TimeoutError, ConnectionError, EOFError) as exc:
        sock.close()
        text = str(getattr(exc, "reason", "") or exc).replace("_", " ").lower()
        raise Unreachable(address.url, "version", f"no TLS with it: {text}", _HELP) from exc
    except OSError as exc:
        sock.close()
        reason = f"its certificates cannot be read: {exc.strerror or exc}"
        raise Unreachable(address.url, "no-socket", reason, _HELP) from exc
    near, far = socket.socketpair()
    threading.Thread(target=pump.run, args=(far,), daemon=True).start()
    return near


_HELP: Final = "linkspan context inspect, or DOCKER_TLS_VERIFY and DOCKER_CERT_PATH"


def context_of(address: Address) -> ssl.SSLContext:
    """Who is trusted, and who we are.

    Raises:
        OSError: A file cannot be read.
    """
    tls = address.tls
    context = ssl.create_default_context(cafile=tls.ca if tls and tls.ca else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # From Python 3.13 on, authorities have to say more than those that Docker's manual tells people to make.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if tls is not None and not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls is not None and tls.cert:
        context.load_cert_chain(tls.cert, tls.key or None)
    return context


class _Pump:
    """Passes bytes both ways, and each end's "I have no more" separately."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._encrypted, self._decrypted = bytearray(), bytearray()
        self._said_all = self._over = False

    def handshake(self) -> None:
        """Agree with the other side, while nobody else waits for anything."""
        self._sock.settimeout(_HANDSHAKE_TIMEOUT_S)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._send_pending()
                data = self._sock.recv(_READ)
                if not data:
                    raise EOFError("it closed the connection") from None
                self._incoming.write(data)
            except ssl.SSLError:
                with suppress(OSError):
                    self._send_pending()  # the alert that tells it why
                raise
        self._send_pending()
        self._sock.settimeout(None)

    def run(self, plain: socket.socket) -> None:
        """Until the other side has ended, and all of it is passed on."""
        with plain, self._sock, selectors.DefaultSelector() as selector, suppress(OSError):
            plain.setblocking(False)
            self._sock.setblocking(False)
            selector.register(plain, selectors.EVENT_READ)
            selector.register(self._sock, selectors.EVENT_READ)
            self._decrypt(b"")  # what came with the handshake
            while not self._over or self._decrypted:
                self._watch(selector, plain)
                ready = {key.fileobj: events for key, events in selector.select()}
                if ready.get(plain, 0) & selectors.EVENT_READ:
                    self._take(plain.recv(_READ))
                if ready.get(self._sock, 0) & selectors.EVENT_READ:
                    data = self._sock.recv(_READ)
                    self._over = not data  # without the goodbye that TLS asks for
                    self._decrypt(data)
                _flush(self._sock, self._encrypted)
                _flush(plain, self._decrypted)

    def _watch(self, selector: selectors.BaseSelector, plain: socket.socket) -> None:
        """Read from a side only while the other takes what it gets: neither may block the pump."""
        for sock, takes, has in (
            (plain, not self._said_all and len(self._encrypted) < _HIGH, self._decrypted),
            (self._sock, not self._over and len(self._decrypted) < _HIGH, self._encrypted),
        ):
            wanted = selectors.EVENT_READ if takes else 0
            wanted |= selectors.EVENT_WRITE if has else 0
            known = sock in selector.get_map()
            if wanted and known:
                selector.modify(sock, wanted)
            elif wanted:
                selector.register(sock, wanted)
            elif known:
                selector.unregister(sock)

    def _take(self, data: bytes) -> None:
        """Encrypt what the client says; nothing means that it has no more."""
        if data:
            self._tls.write(data)
        else:
            self._said_all = True
            with suppress(ssl.SSLError):
                self._tls.unwrap()
        self._encrypted += self._outgoing.read()

    def _decrypt(self, data: bytes) -> None:
        """Decrypt what the other side says."""
        if data:
            self._incoming.write(data)
        while True:
            try:
                piece = self._tls.read(_READ)
            except ssl.SSLWantReadError:
                break
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                piece = b""
            if not piece:
                self._over = True
                break
            self._decrypted += piece
        self._encrypted += self._outgoing.read()

    def _send_pending(self) -> None:
        if self._outgoing.pending:
            self._sock.sendall(self._outgoing.read())


def _flush(sock: socket.socket, pending: bytearray) -> None:
    with suppress(BlockingIOError):
        while pending:
            del pending[: sock.send(pending)]
