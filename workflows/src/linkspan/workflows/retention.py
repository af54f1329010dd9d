"""Which runs go: those that a person prunes, and those that the config does not keep."""

import logging
from collections.abc import Callable, Iterable, MutableMapping
from datetime import UTC, datetime, timedelta

import attrs
import trio

from linkspan.workflows.archive import Archive
from linkspan.workflows.config import WorkflowsConfig

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Retention:
    """See the module. A run that is under way, or waits for a person, never goes.

    Attributes:
        reopening: A lock for each run with which somebody may go on in this moment.
        forgotten: Told of each run that goes.
        wall: POSIX time.
    """

    archive: Archive
    config: WorkflowsConfig
    reopening: MutableMapping[str, trio.Lock]
    forgotten: Callable[[str], object]
    wall: Callable[[], float]

    async def prune(
        self, *, keep: int, older_than_s: float = 0.0, dry_run: bool = False
    ) -> list[str]:
        """Remove runs that have ended, with their logs and files; the ids of those.

        Args:
            keep: So many of the newest stay in any case.
            older_than_s: Only those in which nothing has happened for so long.
            dry_run: Name them only.
        """
        before = ""
        if older_than_s:
            limit = datetime.fromtimestamp(self.wall(), UTC) - timedelta(seconds=older_than_s)
            before = limit.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        found = self.archive.oldest(keep, before=before)
        return list(found) if dry_run else await self.forget(found)

    async def tidy(self) -> None:
        """Remove the runs that the config does not keep."""
        try:
            await self.prune(keep=self.config.keep_runs)
            if self.config.keep_for_s:
                await self.prune(keep=0, older_than_s=self.config.keep_for_s)
        except OSError as error:
            # The runs that go on have nothing to do with it.
            log.warning("old runs stay", extra={"reason": str(error)})

    async def forget(self, run_ids: Iterable[str]) -> list[str]:
        """Remove runs, but those with which somebody goes on in this moment."""
        found = []
        for run_id in run_ids:
            lock = self.reopening.get(run_id)
            if lock is None or not lock.locked():
                self.archive.ended.pop(run_id, None)
                self.reopening.pop(run_id, None)
                self.forgotten(run_id)
                found.append(run_id)
        await trio.to_thread.run_sync(self.archive.remove, found)
        return found
