"""Files of containers for ``FakeSnapshots``: in real folders, without root.

Mounts are looked up by the longest destination; a mount inside a folder that is packed is not seen. Links
are resolved step by step, so that they stay inside.
"""

import gzip
import io
import os
import posixpath
import shutil
import stat
import tarfile
from collections.abc import Sequence
from pathlib import Path

from linkspan.sdk.errors import DataLoss, InvalidArgument, NotFound, PermissionDenied
from linkspan.sdk.model.files import PathStat, Tree, TreeMount

_HOPS = 40


def _absolute(path: str) -> str:
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if path == "." or path.endswith("/."):
        return clean.rstrip("/") + "/."
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def _mount_of(tree: Tree, path: str) -> TreeMount | None:
    def covers(mount: TreeMount) -> bool:
        return path == mount.destination or path.startswith(mount.destination + "/")

    found = [mount for mount in tree.mounts if covers(mount)]
    return max(found, key=lambda mount: len(mount.destination), default=None)


def _place(tree: Tree, path: str) -> Path:
    """Where a path without links lies on the host."""
    mount = _mount_of(tree, path)
    if mount is None or not mount.source:
        return tree.folder / path.lstrip("/")
    return Path(mount.source) / path.removeprefix(mount.destination).lstrip("/")


def _resolve(tree: Tree, path: str, *, last: bool, hops: int = _HOPS) -> str:
    """The path with its links followed inside; the last part only if ``last``."""
    current = "/"
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for count, part in enumerate(parts, 1):
        if part == "..":
            current = posixpath.dirname(current)
            continue
        step = posixpath.join(current, part)
        place = _place(tree, step)
        if place.is_symlink() and (last or count < len(parts)):
            if not hops:
                raise _missing(path)
            target = posixpath.join(current, str(place.readlink()))
            step = _resolve(tree, target, last=True, hops=hops - 1)
        current = step
    return current


def _missing(path: str) -> NotFound:
    return NotFound(f"no such file or folder: {path}", code="path_not_found")


def _locate(tree: Tree, path: str) -> tuple[str, Path]:
    clean = _absolute(path)
    place = _place(tree, _resolve(tree, clean, last=clean.endswith(("/", "/."))))
    try:
        status = place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(path) from None
    if clean.endswith(("/", "/.")) and not stat.S_ISDIR(status.st_mode):
        raise _missing(path)
    return clean, place


def _base(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] or "/"


def stat_path(tree: Tree, path: str) -> PathStat:
    clean, place = _locate(tree, path)
    status = place.lstat()
    target = ""
    if stat.S_ISLNK(status.st_mode):
        target = _resolve(tree, clean, last=True)
    return PathStat(
        name=_base(clean),
        size_bytes=status.st_size,
        mode=status.st_mode,
        mtime_ns=status.st_mtime_ns,
        link_target=target,
    )


def read_path(tree: Tree, path: str) -> bytes:
    clean, place = _locate(tree, path)
    name = _base(clean)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        if not path or name == "/":
            for entry in sorted(place.iterdir()):
                tar.add(entry, entry.name)
        else:
            tar.add(place, name)
    return buffer.getvalue()


def _writable(tree: Tree, path: str) -> Path:
    """The folder that a path means."""
    resolved = _resolve(tree, _absolute(path), last=True)
    folder = _place(tree, resolved)
    if not folder.exists():
        raise _missing(path)
    if not folder.is_dir():
        raise InvalidArgument("extraction point is not a directory", code="not_a_folder")
    mount = _mount_of(tree, resolved)
    if mount.read_only if mount is not None else tree.read_only:
        what = "mounted volume" if mount is not None else "container rootfs"
        raise PermissionDenied(f"{what} is marked read-only", code="read_only")
    return folder


def remove_paths(tree: Tree, path: str, names: Sequence[str]) -> list[str]:
    folder = _writable(tree, path)
    left = []
    for name in names:
        if name.startswith("/") or ".." in name.split("/"):
            raise InvalidArgument(f"'{name}' leads out of the folder", code="hostile_path")
        place = _place(Tree(folder=folder), _resolve(Tree(folder=folder), name, last=False))
        try:
            place.rmdir() if place.is_dir() and not place.is_symlink() else place.unlink()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError:
            left.append(name)
    return left


def write_path(tree: Tree, path: str, data: bytes, *, keep_kind: bool) -> None:
    folder = _writable(tree, path)
    try:
        plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as tar:
            for info in tar:
                _extract(folder, tar, info, keep_kind=keep_kind)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise DataLoss(f"the archive is corrupt: {error}", code="corrupt_layer") from error


def _extract(folder: Path, tar: tarfile.TarFile, info: tarfile.TarInfo, *, keep_kind: bool) -> None:
    name = posixpath.normpath(info.name.lstrip("/"))
    if name == "..":
        raise InvalidArgument("the archive leaves its folder", code="hostile_layer")
    inner = Tree(folder=folder)
    clean = _resolve(inner, "/" + name, last=False)
    if name.startswith("../"):
        raise InvalidArgument("the archive leaves its folder", code="hostile_layer")
    place = _place(inner, clean)
    if place == folder:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink() or place.exists():
        is_folder = place.is_dir() and not place.is_symlink()
        if keep_kind and is_folder != info.isdir():
            kinds = ("directory", "non-directory") if is_folder else ("non-directory", "directory")
            raise InvalidArgument(
                f'cannot overwrite {kinds[0]} "{name}" with {kinds[1]} "{name}"', code="other_kind"
            )
        if not (is_folder and info.isdir()):
            shutil.rmtree(place) if is_folder else place.unlink()
    if info.isdir():
        place.mkdir(exist_ok=True)
        place.chmod(info.mode)
    elif info.issym():
        place.symlink_to(info.linkname)
    elif info.isreg():
        file = tar.extractfile(info)
        assert file is not None
        place.write_bytes(file.read())
        place.chmod(info.mode)
        os.utime(place, (info.mtime, info.mtime))
