"""What a client tells about its sources: the pipeline file, the folder around it, and git's view."""

import hashlib
import os
import stat
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

FOLDER: Final = ".linkspan"
SUFFIXES: Final = (".yaml", ".yml")
_GIT_LIMIT_S: Final = 30.0
_READ_LIMIT_BYTES: Final = 64 << 20
"""Larger files are told apart by size and time alone."""


def find_file(name: str) -> Path | None:
    """The file of a pipeline: a path, or a name in ``.linkspan``; None if there is none."""
    path = Path(name)
    if path.is_file():
        return path
    if "/" not in name:
        for suffix in SUFFIXES:
            found = Path(FOLDER) / f"{name}{suffix}"
            if found.is_file():
                return found
    return None


def all_files() -> list[Path]:
    """Every pipeline in ``.linkspan``."""
    return files_of(Path())


def files_of(folder: Path) -> list[Path]:
    """Every pipeline of a folder's ``.linkspan``."""
    found = (folder / FOLDER).glob("*")
    return sorted(path for path in found if path.suffix in SUFFIXES and path.is_file())


def workspace_of(file: Path) -> Path:
    """The folder that holds a pipeline's sources: its own, or the one that holds ``.linkspan``."""
    folder = file.resolve().parent
    return folder.parent if folder.name == FOLDER else folder


def git_facts(folder: Path) -> dict[str, Any]:
    """Commit, branch and tag; empty outside of a repository, or without git."""
    status = _git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if status is None:
        return {}
    heads: dict[str, str] = {}
    dirty = False
    for line in status.splitlines():
        if line.startswith("# branch."):
            name, _, value = line.removeprefix("# branch.").partition(" ")
            heads[name] = value
        else:
            dirty = True
    sha = heads.get("oid", "")
    branch = heads.get("head", "")
    tag = _git(folder, "describe", "--tags", "--exact-match") or ""
    return {
        "sha": "" if sha.startswith("(") else sha,
        "short_sha": "" if sha.startswith("(") else sha[:7],
        "branch": "" if branch.startswith("(") else branch,
        "tag": tag.strip(),
        "dirty": dirty,
    }


def content_of(
    folder: Path, files: Sequence[str] | None, without: Collection[Path]
) -> dict[str, str]:
    """Path → what tells one content of a file from another: of all that a run would work with.

    Args:
        folder: Of the sources.
        files: Those that belong to a run, relative; None for all.
        without: Those that do not count: the plan itself, and the pipeline.
    """
    names = _all_below(folder) if files is None else files
    ours = {path.resolve() for path in without}
    found: dict[str, str] = {}
    for name in names:
        path = folder / name
        if path.resolve() not in ours and (mark := _mark(path)):
            found[name] = mark
    return found


def _all_below(folder: Path) -> list[str]:
    found = []
    for above, folders, names in os.walk(folder):
        if ".git" in folders:
            folders.remove(".git")
        found += [str(Path(above, name).relative_to(folder)) for name in names]
    return sorted(found)


def _mark(path: Path) -> str:
    """Empty for what is no file, or has gone."""
    try:
        if path.is_symlink():
            return f"-> {path.readlink()}"
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            return ""
        if facts.st_size > _READ_LIMIT_BYTES:
            return f"{facts.st_size} {facts.st_mtime_ns}"
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return ""


def git_files(folder: Path) -> list[str] | None:
    """All files but those in folders that git ignores, relative to the folder.

    Ignored folders hold caches and environments, which are large and of no use in a container. A single
    file that is ignored (a built binary, a local setting) is often what a run on this machine needs.

    None outside of a repository, and where git ignores the whole folder: then all files count.
    """
    known = _git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if not known:
        return None
    ignored = _git(
        folder, "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"
    )
    names = {*known.split("\0"), *(n for n in (ignored or "").split("\0") if n[-1:] != "/")}
    return sorted(filter(None, names)) or None


def _git(folder: Path, *args: str) -> str | None:
    # Optional locks off: looking at a repository must not write to it.
    environ = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    command: Sequence[str] = ("git", "-C", str(folder), *args)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environ,
            timeout=_GIT_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return os.fsdecode(done.stdout) if done.returncode == 0 else None
