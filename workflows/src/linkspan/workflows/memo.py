"""Steps with ``sources``: skipped when nothing that decides about them has changed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import trio

from linkspan.workflows.expressions.types import Json
from linkspan.workflows.fileglobs import hash_of, matching
from linkspan.workflows.keeping import KeyedStore
from linkspan.workflows.model import Step


@attrs.frozen(kw_only=True)
class Remembered:
    """An earlier success of the same step on the same files.

    Attributes:
        run: In which that was.
        outputs: What it gave.
    """

    run: str
    outputs: Mapping[str, Json]


class Memo:
    """Remembers successes of steps, with the files that they say they make.

    The key is of everything that decides: the step's definition, its evaluated settings and variables, the
    plugin's version or the image's id, and the contents of its sources. Looking writes nothing but the
    files of a hit.
    """

    def __init__(self, folder: Path) -> None:
        self._store = KeyedStore(folder)

    async def key(self, step: Step, workspace: Path, parts: Mapping[str, Json]) -> str:
        """The key of a step as it stands now.

        Args:
            step: It.
            workspace: Its files.
            parts: What else decides about it, JSON types.
        """
        return await trio.to_thread.run_sync(self._key, step, workspace, parts)

    def _key(self, step: Step, workspace: Path, parts: Mapping[str, Json]) -> str:
        sources = hash_of(workspace, matching(workspace, step.sources))
        own = {
            "run": step.run,
            "verb": step.verb,
            "shell": step.shell,
            "folder": step.working_directory,
            "generates": list(step.generates),
            "sources": sources,
        }
        text = json.dumps({**own, **parts}, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    async def find(self, key: str, workspace: Path, generates: Sequence[str]) -> Remembered | None:
        """An earlier success, with the files that it made put into the workspace; None if there is none."""
        return await trio.to_thread.run_sync(self._find, key, workspace, generates)

    def _find(self, key: str, workspace: Path, generates: Sequence[str]) -> Remembered | None:
        meta = self._store.meta(key)
        if not meta:
            return None
        if generates:
            self._store.restore(key, workspace)
        return Remembered(run=str(meta["run"]), outputs=dict(meta["outputs"]))

    async def keep(
        self, key: str, run: str, step: Step, workspace: Path, outputs: Mapping[str, Json]
    ) -> None:
        """Remember a success."""
        await trio.to_thread.run_sync(self._keep, key, run, step, workspace, outputs)

    def _keep(
        self, key: str, run: str, step: Step, workspace: Path, outputs: Mapping[str, Json]
    ) -> None:
        files = matching(workspace, step.generates) if step.generates else []
        self._store.save(key, workspace, files, {"run": run, "outputs": dict(outputs)})
