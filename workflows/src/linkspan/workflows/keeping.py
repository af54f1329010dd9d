"""Files that outlive a job: caches, artifacts, and what unchanged steps have made. Everything blocks.

An entry appears whole or not at all, and does not change afterwards: whoever comes second with the same key
leaves what is there.
"""

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.workflows.archive import folder_name
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.fileglobs import matching
from linkspan.workflows.workspace import copy_tree, remove_tree

KEPT_ENTRIES: Final = 200
"""Entries of a store; those not used for the longest time go."""


class KeyedStore:
    """Folders by key, for all runs: caches, and what steps have made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode()).hexdigest()

    def has(self, key: str) -> bool:
        """Whether there is an entry."""
        return self._path(key).is_dir()

    def meta(self, key: str) -> Mapping[str, Json]:
        """What was kept beside an entry's files; empty if it is not there."""
        try:
            found = json.loads((self._path(key) / "meta.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) and found.get("key") == key else {}

    def find(self, key: str, beginnings: Iterable[str]) -> str:
        """The key of an entry: this one, or else the newest whose key begins so; empty if none does."""
        if self.has(key):
            return key
        for beginning in beginnings:
            found = [each for each in self._keys() if each[1].startswith(beginning)]
            if found:
                return max(found)[1]
        return ""

    def _keys(self) -> list[tuple[float, str]]:
        if not self._folder.is_dir():
            return []
        found: list[tuple[float, str]] = []
        for entry in self._folder.iterdir():
            with contextlib.suppress(OSError, ValueError, KeyError):
                key = json.loads((entry / "meta.json").read_text("utf-8"))["key"]
                found.append((entry.stat().st_mtime, str(key)))
        return found

    def restore(self, key: str, target: Path) -> None:
        """Copy an entry's files over those in a folder."""
        path = self._path(key)
        os.utime(path)
        _copy_over(path / "files", target)

    def save(
        self,
        key: str,
        source: Path,
        files: Iterable[str] | None = None,
        meta: Mapping[str, Json] | None = None,
    ) -> bool:
        """Keep files under a key; False if there is an entry already."""
        path = self._path(key)
        if path.is_dir():
            return False
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f".{path.name}.{secrets.token_hex(4)}"
        try:
            partial.mkdir()
            copy_tree(source, partial / "files", files)
            (partial / "meta.json").write_text(json.dumps({**(meta or {}), "key": key}), "utf-8")
            try:
                partial.rename(path)
            except OSError:
                # Another job was faster; what it has kept is as good.
                return False
        finally:
            remove_tree(partial)
        self._trim()
        return True

    def _trim(self) -> None:
        entries = [path for path in self._folder.iterdir() if not path.name.startswith(".")]
        entries.sort(key=lambda path: path.stat().st_mtime)
        for path in entries[: max(0, len(entries) - KEPT_ENTRIES)]:
            remove_tree(path)


class Artifacts:
    """What the jobs of a run have kept, by job and name; cells with one name do not meet."""

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder / "artifacts"

    def _path(self, job: str, name: str) -> Path:
        return self._folder / folder_name(job) / name

    def keep(self, job: str, name: str, workspace: Path, globs: Iterable[str]) -> int:
        """Keep the files that match; how many that are. What an earlier attempt has kept goes."""
        files = matching(workspace, globs)
        path = self._path(job, name)
        remove_tree(path)
        if files:
            path.parent.mkdir(parents=True, exist_ok=True)
            copy_tree(workspace, path, files)
        return len(files)

    def take_over(self, other: "Artifacts", job: str) -> None:
        """Have what a job of another run has kept, if anything."""
        source = other._folder / folder_name(job)
        if source.is_dir():
            copy_tree(source, self._folder / folder_name(job))

    def load(self, jobs: Mapping[str, str], name: str, workspace: Path, folder: str) -> None:
        """Put an artifact into a workspace.

        Args:
            jobs: Id → key of the cell, of the units that may have it. If several have, the files of each go
                into a folder of their own, named by the key.
            name: The artifact's.
            workspace: Gets the files.
            folder: Where in it.

        Raises:
            NotFound: None of them has it; code ``artifact_not_found``.
            InvalidArgument: The folder leads out of the workspace.
        """
        target = (workspace / folder).resolve()
        if not target.is_relative_to(workspace.resolve()):
            raise InvalidArgument(f"'{folder}' leads out of the workspace", code="workspace_path")
        found = {job: cell for job, cell in jobs.items() if self._path(job, name).is_dir()}
        if not found:
            raise NotFound(
                f"no job that is needed has kept an artifact '{name}'", code="artifact_not_found"
            )
        for job, cell in found.items():
            place = target / cell if len(found) > 1 else target
            _copy_over(self._path(job, name), place)


def _copy_over(source: Path, target: Path) -> None:
    """Copy a tree into a folder that may have files already; those of the same name are replaced."""
    target.mkdir(parents=True, exist_ok=True)
    staged = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    try:
        copy_tree(source, staged)
        _merge(staged, target)
    finally:
        remove_tree(staged)


def _merge(source: Path, target: Path) -> None:
    for entry in source.iterdir():
        goal = target / entry.name
        if entry.is_dir() and not entry.is_symlink() and goal.is_dir() and not goal.is_symlink():
            _merge(entry, goal)
            continue
        if goal.is_dir() and not goal.is_symlink():
            remove_tree(goal)
        entry.replace(goal)
