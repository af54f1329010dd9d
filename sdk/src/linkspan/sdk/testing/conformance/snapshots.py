"""The kit for role ``snapshots``. Subclass ``SnapshotsConformance`` and set ``driver``."""

import contextlib
import gzip
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
import trio

from linkspan.sdk.drivers.snapshots import ApplyRequest, Snapshots
from linkspan.sdk.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
)
from linkspan.sdk.image_config import chain_ids
from linkspan.sdk.model.files import Change, Tree
from linkspan.sdk.testing.conformance.snapshot_bench import files_in, sha256, stream, tar_of
from linkspan.sdk.testing.conformance.snapshot_layers import LayersConformance
from linkspan.sdk.testing.conformance.snapshot_trees import TreesConformance
from linkspan.sdk.testing.host import FakeHost


class SnapshotsConformance(LayersConformance, TreesConformance):
    """What every snapshots driver must do."""

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
