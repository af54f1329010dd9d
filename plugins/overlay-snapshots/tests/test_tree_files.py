"""Files of containers beyond the contract's kit: owners, kinds of files, processes, hostile tars. Needs root."""

import gzip
import io
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trio

from linkspan.plugins.overlay_snapshots.config import OverlaySnapshotsConfig
from linkspan.plugins.overlay_snapshots.driver import OverlaySnapshots
from linkspan.sdk.errors import DataLoss, InvalidArgument, LinkspanError, NotFound
from linkspan.sdk.model.files import Tree, TreeMount
from linkspan.sdk.testing.host import FakeHost
from linkspan.sdk.testing.lending import lent

pytestmark = pytest.mark.system

# Makes a mount namespace whose root is the given folder, with a tmpfs and a /proc, says so, and waits.
_PROCESS = """
import ctypes, os, sys, time
root = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, target, kind, flags=0):
    if libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None):
        raise OSError(ctypes.get_errno(), target)
assert libc.unshare(0x20000) == 0
mount("none", "/", "", 0x4000 | 1 << 18)
mount(root, root, "", 4096)
for name in ("mem", "proc", "old"):
    os.makedirs(os.path.join(root, name), exist_ok=True)
mount("tmpfs", os.path.join(root, "mem"), "tmpfs")
mount("proc", os.path.join(root, "proc"), "proc")
os.chdir(root)
assert libc.syscall(155, b".", b"old") == 0
os.chdir("/")
assert libc.umount2(b"/old", 2) == 0
open("/mem/here", "w").write("in memory")
print("ready", flush=True)
time.sleep(600)
"""


class Files:
    """A tar under way."""

    def __init__(self) -> None:
        self.buffer = io.BytesIO()
        self.tar = tarfile.TarFile(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name: str, data: bytes = b"", **fields: object) -> "Files":
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for key, value in fields.items():
            setattr(info, key, value)
        self.tar.addfile(info, io.BytesIO(data))
        return self

    async def stream(self) -> AsyncIterator[bytes]:
        self.tar.close()
        data = self.buffer.getvalue()
        for start in range(0, len(data), 700):
            await trio.lowlevel.checkpoint()
            yield data[start : start + 700]


@pytest.fixture
async def snapshots(fake_host: FakeHost) -> AsyncIterator[OverlaySnapshots]:
    async with OverlaySnapshots.open(OverlaySnapshotsConfig(), fake_host) as driver:
        await driver.recover()
        yield driver


@pytest.fixture
async def root(snapshots: OverlaySnapshots, tmp_path: Path) -> AsyncIterator[Path]:
    folder = tmp_path / "root"
    await snapshots.prepare("box", "")
    await snapshots.mount("box", folder)
    (folder / "etc").mkdir()
    (folder / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n")
    (folder / "etc/group").write_text("root:x:0:\nstaff:x:50:\n")
    yield folder
    await snapshots.remove("box")


@pytest.fixture
def process(root: Path) -> Iterator[int]:
    """A process whose root it is."""
    with subprocess.Popen(
        [sys.executable, "-c", _PROCESS, str(root)], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        yield running.pid
        running.kill()


async def packed(snapshots: OverlaySnapshots, tree: Tree, path: str) -> dict[str, tarfile.TarInfo]:
    async with snapshots.read_path(tree, path) as (_, source):
        data = b"".join([piece async for piece in source])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {info.name: info for info in tar}


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        ("", (7, 8)),
        ("app", (1000, 1001)),
        ("1000", (1000, 1001)),
        ("app:staff", (1000, 50)),
        ("42:43", (42, 43)),
        ("42", (42, 0)),
    ],
)
async def test_files_belong_to_whom_they_shall(
    snapshots: OverlaySnapshots, root: Path, owner: str, expected: tuple[int, int]
) -> None:
    (root / "old").write_bytes(b"x")
    os.chown(root / "old", 5, 5)
    files = Files().add("new", b"x", uid=7, gid=8).add("old", b"y", uid=7, gid=8)
    files.add("folder", type=tarfile.DIRTYPE, mode=0o755, uid=7, gid=8)
    await snapshots.write_path(Tree(folder=root), "/", files.stream(), owner=owner)
    for name in ("new", "old", "folder"):
        status = (root / name).lstat()
        assert (status.st_uid, status.st_gid) == expected


async def test_an_owner_whom_nobody_knows_is_refused(
    snapshots: OverlaySnapshots, root: Path
) -> None:
    files = Files().add("f", b"x")
    with pytest.raises(InvalidArgument, match="no entry for 'nobody-here'"):
        await snapshots.write_path(Tree(folder=root), "/", files.stream(), owner="nobody-here")
    assert not (root / "f").exists()


async def test_all_kinds_of_files_go_out_and_in_again(
    snapshots: OverlaySnapshots, root: Path
) -> None:
    source = root / "a"
    source.mkdir(mode=0o1777)
    (source / "file").write_bytes(os.urandom(300_000))
    (source / "file").chmod(0o4751)
    os.setxattr(source / "file", "user.note", b"kept")
    os.link(source / "file", source / "same")
    os.mkfifo(source / "pipe")
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (source / "link").symlink_to("/etc/passwd")
    (source / os.fsdecode(b"\xff name\n")).write_bytes(b"")
    (source / ("long" * 60)).write_bytes(b"x")
    tree = Tree(folder=root)
    (root / "b").mkdir()
    async with snapshots.read_path(tree, "/a/.") as (found, archive):
        assert stat.S_ISDIR(found.mode)
        await snapshots.write_path(tree, "/b", archive)

    def described(folder: Path) -> dict[str, tuple[int, int, bytes]]:
        out = {}
        for path in folder.iterdir():
            status = path.lstat()
            data = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            data += os.fsencode(path.readlink()) if path.is_symlink() else b""
            out[path.name] = (status.st_mode, status.st_rdev, data)
        return out

    assert described(root / "b") == described(source)
    assert os.getxattr(root / "b/file", "user.note") == b"kept"
    assert (root / "b/same").samefile(root / "b/file")


async def test_a_process_shows_its_tmpfs_and_nothing_that_the_kernel_makes_up(
    snapshots: OverlaySnapshots, root: Path, process: int
) -> None:
    tree = Tree(folder=root, pid=process, mounts=(TreeMount(destination="/mem"),))
    whole = await packed(snapshots, tree, "/")
    assert "/mem/here" in whole
    assert "/proc" in whole
    assert not any(name.startswith("/proc/") for name in whole)
    await snapshots.write_path(tree, "/mem", Files().add("more", b"x").stream())
    assert (await snapshots.stat_path(tree, "/mem/more")).size_bytes == 1
    # Without the process there is only the folder below.
    with pytest.raises(NotFound):
        await snapshots.stat_path(Tree(folder=root, mounts=tree.mounts), "/mem/more")
    assert Path(f"/proc/{process}/root/proc/self").is_symlink()


async def test_a_process_of_another_root_is_not_believed(
    snapshots: OverlaySnapshots, root: Path
) -> None:
    tree = Tree(folder=root, pid=os.getpid())
    await snapshots.write_path(tree, "/", Files().add("inside", b"x").stream())
    assert (root / "inside").exists()
    assert not Path("/inside").exists()
    # Nor is one that has ended.
    ended = await trio.lowlevel.open_process(["true"])
    await ended.wait()
    await snapshots.stat_path(Tree(folder=root, pid=ended.pid), "/inside")


@pytest.mark.parametrize(
    "files",
    [
        Files().add("../../outside", b"x"),
        Files().add("d", type=tarfile.SYMTYPE, linkname="/nowhere").add("d/outside", b"x"),
        Files().add("h", type=tarfile.LNKTYPE, linkname="../../outside"),
        Files().add("h", type=tarfile.LNKTYPE, linkname="missing"),
        Files().add("w", type=tarfile.CHRTYPE, devmajor=0, devminor=0),
        Files().add("etc", type=b"Z"),
    ],
    ids=["name", "link", "hard-link", "missing", "whiteout", "kind"],
)
async def test_hostile_tars_are_refused(
    snapshots: OverlaySnapshots, root: Path, tmp_path: Path, files: Files
) -> None:
    (tmp_path / "outside").write_text("untouched")
    with pytest.raises(LinkspanError):
        await snapshots.write_path(Tree(folder=root), "/etc", files.stream())
    assert (tmp_path / "outside").read_text() == "untouched"
    assert sorted(p.name for p in (root / "etc").iterdir() if not p.is_symlink()) == [
        "group",
        "passwd",
    ]


async def test_large_files_arrive_whole_whatever_the_pieces(
    snapshots: OverlaySnapshots, root: Path
) -> None:
    files, contents = Files(), {}
    for number, size in enumerate((65_535, 65_536, 1, 3_000_001, 0, 1 << 20, 2_000_000)):
        contents[f"f{number}"] = os.urandom(size)
        files.add(f"f{number}", contents[f"f{number}"])
    whole = b"".join([piece async for piece in files.stream()])
    for step in (70_001, 1_000_000, len(whole)):

        async def pieces(step: int = step) -> AsyncIterator[bytes]:
            for start in range(0, len(whole), step):
                yield whole[start : start + step]

        await snapshots.write_path(Tree(folder=root), "/", pieces())
        assert {name: (root / name).read_bytes() for name in contents} == contents
        for name in contents:
            (root / name).unlink()
    with pytest.raises(DataLoss, match="f3"):
        await snapshots.write_path(Tree(folder=root), "/", _one(whole[:1_000_000]))


async def test_a_client_that_stops_leaves_no_child(snapshots: OverlaySnapshots, root: Path) -> None:
    (root / "big").write_bytes(bytes(20_000_000))
    async with snapshots.read_path(Tree(folder=root), "/big") as (_, archive):
        assert await anext(archive)
    with trio.move_on_after(0.2) as scope:

        async def endless() -> AsyncIterator[bytes]:
            yield bytes(512)
            await trio.sleep_forever()

        await snapshots.write_path(Tree(folder=root), "/", endless())
    assert scope.cancelled_caught
    with pytest.raises(DataLoss):
        await snapshots.write_path(Tree(folder=root), "/", _one(b"no tar" * 200))


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
async def test_a_source_that_is_lent_is_unpacked_like_any_other(
    snapshots: OverlaySnapshots, root: Path, pack: Callable[[bytes], bytes]
) -> None:
    large, small = os.urandom(1_000_001), b"small"
    files = Files().add("first", small).add("large", large).add("last", small)
    files.tar.close()
    async with lent(pack(files.buffer.getvalue())) as source:
        await snapshots.write_path(Tree(folder=root), "/", source)
    (report,) = source.reports
    assert report["framing"]["done"]
    found = {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}
    assert found == found | {"first": small, "large": large, "last": small}


async def test_a_lent_source_that_breaks_off_is_told_to_its_lender(
    snapshots: OverlaySnapshots, root: Path
) -> None:
    files = Files().add("large", bytes(500_000))
    files.tar.close()
    async with lent(files.buffer.getvalue(), missing=1) as source:
        with pytest.raises(ConnectionError, match="gone"):
            await snapshots.write_path(Tree(folder=root), "/", source)


async def test_a_lent_source_of_nonsense_is_refused(
    snapshots: OverlaySnapshots, root: Path
) -> None:
    async with lent(b"no tar" * 1000) as source:
        with pytest.raises(DataLoss):
            await snapshots.write_path(Tree(folder=root), "/", source)
