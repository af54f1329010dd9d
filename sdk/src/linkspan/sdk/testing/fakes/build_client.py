"""A client that stays with its build, in memory."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import trio

from linkspan.sdk.build_client import (
    BuildClient,
    ContentsSink,
    FolderEntry,
    FolderTransfer,
)
from linkspan.sdk.dockerignore import IgnorePatterns
from linkspan.sdk.errors import NotFound
from linkspan.sdk.model.image import Credentials


@attrs.define
class FakeBuildClient(BuildClient):
    """Implements a client.

    Attributes:
        folders: Name of a folder → what it holds and, of files, the bytes; directories before what they hold.
        sent: Folder and path of each file that was asked for; a test may look.
    """

    key: str = ""
    folders: dict[str, list[tuple[FolderEntry, bytes]]] = attrs.field(factory=dict)
    secrets: Mapping[str, bytes] = attrs.field(factory=dict)
    logins: Mapping[str, Credentials] = attrs.field(factory=dict)
    agents: frozenset[str] = frozenset()
    sent: list[tuple[str, str]] = attrs.field(factory=list)

    def put(self, folder: str, path: str, data: bytes, *, mtime_ns: int = 1) -> None:
        """Put a file into a folder, in place of one of that path, and the directories above it."""
        held = {entry.path: (entry, content) for entry, content in self.folders.get(folder, ())}
        parts = path.split("/")
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            held.setdefault(above, (FolderEntry(above, "directory", 0o755), b""))
        entry = FolderEntry(path, "file", 0o644, size=len(data), mtime_ns=mtime_ns)
        held[path] = (entry, data)
        self.folders[folder] = [held[name] for name in sorted(held)]

    def folder(
        self, name: str, *, paths: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> AbstractAsyncContextManager[FolderTransfer]:
        """One of the folders."""
        return self._folder(name, paths, IgnorePatterns(tuple(exclude)))

    @asynccontextmanager
    async def _folder(
        self, name: str, paths: Sequence[str], ignored: IgnorePatterns
    ) -> AsyncIterator[FolderTransfer]:
        if name not in self.folders:
            raise NotFound(f"the client has no folder {name}")
        held = [
            (entry, data)
            for entry, data in self.folders[name]
            if (not paths or entry.path in paths) and not ignored.excludes(entry.path)
        ]
        yield _FakeTransfer(self, name, held)

    async def secret(self, name: str) -> bytes | None:
        """One of the secrets."""
        return self.secrets.get(name)

    async def has_agent(self, name: str) -> bool:
        """One of the agents."""
        return name in self.agents

    async def forward(self, name: str, stream: trio.abc.Stream) -> None:
        """Answer each piece with the agent's name and the piece."""
        while data := await stream.receive_some(4096):
            await stream.send_all(name.encode() + b" " + bytes(data))

    async def credentials(self, domain: str) -> Credentials:
        """One of the logins."""
        return self.logins.get(domain, Credentials())


@attrs.define
class _FakeTransfer(FolderTransfer):
    client: FakeBuildClient
    name: str
    held: list[tuple[FolderEntry, bytes]]
    received_bytes: int = 0

    async def entries(self) -> list[FolderEntry]:
        return [entry for entry, _ in self.held]

    async def contents(self, numbers: Sequence[int], take: ContentsSink) -> None:
        for number in numbers:
            entry, data = self.held[number]
            self.client.sent.append((self.name, entry.path))
            self.received_bytes += len(data)
            half = len(data) // 2
            pieces = [piece for piece in (data[:half], data[half:]) if piece]
            await take([(number, piece) for piece in (*pieces, b"")])


async def received_files(
    client: BuildClient, folder: str, *, paths: Sequence[str] = ()
) -> dict[str, bytes]:
    """The files of a client's folder, by path."""
    async with client.folder(folder, paths=paths) as transfer:
        entries = await transfer.entries()
        files = {
            number: bytearray() for number, entry in enumerate(entries) if entry.kind == "file"
        }

        async def take(batch: list[tuple[int, bytes]]) -> None:
            for number, piece in batch:
                files[number] += piece

        await transfer.contents(list(files), take)
    return {entries[number].path: bytes(data) for number, data in files.items()}
