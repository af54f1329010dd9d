"""What a pipeline may not do whose author is not trusted."""

from collections.abc import Collection, Iterator

from linkspan.sdk.errors import PermissionDenied
from linkspan.workflows.model import Job, JobService, Workflow
from linkspan.workflows.units import Frame


def refuse_untrusted(workflow: Workflow, verbs: Collection[str] = ()) -> None:
    """Refuse a pipeline that wants more than scripts in containers of their own.

    Args:
        workflow: The pipeline.
        verbs: Those that the daemon's config allows all the same.

    Raises:
        PermissionDenied: With everything that it wants and does not get; code ``untrusted``.
    """
    found = list(_wishes(workflow, verbs))
    if found:
        raise PermissionDenied(
            "\n".join(("an untrusted pipeline may not do this:", *(f"- {each}" for each in found))),
            code="untrusted",
            help="read it, and run it without --untrusted if you trust it; verbs can be allowed by "
            "`untrusted-verbs` in [workflows] of the daemon's config",
        )


def _wishes(workflow: Workflow, verbs: Collection[str]) -> Iterator[str]:
    if workflow.secrets:
        yield f"read secrets ({', '.join(workflow.secrets)})"
    if workflow.use:
        yield f"choose drivers ({', '.join(workflow.use)})"
    for unit in Frame(workflow).everything():
        yield from _of_job(unit.job, verbs)
        if unit.inner is not None and unit.inner.workflow.secrets:
            yield f"job '{unit.id}': read secrets ({', '.join(unit.inner.workflow.secrets)})"


def _of_job(job: Job, verbs: Collection[str]) -> Iterator[str]:
    for step in job.all_steps():
        used = (step.verb, "" if step.undo is None else step.undo.verb)
        for verb in filter(None, used):
            if verb not in verbs:
                yield f"step '{job.id}/{step.id}': use the verb '{verb}'"
    if job.volumes:
        yield f"job '{job.id}': mount volumes"
    if job.caches:
        # What it leaves there, another pipeline would trust.
        yield f"job '{job.id}': share caches"
    if job.lock is not None:
        yield f"job '{job.id}': hold locks"
    for service in job.services.values():
        for wish in _of_service(service):
            yield f"service '{job.id}/{service.name}': {wish}"


def _of_service(service: JobService) -> Iterator[str]:
    if service.privileged:
        yield "be privileged"
    if service.cap_add:
        yield "have more capabilities"
    if service.ports:
        yield "publish ports"
    if service.volumes:
        yield "mount volumes"
    if service.sysctls:
        yield "set kernel parameters"
