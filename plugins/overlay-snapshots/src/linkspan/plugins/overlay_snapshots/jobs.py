"""What children do. Each job runs in a process of its own that ends with it."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from isal import isal_zlib

from linkspan.plugins.overlay_snapshots.changes import changes
from linkspan.plugins.overlay_snapshots.faults import from_os_error
from linkspan.plugins.overlay_snapshots.settle import Settle
from linkspan.plugins.overlay_snapshots.tar_writer import TarWriter
from linkspan.plugins.overlay_snapshots.tree_jobs import TREE_JOBS
from linkspan.plugins.overlay_snapshots.trees import own_size, remove_tree
from linkspan.plugins.overlay_snapshots.unpack import Unpack
from linkspan.sdk.syscalls import open_in_root

Job = Callable[[Mapping[str, Any], Sequence[int]], Any]

_GZIP_LEVEL: Final = 1
_NICE: Final = 10


def unpack(task: Mapping[str, Any], fds: Sequence[int]) -> Any:
    """See ``Unpack``; the descriptor is the pipe of arriving bytes."""
    return Unpack(task, fds[0]).run()


def settle(task: Mapping[str, Any], fds: Sequence[int]) -> Any:
    """See ``Settle``. Task: ``folder`` (the staging area), ``lower`` (the parents, mounted)."""
    folder = Path(task["folder"])
    notes = json.loads((folder / "notes.json").read_bytes())
    Settle(_folder(folder / "diff"), _folder(Path(task["lower"]))).run(notes)


def measure(task: Mapping[str, Any], fds: Sequence[int]) -> Any:
    """Diff id and size of a folder that becomes a layer. Task: ``folder``, ``lowers``."""
    lowers = [_folder(Path(path)) for path in task["lowers"]]
    os.chdir(task["folder"])
    hasher = hashlib.sha256()
    writer = TarWriter(hasher.update, lambda path: any(_has(fd, path) for fd in lowers))
    writer.write()
    return {"diff_id": "sha256:" + hasher.hexdigest(), "size_bytes": writer.size_bytes}


def export(task: Mapping[str, Any], fds: Sequence[int]) -> Any:
    """Write the tar of ``folder`` to the pipe; return its diff id."""
    os.chdir(task["folder"])
    hasher = hashlib.sha256()

    def put(data: bytes) -> None:
        hasher.update(data)
        _write_all(fds[0], data)

    TarWriter(put).write()
    return {"diff_id": "sha256:" + hasher.hexdigest()}


def pack(task: Mapping[str, Any], fds: Sequence[int]) -> Any:
    """Write the layer that ``folder``, which stays in use, would become. Task: ``lowers``, ``ignore``."""
    lowers = [_folder(Path(path)) for path in task["lowers"]]
    os.chdir(task["folder"])

    def lower_has(path: bytes) -> bool:
        return any(_has(fd, path) for fd in lowers)

    def put(data: bytes) -> None:
        _write_all(fds[0], data)

    TarWriter(put, lower_has, clean=False, ignore=_relative(task["ignore"])).write()


def compress(task: Mapping[str, Any], fds: Sequence[int]) -> Any:
    """Write the gzipped tar of ``folder`` to the file ``target``; return digests and size."""
    target = os.open(task["target"], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.chdir(task["folder"])
    plain, packed = hashlib.sha256(), hashlib.sha256()
    compressor = isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, 31)

    def write(data: bytes) -> None:
        packed.update(data)
        _write_all(target, data)

    def put(data: bytes) -> None:
        plain.update(data)
        write(compressor.compress(data))

    TarWriter(put).write()
    write(compressor.flush())
    return {
        "diff_id": "sha256:" + plain.hexdigest(),
        "digest": "sha256:" + packed.hexdigest(),
        "size_bytes": os.fstat(target).st_size,
    }


def compare(task: Mapping[str, Any], fds: Sequence[int]) -> Any:
    """See ``changes``. Task: ``folder``, ``lower`` (the parents, mounted), ``ignore``."""
    lower = _folder(Path(task["lower"]))
    os.chdir(task["folder"])
    return changes(lower, _relative(task["ignore"]))


def usage(task: Mapping[str, Any], fds: Sequence[int]) -> Any:
    """Bytes in ``folder``."""
    return own_size(os.fsencode(task["folder"]))


def remove(task: Mapping[str, Any], fds: Sequence[int]) -> Any:
    """Remove ``folders``, in no hurry."""
    os.nice(_NICE)
    for folder in task["folders"]:
        remove_tree(folder)


JOBS: Final[Mapping[str, Job]] = {
    "unpack": unpack,
    "settle": settle,
    "measure": measure,
    "export": export,
    "pack": pack,
    "compress": compress,
    "compare": compare,
    "usage": usage,
    "remove": remove,
    **TREE_JOBS,
}


def _relative(paths: Sequence[str]) -> frozenset[bytes]:
    return frozenset(os.fsencode(path).lstrip(b"/") for path in paths)


def _folder(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _has(root: int, path: bytes) -> bool:
    parent, _, base = path.rpartition(b"/")
    try:
        fd = open_in_root(root, parent, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        os.stat(base, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except BrokenPipeError:
        # Nobody listens any more: the daemon has cancelled.
        os._exit(1)
    except OSError as error:
        raise from_os_error(error) from error
