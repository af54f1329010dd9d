"""Sessions: clients that have connected to be asked while their build runs (``POST /session``)."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import trio

from linkspan.plugins.docker_api.buildkit.filesync import ClientFolder, open_folder
from linkspan.plugins.docker_api.buildkit.grpc import (
    DEADLINE_EXCEEDED,
    NOT_FOUND,
    UNAVAILABLE,
    Call,
    GrpcError,
    call_once,
    calling,
    one_error,
)
from linkspan.plugins.docker_api.buildkit.http2 import Connection
from linkspan.plugins.docker_api.buildkit.wire import Message, message
from linkspan.sdk.build_client import BuildClient, FolderTransfer
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound
from linkspan.sdk.http import Duplex
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.reference import DOCKER_DOMAIN

_PREFIX: Final = "x-docker-expose-session-"
_CREDENTIALS: Final = "/moby.filesync.v1.Auth/Credentials"
_GET_SECRET: Final = "/moby.buildkit.secrets.v1.Secrets/GetSecret"  # noqa: S105 - a method's name
_PULL: Final = "/moby.upload.v1.Upload/Pull"
_CHECK_AGENT: Final = "/moby.sshforward.v1.SSH/CheckAgent"
_FORWARD: Final = "/moby.sshforward.v1.SSH/ForwardAgent"
_AGENT_BYTES: Final = 32 << 10
_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_APPEAR_S: Final = 5.0
_HUB_HOST: Final = "registry-1.docker.io"


class Session(BuildClient):
    """A client, and what it answers.

    Attributes:
        gone: Set when it has disconnected.
    """

    def __init__(self, connection: Connection, key: str, methods: frozenset[str]) -> None:
        self.connection = connection
        self.key = key
        self.methods = methods
        self.gone = trio.Event()

    def folder(
        self, name: str, *, paths: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> AbstractAsyncContextManager[FolderTransfer]:
        """See ``BuildClient.folder``."""
        return self._folder(name, paths, exclude)

    @asynccontextmanager
    async def _folder(
        self, name: str, paths: Sequence[str], exclude: Sequence[str]
    ) -> AsyncIterator[ClientFolder]:
        async with open_folder(self.connection, name, paths=paths, exclude=exclude) as folder:
            yield folder

    async def secret(self, name: str) -> bytes | None:
        """See ``BuildClient.secret``."""
        if _GET_SECRET not in self.methods:
            return None
        try:
            answer = await call_once(self.connection, _GET_SECRET, message({1: name}))
        except GrpcError as error:
            if error.status == NOT_FOUND:
                return None
            raise
        return Message(answer).data(1)

    async def has_agent(self, name: str) -> bool:
        """See ``BuildClient.has_agent``."""
        if _CHECK_AGENT not in self.methods:
            return False
        try:
            await call_once(self.connection, _CHECK_AGENT, message({1: name}))
        except GrpcError as error:
            if error.status in (UNAVAILABLE, DEADLINE_EXCEEDED):
                raise
            return False
        return True

    async def forward(self, name: str, stream: trio.abc.Stream) -> None:
        """See ``BuildClient.forward``."""
        call = calling(self.connection, _FORWARD, [("buildkit.ssh.id", name)])
        with one_error():
            async with call as agent, trio.open_nursery() as nursery:
                nursery.start_soon(_carry, stream, agent)
                while messages := await agent.receive():
                    await stream.send_all(b"".join(Message(each).data(1) for each in messages))
                nursery.cancel_scope.cancel()

    async def credentials(self, domain: str) -> Credentials:
        """See ``BuildClient.credentials``."""
        if _CREDENTIALS not in self.methods:
            return Credentials()
        host = _HUB_HOST if domain == DOCKER_DOMAIN else domain
        answer = Message(await call_once(self.connection, _CREDENTIALS, message({1: host})))
        name, secret = answer.text(1), answer.text(2)
        if secret and not name:
            return Credentials(identity_token=secret)
        return Credentials(username=name, password=secret)

    async def uploaded(self, path: str) -> AsyncIterator[bytes]:
        """What the client has at a path, as a tar: a context that came from its stdin."""
        async with calling(self.connection, _PULL, [("urlpath", f"/{path}")]) as call:
            await call.send(b"")
            while messages := await call.receive():
                for each in messages:
                    yield Message(each).data(1)


async def _carry(stream: trio.abc.Stream, call: Call) -> None:
    while data := await stream.receive_some(_AGENT_BYTES):
        await call.send(message({1: bytes(data)}))
    await call.end()


class Sessions:
    """The sessions that are open, by id."""

    def __init__(self) -> None:
        self._open: dict[str, Session] = {}
        self._news = trio.Event()

    async def run(self, duplex: Duplex, headers: Mapping[str, str]) -> None:
        """Keep a session for as long as its connection lives.

        Args:
            headers: Of the request: ``X-Docker-Expose-Session-Uuid``, ``-Sharedkey``, ``-Grpc-Method``.

        Raises:
            InvalidArgument: There is no usable id.
            Conflict: The id is in use.
        """
        identity = headers.get(f"{_PREFIX}uuid", "")
        if not _ID.fullmatch(identity):
            raise InvalidArgument("a session needs the header X-Docker-Expose-Session-Uuid")
        if identity in self._open:
            raise Conflict(f"the session {identity} exists already", code="session_exists")
        methods = frozenset(
            word.strip() for word in headers.get(f"{_PREFIX}grpc-method", "").split(",")
        )
        key = headers.get(f"{_PREFIX}sharedkey", "")[:256]
        connection = Connection(duplex, is_client=True)
        session = Session(connection, key, methods)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(connection.run)
                self._open[identity] = session
                self._news.set()
        finally:
            session.gone.set()
            if self._open.get(identity) is session:
                del self._open[identity]

    async def get(self, identity: str) -> Session:
        """An open session; one that is about to connect is waited for.

        Raises:
            NotFound: It does not connect.
        """
        with trio.move_on_after(_APPEAR_S):
            while True:
                found = self._open.get(identity)
                if found is not None:
                    return found
                if self._news.is_set():
                    self._news = trio.Event()
                await self._news.wait()
        raise NotFound(
            f"no active session for {identity}: context deadline exceeded", code="no_session"
        )
