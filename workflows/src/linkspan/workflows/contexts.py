"""What each expression of a pipeline may read: the static types of the contexts, and their flags."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

from linkspan.sdk.diagnostics import Label, Span
from linkspan.workflows.expressions import ExpressionFault, Kind, Type, infer
from linkspan.workflows.expressions.types import (
    ANY,
    BOOL,
    DERIVED,
    NO_FLAGS,
    NUMBER,
    SECRET,
    TEXT,
    UNTRUSTED,
    Explain,
    flagged,
    of_value,
    unify,
)
from linkspan.workflows.matrix import Matrix
from linkspan.workflows.model import Input, Job, Step, Text, Workflow
from linkspan.workflows.script import variable
from linkspan.workflows.tainting import derived, flags_given
from linkspan.workflows.values import Template, Value, expressions_in
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
_AXIS_TYPES = {"string": TEXT, "int": NUMBER, "float": NUMBER, "bool": BOOL}


def closed(what: str, fields: Mapping[str, Type], explain: Explain | None = None) -> Type:
    """A mapping with these keys and no others."""
    return Type(kind=Kind.MAP, what=what, fields=fields, explain=explain)


class Later(Mapping[str, Type]):
    """Contexts that are made when an expression asks for them: most steps have none."""

    def __init__(self, make: Callable[[], Mapping[str, Type]]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> Mapping[str, Type]:
        return self._make()

    def __getitem__(self, name: str) -> Type:
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


_SECRET_TEXT = flagged(TEXT, SECRET)
_NAMED_BY_ANYBODY = flagged(TEXT, UNTRUSTED)
"""Whoever can push can name a branch or a tag."""
GIT = closed(
    "git",
    {
        "sha": TEXT,
        "short_sha": TEXT,
        "branch": _NAMED_BY_ANYBODY,
        "tag": _NAMED_BY_ANYBODY,
        "dirty": BOOL,
    },
)
RUNNER = closed("runner", {"os": TEXT, "arch": TEXT})
_RUN_FIELDS = {"id": TEXT, "attempt": NUMBER, "name": TEXT}
_RUN_END = {"result": TEXT, "duration": TEXT}
SERVICE = closed("a service", {"host": TEXT, "address": TEXT})
JOB = closed("job", {"id": TEXT})


def input_type(spec: Input, given: frozenset[str] = NO_FLAGS) -> Type:
    """The type of an input.

    Args:
        spec: The input.
        given: Flags of its value, if whoever may have written it is known. Nobody can write code into a
            number, a choice, or what must match a pattern.
    """
    kind = _INPUT_KINDS[spec.type]
    free = spec.type in ("string", "list") and not spec.pattern
    flags = given & (UNTRUSTED | DERIVED) if free else NO_FLAGS
    if spec.untrusted is not None:
        flags = UNTRUSTED if spec.untrusted else NO_FLAGS
    return Type(
        kind=kind,
        item=TEXT if kind is Kind.LIST else None,
        declared=spec.type_span,
        flags=flags,
    )


def matrix_type(matrix: Matrix) -> Type:
    """The type of ``matrix``: its axes, and what ``include`` adds."""
    fields: dict[str, Type] = {name: _AXIS_TYPES[axis.type] for name, axis in matrix.axes.items()}
    for cell in matrix.cells:
        for name, value in cell.values.items():
            if name not in matrix.axes:
                found = of_value(value)
                fields[name] = unify(fields[name], found) if name in fields else found
    return closed("the matrix", fields)


class _Upto(Mapping[str, Type]):
    """The first fields of a mapping, without a copy of them: one for each step of a job."""

    def __init__(self, places: Mapping[str, tuple[int, Type]], before: int) -> None:
        self._places = places
        self._before = before

    def __getitem__(self, name: str) -> Type:
        index, found = self._places[name]
        if index >= self._before:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return (name for name, (index, _) in self._places.items() if index < self._before)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Contexts:
    """Types of the contexts of one pipeline, place by place; every place costs the same."""

    def __init__(
        self,
        workflow: Workflow,
        verbs: Verbs,
        given: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        """Make them.

        Args:
            workflow: The pipeline.
            verbs: What the installed plugins answer.
            given: Flags of the values that whoever calls it gives, by input.
        """
        self.workflow = workflow
        self.verbs = verbs
        requests = any(each.provider == "generic" for each in workflow.triggers.webhooks)
        self.inputs = closed(
            "the inputs",
            {
                name: input_type(spec, UNTRUSTED if requests else (given or {}).get(name, NO_FLAGS))
                for name, spec in workflow.inputs.items()
            },
        )
        self._results: dict[str, Type] = {}
        self._steps_of: dict[int, dict[str, tuple[int, Type]]] = {}
        self._variables_of: dict[int, dict[str, Type]] = {}
        self._job_env: dict[int, dict[str, Type]] = {}
        self._all_needs: Type | None = None
        self._running = self._run(ended=False)
        self._ended = self._run(ended=True)
        self._top: dict[str, Type] = {
            "inputs": self.inputs,
            "git": GIT,
            "runner": RUNNER,
            "run": self._running,
        }
        self._env = self._env_of({}, workflow.env, self.top())

    def top(self) -> dict[str, Type]:
        """Of the top-level ``env``."""
        return {**self._top, "secrets": self.secrets((), "")}

    def group(self) -> dict[str, Type]:
        """Of ``concurrency``."""
        return {**self._top, "env": closed("env", self._env)}

    def outputs(self) -> dict[str, Type]:
        """Of the pipeline's own ``outputs``."""
        return {**self.group(), "needs": self._needs_of_cleanup()}

    def job(self, job: Job, *, cleanup: bool, cell: bool = True) -> dict[str, Type]:
        """Of a job's ``image``, ``services``, ``lock`` …

        Args:
            cell: Whether it may read ``matrix``; its ``if`` is asked once for all cells.
        """
        found = {
            **self._top,
            "run": self._ended if cleanup else self._running,
            "env": closed("env", self._env),
            "needs": self._needs_of_cleanup() if cleanup else self._needs(job),
            "job": JOB,
            "secrets": self.secrets(job.secrets, f"job '{job.id}'"),
        }
        if cell and job.strategy is not None:
            found["matrix"] = matrix_type(job.strategy.matrix)
        return found

    def job_end(self, job: Job, of_job: Mapping[str, Type]) -> dict[str, Type]:
        """Of a job's ``outputs``: it sees all its steps."""
        return self.step(job, None, len(job.steps), of_job, own=False)

    def step(
        self,
        job: Job,
        step: Step | None,
        before: int,
        of_job: Mapping[str, Type],
        *,
        own: bool = True,
    ) -> dict[str, Type]:
        """Of a step: it sees the steps before it.

        Args:
            before: The index of it in its job, or of the step that holds it.
            of_job: The contexts of its job.
            own: Whether it sees its own ``env`` (its ``with`` does, its ``env`` does not).
        """
        if id(job) not in self._job_env:
            self._job_env[id(job)] = self._env_of(self._env, job.env, of_job)
        env = self._job_env[id(job)]
        granted = () if step is None else (*job.secrets, *step.secrets)
        found = {
            **of_job,
            "steps": self._steps(job, before, of_job),
            "services": closed("the services", dict.fromkeys(job.services, SERVICE)),
            "secrets": self.secrets(granted, "this step"),
        }
        found["env"] = closed("env", env)
        if own and step is not None and step.env:
            found["env"] = closed("env", self._env_of(env, step.env, found))
        return found

    def secrets(self, granted: tuple[str, ...], to: str) -> Type:
        """``secrets``: those that were granted, for what reads them."""

        def explain(name: str, start: int, end: int) -> ExpressionFault | None:
            if name not in self.workflow.secrets:
                return None
            helps = (f"secrets: [{', '.join((*granted, name))}]",) if to else ()
            return ExpressionFault(
                id="LS1305",
                headline=f"secret '{name}' is not granted {f'to {to}' if to else 'here'}",
                start=start,
                end=end,
                helps=helps or ("read it in the `env` of the steps that need it",),
            )

        names = [name for name in granted if name in self.workflow.secrets]
        return closed("the secrets", dict.fromkeys(names, _SECRET_TEXT), explain)

    def _env_of(
        self, base: Mapping[str, Type], texts: Mapping[str, Text], contexts: Mapping[str, Type]
    ) -> dict[str, Type]:
        """``env`` with more variables; a variable carries the flags of what it is made of."""
        return {**base, **{name: self._text_type(text, contexts) for name, text in texts.items()}}

    def _text_type(self, text: Text, contexts: Mapping[str, Type]) -> Type:
        if isinstance(text, str):
            return TEXT
        flags = NO_FLAGS
        for part in text.parts:
            if not isinstance(part, str):
                flags |= infer(part.tree, contexts, part.source)[0].flags
        return flagged(TEXT, flags)

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
        return closed("run", fields, explain)

    def _needs_of_cleanup(self) -> Type:
        if self._all_needs is None:
            jobs = self.workflow.jobs
            fields = {name: self._result_of(job) for name, job in jobs.items()}
            self._all_needs = closed("the jobs of this pipeline", fields)
        return self._all_needs

    def _needs(self, job: Job) -> Type:
        jobs = self.workflow.jobs

        def explain(name: str, start: int, end: int) -> ExpressionFault | None:
            if name not in jobs:
                return None
            return ExpressionFault(
                id="LS1103",
                headline=f"'needs.{name}' is read in job '{job.id}', "
                f"but '{job.id}' does not wait for '{name}'",
                start=start,
                # What stands behind the job's name has no part in it.
                end=min(end, start + len("needs.") + len(name)),
                label="not ready at this point",
                secondary=_at(job.needs_span, f"add '{name}' here"),
                helps=(f"needs: [{', '.join([*job.needed, name])}]",),
            )

        fields = {name: self._result_of(jobs[name]) for name in job.needed if name in jobs}
        return closed("the needs of this job", fields, explain)

    def _result_of(self, job: Job) -> Type:
        """``needs.X``: computed once a job, also while its own outputs are being looked at."""
        if job.id not in self._results:
            # Put in first: a circle of needs would otherwise never end.
            self._results[job.id] = ANY
            outputs = closed(f"the outputs of job '{job.id}'", self._outputs_of(job))
            fields = {"result": TEXT}
            if job.strategy is None:
                fields["outputs"] = outputs
            else:
                cell = closed("a cell", {"key": TEXT, "result": TEXT, "outputs": outputs})
                fields["cells"] = Type(kind=Kind.LIST, item=cell)
            self._results[job.id] = closed(f"job '{job.id}'", fields, _about_cells(job))
        return self._results[job.id]

    def _outputs_of(self, job: Job) -> dict[str, Type]:
        if job.call is not None:
            workflow = job.call.workflow
            if workflow is None:
                return {}
            given = flags_in(job.call.inputs, self.job(job, cleanup=False))
            inner = Contexts(workflow, self.verbs, given)
            types = inner.outputs()
            outputs = workflow.outputs.items()
            return {name: self._output_type(text, types) for name, text in outputs}
        if not job.outputs:
            return {}
        contexts = self.job_end(job, self.job(job, cleanup=False))
        return {name: self._output_type(text, contexts) for name, text in job.outputs.items()}

    def _output_type(self, text: Text, contexts: Mapping[str, Type]) -> Type:
        if isinstance(text, Template) and text.sole is not None:
            return infer(text.sole.tree, contexts, text.sole.source)[0]
        return self._text_type(text, contexts)

    def _look_at_steps(self, job: Job, of_job: Mapping[str, Type]) -> None:
        """The types of a job's steps, one after the other: a script sees those before it."""
        places = self._steps_of[id(job)] = {}
        variables = self._variables_of[id(job)] = {}
        for index, outer in enumerate(job.steps):
            side_by_side = [step for step in (outer, *outer.parallel) if step.named]
            types = [self._step_type(job, step, index, of_job) for step in side_by_side]
            for step, found in zip(side_by_side, types, strict=True):
                places[step.id] = (index, found)
                variables[variable(step.id)] = found

    def _steps(self, job: Job, before: int, of_job: Mapping[str, Type]) -> Type:
        if id(job) not in self._steps_of:
            self._look_at_steps(job, of_job)
        places = self._steps_of[id(job)]

        what = f"the steps of job '{job.id}' that have an id"

        def explain(name: str, start: int, end: int) -> ExpressionFault | None:
            if not places:
                return ExpressionFault(
                    id="LS1201",
                    headline=f"'{name}' does not exist in {what}",
                    start=end - len(name),
                    end=end,
                    helps=(f"give the step that is meant an id:  id: {name}",),
                )
            if name not in places:
                return None
            return ExpressionFault(
                id="LS1103",
                headline=f"step '{name}' has not run at this point",
                start=start,
                end=end,
                helps=("a step sees only the steps before it in its own job",),
            )

        return closed(what, _Upto(places, before), explain)

    def _step_type(self, job: Job, step: Step, index: int, of_job: Mapping[str, Type]) -> Type:
        what = f"the outputs of step '{step.id}'"
        verb = self.verbs.get(step.verb)
        if verb is not None:
            outputs = closed(what, dict.fromkeys(verb.manifest.outputs, ANY))
        elif step.verb:
            outputs = Type(kind=Kind.MAP)
        else:
            # A script says what it gives only while it runs: any name, always a text.
            seen = self.step(job, step, index, of_job)
            flags = derived(flags_given(step, seen, self._variables_of[id(job)]))
            outputs = Type(kind=Kind.MAP, what=what, item=flagged(TEXT, flags))
        return closed(f"step '{step.id}'", {"result": TEXT, "outputs": outputs})


def _about_cells(job: Job) -> Explain:
    def explain(name: str, start: int, end: int) -> ExpressionFault | None:
        if name != "outputs" or job.strategy is None:
            return None
        return ExpressionFault(
            id="LS1201",
            headline=f"job '{job.id}' runs in cells, each with outputs of its own",
            start=start,
            end=end,
            helps=(f"needs.{job.id}.cells[0].outputs",),
        )

    return explain


def flags_in(
    values: Mapping[str, Value], contexts: Mapping[str, Type]
) -> dict[str, frozenset[str]]:
    """Flags of each value, from all that it is made of."""
    found = dict.fromkeys(values, NO_FLAGS)
    for name, value in values.items():
        for each in expressions_in(value):
            found[name] |= infer(each.tree, contexts, each.source)[0].flags
    return found


def _at(span: Span | None, text: str) -> tuple[Label, ...]:
    return () if span is None else (Label(span=span, text=text),)
