"""``linkspan doctor``: looks at this machine and says what is missing and how to get it."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from linkspan.core.cli.command import command
from linkspan.core.cli.failure import FAILED
from linkspan.core.cli.session import Session
from linkspan.core.client.errors import Unreachable
from linkspan.core.client.short import Api
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.units import counted, format_size

_MIN_KERNEL: Final = (5, 10)
_LOW_DISK_BYTES: Final = 1 << 30
_CONMON_PLACES: Final = ("/usr/libexec/podman/conmon", "/usr/lib/podman/conmon")

Level = Literal["ok", "warning", "fault"]


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        area: ``host``, ``tools``, ``daemon``, ``plugins``, ``disk``.
        level: How bad it is.
        text: What was found.
        cure: What to type; empty if nothing is to be done.
    """

    area: str
    level: Level
    text: str
    cure: str = ""


@command(
    "doctor",
    "Check this machine and the daemon, and say what to install. Exit status 1 if something is missing.",
    examples=["linkspan doctor", "linkspan doctor --format json"],
)
def doctor(session: Session) -> int:
    """Check this machine."""
    findings = [*_host(), *_tools(), *_daemon(session), *_plugins(session), *_disk(session)]
    faults = sum(f.level == "fault" for f in findings)
    warnings = sum(f.level == "warning" for f in findings)
    if not session.document([f._asdict() for f in findings], default="table"):
        terminal = session.terminal
        signs = {"ok": "done", "warning": "warned", "fault": "failed"}
        area = ""
        for finding in findings:
            label = "" if finding.area == area else finding.area
            area = finding.area
            sign = terminal.painted_sign(signs[finding.level], on_err=False)
            cure = f"      {finding.cure}" if finding.cure else ""
            terminal.print(f"{label:<8} {sign} {finding.text}{cure}")
        ok = len(findings) - faults - warnings
        terminal.print(f"{ok} ok, {counted(warnings, 'warning')}, {counted(faults, 'fault')}")
    return FAILED if faults else 0


def _host() -> Iterator[Finding]:
    release = platform.release()
    version = tuple(int(p) for p in release.split("-")[0].split(".")[:2] if p.isdigit())
    wanted = ".".join(map(str, _MIN_KERNEL))
    if version >= _MIN_KERNEL:
        yield Finding("host", "ok", f"Linux {release}")
    else:
        yield Finding("host", "fault", f"Linux {release}, {wanted} is needed", "upgrade the kernel")
    text = platform.python_version()
    yield Finding("host", "ok", f"Python {text} in {sys.prefix}")
    if os.geteuid() == 0:
        yield Finding("host", "ok", "root")
    else:
        yield Finding("host", "fault", "not root: the daemon needs it", "sudo linkspan doctor")
    yield _file_system("overlay", "overlayfs", "modprobe overlay")
    yield _cgroups()
    yield from _namespaces()
    yield _forwarding()


def _file_system(name: str, title: str, cure: str) -> Finding:
    known = Path("/proc/filesystems").read_text().split()
    if name in known:
        return Finding("host", "ok", title)
    modules = Path(f"/lib/modules/{platform.release()}")
    if any(modules.glob(f"kernel/fs/*/{name}.ko*")):
        return Finding("host", "warning", f"{title} is a module that is not loaded", cure)
    return Finding("host", "fault", f"{title}: this kernel does not have it", cure)


def _cgroups() -> Finding:
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        controllers = (root / "cgroup.controllers").read_text().split()
        missing = [c for c in ("cpu", "memory", "pids") if c not in controllers]
        if missing:
            text = f"cgroup v2 without {', '.join(missing)}: such limits will be refused"
            return Finding("host", "warning", text)
        return Finding("host", "ok", "cgroup v2")
    present = [c for c in ("cpu", "memory", "pids", "freezer") if _cgroup_v1(root, c)]
    if not present:
        cure = "mount -t cgroup2 none /sys/fs/cgroup"
        return Finding("host", "fault", "no cgroup controllers are mounted", cure)
    missing = [c for c in ("cpu", "memory", "pids", "freezer") if c not in present]
    hybrid = ", hybrid" if (root / "unified").is_dir() else ""
    if missing:
        text = f"cgroup v1{hybrid} without {', '.join(missing)}: such limits will be refused"
        return Finding("host", "warning", text)
    return Finding("host", "ok", f"cgroup v1{hybrid}")


def _cgroup_v1(root: Path, controller: str) -> bool:
    return any(controller in folder.name.split(",") for folder in root.iterdir())


def _namespaces() -> Iterator[Finding]:
    wanted = ("mnt", "pid", "net", "ipc", "uts")
    missing = [name for name in wanted if not Path(f"/proc/self/ns/{name}").exists()]
    if missing:
        text = f"namespaces: {', '.join(missing)} missing"
        yield Finding("host", "fault", text, "use a kernel with namespaces")
    else:
        yield Finding("host", "ok", "namespaces")
    if Path("/proc/sys/kernel/seccomp/actions_avail").exists():
        yield Finding("host", "ok", "seccomp")
    else:
        yield Finding("host", "warning", "seccomp is missing: containers run without a filter")


def _forwarding() -> Finding:
    try:
        on = Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
    except OSError:
        return Finding("host", "fault", "IPv4 is off", "use a kernel with IPv4")
    if on:
        return Finding("host", "ok", "IPv4 forwarding")
    if os.access("/proc/sys/net/ipv4/ip_forward", os.W_OK):
        return Finding("host", "ok", "IPv4 forwarding (the daemon switches it on)")
    return Finding("host", "warning", "IPv4 forwarding is off", "sysctl -w net.ipv4.ip_forward=1")


def _tools() -> Iterator[Finding]:
    crun, runc = _program("crun"), _program("runc")
    if crun or runc:
        yield Finding("tools", "ok", f"runtime {crun or runc}")
    else:
        yield Finding("tools", "fault", "neither crun nor runc", "apt-get install crun")
    conmon = _program("conmon") or next((p for p in _CONMON_PLACES if Path(p).exists()), None)
    if conmon:
        yield Finding("tools", "ok", f"conmon {conmon}")
    else:
        yield Finding(
            "tools", "fault", "conmon holds containers and is missing", "apt-get install conmon"
        )
    yield _nftables()


def _program(name: str) -> str | None:
    """Where the daemon would find it: it looks into the folders for administration, too."""
    return shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")


def _nftables() -> Finding:
    import ctypes.util

    library = ctypes.util.find_library("nftables")
    program = _program("nft")
    if library or program:
        return Finding("tools", "ok", f"nftables ({library or program})")
    return Finding(
        "tools", "fault", "nftables is missing: no bridge network", "apt-get install nftables"
    )


def _daemon(session: Session) -> Iterator[Finding]:
    url = session.address.url
    try:
        address = session.address.as_it_is()
        found: dict[str, Any] = Api(address, silence_s=3.0).get("/linkspan/v1/daemon")
    except Unreachable as exc:
        if exc.cause in ("no-socket", "refused") and session.address.autostart:
            text = f"not running at {url}; it starts when a command needs it"
            yield Finding("daemon", "ok", text)
        else:
            yield Finding("daemon", "fault", f"{url}: {exc.reason}", exc.help)
        return
    except LinkspanError as exc:
        yield Finding("daemon", "fault", f"{url}: {exc.message}", exc.help)
        return
    yield Finding("daemon", "ok", f"{found['version']}, pid {found['pid']}, {url}")
    for name, reason in (*found["unusable"].items(), *found["troubles"].items()):
        yield Finding("daemon", "fault", f"{name}: {reason}", f"linkspan plugin show {name}")


def _plugins(session: Session) -> Iterator[Finding]:
    from linkspan.core.config.load import read_config
    from linkspan.core.plugins.configuration import check
    from linkspan.core.plugins.registry import PluginRegistry

    config, found = read_config([session.config] if session.config else None)
    registry = PluginRegistry(config.plugins).discover()
    found = [*found, *check(config, registry)]
    rows = registry.listing(config)
    broken = [row for row in rows if row.state == "broken"]
    ready = {row.plugin for row in rows if row.state == "ready"}
    yield Finding("plugins", "ok", f"{len(ready)} ready")
    for row in broken:
        text = f"{row.plugin}: {row.reason}"
        yield Finding("plugins", "fault", text, f"linkspan plugin show {row.plugin}")
    if found:
        text = f"the config has {counted(len(found), 'error')}: {found[0].headline}"
        yield Finding("plugins", "fault", text, "linkspan config check")


def _disk(session: Session) -> Iterator[Finding]:
    from linkspan.core.config.load import read_config

    config, _ = read_config([session.config] if session.config else None)
    folder = config.daemon.data_root
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    text = f"{config.daemon.data_root} {format_size(usage.free)} free"
    if usage.free < _LOW_DISK_BYTES:
        yield Finding("disk", "warning", text, "free some space, or set [daemon] data-root")
    else:
        yield Finding("disk", "ok", text)
