"""One scenario from its beginning to its verdict: the real runner, its journal on disk, a fake world."""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.testing.fakes.secrets import FakeSecrets
from linkspan.sdk.testing.host import FakeHost
from linkspan.workflows.approvals import Voter
from linkspan.workflows.creating import NewRun
from linkspan.workflows.manager import RunManager
from linkspan.workflows.model import Workflow
from linkspan.workflows.scenarios.clock import ScenarioClock, wall
from linkspan.workflows.scenarios.judging import Facts, Mismatch, judge
from linkspan.workflows.scenarios.model import Scenario, ScenarioFile
from linkspan.workflows.scenarios.world import ScenarioVerb, World, make_engine, write_files
from linkspan.workflows.state import GOOD, fold
from linkspan.workflows.units import Frame
from linkspan.workflows.verbs import Verbs

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - only a parent of a folder of our own
_MAX_DECISIONS: Final = 20
"""A step that pauses for ever is asked so often."""


@attrs.frozen(kw_only=True)
class Played:
    """What became of a scenario.

    Attributes:
        mismatches: What is not as expected; empty if it passed.
        seconds: Real ones.
    """

    scenario: Scenario
    mismatches: Sequence[Mismatch]
    seconds: float


@contextmanager
def playground() -> Iterator[Path]:
    """A folder for scenarios, in memory if this machine has such a place: each has a journal that syncs."""
    parent = str(_MEMORY) if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK | os.X_OK) else None
    before = logging.root.manager.disable
    # Steps fail because the scenario says so; the daemon's log would repeat each of them.
    logging.disable(logging.CRITICAL)
    try:
        with tempfile.TemporaryDirectory(prefix="linkspan-test-", dir=parent) as name:
            yield Path(name)
    finally:
        logging.disable(before)


def play(file: ScenarioFile, scenario: Scenario, verbs: Verbs, folder: Path) -> Played:
    """Run a scenario in an event loop of its own.

    Args:
        file: Where it stands; names the pipeline.
        scenario: Which one.
        verbs: What the installed plugins answer.
        folder: Gets a folder for it, removed afterwards.
    """
    began = time.perf_counter()
    clock = ScenarioClock()
    own = Path(tempfile.mkdtemp(dir=folder))
    world = World(scenario)
    sources = own / "sources"
    try:
        sources.mkdir()
        write_files({sources / name: text for name, text in scenario.files.items()})
        facts = trio.run(_play, file, scenario, verbs, own, world, clock, clock=clock)
        mismatches = judge(facts, scenario, world)
    except* (LinkspanError, OSError) as errors:
        mismatches = [
            Mismatch(span=scenario.span, what="the run", expected="an end", found=str(error))
            for error in _plain(errors)
        ]
    finally:
        shutil.rmtree(own, ignore_errors=True)
    took = time.perf_counter() - began
    return Played(scenario=scenario, mismatches=mismatches, seconds=took)


def _plain(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _plain(each)
        else:
            yield each


async def _play(
    file: ScenarioFile,
    scenario: Scenario,
    verbs: Verbs,
    folder: Path,
    world: World,
    clock: ScenarioClock,
) -> Facts:
    sources = folder / "sources"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.keep_jumping)
        engine = make_engine(nursery, world)
        host = FakeHost(root=folder / "host", nursery=nursery, fake_engine=engine)
        for verb in verbs:
            host.drivers["step", verb] = ScenarioVerb(world)
        secrets = FakeSecrets(dict(scenario.secrets))
        for name in _secret_drivers(file.workflow):
            host.drivers["secrets", name] = secrets
        for role in verbs.roles:
            for name in verbs.drivers_of(role):
                host.drivers.setdefault((role, name), None)
        new = NewRun(
            file=str(file.pipeline),
            text=file.workflow.text,
            others=file.workflow.others,
            workspace=sources,
            inputs=scenario.inputs,
            git=scenario.git,
            by="scenario",
            trigger="scenario",
        )
        life = _Life(host, verbs, world)
        facts = await life(new)
        if scenario.resume and facts.result not in (*GOOD, "suspended"):
            world.reborn()
            facts = await life(None)
        nursery.cancel_scope.cancel()
    return facts


def _secret_drivers(workflow: Workflow) -> set[str]:
    """The chosen driver, and those that the pipeline, or one that it calls, names."""
    workflows = [workflow, *(unit.frame.workflow for unit in Frame(workflow).everything())]
    return {"", *(secret.provider for each in workflows for secret in each.secrets.values())}


@attrs.frozen
class _Life:
    """One daemon after the other, each with what the one before it left on the disk."""

    host: FakeHost
    verbs: Verbs
    world: World

    async def __call__(self, new: NewRun | None) -> Facts:
        """Start a run, or go on with the one there is; what is known when it does not go on any more."""
        async with trio.open_nursery() as nursery:
            manager = RunManager(self.host, self.verbs, nursery, wall=wall, gate=self.world.gate)
            await manager.recover()
            if new is None:
                started = await manager.resume("last")
            else:
                started = await manager.create(new)
            run_id = started["id"]
            if not self.world.cancelled:
                nursery.start_soon(self._stop, manager, run_id)
            result = await self._to_the_end(manager, run_id)
            records = manager.archive.records(run_id)
            logs: Mapping[str, Sequence[str]] = {}
            if any(each.kind == "log" for each in self.world.scenario.expected):
                logs = await trio.to_thread.run_sync(_read_logs, manager.log_files(run_id))
            nursery.cancel_scope.cancel()
        return Facts(result=result, records=records, state=fold(records), logs=logs)

    async def _stop(self, manager: RunManager, run_id: str) -> None:
        cancel = await self.world.wait_stop()
        await manager.cancel(run_id, kill=cancel.kill, by="scenario")

    async def _to_the_end(self, manager: RunManager, run_id: str) -> str:
        for _ in range(_MAX_DECISIONS):
            result = await manager.wait(run_id)
            if result != "suspended" or not await self._decide(manager, run_id):
                return result
        return "suspended"

    async def _decide(self, manager: RunManager, run_id: str) -> bool:
        """Answer what is asked, as the scenario says; whether it does."""
        for job in manager.inspect(run_id)["jobs"]:
            for step in job["steps"]:
                place = f"{job['id']}/{step['id']}"
                call = self.world.last(place)
                vote = "" if call is None else call.answer.decision
                if step["state"] == "suspended" and self.world.is_stopped_at(place):
                    self.world.cancelled = True
                    await manager.cancel(run_id, kill=False, by="scenario")
                    return True
                if step["state"] == "suspended" and vote in ("approve", "reject"):
                    voter = Voter(name="scenario", root=True)
                    await manager.answers.decide(run_id, vote, voter, place=place)
                    return True
        return False


def _read_logs(files: Sequence[tuple[str, str, Path]]) -> dict[str, list[str]]:
    """Lines by ``JOB/STEP``, without their time and stream."""
    found: dict[str, list[str]] = {}
    for job, step, path in files:
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        found[f"{job}/{step}"] = [line.split(" ", 2)[-1] for line in lines]
    return found
