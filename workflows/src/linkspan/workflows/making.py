"""A new run's folder on disk, up to its first records; nothing is left of one that does not come that far."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import attrs
import trio

from linkspan.sdk.errors import Conflict, InvalidArgument
from linkspan.sdk.host import Host
from linkspan.workflows import again
from linkspan.workflows.archive import JOURNAL, Archive, folder_name
from linkspan.workflows.creating import (
    NewRun,
    Rerun,
    creation,
    prepare,
    recorded,
    refuse_not_open,
)
from linkspan.workflows.expressions import EvaluationFailed, Scope
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.journal import Journal
from linkspan.workflows.keeping import Artifacts
from linkspan.workflows.locks import Locks
from linkspan.workflows.model import Workflow
from linkspan.workflows.recorder import Gate, Recorder
from linkspan.workflows.running import EMPTY_GIT
from linkspan.workflows.state import RunState
from linkspan.workflows.trust import refuse_untrusted
from linkspan.workflows.values import resolve_text
from linkspan.workflows.verbs import Verbs
from linkspan.workflows.workspace import copy_tree, remove_tree


@attrs.frozen(kw_only=True)
class Predecessor:
    """The run that a new one does again.

    Attributes:
        state: Where it stands; it has ended.
        kept: What is taken over from it.
        images: What names of images meant to it; empty if they are looked up anew.
    """

    state: RunState
    kept: again.Kept
    images: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class RunMaker:
    """Makes runs.

    Attributes:
        verbs: What the installed plugins answer.
        archive: Where the runs are.
        groups: The concurrency groups of this daemon.
        untrusted_verbs: What pipelines may use that nobody answers for.
        gate: Asked before each record.
        active: The states of the runs in memory.
    """

    host: Host
    verbs: Verbs
    archive: Archive
    groups: Locks
    untrusted_verbs: Collection[str]
    gate: Gate
    active: Callable[[], Collection[RunState]]

    async def make(
        self,
        workflow: Workflow,
        new: NewRun,
        inputs: Mapping[str, Json],
        before: Predecessor | None = None,
    ) -> tuple[Path, Recorder]:
        """The folder of a new run and its open journal; no checkpoint after it can be seen.

        Raises:
            Conflict: A run of its concurrency group is active; code ``group_busy``.
            InvalidPipeline, InvalidArgument, NotFound, OutOfSpace: See ``RunManager.create``.
        If cancelled: nothing is left of it.
        """
        if new.untrusted:
            refuse_untrusted(workflow, self.untrusted_verbs)
        refuse_not_open(self.host, workflow)
        self._refuse_conflict(workflow, new, inputs)
        run_id = self.archive.new_id([state.id for state in self.active()])
        created = creation(run_id, workflow, new, self.verbs)
        created |= {"inputs": dict(inputs), "serial": self._next_serial()}
        records: Sequence[tuple[str, Mapping[str, Json]]] = ()
        source = None if before is None else before.state
        if before is not None:
            created |= {"rerun_of": before.state.id, "images": dict(before.images)}
            records = before.kept.records
        if new.only:
            source = source or self.archive.green(workflow.name)
            records = again.only(new.only, created["jobs"], source)
        folder = self.archive.folder / f".{run_id}.new"
        try:
            await trio.to_thread.run_sync(self._fill, folder, new, before)
            if source is not None:
                await trio.to_thread.run_sync(self._take_over, folder, source, records)
            recorder = await self._open(folder, (("run-created", created), *records))
        except BaseException:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(remove_tree, folder)
            raise
        # The journal's open file follows its folder.
        return folder.rename(self.archive.folder / run_id), recorder

    def _next_serial(self) -> int:
        states = (*self.archive.ended.values(), *self.active())
        return max((state.order[0] for state in states), default=0) + 1

    def _fill(self, folder: Path, new: NewRun, before: Predecessor | None) -> None:
        """Its text, its sources, and the files of the jobs that are taken over. Blocks."""
        daemon = self.host.daemon
        prepare(folder, new, (daemon.data_root, daemon.exec_root))
        if before is None:
            return
        for name in map(folder_name, before.kept.workspaces):
            source = self.archive.folder / before.state.id / "jobs" / name / "workspace"
            if source.is_dir():
                copy_tree(source, folder / "jobs" / name / "workspace")

    def _take_over(
        self, folder: Path, source: RunState, records: Iterable[tuple[str, Mapping[str, Json]]]
    ) -> None:
        """The artifacts of the jobs that count as done; others load them. Blocks."""
        old, new = Artifacts(self.archive.folder / source.id), Artifacts(folder)
        for kind, fields in records:
            if kind == "job-kept":
                new.take_over(old, fields["job"])

    async def _open(
        self, folder: Path, records: Sequence[tuple[str, Mapping[str, Json]]]
    ) -> Recorder:
        """A new journal with its first records."""
        journal = await Journal.open(folder / JOURNAL)
        recorder = Recorder(journal, RunState(), self.gate)
        try:
            for kind, fields in records:
                await recorder.write(kind, **fields)
        except BaseException:
            recorder.close()
            raise
        return recorder

    def _refuse_conflict(self, workflow: Workflow, new: NewRun, inputs: Mapping[str, Json]) -> None:
        """``on-conflict: reject``."""
        concurrency = workflow.concurrency
        if concurrency is None or concurrency.on_conflict != "reject" or new.passing:
            return
        git = {**EMPTY_GIT, **new.git}
        scope = Scope(contexts={"inputs": dict(inputs), "git": git, "run": {"name": workflow.name}})
        try:
            group = resolve_text(concurrency.group, scope)
        except EvaluationFailed as error:
            raise InvalidArgument(f"the concurrency group has no value: {error.message}") from error
        holder = self.groups.holder(group)
        if holder:
            raise Conflict(
                f"run {holder} of the group '{group}' is active",
                code="group_busy",
                help=f"linkspan workflow attach {holder}",
            )

    async def recorded(self, old: RunState, wish: Rerun) -> NewRun:
        """What a run that has ended was made from.

        Raises:
            Conflict: Its sources are gone; code ``sources_gone``.
        """
        folder = self.archive.folder / old.id
        if not (folder / "source").is_dir():
            raise Conflict(
                f"the sources of run {old.id} are not kept any more",
                code="sources_gone",
                help=f"linkspan workflow rerun {old.id} --fresh",
            )
        text, others = await trio.to_thread.run_sync(recorded, folder, old.created["digest"])
        return NewRun(
            file=old.created["file"],
            text=text,
            others=others,
            workspace=folder / "source",
            git=old.created["git"],
            by=wish.by,
            untrusted=old.created.get("untrusted", False),
        )
