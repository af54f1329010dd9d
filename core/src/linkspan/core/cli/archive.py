"""Tar archives between this machine's files and the daemon, as streams (``cp``).

What a container sends is hostile: nothing is written outside the folder that was asked for, links are
never followed, and devices are left out.
"""

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Final

from linkspan.core.cli.failure import Failure

_CHUNK: Final = 256 * 1024
END: Final = bytes(2 * tarfile.BLOCKSIZE)
"""What closes an archive."""


def pack(source: Path, name: str, *, owner: bool, follow: bool = False) -> Iterator[bytes]:
    """A file, or a folder with all in it, as an archive in pieces.

    Args:
        source: What to send.
        name: Its name in the archive; ``.`` for the contents of a folder.
        owner: With the numbers of its owners; otherwise it is root's.
        follow: If it is a link itself, send what it points to.
    """
    # Nothing is written to this archive: it knows how to describe files, hard links among them.
    with tarfile.open(fileobj=io.BytesIO(), mode="w") as describer:
        for path, inside in _walk(source.resolve() if follow else source, name):
            if path.is_socket():
                continue  # tar has no word for it
            try:
                info = describer.gettarinfo(path, inside)
            except FileNotFoundError:
                if path == source:
                    raise
                continue  # it went away while we were reading
            info.uname = info.gname = ""
            if not owner:
                info.uid = info.gid = 0
            yield header(info)
            if info.isreg():
                yield from content(path, info.size)
    yield END


def _walk(path: Path, name: str) -> Iterator[tuple[Path, str]]:
    yield path, name
    if path.is_dir() and not path.is_symlink():
        for entry in sorted(path.iterdir()):
            yield from _walk(entry, f"{name}/{entry.name}" if name != "." else f"./{entry.name}")


def header(info: tarfile.TarInfo) -> bytes:
    """What stands before an entry's content."""
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size: int) -> bytes:
    """What stands behind an entry's content of so many bytes."""
    return bytes(-size % tarfile.BLOCKSIZE)


def content(path: Path, size: int) -> Iterator[bytes]:
    """So many bytes of a file, padded, whatever becomes of it meanwhile: the header has promised them."""
    left = size
    with path.open("rb") as stream:
        while left and (data := stream.read(min(left, _CHUNK))):
            left -= len(data)
            yield data
    while left:
        zeros = bytes(min(left, _CHUNK))
        left -= len(zeros)
        yield zeros
    yield padding(size)


class PieceReader(io.RawIOBase):
    """Pieces of bytes as a file to read from, once and forwards."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._buffer = b""
        self.count = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, target: Any) -> int:
        """Fill a buffer as far as the next piece goes."""
        while not self._buffer:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._buffer = piece
        count = min(len(target), len(self._buffer))
        target[:count] = self._buffer[:count]
        self._buffer = self._buffer[count:]
        self.count += count
        return count


def unpack(pieces: Iterator[bytes], target: Path, *, owner: bool) -> int:
    """Write an archive of one file or folder as ``target``, under that name whatever it had.

    Args:
        pieces: Of the archive; its first entry is the file or folder itself.
        target: What the first entry becomes; its parent exists.
        owner: Keep the numbers of owners.

    Returns:
        How many entries were written.

    Raises:
        Failure: An entry points out of the target, or cannot be written.
    """
    root: PurePosixPath | None = None
    folders: list[tuple[Path, tarfile.TarInfo]] = []
    count = 0
    reader = io.BufferedReader(PieceReader(pieces), _CHUNK)
    try:
        with tarfile.open(fileobj=reader, mode="r|") as archive:
            for info in archive:
                name = PurePosixPath(info.name)
                if root is None:
                    root = name
                place = _place(target, root, name, info.name)
                if _write(archive, info, place, target, root):
                    count += 1
                    if info.isdir():
                        folders.append((place, info))
                    else:
                        _dress(place, info, owner)
    except tarfile.TarError as exc:
        raise Failure(f"the daemon sent a broken archive: {exc}") from exc
    for place, info in reversed(folders):  # last: a folder may not let us write into it
        _dress(place, info, owner)
    return count


def _place(target: Path, root: PurePosixPath, name: PurePosixPath, text: str) -> Path:
    """Where an entry goes; never outside of the target, never through a link."""
    try:
        parts = name.relative_to(root).parts
    except ValueError:
        parts = ("..",)
    if ".." in parts:
        raise Failure(f"the archive holds '{text}', which lies outside of what was asked for")
    place = target
    for part in parts:
        if place.is_symlink():
            raise Failure(f"the archive would write '{text}' through the link '{place}'")
        place = place / part
    return place


def _write(
    archive: tarfile.TarFile, info: tarfile.TarInfo, place: Path, target: Path, root: PurePosixPath
) -> bool:
    if info.isdir():
        if not place.is_dir() or place.is_symlink():
            _clear(place, info)
            place.mkdir()
        return True
    if not (info.isreg() or info.issym() or info.islnk()):
        return False  # a device or a pipe: of no use outside of its container
    _clear(place, info)
    if info.issym():
        place.symlink_to(info.linkname)
    elif info.islnk():
        linked = _place(target, root, PurePosixPath(info.linkname), info.linkname)
        if linked.is_symlink() or not linked.is_file():
            raise Failure(f"the archive links '{info.name}' to '{info.linkname}', which is no file")
        os.link(linked, place)
    else:
        _write_file(archive, info, place)
    return True


def _write_file(archive: tarfile.TarFile, info: tarfile.TarInfo, place: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    stream = archive.extractfile(info)
    with os.fdopen(os.open(place, flags, 0o600), "wb") as file:
        while stream is not None and (data := stream.read(_CHUNK)):
            file.write(data)


def _clear(place: Path, info: tarfile.TarInfo) -> None:
    """Make room; a folder and anything else never replace one another."""
    if not (place.exists() or place.is_symlink()):
        return
    if place.is_dir() and not place.is_symlink():
        raise Failure(f"cannot replace the folder '{place}' by the file '{info.name}'")
    if info.isdir():
        raise Failure(f"cannot replace the file '{place}' by the folder '{info.name}'")
    place.unlink()


def _dress(place: Path, info: tarfile.TarInfo, owner: bool) -> None:
    """Owner, mode and time of an entry."""
    if owner:
        os.chown(place, info.uid, info.gid, follow_symlinks=False)
    if not info.issym():
        mode = info.mode & 0o7777 if owner else info.mode & 0o777
        place.chmod(mode)
        with suppress(OverflowError):
            os.utime(place, (info.mtime, info.mtime))


def is_folder(path: Path) -> bool:
    """Whether a path is a folder, links followed."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False
