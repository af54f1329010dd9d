"""Which jobs and steps a pipeline has, as scenario files name them: ``JOB`` and ``JOB/STEP``."""

import re
from collections.abc import Iterable
from typing import Final

from linkspan.sdk.diagnostics import did_you_mean
from linkspan.workflows.model import Step, Workflow
from linkspan.workflows.parse import Node
from linkspan.workflows.reader import Reader
from linkspan.workflows.units import Frame

_CELL: Final = re.compile(r"\[[^]]*\]")


def without_cells(place: str) -> str:
    """``test[3.10]/unit`` → ``test/unit``: what stands for all cells of a matrix."""
    return _CELL.sub("", place)


class Places:
    """See the module; a job with a matrix has a place for each cell, and one for all of them."""

    def __init__(self, reader: Reader, workflow: Workflow) -> None:
        self.r = reader
        self.workflow = workflow
        self._steps: dict[str, Step] = {}
        self._exact: dict[str, Step] = {}
        self._jobs: list[str] = []
        for unit in Frame(workflow).everything():
            self._jobs.append(unit.id)
            for step in unit.job.all_steps():
                place = f"{unit.id}/{step.id}"
                self._exact[place] = step
                self._steps[place] = step
                self._steps.setdefault(without_cells(place), step)

    def step(self, place: str, node: Node, *, exact: bool = False) -> Step | None:
        """A step; None, and a fault, if there is none.

        Args:
            place: ``JOB/STEP``.
            node: Where that is written.
            exact: It must be one step, not that of all cells.
        """
        known = self._exact if exact else self._steps
        if place in known:
            return self._steps[place]
        self._missing("step", place, node, known)
        return None

    def job(self, place: str, node: Node) -> bool:
        """Whether there is such a job; a fault if not."""
        if place not in self._jobs:
            self._missing("job", place, node, self._jobs)
        return place in self._jobs

    def _missing(self, kind: str, place: str, node: Node, known: Iterable[str]) -> None:
        names = list(known)
        near = did_you_mean(place, names)
        shown = ", ".join(names[:20])
        helps = [f"did you mean '{near}'?" if near else f"{kind}s: {shown}"]
        self.r.fault("LS1601", f"the pipeline has no {kind} '{place}'", node, helps=helps)
