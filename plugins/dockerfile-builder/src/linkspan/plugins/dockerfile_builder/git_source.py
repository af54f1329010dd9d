"""ADD of a git repository, and a repository as the build context: one commit is fetched, nothing of it is run."""

import base64
import contextlib
import os
import re
import shutil
import subprocess
import urllib.parse
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import attrs
import trio

from linkspan.plugins.dockerfile_builder.selection import TransferError
from linkspan.plugins.dockerfile_builder.tree import FolderTree
from linkspan.sdk.dockerignore import IgnorePatterns

AUTH_SECRET: Final = "GIT_AUTH_TOKEN"  # noqa: S105 - a secret's id, as BuildKit has it
_TIMEOUT_S: Final = 900
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SAFE_REF: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/@+-]*")
_QUERY: Final = (
    *("branch", "tag", "ref", "commit", "checksum", "subdir", "submodules", "keep-git-dir"),
)
_SUBMODULES: Final = ".gitmodules"


@attrs.frozen(kw_only=True)
class GitSource:
    """Which files of which repository.

    Attributes:
        ref: Branch, tag or commit; empty for the default branch.
        subdir: Below the repository's root; empty for all.
        commit: What the ref must lead to (a prefix will do); empty for anything.
    """

    url: str
    ref: str = ""
    subdir: str = ""
    commit: str = ""
    submodules: bool = True
    keep_git_dir: bool = False


def parse_git(text: str, *, keep_git_dir: bool = False, checksum: str = "") -> GitSource:
    """Read ``URL#ref:subdir``, or ``URL?ref=…&subdir=…``.

    Raises:
        TransferError: A part is unknown or unsafe.
    """
    rest, _, fragment = text.partition("#")
    ref, _, subdir = fragment.partition(":")
    commit, submodules = checksum, True
    rest, question, query = rest.partition("?")
    if question:
        given = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        unknown = sorted(set(given) - set(_QUERY))
        if unknown:
            raise TransferError(f"unexpected query {unknown[0]!r} in {text}")
        refs = [given[key] for key in ("ref", "branch", "tag") if given.get(key)]
        if len(refs) + bool(ref) > 1:
            raise TransferError(f"ref conflicts in {text}")
        ref = ref or (refs[0] if refs else "")
        subdir = subdir or given.get("subdir", "")
        commit = commit or given.get("commit", "") or given.get("checksum", "")
        submodules = given.get("submodules", "true").lower() not in ("false", "0")
        keep_git_dir |= given.get("keep-git-dir", "false").lower() in ("", "true", "1")
    if rest.startswith("github.com/"):
        rest = f"https://{rest}"
    if ref and not _SAFE_REF.fullmatch(ref):
        raise TransferError(f"invalid git ref {ref!r} in {text}")
    if commit and not re.fullmatch(r"[0-9a-f]{7,64}", commit):
        raise TransferError(f"invalid checksum {commit!r}: it must be a commit")
    if ".." in subdir.split("/"):
        raise TransferError(f"the folder {subdir!r} lies outside of the repository")
    return GitSource(
        url=rest,
        ref=ref or commit,
        subdir=subdir.strip("/"),
        commit=commit,
        submodules=submodules,
        keep_git_dir=keep_git_dir,
    )


@contextlib.asynccontextmanager
async def checkout(
    source: GitSource, folder: Path, *, token: bytes = b""
) -> AsyncIterator[tuple[FolderTree, str, Path]]:
    """The files as a tree, the commit, and where they lie; gone afterwards.

    Args:
        folder: Where the checkout is made meanwhile.
        token: For HTTP; it is in no command line and in no file.

    Raises:
        TransferError: The repository, ref or folder cannot be had, or the commit is another one.
    """
    place = folder / uuid.uuid4().hex
    try:
        await trio.to_thread.run_sync(lambda: place.mkdir(parents=True, mode=0o700))
        git = _Git(place, _environment(source.url, token))
        commit = await _fetch(git, source)
        tree, below = await trio.to_thread.run_sync(_open, place, source)
        try:
            yield tree, commit, below
        finally:
            tree.close()
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(lambda: shutil.rmtree(place, ignore_errors=True))


async def _fetch(git: "_Git", source: GitSource) -> str:
    await git.run("init", "-q")
    await git.run("remote", "add", "origin", source.url)
    if _COMMIT.fullmatch(source.ref):
        # Servers need not give a commit that no branch ends with: then all branches are asked for.
        if not await git.tried("fetch", "-q", "--depth", "1", "origin", source.ref):
            await git.run("fetch", "-q", "--tags", "origin")
        wanted = source.ref
    elif source.commit and source.ref == source.commit:
        await git.run("fetch", "-q", "--tags", "origin")
        wanted = source.ref
    else:
        await git.run("fetch", "-q", "--depth", "1", "origin", source.ref or "HEAD")
        wanted = "FETCH_HEAD"
    commit = (await git.run("rev-parse", "--verify", "-q", f"{wanted}^{{commit}}")).strip()
    if source.commit and not commit.startswith(source.commit):
        raise TransferError(f"expected checksum to match {source.commit}, got {commit}")
    await git.run("checkout", "-q", "--force", "--detach", commit)
    if source.submodules and (git.folder / _SUBMODULES).is_file():
        await git.run("submodule", "-q", "update", "--init", "--recursive", "--depth", "1")
    return commit


def _open(place: Path, source: GitSource) -> tuple[FolderTree, Path]:
    ignore = None if source.keep_git_dir else IgnorePatterns.parse("**/.git\n")
    root = FolderTree(place)
    try:
        node = root.lookup(source.subdir)
        if node is None or node.kind != "directory" or not isinstance(node.place, tuple):
            raise TransferError(f"the repository has no folder {source.subdir!r}")
        below = place.joinpath(*node.place)
    finally:
        root.close()
    if not source.keep_git_dir:
        shutil.rmtree(place / ".git", ignore_errors=True)
    return FolderTree(below, ignore), below


def _environment(url: str, token: bytes) -> dict[str, str]:
    """Nothing of the daemon's own configuration, and no way but the network's."""
    kept = ("PATH", *(name for name in os.environ if name.lower().endswith("_proxy")))
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "http:https:git:ssh",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
    }
    if token and url.startswith(("http://", "https://")):
        parts = urllib.parse.urlsplit(url)
        basic = base64.b64encode(b"x-access-token:" + token.strip()).decode()
        environment |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"http.{parts.scheme}://{parts.netloc}/.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {basic}",
        }
    return environment


@attrs.frozen
class _Git:
    """Runs git in one folder."""

    folder: Path
    environment: dict[str, str]

    async def run(self, *words: str) -> str:
        """Standard output.

        Raises:
            TransferError: git failed, or is not installed.
        """
        done = await self._done(words)
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            reason = said[-1] if said else f"status {done.returncode}"
            raise TransferError(f"git {words[0]} failed: {reason}")
        return str(done.stdout.decode(errors="replace"))

    async def tried(self, *words: str) -> bool:
        """Whether it went well."""
        return (await self._done(words)).returncode == 0

    async def _done(self, words: tuple[str, ...]) -> "subprocess.CompletedProcess[bytes]":
        command = ["git", "-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false"]
        try:
            with trio.fail_after(_TIMEOUT_S):
                return await trio.run_process(
                    [*command, *words],
                    cwd=self.folder,
                    env=self.environment,
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                    umask=0o022,
                )
        except FileNotFoundError as error:
            raise TransferError("git is not installed on the daemon's machine") from error
        except trio.TooSlowError as error:
            raise TransferError(f"git {words[0]} took longer than {_TIMEOUT_S} s") from error
