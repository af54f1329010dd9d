"""A step's work: its script or its verb, what became of one that was cut off, and taking it back.

Before anything is changed the journal holds a ``step-started`` record with the evaluated settings and
what the driver needs to undo them. A step whose record has no ``step-finished`` behind it was cut off
by a crash; ``settle`` asks its driver what became of it.
"""

import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
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
from linkspan.sdk.progress import ProgressSink
from linkspan.workflows.calling import PluginCalls
from linkspan.workflows.concealing import conceal_settings
from linkspan.workflows.containers import Script, run_script
from linkspan.workflows.expressions import EvaluationFailed, Scope
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.journal import JournalFailed
from linkspan.workflows.masking import MASK
from linkspan.workflows.model import Step
from linkspan.workflows.outputs import check_recordable, plain_outputs, read_outputs
from linkspan.workflows.restoring import references, restored
from linkspan.workflows.running import Fault, fault_of
from linkspan.workflows.script import exports
from linkspan.workflows.settings import typed_settings
from linkspan.workflows.state import GOOD, StepState
from linkspan.workflows.stepscene import StepScene
from linkspan.workflows.testreports import count_tests
from linkspan.workflows.undoing import intent_of, undo_step
from linkspan.workflows.values import (
    Value,
    expressions_in,
    resolve_each,
    resolve_text,
    resolve_texts,
)
from linkspan.workflows.verbs import Verb

log = logging.getLogger(__name__)

_NOTHING: Final = Scope(contexts={})
"""What values without expressions see."""
_OBSERVE_LIMIT_S: Final = 120.0
"""For a plugin that is asked what became of a step, where the step has no timeout."""


@attrs.frozen(kw_only=True)
class Outcome:
    """How a try has ended: with a fault, with a question to a person, or well."""

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


class StepWork:
    """Does one step, as often as it is tried.

    Attributes:
        calls: Of its plugin.
    """

    def __init__(self, scene: StepScene) -> None:
        self.scene = scene
        self.run = scene.run
        self.place = scene.place
        self.job = scene.job
        self.state = scene.state
        self.calls = PluginCalls(
            workers=scene.run.workers,
            say=scene.say,
            grace_s=scene.step.grace_s,
            on_stop=scene.run.control.add_grace,
        )

    @property
    def step(self) -> Step:
        """As written, or as edited at a breakpoint."""
        return self.scene.step

    async def __call__(self, number: int) -> Outcome:
        """One try; whatever goes wrong in it is in the outcome.

        Raises:
            JournalFailed: The journal cannot be written; nothing else is raised.
        """
        try:
            return await (self._script(number) if self.step.run is not None else self._verb(number))
        except JournalFailed:
            raise
        except NeedsDecision as asked:
            return Outcome(question=asked.question)
        except (LinkspanError, EvaluationFailed) as error:
            return Outcome(fault=fault_of(error), result="failed")
        except Exception as error:
            log.exception("step failed", extra={"run": self.run.id, "step": self.step.id})
            return Outcome(fault=fault_of(error), result="failed")

    # scripts

    async def made_script(self) -> Script | None:
        """The step's script with its image at hand; None if it has no image to run in."""
        scope = self.scene.scope(own_env=True)
        if (self.step.image or self.job.image) is None:
            return None
        script = self._script_of(scope)
        where = {"job": self.job.id, "step": self.step.id}
        image = await self.run.image(script.image, self.scene.progress, **where)
        return attrs.evolve(script, image=image)

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

    async def _script(self, number: int) -> Outcome:
        script = self._script_of(self.scene.scope(own_env=True))
        record: dict[str, Json] = {
            **{"try": number, "verb": "run", "provider": "", "changes": []},
            **self._way_back({}),
            "settings": {"image": script.image},
        }
        record |= references(self.run, self.place.unit.frame, record)
        await self.scene.write("step-started", record)
        place = {"job": self.job.id, "step": self.step.id}
        image_id = await self.run.image(script.image, self.scene.progress, **place)
        status = await run_script(
            self.run.host.engine,
            attrs.evolve(script, image=image_id),
            self.scene.log,
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
        return Outcome(outputs=outputs, tests=await self._tests(required=True))

    def _script_env(self, scope: Scope) -> dict[str, str]:
        contexts = scope.contexts
        own = self.scene.own_env(self.scene.scope(own_env=False))
        return {
            "LINKSPAN": "true",
            **self.place.env,
            **dict(exports(contexts)),
            **self.scene.secrets,
            **own,
        }

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

    def _ended(self, message: str, code: str, cause: str) -> Outcome:
        return Outcome(fault=Fault(message=message, code=code, cause=cause), result="failed")

    # verbs

    async def _verb(self, number: int) -> Outcome:
        work = partial(self._plan_and_apply, number)
        guard = self.place.guard
        if self.step.timeout_s is None and guard.here:
            return await guard.call(self.calls, work)
        # One visit of another task for all of it: each costs as much as the rest of a short step.
        return await self.calls(work)

    async def _plan_and_apply(self, number: int) -> Outcome:
        verb = self.run.verbs[self.step.verb]
        settings = self._settings(verb, self.step.settings)
        driver = self._driver()
        wish = self._intent(number, settings, {})
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
        await self.scene.write("step-started", record)
        context = _Context(self.scene.say, self.scene.progress, self.scene.secrets)
        hooks = self.run.host.hooks
        intent = self._intent(number, settings, record["undo"]) if record["undo"] else wish
        intent = await hooks.intercept("linkspan_before_step", intent)
        try:
            outputs = await driver.apply(intent, context)
        except (Exception, SystemExit):
            hooks.tell("linkspan_step_finished", intent=intent, result="failed")
            raise
        await trio.lowlevel.checkpoint_if_cancelled()
        hooks.tell("linkspan_step_finished", intent=intent, result="success")
        return Outcome(outputs=plain_outputs(outputs, verb.manifest.outputs))

    def _driver(self) -> StepDriver[object]:
        driver: StepDriver[object] = self.run.host.driver("step", self.step.verb)
        return driver

    def _settings(self, verb: Verb, written: dict[str, Value]) -> dict[str, Json]:
        """A verb's ``with`` as its driver gets it; what is secret in it is masked from now on.

        Raises:
            EvaluationFailed: An expression in it has no value.
            InvalidArgument: One is of the wrong type.
        """
        literal = next(expressions_in(written), None) is None
        scope = _NOTHING if literal else self.scene.scope(own_env=True)
        settings = typed_settings(verb, written, resolve_each(written, scope))
        masks, known = self.run.recorder.masks, self.scene.secret_env
        conceal_settings(masks, verb.manifest.settings, written, settings, scope, known)
        return settings

    def _intent(
        self, number: int, settings: Mapping[str, Json], undo: Mapping[str, Json]
    ) -> StepIntent:
        """The step as its driver sees it: as ``intent_of`` its record, which is not written yet."""
        return StepIntent(
            run_id=self.run.id,
            job=self.job.id,
            step=self.step.id,
            attempt=number,
            verb=self.step.verb,
            settings=settings,
            workspace=self.place.workspace,
            undo=undo,
            use=self.place.unit.frame.use,
            git=self.run.git,
        )

    def _way_back(self, planned: Mapping[str, Json]) -> dict[str, Json]:
        """What the intent says about taking it back: the step's own ``undo``, or its verb's."""
        own = self.step.undo
        if own is None:
            verb = self.run.verbs[self.step.verb].manifest if self.step.verb else None
            none = {"undo_by": verb.undo} if verb and not planned and verb.undo != "records" else {}
            return {"undo": dict(planned), **none}
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

    # afterwards

    async def roll_back(self, state: StepState) -> None:
        """Undo this step, or one before it, as far as there is something to undo."""
        intent = state.intent
        if intent is None or not intent["undo"] or state.undone:
            return
        if self.calls.left:
            self.scene.log.add("not rolled back: its plugin may still be at work")
            return
        context = _Context(self.scene.say, self.scene.progress, self.scene.secrets)
        await undo_step(self.run, self.job.id, state, context, because_of=self.step.id)

    async def settle(self) -> bool:
        """Find out what became of the intent, which has no result; whether it was applied."""
        record = self.state.intent
        assert record is not None
        applied, detail = False, "a script cannot be observed; it runs again"
        outputs: Mapping[str, Json] = {}
        if self.step.verb and record["verb"] == self.step.verb:
            try:
                known = self._unmasked(await restored(self.run, record))
                driver, intent = self._driver(), intent_of(self.run, known, self.place.workspace)
                with trio.fail_after(self.step.timeout_s or _OBSERVE_LIMIT_S):
                    seen = await self.calls(lambda: driver.observe(intent))
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
        self.scene.log.add(f"after an interruption: {'done' if applied else 'not done'}: {detail}")
        fields = {"applied": applied, "outputs": dict(outputs), "detail": detail}
        await self.scene.write("step-settled", fields)
        return applied

    def _unmasked(self, record: Mapping[str, Json]) -> Mapping[str, Json]:
        """The intent with its secrets, which the journal does not have."""
        if MASK not in json.dumps(record["settings"]):
            return record
        verb = self.run.verbs[self.step.verb]
        return {**record, "settings": self._settings(verb, self.step.settings)}

    async def still_so(self, outputs: Mapping[str, Json]) -> bool:
        """Whether the verb sees that what the step is to do is done, with what it gave when it was."""
        verb = self.run.verbs[self.step.verb]
        settings = self._settings(verb, self.step.settings)
        try:
            wish = attrs.evolve(self._intent(1, settings, {}), outputs=outputs)
            driver, intent = self._driver(), wish
            seen = await self.calls(lambda: driver.observe(intent))
        except LinkspanError:
            return False
        return seen.applied


def _change(change: StepChange) -> dict[str, Json]:
    return {"action": change.action, "what": change.what, "detail": change.detail}
