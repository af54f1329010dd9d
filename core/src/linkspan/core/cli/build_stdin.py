"""``linkspan build -``: the context, or a Dockerfile alone, from stdin."""

import os
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from typing import Final

from linkspan.core.cli.archive import END, header, padding
from linkspan.core.cli.failure import USAGE, Failure

_CHUNK: Final = 256 * 1024
_MAX_DOCKERFILE: Final = 8 << 20
_COMPRESSED: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")

Archive = Callable[[], Iterator[bytes]]
"""The context as a tar archive in pieces; each call begins anew."""


def read_context(dockerfile: str | None) -> tuple[Archive, bytes | None]:
    """What stands on stdin: an archive (compressed, perhaps), or else a Dockerfile.

    Args:
        dockerfile: The Dockerfile that is wanted from the archive, if one was named.

    Returns:
        The context, and the Dockerfile's text if that is all there is.

    Raises:
        Failure: Stdin is a terminal, or holds neither.
    """
    if sys.stdin.isatty():
        raise _wrong("stdin is a terminal: there is no build context", "linkspan build - < FILE")
    stream = sys.stdin.buffer
    start = stream.read(_CHUNK)
    if not start:
        raise _wrong("there is nothing on stdin: no build context", "linkspan build - < Dockerfile")
    if not _is_archive(start):
        if dockerfile is not None:
            raise _wrong(
                f"stdin holds no archive, and so no '{dockerfile}'", "tar c . | linkspan build -"
            )
        text = start + stream.read(_MAX_DOCKERFILE)
        if len(text) > _MAX_DOCKERFILE:
            raise _wrong("what stands on stdin is neither an archive nor a Dockerfile", "")
        return lambda: _only(text), text
    with tempfile.TemporaryFile() as kept:
        while start:
            kept.write(start)
            start = stream.read(_CHUNK)
        kept.flush()
        return _Kept(os.dup(kept.fileno())).pieces, None


def _is_archive(start: bytes) -> bool:
    if start.startswith(_COMPRESSED):
        return True
    try:
        tarfile.TarInfo.frombuf(start[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _only(text: bytes) -> Iterator[bytes]:
    info = tarfile.TarInfo("Dockerfile")
    info.size = len(text)
    yield header(info) + text + padding(len(text)) + END


class _Kept:
    """A file without a name; it goes when nobody wants its pieces any more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __del__(self) -> None:
        os.close(self._descriptor)

    def pieces(self) -> Iterator[bytes]:
        """All of it, from its beginning."""
        at = 0
        while piece := os.pread(self._descriptor, _CHUNK, at):
            yield piece
            at += len(piece)


def _wrong(headline: str, hint: str) -> Failure:
    return Failure(headline, id="LS0004", status=USAGE, helps=[hint])
