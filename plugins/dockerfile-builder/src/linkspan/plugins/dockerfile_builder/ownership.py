"""``--chown`` and ``--chmod``, and the user that WORKDIR's directory belongs to."""

import re
from collections.abc import Callable

import attrs

from linkspan.plugins.dockerfile_builder.selection import TransferError

ReadFile = Callable[[str], str | None]
"""Text of a file of the image, None if there is none."""

_MAX_ID = (1 << 32) - 2
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXst]*)+)")
_ACTION = re.compile(r"([-+=])([rwxXst]*)")
_BITS = {"r": 4, "w": 2, "x": 1}


def parse_owner(text: str, read: ReadFile) -> tuple[int, int]:
    """uid and gid of ``user[:group]``; a numeric user alone is also the group's number.

    Raises:
        TransferError: The image's ``/etc/passwd`` or ``/etc/group`` has no such name.
    """
    user, colon, group = text.partition(":")
    if not user:
        uid, gid = 0, 0
    elif user.isdecimal():
        uid = gid = _number(user)
    else:
        uid, gid = _user(user, read)
    if colon and group:
        gid = _number(group) if group.isdecimal() else _group(group, read)
    return uid, gid


def _number(text: str) -> int:
    value = int(text[:12])
    if value > _MAX_ID:
        raise TransferError(f"uids and gids must be in range 0-{_MAX_ID}")
    return value


def _fail(kind: str, what: str, name: str, why: str) -> TransferError:
    return TransferError(
        "unable to convert uid/gid chown string to host mapping:"
        f" can't find {kind} for {what} {name}: {why}"
    )


def _records(path: str, read: ReadFile) -> list[list[str]] | None:
    text = read(path)
    return None if text is None else [line.split(":") for line in text.splitlines()]


def _user(name: str, read: ReadFile) -> tuple[int, int]:
    records = _records("/etc/passwd", read)
    if records is None:
        raise _fail("uid", "user", name, "open /etc/passwd: no such file or directory")
    for fields in records:
        if (
            fields[0] == name
            and len(fields) > 3
            and fields[2].isdecimal()
            and fields[3].isdecimal()
        ):
            return _number(fields[2]), _number(fields[3])
    raise _fail("uid", "user", name, f"no such user: {name}")


def _group(name: str, read: ReadFile) -> int:
    records = _records("/etc/group", read)
    if records is None:
        raise _fail("gid", "group", name, "open /etc/group: no such file or directory")
    for fields in records:
        if fields[0] == name and len(fields) > 2 and fields[2].isdecimal():
            return _number(fields[2])
    raise _fail("gid", "group", name, f"no such group: {name}")


@attrs.frozen
class Mode:
    """A parsed ``--chmod``.

    Attributes:
        octal: The mode of everything; None if symbolic.
        clauses: Who and what, in order.
    """

    octal: int | None
    clauses: tuple[tuple[str, str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Mode":
        """Read ``0644``, ``u+x,go-r`` or ``a=rX``.

        Raises:
            TransferError: It is neither.
        """
        if text[:1].isdecimal():
            if re.fullmatch(r"[0-7]+", text) and int(text, 8) <= 0o7777:
                return cls(int(text, 8))
            raise TransferError(
                f"invalid chmod parameter: '{text}'."
                " it should be octal string and between 0 and 07777"
            )
        clauses: list[tuple[str, str, str]] = []
        for clause in text.split(","):
            match = _CLAUSE.fullmatch(clause)
            if match is None:
                raise TransferError("invalid syntax")
            who = match[1] or "a"
            clauses += [(who, action[1], action[2]) for action in _ACTION.finditer(match[2])]
        return cls(None, tuple(clauses))

    def apply(self, mode: int, *, is_directory: bool) -> int:
        """The new mode of an entry."""
        if self.octal is not None:
            return self.octal
        for who, operator, letters in self.clauses:
            mode = _changed(mode, who.replace("a", "ugo"), operator, letters, is_directory)
        return mode


def _changed(mode: int, who: str, operator: str, letters: str, is_directory: bool) -> int:
    bits = sum(_BITS[letter] for letter in set(letters) & set(_BITS))
    if "X" in letters and (is_directory or mode & 0o111):
        bits |= 1
    special = 0
    if "s" in letters:
        special |= (0o4000 if "u" in who else 0) | (0o2000 if "g" in who else 0)
    if "t" in letters:
        special |= 0o1000
    shifts = [shift for name, shift in (("u", 6), ("g", 3), ("o", 0)) if name in who]
    wanted = sum(bits << shift for shift in shifts) | special
    if operator == "+":
        return mode | wanted
    if operator == "-":
        return mode & ~wanted
    return mode & ~sum(7 << shift for shift in shifts) | wanted
