"""What a shell may propose as values, besides the names of single kinds of objects (``common``)."""

import os
from collections.abc import Callable, Iterable
from typing import Final

import click
from click.shell_completion import CompletionItem

from linkspan.core.cli.common import asked, container_names

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def choices(*values: str) -> Complete:
    """One of these."""

    def finish(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return finish


def _names(ctx: click.Context, path: str, key: str = "Name") -> list[str]:
    answer = asked(ctx, path) or ()
    records = answer.get("Volumes") or () if isinstance(answer, dict) else answer
    found = []
    for record in records:
        spec = record.get("Spec") or {}
        hostname = (record.get("Description") or {}).get("Hostname", "")
        found.append(str(record.get(key) or spec.get("Name") or hostname))
    return [name for name in found if name]


def _containers(ctx: click.Context, path: str = "/containers/json?all=1") -> list[str]:
    return [name for record in asked(ctx, path) or () for name in container_names(record)]


def _images(ctx: click.Context) -> list[str]:
    return [tag for record in asked(ctx, "/images/json") or () for tag in record["RepoTags"] or ()]


_KINDS: Final[dict[str, Callable[[click.Context], Iterable[str]]]] = {
    "container": _containers,
    "image": _images,
    "volume": lambda ctx: _names(ctx, "/volumes"),
    "network": lambda ctx: _names(ctx, "/networks"),
    "service": lambda ctx: _names(ctx, "/services"),
    "node": lambda ctx: _names(ctx, "/nodes"),
    "secret": lambda ctx: _names(ctx, "/secrets"),
    "config": lambda ctx: _names(ctx, "/configs"),
}


def objects(*kinds: str) -> Complete:
    """The name of an object of one of these kinds; with ``--type``, of that one."""

    def finish(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        named = ctx.params.get("kind")
        wanted = [named] if named in _KINDS else kinds or tuple(_KINDS)
        found = [name for kind in wanted for name in _KINDS[kind](ctx)]
        return [name for name in dict.fromkeys(found) if name.startswith(incomplete)]

    return finish


def of_container(*modes: str) -> Complete:
    """One of these, or ``container:NAME``."""

    def finish(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        if not incomplete.startswith("container:"):
            return choices(*modes, "container:")(ctx, _param, incomplete)
        found = (f"container:{name}" for name in _containers(ctx, "/containers/json"))
        return [name for name in found if name.startswith(incomplete)]

    return finish


def network(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """A network for a container, or another container's."""
    if incomplete.startswith("container:"):
        return of_container()(ctx, _param, incomplete)
    return objects("network")(ctx, _param, incomplete)


def mounted(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[str] | list[CompletionItem]:
    """``NAME:`` of a volume, or a folder of this machine."""
    if incomplete[:1] in ("/", ".", "~"):
        return folders(ctx, param, incomplete)
    return [f"{n}:" for n in _names(ctx, "/volumes") if n.startswith(incomplete)]


def variable(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """A variable of our environment."""
    return [name for name in sorted(os.environ) if name.startswith(incomplete)]


def signal_name(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """A signal, with or without ``SIG``."""
    import signal

    names = sorted({s.name for s in signal.Signals})
    if not incomplete.upper().startswith("S"):
        names = [name.removeprefix("SIG") for name in names]
    return [name for name in names if name.startswith(incomplete.upper())]


def files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A file; the shell knows them best."""
    return [CompletionItem(incomplete, type="file")]


def folders(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A folder; the shell knows them best."""
    return [CompletionItem(incomplete, type="dir")]


def copied(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[str] | list[CompletionItem]:
    """``CONTAINER:`` or a file of this machine."""
    names = [f"{name}:" for name in _containers(ctx) if name.startswith(incomplete)]
    return names if names and incomplete else files(ctx, param, incomplete)


def context(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """A context."""
    from linkspan.core.client import contexts

    names = ("default", *(found.name for found in contexts.read_all()))
    return [name for name in names if name.startswith(incomplete)]


restart_policy: Final = choices("no", "always", "on-failure", "on-failure:", "unless-stopped")
platform: Final = choices(
    *("linux/amd64", "linux/arm64", "linux/arm/v7", "linux/arm/v6", "linux/386"),
    *("linux/ppc64le", "linux/riscv64", "linux/s390x"),
)
_CAPABILITIES: Final = """
    ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE
    DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE
    MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID
    SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO
    SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM
"""
capability: Final = choices(*_CAPABILITIES.split())
_FILTERS: Final = {
    "container": "ancestor before exited expose health id is-task label name network publish since "
    "status volume",
    "image": "before dangling label reference since until",
    "network": "dangling driver id label name scope type",
    "volume": "dangling driver label name",
    "event": "config container daemon event image label network node plugin scope secret service "
    "type volume",
    "service": "id label mode name",
    "node": "id label membership name node.label role",
    "task": "desired-state id label name node service",
    "secret": "id label name",
    "config": "id label name",
    "search": "is-automated is-official stars",
}
_VALUES: Final = {
    "status": "created restarting running removing paused exited dead",
    "health": "starting healthy unhealthy none",
    "dangling": "true false",
    "is-task": "true false",
    "is-automated": "true false",
    "is-official": "true false",
    "type": "builder config container daemon image network node plugin secret service volume",
    "scope": "local swarm",
    "role": "manager worker",
    "membership": "accepted pending",
    "desired-state": "running shutdown accepted",
    "mode": "replicated global",
}


def filter_of(kind: str) -> Complete:
    """``KEY=`` of a filter of this list, then its value where there are few."""

    def finish(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        key, equals, value = incomplete.partition("=")
        if not equals:
            return [f"{k}=" for k in _FILTERS[kind].split() if k.startswith(key)]
        named = {"volume": "volume", "network": "network", "ancestor": "image", "node": "node"}
        if key in named:
            return [f"{key}={name}" for name in objects(named[key])(ctx, _param, value)]
        if key == "type" and kind == "network":
            return [f"type={v}" for v in ("custom", "builtin") if v.startswith(value)]
        return [f"{key}={v}" for v in _VALUES.get(key, "").split() if v.startswith(value)]

    return finish
