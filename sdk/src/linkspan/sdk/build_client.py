"""A client that stays with its build: the builder asks it for files, secrets and passwords as it needs them.

BuildKit's clients work so. The part that speaks with them implements these classes, and gives an object of them as
``BuildRequest.client``.
"""

import abc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, NamedTuple

from linkspan.sdk.errors import Unsupported
from linkspan.sdk.model.image import Credentials

if TYPE_CHECKING:
    import trio


class FolderEntry(NamedTuple):
    """What one path of a client's folder is.

    Attributes:
        path: Slash-separated, relative to the folder; as the client sent it, so it may be hostile.
        kind: ``file directory symlink fifo char block``; empty for what cannot be carried.
        mode: Permission bits, 0 to 0o7777.
        size: Of a file, in bytes.
        link: Target of a symbolic link; of a file, the path that it is another name of.
        device: Major and minor number.
    """

    path: str
    kind: str
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = {}


ContentsSink = Callable[[list[tuple[int, bytes]]], Awaitable[None]]
"""Takes a batch of pieces of files: place in the entries, bytes; no bytes are the end of a file."""


class FolderTransfer(abc.ABC):
    """A client's folder while it is looked at. First :meth:`entries`, then :meth:`contents` once, or not.

    Attributes:
        received_bytes: What has come so far.
    """

    received_bytes: int

    @abc.abstractmethod
    async def entries(self) -> list[FolderEntry]:
        """What is in it: a directory before what it holds.

        Raises:
            InvalidArgument: The client's answer cannot be read.
            TooLarge: There is more than the daemon takes.
            LinkspanError: The client could not read it, or has gone.
        """

    @abc.abstractmethod
    async def contents(self, numbers: Sequence[int], take: ContentsSink) -> None:
        """Bytes of files.

        Args:
            numbers: Places in ``entries``; only those of files.
            take: Gets the pieces as they come, files side by side.

        Raises:
            As ``entries``.
        """


class ClientFolder(NamedTuple):
    """A folder that a build's client has; ``name`` as it calls it."""

    name: str


class BuildClient(abc.ABC):
    """A connected client.

    Attributes:
        key: The same for all builds of one folder by one client; empty if it says none.
    """

    key: str

    @abc.abstractmethod
    def folder(
        self,
        name: str,
        *,
        paths: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> AbstractAsyncContextManager[FolderTransfer]:
        """A folder of the client.

        Args:
            name: ``context``, ``dockerfile``, or a name that the client gave.
            paths: Only these, with what links among them lead to; all if there are none.
            exclude: Patterns of what is left out, as in ``.dockerignore``.

        Raises:
            LinkspanError: The client has no such folder, or has gone.
        """

    @abc.abstractmethod
    async def secret(self, name: str) -> bytes | None:
        """A secret of the client's; None if it has none of that name."""

    async def has_agent(self, name: str) -> bool:
        """Whether the client lends an ssh agent of that name."""
        return False

    async def forward(self, name: str, stream: "trio.abc.Stream") -> None:
        """Carry a connection to an agent of the client's, until either side closes it.

        Raises:
            LinkspanError: The client refuses, or has gone.
            trio.BrokenResourceError: The stream is broken.
        """
        raise Unsupported("this client lends no ssh agent")

    @abc.abstractmethod
    async def credentials(self, domain: str) -> Credentials:
        """What the client has for a registry; empty if it has nothing."""
