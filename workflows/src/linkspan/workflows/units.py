"""What really runs: each cell of a job's matrix, each job of a pipeline that a job calls.

All of it is known before a run begins. A unit's id is ``test``, ``test[3.10-sqlite]`` for a cell, and
``release.check`` for the job ``check`` of the pipeline that the job ``release`` calls.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property

import attrs

from linkspan.workflows.matrix import Cell
from linkspan.workflows.model import Job, Workflow


@attrs.frozen(kw_only=True, eq=False)
class Unit:
    """One job as it runs.

    Attributes:
        id: Unique in the run.
        name: Of the job as written.
        job: As written, but with this unit's id.
        frame: The pipeline that it stands in.
        cell: None without a matrix.
        cleanup: It stands in ``finally``.
        inner: The pipeline that it calls; None if it has steps.
    """

    id: str
    name: str
    job: Job
    frame: "Frame"
    cell: Cell | None
    cleanup: bool
    inner: "Frame | None"

    @property
    def needs(self) -> list[str]:
        """Ids of the units that it waits for."""
        return [unit.id for name in self.job.needed for unit in self.frame.cells(name)]


class Frame:
    """A pipeline in a run: the one that was started, or one that a unit calls.

    Attributes:
        workflow: As written.
        prefix: Before the ids of its units.
        use: Role → driver: what the pipeline chooses, and what the one that calls it does.
    """

    def __init__(
        self, workflow: Workflow, prefix: str = "", use: Mapping[str, str] | None = None
    ) -> None:
        self.workflow = workflow
        self.prefix = prefix
        own = {role: choice.driver for role, choice in workflow.use.items()}
        self.use: Mapping[str, str] = {**(use or {}), **own}
        self._by_name: dict[str, list[Unit]] = {}
        for cleanup, jobs in ((False, workflow.jobs), (True, workflow.cleanup)):
            for name, job in jobs.items():
                self._by_name[name] = list(self._units(name, job, cleanup=cleanup))

    def _units(self, name: str, job: Job, *, cleanup: bool) -> Iterator[Unit]:
        cells: tuple[Cell | None, ...] = (None,)
        if job.strategy is not None:
            cells = job.strategy.matrix.cells
        for cell in cells:
            unit_id = f"{self.prefix}{name}" + ("" if cell is None else f"[{cell.key}]")
            inner = None
            if job.call is not None and job.call.workflow is not None:
                inner = Frame(job.call.workflow, f"{unit_id}.", self.use)
            yield Unit(
                id=unit_id,
                name=name,
                job=attrs.evolve(job, id=unit_id),
                frame=self,
                cell=cell,
                cleanup=cleanup,
                inner=inner,
            )

    def cells(self, name: str) -> list[Unit]:
        """The units of a job by its name as written; one without a matrix."""
        return self._by_name[name]

    @cached_property
    def units(self) -> list[Unit]:
        """Of the jobs, without those of ``finally``."""
        return [unit for units in self._by_name.values() for unit in units if not unit.cleanup]

    @cached_property
    def cleanup(self) -> list[Unit]:
        """Those of ``finally``."""
        return [unit for units in self._by_name.values() for unit in units if unit.cleanup]

    def everything(self) -> Iterator[Unit]:
        """All units, those of called pipelines after the unit that calls."""
        for unit in (*self.units, *self.cleanup):
            yield unit
            if unit.inner is not None:
                yield from unit.inner.everything()

    @cached_property
    def by_id(self) -> Mapping[str, Unit]:
        """All units, also of called pipelines."""
        return {unit.id: unit for unit in self.everything()}
