"""Seccomp: profiles in Docker's format resolved to the runtime-spec's ``linux.seccomp``, and compiled filters.

A profile's rules may depend on the architecture, the kernel and the container's capabilities
(``includes`` and ``excludes``; see Docker's documentation, "Seccomp security profiles for Docker").

Compiling a filter takes libseccomp 6.5 ms, more than all the rest of a start. crun takes a compiled one
from the annotation ``run.oci.seccomp_bpf_data``, and leaves the one it compiled itself as ``seccomp.bpf``
in its state folder. So each filter is compiled once and kept by the digest of all that went into it.
"""

import base64
import contextlib
import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

import attrs
import orjson

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.files import replace_file
from linkspan.sdk.values import define

ANNOTATION: Final = "run.oci.seccomp_bpf_data"

# uname machine → name in profiles, and libseccomp's name.
_ARCHITECTURES: Final[Mapping[str, tuple[str, str]]] = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "i686": ("x86", "SCMP_ARCH_X86"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
}


def default_profile() -> dict[str, Any]:
    """The profile in the box."""
    text = resources.files(__package__).joinpath("seccomp-default.json").read_bytes()
    profile: dict[str, Any] = orjson.loads(text)
    return profile


def parse_profile(text: str) -> dict[str, Any]:
    """Read a profile.

    Raises:
        InvalidArgument: It is not JSON, or lacks ``defaultAction``.
    """
    try:
        profile = json.loads(text)
    except ValueError as exc:
        raise InvalidArgument(
            f"the seccomp profile is not valid JSON: {exc}", code="bad_seccomp_profile"
        ) from exc
    if not isinstance(profile, dict) or not isinstance(profile.get("defaultAction"), str):
        raise InvalidArgument(
            "the seccomp profile has no defaultAction",
            code="bad_seccomp_profile",
            help='a profile that allows everything: {"defaultAction": "SCMP_ACT_ALLOW"}',
        )
    return profile


def resolve(
    profile: Mapping[str, Any],
    capabilities: Iterable[str],
    *,
    machine: str | None = None,
    kernel: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Make ``linux.seccomp`` (runtime-spec config-linux.md "Seccomp") of a profile."""
    arch, scmp_arch = _ARCHITECTURES.get(machine or platform.machine(), ("", ""))
    running = kernel or kernel_version()
    held = frozenset(capabilities)
    section: dict[str, Any] = {"defaultAction": profile["defaultAction"]}
    if profile.get("defaultErrnoRet") is not None:
        section["defaultErrnoRet"] = profile["defaultErrnoRet"]
    if profile.get("flags"):
        section["flags"] = profile["flags"]
    architectures = profile.get("architectures") or [
        name
        for entry in profile.get("archMap") or ()
        if entry.get("architecture") == scmp_arch
        for name in (scmp_arch, *(entry.get("subArchitectures") or ()))
    ]
    if architectures:
        section["architectures"] = list(architectures)
    section["syscalls"] = [
        _rule(rule) for rule in profile.get("syscalls") or () if _applies(rule, arch, running, held)
    ]
    return section


def _applies(
    rule: Mapping[str, Any], arch: str, kernel: tuple[int, int], held: frozenset[str]
) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if includes.get("arches") and arch not in includes["arches"]:
        return False
    if arch in (excludes.get("arches") or ()):
        return False
    if any(cap not in held for cap in includes.get("caps") or ()):
        return False
    if any(cap in held for cap in excludes.get("caps") or ()):
        return False
    least = includes.get("minKernel")
    if least and kernel < _version(least):
        return False
    until = excludes.get("minKernel")
    return not (until and kernel >= _version(until))


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "names": list(rule.get("names") or ([rule["name"]] if rule.get("name") else ())),
        "action": rule["action"],
    }
    if rule.get("errnoRet") is not None:
        made["errnoRet"] = rule["errnoRet"]
    if rule.get("args"):
        made["args"] = [
            {key: arg[key] for key in ("index", "value", "valueTwo", "op") if key in arg}
            for arg in rule["args"]
        ]
    return made


def kernel_version() -> tuple[int, int]:
    """Of the kernel that runs."""
    return _version(platform.release())


def _version(text: str) -> tuple[int, int]:
    parts = [part for part in text.replace("-", ".").split(".")[:2] if part.isdecimal()]
    return (int(parts[0]), int(parts[1])) if len(parts) == 2 else (0, 0)


@define
class FilterCache:
    """Compiled filters in a folder, and in memory as the text of the annotation.

    Attributes:
        made_by: Names and versions of the runtime and of libseccomp: part of every key.
    """

    folder: Path
    made_by: str
    _texts: dict[str, str] = attrs.field(factory=dict)

    def key(self, section: Mapping[str, Any]) -> str:
        """Digest of all that decides on the filter."""
        document = orjson.dumps(
            [section, self.made_by, platform.machine()], option=orjson.OPT_SORT_KEYS
        )
        return hashlib.sha256(document).hexdigest()

    def get(self, key: str) -> str | None:
        """The annotation's value, or None if this filter was never compiled; reads a file once."""
        text = self._texts.get(key)
        if text is None:
            try:
                data = (self.folder / key).read_bytes()
            except FileNotFoundError:
                return None
            text = self._texts[key] = base64.b64encode(data).decode()
        return text

    def keep(self, key: str, compiled: Path) -> None:
        """Take over what the runtime compiled; without it (or on a full disk) it is compiled again."""
        with contextlib.suppress(OSError):
            data = compiled.read_bytes()
            if not data or len(data) % 8:  # struct sock_filter has 8 bytes
                return
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self.folder / key, data)
            self._texts[key] = base64.b64encode(data).decode()
