"""``Privileges`` of a service's containers between JSON and security options, as containers have them."""

import base64
import binascii
from collections.abc import Iterable, Iterator
from typing import Any

from linkspan.plugins.docker_api.document import Document
from linkspan.sdk.errors import InvalidArgument

_LABELS = ("User", "Role", "Type", "Level")


def decode_privileges(body: Document) -> tuple[str, ...]:
    """The security options that say the same; what is Windows' is ignored, as Docker does here.

    Raises:
        InvalidArgument: A mode is unknown, or a profile is not base64.
    """
    return (
        *_seccomp(body.document("Seccomp")),
        *_apparmor(body.document("AppArmor")),
        *_selinux(body.document("SELinuxContext")),
        *(("no-new-privileges",) if body.flag("NoNewPrivileges") else ()),
    )


def _seccomp(body: Document) -> Iterator[str]:
    match body.text("Mode"):
        case "" | "default":
            return
        case "unconfined":
            yield "seccomp=unconfined"
        case "custom":
            try:
                profile = base64.b64decode(body.text("Profile"), validate=True).decode()
            except (binascii.Error, UnicodeDecodeError) as error:
                raise InvalidArgument(f"{body.at('Profile')} is not base64 of a profile") from error
            yield f"seccomp={profile}"
        case other:
            raise InvalidArgument(f"unknown seccomp mode: {other}")


def _apparmor(body: Document) -> Iterator[str]:
    match body.text("Mode"):
        case "" | "default":
            return
        case "disabled":
            yield "apparmor=unconfined"
        case other:
            raise InvalidArgument(f"unknown AppArmor mode: {other}")


def _selinux(body: Document) -> Iterator[str]:
    if body.flag("Disable"):
        yield "label=disable"
    for name in _LABELS:
        if body.text(name):
            yield f"label={name.lower()}:{body.text(name)}"


def encode_privileges(options: Iterable[str]) -> dict[str, Any]:
    """Privileges; empty if the options say nothing that has a place there."""
    out: dict[str, Any] = {}
    for option in options:
        name, _, value = option.partition("=")
        match name:
            case "no-new-privileges":
                out["NoNewPrivileges"] = True
            case "apparmor":
                out["AppArmor"] = {"Mode": "disabled"}
            case "seccomp" if value == "unconfined":
                out["Seccomp"] = {"Mode": "unconfined"}
            case "seccomp":
                profile = base64.b64encode(value.encode()).decode()
                out["Seccomp"] = {"Mode": "custom", "Profile": profile}
            case "label":
                kind, _, text = value.partition(":")
                shown = {"Disable": True} if kind == "disable" else {kind.capitalize(): text}
                out.setdefault("SELinuxContext", {}).update(shown)
            case _:
                pass
    return out
