import errno
import os
import socket
import stat
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from linkspan.plugins.local_volumes import copying, mounting
from linkspan.plugins.local_volumes.driver import LocalVolumes
from linkspan.plugins.local_volumes.store import VolumeFolders
from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound, OutOfSpace
from linkspan.sdk.model.volume import VolumeSpec
from linkspan.sdk.testing.conformance.volume import VolumeConformance
from linkspan.sdk.testing.host import FakeHost


class TestLocalVolumes(VolumeConformance):
    driver = LocalVolumes

    @pytest.fixture
    def options(self, tmp_path: Path) -> Mapping[str, str]:
        return {"type": "none", "o": "bind", "device": str(tmp_path)}


@pytest.fixture
async def volumes(fake_host: FakeHost) -> AsyncIterator[LocalVolumes]:
    async with LocalVolumes.open(NoConfig(), fake_host) as driver:
        await driver.recover()
        yield driver


# --- names


async def test_a_name_that_no_folder_can_have_is_refused_and_not_found(
    volumes: LocalVolumes,
) -> None:
    longest = "a" * 255
    assert (await volumes.create(VolumeSpec(name=longest))).name == longest
    await volumes.remove(longest)
    with pytest.raises(InvalidArgument, match="too long"):
        await volumes.create(VolumeSpec(name=longest + "a"))
    with pytest.raises(NotFound):
        await volumes.get(longest + "a")
    assert await volumes.list() == []


# --- options


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"type": "", "device": "", "o": ""}, None),
        (
            {"type": "none", "o": "bind,ro", "device": "/srv"},
            mounting.DeviceMount(fstype="none", device="/srv", flags=4096 | 1, data=""),
        ),
        (
            {"type": "ext4", "device": "/dev/sdz1", "o": "noatime,commit=5"},
            mounting.DeviceMount(fstype="ext4", device="/dev/sdz1", flags=1024, data="commit=5"),
        ),
        (
            {"type": "nfs", "device": ":/x", "o": "addr=10.0.0.1,rw,nfsvers=4"},
            mounting.DeviceMount(
                fstype="nfs", device=":/x", flags=0, data="addr=10.0.0.1,nfsvers=4"
            ),
        ),
        (
            {"type": "none", "device": "/srv"},
            mounting.DeviceMount(fstype="none", device="/srv", flags=4096, data=""),
        ),
        (
            {"type": "tmpfs", "device": "tmpfs", "o": "size=10m,uid=5,nosuid"},
            mounting.DeviceMount(fstype="tmpfs", device="tmpfs", flags=2, data="size=10m,uid=5"),
        ),
    ],
)
def test_options_are_read_as_docker_does(
    options: dict[str, str], expected: mounting.DeviceMount | None
) -> None:
    assert mounting.parse_options(options) == expected


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"colour": "blue"}, InvalidArgument, "colour"),
        ({"type": "tmpfs"}, InvalidArgument, 'missing required option: "device"'),
        ({"device": "/dev/sda1"}, InvalidArgument, 'missing required option: "type"'),
        ({"o": "ro"}, InvalidArgument, 'missing required option: "device"'),
        ({"size": "10m"}, InvalidArgument, "no quota support"),
        ({"o": "bind", "device": "srv"}, InvalidArgument, "absolute"),
        ({"type": "nfs", "device": ":/x"}, InvalidArgument, "address of its server"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: dict[str, str], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        mounting.parse_options(options)


# --- crashes and faults


def folders(root: Path) -> VolumeFolders:
    return VolumeFolders(root / "state", root / "run")


def test_names_never_lead_out_of_the_folder(tmp_path: Path) -> None:
    store = folders(tmp_path)
    for name in ("../evil", "a/b", ".hidden", "", "-x"):
        with pytest.raises(InvalidArgument):
            store.create(VolumeSpec(name=name), anonymous=False)
        with pytest.raises(InvalidArgument):
            store.read(name)


def test_what_a_crash_left_half_made_or_half_removed_is_cleared(tmp_path: Path) -> None:
    store = folders(tmp_path)
    store.create(VolumeSpec(name="kept"), anonymous=False)
    leftover = tmp_path / "state/making/abc/_data"
    leftover.mkdir(parents=True)
    (leftover / "file").write_text("x")
    again = folders(tmp_path)
    again.recover()
    assert [volume.name for volume in again.all()] == ["kept"]
    assert list((tmp_path / "state/making").iterdir()) == []


def test_a_copy_that_a_crash_cut_off_is_undone_and_can_be_made_again(
    tmp_path: Path,
) -> None:
    store = folders(tmp_path)
    store.create(VolumeSpec(name="data"), anonymous=False)
    store.data("data").joinpath("half").write_text("h")
    (tmp_path / "state/volumes/data/populating").touch()
    again = folders(tmp_path)
    again.recover()
    root = tmp_path / "root"
    (root / "app").mkdir(parents=True)
    (root / "app/whole").write_text("whole")
    assert again.populate("data", root, "/app")
    assert [path.name for path in again.data("data").iterdir()] == ["whole"]


def test_a_broken_record_hides_no_other_volume(tmp_path: Path) -> None:
    store = folders(tmp_path)
    store.create(VolumeSpec(name="good"), anonymous=False)
    store.create(VolumeSpec(name="bad"), anonymous=False)
    (tmp_path / "state/volumes/bad/volume.json").write_text("{")
    assert [volume.name for volume in store.all()] == ["good"]


def test_a_failed_copy_leaves_the_volume_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = folders(tmp_path)
    store.create(VolumeSpec(name="data"), anonymous=False)
    root = tmp_path / "root"
    (root / "app/sub").mkdir(parents=True)
    for name in ("a", "b", "sub/c"):
        (root / "app" / name).write_text(name)
    made: list[int] = []

    def full(source: int, target: int, size: int) -> None:
        if made:
            raise OSError(errno.ENOSPC, "No space left on device")
        made.append(target)

    monkeypatch.setattr(copying, "_copy_data", full)
    with pytest.raises(OutOfSpace):
        store.populate("data", root, "/app")
    assert list(store.data("data").iterdir()) == []
    monkeypatch.undo()
    assert store.populate("data", root, "/app")


def test_a_copy_keeps_what_belongs_to_files(tmp_path: Path) -> None:
    store = folders(tmp_path)
    store.create(VolumeSpec(name="data"), anonymous=False)
    app = tmp_path / "root/app"
    app.mkdir(parents=True)
    (app / "one").write_text("linked")
    os.link(app / "one", app / "two")
    (app / "tool").write_text("#!")
    (app / "tool").chmod(0o4755)
    os.mkfifo(app / "pipe", 0o600)
    with (app / "sparse").open("wb") as file:
        file.truncate(10 << 20)
        file.seek(5 << 20)
        file.write(b"middle")
    os.setxattr(app / "one", "user.note", b"hello")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(app / "socket"))
    listener.close()
    if os.geteuid() == 0:
        os.chown(app / "one", 1234, 2345)
    assert store.populate("data", tmp_path / "root", "/app")
    data = store.data("data")
    assert (data / "one").stat().st_ino == (data / "two").stat().st_ino
    assert (data / "one").stat().st_uid == (app / "one").stat().st_uid
    assert os.getxattr(data / "one", "user.note") == b"hello"
    assert stat.S_IMODE((data / "tool").stat().st_mode) == 0o4755
    assert stat.S_ISFIFO((data / "pipe").stat().st_mode)
    assert not (data / "socket").exists()
    assert (data / "sparse").read_bytes() == (app / "sparse").read_bytes()
    assert (data / "sparse").stat().st_blocks < 1000


# --- on real mounts


@pytest.fixture
def unmounted(tmp_path: Path) -> Iterator[Path]:
    """A folder below which nothing stays mounted."""
    yield tmp_path
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        target = line.split()[4]
        if target.startswith(str(tmp_path)):
            subprocess.run(["umount", "-l", target], check=False)


@pytest.mark.system
async def test_a_bind_volume_shows_the_hosts_folder_while_it_is_used(
    volumes: LocalVolumes, unmounted: Path
) -> None:
    source = unmounted / "srv"
    source.mkdir()
    (source / "file").write_text("host's")
    options = {"type": "none", "o": "bind,ro", "device": str(source)}
    made = await volumes.create(VolumeSpec(name="data", options=options))
    first = await volumes.mount("data", "c1")
    assert await volumes.mount("data", "c2") == first == Path(made.mountpoint)
    assert (first / "file").read_text() == "host's"
    with pytest.raises(OSError, match="Read-only"):
        (first / "new").write_text("x")
    await volumes.unmount("data", "c1")
    assert mounting.is_mounted(first)
    await volumes.unmount("data", "c2")
    assert not mounting.is_mounted(first)
    await volumes.remove("data")
    assert (source / "file").read_text() == "host's"


@pytest.mark.system
async def test_a_tmpfs_volume_has_its_size(volumes: LocalVolumes, unmounted: Path) -> None:
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=64k"}
    await volumes.create(VolumeSpec(name="scratch", options=options))
    folder = await volumes.mount("scratch", "c1")
    with pytest.raises(OSError, match="No space"):
        (folder / "big").write_bytes(b"x" * 200_000)
    await volumes.unmount("scratch", "c1")
    assert list(folder.iterdir()) == []


@pytest.mark.system
async def test_a_mount_that_fails_names_the_device(volumes: LocalVolumes, unmounted: Path) -> None:
    options = {"o": "bind", "device": str(unmounted / "missing")}
    await volumes.create(VolumeSpec(name="data", options=options))
    with pytest.raises(InvalidArgument, match="missing"):
        await volumes.mount("data", "c1")
    await volumes.remove("data")


@pytest.mark.system
async def test_a_mount_without_users_is_taken_away_at_the_next_start(
    volumes: LocalVolumes, unmounted: Path, fake_host: FakeHost
) -> None:
    await volumes.create(VolumeSpec(name="scratch", options={"type": "tmpfs", "device": "tmpfs"}))
    folder = await volumes.mount("scratch", "c1")
    (fake_host.run_dir / "users/scratch/c1").unlink()
    async with LocalVolumes.open(NoConfig(), fake_host) as second:
        await second.recover()
    assert not mounting.is_mounted(folder)


@pytest.mark.system
async def test_a_part_of_a_volume_is_mounted_by_itself(
    volumes: LocalVolumes, unmounted: Path, fake_host: FakeHost
) -> None:
    made = await volumes.create(VolumeSpec(name="data"))
    data = Path(made.mountpoint)
    (data / "in/side").mkdir(parents=True)
    (data / "in/side/file").write_text("seen")
    (data / "note").write_text("a file")
    (data / "link").symlink_to("in/side")
    (data / "out").symlink_to("/etc")
    await volumes.mount("data", "c1")
    folder = await volumes.mount_part("data", "c1", "link")
    assert (folder / "file").read_text() == "seen"
    assert (await volumes.mount_part("data", "c1", "note")).read_text() == "a file"
    for path in ("out", "../..", "in/../../x", "/etc"):
        with pytest.raises(InvalidArgument, match="leads out"):
            await volumes.mount_part("data", "c1", path)
    with pytest.raises(NotFound, match="cannot access path"):
        await volumes.mount_part("data", "c1", "missing")
    await volumes.unmount("data", "c1")
    assert list((fake_host.run_dir / "parts").iterdir()) == []
    assert (data / "in/side/file").exists()
    await volumes.remove("data")


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass


@pytest.mark.system
async def test_a_full_disk_is_told_and_leaves_nothing(unmounted: Path, nursery) -> None:  # type: ignore[no-untyped-def]
    disk = unmounted / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    host = FakeHost(root=disk, nursery=nursery)
    async with LocalVolumes.open(NoConfig(), host) as volumes:
        await volumes.create(VolumeSpec(name="first"))
        _fill(disk / "filler")
        with pytest.raises(OutOfSpace):
            await volumes.create(VolumeSpec(name="second"))
        with pytest.raises(NotFound):
            await volumes.get("second")
        assert [volume.name for volume in await volumes.list()] == ["first"]
        assert list((disk / "state/making").iterdir()) == []


async def test_users_that_no_longer_exist_do_not_hold_a_volume(volumes: LocalVolumes) -> None:
    await volumes.create(VolumeSpec(name="held"))
    await volumes.mount("held", "gone")
    await volumes.mount("held", "here")
    await volumes.gc(["here"])
    with pytest.raises(Conflict):
        await volumes.remove("held")
    await volumes.gc([])
    await volumes.remove("held")
