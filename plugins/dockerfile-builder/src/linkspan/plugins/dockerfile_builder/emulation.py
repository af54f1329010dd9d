"""Whether this machine runs programs of another platform: by itself, or by a handler of binfmt_misc."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from linkspan.sdk.model.image import Platform
from linkspan.sdk.platform import host_platform, normalize_platform

BINFMT: Final = Path("/proc/sys/fs/binfmt_misc")
_NATIVE: Final = frozenset({("amd64", "386"), ("arm64", "arm")})
"""Architectures whose kernel also runs another one."""
_ELF: Final = {
    "386": (1, "<", 3),
    "amd64": (2, "<", 62),
    "arm": (1, "<", 40),
    "arm64": (2, "<", 183),
    "loong64": (2, "<", 258),
    "mips64le": (2, "<", 8),
    "ppc64le": (2, "<", 21),
    "riscv64": (2, "<", 243),
    "s390x": (2, ">", 22),
}
"""Class (32 or 64 bits), byte order and ``e_machine`` of a program's head."""


def runs_here(platform: Platform, *, folder: Path = BINFMT) -> bool:
    """Whether the kernel can start a platform's programs. Blocks for a moment.

    Args:
        platform: Normalised.
        folder: Where handlers are registered.
    """
    host = normalize_platform(host_platform())
    if platform.os != host.os:
        return False
    if platform.architecture == host.architecture:
        return True
    if (host.architecture, platform.architecture) in _NATIVE:
        return True
    head = _head(platform.architecture)
    return head is not None and any(_takes(entry, head) for entry in _handlers(folder))


def _head(architecture: str) -> bytes | None:
    """The first bytes of a program."""
    if architecture not in _ELF:
        return None
    kind, order, machine = _ELF[architecture]
    ident = bytes([0x7F, *b"ELF", kind, 1 if order == "<" else 2, 1])
    return ident.ljust(16, b"\0") + struct.pack(f"{order}HH", 2, machine)


def _handlers(folder: Path) -> Iterator[dict[str, str]]:
    try:
        files = [each for each in folder.iterdir() if each.name not in ("register", "status")]
        if (folder / "status").read_text().strip() != "enabled":
            return
    except OSError:
        return
    for file in files:
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue  # it was taken away just now
        yield {"enabled": "no", **dict((line + " ").split(" ", 1) for line in lines)}


def _takes(handler: dict[str, str], head: bytes) -> bool:
    if handler["enabled"] == "no" or "magic" not in handler:
        return False
    try:
        offset = int(handler.get("offset", "0"))
        magic = bytes.fromhex(handler["magic"])
        mask = bytes.fromhex(handler.get("mask", "")) or b"\xff" * len(magic)
    except ValueError:
        return False
    shown = head[offset : offset + len(magic)]
    return len(shown) == len(magic) and all(
        byte & bits == want & bits for byte, want, bits in zip(shown, magic, mask, strict=False)
    )
