"""Layers and snapshots on disk, and the index of them in memory.

```
layers/<id>/diff        what the layer has
           /meta.json   name, parent, diff id, size
           /unsynced    exists until the layer is on the disk itself; holds the boot id
snapshots/<id>/upper    what the snapshot has
              /work     overlayfs's own
              /meta.json  key, parent
staging/<id>/diff       a layer being unpacked, or an upper folder becoming a layer
trash/<id>              to be removed; whatever is removed is renamed to here first
empty/                  a folder that stays empty
```

The index is changed on the main thread only; methods that touch the disk block and say so.
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from linkspan.plugins.overlay_snapshots.faults import dumps
from linkspan.plugins.overlay_snapshots.kernel import sync_file_system
from linkspan.sdk.drivers.snapshots import Layer
from linkspan.sdk.errors import NotFound
from linkspan.sdk.files import write_file
from linkspan.sdk.machine import boot_id
from linkspan.sdk.values import frozen

_log = logging.getLogger(__name__)


@frozen(kw_only=True)
class LayerRecord:
    """A committed layer; ``id`` names its folder."""

    id: str
    name: str
    parent: str
    diff_id: str
    size_bytes: int


@frozen(kw_only=True)
class SnapshotRecord:
    """A writable snapshot; ``id`` names its folder."""

    id: str
    key: str
    parent: str


class Store:
    """See the module."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.empty = root / "empty"
        self.layers: dict[str, LayerRecord] = {}
        self.snapshots: dict[str, SnapshotRecord] = {}
        self._layers = root / "layers"
        self._snapshots = root / "snapshots"
        self._staging = root / "staging"
        self._trash = root / "trash"
        self._boot_id = boot_id()

    # Paths

    def diff(self, layer: LayerRecord) -> Path:
        """What a layer has."""
        return self._layers / layer.id / "diff"

    def upper(self, snapshot: SnapshotRecord) -> Path:
        """What a snapshot has."""
        return self._snapshots / snapshot.id / "upper"

    def work(self, snapshot: SnapshotRecord) -> Path:
        """Overlayfs's own folder beside it."""
        return self._snapshots / snapshot.id / "work"

    # Index

    def chain(self, name: str) -> list[LayerRecord] | None:
        """A layer and those below it, top first; None if one is missing. ``""`` is no layer at all."""
        found = []
        while name:
            layer = self.layers.get(name)
            if layer is None:
                return None
            found.append(layer)
            name = layer.parent
        return found

    def lowers(self, name: str) -> list[Path]:
        """Folders of a chain that is whole."""
        return [self.diff(layer) for layer in self.chain(name) or ()]

    def users(self, name: str) -> list[str]:
        """Layers and snapshots that stand on a layer."""
        layers = [layer.name for layer in self.layers.values() if layer.parent == name]
        return layers + [s.key for s in self.snapshots.values() if s.parent == name]

    def describe(self, name: str, *, mounted_at: Path | None) -> dict[str, str]:
        """Folders of a snapshot or layer: what overlayfs takes for it, and where that is seen while it is."""
        snapshot, layer = self.snapshots.get(name), self.layers.get(name)
        if snapshot is not None:
            folder, own, lowers = self.upper(snapshot).parent, "upper", self.lowers(snapshot.parent)
        elif layer is not None:
            folder, own, lowers = self.diff(layer).parent, "diff", self.lowers(layer.parent)
        else:
            return {}
        found = {"LowerDir": ":".join(map(str, lowers))} if lowers else {}
        return {
            **found,
            "MergedDir": str(mounted_at or folder / "merged"),
            "UpperDir": str(folder / own),
            "WorkDir": str(folder / "work"),
        }

    def require(self, name: str) -> None:
        """Raises NotFound if a layer, or one below it, is missing."""
        if self.chain(name) is None:
            raise _no_layer(name)

    def top(self, name: str) -> LayerRecord:
        """A layer whose chain is whole. Raises NotFound."""
        chain = self.chain(name)
        if not chain:
            raise _no_layer(name)
        return chain[0]

    def snapshot(self, key: str) -> SnapshotRecord:
        """A snapshot. Raises NotFound."""
        snapshot = self.snapshots.get(key)
        if snapshot is None:
            raise NotFound(
                f"no such snapshot: {key}", code="snapshot_not_found", details={"key": key}
            )
        return snapshot

    # Blocking

    def load(self) -> None:
        """Make the folders, read the records, and put aside what is unfinished. Blocks."""
        for folder in (self._layers, self._snapshots, self._staging, self._trash, self.empty):
            folder.mkdir(parents=True, exist_ok=True)
        for path in self._staging.iterdir():
            self._throw_away(path)
        for path, meta in self._records(self._layers):
            layer = LayerRecord(
                id=path.name,
                name=meta["name"],
                parent=meta["parent"],
                diff_id=meta["diff_id"],
                size_bytes=meta["size_bytes"],
            )
            self.layers[layer.name] = layer
        for path, meta in self._records(self._snapshots):
            snapshot = SnapshotRecord(id=path.name, key=meta["key"], parent=meta["parent"])
            self.snapshots[snapshot.key] = snapshot

    def _records(self, folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
        for path in sorted(folder.iterdir()):
            try:
                meta = json.loads((path / "meta.json").read_bytes())
            except (OSError, ValueError) as error:
                # Written before the rename, so only a crash of the machine can have torn it.
                _log.warning("record lost", extra={"folder": str(path), "error": str(error)})
                self._throw_away(path)
            else:
                yield path, meta

    def torn_layers(self) -> list[LayerRecord]:
        """Layers that were not synced when the machine went down. Blocks."""
        torn = []
        for layer in self.layers.values():
            try:
                boot_id = (self._layers / layer.id / "unsynced").read_text()
            except FileNotFoundError:
                continue
            if boot_id != self._boot_id:
                torn.append(layer)
        return torn

    def new_id(self) -> str:
        """A short name for a folder: many of them have to fit a page of mount options."""
        return os.urandom(5).hex()

    def make_staging(self, folder_id: str) -> Path:
        """Make a staging area. Blocks."""
        folder = self._staging / folder_id
        folder.mkdir()
        return folder

    def finish_layer(self, layer: LayerRecord) -> None:
        """Make the staging area of its id a layer. Blocks."""
        folder = self._staging / layer.id
        (folder / "notes.json").unlink(missing_ok=True)
        write_file(folder / "unsynced", self._boot_id.encode())
        meta = attrs.asdict(layer, filter=lambda field, _: field.name != "id")
        write_file(folder / "meta.json", dumps(meta))
        folder.rename(self._layers / layer.id)

    def make_snapshot(self, snapshot: SnapshotRecord) -> None:
        """Make the folders of a snapshot. Blocks."""
        folder = self._staging / f"new-{snapshot.id}"
        meta = {"key": snapshot.key, "parent": snapshot.parent}
        try:
            folder.mkdir()
            for name in ("upper", "work"):
                part = folder / name
                part.mkdir(mode=0o755)
                part.chmod(0o755)  # whatever the umask is
            write_file(folder / "meta.json", dumps(meta))
            folder.rename(self._snapshots / snapshot.id)
        except OSError:
            self._throw_away(folder)
            raise

    def adopt_upper(self, snapshot: SnapshotRecord, folder_id: str) -> None:
        """Turn a snapshot's folder into a staging area with what it has as ``diff``. Blocks."""
        folder = self._staging / folder_id
        (self._snapshots / snapshot.id).rename(folder)
        (folder / "work").rename(self._trash / f"work-{folder_id}")
        (folder / "upper").rename(folder / "diff")

    def drop_staging(self, folder_id: str) -> None:
        """Throw a staging area away. Blocks."""
        self._throw_away(self._staging / folder_id)

    def drop_layer(self, layer: LayerRecord) -> None:
        """Throw a layer's folder away. Blocks."""
        self._throw_away(self._layers / layer.id)

    def drop_snapshot(self, snapshot: SnapshotRecord) -> None:
        """Throw a snapshot's folder away. Blocks."""
        self._throw_away(self._snapshots / snapshot.id)

    def _throw_away(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            path.rename(self._trash / f"{path.name}-{os.urandom(4).hex()}")

    def trash(self) -> list[Path]:
        """What is to be removed. Blocks."""
        return sorted(self._trash.iterdir())

    def sync(self) -> None:
        """Put all layers on the disk itself and remove their marks. Blocks."""
        marks = list(self._layers.glob("*/unsynced"))
        if marks:
            sync_file_system(self.root)
        for mark in marks:
            mark.unlink(missing_ok=True)

    def age_s(self, record: LayerRecord | SnapshotRecord) -> float:
        """Seconds since a layer or snapshot was made. Blocks."""
        folder = self._layers if isinstance(record, LayerRecord) else self._snapshots
        try:
            return time.time() - (folder / record.id / "meta.json").stat().st_mtime
        except FileNotFoundError:
            return 0.0


def layer_of(record: LayerRecord) -> Layer:
    """A record as the contract shows it."""
    return Layer(
        name=record.name,
        parent=record.parent,
        diff_id=record.diff_id,
        size_bytes=record.size_bytes,
    )


def _no_layer(name: str) -> NotFound:
    return NotFound(f"no such layer: {name}", code="layer_not_found", details={"layer": name})
