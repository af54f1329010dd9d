"""One step from its intent to its result: conditions, tries, time limits, and undo.

Before anything is changed the journal holds a ``step-started`` record with the evaluated settings and
what the driver needs to undo them. A step whose record has no ``step-finished`` behind it was cut off
by a crash; ``settle`` asks its driver what became of it.
"""

import json
import logging
import random
from collections.abc import Callable, Mapping
from typing import Final

import attrs
import trio

from linkspan.sdk.drivers.step import NeedsDecision, Step as StepDriver
from linkspan.sdk.errors import LinkspanError, NotFound
from linkspan.sdk.model.step import (
    JOB_LABEL,
    RUN_LABEL,
    STEP_LABEL,
    Question,
    StepChange,
    StepIntent,
)
from linkspan.sdk.progress import Progress, ProgressSink
from linkspan.workflows.approvals import PAUSED, outputs_of, pause_question, record_of
from linkspan.workflows.breakpoints import When, stops
from linkspan.workflows.calling import PluginCalls
from linkspan.workflows.concealing import conceal_env, conceal_settings
from linkspan.workflows.containers import Script, run_script
from linkspan.workflows.evidence import evidence
from linkspan.workflows.expressions import EvaluationFailed, Scope, decides_about_failure
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.granting import grant
from linkspan.workflows.holding import hold
from linkspan.workflows.journal import JournalFailed
from linkspan.workflows.masking import MASK
from linkspan.workflows.memo import Memo
from linkspan.workflows.model import OnFailure, Retry, Step
from linkspan.workflows.outputs import check_recordable, plain_outputs, read_outputs
from linkspan.workflows.place import Place, StepsSeen
from linkspan.workflows.restoring import references, restored
from linkspan.workflows.run_functions import RunFunctions
from linkspan.workflows.running import Fault, Run, fault_of, truth
from linkspan.workflows.script import exports
from linkspan.workflows.settings import typed_settings
from linkspan.workflows.state import BAD, GOOD, StepState
from linkspan.workflows.steplog import StepLog
from linkspan.workflows.testreports import count_tests
from linkspan.workflows.undoing import intent_of, undo_step
from linkspan.workflows.values import (
    Value,
    expressions_in,
    resolve,
    resolve_text,
    resolve_texts,
)
from linkspan.workflows.verbs import Verb

log = logging.getLogger(__name__)

_NOTHING: Final = Scope(contexts={})
"""What values without expressions see."""

_OBSERVE_LIMIT_S: Final = 120.0
"""For a plugin that is asked what became of a step, where the step has no timeout."""
SUSPENDED: Final = "suspended"
"""What a job or step says instead of a result while a person decides."""


@attrs.frozen(kw_only=True)
class _Outcome:
    outputs: Mapping[str, Json] = attrs.field(factory=dict)
    fault: Fault | None = None
    result: str = "success"
    question: Question | None = None
    tests: Mapping[str, int] = attrs.field(factory=dict)


class _Context:
    """Implements ``linkspan.sdk.drivers.step.StepContext``."""

    def __init__(
        self, say: Callable[[str], None], progress: ProgressSink, secrets: Mapping[str, str]
    ) -> None:
        self._say = say
        self._progress = progress
        self._secrets = secrets

    def log(self, line: str) -> None:
        """Add a line to the step's log."""
        self._say(line)

    @property
    def progress(self) -> ProgressSink:
        """Show how far the step is."""
        return self._progress

    @property
    def secrets(self) -> Mapping[str, str]:
        """What the step was granted, by name."""
        return self._secrets


class StepRunner:
    """Runs one step of a job."""

    def __init__(self, run: Run, place: Place, step: Step) -> None:
        self.run = run
        self.place = place
        self.step = step
        self.job = place.job
        self.state: StepState = run.step_state(place.job, step)
        if self.state.script is not None:
            self.step = attrs.evolve(step, run=self.state.script)
        self._breaks = run.recorder.state.breaks
        self._failed_with: Mapping[str, Json] = {}
        self._began = run.clock()
        self._secrets: Mapping[str, str] = place.secrets
        self._log: StepLog | None = None
        self._over = False
        self._secret_env = place.secret_env
        self._calls = PluginCalls(
            workers=run.workers,
            say=self._say,
            grace_s=step.grace_s,
            on_stop=run.control.add_grace,
        )

    @property
    def log(self) -> StepLog:
        """The step's log; many steps never say anything."""
        if self._log is None:
            run = self.run
            path = self.place.folder / f"{self.step.id}.log"
            self._log = StepLog(path, self._on_line, run.recorder.masks, run.logs)
        return self._log

    def _say(self, text: str) -> None:
        if not self._over:
            # Whoever was left behind may go on talking.
            self.log.add(text)

    def _on_line(self, stream: str, line: str) -> None:
        self.run.recorder.tell("log", job=self.job.id, step=self.step.id, stream=stream, line=line)

    def _progress(self, progress: Progress) -> None:
        if progress.stream:
            self.log.add_text(progress.stream)
            return
        self.run.recorder.tell(
            "progress",
            job=self.job.id,
            step=self.step.id,
            status=progress.status,
            id=progress.id,
            current=progress.current,
            total=progress.total,
        )

    async def _write(self, kind: str, **data: Json) -> None:
        await self.run.recorder.write(kind, job=self.job.id, step=self.step.id, **data)

    # deciding

    def _scope(self, *, own_env: bool) -> Scope:
        contexts: dict[str, Json] = {
            **self.place.contexts,
            "env": dict(self.place.env),
            "services": self.place.services,
            "secrets": self._secrets,
            "steps": StepsSeen(self.run.job_state(self.job)),
        }
        call = RunFunctions(self.place.workspace, self.run.host.engine)
        scope = Scope(contexts=contexts, status=self._status, call=call)
        if own_env:
            contexts["env"] = {**self.place.env, **self._own_env(scope)}
        return scope

    def _own_env(self, scope: Scope) -> dict[str, str]:
        """The step's own variables; what is secret among them is masked from now on."""
        if not self.step.env:
            return {}
        own = resolve_texts(self.step.env, scope)
        masks = self.run.recorder.masks
        self._secret_env = conceal_env(masks, self.step.env, own, scope, self.place.secret_env)
        return own

    def scope_after(self) -> Scope:
        """What the job's outputs see: all its steps."""
        return self._scope(own_env=False)

    def _status(self, name: str) -> bool:
        failed = bool(self.place.failed)
        if failed and self.state.group:
            # What runs side by side does not know of each other.
            group = self.state.group
            states = self.run.job_state(self.job).steps
            failed = any(states[each].group != group for each in self.place.failed)
        return {"success": not failed, "failure": failed, "always": True, "cancelled": False}[name]

    def wanted(self, *, whatever_happened: bool = False) -> bool:
        """Whether the step should run, from its ``if`` and from how the steps before it ended.

        Args:
            whatever_happened: Without ``if`` it runs also after a failure.

        Raises:
            EvaluationFailed: The condition has no value.
        """
        condition = self.step.condition
        if condition is None:
            return whatever_happened or self._status("success")
        if not decides_about_failure(condition.tree) and not self._status("success"):
            return False
        return truth(condition, self._scope(own_env=False))

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
            own = await grant(self.run, self.place.unit.frame, self.step.secrets)
            self._secrets = {**self.place.secrets, **own}
        except (EvaluationFailed, LinkspanError) as error:
            if isinstance(error, JournalFailed):
                raise
            return await self.finish_alone("failed", fault=fault_of(error))
        try:
            return await self._held_tries()
        finally:
            self._over = True
            if self._log is not None:
                self._log.end()
                self._log.close()

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
                tail=list(self.log.tail),
                duration=self.run.clock() - self._began,
            )

    async def finish_alone(
        self, result: str, *, fault: Fault | None = None, duration: float = 0.0
    ) -> str:
        """End a step that does nothing itself, or was never begun; return its result."""
        if fault is not None:
            result = self._softened(result, self._scope(own_env=False))
        error = {} if fault is None else fault.as_json()
        await self._end(result=result, error=error, duration=duration)
        return result

    async def _end(self, **fields: Json) -> None:
        """Put the step's result into the journal."""
        if fields["result"] in BAD and fields.get("retry_in") is None:
            self.place.failed.add(self.step.id)
        await self._write("step-finished", **fields)

    # held for whoever debugs

    async def _held_tries(self) -> str:
        """The tries of the step, held before and after them where the run is told to."""
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
        decision = await hold(self.run, self.place, self.step, when, self._made_script)
        if decision.script is not None:
            self.step = attrs.evolve(self.step, run=decision.script)
        return decision.action

    async def _made_script(self) -> Script | None:
        scope = self._scope(own_env=True)
        if (self.step.image or self.job.image) is None:
            return None
        script = self._script_of(scope)
        where = {"job": self.job.id, "step": self.step.id}
        image = await self.run.image(script.image, self._progress, **where)
        return attrs.evolve(script, image=image)

    async def _skip(self) -> str:
        await self._end(result="skipped", reason="skipped at a breakpoint")
        return "skipped"

    async def _tries(self, *, remembered: bool = True) -> str:
        settled = await self._settle()
        if settled:
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
                result = self._softened(result, self._scope(own_env=False))
            self.log.add(outcome.fault.message)
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
            scope = self._scope(own_env=True)
            parts: dict[str, Json] = {
                "env": dict(scope.contexts["env"]),
                "secrets": self.step.secrets,
                **({"use": dict(use)} if (use := self.place.unit.frame.use) else {}),
            }
            if self.step.run is not None:
                image = self.step.image or self.job.image
                assert image is not None
                where = {"job": self.job.id, "step": self.step.id}
                name = resolve_text(image, scope)
                parts["image"] = await self.run.image(name, self._progress, **where)
            else:
                verb = self.run.verbs[self.step.verb]
                parts["provider"] = verb.provider
                parts["with"] = resolve(dict(self.step.settings), scope)
            return await self._memo().key(self.step, self.place.workspace, parts)
        except (LinkspanError, EvaluationFailed) as error:
            if isinstance(error, JournalFailed):
                raise
            # The step itself says it better.
            self.log.add(f"not compared with earlier runs: {error}")
            return ""

    async def _unchanged(self, key: str) -> bool:
        """Skip the step if it has succeeded on these very files; its plugin must still see that it has."""
        known = await self._memo().find(key, self.place.workspace, self.step.generates)
        if known is None or (self.step.verb and not await self._still_so()):
            return False
        reason = f"unchanged since run {known.run}"
        self.log.add(reason)
        await self._end(result="skipped", outputs=dict(known.outputs), reason=reason)
        return True

    async def _still_so(self) -> bool:
        verb = self.run.verbs[self.step.verb]
        settings = self._settings(verb, self.step.settings)
        record = {"step": self.step.id, "try": 1, "verb": verb.name, "undo": {}}
        try:
            driver, intent = self._driver(), self._intent({**record, "settings": settings})
            seen = await self._calls(lambda: driver.observe(intent))
        except LinkspanError:
            return False
        return seen.applied

    def _pauses(self, result: str) -> bool:
        wish = self.step.on_failure
        return result in BAD and wish is not None and wish.action == "pause"

    def _tail(self, fault: Fault) -> list[str]:
        """The last lines without the fault's own, which is shown beside them."""
        own = fault.message.splitlines()
        lines = list(self.log.tail)
        return lines[: len(lines) - len(own)] if lines[-len(own) :] == own else lines

    def _softened(self, result: str, scope: Scope) -> str:
        """``continue-on-error`` turns a failure into a warning."""
        flag = self.step.continue_on_error
        if isinstance(flag, bool):
            soft = flag
        else:
            try:
                soft = truth(flag, scope)
            except EvaluationFailed:
                soft = False
        return "warned" if soft else result

    def _retry_delay(self, number: int, fault: Fault) -> float | None:
        """Seconds until the next try; None if there is none."""
        retry = self.step.retry
        if number > retry.max or self._calls.left or not self._worth_another(fault, retry):
            return None
        delay = min(retry.max_delay_s, retry.backoff_s * retry.factor ** (number - 1))
        # Jitter keeps clients that failed together from coming back together; nothing secret here.
        return delay * random.uniform(0.5, 1.0) if retry.jitter else delay  # noqa: S311

    def _worth_another(self, fault: Fault, retry: Retry) -> bool:
        if retry.on:
            return "any" in retry.on or fault.cause in retry.on
        return self.step.run is not None or fault.cause in {"network", "timeout"}

    async def _try(self, number: int) -> tuple[_Outcome, float]:
        """One try; whatever goes wrong in it is in the outcome."""
        started = self._began = self.run.clock()
        limit = self.step.timeout_s
        if limit is None:
            return await self._work(number), started
        with trio.move_on_after(limit):
            return await self._work(number), started
        message, cause = f"it took longer than its timeout of {limit:g}s", "timeout"
        if self._calls.left:
            # Not tried again: two of it at once are worse than none.
            message, cause = f"{message}, and its plugin does not stop", ""
        fault = Fault(message=message, code="timeout", cause=cause)
        return _Outcome(fault=fault, result="timed-out"), started

    async def _work(self, number: int) -> _Outcome:
        try:
            return await (self._script(number) if self.step.run is not None else self._verb(number))
        except JournalFailed:
            raise
        except NeedsDecision as asked:
            return _Outcome(question=asked.question)
        except (LinkspanError, EvaluationFailed) as error:
            return _Outcome(fault=fault_of(error), result="failed")
        except Exception as error:
            log.exception("step failed", extra={"run": self.run.id, "step": self.step.id})
            return _Outcome(fault=fault_of(error), result="failed")

    # a person decides

    async def _suspend(self, question: Question, kind: str = "") -> str:
        """Put a question into the journal; what is put before the approver goes with it."""
        limit = question.timeout_s
        scope = self._scope(own_env=False)
        shown = await evidence(self.run, self.place.unit, scope, self.step, question)
        await self._write(
            "step-suspended",
            question={**record_of(question, shown), "kind": kind},
            until=None if limit is None else self.run.wall() + limit,
        )
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
            await self._roll_back(self.state)
            return "failed"
        fault = Fault(message=f"rejected by {vote['by']}{comment}", code="rejected")
        return await self.finish_alone("rejected", fault=fault)

    # scripts

    def _script_of(self, scope: Scope) -> Script:
        """The step's script; one without text for a verb, to look around in its job's image."""
        image = self.step.image or self.job.image
        assert image is not None
        return Script(
            text=self.step.run or "",
            image=resolve_text(image, scope),
            shell=self.step.shell,
            env=self._script_env(scope),
            workspace=self.place.workspace,
            control=self.place.folder / "steps" / self.step.id,
            folder=self.step.working_directory,
            network=self.place.network,
            labels={
                **resolve_texts(self.job.labels, scope),
                RUN_LABEL: self.run.id,
                JOB_LABEL: self.job.id,
                STEP_LABEL: self.step.id,
            },
            grace_s=self.step.grace_s,
            mounts=self.place.mounts,
        )

    async def _script(self, number: int) -> _Outcome:
        script = self._script_of(self._scope(own_env=True))
        record: dict[str, Json] = {
            **{"try": number, "verb": "run", "provider": "", "changes": []},
            **self._way_back({}),
            "settings": {"image": script.image},
        }
        record |= references(self.run, self.place.unit.frame, record)
        await self._write("step-started", **record)
        place = {"job": self.job.id, "step": self.step.id}
        image_id = await self.run.image(script.image, self._progress, **place)
        status = await run_script(
            self.run.host.engine,
            attrs.evolve(script, image=image_id),
            self.log,
            self.run.control.add_grace,
            self.run.nursery,
        )
        if status.oom_killed:
            return self._ended("it was killed: out of memory", "oom", "oom")
        if status.error:
            return self._ended(status.error, "container", "")
        if status.exit_code != 0:
            code = status.exit_code
            ended = self._ended(f"the script ended with exit code {code}", "exit", f"exit:{code}")
            return attrs.evolve(ended, tests=await self._tests(required=False))
        outputs = await trio.to_thread.run_sync(read_outputs, script.control / "output")
        return _Outcome(outputs=outputs, tests=await self._tests(required=True))

    async def _tests(self, *, required: bool) -> Mapping[str, int]:
        """The counts of the step's test report; a failed script need not have written one."""
        name = self.step.reports.get("junit")
        if name is None:
            return {}
        try:
            return await trio.to_thread.run_sync(count_tests, self.place.workspace, name)
        except NotFound:
            if required:
                raise
            return {}

    def _ended(self, message: str, code: str, cause: str) -> _Outcome:
        return _Outcome(fault=Fault(message=message, code=code, cause=cause), result="failed")

    def _script_env(self, scope: Scope) -> dict[str, str]:
        contexts = scope.contexts
        own = self._own_env(self._scope(own_env=False))
        return {
            "LINKSPAN": "true",
            **self.place.env,
            **dict(exports(contexts)),
            **self._secrets,
            **own,
        }

    # verbs

    def _driver(self) -> StepDriver[object]:
        driver: StepDriver[object] = self.run.host.driver("step", self.step.verb)
        return driver

    def _settings(self, verb: Verb, written: Mapping[str, Value]) -> dict[str, Json]:
        """A verb's ``with`` as its driver gets it; what is secret in it is masked from now on.

        Raises:
            EvaluationFailed: An expression in it has no value.
            InvalidArgument: One is of the wrong type.
        """
        literal = not any(True for _ in expressions_in(dict(written)))
        scope = _NOTHING if literal else self._scope(own_env=True)
        settings = typed_settings(verb, written, resolve(dict(written), scope))
        masks, known = self.run.recorder.masks, self._secret_env
        conceal_settings(masks, verb.manifest.settings, written, settings, scope, known)
        return settings

    def _intent(self, record: Mapping[str, Json]) -> StepIntent:
        return intent_of(self.run, {"job": self.job.id, **record}, self.place.workspace)

    async def _verb(self, number: int) -> _Outcome:
        # One visit of another task for all of it: each costs as much as the rest of a short step.
        return await self._calls(lambda: self._plan_and_apply(number))

    async def _plan_and_apply(self, number: int) -> _Outcome:
        verb = self.run.verbs[self.step.verb]
        settings = self._settings(verb, self.step.settings)
        driver = self._driver()
        before = {"step": self.step.id, "try": number, "verb": verb.name, "undo": {}}
        wish = self._intent({**before, "settings": settings})
        planned = await driver.plan(wish)
        # What was left behind goes no further, however late it comes back.
        await trio.lowlevel.checkpoint_if_cancelled()
        if planned.undo:
            check_recordable(dict(planned.undo), "what it needs to undo it")
        # The first try saw the world before any change; a later one sees what a failed try left.
        earlier = await self._unspent_undo()
        record: dict[str, Json] = {
            "try": number,
            "verb": verb.name,
            "provider": verb.provider,
            "settings": settings,
            **self._way_back(planned.undo if earlier is None else earlier),
            "changes": [_change(change) for change in planned.changes],
        }
        record |= references(self.run, self.place.unit.frame, record)
        await self._write("step-started", **record)
        context = _Context(self._say, self._progress, self._secrets)
        hooks = self.run.host.hooks
        intent = self._intent({**before, **record}) if record["undo"] else wish
        intent = await hooks.intercept("linkspan_before_step", intent)
        try:
            outputs = await driver.apply(intent, context)
        except (Exception, SystemExit):
            hooks.tell("linkspan_step_finished", intent=intent, result="failed")
            raise
        await trio.lowlevel.checkpoint_if_cancelled()
        hooks.tell("linkspan_step_finished", intent=intent, result="success")
        return _Outcome(outputs=plain_outputs(outputs, verb.manifest.outputs))

    def _way_back(self, planned: Mapping[str, Json]) -> dict[str, Json]:
        """What the intent says about taking it back: the step's own ``undo``, or its verb's."""
        own = self.step.undo
        if own is None:
            return {"undo": dict(planned)}
        settings = self._settings(self.run.verbs[own.verb], own.settings)
        return {"undo": {"uses": own.verb, "with": settings}, "undo_by": "step"}

    async def _unspent_undo(self) -> Mapping[str, Json] | None:
        """What an earlier try recorded to undo it, if that was not used; None if there is none.

        Raises:
            NotFound: A secret in it is not there any more.
        """
        intent = self.state.intent
        if intent is None or self.state.undone or self.state.result in GOOD:
            return None
        undo: Mapping[str, Json] = (await restored(self.run, intent))["undo"]
        return undo or None

    # failure

    async def _on_failure(self) -> None:
        """Roll back as the step says, or as its verb is used to."""
        habit = OnFailure(action="rollback") if self.step.verb else OnFailure(action="leave")
        wish = self.step.on_failure or habit
        if wish.action == "leave":
            return
        await self._roll_back(self.run.job_state(self.job).steps[wish.target or self.step.id])

    async def _roll_back(self, state: StepState) -> None:
        intent = state.intent
        if intent is None or not intent["undo"] or state.undone:
            return
        if self._calls.left:
            self.log.add("not rolled back: its plugin may still be at work")
            return
        context = _Context(self._say, self._progress, self._secrets)
        await undo_step(self.run, self.job.id, state, context, because_of=self.step.id)

    # after a crash

    async def _settle(self) -> bool:
        """Find out what became of an intent without a result; whether it was applied."""
        record = self.state.intent
        if record is None or not self.state.open:
            return False
        applied, detail = False, "a script cannot be observed; it runs again"
        outputs: Mapping[str, Json] = {}
        if self.step.verb and record["verb"] == self.step.verb:
            try:
                known = self._unmasked(await restored(self.run, record))
                driver, intent = self._driver(), self._intent(known)
                with trio.fail_after(self.step.timeout_s or _OBSERVE_LIMIT_S):
                    seen = await self._calls(lambda: driver.observe(intent))
                verb = self.run.verbs[self.step.verb]
                applied, detail = seen.applied, seen.detail
                outputs = plain_outputs(seen.outputs, verb.manifest.outputs)
            except LinkspanError as error:
                detail = f"cannot be observed ({error.message}); done again"
            except trio.TooSlowError:
                detail = "cannot be observed (its plugin does not answer); done again"
            except Exception as error:
                log.exception("observe failed", extra={"run": self.run.id, "step": self.step.id})
                detail = f"cannot be observed ({fault_of(error).message}); done again"
        self.log.add(f"after an interruption: {'done' if applied else 'not done'}: {detail}")
        await self._write("step-settled", applied=applied, outputs=dict(outputs), detail=detail)
        return applied

    def _unmasked(self, record: Mapping[str, Json]) -> Mapping[str, Json]:
        """The intent with its secrets, which the journal does not have."""
        if MASK not in json.dumps(record["settings"]):
            return record
        verb = self.run.verbs[self.step.verb]
        return {**record, "settings": self._settings(verb, self.step.settings)}


def _change(change: StepChange) -> dict[str, Json]:
    return {"action": change.action, "what": change.what, "detail": change.detail}
