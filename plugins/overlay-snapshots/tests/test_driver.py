"""What the overlay driver does beyond the contract's kit. Everything needs root."""

import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from linkspan.plugins.overlay_snapshots.config import OverlaySnapshotsConfig
from linkspan.plugins.overlay_snapshots.driver import OverlaySnapshots
from linkspan.plugins.overlay_snapshots.overlay_mount import mounted_overlays
from linkspan.sdk.drivers.snapshots import ApplyRequest
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound, NotUsable, OutOfSpace
from linkspan.sdk.testing.host import FakeHost

pytestmark = pytest.mark.system


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar_of(*entries: tuple[str, Any], **fields: Any) -> bytes:
    """Files (bytes), folders (None), symlinks (str), hard links (a tuple of one) in order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.mode, info.mtime = 0o644, 1_600_000_000
            for key, value in fields.items():
                setattr(info, key, value)
            data = b""
            match content:
                case None:
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                case str():
                    info.type, info.linkname = tarfile.SYMTYPE, content
                case tuple():
                    info.type, info.linkname = tarfile.LNKTYPE, content[0]
                case _:
                    data = content
                    info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 65536):
        yield data[start : start + 65536]


async def add(snapshots: OverlaySnapshots, name: str, tar: bytes, parent: str = "") -> None:
    await snapshots.apply(ApplyRequest(ref=name), pieces(tar))
    await snapshots.commit_applied(name, name=name, parent=parent)


@pytest.fixture
async def snapshots(fake_host: FakeHost) -> AsyncIterator[OverlaySnapshots]:
    config = OverlaySnapshotsConfig(parallel=2)
    async with OverlaySnapshots.open(config, fake_host) as driver:
        await driver.recover()
        try:
            yield driver
        finally:
            with trio.CancelScope(shield=True):
                for key in ("a", "b"):
                    await driver.unmount(key)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def described(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything about a tree that a layer keeps."""
    found = {}
    for path in root.rglob("*"):
        status = path.lstat()
        facts: list[object] = [oct(status.st_mode), status.st_uid, status.st_gid, status.st_rdev]
        facts.append(int(status.st_mtime))
        if path.is_symlink():
            facts.append(path.readlink())
        elif path.is_file():
            facts += [path.read_bytes(), status.st_nlink]
        facts += [(n, os.getxattr(path, n, follow_symlinks=False)) for n in sorted(listed(path))]
        found[str(path.relative_to(root))] = tuple(facts)
    return found


def listed(path: Path) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)


async def eventually(check: Any) -> None:
    with trio.fail_after(10):
        while not check():  # noqa: ASYNC110 - files have no event
            await trio.sleep(0.02)


# Layers that do not list their folders


async def test_a_folder_that_is_not_listed_keeps_its_parents_metadata(
    snapshots: OverlaySnapshots,
) -> None:
    base = tar_of(("tmp", None), ("tmp/a", b"1"), uid=3, gid=4)
    with tarfile.open(fileobj=io.BytesIO(base)) as tar:
        assert tar.getmembers()[0].isdir()
    await add(snapshots, "base", base)
    await add(snapshots, "top", tar_of(("tmp/b", b"2"), ("new/c", b"3")), "base")
    async with snapshots.view("top") as root:
        status = (root / "tmp").stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (3, 4, 0o755)
        assert status.st_mtime == 1_600_000_000
        assert (root / "new").stat().st_mode & 0o7777 == 0o755
        assert (root / "new").stat().st_uid == 0


async def test_what_lies_behind_a_lower_symlink_is_put_there(snapshots: OverlaySnapshots) -> None:
    base = tar_of(("usr", None), ("usr/bin", None), ("usr/bin/a", b"1"), ("bin", "usr/bin"))
    await add(snapshots, "base", base)
    top = tar_of(("bin/sub/b", b"2"), ("bin/c", b"3"), ("usr/bin/d", b"4"))
    await add(snapshots, "top", top, "base")
    async with snapshots.view("top") as root:
        assert (root / "bin").readlink() == Path("usr/bin")
        assert (names_in(root / "usr" / "bin")) == ["a", "c", "d", "sub"]
        assert (root / "usr/bin/sub/b").read_text() == "2"


async def test_hard_links_to_lower_layers_share_one_copy(snapshots: OverlaySnapshots) -> None:
    base = tar_of(("d", None), ("d/t", b"text"), ("l", "nowhere"), uid=7)
    await add(snapshots, "base", base)
    top = tar_of(("one", ("d/t",)), ("e/two", ("one",)), ("three", ("l",)))
    await add(snapshots, "top", top, "base")
    async with snapshots.view("top") as root:
        names = [root / "d/t", root / "one", root / "e/two"]
        assert len({path.stat().st_ino for path in names}) == 1
        assert {path.read_text() for path in names} == {"text"}
        assert names[1].stat().st_uid == 7
        assert names[1].stat().st_mtime == 1_600_000_000
        assert (root / "three").readlink() == Path("nowhere")
        assert (root / "d").stat().st_mtime == 1_600_000_000


async def test_a_hard_link_to_what_the_layer_removes_is_refused(
    snapshots: OverlaySnapshots,
) -> None:
    await add(snapshots, "base", tar_of(("d", None), ("d/t", b"text")))
    for number, hidden in enumerate((".wh.d", "d/.wh.t", "d/.wh..wh..opq")):
        layer = tar_of((hidden, b""), ("h", ("d/t",)))
        with pytest.raises(InvalidArgument, match="missing"):
            await add(snapshots, f"top{number}", layer, "base")


# Mounts


async def test_more_layers_than_a_page_of_options_holds(
    snapshots: OverlaySnapshots, tmp_path: Path
) -> None:
    parent = ""
    for number in range(130):
        await add(snapshots, f"l{number}", tar_of((f"f{number}", b"x")), parent)
        parent = f"l{number}"
    await snapshots.prepare("a", parent)
    await snapshots.mount("a", tmp_path / "root")
    assert len(names_in(tmp_path / "root")) == 130
    (tmp_path / "root" / "f0").write_text("changed")
    assert [mount.target for mount in mounted_overlays() if mount.target == tmp_path / "root"]
    async with snapshots.view(parent) as root:
        assert (root / "f0").read_text() == "x"


async def test_many_layers_without_the_new_mount_calls(
    snapshots: OverlaySnapshots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object, **__: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("linkspan.plugins.overlay_snapshots.kernel.mount_by_steps", absent)
    parent = ""
    for number in range(60):
        await add(snapshots, f"l{number}", tar_of((f"f{number}", b"x")), parent)
        parent = f"l{number}"
    await snapshots.prepare("a", parent)
    await snapshots.mount("a", tmp_path / "root")
    assert len(names_in(tmp_path / "root")) == 60


async def test_a_snapshot_in_use_is_not_committed(
    snapshots: OverlaySnapshots, tmp_path: Path
) -> None:
    await snapshots.prepare("a", "")
    await snapshots.mount("a", tmp_path / "root")
    with (tmp_path / "root" / "f").open("w"), pytest.raises(Conflict, match="in use"):
        await snapshots.commit("a", parent="")
    await snapshots.commit("a", parent="")


async def test_a_view_is_shared_and_read_only(snapshots: OverlaySnapshots) -> None:
    await add(snapshots, "base", tar_of(("f", b"x")))
    async with snapshots.view("base") as one, snapshots.view("base") as two:
        assert one == two
        with pytest.raises(OSError, match="Read-only"):
            (one / "g").write_text("")
    assert not one.exists()


async def test_views_of_a_killed_daemon_are_unmounted(fake_host: FakeHost) -> None:
    config = OverlaySnapshotsConfig()
    async with OverlaySnapshots.open(config, fake_host) as first:
        await add(first, "base", tar_of(("f", b"x")))
        async with (
            first.view("base") as left,
            OverlaySnapshots.open(config, fake_host) as second,
        ):
            await second.recover()
            assert names_in(left.parent) == []


# Committing


async def test_commit_keeps_owners_links_attributes_and_devices(
    snapshots: OverlaySnapshots, tmp_path: Path
) -> None:
    await add(snapshots, "base", tar_of(("d", None), ("d/old", b"1"), ("gone", None)))
    root = tmp_path / "root"
    await snapshots.prepare("a", "base")
    await snapshots.mount("a", root)
    (root / "d" / "f").write_text("x" * 300_000)
    os.chown(root / "d" / "f", 5, 2_000_000_000)
    (root / "d" / "f").chmod(0o4755)
    os.setxattr(root / "d" / "f", "user.note", b"\x00\xffbinary\n")
    os.link(root / "d" / "f", root / "d" / "second")
    os.mknod(root / "dev", 0o20600, os.makedev(1, 3))
    os.mkfifo(root / "pipe")
    long = "n" * 120 + "/" + "m" * 200
    (root / long).parent.mkdir()
    (root / long).write_text("long")
    (root / "link").symlink_to("/" + "t" * 150)
    (root / "gone").rmdir()
    (root / "gone").mkdir()
    (root / "gone" / "fresh").write_text("1")
    await snapshots.unmount("a")
    layer = await snapshots.commit("a", parent="base")
    digest, _ = await snapshots.compress(layer.name, tmp_path / "blob")

    await trio.run_process(
        ["tar", "-tzf", tmp_path / "blob"], capture_stdout=True, capture_stderr=True
    )
    with tarfile.open(tmp_path / "blob") as tar:
        members = {member.name: member for member in tar.getmembers()}
        file = members["d/f"]
        assert (file.uid, file.gid, file.mode, file.size) == (5, 2_000_000_000, 0o4755, 300_000)
        assert members["d/second"].linkname == "d/f"
        assert members["d/second"].islnk()
        assert (members["dev"].devmajor, members["dev"].devminor) == (1, 3)
        assert members["pipe"].isfifo()
        assert members[long].size == 4
        assert members["link"].linkname == "/" + "t" * 150
        assert [name for name in members if ".wh." in name] == ["gone/.wh..wh..opq"]
        assert "d/old" not in members

    await snapshots.apply(
        ApplyRequest(ref="x", digest=digest, diff_id=layer.diff_id),
        pieces((tmp_path / "blob").read_bytes()),
    )
    await snapshots.commit_applied("x", name="again", parent="base")
    async with snapshots.view("again") as again, snapshots.view(layer.name) as made:
        assert described(again) == described(made)
        assert os.getxattr(again / "d/f", "user.note") == b"\x00\xffbinary\n"
        assert (again / "d/f").stat().st_ino == (again / "d/second").stat().st_ino
        assert (again / "d/f").stat().st_mode & 0o7777 == 0o4755


async def test_a_name_that_no_layer_can_have_is_refused(
    snapshots: OverlaySnapshots, tmp_path: Path
) -> None:
    await snapshots.prepare("a", "")
    await snapshots.mount("a", tmp_path / "root")
    (tmp_path / "root" / ".wh.f").write_text("")
    await snapshots.unmount("a")
    with pytest.raises(InvalidArgument, match=r"\.wh\.f"):
        await snapshots.commit("a", parent="")
    assert await snapshots.usage("a") == 0


async def test_deleted_and_replaced_folders_show_in_changes(
    snapshots: OverlaySnapshots, tmp_path: Path
) -> None:
    base = tar_of(("d", None), ("d/x", b"1"), ("d/y", b"1"), ("e", None), ("e/z", b"1"))
    await add(snapshots, "base", base)
    root = tmp_path / "root"
    await snapshots.prepare("a", "base")
    await snapshots.mount("a", root)
    for name in ("d/x", "d/y"):
        (root / name).unlink()
    (root / "d").rmdir()
    (root / "d").mkdir()
    (root / "d" / "y").write_text("2")
    (root / "e" / "tmp").write_text("")
    (root / "e" / "tmp").unlink()
    os.utime(root / "e", (1_600_000_000, 1_600_000_000))
    found = [(change.path, change.kind) for change in await snapshots.changes("a")]
    assert found == [("/d", 0), ("/d/x", 2), ("/d/y", 0)]


# Faults


async def test_a_full_disk_is_out_of_space_and_leaves_nothing(
    fake_host: FakeHost, tmp_path: Path
) -> None:
    disk = fake_host.state_dir
    await trio.run_process(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk])
    try:
        async with OverlaySnapshots.open(OverlaySnapshotsConfig(), fake_host) as snapshots:
            await snapshots.recover()
            big = tar_of(*((f"f{n}", os.urandom(1 << 20)) for n in range(10)))
            for tee in (None, disk / "blob"):
                with pytest.raises(OutOfSpace, match="disk is full"):
                    await snapshots.apply(ApplyRequest(ref="x", tee=tee), pieces(big))
            (disk / "blob").unlink()
            await eventually(lambda: not names_in(disk / "trash"))
            await add(snapshots, "small", tar_of(("f", os.urandom(5 << 20))))
            with pytest.raises(OutOfSpace):
                await snapshots.compress("small", disk / "packed")
            assert not (disk / "packed").exists()
            assert [layer.name for layer in await snapshots.layers()] == ["small"]
            assert names_in(disk / "staging") == []
    finally:
        await trio.run_process(["umount", "-l", disk])


async def test_a_pulled_layer_that_cannot_be_repeated_says_so(
    snapshots: OverlaySnapshots, tmp_path: Path
) -> None:
    await add(snapshots, "pulled", tar_of(("z", b"1"), ("a", b"2")))
    with pytest.raises(Exception, match="cannot be packed again"):
        await snapshots.compress("pulled", tmp_path / "blob")
    assert not (tmp_path / "blob").exists()
    async with snapshots.export("pulled") as stream:
        with pytest.raises(Exception, match="cannot be packed again"):
            assert [piece async for piece in stream]


async def test_layers_that_did_not_reach_the_disk_are_forgotten(fake_host: FakeHost) -> None:
    config = OverlaySnapshotsConfig()
    async with OverlaySnapshots.open(config, fake_host) as snapshots:
        await add(snapshots, "base", tar_of(("f", b"1")))
        await add(snapshots, "torn", tar_of(("g", b"1")), "base")
        await add(snapshots, "top", tar_of(("h", b"1")), "torn")
        await snapshots.prepare("a", "top")
        for meta in fake_host.state_dir.glob("layers/*/meta.json"):
            mark = meta.with_name("unsynced")
            if json.loads(meta.read_bytes())["name"] == "torn":
                mark.write_text("another boot")
            else:
                mark.unlink(missing_ok=True)
    async with OverlaySnapshots.open(config, fake_host) as snapshots:
        await snapshots.recover()
        assert [layer.name for layer in await snapshots.layers()] == ["base"]
        with pytest.raises(NotFound):
            await snapshots.stat("top")
        with pytest.raises(NotFound):
            await snapshots.mount("a", fake_host.root / "m")
        await add(snapshots, "torn", tar_of(("g", b"1")), "base")
        assert [layer.name for layer in await snapshots.layers()] == ["base", "top", "torn"] or (
            len(await snapshots.layers()) == 3
        )
        await snapshots.mount("a", fake_host.root / "m")
        assert (names_in(fake_host.root / "m")) == ["f", "g", "h"]
        await snapshots.remove("a")


async def test_layers_are_synced_after_a_while(
    snapshots: OverlaySnapshots, fake_host: FakeHost
) -> None:
    await add(snapshots, "base", tar_of(("f", b"1")))
    assert list(fake_host.state_dir.glob("layers/*/unsynced"))
    await eventually(lambda: not list(fake_host.state_dir.glob("layers/*/unsynced")))


async def test_removing_gives_way_to_unpacking_and_goes_on_afterwards(
    snapshots: OverlaySnapshots, fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    begun = trio.Event()
    run = snapshots._jobs.run

    async def slow_at_first(name: str, task: Any) -> Any:
        if name != "remove" or seen:
            return await run(name, task)
        seen.append("begun")
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            seen.append("gave way")

    monkeypatch.setattr(snapshots._jobs, "run", slow_at_first)
    await add(snapshots, "old", tar_of(("f", b"1")))
    await snapshots.remove_layer("old")
    with trio.fail_after(10):
        await begun.wait()
    await add(snapshots, "new", tar_of(("f", b"2")))
    assert seen == ["begun", "gave way"]
    await eventually(lambda: not list(fake_host.state_dir.glob("trash/*")))


async def test_files_of_what_is_removed_go_later(
    snapshots: OverlaySnapshots, fake_host: FakeHost, tmp_path: Path
) -> None:
    await add(snapshots, "base", tar_of(("d", None), ("d/f", b"1")))
    await snapshots.prepare("a", "base")
    await snapshots.mount("a", tmp_path / "root")
    await snapshots.remove("a")
    await snapshots.remove_layer("base")
    await eventually(lambda: not names_in(fake_host.state_dir / "trash"))
    assert names_in(fake_host.state_dir / "layers") == []


async def test_the_helper_is_started_again_when_it_dies(
    snapshots: OverlaySnapshots,
) -> None:
    await add(snapshots, "one", tar_of(("f", b"1")))
    os.kill(snapshots._jobs._pid, signal.SIGKILL)
    await trio.sleep(0.1)
    await add(snapshots, "two", tar_of(("f", b"1")))


def children_of(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


async def test_a_cancelled_apply_ends_its_process(
    snapshots: OverlaySnapshots, fake_host: FakeHost
) -> None:
    server = snapshots._jobs._pid
    busy: set[int] = set()

    async def stuck() -> AsyncIterator[bytes]:
        yield tar_of(("f", b"x" * 10_000))[:5000]
        busy.update(children_of(server))
        await trio.sleep_forever()

    await eventually(lambda: len(children_of(server)) == 1)
    with trio.move_on_after(0.3):
        await snapshots.apply(ApplyRequest(ref="x"), stuck())
    assert busy
    # One child stays: it waits for the next job.
    await eventually(lambda: len(children_of(server)) == 1)
    assert names_in(fake_host.state_dir / "staging") == []


async def test_nothing_outlives_a_killed_daemon(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import trio
        from pathlib import Path
        from linkspan.plugins.overlay_snapshots.config import OverlaySnapshotsConfig
        from linkspan.plugins.overlay_snapshots.driver import OverlaySnapshots
        from linkspan.sdk.drivers.snapshots import ApplyRequest
        from linkspan.sdk.testing.host import FakeHost

        async def stuck():
            yield bytes(100)
            await trio.sleep_forever()

        async def main():
            async with trio.open_nursery() as nursery:
                host = FakeHost(root=Path({str(tmp_path)!r}), nursery=nursery)
                async with OverlaySnapshots.open(OverlaySnapshotsConfig(), host) as driver:
                    print(driver._jobs._pid, flush=True)
                    await driver.apply(ApplyRequest(ref="x"), stuck())

        trio.run(main)
        """
    )
    with subprocess.Popen(  # noqa: ASYNC220 - it is killed, and never waited for long
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as daemon:
        try:
            assert daemon.stdout is not None
            server = int(daemon.stdout.readline())
            await eventually(lambda: len(children_of(server)) == 2)
            everybody = {server, *children_of(server)}
        finally:
            daemon.kill()
    await eventually(lambda: not any(_runs(pid) for pid in everybody))


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


async def test_a_folder_that_overlayfs_cannot_use_is_reported(
    tmp_path: Path, fake_host: FakeHost
) -> None:
    host = FakeHost(root=tmp_path / "with,comma", nursery=fake_host.nursery)
    with pytest.raises(NotUsable, match="comma"):
        async with OverlaySnapshots.open(OverlaySnapshotsConfig(), host):
            pass


async def test_the_setgid_bit_of_a_folder_does_not_spread(snapshots: OverlaySnapshots) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        mail = tarfile.TarInfo("mail")
        mail.type, mail.mode, mail.gid = tarfile.DIRTYPE, 0o2775, 8
        tar.addfile(mail)
        for name in ("mail/sub", "mail/sub2"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        tar.addfile(tarfile.TarInfo("mail/f"))
    await add(snapshots, "base", gzip.compress(buffer.getvalue()))
    async with snapshots.view("base") as root:
        assert (root / "mail").stat().st_mode & 0o7777 == 0o2775
        for name in ("mail/sub", "mail/f"):
            assert (root / name).stat().st_gid == 0
        assert (root / "mail/sub").stat().st_mode & 0o7777 == 0o755


async def test_a_mount_is_tried_once_a_boot(
    fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ["it is no good", "", ""]
    monkeypatch.setattr(
        "linkspan.plugins.overlay_snapshots.driver.check_usable", lambda _: answers.pop(0)
    )
    with pytest.raises(NotUsable, match="it is no good"):
        async with OverlaySnapshots.open(OverlaySnapshotsConfig(), fake_host):
            pass
    for left in (1, 1):  # tried; remembered
        async with OverlaySnapshots.open(OverlaySnapshotsConfig(), fake_host):
            assert len(answers) == left
    (fake_host.run_dir / "usable").write_text("of another boot")
    async with OverlaySnapshots.open(OverlaySnapshotsConfig(), fake_host):
        assert answers == []
