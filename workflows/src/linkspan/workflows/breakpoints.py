"""Where a run is to stop for whoever debugs it, and what they decide there."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, Literal, get_args

import attrs
import trio

from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.state import RunState, StepState
from linkspan.workflows.units import Unit

When = Literal["before", "after", "on-failure"]
"""Where a run stops: before a step, after it, or when it has failed for good."""

Action = Literal["retry", "skip", "continue", "abort"]
"""Run the step (again); take it as skipped; go on as without a breakpoint; stop the run."""

ACTIONS: Final[tuple[str, ...]] = get_args(Action)

ON_FAILURE: Final = "on-failure"
_NAMED = re.compile(r"(before|after):(?:([^/]+)/)?([^/]+)")
_MAX_SCRIPT: Final = 1_000_000


def check_breaks(breaks: Sequence[str], units: Iterable[Unit]) -> None:
    """Refuse breakpoints at which no run of this pipeline could stop.

    Args:
        breaks: ``on-failure``, ``before:STEP``, ``after:JOB/STEP``.
        units: The jobs of the run.

    Raises:
        InvalidArgument: One of them is none; code ``breakpoint``.
    """
    if not breaks:
        return
    places: set[str] = set()
    joined: set[str] = set()
    for unit in units:
        for step in unit.job.steps:
            names = {f"{job}{step.id}" for job in ("", f"{unit.id}/", f"{unit.name}/")}
            does_nothing = step.parallel or step.wait or step.cancel
            (joined if does_nothing else places).update(names)
            for part in step.parallel:
                places.update(f"{job}{part.id}" for job in ("", f"{unit.id}/", f"{unit.name}/"))
    for each in breaks:
        if each == ON_FAILURE:
            continue
        if not _NAMED.fullmatch(each):
            raise InvalidArgument(
                f"'{each}' is no breakpoint",
                code="breakpoint",
                help="on-failure, before:STEP or after:STEP; STEP may be JOB/STEP",
            )
        place = each.partition(":")[2]
        if place in places:
            continue
        why = "does nothing itself" if place in joined else "is not in this pipeline"
        raise InvalidArgument(
            f"breakpoint '{each}': step '{place}' {why}",
            code="breakpoint",
            help=f"steps: {', '.join(sorted(name for name in places if '/' in name))}",
        )


def stops(breaks: Collection[str], when: When, unit: Unit, step: str) -> bool:
    """Whether a run stops at a step."""
    if not breaks:
        return False
    if when == "on-failure":
        return ON_FAILURE in breaks
    names = {step, f"{unit.id}/{step}", f"{unit.name}/{step}"}
    return any(f"{when}:{name}" in breaks for name in names)


@attrs.frozen(kw_only=True)
class Decision:
    """What somebody has decided at a breakpoint.

    Attributes:
        script: Runs from now on in place of the step's own; None if it stays.
        by: Who.
    """

    action: Action
    script: str | None = None
    by: str = ""


def decision_of(body: Mapping[str, Json], by: str) -> Decision:
    """A decision as a client sends it.

    Raises:
        InvalidArgument: It is none.
    """
    action, script = body.get("action"), body.get("script")
    if action not in ACTIONS:
        raise InvalidArgument(f"'action' is one of {', '.join(ACTIONS)}")
    if script is not None and not isinstance(script, str):
        raise InvalidArgument("'script' is of the wrong type")
    if script is not None and action != "retry":
        raise InvalidArgument("'script' goes with the action 'retry' only")
    if script is not None and (not script.strip() or len(script) > _MAX_SCRIPT):
        raise InvalidArgument(f"'script' must have 1 to {_MAX_SCRIPT} characters")
    if script is not None and "${{" in script:
        raise InvalidArgument(
            "a script has no expressions: '${{' stays as it is in it",
            help="the values are there as environment variables; see them with `env` in the shell",
        )
    return Decision(action=action, script=script, by=by)


@attrs.define
class Waits:
    """The breakpoints of one run at which somebody is waited for, by ``JOB/STEP``."""

    _all: dict[str, "_Wait"] = attrs.field(factory=dict)

    def begin(self, place: str) -> "_Wait":
        """The step waits from now on; ``end`` follows."""
        self._all[place] = _Wait()
        return self._all[place]

    def __contains__(self, place: object) -> bool:
        return place in self._all

    def end(self, place: str) -> None:
        """It waits no more."""
        self._all.pop(place, None)

    def take(self, place: str, decision: Decision) -> "_Wait":
        """Decide; nobody else can then. The step goes on when ``decided`` is set.

        Raises:
            Conflict: Somebody was quicker; code ``not_held``.
        """
        found = self._all.get(place)
        if found is None or found.decision is not None:
            raise Conflict(f"'{place}' is not held any more", code="not_held")
        found.decision = decision
        return found


@attrs.define
class _Wait:
    decided: trio.Event = attrs.field(factory=trio.Event)
    decision: Decision | None = None

    async def __call__(self) -> Decision:
        await self.decided.wait()
        assert self.decision is not None
        return self.decision


def held_at(state: RunState, place: str) -> tuple[str, StepState]:
    """``JOB/STEP`` and the step at which a run is held.

    Args:
        state: The run.
        place: ``JOB`` or ``JOB/STEP``; empty if it is held at one only.

    Raises:
        Conflict: It is not held; code ``not_held``.
        NotFound: Not there.
        InvalidArgument: At several; code ``ambiguous``.
    """
    if not state.held:
        raise Conflict(
            f"run {state.id} is not held at a breakpoint",
            code="not_held",
            help=f"linkspan workflow show {state.id}",
        )
    found = [
        (name, step)
        for name, step in state.held.items()
        if place in ("", name, name.rpartition("/")[0])
    ]
    places = ", ".join(state.held)
    if not found:
        raise NotFound(f"run {state.id} is not held at '{place}'; it is at {places}")
    if len(found) > 1:
        raise InvalidArgument(f"run {state.id} is held at {places}", code="ambiguous")
    return found[0]


def check_decision(place: str, step: StepState, decision: Decision) -> None:
    """Refuse a decision that has no meaning where the run is held.

    Raises:
        Conflict: Code ``break_action``.
    """
    if decision.script is not None and not step.held["editable"]:
        raise Conflict(f"'{place}' has no script to edit", code="break_action")
    if decision.action == "skip" and step.held["when"] == "after":
        raise Conflict(
            f"'{place}' has been done; it cannot be skipped",
            code="break_action",
            help="continue, or retry",
        )


def shown(state: RunState, waits: Waits) -> list[dict[str, Json]]:
    """The breakpoints at which a run is held, as the API shows them; without those of an attempt that
    was interrupted there."""
    return [
        {**step.held, "error": dict(step.error), "place": place}
        for place, step in state.held.items()
        if place in waits
    ]
