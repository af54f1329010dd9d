"""Finds the programs behind the driver: an OCI runtime and conmon."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from linkspan.sdk.errors import NotUsable
from linkspan.sdk.values import frozen

SEARCH_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@frozen(kw_only=True)
class Program:
    """A program on this machine; ``version`` is what it says of itself, without its name."""

    path: str
    name: str
    version: str


def find_runtime(setting: str) -> str:
    """Path of the OCI runtime.

    Raises:
        NotUsable: There is none.
    """
    if setting != "auto":
        return _existing(setting, "runtime")
    for name in ("crun", "runc"):
        found = shutil.which(name, path=_search_path())
        if found:
            return found
    raise NotUsable(
        "neither crun nor runc is installed",
        code="runtime_missing",
        help="apt-get install crun conmon",
    )


def find_conmon(setting: str) -> str:
    """Path of conmon.

    Raises:
        NotUsable: There is none.
    """
    if setting != "auto":
        return _existing(setting, "conmon")
    for candidate in (shutil.which("conmon", path=_search_path()), "/usr/libexec/podman/conmon"):
        if candidate and Path(candidate).exists():
            return candidate
    raise NotUsable("conmon is not installed", code="conmon_missing", help="apt-get install conmon")


def find_init(setting: str) -> str | None:
    """Path of an init for ``--init``; None if there is none."""
    if setting != "auto":
        return setting if Path(setting).exists() else None
    # The static ones first: an image need not have the libraries of another.
    for name in ("tini-static", "catatonit", "docker-init", "tini"):
        found = shutil.which(name, path=_search_path() + ":/usr/libexec/podman")
        if found:
            return found
    return None


def describe(path: str, root: Path) -> Program:
    """Ask a runtime for its version (a few milliseconds).

    Args:
        path: The runtime's program.
        root: Its ``--root``: newer versions of crun make that folder even for this question, by default
            one in ``/run``.

    Raises:
        NotUsable: It cannot be run.
    """
    try:
        answer = subprocess.run(
            [path, "--root", str(root), "--version"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError) as exc:
        raise NotUsable(f"{path} --version fails: {exc}", code="runtime_broken") from exc
    first = answer.partition("\n")[0]
    match = re.search(r"([a-z]+) version ([^\s,]+)", first)
    name = match[1] if match else Path(path).name
    return Program(path=path, name=name, version=match[2] if match else first.strip())


def _existing(setting: str, key: str) -> str:
    found = shutil.which(setting, path=_search_path())
    if found is None:
        raise NotUsable(
            f"{key} = '{setting}': no such program",
            code=f"{key}_missing",
            details={"path": setting},
        )
    return found


def _search_path() -> str:
    return f"{os.environ.get('PATH', '')}:{SEARCH_PATH}"
