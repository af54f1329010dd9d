"""The folders whose pipelines the daemon starts by itself, and the clock that does it.

``linkspan workflow serve DIR`` makes a folder one of them. Their files are read anew whenever they
change; a file that is wrong starts nothing, and ``workflow serve --ls`` says what is wrong with it.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import attrs
import trio

from linkspan.sdk.errors import Conflict, InvalidArgument, LinkspanError, NotFound
from linkspan.sdk.files import replace_file
from linkspan.workflows import sources
from linkspan.workflows.check import Checked, check
from linkspan.workflows.creating import NewRun
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.files import DiskFiles
from linkspan.workflows.manager import RunManager
from linkspan.workflows.model import Workflow
from linkspan.workflows.triggering.due import next_due
from linkspan.workflows.triggers import Schedule
from linkspan.workflows.verbs import Verbs

log = logging.getLogger(__name__)

_JUMP: Final = timedelta(hours=3)
"""More than this between two looks: nobody kept time, or somebody has set the clock right."""
_LOOK_AGAIN_S: Final = 20.0
"""How long a changed file may go unseen, and a clock that was set."""
_FILE_LIMIT_BYTES: Final = 4 << 20


@attrs.frozen(kw_only=True)
class ServedPipeline:
    """A pipeline of a served folder.

    Attributes:
        name: ``FOLDER/PIPELINE``, in hooks' addresses.
        folder: That is served.
        file: Of the pipeline.
        text: What it holds.
        checked: What is wrong with it.
    """

    name: str
    folder: Path
    file: Path
    text: str
    checked: Checked

    @property
    def workflow(self) -> Workflow | None:
        """None if it has errors."""
        return None if self.checked.errors else self.checked.workflow

    async def start(
        self, manager: RunManager, trigger: str, by: str, inputs: Mapping[str, str] | None = None
    ) -> str:
        """Begin a run; its id.

        Raises:
            LinkspanError: As ``RunManager.create``.
        """
        files = await trio.to_thread.run_sync(sources.git_files, self.folder)
        new = NewRun(
            file=str(self.file),
            text=self.text,
            others={} if self.checked.workflow is None else self.checked.workflow.others,
            inputs=inputs or {},
            workspace=self.folder,
            files=None if files is None else tuple(files),
            git=await trio.to_thread.run_sync(sources.git_facts, self.folder),
            by=by,
            trigger=trigger,
        )
        return str((await manager.create(new))["id"])


@attrs.define
class _Seen:
    """A file as it was read last; ``mark`` tells whether it has changed since."""

    mark: tuple[int, int, int]
    pipeline: ServedPipeline


@attrs.define(kw_only=True)
class Served:
    """See the module.

    Attributes:
        state: File that remembers the folders.
        verbs: Of the installed plugins.
        now: The time; tests have their own.
    """

    state: Path
    verbs: Verbs
    now: Callable[[], datetime] = attrs.field(default=lambda: datetime.now(UTC))
    _folders: dict[str, Path] = attrs.field(factory=dict, init=False)
    _files: dict[Path, _Seen] = attrs.field(factory=dict, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _lock: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    async def load(self) -> None:
        """Read which folders there are."""
        self._folders = await trio.to_thread.run_sync(self._read_state)

    def _read_state(self) -> dict[str, Path]:
        try:
            stored = json.loads(self.state.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            log.error("the list of served folders is damaged", extra={"file": str(self.state)})  # noqa: TRY400
            return {}
        return {name: Path(folder) for name, folder in stored.items()}

    def _write_state(self) -> None:
        self.state.parent.mkdir(parents=True, exist_ok=True)
        document = {name: str(folder) for name, folder in self._folders.items()}
        replace_file(self.state, json.dumps(document).encode(), 0o644, durable=True)

    async def add(self, folder: Path, name: str = "") -> dict[str, Json]:
        """Serve a folder from now on, or again.

        Raises:
            InvalidArgument: It is not absolute, or the name cannot stand in an address.
            NotFound: It has no pipelines.
            Conflict: The name is another folder's.
        """
        if not folder.is_absolute():
            raise InvalidArgument("the folder must be an absolute path")
        name = name or folder.name
        if not name or any(c not in _NAME_CHARACTERS for c in name) or name[0] == ".":
            raise InvalidArgument(
                f"'{name}' cannot stand in an address",
                help="linkspan workflow serve DIR --name NAME",
            )
        async with self._lock:
            if self._folders.get(name, folder) != folder:
                raise Conflict(
                    f"'{name}' is {self._folders[name]} already",
                    help=f"linkspan workflow serve {folder} --name NAME",
                )
            if not await trio.to_thread.run_sync(sources.files_of, folder):
                raise NotFound(f"there are no pipelines in {folder / sources.FOLDER}")
            self._folders[name] = folder
            await trio.to_thread.run_sync(self._write_state)
        self._wake()
        return await self.describe(name)

    async def remove(self, name: str) -> None:
        """Serve a folder no more. Raises NotFound."""
        async with self._lock:
            if name not in self._folders:
                raise NotFound(
                    f"no folder is served as '{name}'", help="linkspan workflow serve --ls"
                )
            del self._folders[name]
            await trio.to_thread.run_sync(self._write_state)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def pipelines(self) -> list[ServedPipeline]:
        """All pipelines of all folders, read anew where they have changed."""
        async with self._lock:
            return await trio.to_thread.run_sync(self._read_all)

    def _read_all(self) -> list[ServedPipeline]:
        found: dict[Path, _Seen] = {}
        for name, folder in self._folders.items():
            for file in sources.files_of(folder):
                try:
                    status = file.stat()
                    mark = (status.st_mtime_ns, status.st_size, status.st_ino)
                    seen = self._files.get(file)
                    if seen is None or seen.mark != mark or seen.pipeline.folder != folder:
                        seen = _Seen(mark, self._read(name, folder, file))
                except OSError as error:
                    log.warning(
                        "cannot read a pipeline", extra={"file": str(file), "why": str(error)}
                    )
                    continue
                found[file] = seen
        self._files = found
        return [seen.pipeline for seen in found.values()]

    def _read(self, name: str, folder: Path, file: Path) -> ServedPipeline:
        with file.open("rb") as stream:
            data = stream.read(_FILE_LIMIT_BYTES)
        return ServedPipeline(
            name=f"{name}/{file.stem}",
            folder=folder,
            file=file,
            text=data.decode("utf-8-sig", "replace"),
            checked=check(data, str(file), self.verbs, fetch=DiskFiles(folder)),
        )

    async def find(self, name: str) -> ServedPipeline:
        """A pipeline by ``FOLDER/PIPELINE``. Raises NotFound."""
        for pipeline in await self.pipelines():
            if pipeline.name == name:
                return pipeline
        raise NotFound(f"no pipeline is served as '{name}'", help="linkspan workflow serve --ls")

    async def describe(self, only: str = "") -> dict[str, Json]:
        """Folders, their pipelines, what starts those and when next."""
        folders = {n: str(f) for n, f in self._folders.items() if only in ("", n)}
        rows: list[Json] = []
        for pipeline in await self.pipelines():
            if pipeline.name.split("/")[0] not in folders:
                continue
            workflow = pipeline.workflow
            due = None if workflow is None else self._next(workflow)
            rows.append(
                {
                    "name": pipeline.name,
                    "file": str(pipeline.file),
                    "triggers": [] if workflow is None else _kinds(workflow),
                    "next": due.isoformat().replace("+00:00", "Z") if due else "",
                    "errors": [f"{d.id}: {d.headline}" for d in pipeline.checked.errors],
                }
            )
        return {"folders": dict(folders), "pipelines": rows}

    def _next(self, workflow: Workflow, after: datetime | None = None) -> datetime | None:
        after = after or self.now()
        moments = [
            due
            for schedule in workflow.triggers.schedules
            if (due := next_due(schedule.fields, schedule.timezone, after)) is not None
        ]
        return min(moments, default=None)

    # -- the clock ----------------------------------------------------------------------------

    async def keep_time(self, manager: RunManager) -> None:
        """Start what is due, until cancelled.

        What was due while nobody kept time, or in the hours that a clock jumps over, is not made up for:
        a nightly job at noon is no help. A clock that is set back a little starts nothing twice; one
        that was wrong by hours is right from then on.
        """
        done_until = self.now()
        while True:
            pipelines = await self.pipelines()
            now = self.now()
            if abs(now - done_until) > _JUMP:
                done_until = now
            now = max(now, done_until)
            for pipeline, schedule in _schedules(pipelines):
                due = next_due(schedule.fields, schedule.timezone, done_until)
                if due is not None and due <= now:
                    await _start(pipeline, manager, f"schedule {schedule.cron}")
            done_until = now
            await self._sleep(pipelines, now)

    async def _sleep(self, pipelines: Sequence[ServedPipeline], now: datetime) -> None:
        """Until the next moment, a change of the folders, or for a while: clocks are set, files change."""
        moments = [
            due
            for pipeline in pipelines
            if pipeline.workflow is not None
            and (due := self._next(pipeline.workflow, now)) is not None
        ]
        wait_s = _LOOK_AGAIN_S
        if moments:
            wait_s = min(wait_s, max(0.0, (min(moments) - self.now()).total_seconds()))
        with trio.move_on_after(wait_s):
            await self._changed.wait()


_NAME_CHARACTERS: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
)


def _schedules(pipelines: Sequence[ServedPipeline]) -> Iterator[tuple[ServedPipeline, Schedule]]:
    for pipeline in pipelines:
        if pipeline.workflow is not None:
            for schedule in pipeline.workflow.triggers.schedules:
                yield pipeline, schedule


def _kinds(workflow: Workflow) -> list[Json]:
    triggers = workflow.triggers
    found: list[Json] = [f"schedule {each.cron} ({each.timezone})" for each in triggers.schedules]
    found += [f"webhook {each.provider}" for each in triggers.webhooks]
    found += ["push"] if triggers.push else []
    found += ["tag"] if triggers.tag else []
    found += ["watch"] if triggers.watch else []
    found += ["manual"] if triggers.manual else []
    return found


async def _start(pipeline: ServedPipeline, manager: RunManager, why: str) -> None:
    """One that cannot start does not keep others from it."""
    try:
        run = await pipeline.start(manager, "schedule", why)
    except (LinkspanError, OSError) as error:
        log.error(  # noqa: TRY400 - the reason is the whole of it
            "a pipeline that was due did not start",
            extra={"pipeline": pipeline.name, "reason": str(error)},
        )
    else:
        log.info("started", extra={"pipeline": pipeline.name, "run": run, "why": why})
