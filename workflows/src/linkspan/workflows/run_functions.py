"""``hash_files`` and ``digest`` in expressions: what only a run can answer."""

from collections.abc import Sequence
from pathlib import Path

from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.host import Engine
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.fileglobs import hash_of, matching


class RunFunctions:
    """Implements ``Scope.call``; ``hash_files`` blocks, so what may call it belongs into a thread."""

    def __init__(self, workspace: Path, engine: Engine) -> None:
        self._workspace = workspace
        self._engine = engine

    def __call__(self, name: str, arguments: Sequence[Json]) -> Json:
        """The value of a call.

        Raises:
            ValueError: It has none; the message says why.
        """
        if name == "hash_files":
            return self._hash_files([str(each) for each in arguments])
        return self._digest(str(arguments[0]))

    def _hash_files(self, globs: list[str]) -> str:
        try:
            names = matching(self._workspace, globs)
            if not names:
                raise ValueError(f"no file matches {', '.join(globs)}")
            return hash_of(self._workspace, names)
        except OSError as fault:
            raise ValueError(f"a file cannot be read: {fault}") from fault

    def _digest(self, reference: str) -> str:
        try:
            image = self._engine.images.inspect(reference)
        except LinkspanError as error:
            raise ValueError(error.message) from error
        for known in image.repo_digests:
            return known.rpartition("@")[2]
        return image.id
