"""Linux capabilities: names, the default set, and what ``--cap-add`` and ``--cap-drop`` make of it."""

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final

from linkspan.sdk.errors import InvalidArgument

# In the order of their numbers (linux/capability.h).
_ALL_NAMES: Final = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
    "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
    "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
    "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
ALL: Final = tuple(f"CAP_{name}" for name in _ALL_NAMES.split())

# Docker's default (moby oci/caps/defaults.go).
_DEFAULT_NAMES: Final = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP "
    "NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
)
DEFAULT: Final = frozenset(f"CAP_{name}" for name in _DEFAULT_NAMES.split())


def held(status: str | None = None) -> frozenset[str]:
    """What this process may hand on: its bounding set."""
    text = status if status is not None else Path("/proc/self/status").read_text()
    match = re.search(r"^CapBnd:\s*([0-9a-f]+)$", text, re.MULTILINE)
    mask = int(match[1], 16) if match else 0
    return frozenset(name for number, name in enumerate(ALL) if mask >> number & 1)


def resolve(
    *,
    add: Iterable[str],
    drop: Iterable[str],
    privileged: bool,
    available: frozenset[str],
) -> tuple[str, ...]:
    """The capabilities of a container, in the order of their numbers.

    ``ALL`` is understood in both lists. What the daemon itself lacks is left out, as it cannot be given.

    Raises:
        InvalidArgument: An unknown name.
    """
    if privileged:
        return tuple(name for name in ALL if name in available)
    return _resolved(tuple(add), tuple(drop), available)


@lru_cache(64)
def _resolved(
    add: tuple[str, ...], drop: tuple[str, ...], available: frozenset[str]
) -> tuple[str, ...]:
    """Most containers ask for none, or for the same ones."""
    added, dropped = _names(add, "CapAdd"), _names(drop, "CapDrop")
    chosen = set(ALL) if "ALL" in added else set(DEFAULT)
    if "ALL" in dropped:
        chosen = set(added - {"ALL"}) if "ALL" not in added else set()
    chosen = (chosen | (added - {"ALL"})) - dropped
    return tuple(name for name in ALL if name in chosen and name in available)


def check(add: Iterable[str], drop: Iterable[str]) -> None:
    """Refuse names that are no capabilities. Raises InvalidArgument."""
    _names(add, "CapAdd")
    _names(drop, "CapDrop")


def _names(words: Iterable[str], field: str) -> set[str]:
    names = set()
    for word in words:
        name = word.upper()
        if name != "ALL" and not name.startswith("CAP_"):
            name = f"CAP_{name}"
        if name != "ALL" and name not in ALL:
            raise InvalidArgument(
                f'invalid {field}: unknown capability: "{name}"',
                code="unknown_capability",
                details={"capability": word},
                help="names are those of capabilities(7), for example NET_ADMIN",
            )
        names.add(name)
    return names
