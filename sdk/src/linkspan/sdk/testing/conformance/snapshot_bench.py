"""What the kit for role ``snapshots`` tests with."""

import hashlib
import io
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from linkspan.sdk.drivers.snapshots import ApplyRequest, Snapshots
from linkspan.sdk.image_config import chain_ids
from linkspan.sdk.testing.host import FakeHost

Entry = tuple[str, bytes | None]
"""A name and a file's content; None makes a folder."""


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar_of(*entries: Entry, links: dict[str, str] | None = None) -> bytes:
    """A small layer: files and folders in order, then hard links (name → target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.mtime = 1_700_000_000
            info.mode = 0o755 if content is None else 0o644
            info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content or b""))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, target
            tar.addfile(info)
    return buffer.getvalue()


async def stream(data: bytes, piece: int = 7000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), piece):
        await trio.lowlevel.checkpoint()
        yield data[start : start + piece]


def files_in(folder: Path) -> dict[str, str]:
    """Relative path → content of files; folders end with ``/``."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if stat.S_ISREG(path.lstat().st_mode):
            found[name] = path.read_text()
        elif path.is_dir():
            found[name + "/"] = ""
    return found


class SnapshotsBench:
    """A driver that is open, and layers for it."""

    driver: type[Snapshots[Any]]

    @pytest.fixture
    def config(self) -> Any:
        return self.driver.config_type()

    @pytest.fixture
    async def snapshots(self, config: Any, fake_host: FakeHost) -> AsyncIterator[Snapshots[Any]]:
        async with self.driver.open(config, fake_host) as snapshots:
            await snapshots.recover()
            try:
                yield snapshots
            finally:
                with trio.CancelScope(shield=True):
                    for key in ("a", "b", "c"):
                        await snapshots.unmount(key)

    async def add(self, snapshots: Snapshots[Any], tar: bytes, parent: str = "") -> str:
        """Apply and name a layer; return its name."""
        diff_id = sha256(tar)
        name = chain_ids([parent, diff_id])[1] if parent else diff_id
        await snapshots.apply(ApplyRequest(ref=name, diff_id=diff_id), stream(tar))
        layer = await snapshots.commit_applied(name, name=name, parent=parent)
        assert (layer.name, layer.parent, layer.diff_id) == (name, parent, diff_id)
        return name
