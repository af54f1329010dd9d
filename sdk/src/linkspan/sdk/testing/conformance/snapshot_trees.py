"""Of the kit for role ``snapshots``: files are read from and written to roots."""

import gzip
import io
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from linkspan.sdk.drivers.snapshots import Snapshots
from linkspan.sdk.errors import (
    DataLoss,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from linkspan.sdk.model.files import Tree, TreeMount
from linkspan.sdk.testing.conformance.snapshot_bench import SnapshotsBench, stream, tar_of


class TreesConformance(SnapshotsBench):
    """Files of containers, whether these run or not."""

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
