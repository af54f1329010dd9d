"""What people decide: questions of runs that wait for them, and runs that are held at a breakpoint."""

from collections.abc import Callable, Iterator, Mapping

import attrs
import trio

from linkspan.sdk.errors import Conflict
from linkspan.workflows.active_runs import ActiveRuns
from linkspan.workflows.approvals import Voter, check_vote, find_question
from linkspan.workflows.breakpoints import Decision, check_decision, held_at, shown
from linkspan.workflows.expiry import Expiry
from linkspan.workflows.expressions.types import Json


class Answers:
    """See the module.

    Attributes:
        expiry: Answers questions whose time is over.
    """

    def __init__(self, runs: ActiveRuns, wall: Callable[[], float], nursery: trio.Nursery) -> None:
        self._runs = runs
        self.expiry = Expiry(self._questions, self._expired, wall, nursery)
        runs.changed = self.expiry.changed

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
        run_id = self._runs.resolve(ref)
        async with self._runs.reopening[run_id]:
            job, step = find_question(self._runs.state_of(run_id), place)
            check_vote(step, voter)
            record = {"vote": vote, "by": voter.name, "comment": comment}
            decision = await self._decide(run_id, {"job": job.id, "step": step.id, **record})
        self.expiry.changed()
        summary = self._runs.state_of(run_id).summary(active=self._runs.get(run_id) is not None)
        return {**summary, "decision": decision, "job": job.id, "step": step.id}

    async def _decide(self, run_id: str, record: Mapping[str, Json]) -> str:
        """Record a vote; the decision, if that makes one, with which the run goes on."""
        active = self._runs.get(run_id)
        run = (
            await self._runs.reopen(self._runs.archive.ended[run_id])
            if active is None
            else active.run
        )
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
            self._runs.start(run, continued_by=record["by"])
        else:
            self._runs.archive.ended[run_id] = state
            run.recorder.close()
        return str(decision)

    def _questions(self) -> Iterator[tuple[float, str, str]]:
        """``(until, run, JOB/STEP)`` of all that is asked with a time limit."""
        states = [*self._runs.archive.ended.values(), *self._runs.states()]
        for state in states:
            for job, step in state.suspensions() if not state.result else ():
                if step.question["until"] is not None and not step.decision:
                    yield step.question["until"], state.id, f"{job.id}/{step.id}"

    async def _expired(self, run_id: str, place: str) -> None:
        """Nobody has answered in time."""
        _, step = find_question(self._runs.state_of(run_id), place)
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
        run_id = self._runs.resolve(ref)
        active = self._runs.get(run_id)
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
        run_id = self._runs.resolve(ref)
        active = self._runs.get(run_id)
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
                await self._runs.cancel(run_id, kill=False, by=decision.by)
        finally:
            wait.decided.set()
        return {"id": run_id, "job": job, "step": step.id, "action": decision.action}
