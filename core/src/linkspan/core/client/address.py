"""Which daemon a command talks to."""

import os
from collections.abc import Mapping
from typing import NamedTuple

DEFAULT_HOST = "unix:///run/linkspan/linkspan.sock"
_DEFAULT_CONFIG = "/etc/linkspan.toml"
_DEFAULT_CONFIG_DIR = "/etc/linkspan.d"


class Address(NamedTuple):
    """A daemon's address and what is known about it.

    Attributes:
        url: ``unix:///absolute/path``.
        config: The config file that was named, for starting the daemon; empty for the usual ones.
        autostart: Whether the daemon may be started when none answers.
    """

    url: str
    config: str = ""
    autostart: bool = False

    @property
    def path(self) -> str:
        """The socket's path; empty if the address is of another kind."""
        return self.url.removeprefix("unix://") if self.url.startswith("unix:///") else ""


def resolve_address(
    host: str = "", config: str = "", environ: Mapping[str, str] = os.environ
) -> Address:
    """Choose the address: ``--host``, ``LINKSPAN_HOST``, the config's ``[daemon] host``, the default.

    A daemon that was named by address is not started: it may be anybody's. The config is only looked
    at for two keys; what is wrong with it, the daemon says.
    """
    named = host or environ.get("LINKSPAN_HOST", "")
    config = config or environ.get("LINKSPAN_CONFIG", "")
    if named:
        url = named if "://" in named else f"unix://{os.path.abspath(named)}"  # noqa: PTH100 - pathlib is slow to import
        return Address(url, config, False)
    table = read_table("daemon", config)
    hosts = table.get("host")
    url = hosts[0] if isinstance(hosts, list) and hosts else DEFAULT_HOST
    return Address(str(url), config, table.get("autostart") is not False)


def read_table(name: str, config: str = "") -> dict[str, object]:
    """One table of the config as it is written, later files over earlier ones; faults are ignored.

    Args:
        name: Of the table.
        config: The file instead of the usual ones.
    """
    # os.path, since pathlib takes longer to import than a short command may; most machines have no
    # config file at all, and need neither of the imports below.
    if not config and not (os.path.exists(_DEFAULT_CONFIG) or os.path.isdir(_DEFAULT_CONFIG_DIR)):  # noqa: PTH110, PTH112
        return {}
    import tomllib
    from pathlib import Path

    files = [Path(config or _DEFAULT_CONFIG)]
    if not config:
        files.extend(sorted(Path(_DEFAULT_CONFIG_DIR).glob("*.toml")))
    table: dict[str, object] = {}
    for file in files:
        try:
            document = tomllib.loads(file.read_bytes().decode("utf-8-sig"))
        except (OSError, ValueError):
            continue
        found = document.get(name)
        if isinstance(found, dict):
            table.update(found)
    return table
