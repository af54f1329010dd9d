"""Platforms: parse what people write, normalise, and choose from an index (containerd/platforms).

``linux/amd64``, ``linux/arm/v7``, ``windows(10.0.17763)/amd64``, ``arm64``, ``linux``.
"""

import os
import re
from collections.abc import Sequence
from typing import TypeVar

import attrs

from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.sdk.media_types import INDEXES, MANIFESTS
from linkspan.sdk.model.image import Descriptor, Platform

T = TypeVar("T")

_OS = re.compile(r"([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)\))?")
_COMPONENT = re.compile(r"[A-Za-z0-9_.-]+")
_KNOWN_OS = frozenset(
    [
        "aix",
        "android",
        "darwin",
        "dragonfly",
        "freebsd",
        "hurd",
        "illumos",
        "ios",
        "js",
        "linux",
        "nacl",
        "netbsd",
        "openbsd",
        "plan9",
        "solaris",
        "wasi",
        "windows",
        "zos",
    ]
)
_KNOWN_ARCHITECTURES = frozenset(
    [
        "386",
        "amd64",
        "amd64p32",
        "arm",
        "armbe",
        "arm64",
        "arm64be",
        "loong64",
        "mips",
        "mipsle",
        "mips64",
        "mips64le",
        "mips64p32",
        "mips64p32le",
        "ppc",
        "ppc64",
        "ppc64le",
        "riscv",
        "riscv64",
        "s390",
        "s390x",
        "sparc",
        "sparc64",
        "wasm",
    ]
)
_VARIANT_VERSION = re.compile(r"v([0-9]+)")


def _os_name(text: str) -> str:
    lowered = text.lower()
    return "darwin" if lowered == "macos" else lowered


def _architecture(architecture: str, variant: str) -> tuple[str, str]:
    """Aliases and default variants, as containerd's ``normalizeArch``."""
    architecture, variant = architecture.lower(), variant.lower()
    match architecture:
        case "i386":
            return "386", ""
        case "x86_64" | "x86-64" | "amd64":
            return "amd64", "" if variant == "v1" else variant
        case "aarch64" | "arm64":
            return "arm64", "" if variant in ("8", "v8") else variant
        case "armhf":
            return "arm", "v7"
        case "armel":
            return "arm", "v6"
        case "arm":
            if variant in ("", "7"):
                return "arm", "v7"
            return "arm", f"v{variant}" if variant in ("5", "6", "8") else variant
        case _:
            return architecture, variant


def normalize_platform(platform: Platform) -> Platform:
    """One spelling for each platform: ``arm`` becomes ``arm/v7``, ``arm64/v8`` becomes ``arm64``."""
    architecture, variant = _architecture(platform.architecture, platform.variant)
    return attrs.evolve(
        platform, os=_os_name(platform.os), architecture=architecture, variant=variant
    )


def host_platform() -> Platform:
    """What this machine runs."""
    uname = os.uname()
    machine = uname.machine
    variant = ""
    if machine.startswith("armv"):
        machine, variant = "arm", f"v{machine[4:5]}"
    architecture, variant = _architecture(machine, variant)
    return Platform(os=_os_name(uname.sysname), architecture=architecture, variant=variant)


def parse_platform(text: str, *, host: Platform | None = None) -> Platform:
    """Parse ``os[(version)]/arch[/variant]``, ``os`` or ``arch``; what is missing is the host's.

    The result says what was written; compare platforms after ``normalize_platform``.

    Raises:
        InvalidArgument: code ``invalid_platform``.
    """
    parts = text.split("/")
    if "*" in text:
        raise _invalid(f'"{text}": wildcards are not supported in a platform')
    if len(parts) > 3:
        raise _invalid(f'"{text}": cannot parse platform specifier: invalid argument')
    for part in parts[1:]:
        if _COMPONENT.fullmatch(part) is None:
            raise _invalid(f'"{part}" is an invalid component of platform "{text}"')
    first = _OS.fullmatch(parts[0])
    if first is None:
        raise _invalid(f'"{parts[0]}" is an invalid OS component of platform "{text}"')
    if len(parts) == 1:
        return _one_word(first, host or host_platform())
    return _with_architecture(first, parts[1:])


def _one_word(match: re.Match[str], host: Platform) -> Platform:
    name = _os_name(match[1])
    if name in _KNOWN_OS:
        return Platform(
            os=name,
            architecture=host.architecture,
            variant="" if host.variant == "v7" else host.variant,
            os_version=match[2] or "",
        )
    architecture, variant = _architecture(match[1], "")
    if architecture not in _KNOWN_ARCHITECTURES:
        raise _invalid(f'"{match[0]}": unknown operating system or architecture: invalid argument')
    return Platform(
        os=host.os, architecture=architecture, variant="" if variant == "v7" else variant
    )


def _with_architecture(match: re.Match[str], rest: Sequence[str]) -> Platform:
    written = rest[1] if len(rest) == 2 else ""
    architecture, variant = _architecture(rest[0], written)
    if len(rest) == 1 and (architecture, variant) == ("arm", "v7"):
        variant = ""
    if len(rest) == 2 and architecture == "arm64" and not variant:
        variant = "v8"
    return Platform(
        os=_os_name(match[1]),
        architecture=architecture,
        variant=variant,
        os_version=match[2] or "",
    )


def _invalid(why: str) -> InvalidArgument:
    return InvalidArgument(
        why, code="invalid_platform", help="write os/architecture, for example linux/amd64"
    )


def _acceptable(wanted: Platform, *, strict: bool) -> list[Platform]:
    """What runs where ``wanted`` is asked for, best first, normalised."""
    wanted = normalize_platform(wanted)
    found = [wanted]
    if strict:
        return found

    def lower(architecture: str, start: int, floor: int) -> None:
        for version in range(start, floor - 1, -1):
            variant = f"v{version}"
            found.append(
                normalize_platform(attrs.evolve(wanted, architecture=architecture, variant=variant))
            )

    number = _VARIANT_VERSION.fullmatch(wanted.variant)
    version = int(number[1]) if number and len(number[1]) <= 2 else 0
    match wanted.architecture:
        case "amd64":
            lower("amd64", version - 1, 1)
            found.append(attrs.evolve(wanted, architecture="386", variant=""))
        case "arm64":
            lower("arm64", version - 1, 8)
            lower("arm", 8, 5)
        case "arm":
            lower("arm", version - 1, 5)
        case _:
            pass
    return found


def _same(wanted: Platform, candidate: Platform) -> bool:
    if attrs.evolve(wanted, os_version="") != attrs.evolve(candidate, os_version=""):
        return False
    if wanted.os != "windows" or not wanted.os_version:
        return True
    # Windows containers need the host's build; the fourth number (the revision) may differ.
    return wanted.os_version.split(".")[:3] == candidate.os_version.split(".")[:3]


def match_rank(wanted: Platform, candidate: Platform, *, strict: bool = False) -> int | None:
    """How well a candidate serves: 0 is best, None is not at all. ``unknown/unknown`` never serves."""
    candidate = normalize_platform(candidate)
    if candidate.os == "unknown":
        return None
    for rank, platform in enumerate(_acceptable(wanted, strict=strict)):
        if _same(platform, candidate):
            return rank
    return None


def other_platform(
    ref: str,
    actual: Platform,
    wanted: Platform,
    *,
    code: str,
    help: str = "",  # noqa: A002 - the field's name in every error shape of ours
) -> NotFound:
    """The error for an image that is there, for another platform than was asked for."""
    return NotFound(
        f"image with reference {ref} was found but its platform ({actual}) does not match the specified"
        f" platform ({wanted})",
        code=code,
        help=help,
    )


def rank_platforms(
    wanted: Platform, candidates: Sequence[tuple[Platform, T]], *, strict: bool = False
) -> list[T]:
    """What serves the wanted platform, best first; ties keep their order."""
    ranked = [
        (rank, value)
        for platform, value in candidates
        if (rank := match_rank(wanted, platform, strict=strict)) is not None
    ]
    ranked.sort(key=lambda pair: pair[0])
    return [value for _, value in ranked]


def select_manifest(
    wanted: Platform, descriptors: Sequence[Descriptor], *, strict: bool = False
) -> Descriptor | None:
    """The entry of an index to use for a platform, or None.

    An entry without a platform (a nested index, or an image whose index does not say) serves only
    when no entry with a platform does. Entries that are neither manifest nor index are passed over.
    """
    usable = [d for d in descriptors if d.media_type in INDEXES + MANIFESTS]
    best = rank_platforms(
        wanted, [(d.platform, d) for d in usable if d.platform is not None], strict=strict
    )
    if best:
        return best[0]
    return next((d for d in usable if d.platform is None), None)
