"""/nodes: the machines of the cluster."""

import os
from typing import Any

from linkspan.plugins.docker_api.codec_generic import encode_generic_resources
from linkspan.plugins.docker_api.filters import read_filters
from linkspan.plugins.docker_api.routing import read_document
from linkspan.plugins.docker_api.swarm import orchestrator, require_cluster, version_of
from linkspan.plugins.docker_api.system import plugins_of
from linkspan.plugins.docker_api.timestamps import or_never
from linkspan.sdk.drivers.orchestrator import Orchestrator
from linkspan.sdk.errors import Conflict, InvalidArgument, Unsupported
from linkspan.sdk.host import Host
from linkspan.sdk.http import Request, Response, json_response
from linkspan.sdk.model.service import Node

_ROLES = ("worker", "manager")
_MEMBERSHIPS = ("accepted", "pending")
_AVAILABILITIES = ("active", "pause", "drain")


class NodeRoutes:
    """Nodes."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def list(self, request: Request) -> Response:
        """GET /nodes."""
        filters = read_filters(request, ("id", "label", "membership", "name", "node.label", "role"))
        await require_cluster(self._host)
        for role in filters.all("role"):
            if role not in _ROLES:
                raise InvalidArgument(f"Invalid role filter: '{role}'")
        for membership in filters.all("membership"):
            if membership not in _MEMBERSHIPS:
                raise InvalidArgument(f"Invalid membership filter: '{membership}'")
        found = [
            node
            for node in await orchestrator(self._host).list_nodes()
            if filters.prefix("id", node.id)
            and filters.prefix("name", node.hostname)
            and filters.among("role", node.role)
            and filters.among("membership", "accepted")
            and filters.labels(node.labels, "node.label")
            and filters.labels(node.labels)
        ]
        return json_response([await self._encode(node) for node in found])

    async def inspect(self, request: Request) -> Response:
        """GET /nodes/{id}."""
        node = await orchestrator(self._host).get_node(request.params["id"])
        return json_response(await self._encode(node))

    async def _encode(self, node: Node) -> dict[str, Any]:
        """A node; of this one also what the daemon has drivers for."""
        out = encode_node(node)
        cluster = await orchestrator(self._host).cluster()
        if cluster is not None and cluster.node_id == node.id:
            plugins = plugins_of(self._host)
            out["Description"]["Engine"]["Plugins"] = [
                {"Type": kind, "Name": name}
                for kind in ("Log", "Network", "Volume")
                for name in plugins[kind] or ()
            ]
        return out

    async def update(self, request: Request) -> Response:
        """POST /nodes/{id}/update: availability and labels."""
        driver = orchestrator(self._host)
        body = await read_document(request)
        node = await driver.get_node(request.params["id"])
        if body.text("Role") not in _ROLES:
            raise InvalidArgument(f'invalid Role: "{body.text("Role")}"')
        if body.text("Role") != node.role:
            if await _is_last_manager(driver, node):
                raise InvalidArgument(
                    "rpc error: code = FailedPrecondition desc = attempting to demote the last manager of"
                    " the swarm",
                    code="last_manager_stays",
                )
            raise Unsupported(
                f"node {node.hostname} stays a {node.role}: changing roles is not supported"
            )
        availability = body.text("Availability")
        if availability not in _AVAILABILITIES:
            raise InvalidArgument(
                f'invalid Availability: "{availability}"',
                help=f"use one of {', '.join(_AVAILABILITIES)}",
            )
        if version_of(request, "node") != node.version:
            raise Conflict("update out of sequence", code="out_of_sequence")
        await driver.update_node(node.id, availability=availability, labels=body.text_map("Labels"))
        return Response()

    async def remove(self, request: Request) -> Response:
        """DELETE /nodes/{id}: the one node there is cannot go; it leaves."""
        node = await orchestrator(self._host).get_node(request.params["id"])
        raise InvalidArgument(
            f"rpc error: code = FailedPrecondition desc = node {node.id} is a cluster manager and is a "
            "member of the raft cluster. It must be demoted to worker before removal",
            code="node_is_manager",
            help="to end the swarm: docker swarm leave --force",
        )


async def _is_last_manager(driver: Orchestrator[Any], node: Node) -> bool:
    managers = [other for other in await driver.list_nodes() if other.role == "manager"]
    return managers == [node]


def encode_node(node: Node) -> dict[str, Any]:
    """A Node."""
    resources: dict[str, Any] = {"NanoCPUs": node.nano_cpus, "MemoryBytes": node.memory_bytes}
    if node.generic_resources:
        resources["GenericResources"] = encode_generic_resources(node.generic_resources)
    engine: dict[str, Any] = {"EngineVersion": node.engine_version}
    if node.engine_labels:
        engine["Labels"] = dict(sorted(node.engine_labels.items()))
    out: dict[str, Any] = {
        "ID": node.id,
        "Version": {"Index": node.version},
        "CreatedAt": or_never(node.created_at),
        "UpdatedAt": or_never(node.created_at),
        "Spec": {
            "Labels": dict(node.labels),
            "Role": node.role,
            "Availability": node.availability,
        },
        "Description": {
            "Hostname": node.hostname,
            "Platform": {"Architecture": os.uname().machine, "OS": "linux"},
            "Resources": resources,
            "Engine": engine,
            "TLSInfo": {},
        },
        "Status": {"State": node.state, "Addr": node.address},
    }
    if node.role == "manager":
        reachability = "reachable" if node.state == "ready" else "unreachable"
        manager = {"Reachability": reachability, "Addr": node.address}
        out["ManagerStatus"] = {**({"Leader": True} if node.leader else {}), **manager}
    return out
