"""Layers and snapshots in memory; mounting copies them into a real folder, unmounting reads it back.

It needs no root: owners, devices and extended attributes are left out.
"""

import gzip
import hashlib
import io
import os
import posixpath
import shutil
import stat
import tarfile
import tempfile
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import attrs
import trio

from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.drivers.snapshots import (
    Applied,
    ApplyRequest,
    Layer,
    Snapshots,
    SnapshotsCap,
)
from linkspan.sdk.errors import Conflict, DataLoss, InvalidArgument, NotFound, TooLarge
from linkspan.sdk.host import Host
from linkspan.sdk.image_config import chain_ids
from linkspan.sdk.model.files import Change, PathStat, Tree
from linkspan.sdk.testing.fakes.tree_files import (
    read_path,
    remove_paths,
    stat_path,
    write_path,
)


@attrs.frozen(kw_only=True)
class FakeNode:
    """A file, folder or symlink; ``kind`` is ``file``, ``folder``, ``link`` or ``whiteout``."""

    kind: str
    mode: int = 0o644
    data: bytes = b""
    target: str = ""
    mtime_s: int = 0
    opaque: bool = False


Nodes = dict[str, FakeNode]
"""Relative path → node."""


@attrs.define
class FakeSnapshot:
    """A writable tree; while mounted, the folder has the truth."""

    parent: str
    tree: Nodes
    target: Path | None = None


@attrs.define
class FakeStore:
    """What survives a restart of the driver."""

    layers: dict[str, Layer] = attrs.field(factory=dict)
    trees: dict[str, Nodes] = attrs.field(factory=dict)
    snapshots: dict[str, FakeSnapshot] = attrs.field(factory=dict)


_kept: dict[Path, FakeStore] = {}


@attrs.define
class FakeSnapshots(Snapshots[NoConfig]):
    """Implements the role with copies.

    Attributes:
        store: A test may look and put.
    """

    config_type = NoConfig

    store: FakeStore
    _staging: dict[str, tuple[Applied, Nodes] | None] = attrs.field(factory=dict)
    _views: dict[str, int] = attrs.field(factory=dict)

    @classmethod
    @asynccontextmanager
    async def open(cls, config: NoConfig, host: Host) -> AsyncIterator[Self]:
        await trio.lowlevel.checkpoint()
        yield cls(_kept.setdefault(host.state_dir, FakeStore()))

    @property
    def capabilities(self) -> SnapshotsCap:
        return SnapshotsCap.NONE

    # Layers

    async def apply(self, request: ApplyRequest, source: AsyncIterator[bytes]) -> Applied:
        if request.ref in self._staging:
            raise Conflict(f"a layer is being unpacked as '{request.ref}'", code="ref_in_use")
        self._staging[request.ref] = None
        try:
            data = b"".join([piece async for piece in source])
            applied, tree = _apply(request, data)
        except BaseException:
            del self._staging[request.ref]
            raise
        self._staging[request.ref] = (applied, tree)
        return applied

    async def commit_applied(self, ref: str, *, name: str, parent: str) -> Layer:
        await trio.lowlevel.checkpoint()
        if name in self.store.layers:
            self._staging.pop(ref, None)
            return self.store.layers[name]
        staging = self._staging.get(ref)
        if staging is None:
            raise NotFound(f"no layer is unpacked as '{ref}'", code="staging_not_found")
        base = self.merged(parent)
        del self._staging[ref]
        applied, tree = staging
        for path, node in tree.items():
            if node.kind == "hardlink":
                if base.get(node.target, node).kind != "file":
                    raise InvalidArgument(
                        f"the hard link '{path}' leads nowhere", code="hostile_layer"
                    )
                tree[path] = base[node.target]
        return self._add(name, parent, applied.diff_id, tree)

    def _add(self, name: str, parent: str, diff_id: str, tree: Nodes) -> Layer:
        size = sum(len(node.data) for node in tree.values())
        layer = Layer(name=name, parent=parent, diff_id=diff_id, size_bytes=size)
        self.store.layers[name] = layer
        self.store.trees[name] = tree
        return layer

    async def discard(self, ref: str) -> None:
        await trio.lowlevel.checkpoint()
        if self._staging.get(ref) is not None:
            del self._staging[ref]

    async def stat(self, name: str) -> Layer:
        await trio.lowlevel.checkpoint()
        return self._layer(name)

    async def layers(self) -> list[Layer]:
        await trio.lowlevel.checkpoint()
        return list(self.store.layers.values())

    async def remove_layer(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        users = [layer.name for layer in self.store.layers.values() if layer.parent == name]
        users += [key for key, snap in self.store.snapshots.items() if snap.parent == name]
        if users or self._views.get(name):
            raise Conflict(f"layer {name} is in use", code="layer_in_use")
        self.store.layers.pop(name, None)
        self.store.trees.pop(name, None)

    def merged(self, name: str) -> Nodes:
        """A layer over all its parents; empty for no layer."""
        if not name:
            return {}
        layer = self._layer(name)
        return _over(self.merged(layer.parent), self.store.trees[name])

    def _layer(self, name: str) -> Layer:
        try:
            return self.store.layers[name]
        except KeyError:
            raise NotFound(f"no such layer: {name}", code="layer_not_found") from None

    # Snapshots

    async def prepare(self, key: str, parent: str) -> None:
        await trio.lowlevel.checkpoint()
        if key in self.store.snapshots:
            raise Conflict(f"snapshot '{key}' exists", code="snapshot_exists")
        self.store.snapshots[key] = FakeSnapshot(parent, self.merged(parent))

    async def mount(
        self,
        key: str,
        target: Path,
        *,
        volatile: bool = False,
        then: Callable[[Path], object] | None = None,
    ) -> None:
        await trio.lowlevel.checkpoint()
        snapshot = self._snapshot(key)
        if snapshot.target not in (None, target):
            raise Conflict(
                f"snapshot '{key}' is mounted at {snapshot.target}", code="snapshot_mounted"
            )
        if snapshot.target is None:
            _write(snapshot.tree, target)
            snapshot.target = target
        if then is not None:
            then(target)

    async def unmount(self, key: str) -> None:
        await trio.lowlevel.checkpoint()
        snapshot = self.store.snapshots.get(key)
        if snapshot is None or snapshot.target is None:
            return
        snapshot.tree = _read(snapshot.target)
        _clear(snapshot.target)
        snapshot.target = None

    async def commit(
        self, key: str, *, parent: str, keep: bool = False, ignore: Collection[str] = ()
    ) -> Layer:
        snapshot = self._snapshot(key)
        if snapshot.parent not in ("", parent):
            raise InvalidArgument(f"snapshot '{key}' stands on another layer")
        if not keep:
            await self.unmount(key)
        self.merged(parent)
        own = _difference(self.merged(snapshot.parent), self._tree(snapshot), ignore)
        diff_id = "sha256:" + hashlib.sha256(_tar(own)).hexdigest()
        name = chain_ids([parent, diff_id])[1] if parent else diff_id
        if not keep:
            del self.store.snapshots[key]
        if name in self.store.layers:
            return self.store.layers[name]
        return self._add(name, parent, diff_id, own)

    async def changes(self, key: str, *, ignore: Collection[str] = ()) -> list[Change]:
        await trio.lowlevel.checkpoint()
        snapshot = self._snapshot(key)
        below = self.merged(snapshot.parent)
        found = []
        for path, node in sorted(_difference(below, self._tree(snapshot), ignore).items()):
            kind = 2 if node.kind == "whiteout" else 0 if path in below else 1
            found.append(Change(path=f"/{path}", kind=kind))
        return found

    async def usage(self, key: str) -> int:
        await trio.lowlevel.checkpoint()
        snapshot = self._snapshot(key)
        own = _difference(self.merged(snapshot.parent), self._tree(snapshot))
        return sum(len(node.data) for node in own.values())

    async def stat_path(self, tree: Tree, path: str) -> PathStat:
        await trio.lowlevel.checkpoint()
        return stat_path(tree, path)

    @asynccontextmanager
    async def read_path(
        self, tree: Tree, path: str
    ) -> AsyncIterator[tuple[PathStat, AsyncIterator[bytes]]]:
        await trio.lowlevel.checkpoint()
        found = stat_path(tree, path)
        yield found, _pieces(read_path(tree, path))

    async def write_path(
        self,
        tree: Tree,
        path: str,
        source: AsyncIterator[bytes],
        *,
        keep_kind: bool = False,
        owner: str = "",
    ) -> None:
        data = b"".join([piece async for piece in source])
        write_path(tree, path, data, keep_kind=keep_kind)

    async def remove_paths(self, tree: Tree, path: str, names: Sequence[str]) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        return remove_paths(tree, path, names)

    async def keys(self) -> list[str]:
        await trio.lowlevel.checkpoint()
        return list(self.store.snapshots)

    async def remove(self, key: str) -> None:
        await self.unmount(key)
        self.store.snapshots.pop(key, None)

    def _tree(self, snapshot: FakeSnapshot) -> Nodes:
        return snapshot.tree if snapshot.target is None else _read(snapshot.target)

    def _snapshot(self, key: str) -> FakeSnapshot:
        try:
            return self.store.snapshots[key]
        except KeyError:
            raise NotFound(f"no such snapshot: {key}", code="snapshot_not_found") from None

    # Reading layers

    @asynccontextmanager
    async def view(self, name: str) -> AsyncIterator[Path]:
        await trio.lowlevel.checkpoint()
        tree = self.merged(self._layer(name).name)
        self._views[name] = self._views.get(name, 0) + 1
        folder = Path(tempfile.mkdtemp(prefix="linkspan-fake-view-"))
        try:
            _write(tree, folder)
            yield folder
        finally:
            self._views[name] -= 1
            shutil.rmtree(folder)

    @asynccontextmanager
    async def export(self, name: str) -> AsyncIterator[AsyncIterator[bytes]]:
        await trio.lowlevel.checkpoint()
        yield _pieces(self._packed(name))

    async def compress(self, name: str, target: Path) -> tuple[str, int]:
        await trio.lowlevel.checkpoint()
        data = gzip.compress(self._packed(name), 1, mtime=0)
        await trio.Path(target).write_bytes(data)
        return "sha256:" + hashlib.sha256(data).hexdigest(), len(data)

    def _packed(self, name: str) -> bytes:
        layer = self._layer(name)
        tar = _tar(self.store.trees[name])
        if "sha256:" + hashlib.sha256(tar).hexdigest() != layer.diff_id:
            raise DataLoss(
                f"the layer {layer.diff_id} cannot be packed again as it was",
                code="diff_id_mismatch",
            )
        return tar

    async def gc(self, known: Iterable[str]) -> Mapping[str, str]:
        keep = set(known)
        removed = {}
        for key in [key for key in self.store.snapshots if key not in keep]:
            await self.remove(key)
            removed[key] = "snapshot that nothing knows"
        for name in reversed(list(self.store.layers)):
            if name not in keep:
                try:
                    await self.remove_layer(name)
                except Conflict:
                    continue
                removed[name] = "layer that nothing knows"
        return removed


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1 << 20):
        await trio.lowlevel.checkpoint()
        yield data[start : start + (1 << 20)]


def _apply(request: ApplyRequest, data: bytes) -> tuple[Applied, Nodes]:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    try:
        plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        tree = _untar(plain, request.limit_bytes)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataLoss(f"the layer is corrupt: {error}", code="corrupt_layer") from error
    applied = Applied(
        ref=request.ref,
        digest=digest,
        size_bytes=len(data),
        diff_id="sha256:" + hashlib.sha256(plain).hexdigest(),
        unpacked_bytes=sum(len(node.data) for node in tree.values()),
    )
    for name in ("digest", "size_bytes", "diff_id"):
        expected, found = getattr(request, name), getattr(applied, name)
        if expected is not None and expected != found:
            raise DataLoss(
                f"the layer has the wrong {name}: {found} instead of {expected}",
                code=f"{name.removesuffix('_bytes')}_mismatch",
            )
    return applied, tree


def _untar(plain: bytes, limit_bytes: int) -> Nodes:
    tree: Nodes = {}
    total = 0
    with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as tar:
        for info in tar:
            path = _inside(info.name)
            if not path:
                continue
            folder, base = posixpath.split(path)
            for parent in _parents(path):
                tree.setdefault(parent, FakeNode(kind="folder", mode=0o755))
            if base == ".wh..wh..opq":
                tree[folder] = attrs.evolve(tree[folder], opaque=True)
            elif base.startswith(".wh."):
                tree.setdefault(posixpath.join(folder, base[4:]), FakeNode(kind="whiteout"))
            elif info.isdir():
                opaque = path in tree and tree[path].opaque
                tree[path] = _node("folder", info, opaque=opaque)
            elif info.issym():
                tree[path] = _node("link", info, target=info.linkname)
            elif info.islnk():
                target = _inside(info.linkname)
                tree[path] = tree.get(target) or FakeNode(kind="hardlink", target=target)
            elif info.isreg():
                total += info.size
                if limit_bytes and total > limit_bytes:
                    raise TooLarge(f"the layer unpacks to more than {limit_bytes} bytes")
                file = tar.extractfile(info)
                assert file is not None
                tree[path] = _node("file", info, data=file.read())
    return tree


def _node(
    kind: str,
    info: tarfile.TarInfo,
    *,
    data: bytes = b"",
    target: str = "",
    opaque: bool = False,
) -> FakeNode:
    mode = 0o777 if kind == "link" else info.mode & 0o7777
    mtime_s = max(int(info.mtime), 0)
    return FakeNode(kind=kind, mode=mode, data=data, target=target, mtime_s=mtime_s, opaque=opaque)


def _inside(name: str) -> str:
    path = posixpath.normpath(name.lstrip("/"))
    if path == ".." or path.startswith("../"):
        raise InvalidArgument(
            f"the layer's entry '{name}' is refused: its name leaves the root",
            code="hostile_layer",
        )
    return "" if path == "." else path


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _over(base: Nodes, own: Nodes) -> Nodes:
    merged = dict(base)
    for path, node in own.items():
        if node.kind != "folder" or node.opaque:
            for other in [p for p in merged if p.startswith(f"{path}/")]:
                if other not in own:
                    del merged[other]
        if node.kind == "whiteout":
            merged.pop(path, None)
        else:
            merged[path] = attrs.evolve(node, opaque=False)
    return dict(sorted(merged.items()))


def _difference(base: Nodes, tree: Nodes, ignore: Collection[str] = ()) -> Nodes:
    own: Nodes = {}
    stubs = {path.lstrip("/") for path in ignore}
    tree = {p: n for p, n in tree.items() if not (p in stubs and _is_stub(p, base, tree))}
    for path, node in tree.items():
        below = base.get(path)
        same = below is not None and (
            (below.kind, below.mode) == (node.kind, node.mode)
            if node.kind == "folder"
            else below == node
        )
        if not same:
            own[path] = node
    for path in base:
        if path not in tree and all(parent in tree for parent in _parents(path)):
            own[path] = FakeNode(kind="whiteout")
    for path in list(own):
        for parent in _parents(path):
            own.setdefault(parent, tree[parent])
    return dict(sorted(own.items()))


def _is_stub(path: str, base: Nodes, tree: Nodes) -> bool:
    if path in base or tree[path].data:
        return False
    return not any(other.startswith(f"{path}/") for other in tree)


def _tar(own: Nodes) -> bytes:
    """As real drivers order it: in each folder whiteouts first."""
    if not own:
        return bytes(1024)
    buffer = io.BytesIO()

    def order(item: tuple[str, FakeNode]) -> list[tuple[bool, str]]:
        path, node = item
        *folders, base = path.split("/")
        return [*((True, name) for name in folders), (node.kind != "whiteout", base)]

    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, node in sorted(own.items(), key=order):
            folder, base = posixpath.split(path)
            info = tarfile.TarInfo(path)
            info.mode, info.mtime = node.mode, node.mtime_s
            if node.kind == "whiteout":
                info = tarfile.TarInfo(posixpath.join(folder, f".wh.{base}"))
                info.mode = 0
            elif node.kind == "folder":
                info.type = tarfile.DIRTYPE
            elif node.kind == "link":
                info.type, info.linkname = tarfile.SYMTYPE, node.target
            else:
                info.size = len(node.data)
            tar.addfile(info, io.BytesIO(node.data))
            if node.opaque:
                tar.addfile(tarfile.TarInfo(f"{path}/.wh..wh..opq"))
    return buffer.getvalue()


def _write(tree: Nodes, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path, node in sorted(tree.items()):
        place = target / path
        if node.kind == "folder":
            place.mkdir(exist_ok=True)
        elif node.kind == "link":
            place.symlink_to(node.target)
        else:
            place.write_bytes(node.data)
            place.chmod(node.mode)
            os.utime(place, (node.mtime_s, node.mtime_s))
    for path, node in sorted(tree.items(), reverse=True):
        if node.kind == "folder":
            (target / path).chmod(node.mode)
            os.utime(target / path, (node.mtime_s, node.mtime_s))


def _read(target: Path) -> Nodes:
    tree: Nodes = {}
    for place in sorted(target.rglob("*")):
        status = place.lstat()
        path, mode = str(place.relative_to(target)), stat.S_IMODE(status.st_mode)
        mtime_s = int(status.st_mtime)
        if place.is_symlink():
            tree[path] = FakeNode(
                kind="link", mode=0o777, target=str(place.readlink()), mtime_s=mtime_s
            )
        elif place.is_dir():
            tree[path] = FakeNode(kind="folder", mode=mode, mtime_s=mtime_s)
        else:
            tree[path] = FakeNode(kind="file", mode=mode, data=place.read_bytes(), mtime_s=mtime_s)
    return tree


def _clear(target: Path) -> None:
    for place in target.iterdir():
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink()
