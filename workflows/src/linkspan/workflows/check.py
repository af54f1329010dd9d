"""Everything that is wrong with a pipeline, before anything runs: one list, in the order written."""

from collections.abc import Mapping

import attrs

from linkspan.sdk.diagnostics import Diagnostic, Label, did_you_mean
from linkspan.workflows.contexts import LATER_CONTEXTS, Contexts
from linkspan.workflows.expressions import Kind, Type, infer
from linkspan.workflows.expressions.syntax import Name, walk
from linkspan.workflows.graph import find_circle
from linkspan.workflows.load import load
from linkspan.workflows.model import Job, Need, Step, Text, Workflow
from linkspan.workflows.parse import ParseFailed, decode, parse
from linkspan.workflows.reader import Reader
from linkspan.workflows.settings import KINDS
from linkspan.workflows.values import Expression, Template, Value, expressions_in
from linkspan.workflows.verbs import Verbs

MAX_SHOWN = 20
"""Faults listed at once; more of them are mostly echoes of the first ones."""
_COUNT_WORDS = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@attrs.frozen(kw_only=True)
class Checked:
    """A pipeline and what is wrong with it.

    Attributes:
        workflow: None if the text could not be read at all.
        diagnostics: In the order written; errors and warnings.
    """

    workflow: Workflow | None
    diagnostics: tuple[Diagnostic, ...]

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The faults that keep it from running."""
        return tuple(d for d in self.diagnostics if d.severity == "error")


def check(data: bytes | str, file: str, verbs: Verbs) -> Checked:
    """Read and check a pipeline; nothing is run and no plugin is imported.

    Args:
        data: What the file holds.
        file: Its path, for messages.
        verbs: What the installed plugins answer.
    """
    try:
        text = data if isinstance(data, str) else decode(data, file)
        document = parse(text, file)
    except ParseFailed as failed:
        return Checked(workflow=None, diagnostics=tuple(failed.diagnostics))
    workflow, reader = load(document, verbs)
    if workflow is not None:
        _Checker(workflow, reader, verbs).check()
    found = sorted(
        reader.diagnostics,
        key=lambda d: (d.primary.span.line, d.primary.span.column) if d.primary else (0, 0),
    )
    return Checked(workflow=workflow, diagnostics=tuple(found))


class _Checker:
    def __init__(self, workflow: Workflow, reader: Reader, verbs: Verbs) -> None:
        self.workflow = workflow
        self.reader = reader
        self.verbs = verbs
        self.contexts = Contexts(workflow, verbs)

    def check(self) -> None:
        self._graph()
        self._texts(self.workflow.env, self.contexts.top())
        for job in self.workflow.jobs.values():
            self._job(job, cleanup=False)
        for job in self.workflow.cleanup.values():
            self._job(job, cleanup=True)

    # the graph

    def _graph(self) -> None:
        jobs = self.workflow.jobs
        for job in jobs.values():
            for need in job.needs:
                if need.job not in jobs:
                    self._unknown_need(job, need)
        circle = find_circle({name: job.needed for name, job in jobs.items()})
        if circle:
            self._circle(circle)

    def _unknown_need(self, job: Job, need: Need) -> None:
        jobs = [name for name in self.workflow.jobs if name != job.id]
        near = did_you_mean(need.job, jobs)
        listed = f"jobs: {', '.join(self.workflow.jobs)}"
        self.reader.fault(
            "LS1101",
            f"job '{job.id}' needs '{need.job}', which does not exist",
            need.span,
            helps=[f"did you mean '{near}'?  {listed}" if near else listed],
            fix=near,
        )

    def _circle(self, circle: list[str]) -> None:
        """Each job of the circle needs the next one; told in the order in which they would run."""
        jobs = self.workflow.jobs
        edges = [
            next(need for need in jobs[name].needs if need.job == following)
            for name, following in zip(circle, [*circle[1:], circle[0]], strict=True)
        ]
        order = [circle[0], *reversed(circle[1:]), circle[0]]
        # The edges in the middle are implied by the headline; two places are enough to look at.
        secondary = []
        if len(circle) > 1:
            text = f"{circle[1]} waits for {edges[1].job}"
            span = jobs[circle[1]].needs_span or edges[1].span
            secondary = [Label(span=span, text=text)]
        count = len(circle)
        number = _COUNT_WORDS[count] if count < len(_COUNT_WORDS) else str(count)
        self.reader.fault(
            "LS1102",
            f"jobs wait for each other: {' -> '.join(order)}",
            edges[0].span,
            "closes the circle",
            secondary=secondary,
            helps=[
                "a job cannot need itself" if count == 1 else f"remove one of the {number} `needs`"
            ],
        )

    # expressions

    def _job(self, job: Job, *, cleanup: bool) -> None:
        contexts = self.contexts.job(job, cleanup=cleanup)
        if job.condition is not None:
            self._expression(job.condition, contexts, Kind.BOOL, "'if'")
        self._value(job.image, contexts)
        self._texts(job.env, contexts)
        for service in job.services.values():
            if service.condition is not None:
                self._expression(service.condition, contexts, Kind.BOOL, "'if'")
            words = (*(service.command or ()), *(service.entrypoint or ()))
            test = service.healthcheck.test if service.healthcheck else ()
            for text in (service.image, *words, *test):
                self._value(text, contexts)
            self._texts(service.environment, contexts)
        self._flag(job.continue_on_error, contexts)
        for index, step in enumerate(job.steps):
            self._step(job, index, step, cleanup=cleanup)
        self._texts(job.outputs, self.contexts.step(job, len(job.steps), cleanup=cleanup))

    def _step(self, job: Job, index: int, step: Step, *, cleanup: bool) -> None:
        bare = self.contexts.step(job, index, cleanup=cleanup, own=False)
        full = self.contexts.step(job, index, cleanup=cleanup)
        if step.condition is not None:
            self._expression(step.condition, bare, Kind.BOOL, "'if'")
        self._texts(step.env, bare)
        self._value(step.image, full)
        self._flag(step.continue_on_error, full)
        verb = self.verbs.get(step.verb)
        for name, value in step.settings.items():
            setting = verb.manifest.settings[name] if verb else None
            kind = KINDS[setting.type] if setting else Kind.ANY
            self._value(value, full, kind, f"'{name}'")
        self._where_it_runs(job, step)
        self._target(job, index, step)

    def _where_it_runs(self, job: Job, step: Step) -> None:
        if step.run is not None and step.image is None and job.image is None:
            self.reader.fault(
                "LS1008",
                f"step '{step.title}' of job '{job.id}' has no image to run in",
                step.span,
                helps=["write `image:` at the step or its job, or `defaults: {image: ...}`"],
            )

    def _target(self, job: Job, index: int, step: Step) -> None:
        if step.on_failure is None or not step.on_failure.target:
            return
        target = step.on_failure.target
        earlier = [other.id for other in job.steps[:index]]
        if target not in earlier:
            near = did_you_mean(target, earlier)
            self.reader.fault(
                "LS1101",
                f"'on-failure' rolls back step '{target}', "
                f"which does not stand before it in job '{job.id}'",
                step.span,
                helps=[f"did you mean '{near}'?"] if near else [],
            )

    def _texts(self, texts: Mapping[str, Text], contexts: Mapping[str, Type]) -> None:
        for text in texts.values():
            self._value(text, contexts)

    def _flag(self, flag: bool | Expression, contexts: Mapping[str, Type]) -> None:
        if isinstance(flag, Expression):
            self._expression(flag, contexts, Kind.BOOL, "'continue-on-error'")

    def _value(
        self,
        value: Value,
        contexts: Mapping[str, Type],
        kind: Kind = Kind.TEXT,
        what: str = "this value",
    ) -> None:
        if isinstance(value, Template) and value.sole is not None:
            self._expression(value.sole, contexts, kind, what)
            return
        for expression in expressions_in(value):
            self._expression(expression, contexts, Kind.ANY, what)

    def _expression(
        self, expression: Expression, contexts: Mapping[str, Type], wanted: Kind, what: str
    ) -> None:
        visible, later = dict(contexts), self._later_names(expression)
        for name in later:
            visible[name] = Type(kind=Kind.ANY)
        found, faults = infer(expression.tree, visible, expression.source)
        moved = [
            attrs.evolve(
                fault, start=fault.start + expression.offset, end=fault.end + expression.offset
            )
            for fault in faults
        ]
        self.reader.expression_faults(expression.node, moved)
        if not faults and not later and not _fits(found.kind, wanted):
            self._wrong_kind(expression, found, wanted, what)

    def _later_names(self, expression: Expression) -> list[str]:
        names = []
        for node in walk(expression.tree):
            if isinstance(node, Name) and node.name in LATER_CONTEXTS:
                names.append(node.name)
                index = self.reader.document.index_in(
                    expression.node, expression.offset + node.start
                )
                self.reader.fault(
                    "LS1016",
                    f"the context '{node.name}' is not supported yet",
                    self.reader.document.span_at(index, len(node.name)),
                )
        return names

    def _wrong_kind(self, expression: Expression, found: Type, wanted: Kind, what: str) -> None:
        index = self.reader.document.index_in(expression.node, expression.offset)
        secondary = []
        if found.declared is not None:
            text = f"declared as a {found.kind.value} here"
            secondary = [Label(span=found.declared, text=text)]
        self.reader.fault(
            "LS1205",
            f"{what} must be {_article(wanted)}, the expression gives {_article(found.kind)}",
            self.reader.document.span_at(index, len(expression.source)),
            secondary=secondary,
        )


def _article(kind: Kind) -> str:
    return kind.value if kind is Kind.BOOL else f"a {kind.value}"


def _fits(found: Kind, wanted: Kind) -> bool:
    if Kind.ANY in {found, wanted} or found is wanted:
        return True
    # A number or a boolean has one plain form as a text: `image: app:${{ inputs.number }}`.
    return wanted is Kind.TEXT and found in {Kind.NUMBER, Kind.BOOL}
