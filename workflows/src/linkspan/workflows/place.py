"""Where a step runs, and what it sees of the others."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import trio

from linkspan.sdk.model.container import Mount
from linkspan.workflows.calling import Guard
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.model import Job
from linkspan.workflows.state import JobState
from linkspan.workflows.units import Unit


@attrs.frozen(kw_only=True)
class Place:
    """Where a step runs: its job's workspace, network and what expressions see so far.

    Attributes:
        contexts: The job's, without ``env``, ``steps`` and ``services``.
        env: Top-level and job's variables.
        folder: The job's own files, with the workspace in it.
        network: Its name, or ``default``.
        secrets: What the job was granted.
        secret_env: Variables that hold something of them.
        mounts: In each script's container, beside the workspace.
        guard: Does its steps.
        failed: Steps of the job that have failed so far.
        limit: The job's time limit, which stands still at a breakpoint.
    """

    unit: Unit
    contexts: Mapping[str, Json]
    env: Mapping[str, str]
    folder: Path
    workspace: Path
    network: str
    services: Mapping[str, Json]
    guard: Guard
    secrets: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    secret_env: frozenset[str] = frozenset()
    mounts: tuple[Mount, ...] = ()
    failed: set[str] = attrs.field(factory=set)
    limit: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    @property
    def job(self) -> Job:
        """The job, with its unit's id."""
        return self.unit.job


class StepsSeen(Mapping[str, Json]):
    """The steps of a job as expressions see them, looked up when they are read."""

    def __init__(self, job: JobState) -> None:
        self._steps = job.steps

    def __getitem__(self, name: str) -> Json:
        step = self._steps[name]
        if not step.result:
            raise KeyError(name)
        return {"result": step.result, "outputs": step.outputs}

    def __iter__(self) -> Iterator[str]:
        return (name for name, step in self._steps.items() if step.result)

    def __len__(self) -> int:
        return sum(1 for _ in self)
