"""Mount propagation (mount_namespaces(7)) between the host and a container: ``-v SRC:DST:rshared``."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from linkspan.plugins.oci_runtime.cgroups import MOUNTINFO, unescape
from linkspan.sdk.drivers.runtime import BundleMount
from linkspan.sdk.errors import InvalidArgument

_SHARED: Final = frozenset({"shared", "rshared"})
_SLAVE: Final = frozenset({"slave", "rslave"})


def root_propagation(mounts: Iterable[BundleMount]) -> str | None:
    """What the container's root must be, so that a bind's propagation has an effect; None: as usual."""
    asked = {option for mount in mounts if mount.type == "bind" for option in mount.options}
    if asked & _SHARED:
        return "shared"
    return "rslave" if asked & _SLAVE else None


def check(mounts: Iterable[BundleMount], mountinfo: str | None = None) -> None:
    """Refuse what would silently have no effect: a source that lies on a private mount; blocking.

    Raises:
        InvalidArgument: Docker's text.
    """
    text = mountinfo
    for mount in mounts:
        options = set(mount.options)
        if mount.type != "bind" or not options & (_SHARED | _SLAVE):
            continue
        text = MOUNTINFO.read_text() if text is None else text
        point, groups = _mount_of(os.path.realpath(mount.source), text)
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


def _mount_of(path: str, mountinfo: str) -> tuple[str, list[str]]:
    """The mount point that a path lies on, and the optional fields of its mount (proc(5))."""
    best, groups = "", list[str]()
    for line in mountinfo.splitlines():
        fields, _, _ = line.partition(" - ")
        words = fields.split()
        if len(words) < 6:
            continue
        point = unescape(words[4])
        # Of two on one point the later covers the earlier.
        if Path(path).is_relative_to(point) and len(point) >= len(best):
            best, groups = point, words[6:]
    return best, groups
