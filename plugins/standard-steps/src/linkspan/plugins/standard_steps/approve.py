"""``approve``: a person decides whether the run goes on."""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, cast

from linkspan.plugins.standard_steps.base import StandardStep
from linkspan.sdk.drivers.step import NeedsDecision, StepContext
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.step import Question, StepChange, StepIntent, StepPlan
from linkspan.sdk.units import format_duration

_APPROVER: Final = re.compile(r"(?:(?:user|group):)?[A-Za-z_][A-Za-z0-9_.@-]*\$?")
_SHOWN: Final = ("plan", "tests")


class ApproveStep(StandardStep):
    """Asks, and changes nothing; the runner suspends the run until it is answered."""

    async def plan(self, intent: StepIntent) -> StepPlan:
        """Who is asked, and how long."""
        question = _question(intent.settings)
        who = ", ".join(question.approvers) or "whoever may use the daemon"
        limit = (
            "" if question.timeout_s is None else f" within {format_duration(question.timeout_s)}"
        )
        detail = f"{question.minimum} of {who}{limit}"
        return StepPlan(
            changes=(StepChange(action="none", what="a person decides", detail=detail),)
        )

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Ask.

        Raises:
            NeedsDecision: Always; the answer completes or rejects the step.
            InvalidArgument: An approver or what is shown is none.
        """
        raise NeedsDecision(_question(intent.settings))


def _question(settings: Mapping[str, Any]) -> Question:
    approvers = tuple(settings.get("approvers", ()))
    for name in approvers:
        if not isinstance(name, str) or _APPROVER.fullmatch(name) is None:
            raise InvalidArgument(
                f"'{name}' is no approver", help="write NAME, user:NAME or group:NAME"
            )
    shown = tuple(settings.get("show", ()))
    for name in shown:
        if name not in _SHOWN:
            raise InvalidArgument(f"'{name}' cannot be shown", help="show: [plan, tests]")
    minimum = settings["minimum"]
    if minimum < 1:
        raise InvalidArgument("'minimum' must be at least 1")
    if (
        approvers
        and all(not n.startswith("group:") for n in approvers)
        and minimum > len(approvers)
    ):
        raise InvalidArgument(
            f"{minimum} of {len(approvers)} approvers can never be reached",
            help="name more approvers, or a group",
        )
    return Question(
        message=settings["message"],
        approvers=approvers,
        minimum=minimum,
        timeout_s=settings.get("timeout"),
        on_timeout=cast("Literal['approve', 'reject']", settings["on-timeout"]),
        show=cast("tuple[Literal['plan', 'tests'], ...]", shown),
    )
