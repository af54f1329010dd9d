"""Images, builds, networks, volumes and services through the stock docker CLI."""

import json
import urllib.request
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.ports import free_port

pytestmark = pytest.mark.system

WEB = "mkdir -p /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www"


def test_images_tag_history_and_removal(daemon: Daemon) -> None:
    daemon.docker("tag", "busybox", "other:1")
    assert "other" in daemon.docker("images").out
    assert "COPY" in daemon.docker("history", "busybox").out
    (seen,) = json.loads(daemon.docker("image", "inspect", "other:1").out)
    assert sorted(seen["RepoTags"]) == ["busybox:latest", "other:1"]
    assert daemon.docker("rmi", "other:1").out == "Untagged: other:1\n"
    assert "No such image: other:1" in daemon.docker("rmi", "other:1", status=1).err


def test_inspect_says_where_a_root_and_an_image_lie(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "--name", "one", "busybox", "sh", "-c", "echo 1 > /new; sleep 1000")
    until("it wrote", lambda: daemon.docker("exec", "one", "cat", "/new", status=None).out == "1\n")
    driver = daemon.get("/containers/one/json")["GraphDriver"]
    assert driver["Name"] == daemon.get("/info")["Driver"]
    image = daemon.get("/images/busybox/json")["GraphDriver"]["Data"]
    assert image["UpperDir"] in driver["Data"]["LowerDir"].split(":")
    # With control groups of both versions the daemon has a mount namespace of its own.
    seen_by_daemon = Path(f"/proc/{daemon.pid}/root{driver['Data']['MergedDir']}")
    assert (seen_by_daemon / "bin/busybox").exists()
    assert (Path(driver["Data"]["UpperDir"]) / "new").read_text() == "1\n"


def test_push_and_pull(daemon: Daemon) -> None:
    name = f"{daemon.registry}/team/tool:1"
    daemon.docker("tag", "busybox", name)
    pushed = daemon.docker("push", name)
    assert "digest: sha256:" in pushed.out
    daemon.docker("rmi", name)
    pulled = daemon.docker("pull", name)
    assert f"Status: Downloaded newer image for {name}" in pulled.out
    assert f"Status: Image is up to date for {name}" in daemon.docker("pull", name).out
    assert daemon.docker("run", "--rm", name, "echo", "pulled").out == "pulled\n"
    daemon.docker("rmi", name)


def test_a_build_says_what_docker_says(daemon: Daemon) -> None:
    context = daemon.write_context(
        "ARG word=none\nFROM busybox AS base\nARG word\nRUN echo $word > /word\n"
        "FROM busybox\nCOPY --from=base /word /word\nCOPY note /note\nCMD cat /word /note\n",
        note="note\n",
    )
    built = daemon.docker("build", "-t", "built:1", "--build-arg", "word=said", context)
    assert "Step 1/8 : ARG word=none" in built.out
    assert "Successfully tagged built:1" in built.out
    assert daemon.docker("run", "--rm", "built:1").out == "said\nnote\n"
    again = daemon.docker("build", "-q", "--build-arg", "word=said", context)
    assert again.out.startswith("sha256:")
    daemon.docker("rmi", "built:1")


def test_a_build_that_fails_says_why(daemon: Daemon) -> None:
    context = daemon.write_context("FROM busybox\nRUN exit 3\n")
    failed = daemon.docker("build", context, status=3)
    assert "returned a non-zero code: 3" in failed.err
    broken = daemon.docker("build", daemon.write_context("FROM busybox\nFETCH x\n"), status=1)
    assert "FETCH" in broken.err


def test_networks(daemon: Daemon) -> None:
    daemon.docker("network", "create", "--label", "a=1", "back")
    assert "already exists" in daemon.docker("network", "create", "back", status=1).err
    daemon.docker("run", "-d", "--name", "db", "--network", "back", "busybox", "sleep", "1000")
    daemon.docker("run", "--rm", "--network", "back", "busybox", "ping", "-c", "1", "db")
    daemon.docker("run", "-d", "--name", "lone", "busybox", "sleep", "1000")
    daemon.docker("network", "connect", "--alias", "friend", "back", "lone")
    daemon.docker("exec", "db", "ping", "-c", "1", "friend")
    (seen,) = json.loads(daemon.docker("network", "inspect", "back").out)
    assert {c["Name"] for c in seen["Containers"].values()} == {"db", "lone"}
    assert "has active endpoints" in daemon.docker("network", "rm", "back", status=1).err
    daemon.docker("network", "disconnect", "back", "lone")
    daemon.docker("rm", "-f", "db", "lone")
    daemon.docker("network", "rm", "back")
    assert daemon.docker("network", "ls", "-q", "-f", "label=a=1").out == ""


def test_volumes(daemon: Daemon) -> None:
    daemon.docker("volume", "create", "data")
    daemon.docker("run", "--rm", "-v", "data:/d", "busybox", "sh", "-c", "echo kept > /d/file")
    assert (
        daemon.docker("run", "--rm", "-v", "data:/d", "busybox", "cat", "/d/file").out == "kept\n"
    )
    daemon.docker("create", "--name", "user", "-v", "data:/d", "busybox")
    assert "volume is in use" in daemon.docker("volume", "rm", "data", status=1).err
    daemon.docker("rm", "user")
    assert json.loads(daemon.docker("volume", "inspect", "data").out)[0]["Driver"] == "local"
    daemon.docker("volume", "rm", "data")
    said = daemon.docker("volume", "inspect", "data", status=1).err
    assert "no such volume" in said.lower()


def test_disk_usage_and_prune(daemon: Daemon) -> None:
    daemon.docker("run", "--name", "ended", "busybox", "true")
    assert "Images" in daemon.docker("system", "df").out
    assert "Deleted Containers" in daemon.docker("container", "prune", "-f").out
    assert daemon.containers() == []


def test_there_are_no_plugins_of_docker(daemon: Daemon) -> None:
    assert daemon.docker("plugin", "ls", "-q").out == ""


def test_a_node_that_is_in_no_swarm(daemon: Daemon) -> None:
    done = daemon.docker("service", "ls", status=1)
    assert "This node is not a swarm manager" in done.err


def test_services_are_created_scaled_updated_and_rolled_back(daemon: Daemon) -> None:
    port = free_port()
    assert "is now a manager" in daemon.docker("swarm", "init").out
    assert "already part of a swarm" in daemon.docker("swarm", "init", status=1).err
    assert "Leader" in daemon.docker("node", "ls").out
    daemon.docker(
        "service", "create", "--name", "web", "--replicas", "2", "-p", f"{port}:80", "-e", "V=1",
        "--stop-grace-period", "1s", "--restart-delay", "0s", "--update-monitor", "500ms",
        "--rollback-monitor", "500ms", "--no-resolve-image", "busybox", "sh", "-c", WEB,
    )  # fmt: skip
    assert "2/2" in daemon.docker("service", "ls").out
    assert (
        daemon.docker("service", "ps", "web", "--format", "{{.Name}} {{.CurrentState}}").out.count(
            "Running"
        )
        == 2
    )

    def answers() -> set[bytes]:
        found = set()
        for _ in range(10):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                found.add(answer.read())
        return found

    until("both answer", lambda: len(answers()) == 2)
    daemon.docker("service", "scale", "web=3")
    assert "3/3" in daemon.docker("service", "ls").out
    daemon.docker("service", "update", "--env-add", "V=2", "--no-resolve-image", "web")
    (seen,) = json.loads(daemon.docker("service", "inspect", "web").out)
    assert seen["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["V=2"]
    assert seen["UpdateStatus"]["State"] == "completed"
    assert seen["Spec"]["UpdateConfig"]["Monitor"] == 500_000_000
    daemon.docker("service", "rollback", "web")
    (seen,) = json.loads(daemon.docker("service", "inspect", "web").out)
    assert seen["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["V=1"]
    (node,) = json.loads(daemon.docker("node", "inspect", "self").out)
    assert node["Status"]["State"] == "ready"
    said = daemon.docker("service", "rm", "nobody", status=1).err
    # Debian 12's client has words of its own for what is not found.
    assert "service nobody not found" in said or "No such service: nobody" in said
    daemon.docker("service", "rm", "web")
    daemon.docker("swarm", "leave", "--force")


def test_logs_of_a_service_name_their_task(daemon: Daemon) -> None:
    daemon.docker("swarm", "init")
    daemon.docker(
        "service", "create", "-d", "--name", "talker", "--no-resolve-image", "--stop-grace-period", "1s",
        "busybox", "sh", "-c", "echo hello; exec sleep 1000",
    )  # fmt: skip
    found = until(
        "it has spoken", lambda: daemon.docker("service", "logs", "talker", status=None).out
    )
    assert found.startswith("talker.1.")
    assert found.rstrip().endswith("| hello")
