"""What a scenario's pipeline acts upon: verbs and containers that answer as the file says, and remember."""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import attrs
import trio

from linkspan.sdk.drivers.step import NeedsDecision, Step, StepContext
from linkspan.sdk.errors import LinkspanError, Timeout, Unavailable
from linkspan.sdk.host import Host
from linkspan.sdk.model.image import Credentials, Image
from linkspan.sdk.model.step import (
    JOB_LABEL,
    STEP_LABEL,
    Outputs,
    Question,
    StepIntent,
    StepOutcome,
    StepPlan,
)
from linkspan.sdk.progress import ProgressSink, ignore_progress
from linkspan.sdk.reference import parse_reference
from linkspan.sdk.testing.fakes.engine import FakeEngine
from linkspan.sdk.testing.fakes.engine_events import FakeEvents
from linkspan.sdk.testing.fakes.engine_images import FakeImages, Users, make_image
from linkspan.sdk.testing.fakes.machine import FakeMachine, FakeProcess, Program
from linkspan.workflows.containers import CONTROL, WORKSPACE
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.journal import JournalFailed
from linkspan.workflows.scenarios.model import Answer, Cancel, Pull, Scenario
from linkspan.workflows.scenarios.places import without_cells

_ERRORS: Final[Mapping[str, type[LinkspanError]]] = {"network": Unavailable, "timeout": Timeout}
_NO_ANSWER: Final = Answer()
_NOBODY: Final = Credentials()


@attrs.define(kw_only=True)
class Call:
    """One time that a step was called.

    Attributes:
        settings: A verb's ``with``; of a script its ``image``.
        env: Of a script.
        done: It came as far as what it changes.
    """

    answer: Answer
    settings: Mapping[str, Json] = attrs.field(factory=dict)
    env: Mapping[str, str] = attrs.field(factory=dict)
    done: bool = False


class World:
    """What has happened so far in a scenario, over all lives of its daemon.

    Attributes:
        calls: By ``JOB/STEP``.
        dead: The daemon has died: nothing reaches its disk any more.
        crashed: It did so once.
        cancelled: Somebody has stopped the run.
        pulled: Names of the images that were asked for.
        pulls: How often those of the scenario were asked for.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.calls: defaultdict[str, list[Call]] = defaultdict(list)
        self.dead = False
        self.crashed = False
        self.cancelled = False
        self.pulled: set[str] = set()
        self.pulls: Counter[str] = Counter()
        self._undoing: set[str] = set()
        self._stop = trio.Event()

    def answer(self, place: str) -> Answer:
        """What a step answers the next time."""
        answers = self.scenario.answers
        found = answers.get(place) or answers.get(without_cells(place))
        if not found:
            return _NO_ANSWER
        return found[min(len(self.calls[place]), len(found) - 1)]

    def is_stopped_at(self, place: str) -> bool:
        """Whether the run is to be stopped while this step runs; it has not been yet."""
        cancel = self.scenario.cancel
        here = cancel is not None and cancel.place in (place, without_cells(place))
        return here and not self.cancelled

    async def stop(self) -> None:
        """The step runs until the run was stopped, and has stopped it."""
        self._stop.set()
        await trio.sleep_forever()

    async def wait_stop(self) -> Cancel:
        """Wait until somebody stops the run; how."""
        await self._stop.wait()
        self.cancelled = True
        assert self.scenario.cancel is not None
        return self.scenario.cancel

    def pull(self, name: str) -> Pull:
        """An image is pulled, by its familiar name with a tag."""
        self.pulled.add(name)
        for written, answers in self.scenario.images.items():
            if _familiar(written) == name:
                self.pulls[written] += 1
                return answers[min(self.pulls[written], len(answers)) - 1]
        return Pull()

    def begin(self, place: str, settings: Mapping[str, Json], env: Mapping[str, str]) -> Call:
        """A step is called."""
        call = Call(answer=self.answer(place), settings=settings, env=env)
        self.calls[place].append(call)
        return call

    def last(self, place: str) -> Call | None:
        """The last call of a step."""
        return self.calls[place][-1] if self.calls[place] else None

    def gate(self, kind: str, data: Mapping[str, Json]) -> None:
        """Let a record pass to the disk, unless the daemon is dead; see ``recorder.Gate``."""
        if self.dead:
            raise JournalFailed("the daemon has died, as the scenario says")
        if "step" not in data:
            return
        place = f"{data['job']}/{data['step']}"
        if kind == "undo-started":
            self._undoing.add(place)
        elif kind == "undo-finished":
            self._undoing.discard(place)
        elif kind == "step-finished" and data.get("retry_in") is None:
            # This record passes; it is the last one.
            self._may_die("after", place)

    def undoing(self, place: str) -> bool:
        """Whether a step is being taken back."""
        return place in self._undoing

    def done(self, place: str, call: Call) -> None:
        """What a step changes is changed now."""
        call.done = True
        self._may_die("during", place)

    def _may_die(self, when: str, place: str) -> None:
        crash = self.scenario.crash
        if crash is None or self.crashed or crash.when != when:
            return
        if crash.place in (place, without_cells(place)):
            self.dead = self.crashed = True

    def reborn(self) -> None:
        """The next daemon begins."""
        self.dead = False
        self._undoing.clear()


def _familiar(name: str) -> str:
    return attrs.evolve(parse_reference(name).with_default_tag(), digest="").familiar


def _error(answer: Answer | Pull) -> LinkspanError:
    return _ERRORS.get(answer.cause, LinkspanError)(answer.fails)


def write_files(files: Mapping[Path, str]) -> None:
    """Write texts, with the folders that they need. Blocks."""
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@attrs.frozen
class ScenarioVerbConfig:
    """The world that a verb acts upon."""

    world: World


class ScenarioVerb(Step[ScenarioVerbConfig]):
    """Any verb: it answers what the scenario says."""

    config_type = ScenarioVerbConfig

    def __init__(self, world: World) -> None:
        self._world = world

    @classmethod
    @asynccontextmanager
    async def open(cls, config: ScenarioVerbConfig, host: Host) -> AsyncIterator[Self]:
        """It has nothing that must be ended."""
        yield cls(config.world)

    async def plan(self, intent: StepIntent) -> StepPlan:
        """What is needed to undo it is the scenario's own; something must stand in the journal."""
        await trio.lowlevel.checkpoint()
        undo = self._world.answer(f"{intent.job}/{intent.step}").undo
        return StepPlan(undo={"by": "scenario"} if undo else {})

    async def apply(self, intent: StepIntent, context: StepContext) -> Outputs:
        """Answer."""
        place = f"{intent.job}/{intent.step}"
        if self._world.undoing(place):
            # The step's own `undo` names a verb.
            return await self._take_back(place)
        call = self._world.begin(place, dict(intent.settings), {})
        answer = call.answer
        for line in answer.log:
            context.log(line)
        if self._world.is_stopped_at(place) and not answer.decision:
            await self._world.stop()
        await trio.sleep(answer.takes_s)
        if answer.decision and not answer.fails:
            raise NeedsDecision(Question(message=f"step '{place}' asks"))
        if answer.fails:
            raise _error(answer)
        if answer.files:
            files = {intent.workspace / name: text for name, text in answer.files.items()}
            await trio.to_thread.run_sync(write_files, files)
        self._world.done(place, call)
        return answer.outputs

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """It was done if it came so far, and if the scenario says so."""
        await trio.lowlevel.checkpoint()
        call = self._world.last(f"{intent.job}/{intent.step}")
        if call is None or not call.done or not call.answer.applied:
            return StepOutcome(applied=False, detail="not applied, as the scenario says")
        outputs = call.answer.outputs
        return StepOutcome(applied=True, outputs=outputs, detail="applied, as the scenario says")

    async def undo(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Take it back."""
        return await self._take_back(f"{intent.job}/{intent.step}")

    async def _take_back(self, place: str) -> Mapping[str, Any]:
        await trio.lowlevel.checkpoint()
        call = self._world.last(place)
        if call is not None and call.answer.undo_fails:
            raise LinkspanError(call.answer.undo_fails)
        return {}


class ScenarioMachine(FakeMachine):
    """A machine on which every program is there: a step's script answers, a service runs until stopped."""

    def __init__(self, nursery: trio.Nursery, world: World) -> None:
        super().__init__(nursery)
        self._world = world
        self._calls: dict[str, Call] = {}
        self.engine: FakeEngine

    def program(self, args: tuple[str, ...]) -> Program:
        """The same for all command lines."""
        return self._play

    def called(self, operation: str, container_id: str) -> None:
        """A script that is to fail without an exit code does not start."""
        super().called(operation, container_id)
        if operation != "start":
            return
        container = self.engine.containers.inspect(container_id)
        place = _place(container.labels)
        if not place:
            return
        env = dict(pair.partition("=")[::2] for pair in container.spec.env)
        call = self._world.begin(place, {"image": self._image(container.image_id)}, env)
        self._calls[container_id] = call
        if call.answer.fails:
            raise _error(call.answer)

    def _image(self, image_id: str) -> str:
        tags = self.engine.images.inspect(image_id).repo_tags
        return tags[0] if tags else image_id

    async def _play(self, process: FakeProcess) -> int:
        found = next(id_ for id_, each in self.containers.items() if each.init is process)
        call = self._calls.get(found)
        if call is None:
            await trio.sleep_forever()
            raise AssertionError
        container = self.engine.containers.inspect(found)
        answer = call.answer
        for line in answer.log:
            await process.write(f"{line}\n".encode())
        if self._world.is_stopped_at(_place(container.labels)):
            await self._world.stop()
        await trio.sleep(answer.takes_s)
        if answer.cause == "oom":
            self.crash(found, oom_killed=True)
            await trio.sleep_forever()
        folders = {mount.target: Path(mount.source) for mount in container.spec.mounts}
        files = {folders[WORKSPACE] / name: text for name, text in answer.files.items()}
        if answer.outputs:
            pairs = answer.outputs.items()
            outputs = "".join(_output(name, str(text)) for name, text in pairs)
            files[folders[CONTROL] / "output"] = outputs
        if files:
            await trio.to_thread.run_sync(write_files, files)
        self._world.done(_place(container.labels), call)
        return answer.exit


def _place(labels: Mapping[str, str]) -> str:
    """``JOB/STEP`` of a script's container; empty for a service."""
    return f"{labels[JOB_LABEL]}/{labels[STEP_LABEL]}" if STEP_LABEL in labels else ""


def _output(name: str, text: str) -> str:
    if "\n" not in text:
        return f"{name}={text}\n"
    end = "END"
    while end in text.splitlines():
        end += "_"
    return f"{name}<<{end}\n{text}\n{end}\n"


class AnyImages(FakeImages):
    """Every image can be pulled, unless the scenario says otherwise."""

    def __init__(self, events: FakeEvents, users: Users, *, world: World) -> None:
        super().__init__(events, users)
        self.world = world

    async def pull(
        self,
        reference: str,
        *,
        credentials: Credentials = _NOBODY,
        platform: str = "",
        progress: ProgressSink = ignore_progress,
    ) -> Image:
        """Pull an image that its registry has, whatever it is called."""
        wanted = _familiar(reference)
        pull = self.world.pull(wanted)
        await trio.sleep(pull.takes_s)
        if pull.fails:
            raise _error(pull)
        self.remote.setdefault(wanted, make_image(wanted))
        return await super().pull(
            reference, credentials=credentials, platform=platform, progress=progress
        )


def make_engine(nursery: trio.Nursery, world: World) -> FakeEngine:
    """The engine of a scenario."""
    machine = ScenarioMachine(nursery, world)
    engine = FakeEngine(machine, images=partial(AnyImages, world=world))
    machine.engine = engine
    return engine
