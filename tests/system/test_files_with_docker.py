"""``docker cp``, ``export`` and ``diff`` with the stock docker command line."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


def raw(daemon: Daemon, *words: str, stdin: bytes = b"") -> bytes:
    """Run docker with bytes on both sides."""
    done = subprocess.run(
        ["docker", *words],
        input=stdin,
        capture_output=True,
        env=daemon.environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace") + daemon.tail()
    return done.stdout


def members(tar: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {info.name: info for info in archive}


def is_missing(container: str, path: str, said: str) -> bool:
    """Whether the client says that there is no such file; an old one does so in its own words."""
    new = f"Could not find the file {path} in container {container}"
    return new in said or f"No such container:path: {container}:{path}" in said


def test_a_folder_goes_in_and_out_unchanged(daemon: Daemon, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/data").write_bytes(os.urandom(3_000_000))
    (source / "deep/script").write_text("#!/bin/sh\n")
    (source / "deep/script").chmod(0o4755)
    (source / "link").symlink_to("deep/script")
    (source / ".wh.kept").write_text("an ordinary name in a container")
    daemon.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    daemon.docker("cp", source, "box:/tmp/")
    assert daemon.docker("exec", "box", "readlink", "/tmp/tree/link").out == "deep/script\n"
    assert "rwsr-xr-x" in daemon.docker("exec", "box", "ls", "-l", "/tmp/tree/deep/script").out
    daemon.docker("cp", "box:/tmp/tree", tmp_path / "back")
    for name in ("deep/er/data", "deep/script", ".wh.kept"):
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()
    assert (tmp_path / "back/link").readlink() == Path("deep/script")


def test_a_stopped_container_and_its_volumes_take_and_give_files(
    daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "note").write_text("before the start\n")
    daemon.docker("create", "--name", "box", "-v", "store:/store", "busybox", "cat", "/store/note")
    daemon.docker("cp", tmp_path / "note", "box:/store/note")
    daemon.docker("cp", tmp_path / "note", "box:/etc/note")
    assert daemon.docker("start", "-a", "box").out == "before the start\n"
    daemon.docker("cp", "box:/store/note", tmp_path / "from-volume")
    assert (tmp_path / "from-volume").read_text() == "before the start\n"
    names = members(raw(daemon, "export", "box"))
    assert "etc/note" in names
    assert "store/note" not in names
    assert "proc/self" not in names


def test_what_is_mounted_in_a_running_container_is_not_replaced(
    daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "note").write_text("mine\n")
    daemon.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    said = daemon.docker("cp", tmp_path / "note", "box:/etc/hosts", status=1).err
    assert "'hosts' cannot be replaced: a mount is there" in said
    assert "localhost" in daemon.docker("exec", "box", "cat", "/etc/hosts").out


def test_a_tmpfs_of_a_running_container_is_seen(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("in memory")
    daemon.docker(
        "run",
        "-d",
        "--name",
        "box",
        "--tmpfs",
        "/mem",
        "-v",
        "vol-a:/vol",
        "busybox",
        "sleep",
        "1000",
    )
    daemon.docker("cp", tmp_path / "f", "box:/mem/f")
    daemon.docker("cp", tmp_path / "f", "box:/vol/f")
    assert daemon.docker("exec", "box", "cat", "/mem/f", "/vol/f").out == "in memoryin memory"
    whole = members(raw(daemon, "cp", "box:/", "-"))
    assert {"mem/f", "vol/f", "etc/hosts"} <= {name.lstrip("/") for name in whole}
    assert not any(name.lstrip("/").startswith(("proc/", "sys/")) for name in whole)


def test_links_lead_nowhere_but_inside(daemon: Daemon, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("of the host")
    daemon.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    daemon.docker("exec", "box", "ln", "-s", str(outside), "/out")
    daemon.docker("exec", "box", "ln", "-s", "../../../../../../etc", "/tmp/etc")
    said = daemon.docker("cp", "box:/out/secret", tmp_path / "stolen", status=1).err
    assert is_missing("box", "/out/secret", said)
    (tmp_path / "evil").write_text("x")
    daemon.docker("cp", tmp_path / "evil", "box:/out/evil", status=1)
    assert sorted(p.name for p in outside.iterdir()) == ["secret"]
    daemon.docker("cp", tmp_path / "evil", "box:/tmp/etc/evil")
    assert daemon.docker("exec", "box", "cat", "/etc/evil").out == "x"
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        link = tarfile.TarInfo("door")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        archive.addfile(link)
        through = tarfile.TarInfo("door/through")
        through.size = 1
        archive.addfile(through, io.BytesIO(b"x"))
    daemon.docker("exec", "box", "mkdir", "-p", outside)
    raw(daemon, "cp", "-", "box:/tmp", stdin=tar.getvalue())
    assert sorted(p.name for p in outside.iterdir()) == ["secret"]
    assert daemon.docker("exec", "box", "cat", f"{outside}/through").out == "x"


def test_what_may_not_be_written_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    words = ("--read-only", "-v", "vol-b:/vol:ro", "-v", "vol-c:/rw")
    daemon.docker("run", "-d", "--name", "box", *words, "busybox", "sleep", "1000")
    said = daemon.docker("cp", tmp_path / "f", "box:/etc/f", status=1).err
    assert "container rootfs is marked read-only" in said
    said = daemon.docker("cp", tmp_path / "f", "box:/vol/f", status=1).err
    assert "mounted volume is marked read-only" in said
    daemon.docker("cp", tmp_path / "f", "box:/rw/f")
    daemon.docker("create", "--name", "other", "busybox", "true")
    (tmp_path / "etc").write_text("a file where a folder is")
    said = daemon.docker("cp", tmp_path / "etc", "other:/", status=1).err
    assert "cannot overwrite directory" in said
    said = daemon.docker("cp", tmp_path / "f", "other:/none/f", status=1).err
    assert is_missing("other", "/none", said)


def test_diff_names_what_changed(daemon: Daemon) -> None:
    daemon.docker("run", "--name", "box", "busybox", "sh", "-c", "echo x > /new; rm /etc/group")
    assert daemon.docker("diff", "box").out.splitlines() == [
        "C /etc",
        "D /etc/group",
        "A /new",
    ]


def test_copies_go_on_while_the_container_starts_and_goes(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(40_000_000))
    daemon.docker("create", "--name", "box", "busybox", "sleep", "1000")
    daemon.docker("cp", tmp_path / "big", "box:/big")
    with subprocess.Popen(
        ["docker", "cp", "box:/big", "-"], stdout=subprocess.PIPE, env=daemon.environment
    ) as copy:
        assert copy.stdout is not None
        begun = copy.stdout.read(1000)
        daemon.docker("start", "box")
        daemon.docker("rm", "-f", "box")
        rest = copy.stdout.read()
    assert copy.returncode == 0
    assert len(begun + rest) > 40_000_000
