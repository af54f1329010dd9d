"""``RUN --mount``: from its text to a value. Texts of errors are Docker's."""

import csv
import posixpath
import re
from collections.abc import Callable

import attrs

from linkspan.plugins.dockerfile_builder.fault import quote, suggestion
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.units import parse_size

TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARINGS = ("shared", "private", "locked")
_SWITCHES = ("required", "readonly", "ro", "readwrite", "rw")
_VALUES = (
    *("type", "from", "source", "src", "target", "dst", "destination", "id", "sharing"),
    *("mode", "uid", "gid", "size", "tmpfs-size", "env"),
)
_VARIABLE = re.compile(r"\$([a-zA-Z_]|\{)")
_MAX_ID = (1 << 32) - 2


class MountError(ValueError):
    """A ``--mount`` cannot be read; the text has Docker's wording."""


@attrs.frozen(kw_only=True)
class RunMount:
    """One mount of a RUN step.

    Attributes:
        kind: ``bind``, ``cache``, ``tmpfs`` or ``secret``.
        target: As written; relative ones begin at the working directory. Empty for a secret that is only
            a variable.
        source_from: Stage, named context or image; empty for the build context (bind) or nothing (cache).
        source: Path in ``source_from``.
        id: Of a cache or a secret.
        env: The variable that gets a secret; empty for none.
        mode: Permission bits; None for the default of the kind.
        size_bytes: Of a tmpfs; 0 for no limit.
    """

    kind: str
    target: str = ""
    source_from: str = ""
    source: str = ""
    id: str = ""
    sharing: str = "shared"
    read_only: bool = False
    required: bool = False
    env: str = ""
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    size_bytes: int = 0

    def destination(self, working_dir: str) -> str:
        """Where it appears, absolute.

        Raises:
            MountError: That is the root itself.
        """
        path = posixpath.normpath(posixpath.join("/", working_dir, self.target)).lstrip("/")
        if not path:
            raise MountError(f'invalid mount target "{self.target or "/"}"')
        return f"/{path}"


def check_mount(text: str) -> None:
    """What can be said before variables are expanded.

    Raises:
        MountError: ``from`` holds a variable, or the text is no list of ``key=value``.
    """
    for key, _, value in _fields(text):
        if key == "from" and _VARIABLE.search(value):
            raise MountError(
                "'from' doesn't support variable expansion, define alias stage instead"
            )


def source_of(text: str) -> str:
    """What ``from`` names; empty if it is not given."""
    return next((value for key, _, value in _fields(text) if key == "from"), "")


def reads_context(text: str) -> bool:
    """Whether a mount shows the build context."""
    kind = next((value for key, _, value in _fields(text) if key == "type"), "bind")
    return kind not in ("cache", "tmpfs", "secret", "ssh") and not source_of(text)


def parse_mount(text: str, expand: Callable[[str], str]) -> RunMount:
    """Read one ``--mount``.

    Args:
        text: ``type=cache,target=/var/cache``.
        expand: Expands the variables of a value.

    Raises:
        MountError: A key or value is wrong.
    """
    check_mount(text)
    found: dict[str, str] = {}
    for key, equals, raw in _fields(text):
        value = raw if key == "from" else expand(raw)
        if not equals and key not in _SWITCHES:
            raise MountError(f"invalid field '{key}' must be a key=value pair")
        if key in _SWITCHES:
            switched = _switch(key, value if equals else "true")
            if key == "required":
                found["required"] = "1" if switched else ""
            else:
                read_only = switched == (key in ("readonly", "ro"))
                found["ro"] = "1" if read_only else ""
            continue
        found[_SHORT.get(key, key)] = value
    return _mount(found)


_SHORT = {"src": "source", "dst": "target", "destination": "target", "tmpfs-size": "size"}


def _fields(text: str) -> list[tuple[str, str, str]]:
    """Key, equals sign, value of each comma-separated field; quotes hold commas."""
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise MountError(f"failed to parse csv mounts: {error}") from error
    fields = []
    for field in rows[0] if rows else ():
        key, equals, value = field.partition("=")
        key = key.lower()
        if key not in (*_SWITCHES, *_VALUES):
            near = suggestion(key, (*_SWITCHES, *_VALUES))
            if not equals:
                raise MountError(f"invalid field '{field}' must be a key=value pair{near}")
            raise MountError(f"unexpected key '{key}' in '{field}'{near}")
        fields.append((key, equals, value))
    return fields


def _switch(key: str, text: str) -> bool:
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise MountError(f"invalid value for {key}: {text}")


def _mount(found: dict[str, str]) -> RunMount:
    kind = found.get("type", "bind").lower()
    if kind not in TYPES:
        raise MountError(f"unsupported mount type {quote(kind)}{suggestion(kind, TYPES)}")
    for key, kinds in _ALLOWED.items():
        if key in found and kind not in kinds:
            raise MountError(f'{key} not allowed for "{kind}" type mounts')
    sharing = found.get("sharing", "shared").lower()
    if sharing not in SHARINGS:
        raise MountError(
            f"unsupported sharing value {quote(sharing)}{suggestion(sharing, SHARINGS)}"
        )
    target, name = found.get("target", ""), found.get("id", "")
    if kind == "secret":
        name = name or found.get("source", "") or posixpath.basename(target)
        if not name:
            raise MountError("invalid secret mount. one of source, target required")
        if not target and not found.get("env"):
            target = f"/run/secrets/{posixpath.basename(name)}"
    elif kind != "ssh" and not target:
        raise MountError("target is required")
    return RunMount(
        kind=kind,
        target=target,
        source_from=found.get("from", ""),
        source="" if kind == "secret" else found.get("source", ""),
        id=name,
        sharing=sharing,
        read_only=bool(found.get("ro", "1" if kind == "bind" else "")),
        required=bool(found.get("required")),
        env=found.get("env", ""),
        mode=_octal(found["mode"]) if found.get("mode") else None,
        uid=_number("uid", found.get("uid", "0")),
        gid=_number("gid", found.get("gid", "0")),
        size_bytes=_size(found["size"]) if found.get("size") else 0,
    )


_FILES = ("secret", "ssh", "cache")
_ALLOWED = {
    "mode": _FILES,
    "uid": _FILES,
    "gid": _FILES,
    "size": ("tmpfs",),
    "sharing": ("cache",),
    "from": ("bind", "cache"),
    "env": ("secret",),
    "required": ("secret", "ssh"),
}


def _octal(text: str) -> int:
    if not re.fullmatch(r"0?[0-7]{1,4}", text, re.ASCII):
        raise MountError(f"invalid value {text} for mode")
    return int(text, 8)


def _number(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) or int(text) > _MAX_ID:
        raise MountError(f"invalid value {text} for {name}")
    return int(text)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except InvalidArgument as error:
        raise MountError(f"invalid value for size: {text}") from error
