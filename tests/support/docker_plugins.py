"""Plugins of docker's command, which no package of Debian 12 brings."""

import os
import shutil
from pathlib import Path
from typing import Final

import pytest

_FOLDERS: Final = (
    "~/.docker/cli-plugins",
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)


def lend_plugins(config: Path, *names: str) -> None:
    """Give a folder of configuration these plugins (``buildx``); skips the test if one is not installed.

    ``LINKSPAN_TEST_BUILDX`` names the program of ``buildx`` if it lies elsewhere, and so on.
    """
    folder = config / "cli-plugins"
    folder.mkdir(parents=True)
    for name in names:
        elsewhere = os.environ.get(f"LINKSPAN_TEST_{name.upper()}") or "/none"
        usual = [Path(place).expanduser() / f"docker-{name}" for place in _FOLDERS]
        program = next((p for p in (Path(elsewhere), *usual) if p.exists()), None)
        if program is None:
            pytest.skip(f"docker's plugin {name} is not installed")
        shutil.copy(program, folder / f"docker-{name}")
