"""All runs of this daemon: made, watched, stopped, resumed; each in a folder of its own.

A run lives in the daemon, so it survives the terminal that started it. When the daemon ends, or dies,
a run that is under way is *interrupted*: what it holds is cleaned up at the next start, and it goes on
only when somebody resumes it.
"""

import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from linkspan.sdk.errors import Conflict, InvalidArgument
from linkspan.sdk.host import Host
from linkspan.workflows import again
from linkspan.workflows.active_runs import ActiveRuns
from linkspan.workflows.answers import Answers
from linkspan.workflows.breakpoints import (
    check_breaks,
)
from linkspan.workflows.config import WorkflowsConfig
from linkspan.workflows.containers import remove_all_leftovers
from linkspan.workflows.creating import (
    NewRun,
    Rerun,
    checked,
    creation,
)
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.inputs import read_inputs
from linkspan.workflows.making import Predecessor, RunMaker
from linkspan.workflows.model import Workflow
from linkspan.workflows.planning.asking import plan_run, refuse_if_moved
from linkspan.workflows.recorder import Gate, Watcher
from linkspan.workflows.state import GOOD
from linkspan.workflows.undoing import undo_run
from linkspan.workflows.verbs import Verbs
from linkspan.workflows.why import why

log = logging.getLogger(__name__)


class RunManager:
    """See the module; made by ``serve``, or in tests with a nursery of their own.

    Attributes:
        archive: Runs that are not under way.
        retention: Which of them go.
        answers: What people decide.
    """

    def __init__(
        self,
        host: Host,
        verbs: Verbs,
        nursery: trio.Nursery,
        *,
        wall: Callable[[], float] = time.time,
        gate: Gate = lambda kind, data: None,
        config: WorkflowsConfig | None = None,
    ) -> None:
        config = config or WorkflowsConfig()
        self._host = host
        self._nursery = nursery
        self._runs = ActiveRuns(host, verbs, nursery, wall=wall, gate=gate, config=config)
        self.archive = self._runs.archive
        self.retention = self._runs.retention
        self.answers = Answers(self._runs, wall, nursery)
        self._maker = RunMaker(
            host=host,
            verbs=verbs,
            archive=self.archive,
            groups=self._runs.groups,
            untrusted_verbs=config.untrusted_verbs,
            gate=gate,
            active=self._runs.states,
        )

    # start

    async def recover(self) -> None:
        """Read what runs there are, and remove what a crash left of them.

        Raises:
            LinkspanError: The folder of the runs cannot be read.
        """
        await trio.to_thread.run_sync(self.archive.load)
        await remove_all_leftovers(self._host.engine)
        passing = [state.id for state in self.archive.ended.values() if state.passing]
        await self.retention.forget(passing)
        for state in list(self.archive.ended.values()):
            if state.suspended:
                # Decided in the moment in which the daemon died.
                await self._runs.overtaken(state)
        self.answers.expiry.changed()

    # asking

    def resolve(self, ref: str) -> str:
        """The id of a run from an unique prefix, or ``last``.

        Raises:
            NotFound: No run has it.
            InvalidArgument: Several runs begin so.
        """
        return self._runs.resolve(ref)

    def list_runs(self) -> list[dict[str, Json]]:
        """One row a run, newest first."""
        states = [*self.archive.ended.values(), *self._runs.states()]
        newest = sorted(states, key=lambda state: (state.order, state.id), reverse=True)
        return [state.summary(active=self._runs.get(state.id) is not None) for state in newest]

    def inspect(self, ref: str) -> dict[str, Json]:
        """A run with its jobs and steps.

        Raises:
            NotFound: No run has this id or prefix.
        """
        run_id = self._runs.resolve(ref)
        return self._runs.state_of(run_id).as_json(active=self._runs.get(run_id) is not None)

    @asynccontextmanager
    async def watch(self, ref: str) -> AsyncIterator[Watcher]:
        """A run's events, from the first record on; they end when the run is not active any more.

        Raises:
            NotFound: No run has this id or prefix.
            DataLoss: Its record is damaged.
        """
        run_id = self._runs.resolve(ref)
        active = self._runs.get(run_id)
        if active is not None:
            async with active.run.recorder.watch() as watcher:
                yield watcher
            return
        reason = self._runs.interruptions.get(run_id)
        watcher = Watcher(await trio.to_thread.run_sync(self.archive.records, run_id))
        if reason is not None:
            watcher.offer({"kind": "interrupted", "reason": reason}, passing=False)
        watcher.end()
        yield watcher

    def log_files(self, ref: str, job: str = "", step: str = "") -> list[tuple[str, str, Path]]:
        """``(job, step, file)`` of the logs there are, in the order of the pipeline.

        Raises:
            NotFound: No run, job or step has this name.
        """
        return list(self.archive.log_files(self._runs.state_of(self._runs.resolve(ref)), job, step))

    async def why(self, ref: str) -> dict[str, Json]:
        """What is different from the last run of the pipeline that succeeded before this one.

        Raises:
            NotFound: No run has this id or prefix; code ``no_green_run``: none has succeeded.
            Conflict: It has not ended; code ``run_active``.
        """
        state = self.archive.ended[self._ended_run(ref)]
        green = self.archive.green(state.workflow, before=state)
        return await trio.to_thread.run_sync(why, self.archive.folder, green, state)

    def _ended_run(self, ref: str) -> str:
        run_id = self._runs.resolve(ref)
        if self._runs.get(run_id) is not None:
            raise Conflict(f"run {run_id} is running", code="run_active")
        return run_id

    async def wait(self, ref: str) -> str:
        """Wait until a run is not active; its state then.

        Raises:
            NotFound: No run has this id or prefix.
        """
        run_id = self._runs.resolve(ref)
        active = self._runs.get(run_id)
        if active is None:
            return self._runs.state_of(run_id).state(active=False)
        await active.ended.wait()
        # Meanwhile it may have been removed: not everybody keeps runs.
        return active.run.recorder.state.state(active=False)

    # acting

    async def create(self, new: NewRun) -> dict[str, Json]:
        """Check a pipeline, record a run of it and start it.

        Raises:
            InvalidPipeline: It has errors.
            InvalidArgument: Inputs are wrong (code ``invalid_input``), or the workspace is not usable.
            NotFound: There is no such workspace.
            OutOfSpace: There is no room for its copy.
            StalePlan: It would do something else than was planned; nothing was started.
        If cancelled: the run is either started or leaves nothing.
        """
        workflow = await trio.to_thread.run_sync(
            checked, new.text, new.others, new.file, self._runs.verbs, new.use
        )
        if new.trigger == "manual" and not workflow.triggers.manual:
            raise InvalidArgument(
                f"pipeline '{workflow.name}' is not started by people: it says `manual: false`",
                code="not_manual",
            )
        inputs = read_inputs(workflow, new.inputs)
        await refuse_if_moved(self._host, self._runs.verbs, new, self._nursery)
        return await self._make(workflow, new, inputs)

    async def plan(self, new: NewRun) -> dict[str, Json]:
        """Say what a run would do; see ``plan_run``."""
        return await plan_run(self._host, self._runs.verbs, new, self._nursery)

    async def rerun(self, ref: str, wish: Rerun) -> dict[str, Json]:
        """Start a new run of what an old one did: all of it, or what failed, or from some step on.

        Raises:
            NotFound: No run has this id or prefix, or it has no such step.
            Conflict: It is active; code ``run_active``. Its sources are gone; code ``sources_gone``.
            InvalidPipeline, InvalidArgument: As for ``create``.
        """
        run_id = self._ended_run(ref)
        old = self.archive.ended[run_id]
        new = await self._maker.recorded(old, wish) if wish.fresh is None else wish.fresh
        use = {**old.created.get("use", {}), **wish.use}
        new = attrs.evolve(new, breaks=wish.breaks, use=use, timeout_s=wish.timeout_s)
        if wish.look:
            place = again.step_of(old, wish.again.start)
            new = attrs.evolve(new, only=place, breaks=(f"before:{place}",), passing=True)
        workflow = await trio.to_thread.run_sync(
            checked, new.text, new.others, new.file, self._runs.verbs, new.use
        )
        inputs = read_inputs(workflow, wish.inputs, recorded=old.created["inputs"])
        kept = again.keep(old, wish.again, creation("", workflow, new, self._runs.verbs)["jobs"])
        images = {} if wish.fresh else old.images
        return await self._make(
            workflow, new, inputs, Predecessor(state=old, kept=kept, images=images)
        )

    async def _make(
        self,
        workflow: Workflow,
        new: NewRun,
        inputs: Mapping[str, Json],
        before: Predecessor | None = None,
    ) -> dict[str, Json]:
        folder, recorder = await self._maker.make(workflow, new, inputs, before)
        # From here on it is visible.
        self._runs.start(self._runs.make(workflow, folder, recorder), timeout_s=new.timeout_s)
        return recorder.state.summary(active=True)

    async def resume(
        self, ref: str, *, breaks: Sequence[str] = (), timeout_s: float | None = None
    ) -> dict[str, Json]:
        """Go on with a run that failed, was cancelled or was interrupted.

        It uses the recorded text and inputs. Steps that are done are not done again.

        Args:
            ref: The run.
            breaks: Where it is held from now on; empty for where it was held before.
            timeout_s: How long this attempt may run; None for as long as it takes.

        Raises:
            NotFound: No run has this id or prefix.
            Conflict: It is active (code ``run_active``), has succeeded (``run_succeeded``) or waits for a
                person (``run_suspended``).
            InvalidPipeline: Plugins that it needs are gone or have changed.
            DataLoss: Its record is damaged.
            InvalidArgument: A breakpoint names no step; code ``breakpoint``.
        """
        async with self._runs.reopening[self._ended_run(ref)]:
            return await self._resume(self._ended_run(ref), breaks, timeout_s)

    async def _resume(
        self, run_id: str, breaks: Sequence[str], timeout_s: float | None
    ) -> dict[str, Json]:
        state = self.archive.ended[run_id]
        if state.result in GOOD:
            raise Conflict(
                f"run {run_id} has succeeded; nothing is left to do",
                code="run_succeeded",
                help=f"do it again: linkspan workflow rerun {run_id}",
            )
        if state.suspended and not any(step.decision for _, step in state.suspensions()):
            raise Conflict(
                f"run {run_id} waits for a person",
                code="run_suspended",
                help=f"linkspan workflow approve {run_id}",
            )
        run = await self._runs.reopen(state)
        try:
            check_breaks(breaks, run.frame.everything())
        except InvalidArgument:
            run.recorder.close()
            raise
        self._runs.start(run, breaks=breaks, timeout_s=timeout_s)
        return run.recorder.state.summary(active=True)

    async def undo(
        self, ref: str, *, by: str = "", secrets: Mapping[str, str] | None = None
    ) -> dict[str, Json]:
        """Take back everything that a run has changed, the last change first.

        Args:
            ref: Id or prefix.
            by: Who asks.
            secrets: Values that cannot be read any more, by name or by place in a record; kept nowhere.

        Returns:
            Its summary, with ``undone``: ``success``, ``failed`` or, if it was asked to stop, ``cancelled``.

        Raises:
            NotFound: No run has this id or prefix.
            Conflict: It is active (code ``run_active``), or nothing is left (``nothing_to_undo``).
        """
        async with self._runs.reopening[self._ended_run(ref)]:
            run_id = self._ended_run(ref)
            run = await self._runs.reopen(self.archive.ended[run_id])
            run.given.update(secrets or {})
            active = self._runs.enter(run)
        try:
            await undo_run(run, by)
        finally:
            self._runs.leave(active)
        return run.recorder.state.summary(active=False)

    async def cancel(self, ref: str, *, kill: bool, by: str = "") -> dict[str, Json]:
        """Ask a run to stop: in order, or at once.

        Raises:
            NotFound: No run has this id or prefix.
            Conflict: It is not running; code ``run_ended``.
        """
        return await self._runs.cancel(ref, kill=kill, by=by)
