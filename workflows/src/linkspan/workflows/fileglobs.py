"""Files of a workspace by globs, and what they hold. All functions block."""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_CHUNK: Final = 1024 * 1024


def matching(root: Path, globs: Iterable[str]) -> list[str]:
    """Paths of regular files and links below a folder that a glob matches, relative and sorted.

    ``*`` stays within a folder, ``**`` does not; a glob that names a folder means all in it. Links are not
    followed.
    """
    tests = [_pattern(each) for glob in globs for each in _forms(glob)]
    return [name for name in _walk(root) if any(test.fullmatch(name) for test in tests)]


def _pattern(glob: str) -> re.Pattern[str]:
    parts: list[str] = []
    for piece in re.findall(r"\*\*/|\*+|\?|\[!?[^]/]+\]|.", glob, re.DOTALL):
        if piece == "**/":
            parts.append("(?:.*/)?")
        elif piece.startswith("*"):
            parts.append(".*" if len(piece) > 1 else "[^/]*")
        elif piece == "?":
            parts.append("[^/]")
        elif piece.startswith("[") and len(piece) > 1:
            inner = piece[1:-1].replace("\\", "\\\\")
            parts.append(f"[{'^' + inner[1:] if inner.startswith('!') else inner}]")
        else:
            parts.append(re.escape(piece))
    return re.compile("".join(parts), re.DOTALL)


def _forms(glob: str) -> tuple[str, ...]:
    plain = glob.removeprefix("./").rstrip("/")
    return ("**",) if plain in ("", ".") else (plain, f"{plain}/**")


def _walk(root: Path) -> list[str]:
    names: list[str] = []
    todo = [root]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    todo.append(Path(entry.path))
                else:
                    names.append(str(Path(entry.path).relative_to(root)))
    return sorted(names)


def hash_of(root: Path, names: Iterable[str]) -> str:
    """SHA-256, in hex, of the names and contents of files; of links what they point to."""
    total = hashlib.sha256()
    for name in names:
        path = root / name
        one = hashlib.sha256()
        if path.is_symlink():
            one.update(b"link " + os.fsencode(path.readlink()))
        else:
            one.update(b"file x " if os.access(path, os.X_OK) else b"file - ")
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    one.update(chunk)
        total.update(os.fsencode(name) + b"\0" + one.digest())
    return total.hexdigest()
