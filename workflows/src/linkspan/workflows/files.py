"""Other files that a pipeline is made of: from the disk of a client, or as a client sent them."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from linkspan.workflows.parse import MAX_BYTES


class DiskFiles:
    """Files of a workspace; nothing outside of it is read, not even through a link."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace.resolve()

    def __call__(self, path: str) -> bytes:
        """The bytes of a file.

        Raises:
            OSError: It cannot be read, or is not in the workspace.
        """
        found = Path(path).resolve()
        if not found.is_relative_to(self._workspace):
            raise OSError(errno.EPERM, "it is outside of the workspace")
        if not found.is_file():
            number = errno.EISDIR if found.is_dir() else errno.ENOENT
            raise OSError(number, os.strerror(number))
        with found.open("rb") as file:
            # One more than is allowed, so that too much is noticed.
            return file.read(MAX_BYTES + 1)


class SentFiles:
    """Files that came with a request, by the paths that messages name."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def __call__(self, path: str) -> bytes:
        """The bytes of a file.

        Raises:
            OSError: It was not sent.
        """
        if path not in self._texts:
            raise OSError(errno.ENOENT, "it was not sent with the pipeline")
        return self._texts[path].encode()
