"""The runs on disk: one folder each, with journal, recorded texts, sources, logs and artifacts.

Of the runs that have ended, the state folded from the journal is kept in memory. Methods block; the
manager calls them in worker threads, but those that only look at memory.
"""

import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from linkspan.sdk.errors import DataLoss, InvalidArgument, NotFound
from linkspan.workflows.garbage import no_collection
from linkspan.workflows.journal import Record, read
from linkspan.workflows.state import GOOD, RunState, fold
from linkspan.workflows.workspace import remove_tree

log = logging.getLogger(__name__)

PIPELINE: Final = "pipeline.yaml"
JOURNAL: Final = "journal.jsonl"


@attrs.define
class Archive:
    """See the module.

    Attributes:
        folder: Holds a folder for each run, named by its id.
        ended: Id → state of the runs that are not active.
    """

    folder: Path
    ended: dict[str, RunState] = attrs.field(factory=dict)

    def load(self) -> None:
        """Read what runs there are. Blocks."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with no_collection():
            for folder in sorted(self.folder.iterdir()):
                if folder.name.startswith("."):
                    remove_tree(folder)
                else:
                    self._load(folder)

    def _load(self, folder: Path) -> None:
        try:
            records = read(folder / JOURNAL)
        except (OSError, DataLoss) as error:
            log.warning("run cannot be read", extra={"run": folder.name, "reason": str(error)})
            return
        if records:
            self.ended[folder.name] = fold(records)
        else:
            remove_tree(folder)

    def records(self, run_id: str) -> list[Record]:
        """All records of a run. Blocks."""
        return read(self.folder / run_id / JOURNAL)

    def new_id(self, active: Iterable[str]) -> str:
        """Four hex digits, more when those are taken."""
        taken = {*self.ended, *active}
        size = 2
        while True:
            for _ in range(16):
                run_id = secrets.token_hex(size)
                if run_id not in taken:
                    return run_id
            size += 1

    def resolve(self, ref: str, active: Mapping[str, RunState]) -> str:
        """The id of a run from an unique prefix, or ``last``.

        Raises:
            NotFound: No run has it.
            InvalidArgument: Several runs begin so; code ``ambiguous``.
        """
        states = {**self.ended, **active}
        lasting = {run_id: state for run_id, state in states.items() if not state.passing}
        if ref == "last" and lasting:
            return max(lasting, key=lambda run_id: lasting[run_id].order)
        if ref in states:
            return ref
        found = sorted(run_id for run_id in states if run_id.startswith(ref)) if ref else []
        if not found:
            raise NotFound(f"there is no run '{ref}'", help="linkspan workflow ls")
        if len(found) > 1:
            raise InvalidArgument(
                f"several runs begin with '{ref}': {', '.join(found[:10])}", code="ambiguous"
            )
        return found[0]

    def green(self, workflow: str, *, before: RunState | None = None) -> RunState | None:
        """The last run of a pipeline that succeeded; None if there is none.

        Args:
            workflow: The pipeline's name.
            before: Only runs made before this one; None for all.
        """
        found = [
            state
            for state in self.ended.values()
            if state.workflow == workflow
            and state.result in GOOD
            and not state.created.get("only")
            and (before is None or state.order < before.order)
        ]
        return max(found, key=lambda state: state.order, default=None)

    def log_files(
        self, state: RunState, job: str = "", step: str = ""
    ) -> Iterator[tuple[str, str, Path]]:
        """``(job, step, file)`` of the logs there are, in the order of the pipeline; ``job`` may be
        the name of a job with several cells.

        Raises:
            NotFound: No job or step has this name.
        """
        jobs = [each for each in state.jobs.values() if job in ("", each.id, each.name)]
        if not jobs:
            known = ", ".join(state.jobs)
            raise NotFound(f"run {state.id} has no job '{job}'; jobs: {known}")
        if step and not any(step in each.steps for each in jobs):
            raise NotFound(f"job '{job}' has no step '{step}'; steps: {', '.join(jobs[0].steps)}")
        for each in jobs:
            folder = self.folder / state.id / "jobs" / folder_name(each.id)
            names = [] if step else [("", folder / "job.log")]
            names += [(name, folder / f"{name}.log") for name in each.steps]
            for name, file in names:
                if step in ("", name) and file.exists():
                    yield each.id, name, file

    def oldest(self, keep: int, *, before: str = "") -> list[str]:
        """Runs that have ended for good, without the ``keep`` newest.

        Args:
            keep: How many stay in any case.
            before: Only runs whose last record is older than this time; empty for all.
        """
        done = [run_id for run_id, state in self.ended.items() if not state.suspended]
        done.sort(key=lambda run_id: self.ended[run_id].order)
        candidates = done[: max(0, len(done) - keep)]
        return [r for r in candidates if not before or self.ended[r].updated_at < before]

    def remove(self, run_ids: Iterable[str]) -> None:
        """Remove the folders of runs that are not in ``ended`` any more. Blocks."""
        for run_id in run_ids:
            remove_tree(self.folder / run_id)

    def drop_files(self, run_id: str, keep_sources: int) -> None:
        """A run has succeeded: nothing is left to resume, its workspaces go. Blocks.

        The sources stay with so many of the latest such runs, for a rerun and for ``why``.
        """
        for job in (self.folder / run_id / "jobs").iterdir():
            remove_tree(job / "workspace")
        good = [each for each, state in self.ended.items() if state.result in GOOD]
        good.sort(key=lambda each: self.ended[each].order)
        for each in good[: max(0, len(good) - keep_sources)]:
            remove_tree(self.folder / each / "source")


def folder_name(job: str) -> str:
    """The folder of a job: ``test[3.10-sqlite]`` → ``test@3.10-sqlite``."""
    return job.replace("[", "@").replace("]", "")
