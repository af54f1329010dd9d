"""Results that a client gets as files (``--output``): a folder by fsutil's protocol, or a tar.

The daemon calls ``FileSend/DiffCopy`` in the client's session. For a folder it sends what there is (STAT for each
path in order, an empty one at the end), and the bytes of what the client asks for.
"""

import os
import stat
import tarfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, Final, cast

import trio

from linkspan.plugins.docker_api.buildkit.filesync import (
    DATA,
    FIN,
    REQUEST,
    STAT,
    go_mode,
)
from linkspan.plugins.docker_api.buildkit.grpc import Call, calling
from linkspan.plugins.docker_api.buildkit.session import Session
from linkspan.plugins.docker_api.buildkit.trace import Trace
from linkspan.plugins.docker_api.buildkit.wire import Message, message
from linkspan.sdk.errors import InvalidArgument

METHOD: Final = "/moby.filesync.v1.FileSend/DiffCopy"
KINDS: Final = ("local", "tar")
_EXPORTER: Final = "buildkit-attachable-exporter-id"
_PIECE_BYTES: Final = 32 << 10
_BATCH_BYTES: Final = 1 << 20

Deliver = Callable[[Path], Awaitable[None]]


def delivery(session: Session, kind: str, number: int, trace: Trace) -> Deliver:
    """What takes a build's result to the client.

    Args:
        kind: One of ``KINDS``.
        number: Of the output among all that were asked for.

    Raises:
        InvalidArgument: The client takes no files.
    """
    if METHOD not in session.methods:
        raise InvalidArgument("the client of the build takes no files")

    async def deliver(root: Path) -> None:
        metadata = [(_EXPORTER, str(number))]
        async with calling(session.connection, METHOD, metadata) as call:
            if kind == "tar":
                sent = await _send_tar(call, root)
                trace.exported("exporting to client tarball", ["sending tarball"], sent)
            else:
                sent = await _Folder(call, root).send()
                trace.exported("exporting to client directory", ["copying files"], sent)

    return deliver


async def _send_tar(call: Call, root: Path) -> int:
    """Send a tar as it is made; how many bytes it has."""
    pieces = _Pieces(call)

    def work() -> None:
        with tarfile.open(
            fileobj=cast(IO[bytes], pieces), mode="w|", format=tarfile.PAX_FORMAT
        ) as tar:
            for path, _ in _walk(root):
                trio.from_thread.check_cancelled()
                entry = tar.gettarinfo(root / path, path)
                entry.uname = entry.gname = ""
                if entry.isreg():
                    with (root / path).open("rb") as file:
                        tar.addfile(entry, file)
                else:
                    tar.addfile(entry)

    await trio.to_thread.run_sync(work)
    await call.end()
    while await call.receive():
        pass
    return pieces.sent


class _Pieces:
    """What a tar is written to, in a worker thread: each piece waits until it may be sent."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.sent = 0

    def write(self, data: bytes) -> int:
        """Send."""
        trio.from_thread.run(self._call.send, message({1: bytes(data)}))
        self.sent += len(data)
        return len(data)


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Path below the root and what is there, a directory before what it holds, by name. Blocking."""
    pending = [""]
    while pending:
        path = pending.pop()
        info = (root / path).lstat()
        if path and not stat.S_ISSOCK(info.st_mode):
            yield path, info
        if stat.S_ISDIR(info.st_mode):
            names = sorted(
                (os.fsencode(each.name) for each in (root / path).iterdir()), reverse=True
            )
            pending += [f"{path}/{os.fsdecode(name)}".lstrip("/") for name in names]


class _Folder:
    """A folder that is sent by fsutil's protocol."""

    def __init__(self, call: Call, root: Path) -> None:
        self._call = call
        self._root = root
        self._files: dict[int, str] = {}
        self._sent = 0

    async def send(self) -> int:
        """Send all that the client asks for; how many bytes of files it was.

        Raises:
            LinkspanError: The client has gone, or asks for what there is not.
        """
        await self._send_all(self._entries())
        await self._call.send(b"")
        while messages := await self._call.receive():
            numbers: list[int] = []
            for packet in map(Message, messages):
                kind, number = packet.number(1), packet.number(3)
                if kind == FIN:
                    await self._call.send(message({1: FIN}))
                    await self._call.end()
                elif kind == REQUEST and number in self._files and number not in numbers:
                    numbers.append(number)
                else:
                    raise InvalidArgument(f"the client asks for file {number}, which there is not")
            await self._send_all(self._contents(numbers))
        return self._sent

    async def _send_all(self, packets: Iterator[bytes]) -> None:
        while batch := await trio.to_thread.run_sync(_batch, packets):
            await self._call.send(*batch)

    def _entries(self) -> Iterator[bytes]:
        linked: dict[tuple[int, int], str] = {}
        for number, (path, info) in enumerate(_walk(self._root)):
            if stat.S_ISREG(info.st_mode):
                self._files[number] = path
            link, size = "", info.st_size
            if stat.S_ISLNK(info.st_mode):
                link = str((self._root / path).readlink())
            elif stat.S_ISREG(info.st_mode) and info.st_nlink > 1:
                link = linked.setdefault((info.st_dev, info.st_ino), path)
                link, size = (link, 0) if link != path else ("", size)
            device = (os.major(info.st_rdev), os.minor(info.st_rdev))
            entry = message(
                {
                    1: os.fsencode(path),
                    2: go_mode(info.st_mode),
                    3: info.st_uid,
                    4: info.st_gid,
                    5: size,
                    6: info.st_mtime_ns,
                    7: os.fsencode(link),
                    8: device[0],
                    9: device[1],
                }
            )
            yield message({1: STAT, 2: entry})

    def _contents(self, numbers: list[int]) -> Iterator[bytes]:
        for number in numbers:
            # Each is sent once: what is asked for again is not there any more.
            with (self._root / self._files.pop(number)).open("rb", buffering=0) as file:
                while piece := file.read(_PIECE_BYTES):
                    self._sent += len(piece)
                    yield message({1: DATA, 3: number, 4: piece})
            yield message({1: DATA, 3: number})


def _batch(packets: Iterator[bytes]) -> list[bytes]:
    """The next packets, a megabyte or so of them. Blocking."""
    found, size = list[bytes](), 0
    for packet in packets:
        found.append(packet)
        size += len(packet)
        if size >= _BATCH_BYTES:
            break
    trio.from_thread.check_cancelled()
    return found
