"""A container as it is becomes an image."""

import copy
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any

import trio

from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.entry import Entry, refuse_if_removing
from linkspan.core.engine.files import MOUNT_POINTS
from linkspan.core.engine.images import ImageStore, tag_names
from linkspan.core.engine.lifecycle import Lifecycle
from linkspan.sdk.clock import rfc3339
from linkspan.sdk.drivers.runtime import RuntimeCap
from linkspan.sdk.errors import Conflict
from linkspan.sdk.host import CommitSpec, NewImage
from linkspan.sdk.image_config import healthcheck_document
from linkspan.sdk.model.container import Container, ContainerStatus
from linkspan.sdk.model.image import Image, ImageConfig
from linkspan.sdk.reference import parse_reference

EMPTY_DIFF_ID = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
"""Of a tar without entries: 1024 zero bytes."""

# What Docker's classic builder wrote about its own containers, and who made the base.
_DROPPED = (
    "container",
    "container_config",
    "docker_version",
    "id",
    "parent",
    "throwaway",
    "author",
)


class Committer:
    """Makes images of containers."""

    def __init__(self, drivers: Drivers, images: ImageStore, lifecycle: Lifecycle) -> None:
        self._drivers = drivers
        self._images = images
        self._life = lifecycle

    async def commit(self, entry: Entry, spec: CommitSpec) -> Image:
        """See ``linkspan.sdk.host.Containers.commit``."""
        base = self._images.inspect(entry.container.image_id)
        section = {**_section(entry.container, base.config), **_given(spec.config)}
        if spec.changes:
            section = self._drivers.get("builder").change_config(section, spec.changes)
        tags = [spec.reference] if spec.reference else []
        tag_names(tags)
        with self._images.lease(base.chain_ids):
            layer = await self._layer(entry, base, pause=spec.pause)
            chains = base.chain_ids
            diff_ids = base.config.diff_ids
            if layer.diff_id == EMPTY_DIFF_ID:
                # Somebody may have such a layer; then it stays.
                with suppress(Conflict):
                    await self._drivers.snapshots.remove_layer(layer.name)
            else:
                chains, diff_ids = (*chains, layer.name), (*diff_ids, layer.diff_id)
            with self._images.lease(chains):
                document = _document(entry.container, base, spec, section, diff_ids)
                data = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
                image = await self._images.add_new(
                    NewImage(
                        config=data.encode("utf-8", "surrogateescape"),
                        chain_ids=chains,
                        parent=base.id,
                    ),
                    tags=tags,
                )
        shown = parse_reference(spec.reference).familiar if spec.reference else ""
        facts = {"imageID": image.id, "imageRef": shown, "comment": spec.message}
        self._life.tell("commit", entry.container, **facts)
        return image

    async def _layer(self, entry: Entry, base: Image, *, pause: bool) -> Any:
        """Its own content as a layer; nothing runs in it meanwhile, unless that is wanted."""
        async with AsyncExitStack() as stack:
            async with entry.lock:
                refuse_if_removing(entry)
                can_pause = RuntimeCap.PAUSE in self._drivers.runtime.capabilities
                if pause and can_pause and entry.status is ContainerStatus.RUNNING:
                    await self._drivers.runtime.pause(entry.container.id)
                    self._life.tell("pause", entry.container)
                    stack.push_async_callback(self._thaw, entry)
            return await self._drivers.snapshots.commit(
                entry.container.id,
                parent=base.chain_ids[-1] if base.chain_ids else "",
                keep=True,
                ignore=MOUNT_POINTS,
            )

    async def _thaw(self, entry: Entry) -> None:
        with trio.CancelScope(shield=True):
            async with entry.lock:
                if entry.status is ContainerStatus.RUNNING:
                    await self._drivers.runtime.resume(entry.container.id)
                    self._life.tell("unpause", entry.container)


def _section(container: Container, config: ImageConfig) -> dict[str, Any]:
    """The ``config`` of an image that would run as this container does."""
    spec = container.spec
    section: dict[str, Any] = copy.deepcopy(dict(config.raw.get("config") or {}))
    section.pop("OnBuild", None)
    section["User"] = container.user
    section["WorkingDir"] = container.working_dir if spec.working_dir or config.working_dir else ""
    section["Env"] = _environment(config.env, spec.env)
    if spec.entrypoint is not None:
        entrypoint = () if spec.entrypoint == ("",) else spec.entrypoint
        section["Entrypoint"] = list(entrypoint) or None
        section["Cmd"] = list(spec.command or ()) or None
    elif spec.command is not None:
        section["Cmd"] = list(spec.command)
    section["Labels"] = dict(container.labels)
    section["ExposedPorts"] = {port: {} for port in container.exposed_ports}
    section["Volumes"] = {path: {} for path in (*config.volumes, *spec.volumes)}
    if spec.stop_signal:
        section["StopSignal"] = spec.stop_signal
    check = container.healthcheck or spec.healthcheck
    if check is not None:
        section["Healthcheck"] = healthcheck_document(check)
    return {key: value for key, value in section.items() if value not in (None, "", {}, [])}


def _environment(of_image: tuple[str, ...], own: tuple[str, ...]) -> list[str]:
    env: dict[str, str] = {}
    for entry in (*of_image, *own):
        key, equals, _ = entry.partition("=")
        if equals:
            env[key] = entry
        else:
            env.pop(key, None)
    return list(env.values())


def _given(config: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (config or {}).items() if value not in (None, "", {}, [])}


def _document(
    container: Container,
    base: Image,
    spec: CommitSpec,
    section: Mapping[str, Any],
    diff_ids: tuple[str, ...],
) -> dict[str, Any]:
    document = copy.deepcopy(dict(base.config.raw))
    for key in _DROPPED:
        document.pop(key, None)
    created = rfc3339()
    step: dict[str, Any] = {"created": created, "created_by": " ".join(container.args)}
    if spec.author:
        step["author"] = spec.author
    if spec.message:
        step["comment"] = spec.message
    if diff_ids == base.config.diff_ids:
        step["empty_layer"] = True
    document |= {
        "created": created,
        "architecture": base.config.platform.architecture,
        "os": base.config.platform.os,
        "config": dict(section),
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [*(base.config.raw.get("history") or []), step],
    }
    if spec.author:
        document["author"] = spec.author
    return document
