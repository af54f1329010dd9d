"""/containers/{id}/archive, /export and /changes: files of containers."""

import base64
import json
import stat
from collections.abc import Mapping
from typing import Final

from linkspan.sdk.clock import rfc3339
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.host import Host
from linkspan.sdk.http import Request, Response, Stream, Writer, json_response, write_all
from linkspan.sdk.model.files import PathStat

_TAR: Final = "application/x-tar"

# Go's os.FileMode, which the header carries: the kind of file lies in other bits than in stat(2).
_GO_KINDS: Final = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_GO_BITS: Final = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


class ContainerFileRoutes:
    """``docker cp``, ``docker export``, ``docker diff``."""

    def __init__(self, host: Host) -> None:
        self._containers = host.engine.containers

    async def stat(self, request: Request) -> Response:
        """HEAD /containers/{id}/archive."""
        found = await self._containers.stat_path(request.params["id"], _path(request))
        return Response(headers=_stat_header(found))

    async def read(self, request: Request) -> Stream:
        """GET /containers/{id}/archive."""
        path = _path(request)
        ref = self._containers.inspect(request.params["id"]).id
        # The header needs it before the tar begins.
        found = await self._containers.stat_path(request.params["id"], path)

        async def run(writer: Writer) -> None:
            async with self._containers.read_path(ref, path) as (_, archive):
                await write_all(writer, archive)

        return Stream(run=run, headers={"Content-Type": _TAR, **_stat_header(found)})

    async def write(self, request: Request) -> Response:
        """PUT /containers/{id}/archive."""
        await self._containers.write_path(
            request.params["id"],
            _path(request),
            request.body(),
            keep_kind=request.flag("noOverwriteDirNonDir"),
            copy_owner=request.flag("copyUIDGID"),
        )
        return Response()

    async def export(self, request: Request) -> Stream:
        """GET /containers/{id}/export."""
        ref = self._containers.inspect(request.params["id"]).id

        async def run(writer: Writer) -> None:
            async with self._containers.export(ref) as archive:
                await write_all(writer, archive)

        return Stream(
            run=run, headers={"Content-Type": "application/octet-stream"}, headers_at_once=False
        )

    async def changes(self, request: Request) -> Response:
        """GET /containers/{id}/changes."""
        found = await self._containers.changes(request.params["id"])
        return json_response([{"Path": c.path, "Kind": c.kind} for c in found] or None)


def _path(request: Request) -> str:
    path = request.query.get("path", "")
    if not path:
        raise InvalidArgument("bad parameter: 'path' cannot be empty")
    if "\0" in path:
        raise InvalidArgument("bad parameter: 'path' has a NUL")
    return path


def _stat_header(found: PathStat) -> Mapping[str, str]:
    document = {
        "name": found.name,
        "size": found.size_bytes,
        "mode": go_mode(found.mode),
        "mtime": rfc3339(found.mtime_ns),
        "linkTarget": found.link_target,
    }
    packed = base64.b64encode(json.dumps(document).encode()).decode()
    return {"X-Docker-Container-Path-Stat": packed}


def go_mode(mode: int) -> int:
    """Type and permissions of stat(2) as Go's os.FileMode."""
    bits = sum(go for unix, go in _GO_BITS.items() if mode & unix)
    return (mode & 0o777) | _GO_KINDS.get(stat.S_IFMT(mode), 0) | bits
