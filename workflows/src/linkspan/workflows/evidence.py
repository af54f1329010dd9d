"""What is put before a person who decides: the plan of what comes after, and the tests so far."""

import logging
from collections.abc import Collection, Iterator, Mapping

import attrs
import trio

from linkspan.sdk.drivers.step import MISSING, Step as StepDriver
from linkspan.sdk.errors import LinkspanError, Timeout
from linkspan.sdk.model.step import Question, StepIntent
from linkspan.workflows.approvals import tests_of
from linkspan.workflows.calling import PLAN_LIMIT_S, PluginCalls
from linkspan.workflows.expressions import EvaluationFailed, Scope
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.model import Step
from linkspan.workflows.running import Run
from linkspan.workflows.settings import typed_settings
from linkspan.workflows.units import Unit
from linkspan.workflows.values import resolve

log = logging.getLogger(__name__)


async def evidence(
    run: Run, unit: Unit, scope: Scope, step: Step, question: Question
) -> dict[str, Json]:
    """What ``question.show`` asks for.

    Args:
        run: The run.
        unit: The job that is suspended.
        scope: What its next step would see.
        step: The step that asks.
        question: What it asks.
    """
    found: dict[str, Json] = {}
    if "tests" in question.show:
        found["tests"] = tests_of(run.recorder.state)
    if "plan" in question.show:
        found["plan"] = plan = []
        made: set[str] = set()
        for later, each in _later(unit, step):
            told = await _planned(run, later, each, scope if later is unit else None, made)
            plan.append(told)
            made |= {str(change["what"]) for change in told["changes"]}
    return found


def _later(unit: Unit, step: Step) -> Iterator[tuple[Unit, Step]]:
    """The verbs that run only after this step, in the order of the pipeline."""
    own = list(unit.job.all_steps())
    yield from ((unit, each) for each in own[own.index(step) + 1 :] if each.verb)
    after = {unit.name}
    for other in unit.frame.units:
        # Jobs may be written in any order, but one that needs a later one is rare enough to be left out.
        if after & set(other.job.needed):
            after.add(other.name)
            yield from ((other, each) for each in other.job.all_steps() if each.verb)


async def _planned(
    run: Run, unit: Unit, step: Step, scope: Scope | None, made: Collection[str]
) -> dict[str, Json]:
    """What a step would change, or why that is not known; ``made`` is what those before it create."""
    where = f"{unit.id}/{step.id}"
    try:
        changes = await _changes(run, unit, step, scope or Scope(contexts=run.unit_contexts(unit)))
    except (LinkspanError, EvaluationFailed) as error:
        missing = error.details.get(MISSING) if isinstance(error, LinkspanError) else None
        if missing in made:
            words = f"known when it runs: {missing}"
            return {"step": where, "verb": step.verb, "changes": [], "unknown": words}
        return {"step": where, "verb": step.verb, "changes": [], "unknown": error.message}
    return {"step": where, "verb": step.verb, "changes": changes, "unknown": ""}


async def _changes(run: Run, unit: Unit, step: Step, scope: Scope) -> list[Mapping[str, Json]]:
    verb = run.verbs[step.verb]
    # What is planned is shown to people: a secret's name will do.
    secrets = {name: f"${{{{ secrets.{name} }}}}" for name in unit.frame.workflow.secrets}
    contexts = {"steps": {}, "services": {}, **scope.contexts, "secrets": secrets}
    seen = attrs.evolve(scope, contexts=contexts)
    settings = typed_settings(verb, step.settings, resolve(dict(step.settings), seen))
    driver: StepDriver[object] = run.host.driver("step", step.verb)
    intent = StepIntent(
        run_id=run.id,
        job=unit.id,
        step=step.id,
        attempt=1,
        verb=step.verb,
        settings=settings,
        workspace=run.folder / "source",
        use=unit.frame.use,
    )
    calls = PluginCalls(workers=run.workers, say=log.warning)
    try:
        with trio.fail_after(PLAN_LIMIT_S):
            planned = await calls(lambda: driver.plan(intent))
    except trio.TooSlowError:
        raise Timeout(
            f"`{step.verb}` did not say within {PLAN_LIMIT_S:g}s what it would change"
        ) from None
    return [attrs.asdict(change) for change in planned.changes]
