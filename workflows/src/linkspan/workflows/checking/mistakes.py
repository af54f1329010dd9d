"""Likely mistakes (LS15xx): what can be run but will hardly do what was meant."""

from collections.abc import Mapping

from linkspan.sdk.diagnostics import Label
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.reference import parse_reference
from linkspan.workflows.expressions.syntax import (
    Binary,
    Call,
    Expr,
    ListOf,
    Literal,
    Member,
    Name,
    walk,
)
from linkspan.workflows.model import Job, Step
from linkspan.workflows.parse import Node, Scalar, Sequence
from linkspan.workflows.reader import Reader

WAITS_FOR_PEOPLE = "approve"
WAITS_FOR_HEALTH = "wait-for"


def check_mistakes(job: Job, jobs: Mapping[str, Job], reader: Reader) -> None:
    """All of them in one job, one of ``jobs``."""
    _skipped_by_failure(job, jobs, reader)
    for step in job.all_steps():
        _never_healthy(job, step, reader)
        _lock_while_waiting(job, step, reader)
        _moving_tag(job, step, reader)


def _skipped_by_failure(job: Job, jobs: Mapping[str, Job], reader: Reader) -> None:
    """LS1505: whoever runs because a job was skipped runs also when that was so because of a failure."""
    condition = job.condition
    if condition is None:
        return
    nodes = list(walk(condition.tree))
    read = {name for node in nodes if (name := _result_read(node))}
    if len(read) > 1 or any(isinstance(n, Call) and n.function == "failure" for n in nodes):
        # It looks at what has failed itself.
        return
    for node in nodes:
        name = _asks_whether_skipped(node)
        if name and name in jobs and jobs[name].needed:
            start = reader.document.index_in(condition.node, condition.offset + node.start)
            behind = " or ".join(f"'{each}'" for each in jobs[name].needed)
            source = condition.source[node.start : node.end]
            reader.fault(
                "LS1505",
                f"this also holds when {behind} has failed: '{name}' is skipped then, too",
                reader.document.span_at(start, node.end - node.start),
                helps=[f"{source} && !failure()"],
                severity="warning",
            )


def _result_read(node: Expr) -> str:
    """``X`` of ``needs.X.result``."""
    match node:
        case Member(base=Member(base=Name(name="needs"), name=name), name="result"):
            return name
        case _:
            return ""


def _asks_whether_skipped(node: Expr) -> str:
    """``X`` of ``needs.X.result == 'skipped'``, or of ``needs.X.result in [..., 'skipped']``."""
    match node:
        case (
            Binary(operator="==", left=left, right=Literal(value="skipped"))
            | Binary(operator="==", left=Literal(value="skipped"), right=left)
        ):
            return _result_read(left)
        case Binary(operator="in", left=left, right=ListOf(items=items)):
            asked = any(isinstance(item, Literal) and item.value == "skipped" for item in items)
            return _result_read(left) if asked else ""
        case _:
            return ""


def _written(step: Step, name: str) -> Node | None:
    field = step.setting_nodes.get(name)
    return None if field is None else field.value


def _duration(step: Step, name: str) -> str:
    node = _written(step, name)
    return node.text if isinstance(node, Scalar) else ""


def _never_healthy(job: Job, step: Step, reader: Reader) -> None:
    """LS1501: a wait for the health of a service that has no check."""
    if step.verb != WAITS_FOR_HEALTH or step.settings.get("condition") != "healthy":
        return
    service = job.services.get(str(step.settings.get("service", "")))
    place = _written(step, "condition")
    if service is None or place is None:
        return
    if service.healthcheck is not None and service.healthcheck.test[:1] != ("NONE",):
        return
    limit = _duration(step, "timeout")
    reader.fault(
        "LS1501",
        f"service '{service.name}' can never become healthy: it has no healthcheck",
        place,
        f"would wait the full {limit}, then fail" if limit else "would wait in vain",
        secondary=[Label(span=service.span, text="no healthcheck here")],
        helps=["healthcheck: {test: [CMD, pg_isready], interval: 2s, retries: 15}"],
    )


def _lock_while_waiting(job: Job, step: Step, reader: Reader) -> None:
    """LS1503: a lock is held while a person is awaited."""
    if step.verb != WAITS_FOR_PEOPLE or job.lock is None or job.lock_span is None:
        return
    limit = _duration(step, "timeout")
    name = job.lock if isinstance(job.lock, str) else "of this job"
    shown = f"'{name}'" if isinstance(job.lock, str) else name
    reader.fault(
        "LS1503",
        f"the lock {shown} is held while waiting for a person",
        step.verb_span or step.span,
        f"may wait {limit}" if limit else "may wait long",
        secondary=[Label(span=job.lock_span, text="other runs queue behind this")],
        helps=[f"move the approval into its own job that `{job.id}` needs"],
        severity="warning",
    )


def _moving_tag(job: Job, step: Step, reader: Reader) -> None:
    """LS1504: what goes to production is named by a tag that may be another image tomorrow."""
    if job.environment != "production" or step.verb != "deploy":
        return
    image, place = step.settings.get("image"), _written(step, "image")
    if not isinstance(image, str) or place is None or isinstance(place, Sequence):
        return
    try:
        reference = parse_reference(image)
    except LinkspanError:
        return
    if reference.digest or reference.tag not in ("", "latest", "main", "master", "stable", "edge"):
        return
    reader.fault(
        "LS1504",
        "environment 'production' is deployed from a tag that can move",
        reader.inside(place),
        notes=[
            "rollback needs the old digest too; "
            "`linkspan workflow plan` shows which digest the tag has now"
        ],
        helps=["use the digest the build produced:  image: ${{ needs.build.outputs.image }}"],
        severity="warning",
    )
