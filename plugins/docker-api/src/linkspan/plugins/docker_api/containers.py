"""/containers: list, make, run, look at, remove."""

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, Final

import attrs
import orjson
import trio

from linkspan.plugins.docker_api.codec_container import encode_inspect, link_names
from linkspan.plugins.docker_api.codec_creation import decode_container
from linkspan.plugins.docker_api.codec_network import parse_port
from linkspan.plugins.docker_api.codec_resources import decode_resources, decode_restart
from linkspan.plugins.docker_api.filters import Filters, has_label, no_number, read_filters
from linkspan.plugins.docker_api.graph_driver import graph_driver
from linkspan.plugins.docker_api.old_requests import as_meant
from linkspan.plugins.docker_api.processes import list_processes
from linkspan.plugins.docker_api.prune_events import tell_pruned
from linkspan.plugins.docker_api.routing import NO_CONTENT, read_document
from linkspan.plugins.docker_api.summaries import Inspections, Summaries
from linkspan.plugins.docker_api.timestamps import epoch_s
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound
from linkspan.sdk.events import container_event
from linkspan.sdk.host import Host, WaitCondition
from linkspan.sdk.http import JSON, Request, Response, Stream, Writer, json_response
from linkspan.sdk.model.container import (
    Container,
    ContainerFilter,
    ContainerStatus,
    Resources,
)
from linkspan.sdk.model.image import ImageConfig

_FILTERS = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
]
_STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_HEALTHS = ("none", "starting", "healthy", "unhealthy")
_CONDITIONS: dict[str, WaitCondition] = {
    "": "not-running",
    "not-running": "not-running",
    "next-exit": "next-exit",
    "removed": "removed",
}

NOT_STARTED: Final = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "unable to start container process"
)
"""What Docker says before a runtime's own words; clients look for parts of it."""


class ContainerRoutes:
    """What clients do with containers, but for their streams and exec."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._containers = host.engine.containers
        self._images = host.engine.images
        self._pruning = trio.Lock()
        self._summaries = Summaries()
        self._inspections = Inspections()

    async def list(self, request: Request) -> Response:
        """GET /containers/json."""
        filters = read_filters(request, _FILTERS)
        limit = request.number("limit", 0)
        query = _container_filter(
            filters, everything=request.flag("all") or limit > 0 or _wants_all(filters)
        )
        found = self._containers.list(query)
        if filters:
            found = self._between([c for c in found if _passes(c, filters)], filters)
        if limit > 0:
            found = found[:limit]
        sizes = None
        if request.flag("size"):
            sizes = {c.id: await self._containers.size(c.id) for c in found}
        links = link_names(self._containers.list(ContainerFilter(all=True)))
        body = self._summaries.encode(found, sizes, links)
        if query.all:
            self._summaries.forget_others(found, len(found))
        return Response(headers={"Content-Type": JSON}, body=body)

    def _between(self, found: Sequence[Container], filters: Filters) -> Sequence[Container]:
        """``before`` and ``since`` name containers."""
        for ref in filters.all("before"):
            created = self._containers.inspect(ref).created_at
            found = [c for c in found if c.created_at < created]
        for ref in filters.all("since"):
            created = self._containers.inspect(ref).created_at
            found = [c for c in found if c.created_at > created]
        return found

    async def create(self, request: Request) -> Response:
        """POST /containers/create."""
        body = await read_document(request)
        spec = decode_container(body, platform=request.query.get("platform", ""))
        spec = as_meant(spec, request.api_version)
        if spec.network_mode in ("", "default", "bridge"):
            self._check_links(body.document("HostConfig").texts("Links"))
        try:
            made = await self._containers.create(spec, name=request.query.get("name", ""))
        except NotFound as error:
            if error.code == "image_not_found":
                raise
            # Clients take a 404 for a missing image, and pull it.
            raise InvalidArgument(
                error.message, code=error.code, details=error.details, help=error.help
            ) from error
        return json_response({"Id": made.id, "Warnings": list(made.warnings)}, status=201)

    def _check_links(self, links: Sequence[str]) -> None:
        """Raises InvalidArgument for a link to a container that is not there."""
        for link in links:
            name, _, alias = link.partition(":")
            if ":" in alias:
                raise InvalidArgument(f"bad format for links: {link}")
            try:
                self._containers.inspect(name)
            except NotFound as error:
                raise InvalidArgument(
                    f"could not get container for {name}: {error.message}", code=error.code
                ) from error

    async def inspect(self, request: Request) -> Response:
        """GET /containers/{id}/json."""
        container = self._containers.inspect(request.params["id"])
        size = await self._containers.size(container.id) if request.flag("size") else None
        image = self._image_config(container.image_id)
        exec_ids = tuple(self._containers.exec_ids(container.id))
        drivers = self._host.daemon.drivers
        network_ids = self._left_networks(container)
        body = self._inspections.encode(
            container,
            # An image's config never changes under its id.
            (image is None, exec_ids, size, request.api_version < (1, 45), network_ids),
            lambda: encode_inspect(
                container,
                image=image,
                graph_driver=graph_driver(self._host, container.id),
                runtime=drivers.get("runtime", ""),
                exec_ids=exec_ids,
                size=size,
                version=request.api_version,
                network_ids=network_ids,
            ),
        )
        return Response(headers={"Content-Type": JSON}, body=body)

    def _left_networks(self, container: Container) -> Mapping[str, str]:
        """Ids by name, of the networks that a container was in until it ended."""
        if container.state.running or not container.state.started_at:
            return {}
        found = {}
        for name in container.spec.wanted_networks:
            try:
                found[name] = self._host.engine.networks.inspect(name).id
            except NotFound:
                continue
        return found

    def _image_config(self, image_id: str) -> ImageConfig | None:
        try:
            return self._images.inspect(image_id).config
        except NotFound:
            return None

    async def top(self, request: Request) -> Response:
        """GET /containers/{id}/top."""
        arguments = request.query.get("ps_args") or "-ef"
        container = self._containers.inspect(request.params["id"])
        pids = await self._containers.pids(container.id)
        titles, rows = await list_processes(arguments, frozenset(pids))
        self._host.engine.events.publish(container_event("top", container))
        return json_response({"Titles": titles, "Processes": rows})

    async def start(self, request: Request) -> Response:
        """POST /containers/{id}/start."""
        _refuse_body(request)
        try:
            await self._containers.start(request.params["id"])
        except InvalidArgument as error:
            if error.code in ("command_not_found", "command_not_executable"):
                raise error.within(NOT_STARTED) from error
            raise
        return NO_CONTENT

    async def stop(self, request: Request) -> Response:
        """POST /containers/{id}/stop."""
        ref = request.params["id"]
        try:
            await self._containers.stop(
                ref, timeout_s=_timeout_s(request), signal=request.query.get("signal", "")
            )
        except InvalidArgument as error:
            raise error.within(f"cannot stop container: {ref}") from error
        return NO_CONTENT

    async def restart(self, request: Request) -> Response:
        """POST /containers/{id}/restart."""
        ref = request.params["id"]
        try:
            await self._containers.restart(
                ref, timeout_s=_timeout_s(request), signal=request.query.get("signal", "")
            )
        except (Conflict, InvalidArgument) as error:
            raise error.within(f"Cannot restart container {ref}") from error
        return NO_CONTENT

    async def kill(self, request: Request) -> Response:
        """POST /containers/{id}/kill."""
        ref = request.params["id"]
        try:
            await self._containers.kill(ref, request.query.get("signal") or "SIGKILL")
        except (NotFound, Conflict, InvalidArgument) as error:
            raise error.within(f"cannot kill container: {ref}") from error
        return NO_CONTENT

    async def pause(self, request: Request) -> Response:
        """POST /containers/{id}/pause."""
        await self._containers.pause(request.params["id"])
        return NO_CONTENT

    async def unpause(self, request: Request) -> Response:
        """POST /containers/{id}/unpause."""
        await self._containers.unpause(request.params["id"])
        return NO_CONTENT

    async def rename(self, request: Request) -> Response:
        """POST /containers/{id}/rename."""
        name = request.query.get("name", "")
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        # Docker takes it with its slash here, and shows it so.
        await self._containers.rename(request.params["id"], f"/{name.removeprefix('/')}")
        return NO_CONTENT

    async def update(self, request: Request) -> Response:
        """POST /containers/{id}/update: fields that are not there, or zero, stay as they are."""
        body = await read_document(request, required=False)
        container = self._containers.inspect(request.params["id"])
        # Which devices it has was said when it was made, and the count that Windows has.
        asked = attrs.evolve(decode_resources(body), devices=(), device_requests=(), cpu_count=0)
        resources = container.spec.resources
        changes = {
            name: value for name, value in _set_fields(asked) if value != getattr(resources, name)
        }
        if "PidsLimit" in body and body.number("PidsLimit") <= 0:
            changes["pids_limit"] = -1
        restart = (
            decode_restart(body.document("RestartPolicy"))
            if body.document("RestartPolicy").text("Name")
            else None
        )
        _refuse_conflicting(container, asked)
        warnings = await self._containers.update(
            container.id,
            resources=attrs.evolve(resources, **changes) if changes else None,
            restart=restart,
        )
        return json_response({"Warnings": list(warnings) or None})

    async def wait(self, request: Request) -> Stream:
        """POST /containers/{id}/wait: the CLI starts the container when it has our headers."""
        name = request.query.get("condition", "") if request.api_version >= (1, 30) else ""
        condition = _CONDITIONS.get(name)
        if condition is None:
            raise InvalidArgument(f'invalid condition: "{name}"')
        waiter = self._containers.waiter(request.params["id"], condition)

        async def run(writer: Writer) -> None:
            status = await waiter.result()
            body: dict[str, object] = {"StatusCode": status.exit_code}
            if status.error:
                body["Error"] = {"Message": status.error}
            await writer.write(orjson.dumps(body) + b"\n")

        return Stream(run=run, at_stop="break")

    async def remove(self, request: Request) -> Response:
        """DELETE /containers/{id}."""
        ref = request.params["id"]
        if request.flag("link"):
            self._containers.inspect(ref)
            raise Conflict("Conflict, cannot remove the default link name of the container")
        await self._containers.remove(ref, force=request.flag("force"), volumes=request.flag("v"))
        return NO_CONTENT

    async def remove_link(self, request: Request) -> Response:
        """DELETE /containers/{id}/{alias}?link=1: the name that a container has for another one."""
        ref, alias = request.params["id"], request.params["alias"]
        missing = f"No such container: {ref}/{alias}"
        if not request.flag("link"):
            raise NotFound(missing, code="container_not_found")
        try:
            await self._containers.unlink(ref, alias)
        except NotFound as error:
            raise NotFound(missing, code=error.code) from error
        return NO_CONTENT

    async def prune(self, request: Request) -> Response:
        """POST /containers/prune."""
        filters = read_filters(request, ("label", "label!", "until"))
        if self._pruning.locked():
            raise Conflict("a prune operation is already running")
        async with self._pruning:
            deleted, reclaimed = [], 0
            until = filters.until_s()
            for container in self._containers.list(ContainerFilter(all=True)):
                if not _is_prunable(container) or not filters.labels(container.labels):
                    continue
                if until is not None and epoch_s(container.created_at) >= until:
                    continue
                size, _ = await self._containers.size(container.id)
                try:
                    await self._containers.remove(container.id)
                except (Conflict, NotFound):
                    # It was started or removed by somebody meanwhile.
                    continue
                deleted.append(container.id)
                reclaimed += size
        tell_pruned(self._host, "container", reclaimed)
        return json_response({"ContainersDeleted": deleted or None, "SpaceReclaimed": reclaimed})


def _refuse_conflicting(container: Container, asked: Resources) -> None:
    """What an update must not change alone. Raises Conflict, InvalidArgument in Docker's words."""
    had = container.spec.resources
    cannot = f"Cannot update container {container.id}"
    if asked.nano_cpus and (had.cpu_period_us or had.cpu_quota_us):
        what = "Period" if had.cpu_period_us else "Quota"
        raise Conflict(
            f"{cannot}: Conflicting options: Nano CPUs cannot be updated as CPU {what} has already been set"
        )
    for name, value in (("Period", asked.cpu_period_us), ("Quota", asked.cpu_quota_us)):
        if value and had.nano_cpus:
            raise Conflict(
                f"{cannot}: Conflicting options: CPU {name} cannot be updated as NanoCPUs has already been set"
            )
    swap = had.memory_swap_bytes
    if asked.memory_bytes > swap > 0 and not asked.memory_swap_bytes:
        raise InvalidArgument(
            f"{cannot}: Memory limit should be smaller than already set memoryswap limit, update the"
            " memoryswap at the same time"
        )


def _is_prunable(container: Container) -> bool:
    return container.state.status in (
        ContainerStatus.CREATED,
        ContainerStatus.EXITED,
        ContainerStatus.DEAD,
    )


def _refuse_body(request: Request) -> None:
    """A start once took a HostConfig; Docker still lets pass what is as short as ``{}`` or ``null``."""
    length = request.headers.get("content-length", "0")
    is_long = "transfer-encoding" in request.headers or len(length) > 2 or int(length) > 7
    if is_long and request.api_version >= (1, 24):
        raise InvalidArgument(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in"
            " v1.24"
        )


def _timeout_s(request: Request) -> float | None:
    """``t`` in seconds; a negative one waits for ever, as in Docker."""
    if not request.query.get("t"):
        return None
    seconds = request.number("t", 0)
    return float("inf") if seconds < 0 else float(seconds)


def _set_fields(resources: Resources) -> Iterator[tuple[str, Any]]:
    """Fields of an update that were given."""
    unset = Resources()
    for field in attrs.fields(Resources):
        value = getattr(resources, field.name)
        if value != getattr(unset, field.name):
            yield field.name, value


def _wants_all(filters: Filters) -> bool:
    return any(key in filters for key in ("status", "before", "since"))


def _container_filter(filters: Filters, *, everything: bool) -> ContainerFilter:
    for state in filters.all("status"):
        if state not in _STATES:
            raise InvalidArgument(
                f"invalid filter 'status={state}': invalid value for state ({state}): must be one of"
                f" {', '.join(_STATES)}",
                code="invalid_filter",
            )
    for health in filters.all("health"):
        if health not in _HEALTHS:
            raise InvalidArgument(
                f"invalid filter 'health={health}': invalid value for health ({health}): must be one of"
                f" {', '.join(_HEALTHS)}",
                code="invalid_filter",
            )
    for code in (exited := filters.all("exited")):
        if not code.removeprefix("-").isdecimal():
            raise no_number("exited", code)
    return ContainerFilter(
        all=everything,
        labels=filters.all("label"),
        names=filters.all("name"),
        ids=filters.all("id"),
        statuses=filters.all("status"),
        ancestors=filters.all("ancestor"),
        networks=filters.all("network"),
        volumes=filters.all("volume"),
        health=filters.all("health"),
        exited=tuple(int(code) for code in exited),
    )


def _passes(container: Container, filters: Filters) -> bool:
    """The filters that the engine does not know."""
    wanted = filters.flag("is-task")
    if wanted is not None and wanted is not ("com.docker.swarm.task.id" in container.labels):
        return False
    exposed = {parse_port(port)[::2] for port in container.exposed_ports}
    published = {(port.container_port, port.protocol) for port in container.ports}
    return (
        _has_port(filters, "expose", exposed | published)
        and _has_port(filters, "publish", published)
        and not any(has_label(container.labels, label) for label in filters.all("label!"))
    )


def _has_port(filters: Filters, key: str, have: Set[tuple[int, str]]) -> bool:
    if key not in filters:
        return True
    for text in filters.all(key):
        try:
            first, last, protocol = parse_port(text)
        except InvalidArgument as error:
            number = text.partition("/")[0].partition("-")[0]
            if not number.isdecimal():
                error = InvalidArgument(
                    f'strconv.ParseUint: parsing "{number}": invalid syntax', code=error.code
                )
            raise error.within(f"error while looking up for {key} {text}") from None
        if any(p == protocol and first <= port <= last for port, p in have):
            return True
    return False
