"""Runs that are under way in this daemon: begun, reopened, supervised, asked to stop."""

import functools
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import attrs
import trio

from linkspan.sdk.errors import Conflict, LinkspanError
from linkspan.sdk.events import Event
from linkspan.sdk.host import Host
from linkspan.sdk.units import format_duration
from linkspan.workflows.archive import JOURNAL, Archive
from linkspan.workflows.config import WorkflowsConfig
from linkspan.workflows.containers import remove_leftovers
from linkspan.workflows.creating import checked, recorded, refuse_not_open
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.journal import Journal
from linkspan.workflows.locks import Locks
from linkspan.workflows.model import Workflow
from linkspan.workflows.recorder import Gate, Recorder
from linkspan.workflows.retention import Retention
from linkspan.workflows.run import RunRunner, group_of
from linkspan.workflows.running import Run
from linkspan.workflows.state import GOOD, RunState, fold
from linkspan.workflows.verbs import Verbs

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class ActiveRun:
    """A run in memory, and whether it still is."""

    run: Run
    ended: trio.Event = attrs.field(factory=trio.Event)


class ActiveRuns:
    """See the module.

    Attributes:
        archive: Runs that are not under way.
        interruptions: Why a run has stopped in this daemon's life, by its id.
        reopening: Going on with a run that is not in memory is for one at a time.
        groups: Of runs that exclude one another.
        changed: Called when a run has left memory.
        verbs: What steps can use.
    """

    def __init__(
        self,
        host: Host,
        verbs: Verbs,
        nursery: trio.Nursery,
        *,
        wall: Callable[[], float],
        gate: Gate,
        config: WorkflowsConfig,
    ) -> None:
        self._host = host
        self._config = config
        self.verbs = verbs
        self._nursery = nursery
        self._wall = wall
        self._gate = gate
        self._active: dict[str, ActiveRun] = {}
        self.interruptions: dict[str, str] = {}
        self.reopening: defaultdict[str, trio.Lock] = defaultdict(trio.Lock)
        self._locks = Locks()
        self.groups = Locks()
        self.archive = Archive(host.state_dir / "runs")
        self.retention = Retention(
            archive=self.archive,
            config=config,
            reopening=self.reopening,
            forgotten=lambda run_id: self.interruptions.pop(run_id, None),
            wall=wall,
        )
        self.changed: Callable[[], None] = lambda: None

    # which

    def states(self) -> list[RunState]:
        """Of all that are under way."""
        return [active.run.recorder.state for active in self._active.values()]

    def get(self, run_id: str) -> ActiveRun | None:
        """A run, if it is under way."""
        return self._active.get(run_id)

    def resolve(self, ref: str) -> str:
        """The id of a run from an unique prefix, or ``last``.

        Raises:
            NotFound: No run has it.
            InvalidArgument: Several runs begin so.
        """
        return self.archive.resolve(ref, {state.id: state for state in self.states()})

    def state_of(self, run_id: str) -> RunState:
        """What is known of a run, under way or not."""
        active = self._active.get(run_id)
        return self.archive.ended[run_id] if active is None else active.run.recorder.state

    # going on

    def make(self, workflow: Workflow, folder: Path, recorder: Recorder) -> Run:
        """A run with what it needs; not begun."""
        created = recorder.state.created
        return Run(
            id=created["run"],
            workflow=workflow,
            inputs=created["inputs"],
            git=created["git"],
            folder=folder,
            host=self._host,
            verbs=self.verbs,
            recorder=recorder,
            nursery=self._nursery,
            wall=self._wall,
            locks=self._locks,
            groups=self.groups,
            cancel_others=functools.partial(self._cancel_group, created["run"]),
        )

    async def reopen(self, state: RunState) -> Run:
        """A run that has ended, ready to go on."""
        folder = self.archive.folder / state.id
        workflow = await trio.to_thread.run_sync(self._read, folder, state.created)
        refuse_not_open(self._host, workflow)
        await remove_leftovers(self._host.engine, state.id)
        journal = await Journal.open(folder / JOURNAL)
        if state.records != journal.count:
            # Not what this daemon has read or written last.
            try:
                state = fold(await journal.past(journal.count))
            except BaseException:
                journal.close()
                raise
        return self.make(workflow, folder, Recorder(journal, state, self._gate))

    def _read(self, folder: Path, created: Mapping[str, Json]) -> Workflow:
        text, others = recorded(folder, created["digest"])
        return checked(text, others, created["file"], self.verbs, created.get("use", {}))

    def start(
        self,
        run: Run,
        *,
        continued_by: str | None = None,
        breaks: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> None:
        """Begin a run, or go on with it; it is under way from here on."""
        self.interruptions.pop(run.id, None)
        active = self.enter(run)
        runner = functools.partial(
            RunRunner(run), continued_by=continued_by, breaks=breaks, timeout_s=timeout_s
        )
        self._nursery.start_soon(self._supervise, active, runner, name=f"run {run.id}")
        # Waiting for a person has left memory, and does not count.
        limit_s = timeout_s if continued_by is None else run.recorder.state.timeout_s
        if limit_s is not None:
            self._nursery.start_soon(self._limit, active, limit_s)

    async def _supervise(self, active: ActiveRun, runner: Callable[[], Awaitable[str]]) -> None:
        """Run a run; no fault of one reaches another."""
        run = active.run
        self._publish(run, "start")
        try:
            result = await runner()
            self._publish(run, "suspend" if result == "suspended" else "finish", result=result)
        except LinkspanError as error:
            log.error("run interrupted", extra={"run": run.id, "reason": error.message})  # noqa: TRY400
            self._interrupted(run, error.message)
        except Exception as error:
            log.exception("run interrupted", extra={"run": run.id})
            self._interrupted(run, f"{type(error).__name__}: {error}")
        finally:
            self.leave(active)
        state = run.recorder.state
        if state.passing:
            await self.retention.forget([run.id])
            return
        if state.result in GOOD:
            keep = self._config.keep_sources
            await trio.to_thread.run_sync(self.archive.drop_files, run.id, keep)
        if state.suspended:
            await self.overtaken(state)
        await self.retention.tidy()

    async def _limit(self, active: ActiveRun, limit_s: float) -> None:
        """Ask a run to stop when its time is over; what cleans up has limits of its own."""
        with trio.move_on_after(limit_s):
            await active.ended.wait()
            return
        control = active.run.control
        if control.ending or control.cancelling:
            return
        control.out_of_time = True
        limit = f"the time limit of {format_duration(limit_s)}"
        await self._cancel_quietly(active.run.id, limit)

    def enter(self, run: Run) -> ActiveRun:
        """A run is in memory; nobody else may go on with it until ``leave``."""
        self.archive.ended.pop(run.id, None)
        self._active[run.id] = ActiveRun(run=run)
        return self._active[run.id]

    def leave(self, active: ActiveRun) -> None:
        """A run is no longer in memory."""
        run = active.run
        self.archive.ended[run.id] = run.recorder.state
        self._active.pop(run.id, None)
        run.workers.close()
        run.recorder.close()
        active.ended.set()
        self.changed()

    async def overtaken(self, state: RunState) -> None:
        """Go on at once if the answer came while the run was leaving."""
        decided = [step for _, step in state.suspensions() if step.decision]
        async with self.reopening[state.id]:
            if not decided or state.id in self._active:
                return
            try:
                run = await self.reopen(state)
            except (LinkspanError, OSError) as error:
                # It stays suspended; `resume` says the same to whoever asks.
                log.warning("run stays suspended", extra={"run": state.id, "reason": str(error)})
                return
            self.start(run, continued_by=decided[0].votes[-1]["by"])

    def _interrupted(self, run: Run, reason: str) -> None:
        """Tell those who watch, and those who will; the journal cannot be told."""
        self.interruptions[run.id] = reason
        run.recorder.tell("interrupted", reason=reason)

    def _publish(self, run: Run, action: str, **attributes: str) -> None:
        event = Event(
            type="workflow",
            action=action,
            actor_id=run.id,
            attributes={"name": run.workflow.name, **attributes},
        )
        self._host.engine.events.publish(event)

    # stopping

    async def cancel(self, ref: str, *, kill: bool, by: str = "") -> dict[str, Json]:
        """Ask a run to stop: in order, or at once.

        Raises:
            NotFound: No run has this id or prefix.
            Conflict: It is not running; code ``run_ended``.
        """
        run_id = self.resolve(ref)
        active = self._active.get(run_id)
        if active is None and self.archive.ended[run_id].suspended:
            return await self._cancel_suspended(run_id, by)
        if active is None:
            state = self.archive.ended[run_id].state(active=False)
            raise Conflict(f"run {run_id} is not running, it is {state}", code="run_ended")
        if not active.run.control.cancelling:
            await active.run.recorder.write("cancel-requested", by=by)
        if kill:
            active.run.control.kill()
        else:
            active.run.control.cancel()
        return self.state_of(run_id).summary(active=run_id in self._active)

    async def _cancel_suspended(self, run_id: str, by: str) -> dict[str, Json]:
        """It goes on once more, to end its jobs and to clean up."""
        async with self.reopening[run_id]:
            if run_id in self._active:
                return await self.cancel(run_id, kill=False, by=by)
            run = await self.reopen(self.archive.ended[run_id])
            await run.recorder.write("cancel-requested", by=by)
            run.control.cancel()
            self.start(run, continued_by=by)
        return run.recorder.state.summary(active=True)

    def _cancel_group(self, run_id: str, group: str) -> None:
        """Ask the run that is active in a group to stop; those that wait for it stop, too."""
        for other in self._active.values():
            run = other.run
            if run.id == run_id or run.workflow.concurrency is None or run.control.cancelling:
                continue
            if group_of(run, run.workflow.concurrency) == group and not self._newer(run.id, run_id):
                self._nursery.start_soon(self._cancel_quietly, run.id, f"run {run_id}")

    def _newer(self, run_id: str, other: str) -> bool:
        return self.state_of(run_id).order > self.state_of(other).order

    async def _cancel_quietly(self, run_id: str, by: str) -> None:
        try:
            await self.cancel(run_id, kill=False, by=by)
        except LinkspanError as error:
            log.info("run not cancelled", extra={"run": run_id, "reason": error.message})
