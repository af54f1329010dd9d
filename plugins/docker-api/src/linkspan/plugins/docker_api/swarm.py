"""/swarm: the cluster this daemon is in, and what other routes ask about it."""

import ipaddress
import socket
from typing import Any

import attrs

from linkspan.plugins.docker_api.codec_health import nanoseconds
from linkspan.plugins.docker_api.document import Document
from linkspan.plugins.docker_api.routing import plain_flag, read_document
from linkspan.plugins.docker_api.timestamps import or_never
from linkspan.sdk.drivers.orchestrator import Orchestrator
from linkspan.sdk.errors import (
    Conflict,
    InvalidArgument,
    LinkspanError,
    NotFound,
    Unavailable,
    Unsupported,
)
from linkspan.sdk.host import Host
from linkspan.sdk.http import Request, Response, json_response
from linkspan.sdk.model.service import Cluster, ClusterSettings


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
        raise Unavailable(
            "this node is in no swarm", code="not_in_swarm", help="linkspan swarm init"
        )
    return cluster


def version_of(request: Request, what: str) -> int:
    """The parameter ``version``. Raises InvalidArgument, also if there is none."""
    text = request.query.get("version", "")
    if not text.isdecimal():
        raise InvalidArgument(
            f"invalid {what} version '{text}': the parameter 'version' must be a number"
        )
    return request.number("version", 0)


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


_LEAST_EXPIRY_S = 3600
_LARGEST_SUBNET_SIZE = 29
_DATA_PATH_PORTS = range(1024, 49152)


def encode_cluster(cluster: Cluster) -> dict[str, Any]:
    """ClusterInfo."""
    created = or_never(cluster.created_at)
    settings = cluster.settings
    updated = or_never(cluster.updated_at or cluster.created_at)
    return {
        "ID": cluster.id,
        "Version": {"Index": cluster.version},
        "CreatedAt": created,
        "UpdatedAt": updated,
        "Spec": {
            "Name": "default",
            "Labels": dict(cluster.labels),
            "Orchestration": {"TaskHistoryRetentionLimit": cluster.task_history},
            "Raft": {
                **_said("SnapshotInterval", settings.snapshot_interval),
                "KeepOldSnapshots": settings.kept_snapshots,
                **_said("LogEntriesForSlowFollowers", settings.slow_follower_entries),
                "ElectionTick": settings.election_tick,
                "HeartbeatTick": settings.heartbeat_tick,
            },
            "Dispatcher": _said("HeartbeatPeriod", nanoseconds(settings.heartbeat_s)),
            "CAConfig": _said("NodeCertExpiry", nanoseconds(settings.certificate_expiry_s)),
            "TaskDefaults": {},
            "EncryptionConfig": {"AutoLockManagers": False},
        },
        "TLSInfo": {},
        "RootRotationInProgress": False,
        "DefaultAddrPool": list(settings.address_pools) or None,
        "SubnetSize": settings.subnet_size,
        "DataPathPort": settings.data_path_port,
    }


def _said(key: str, value: int) -> dict[str, int]:
    return {key: value} if value else {}


def _decode_settings(spec: Document, before: ClusterSettings) -> ClusterSettings:
    """What a SwarmSpec says, and else what was. Raises InvalidArgument, in swarmkit's words."""
    raft, usual = spec.document("Raft"), before
    expiry_s = spec.document("CAConfig").seconds("NodeCertExpiry", usual.certificate_expiry_s)
    heartbeat_s = spec.document("Dispatcher").seconds("HeartbeatPeriod", usual.heartbeat_s)
    told = ""
    if expiry_s and expiry_s < _LEAST_EXPIRY_S:
        told = "minimum certificate expiry time is: 1h0m0s"
    elif heartbeat_s < 0:
        told = "heartbeat time period cannot be a negative duration"
    if told:
        raise InvalidArgument(f"rpc error: code = InvalidArgument desc = {told}")
    kept = raft.number("KeepOldSnapshots", usual.kept_snapshots)
    interval = raft.number("SnapshotInterval", usual.snapshot_interval)
    behind = raft.number("LogEntriesForSlowFollowers") or usual.slow_follower_entries
    election = raft.number("ElectionTick") or usual.election_tick
    heartbeat = raft.number("HeartbeatTick") or usual.heartbeat_tick
    if min(kept, interval, behind, election, heartbeat) < 0:
        raise InvalidArgument("the numbers of Raft must not be negative")
    return attrs.evolve(
        before,
        certificate_expiry_s=expiry_s,
        heartbeat_s=heartbeat_s,
        kept_snapshots=kept,
        snapshot_interval=interval,
        slow_follower_entries=behind,
        election_tick=election,
        heartbeat_tick=heartbeat,
    )


def _decode_start(body: Document) -> ClusterSettings:
    """What only the start of a cluster says: its port and its subnets. Raises InvalidArgument."""
    usual = ClusterSettings()
    port = body.number("DataPathPort") or usual.data_path_port
    if port not in _DATA_PATH_PORTS:
        first, last = _DATA_PATH_PORTS.start, _DATA_PATH_PORTS.stop - 1
        raise InvalidArgument(
            f"Datapath port number is not in valid range ({first}-{last}) : {port}"
        )
    usual = attrs.evolve(usual, data_path_port=port)
    pools, size = body.texts("DefaultAddrPool"), body.number("SubnetSize") or usual.subnet_size
    if not pools:
        return usual
    if size > _LARGEST_SUBNET_SIZE:
        raise InvalidArgument(f"subnet size is out of range: {size}")
    for text in pools:
        try:
            pool = ipaddress.IPv4Network(text)
        except ValueError as error:
            raise InvalidArgument(f"invalid base pool '{text}': {error}") from error
        if pool.prefixlen > size:
            raise InvalidArgument(f"invalid base pool '{text}': it has no subnets of size {size}")
    return attrs.evolve(usual, address_pools=pools, subnet_size=size)


ONE_NODE = "not supported by this daemon: a swarm of several nodes"


class SwarmRoutes:
    """Begin, look at and leave a cluster."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def inspect(self, _: Request) -> Response:
        """GET /swarm. There are no join tokens: this swarm has one node."""
        cluster = await require_cluster(self._host)
        tokens = {"Worker": "", "Manager": ""}
        return json_response({**encode_cluster(cluster), "JoinTokens": tokens})

    async def init(self, request: Request) -> Response:
        """POST /swarm/init: the answer is the node's id."""
        body = await read_document(request, required=False)
        spec = body.document("Spec")
        driver = orchestrator(self._host)
        if await driver.cluster() is not None:
            raise Unavailable("this node is in a swarm already", code="already_in_swarm")
        _refuse_several_nodes(spec)
        start = _decode_start(body)
        address = _advertised(body.text("AdvertiseAddr"))
        usual = Cluster(id="", created_at="", node_id="").task_history
        history = spec.document("Orchestration").number("TaskHistoryRetentionLimit", usual)
        labels = spec.text_map("Labels")
        try:
            settings = _decode_settings(spec, start)
        except InvalidArgument as error:
            raise error.within("error updating cluster settings") from error
        cluster = await driver.init(advertise_address=address)
        if labels or history != cluster.task_history or settings != cluster.settings:
            await driver.update_cluster(
                labels=labels,
                task_history=history,
                version=cluster.version,
                settings=settings,
            )
        return json_response(cluster.node_id)

    async def join(self, _: Request) -> Response:
        """POST /swarm/join: refused, for either of two reasons."""
        if await orchestrator(self._host).cluster() is not None:
            raise Unavailable("this node is in a swarm already", code="already_in_swarm")
        raise Unsupported(ONE_NODE, code="not_served")

    async def leave(self, request: Request) -> Response:
        """POST /swarm/leave."""
        if await orchestrator(self._host).cluster() is None:
            raise Unavailable("This node is not part of a swarm", code="no_swarm_to_leave")
        await orchestrator(self._host).leave(force=request.flag("force"))
        return Response()

    async def update(self, request: Request) -> Response:
        """POST /swarm/update: labels, the task history, and settings that are kept."""
        driver = orchestrator(self._host)
        cluster = await require_cluster(self._host)
        body = await read_document(request)
        for key in ("rotateWorkerToken", "rotateManagerToken", "rotateManagerUnlockKey"):
            if plain_flag(request, key):
                raise Unsupported(f"{key}: this swarm has one node, and neither tokens nor a key")
        _refuse_several_nodes(body)
        version = version_of(request, "swarm")
        if body.text("Name") not in ("", "default"):
            raise InvalidArgument('swarm spec must be named "default"')
        orchestration = body.document("Orchestration")
        await driver.update_cluster(
            labels=body.text_map("Labels"),
            task_history=orchestration.number("TaskHistoryRetentionLimit", cluster.task_history),
            version=version,
            settings=_decode_settings(body, cluster.settings),
        )
        return Response()

    async def unlock_key(self, _: Request) -> Response:
        """GET /swarm/unlockkey: empty, since the swarm is never locked."""
        await require_cluster(self._host)
        return json_response({"UnlockKey": ""})

    async def unlock(self, _: Request) -> Response:
        """POST /swarm/unlock."""
        await require_cluster(self._host)
        raise Conflict("swarm is not locked", code="not_locked")


def _refuse_several_nodes(spec: Document) -> None:
    """What only a swarm of several nodes has. Raises Unsupported."""
    if spec.document("EncryptionConfig").flag("AutoLockManagers"):
        raise Unsupported("autolock is not supported: the keys of this swarm are not locked")
    authority = spec.document("CAConfig")
    if authority.items("ExternalCAs"):
        raise Unsupported("external certificate authorities are not supported")
    if authority.number("ForceRotate") or authority.text("SigningCACert"):
        raise Unsupported("a swarm of one node has no certificate authority that could be rotated")
    if spec.document("TaskDefaults").document("LogDriver").text("Name"):
        raise Unsupported("TaskDefaults.LogDriver: give each service its log driver")


def _advertised(text: str) -> str:
    """The address of ``ADDRESS[:PORT]``, or of the interface so named; empty if nothing is said.

    Raises:
        InvalidArgument: It is neither.
    """
    host = text.rpartition(":")[0] if text.count(":") == 1 or text.startswith("[") else text
    host = host.strip("[]")
    if not host:
        return ""
    try:
        if not ipaddress.ip_address(host).is_unspecified:
            return host
    except ValueError:
        if host in (name for _, name in socket.if_nameindex()):
            return host
    raise InvalidArgument(
        "advertise address must be a non-zero IP address or network interface (with optional port number)"
    )
