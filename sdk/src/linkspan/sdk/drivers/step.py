"""Role ``step``: the verbs of a pipeline. The entry point's name is the verb.

A verb's settings, outputs and help are in its plugin's manifest (``[[verb]]``), so that a pipeline is
checked without importing anything. The runner journals ``plan``'s undo before it calls ``apply``;
after a crash it asks ``observe`` what became of the intent.
"""

import abc
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from linkspan.sdk.drivers.base import Config, Driver
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.model.step import Outputs, Question, StepIntent, StepOutcome, StepPlan
from linkspan.sdk.progress import ProgressSink
from linkspan.sdk.stability import Stage, contract

MISSING: Final = "missing"
"""In ``details`` of an error of ``plan``: what is not there, as a change names it: ``service web``."""


class NeedsDecision(LinkspanError):
    """Raised by ``apply`` to leave the step to a person; nothing has been changed yet.

    The runner suspends the run on disk: nothing of it runs or waits in memory. An approval completes the
    step, with the outputs ``by``, ``comment`` and ``decided_at`` as far as its manifest names them; a
    rejection ends it as ``rejected``. The driver is not called again.

    Attributes:
        question: What is asked, and whom.
    """

    default_code = "needs_decision"

    def __init__(self, question: Question) -> None:
        super().__init__(question.message)
        self.question = question


class StepContext(Protocol):
    """What the runner lends a step while it runs."""

    @property
    def log(self) -> Callable[[str], None]:
        """Add a line to the step's log."""

    @property
    def progress(self) -> ProgressSink:
        """Show how far the step is."""

    @property
    def secrets(self) -> Mapping[str, str]:
        """Secrets granted to this step."""


@contract(role="step", version=1, stage=Stage.BETA, since="0.1")
class Step(Driver[Config], abc.ABC):
    """Does one verb; see the module."""

    async def plan(self, intent: StepIntent) -> StepPlan:
        """Say what would change, changing nothing, and what is needed to undo it.

        Changes that are all ``none`` promise that ``apply`` will change nothing, and the journal need not
        be on disk before it; no changes at all promise nothing.

        Raises:
            LinkspanError: It cannot be done. One whose ``details`` name what is ``MISSING`` counts in a plan
                only if no earlier step creates or changes what is called so.
        """
        return StepPlan()

    @abc.abstractmethod
    async def apply(self, intent: StepIntent, context: StepContext) -> Outputs:
        """Do it; doing it twice has the effect of once.

        Raises:
            LinkspanError: It failed; the message is what the user reads.
            NeedsDecision: A person decides; nothing was changed.
        If cancelled: clean; ``observe`` says what was reached.
        """

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """Say what has become of an intent that has no result in the journal.

        One with outputs has succeeded before: is what it did still so? Whoever cannot see it says yes, as
        its sources are unchanged, unless doing it again is the point.
        """
        return StepOutcome(applied=False, detail="cannot be observed; done again")

    async def undo(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Take back what ``apply`` did, from ``intent.undo`` and ``intent.outputs``; idempotent.

        What cannot be taken back is named in ``detail`` of what is returned.
        """
        return {}
