"""A client of BuildKit's kind, for tests: it serves folders, secrets and passwords on a connection."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import attrs
import trio
import trio.testing

from linkspan.plugins.docker_api.buildkit.grpc import NOT_FOUND, Call, GrpcError, Method, serve
from linkspan.plugins.docker_api.buildkit.http2 import Connection
from linkspan.plugins.docker_api.buildkit.wire import Message, message
from linkspan.sdk.http import Duplex

REGULAR, DIRECTORY = 0o644, 1 << 31 | 0o755
STAT, REQUEST, DATA, FIN, ERROR = range(5)


class MemoryDuplex(Duplex):
    """One end of a connection in memory; see :func:`pair`."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._sending = trio.Lock()

    async def start(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(65536))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def send(self, *parts: bytes) -> None:
        async with self._sending:
            try:
                await self._stream.send_all(b"".join(parts))
            except trio.ClosedResourceError as error:
                raise trio.BrokenResourceError from error

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        await self._stream.aclose()


def pair() -> tuple[MemoryDuplex, MemoryDuplex]:
    """Both ends."""
    one, other = trio.testing.lockstep_stream_pair()
    return MemoryDuplex(one), MemoryDuplex(other)


@attrs.define
class Client:
    """What it has, and what it was asked for.

    Attributes:
        files: Path → bytes, of every folder.
        sent: Paths whose bytes were asked for.
        asked: Metadata of each call of DiffCopy.
        takes: What comes as a result: ``local`` (in ``taken``) or ``tar``.
        faulty: ``fault`` is sent in place of a folder.
    """

    files: dict[str, bytes] = attrs.field(factory=dict)
    secrets: Mapping[str, bytes] = attrs.field(factory=dict)
    logins: Mapping[str, tuple[str, str]] = attrs.field(factory=dict)
    sent: list[str] = attrs.field(factory=list)
    asked: list[Mapping[str, str]] = attrs.field(factory=list)
    faulty: bool = False
    takes: str = "local"
    taken: dict[str, bytes] = attrs.field(factory=dict)
    tar: bytes = b""
    fault: list[bytes] = attrs.field(factory=list)

    async def diff_copy(self, call: Call) -> None:
        self.asked.append(call.metadata)
        if self.faulty:
            await call.send(*self.fault)
            return
        paths: list[str] = []
        for path, data in sorted(self.files.items()):
            above = path.rpartition("/")[0]
            if above and above not in paths:
                paths.append(above)
                await call.send(message({2: message({1: above, 2: DIRECTORY})}))
            paths.append(path)
            stat = message({1: path, 2: REGULAR, 5: len(data), 6: 1})
            await call.send(message({2: stat}))
        await call.send(b"")
        while messages := await call.receive():
            for packet in map(Message, messages):
                if packet.number(1) == FIN:
                    await call.send(message({1: FIN}))
                    return
                number = packet.number(3)
                self.sent.append(paths[number])
                data = self.files[paths[number]]
                for at in range(0, len(data), 20000):
                    piece = data[at : at + 20000]
                    await call.send(message({1: DATA, 3: number, 4: piece}))
                await call.send(message({1: DATA, 3: number}))

    async def take_files(self, call: Call) -> None:
        """``FileSend``: a folder, or a tar, as ``takes`` says."""
        if self.takes == "tar":
            while messages := await call.receive():
                for each in messages:
                    self.tar += Message(each).data(1)
            await call.begin()
            return
        paths: list[str] = []
        wanted: set[int] = set()
        while messages := await call.receive():
            for packet in map(Message, messages):
                kind, number = packet.number(1), packet.number(3)
                if kind == STAT and packet.data(2):
                    entry = Message(packet.data(2))
                    self.taken[entry.text(1)] = b""
                    if entry.number(2) < 1 << 20 and not entry.text(7):
                        wanted.add(len(paths))
                        await call.send(message({1: REQUEST, 3: len(paths)}))
                    paths.append(entry.text(1))
                elif kind == DATA and packet.data(4):
                    self.taken[paths[number]] += packet.data(4)
                elif kind == DATA:
                    wanted.discard(number)
                if not wanted and kind != FIN and (kind == DATA or not packet.data(2)):
                    await call.send(message({1: FIN}))

    async def secret(self, call: Call) -> None:
        name = Message(await call.one()).text(1)
        if name not in self.secrets:
            raise GrpcError(NOT_FOUND, f"no secret {name}: 100 % sure")
        await call.send(message({1: self.secrets[name]}))

    async def check_agent(self, call: Call) -> None:
        if Message(await call.one()).text(1) != "default":
            raise GrpcError(NOT_FOUND, "unset ssh forward key")
        await call.send(b"")

    async def agent(self, call: Call) -> None:
        """Answers each piece with the agent's name and the piece; hangs up on ``bye``."""
        while messages := await call.receive():
            data = b"".join(Message(each).data(1) for each in messages)
            if data == b"bye":
                return
            await call.send(message({1: call.metadata["buildkit.ssh.id"].encode() + b" " + data}))

    async def credentials(self, call: Call) -> None:
        name, password = self.logins.get(Message(await call.one()).text(1), ("", ""))
        await call.send(message({1: name, 2: password}))

    @property
    def methods(self) -> dict[str, Method]:
        return {
            "/moby.filesync.v1.FileSync/DiffCopy": self.diff_copy,
            "/moby.buildkit.secrets.v1.Secrets/GetSecret": self.secret,
            "/moby.filesync.v1.Auth/Credentials": self.credentials,
            "/moby.filesync.v1.FileSend/DiffCopy": self.take_files,
            "/moby.sshforward.v1.SSH/CheckAgent": self.check_agent,
            "/moby.sshforward.v1.SSH/ForwardAgent": self.agent,
        }

    def headers(self, identity: str) -> dict[str, str]:
        """Of POST /session."""
        return {
            "upgrade": "h2c",
            "x-docker-expose-session-uuid": identity,
            "x-docker-expose-session-sharedkey": "key",
            "x-docker-expose-session-grpc-method": ",".join(self.methods),
        }

    def connection(self, duplex: Duplex) -> Connection:
        """Its side of a session's connection."""
        return Connection(duplex, is_client=False, handle=serve(self.methods))


@asynccontextmanager
async def connected(client: Client) -> AsyncIterator[Connection]:
    """Our side of a connection to a client."""
    near, far = pair()
    connection = Connection(near, is_client=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.connection(far).run)
        await nursery.start(connection.run)
        yield connection
        nursery.cancel_scope.cancel()
