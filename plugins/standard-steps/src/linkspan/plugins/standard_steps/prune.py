"""``prune``: what nobody uses any more, off this machine."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from linkspan.plugins.standard_steps.base import StandardStep
from linkspan.sdk.clock import epoch_ns
from linkspan.sdk.drivers.step import StepContext
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound, PermissionDenied
from linkspan.sdk.model.container import ContainerFilter
from linkspan.sdk.model.step import StepChange, StepIntent, StepOutcome, StepPlan
from linkspan.sdk.values import frozen

_KINDS: Final = ("containers", "networks", "images", "volumes")
_DEFAULT: Final = ("containers", "networks", "images")
"""Volumes hold data: they go only when they are named."""
_PREDEFINED: Final = ("bridge", "host", "none")


@frozen
class _Found:
    """Something that would go; ``ref`` is what the engine knows it by."""

    kind: str
    ref: str
    name: str


class PruneStep(StandardStep):
    """Stopped containers, networks and volumes without users, images without names; no undo."""

    async def plan(self, intent: StepIntent) -> StepPlan:
        """What would go now."""
        found = await self._find(intent.settings)
        changes = [StepChange(action="destroy", what=f"{f.kind} {f.name}") for f in found]
        return StepPlan(changes=tuple(changes))

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Remove, one after the other; what came into use meanwhile stays.

        Raises:
            InvalidArgument: An unknown kind of things.
        If cancelled: what is gone is gone, the rest is whole.
        """
        removed: dict[str, list[str]] = {kind: [] for kind in _kinds(intent.settings)}
        for found in await self._find(intent.settings):
            try:
                await self._remove(found)
            except NotFound:
                continue
            except (Conflict, PermissionDenied) as error:
                context.log(f"{found.kind} {found.name} stays: {error.message}")
                continue
            context.log(f"removed {found.kind} {found.name}")
            removed[f"{found.kind}s"].append(found.name)
        return {"removed": removed}

    async def _remove(self, found: _Found) -> None:
        engine = self.host.engine
        match found.kind:
            case "container":
                await engine.containers.remove(found.ref, volumes=True)
            case "network":
                await engine.networks.remove(found.ref)
            case "image":
                await engine.images.remove(found.ref, force=True)
            case _:
                await engine.volumes.remove(found.ref)

    async def _find(self, settings: Mapping[str, Any]) -> list[_Found]:
        engine = self.host.engine
        kinds = _kinds(settings)
        label: str = settings.get("label", "")
        before = time.time_ns() - int(settings.get("older-than", 0) * 1e9)

        def fits(labels: Mapping[str, str], created: str) -> bool:
            return _has(labels, label) and (not created or epoch_ns(created) <= before)

        containers = engine.containers.list(ContainerFilter(all=True))
        found: list[_Found] = []
        gone: set[str] = set()
        if "containers" in kinds:
            for container in containers:
                idle = container.state.status.value in ("created", "exited", "dead")
                if idle and fits(container.labels, container.created_at):
                    gone.add(container.id)
                    found.append(_Found("container", container.id, container.name))
        staying = [container for container in containers if container.id not in gone]
        if "networks" in kinds:
            used = {name for c in staying for name in c.spec.wanted_networks}
            for network in engine.networks.list():
                if network.name in _PREDEFINED or {network.name, network.id} & used:
                    continue
                if not engine.networks.endpoints(network.id) and fits(
                    network.spec.labels, network.created_at
                ):
                    found.append(_Found("network", network.id, network.name))
        if "images" in kinds:
            held = {container.image_id for container in staying}
            for image in engine.images.list():
                named = bool(image.repo_tags)
                if image.id in held or (named and not label):
                    continue
                if fits(image.config.labels, image.config.created):
                    found.append(_Found("image", image.id, (*image.repo_tags, image.id)[0]))
        if "volumes" in kinds:
            for volume in await engine.volumes.list():
                users: Sequence[str] = engine.volumes.users(volume.name)
                if not set(users) - gone and fits(volume.labels, volume.created_at):
                    found.append(_Found("volume", volume.name, volume.name))
        return found

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """What is left is looked for again."""
        return StepOutcome(applied=False, detail="what is left is looked for again")


def _kinds(settings: Mapping[str, Any]) -> tuple[str, ...]:
    kinds = tuple(settings.get("what", _DEFAULT))
    for kind in kinds:
        if kind not in _KINDS:
            raise InvalidArgument(f"prune knows no '{kind}'", help=f"what: [{', '.join(_KINDS)}]")
    return kinds


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    if not wanted:
        return True
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
