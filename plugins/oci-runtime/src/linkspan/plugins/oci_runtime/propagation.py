"""Mount propagation (mount_namespaces(7)) between the host and a container: ``-v SRC:DST:rshared``."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from linkspan.sdk import mountinfo
from linkspan.sdk.drivers.runtime import BundleMount
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.mountinfo import Mount

_SHARED: Final = frozenset({"shared", "rshared"})
_SLAVE: Final = frozenset({"slave", "rslave"})


def root_propagation(mounts: Iterable[BundleMount]) -> str | None:
    """What the container's root must be, so that a bind's propagation has an effect; None: as usual."""
    asked = {option for mount in mounts if mount.type == "bind" for option in mount.options}
    if asked & _SHARED:
        return "shared"
    return "rslave" if asked & _SLAVE else None


def check(mounts: Iterable[BundleMount], mounted: Sequence[Mount] | None = None) -> None:
    """Refuse what would silently have no effect: a source that lies on a private mount; blocking.

    Raises:
        InvalidArgument: Docker's text.
    """
    for mount in mounts:
        options = set(mount.options)
        if mount.type != "bind" or not options & (_SHARED | _SLAVE):
            continue
        mounted = mountinfo.mounts() if mounted is None else mounted
        point, groups = _mount_of(os.path.realpath(mount.source), mounted)
        shared = any(group.startswith("shared:") for group in groups)
        slave = any(group.startswith("master:") for group in groups)
        if options & _SHARED and not shared:
            raise _refused(mount.source, point, "a shared mount")
        if options & _SLAVE and not (shared or slave):
            raise _refused(mount.source, point, "a shared or slave mount")


def _refused(source: str, point: str, kind: str) -> InvalidArgument:
    return InvalidArgument(
        f"path {source} is mounted on {point} but it is not {kind}",
        code="bad_mount",
        help=f"mount --make-rshared {point}",
    )


def _mount_of(path: str, mounted: Iterable[Mount]) -> tuple[str, tuple[str, ...]]:
    """The mount point that a path lies on, and how its mount spreads."""
    best, groups = "", tuple[str, ...]()
    for mount in mounted:
        # Of two on one point the later covers the earlier.
        if Path(path).is_relative_to(mount.target) and len(mount.target) >= len(best):
            best, groups = mount.target, mount.groups
    return best, groups
