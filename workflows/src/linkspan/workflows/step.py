"""One step from its condition to its result: breakpoints, tries, time limits, questions, rolling back."""

import random
from collections.abc import Mapping
from typing import Final

import trio

from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.model.step import Question
from linkspan.workflows.approvals import PAUSED, outputs_of, pause_question, record_of
from linkspan.workflows.breakpoints import When, stops
from linkspan.workflows.evidence import evidence
from linkspan.workflows.expressions import EvaluationFailed, Scope, decides_about_failure
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.granting import grant
from linkspan.workflows.holding import hold
from linkspan.workflows.journal import JournalFailed
from linkspan.workflows.memo import Memo
from linkspan.workflows.model import OnFailure, Retry, Step
from linkspan.workflows.place import Place
from linkspan.workflows.running import Fault, Run, fault_of, truth
from linkspan.workflows.state import BAD
from linkspan.workflows.stepscene import StepScene
from linkspan.workflows.stepwork import Outcome, StepWork
from linkspan.workflows.values import resolve, resolve_text

SUSPENDED: Final = "suspended"
"""What a job or step says instead of a result while a person decides."""


class StepRunner:
    """Runs one step of a job."""

    def __init__(self, run: Run, place: Place, step: Step) -> None:
        self.run = run
        self.place = place
        self.scene = StepScene(run, place, step)
        self.state = self.scene.state
        self._work = StepWork(self.scene)
        self._breaks = run.recorder.state.breaks
        self._failed_with: Mapping[str, Json] = {}
        self._began = run.clock()

    @property
    def step(self) -> Step:
        """As written, or as edited at a breakpoint."""
        return self.scene.step

    # deciding

    def scope_after(self) -> Scope:
        """What the job's outputs see: all its steps."""
        return self.scene.scope(own_env=False)

    def wanted(self, *, whatever_happened: bool = False) -> bool:
        """Whether the step should run, from its ``if`` and from how the steps before it ended.

        Args:
            whatever_happened: Without ``if`` it runs also after a failure.

        Raises:
            EvaluationFailed: The condition has no value.
        """
        condition = self.step.condition
        if condition is None:
            return whatever_happened or self.scene.status("success")
        if not decides_about_failure(condition.tree) and not self.scene.status("success"):
            return False
        return truth(condition, self.scene.scope(own_env=False))

    # running

    async def __call__(self) -> str:
        """Run the step; return its result, which is in the journal then.

        Returns:
            Its result, or ``suspended`` if a person decides: the journal has the question then.

        Raises:
            JournalFailed: The journal cannot be written; nothing else is raised.
        If cancelled: what runs was stopped in order; ``stopped`` tells the journal why.
        """
        if self.state.question and not self.state.result:
            decided = await self._decided()
            if decided:
                return decided
        try:
            if not self.wanted():
                return await self.finish_alone("skipped")
            if self.step.secrets:
                own = await grant(self.run, self.place.unit.frame, self.step.secrets)
                self.scene.secrets = {**self.place.secrets, **own}
        except (EvaluationFailed, LinkspanError) as error:
            if isinstance(error, JournalFailed):
                raise
            return await self.finish_alone("failed", fault=fault_of(error))
        try:
            return await self._held_tries()
        finally:
            self.scene.end()

    async def stopped(self, result: str, why: str) -> None:
        """Note that the step was stopped while it ran. Cannot be cancelled."""
        if self.state.result or self.state.tries == 0:
            return
        fault = Fault(message=why, code=result)
        with trio.CancelScope(shield=True):
            if self._failed_with:
                # It had ended, and was held at a breakpoint.
                await self._end(**self._failed_with)
                return
            await self._end(
                result=result,
                error=fault.as_json(),
                tail=list(self.scene.log.tail),
                duration=self.run.clock() - self._began,
            )

    async def finish_alone(
        self, result: str, *, fault: Fault | None = None, duration: float = 0.0
    ) -> str:
        """End a step that does nothing itself, or was never begun; return its result."""
        if fault is not None:
            result = self.scene.softened(result, self.scene.scope(own_env=False))
        error = {} if fault is None else fault.as_json()
        await self._end(result=result, error=error, duration=duration)
        return result

    async def _end(self, **fields: Json) -> None:
        """Put the step's result into the journal."""
        if fields["result"] in BAD and fields.get("retry_in") is None:
            self.place.failed.add(self.step.id)
        await self.scene.write("step-finished", fields)

    # held for whoever debugs

    async def _held_tries(self) -> str:
        """The tries of the step, held before and after them where the run is told to."""
        if not self._breaks:
            return await self._tries()
        if self._stops("before") and await self._break("before") in ("skip", "abort"):
            return await self._skip()
        again = False
        while True:
            result = await self._tries(remembered=not again)
            was_held = result in BAD and self._stops("on-failure")
            if result == SUSPENDED or was_held or not self._stops("after"):
                return result
            if await self._break("after") != "retry":
                return result
            self.place.failed.discard(self.step.id)
            again = True

    def _stops(self, when: When) -> bool:
        return stops(self._breaks, when, self.place.unit, self.step.id)

    async def _break(self, when: When) -> str:
        """Be held until somebody decides; what they have decided."""
        decision = await hold(self.run, self.place, self.step, when, self._work.made_script)
        if decision.script is not None:
            self.scene.edit(decision.script)
        return decision.action

    async def _skip(self) -> str:
        await self._end(result="skipped", reason="skipped at a breakpoint")
        return "skipped"

    async def _tries(self, *, remembered: bool = True) -> str:
        if self.state.open and await self._work.settle():
            return "success"
        key = ""
        if self.step.sources:
            key = await self._memo_key()
            if key and remembered and await self._unchanged(key):
                return "skipped"
        number = 1
        while True:
            outcome, started = await self._try(number)
            if outcome.question is not None:
                return await self._suspend(outcome.question)
            if outcome.fault is None:
                await self._end(
                    result="success",
                    outputs=dict(outcome.outputs),
                    duration=self.run.clock() - started,
                    **({"tests": dict(outcome.tests)} if outcome.tests else {}),
                )
                if key:
                    await self._memo().keep(
                        key, self.run.id, self.step, self.place.workspace, outcome.outputs
                    )
                return "success"
            delay = self._retry_delay(number, outcome.fault)
            result = outcome.result
            if delay is None:
                result = self.scene.softened(result, self.scene.scope(own_env=False))
            self.scene.log.add(outcome.fault.message)
            paused = delay is None and self._pauses(result)
            held = delay is None and result in BAD and self._stops("on-failure")
            fields: dict[str, Json] = {
                "result": result,
                "error": outcome.fault.as_json(),
                "duration": self.run.clock() - started,
                "tail": self._tail(outcome.fault),
                **({"tests": dict(outcome.tests)} if outcome.tests else {}),
            }
            final = delay is None and not paused and not held
            more: dict[str, Json] = {} if final else {"retry_in": delay or 0.0}
            await self._end(**fields, **more, **({"held": True} if held else {}))
            if held:
                action = await self._held_failure(fields)
                if action == "skip":
                    return await self._skip()
                if action == "retry":
                    number, key = number + 1, ""
                    continue
                if not paused:
                    await self._end(**fields)
            if paused:
                return await self._suspend(pause_question(self.step, outcome.fault), PAUSED)
            if delay is None:
                await self._on_failure()
                return result
            await trio.sleep(delay)
            number += 1

    async def _held_failure(self, fields: Mapping[str, Json]) -> str:
        # Not forgotten if it is cut off: `stopped` tells how it had ended.
        self._failed_with = fields
        action = await self._break("on-failure")
        self._failed_with = {}
        return action

    # unchanged

    def _memo(self) -> Memo:
        return Memo(self.run.host.state_dir / "memo")

    async def _memo_key(self) -> str:
        """What the step would be remembered by; empty if that cannot be said, and it runs."""
        try:
            scope = self.scene.scope(own_env=True)
            parts: dict[str, Json] = {
                "env": dict(scope.contexts["env"]),
                "secrets": self.step.secrets,
                **({"use": dict(use)} if (use := self.place.unit.frame.use) else {}),
            }
            if self.step.run is not None:
                image = self.step.image or self.place.job.image
                assert image is not None
                where = {"job": self.place.job.id, "step": self.step.id}
                name = resolve_text(image, scope)
                parts["image"] = await self.run.image(name, self.scene.progress, **where)
            else:
                verb = self.run.verbs[self.step.verb]
                parts["provider"] = verb.provider
                parts["with"] = resolve(dict(self.step.settings), scope)
            return await self._memo().key(self.step, self.place.workspace, parts)
        except (LinkspanError, EvaluationFailed) as error:
            if isinstance(error, JournalFailed):
                raise
            # The step itself says it better.
            self.scene.log.add(f"not compared with earlier runs: {error}")
            return ""

    async def _unchanged(self, key: str) -> bool:
        """Skip the step if it has succeeded on these very files; its plugin must still see that it has."""
        known = await self._memo().find(key, self.place.workspace, self.step.generates)
        if known is None:
            return False
        if self.step.verb and not await self._work.still_so(known.outputs):
            return False
        reason = f"unchanged since run {known.run}"
        self.scene.log.add(reason)
        await self._end(result="skipped", outputs=dict(known.outputs), reason=reason)
        return True

    def _pauses(self, result: str) -> bool:
        wish = self.step.on_failure
        return result in BAD and wish is not None and wish.action == "pause"

    def _tail(self, fault: Fault) -> list[str]:
        """The last lines without the fault's own, which is shown beside them."""
        own = fault.message.splitlines()
        lines = list(self.scene.log.tail)
        return lines[: len(lines) - len(own)] if lines[-len(own) :] == own else lines

    def _retry_delay(self, number: int, fault: Fault) -> float | None:
        """Seconds until the next try; None if there is none."""
        retry = self.step.retry
        if number > retry.max or self._work.calls.left or not self._worth_another(fault, retry):
            return None
        delay = min(retry.max_delay_s, retry.backoff_s * retry.factor ** (number - 1))
        # Jitter keeps clients that failed together from coming back together; nothing secret here.
        return delay * random.uniform(0.5, 1.0) if retry.jitter else delay  # noqa: S311

    def _worth_another(self, fault: Fault, retry: Retry) -> bool:
        if retry.on:
            return "any" in retry.on or fault.cause in retry.on
        return self.step.run is not None or fault.cause in {"network", "timeout"}

    async def _try(self, number: int) -> tuple[Outcome, float]:
        """One try; whatever goes wrong in it is in the outcome."""
        started = self._began = self.run.clock()
        limit = self.step.timeout_s
        if limit is None:
            return await self._work(number), started
        with trio.move_on_after(limit):
            return await self._work(number), started
        message, cause = f"it took longer than its timeout of {limit:g}s", "timeout"
        if self._work.calls.left:
            # Not tried again: two of it at once are worse than none.
            message, cause = f"{message}, and its plugin does not stop", ""
        fault = Fault(message=message, code="timeout", cause=cause)
        return Outcome(fault=fault, result="timed-out"), started

    # a person decides

    async def _suspend(self, question: Question, kind: str = "") -> str:
        """Put a question into the journal; what is put before the approver goes with it."""
        limit = question.timeout_s
        scope = self.scene.scope(own_env=False)
        shown = await evidence(self.run, self.place.unit, scope, self.step, question)
        asked = {**record_of(question, shown), "kind": kind}
        until = None if limit is None else self.run.wall() + limit
        await self.scene.write("step-suspended", {"question": asked, "until": until})
        return SUSPENDED

    async def _decided(self) -> str:
        """Go on as somebody has decided: the step's result, ``suspended`` if nobody has, or empty if the
        step runs (again)."""
        decision = self.state.decision
        if not decision:
            return SUSPENDED
        paused = self.state.question.get("kind") == PAUSED
        vote = self.state.votes[-1]
        comment = f": {vote['comment']}" if vote["comment"] else ""
        if decision == "approve" and paused:
            return ""
        if decision == "approve":
            declared = self.run.verbs[self.step.verb].manifest.outputs
            await self._end(
                result="success", outputs=outputs_of(self.state, declared), duration=0.0
            )
            return "success"
        if paused:
            await self._end(result="failed", error=dict(self.state.error), duration=0.0)
            await self._work.roll_back(self.state)
            return "failed"
        fault = Fault(message=f"rejected by {vote['by']}{comment}", code="rejected")
        return await self.finish_alone("rejected", fault=fault)

    # failure

    async def _on_failure(self) -> None:
        """Roll back as the step says, or as its verb is used to."""
        habit = OnFailure(action="rollback") if self.step.verb else OnFailure(action="leave")
        wish = self.step.on_failure or habit
        if wish.action == "leave":
            return
        await self._work.roll_back(
            self.run.job_state(self.place.job).steps[wish.target or self.step.id]
        )
