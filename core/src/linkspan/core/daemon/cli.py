"""``linkspan daemon run|start|stop|status``, with dockerd's flags where they mean the same."""

import gc
from collections.abc import Callable
from typing import Any

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.failure import Failure
from linkspan.core.cli.session import Session
from linkspan.core.client.address import Address
from linkspan.core.client.resolve import resolve_address
from linkspan.core.client.short import Api

_FLAGS = (
    click.option(
        "-H",
        "--host",
        "hosts",
        multiple=True,
        metavar="URL",
        help="Listen at unix:///path, or at tcp://HOST:PORT with mutual TLS",
    ),
    click.option("--tlsverify", is_flag=True, help="Clients of TCP must show a certificate"),
    click.option("--tlscacert", metavar="FILE", help="Whose clients may"),
    click.option("--tlscert", metavar="FILE", help="The daemon's certificate"),
    click.option("--tlskey", metavar="FILE", help="Its key"),
    click.option("--data-root", metavar="DIR", help="What must survive a reboot"),
    click.option("--exec-root", metavar="DIR", help="What a reboot may clear"),
    click.option("-G", "--group", metavar="NAME", help="Who may open the socket"),
    click.option(
        "--insecure-registry", "insecure", multiple=True, metavar="HOST", help="Plain HTTP is fine"
    ),
    click.option(
        "--registry-mirror",
        "mirrors",
        multiple=True,
        metavar="URL",
        help="Ask there before Docker Hub",
    ),
    click.option("--bip", metavar="IP/BITS", help="The default bridge's own address"),
    click.option(
        "-l",
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="The least severe message that is logged",
    ),
    click.option("--use", "uses", multiple=True, metavar="ROLE=DRIVER", help="Choose a driver"),
)


def _flags(function: Callable[..., Any]) -> Callable[..., Any]:
    for flag in reversed(_FLAGS):
        function = flag(function)
    return function


def _overrides(session: Session, options: dict[str, Any]) -> dict[str, Any]:
    hosts = options["hosts"] or ((session.host,) if session.host else ())
    overrides: dict[str, Any] = {
        "daemon.host": list(hosts) or None,
        "daemon.tls-verify": options["tlsverify"] or None,
        "daemon.tls-ca-cert": options["tlscacert"],
        "daemon.tls-cert": options["tlscert"],
        "daemon.tls-key": options["tlskey"],
        "daemon.data-root": options["data_root"],
        "daemon.exec-root": options["exec_root"],
        "daemon.group": options["group"],
        "daemon.insecure-registries": list(options["insecure"]) or None,
        "daemon.registry-mirrors": list(options["mirrors"]) or None,
        "daemon.bip": options["bip"],
        "daemon.log-level": options["log_level"],
    }
    for use in options["uses"]:
        role, equals, driver = use.partition("=")
        if not equals or not driver:
            raise click.BadParameter(f"'{use}' is not of the form ROLE=DRIVER", param_hint="--use")
        overrides[f"{role}.driver"] = driver
    return overrides


def _arguments(session: Session, options: dict[str, Any]) -> list[str]:
    """The same flags again, for the daemon's own command line."""
    hosts = options["hosts"] or ((session.host,) if session.host else ())
    many = (
        *(("--host", host) for host in hosts),
        *(("--insecure-registry", name) for name in options["insecure"]),
        *(("--registry-mirror", url) for url in options["mirrors"]),
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
@_flags
def run(session: Session, **options: Any) -> None:
    """Run the daemon in this process."""
    # What a start makes stays: looking through it for garbage takes a tenth of the time. On again when it listens.
    gc.disable()
    from linkspan.core.daemon.main import run_daemon

    run_daemon([session.config] if session.config else None, _overrides(session, options))


@command(
    "start",
    "Start the daemon, and return when it answers.",
    examples=["linkspan daemon start", "linkspan --config ./linkspan.toml daemon start"],
    more=["linkspan daemon status", "linkspan daemon stop"],
)
@_flags
def start(session: Session, **options: Any) -> None:
    """Start a daemon of its own process."""
    from linkspan.core.daemon.start import ask, ensure_running

    overrides = _overrides(session, options)
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
        return Address(hosts[0], resolve_address(config=session.config, context="default").config)
    return _own_address(session)


def _own_address(session: Session) -> Address:
    """Of the daemon that is started and stopped here: one on this machine, and never Docker's."""
    address = resolve_address(session.host, session.config, context=session.context, own=True)
    if not address.path:
        raise Failure(
            f"{address.url} is not on this machine; only a daemon here can be started and stopped",
            helps=["linkspan --context default daemon start"],
        )
    return address
