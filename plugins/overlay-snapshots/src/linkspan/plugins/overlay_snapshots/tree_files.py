"""The daemon's side of the files of containers: one child for each question."""

import array
import fcntl
import json
import os
import termios
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import trio

from linkspan.plugins.overlay_snapshots.jobs_client import Job, JobServer, pipe_from_child
from linkspan.sdk.errors import Internal
from linkspan.sdk.lending import Lendable
from linkspan.sdk.model.files import PathStat, Tree

_PIECE_BYTES: Final = 1 << 20


class TreeFiles:
    """Looks at, packs and unpacks files; the methods are those of the contract."""

    def __init__(self, jobs: JobServer) -> None:
        self._jobs = jobs

    async def stat(self, tree: Tree, path: str) -> PathStat:
        """What a path is. Raises NotFound."""
        return PathStat(**await self._jobs.run("stat-path", _task(tree, path)))

    @asynccontextmanager
    async def read(
        self, tree: Tree, path: str
    ) -> AsyncIterator[tuple[PathStat, AsyncIterator[bytes]]]:
        """What a path is, and its tar. Raises NotFound."""
        reading, writing = pipe_from_child()
        ends = [reading, writing]
        try:
            async with self._jobs.job("read-path", _task(tree, path), [writing]) as job:
                os.close(writing)
                ends.remove(writing)
                archive = _Archive(reading, job)
                yield await archive.stat(), archive
        finally:
            for fd in ends:
                os.close(fd)

    async def write(
        self,
        tree: Tree,
        path: str,
        source: AsyncIterator[bytes],
        *,
        keep_kind: bool,
        owner: str,
    ) -> None:
        """Unpack a tar into a folder."""
        task = {**_task(tree, path), "keep_kind": keep_kind, "owner": owner}
        loan = await source.lend() if isinstance(source, Lendable) else None
        await self._jobs.fed("write-path", task, source, loan)

    async def remove(self, tree: Tree, path: str, names: Sequence[str]) -> list[str]:
        """Remove files and empty folders; what stays."""
        left = await self._jobs.run("remove-paths", {**_task(tree, path), "names": list(names)})
        return list(left)


def _task(tree: Tree, path: str) -> dict[str, Any]:
    return {
        "folder": str(tree.folder),
        "pid": tree.pid,
        "mounts": [[m.destination, m.source, m.read_only] for m in tree.mounts],
        "read_only": tree.read_only,
        "path": path,
    }


class _Archive:
    """The tar as a child writes it, behind a line that says what the path is."""

    def __init__(self, reading: int, job: Job) -> None:
        self._reading = reading
        self._job = job
        self._ahead = b""

    async def stat(self) -> PathStat:
        """The first line. Raises what the job raised instead."""
        line = bytearray()
        while b"\n" not in line:
            data = await self._read()
            if not data:
                await self._job.result()
                raise Internal("a helper process ended without an answer", code="helper_died")
            line += data
        first, _, rest = bytes(line).partition(b"\n")
        self._ahead = rest
        return PathStat(**json.loads(first))

    @property
    def pipe(self) -> int:
        """The read end's descriptor (``linkspan.sdk.http.PipeSource``)."""
        return self._reading

    def taken(self) -> bytes:
        """What came with the first line."""
        ahead, self._ahead = self._ahead, b""
        return ahead

    async def ready(self) -> int:
        """Wait for bytes; 0 at the end. Raises what the job raised."""
        await trio.lowlevel.wait_readable(self._reading)
        count = array.array("i", [0])
        fcntl.ioctl(self._reading, termios.FIONREAD, count)
        if not count[0]:
            await self._job.result()
        return count[0]

    async def _read(self) -> bytes:
        await trio.lowlevel.wait_readable(self._reading)
        return os.read(self._reading, _PIECE_BYTES)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if ahead := self.taken():
            return ahead
        data = await self._read()
        if not data:
            await self._job.result()
            raise StopAsyncIteration
        return data
