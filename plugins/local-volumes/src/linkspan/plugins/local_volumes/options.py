"""What ``--opt type=… device=… o=…`` means (Docker's local driver)."""

from collections.abc import Mapping

import attrs

from linkspan.sdk.errors import InvalidArgument

KNOWN = ("type", "device", "o")
_FLAGS = {"ro": 0x1, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8, "noatime": 0x400}
_BIND = 0x1000
_RECURSIVE = 0x4000


@attrs.frozen(kw_only=True)
class MountOrder:
    """A mount(2) to make when the volume is used.

    Attributes:
        flags: MS_* bits.
        data: What the file system itself reads, ``size=64m``.
    """

    type: str
    device: str
    flags: int
    data: str


def parse_options(options: Mapping[str, str]) -> MountOrder | None:
    """The mount that the options ask for; None for a plain folder.

    Raises:
        InvalidArgument: An unknown option or type, or one without what it needs.
    """
    unknown = sorted(set(options) - set(KNOWN))
    if unknown:
        raise InvalidArgument(
            f'create: invalid option: "{unknown[0]}"',
            help=f"options of a local volume: {', '.join(KNOWN)}",
        )
    if not options:
        return None
    words = [word for word in options.get("o", "").split(",") if word]
    kind, device = options.get("type", ""), options.get("device", "")
    if "bind" in words or "rbind" in words or kind == "bind":
        if not device.startswith("/"):
            raise InvalidArgument("a bind volume needs device=/absolute/path")
        words = [word for word in words if word not in ("bind", "rbind")]
        flags, data = _flags(words)
        return MountOrder(type="bind", device=device, flags=flags | _BIND | _RECURSIVE, data=data)
    if kind == "tmpfs":
        flags, data = _flags(words)
        return MountOrder(type="tmpfs", device=device or "tmpfs", flags=flags, data=data)
    if kind in ("", "none"):
        raise InvalidArgument("missing required option: 'type' (tmpfs, or o=bind with a device)")
    raise InvalidArgument(
        f"volumes of type '{kind}' are not supported", help="type=tmpfs, or o=bind,device=/path"
    )


def _flags(words: list[str]) -> tuple[int, str]:
    flags, data = 0, []
    for word in words:
        if word in _FLAGS:
            flags |= _FLAGS[word]
        elif word not in ("rw", "defaults"):
            data.append(word)
    return flags, ",".join(data)
