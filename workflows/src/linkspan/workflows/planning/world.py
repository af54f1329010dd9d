"""What a run needs of the world: secrets with values, images, free ports, room on the disk."""

import errno
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import trio

from linkspan.sdk.drivers.registry import Registry
from linkspan.sdk.errors import (
    LinkspanError,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from linkspan.sdk.host import Host
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.reference import Reference, parse_reference
from linkspan.sdk.units import format_size
from linkspan.workflows.model import Secret
from linkspan.workflows.secret_values import is_there, source_of

REGISTRY_LIMIT_S: Final = 10.0
LOW_DISK_BYTES: Final = 256 * 1024 * 1024
"""Less than this left, and a run will fail somewhere soon."""
_PORT: Final = re.compile(
    r"(?:(?P<host>[0-9.]+|\[[0-9a-fA-F:]+\]):)?(?P<port>\d{1,5}):\d{1,5}(?:/(?P<kind>tcp|udp))?"
)


async def missing_secret(host: Host, secret: Secret) -> str:
    """Why a secret cannot be had; empty if it can."""
    try:
        there = await is_there(host, source_of(secret))
    except LinkspanError as error:
        return f"secret '{secret.name}' cannot be read: {error.message}"
    if there or not secret.required:
        return ""
    return f"secret '{secret.name}' has no value in '{secret.provider}'"


def full_name(name: str) -> str:
    """An image's name with what it leaves out; itself where it is none."""
    try:
        return parse_reference(name).with_default_tag().familiar
    except LinkspanError:
        return name


class Images:
    """Which images are here, and which a registry has; each is asked for once."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._answers: dict[str, tuple[str, str]] = {}
        self._pushes: dict[str, str] = {}

    async def look(self, name: str) -> tuple[str, str]:
        """``(fault, detail)``: why an image cannot be had, or else where it comes from."""
        if name not in self._answers:
            self._answers[name] = await self._look(name)
        return self._answers[name]

    async def _look(self, name: str) -> tuple[str, str]:
        try:
            image = self._host.engine.images.inspect(name)
        except NotFound:
            pass
        except LinkspanError as error:
            return error.message, ""
        else:
            return "", image.id
        try:
            digest = await self._ask(name)
        except NotFound as error:
            return f"it is not here, and not in its registry ({error.message})", ""
        except LinkspanError as error:
            return f"it is not here, and {error.message}", ""
        return "", f"pulled, {digest}"

    async def destination(self, name: str) -> str:
        """Why an image cannot be pushed under a name; empty if its registry lets us."""
        try:
            reference = parse_reference(name)
        except LinkspanError as error:
            return error.message
        if reference.name not in self._pushes:
            self._pushes[reference.name] = await self._push_fault(reference)
        return self._pushes[reference.name]

    async def _push_fault(self, reference: Reference) -> str:
        registry: Registry[Any] = self._host.driver("registry")
        login = f"linkspan login {reference.domain}"
        try:
            with trio.fail_after(REGISTRY_LIMIT_S):
                await registry.check_push(reference, Credentials())
        except trio.TooSlowError:
            return f"its registry was silent for {REGISTRY_LIMIT_S:g}s"
        except (Unauthenticated, PermissionDenied):
            if await registry.remembers(reference.domain):
                return f"the login at its registry may not push there: {login} as somebody who may"
            return f"its registry wants a login: {login}"
        except Unavailable as error:
            return f"its registry cannot be asked ({error.message})"
        except LinkspanError as error:
            return f"its registry takes nothing ({error.message})"
        return ""

    async def _ask(self, name: str) -> str:
        """The digest that a registry has under a name.

        Raises:
            NotFound: It has none.
            LinkspanError: It cannot be asked; the message goes on from "it is not here, and".
        """
        reference = parse_reference(name).with_default_tag()
        registry: Registry[Any] = self._host.driver("registry")
        try:
            with trio.fail_after(REGISTRY_LIMIT_S):
                manifest = await registry.manifest(reference, Credentials())
        except trio.TooSlowError:
            raise Unavailable(f"its registry was silent for {REGISTRY_LIMIT_S:g}s") from None
        except (Unauthenticated, PermissionDenied) as error:
            words = f"its registry wants a login: linkspan login {reference.domain}"
            raise Unauthenticated(words) from error
        except NotFound:
            raise
        except LinkspanError as error:
            raise Unavailable(f"its registry cannot be asked ({error.message})") from error
        return manifest.descriptor.digest


def published(text: str) -> tuple[str, int, str] | None:
    """Address, port and protocol that a ``8080:80`` entry publishes; None if it chooses itself."""
    match = _PORT.fullmatch(text)
    if match is None or int(match["port"]) == 0:
        return None
    return (match["host"] or "").strip("[]"), int(match["port"]), match["kind"] or "tcp"


def port_taken(address: str, port: int, kind: str) -> str:
    """Why a port of this machine cannot be published; empty if it can. Blocks for a moment."""
    if port > 65535:
        return f"there is no port {port}"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as probe:
        if kind == "tcp":
            # Connections that have just ended keep no one from listening.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"port {port}/{kind} is taken"
            if error.errno == errno.EADDRNOTAVAIL:
                return f"this machine has no address {address}"
            if error.errno != errno.EACCES:
                return f"port {port}/{kind} cannot be opened: {error.strerror}"
    return ""


def disk_fault(folder: Path, workspace: Path, files: tuple[str, ...] | None, copies: int) -> str:
    """Why the disk is too small for the workspaces of a run; empty if it is not. Blocks."""
    free = shutil.disk_usage(folder).free
    needed = sum(_sizes(workspace, files)) * copies
    if free - needed >= LOW_DISK_BYTES:
        return ""
    words = f"{format_size(free)} are free in {folder}"
    if needed > free:
        return f"{words}; {copies} copies of the workspace take {format_size(needed)}"
    return f"{words}, and {format_size(needed)} of it go to the workspaces"


def _sizes(workspace: Path, files: tuple[str, ...] | None) -> Iterator[int]:
    if files is not None:
        for name in files:
            try:
                yield (workspace / name).lstat().st_size
            except OSError:
                continue
        return
    for folder, _, names in os.walk(workspace):
        for name in names:
            try:
                yield Path(folder, name).lstat().st_size
            except OSError:
                continue
