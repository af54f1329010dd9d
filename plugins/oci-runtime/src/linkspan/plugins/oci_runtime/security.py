"""``--security-opt``: what it says, and what of it this kernel can do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from linkspan.plugins.oci_runtime import seccomp
from linkspan.sdk.drivers.runtime import CreateRequest
from linkspan.sdk.errors import InvalidArgument

_APPARMOR: Final = Path("/sys/module/apparmor/parameters/enabled")
# Go's strconv.ParseBool.
_TRUE: Final = ("1", "t", "T", "true", "TRUE", "True")
_FALSE: Final = ("0", "f", "F", "false", "FALSE", "False")


@attrs.frozen(kw_only=True)
class Security:
    """What ``security_opt`` says.

    Attributes:
        seccomp: ``builtin``, ``unconfined``, or a profile's JSON text.
        apparmor: Name of a profile that is loaded, or ``unconfined``; empty if nothing is said.
    """

    seccomp: str = "builtin"
    apparmor: str = ""
    no_new_privileges: bool = False
    system_paths_unconfined: bool = False
    writable_cgroups: bool = False


def parse_security(options: Sequence[str], *, no_new_privileges: bool = False) -> Security:
    """Read ``--security-opt``.

    SELinux's labels are taken and have no effect, as with a dockerd that is not told to use SELinux.

    Raises:
        InvalidArgument: An unknown option; in Docker's words.
    """
    found: dict[str, Any] = {"no_new_privileges": no_new_privileges}
    for option in options:
        # Docker still takes the old form with a colon.
        key, sign, value = option.partition("=")
        if not sign or ":" in key:
            key, sign, value = option.partition(":")
        match key:
            case "no-new-privileges":
                found["no_new_privileges"] = _boolean(option, value or "true")
            case "writable-cgroups":
                found["writable_cgroups"] = _boolean(option, value or "true")
            case "disable" if not sign:
                pass
            case _ if not sign:
                raise _invalid(1, option)
            case "seccomp":
                found["seccomp"] = value or "builtin"
            case "apparmor":
                found["apparmor"] = value
            case "label":
                pass
            case "systempaths" if value == "unconfined":
                found["system_paths_unconfined"] = True
            case _:
                raise _invalid(2, option)
    return Security(**found)


def _boolean(option: str, text: str) -> bool:
    if text not in (*_TRUE, *_FALSE):
        raise _invalid(2, option)
    return text in _TRUE


def _invalid(kind: int, option: str) -> InvalidArgument:
    return InvalidArgument(
        f'invalid --security-opt {kind}: "{option}"',
        code="unknown_security_option",
        details={"option": option},
        help="known: seccomp=…, no-new-privileges, systempaths=unconfined, writable-cgroups, "
        "apparmor=…, label=…",
    )


def apparmor_is_on() -> bool:
    """Whether the kernel confines by AppArmor's profiles."""
    try:
        return _APPARMOR.read_text().startswith("Y")
    except OSError:
        return False


def seccomp_of(
    security: Security, request: CreateRequest, caps: Sequence[str], default: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The container's ``linux.seccomp``; None for unconfined ones.

    Raises:
        InvalidArgument: A profile that cannot be read.
    """
    if request.privileged or security.seccomp == "unconfined":
        return None
    profile = default if security.seccomp == "builtin" else seccomp.parse_profile(security.seccomp)
    return seccomp.resolve(profile, caps)
