"""Where COPY and ADD read from: a build context or a stage's file system, seen as a tree of nodes.

:class:`TarTree` is a context that was sent as a tar. Its files are never unpacked: their data lies
behind each other in one unnamed file, hashed as it arrived, and goes from there straight into a
layer. A build whose steps are all cached creates no file at all. :class:`FolderTree` is a folder of
this host, read only where a step looks.

Both are confined by construction: a path is looked up in the tree, link by link, and never handed to
the kernel as one string.
"""

import abc
import contextlib
import errno
import hashlib
import io
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from linkspan.plugins.dockerfile_builder.archive import ByteStream, Entry, entries
from linkspan.sdk.dockerignore import IgnorePatterns
from linkspan.sdk.errors import InvalidArgument, TooLarge

MAX_LINKS = 40
MAX_DEPTH = 2048
# Left-out directories are searched by recursion; deeper ones are kept as they are.
MAX_IGNORED_DEPTH = 128

# One writev takes at most 1024 pieces (IOV_MAX).
_BATCH_BYTES = 1 << 18
_BATCH_PIECES = 1000
_READ_BYTES = 1 << 20

Parts = tuple[str, ...]


@attrs.define(eq=False, kw_only=True)
class Node:
    """A file, directory or link. Two names of one node are hard links.

    Attributes:
        kind: ``file directory symlink fifo char block``.
        mode: Permission bits, 0 to 0o7777.
        target: Of a symbolic link.
        device: ``makedev`` number of a device node.
        children: Of a directory, once known.
        place: Where the owning tree finds the data.
        digest: sha256 of a file's data, once known.
    """

    kind: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    target: str = ""
    device: int = 0
    xattrs: Mapping[str, bytes] = attrs.field(factory=dict)
    children: dict[str, "Node"] | None = None
    place: Parts | int = ()
    digest: bytes | None = None


def split_path(path: str) -> Parts:
    """Components of a path without empty ones and ``.``; ``..`` stays."""
    return tuple(part for part in path.split("/") if part not in ("", "."))


class Tree(abc.ABC):
    """A read-only tree; see the module.

    Attributes:
        selections: What steps of earlier builds have selected from just this tree; None if nobody remembers.
    """

    root: Node
    selections: dict[object, Any] | None = None

    @abc.abstractmethod
    def children(self, node: Node) -> Mapping[str, Node]:
        """Entries of a directory."""

    @abc.abstractmethod
    def open(self, node: Node) -> contextlib.AbstractContextManager[io.BufferedReader]:
        """The data of a file, from its start."""

    @abc.abstractmethod
    def data_range(self, node: Node) -> contextlib.AbstractContextManager[tuple[int, int]]:
        """A file descriptor that holds the data of a file, and the offset where it begins."""

    def digest(self, node: Node) -> bytes:
        """sha256 of a file's data."""
        if node.digest is None:
            with self.open(node) as file:
                node.digest = hashlib.file_digest(file, "sha256").digest()
        return node.digest

    def lookup(self, path: str, *, start: Node | None = None) -> Node | None:
        """What a path names when every link is followed inside the tree; None if nothing.

        ``..`` stops at the root, as in a chroot.
        """
        walked: list[Node] = [start or self.root]
        pending = list(reversed(path.split("/")))
        links = 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if len(walked) > 1:
                    walked.pop()
                continue
            if walked[-1].kind != "directory":
                return None
            node = self.children(walked[-1]).get(part)
            if node is None:
                return None
            if node.kind == "symlink":
                links += 1
                if links > MAX_LINKS:
                    return None
                if node.target.startswith("/"):
                    del walked[1:]
                pending.extend(reversed(node.target.split("/")))
            else:
                walked.append(node)
        return walked[-1]


class EmptyTree(Tree):
    """The file system of a stage that has no layer yet."""

    def __init__(self) -> None:
        self.root = Node(kind="directory", children={})

    def close(self) -> None:
        """Nothing is open."""

    def children(self, node: Node) -> Mapping[str, Node]:
        """None."""
        return node.children or {}

    def open(self, node: Node) -> contextlib.AbstractContextManager[io.BufferedReader]:
        """There is no file to open."""
        raise FileNotFoundError(node.kind)

    def data_range(self, node: Node) -> contextlib.AbstractContextManager[tuple[int, int]]:
        """There is no file to read."""
        raise FileNotFoundError(node.kind)


class StoredTree(Tree):
    """A tree in memory whose files lie behind each other in one file."""

    _fd: int

    def children(self, node: Node) -> Mapping[str, Node]:
        """Entries of a directory."""
        return node.children or {}

    @contextlib.contextmanager
    def open(self, node: Node) -> Iterator[io.BufferedReader]:
        """Its stretch of the data file."""
        assert isinstance(node.place, int)
        yield io.BufferedReader(_Range(self._fd, node.place, node.size), 1 << 18)

    @contextlib.contextmanager
    def data_range(self, node: Node) -> Iterator[tuple[int, int]]:
        """The data file and where the node begins in it."""
        assert isinstance(node.place, int)
        yield self._fd, node.place


class TarTree(StoredTree):
    """A context that arrives as a tar.

    Args:
        folder: Where the unnamed data file is made.
        max_entries: TooLarge beyond it.
    """

    def __init__(self, folder: Path, *, max_entries: int = 1_000_000) -> None:
        self.root = Node(kind="directory", children={})
        # Without a name wherever the file system can do that: a crash leaves nothing.
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - see close
        self._fd = self._file.fileno()
        self._end = 0
        self._unwritten: list[memoryview] = []
        self._unwritten_bytes = 0
        self._entries_left = max_entries

    def close(self) -> None:
        """Give the data back; idempotent."""
        self._file.close()

    def receive(self, stream: ByteStream) -> None:
        """Read a whole tar. Blocking; for a worker thread.

        Raises:
            InvalidArgument: code ``hostile_context``: an entry tries to leave the context or lies below
                something that is no directory. Also what :func:`~.archive.entries` raises.
            TooLarge: Too many entries.
            OSError: The disk is full.
        """
        for entry, data in entries(stream):
            self._entries_left -= 1
            if self._entries_left < 0:
                raise TooLarge("the build context has too many entries", code="context_too_large")
            self._add(entry, data)
        self.flush()

    def _add(self, entry: Entry, data: Iterable[memoryview]) -> None:
        parts = split_path(entry.name)
        if ".." in parts or len(parts) > MAX_DEPTH:
            raise _hostile(entry, "leaves the context or is nested too deeply")
        if not parts:
            return
        folder = self._folder(parts[:-1], entry)
        old = folder.get(parts[-1])
        if entry.kind == "hardlink":
            linked = self._plain(split_path(entry.target))
            if linked is None or linked.kind == "directory":
                raise _hostile(entry, f"is a hard link to '{entry.target}', which is no file")
            folder[parts[-1]] = linked
            return
        node = Node(
            kind=entry.kind,
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            mtime_ns=entry.mtime_ns,
            target=entry.target,
            device=os.makedev(*entry.device) if entry.device != (0, 0) else 0,
            xattrs=entry.xattrs,
        )
        if entry.kind == "file":
            self._store(node, data)
        elif entry.kind == "directory":
            keeps = old is not None and old.kind == "directory"
            node.children = old.children if keeps and old is not None else {}
        folder[parts[-1]] = node

    def _folder(self, parts: Parts, entry: Entry) -> dict[str, Node]:
        children = self.root.children
        for part in parts:
            assert children is not None
            node = children.get(part)
            if node is None:
                node = children[part] = Node(kind="directory", children={})
            if node.children is None:
                raise _hostile(entry, "lies below something that is no directory")
            children = node.children
        assert children is not None
        return children

    def _plain(self, parts: Parts) -> Node | None:
        """What is at a path, no link followed."""
        node: Node | None = self.root
        for part in parts:
            node = node.children.get(part) if node is not None and node.children else None
        return node

    def _store(self, node: Node, data: Iterable[memoryview]) -> None:
        hasher = hashlib.sha256()
        node.place = start = self._end
        for piece in data:
            hasher.update(piece)
            self.append(piece)
        node.size = self._end - start
        node.digest = hasher.digest()

    def append(self, data: memoryview) -> None:
        """Put bytes at the end of the data file, some time before ``flush`` returns."""
        self._unwritten.append(data)
        self._unwritten_bytes += len(data)
        self._end += len(data)
        if self._unwritten_bytes >= _BATCH_BYTES or len(self._unwritten) >= _BATCH_PIECES:
            self.flush()

    def flush(self) -> None:
        """Write what was appended: contexts are many small files, and a write for each is slow."""
        while self._unwritten:
            written = os.writev(self._fd, self._unwritten)
            while self._unwritten and written >= len(self._unwritten[0]):
                written -= len(self._unwritten.pop(0))
            if written:
                self._unwritten[0] = self._unwritten[0][written:]
        self._unwritten_bytes = 0

    def file_writer(self, node: Node) -> "FileWriter":
        """Takes the data of a file node; one at a time."""
        return FileWriter(self, node)

    @property
    def end(self) -> int:
        """Length of the data file."""
        return self._end

    def hide(self, path: str) -> None:
        """Take a file out of the tree; silent if it is not there."""
        *above, name = split_path(path)
        folder = self._plain(tuple(above))
        if folder is not None and folder.children is not None:
            folder.children.pop(name, None)


class FileWriter:
    """Appends the data of one file, hashing it on the way. Blocking."""

    def __init__(self, tree: TarTree, node: Node) -> None:
        self._tree = tree
        self._node = node
        self._hasher = hashlib.sha256()
        self._start = tree.end
        node.place = self._start

    def write(self, data: bytes) -> None:
        """The next piece."""
        self._hasher.update(data)
        self._tree.append(memoryview(data))

    def finish(self) -> None:
        """All is there: the node gets its size and digest."""
        self._tree.flush()
        self._node.size = self._tree.end - self._start
        self._node.digest = self._hasher.digest()


class _Range(io.RawIOBase):
    """A stretch of a file."""

    def __init__(self, fd: int, start: int, size: int) -> None:
        super().__init__()
        self._fd, self._at, self._end = fd, start, start + size

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill the buffer from where the last call ended."""
        view = memoryview(buffer)[: self._end - self._at]  # type: ignore[arg-type]
        count = os.preadv(self._fd, [view], self._at) if view else 0
        self._at += count
        return count


def _hostile(entry: Entry, why: str) -> InvalidArgument:
    return InvalidArgument(
        f"the build context's entry '{entry.name}' {why}", code="hostile_context"
    )


_KIND_OF_FORMAT: dict[int, str] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}


class DigestMemo:
    """Digests of files that were read before, by what changes when a file does.

    The time of the last change (ctime) cannot be set by programs, but ticks are milliseconds long: a
    file that changed just before it was read may change again in the same tick, so it is not kept.
    """

    _SETTLED_NS = 2_000_000_000
    _MAX_FILES = 200_000

    def __init__(self) -> None:
        self._digests: dict[tuple[int, ...], bytes] = {}

    def get(self, info: os.stat_result) -> bytes | None:
        """The digest of an unchanged file."""
        return self._digests.get(self._key(info))

    def keep(self, info: os.stat_result, digest: bytes) -> None:
        """Remember a digest; ``info`` was taken before the file was read."""
        if time.time_ns() - info.st_ctime_ns < self._SETTLED_NS:
            return
        if len(self._digests) >= self._MAX_FILES:
            self._digests.clear()
        self._digests[self._key(info)] = digest

    def _key(self, info: os.stat_result) -> tuple[int, ...]:
        return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


class FolderTree(Tree):
    """A folder of this host: a local build context, or a stage's mounted file system.

    Args:
        folder: Its root.
        ignore: What of it is left out.
        memo: Digests that are known already.
    """

    def __init__(
        self,
        folder: Path,
        ignore: IgnorePatterns | None = None,
        memo: DigestMemo | None = None,
    ) -> None:
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.ignore = ignore
        self._memo = memo
        self._linked: dict[tuple[int, int], Node] = {}
        # The directory that was last read from, open: files are asked for one directory after the other.
        # Whoever uses it takes it out, as stages read the same tree side by side in several threads.
        self._last: list[tuple[Parts, int]] = []
        self.root = self._node((), os.fstat(self._fd))

    def close(self) -> None:
        """Let go of the folder; idempotent."""
        while self._last:
            os.close(self._last.pop()[1])
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _node(self, place: Parts, info: os.stat_result) -> Node:
        kind = _KIND_OF_FORMAT.get(stat.S_IFMT(info.st_mode), "")
        shared = info.st_nlink > 1 and kind == "file"
        if shared and (known := self._linked.get((info.st_dev, info.st_ino))):
            return known
        node = Node(
            kind=kind,
            mode=stat.S_IMODE(info.st_mode),
            uid=info.st_uid,
            gid=info.st_gid,
            mtime_ns=info.st_mtime_ns,
            size=info.st_size,
            device=info.st_rdev,
            place=place,
            digest=self._memo.get(info) if self._memo and kind == "file" else None,
        )
        if shared:
            self._linked[info.st_dev, info.st_ino] = node
        return node

    def children(self, node: Node) -> Mapping[str, Node]:
        """Entries of a directory, read when first asked for."""
        if node.children is None:
            assert isinstance(node.place, tuple)
            node.children = {}
            if node.kind == "directory" and len(node.place) < MAX_DEPTH:
                node.children.update(self._scan(node.place))
        return node.children

    def _scan(self, place: Parts) -> Iterator[tuple[str, Node]]:
        with opened(self._fd, place, os.O_RDONLY | os.O_DIRECTORY) as fd:
            for name in sorted(os.listdir(fd)):  # noqa: PTH208 - relative to an open folder
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                node = self._node((*place, name), info)
                # Sockets cannot be carried in a layer.
                if not node.kind or self._ignored((*place, name), node):
                    continue
                if node.kind == "symlink":
                    node.target = os.readlink(name, dir_fd=fd)
                elif node.kind in ("file", "directory"):
                    # These calls know no open folder to start from; its name in /proc is one.
                    node.xattrs = _xattrs(f"/proc/self/fd/{fd}/{name}")
                yield name, node

    def _ignored(self, place: Parts, node: Node) -> bool:
        if not self.ignore or not self.ignore.excludes("/".join(place)):
            return False
        if node.kind != "directory" or not self.ignore.has_negation:
            return True
        # A left-out directory is entered where a `!` pattern may bring something back.
        return len(place) < MAX_IGNORED_DEPTH and not self.children(node)

    def _open_file(self, place: Parts) -> int:
        """Open a file; no link is followed on the way to it."""
        folder, fd = self._folder(place[:-1])
        try:
            # O_NONBLOCK: should the file have become a fifo meanwhile, do not wait for a writer.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(place[-1], flags, dir_fd=fd)
        finally:
            self._last.append((folder, fd))

    def _folder(self, place: Parts) -> tuple[Parts, int]:
        """A directory and its descriptor."""
        while self._last:
            try:
                found = self._last.pop()
            except IndexError:  # another thread was quicker
                break
            if found[0] == place:
                return found
            os.close(found[1])
        with opened(self._fd, place, os.O_PATH | os.O_DIRECTORY) as fd:
            return place, os.dup(fd)

    @contextlib.contextmanager
    def open(self, node: Node) -> Iterator[io.BufferedReader]:
        """The file itself."""
        assert isinstance(node.place, tuple)
        with os.fdopen(self._open_file(node.place), "rb") as file:
            yield file

    def digest(self, node: Node) -> bytes:
        """sha256 of a file's data, read once as long as it does not change."""
        if node.digest is None:
            assert isinstance(node.place, tuple)
            fd = self._open_file(node.place)
            try:
                info = os.fstat(fd)
                node.digest = _digest_of(fd, info.st_size)
            finally:
                os.close(fd)
            if self._memo:
                self._memo.keep(info, node.digest)
        return node.digest

    @contextlib.contextmanager
    def data_range(self, node: Node) -> Iterator[tuple[int, int]]:
        """The open file."""
        assert isinstance(node.place, tuple)
        fd = self._open_file(node.place)
        try:
            yield fd, 0
        finally:
            os.close(fd)


def _digest_of(fd: int, size: int) -> bytes:
    """sha256 of the first ``size`` bytes of a file, or of all that it has: what a copy takes of it."""
    hasher = hashlib.sha256()
    while size > 0 and (data := os.read(fd, min(size, _READ_BYTES))):
        hasher.update(data)
        size -= len(data)
    return hasher.digest()


def _xattrs(path: str) -> Mapping[str, bytes]:
    """Extended attributes of a file or directory; a link is not followed."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
        return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA):
            return {}
        raise


@contextlib.contextmanager
def opened(root_fd: int, parts: Sequence[str], flags: int) -> Iterator[int]:
    """Open what is below a folder, component by component; a link anywhere is an error (ELOOP)."""
    fd = os.dup(root_fd)
    try:
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            below = os.open(
                part,
                (flags if last else os.O_PATH | os.O_DIRECTORY) | os.O_NOFOLLOW | os.O_CLOEXEC,
                dir_fd=fd,
            )
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


Check = Callable[[], None]
"""Called between files; raises when the work is no longer wanted."""
