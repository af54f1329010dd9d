"""/networks."""

import re
from typing import Any

import attrs
import trio

from linkspan.plugins.docker_api.codec_endpoint import decode_endpoint
from linkspan.plugins.docker_api.codec_network import (
    PREDEFINED,
    decode_network,
    driver_shown,
    encode_network,
)
from linkspan.plugins.docker_api.filters import Filters, read_filters
from linkspan.plugins.docker_api.prune_events import tell_pruned
from linkspan.plugins.docker_api.routing import read_document
from linkspan.plugins.docker_api.swarm import orchestrator, require_cluster
from linkspan.plugins.docker_api.timestamps import epoch_s
from linkspan.sdk.errors import (
    Conflict,
    InvalidArgument,
    LinkspanError,
    NotFound,
    PermissionDenied,
)
from linkspan.sdk.host import Host
from linkspan.sdk.http import Request, Response, json_response
from linkspan.sdk.model.container import ContainerFilter
from linkspan.sdk.model.network import Network, NetworkSpec, SubnetPool

# Tasks of a removed service have their stop timeout to end.
_TASKS_END_S = 60.0
# Names of what the swarm keeps.
_SWARM_NAME = re.compile(r"[a-zA-Z0-9]+(?:[-_]+[a-zA-Z0-9]+)*")

# Services may use these networks of each node as if they were the swarm's.
_OF_SWARM = {"Scope": "swarm", "Labels": {"com.docker.swarm.predefined": "true"}}


class NetworkRoutes:
    """Networks and who is in them."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._networks = host.engine.networks
        self._containers = host.engine.containers
        self._pruning = trio.Lock()

    async def list(self, request: Request) -> Response:
        """GET /networks."""
        filters = read_filters(
            request, ("dangling", "driver", "id", "label", "label!", "name", "scope", "type")
        )
        for kind in filters.all("type"):
            if kind not in ("custom", "builtin"):
                raise InvalidArgument(f"invalid filter: 'type'='{kind}'", code="invalid_filter")
        found = [n for n in self._networks.list() if self._passes(n, filters)]
        if request.api_version < (1, 28):
            return json_response([self._encode(network) for network in found])
        # As in Docker, who is in it is told by inspect alone.
        return json_response([encode_network(network, {}, {}) for network in found])

    def _passes(self, network: Network, filters: Filters) -> bool:
        dangling = filters.flag("dangling")
        if dangling is not None and dangling is not self._is_unused(network):
            return False
        kind = "builtin" if network.name in PREDEFINED else "custom"
        return (
            filters.among("driver", driver_shown(network.spec.driver))
            and filters.prefix("id", network.id)
            and filters.pattern("name", network.name)
            and filters.among("scope", network.scope)
            and filters.among("type", kind)
            and filters.labels(network.spec.labels)
        )

    def _is_unused(self, network: Network) -> bool:
        if network.name in PREDEFINED:
            return False
        return not any(
            {network.name, network.id}
            & {*c.spec.wanted_networks, *(e.network_id for e in c.endpoints)}
            for c in self._containers.list(ContainerFilter(all=True))
        )

    def _encode(self, network: Network) -> dict[str, Any]:
        endpoints = self._networks.endpoints(network.id)
        names = {}
        for container_id in endpoints:
            try:
                names[container_id] = self._containers.inspect(container_id).name
            except NotFound:
                continue
        return encode_network(network, endpoints, names)

    async def inspect(self, request: Request) -> Response:
        """GET /networks/{id}."""
        network = self._networks.inspect(request.params["id"])
        scope = request.query.get("scope", "")
        if scope == "swarm" and network.name in ("bridge", "host"):
            await require_cluster(self._host)
            return json_response({**self._encode(network), **_OF_SWARM})
        if scope and scope != network.scope:
            raise NotFound(f"network {request.params['id']} not found", code="network_not_found")
        return json_response(self._encode(network))

    async def create(self, request: Request) -> Response:
        """POST /networks/create."""
        body = await read_document(request, required=False)
        spec = decode_network(body)
        if not spec.name:
            raise InvalidArgument("invalid name: name is empty")
        if spec.driver == "overlay":
            settings = (await require_cluster(self._host)).settings
            _check_swarm_name(spec.name)
            pools = (SubnetPool(base=p, size=settings.subnet_size) for p in settings.address_pools)
            spec = attrs.evolve(spec, subnet_pools=tuple(pools))
        await self._check_scope(body.text("Scope"), spec)
        network = await self._networks.create(spec)
        return json_response({"Id": network.id, "Warning": ""}, status=201)

    async def _check_scope(self, scope: str, spec: NetworkSpec) -> None:
        """A network of one machine is asked for as one. Raises InvalidArgument, PermissionDenied."""
        if scope not in ("", "local", "swarm", "global"):
            raise InvalidArgument(f"invalid scope '{scope}': use one of local, swarm")
        if spec.ingress:
            raise PermissionDenied("Ingress network can only be global scope network")
        if spec.driver != "overlay" and scope in ("swarm", "global"):
            if await orchestrator(self._host).cluster() is None:
                raise PermissionDenied(
                    "cannot create a swarm scoped network when swarm is not active"
                )
            raise InvalidArgument(
                f"a network of driver {spec.driver} has scope local, not {scope}",
                help="for a network of the swarm: docker network create --driver overlay",
            )

    async def remove(self, request: Request) -> Response:
        """DELETE /networks/{id}."""
        ref = request.params["id"]
        with trio.move_on_after(_TASKS_END_S):
            while await self._has_ending_tasks_only(ref):  # noqa: ASYNC110 - there is no one event
                await trio.sleep(0.1)
        await self._refuse_if_of_a_service(self._networks.inspect(ref))
        await self._networks.remove(ref)
        return Response(status=204)

    async def _refuse_if_of_a_service(self, network: Network) -> None:
        """A service needs its networks also while it has no tasks. Raises InvalidArgument."""
        if network.scope != "swarm":
            return
        try:
            services = await orchestrator(self._host).list_services()
        except LinkspanError:
            return  # There is no swarm, so no service.
        for service in services:
            if {network.id, network.name} & set(service.spec.networks):
                raise InvalidArgument(
                    f"rpc error: code = FailedPrecondition desc = network {network.id} is in use by service"
                    f" {service.id}",
                    code="network_of_a_service",
                    help=f"remove the service first: {service.spec.name}",
                )

    async def _has_ending_tasks_only(self, ref: str) -> bool:
        """Whether all who are in it are tasks of removed services: `docker stack rm` asks so early."""
        found = self._networks.endpoints(ref)
        services = {self._service_of(container_id) for container_id in found}
        if not services or "" in services:
            return False
        try:
            alive = {service.id for service in await orchestrator(self._host).list_services()}
        except LinkspanError:
            return False
        return not services & alive

    def _service_of(self, container_id: str) -> str:
        try:
            labels = self._containers.inspect(container_id).labels
        except NotFound:
            return ""
        return str(labels.get("com.docker.swarm.service.id", ""))

    async def connect(self, request: Request) -> Response:
        """POST /networks/{id}/connect."""
        body = await read_document(request, required=False)
        await self._networks.connect(
            request.params["id"],
            body.text("Container"),
            decode_endpoint(body.document("EndpointConfig")),
        )
        return Response()

    async def disconnect(self, request: Request) -> Response:
        """POST /networks/{id}/disconnect."""
        body = await read_document(request, required=False)
        await self._networks.disconnect(
            request.params["id"], body.text("Container"), force=body.flag("Force")
        )
        return Response()

    async def prune(self, request: Request) -> Response:
        """POST /networks/prune."""
        filters = read_filters(request, ("label", "label!", "until"))
        until = filters.until_s()
        if self._pruning.locked():
            raise Conflict("a prune operation is already running")
        deleted = []
        async with self._pruning:
            for network in list(self._networks.list()):
                young = until is not None and epoch_s(network.created_at) >= until
                if young or not self._is_unused(network) or not filters.labels(network.spec.labels):
                    continue
                try:
                    await self._refuse_if_of_a_service(network)
                    await self._networks.remove(network.id)
                except (Conflict, InvalidArgument, NotFound, PermissionDenied):
                    # Somebody uses it now, or was quicker.
                    continue
                deleted.append(network.name)
        tell_pruned(self._host, "network")
        return json_response({"NetworksDeleted": deleted or None})


def _check_swarm_name(name: str) -> None:
    """Raises InvalidArgument, in swarmkit's words."""
    if len(name) > 63:
        told = "name must be 63 characters or fewer"
    elif _SWARM_NAME.fullmatch(name) is None:
        told = "name must be valid as a DNS name component"
    else:
        return
    raise InvalidArgument(
        f"rpc error: code = InvalidArgument desc = {told}",
        code="invalid_name",
        help="use letters, digits, and - or _ between them",
    )
