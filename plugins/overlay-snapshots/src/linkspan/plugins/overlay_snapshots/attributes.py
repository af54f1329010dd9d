"""Extended attributes: what a layer may set, and how overlayfs marks what hides lower layers."""

import errno
import os
import stat
from typing import Final

from linkspan.plugins.overlay_snapshots.faults import hostile
from linkspan.plugins.overlay_snapshots.headers import Entry

OPAQUE: Final = "trusted.overlay.opaque"


def is_opaque(path: bytes | int) -> bool:
    """Whether a folder hides what lower layers have in it."""
    try:
        return os.getxattr(path, OPAQUE) == b"y"
    except OSError:
        return False


def is_whiteout(status: os.stat_result) -> bool:
    """Whether an entry is the 0:0 device that hides one of lower layers."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def set_attributes(where: int | bytes, entry: Entry, *, regular_or_directory: bool) -> None:
    """Set the extended attributes that a layer may set. What the file system cannot keep is left out."""
    assert entry.pax is not None
    for key, value in entry.pax.items():
        for prefix in (b"SCHILY.xattr.", b"LIBARCHIVE.xattr."):
            if key.startswith(prefix):
                break
        else:
            continue
        name = key[len(prefix) :]
        if not allowed_attribute(name, regular_or_directory=regular_or_directory):
            continue
        try:
            if isinstance(where, int):
                os.setxattr(where, name, value)
            else:
                os.setxattr(where, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENOTSUP):
                continue
            if error.errno == errno.ENOSPC and os.statvfs(".").f_bavail:
                # ext4 says so when the attributes of one file do not fit its block.
                raise hostile(entry.path, "its extended attributes are too large") from error
            raise


def allowed_attribute(name: bytes, *, regular_or_directory: bool) -> bool:
    """Whether a layer may carry an attribute: never one that controls overlayfs."""
    if name.startswith((b"trusted.overlay.", b"user.overlay.")):
        return False
    if name.startswith(b"user."):
        return regular_or_directory
    return name == b"security.capability" or name.startswith(b"trusted.")
