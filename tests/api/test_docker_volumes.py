"""Volumes through the stock docker CLI."""

import json
from pathlib import Path
from typing import Any

import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.transcripts import client_version

pytestmark = pytest.mark.system


def inspect(daemon: Daemon, name: str) -> Any:
    return json.loads(daemon.docker("volume", "inspect", name).out)[0]


def names(daemon: Daemon, *filters: str) -> set[str]:
    words = [word for text in filters for word in ("-f", text)]
    return set(daemon.docker("volume", "ls", "-q", *words).out.split())


def run(daemon: Daemon, *words: str, status: int = 0) -> str:
    done = daemon.docker("run", "--rm", *words, status=status)
    return done.out if status == 0 else done.err


def test_what_is_created_is_what_inspect_shows(daemon: Daemon) -> None:
    daemon.docker("volume", "create", "--label", "a=1", "data")
    seen = inspect(daemon, "data")
    assert (seen["Driver"], seen["Scope"], seen["Labels"]) == ("local", "local", {"a": "1"})
    assert Path(seen["Mountpoint"]).is_dir()
    assert daemon.docker("volume", "create", "data").out == "data\n"
    named_by_us = daemon.docker("volume", "create").out.strip()
    assert len(named_by_us) == 64


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a/b",), '"a/b" includes invalid characters for a local volume name, only'),
        (("-d", "bogus", "data"), "bogus"),
        (("-o", "colour=blue", "data"), 'create data: invalid option: "colour"'),
        (("-o", "o=ro", "data"), 'create data: missing required option: "device"'),
        (("-o", "type=tmpfs", "data"), 'create data: missing required option: "device"'),
        (("-o", "size=1g", "data"), "quota size requested but no quota support"),
        (("-o", "type=nfs", "-o", "device=:/x", "data"), "needs the address of its server"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    daemon: Daemon, words: tuple[str, ...], said: str
) -> None:
    assert said in daemon.docker("volume", "create", *words, status=1).err
    assert names(daemon) == set()


def test_an_image_fills_an_empty_volume_with_owners_unless_told_not_to(daemon: Daemon) -> None:
    context = daemon.write_context(
        "FROM busybox\nRUN mkdir -p /data/sub && echo image > /data/sub/file &&"
        " chown -R 1000:2000 /data && chmod 2750 /data\nVOLUME /data\n"
    )
    daemon.docker("build", "-q", "-t", "filled", context)
    script = ("filled", "sh", "-c", "cat /data/sub/file; stat -c '%u:%g %a' /data")
    assert run(daemon, "-v", "one:/data", *script) == "image\n1000:2000 2750\n"
    assert (
        "No such file"
        in daemon.docker("run", "--rm", "-v", "two:/data:nocopy", *script, status=0).err
    )
    run(daemon, "-v", "one:/data", "filled", "sh", "-c", "echo mine > /data/sub/file")
    assert run(daemon, "-v", "one:/data", *script).startswith("mine\n")
    mount = "type=volume,src=three,dst=/data,volume-nocopy"
    assert "No such file" in daemon.docker("run", "--rm", "--mount", mount, *script).err
    daemon.docker("rmi", "filled")


def test_volumes_are_shared_read_only_or_by_the_container_that_has_them(daemon: Daemon) -> None:
    run(daemon, "-v", "data:/d:z", "busybox", "sh", "-c", "echo kept > /d/file")
    assert run(daemon, "-v", "data:/d:ro,Z", "busybox", "cat", "/d/file") == "kept\n"
    assert "Read-only" in run(daemon, "-v", "data:/d:ro", "busybox", "touch", "/d/new", status=1)
    daemon.docker("create", "--name", "holder", "-v", "data:/d", "busybox")
    assert run(daemon, "--volumes-from", "holder:ro", "busybox", "cat", "/d/file") == "kept\n"
    said = daemon.docker("volume", "rm", "data", status=1).err
    holder = daemon.docker("inspect", "-f", "{{.Id}}", "holder").out.strip()
    assert f"remove data: volume is in use - [{holder}]" in said


def test_a_part_of_a_volume_is_mounted_and_leads_nowhere_else(daemon: Daemon) -> None:
    run(
        daemon, "-v", "data:/d", "busybox", "sh", "-c",
        "mkdir -p /d/in; echo part > /d/in/file; ln -s /etc /d/out",
    )  # fmt: skip
    mount = "type=volume,src=data,dst=/p,volume-subpath={}"
    assert run(daemon, "--mount", mount.format("in"), "busybox", "cat", "/p/file") == "part\n"
    assert run(daemon, "--mount", mount.format("in/file"), "busybox", "cat", "/p") == "part\n"
    said = run(daemon, "--mount", mount.format("nothing"), "busybox", "true", status=125)
    assert "cannot access path" in said
    said = run(daemon, "--mount", mount.format("out"), "busybox", "true", status=125)
    assert "leads out of the volume" in said
    said = run(daemon, "--mount", mount.format("../x"), "busybox", "true", status=125)
    assert "invalid mount config" in said
    daemon.docker("volume", "rm", "data")


def test_volumes_with_a_device_are_mounted_while_they_are_used(
    daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("host's\n")
    daemon.docker(
        *("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={tmp_path}"),
        "bound",
    )
    assert run(daemon, "-v", "bound:/b", "busybox", "cat", "/b/file") == "host's\n"
    assert inspect(daemon, "bound")["Options"]["device"] == str(tmp_path)
    daemon.docker(
        *("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=64k"),
        "scratch",
    )
    script = "dd if=/dev/zero of=/s/big bs=1k count=200"
    assert "No space left" in run(
        daemon, "-v", "scratch:/s", "busybox", "sh", "-c", script, status=1
    )
    daemon.docker("volume", "rm", "bound", "scratch")
    assert (tmp_path / "file").exists()


def test_lists_are_filtered_and_prune_takes_what_it_says(daemon: Daemon) -> None:
    daemon.docker("volume", "create", "--label", "a=1", "one")
    daemon.docker("volume", "create", "--label", "a=2", "two")
    daemon.docker("create", "--name", "user", "-v", "one:/d", "-v", "/anonymous", "busybox")
    assert names(daemon, "label=a") == {"one", "two"}
    assert names(daemon, "label=a=2") == {"two"}
    assert names(daemon, "name=tw") == {"two"}
    assert names(daemon, "driver=local") >= {"one", "two"}
    assert names(daemon, "driver=other") == set()
    assert names(daemon, "dangling=true") == {"two"}
    assert "two" not in names(daemon, "dangling=false")
    assert "invalid filter" in daemon.docker("volume", "ls", "-f", "bogus=1", status=1).err
    daemon.docker("rm", "user")
    pruned = daemon.docker("volume", "prune", "-f").out
    assert "Deleted Volumes" in pruned
    if client_version() < 23:  # before API 1.42 named ones went, too
        assert names(daemon) == set()
        return
    assert names(daemon) == {"one", "two"}
    daemon.docker("volume", "prune", "-f", "-a", "--filter", "label=a=2")
    assert names(daemon) == {"one"}
    daemon.docker("volume", "prune", "-f", "-a", "--filter", "label!=a")
    assert names(daemon) == {"one"}
    daemon.docker("volume", "prune", "-f", "-a")
    assert names(daemon) == set()


def test_anonymous_volumes_go_with_their_container_when_it_is_said(daemon: Daemon) -> None:
    daemon.docker("run", "--name", "one", "-v", "/d", "busybox", "true")
    assert len(names(daemon)) == 1
    daemon.docker("rm", "-v", "one")
    until("its volume goes", lambda: names(daemon) == set())
    run(daemon, "-v", "/d", "-v", "kept:/k", "busybox", "true")
    until("its volume goes, the named one stays", lambda: names(daemon) == {"kept"})
    daemon.docker("run", "--name", "two", "-v", "/d", "busybox", "true")
    daemon.docker("rm", "two")
    assert len(names(daemon)) == 2
    daemon.docker("volume", "rm", *names(daemon))


def test_the_size_and_the_users_of_a_volume_are_in_the_disk_usage(daemon: Daemon) -> None:
    script = "dd if=/dev/zero of=/d/file bs=1k count=300"
    daemon.docker("run", "--name", "user", "-v", "data:/d", "busybox", "sh", "-c", script)
    (seen,) = [v for v in daemon.get("/system/df")["Volumes"] if v["Name"] == "data"]
    assert seen["UsageData"]["RefCount"] == 1
    assert 300_000 <= seen["UsageData"]["Size"] <= 400_000
    assert "data" in daemon.docker("system", "df", "-v").out


def test_an_unknown_volume_says_so(daemon: Daemon) -> None:
    assert "no such volume" in daemon.docker("volume", "inspect", "none", status=1).err.lower()
    assert "no such volume" in daemon.docker("volume", "rm", "none", status=1).err.lower()
    daemon.docker("volume", "rm", "-f", "none")
