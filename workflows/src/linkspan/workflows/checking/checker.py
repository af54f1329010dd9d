"""Every expression of a pipeline against what it may read at its place, and what its value is for."""

import functools
from collections.abc import Mapping, Sequence

import attrs

from linkspan.sdk.diagnostics import Label, did_you_mean
from linkspan.sdk.manifest import VerbSetting
from linkspan.workflows.checking.graph import check_graph, listed
from linkspan.workflows.checking.mistakes import check_mistakes
from linkspan.workflows.checking.sinks import CODE, PLAIN, SECRET_TEXT, Sink, flag_faults
from linkspan.workflows.contexts import Contexts, Later, flags_in
from linkspan.workflows.expressions import Kind, Type, infer
from linkspan.workflows.model import HealthcheckText, Job, JobService, Step, Text, Workflow
from linkspan.workflows.reader import Reader
from linkspan.workflows.settings import KINDS
from linkspan.workflows.values import Expression, Template, Value, expressions_in
from linkspan.workflows.verbs import Verbs

_CONDITION = Sink(kind=Kind.BOOL, what="'if'", what_for="a condition")
_FLAG = Sink(kind=Kind.BOOL, what="'continue-on-error'", what_for="a condition")
_NOTED = Sink(what_for="it is shown and recorded with the run")
_IMAGE = attrs.evolve(CODE, what_for="the name of an image decides what code runs")


class Checker:
    """Checks one pipeline; those that it calls get a checker each."""

    def __init__(
        self,
        workflow: Workflow,
        readers: Mapping[str, Reader],
        verbs: Verbs,
        given: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        """Make a checker.

        Args:
            workflow: As loaded.
            readers: By file; they get the faults.
            verbs: What the installed plugins answer.
            given: Flags of what whoever calls it gives, by input.
        """
        self.workflow = workflow
        self.readers = readers
        self.reader = readers[workflow.file]
        self.verbs = verbs
        self.contexts = Contexts(workflow, verbs, given)

    def check(self) -> None:
        """Note all that is wrong."""
        workflow = self.workflow
        check_graph(workflow, self._reader_of)
        self._texts(workflow.env, self.contexts.top(), _NOTED)
        if workflow.concurrency is not None:
            self._value(workflow.concurrency.group, self.contexts.group(), _NOTED)
        for job in workflow.jobs.values():
            self._job(job, cleanup=False)
        for job in workflow.cleanup.values():
            self._job(job, cleanup=True)
        self.reader = self.readers[workflow.file]
        if workflow.outputs:
            self._texts(workflow.outputs, self.contexts.outputs(), _NOTED)

    def _reader_of(self, job: Job) -> Reader:
        return self.readers[job.file]

    # jobs

    def _job(self, job: Job, *, cleanup: bool) -> None:
        self.reader = self._reader_of(job)
        contexts = self.contexts.job(job, cleanup=cleanup)
        if job.condition is not None:
            of_if = self.contexts.job(job, cleanup=cleanup, cell=False)
            self._expression(job.condition, of_if, _CONDITION)
        self._value(job.image, contexts, _IMAGE)
        self._texts(job.env, contexts, SECRET_TEXT)
        for text in (job.environment, job.lock, *job.volumes, *job.labels.values()):
            self._value(text, contexts, _NOTED)
        for service in job.services.values():
            self._service(service, contexts)
        self._flag(job.continue_on_error, contexts)
        if job.call is not None:
            self._call(job, contexts)
        for index, step in enumerate(job.steps):
            self._step(job, step, index, contexts)
            for inner in step.parallel:
                self._step(job, inner, index, contexts)
        at_end = self.contexts.job_end(job, contexts)
        self._texts(job.outputs, at_end, _NOTED)
        for cache in job.caches:
            for text in (cache.path, cache.key, *cache.restore):
                self._value(text, contexts, _NOTED)
        for artifact in job.artifacts.values():
            for path in artifact.paths:
                self._value(path, contexts, PLAIN)
        self._loads(job)
        check_mistakes(job, self.workflow.jobs, self.reader)

    def _call(self, job: Job, contexts: Mapping[str, Type]) -> None:
        call = job.call
        if call is None or call.workflow is None:
            return
        for name, value in call.inputs.items():
            spec = call.workflow.inputs[name]
            kind = Kind.NUMBER if spec.type == "int" else Kind.TEXT
            kind = {"bool": Kind.BOOL, "list": Kind.LIST}.get(spec.type, kind)
            self._value(value, contexts, attrs.evolve(_NOTED, kind=kind, what=f"'{name}'"))
        given = flags_in(call.inputs, contexts)
        Checker(call.workflow, self.readers, self.verbs, given).check()

    def _service(self, service: JobService, contexts: Mapping[str, Type]) -> None:
        if service.condition is not None:
            self._expression(service.condition, contexts, _CONDITION)
        self._value(service.image, contexts, _IMAGE)
        for words in (service.command, service.entrypoint):
            self._words(words or (), contexts)
        if isinstance(service.healthcheck, HealthcheckText):
            self._words(service.healthcheck.test, contexts)
        for text in (*service.ports, *service.volumes):
            self._value(text, contexts, PLAIN)
        for texts in (service.labels, service.sysctls):
            self._texts(texts, contexts, PLAIN)
        self._texts(service.environment, contexts, SECRET_TEXT)

    def _words(self, words: Sequence[Text], contexts: Mapping[str, Type]) -> None:
        """A command: its texts are code if a shell reads them."""
        shell = words[:1] == ("CMD-SHELL",) or words[:2] == ("/bin/sh", "-c")
        for word in words:
            self._value(word, contexts, CODE if shell else PLAIN)

    def _loads(self, job: Job) -> None:
        """``load-artifacts`` names artifacts of jobs that this one needs."""
        jobs = self.workflow.jobs
        for load in job.load_artifacts:
            needed = [name for name in job.needed if name in jobs]
            having = [name for name in needed if load.name in jobs[name].artifacts]
            if load.job and load.job not in needed:
                self.reader.fault(
                    "LS1103",
                    f"job '{job.id}' loads from '{load.job}', but does not wait for it",
                    load.span,
                    helps=[f"needs: [{', '.join([*job.needed, load.job])}]"],
                )
            elif (load.job and load.job not in having) or (not load.job and not having):
                names = [name for each in needed for name in jobs[each].artifacts]
                near = did_you_mean(load.name, names)
                self.reader.fault(
                    "LS1101",
                    f"no job that '{job.id}' needs has an artifact '{load.name}'",
                    load.span,
                    helps=[f"did you mean '{near}'?"] if near else [f"there are: {listed(names)}"],
                )
            elif not load.job and len(having) > 1:
                self.reader.fault(
                    "LS1014",
                    f"the artifact '{load.name}' is made by {' and '.join(having)}",
                    load.span,
                    helps=[f"{{name: {load.name}, from: {having[0]}}}"],
                )

    # steps

    def _step(self, job: Job, step: Step, index: int, of_job: Mapping[str, Type]) -> None:
        bare = Later(lambda: self.contexts.step(job, step, index, of_job, own=False))
        full = Later(lambda: self.contexts.step(job, step, index, of_job)) if step.env else bare
        if step.condition is not None:
            self._expression(step.condition, bare, _CONDITION)
        self._texts(step.env, bare, SECRET_TEXT)
        self._value(step.image, full, _IMAGE)
        self._flag(step.continue_on_error, full)
        self._settings(step.verb, step.settings, full)
        if step.undo is not None:
            # It runs after the step, and may read what it gave.
            after = self.contexts.step(job, step, index + 1, of_job)
            self._settings(step.undo.verb, step.undo.settings, after)
        self._where_it_runs(job, step)
        self._target(job, index, step)

    def _settings(
        self, name: str, settings: Mapping[str, Value], contexts: Mapping[str, Type]
    ) -> None:
        verb = self.verbs.get(name)
        for key, value in settings.items():
            if isinstance(value, (Template, tuple, dict)):
                known = verb.manifest.settings if verb else {}
                setting = known[key] if verb else VerbSetting(type="any")
                taker = next((k for k, s in known.items() if s.type == "secrets"), "")
                self._setting(name, key, value, setting, contexts, taker)

    def _setting(
        self,
        verb: str,
        key: str,
        value: Value,
        setting: VerbSetting,
        contexts: Mapping[str, Type],
        taker: str,
    ) -> None:
        if isinstance(value, dict) and setting.keys:
            for name, item in value.items():
                self._setting(verb, name, item, setting.keys[name], contexts, taker)
            return
        sink = Sink(
            kind=KINDS[setting.type],
            what=f"'{key}'",
            secret=setting.takes_secrets,
            what_for=_what_for(verb, key),
            taker=taker,
        )
        self._value(value, contexts, sink)

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
        earlier = [other.id for outer in job.steps[:index] for other in (outer, *outer.parallel)]
        if target not in earlier:
            near = did_you_mean(target, earlier)
            self.reader.fault(
                "LS1101",
                f"'on-failure' rolls back step '{target}', "
                f"which does not stand before it in job '{job.id}'",
                step.span,
                helps=[f"did you mean '{near}'?"] if near else [],
            )

    # values

    def _texts(self, texts: Mapping[str, Text], contexts: Mapping[str, Type], sink: Sink) -> None:
        for text in texts.values():
            self._value(text, contexts, sink)

    def _flag(self, flag: bool | Expression, contexts: Mapping[str, Type]) -> None:
        if isinstance(flag, Expression):
            self._expression(flag, contexts, _FLAG)

    def _value(self, value: Value, contexts: Mapping[str, Type], sink: Sink) -> None:
        if value is None or isinstance(value, str):
            return
        if isinstance(value, Template) and value.sole is not None:
            self._expression(value.sole, contexts, sink)
            return
        for expression in expressions_in(value):
            self._expression(expression, contexts, _part_of(sink))

    def _expression(self, expression: Expression, contexts: Mapping[str, Type], sink: Sink) -> None:
        found, faults = infer(expression.tree, contexts, expression.source)
        # A secret at a wrong place is told as that, whether it was granted or not.
        if flag_faults(self.reader, expression, found, sink):
            return
        moved = [
            attrs.evolve(
                fault, start=fault.start + expression.offset, end=fault.end + expression.offset
            )
            for fault in faults
        ]
        self.reader.expression_faults(expression.node, moved)
        if not faults and not _fits(found.kind, sink.kind):
            self._wrong_kind(expression, found, sink)

    def _wrong_kind(self, expression: Expression, found: Type, sink: Sink) -> None:
        index = self.reader.document.index_in(expression.node, expression.offset)
        secondary = []
        if found.declared is not None:
            text = f"declared as a {found.kind.value} here"
            secondary = [Label(span=found.declared, text=text)]
        self.reader.fault(
            "LS1205",
            f"{sink.what} must be {_article(sink.kind)}, the expression gives {_article(found.kind)}",
            self.reader.document.span_at(index, len(expression.source)),
            secondary=secondary,
        )


@functools.lru_cache(maxsize=256)
def _part_of(sink: Sink) -> Sink:
    """A part of a text may be anything that has a form as a text."""
    return attrs.evolve(sink, kind=Kind.ANY)


def _what_for(verb: str, key: str) -> str:
    if key in ("args", "build-args"):
        return "build arguments stay in the image history"
    return f"`{verb}` shows and records its settings" if verb else ""


def _article(kind: Kind) -> str:
    return kind.value if kind is Kind.BOOL else f"a {kind.value}"


def _fits(found: Kind, wanted: Kind) -> bool:
    if Kind.ANY in {found, wanted} or found is wanted:
        return True
    # A number or a boolean has one plain form as a text: `image: app:${{ inputs.number }}`.
    return wanted is Kind.TEXT and found in {Kind.NUMBER, Kind.BOOL}
