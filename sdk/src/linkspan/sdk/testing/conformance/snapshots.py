"""The kit for role ``snapshots``. Subclass ``SnapshotsConformance`` and set ``driver``."""

import contextlib
import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from linkspan.sdk.drivers.snapshots import ApplyRequest, Layer, Snapshots, SnapshotsCap
from linkspan.sdk.errors import (
    Conflict,
    DataLoss,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    TooLarge,
)
from linkspan.sdk.image_config import chain_ids
from linkspan.sdk.model.files import Change, Tree, TreeMount
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


class SnapshotsConformance:
    """What every snapshots driver must do."""

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

    # Layers

    async def test_a_layer_is_applied_named_and_viewed(self, snapshots: Snapshots[Any]) -> None:
        tar = tar_of(("etc", None), ("etc/motd", b"hello"))
        request = ApplyRequest(
            ref="x", digest=sha256(tar), size_bytes=len(tar), diff_id=sha256(tar)
        )
        applied = await snapshots.apply(request, stream(tar))
        assert (applied.ref, applied.digest, applied.diff_id) == ("x", sha256(tar), sha256(tar))
        assert (applied.size_bytes, applied.unpacked_bytes) == (len(tar), 5)
        assert await snapshots.layers() == []
        layer = await snapshots.commit_applied("x", name=sha256(tar), parent="")
        expected = Layer(name=sha256(tar), parent="", diff_id=sha256(tar), size_bytes=5)
        assert layer == expected
        assert await snapshots.stat(sha256(tar)) == expected
        assert await snapshots.layers() == [expected]
        async with snapshots.view(sha256(tar)) as folder:
            assert files_in(folder) == {"etc/": "", "etc/motd": "hello"}

    async def test_what_it_says_of_a_layer_and_a_snapshot_are_folders(
        self, snapshots: Snapshots[Any], tmp_path: Path
    ) -> None:
        layer = await self.add(snapshots, tar_of(("file", b"1")))
        await snapshots.prepare("key", layer)
        await snapshots.mount("key", tmp_path / "root")
        for name in (layer, "key"):
            for paths in snapshots.describe(name).values():
                assert all(Path(path).is_absolute() for path in paths.split(":"))
        await snapshots.remove("key")
        assert snapshots.describe("key") == {}
        assert snapshots.describe("nobody") == {}

    async def test_gzip_is_recognised_by_its_bytes(self, snapshots: Snapshots[Any]) -> None:
        tar = tar_of(("f", b"x" * 100_000))
        packed = gzip.compress(tar, mtime=0)
        request = ApplyRequest(ref="x", digest=sha256(packed), diff_id=sha256(tar))
        applied = await snapshots.apply(request, stream(packed, 100))
        assert applied.diff_id == sha256(tar)
        assert applied.digest == sha256(packed)
        assert applied.size_bytes == len(packed)

    async def test_layers_stand_on_each_other(self, snapshots: Snapshots[Any]) -> None:
        base = await self.add(snapshots, tar_of(("d", None), ("d/a", b"1"), ("d/b", b"1")))
        top = await self.add(
            snapshots, tar_of(("d", None), ("d/.wh.a", b""), ("d/b", b"2"), ("d/c", b"3")), base
        )
        async with snapshots.view(top) as folder:
            assert files_in(folder) == {"d/": "", "d/b": "2", "d/c": "3"}
        async with snapshots.view(base) as folder:
            assert files_in(folder) == {"d/": "", "d/a": "1", "d/b": "1"}

    async def test_an_opaque_folder_hides_what_is_below(self, snapshots: Snapshots[Any]) -> None:
        base = await self.add(snapshots, tar_of(("d", None), ("d/a", b"1"), ("e", b"1")))
        top = await self.add(
            snapshots, tar_of(("d", None), ("d/n", b"2"), ("d/.wh..wh..opq", b"")), base
        )
        async with snapshots.view(top) as folder:
            assert files_in(folder) == {"d/": "", "d/n": "2", "e": "1"}

    async def test_layers_of_one_image_are_applied_side_by_side(
        self, snapshots: Snapshots[Any]
    ) -> None:
        tars = [tar_of((f"f{n}", str(n).encode())) for n in range(6)]
        names = chain_ids(map(sha256, tars))
        async with trio.open_nursery() as nursery:
            for name, tar in zip(names, tars, strict=True):
                request = ApplyRequest(ref=name, diff_id=sha256(tar))
                nursery.start_soon(snapshots.apply, request, stream(tar, 1000))
        parent = ""
        for name in names:
            await snapshots.commit_applied(name, name=name, parent=parent)
            parent = name
        async with snapshots.view(names[-1]) as folder:
            assert files_in(folder) == {f"f{n}": str(n) for n in range(6)}

    async def test_naming_is_idempotent_and_discard_forgets(
        self, snapshots: Snapshots[Any]
    ) -> None:
        tar = tar_of(("f", b"x"))
        name = await self.add(snapshots, tar)
        await snapshots.apply(ApplyRequest(ref="again"), stream(tar))
        layer = await snapshots.commit_applied("again", name=name, parent="")
        assert layer == await snapshots.stat(name)
        await snapshots.apply(ApplyRequest(ref="gone"), stream(tar))
        await snapshots.discard("gone")
        await snapshots.discard("gone")
        with pytest.raises(NotFound):
            await snapshots.commit_applied("gone", name="sha256:" + "0" * 64, parent="")
        assert len(await snapshots.layers()) == 1

    async def test_naming_needs_a_parent(self, snapshots: Snapshots[Any]) -> None:
        await snapshots.apply(ApplyRequest(ref="x"), stream(tar_of(("f", b"x"))))
        with pytest.raises(NotFound):
            await snapshots.commit_applied("x", name="top", parent="absent")
        await snapshots.commit_applied("x", name="top", parent="")

    async def test_a_ref_is_applied_once_at_a_time(self, snapshots: Snapshots[Any]) -> None:
        tar = tar_of(("f", b"x"))
        await snapshots.apply(ApplyRequest(ref="x"), stream(tar))
        with pytest.raises(Conflict):
            await snapshots.apply(ApplyRequest(ref="x"), stream(tar))
        await snapshots.discard("x")
        await snapshots.apply(ApplyRequest(ref="x"), stream(tar))

    @pytest.mark.parametrize("wrong", ["digest", "diff_id", "size_bytes"])
    async def test_what_differs_from_its_description_is_data_loss(
        self, snapshots: Snapshots[Any], wrong: str
    ) -> None:
        tar = tar_of(("f", b"x"))
        values: dict[str, Any] = {
            "digest": sha256(tar),
            "diff_id": sha256(tar),
            "size_bytes": len(tar),
        }
        values[wrong] = len(tar) + 1 if wrong == "size_bytes" else sha256(b"other")
        with pytest.raises(DataLoss):
            await snapshots.apply(ApplyRequest(ref="x", **values), stream(tar))
        with pytest.raises(NotFound):
            await snapshots.commit_applied("x", name="n", parent="")

    async def test_a_truncated_layer_is_data_loss(self, snapshots: Snapshots[Any]) -> None:
        tar = tar_of(("f", b"x" * 10_000))
        with pytest.raises(DataLoss):
            await snapshots.apply(ApplyRequest(ref="x"), stream(tar[:6000]))
        with pytest.raises(DataLoss):
            await snapshots.apply(ApplyRequest(ref="x"), stream(gzip.compress(tar)[:-20]))

    async def test_a_layer_cannot_leave_its_root(self, snapshots: Snapshots[Any]) -> None:
        with pytest.raises(InvalidArgument) as caught:
            await snapshots.apply(ApplyRequest(ref="x"), stream(tar_of(("../../out", b"x"))))
        assert caught.value.code == "hostile_layer"

    async def test_a_layer_above_the_limit_is_too_large(self, snapshots: Snapshots[Any]) -> None:
        tar = tar_of(("f", b"x" * 10_000))
        with pytest.raises(TooLarge):
            await snapshots.apply(ApplyRequest(ref="x", limit_bytes=9_999), stream(tar))
        await snapshots.apply(ApplyRequest(ref="x", limit_bytes=10_000), stream(tar))

    async def test_a_failing_source_is_heard_and_leaves_nothing(
        self, snapshots: Snapshots[Any]
    ) -> None:
        async def cut() -> AsyncIterator[bytes]:
            yield tar_of(("f", b"x" * 10_000))[:2000]
            raise ConnectionError("cut")

        with pytest.raises(ConnectionError, match="cut"):
            await snapshots.apply(ApplyRequest(ref="x"), cut())
        await snapshots.apply(ApplyRequest(ref="x"), stream(tar_of(("f", b"x"))))

    async def test_a_cancelled_apply_leaves_nothing(self, snapshots: Snapshots[Any]) -> None:
        async def endless() -> AsyncIterator[bytes]:
            yield tar_of(("f", b"x" * 10_000))[:2000]
            await trio.sleep_forever()

        with trio.move_on_after(0.2):
            await snapshots.apply(ApplyRequest(ref="x"), endless())
        await snapshots.apply(ApplyRequest(ref="x"), stream(tar_of(("f", b"x"))))

    async def test_the_arriving_bytes_are_kept_and_resumed(
        self, snapshots: Snapshots[Any], tmp_path: Path
    ) -> None:
        if SnapshotsCap.TEE not in snapshots.capabilities:
            pytest.skip("needs TEE")
        packed = gzip.compress(tar_of(("f", os.urandom(50_000))), mtime=0)
        tee = tmp_path / "blob"

        async def cut() -> AsyncIterator[bytes]:
            yield packed[:20_000]
            raise ConnectionError

        request = ApplyRequest(ref="x", digest=sha256(packed), size_bytes=len(packed), tee=tee)
        with pytest.raises(ConnectionError):
            await snapshots.apply(request, cut())
        assert tee.read_bytes() == packed[:20_000]
        request = ApplyRequest(
            ref="x", digest=sha256(packed), size_bytes=len(packed), tee=tee, resume_bytes=20_000
        )
        applied = await snapshots.apply(request, stream(packed[20_000:]))
        assert applied.digest == sha256(packed)
        assert tee.read_bytes() == packed

    async def test_a_blob_that_is_here_and_verified_is_unpacked_from_its_file(
        self, snapshots: Snapshots[Any], tmp_path: Path
    ) -> None:
        if SnapshotsCap.TEE not in snapshots.capabilities:
            pytest.skip("needs TEE")
        plain = tar_of(("f", os.urandom(50_000)))
        for number, blob in enumerate((gzip.compress(plain, mtime=0), plain)):
            tee = tmp_path / f"blob{number}"
            tee.write_bytes(blob)
            request = ApplyRequest(
                ref=f"x{number}",
                digest=sha256(blob),
                size_bytes=len(blob),
                diff_id=sha256(plain),
                tee=tee,
                resume_bytes=len(blob),
                verified=True,
            )
            applied = await snapshots.apply(request, stream(b""))
            assert (applied.digest, applied.diff_id) == (sha256(blob), sha256(plain))
            assert tee.read_bytes() == blob
        wrong = attrs.evolve(request, ref="y", diff_id=sha256(b""))
        with pytest.raises(DataLoss):
            await snapshots.apply(wrong, stream(b""))

    async def test_a_layer_in_use_stays(self, snapshots: Snapshots[Any]) -> None:
        base = await self.add(snapshots, tar_of(("f", b"1")))
        top = await self.add(snapshots, tar_of(("g", b"2")), base)
        with pytest.raises(Conflict):
            await snapshots.remove_layer(base)
        await snapshots.prepare("a", top)
        with pytest.raises(Conflict):
            await snapshots.remove_layer(top)
        await snapshots.remove("a")
        async with snapshots.view(top):
            with pytest.raises(Conflict):
                await snapshots.remove_layer(top)
        await snapshots.remove_layer(top)
        await snapshots.remove_layer(base)
        assert await snapshots.layers() == []
        with pytest.raises(NotFound):
            await snapshots.stat(base)

    async def test_what_is_missing_is_not_found(self, snapshots: Snapshots[Any]) -> None:
        with pytest.raises(NotFound):
            await snapshots.stat("absent")
        with pytest.raises(NotFound):
            await snapshots.prepare("a", "absent")
        with pytest.raises(NotFound):
            async with snapshots.view("absent"):
                pass
        with pytest.raises(NotFound):
            await snapshots.commit("absent", parent="")
        with pytest.raises(NotFound):
            await snapshots.usage("absent")
        with pytest.raises(NotFound):
            await snapshots.mount("absent", Path("/nowhere"))
        await snapshots.unmount("absent")
        await snapshots.remove("absent")

    # Snapshots

    async def test_a_snapshot_is_written_through_its_mount(
        self, snapshots: Snapshots[Any], tmp_path: Path
    ) -> None:
        base = await self.add(snapshots, tar_of(("d", None), ("d/a", b"1"), ("d/b", b"1")))
        target = tmp_path / "deep" / "root"
        await snapshots.prepare("a", base)
        await snapshots.mount("a", target)
        await snapshots.mount("a", target)
        (target / "d" / "a").write_text("changed")
        (target / "d" / "b").unlink()
        (target / "new").write_text("12345")
        await snapshots.unmount("a")
        await snapshots.unmount("a")
        async with snapshots.view(base) as folder:
            assert files_in(folder) == {"d/": "", "d/a": "1", "d/b": "1"}
        await snapshots.mount("a", target)
        assert files_in(target) == {"d/": "", "d/a": "changed", "new": "12345"}
        assert await snapshots.changes("a") == [
            Change(path="/d", kind=0),
            Change(path="/d/a", kind=0),
            Change(path="/d/b", kind=2),
            Change(path="/new", kind=1),
        ]
        assert await snapshots.usage("a") == 12
        await snapshots.remove("a")
        assert files_in(target) == {}
        with pytest.raises(NotFound):
            await snapshots.usage("a")
        await snapshots.prepare("a", base)

    async def test_a_key_is_taken_once(self, snapshots: Snapshots[Any]) -> None:
        await snapshots.prepare("a", "")
        with pytest.raises(Conflict):
            await snapshots.prepare("a", "")
        await snapshots.prepare("b", "")

    async def test_two_prepares_of_one_key_one_wins(self, snapshots: Snapshots[Any]) -> None:
        conflicts = 0

        async def prepare() -> None:
            nonlocal conflicts
            try:
                await snapshots.prepare("a", "")
            except Conflict:
                conflicts += 1

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(prepare)
        assert conflicts == 4

    async def test_snapshots_of_one_layer_do_not_see_each_other(
        self, snapshots: Snapshots[Any], tmp_path: Path
    ) -> None:
        base = await self.add(snapshots, tar_of(("f", b"1")))
        for key in ("a", "b"):
            await snapshots.prepare(key, base)
            await snapshots.mount(key, tmp_path / key)
        (tmp_path / "a" / "f").write_text("a")
        assert (tmp_path / "b" / "f").read_text() == "1"

    async def test_a_snapshot_is_mounted_in_one_place(
        self, snapshots: Snapshots[Any], tmp_path: Path
    ) -> None:
        await snapshots.prepare("a", "")
        await snapshots.mount("a", tmp_path / "one")
        with pytest.raises(Conflict):
            await snapshots.mount("a", tmp_path / "two")

    async def test_who_mounts_may_have_work_done_on_what_is_mounted(
        self, snapshots: Snapshots[Any], tmp_path: Path
    ) -> None:
        base = await self.add(snapshots, tar_of(("f", b"1")))
        target, seen = tmp_path / "root", list[dict[str, str]]()

        def look(folder: Path) -> None:
            seen.append(files_in(folder))
            (folder / f"mark{len(seen)}").touch()

        await snapshots.prepare("a", base)
        await snapshots.mount("a", target, then=look)
        await snapshots.mount("a", target, then=look)
        assert seen == [{"f": "1"}, {"f": "1", "mark1": ""}]
        with pytest.raises(Conflict):
            await snapshots.mount("a", tmp_path / "two", then=look)
        assert files_in(target) == {"f": "1", "mark1": "", "mark2": ""}

    async def test_what_was_written_becomes_a_layer(
        self, snapshots: Snapshots[Any], tmp_path: Path
    ) -> None:
        base = await self.add(snapshots, tar_of(("d", None), ("d/a", b"1"), ("d/b", b"1")))
        target = tmp_path / "root"
        await snapshots.prepare("a", base)
        await snapshots.mount("a", target, volatile=True)
        (target / "d" / "b").unlink()
        (target / "d" / "c").write_text("new")
        (target / "e").mkdir()
        (target / "e" / "deep").write_text("x")
        await snapshots.unmount("a")
        layer = await snapshots.commit("a", parent=base)
        assert layer.name == chain_ids([base, layer.diff_id])[1]
        assert layer.parent == base
        assert layer.size_bytes == 4
        assert await snapshots.stat(layer.name) == layer
        with pytest.raises(NotFound):
            await snapshots.usage("a")
        async with snapshots.view(layer.name) as folder:
            expected = {"d/": "", "d/a": "1", "d/c": "new", "e/": "", "e/deep": "x"}
            assert files_in(folder) == expected
        async with snapshots.export(layer.name) as pieces:
            tar = b"".join([piece async for piece in pieces])
        assert sha256(tar) == layer.diff_id
        with tarfile.open(fileobj=io.BytesIO(tar)) as file:
            assert file.getnames() == ["d", "d/.wh.b", "d/c", "e", "e/deep"]

    async def test_a_committed_layer_can_be_packed_and_applied_again(
        self, snapshots: Snapshots[Any], tmp_path: Path
    ) -> None:
        await snapshots.prepare("a", "")
        await snapshots.mount("a", tmp_path / "root")
        (tmp_path / "root" / "f").write_text("x" * 1000)
        await snapshots.unmount("a")
        layer = await snapshots.commit("a", parent="")
        digest, size = await snapshots.compress(layer.name, tmp_path / "blob")
        packed = (tmp_path / "blob").read_bytes()
        assert (sha256(packed), len(packed)) == (digest, size)
        assert sha256(gzip.decompress(packed)) == layer.diff_id
        request = ApplyRequest(ref="x", digest=digest, diff_id=layer.diff_id)
        await snapshots.apply(request, stream(packed))
        again = await snapshots.commit_applied("x", name="other", parent="")
        async with snapshots.view(again.name) as folder:
            assert files_in(folder) == {"f": "x" * 1000}

    async def test_the_same_content_is_the_same_layer(
        self, snapshots: Snapshots[Any], tmp_path: Path
    ) -> None:
        made = []
        for key in ("a", "b"):
            await snapshots.prepare(key, "")
            await snapshots.mount(key, tmp_path / key)
            file = tmp_path / key / "f"
            file.write_text("same")
            os.utime(file, (1_700_000_000, 1_700_000_000))
            await snapshots.unmount(key)
            made.append(await snapshots.commit(key, parent=""))
        assert made[0] == made[1]
        assert len(await snapshots.layers()) == 1

    async def test_a_snapshot_is_committed_on_its_own_parent(
        self, snapshots: Snapshots[Any]
    ) -> None:
        base = await self.add(snapshots, tar_of(("f", b"1")))
        await snapshots.prepare("a", base)
        with pytest.raises(InvalidArgument):
            await snapshots.commit("a", parent="")
        await snapshots.commit("a", parent=base)

    async def test_what_was_written_on_nothing_may_stand_on_any_layer(
        self, snapshots: Snapshots[Any], tmp_path: Path
    ) -> None:
        base = await self.add(snapshots, tar_of(("d", None), ("d/a", b"1")))
        await snapshots.prepare("a", "")
        await snapshots.mount("a", tmp_path / "root", volatile=True)
        (tmp_path / "root" / "d").mkdir()
        (tmp_path / "root" / "d" / "b").write_text("2")
        await snapshots.unmount("a")
        layer = await snapshots.commit("a", parent=base)
        assert layer.parent == base
        async with snapshots.view(layer.name) as folder:
            assert files_in(folder) == {"d/": "", "d/a": "1", "d/b": "2"}

    async def test_layers_and_snapshots_survive_a_restart(
        self, config: Any, fake_host: FakeHost, tmp_path: Path
    ) -> None:
        target = tmp_path / "root"
        async with self.driver.open(config, fake_host) as snapshots:
            base = await self.add(snapshots, tar_of(("f", b"1")))
            await snapshots.prepare("a", base)
            await snapshots.mount("a", target)
            (target / "g").write_text("2")
            await snapshots.apply(ApplyRequest(ref="half"), stream(tar_of(("h", b"3"))))
        async with self.driver.open(config, fake_host) as snapshots:
            try:
                await snapshots.recover()
                assert [layer.name for layer in await snapshots.layers()] == [base]
                assert await snapshots.keys() == ["a"]
                assert files_in(target) == {"f": "1", "g": "2"}
                await snapshots.mount("a", target)
                with pytest.raises(NotFound):
                    await snapshots.commit_applied("half", name="n", parent="")
                await snapshots.unmount("a")
                assert files_in(target) == {}
            finally:
                with contextlib.suppress(NotFound):
                    await snapshots.remove("a")
            assert await snapshots.keys() == []

    async def test_gc_removes_what_is_not_known(
        self, snapshots: Snapshots[Any], tmp_path: Path
    ) -> None:
        base = await self.add(snapshots, tar_of(("f", b"1")))
        top = await self.add(snapshots, tar_of(("g", b"1")), base)
        other = await self.add(snapshots, tar_of(("h", b"1")), base)
        await snapshots.prepare("a", top)
        await snapshots.prepare("b", other)
        removed = await snapshots.gc(["a"])
        assert set(removed) == {"b", other}
        assert {layer.name for layer in await snapshots.layers()} == {base, top}

    # Files of containers

    @pytest.fixture
    async def tree(
        self, snapshots: Snapshots[Any], tmp_path: Path
    ) -> AsyncIterator[tuple[Tree, Path]]:
        """A mounted root with ``/etc/name`` and a volume at ``/data``; and the volume's folder."""
        top = await self.add(snapshots, tar_of(("etc", None), ("etc/name", b"old"), ("data", None)))
        await snapshots.prepare("box", top)
        await snapshots.mount("box", tmp_path / "root")
        volume = tmp_path / "volume"
        volume.mkdir()
        mounts = (TreeMount(destination="/data", source=str(volume)),)
        yield Tree(folder=tmp_path / "root", mounts=mounts), volume
        await snapshots.remove("box")

    async def packed(self, snapshots: Snapshots[Any], tree: Tree, path: str) -> dict[str, bytes]:
        """Names and contents of what a path gives."""
        async with snapshots.read_path(tree, path) as (_, source):
            data = b"".join([piece async for piece in source])
        found = {}
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for info in tar:
                file = tar.extractfile(info)
                found[info.name] = file.read() if file is not None else b""
        return found

    async def test_a_path_says_what_it_is(
        self, snapshots: Snapshots[Any], tree: tuple[Tree, Path]
    ) -> None:
        root, _ = tree
        found = await snapshots.stat_path(root, "/etc/name")
        assert (found.name, found.size_bytes, stat.S_ISREG(found.mode)) == ("name", 3, True)
        (root.folder / "link").symlink_to("/etc/name")
        link = await snapshots.stat_path(root, "link")
        assert stat.S_ISLNK(link.mode)
        assert link.link_target == "/etc/name"
        for path in ("/none", "/etc/name/", "/etc/name/below"):
            with pytest.raises(NotFound) as caught:
                await snapshots.stat_path(root, path)
            assert caught.value.code == "path_not_found"

    async def test_a_path_is_packed_under_its_last_part(
        self, snapshots: Snapshots[Any], tree: tuple[Tree, Path]
    ) -> None:
        root, volume = tree
        (volume / "of-volume").write_bytes(b"v")
        assert await self.packed(snapshots, root, "/etc/name") == {"name": b"old"}
        assert await self.packed(snapshots, root, "/etc") == {"etc": b"", "etc/name": b"old"}
        assert (await self.packed(snapshots, root, "/data"))["data/of-volume"] == b"v"
        whole = await self.packed(snapshots, Tree(folder=root.folder), "")
        assert whole == {"data": b"", "etc": b"", "etc/name": b"old"}

    async def test_a_tar_is_unpacked_into_a_folder(
        self, snapshots: Snapshots[Any], tree: tuple[Tree, Path]
    ) -> None:
        root, volume = tree
        data = gzip.compress(tar_of(("new", None), ("new/.wh.file", b"x"), ("name", b"new")))
        await snapshots.write_path(root, "/etc", stream(data))
        assert (root.folder / "etc/name").read_bytes() == b"new"
        assert (root.folder / "etc/new/.wh.file").read_bytes() == b"x"
        await snapshots.write_path(root, "/data", stream(tar_of(("f", b"v"))))
        assert (volume / "f").read_bytes() == b"v"

    async def test_links_stay_inside_the_root(
        self, snapshots: Snapshots[Any], tree: tuple[Tree, Path], tmp_path: Path
    ) -> None:
        root, _ = tree
        outside = tmp_path / "outside"
        outside.mkdir()
        (root.folder / "out").symlink_to(outside)
        (root.folder / "up").symlink_to("../../../../etc")
        with pytest.raises(NotFound):
            await snapshots.write_path(root, "/out", stream(tar_of(("f", b"x"))))
        await snapshots.write_path(root, "/up", stream(tar_of(("f", b"x"))))
        assert (root.folder / "etc/f").read_bytes() == b"x"
        with pytest.raises(InvalidArgument):
            await snapshots.write_path(root, "/etc", stream(tar_of(("../../f", b"x"))))
        assert list(outside.iterdir()) == []

    async def test_what_may_not_be_written_is_refused(
        self, snapshots: Snapshots[Any], tree: tuple[Tree, Path]
    ) -> None:
        root, volume = tree
        closed = Tree(
            folder=root.folder,
            mounts=(
                TreeMount(destination="/data", source=str(volume), read_only=True),
                TreeMount(destination="/etc", source=str(volume)),
            ),
            read_only=True,
        )
        for path in ("/", "/data"):
            with pytest.raises(PermissionDenied) as caught:
                await snapshots.write_path(closed, path, stream(tar_of(("f", b"x"))))
            assert caught.value.code == "read_only"
            with pytest.raises(PermissionDenied):
                await snapshots.remove_paths(closed, path, ["f"])
        await snapshots.write_path(closed, "/etc", stream(tar_of(("f", b"x"))))
        assert (volume / "f").read_bytes() == b"x"

    async def test_files_and_empty_folders_are_removed(
        self, snapshots: Snapshots[Any], tree: tuple[Tree, Path]
    ) -> None:
        root, volume = tree
        entries = (
            ("sub", None),
            ("sub/a", b"a"),
            ("sub/b", b"b"),
            ("full", None),
            ("full/x", b"x"),
        )
        await snapshots.write_path(root, "/etc", stream(tar_of(*entries)))
        (root.folder / "etc/link").symlink_to("/etc/full")
        names = ["sub/b", "sub/a", "sub", "full", "link", "none", "name/below"]
        assert list(await snapshots.remove_paths(root, "/etc", names)) == ["full"]
        assert sorted(each.name for each in (root.folder / "etc").iterdir()) == ["full", "name"]
        assert (root.folder / "etc/full/x").read_bytes() == b"x"
        (volume / "f").write_bytes(b"v")
        assert not await snapshots.remove_paths(root, "/data", ["f"])
        assert not (volume / "f").exists()
        with pytest.raises(InvalidArgument) as caught:
            await snapshots.remove_paths(root, "/etc", ["../data"])
        assert caught.value.code == "hostile_path"
        with pytest.raises(NotFound):
            await snapshots.remove_paths(root, "/none", ["x"])

    async def test_kinds_are_kept_if_asked(
        self, snapshots: Snapshots[Any], tree: tuple[Tree, Path]
    ) -> None:
        root, _ = tree
        for entry in (("etc", b"a file"), ("etc/name", None)):
            with pytest.raises(InvalidArgument, match="cannot overwrite") as caught:
                await snapshots.write_path(root, "/", stream(tar_of(entry)), keep_kind=True)
            assert caught.value.code == "other_kind"
        await snapshots.write_path(root, "/", stream(tar_of(("etc", b"a file"))))
        assert (root.folder / "etc").read_bytes() == b"a file"
        with pytest.raises(InvalidArgument) as caught:
            await snapshots.write_path(root, "/etc", stream(tar_of(("f", b"x"))))
        assert caught.value.code == "not_a_folder"

    async def test_a_truncated_tar_is_said_to_be(
        self, snapshots: Snapshots[Any], tree: tuple[Tree, Path]
    ) -> None:
        root, _ = tree
        data = tar_of(("f", b"x" * 5000))
        with pytest.raises(DataLoss):
            await snapshots.write_path(root, "/etc", stream(data[:2000]))

    async def test_a_kept_snapshot_goes_on_after_its_commit(
        self, snapshots: Snapshots[Any], tree: tuple[Tree, Path]
    ) -> None:
        root, _ = tree
        parent = (await snapshots.layers())[0].name
        (root.folder / "etc/name").unlink()
        (root.folder / "stub").mkdir()
        (root.folder / "new").write_bytes(b"of the snapshot")
        layer = await snapshots.commit("box", parent=parent, keep=True, ignore=("/stub", "/new"))
        (root.folder / "new").write_bytes(b"changed later")
        assert "box" in await snapshots.keys()
        async with snapshots.view(layer.name) as folder:
            assert files_in(folder) == {"data/": "", "etc/": "", "new": "of the snapshot"}
        again = await snapshots.commit("box", parent=parent)
        assert again.name != layer.name
