"""What happened against what a scenario expects."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from linkspan.sdk.diagnostics import Span
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.units import parse_duration, parse_size
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.scenarios.model import Expectation, Scenario
from linkspan.workflows.scenarios.world import World
from linkspan.workflows.state import BAD, GOOD, RunState, StepState

_MISSING: Final = "nothing"


@attrs.frozen(kw_only=True)
class Facts:
    """What is known of a run that does not go on any more.

    Attributes:
        result: Its state in one word.
        records: Its journal.
        state: Folded from that.
        logs: Lines by ``JOB/STEP``.
    """

    result: str
    records: Sequence[Mapping[str, Any]]
    state: RunState
    logs: Mapping[str, Sequence[str]]

    def steps(self) -> Iterator[tuple[str, StepState]]:
        """All steps by their places, in the order of the pipeline."""
        for job in self.state.jobs.values():
            for step in job.steps.values():
                yield f"{job.id}/{step.id}", step

    def of(self, kind: str) -> list[str]:
        """Places of the records of a kind, in their order."""
        return [f"{r['job']}/{r['step']}" for r in self.records if r["kind"] == kind]


@attrs.frozen(kw_only=True)
class Mismatch:
    """Something that is not as expected.

    Attributes:
        span: Where the scenario file says it.
        what: ``deploy/roll: tries``.
        expected, found: In words.
        why: Lines that explain it.
    """

    span: Span
    what: str
    expected: str
    found: str
    why: Sequence[str] = ()


def judge(facts: Facts, scenario: Scenario, world: World) -> list[Mismatch]:
    """Everything that is not as a scenario expects, in the order of its file."""
    found: list[Mismatch] = []
    if scenario.crash is not None and not world.crashed:
        crash = scenario.crash
        found.append(
            Mismatch(
                span=scenario.span,
                what="crash",
                expected=f"a crash {crash.when} '{crash.place}'",
                found="the run did not come so far",
                why=_faults(facts),
            )
        )
    found += _unused(scenario, world, _faults(facts))
    for each in scenario.expected:
        mismatch = _JUDGES[each.kind](facts, world, each)
        if mismatch is not None:
            found.append(mismatch)
    return found


def _unused(scenario: Scenario, world: World, why: Sequence[str]) -> Iterator[Mismatch]:
    """What the scenario arranges and the run never came to."""
    if scenario.cancel is not None and not world.cancelled:
        yield Mismatch(
            span=scenario.span,
            what="cancel",
            expected=f"a cancel during '{scenario.cancel.place}'",
            found="the run did not come so far",
            why=why,
        )
    for name in scenario.images:
        if not world.pulls[name]:
            yield Mismatch(
                span=scenario.span,
                what="images",
                expected=f"a pull of '{name}'",
                found=f"pulled: {_words(sorted(world.pulled))}",
                why=why,
            )


def _differs(expected: Expectation, found: Json, why: Sequence[str] = ()) -> Mismatch | None:
    if _same(expected.value, found):
        return None
    return Mismatch(
        span=expected.span,
        what=expected.words,
        expected=_words(expected.value),
        found=_words(found),
        why=why,
    )


def _same(expected: Json, found: Json) -> bool:
    """Equal; ``30s`` and ``64Mi`` equal the seconds and bytes that a verb gets for them."""
    if expected == found and isinstance(expected, bool) == isinstance(found, bool):
        return True
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        return expected.keys() == found.keys() and all(
            _same(expected[key], found[key]) for key in expected
        )
    if isinstance(expected, list) and isinstance(found, (list, tuple)):
        pairs = zip(expected, found, strict=False)
        return len(expected) == len(found) and all(_same(a, b) for a, b in pairs)
    if not isinstance(expected, str) or isinstance(found, bool):
        return False
    return isinstance(found, (int, float)) and found in _quantities(expected)


def _quantities(text: str) -> Iterator[float]:
    for read in (parse_duration, parse_size):
        try:
            yield read(text)
        except InvalidArgument:
            continue


def _words(value: Json) -> str:
    if value is None or value == []:
        return _MISSING
    if isinstance(value, list):
        return ", ".join(_words(each) for each in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _faults(facts: Facts) -> list[str]:
    """Why things failed: each step, and each job without such a step."""
    lines: list[str] = []
    for job in facts.state.jobs.values():
        bad = [step for step in job.steps.values() if step.result in BAD]
        lines += [f"{job.id}/{s.id} {s.result}: {s.error.get('message', '')}" for s in bad]
        if job.result in BAD and not bad and job.error:
            lines.append(f"{job.id} {job.result}: {job.error.get('message', '')}")
    return lines


def _result(facts: Facts, _: World, expected: Expectation) -> Mismatch | None:
    if not expected.place:
        return _differs(expected, facts.result, _faults(facts))
    job, _slash, step = expected.place.partition("/")
    state = facts.state.jobs[job]
    found = state.steps[step].state if step else state.state
    if state.result == "skipped" and step:
        found = "skipped"
    return _differs(expected, found, _faults(facts))


def _order(facts: Facts, _: World, expected: Expectation) -> Mismatch | None:
    """Steps in the order in which they first began; others may stand between them."""
    began = list(dict.fromkeys(facts.of("step-started")))
    wanted = set(expected.value)
    return _differs(expected, [place for place in began if place in wanted], _faults(facts))


def _among(chosen: Callable[[Facts], set[str]]) -> "_Judge":
    def compare(facts: Facts, _: World, expected: Expectation) -> Mismatch | None:
        places = chosen(facts)
        in_order = [place for place, _step in facts.steps() if place in places]
        if set(expected.value) == places:
            return None
        return _differs(expected, in_order, _faults(facts))

    return compare


def _undone(facts: Facts) -> set[str]:
    return {place for place, step in facts.steps() if step.undone and step.undo_result == "success"}


def _skipped(facts: Facts) -> set[str]:
    """Steps that were skipped, also with their whole job."""
    return {
        f"{job.id}/{step.id}"
        for job in facts.state.jobs.values()
        for step in job.steps.values()
        if "skipped" in (step.result, job.result)
    }


def _kept(facts: Facts) -> set[str]:
    """Steps that the last attempt found done: nothing of them was done again."""
    begins = [i for i, record in enumerate(facts.records) if record["kind"] == "attempt-started"]
    if len(begins) < 2:
        return set()
    later = {f"{r['job']}/{r['step']}" for r in facts.records[begins[-1] :] if "step" in r}
    return {place for place, step in facts.steps() if step.result in GOOD and place not in later}


def _tries(facts: Facts, _: World, expected: Expectation) -> Mismatch | None:
    """How often a step was begun, in all attempts of the run."""
    count = facts.of("step-started").count(expected.place)
    return _differs(expected, count, _faults(facts))


def _call(kind: str) -> "_Judge":
    def compare(facts: Facts, world: World, expected: Expectation) -> Mismatch | None:
        call = world.last(expected.place)
        if call is None:
            return _differs(expected, None, ["the step was never called", *_faults(facts)])
        table: Mapping[str, Json] = call.settings if kind == "with" else call.env
        return _differs(expected, table.get(expected.name))

    return compare


def _outputs(facts: Facts, _: World, expected: Expectation) -> Mismatch | None:
    job, _slash, step = expected.place.partition("/")
    outputs = facts.state.jobs[job].steps[step].outputs
    return _differs(expected, outputs.get(expected.name), _faults(facts))


def _log(facts: Facts, _: World, expected: Expectation) -> Mismatch | None:
    """Some line holds the text."""
    lines = facts.logs.get(expected.place, ())
    if any(expected.value in line for line in lines):
        return None
    shown = lines[-1] if lines else None
    return _differs(expected, shown, [f"log: {line}" for line in lines[-10:]])


def _error(facts: Facts, _: World, expected: Expectation) -> Mismatch | None:
    """The fault's message holds the text."""
    job, _slash, step = expected.place.partition("/")
    message = facts.state.jobs[job].steps[step].error.get("message")
    if message is not None and expected.value in message:
        return None
    return _differs(expected, message)


_Judge = Callable[[Facts, World, Expectation], Mismatch | None]
_JUDGES: Final[Mapping[str, _Judge]] = {
    "result": _result,
    "order": _order,
    "undone": _among(_undone),
    "skipped": _among(_skipped),
    "kept": _among(_kept),
    "tries": _tries,
    "with": _call("with"),
    "env": _call("env"),
    "outputs": _outputs,
    "log": _log,
    "error": _error,
}
