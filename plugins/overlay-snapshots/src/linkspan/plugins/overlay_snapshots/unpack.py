"""The work of the child that unpacks one layer: pipe → hash → file → decompress → hash → folder."""

import hashlib
import os
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from linkspan.plugins.overlay_snapshots.compression import (
    MAGIC_BYTES,
    decompressed,
    is_compressed,
)
from linkspan.plugins.overlay_snapshots.faults import corrupt, dumps, from_os_error
from linkspan.plugins.overlay_snapshots.layer_folder import LayerFolder
from linkspan.plugins.overlay_snapshots.untar import LayerLimits, Untar
from linkspan.sdk.errors import DataLoss, TooLarge

BLOCK_BYTES: Final = 256 << 10
_MEMORY_LIMIT_BYTES: Final = 2 << 30
_RATIO_FREE_BYTES: Final = 1 << 30
"""Below this no ratio is suspicious."""


class Unpack:
    """One layer. ``run`` chroots, so an object serves once, in a process of its own.

    Args:
        task: ``folder`` (the staging area, whose ``diff`` is made), ``digest``, ``size_bytes``,
            ``diff_id`` (each may be None), ``tee``, ``resume_bytes``, ``verified``, ``limits``.
        pipe: Descriptor of the arriving bytes.
    """

    def __init__(self, task: Mapping[str, Any], pipe: int) -> None:
        self._task = task
        self._pipe = pipe
        self._limits = LayerLimits(*task["limits"])
        self._hasher = hashlib.sha256()
        self._size = 0
        self._plain_bytes = 0
        self._tee = -1

    def run(self) -> dict[str, Any]:
        """Unpack.

        Returns:
            ``digest``, ``size_bytes``, ``diff_id``, ``unpacked_bytes``, and whether ``settle`` is needed.

        Raises:
            LinkspanError: As the contract of ``apply`` says.
        """
        notes = self._open_files()
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT_BYTES, _MEMORY_LIMIT_BYTES))
        os.chroot(Path(self._task["folder"]) / "diff")
        os.chdir("/")
        os.umask(0)
        untar = Untar(self._limits, LayerFolder())
        try:
            diff_id = self._pump(untar)
            untar.finish()
        except MemoryError:
            raise TooLarge(
                "the layer needs more memory to unpack than it may have", code="layer_too_large"
            ) from None
        digest = self._digest()
        self._check("size_mismatch", "size", self._task["size_bytes"], self._size)
        self._check("digest_mismatch", "digest", self._task["digest"], digest)
        self._check("diff_id_mismatch", "diff id", self._task["diff_id"], diff_id or digest)
        settle = bool(untar.folder.implicit or untar.folder.deferred)
        if settle:
            _write_notes(notes, untar.folder)
        return {
            "digest": digest,
            "size_bytes": self._size,
            "diff_id": diff_id or digest,
            "unpacked_bytes": untar.unpacked_bytes,
            "settle": settle,
        }

    def _digest(self) -> str:
        if self._task["verified"]:
            return str(self._task["digest"])
        return "sha256:" + self._hasher.hexdigest()

    def _open_files(self) -> int:
        """Open what lies outside the root, before it is out of reach."""
        folder = Path(self._task["folder"])
        diff = folder / "diff"
        diff.mkdir(mode=0o755)
        diff.chmod(0o755)
        if self._task["tee"] is not None:
            self._tee = os.open(self._task["tee"], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if os.fstat(self._tee).st_size < self._task["resume_bytes"]:
                raise DataLoss(
                    f"{self._task['tee']} has fewer bytes than are to be skipped",
                    code="truncated_layer",
                )
            os.ftruncate(self._tee, self._task["resume_bytes"])
        return os.open(folder / "notes.json", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _pump(self, untar: Untar) -> str | None:
        """Feed the reader; return the diff id, or None if it is the digest."""
        blocks = self._blocks()
        head = b""
        for block in blocks:
            head += block
            if len(head) >= MAGIC_BYTES:
                break
        if not is_compressed(head):
            if head:
                self._feed(untar, head)
            for block in blocks:
                self._feed(untar, block)
            return None
        plain_hasher = hashlib.sha256()
        for piece in decompressed(head, blocks):
            plain_hasher.update(piece)
            self._feed(untar, piece)
        return "sha256:" + plain_hasher.hexdigest()

    def _feed(self, untar: Untar, piece: bytes | memoryview) -> None:
        self._plain_bytes += len(piece)
        limits = self._limits
        if self._plain_bytes > max(_RATIO_FREE_BYTES, limits.ratio * self._size):
            raise TooLarge(
                f"the layer expands to more than {limits.ratio} times its size",
                code="layer_too_large",
            )
        if self._plain_bytes > limits.unpacked_bytes + 2048 * untar.entries + (16 << 20):
            raise TooLarge(
                f"the layer unpacks to more than {limits.unpacked_bytes} bytes",
                code="layer_too_large",
            )
        untar.feed(piece)

    def _blocks(self) -> Iterator[memoryview]:
        """Hashed blocks as they arrived; each is valid until the next."""
        buffer = bytearray(BLOCK_BYTES)
        view = memoryview(buffer)
        at, resume = 0, self._task["resume_bytes"]
        while at < resume:
            count = os.preadv(self._tee, [view[: resume - at]], at)
            if not count:
                raise corrupt("the file to resume from has been cut")
            at += count
            yield self._arrived(view[:count])
        while count := os.readv(self._pipe, [view]):
            block = view[:count]
            if self._tee >= 0:
                self._append(block)
            yield self._arrived(block)

    def _arrived(self, block: memoryview) -> memoryview:
        if not self._task["verified"]:
            self._hasher.update(block)
        self._size += len(block)
        expected = self._task["size_bytes"]
        if expected is not None and self._size > expected:
            self._check("size_mismatch", "size", expected, f"more than {expected}")
        return block

    def _append(self, block: memoryview) -> None:
        offset = self._size
        try:
            while block:
                written = os.pwrite(self._tee, block, offset)
                block, offset = block[written:], offset + written
        except OSError as error:
            raise from_os_error(error) from error

    def _check(self, code: str, what: str, expected: object, found: object) -> None:
        if expected is not None and expected != found:
            name = self._task["digest"] or self._task["diff_id"] or "the layer"
            raise DataLoss(
                f"{name} has the wrong {what}: {found} instead of {expected}",
                code=code,
                details={"expected": expected, "found": found},
            )


def _write_notes(fd: int, folder: LayerFolder) -> None:
    data = dumps(
        {
            "implicit": sorted(map(os.fsdecode, folder.implicit)),
            "deferred": {
                os.fsdecode(path): os.fsdecode(target) for path, target in folder.deferred.items()
            },
        }
    )
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError as error:
        raise from_os_error(error) from error
