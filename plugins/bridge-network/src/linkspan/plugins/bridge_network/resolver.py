"""The name service: every sandbox in a user-defined network asks 127.0.0.11, and is answered here.

Which sandbox asks is known by the socket, so each sees the names of its own networks only. What is
no name of theirs goes on as it is: to the container's own servers out of its namespace, or to the
host's servers out of the host's (so that a stub on 127.0.0.53 works).
"""

import logging
import secrets
import socket
from collections.abc import Sequence

import attrs
import trio

from linkspan.plugins.bridge_network import dns
from linkspan.plugins.bridge_network.dns import Malformed, Question
from linkspan.plugins.bridge_network.ipam import Address
from linkspan.plugins.bridge_network.namespaces import Namespaces
from linkspan.plugins.bridge_network.sandbox import LivingSandbox
from linkspan.plugins.bridge_network.sandbox_files import host_settings
from linkspan.sdk.values import define

log = logging.getLogger(__name__)

_NEXT_SERVER_S = 1.0
_GIVE_UP_S = 4.0
_IDLE_S = 10.0
_SERVERS_ASKED = 3
_IN_FLIGHT = 1024
_IN_FLIGHT_EACH = 128
_HOST_SETTINGS_S = 5.0
_PORT = 53


@define(eq=False)
class _Service:
    """The name service of one sandbox."""

    sandbox: LivingSandbox
    udp: trio.socket.SocketType
    tcp: trio.SocketListener
    raw: socket.socket
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    in_flight: int = 0


class Resolver:
    """See the module."""

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._services: dict[str, _Service] = {}
        self._nursery: trio.Nursery | None = None
        self._in_flight = 0
        self._host_servers: tuple[str, ...] = ()
        self._host_servers_until = -1.0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer questions, for ever."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for service in self._services.values():
                    nursery.start_soon(self._serve, service)
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def serve(self, sandbox: LivingSandbox) -> None:
        """Answer a sandbox from now on, if it has sockets for that."""
        if sandbox.resolver is None or sandbox.id in self._services:
            return
        sockets = sandbox.resolver
        service = _Service(
            sandbox,
            trio.socket.from_stdlib_socket(sockets.udp),
            trio.SocketListener(trio.socket.from_stdlib_socket(sockets.tcp)),
            sockets.udp,
        )
        self._services[sandbox.id] = service
        if self._nursery is not None:
            self._nursery.start_soon(self._serve, service)

    def stop(self, sandbox: LivingSandbox) -> None:
        """Stop answering a sandbox; its sockets are closed, so that its namespace can go."""
        service = self._services.pop(sandbox.id, None)
        if service is not None:
            # In this order: tasks that wait are told of their end, not of a closed socket.
            service.scope.cancel()
            service.udp.close()
            service.tcp.socket.close()
        if sandbox.resolver is not None:
            sandbox.resolver.close()
            sandbox.resolver = None

    async def _serve(self, service: _Service) -> None:
        with service.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve_udp, service, nursery)
                nursery.start_soon(self._serve_tcp, service, nursery)

    async def _serve_udp(self, service: _Service, nursery: trio.Nursery) -> None:
        raw = service.raw
        while True:
            try:
                data, peer = await service.udp.recvfrom(4096)
            except OSError as error:  # an ICMP error of an earlier answer
                log.debug("name service: receive failed", extra={"reason": str(error)})
                continue
            while True:
                self._answer_datagram(service, nursery, raw, data, peer)
                try:
                    data, peer = raw.recvfrom(4096)  # what is queued, before waiting again
                except OSError:
                    break

    def _answer_datagram(
        self,
        service: _Service,
        nursery: trio.Nursery,
        raw: socket.socket,
        data: bytes,
        peer: tuple[str, int],
    ) -> None:
        try:
            question = dns.parse_question(data)
        except Malformed as error:
            if error.reply is not None:
                _send(raw, error.reply, peer)
            return
        answer = self._answer(service.sandbox, question, question.udp_size)
        if answer is None and not self._begin(service):
            answer = dns.reply(question, dns.REFUSED)
        if answer is not None:
            _send(raw, answer, peer)
        else:
            nursery.start_soon(self._forward_datagram, service, raw, question, data, peer)

    async def _forward_datagram(
        self,
        service: _Service,
        raw: socket.socket,
        question: Question,
        data: bytes,
        peer: tuple[str, int],
    ) -> None:
        try:
            answer = await self._forward(service.sandbox, question, data, socket.SOCK_DGRAM)
        finally:
            self._done(service)
        _send(raw, answer, peer)

    async def _serve_tcp(self, service: _Service, nursery: trio.Nursery) -> None:
        while True:
            try:
                stream = await service.tcp.accept()
            except OSError as error:  # too many open files: the client asks again
                log.warning("name service: accept failed", extra={"reason": str(error)})
                await trio.sleep(_NEXT_SERVER_S)
                continue
            nursery.start_soon(self._serve_stream, service, stream)

    async def _serve_stream(self, service: _Service, stream: trio.SocketStream) -> None:
        async with stream:
            try:
                while (data := await _receive_message(stream)) is not None:
                    answer = await self._answer_stream(service, data)
                    if answer is None:
                        return
                    await stream.send_all(len(answer).to_bytes(2, "big") + answer)
            except (trio.BrokenResourceError, trio.TooSlowError):
                return

    async def _answer_stream(self, service: _Service, data: bytes) -> bytes | None:
        try:
            question = dns.parse_question(data)
        except Malformed as error:
            return error.reply
        answer = self._answer(service.sandbox, question, dns.LARGEST)
        if answer is not None:
            return answer
        if not self._begin(service):
            return dns.reply(question, dns.REFUSED)
        try:
            return await self._forward(service.sandbox, question, data, socket.SOCK_STREAM)
        finally:
            self._done(service)

    def _begin(self, service: _Service) -> bool:
        if self._in_flight >= _IN_FLIGHT or service.in_flight >= _IN_FLIGHT_EACH:
            return False
        self._in_flight += 1
        service.in_flight += 1
        return True

    def _done(self, service: _Service) -> None:
        self._in_flight -= 1
        service.in_flight -= 1

    def _answer(self, sandbox: LivingSandbox, question: Question, limit: int) -> bytes | None:
        """The answer, or None: somebody else knows."""
        if question.klass != dns.IN:
            return None
        address = dns.asked_address(question)
        if address is not None:
            name = _name_of(sandbox, address)
            return dns.reply_pointer(question, name) if name else None
        addresses = _addresses_of(sandbox, question.name)
        if addresses:
            # A known name without a record of that kind is answered by nothing, not passed on: a
            # "no such name" from outside would make some clients drop the A answer, too.
            return dns.reply_addresses(question, addresses, limit)
        if "." not in question.name and _dots_wanted(sandbox.request.dns_options):
            return dns.reply(question, dns.NAME_ERROR)
        return None

    async def _forward(
        self, sandbox: LivingSandbox, question: Question, data: bytes, kind: socket.SocketKind
    ) -> bytes:
        own = sandbox.request.dns
        path = sandbox.path if own else ""
        servers = own or (await self._servers_of_host() if sandbox.leads_out else ())
        answer = await self._ask(servers[:_SERVERS_ASKED], path, question, data, kind)
        if answer is None:
            return dns.reply(question, dns.SERVER_FAILURE)
        return dns.with_id(answer, question.id)

    async def _ask(
        self,
        servers: Sequence[str],
        path: str,
        question: Question,
        data: bytes,
        kind: socket.SocketKind,
    ) -> bytes | None:
        """Ask one server after the other; the first good answer wins, a bad one is better than none."""
        found: list[bytes] = []

        async def ask(server: str, failed: trio.Event) -> None:
            answer = await self._ask_server(server, path, question, data, kind)
            if answer is not None:
                found.append(answer)
                if dns.is_useful(answer):
                    nursery.cancel_scope.cancel()
            failed.set()

        with trio.move_on_after(_GIVE_UP_S):
            async with trio.open_nursery() as nursery:
                for server in servers:
                    failed = trio.Event()
                    nursery.start_soon(ask, server, failed)
                    with trio.move_on_after(_NEXT_SERVER_S):
                        await failed.wait()
        return next(filter(dns.is_useful, found), found[0] if found else None)

    async def _ask_server(
        self, server: str, path: str, question: Question, data: bytes, kind: socket.SocketKind
    ) -> bytes | None:
        ident = secrets.randbelow(65536)
        query = dns.with_id(data, ident)
        try:
            with await self._socket(server, path, kind) as sock:
                await sock.connect((server, _PORT))
                if kind == socket.SOCK_STREAM:
                    stream = trio.SocketStream(sock)
                    await stream.send_all(len(query).to_bytes(2, "big") + query)
                    answer = await _receive_message(stream)
                    good = answer is not None and dns.answers(answer, ident, question)
                    return answer if good else None
                await sock.send(query)
                while True:
                    got = await sock.recv(dns.LARGEST)
                    if dns.answers(got, ident, question):
                        return got
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            log.debug("name server failed", extra={"server": server, "reason": str(error)})
            return None

    async def _socket(
        self, server: str, path: str, kind: socket.SocketKind
    ) -> trio.socket.SocketType:
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        if path:
            opened = await self._namespaces.open_socket(path, kind, family)
            return trio.socket.from_stdlib_socket(opened)
        return trio.socket.socket(family, kind)

    async def _servers_of_host(self) -> tuple[str, ...]:
        if trio.current_time() >= self._host_servers_until:
            self._host_servers = (await trio.to_thread.run_sync(host_settings)).servers
            self._host_servers_until = trio.current_time() + _HOST_SETTINGS_S
        return self._host_servers


def _addresses_of(sandbox: LivingSandbox, name: str) -> list[Address]:
    for join in sandbox.joins.values():
        if join.network.default:
            continue
        for link in join.endpoint.spec.links:
            target, _, alias = link.partition(":")
            if name in (alias.lower(), f"{alias}.{join.network.network.name}".lower()):
                return join.network.zone.resolve(target.lower())
        addresses = join.network.zone.resolve(name)
        if addresses:
            return addresses
    return []


def _name_of(sandbox: LivingSandbox, address: Address) -> str:
    names = (
        join.network.zone.reverse(address)
        for join in sandbox.joins.values()
        if not join.network.default
    )
    return next(filter(None, names), "")


def _dots_wanted(options: Sequence[str]) -> bool:
    dots = [option.partition(":")[2] for option in options if option.startswith("ndots:")]
    return any(text.isdigit() and int(text) >= 1 for text in dots)


def _send(raw: socket.socket, answer: bytes, peer: tuple[str, int]) -> None:
    try:
        raw.sendto(answer, peer)
    except OSError as error:  # the buffer is full, or the sandbox has ended: clients ask again
        log.debug("name service: an answer was not sent", extra={"reason": str(error)})


async def _receive_message(stream: trio.SocketStream) -> bytes | None:
    """The next message of a stream (RFC 1035 section 4.2.2); None at its end."""
    with trio.fail_after(_IDLE_S):
        head = await _receive_exactly(stream, 2)
        return head and await _receive_exactly(stream, int.from_bytes(head, "big"))


async def _receive_exactly(stream: trio.SocketStream, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        got = await stream.receive_some(size - len(data))
        if not got:
            return None
        data += got
    return data
