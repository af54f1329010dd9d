"""Pipelines on this machine's disk, as the installed plugins see them; no daemon is asked."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.plugins.registry import PluginRegistry
from linkspan.sdk.diagnostics import did_you_mean
from linkspan.sdk.errors import InvalidArgument
from linkspan.workflows import sources
from linkspan.workflows.check import Checked, check
from linkspan.workflows.choosing import check_choices
from linkspan.workflows.files import DiskFiles
from linkspan.workflows.verbs import Verbs

_NO_CHOICE: Final[Mapping[str, str]] = MappingProxyType({})


def installed() -> Verbs:
    """What the installed plugins offer."""
    return Verbs(PluginRegistry().discover().manifests.values())


def find(name: str) -> Path:
    """The file of a pipeline, or a failure that says where they are looked for."""
    found = sources.find_file(name)
    if found is None:
        known = [path.stem for path in sources.all_files()]
        near = did_you_mean(name, known)
        there = f"{', '.join(known)}" if known else "nothing"
        helps = [f"did you mean '{near}'?"] if near else []
        helps.append(f"a file, or a name in {sources.FOLDER}/, which has {there}")
        raise Failure(f"there is no pipeline '{name}'", status=USAGE, helps=helps)
    return found


def find_all(names: tuple[str, ...]) -> list[Path]:
    """The files that were named; all of the folder's if none was."""
    paths = [find(name) for name in names] or sources.all_files()
    if not paths:
        raise Failure(
            "there is no pipeline to check",
            status=USAGE,
            helps=["linkspan workflow lint FILE", f"pipelines live in {sources.FOLDER}/*.yaml"],
        )
    return paths


def read(path: Path) -> bytes:
    """What a pipeline's file holds, or a failure."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure(f"'{path}' cannot be read: {error.strerror}", status=USAGE) from error


def checked(path: Path, data: bytes, verbs: Verbs, use: Mapping[str, str] = _NO_CHOICE) -> Checked:
    """Check a pipeline; files that it names are read from its workspace.

    Args:
        path: Its file.
        data: What that holds.
        verbs: What the installed plugins answer.
        use: Role → driver, as the command line says.
    """
    try:
        check_choices(use, verbs)
    except InvalidArgument as error:
        raise Failure(error.message, status=USAGE, helps=[error.help]) from error
    return check(data, str(path), verbs, fetch=DiskFiles(sources.workspace_of(path)), use=use)
