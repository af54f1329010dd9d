"""Who may decide about a suspended step, and what is put before them."""

import contextlib
import grp
import pwd
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound, PermissionDenied
from linkspan.sdk.model.step import Question
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.model import Step
from linkspan.workflows.running import Fault
from linkspan.workflows.state import JobState, RunState, StepState


@attrs.frozen(kw_only=True)
class Voter:
    """Who decides.

    Attributes:
        name: As the journal shows it.
        groups: Of this machine.
        root: May always.
    """

    name: str
    groups: frozenset[str] = frozenset()
    root: bool = False


def voter_of(uid: int | None, name: str = "") -> Voter:
    """The user behind a connection. Blocks (the user database).

    Args:
        uid: As the kernel tells it; None if the connection says nothing: ``name`` is believed then.
        name: As the client gives it.
    """
    if uid is None:
        return Voter(name=name)
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return Voter(name=f"uid {uid}", root=uid == 0)
    groups = {group.gr_name for group in grp.getgrall() if user.pw_name in group.gr_mem}
    with contextlib.suppress(KeyError):
        groups.add(grp.getgrgid(user.pw_gid).gr_name)
    # Root acts for somebody when a name is given: `sudo linkspan` says who.
    shown = name if uid == 0 and name else user.pw_name
    return Voter(name=shown, groups=frozenset(groups), root=uid == 0)


def find_question(state: RunState, place: str) -> tuple[JobState, StepState]:
    """The step that a decision is about.

    Args:
        state: The run.
        place: ``JOB`` or ``JOB/STEP``; empty if the run asks one thing only.

    Raises:
        Conflict: The run asks nothing; code ``not_suspended``.
        NotFound: Not there.
        InvalidArgument: It asks several; code ``ambiguous``.
    """
    asked = state.suspensions()
    if not asked:
        raise Conflict(
            f"run {state.id} waits for nobody", code="not_suspended", help="linkspan workflow ls"
        )
    found = [(j, s) for j, s in asked if place in ("", j.id, f"{j.id}/{s.id}")]
    places = ", ".join(f"{job.id}/{step.id}" for job, step in asked)
    if not found:
        raise NotFound(f"run {state.id} does not ask at '{place}'; it asks at {places}")
    if len(found) > 1:
        raise InvalidArgument(f"run {state.id} asks several things: {places}", code="ambiguous")
    return found[0]


def check_vote(step: StepState, voter: Voter) -> None:
    """Refuse a vote that does not count.

    Raises:
        PermissionDenied: They are not asked; code ``not_an_approver``.
        Conflict: They have spoken already; code ``voted``.
    """
    approvers: Sequence[str] = step.question.get("approvers", ())
    if approvers and not voter.root and not any(_is(voter, each) for each in approvers):
        raise PermissionDenied(
            f"'{voter.name}' is not asked; this decides: {', '.join(approvers)}",
            code="not_an_approver",
        )
    if any(vote["by"] == voter.name for vote in step.votes):
        raise Conflict(f"'{voter.name}' has decided already", code="voted")


def _is(voter: Voter, approver: str) -> bool:
    kind, has_kind, name = approver.partition(":")
    if not has_kind:
        return voter.name == approver
    return name in voter.groups if kind == "group" else voter.name == name


PAUSED: Final = "paused"
"""The kind of a question that a failed step asks: again, or back?"""


def pause_question(step: Step, fault: Fault) -> Question:
    """What is asked after a failure with ``on-failure: pause``."""
    return Question(
        message=f"'{step.title}' failed: {fault.message}\napprove: try it again; reject: take it back",
    )


def record_of(question: Question, evidence: Mapping[str, Json]) -> dict[str, Json]:
    """A question as the journal holds it, with what is put before the approver."""
    return {**attrs.asdict(question), "evidence": dict(evidence)}


def tests_of(state: RunState) -> dict[str, int]:
    """The counts of all test reports of a run so far; empty if there are none."""
    total: dict[str, int] = {}
    for job in state.jobs.values():
        for step in job.steps.values():
            for name, count in step.tests.items():
                total[name] = total.get(name, 0) + count
    return total


def outputs_of(step: StepState, declared: Sequence[str]) -> dict[str, Any]:
    """What an approved step gives."""
    last = step.votes[-1]
    known = {
        "by": ", ".join(vote["by"] for vote in step.votes),
        "comment": last.get("comment", ""),
        "decided_at": last.get("t", ""),
    }
    return {name: value for name, value in known.items() if name in declared}
