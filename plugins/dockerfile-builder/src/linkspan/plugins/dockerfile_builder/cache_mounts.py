"""Folders of ``RUN --mount=type=cache``: they outlive builds, and are no part of an image.

``<state>/cache-mounts/<hash of the id>/<number>/``: number 0 is the one that everybody shares; a
``private`` mount takes the lowest one that nobody uses. ``id`` beside them holds the id as text. What
is being removed has been renamed first, so that a crash leaves nothing half-empty in use.
"""

import collections
import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from linkspan.sdk.values import frozen

if TYPE_CHECKING:
    from linkspan.plugins.dockerfile_builder.mount_option import RunMount

Seed = Callable[[Path], Awaitable[None]]
"""Fills a new, empty folder."""

_PARTS = "data"


@frozen(kw_only=True)
class CacheFolder:
    """One folder, as ``docker system df -v`` shows it.

    Attributes:
        key: Names it for :meth:`CacheMounts.remove`.
        used: Seconds since the epoch when a step last ended with it.
    """

    key: str
    id: str
    size_bytes: int
    created: float
    used: float
    in_use: bool


class CacheMounts:
    """The folders of one daemon."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._users: collections.Counter[Path] = collections.Counter()
        self._locks: dict[str, trio.Lock] = {}
        self._making = trio.Lock()

    @contextlib.asynccontextmanager
    async def hold(
        self, mount: "RunMount", name: str, *, seed: Seed | None, fresh: bool
    ) -> AsyncIterator[Path]:
        """A folder for one step, by the mount's sharing.

        Args:
            name: The mount's id.
            seed: Fills the folder when it is made.
            fresh: Begin with an empty one (``--no-cache``), which replaces the old one unless that is in use.
        """
        home = self._folder / hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
        async with contextlib.AsyncExitStack() as stack:
            if mount.sharing == "locked":
                await stack.enter_async_context(self._locks.setdefault(home.name, trio.Lock()))
            number = 0
            if mount.sharing == "private" or fresh:
                while self._users[home / str(number)]:
                    number += 1
            place = home / str(number)
            self._users[place] += 1
            try:
                # One at a time: nobody may take a folder that is being replaced.
                async with self._making:
                    await self._make(place, mount, name, seed, fresh=fresh)
                yield place / _PARTS
            finally:
                self._users[place] -= 1
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(_mark_used, place)

    async def _make(
        self, place: Path, mount: "RunMount", name: str, seed: Seed | None, *, fresh: bool
    ) -> None:
        if fresh and self._users[place] == 1:
            await trio.to_thread.run_sync(self._remove, place)
        data = place / _PARTS
        if not await trio.to_thread.run_sync(data.is_dir):
            # Under another name until it is complete: others must not see it half-filled.
            making = self._folder / f"new-{uuid.uuid4().hex}"
            await trio.to_thread.run_sync(_begin, making, mount)
            if seed is not None:
                await seed(making)
            await trio.to_thread.run_sync(_finish, making, place, name)

    def folders(self) -> list[CacheFolder]:
        """All of them with their sizes. Blocking: walks them."""
        found = []
        for home in _children(self._folder):
            for place in _children(home):
                if not (place / _PARTS).is_dir():
                    continue
                info = place.stat()
                found.append(
                    CacheFolder(
                        key=f"{home.name}/{place.name}",
                        id=_text(home / "id"),
                        size_bytes=_size(place),
                        created=(home / "id").stat().st_mtime,
                        used=info.st_mtime,
                        in_use=bool(self._users[place]),
                    )
                )
        return found

    def remove(self, key: str) -> bool:
        """Remove one that is not in use; say whether it is gone. Blocking."""
        place = self._folder / key
        if self._users[place]:
            return False
        self._remove(place)
        with contextlib.suppress(OSError):
            if not any(path.is_dir() for path in place.parent.iterdir()):
                shutil.rmtree(place.parent)
        return True

    def recover(self) -> None:
        """Remove what a crash left half-made or half-removed. Blocking."""
        for path in _children(self._folder):
            if path.name.startswith(("new-", "old-")):
                shutil.rmtree(path, ignore_errors=True)

    def _remove(self, place: Path) -> None:
        gone = self._folder / f"old-{uuid.uuid4().hex}"
        try:
            place.rename(gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone, ignore_errors=True)


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _begin(folder: Path, mount: "RunMount") -> None:
    folder.mkdir(mode=0o700, parents=True)
    os.chown(folder, mount.uid, mount.gid)
    folder.chmod(0o755 if mount.mode is None else mount.mode)


def _finish(made: Path, place: Path, name: str) -> None:
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    (place.parent / "id").write_text(name, errors="surrogateescape")
    try:
        made.rename(place / _PARTS)
    except OSError:
        # Another step was quicker; it has the same right.
        if not (place / _PARTS).is_dir():
            raise
        shutil.rmtree(made)


def _mark_used(place: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.utime(place)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")
    except FileNotFoundError:
        return ""


def _size(folder: Path) -> int:
    """Bytes on disk. Deep trees are walked without recursion."""
    total, pending = 0, [folder]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))
        except FileNotFoundError:
            continue
    return total
