"""The flags of ``linkspan daemon run`` and ``start``, dockerd's where they mean the same.

Without click, which takes longer to import than a client's whole call: a plain ``run`` does not need it.
"""

from __future__ import annotations

import gc

from linkspan.core.cli.common import bad_value
from linkspan.core.cli.quick import Setting

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes longer than a short command may
    from typing import Any, Final

    from linkspan.core.cli.session import Session

SETTINGS: Final = (
    Setting(
        "hosts",
        ("-H", "--host"),
        "Listen at unix:///path, or at tcp://HOST:PORT with mutual TLS",
        "many",
        "URL",
    ),
    Setting("tlsverify", ("--tlsverify",), "Clients of TCP must show a certificate"),
    Setting("tlscacert", ("--tlscacert",), "Whose clients may", "text", "FILE"),
    Setting("tlscert", ("--tlscert",), "The daemon's certificate", "text", "FILE"),
    Setting("tlskey", ("--tlskey",), "Its key", "text", "FILE"),
    Setting("data_root", ("--data-root",), "What must survive a reboot", "text", "DIR"),
    Setting("exec_root", ("--exec-root",), "What a reboot may clear", "text", "DIR"),
    Setting("group", ("-G", "--group"), "Who may open the socket", "text", "NAME"),
    Setting("insecure", ("--insecure-registry",), "Plain HTTP is fine", "many", "HOST"),
    Setting("mirrors", ("--registry-mirror",), "Ask there before Docker Hub", "many", "URL"),
    Setting("labels", ("--label",), "A label of this daemon", "many", "KEY=VALUE"),
    Setting(
        "resources",
        ("--node-generic-resource",),
        "What tasks may reserve on this node",
        "many",
        "KIND=NAME",
    ),
    Setting("bip", ("--bip",), "The default bridge's own address", "text", "IP/BITS"),
    Setting(
        "log_level",
        ("-l", "--log-level"),
        "The least severe message that is logged",
        "text",
        choices=("debug", "info", "warning", "error"),
    ),
    Setting("uses", ("--use",), "Choose a driver", "many", "ROLE=DRIVER"),
)


def overrides(session: Session, options: dict[str, Any]) -> dict[str, Any]:
    """What the flags mean for the config, as ``load_config`` takes it.

    Raises:
        Failure: A ``--use`` that is none.
    """
    hosts = options["hosts"] or ((session.host,) if session.host else ())
    found: dict[str, Any] = {
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
        "daemon.labels": list(options["labels"]) or None,
        "daemon.node-generic-resources": list(options["resources"]) or None,
        "daemon.bip": options["bip"],
        "daemon.log-level": options["log_level"],
    }
    for use in options["uses"]:
        role, equals, driver = use.partition("=")
        if not equals or not driver:
            raise bad_value(f"'{use}' is not of the form ROLE=DRIVER", "--use")
        found[f"{role}.driver"] = driver
    return found


def show(session: Session, **options: Any) -> None:
    """Run the daemon in this process."""
    # What a start makes stays: looking through it for garbage takes a tenth of the time. On again when it listens.
    gc.disable()
    from linkspan.core.daemon.main import run_daemon

    run_daemon([session.config] if session.config else None, overrides(session, options))
