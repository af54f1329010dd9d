"""Images with the stock docker command line and skopeo: save, load, import, commit, tag, rmi, prune."""

import gzip
import hashlib
import io
import json
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.ports import free_port

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def piped(daemon: Daemon, *words: str | Path, stdin: bytes = b"") -> bytes:
    """Run a program with bytes on both sides."""
    done = subprocess.run(
        [*map(str, words)],
        input=stdin,
        capture_output=True,
        env=daemon.environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace") + daemon.tail()
    return done.stdout


def inspect(daemon: Daemon, name: str) -> dict[str, object]:
    found: dict[str, object] = daemon.get(f"/images/{name}/json")
    return found


def tar_of(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return buffer.getvalue()


def two_images(daemon: Daemon) -> None:
    """``one:1`` and ``two:1``: each busybox and a layer of its own."""
    for name in ("one", "two"):
        context = daemon.write_context(f"FROM busybox\nCOPY {name} /{name}\nLABEL n={name}\n")
        (context / name).write_text(name)
        daemon.docker("build", "-q", "-t", f"{name}:1", context)


def remove_all(daemon: Daemon, *names: str) -> None:
    for name in names:
        daemon.docker("rmi", "-f", name, status=None)


def test_saved_images_come_back_the_same(daemon: Daemon, tmp_path: Path) -> None:
    two_images(daemon)
    before = {name: inspect(daemon, name) for name in ("one:1", "two:1")}
    archive = tmp_path / "both.tar"
    daemon.docker("save", "-o", archive, "one:1", "two:1")
    with tarfile.open(archive) as tar:
        names = [info.name for info in tar]
        manifest = json.load(tar.extractfile("manifest.json") or io.BytesIO())
    assert len(names) == len(set(names))
    assert {"index.json", "manifest.json", "oci-layout"} <= set(names)
    assert manifest[0]["Layers"][:-1] == manifest[1]["Layers"][:-1]
    remove_all(daemon, "one:1", "two:1", "busybox")
    said = daemon.docker("load", "-i", archive).out
    assert said == "Loaded image: one:1\nLoaded image: two:1\n"
    for name, old in before.items():
        new = inspect(daemon, name)
        assert (new["Id"], new["RootFS"], new["Size"]) == (old["Id"], old["RootFS"], old["Size"])
    assert daemon.docker("run", "--rm", "two:1", "cat", "/two").out == "two"
    # Once more: nothing changes, nothing fails.
    assert daemon.docker("load", "-i", archive).out == said
    gz = gzip.compress(archive.read_bytes(), 1)
    remove_all(daemon, "one:1", "two:1")
    assert piped(daemon, "docker", "load", stdin=gz).decode() == said
    daemon.build_busybox()
    remove_all(daemon, "one:1", "two:1")


def test_skopeo_reads_what_is_saved_and_we_read_what_skopeo_writes(
    daemon: Daemon, tmp_path: Path
) -> None:
    two_images(daemon)
    image = inspect(daemon, "one:1")
    archive = tmp_path / "one.tar"
    daemon.docker("save", "-o", archive, "one:1")
    for kind in ("docker-archive", "oci-archive"):
        copied = tmp_path / f"{kind}.tar"
        skopeo = ("skopeo", "--insecure-policy", "copy", f"docker-archive:{archive}")
        piped(daemon, *skopeo, f"{kind}:{copied}:again:1")
        remove_all(daemon, "one:1")
        said = daemon.docker("load", "-i", copied).out
        assert "again:1" in said
        assert inspect(daemon, "again:1")["RootFS"] == image["RootFS"]
        assert daemon.docker("run", "--rm", "again:1", "cat", "/one").out == "one"
        if kind == "docker-archive":
            assert inspect(daemon, "again:1")["Id"] == image["Id"]
        remove_all(daemon, "again:1")
    host = f"--src-daemon-host={daemon.url}"
    copy = ("skopeo", "--insecure-policy", "copy")
    piped(daemon, *copy, host, "docker-daemon:two:1", f"dir:{tmp_path}/dir")
    assert (tmp_path / "dir/manifest.json").exists()
    host = f"--dest-daemon-host={daemon.url}"
    piped(daemon, *copy, host, f"dir:{tmp_path}/dir", "docker-daemon:three:1")
    assert daemon.docker("run", "--rm", "three:1", "cat", "/two").out == "two"
    remove_all(daemon, "two:1", "three:1")


def test_archives_of_old_docker_with_links_are_read(daemon: Daemon) -> None:
    layer = tar_of({"hello": b"hi"})
    diff_id = "sha256:" + hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [diff_id, diff_id]},
        }
    ).encode()
    name = hashlib.sha256(config).hexdigest()
    layers = ["a/layer.tar", "b/layer.tar"]
    entry = {"Config": f"{name}.json", "RepoTags": ["old:1"], "Layers": layers}
    files = {
        "a/VERSION": b"1.0",
        "a/json": b"{}",
        "a/layer.tar": layer,
        f"{name}.json": config,
        "manifest.json": json.dumps([entry]).encode(),
        "repositories": b'{"old":{"1":"b"}}',
    }
    archive = tar_of(files, {"b/layer.tar": "../a/layer.tar"})
    assert piped(daemon, "docker", "load", stdin=archive) == b"Loaded image: old:1\n"
    assert inspect(daemon, "old:1")["Id"] == f"sha256:{name}"
    remove_all(daemon, "old:1")


def test_bad_archives_are_refused_and_leave_nothing(daemon: Daemon, tmp_path: Path) -> None:
    before = daemon.images()
    two_images(daemon)
    archive = tmp_path / "one.tar"
    daemon.docker("save", "-o", archive, "one:1")
    remove_all(daemon, "one:1", "two:1")
    whole = archive.read_bytes()
    for broken, words in (
        (whole[: len(whole) // 2], "unexpected EOF"),
        (b"no tar at all" * 100, ""),
        (tar_of({"x": b"y"}), "does not contain a manifest.json"),
        (tar_of({"manifest.json": b"null"}), "manifest cannot be null"),
        (tar_of({"manifest.json": b"[{}]"}), "has no Config"),
        (tar_of({"../manifest.json": b"[]"}), "leads out of it"),
        (whole.replace(b'"Layers":["blobs', b'"Layers":["globs'), "is missing"),
    ):
        done = subprocess.run(
            ["docker", "load"],
            input=broken,
            capture_output=True,
            env=daemon.environment,
            timeout=60,
            check=False,
        )
        said = (done.stdout + done.stderr).decode()
        assert done.returncode != 0, said
        assert words in said
    assert daemon.images() == before
    assert "image has dependent" not in daemon.tail()


@contextmanager
def given_out(folder: Path) -> Iterator[str]:
    """The URL of a server of the files in a folder."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "-d", folder, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            return False
        return True

    try:
        until("the server answers", answers)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def test_a_root_file_system_becomes_an_image(daemon: Daemon, tmp_path: Path) -> None:
    daemon.docker("create", "--name", "box", "busybox")
    root = piped(daemon, "docker", "export", "box")
    for data in (root, gzip.compress(root, 1)):
        words = ("docker", "import", "--change", 'CMD ["cat", "/etc/passwd"]', "-m", "by hand")
        image_id = piped(daemon, *words, "-", "made:1", stdin=data).decode().strip()
        assert image_id.startswith("sha256:")
        assert daemon.docker("run", "--rm", "made:1", "/bin/cat", "/etc/group").out.startswith(
            "root"
        )
        assert "by hand" in daemon.docker("history", "made:1").out
    (tmp_path / "root.tar").write_bytes(root)
    with given_out(tmp_path) as server:
        url = f"{server}/root.tar"
        said = daemon.docker("import", "--change", 'CMD ["cat", "/etc/group"]', url, "made:1").out
        assert f"Downloading from {url}" in said
        assert daemon.docker("run", "--rm", "made:1").out.startswith("root")
        said = daemon.docker("import", f"{url}.gone", "made:2", status=1).err
        assert "Got HTTP status 404" in said
    assert "connection refused" in daemon.docker("import", url, "made:2", status=1).err
    status, text = daemon.request("POST", "/images/create?fromSrc=ftp://x/y")
    assert (status, "unsupported protocol scheme" in text) == (400, True)
    said = daemon.docker("import", "--change", "RUN true", "-", "made:2", status=1, stdin="x").err
    assert "RUN is not a valid change command" in said
    remove_all(daemon, "made:1")


def test_a_container_is_committed_as_it_is(daemon: Daemon, tmp_path: Path) -> None:
    words = ("-e", "MADE=here", "-w", "/tmp", "busybox")
    daemon.docker("run", "-d", "--name", "box", *words, "sh", "-c", "echo x > /new; sleep 1000")
    daemon.docker("exec", "box", "rm", "/etc/group")
    daemon.docker(
        *("commit", "-a", "somebody", "-m", "as it is"),
        *("-c", 'CMD ["cat", "/new"]', "-c", "LABEL kind=made", "box", "made:1"),
    )
    assert daemon.docker("run", "--rm", "made:1").out == "x\n"
    daemon.docker("run", "--rm", "made:1", "test", "!", "-e", "/etc/group")
    found = inspect(daemon, "made:1")
    config = found["Config"]
    assert isinstance(config, dict)
    assert "MADE=here" in config["Env"]
    assert config["WorkingDir"] == "/tmp"
    assert config["Labels"] == {"kind": "made"}
    assert found["Author"] == "somebody"
    assert daemon.state("box")["Status"] == "running"
    assert daemon.docker("exec", "box", "cat", "/new").out == "x\n"
    # Committed layers can be saved and pushed like others.
    daemon.docker("save", "-o", tmp_path / "made.tar", "made:1")
    remote = f"{daemon.registry}/made:1"
    daemon.docker("tag", "made:1", remote)
    daemon.docker("push", remote)
    remove_all(daemon, "made:1", remote)
    assert daemon.docker("load", "-i", tmp_path / "made.tar").out == "Loaded image: made:1\n"
    assert daemon.docker("run", "--rm", "made:1").out == "x\n"
    said = daemon.docker("rmi", "busybox", status=1).err
    assert "busybox" in said
    daemon.docker("rm", "-f", "box")
    remove_all(daemon, "made:1")
