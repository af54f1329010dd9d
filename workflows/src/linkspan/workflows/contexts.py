"""What each expression of a pipeline may read: the static types of the contexts."""

from collections.abc import Mapping

import attrs

from linkspan.sdk.diagnostics import Label, Span
from linkspan.workflows.expressions import ExpressionFault, Kind, Type, infer
from linkspan.workflows.expressions.types import ANY, BOOL, NUMBER, TEXT
from linkspan.workflows.model import Input, Job, Step, Text, Workflow
from linkspan.workflows.values import Template
from linkspan.workflows.verbs import Verbs

_INPUT_KINDS = {
    "string": Kind.TEXT,
    "int": Kind.NUMBER,
    "bool": Kind.BOOL,
    "duration": Kind.TEXT,
    "size": Kind.TEXT,
    "choice": Kind.TEXT,
    "list": Kind.LIST,
}

LATER_CONTEXTS = ("matrix", "secrets")
"""In the language, not built yet."""


def closed(what: str, fields: Mapping[str, Type]) -> Type:
    """A mapping with these keys and no others."""
    return Type(kind=Kind.MAP, what=what, fields=dict(fields))


GIT = closed(
    "git",
    {"sha": TEXT, "short_sha": TEXT, "branch": TEXT, "tag": TEXT, "dirty": BOOL},
)
RUNNER = closed("runner", {"os": TEXT, "arch": TEXT})
_RUN_FIELDS = {"id": TEXT, "attempt": NUMBER, "name": TEXT}
_RUN_END = {"result": TEXT, "duration": TEXT}
SERVICE = closed("a service", {"host": TEXT, "address": TEXT})


def input_type(spec: Input) -> Type:
    """The type of an input."""
    kind = _INPUT_KINDS[spec.type]
    return Type(kind=kind, item=TEXT if kind is Kind.LIST else None, declared=spec.type_span)


class Contexts:
    """Types of the contexts of one pipeline, place by place."""

    def __init__(self, workflow: Workflow, verbs: Verbs) -> None:
        self.workflow = workflow
        self.verbs = verbs
        self.inputs = closed(
            "the inputs", {name: input_type(spec) for name, spec in workflow.inputs.items()}
        )
        self._results: dict[str, Type] = {}

    def top(self) -> dict[str, Type]:
        """Of the top-level ``env``."""
        return {"inputs": self.inputs, "git": GIT, "runner": RUNNER, "run": self._run(ended=False)}

    def job(self, job: Job, *, cleanup: bool) -> dict[str, Type]:
        """Of a job's ``if``, ``image``, ``services``."""
        names = {**self.workflow.env}
        return {
            **self.top(),
            "run": self._run(ended=cleanup),
            "env": closed("env", dict.fromkeys(names, TEXT)),
            "needs": self._needs(job, cleanup=cleanup),
            "job": closed("job", {"id": TEXT}),
        }

    def step(self, job: Job, before: int, *, cleanup: bool, own: bool = True) -> dict[str, Type]:
        """Of the step at index ``before``: it sees the steps before it.

        Args:
            own: Whether it sees its own ``env`` (its ``with`` does, its ``env`` does not).
        """
        names = {**self.workflow.env, **job.env}
        if own and before < len(job.steps):
            names |= job.steps[before].env
        return {
            **self.job(job, cleanup=cleanup),
            "env": closed("env", dict.fromkeys(names, TEXT)),
            "steps": self._steps(job, before),
            "services": closed("the services", dict.fromkeys(job.services, SERVICE)),
        }

    def _run(self, *, ended: bool) -> Type:
        def explain(name: str, start: int, end: int) -> ExpressionFault | None:
            if name not in _RUN_END:
                return None
            return ExpressionFault(
                id="LS1201",
                headline=f"'run.{name}' is known only when all jobs have ended",
                start=start,
                end=end,
                helps=("read it in a job of `finally`",),
            )

        fields = _RUN_FIELDS | _RUN_END if ended else _RUN_FIELDS
        return attrs.evolve(closed("run", fields), explain=explain)

    def _needs(self, job: Job, *, cleanup: bool) -> Type:
        jobs = self.workflow.jobs
        visible = list(jobs) if cleanup else [name for name in job.needed if name in jobs]

        def explain(name: str, start: int, end: int) -> ExpressionFault | None:
            if name not in jobs:
                return None
            return ExpressionFault(
                id="LS1103",
                headline=f"'needs.{name}' is read in job '{job.id}', "
                f"but '{job.id}' does not wait for '{name}'",
                start=start,
                end=end,
                label="not ready at this point",
                secondary=_at(job.needs_span, f"add '{name}' here"),
                helps=(f"needs: [{', '.join([*job.needed, name])}]",),
            )

        fields = {name: self._result_of(jobs[name]) for name in visible}
        return attrs.evolve(closed("the needs of this job", fields), explain=explain)

    def _result_of(self, job: Job) -> Type:
        """``needs.X``: computed once a job, also while its own outputs are being looked at."""
        if job.id not in self._results:
            # Put in first: a circle of needs would otherwise never end.
            self._results[job.id] = ANY
            outputs = {name: self._output_type(job, text) for name, text in job.outputs.items()}
            fields = {
                "result": TEXT,
                "outputs": closed(f"the outputs of job '{job.id}'", outputs),
            }
            self._results[job.id] = closed(f"job '{job.id}'", fields)
        return self._results[job.id]

    def _output_type(self, job: Job, text: Text) -> Type:
        if not isinstance(text, Template) or text.sole is None:
            return TEXT
        contexts = self.step(job, len(job.steps), cleanup=False)
        return infer(text.sole.tree, contexts, text.sole.source)[0]

    def _steps(self, job: Job, before: int) -> Type:
        later = {step.id for step in job.steps[before:] if step.named}

        def explain(name: str, start: int, end: int) -> ExpressionFault | None:
            if name not in later:
                return None
            return ExpressionFault(
                id="LS1103",
                headline=f"step '{name}' has not run at this point",
                start=start,
                end=end,
                helps=("a step sees only the steps before it in its own job",),
            )

        fields = {step.id: self._step_type(step) for step in job.steps[:before] if step.named}
        what = f"the steps of job '{job.id}' that have an id"
        return attrs.evolve(closed(what, fields), explain=explain)

    def _step_type(self, step: Step) -> Type:
        what = f"the outputs of step '{step.id}'"
        verb = self.verbs.get(step.verb)
        if verb is not None:
            outputs = closed(what, dict.fromkeys(verb.manifest.outputs, ANY))
        elif step.verb:
            outputs = Type(kind=Kind.MAP)
        else:
            # A script says what it gives only while it runs: any name, always a text.
            outputs = Type(kind=Kind.MAP, what=what, item=TEXT)
        return closed(f"step '{step.id}'", {"result": TEXT, "outputs": outputs})


def _at(span: Span | None, text: str) -> tuple[Label, ...]:
    return () if span is None else (Label(span=span, text=text),)
