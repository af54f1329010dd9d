"""All runs of this daemon: made, watched, stopped, resumed; each in a folder of its own.

A run lives in the daemon, so it survives the terminal that started it. When the daemon ends, or dies,
a run that is under way is *interrupted*: what it holds is cleaned up at the next start, and it goes on
only when somebody resumes it.
"""

import functools
import hashlib
import json
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from linkspan.sdk.diagnostics import Diagnostic, render_all
from linkspan.sdk.errors import Conflict, DataLoss, InvalidArgument, LinkspanError, NotFound
from linkspan.sdk.events import Event
from linkspan.sdk.host import Host
from linkspan.sdk.model.container import ContainerFilter
from linkspan.sdk.model.step import RUN_LABEL
from linkspan.workflows.check import MAX_SHOWN, Checked, check
from linkspan.workflows.containers import remove_container, remove_leftovers
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.files import SentFiles
from linkspan.workflows.inputs import read_inputs
from linkspan.workflows.journal import VERSION, Journal, read
from linkspan.workflows.model import Job, Workflow
from linkspan.workflows.recorder import Recorder, Watcher
from linkspan.workflows.run import RunRunner
from linkspan.workflows.running import Run
from linkspan.workflows.state import GOOD, RunState, fold
from linkspan.workflows.verbs import Verbs
from linkspan.workflows.workspace import copy_tree, remove_tree

log = logging.getLogger(__name__)

KEPT_RUNS: Final = 100
"""Ended runs whose journal and logs are kept."""
_PIPELINE: Final = "pipeline.yaml"
_OTHERS: Final = "others.json"
"""Files that the pipeline includes or calls, by path."""
_JOURNAL: Final = "journal.jsonl"


class InvalidPipeline(InvalidArgument):
    """The pipeline cannot run; ``details`` has the diagnostics."""

    default_code = "invalid_pipeline"

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        shown = [attrs.asdict(d, filter=lambda a, _: a.name != "source") for d in diagnostics]
        super().__init__(
            render_all(diagnostics[:MAX_SHOWN]), details={"diagnostics": shown[:MAX_SHOWN]}
        )


@attrs.frozen(kw_only=True)
class NewRun:
    """What a client asks for.

    Attributes:
        file: The pipeline's path as the user wrote it.
        text: What it holds.
        others: What the other files that it is made of hold, by path.
        inputs: As texts.
        workspace: Folder of the sources, on this host.
        files: Those of it that belong to the run, relative; None for all.
        git: What the client's repository says; see ``running.EMPTY_GIT``.
        by: Who asks.
    """

    file: str
    text: str
    workspace: Path
    others: Mapping[str, str] = attrs.field(factory=dict)
    inputs: Mapping[str, str] = attrs.field(factory=dict)
    files: tuple[str, ...] | None = None
    git: Mapping[str, Json] = attrs.field(factory=dict)
    by: str = ""


@attrs.frozen(kw_only=True)
class _Active:
    run: Run
    ended: trio.Event = attrs.field(factory=trio.Event)


class RunManager:
    """See the module; made by ``serve``, or in tests with a nursery of their own."""

    def __init__(self, host: Host, verbs: Verbs, nursery: trio.Nursery) -> None:
        self._host = host
        self._verbs = verbs
        self._nursery = nursery
        self._active: dict[str, _Active] = {}
        self._ended: dict[str, RunState] = {}
        self._interruptions: dict[str, str] = {}
        self._folder = host.state_dir / "runs"

    # start

    async def recover(self) -> None:
        """Read what runs there are, and remove what a crash left of them.

        Raises:
            LinkspanError: The folder of the runs cannot be read.
        """
        await trio.to_thread.run_sync(self._load)
        engine = self._host.engine
        for container in engine.containers.list(ContainerFilter(all=True, labels=(RUN_LABEL,))):
            log.info("removing what a run left", extra={"container": container.name})
            try:
                await remove_container(engine, container.id)
            except LinkspanError as error:
                # One that cannot be removed is no reason to have no pipelines.
                log.warning(
                    "leftover stays", extra={"container": container.name, "why": str(error)}
                )
        for network in engine.networks.list():
            if RUN_LABEL in network.spec.labels:
                try:
                    await engine.networks.remove(network.id)
                except LinkspanError as error:
                    log.warning(
                        "leftover stays", extra={"network": network.name, "why": str(error)}
                    )

    def _load(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for folder in sorted(self._folder.iterdir()):
            if folder.name.startswith("."):
                remove_tree(folder)
                continue
            try:
                records = read(folder / _JOURNAL)
            except (OSError, DataLoss) as error:
                log.warning("run cannot be read", extra={"run": folder.name, "reason": str(error)})
                continue
            if records:
                self._ended[folder.name] = fold(record.as_json() for record in records)
            else:
                remove_tree(folder)

    # asking

    def resolve(self, ref: str) -> str:
        """The id of a run from an unique prefix, or ``last``.

        Raises:
            NotFound: No run has it.
            InvalidArgument: Several runs begin so.
        """
        ids = [*self._ended, *self._active]
        if ref == "last" and ids:
            return max(ids, key=lambda run_id: self._state(run_id).created_at)
        if ref in ids:
            return ref
        found = sorted(run_id for run_id in ids if run_id.startswith(ref)) if ref else []
        if not found:
            raise NotFound(f"there is no run '{ref}'", help="linkspan workflow ls")
        if len(found) > 1:
            raise InvalidArgument(
                f"several runs begin with '{ref}': {', '.join(found[:10])}", code="ambiguous"
            )
        return found[0]

    def _state(self, run_id: str) -> RunState:
        active = self._active.get(run_id)
        return self._ended[run_id] if active is None else active.run.recorder.state

    def list_runs(self) -> list[dict[str, Json]]:
        """One row a run, newest first."""
        ids = {*self._ended, *self._active}
        rows = [self._state(run_id).summary(active=run_id in self._active) for run_id in ids]
        return sorted(rows, key=lambda row: (row["created_at"], row["id"]), reverse=True)

    def inspect(self, ref: str) -> dict[str, Json]:
        """A run with its jobs and steps.

        Raises:
            NotFound: No run has this id or prefix.
        """
        run_id = self.resolve(ref)
        return self._state(run_id).as_json(active=run_id in self._active)

    @contextmanager
    def watch(self, ref: str) -> Iterator[Watcher]:
        """A run's events, from the first record on; they end when the run is not active any more.

        Raises:
            NotFound: No run has this id or prefix.
        """
        run_id = self.resolve(ref)
        active = self._active.get(run_id)
        if active is not None:
            with active.run.recorder.watch() as watcher:
                yield watcher
            return
        records = [record.as_json() for record in read(self._folder / run_id / _JOURNAL)]
        if run_id in self._interruptions:
            records.append({"kind": "interrupted", "reason": self._interruptions[run_id]})
        watcher = Watcher(list(records))
        watcher.end()
        yield watcher

    def log_files(self, ref: str, job: str = "", step: str = "") -> list[tuple[str, str, Path]]:
        """``(job, step, file)`` of the logs there are, in the order of the pipeline.

        Raises:
            NotFound: No run, job or step has this name.
        """
        run_id = self.resolve(ref)
        state = self._state(run_id)
        if job and job not in state.jobs:
            raise NotFound(f"run {run_id} has no job '{job}'; jobs: {', '.join(state.jobs)}")
        if step and step not in state.jobs[job].steps:
            known = ", ".join(state.jobs[job].steps)
            raise NotFound(f"job '{job}' has no step '{step}'; steps: {known}")
        found: list[tuple[str, str, Path]] = []
        for job_id, job_state in state.jobs.items():
            folder = self._folder / run_id / "jobs" / job_id
            names = [] if step else [("", folder / "job.log")]
            names += [(each, folder / f"{each}.log") for each in job_state.steps]
            for each, file in names:
                if job in ("", job_id) and step in ("", each) and file.exists():
                    found.append((job_id, each, file))
        return found

    # acting

    async def create(self, new: NewRun) -> dict[str, Json]:
        """Check a pipeline, record a run of it and start it.

        Raises:
            InvalidPipeline: It has errors.
            InvalidArgument: Inputs are wrong (code ``invalid_input``), or the workspace is not usable.
            NotFound: There is no such workspace.
            OutOfSpace: There is no room for its copy.
        If cancelled: the run is either started or leaves nothing.
        """
        checked = await self._check(new.text, new.file, new.others)
        if checked.workflow is None or checked.errors:
            raise InvalidPipeline(checked.errors or checked.diagnostics)
        workflow = checked.workflow
        inputs = read_inputs(workflow, new.inputs)
        run_id = self._new_id()
        folder = self._folder / f".{run_id}.new"
        try:
            await trio.to_thread.run_sync(self._prepare, folder, new)
            journal, records = await Journal.open(folder / _JOURNAL)
            recorder = Recorder(journal, records)
            await recorder.write("run-created", **self._creation(run_id, workflow, new, inputs))
        except BaseException:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(remove_tree, folder)
            raise
        # The journal's open file follows its folder; from here on the run is visible.
        folder = folder.rename(self._folder / run_id)
        run = self._run(run_id, workflow, inputs, new.git, folder, recorder)
        self._start(run)
        return recorder.state.summary(active=True)

    async def _check(self, text: str, file: str, others: Mapping[str, str]) -> Checked:
        look = functools.partial(check, fetch=SentFiles(others))
        return await trio.to_thread.run_sync(look, text, file, self._verbs)

    def _new_id(self) -> str:
        """Four hex digits, more when those are taken."""
        size = 2
        while True:
            for _ in range(16):
                run_id = secrets.token_hex(size)
                if run_id not in self._ended and run_id not in self._active:
                    return run_id
            size += 1

    def _prepare(self, folder: Path, new: NewRun) -> None:
        folder.mkdir(parents=True)
        (folder / "jobs").mkdir()
        (folder / _PIPELINE).write_text(new.text, encoding="utf-8")
        if new.others:
            (folder / _OTHERS).write_text(json.dumps(dict(new.others)), encoding="utf-8")
        daemon = self._host.daemon
        own = [root for root in (daemon.data_root, daemon.exec_root) if root.exists()]
        copy_tree(new.workspace, folder / "source", new.files, leave_out=own)

    def _creation(
        self, run_id: str, workflow: Workflow, new: NewRun, inputs: Mapping[str, Json]
    ) -> dict[str, Json]:
        verbs = {step.verb for job in _all_jobs(workflow) for step in job.steps if step.verb}
        jobs = [
            {
                "id": job.id,
                "needs": list(job.needed),
                "finally": job.id in workflow.cleanup,
                "steps": [
                    {"id": step.id, "title": step.title, "verb": step.verb} for step in job.steps
                ],
            }
            for job in _all_jobs(workflow)
        ]
        return {
            "version": VERSION,
            "run": run_id,
            "workflow": workflow.name,
            "file": new.file,
            "digest": _digest(new.text, new.others),
            "inputs": dict(inputs),
            "git": dict(new.git),
            "plugins": {verb: self._verbs[verb].provider for verb in sorted(verbs)},
            "jobs": jobs,
            "by": new.by,
        }

    async def resume(self, ref: str) -> dict[str, Json]:
        """Go on with a run that failed, was cancelled or was interrupted.

        It uses the recorded text and inputs. Steps that are done are not done again.

        Raises:
            NotFound: No run has this id or prefix.
            Conflict: It is active (code ``run_active``) or has succeeded (``run_succeeded``).
            InvalidPipeline: Plugins that it needs are gone or have changed.
            DataLoss: Its record is damaged.
        """
        run_id = self.resolve(ref)
        if run_id in self._active:
            raise Conflict(f"run {run_id} is running", code="run_active")
        if self._ended[run_id].result in GOOD:
            raise Conflict(
                f"run {run_id} has succeeded; nothing is left to do",
                code="run_succeeded",
                help=f"start it again: linkspan workflow run {self._ended[run_id].created['file']}",
            )
        folder = self._folder / run_id
        text = await trio.to_thread.run_sync((folder / _PIPELINE).read_text, "utf-8")
        created = self._ended[run_id].created
        others = await trio.to_thread.run_sync(_read_others, folder)
        if _digest(text, others) != created["digest"]:
            raise DataLoss(f"the recorded pipeline of run {run_id} is damaged")
        checked = await self._check(text, created["file"], others)
        if checked.workflow is None or checked.errors:
            raise InvalidPipeline(checked.errors or checked.diagnostics)
        await remove_leftovers(self._host.engine, run_id)
        journal, records = await Journal.open(folder / _JOURNAL)
        recorder = Recorder(journal, records)
        run = self._run(
            run_id, checked.workflow, created["inputs"], created["git"], folder, recorder
        )
        del self._ended[run_id]
        self._interruptions.pop(run_id, None)
        self._start(run)
        return recorder.state.summary(active=True)

    async def cancel(self, ref: str, *, kill: bool, by: str = "") -> dict[str, Json]:
        """Ask a run to stop: in order, or at once.

        Raises:
            NotFound: No run has this id or prefix.
            Conflict: It is not running; code ``run_ended``.
        """
        run_id = self.resolve(ref)
        active = self._active.get(run_id)
        if active is None:
            state = self._ended[run_id].state(active=False)
            raise Conflict(f"run {run_id} is not running, it is {state}", code="run_ended")
        if not active.run.control.cancelling:
            await active.run.recorder.write("cancel-requested", by=by)
        if kill:
            active.run.control.kill()
        else:
            active.run.control.cancel()
        return self._state(run_id).summary(active=run_id in self._active)

    async def wait(self, ref: str) -> str:
        """Wait until a run is not active; its state then.

        Raises:
            NotFound: No run has this id or prefix.
        """
        run_id = self.resolve(ref)
        active = self._active.get(run_id)
        if active is not None:
            await active.ended.wait()
        return self._state(run_id).state(active=False)

    # running

    def _run(
        self,
        run_id: str,
        workflow: Workflow,
        inputs: Mapping[str, Json],
        git: Mapping[str, Json],
        folder: Path,
        recorder: Recorder,
    ) -> Run:
        return Run(
            id=run_id,
            workflow=workflow,
            inputs=inputs,
            git=git,
            folder=folder,
            host=self._host,
            verbs=self._verbs,
            recorder=recorder,
            nursery=self._nursery,
        )

    def _start(self, run: Run) -> None:
        active = _Active(run=run)
        self._active[run.id] = active
        self._nursery.start_soon(self._supervise, active, name=f"run {run.id}")

    async def _supervise(self, active: _Active) -> None:
        """Run a run; no fault of one reaches another."""
        run = active.run
        self._publish(run, "start")
        try:
            result = await RunRunner(run)()
            self._publish(run, "finish", result=result)
            if result in GOOD:
                await trio.to_thread.run_sync(_drop_workspaces, run.folder)
        except LinkspanError as error:
            log.error("run interrupted", extra={"run": run.id, "reason": error.message})  # noqa: TRY400
            self._interrupted(run, error.message)
        except Exception as error:
            log.exception("run interrupted", extra={"run": run.id})
            self._interrupted(run, f"{type(error).__name__}: {error}")
        finally:
            self._ended[run.id] = run.recorder.state
            self._active.pop(run.id, None)
            run.recorder.close()
            active.ended.set()
        await self._prune()

    def _interrupted(self, run: Run, reason: str) -> None:
        """Tell those who watch, and those who will; the journal cannot be told."""
        self._interruptions[run.id] = reason
        run.recorder.tell("interrupted", reason=reason)

    def _publish(self, run: Run, action: str, **attributes: str) -> None:
        event = Event(
            type="workflow",
            action=action,
            actor_id=run.id,
            attributes={"name": run.workflow.name, **attributes},
        )
        self._host.engine.events.publish(event)

    async def _prune(self) -> None:
        """Forget the oldest ended runs beyond those that are kept."""
        ended = sorted(self._ended, key=lambda run_id: self._ended[run_id].created_at)
        for run_id in ended[: max(0, len(ended) - KEPT_RUNS)]:
            del self._ended[run_id]
            await trio.to_thread.run_sync(remove_tree, self._folder / run_id)


def _all_jobs(workflow: Workflow) -> "list[Job]":
    return [*workflow.jobs.values(), *workflow.cleanup.values()]


def _digest(text: str, others: Mapping[str, str]) -> str:
    """Of a pipeline and all files that it is made of; without others it is that of its text."""
    found = hashlib.sha256(text.encode())
    for path, other in sorted(others.items()):
        found.update(f"\0{path}\0{other}".encode())
    return f"sha256:{found.hexdigest()}"


def _read_others(folder: Path) -> dict[str, str]:
    path = folder / _OTHERS
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError:
        # The digest tells that it is damaged.
        return {}
    return found if isinstance(found, dict) else {}


def _drop_workspaces(folder: Path) -> None:
    """Nothing is left to resume: journal and logs stay, the copies of the sources go."""
    remove_tree(folder / "source")
    for job in (folder / "jobs").iterdir():
        remove_tree(job / "workspace")
