"""The keeper: a small process that holds what must outlive the daemon, and relays what nft cannot.

It has duplicates of the socket that owns the nft table and of the sockets that reserve host ports,
so that neither goes when the daemon dies; the next daemon asks for them. On a reserved socket it can
relay to a container: for clients that no rule of the kernel leads there (an IPv6 client of an
IPv4-only container, ``::1``, link-local addresses).

Run as a program, with nothing but the standard library: it is started once, and stays small. Orders
come over a SOCK_SEQPACKET unix socket, one JSON object each, and each is answered by one or more::

    {"do": "hold", "names": ["a", …]}  with as many descriptors   → {}
    {"do": "fetch"}           → {"names": ["a", …]} with descriptors, repeated; then {"names": []}
    {"do": "release", "names": ["a", …]}                           → {}
    {"do": "relay", "name": "a", "to": ["172.17.0.2", 80]}         → {}
    {"do": "end"}                                                  → {}
"""

import array
import contextlib
import errno
import json
import os
import resource
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
MOST_DESCRIPTORS = 200
"""Fewer than the kernel takes in one message (SCM_MAX_FD, 253)."""
LARGEST_ORDER = 1 << 16

_SO_DETACH_FILTER = 27
_CHUNK = 1 << 18
_UDP_IDLE_S = 90.0
_MOST_UDP_CLIENTS = 4096
_LINGER_NOT = struct.pack("ii", 1, 0)
Address = tuple[str, int]


def send_with_descriptors(
    sock: socket.socket, message: object, descriptors: Iterable[int] = ()
) -> None:
    """Send one message with descriptors; blocks."""
    rights = array.array("i", descriptors)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
    sock.sendmsg([json.dumps(message).encode()], ancillary)


def receive_with_descriptors(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Receive one message with its descriptors; the message is empty at the end."""
    space = socket.CMSG_SPACE(MOST_DESCRIPTORS * 4)
    data, ancillary, _, _ = sock.recvmsg(LARGEST_ORDER, space, socket.MSG_CMSG_CLOEXEC)
    found = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    return data, list(found)


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class _Pair:
    """A relayed tcp connection: what one side says is passed to the other, both ways."""

    def __init__(self, loop: "_Loop", client: socket.socket, to: Address) -> None:
        self._loop = loop
        self._client = client
        self._server = socket.socket(_family(to[0]), socket.SOCK_STREAM)
        self._connecting = True
        self._waiting: dict[socket.socket, memoryview] = {}
        self._ended: set[socket.socket] = set()
        for each in (client, self._server):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = self._server.connect_ex(to)
        if number not in (0, errno.EINPROGRESS):
            self._refuse()
            return
        loop.watch(self._server, WRITE, self._happened)

    def _other(self, sock: socket.socket) -> socket.socket:
        return self._server if sock is self._client else self._client

    def _happened(self, sock: socket.socket, mask: int) -> None:
        if self._connecting:
            self._connecting = False
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._refuse()
                return
        else:
            try:
                if mask & WRITE:
                    self._pass_on(sock)
                if mask & READ:
                    self._read(sock)
            except BlockingIOError:
                pass
            except OSError:
                self._refuse()
                return
        if len(self._ended) == 2 and not self._waiting:
            self._close()
            return
        for each in (self._client, self._server):
            self._loop.watch(each, self._interest(each), self._happened)

    def _interest(self, sock: socket.socket) -> int:
        reads = sock not in self._ended and self._other(sock) not in self._waiting
        return (READ if reads else 0) | (WRITE if sock in self._waiting else 0)

    def _read(self, sock: socket.socket) -> None:
        data = sock.recv(_CHUNK)
        other = self._other(sock)
        if data:
            self._waiting[other] = memoryview(data)
            self._pass_on(other)
            return
        self._ended.add(sock)
        other.shutdown(socket.SHUT_WR)

    def _pass_on(self, sock: socket.socket) -> None:
        rest = self._waiting.pop(sock, None)
        if rest is None:
            return
        with contextlib.suppress(BlockingIOError):
            rest = rest[sock.send(rest) :]
        if rest:
            self._waiting[sock] = rest

    def _refuse(self) -> None:
        with contextlib.suppress(OSError):
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self._close()

    def _close(self) -> None:
        for each in (self._client, self._server):
            self._loop.forget(each)
            each.close()


class _Datagrams:
    """Relayed udp: a socket for each client, until it has been silent for a while.

    Answers leave from the address that was asked, which a socket on all addresses has to be told.
    """

    def __init__(self, loop: "_Loop", listener: socket.socket, to: Address) -> None:
        self._loop = loop
        self._listener = listener
        self.to = to
        self._clients: dict[tuple[object, ...], socket.socket] = {}
        self._used: dict[socket.socket, float] = {}
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        loop.watch(listener, READ, self._asked)

    def _asked(self, _: socket.socket, __: int) -> None:
        with contextlib.suppress(OSError):
            data, asked, _flags, peer = self._listener.recvmsg(65535, 256)
            here = [each for each in asked if each[1] == socket.IPV6_PKTINFO]
            self._client(peer, here).send(data)

    def _client(
        self, peer: tuple[object, ...], here: list[tuple[int, int, bytes]]
    ) -> socket.socket:
        known = self._clients.get(peer)
        if known is None:
            self.forget_idle(most=_MOST_UDP_CLIENTS - 1)
            known = socket.socket(_family(self.to[0]), socket.SOCK_DGRAM)
            known.setblocking(False)
            known.connect(self.to)
            self._clients[peer] = known

            def answered(sock: socket.socket, _: int) -> None:
                with contextlib.suppress(OSError):
                    self._used[sock] = time.monotonic()
                    self._listener.sendmsg([sock.recv(65535)], here, 0, peer)

            self._loop.watch(known, READ, answered)
        self._used[known] = time.monotonic()
        return known

    def forget_idle(self, *, most: int = _MOST_UDP_CLIENTS) -> None:
        """Forget clients that have been silent, or the longest silent ones if there are too many."""
        now = time.monotonic()
        by_age = sorted(self._clients, key=lambda peer: self._used[self._clients[peer]])
        surplus = len(by_age) - most
        for number, peer in enumerate(by_age):
            if number < surplus or now - self._used[self._clients[peer]] > _UDP_IDLE_S:
                self._forget(peer)

    def _forget(self, peer: tuple[object, ...]) -> None:
        sock = self._clients.pop(peer)
        self._loop.forget(sock)
        del self._used[sock]
        sock.close()

    def close(self) -> None:
        """Forget all clients; the listener is somebody else's."""
        self._loop.forget(self._listener)
        for peer in list(self._clients):
            self._forget(peer)


class _Stream:
    """Relayed tcp: the listener of all its connections. They go on when it is closed."""

    def __init__(self, loop: "_Loop", listener: socket.socket, to: Address) -> None:
        self._loop = loop
        self._listener = listener
        self.to = to
        listener.listen(128)
        loop.watch(listener, READ, self._asked)

    def _asked(self, _: socket.socket, __: int) -> None:
        with contextlib.suppress(OSError):
            client, _peer = self._listener.accept()
            _Pair(self._loop, client, self.to)

    def forget_idle(self) -> None:
        """A connection is never too old."""

    def close(self) -> None:
        """Take no more connections; the listener is somebody else's."""
        self._loop.forget(self._listener)


class _Loop:
    """What is to be done when a socket is ready."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(
        self, sock: socket.socket, mask: int, then: Callable[[socket.socket, int], None]
    ) -> None:
        """From now on, do this for the socket; an empty mask means never."""
        known = sock in self._selector.get_map()
        if not mask:
            if known:
                self._selector.unregister(sock)
        elif known:
            self._selector.modify(sock, mask, then)
        else:
            self._selector.register(sock, mask, then)

    def forget(self, sock: socket.socket) -> None:
        """Do nothing for it any more."""
        if sock.fileno() >= 0 and sock in self._selector.get_map():
            self._selector.unregister(sock)

    def turn(self, most_s: float) -> None:
        """Wait for something to do, and do it."""
        for key, mask in self._selector.select(most_s):
            sock = key.fileobj
            # What came before it in this turn may have closed it, and the map refuses to look for closed ones.
            if not isinstance(sock, socket.socket) or sock.fileno() < 0:
                continue
            if sock in self._selector.get_map():
                self._do(key.data, sock, mask)

    def _do(
        self, then: Callable[[socket.socket, int], None], sock: socket.socket, mask: int
    ) -> None:
        try:
            then(sock, mask)
        except Exception:  # noqa: BLE001 - one connection must not be the end of all that is held
            self.forget(sock)
            sock.close()


class Keeper:
    """See the module."""

    def __init__(self, listener: socket.socket) -> None:
        self._loop = _Loop()
        self._listener = listener
        self._held: dict[str, socket.socket] = {}
        self._relays: dict[str, _Stream | _Datagrams] = {}
        self._ended = False
        listener.setblocking(False)
        self._loop.watch(listener, READ, self._accept)

    def run(self) -> None:
        """Do as told, until the order ``end``."""
        tidied = time.monotonic()
        while not self._ended:
            self._loop.turn(10.0)
            if time.monotonic() - tidied > 10.0:
                tidied = time.monotonic()
                for relay in self._relays.values():
                    relay.forget_idle()

    def _accept(self, _: socket.socket, __: int) -> None:
        with contextlib.suppress(OSError):
            master, _peer = self._listener.accept()
            who = master.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            if struct.unpack("iII", who)[1] != os.geteuid():
                master.close()
                return
            self._loop.watch(master, READ, self._ordered)

    def _ordered(self, master: socket.socket, _: int) -> None:
        try:
            data, descriptors = receive_with_descriptors(master)
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._loop.forget(master)
            master.close()
            return
        try:
            self._obey(master, json.loads(data), descriptors)
        except OSError as error:
            with contextlib.suppress(OSError):
                send_with_descriptors(master, {"error": str(error)})

    def _obey(self, master: socket.socket, order: dict[str, object], fds: list[int]) -> None:
        names = order.get("names", [])
        assert isinstance(names, list)
        match order["do"]:
            case "hold":
                for name, descriptor in zip(names, fds, strict=True):
                    self._release(name)
                    self._held[name] = socket.socket(fileno=descriptor)
            case "release":
                for name in names:
                    self._release(name)
            case "relay":
                self._relay(str(order["name"]), order["to"])
            case "fetch":
                self._show(master)
            case "end":
                self._ended = True
            case unknown:
                raise OSError(errno.EINVAL, f"unknown order {unknown}")
        send_with_descriptors(master, {"names": []})

    def _show(self, master: socket.socket) -> None:
        names = list(self._held)
        for start in range(0, len(names), MOST_DESCRIPTORS):
            part = names[start : start + MOST_DESCRIPTORS]
            descriptors = [self._held[name].fileno() for name in part]
            send_with_descriptors(master, {"names": part}, descriptors)

    def _release(self, name: str) -> None:
        relay = self._relays.pop(name, None)
        if relay is not None:
            relay.close()
        held = self._held.pop(name, None)
        if held is not None:
            held.close()

    def _relay(self, name: str, to: object) -> None:
        assert isinstance(to, list)
        address = (str(to[0]), int(to[1]))
        known = self._relays.get(name)
        if known is not None:
            known.to = address
            return
        listener = self._held[name]
        listener.setblocking(False)
        kind = _Stream if listener.type == socket.SOCK_STREAM else _Datagrams
        self._relays[name] = kind(self._loop, listener, address)
        # Until now it has dropped all that came.
        with contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def _main() -> None:
    os.chdir("/")  # it would keep what is mounted there from going
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    Keeper(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    _main()
