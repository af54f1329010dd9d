"""Which daemon a command talks to."""

from __future__ import annotations

import os

from linkspan.core.client.address import DEFAULT_CONTEXT, Address, Tls

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing it takes longer than a short command may
    from collections.abc import Mapping

DEFAULT_HOST = "unix:///run/linkspan/linkspan.sock"
DEFAULT_EXEC_ROOT = "/run/linkspan"
_DEFAULT_CONFIG = "/etc/linkspan.toml"
_DEFAULT_CONFIG_DIR = "/etc/linkspan.d"


def resolve_address(
    host: str = "",
    config: str = "",
    environ: Mapping[str, str] = os.environ,
    context: str = "",
    *,
    own: bool = False,
) -> Address:
    """Choose the address.

    The first that is given: ``--host``, ``--context``, ``LINKSPAN_HOST``, ``LINKSPAN_CONTEXT``; unless a
    config file is named, ``DOCKER_HOST``, ``DOCKER_CONTEXT`` and the context of ``linkspan context use``;
    the config's ``[daemon] host``; the default. A daemon that was named by address is not started: it may
    be anybody's. The config is only looked at for two keys; what is wrong with it, the daemon says.

    Args:
        host: ``--host``.
        config: ``--config``.
        environ: The environment.
        context: ``--context``.
        own: Only a daemon of ours will do: what is meant for Docker, and the context in use, do not count.

    Raises:
        LinkspanError: A context is named that does not exist.
    """
    config = config or environ.get("LINKSPAN_CONFIG", "")
    if not host and not context:
        host, context = of_environment(environ, docker=not config and not own)
    if not host and not context and not config and not own:
        context = current_context(environ)
    if context and context != DEFAULT_CONTEXT and not host:
        from linkspan.core.client.contexts import address_of

        return address_of(context, environ)
    if host:
        return Address(_as_url(host), config, False, tls_of(environ))
    table = read_table("daemon", config)
    hosts = table.get("host")
    url = (
        nearest([str(url) for url in hosts]) if isinstance(hosts, list) and hosts else DEFAULT_HOST
    )
    return Address(url, config, table.get("autostart") is not False)


def nearest(urls: list[str]) -> str:
    """Of all addresses of a daemon on this machine, the one to talk to it: its first socket, if it has any."""
    return next((url for url in urls if url.startswith("unix://")), urls[0])


def of_environment(environ: Mapping[str, str], *, docker: bool = True) -> tuple[str, str]:
    """The address, or else the context, that the environment names; ours before Docker's."""
    for name in ("LINKSPAN", "DOCKER") if docker else ("LINKSPAN",):
        host, context = environ.get(f"{name}_HOST", ""), environ.get(f"{name}_CONTEXT", "")
        if host or context:
            return host, "" if host else context
    return "", ""


def _as_url(host: str) -> str:
    if "://" in host:
        return host
    return f"unix://{os.path.abspath(host)}"  # noqa: PTH100 - pathlib is slow to import


def tls_of(environ: Mapping[str, str], options: Mapping[str, str] | None = None) -> Tls | None:
    """What ``DOCKER_TLS_VERIFY``, ``DOCKER_TLS`` and ``DOCKER_CERT_PATH`` say; None for no TLS.

    Args:
        environ: The environment.
        options: ``tls`` and ``verify`` if they are on, and the files ``ca``, ``cert`` and ``key``.
    """
    options = options or {}
    verify = bool(environ.get("DOCKER_TLS_VERIFY") or options.get("verify"))
    if not verify and not environ.get("DOCKER_TLS") and not options:
        return None
    folder = environ.get("DOCKER_CERT_PATH") or environ.get("DOCKER_CONFIG") or "~/.docker"
    base = os.path.expanduser(folder)  # noqa: PTH111 - pathlib is slow to import
    files = [os.path.join(base, f"{name}.pem") for name in ("ca", "cert", "key")]  # noqa: PTH118
    ca, cert, key = (file if os.path.exists(file) else "" for file in files)  # noqa: PTH110
    return Tls(options.get("ca", ca), options.get("cert", cert), options.get("key", key), verify)


def docker_config(environ: Mapping[str, str]) -> str:
    """``config.json`` of the docker CLI; ``DOCKER_CONFIG`` names its folder."""
    folder = environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")  # noqa: PTH111
    return os.path.join(folder, "config.json")  # noqa: PTH118


def current_file(environ: Mapping[str, str]) -> str:
    """Where ``linkspan context use`` keeps the name."""
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/root"), ".config")  # noqa: PTH118
    return os.path.join(base, "linkspan", "context")  # noqa: PTH118


def current_context(environ: Mapping[str, str]) -> str:
    """The context of ``linkspan context use``; empty for none."""
    try:
        with open(current_file(environ), encoding="utf-8") as stream:  # noqa: PTH123
            return stream.read(256).strip()
    except (OSError, UnicodeDecodeError):
        return ""


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
