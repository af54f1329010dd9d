"""/swarm: the cluster this daemon is in, and what other routes ask about it."""

from typing import Any

from linkspan.plugins.docker_api.routing import DockerRouter, read_document
from linkspan.plugins.docker_api.timestamps import or_never
from linkspan.sdk.drivers.orchestrator import Orchestrator
from linkspan.sdk.errors import LinkspanError, NotFound, Unavailable, Unsupported
from linkspan.sdk.host import Host
from linkspan.sdk.http import Request, Response, json_response
from linkspan.sdk.model.service import Cluster


def orchestrator(host: Host) -> Orchestrator[Any]:
    """The orchestrator. Raises Unsupported if this daemon has none."""
    try:
        driver: Orchestrator[Any] = host.driver("orchestrator")
    except (NotFound, Unavailable) as error:
        raise Unsupported(
            f"this daemon has no orchestrator: {error.message}",
            help="install linkspan-swarm, or choose another driver in [orchestrator]",
        ) from error
    return driver


async def require_cluster(host: Host) -> Cluster:
    """The cluster. Raises Unavailable (code ``not_in_swarm``) if there is none."""
    cluster = await orchestrator(host).cluster()
    if cluster is None:
        raise Unavailable("this node is in no swarm", code="not_in_swarm")
    return cluster


async def swarm_state(host: Host) -> dict[str, Any]:
    """Info.Swarm; a daemon without orchestrator is in no swarm."""
    inactive = {
        "NodeID": "",
        "NodeAddr": "",
        "LocalNodeState": "inactive",
        "ControlAvailable": False,
        "Error": "",
        "RemoteManagers": None,
    }
    try:
        driver = orchestrator(host)
        cluster = await driver.cluster()
        if cluster is None:
            return inactive
        nodes = await driver.list_nodes()
    except Unsupported:
        return inactive
    except LinkspanError as error:
        return {**inactive, "LocalNodeState": "error", "Error": error.message}
    managers = [node for node in nodes if node.role == "manager"]
    own = next((node for node in nodes if node.id == cluster.node_id), None)
    return {
        "NodeID": cluster.node_id,
        "NodeAddr": own.address if own else "",
        "LocalNodeState": "active",
        "ControlAvailable": own is None or own.role == "manager",
        "Error": "",
        "RemoteManagers": [{"NodeID": m.id, "Addr": m.address} for m in managers],
        "Nodes": len(nodes),
        "Managers": len(managers),
        "Cluster": encode_cluster(cluster),
    }


def encode_cluster(cluster: Cluster) -> dict[str, Any]:
    """ClusterInfo."""
    created = or_never(cluster.created_at)
    return {
        "ID": cluster.id,
        "Version": {"Index": cluster.version},
        "CreatedAt": created,
        "UpdatedAt": created,
        "Spec": {
            "Name": "default",
            "Labels": dict(cluster.labels),
            "Orchestration": {},
            "Raft": {"ElectionTick": 0, "HeartbeatTick": 0},
            "Dispatcher": {},
            "CAConfig": {},
            "TaskDefaults": {},
            "EncryptionConfig": {"AutoLockManagers": False},
        },
        "TLSInfo": {},
        "RootRotationInProgress": False,
        "DefaultAddrPool": None,
        "SubnetSize": 0,
        "DataPathPort": 0,
    }


class SwarmRoutes:
    """Begin, look at and leave a cluster."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def add_to(self, router: DockerRouter) -> None:
        """Add the routes."""
        router.get("/swarm", self.inspect)
        router.post("/swarm/init", self.init)
        router.post("/swarm/leave", self.leave)

    async def inspect(self, _: Request) -> Response:
        """GET /swarm. There are no join tokens: this swarm has one node."""
        cluster = await require_cluster(self._host)
        tokens = {"Worker": "", "Manager": ""}
        return json_response({**encode_cluster(cluster), "JoinTokens": tokens})

    async def init(self, request: Request) -> Response:
        """POST /swarm/init: the answer is the node's id."""
        body = await read_document(request, required=False)
        address = body.text("AdvertiseAddr").rpartition(":")[0] or body.text("AdvertiseAddr")
        cluster = await orchestrator(self._host).init(advertise_address=address)
        return json_response(cluster.node_id)

    async def leave(self, request: Request) -> Response:
        """POST /swarm/leave."""
        await orchestrator(self._host).leave(force=request.flag("force"))
        return Response()
