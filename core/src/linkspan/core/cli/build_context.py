"""What ``linkspan build`` sends: the folder as a tar, less what ``.dockerignore`` leaves out."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from linkspan.core.cli.archive import END, content, header, padding
from linkspan.core.cli.failure import USAGE, Failure
from linkspan.sdk.dockerignore import IgnorePatterns
from linkspan.sdk.glob import PatternError


def context_tar(root: Path, dockerfile: str, extra: bytes | None) -> Iterator[bytes]:
    """The context as a tar archive, in pieces, while it is read.

    Args:
        root: The folder.
        dockerfile: Name in the archive; sent even if ``.dockerignore`` leaves it out.
        extra: The Dockerfile's text if it is not a file of the context.
    """
    ignore = _ignore_file(root, dockerfile)
    if extra is not None:
        info = tarfile.TarInfo(dockerfile)
        info.size = len(extra)
        yield header(info) + extra + padding(len(extra))
    # Nothing is written to this archive: it knows how to describe files, hard links among them.
    with tarfile.open(fileobj=io.BytesIO(), mode="w") as describer:
        for path, name in _walk(root, ignore, {dockerfile, ".dockerignore"}):
            if path.is_socket():
                continue  # tar has no word for it
            try:
                info = describer.gettarinfo(path, name)
            except FileNotFoundError:
                continue  # it went away while we were reading
            info.uname = info.gname = ""
            yield header(info)
            if info.isreg():
                yield from content(path, info.size)
    yield END


def _ignore_file(root: Path, dockerfile: str) -> IgnorePatterns:
    """``Dockerfile.dockerignore`` beside the Dockerfile, else ``.dockerignore``."""
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        try:
            return IgnorePatterns.parse((root / name).read_text(encoding="utf-8", errors="replace"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PatternError as exc:
            raise Failure(str(exc), id="LS0004", status=USAGE) from exc
    return IgnorePatterns(())


def _walk(root: Path, ignore: IgnorePatterns, always: set[str]) -> Iterator[tuple[Path, str]]:
    """Paths to send, parents first, in a stable order."""
    pending = [(root, "")]
    while pending:
        folder, prefix = pending.pop()
        inside: list[tuple[Path, str]] = []
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                name = f"{prefix}{entry.name}"
                kept = name in always or not ignore.excludes(name)
                is_folder = entry.is_dir(follow_symlinks=False)
                if kept:
                    yield Path(entry.path), name
                holds_kept = any(path.startswith(f"{name}/") for path in always)
                if is_folder and (kept or ignore.has_negation or holds_kept):
                    inside.append((Path(entry.path), f"{name}/"))
        pending.extend(reversed(inside))
