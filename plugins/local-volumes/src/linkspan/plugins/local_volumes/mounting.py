"""Mounts of volumes with a device of their own: mount(2) and the options of mount(8)."""

import ctypes
import os
from pathlib import Path
from typing import Final

import attrs

from linkspan.sdk.errors import InvalidArgument, Unsupported

_MS_BIND: Final = 4096
_MS_REC: Final = 1 << 14
_MS_RDONLY: Final = 1
_MS_REMOUNT: Final = 32
_MNT_DETACH: Final = 2

# sys/mount.h; a name that clears what is the default anyway has 0
_FLAGS: Final = {
    "ro": _MS_RDONLY,
    "rw": 0,
    "nosuid": 2,
    "suid": 0,
    "nodev": 4,
    "dev": 0,
    "noexec": 8,
    "exec": 0,
    "sync": 16,
    "async": 0,
    "dirsync": 128,
    "noatime": 1024,
    "nodiratime": 2048,
    "relatime": 1 << 21,
    "strictatime": 1 << 24,
    "bind": _MS_BIND,
    "rbind": _MS_BIND | _MS_REC,
    "defaults": 0,
}

_libc: Final = ctypes.CDLL(None, use_errno=True)


@attrs.frozen(kw_only=True)
class DeviceMount:
    """What a volume mounts on its folder."""

    fstype: str
    device: str
    flags: int
    data: str


def parse_options(options: dict[str, str]) -> DeviceMount | None:
    """Read ``type``, ``device`` and ``o``, Docker's options of its local driver; None if there are none.

    Raises:
        InvalidArgument: An unknown option, or one that lacks another.
        Unsupported: A file system that this driver does not mount.
    """
    for name in options:
        if name not in ("type", "device", "o"):
            raise InvalidArgument(
                f"invalid option: '{name}'",
                code="unknown_volume_option",
                details={"option": name},
                help="volumes on this machine know the options type, device and o",
            )
    if not any(options.values()):
        return None
    fstype, device, words = (options.get(name, "") for name in ("type", "device", "o"))
    flags, data = _split_words(words)
    binds = bool(flags & _MS_BIND)
    if not device:
        raise InvalidArgument(
            "missing device in volume options",
            code="bad_volume_options",
            help="for example: --opt type=none --opt o=bind --opt device=/srv/data",
        )
    if binds or fstype in ("none", "bind"):
        if not binds:
            flags |= _MS_BIND
        if not device.startswith("/"):
            raise InvalidArgument(
                f"device '{device}' of a bind volume is not an absolute path",
                code="bad_volume_options",
            )
        return DeviceMount(fstype="none", device=device, flags=flags, data="")
    if fstype == "tmpfs":
        return DeviceMount(fstype="tmpfs", device=device, flags=flags, data=data)
    if not fstype:
        raise InvalidArgument("missing type in volume options", code="bad_volume_options")
    raise Unsupported(
        f"volumes of type '{fstype}' are not mounted by this driver",
        code="volume_type_unsupported",
        details={"type": fstype},
        help="mount it on the host and use --opt type=none --opt o=bind --opt device=/PATH",
    )


def _split_words(words: str) -> tuple[int, str]:
    flags = 0
    rest = []
    for word in words.split(","):
        if word in _FLAGS:
            flags |= _FLAGS[word]
        elif word:
            rest.append(word)
    return flags, ",".join(rest)


def is_mounted(folder: Path) -> bool:
    """Whether something is mounted exactly there."""
    wanted = os.fsencode(folder.resolve())
    with Path("/proc/self/mountinfo").open("rb") as file:
        return any(_unescape(line.split()[4]) == wanted for line in file)


def _unescape(path: bytes) -> bytes:
    return path.replace(b"\\040", b" ").replace(b"\\011", b"\t").replace(b"\\134", b"\\")


def mount(what: DeviceMount, target: Path) -> None:
    """Mount it.

    Raises:
        OSError: As mount(2).
    """
    _mount(what.device, target, what.fstype, what.flags, what.data)
    if what.flags & _MS_BIND and what.flags & ~(_MS_BIND | _MS_REC):
        # A bind takes no other flags; they need a second call.
        _mount("none", target, "", (what.flags & ~_MS_REC) | _MS_REMOUNT, "")


def _mount(source: str, target: Path, fstype: str, flags: int, data: str) -> None:
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        fstype.encode() or None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source)


def unmount(target: Path) -> None:
    """Take it away; whoever still has files open keeps them.

    Raises:
        OSError: As umount(2).
    """
    if _libc.umount2(os.fsencode(target), _MNT_DETACH) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))
