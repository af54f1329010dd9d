"""Folders of clients that send only what has changed: what they sent before is kept.

A kept folder is one unnamed file with the data of all its files, and in memory what each of them was when it was
sent. It does not outlive the daemon; the next build has everything sent once more.
"""

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from operator import is_
from pathlib import Path
from typing import IO, Any, Final

import attrs
import trio

from linkspan.plugins.dockerfile_builder.context_files import read_text
from linkspan.plugins.dockerfile_builder.layers import in_thread
from linkspan.plugins.dockerfile_builder.parser import MAX_FILE_BYTES
from linkspan.plugins.dockerfile_builder.tree import MAX_DEPTH, Node, StoredTree
from linkspan.sdk.build_client import BuildClient, FolderEntry
from linkspan.sdk.errors import InvalidArgument, TooLarge
from linkspan.sdk.values import frozen

_MAX_KEPT: Final = 32
_WORTH_PACKING_BYTES: Final = 64 << 20
_MAX_TEXT_BYTES: Final = 4 * MAX_FILE_BYTES
_EMPTY_DIGEST: Final = hashlib.sha256().digest()


class _DataFile:
    """An unnamed file that is closed when nobody uses it any more."""

    def __init__(self, folder: Path | None) -> None:
        """In memory if there is no folder."""
        # Without a name wherever the file system can do that: a crash leaves nothing.
        self._file: IO[bytes] = (
            os.fdopen(os.memfd_create("linkspan-texts"), "r+b", buffering=0)
            if folder is None
            else tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - see release
        )
        self.fd = self._file.fileno()
        self.end = 0
        self._users = 1

    def reserve(self, size: int) -> int:
        """A stretch of it; where it begins."""
        start, self.end = self.end, self.end + size
        return start

    def hold(self) -> None:
        """One more uses it."""
        self._users += 1

    def release(self) -> None:
        """One less does."""
        self._users -= 1
        if not self._users:
            self._file.close()


class ClientTree(StoredTree):
    """A client's folder as it was when its build began."""

    def __init__(
        self, data: _DataFile, root: Node, selections: dict[object, Any] | None = None
    ) -> None:
        self.root = root
        self.selections = selections
        self._fd = data.fd

    def close(self) -> None:
        """Nothing: the file is closed with the last tree on it."""


@attrs.define
class _Incoming:
    """A file whose bytes are coming. What is more than its entry said is left out."""

    entry: FolderEntry
    node: Node
    got: int = 0
    hasher: "hashlib._Hash" = attrs.field(factory=hashlib.sha256)


@attrs.define(eq=False)
class _Look:
    """What a look at a folder has shown: in most builds the next one shows the same."""

    entries: Sequence[FolderEntry]
    root: Node
    selections: dict[object, Any] = attrs.field(factory=dict)

    def shows(self, entries: Sequence[FolderEntry]) -> bool:
        """Whether these are the very same entries; equal ones are not looked for."""
        return len(entries) == len(self.entries) and all(map(is_, entries, self.entries))


@attrs.define(eq=False)
class _Kept:
    """One kept folder.

    Attributes:
        known: Path → what it was, and the node with its data.
        current: Paths that it had when it was last looked at.
        live_bytes: What they hold.
        last: The last look, if all of what it showed is here.
        users: Builds that use or wait for it.
    """

    name: str
    data: _DataFile | None = None
    known: dict[str, tuple[FolderEntry, Node]] = attrs.field(factory=dict)
    current: Set[str] = frozenset()
    live_bytes: int = 0
    last: _Look | None = None
    users: int = 0
    uses: int = 0
    made_at: float = attrs.field(factory=time.time)
    used_at: float = attrs.field(factory=time.time)
    lock: trio.Lock = attrs.field(factory=trio.Lock)

    @property
    def size_bytes(self) -> int:
        return self.data.end if self.data else 0

    def close(self) -> None:
        if self.data is not None:
            self.data.release()
            self.data = None
        self.known.clear()
        self.last = None


@frozen(kw_only=True)
class KeptFolder:
    """What people see of a kept folder. Times are seconds since the epoch."""

    id: str
    name: str
    size_bytes: int
    in_use: bool
    created: float
    used: float
    uses: int


@frozen(kw_only=True)
class Received:
    """A client's folder, and how many bytes came for it."""

    tree: ClientTree
    received_bytes: int


class KeptFolders:
    """The folders of clients.

    Args:
        folder: Where data lies.
        max_entries, max_bytes: Of one folder.
        max_kept_bytes: Of all that are kept beyond their build.
    """

    def __init__(
        self, folder: Path, *, max_entries: int, max_bytes: int, max_kept_bytes: int
    ) -> None:
        self._folder = folder
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._max_kept_bytes = max_kept_bytes
        self._kept: dict[str, _Kept] = {}

    @contextlib.asynccontextmanager
    async def receive(
        self,
        client: BuildClient,
        name: str,
        *,
        exclude: Sequence[str] = (),
    ) -> AsyncIterator[Received]:
        """A folder of a client, as long as it is used.

        Raises:
            InvalidArgument: code ``hostile_context``: a path leaves the folder or has nothing above it.
            TooLarge: It is larger than the settings allow.
            LinkspanError: The client cannot send it.
        """
        kept = _Kept(name)
        if client.key:
            kept = self._kept.setdefault(f"{client.key}/{name}", kept)
        kept.users += 1
        data: _DataFile | None = None
        try:
            async with kept.lock:
                look, received = await self._synchronize(kept, client, name, exclude)
                assert kept.data is not None
                data = kept.data
                data.hold()
            kept.used_at = time.time()
            kept.uses += 1
            tree = ClientTree(data, look.root, look.selections)
            yield Received(tree=tree, received_bytes=received)
        finally:
            kept.users -= 1
            if data is not None:
                data.release()
            if not client.key:
                kept.close()
            self._forget_some()

    async def _synchronize(
        self,
        kept: _Kept,
        client: BuildClient,
        name: str,
        exclude: Sequence[str],
    ) -> tuple[_Look, int]:
        if kept.data is None:
            kept.data = await in_thread(_DataFile, self._folder)
        if kept.data.end > max(2 * kept.live_bytes, _WORTH_PACKING_BYTES):
            await in_thread(self._pack, kept)
        data = kept.data
        async with client.folder(name, exclude=exclude) as transfer:
            entries = await transfer.entries()
            if len(entries) > self._max_entries:
                raise TooLarge("the build context has too many entries", code="context_too_large")
            if kept.last is not None and kept.last.shows(entries):
                return kept.last, transfer.received_bytes
            kept.last = None
            planned = await in_thread(_plan, entries, kept.known, data, self._max_bytes)
            root, incoming, known = planned
            if incoming:
                await transfer.contents(
                    list(incoming), lambda batch: in_thread(_store, data, incoming, batch)
                )
            received = transfer.received_bytes
        kept.known.update(known)
        kept.current = known.keys()
        kept.live_bytes = sum(node.size for _, node in known.values())
        kept.last = _Look(entries, root)
        return kept.last, received

    def _pack(self, kept: _Kept) -> None:
        """Copy what the folder still has to a file of its own. The trees of builds keep the old one."""
        assert kept.data is not None
        fresh = _DataFile(self._folder)
        moved: dict[int, Node] = {}
        known: dict[str, tuple[FolderEntry, Node]] = {}
        for path in kept.current:
            entry, node = kept.known[path]
            if id(node) not in moved:
                place = fresh.reserve(node.size)
                assert isinstance(node.place, int)
                _copy(kept.data.fd, node.place, fresh.fd, place, node.size)
                moved[id(node)] = attrs.evolve(node, place=place)
            known[path] = (entry, moved[id(node)])
        kept.data.release()
        kept.data, kept.known, kept.last = fresh, known, None

    def _forget_some(self) -> None:
        """Keep to the limits: those go first that were not used for the longest time."""
        total = sum(kept.size_bytes for kept in self._kept.values())
        oldest = sorted(self._kept.items(), key=lambda item: item[1].used_at)
        for key, kept in oldest:
            if total <= self._max_kept_bytes and len(self._kept) <= _MAX_KEPT:
                return
            if not kept.users:
                total -= kept.size_bytes
                self._kept.pop(key).close()

    def folders(self) -> list[KeptFolder]:
        """What is kept."""
        return [
            KeptFolder(
                id=_identity(key),
                name=kept.name,
                size_bytes=kept.size_bytes,
                in_use=kept.users > 0,
                created=kept.made_at,
                used=kept.used_at,
                uses=kept.uses,
            )
            for key, kept in self._kept.items()
        ]

    def remove(self, identity: str) -> bool:
        """Forget one; false if it is used or not there."""
        for key, kept in self._kept.items():
            if _identity(key) == identity and not kept.users:
                self._kept.pop(key).close()
                return True
        return False

    def close(self) -> None:
        """Forget all."""
        while self._kept:
            self._kept.popitem()[1].close()


async def read_texts(
    client: BuildClient, folder: str, files: Sequence[str]
) -> tuple[list[str | None], int]:
    """Some small text files of a folder, None for those that are not there; and how many bytes came for them.

    Nothing touches the disk, and so it is done without a change of thread.

    Raises:
        As ``KeptFolders.receive``.
    """
    data = _DataFile(None)
    try:
        async with client.folder(folder, paths=files) as transfer:
            entries = await transfer.entries()
            root, incoming, _ = _plan(entries, {}, data, _MAX_TEXT_BYTES)

            async def take(batch: list[tuple[int, bytes]]) -> None:
                _store(data, incoming, batch)

            if incoming:
                await transfer.contents(list(incoming), take)
        tree = ClientTree(data, root)
        return [read_text(tree, file) for file in files], transfer.received_bytes
    finally:
        data.release()


def _identity(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:25]


def _hostile(entry: FolderEntry, why: str) -> InvalidArgument:
    return InvalidArgument(
        f"the build context's entry '{entry.path}' {why}", code="hostile_context"
    )


def _plan(
    entries: Sequence[FolderEntry],
    known: Mapping[str, tuple[FolderEntry, Node]],
    data: _DataFile,
    max_bytes: int,
) -> tuple[Node, dict[int, _Incoming], dict[str, tuple[FolderEntry, Node]]]:
    """The tree that the entries make, what must be sent for it, and its files. Blocking."""
    root = Node(kind="directory", children={})
    folders: dict[str, dict[str, Node]] = {"": root.children or {}}
    root.children = folders[""]
    incoming: dict[int, _Incoming] = {}
    files: dict[str, tuple[FolderEntry, Node]] = {}
    total = 0
    for number, entry in enumerate(entries):
        above, _, name = entry.path.rpartition("/")
        folder = folders.get(above)
        if folder is None or name in ("", ".", "..") or "\0" in name:
            raise _hostile(
                entry, "leaves the context, or lies below something that is no directory"
            )
        if entry.kind == "file" and not entry.link:
            total += entry.size
            if entry.size < 0 or total > max_bytes:
                raise TooLarge(
                    f"the build context has more than {max_bytes} bytes", code="context_too_large"
                )
            old = known.get(entry.path)
            if old is not None and (old[0] is entry or old[0] == entry):
                node = old[1]
            else:
                node = _node(entry)
                node.size = entry.size
                node.place = data.reserve(entry.size)
                if entry.size:
                    incoming[number] = _Incoming(entry, node)
                else:
                    node.digest = _EMPTY_DIGEST
            files[entry.path] = (entry, node)
        elif entry.kind == "file":
            if entry.link not in files:
                raise _hostile(entry, f"is a hard link to '{entry.link}', which is no file")
            node = files[entry.link][1]
        elif entry.kind:
            node = _node(entry)
            if entry.kind == "directory":
                if entry.path.count("/") >= MAX_DEPTH:
                    raise _hostile(entry, "is nested too deeply")
                node.children = folders[entry.path] = {}
        else:
            continue  # sockets cannot be carried in a layer
        folder[name] = node
    return root, incoming, files


def _node(entry: FolderEntry) -> Node:
    return Node(
        kind=entry.kind,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime_ns=entry.mtime_ns,
        target=entry.link if entry.kind == "symlink" else "",
        device=os.makedev(*entry.device) if entry.device != (0, 0) else 0,
        xattrs=entry.xattrs,
    )


def _store(
    data: _DataFile, incoming: Mapping[int, _Incoming], batch: Sequence[tuple[int, bytes]]
) -> None:
    """Put pieces where they belong. Blocking."""
    for number, piece in batch:
        file = incoming[number]
        if not piece:
            file.node.size = file.got
            file.node.digest = file.hasher.digest()
            continue
        view = memoryview(piece)[: file.entry.size - file.got]
        file.hasher.update(view)
        assert isinstance(file.node.place, int)
        while view:
            written = os.pwrite(data.fd, view, file.node.place + file.got)
            file.got += written
            view = view[written:]


def _copy(source: int, start: int, target: int, place: int, size: int) -> None:
    while size > 0:
        piece = os.pread(source, min(size, 1 << 20), start)
        if not piece:
            return
        start += len(piece)
        size -= len(piece)
        while piece:
            written = os.pwrite(target, piece, place)
            place += written
            piece = piece[written:]
