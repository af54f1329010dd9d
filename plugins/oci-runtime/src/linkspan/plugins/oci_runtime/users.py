"""Who a process runs as, looked up in the container's own ``/etc/passwd`` and ``/etc/group``.

The rules are those of Docker (moby/sys user.GetExecUser): ``user[:group]``, each a name or a number; a
number needs no entry; without a group the user's own and all groups that list the user count.
"""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.syscalls import open_in_root
from linkspan.sdk.values import frozen

_MAX_FILE_BYTES: Final = 4 << 20
_MAX_ID: Final = 2**31 - 1


@frozen(kw_only=True)
class Identity:
    """``uid``, ``gid`` and further groups; ``home`` is the passwd entry's, or ``/``."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


@frozen
class _User:
    name: str
    uid: int
    gid: int
    home: str


@frozen
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def look_up(root: str | Path, user: str, group_add: Sequence[str] = ()) -> Identity:
    """Resolve ``user`` inside a root folder; blocking.

    Raises:
        InvalidArgument: code ``user_not_found`` or ``group_not_found``: an unknown name, or a number out
            of range.
    """
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        users = [u for line in _lines(root_fd, "etc/passwd") if (u := _user(line)) is not None]
        groups = [g for line in _lines(root_fd, "etc/group") if (g := _group(line)) is not None]
    finally:
        os.close(root_fd)
    user_part, colon, group_part = user.partition(":")
    entry = _find_user(users, user_part)
    uid = entry.uid if entry else int(user_part or 0)
    gid = entry.gid if entry else 0
    further: set[int] = set()
    if colon and group_part:
        gid = _find_group(groups, group_part)
    elif entry is not None:
        further = {g.gid for g in groups if entry.name in g.members}
    further |= {_find_group(groups, name) for name in group_add}
    # The primary group belongs to the list, or a process could drop it (CVE-2022-36109).
    return Identity(
        uid=uid,
        gid=gid,
        groups=tuple(sorted(further | {gid})),
        home=(entry.home if entry else "") or "/",
    )


def _find_user(users: Sequence[_User], wanted: str) -> _User | None:
    for entry in users:
        if entry.name == wanted:
            return entry
    if wanted in ("", "root"):
        wanted = "0"
    if _is_negative(wanted):
        raise _out_of_range(wanted, "user")
    if not (wanted.isascii() and wanted.isdecimal()):
        raise InvalidArgument(
            f"unable to find user {wanted}: no matching entries in passwd file",
            code="user_not_found",
            details={"user": wanted},
            help="use a user of the image's /etc/passwd, or a number",
        )
    number = _checked(wanted, "user")
    return next((entry for entry in users if entry.uid == number), None)


def _find_group(groups: Sequence[_Group], wanted: str) -> int:
    for entry in groups:
        if entry.name == wanted:
            return entry.gid
    if _is_negative(wanted):
        raise _out_of_range(wanted, "group")
    if not (wanted.isascii() and wanted.isdecimal()):
        raise InvalidArgument(
            f"unable to find group {wanted}: no matching entries in group file",
            code="group_not_found",
            details={"group": wanted},
            help="use a group of the image's /etc/group, or a number",
        )
    return _checked(wanted, "group")


def _checked(text: str, kind: str) -> int:
    number = int(text) if len(text) <= 10 else _MAX_ID + 1
    if number > _MAX_ID:
        raise _out_of_range(text, kind)
    return number


def _is_negative(text: str) -> bool:
    return text.startswith("-") and text[1:].isascii() and text[1:].isdecimal()


def _out_of_range(text: str, kind: str) -> InvalidArgument:
    return InvalidArgument(
        f"uids and gids must be in range 0-{_MAX_ID}",
        code=f"{kind}_not_found",
        details={kind: text},
    )


def _user(line: str) -> _User | None:
    fields = line.split(":")
    if len(fields) < 4 or not (fields[2].isdecimal() and fields[3].isdecimal()):
        return None
    return _User(fields[0], int(fields[2]), int(fields[3]), fields[5] if len(fields) > 5 else "")


def _group(line: str) -> _Group | None:
    fields = line.split(":")
    if len(fields) < 3 or not fields[2].isdecimal():
        return None
    members = fields[3].split(",") if len(fields) > 3 else []
    return _Group(fields[0], int(fields[2]), tuple(name for name in members if name))


def _lines(root_fd: int, path: str) -> list[str]:
    """Lines of a file of the container; empty if it is missing, no plain file or absurdly big."""
    try:
        fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EXDEV):
            return []
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return []
        # One call, of the size that it has: a large buffer would be mapped and unmapped for each.
        text = os.read(fd, min(status.st_size, _MAX_FILE_BYTES)).decode("utf-8", "replace")
    finally:
        os.close(fd)
    return [line for line in text.splitlines() if line and not line.startswith("#")]
