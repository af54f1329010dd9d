"""/tasks: what the orchestrator has made of the services."""

from collections.abc import Sequence
from typing import Any

from linkspan.plugins.docker_api.codec_generic import encode_generic_resources
from linkspan.plugins.docker_api.codec_network import encode_attachment
from linkspan.plugins.docker_api.codec_service import encode_task_spec
from linkspan.plugins.docker_api.filters import Filters, read_filters
from linkspan.plugins.docker_api.service_logs import task_log_stream
from linkspan.plugins.docker_api.swarm import orchestrator, require_cluster
from linkspan.plugins.docker_api.timestamps import or_never
from linkspan.sdk.drivers.orchestrator import Orchestrator
from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.sdk.host import Host
from linkspan.sdk.http import Request, Response, Stream, json_response
from linkspan.sdk.model.container import Container
from linkspan.sdk.model.network import PortBinding
from linkspan.sdk.model.service import Service, Task, TaskState

_FILTERS = ("_up-to-date", "desired-state", "id", "label", "name", "node", "runtime", "service")


class TaskRoutes:
    """Tasks."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def list(self, request: Request) -> Response:
        """GET /tasks."""
        filters = read_filters(request, _FILTERS)
        _check_states(filters)
        await require_cluster(self._host)
        driver = orchestrator(self._host)
        await _check_named(driver, filters)
        services = {service.id: service for service in await driver.list_services()}
        nodes = {node.id: node.hostname for node in await driver.list_nodes()}
        found = [
            task
            for task in await driver.list_tasks()
            if _passes(task, services.get(task.service_id), nodes, filters)
        ]
        return json_response([self._encode(task) for task in found])

    async def inspect(self, request: Request) -> Response:
        """GET /tasks/{id}."""
        return json_response(
            self._encode(await orchestrator(self._host).get_task(request.params["id"]))
        )

    def _encode(self, task: Task) -> dict[str, Any]:
        by_host = {(p.target_port, p.protocol) for p in task.spec.ports if p.mode == "host"}
        if not task.container_id or not (by_host or task.spec.networks):
            return encode_task(task)
        try:
            container = self._host.engine.containers.inspect(task.container_id)
        except NotFound:
            return encode_task(task)
        ports = container.ports if container.state.running else ()
        out = encode_task(
            task, tuple(p for p in ports if (p.container_port, p.protocol) in by_host)
        )
        attached = _attachments(self._host, task, container)
        return {**out, "NetworksAttachments": attached} if attached else out

    async def logs(self, request: Request) -> Stream:
        """GET /tasks/{id}/logs."""
        task = await orchestrator(self._host).get_task(request.params["id"])
        if not task.container_id:
            raise NotFound(f"task {task.id} has no container yet", code="no_container")
        return task_log_stream(self._host, request, [task])


async def _check_named(driver: Orchestrator[Any], filters: Filters) -> None:
    """Raises NotFound for a service or a node that is not there."""
    for service in filters.all("service"):
        await driver.get_service(service)
    for node in filters.all("node"):
        await driver.get_node(node)


def _attachments(host: Host, task: Task, container: Container) -> Sequence[dict[str, Any]]:
    """Of a task: its networks, and its addresses there while it runs."""
    endpoints = {endpoint.network_id: endpoint for endpoint in container.endpoints}
    out = []
    for ref in task.spec.networks:
        try:
            network = host.engine.networks.inspect(ref)
        except NotFound:
            continue
        out.append(encode_attachment(network, endpoints.get(network.id)))
    return out


def _check_states(filters: Filters) -> None:
    """Raises InvalidArgument for a state that is none."""
    for state in filters.all("desired-state"):
        if state and state.upper() not in TaskState.__members__:
            raise InvalidArgument(
                f"Invalid desired-state filter: '{state}'",
                code="invalid_desired_state",
                help="use running, shutdown or complete",
            )


def _passes(task: Task, service: Service | None, nodes: dict[str, str], filters: Filters) -> bool:
    up_to_date = filters.flag("_up-to-date")
    if up_to_date is not None:
        # The CLI waits for tasks of the current spec; it asks by this undocumented filter.
        is_current = (
            service is not None
            and task.spec.task_part == service.spec.task_part
            and task.job_iteration == service.job_iteration
        )
        if is_current is not up_to_date:
            return False
    name = f"{task.spec.name}.{task.slot or task.node_id}"
    desired = _desired(task).name.lower()
    wanted = tuple(state.lower() for state in filters.all("desired-state") if state)
    return (
        filters.prefix("id", task.id)
        and filters.prefix("name", name)
        and filters.prefix("service", task.service_id, *_exact(filters, "service", task.spec.name))
        and filters.prefix(
            "node", task.node_id, *_exact(filters, "node", nodes.get(task.node_id, ""))
        )
        and (not wanted or desired in wanted)
        and filters.among("runtime", "container")
        and filters.labels(task.spec.labels)
    )


def _exact(filters: Filters, key: str, name: str) -> tuple[str, ...]:
    """A name counts only if it is written out."""
    return (name,) if name and name in filters.all(key) else ()


def encode_task(task: Task, host_ports: tuple[PortBinding, ...] = ()) -> dict[str, Any]:
    """A Task; ``host_ports`` are those that its container publishes on its node."""
    container: dict[str, Any] = {}
    if task.container_id:
        container = {
            "ContainerID": task.container_id,
            "PID": task.pid,
            "ExitCode": task.exit_code or 0,
        }
    status: dict[str, Any] = {
        "Timestamp": or_never(task.updated_at),
        "State": task.state.name.lower(),
        "Message": task.message,
    }
    if task.error:
        status["Err"] = task.error
    if container:
        status["ContainerStatus"] = container
    ports = [
        {
            "Protocol": port.protocol,
            "TargetPort": port.container_port,
            "PublishedPort": port.host_port,
            "PublishMode": "host",
        }
        for port in host_ports
    ]
    status["PortStatus"] = {"Ports": ports} if ports else {}
    out: dict[str, Any] = {
        "ID": task.id,
        "Version": {"Index": task.version},
        "CreatedAt": or_never(task.created_at),
        "UpdatedAt": or_never(task.updated_at),
        "Labels": {},
        "Spec": encode_task_spec(task.spec),
        "ServiceID": task.service_id,
    }
    # Slots of a job begin at 0 (swarmkit's job orchestrator), which is left out as any zero is.
    slot = task.slot - 1 if task.spec.mode == "replicated-job" else task.slot
    if slot > 0:
        out["Slot"] = slot
    if task.node_id:
        out["NodeID"] = task.node_id
    if task.generic_resources:
        # Docker's own name of the field; the API's description has another.
        out["GenericResources"] = encode_generic_resources(task.generic_resources)
    if task.spec.is_job:
        out["JobIteration"] = {"Index": task.job_iteration} if task.job_iteration else {}
    desired = _desired(task).name.lower()
    # Volumes are those of a cluster, which this one has none of.
    return {**out, "Status": status, "DesiredState": desired, "Volumes": None}


def _desired(task: Task) -> TaskState:
    """Of a job's task clients expect that it is to end well."""
    running = task.spec.is_job and task.desired is TaskState.RUNNING
    ended = task.spec.is_job and task.state is TaskState.COMPLETE
    return TaskState.COMPLETE if running or ended else task.desired
