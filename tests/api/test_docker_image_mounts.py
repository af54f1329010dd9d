"""Images as mounts of containers (API 1.48): a part or the whole of them, to be read."""

import json
from pathlib import Path
from typing import Any

import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.transcripts import client_version

pytestmark = pytest.mark.system

CONTENT = (
    "FROM busybox\nRUN mkdir -p /tool/sub && echo inside > /tool/sub/file && ln -s /etc /tool/out"
    " && ln -s sub /tool/in\n"
)


@pytest.fixture
def tool(daemon: Daemon) -> str:
    daemon.docker("build", "-t", "tool", str(daemon.write_context(CONTENT)))
    return str(daemon.docker("image", "inspect", "-f", "{{.Id}}", "tool").out.strip())


def create(
    daemon: Daemon, name: str, *command: str, status: int = 201, **mount: Any
) -> dict[str, Any]:
    """Through the API itself: old clients have no words for it."""
    asked = {"Type": "image", "Source": "tool", "Target": "/x", **mount}
    body = {"Image": "busybox", "Cmd": list(command), "HostConfig": {"Mounts": [asked]}}
    found, text = daemon.request(
        "POST", f"/v1.48/containers/create?name={name}", json.dumps(body).encode()
    )
    assert found == status, text
    return dict(json.loads(text))


def logs_of_run(daemon: Daemon, name: str) -> str:
    daemon.docker("start", "-a", name)
    done = daemon.docker("logs", name)
    daemon.docker("rm", name)
    return done.out


@pytest.mark.skipif(client_version() < 28, reason="this docker client has no mounts of images")
def test_the_docker_cli_mounts_an_image_and_a_part_of_one(daemon: Daemon, tool: str) -> None:
    whole = "type=image,source=tool,target=/x"
    done = daemon.docker("run", "--rm", "--mount", whole, "busybox", "cat", "/x/tool/sub/file")
    assert done.out == "inside\n"
    part = f"type=image,source={tool},target=/x,image-subpath=tool/sub"
    assert daemon.docker("run", "--rm", "--mount", part, "busybox", "ls", "/x").out == "file\n"
    nothing = "type=image,source=tool,target=/x,image-subpath=tool/nothing"
    said = daemon.docker("run", "--rm", "--mount", nothing, "busybox", "true", status=125).err
    assert "cannot access path" in said


def test_nobody_writes_to_it_not_even_docker_cp(daemon: Daemon, tool: str) -> None:
    script = "echo a > /x/new; rm /x/tool/sub/file; cat /x/tool/sub/file"
    create(daemon, "reader", "sh", "-c", f"({script}) 2>&1")
    said = logs_of_run(daemon, "reader")
    assert said.count("Read-only file system") == 2
    assert said.endswith("inside\n")
    create(daemon, "still", "true")
    file = daemon.write_context(CONTENT) / "Dockerfile"
    done = daemon.docker("cp", str(file), "still:/x/new", status=1)
    assert "read-only" in done.err
    assert daemon.docker("cp", "still:/x/tool/sub/file", "-").out


@pytest.mark.parametrize(
    ("part", "listed"),
    [("tool", "in\nout\nsub\n"), ("tool/in", "file\n"), ("tool/sub/file", "/x\n")],
)
def test_a_part_may_be_a_folder_a_link_within_or_a_file(
    daemon: Daemon, tool: str, part: str, listed: str
) -> None:
    create(daemon, "part", "ls", "/x", ImageOptions={"Subpath": part})
    assert logs_of_run(daemon, "part") == listed


def test_what_cannot_be_mounted_is_refused_in_words(daemon: Daemon, tool: str) -> None:
    for status, said, mount in (
        (400, "subpath must be a relative path", {"ImageOptions": {"Subpath": "../etc"}}),
        (400, "subpath must be a relative path", {"ImageOptions": {"Subpath": "/etc"}}),
        (400, "field Source must not be empty", {"Source": ""}),
        (400, "VolumeOptions must not be specified", {"VolumeOptions": {"NoCopy": True}}),
        (400, "ImageOptions must not", {"Type": "volume", "ImageOptions": {"Subpath": "a"}}),
        (404, "No such image: nobody/has:this", {"Source": "nobody/has:this"}),
    ):
        assert said in create(daemon, "none", "true", status=status, **mount)["message"]
    assert daemon.containers() == []
    for part, said in (("tool/out", "leads out of the image"), ("a/b", "cannot access path a/b")):
        create(daemon, "none", "true", ImageOptions={"Subpath": part})
        assert said in daemon.docker("start", "none", status=1).err
        daemon.docker("rm", "none")


def test_inspect_names_the_image_and_it_is_kept_while_a_container_has_it(
    daemon: Daemon, tool: str
) -> None:
    create(daemon, "user", "sleep", "1000")
    seen = daemon.get("/containers/user/json")
    (point,) = seen["Mounts"]
    assert {k: v for k, v in point.items() if k != "Source"} == {
        "Type": "image", "Name": "tool", "Destination": "/x", "Mode": "", "RW": False,
        "Propagation": "rprivate",
    }  # fmt: skip
    assert seen["HostConfig"]["Mounts"] == [{"Type": "image", "Source": "tool", "Target": "/x"}]
    short_user, short_tool = seen["Id"][:12], tool.removeprefix("sha256:")[:12]
    said = daemon.docker("rmi", "tool", status=1).err
    assert (
        f'conflict: unable to remove repository reference "tool" (must force) - container {short_user} '
        f"is using its referenced image {short_tool}"
    ) in said
    daemon.docker("start", "user")
    said = daemon.docker("rmi", "-f", tool, status=1).err
    assert (
        f"conflict: unable to delete {short_tool} (cannot be forced) - image is being used by running "
        f"container {short_user}"
    ) in said
    daemon.docker("image", "prune", "-af")
    assert "tool:latest" in daemon.images()
    assert daemon.docker("exec", "user", "cat", "/x/tool/sub/file").out == "inside\n"
    daemon.docker("rm", "-f", "user")
    daemon.docker("rmi", "tool")


def test_it_is_there_after_a_restart_of_the_container_and_of_the_daemon(
    daemon: Daemon, tool: str
) -> None:
    create(daemon, "user", "sleep", "1000", ImageOptions={"Subpath": "tool/sub"})
    daemon.docker("start", "user")
    daemon.docker(
        "run", "-d", "--name", "other", "--volumes-from", "user", "busybox", "sleep", "1000"
    )
    daemon.kill9()
    daemon.start()
    for name in ("user", "other"):
        assert daemon.docker("exec", name, "cat", "/x/file").out == "inside\n"
        daemon.docker("restart", "-t", "0", name)
        assert daemon.docker("exec", name, "cat", "/x/file").out == "inside\n"
    source = daemon.get("/containers/user/json")["Mounts"][0]["Source"]
    daemon.docker("rm", "-f", "user")
    until("its mount is gone", lambda: source not in Path("/proc/mounts").read_text())
    daemon.docker("rmi", "tool", status=1)
    daemon.docker("rm", "-f", "other")
    daemon.docker("rmi", "tool")
