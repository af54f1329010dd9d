"""The folder of blobs: ``blobs/<algorithm>/<hex>``.

A blob appears by rename, complete and verified. It is not synced then: a sync of every layer would
double the time of a pull. Instead a marker ``unsynced/<algorithm>-<hex>`` that holds the boot id is
made before the rename and removed after a later sync. When the machine (not the daemon) went down in
between, the markers name the blobs whose bytes have to be checked again.
"""

import os
from pathlib import Path

from linkspan.plugins.local_content.digests import split_digest
from linkspan.plugins.local_content.files import digest_of_file, full_disk_named
from linkspan.sdk.drivers.content import BlobInfo
from linkspan.sdk.files import sync
from linkspan.sdk.machine import boot_id


class BlobFolder:
    """Blocking; called in worker threads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ingests = root / "ingest"
        self._blobs = root / "blobs"
        self._unsynced = root / "unsynced"
        self._boot_id = boot_id()

    def make(self) -> None:
        """Make the folders.

        Raises:
            OutOfSpace: The disk is full.
        """
        with full_disk_named(self.root):
            for folder in (self.ingests, self._unsynced, self._blobs / "sha256"):
                folder.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where a blob is or would be. Raises InvalidArgument for what is no digest."""
        algorithm, digits = split_digest(digest)
        return self._blobs / algorithm / digits

    def adopt(self, file: Path, digest: str) -> None:
        """Make a verified file a blob; if the blob exists, only drop the file.

        Raises:
            OutOfSpace: The disk is full; the file stays.
        """
        target = self.path(digest)
        if target.exists():
            file.unlink(missing_ok=True)
            return
        with full_disk_named(self.root):
            self._marker(digest).write_text(self._boot_id)
            target.parent.mkdir(exist_ok=True)
            file.replace(target)

    def delete(self, digest: str) -> None:
        """Remove a blob and its marker."""
        self.path(digest).unlink(missing_ok=True)
        self._marker(digest).unlink(missing_ok=True)

    def infos(self) -> list[BlobInfo]:
        """All blobs, by digest."""
        found = []
        for folder in self._blobs.iterdir():
            with os.scandir(folder) as entries:
                for entry in entries:
                    try:
                        size = entry.stat().st_size
                    except FileNotFoundError:
                        continue
                    found.append(BlobInfo(digest=f"{folder.name}:{entry.name}", size_bytes=size))
        return sorted(found, key=lambda blob: blob.digest)

    def age_s(self, digest: str, now_s: float) -> float:
        """Seconds since the blob's last byte was written; 0 if it is gone."""
        try:
            return now_s - self.path(digest).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def sync_new(self) -> None:
        """Write all new blobs to the disk itself and remove their markers."""
        for marker, digest in self._markers():
            path = self.path(digest)
            if path.exists():
                sync(path)
                sync(path.parent)
            marker.unlink(missing_ok=True)

    def drop_torn(self) -> list[str]:
        """After the machine went down: remove the blobs that do not have their bytes; return them."""
        torn = []
        for marker, digest in self._markers():
            if marker.read_text() == self._boot_id:
                continue
            path = self.path(digest)
            if path.exists() and digest_of_file(path, digest.partition(":")[0]) != digest:
                path.unlink()
                torn.append(digest)
            marker.unlink()
        return torn

    def _marker(self, digest: str) -> Path:
        return self._unsynced / digest.replace(":", "-")

    def _markers(self) -> list[tuple[Path, str]]:
        return [(path, path.name.replace("-", ":", 1)) for path in self._unsynced.iterdir()]
