"""Containers that a step means: by name, or as a service of its job or of the cluster."""

from typing import Any

from linkspan.sdk.drivers.orchestrator import Orchestrator
from linkspan.sdk.errors import NotFound
from linkspan.sdk.host import Host
from linkspan.sdk.model.container import Container, ContainerFilter
from linkspan.sdk.model.service import TaskState
from linkspan.sdk.model.step import JOB_LABEL, RUN_LABEL, StepIntent


def job_service(host: Host, intent: StepIntent, name: str) -> Container | None:
    """The container of a service that the step's own job has started; None if it has none so named."""
    labels = (f"{RUN_LABEL}={intent.run_id}", f"{JOB_LABEL}={intent.job}")
    for container in host.engine.containers.list(ContainerFilter(all=True, labels=labels)):
        if container.spec.hostname == name:
            return container
    return None


async def service_container(host: Host, intent: StepIntent, name: str) -> Container:
    """A running container of a service: of the job's own, else of one task of the cluster's.

    Raises:
        NotFound: There is no such service, or none of its tasks runs here.
    """
    own = job_service(host, intent, name)
    if own is not None:
        return own
    orchestrator: Orchestrator[Any] = host.driver("orchestrator", intent.use.get("orchestrator"))
    service = await orchestrator.get_service(name)
    for task in await orchestrator.list_tasks(service=service.id):
        if task.container_id and task.state is TaskState.RUNNING:
            return host.engine.containers.inspect(task.container_id)
    raise NotFound(
        f"no task of service {name} runs on this node", help=f"linkspan service ps {name}"
    )
