"""A plan as it is printed, kept in a file, and compared with what would happen later."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from linkspan.sdk.diagnostics import Diagnostic
from linkspan.sdk.errors import InvalidArgument
from linkspan.workflows.expressions.types import Json

FORMAT: Final = 1
_COMPARED: Final = (
    ("inputs", "input"),
    ("plugins", "plugin of"),
    ("drivers", "driver of"),
    ("git", "git"),
)


@attrs.frozen(kw_only=True)
class PlannedStep:
    """One step as it would be done now.

    Attributes:
        cell: Of the job's matrix; empty if it has none.
        verb: ``run`` for scripts, ``pipeline`` for a job that calls one.
        provider: ``standard-steps 0.1.0``.
        runs: ``yes``, ``no``, or ``maybe`` where the run decides.
        changes: ``{action, what, detail}``.
        later: Sources of expressions whose values only the run knows.
        undo: Whether the change can be taken back.
    """

    job: str
    cell: str
    step: str
    verb: str
    provider: str = ""
    runs: str = "yes"
    changes: tuple[Mapping[str, str], ...] = ()
    later: tuple[str, ...] = ()
    undo: bool = False

    @property
    def place(self) -> str:
        """``deploy/rollout``, ``test[3.10]/unit``."""
        cell = f"[{self.cell}]" if self.cell else ""
        return f"{self.job}{cell}/{self.step}"


@attrs.frozen(kw_only=True)
class Plan:
    """What a run would do.

    Attributes:
        digest: Of the pipeline's text and of all files that it is made of.
        given: Inputs as texts, as they were given; a run of the plan gets the same.
        inputs: All inputs, typed.
        plugins: Verb → plugin and version.
        use: Role → driver, as whoever planned it has chosen; a run of the plan gets the same.
        drivers: Role → driver, plugin and version, of all that is chosen.
        locks: Names of locks that it takes.
        problems: What would make it fail; one that has any cannot be run.
        warnings: What is wrong but does not keep it from running.
    """

    workflow: str
    file: str
    digest: str
    given: Mapping[str, str]
    inputs: Mapping[str, Json]
    git: Mapping[str, Json]
    plugins: Mapping[str, str]
    steps: tuple[PlannedStep, ...]
    use: Mapping[str, str] = attrs.field(factory=dict)
    drivers: Mapping[str, str] = attrs.field(factory=dict)
    locks: tuple[str, ...] = ()
    problems: tuple[Diagnostic, ...] = ()
    warnings: tuple[Diagnostic, ...] = ()

    @property
    def world(self) -> dict[str, Json]:
        """All that must be the same when the plan is run."""
        return {
            "format": FORMAT,
            "workflow": self.workflow,
            "file": self.file,
            "digest": self.digest,
            "given": dict(self.given),
            "inputs": dict(self.inputs),
            "git": dict(self.git),
            "plugins": dict(self.plugins),
            "use": dict(self.use),
            "drivers": dict(self.drivers),
            "locks": list(self.locks),
            "steps": [_step(step) for step in self.steps],
        }

    @property
    def id(self) -> str:
        """Eight hex digits of what is planned."""
        text = json.dumps(self.world, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def as_json(self) -> dict[str, Json]:
        """What the API answers and ``--out`` keeps."""
        return {
            "id": self.id,
            **self.world,
            "problems": [_diagnostic(d) for d in self.problems],
            "warnings": [_diagnostic(d) for d in self.warnings],
        }


def _step(step: PlannedStep) -> dict[str, Json]:
    found = attrs.asdict(step)
    return {**found, "changes": [dict(c) for c in step.changes], "later": list(step.later)}


def _diagnostic(diagnostic: Diagnostic) -> dict[str, Any]:
    return attrs.asdict(diagnostic, filter=lambda attribute, _: attribute.name != "source")


def check_document(document: object) -> dict[str, Json]:
    """A kept plan, if it is one.

    Raises:
        InvalidArgument: It is none, or of another version of Linkspan.
    """
    wanted = {"id", "file", "digest", "given", "steps", "plugins", "inputs", "git"}
    if not isinstance(document, dict) or not wanted <= document.keys():
        raise InvalidArgument("this is not a plan", help="linkspan workflow plan NAME --out FILE")
    if document.get("format") != FORMAT:
        raise InvalidArgument(
            f"the plan has format {document.get('format')}, this Linkspan writes {FORMAT}",
            help="plan again: linkspan workflow plan NAME --out FILE",
        )
    return document


def differences(planned: Mapping[str, Json], now: Mapping[str, Json]) -> Iterator[str]:
    """What is not as it was planned, in words; nothing if it is all the same."""
    if planned["digest"] != now["digest"]:
        yield "the pipeline's text has changed"
    for name, words in _COMPARED:
        before, after = planned.get(name, {}), now.get(name, {})
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                yield f"{words} {key}: {before.get(key)} → {after.get(key)}"
    yield from _changed_steps(planned.get("steps", []), now.get("steps", []))
    if planned.get("locks") != now.get("locks"):
        yield "the locks are others"


def _changed_steps(before: list[Json], after: list[Json]) -> Iterator[str]:
    def by_place(steps: list[Json]) -> dict[str, Json]:
        return {f"{s['job']}[{s['cell']}]/{s['step']}".replace("[]", ""): s for s in steps}

    old, new = by_place(before), by_place(after)
    for place in old.keys() - new.keys():
        yield f"{place} is not done any more"
    for place, step in new.items():
        if place not in old:
            yield f"{place} was not planned"
        elif step != old[place]:
            yield f"{place}: {_words(old[place])} → {_words(step)}"


def _words(step: Mapping[str, Json]) -> str:
    if step["runs"] == "no":
        return "nothing"
    changes = [
        " ".join(filter(None, (c["action"], c["what"], c["detail"]))) for c in step["changes"]
    ]
    return "; ".join(changes) or "nothing"
