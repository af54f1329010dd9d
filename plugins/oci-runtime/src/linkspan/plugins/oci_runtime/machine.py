"""Facts about this machine and this daemon that decide what a container can have."""

import re
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from linkspan.plugins.oci_runtime import capabilities, seccomp
from linkspan.plugins.oci_runtime.cgroups import Hierarchies
from linkspan.plugins.oci_runtime.security import apparmor_is_on
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.container import (
    Ulimit,
)
from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class Machine:
    """Facts about this machine and this daemon.

    Attributes:
        capabilities: What the daemon may hand on.
        hard_limits: Current hard limits, by name as in ``Ulimit``; -1 is no limit.
        may_raise_limits: Whether CAP_SYS_RESOURCE is held.
        oom_score_adj: The daemon's own.
        cgroup_version: 1 (also hybrid) or 2.
        swap_accounting: Whether ``memory.memsw`` (v1) or swap (v2) can be limited.
        init: Path of the program for ``--init``; None if there is none.
        block_weight: Whether the shares of block devices can be set.
        tcp_limit: Whether buffers of TCP connections can be limited.
        realtime: Whether real-time CPU can be given to groups.
        below_read_only: Whether a whole tree of mounts can be made read-only (Linux 5.12).
        soft_open_files: The soft limit of open files in containers that ask for none; None hands on the
            daemon's.
    """

    capabilities: frozenset[str]
    hard_limits: Mapping[str, int]
    may_raise_limits: bool
    oom_score_adj: int
    cgroup_version: int
    swap_accounting: bool = True
    init: str | None = None
    block_weight: bool = True
    tcp_limit: bool = True
    realtime: bool = True
    below_read_only: bool = True
    soft_open_files: int | None = None
    apparmor: bool = False

    def limits(self, asked: Sequence[Ulimit]) -> list[Ulimit]:
        """Limits of a container that asks for some, or for none."""
        if self.soft_open_files is None or any(limit.name == "nofile" for limit in asked):
            return list(asked)
        hard = self.hard_limits["nofile"]
        return [*asked, Ulimit(name="nofile", soft=self.soft_open_files, hard=hard)]

    @classmethod
    def detect(
        cls,
        groups: Hierarchies,
        *,
        swap_accounting: bool,
        init: str | None,
        soft_open_files: int | None,
    ) -> "Machine":
        """Read this process's facts and the kernel's."""
        status = Path("/proc/self/status").read_text()
        effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
        number = capabilities.ALL.index("CAP_SYS_RESOURCE")
        return cls(
            capabilities=capabilities.held(status),
            hard_limits={name: resource.getrlimit(kind)[1] for name, kind in _LIMITS.items()},
            may_raise_limits=bool(effective and int(effective[1], 16) >> number & 1),
            oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text()),
            cgroup_version=groups.version,
            swap_accounting=swap_accounting,
            init=init,
            block_weight=groups.offers("blkio", "blkio.weight")
            or (groups.version == 2 and groups.has("io")),
            tcp_limit=groups.offers("memory", "memory.kmem.tcp.limit_in_bytes"),
            realtime=groups.offers("cpu", "cpu.rt_runtime_us"),
            below_read_only=seccomp.kernel_version() >= (5, 12),
            soft_open_files=soft_open_files,
            apparmor=apparmor_is_on(),
        )


_LIMIT_NAMES: Final = (
    "core cpu data fsize memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
)
_LIMITS: Final[Mapping[str, int]] = {
    name: getattr(resource, f"RLIMIT_{name.upper()}")
    for name in _LIMIT_NAMES.split()
    if hasattr(resource, f"RLIMIT_{name.upper()}")
}


def check_ulimit(limit: Ulimit) -> None:
    """Refuse a limit that Linux does not know. Raises InvalidArgument."""
    if limit.name not in _LIMITS:
        raise InvalidArgument(
            f"unknown ulimit '{limit.name}'",
            code="unknown_ulimit",
            details={"ulimit": limit.name},
            help=f"known: {', '.join(sorted(_LIMITS))}",
        )
