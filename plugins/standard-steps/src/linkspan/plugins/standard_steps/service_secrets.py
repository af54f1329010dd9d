"""Secrets that a deployed service's tasks are given as files: kept by the cluster, one for each value."""

import hashlib
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import attrs
import trio

from linkspan.sdk.drivers.orchestrator import Orchestrator
from linkspan.sdk.errors import Conflict, InvalidArgument, LinkspanError, NotFound
from linkspan.sdk.model.service import FileReference, PayloadSpec, ServiceSpec

SERVICE_LABEL: Final = "linkspan.deploy.service"
"""On a secret of the cluster: the service that a deploy step made it for."""
_FOLDER: Final = "/run/secrets"
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*")
_SCRYPT: Final = {"n": 1 << 14, "r": 8, "p": 1, "dklen": 8}
"""16 MiB and some 50 ms: names tell two values apart, but nobody guesses a value by its name quickly."""


async def wanted_files(service: str, secrets: Mapping[str, str]) -> tuple[FileReference, ...]:
    """Files for a service; what has the same name has the same value. Ids are not known yet.

    Args:
        service: Its name.
        secrets: File name below ``/run/secrets`` → value.

    Raises:
        InvalidArgument: A name is no file name, or a value is empty.
    """
    files = []
    for key, value in secrets.items():
        if _NAME.fullmatch(key) is None:
            raise InvalidArgument(
                f"'{key}' cannot be the name of a secret's file",
                help=f"it becomes {_FOLDER}/NAME: letters, digits and _ . -",
            )
        if not value:
            raise InvalidArgument(f"the secret for {_FOLDER}/{key} is empty")
        mark = await trio.to_thread.run_sync(_mark, service, key, value)
        name = f"{service[:24]}-{key[:20]}-{mark}"
        files.append(FileReference(kind="secret", id="", name=name, target=f"{_FOLDER}/{key}"))
    return tuple(files)


def _mark(service: str, key: str, value: str) -> str:
    salt = f"{service}/{key}".encode()
    return hashlib.scrypt(value.encode(), salt=salt, **_SCRYPT).hex()


async def kept_by_cluster(
    orchestrator: Orchestrator[Any], spec: ServiceSpec, secrets: Mapping[str, str]
) -> ServiceSpec:
    """A spec whose files have ids: secrets that the cluster does not have yet are given to it."""
    found = []
    for file, value in zip(spec.files, secrets.values(), strict=True):
        wanted = PayloadSpec(name=file.name, data=value.encode(), labels={SERVICE_LABEL: spec.name})
        found.append(attrs.evolve(file, id=await _kept(orchestrator, wanted)))
    return attrs.evolve(spec, files=tuple(found))


async def _kept(orchestrator: Orchestrator[Any], wanted: PayloadSpec) -> str:
    try:
        return (await orchestrator.get_payload("secret", wanted.name)).id
    except NotFound:
        pass
    try:
        return (await orchestrator.create_payload("secret", wanted)).id
    except Conflict:
        # Another step was quicker, with the same value.
        return (await orchestrator.get_payload("secret", wanted.name)).id


async def forget_old(
    orchestrator: Orchestrator[Any], service: str, *keep: ServiceSpec | None
) -> None:
    """Take back secrets of a service that none of these specs names; best effort."""
    names: Collection[str] = {file.name for spec in keep if spec for file in spec.files}
    for payload in await orchestrator.list_payloads("secret"):
        mine = payload.spec.labels.get(SERVICE_LABEL) == service
        if mine and payload.spec.name not in names:
            try:
                await orchestrator.remove_payload("secret", payload.id)
            except LinkspanError:
                # Something else uses it by now: it stays.
                continue
