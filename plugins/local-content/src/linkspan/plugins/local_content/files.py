"""File work of the store. Everything here blocks and is called in worker threads."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from linkspan.sdk.errors import OutOfSpace
from linkspan.sdk.files import is_full

_PIECE: Final = 1 << 20


@contextlib.contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turn a full disk or quota into OutOfSpace that names the folder."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise OutOfSpace(
            f"the disk that holds {path} is full",
            details={"path": str(path)},
            help=f"free some space: df -h {path}",
        ) from error


def append(fd: int, data: bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``, or nothing: a failed write leaves the old length."""
    view, at = memoryview(data), offset
    try:
        while view:
            written = os.pwrite(fd, view, at)
            view, at = view[written:], at + written
    except OSError:
        os.ftruncate(fd, offset)
        raise


def hash_range(fd: int, hasher: "hashlib._Hash", start: int, end: int) -> int:
    """Feed bytes ``start`` to ``end`` of a file; return where the file really ended."""
    while start < end:
        data = os.pread(fd, min(_PIECE, end - start), start)
        if not data:
            break
        hasher.update(data)
        start += len(data)
    return start


def digest_of_file(path: Path, algorithm: str) -> str:
    """``algorithm:hex`` of a file."""
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
