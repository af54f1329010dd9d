"""Mounts of volumes with a device of their own: mount(2) and the options of mount(8)."""

import socket
from pathlib import Path
from typing import Final

from linkspan.sdk import mountinfo, syscalls
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
)
from linkspan.sdk.values import frozen

# sys/mount.h; a name that clears what is the default anyway has 0
_FLAGS: Final = {
    "ro": MS_RDONLY,
    "rw": 0,
    "nosuid": MS_NOSUID,
    "suid": 0,
    "nodev": MS_NODEV,
    "dev": 0,
    "noexec": MS_NOEXEC,
    "exec": 0,
    "sync": 16,
    "async": 0,
    "dirsync": 128,
    "noatime": 1024,
    "nodiratime": 2048,
    "relatime": 1 << 21,
    "strictatime": 1 << 24,
    "bind": MS_BIND,
    "rbind": MS_BIND | MS_REC,
    "defaults": 0,
}

_NEEDS: Final = {"type": ("device",), "device": ("type",), "o": ("device", "type")}
"""Option → those that must stand with it, as in Docker."""
_FROM_SERVERS: Final = ("nfs", "nfs4", "cifs", "smb3")


@frozen(kw_only=True)
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
    """
    for name in options:
        if name == "size":
            raise InvalidArgument(
                "quota size requested but no quota support",
                code="no_quota",
                help="for a volume in memory: --opt type=tmpfs --opt device=tmpfs --opt o=size=64m",
            )
        if name not in _NEEDS:
            raise InvalidArgument(
                f'invalid option: "{name}"',
                code="unknown_volume_option",
                details={"option": name},
                help="volumes on this machine know the options type, device and o",
            )
    if not any(options.values()):
        return None
    fstype, device, words = (options.get(name, "") for name in ("type", "device", "o"))
    flags, data = _split_words(words)
    binds = bool(flags & MS_BIND)
    for name, needed in _NEEDS.items():
        for other in needed:
            # A bind says with its ``o`` of which type it is.
            known = options.get(other) or (other == "type" and binds)
            if options.get(name) and not known:
                raise InvalidArgument(
                    f'missing required option: "{other}"',
                    code="bad_volume_options",
                    help="for example: --opt type=none --opt o=bind --opt device=/srv/data",
                )
    if binds or fstype in ("none", "bind"):
        if not binds:
            flags |= MS_BIND
        if not device.startswith("/"):
            raise InvalidArgument(
                f"device '{device}' of a bind volume is not an absolute path",
                code="bad_volume_options",
            )
        return DeviceMount(fstype="none", device=device, flags=flags, data="")
    if fstype in _FROM_SERVERS and not any(word.startswith("addr=") for word in data.split(",")):
        raise InvalidArgument(
            f"a volume of type {fstype} needs the address of its server",
            code="bad_volume_options",
            help="--opt o=addr=192.0.2.1,rw --opt device=:/path",
        )
    return DeviceMount(fstype=fstype, device=device, flags=flags, data=data)


def _with_numeric_address(data: str) -> str:
    """``addr=`` with the address of a host that is named there: the kernel knows no names.

    Raises:
        OSError: The name cannot be resolved.
    """
    words = []
    for word in data.split(","):
        key, equals, value = word.partition("=")
        if key == "addr":
            word = key + equals + str(socket.getaddrinfo(value, None)[0][4][0])
        words.append(word)
    return ",".join(words)


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
    wanted = str(folder.resolve())
    return any(mount.target == wanted for mount in mountinfo.mounts())


def mount(what: DeviceMount, target: Path) -> None:
    """Mount it.

    Raises:
        OSError: As mount(2).
    """
    data = what.data
    if what.fstype in _FROM_SERVERS:
        data = _with_numeric_address(data)
    syscalls.mount(what.device, target, what.fstype, what.flags, data)
    if what.flags & MS_BIND and what.flags & ~(MS_BIND | MS_REC):
        # A bind takes no other flags; they need a second call.
        syscalls.mount("none", target, "", (what.flags & ~MS_REC) | MS_REMOUNT)


def bind(source: str, target: Path) -> None:
    """Mount a folder or file, with what is mounted below it, at another place.

    Raises:
        OSError: As mount(2).
    """
    syscalls.mount(source, target, "", MS_BIND | MS_REC)


def unmount(target: Path) -> None:
    """Take it away; whoever still has files open keeps them.

    Raises:
        OSError: As umount(2).
    """
    syscalls.unmount(target, syscalls.MNT_DETACH)
