"""Git's side of pushes: hooks that are installed, and what a push brought."""

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from linkspan.sdk.errors import Conflict, InvalidArgument, Unavailable
from linkspan.sdk.files import replace_file
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.sources import FOLDER

MARK: Final = "# Made by `linkspan workflow hook install`."
_LIMIT_S: Final = 300.0
_ZERO: Final = frozenset("0")


@attrs.frozen(kw_only=True)
class Pushed:
    """A ref that was pushed.

    Attributes:
        old, new: Commits; ``old`` is empty for a new ref.
        branch, tag: One of them is empty.
    """

    old: str
    new: str
    branch: str = ""
    tag: str = ""

    @property
    def git(self) -> dict[str, Json]:
        """As expressions read it."""
        return {
            "sha": self.new,
            "short_sha": self.new[:7],
            "branch": self.branch,
            "tag": self.tag,
            "dirty": False,
        }

    @property
    def name(self) -> str:
        """For people."""
        return f"tag {self.tag}" if self.tag else self.branch


def install(folder: Path, command: Sequence[str]) -> Path:
    """Install the hook of a repository: ``post-receive`` in a bare one, else ``pre-push``.

    Args:
        folder: In the repository.
        command: The command line that the hook calls; its name is appended.

    Raises:
        InvalidArgument: There is no repository.
        Conflict: There is a hook of another's making; code ``hook_exists``.
    """
    bare = _git(folder, "rev-parse", "--is-bare-repository").strip() == "true"
    kind = "post-receive" if bare else "pre-push"
    hooks = Path(_git(folder, "rev-parse", "--git-path", "hooks").strip())
    path = (folder / hooks / kind).absolute()
    call = shlex.join([*command, kind])
    if path.exists() and MARK not in path.read_text("utf-8", "replace"):
        raise Conflict(
            f"there is a hook already: {path}",
            code="hook_exists",
            help=f"add this line to it: {call}",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, f"#!/bin/sh\n{MARK}\nexec {call}\n".encode(), 0o755)
    return path


def read_pushes(kind: str, lines: str) -> list[Pushed]:
    """What git tells a hook on its standard input; refs that were removed are left out.

    ``post-receive`` gets ``OLD NEW REF`` a line, ``pre-push`` gets ``LOCAL_REF LOCAL REMOTE_REF REMOTE``.
    """
    found = []
    for line in lines.splitlines():
        words = line.split()
        if kind == "pre-push" and len(words) == 4:
            ref, new, old = words[2], words[1], words[3]
        elif kind == "post-receive" and len(words) == 3:
            old, new, ref = words
        else:
            raise InvalidArgument(f"git tells {kind} something else than expected: {line[:200]!r}")
        if set(new) <= _ZERO:
            continue
        found.append(
            Pushed(
                old="" if set(old) <= _ZERO else old,
                new=new,
                branch=ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else "",
                tag=ref.removeprefix("refs/tags/") if ref.startswith("refs/tags/") else "",
            )
        )
    return [pushed for pushed in found if pushed.branch or pushed.tag]


def has_pipelines(folder: Path, commit: str) -> bool:
    """Whether a commit has the folder that pipelines live in."""
    return bool(_git(folder, "ls-tree", "--name-only", commit, FOLDER).strip())


def changed_paths(folder: Path, pushed: Pushed) -> frozenset[str] | None:
    """What a push has changed; None if the old commit is none, or not here any more."""
    if not pushed.old:
        return None
    try:
        names = _git(folder, "diff", "--name-only", "-z", pushed.old, pushed.new)
    except InvalidArgument:
        return None
    return frozenset(filter(None, names.split("\0")))


def export(folder: Path, commit: str, target: Path) -> None:
    """Write the files of a commit into an empty folder."""
    archive = target.with_name(target.name + ".tar")
    try:
        _run(folder, "archive", "--format=tar", "-o", str(archive), commit)
        unpack = ["tar", "-x", "-f", str(archive), "-C", str(target)]
        subprocess.run(unpack, check=True, capture_output=True, timeout=_LIMIT_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"cannot unpack commit {commit[:12]}: {error}") from error
    finally:
        archive.unlink(missing_ok=True)


def _git(folder: Path, *words: str) -> str:
    return os.fsdecode(_run(folder, *words))


def _run(folder: Path, *words: str) -> bytes:
    environ: Mapping[str, str] = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *words],  # noqa: S607
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environ,
            timeout=_LIMIT_S,
            check=False,
        )
    except OSError as error:
        raise Unavailable(f"git cannot be run: {error.strerror}", help="install git") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"git {words[0]} took longer than {_LIMIT_S:g}s") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise InvalidArgument(said[0] if said else f"git {words[0]} failed")
    return done.stdout
