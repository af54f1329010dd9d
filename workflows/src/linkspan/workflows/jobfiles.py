"""A job's files: its workspace, the caches and artifacts that come into it and go out of it."""

import contextlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path, PurePosixPath

import trio

from linkspan.sdk.errors import InvalidArgument, LinkspanError, NotFound
from linkspan.sdk.model.container import Mount
from linkspan.workflows.expressions import Scope
from linkspan.workflows.keeping import Artifacts, KeyedStore
from linkspan.workflows.model import Cache, Step
from linkspan.workflows.mounts import mount_of
from linkspan.workflows.running import Run
from linkspan.workflows.units import Unit
from linkspan.workflows.values import resolve_text
from linkspan.workflows.workspace import copy_tree


class JobFiles:
    """See the module; ``prepare`` and ``finish`` frame the steps.

    Attributes:
        mounts: What each script's container gets beside the workspace.
    """

    def __init__(self, run: Run, unit: Unit, say: Callable[[str], None]) -> None:
        self.run = run
        self.unit = unit
        self.folder = run.job_folder(unit.job)
        self.workspace = self.folder / "workspace"
        self.mounts: tuple[Mount, ...] = ()
        self._say = say
        # Said by worker threads; passed on where others may be told.
        self._told: list[str] = []
        self._caches: list[tuple[Cache, str, Path]] = []

    async def prepare(self, scope: Scope) -> None:
        """Make the workspace if it is not there yet, and bring in what the job asks for.

        Args:
            scope: What the job's values see; functions that read files read the workspace.

        Raises:
            NotFound: An artifact is not there.
            OutOfSpace: The disk is full.
            EvaluationFailed: A cache's key has no value.
        """
        if self._needed():
            await self._in_thread(self._prepare, scope)

    def _needed(self) -> bool:
        """Whether anything of the job may look at its files."""
        job = self.unit.job
        own = job.caches or job.volumes or job.artifacts or job.load_artifacts or job.services
        if own or self.run.reads_files or self.run.recorder.state.breaks:
            return True
        return any(self._touches(step) for step in job.all_steps())

    def _touches(self, step: Step) -> bool:
        verbs = [step.verb, "" if step.undo is None else step.undo.verb]
        return bool(
            step.run is not None
            or step.sources
            or any(self.run.verbs[verb].manifest.workspace for verb in verbs if verb)
        )

    @cached_property
    def _store(self) -> KeyedStore:
        return KeyedStore(self.run.host.state_dir / "caches")

    async def _in_thread(self, work: Callable[..., None], *args: object) -> None:
        try:
            await trio.to_thread.run_sync(work, *args)
        finally:
            told, self._told = self._told, []
            for line in told:
                self._say(line)

    def _prepare(self, scope: Scope) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = not self.workspace.exists()
        if fresh:
            copy_tree(self.run.folder / "source", self.workspace)
        mounts = [*self._volumes(scope)]
        for number, cache in enumerate(self.unit.job.caches):
            mounts += self._cache(number, cache, scope, restore=fresh)
        self.mounts = tuple(mounts)
        if fresh:
            self._load_artifacts()

    def _volumes(self, scope: Scope) -> list[Mount]:
        texts = [resolve_text(text, scope) for text in self.unit.job.volumes]
        driver = self.unit.frame.use.get("volume", "")
        return [mount_of(text, self.workspace, driver) for text in texts]

    def _cache(self, number: int, cache: Cache, scope: Scope, *, restore: bool) -> list[Mount]:
        path = resolve_text(cache.path, scope)
        key = resolve_text(cache.key, scope)
        inside = f"/root{path[1:]}" if path == "~" or path.startswith("~/") else path
        outside = PurePosixPath(inside).is_absolute()
        folder = self.folder / "caches" / str(number) if outside else self.workspace / inside
        if not folder.resolve().is_relative_to(self.folder.resolve()):
            raise InvalidArgument(f"the cache '{path}' leads out of the workspace", code="cache")
        folder.mkdir(parents=True, exist_ok=True)
        if restore:
            beginnings = [resolve_text(text, scope) for text in cache.restore]
            found = self._store.find(key, beginnings)
            if found:
                self._store.restore(found, folder)
                folder.chmod(0o777)
            self._told.append(
                f"cache {key}: {'restored' if found == key else found or 'nothing there yet'}"
            )
        self._caches.append((cache, key, folder))
        if not outside:
            return []
        return [Mount(type="bind", source=str(folder), target=inside)]

    def _load_artifacts(self) -> None:
        artifacts = Artifacts(self.run.folder)
        for load in self.unit.job.load_artifacts:
            names = [load.job] if load.job else list(self.unit.job.needed)
            units = [unit for name in names for unit in self.unit.frame.cells(name)]
            jobs = {each.id: "" if each.cell is None else each.cell.key for each in units}
            artifacts.load(jobs, load.name, self.workspace, load.path)

    async def finish(self, *, good: bool, scope: Scope) -> None:
        """Keep caches and artifacts; of a job that has failed what there is. Cannot be cancelled.

        Raises:
            NotFound: A job that succeeded has made no file of an artifact.
            OutOfSpace: The disk is full.
        """
        if self._caches or self.unit.job.artifacts:
            with trio.CancelScope(shield=True):
                await self._in_thread(self._finish, good, scope)

    def _finish(self, good: bool, scope: Scope) -> None:
        caches = () if self.run.recorder.state.passing else self._caches
        for cache, key, folder in caches:
            if (cache.save == "always" or (cache.save == "success" and good)) and any(
                folder.iterdir()
            ):
                saved = self._store.save(key, folder)
                self._told.append(f"cache {key}: {'saved' if saved else 'was there already'}")
        missing: list[str] = []
        for artifact in self.unit.job.artifacts.values():
            globs = [resolve_text(text, scope) for text in artifact.paths]
            kept = Artifacts(self.run.folder).keep(
                self.unit.id, artifact.name, self.workspace, globs
            )
            self._told.append(f"artifact {artifact.name}: {kept} file{'s' * (kept != 1)}")
            if not kept:
                missing.append(f"'{artifact.name}' ({', '.join(globs)})")
        if missing and good:
            raise NotFound(
                f"no file matches the artifact {', '.join(missing)}", code="artifact_empty"
            )

    async def finish_quietly(self, scope: Scope) -> None:
        """Keep what there is of a job that was cut off; its own end matters more than a fault here."""
        with contextlib.suppress(LinkspanError, OSError):
            await self.finish(good=False, scope=scope)
