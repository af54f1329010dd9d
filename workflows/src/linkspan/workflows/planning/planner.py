"""Goes through a pipeline as a run would, asking each verb what it would change and changing nothing."""

import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs
import trio

from linkspan.sdk.diagnostics import Diagnostic, Label, Span
from linkspan.sdk.drivers.step import MISSING, Step as StepDriver
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.host import Host
from linkspan.sdk.model.step import StepIntent
from linkspan.workflows.calling import PLAN_LIMIT_S, PluginCalls
from linkspan.workflows.check import Checked
from linkspan.workflows.choosing import not_open
from linkspan.workflows.expressions import EvaluationFailed
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.matrix import Cell
from linkspan.workflows.model import Job, Step, Workflow
from linkspan.workflows.parse import Scalar, Sequence
from linkspan.workflows.planning.document import Plan, PlannedStep
from linkspan.workflows.planning.known import Known
from linkspan.workflows.planning.order import Making, Order, Spot, holds_socket
from linkspan.workflows.planning.world import (
    Images,
    disk_fault,
    full_name,
    missing_secret,
    port_taken,
    published,
)
from linkspan.workflows.settings import typed_settings
from linkspan.workflows.units import Frame
from linkspan.workflows.values import OPEN
from linkspan.workflows.verbs import Verbs

PORTS: Final = "ports"
"""The setting, of any verb, whose entries publish ports of this machine."""
PUSHES: Final = "push"
"""The verb whose images go to registries."""
VOLUMES: Final = "volumes"
"""The setting, of any verb, whose entries are mounted."""
NAMES: Final = "tags"
"""The setting, of any verb, whose entries name images that the step makes."""
NEEDS_IMAGE: Final = frozenset({"deploy", "run-job", "pull"})
"""Verbs whose setting ``image`` must be had from here or from its registry."""


@attrs.frozen(kw_only=True)
class Circumstances:
    """What a run would be given.

    Attributes:
        workspace: Folder of the sources.
        files: Those that belong to the run; None for all.
        given: Inputs as texts.
        inputs: All inputs, typed.
        digest: Of the pipeline's text.
        use: Role → driver, before what the pipeline says.
    """

    workspace: Path
    given: Mapping[str, str]
    inputs: Mapping[str, Json]
    git: Mapping[str, Json]
    digest: str
    files: tuple[str, ...] | None = None
    use: Mapping[str, str] = attrs.field(factory=dict)


class Planner:
    """Makes one plan."""

    def __init__(
        self,
        host: Host,
        verbs: Verbs,
        checked: Checked,
        circumstances: Circumstances,
        calls: PluginCalls,
    ) -> None:
        """Make a planner for a pipeline that could be read, with whatever is wrong with it."""
        assert checked.workflow is not None
        self._host = host
        self._calls = calls
        self._verbs = verbs
        self._checked = checked
        self._workflow: Workflow = checked.workflow
        self._given = circumstances
        self._images = Images(host)
        self._problems: list[Diagnostic] = list(checked.errors)
        if not self._problems:
            self._problems += not_open(host, self._workflow)
        self._steps: list[PlannedStep] = []
        self._ports: dict[tuple[str, int, str], str] = {}
        self._locks: dict[str, None] = {}
        self._secrets: set[str] = set()
        self._copies = 0
        self._making = Making(Order())
        self._uses = {"": Frame(self._workflow).use}
        """Role → driver, by the prefix of a pipeline's jobs."""

    async def plan(self) -> Plan:
        """The plan; faults are in it. Reads only; no container, image, file or lock is made.

        If cancelled: clean.
        """
        workflow = self._workflow
        self._making.order.add("", workflow)
        known = self._top()
        for job in (*workflow.jobs.values(), *workflow.cleanup.values()):
            await self._job(workflow, job, known, "")
        fault = await trio.to_thread.run_sync(
            disk_fault,
            self._host.state_dir,
            self._given.workspace,
            self._given.files,
            max(1, self._copies),
        )
        if fault:
            self._problem(workflow, workflow.file, fault, None)
        verbs = sorted({step.verb for step in self._steps} & set(self._verbs))
        use = self._uses[""]
        return Plan(
            workflow=workflow.name,
            file=workflow.file,
            digest=self._given.digest,
            given=dict(self._given.given),
            inputs=dict(self._given.inputs),
            git=dict(self._given.git),
            plugins={verb: self._verbs[verb].provider for verb in verbs},
            use=dict(self._given.use),
            drivers={role: self._player(role, driver) for role, driver in use.items()},
            steps=tuple(self._steps),
            locks=tuple(self._locks),
            problems=self._making.real(self._problems),
            warnings=tuple(d for d in self._checked.diagnostics if d.severity == "warning"),
        )

    def _player(self, role: str, name: str) -> str:
        driver = self._verbs.driver(role, name)
        return name if driver is None else f"{name} ({driver.provider})"

    def _top(self) -> Known:
        contexts: dict[str, Json] = {
            "inputs": dict(self._given.inputs),
            "git": dict(self._given.git),
            "runner": {"os": platform.system().lower(), "arch": platform.machine()},
            "run": {"name": self._workflow.name},
        }
        env = Known(contexts).env(self._workflow.env)
        return Known({**contexts, "env": env})

    # jobs

    async def _job(self, workflow: Workflow, job: Job, top: Known, prefix: str) -> None:
        runs = _word(top.condition(job.condition))
        cells = job.strategy.matrix.cells if job.strategy else (None,)
        # Cells differ in values, seldom in kind; a wrong image is told once, by `Images`.
        for cell in cells:
            await self._cell(workflow, job, cell, top, runs, prefix)

    async def _cell(
        self,
        workflow: Workflow,
        job: Job,
        cell: Cell | None,
        top: Known,
        runs: str,
        prefix: str,
    ) -> None:
        contexts = {**top.contexts, "job": {"id": job.id}}
        if cell is not None:
            contexts["matrix"] = dict(cell.values)
        known = Known(contexts)
        self._copies += runs != "no"
        lock = known.text(job.lock)
        if lock is not None and runs != "no":
            self._locks[lock] = None
        if runs != "no":
            await self._grants(workflow, job.secrets)
            await self._services(workflow, job, known, Spot(f"{prefix}{job.id}", -1))
        key = "" if cell is None else cell.key
        name = f"{prefix}{job.id}"
        if job.call is not None:
            await self._call(job, known, name, runs)
            return
        env = {**contexts["env"], **known.env(job.env)}
        inside = Known({**contexts, "env": env})
        for number, outer in enumerate(job.steps):
            for step in (outer, *outer.parallel):
                planned = PlannedStep(
                    job=name, cell=key, step=step.id, verb=step.verb or "run", runs=runs
                )
                await self._step(workflow, job, step, inside, planned, Spot(name, number))

    async def _call(self, job: Job, known: Known, name: str, runs: str) -> None:
        call = job.call
        assert call is not None
        later: list[str] = []
        inputs: dict[str, Json] = {}
        for key, value in call.inputs.items():
            found, unknown = known.value(value)
            later += unknown
            inputs[key] = None if unknown else found
        self._steps.append(
            PlannedStep(
                job=name, cell="", step=call.file, verb="pipeline", runs=runs, later=tuple(later)
            )
        )
        if call.workflow is None:
            return
        defaults = {each.name: each.default for each in call.workflow.inputs.values()}
        contexts = {**known.contexts, "inputs": {**defaults, **inputs}}
        contexts.pop("matrix", None)
        env = Known({**contexts, "env": {}}).env(call.workflow.env)
        inner = Known({**contexts, "env": env})
        outer = self._uses[name.removesuffix(job.id)]
        self._uses[f"{name}/"] = Frame(call.workflow, use=outer).use
        self._making.order.add(f"{name}/", call.workflow)
        for each in (*call.workflow.jobs.values(), *call.workflow.cleanup.values()):
            await self._job(call.workflow, each, inner, f"{name}/")

    async def _grants(self, workflow: Workflow, names: tuple[str, ...]) -> None:
        for name in names:
            secret = workflow.secrets.get(name)
            if secret is None or name in self._secrets:
                continue
            self._secrets.add(name)
            fault = await missing_secret(self._host, secret)
            if fault:
                helps = [f"linkspan workflow secret set {secret.key or name}"]
                self._problem(workflow, workflow.file, fault, secret.span, helps=helps)

    async def _services(self, workflow: Workflow, job: Job, known: Known, spot: Spot) -> None:
        for service in job.services.values():
            if known.condition(service.condition) is False:
                continue
            image = known.text(service.image)
            if image:
                await self._image(workflow, job, image, service.span, spot)
            for entry in service.ports:
                text = known.text(entry)
                if text is not None:
                    await self._port(workflow, job, text, service.span)

    # steps

    async def _step(
        self,
        workflow: Workflow,
        job: Job,
        step: Step,
        known: Known,
        planned: PlannedStep,
        spot: Spot,
    ) -> None:
        if step.parallel or step.wait or step.cancel:
            return
        decided = known.condition(step.condition)
        if planned.runs != "no" and decided is not True:
            planned = attrs.evolve(planned, runs=_word(decided))
        if planned.runs == "no":
            self._steps.append(planned)
            return
        await self._grants(workflow, step.secrets)
        known = Known({**known.contexts, "env": {**known.contexts["env"], **known.env(step.env)}})
        if step.run is not None:
            planned = await self._script(workflow, job, step, known, planned, spot)
        elif step.verb in self._verbs:
            planned = await self._verb(workflow, job, step, known, planned, spot)
        self._steps.append(planned)

    async def _script(
        self,
        workflow: Workflow,
        job: Job,
        step: Step,
        known: Known,
        planned: PlannedStep,
        spot: Spot,
    ) -> PlannedStep:
        if holds_socket([known.text(text) for text in job.volumes]):
            self._making.may_make_anything(spot)
        image = step.image or job.image
        name = known.text(image)
        if name is None:
            return planned
        detail = await self._image(workflow, job, name, step.span, spot)
        change = {"action": "create", "what": f"container of {name}", "detail": detail}
        return attrs.evolve(planned, changes=(change,))

    async def _verb(
        self,
        workflow: Workflow,
        job: Job,
        step: Step,
        known: Known,
        planned: PlannedStep,
        spot: Spot,
    ) -> PlannedStep:
        verb = self._verbs[step.verb]
        planned = attrs.evolve(planned, provider=verb.provider)
        later: list[str] = []
        values: dict[str, Json] = {}
        untyped = False
        try:
            for name, value in step.settings.items():
                found, unknown = known.value(value)
                later += unknown
                values[name] = found
                kind = verb.manifest.settings[name].type
                untyped |= bool(unknown) and kind not in ("string", "list", "map", "any", "secrets")
            planned = attrs.evolve(planned, later=tuple(dict.fromkeys(later)))
            if untyped:
                # A number that is not known yet cannot be planned with.
                self._making.may_make(values, spot)
                return planned
            settings = typed_settings(verb, step.settings, values)
        except EvaluationFailed as error:
            self._problem(
                workflow, job.file, f"an expression has no value: {error.message}", step.span
            )
            return planned
        except LinkspanError as error:
            self._problem(workflow, job.file, error.message, step.verb_span or step.span)
            return planned
        if holds_socket(settings.get(VOLUMES)):
            self._making.may_make_anything(spot)
        if step.verb == PUSHES:
            await self._destinations(workflow, job, step, settings)
        means = await self._meant(workflow, job, step, settings, spot)
        planned = await self._ask(workflow, job, step, settings, planned, spot)
        self._making.makes(_things(settings.get(NAMES), planned), spot, planned.place)
        return attrs.evolve(planned, changes=(*planned.changes, *means))

    async def _meant(
        self, workflow: Workflow, job: Job, step: Step, settings: Mapping[str, Json], spot: Spot
    ) -> tuple[Mapping[str, Json], ...]:
        """Which image a verb's name means now: a tag may be another's by the time of the run."""
        image = settings.get("image")
        if step.verb not in NEEDS_IMAGE or not isinstance(image, str) or "${{" in image:
            return ()
        node = step.setting_nodes.get("image")
        span = node.value.span if node else step.span
        detail = await self._image(workflow, job, image, span, spot)
        if not detail or "@" in image:
            return ()
        return ({"action": "none", "what": f"image {image}", "detail": detail},)

    async def _destinations(
        self, workflow: Workflow, job: Job, step: Step, settings: Mapping[str, Json]
    ) -> None:
        """Registries that an image would be pushed to must let us."""
        for name in settings.get("tags") or [settings.get("image")]:
            if not isinstance(name, str) or "${{" in name or name.startswith("sha256:"):
                continue
            fault = await self._images.destination(name)
            if fault:
                self._problem(workflow, job.file, f"'{name}': {fault}", step.verb_span or step.span)

    async def _ask(
        self,
        workflow: Workflow,
        job: Job,
        step: Step,
        settings: Mapping[str, Json],
        planned: PlannedStep,
        spot: Spot,
    ) -> PlannedStep:
        intent = StepIntent(
            run_id="plan",
            job=job.id,
            step=step.id,
            attempt=1,
            verb=step.verb,
            settings=settings,
            workspace=self._given.workspace,
            use=self._uses[planned.job.removesuffix(job.id)],
            git=self._given.git,
        )
        try:
            driver: StepDriver[object] = self._host.driver("step", step.verb)
            with trio.fail_after(PLAN_LIMIT_S):
                found = await self._calls(lambda: driver.plan(intent))
        except trio.TooSlowError:
            words = f"`{step.verb}` did not say within {PLAN_LIMIT_S:g}s what it would change"
            self._problem(workflow, job.file, words, step.verb_span or step.span)
            return planned
        except LinkspanError as error:
            # What it would have made is not missed as well.
            self._making.may_make(settings, spot)
            missing = str(error.details.get(MISSING, ""))
            if planned.later and (OPEN in missing or not missing):
                # With values that are not known yet, a complaint says nothing.
                return planned
            helps = [error.help] if error.help else []
            place = step.verb_span or step.span
            problem = self._problem(workflow, job.file, error.message, place, helps=helps)
            if missing:
                self._making.misses(problem, missing, spot)
                planned = attrs.evolve(planned, later=(*planned.later, missing))
            return planned
        changes = tuple(attrs.asdict(change) for change in found.changes)
        if any(change["action"] == "create" for change in changes):
            await self._published(workflow, job, step)
        return attrs.evolve(planned, changes=changes, undo=bool(found.undo))

    async def _published(self, workflow: Workflow, job: Job, step: Step) -> None:
        """Ports that a new thing publishes; what is there already has its own."""
        field = step.setting_nodes.get(PORTS)
        if field is None or not isinstance(field.value, Sequence):
            return
        for node in field.value.items:
            if isinstance(node, Scalar):
                await self._port(workflow, job, node.text, node.span)

    # faults

    async def _image(self, workflow: Workflow, job: Job, name: str, span: Span, spot: Spot) -> str:
        fault, detail = await self._images.look(name)
        if fault:
            problem = self._problem(workflow, job.file, f"image '{name}': {fault}", span)
            self._making.misses(problem, f"image {full_name(name)}", spot)
        return detail

    async def _port(self, workflow: Workflow, job: Job, text: str, span: Span) -> None:
        place = published(text)
        if place is None:
            return
        if place not in self._ports:
            self._ports[place] = await trio.to_thread.run_sync(port_taken, *place)
        if self._ports[place]:
            self._problem(workflow, job.file, self._ports[place], span)

    def _problem(
        self,
        workflow: Workflow,
        file: str,
        headline: str,
        span: Span | None,
        *,
        helps: list[str] | None = None,
    ) -> Diagnostic:
        source = workflow.text if file == workflow.file else workflow.others.get(file, "")
        problem = Diagnostic(
            id="LS1408",
            headline=headline,
            file=file,
            source=source,
            primary=None if span is None else Label(span=span),
            helps=tuple(helps or ()),
        )
        if problem not in self._problems:
            self._problems.append(problem)
        return problem


def _things(names: Json, planned: PlannedStep) -> Iterator[str]:
    """What is there when a step has ended, images by their full names."""
    for name in names if isinstance(names, list) else ():
        if isinstance(name, str):
            yield f"image {full_name(name)}"
    for change in planned.changes:
        kind, _, name = change["what"].partition(" ")
        if change["action"] in ("create", "change"):
            yield f"image {full_name(name)}" if kind in ("image", "name") else change["what"]


def _word(decided: bool | None) -> str:
    return {True: "yes", False: "no", None: "maybe"}[decided]
