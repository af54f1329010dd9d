"""``copy``: files between the workspace and a container."""

import os
import stat
import tarfile
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

import attrs
import trio

from linkspan.plugins.standard_steps.base import StandardStep
from linkspan.plugins.standard_steps.copied_before import lying_there, names_below, put_back
from linkspan.plugins.standard_steps.lookup import service_container
from linkspan.plugins.standard_steps.places import inside
from linkspan.sdk.drivers.step import StepContext
from linkspan.sdk.errors import DataLoss, InvalidArgument, NotFound
from linkspan.sdk.model.step import StepChange, StepIntent, StepOutcome, StepPlan

_PIECE_BYTES: Final = 1 << 20
_NO_WAY_BACK: Final = "what lies there is too much to be kept: no way back"


class CopyStep(StandardStep):
    """One side is in the workspace, the other ``CONTAINER:/PATH``; what was there is replaced.

    Undo puts a container's files back; the workspace is the run's own.
    """

    async def plan(self, intent: StepIntent) -> StepPlan:
        """What will be written, and what lies there now."""
        into, container, path = _sides(intent)
        where = f"{container}:{path}" if into else intent.settings["to"]
        change = StepChange(action="change", what=f"files at {where}")
        undo: Mapping[str, Any] = {}
        if into:
            with suppress(NotFound):
                # Whether it can be copied is found out by copying.
                undo, change = await self._way_back(intent, container, path, change)
        return StepPlan(changes=(change,), undo=undo)

    async def _way_back(
        self, intent: StepIntent, name: str, path: str, change: StepChange
    ) -> tuple[Mapping[str, Any], StepChange]:
        ref = await self._container(intent, name)
        source = inside(intent.workspace, intent.settings["from"], "the path")
        folder, called = await self._place(intent, ref, path, source)
        names = await trio.to_thread.run_sync(names_below, source, called)
        undo = await lying_there(self.host.engine.containers, ref, folder, names)
        if undo is None:
            return {}, attrs.evolve(change, detail=_NO_WAY_BACK)
        return undo, change

    async def _container(self, intent: StepIntent, name: str) -> str:
        try:
            return self.host.engine.containers.inspect(name).id
        except NotFound:
            return (await service_container(self.host, intent, name)).id

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Copy, as ``docker cp`` names things: into a folder that is there, else under the new name.

        Raises:
            NotFound: No such container or path.
            InvalidArgument: Not exactly one side is a container; a path leads out of the workspace.
        If cancelled: a part may have been written; each file is whole or not there.
        """
        into, name, path = _sides(intent)
        ref = await self._container(intent, name)
        if into and not intent.undo:
            context.log(_NO_WAY_BACK)
        with tempfile.TemporaryFile() as spool:
            if into:
                count = await self._in(intent, ref, path, spool)
            else:
                count = await self._out(intent, ref, path, spool)
        context.log(f"{count} files copied")
        return {"files": count}

    async def _in(self, intent: StepIntent, ref: str, path: str, spool: IO[bytes]) -> int:
        source = inside(intent.workspace, intent.settings["from"], "the path")
        folder, name = await self._place(intent, ref, path, source)
        count = await trio.to_thread.run_sync(_pack, source, name, spool)
        async with aclosing(_pieces(spool)) as pieces:
            await self.host.engine.containers.write_path(ref, folder, pieces, keep_kind=True)
        return count

    async def _place(
        self, intent: StepIntent, ref: str, path: str, source: Path
    ) -> tuple[str, str]:
        """The folder in the container, and what the source is called in it; ``.`` for its content."""
        text: str = intent.settings["from"]
        contents = text.endswith("/.") or text == "."
        containers = self.host.engine.containers
        try:
            found = await containers.stat_path(ref, path)
            is_folder = stat.S_ISDIR(found.mode) or bool(found.link_target)
        except NotFound:
            is_folder = False
        if is_folder:
            return path, "." if contents else source.name
        if path.endswith("/") and not await trio.to_thread.run_sync(source.is_dir):
            raise NotFound(f"there is no folder {path} in the container", code="path_not_found")
        parts = PurePosixPath(path)
        return str(parts.parent), parts.name

    async def _out(self, intent: StepIntent, ref: str, path: str, spool: IO[bytes]) -> int:
        text: str = intent.settings["to"]
        target = inside(intent.workspace, text, "the path")
        async with self.host.engine.containers.read_path(ref, path) as (found, pieces):
            async for piece in pieces:
                await trio.to_thread.run_sync(spool.write, piece)
        spool.seek(0)
        into = target.is_dir()
        if text.endswith("/") and not into and not stat.S_ISDIR(found.mode):
            raise NotFound(f"there is no folder '{text}' in the workspace")
        contents = path.endswith("/.")
        base = target / found.name if into and not contents else target
        return await trio.to_thread.run_sync(_unpack, spool, found.name, base)

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """Copied again."""
        return StepOutcome(applied=False, detail="copied again")

    async def undo(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Put back what lay in the container; what was new there goes, unless something else is in it."""
        return {"detail": await put_back(self.host.engine.containers, intent.undo)}


def _sides(intent: StepIntent) -> tuple[bool, str, str]:
    """Whether it goes into the container, the container, and its path."""
    source, target = _split(intent.settings["from"]), _split(intent.settings["to"])
    if (source is None) == (target is None):
        raise InvalidArgument(
            "exactly one of 'from' and 'to' names a container",
            help="with: {from: dist, to: 'web:/srv/www'}",
        )
    name, path = source or target or ("", "")
    return target is not None, name, path if path.startswith("/") else f"/{path}"


def _split(text: str) -> tuple[str, str] | None:
    """``CONTAINER:PATH``; a path of the workspace with a colon begins with ``./``."""
    name, colon, path = text.partition(":")
    if not colon or "/" in name or name in ("", ".", ".."):
        return None
    return name, path


def _pack(source: Path, name: str, spool: IO[bytes]) -> int:
    if not source.exists():
        raise NotFound(f"there is no '{source.name}' in the workspace")
    if name == "." and not source.is_dir():
        raise NotFound(f"'{source.name}' is no folder of the workspace, and has no content to copy")
    count = 0
    with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as archive:

        def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
            nonlocal count
            if not (entry.isreg() or entry.isdir() or entry.issym() or entry.islnk()):
                return None
            count += not entry.isdir()
            # Whoever runs the pipeline is nobody in the container.
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            return entry

        # The folder that gets another's content stays whose it is.
        parts = sorted(source.iterdir()) if name == "." else [source]
        for part in parts:
            archive.add(part, part.name if name == "." else name, filter=plain)
    spool.seek(0)
    return count


async def _pieces(spool: IO[bytes]) -> AsyncGenerator[bytes, None]:
    while piece := await trio.to_thread.run_sync(spool.read, _PIECE_BYTES):
        yield piece


def _unpack(spool: IO[bytes], name: str, base: Path) -> int:
    """Write a container's files; the container may be hostile, so nothing leads out of ``base``."""
    count = 0
    try:
        with tarfile.open(fileobj=spool, mode="r:") as archive:
            for entry in archive:
                parts = PurePosixPath(entry.name).parts
                if parts[:1] == (name,):
                    parts = parts[1:]
                if ".." in parts or "/" in parts:
                    raise InvalidArgument(f"the container names a file '{entry.name}'")
                place = base.joinpath(*parts)
                count += _place(archive, entry, place, base)
    except tarfile.TarError as error:
        raise DataLoss(f"what the container sent cannot be read: {error}") from error
    return count


def _place(archive: tarfile.TarFile, entry: tarfile.TarInfo, place: Path, base: Path) -> int:
    if not place.parent.resolve().is_relative_to(base.parent.resolve()):
        raise InvalidArgument(f"'{entry.name}' leads out of the workspace")
    place.parent.mkdir(parents=True, exist_ok=True)
    if entry.isdir():
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            place.unlink()
        place.mkdir(exist_ok=True)
        return 0
    if place.is_dir() and not place.is_symlink():
        raise InvalidArgument(f"'{place.name}' is a folder of the workspace, and a file there")
    if entry.isreg():
        data = archive.extractfile(entry)
        assert data is not None
        _write(place, data, entry.mode & 0o777)
        return 1
    if entry.issym():
        goal = Path(os.path.normpath(place.parent / entry.linkname))
        if entry.linkname.startswith("/") or not goal.is_relative_to(base):
            # It would lead out of what was copied.
            return 0
        place.unlink(missing_ok=True)
        place.symlink_to(entry.linkname)
        return 1
    return 0


def _write(place: Path, data: IO[bytes], mode: int) -> None:
    part = place.with_name(f".{place.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        while piece := data.read(_PIECE_BYTES):
            file.write(piece)
    part.rename(place)
