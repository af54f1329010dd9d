"""``linkspan daemon run|start|stop|status``, with dockerd's flags where they mean the same."""

import os
from typing import Any

from linkspan.core.cli import daemon_flags as flags
from linkspan.core.cli.command import command, settings
from linkspan.core.cli.failure import Failure
from linkspan.core.cli.session import Session
from linkspan.core.client.address import Address
from linkspan.core.client.resolve import (
    DEFAULT_HOST,
    nearest,
    of_environment,
    resolve_address,
)
from linkspan.core.client.short import Api


def _arguments(session: Session, options: dict[str, Any]) -> list[str]:
    """The same flags again, for the daemon's own command line."""
    hosts = options["hosts"] or ((session.host,) if session.host else ())
    many = (
        *(("--host", host) for host in hosts),
        *(("--insecure-registry", name) for name in options["insecure"]),
        *(("--registry-mirror", url) for url in options["mirrors"]),
        *(("--label", label) for label in options["labels"]),
        *(("--node-generic-resource", text) for text in options["resources"]),
        *(("--use", use) for use in options["uses"]),
    )
    single = (
        (f"--{name.replace('_', '-')}", options[name])
        for name in (
            *("data_root", "exec_root", "group", "bip", "log_level"),
            *("tlscacert", "tlscert", "tlskey"),
        )
    )
    verify = ["--tlsverify"] if options["tlsverify"] else []
    return verify + [
        word for flag, value in (*many, *single) if value for word in (flag, str(value))
    ]


@command(
    "run",
    "Run the daemon in the foreground; it logs JSON lines to stderr.",
    examples=[
        "linkspan daemon run",
        "linkspan daemon run --host unix:///tmp/b.sock --data-root /srv/b --exec-root /run/b "
        "--bip 172.31.0.1/16",
    ],
    more=["linkspan daemon start", "linkspan config default"],
)
@settings(flags.SETTINGS)
def run(session: Session, **options: Any) -> None:
    """Run the daemon in this process."""
    flags.show(session, **options)


@command(
    "start",
    "Start the daemon, and return when it answers.",
    examples=["linkspan daemon start", "linkspan --config ./linkspan.toml daemon start"],
    more=["linkspan daemon status", "linkspan daemon stop"],
)
@settings(flags.SETTINGS)
def start(session: Session, **options: Any) -> None:
    """Start a daemon of its own process."""
    from linkspan.core.daemon.start import ask, ensure_running

    overrides = flags.overrides(session, options)
    address = _address(session, overrides)
    already = ask(address.url)
    found = already or ensure_running(
        address.url,
        config=address.config or None,
        arguments=_arguments(session, options),
        overrides=overrides,
    )
    word = "runs already" if already else "started"
    session.terminal.print(f"daemon {word}: pid {found['pid']}, {address.url}")


@command(
    "stop",
    "Stop the daemon; containers go on.",
    examples=["linkspan daemon stop"],
    more=["linkspan daemon status"],
)
def stop(session: Session) -> None:
    """Stop the daemon."""
    from linkspan.core.daemon.start import stop_running

    url = _own_address(session).url
    pid = stop_running(url)
    if pid is None:
        session.terminal.note(f"no daemon runs at {url}")
    else:
        session.terminal.print(f"daemon stopped: pid {pid}")


@command(
    "status",
    "Say how the daemon is; exit status 69 if none answers.",
    examples=["linkspan daemon status", "linkspan daemon status --format '{{.pid}}'"],
)
def status(session: Session) -> None:
    """Say how the daemon is."""
    address = session.address.as_it_is()
    found = Api(address, silence_s=session.timeout_s or 5.0).get("/linkspan/v1/daemon")
    if session.document(found, default="table"):
        return
    drivers = ", ".join(f"{role}={name}" for role, name in found["drivers"].items())
    for name, text in (
        ("daemon", f"{found['version']}, pid {found['pid']}, {found['id']}"),
        ("address", ", ".join(found["hosts"])),
        ("data", found["data_root"]),
        ("run files", found["exec_root"]),
        ("drivers", drivers),
    ):
        session.terminal.print(f"{name:<10} {text}")
    for plugin, lines in found["info"].items():
        for name, text in lines.items():
            session.terminal.print(f"{plugin:<10} {name}: {text}")
    warned = session.terminal.painted_sign("warned")
    for what, why in (*found["unusable"].items(), *found["troubles"].items()):
        session.terminal.note(f"{warned} {what}: {why}")
    for text in found["repaired"]:
        session.terminal.note(f"  repaired at start: {text}")


def _address(session: Session, overrides: dict[str, Any]) -> Address:
    hosts = overrides["daemon.host"]
    if hosts:
        return Address(
            nearest(hosts), resolve_address(config=session.config, context="default").config
        )
    return _own_address(session)


def _own_address(session: Session) -> Address:
    """Of the daemon that is started and stopped here: one on this machine, and never Docker's."""
    address = resolve_address(session.host, session.config, context=session.context, own=True)
    named = session.host or session.context or any(of_environment(os.environ, docker=False))
    if not address.path and named:
        raise Failure(
            f"{address.url} is not on this machine; only a daemon here can be started and stopped",
            helps=["linkspan --context default daemon start"],
        )
    if not address.path:
        raise Failure(
            f"the config has no socket for the daemon, only {address.url}",
            helps=[f"add {DEFAULT_HOST} to [daemon] host, or: linkspan daemon run"],
        )
    return address
