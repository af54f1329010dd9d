"""Sparse files as GNU tar packs them, in all its formats."""

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from linkspan.plugins.overlay_snapshots.config import OverlaySnapshotsConfig
from linkspan.plugins.overlay_snapshots.driver import OverlaySnapshots
from linkspan.sdk.drivers.snapshots import ApplyRequest
from linkspan.sdk.errors import DataLoss, InvalidArgument, TooLarge
from linkspan.sdk.testing.host import FakeHost

FORMATS = {
    "old GNU": ["--format=gnu"],
    "PAX 0.0": ["--format=pax", "--sparse-version=0.0"],
    "PAX 0.1": ["--format=pax", "--sparse-version=0.1"],
    "PAX 1.0": ["--format=pax", "--sparse-version=1.0"],
}


async def pieces(data: bytes, piece: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), piece):
        yield data[start : start + piece]


def sparse_file(path: Path, segments: int, size: int) -> None:
    with path.open("wb") as file:
        for number in range(segments):
            file.seek(number * 65536)
            file.write(b"%06d" % number * 100)
        file.truncate(size)


async def packed(folder: Path, name: str, options: list[str]) -> bytes:
    done = await trio.run_process(
        ["tar", "-C", folder, "--sparse", *options, "-cf", "-", name], capture_stdout=True
    )
    return bytes(done.stdout)


@pytest.mark.parametrize("segments", [0, 1, 3, 200])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.system
async def test_sparse_files_keep_content_and_holes(
    fake_host: FakeHost, tmp_path: Path, form: str, segments: int
) -> None:
    source = tmp_path / "sparse"
    sparse_file(source, segments, 40 << 20)
    tar = await packed(tmp_path, "sparse", FORMATS[form])
    assert len(tar) < 2 << 20
    async with OverlaySnapshots.open(OverlaySnapshotsConfig(), fake_host) as snapshots:
        for piece in (65536, 777):
            ref = str(piece)
            applied = await snapshots.apply(ApplyRequest(ref=ref), pieces(tar, piece))
            assert applied.unpacked_bytes == 40 << 20
            await snapshots.commit_applied(ref, name=ref, parent="")
            async with snapshots.view(ref) as root:
                unpacked = root / "sparse"
                assert unpacked.read_bytes() == source.read_bytes()
                assert unpacked.stat().st_blocks * 512 < 2 << 20
                assert int(unpacked.stat().st_mtime) == int(source.stat().st_mtime)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.system
async def test_the_limit_counts_the_real_size(
    fake_host: FakeHost, tmp_path: Path, form: str
) -> None:
    sparse_file(tmp_path / "sparse", 1, 100 << 30)
    tar = await packed(tmp_path, "sparse", FORMATS[form])
    async with OverlaySnapshots.open(OverlaySnapshotsConfig(), fake_host) as snapshots:
        with pytest.raises(TooLarge):
            await snapshots.apply(ApplyRequest(ref="x"), pieces(tar))


@pytest.mark.system
async def test_a_map_that_contradicts_itself_is_refused(
    fake_host: FakeHost, tmp_path: Path
) -> None:
    sparse_file(tmp_path / "sparse", 3, 1 << 20)
    tar = await packed(tmp_path, "sparse", FORMATS["PAX 0.1"])
    assert b"GNU.sparse.map=0,4096" in tar
    broken = tar.replace(b"GNU.sparse.map=0,4096", b"GNU.sparse.map=9,4096")
    async with OverlaySnapshots.open(OverlaySnapshotsConfig(), fake_host) as snapshots:
        await snapshots.apply(ApplyRequest(ref="whole"), pieces(tar))
        await snapshots.apply(ApplyRequest(ref="moved"), pieces(broken))
        longer = tar.replace(b"GNU.sparse.map=0,4096", b"GNU.sparse.map=0,4097")
        with pytest.raises(InvalidArgument, match="does not fit"):
            await snapshots.apply(ApplyRequest(ref="longer"), pieces(longer))
        with pytest.raises(DataLoss):
            await snapshots.apply(ApplyRequest(ref="cut"), pieces(tar[:4000]))


def test_gnu_tar_is_here() -> None:
    assert b"GNU tar" in subprocess.run(["tar", "--version"], capture_output=True).stdout
