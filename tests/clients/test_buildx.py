"""Docker's newest client with its plugin buildx, which speaks to ``/grpc``.

No package of Debian 12 brings it: where it is not installed and ``LINKSPAN_TEST_BUILDX`` does not name it, this
is skipped; ``docker-api`` has tests of the same calls without it.
"""

import json
import subprocess
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, Done
from docker_plugins import lend_plugins

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


class Buildx:
    """Runs docker with the plugin."""

    def __init__(self, daemon: Daemon, config: Path) -> None:
        self.daemon = daemon
        lend_plugins(config, "buildx")
        more = {"DOCKER_CONFIG": str(config), "BUILDKIT_PROGRESS": "plain", "SECRET": "hunter2"}
        self._env = {**daemon.environment, **more}

    def __call__(self, *words: str | Path, status: int = 0, stdin: bytes = b"") -> Done:
        done = subprocess.run(
            ["docker", *map(str, words)],
            capture_output=True, check=False, env=self._env, timeout=90, input=stdin,
        )  # fmt: skip
        out, err = done.stdout.decode(), done.stderr.decode()
        assert done.returncode == status, f"{words}: {done.returncode} {out} {err}"
        return Done(done.returncode, out, err)


@pytest.fixture
def docker(daemon: Daemon, tmp_path: Path) -> Buildx:
    return Buildx(daemon, tmp_path / "config")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "context"
    found.mkdir()
    return found


def test_docker_build_goes_through_buildx(docker: Buildx, folder: Path) -> None:
    (folder / "Dockerfile").write_text(
        "FROM busybox\nRUN --mount=type=secret,id=tok cat /run/secrets/tok > /t\n"
        "COPY . /x\nCOPY --from=lib o /o\n"
    )
    (folder / "lib").mkdir()
    (folder / "lib/o").write_text("other")
    words = ("--secret", "id=tok,env=SECRET", "--build-context", f"lib={folder}/lib")
    built = docker("build", *words, "-t", "bx:1", folder)
    for line in (
        "[2/4] RUN --mount=type=secret",
        "[4/4] COPY --from=lib o /o",
        "exporting to image",
    ):
        assert line in built.err
    again = docker("build", *words, "-t", "bx:1", folder)
    assert again.err.count("CACHED") == 3
    quiet = docker("build", "-q", *words, "--iidfile", folder / "../iid", folder).out.strip()
    assert (folder / "../iid").read_text() == quiet
    assert docker("inspect", "-f", "{{.Id}}", "bx:1").out.strip() == quiet
    told = docker("run", "--rm", "bx:1", "sh", "-c", "cat /t /o").out
    assert told == "hunter2other"
    docker("build", "-t", "bx:2", "-", stdin=b"FROM busybox\nRUN echo in > /in\n")
    assert docker("run", "--rm", "bx:2", "cat", "/in").out == "in\n"
    tar = subprocess.run(["tar", "-cz", "-C", folder / "lib", "."], capture_output=True, check=True)
    (folder / "lib/Dockerfile").write_text("FROM busybox\nCOPY o /o\n")
    tar = subprocess.run(["tar", "-cz", "-C", folder / "lib", "."], capture_output=True, check=True)
    docker("build", "-t", "bx:3", "-", stdin=tar.stdout)
    assert docker("run", "--rm", "bx:3", "cat", "/o").out == "other"


def test_faults_are_shown_in_their_file(docker: Buildx, folder: Path) -> None:
    file = folder / "Dockerfile"
    file.write_text("FROM busybox\nRUN echo before; exit 7\n")
    failed = docker("build", folder, status=1)
    assert ">>> RUN echo before; exit 7" in failed.err
    why = 'process "/bin/sh -c echo before; exit 7" did not complete successfully: exit code: 7'
    assert failed.err.rstrip().endswith(f"failed to solve: {why}")
    file.write_text("FROM busybox\nNONSENSE\n")
    assert ">>> NONSENSE" in docker("build", folder, status=1).err
    missing = docker("build", "-f", folder / "none", folder, status=1).err
    assert "failed to read dockerfile: open none: no such file or directory" in missing
    file.write_text("FROM busybox as one\n")
    checked = docker("build", "--check", folder, status=1)
    assert "FromAsCasing" in checked.out + checked.err


def test_buildx_has_its_other_commands(docker: Buildx, folder: Path) -> None:
    file = folder / "docker-bake.json"
    inline = {"dockerfile-inline": "FROM busybox\nRUN echo baked > /b\n"}
    targets: dict[str, object] = {name: {**inline, "tags": [f"bake:{name}"]} for name in ("a", "b")}
    linked = {"dockerfile-inline": "FROM base\nRUN cat /b > /c\n", "contexts": {"base": "target:a"}}
    targets["c"] = {**linked, "tags": ["bake:c"]}
    file.write_text(json.dumps({"target": targets, "group": {"default": {"targets": ["b", "c"]}}}))
    baked = docker("buildx", "bake", "-f", file)
    assert "http2:" not in baked.err, "the session that builds share"
    assert docker("run", "--rm", "bake:b", "cat", "/b").out == "baked\n"
    assert docker("run", "--rm", "bake:c", "cat", "/c").out == "baked\n"
    cache = f"{docker.daemon.registry}/cache:1"
    exported = ("--cache-to", "type=inline", "--push", "-t", cache)
    docker("build", *exported, "-", stdin=b"FROM busybox\nRUN echo cached\n")
    imported = ("--cache-from", f"type=registry,ref={cache}")
    docker("build", *imported, "-", stdin=b"FROM busybox\nRUN echo cached\n")
    pushed = f"{docker.daemon.registry}/bx:1"
    docker("build", "--push", "-t", pushed, "-", stdin=b"FROM busybox\n")
    assert "Digest:" in docker("buildx", "imagetools", "inspect", pushed).out
    docker("build", "-o", folder / "out", "-", stdin=b"FROM busybox\nRUN echo in > /in\n")
    assert (folder / "out/in").read_text() == "in\n"
    assert "running" in docker("buildx", "ls").out
    assert "linux/" in docker("buildx", "inspect").out
    assert "BUILD ID" in docker("buildx", "history", "ls").out
    assert "Total:" in docker("buildx", "du").out
    assert "Total:" in docker("buildx", "prune", "-af").out
