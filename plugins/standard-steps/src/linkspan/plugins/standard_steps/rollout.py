"""Watching a service until its last change is done, and saying why it is not."""

from collections.abc import Sequence
from typing import Any, Final

import trio

from linkspan.sdk.drivers.orchestrator import Orchestrator, RolloutProgress
from linkspan.sdk.drivers.step import StepContext
from linkspan.sdk.errors import LinkspanError, Timeout
from linkspan.sdk.model.service import RolloutState, RolloutStatus, Service
from linkspan.sdk.progress import Progress

_ENDED_BADLY: Final = frozenset(
    {
        RolloutState.PAUSED,
        RolloutState.ROLLBACK_STARTED,
        RolloutState.ROLLBACK_PAUSED,
        RolloutState.ROLLBACK_COMPLETED,
    }
)
_HOPELESS: Final = 3
"""Failed tasks for each replica of a new service, after which waiting is of no use."""


class RolloutFailed(LinkspanError):
    """The change of a service did not succeed; ``details`` has the service and its state."""

    default_code = "rollout_failed"


async def wait_until_done(
    orchestrator: Orchestrator[Any],
    service: Service,
    context: StepContext,
    *,
    timeout_s: float,
    rolling_back: bool = False,
    before: RolloutStatus | None = None,
) -> Service:
    """Wait until all desired tasks run the wanted spec, are healthy and were watched long enough.

    Args:
        orchestrator: Keeps the service.
        service: As the change left it.
        context: Is told how far it is.
        timeout_s: How long it may take.
        rolling_back: A rollback is what is waited for, so its end is success.
        before: The service's rollout before this change. A change of the number alone begins no
            rollout, so how an earlier one ended may still stand there: it is none of ours.

    Raises:
        RolloutFailed: It was paused or rolled back, or tasks of a new service keep failing.
        Timeout: It was not done in time; the service is left as it is.
    If cancelled: nothing changes; the orchestrator goes on with the change.
    """
    name = service.spec.name
    last: RolloutProgress | None = None
    with trio.move_on_after(timeout_s):
        async with orchestrator.rollout(service.id) as moments:
            async for moment in moments:
                _tell(context, name, moment, last)
                last = moment
                # The stream ends by itself when all is done.
                if _is_bad(moment, rolling_back=rolling_back, before=before):
                    raise _failed(name, moment)
    if last is not None and last.done:
        return last.service
    counts = f"{last.running}/{last.desired} tasks run" if last else "nothing is known of it"
    reason = f": {last.failures[-1]}" if last and last.failures else ""
    raise Timeout(
        f"service '{name}' was not up after {timeout_s:g}s, {counts}{reason}",
        help=f"linkspan service ps {name}",
        details={"service": name},
    )


def _is_bad(moment: RolloutProgress, *, rolling_back: bool, before: RolloutStatus | None) -> bool:
    if moment.done and moment.updated < moment.desired:
        # The orchestrator has given up.
        return True
    if before is not None and moment.rollout == before:
        return False
    state = moment.rollout.state if moment.rollout else None
    if moment.failed:
        return not rolling_back or state is RolloutState.ROLLBACK_PAUSED
    if rolling_back:
        return state is RolloutState.ROLLBACK_PAUSED
    if state in _ENDED_BADLY:
        # A rollback that has begun is waited for, so that the message can say how it ended.
        return state is not RolloutState.ROLLBACK_STARTED or moment.done
    fresh = moment.service.previous_spec is None and state is None
    return fresh and not moment.done and len(moment.failures) >= _HOPELESS * max(1, moment.desired)


def _failed(name: str, moment: RolloutProgress) -> RolloutFailed:
    reason = moment.failures[-1] if moment.failures else ""
    rollout = moment.rollout
    if not reason and rollout is not None:
        reason = rollout.message
    what = {
        RolloutState.PAUSED: "the update was paused",
        RolloutState.ROLLBACK_COMPLETED: "the update was rolled back",
        RolloutState.ROLLBACK_STARTED: "the update is rolled back",
        RolloutState.ROLLBACK_PAUSED: "the update failed, and so did its rollback",
    }.get(rollout.state if rollout else RolloutState.UPDATING, "its tasks keep failing")
    return RolloutFailed(
        f"service '{name}': {what}: {reason or 'no reason is known'}",
        details={"service": name, "state": rollout.state.value if rollout else ""},
        help=f"linkspan service ps {name}",
    )


def _tell(
    context: StepContext, name: str, moment: RolloutProgress, last: RolloutProgress | None
) -> None:
    counts = (moment.updated, moment.running, moment.desired)
    if last is None or counts != (last.updated, last.running, last.desired):
        context.progress(
            Progress(
                status=f"{name} {moment.running}/{moment.desired} running",
                id=name,
                current=moment.updated,
                total=moment.desired,
            )
        )
        context.log(
            f"{name}: {moment.updated} of {moment.desired} updated, {moment.running} running"
        )
    for failure in _new_failures(moment, last):
        context.log(f"{name}: {failure}")
    state = moment.rollout.state if moment.rollout else None
    before = last.rollout.state if last and last.rollout else None
    if state is not before and state is not None:
        message = moment.rollout.message if moment.rollout else ""
        context.log(f"{name}: {state.value.replace('_', ' ')}{': ' + message if message else ''}")


def _new_failures(moment: RolloutProgress, last: RolloutProgress | None) -> Sequence[str]:
    known = len(last.failures) if last else 0
    return moment.failures[known:] if len(moment.failures) >= known else moment.failures


def running_image(service: Service) -> str:
    """The image that a service's tasks should run."""
    return service.spec.container.image
