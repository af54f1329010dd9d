"""Role ``snapshots``: layers and writable roots.

Two kinds of thing: a *layer* is committed, never changes and has a name (a ChainID, OCI image-spec
config.md "Layer ChainID") and a parent layer or none; a *snapshot* is writable, has a key, and stands
on a layer or on nothing.

Pull: ``apply`` for every layer of an image at once (each unpacks into a staging folder, in a child
that is chrooted there), then ``commit_applied`` bottom to top. Run a container: ``prepare(key, top)``,
``mount(key, target)``. Build: the same, then ``commit(key, …)`` makes the writable part a layer.

Files of containers are read and written here, too, since layers and they travel as the same kind of tar:
``stat_path``, ``read_path`` and ``write_path`` work in a ``Tree``. Whatever symlinks it has, they are
followed inside.
"""

import abc
import enum
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from linkspan.sdk.drivers.base import Config, Driver
from linkspan.sdk.errors import Unsupported
from linkspan.sdk.model.files import Change, PathStat, Tree
from linkspan.sdk.stability import Stage, contract
from linkspan.sdk.values import frozen


class SnapshotsCap(enum.Flag):
    """TEE: ``apply`` can write the compressed bytes to a file while it reads them."""

    NONE = 0
    TEE = enum.auto()


@frozen(kw_only=True)
class ApplyRequest:
    """A layer to unpack.

    Attributes:
        ref: Names the staging area; two applies with one ref are a Conflict.
        digest, size_bytes: Of the bytes as they arrive; verified while reading. None: not checked.
        diff_id: Of the uncompressed tar (IMAGES: sha256 of the whole stream); verified. None: not checked.
        tee: A file to append the arriving bytes to (cap TEE).
        resume_bytes: The first bytes are in ``tee`` already; the stream goes on behind them.
        verified: Those bytes are all, and the caller has just compared them with ``digest``: they need not be
            hashed again.
        limit_bytes: Refuse to unpack more than this; 0 means the driver's own limit.
    """

    ref: str
    media_type: str = ""
    digest: str | None = None
    size_bytes: int | None = None
    diff_id: str | None = None
    tee: Path | None = None
    resume_bytes: int = 0
    verified: bool = False
    limit_bytes: int = 0


@frozen(kw_only=True)
class Applied:
    """An unpacked layer in its staging area, not named yet."""

    ref: str
    digest: str
    size_bytes: int
    diff_id: str
    unpacked_bytes: int


@frozen(kw_only=True)
class Layer:
    """A committed layer; ``diff_id`` is the digest of its uncompressed tar."""

    name: str
    parent: str
    diff_id: str
    size_bytes: int


@contract(role="snapshots", version=1, stage=Stage.BETA, since="0.1")
class Snapshots(Driver[Config], abc.ABC):
    """Keeps layers and snapshots; see the module."""

    @property
    @abc.abstractmethod
    def capabilities(self) -> SnapshotsCap:
        """What this driver can."""

    @abc.abstractmethod
    async def apply(self, request: ApplyRequest, source: AsyncIterator[bytes]) -> Applied:
        """Unpack a tar (plain, gzip or zstd, by its magic bytes) into a staging area.

        Layers of one image may be applied side by side. Digest, size and diff id are verified before
        it returns.

        Raises:
            DataLoss: Truncated, corrupt, or a digest or size differs; names which.
            InvalidArgument: code ``hostile_layer``: the tar tries to leave its root or carries what
                layers must not carry; names the entry.
            TooLarge: More than the limit.
            OutOfSpace: The disk is full.
        If cancelled or failed: the staging area is gone; what was written to ``tee`` stays.
        """

    @abc.abstractmethod
    async def commit_applied(self, ref: str, *, name: str, parent: str) -> Layer:
        """Name an applied layer; parent ``""`` for the first. Idempotent if the name exists.

        Raises:
            NotFound: No such staging area or parent.
            InvalidArgument: A hard link of the layer points to nothing in its parents.
        """

    @abc.abstractmethod
    async def discard(self, ref: str) -> None:
        """Throw a staging area away; silent if there is none."""

    @abc.abstractmethod
    async def stat(self, name: str) -> Layer:
        """Raises NotFound."""

    @abc.abstractmethod
    async def layers(self) -> list[Layer]:
        """All committed layers."""

    @abc.abstractmethod
    async def prepare(self, key: str, parent: str) -> None:
        """Make a writable snapshot on a layer, or on nothing with ``""``.

        Raises:
            Conflict: The key exists.
            NotFound: The parent does not.
        """

    @abc.abstractmethod
    async def mount(
        self,
        key: str,
        target: Path,
        *,
        volatile: bool = False,
        then: Callable[[Path], object] | None = None,
    ) -> None:
        """Mount a snapshot at a folder (made if missing). Idempotent.

        Args:
            volatile: What is written need not survive a crash of the machine (a build's step, a container
                that is removed when it ends): nothing waits for the disk, neither fsync nor unmounting.
            then: Called with the folder when it is mounted, also if it was before; it may block, and does not
                raise. A further change of thread would cost more than a few files.

        Raises:
            NotFound: No such key.
            Conflict: It is mounted at another folder.
        """

    @abc.abstractmethod
    async def unmount(self, key: str) -> None:
        """Unmount it wherever it is; silent if it is not mounted or not there."""

    @abc.abstractmethod
    def view(self, name: str) -> AbstractAsyncContextManager[Path]:
        """A layer with all its parents as a read-only folder, for as long as the context lasts.

        Raises:
            NotFound: No such layer.
        """

    @abc.abstractmethod
    async def commit(
        self, key: str, *, parent: str, keep: bool = False, ignore: Collection[str] = ()
    ) -> Layer:
        """Make a snapshot's own content a layer on ``parent`` and end the snapshot.

        The name is the ChainID that follows from the parent's name and the computed diff id.
        The folder is adopted, not copied. If the layer exists, the snapshot is dropped. A snapshot that
        was prepared on nothing may be committed on any layer: its folders merge with those below.

        Args:
            keep: The layer is a copy, and the snapshot goes on, mounted or not.
            ignore: With ``keep``, absolute paths that do not count while they are empty files or folders:
                what a runtime makes to mount something on it.

        Raises:
            NotFound: No such key.
            InvalidArgument: It was prepared on another layer, or has a name that a layer cannot have (``.wh.…``).
            Conflict: It is mounted and in use, and not ``keep``.
        """

    @abc.abstractmethod
    def export(self, name: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The layer's own tar, uncompressed; its sha256 is the layer's diff id.

        Layers made by ``commit`` can always be exported. A layer that was applied may have been packed by
        another program in a way that cannot be repeated: keep its blob and send that.

        Raises:
            NotFound: No such layer.
            DataLoss: At the end of the stream: its sha256 differs from the diff id.
        """

    @abc.abstractmethod
    async def compress(self, name: str, target: Path) -> tuple[str, int]:
        """Write the layer's tar, gzipped, to a new file; return its digest and size.

        Raises:
            NotFound: No such layer.
            DataLoss: As in ``export``; the file is gone.
            OutOfSpace: The disk is full; the file is gone.
        """

    @abc.abstractmethod
    async def changes(self, key: str, *, ignore: Collection[str] = ()) -> list[Change]:
        """What a snapshot has that its layer has not; ``ignore`` as in ``commit``."""

    @abc.abstractmethod
    async def usage(self, key: str) -> int:
        """Bytes of a snapshot's own content."""

    def describe(self, name: str) -> Mapping[str, str]:
        """Where a snapshot, by its key, or a layer lies, for those who look into it: names → paths.

        The names are the driver's; clients of Docker know those of overlay2 (``GraphDriver.Data``). Empty
        if there is nothing to say, or no such thing.
        """
        return {}

    @abc.abstractmethod
    async def stat_path(self, tree: Tree, path: str) -> PathStat:
        """What a path is; a symlink in its last part is not followed.

        Raises:
            NotFound: code ``path_not_found``.
        """

    @abc.abstractmethod
    def read_path(
        self, tree: Tree, path: str
    ) -> AbstractAsyncContextManager[tuple[PathStat, AsyncIterator[bytes]]]:
        """A file, or a folder with all in it, as a plain tar.

        Names in the tar begin with the last part of the path (``.`` for ``dir/.``). The empty path is the
        whole root, without an entry for itself. Sockets are left out.

        Raises:
            NotFound: code ``path_not_found``.
        """

    @abc.abstractmethod
    async def write_path(
        self,
        tree: Tree,
        path: str,
        source: AsyncIterator[bytes],
        *,
        keep_kind: bool = False,
        owner: str = "",
    ) -> None:
        """Unpack a tar (plain, gzip or zstd, by its magic bytes) into a folder, symlinks to it followed.

        Args:
            keep_kind: A folder is not replaced by something else, nor something else by a folder.
            owner: ``user[:group]``, by name or number, whom all of it shall belong to; empty: as the tar says.

        Raises:
            NotFound: code ``path_not_found``.
            InvalidArgument: code ``not_a_folder``, ``other_kind`` (and ``keep_kind``), ``hostile_layer``
                (the tar tries to leave the folder), ``user_not_found``.
            PermissionDenied: code ``read_only``: the root or the mount there.
            DataLoss: The tar is truncated or corrupt.
            OutOfSpace: The disk is full.
        If cancelled or failed: what was unpacked so far stays.
        """

    async def remove_paths(self, tree: Tree, path: str, names: Sequence[str]) -> Sequence[str]:
        """Remove files, links and empty folders below a folder, one after the other; links are not followed.

        Args:
            names: Relative to the folder.

        Returns:
            What stays: folders with something in them, and what is mounted there.

        Raises:
            NotFound: code ``path_not_found``: there is no such folder.
            InvalidArgument: A name leads out of the folder; code ``hostile_path``.
            PermissionDenied: code ``read_only``: the root or the mount there.
            Unsupported: The driver cannot do it.
        If cancelled or failed: what was removed so far is gone.
        """
        raise Unsupported("this driver of snapshots removes no files of containers")

    @abc.abstractmethod
    async def keys(self) -> list[str]:
        """Keys of all snapshots."""

    @abc.abstractmethod
    async def remove(self, key: str) -> None:
        """Unmount and remove a snapshot; silent if there is none. Files may go later."""

    @abc.abstractmethod
    async def remove_layer(self, name: str) -> None:
        """Remove a layer.

        Raises:
            Conflict: A layer or a snapshot stands on it.
        """
