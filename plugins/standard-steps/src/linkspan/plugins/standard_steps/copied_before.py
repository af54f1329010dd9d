"""What lay in a container where ``copy`` writes: recorded before, and put back by undo.

The record has the content of each file that is overwritten, so it is limited; of what is new it has the names.
"""

import base64
import io
import json
import tarfile
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

import trio

from linkspan.sdk.errors import NotFound
from linkspan.sdk.host import Containers

MAX_BYTES: Final = 768 * 1024
"""Of a record as JSON; a journal takes 1 MiB."""
_MAX_READ_BYTES: Final = 64 << 20
"""A folder is read as a whole to find what is overwritten in it; a larger one is not."""
_KINDS: Final = {"file": tarfile.REGTYPE, "folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE}

Record = dict[str, Any]


class _TooMuch(Exception):
    """It is larger than a record may be, or something that no record can hold."""


def names_below(source: Path, name: str) -> list[str]:
    """What a copy of a file or folder writes, folders before what is in them. Blocks.

    Args:
        source: The file or folder.
        name: What it is called there; ``.``: its content.
    """
    found = [] if name == "." else [name]
    if source.is_dir() and not source.is_symlink():
        below = sorted(each.relative_to(source) for each in source.rglob("*"))
        found += [str(PurePosixPath(name) / each.as_posix()) for each in below]
    return found


async def lying_there(
    containers: Containers, ref: str, folder: str, names: Sequence[str]
) -> Record | None:
    """What is needed to undo a copy; None if more lies there than can be kept.

    Args:
        containers: The engine's.
        ref: The container's id.
        folder: A folder in it.
        names: What will be written there, from ``names_below``.
    """
    before: dict[str, Record] = {}
    try:
        for top in dict.fromkeys(name.partition("/")[0] for name in names):
            before |= await _entries(containers, ref, f"{folder.rstrip('/')}/{top}", set(names))
    except _TooMuch:
        return None
    new = [name for name in reversed(names) if name not in before]
    record = {"container": ref, "folder": folder, "before": before, "new": new}
    return record if len(json.dumps(record)) <= MAX_BYTES else None


async def _entries(
    containers: Containers, ref: str, path: str, wanted: set[str]
) -> dict[str, Record]:
    with tempfile.TemporaryFile() as spool:
        try:
            async with containers.read_path(ref, path) as (_, pieces):
                async for piece in pieces:
                    await trio.to_thread.run_sync(spool.write, piece)
                    if spool.tell() > _MAX_READ_BYTES:
                        raise _TooMuch
        except NotFound as error:
            if error.code != "path_not_found":
                raise
            return {}
        spool.seek(0)
        return await trio.to_thread.run_sync(_recorded, spool, wanted)


def _recorded(spool: IO[bytes], wanted: set[str]) -> dict[str, Record]:
    found: dict[str, Record] = {}
    with tarfile.open(fileobj=spool, mode="r:") as archive:
        for entry in archive:
            name = entry.name.rstrip("/")
            if name in wanted:
                found[name] = _record(archive, entry)
    return found


def _record(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Record:
    facts: Record = {"mode": entry.mode, "uid": entry.uid, "gid": entry.gid, "mtime": entry.mtime}
    if entry.isdir():
        return {"kind": "folder", **facts}
    if entry.issym():
        return {"kind": "link", "target": entry.linkname, **facts}
    data = archive.extractfile(entry) if entry.isreg() and entry.size <= MAX_BYTES else None
    if data is None:
        raise _TooMuch
    content = data.read()
    try:
        # As a text, so that a secret in it is found and kept out of the journal.
        return {"kind": "file", "text": content.decode(), **facts}
    except UnicodeDecodeError:
        return {"kind": "file", "data": base64.b64encode(content).decode(), **facts}


async def put_back(containers: Containers, record: Mapping[str, Any]) -> str:
    """Give files their former content and remove what was new; what was done, in words.

    Args:
        containers: The engine's.
        record: From ``lying_there``.
    """
    ref, folder, before = record["container"], record["folder"], record["before"]
    try:
        containers.inspect(ref)
    except NotFound:
        return "the container is gone"
    told = []
    if before:
        await containers.write_path(ref, folder, _pieces(_packed(before)))
        files = sum(each["kind"] != "folder" for each in before.values())
        told.append(f"files put back: {files}")
    if record["new"]:
        left = set(await containers.remove_paths(ref, folder, record["new"]))
        told.append(f"removed: {len(record['new']) - len(left)}")
        told += [f"{name} stays: something else is in it" for name in sorted(left)]
    return f"{', '.join(told)} in {folder}"


def _packed(before: Mapping[str, Record]) -> bytes:
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, each in before.items():
            entry = tarfile.TarInfo(name)
            entry.type = _KINDS[each["kind"]]
            entry.mode, entry.mtime = each["mode"], each["mtime"]
            entry.uid, entry.gid = each["uid"], each["gid"]
            entry.linkname = each.get("target", "")
            content = base64.b64decode(each["data"]) if "data" in each else None
            content = each.get("text", "").encode() if content is None else content
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return spool.getvalue()


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data
