"""Of the kit for role ``snapshots``: layers are applied, named, and never half there."""

import gzip
import os
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
    TooLarge,
)
from linkspan.sdk.image_config import chain_ids
from linkspan.sdk.testing.conformance.snapshot_bench import (
    SnapshotsBench,
    files_in,
    sha256,
    stream,
    tar_of,
)


class LayersConformance(SnapshotsBench):
    """How layers come, and what is refused."""

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
