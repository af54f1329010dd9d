"""All runs of this daemon: made, watched, stopped, resumed; each in a folder of its own.

A run lives in the daemon, so it survives the terminal that started it. When the daemon ends, or dies,
a run that is under way is *interrupted*: what it holds is cleaned up at the next start, and it goes on
only when somebody resumes it.
"""

import functools
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from linkspan.sdk.errors import Conflict, InvalidArgument, LinkspanError
from linkspan.sdk.events import Event
from linkspan.sdk.host import Host
from linkspan.sdk.units import format_duration
from linkspan.workflows import again
from linkspan.workflows.approvals import Voter, check_vote, find_question
from linkspan.workflows.archive import JOURNAL, Archive
from linkspan.workflows.breakpoints import (
    Decision,
    check_breaks,
    check_decision,
    held_at,
    shown,
)
from linkspan.workflows.config import WorkflowsConfig
from linkspan.workflows.containers import remove_all_leftovers, remove_leftovers
from linkspan.workflows.creating import (
    NewRun,
    Rerun,
    checked,
    creation,
    recorded,
    refuse_not_open,
)
from linkspan.workflows.expiry import Expiry
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.inputs import read_inputs
from linkspan.workflows.journal import Journal
from linkspan.workflows.locks import Locks
from linkspan.workflows.making import Predecessor, RunMaker
from linkspan.workflows.model import Workflow
from linkspan.workflows.planning.asking import plan_run, refuse_if_moved
from linkspan.workflows.recorder import Gate, Recorder, Watcher
from linkspan.workflows.retention import Retention
from linkspan.workflows.run import RunRunner, group_of
from linkspan.workflows.running import Run
from linkspan.workflows.state import GOOD, RunState, fold
from linkspan.workflows.undoing import undo_run
from linkspan.workflows.verbs import Verbs
from linkspan.workflows.why import why

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class _Active:
    run: Run
    ended: trio.Event = attrs.field(factory=trio.Event)


class RunManager:
    """See the module; made by ``serve``, or in tests with a nursery of their own."""

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
        self._host = host
        self._config = config or WorkflowsConfig()
        self._verbs = verbs
        self._nursery = nursery
        self._wall = wall
        self._gate = gate
        self._active: dict[str, _Active] = {}
        self._interruptions: dict[str, str] = {}
        # Going on with a run that is not in memory is for one at a time.
        self._reopening: defaultdict[str, trio.Lock] = defaultdict(trio.Lock)
        self._locks = Locks()
        self._groups = Locks()
        self._folder = host.state_dir / "runs"
        self.archive = Archive(self._folder)
        self.retention = Retention(
            archive=self.archive,
            config=self._config,
            reopening=self._reopening,
            forgotten=lambda run_id: self._interruptions.pop(run_id, None),
            wall=wall,
        )
        self._maker = RunMaker(
            host=host,
            verbs=verbs,
            archive=self.archive,
            groups=self._groups,
            untrusted_verbs=self._config.untrusted_verbs,
            gate=gate,
            active=lambda: [active.run.recorder.state for active in self._active.values()],
        )
        self._expiry = Expiry(self._questions, self._expired, wall, nursery)

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
                await self._overtaken(state)
        self._expiry.changed()

    # asking

    def resolve(self, ref: str) -> str:
        """The id of a run from an unique prefix, or ``last``.

        Raises:
            NotFound: No run has it.
            InvalidArgument: Several runs begin so.
        """
        return self.archive.resolve(
            ref, {run_id: active.run.recorder.state for run_id, active in self._active.items()}
        )

    def _state(self, run_id: str) -> RunState:
        active = self._active.get(run_id)
        return self.archive.ended[run_id] if active is None else active.run.recorder.state

    def list_runs(self) -> list[dict[str, Json]]:
        """One row a run, newest first."""
        ids = {*self.archive.ended, *self._active}
        newest = sorted(ids, key=lambda run_id: (self._state(run_id).order, run_id), reverse=True)
        return [self._state(run_id).summary(active=run_id in self._active) for run_id in newest]

    def inspect(self, ref: str) -> dict[str, Json]:
        """A run with its jobs and steps.

        Raises:
            NotFound: No run has this id or prefix.
        """
        run_id = self.resolve(ref)
        return self._state(run_id).as_json(active=run_id in self._active)

    @asynccontextmanager
    async def watch(self, ref: str) -> AsyncIterator[Watcher]:
        """A run's events, from the first record on; they end when the run is not active any more.

        Raises:
            NotFound: No run has this id or prefix.
            DataLoss: Its record is damaged.
        """
        run_id = self.resolve(ref)
        active = self._active.get(run_id)
        if active is not None:
            async with active.run.recorder.watch() as watcher:
                yield watcher
            return
        reason = self._interruptions.get(run_id)
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
        return list(self.archive.log_files(self._state(self.resolve(ref)), job, step))

    async def why(self, ref: str) -> dict[str, Json]:
        """What is different from the last run of the pipeline that succeeded before this one.

        Raises:
            NotFound: No run has this id or prefix; code ``no_green_run``: none has succeeded.
            Conflict: It has not ended; code ``run_active``.
        """
        state = self.archive.ended[self._ended_run(ref)]
        green = self.archive.green(state.workflow, before=state)
        return await trio.to_thread.run_sync(why, self._folder, green, state)

    def _ended_run(self, ref: str) -> str:
        run_id = self.resolve(ref)
        if run_id in self._active:
            raise Conflict(f"run {run_id} is running", code="run_active")
        return run_id

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
            checked, new.text, new.others, new.file, self._verbs, new.use
        )
        if new.trigger == "manual" and not workflow.triggers.manual:
            raise InvalidArgument(
                f"pipeline '{workflow.name}' is not started by people: it says `manual: false`",
                code="not_manual",
            )
        inputs = read_inputs(workflow, new.inputs)
        await refuse_if_moved(self._host, self._verbs, new, self._nursery)
        return await self._make(workflow, new, inputs)

    async def plan(self, new: NewRun) -> dict[str, Json]:
        """Say what a run would do; see ``plan_run``."""
        return await plan_run(self._host, self._verbs, new, self._nursery)

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
            checked, new.text, new.others, new.file, self._verbs, new.use
        )
        inputs = read_inputs(workflow, wish.inputs, recorded=old.created["inputs"])
        kept = again.keep(old, wish.again, creation("", workflow, new, self._verbs)["jobs"])
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
        self._start(self._run(workflow, folder, recorder), timeout_s=new.timeout_s)
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
        async with self._reopening[self._ended_run(ref)]:
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
        run = await self._reopen(state)
        try:
            check_breaks(breaks, run.frame.everything())
        except InvalidArgument:
            run.recorder.close()
            raise
        self._start(run, breaks=breaks, timeout_s=timeout_s)
        return run.recorder.state.summary(active=True)

    async def _reopen(self, state: RunState) -> Run:
        """A run that has ended, ready to go on."""
        folder = self._folder / state.id
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
        return self._run(workflow, folder, Recorder(journal, state, self._gate))

    def _read(self, folder: Path, created: Mapping[str, Json]) -> Workflow:
        text, others = recorded(folder, created["digest"])
        return checked(text, others, created["file"], self._verbs, created.get("use", {}))

    async def decide(
        self, ref: str, vote: str, voter: Voter, *, place: str = "", comment: str = ""
    ) -> dict[str, Json]:
        """Answer what a run asks; when enough have answered, it goes on.

        Args:
            ref: The run.
            vote: ``approve`` or ``reject``.
            voter: Who answers.
            place: ``JOB`` or ``JOB/STEP``, if it asks several things.
            comment: For the journal.

        Returns:
            The run's summary, with ``decision``: empty while others are waited for.

        Raises:
            NotFound: There is no such run or question.
            Conflict: It asks nothing (code ``not_suspended``), or they have answered (``voted``).
            PermissionDenied: They are not asked.
        """
        run_id = self.resolve(ref)
        async with self._reopening[run_id]:
            job, step = find_question(self._state(run_id), place)
            check_vote(step, voter)
            record = {"vote": vote, "by": voter.name, "comment": comment}
            decision = await self._decide(run_id, {"job": job.id, "step": step.id, **record})
        self._expiry.changed()
        summary = self._state(run_id).summary(active=run_id in self._active)
        return {**summary, "decision": decision, "job": job.id, "step": step.id}

    async def _decide(self, run_id: str, record: Mapping[str, Json]) -> str:
        """Record a vote; the decision, if that makes one, with which the run goes on."""
        active = self._active.get(run_id)
        run = await self._reopen(self.archive.ended[run_id]) if active is None else active.run
        try:
            await run.recorder.write("step-decided", **record)
        except BaseException:
            if active is None:
                run.recorder.close()
            raise
        state = run.recorder.state
        decision = state.jobs[record["job"]].steps[record["step"]].decision
        if active is not None:
            if decision:
                run.control.release(record["job"])
        elif decision and state.suspended:
            self._start(run, continued_by=record["by"])
        else:
            self.archive.ended[run_id] = state
            run.recorder.close()
        return str(decision)

    def _questions(self) -> Iterator[tuple[float, str, str]]:
        """``(until, run, JOB/STEP)`` of all that is asked with a time limit."""
        states = [*self.archive.ended.items(), *((i, self._state(i)) for i in self._active)]
        for run_id, state in states:
            for job, step in state.suspensions() if not state.result else ():
                if step.question["until"] is not None and not step.decision:
                    yield step.question["until"], run_id, f"{job.id}/{step.id}"

    async def _expired(self, run_id: str, place: str) -> None:
        """Nobody has answered in time."""
        _, step = find_question(self._state(run_id), place)
        vote = step.question["on_timeout"]
        limit = f"nobody has answered in {step.question['timeout_s']:g}s"
        needed = step.question["minimum"] if vote == "approve" else 1
        for number in range(1, needed + 1):
            name = "the time limit" if needed == 1 else f"the time limit ({number})"
            voter = Voter(name=name, root=True)
            await self.decide(run_id, vote, voter, place=place, comment=limit)

    def breaks(self, ref: str) -> dict[str, Json]:
        """Where a run is held, and the containers to look around in.

        Raises:
            NotFound: No run has this id or prefix.
        """
        run_id = self.resolve(ref)
        active = self._active.get(run_id)
        held = [] if active is None else shown(active.run.recorder.state, active.run.waits)
        return {"id": run_id, "held": held}

    async def leave(self, ref: str, decision: Decision, *, place: str = "") -> dict[str, Json]:
        """Let a run go on from a breakpoint, as somebody has decided.

        Args:
            ref: The run.
            decision: How.
            place: ``JOB`` or ``JOB/STEP``, if it is held at several.

        Raises:
            NotFound: There is no such run, or it is not held there.
            Conflict: It is not held (code ``not_held``), or cannot go on so (``break_action``).
            InvalidArgument: It is held at several; code ``ambiguous``.
        """
        run_id = self.resolve(ref)
        active = self._active.get(run_id)
        if active is None:
            raise Conflict(
                f"run {run_id} is not running",
                code="not_held",
                help=f"linkspan workflow resume {run_id}",
            )
        run = active.run
        name, step = held_at(run.recorder.state, place)
        check_decision(name, step, decision)
        job = str(step.held["job"])
        wait = run.waits.take(name, decision)
        try:
            await run.recorder.write("break-left", job=job, step=step.id, **attrs.asdict(decision))
            if decision.action == "abort":
                await self.cancel(run_id, kill=False, by=decision.by)
        finally:
            wait.decided.set()
        return {"id": run_id, "job": job, "step": step.id, "action": decision.action}

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
        async with self._reopening[self._ended_run(ref)]:
            run_id = self._ended_run(ref)
            run = await self._reopen(self.archive.ended[run_id])
            run.given.update(secrets or {})
            active = _Active(run=run)
            # As long as it takes, nobody else may go on with this run.
            self._active[run_id] = active
            del self.archive.ended[run_id]
        try:
            await undo_run(run, by)
        finally:
            self._leave(active)
        return run.recorder.state.summary(active=False)

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
        return self._state(run_id).summary(active=run_id in self._active)

    async def _cancel_suspended(self, run_id: str, by: str) -> dict[str, Json]:
        """It goes on once more, to end its jobs and to clean up."""
        async with self._reopening[run_id]:
            if run_id in self._active:
                return await self.cancel(run_id, kill=False, by=by)
            run = await self._reopen(self.archive.ended[run_id])
            await run.recorder.write("cancel-requested", by=by)
            run.control.cancel()
            self._start(run, continued_by=by)
        return run.recorder.state.summary(active=True)

    async def wait(self, ref: str) -> str:
        """Wait until a run is not active; its state then.

        Raises:
            NotFound: No run has this id or prefix.
        """
        run_id = self.resolve(ref)
        active = self._active.get(run_id)
        if active is None:
            return self._state(run_id).state(active=False)
        await active.ended.wait()
        # Meanwhile it may have been removed: not everybody keeps runs.
        return active.run.recorder.state.state(active=False)

    # running

    def _run(self, workflow: Workflow, folder: Path, recorder: Recorder) -> Run:
        created = recorder.state.created
        return Run(
            id=created["run"],
            workflow=workflow,
            inputs=created["inputs"],
            git=created["git"],
            folder=folder,
            host=self._host,
            verbs=self._verbs,
            recorder=recorder,
            nursery=self._nursery,
            wall=self._wall,
            locks=self._locks,
            groups=self._groups,
            cancel_others=functools.partial(self._cancel_group, created["run"]),
        )

    def _cancel_group(self, run_id: str, group: str) -> None:
        """Ask the run that is active in a group to stop; those that wait for it stop, too."""
        for other in self._active.values():
            run = other.run
            if run.id == run_id or run.workflow.concurrency is None or run.control.cancelling:
                continue
            if group_of(run, run.workflow.concurrency) == group and not self._newer(run.id, run_id):
                self._nursery.start_soon(self._cancel_quietly, run.id, f"run {run_id}")

    def _newer(self, run_id: str, other: str) -> bool:
        return self._state(run_id).order > self._state(other).order

    async def _cancel_quietly(self, run_id: str, by: str) -> None:
        try:
            await self.cancel(run_id, kill=False, by=by)
        except LinkspanError as error:
            log.info("run not cancelled", extra={"run": run_id, "reason": error.message})

    def _start(
        self,
        run: Run,
        *,
        continued_by: str | None = None,
        breaks: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> None:
        self.archive.ended.pop(run.id, None)
        self._interruptions.pop(run.id, None)
        active = _Active(run=run)
        self._active[run.id] = active
        runner = functools.partial(
            RunRunner(run), continued_by=continued_by, breaks=breaks, timeout_s=timeout_s
        )
        self._nursery.start_soon(self._supervise, active, runner, name=f"run {run.id}")
        # Waiting for a person has left memory, and does not count.
        limit_s = timeout_s if continued_by is None else run.recorder.state.timeout_s
        if limit_s is not None:
            self._nursery.start_soon(self._limit, active, limit_s)

    async def _limit(self, active: _Active, limit_s: float) -> None:
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

    async def _supervise(self, active: _Active, runner: Callable[[], Awaitable[str]]) -> None:
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
            self._leave(active)
        state = run.recorder.state
        if state.passing:
            await self.retention.forget([run.id])
            return
        if state.result in GOOD:
            keep = self._config.keep_sources
            await trio.to_thread.run_sync(self.archive.drop_files, run.id, keep)
        if state.suspended:
            await self._overtaken(state)
        await self.retention.tidy()

    def _leave(self, active: _Active) -> None:
        """A run is no longer in memory."""
        run = active.run
        self.archive.ended[run.id] = run.recorder.state
        self._active.pop(run.id, None)
        run.workers.close()
        run.recorder.close()
        active.ended.set()
        self._expiry.changed()

    async def _overtaken(self, state: RunState) -> None:
        """Go on at once if the answer came while the run was leaving."""
        decided = [step for _, step in state.suspensions() if step.decision]
        async with self._reopening[state.id]:
            if not decided or state.id in self._active:
                return
            try:
                run = await self._reopen(state)
            except (LinkspanError, OSError) as error:
                # It stays suspended; `resume` says the same to whoever asks.
                log.warning("run stays suspended", extra={"run": state.id, "reason": str(error)})
                return
            self._start(run, continued_by=decided[0].votes[-1]["by"])

    def _interrupted(self, run: Run, reason: str) -> None:
        """Tell those who watch, and those who will; the journal cannot be told."""
        self._interruptions[run.id] = reason
        run.recorder.tell("interrupted", reason=reason)

    def _publish(self, run: Run, action: str, **attributes: str) -> None:
        event = Event(
            type="workflow",
            action=action,
            actor_id=run.id,
            attributes={"name": run.workflow.name, **attributes},
        )
        self._host.engine.events.publish(event)
