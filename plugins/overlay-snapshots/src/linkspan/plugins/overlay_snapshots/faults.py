"""The errors of layers, and how they travel from a child to the daemon."""

import errno
import json
import os
from collections.abc import Mapping
from typing import Any, Final

from linkspan.sdk.errors import (
    Conflict,
    DataLoss,
    Internal,
    InvalidArgument,
    LinkspanError,
    NotFound,
    OutOfSpace,
    PermissionDenied,
    TooLarge,
)
from linkspan.sdk.files import is_full

_CLASSES: Final = {
    cls.__name__: cls
    for cls in (
        Conflict,
        DataLoss,
        Internal,
        InvalidArgument,
        NotFound,
        OutOfSpace,
        PermissionDenied,
        TooLarge,
    )
}

_ENTRY_FAULTS: Final = frozenset(
    (
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EPERM,
        errno.EINVAL,
        errno.ENOENT,
        errno.EEXIST,
        errno.EMLINK,
        errno.EOVERFLOW,
        errno.EFBIG,
    )
)


def shown(name: bytes) -> str:
    """A name from a tar as text for a message; never longer than a line."""
    text = os.fsdecode(name).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 120 else f"{text[:100]}… ({len(name)} bytes)"


def hostile(entry: bytes, why: str) -> InvalidArgument:
    """The layer carries what a layer must not carry."""
    name = shown(entry)
    return InvalidArgument(
        f"the layer's entry '{name}' is refused: {why}",
        code="hostile_layer",
        details={"entry": name},
        help="the image is broken or hostile; ask who made it",
    )


def corrupt(why: str) -> DataLoss:
    """The bytes are no layer."""
    return DataLoss(f"the layer is corrupt: {why}", code="corrupt_layer")


def truncated(why: str) -> DataLoss:
    """The bytes end too early."""
    return DataLoss(f"the layer is truncated: {why}", code="truncated_layer")


def disk_full(what: str) -> OutOfSpace:
    """The disk, or a quota, is full."""
    return OutOfSpace(f"the disk is full: {what}", help="free some space, then try again: df -h")


def from_os_error(error: OSError, entry: bytes | None = None) -> LinkspanError:
    """An error of the kernel while an entry was made, or while doing something else."""
    if is_full(error):
        where = f"while unpacking '{shown(entry)}'" if entry is not None else str(error)
        return disk_full(where)
    if error.errno == errno.EROFS:
        where = shown(entry) if entry is not None else str(error.filename or "")
        return PermissionDenied(f"'{where}' is on a read-only file system", code="read_only")
    if entry is not None and error.errno in _ENTRY_FAULTS:
        return hostile(entry, error.strerror or str(error))
    if entry is not None and error.errno == errno.EBUSY:
        return Conflict(f"'{shown(entry)}' cannot be replaced: a mount is there", code="mounted")
    where = f" at '{shown(entry)}'" if entry is not None else ""
    return Internal(f"working on a layer failed{where}: {error}")


def to_wire(error: LinkspanError) -> dict[str, Any]:
    """JSON types of an error."""
    name = type(error).__name__
    return {
        "class": name if name in _CLASSES else "Internal",
        "message": error.message,
        "code": error.code,
        "details": dict(error.details),
        "help": error.help,
    }


def from_wire(wire: Mapping[str, Any]) -> LinkspanError:
    """The error that ``to_wire`` took."""
    return _CLASSES[wire["class"]](
        wire["message"], code=wire["code"], details=wire["details"], help=wire["help"]
    )


def dumps(value: object) -> bytes:
    """JSON of a message; file names that are not UTF-8 survive as lone surrogates."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")
