"""What a run has built, pushed and untagged, taken back on a real daemon and its registry."""

import signal
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from daemon_harness.daemon import Daemon, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


def digest_in_registry(daemon: Daemon, tag: str) -> str:
    """What the registry has under ``app:TAG``; empty if nothing."""
    connection = HTTPConnection(daemon.registry, timeout=20)
    try:
        connection.request("HEAD", f"/v2/app/manifests/{tag}", headers={"Accept": "*/*"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status in (200, 404)
        return answer.headers.get("Docker-Content-Digest", "") if answer.status == 200 else ""
    finally:
        connection.close()


def names(daemon: Daemon) -> dict[str, str]:
    return {tag: image["Id"] for image in daemon.get("/images/json") for tag in image["RepoTags"]}


def test_what_was_built_and_pushed_is_taken_back_here_and_in_the_registry(
    daemon: Daemon, tmp_path: Path
) -> None:
    app = f"{daemon.registry}/app"
    for tag in ("made:1", "made:2", f"{app}:1"):
        daemon.docker("tag", "busybox", tag)
    daemon.docker("push", f"{app}:1")
    before, former = names(daemon), digest_in_registry(daemon, "1")
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo new > /new\n")
    (tmp_path / "p.yaml").write_text(f"""linkspan: v1
jobs:
  a:
    steps:
      - {{id: make, uses: build, with: {{tags: ["made:1", "made:new"]}}}}
      - {{id: send, uses: push, with: {{image: "made:1", tags: ["{app}:1", "{app}:new"]}}}}
      - {{id: untag, uses: remove-image, with: {{image: "made:2"}}}}
""")
    daemon.cli("workflow", "run", str(tmp_path / "p.yaml"))
    pushed = digest_in_registry(daemon, "new")
    assert pushed == digest_in_registry(daemon, "1") != former
    assert names(daemon)["made:1"] == names(daemon)["made:new"] != before["made:1"]
    assert "made:2" not in names(daemon)

    said = daemon.cli("workflow", "undo", "last", "--yes")
    assert f"{app}:1 is {former[:19]} in its registry again" in said.err
    assert f"{app}:new is gone from its registry" in said.err
    assert (digest_in_registry(daemon, "1"), digest_in_registry(daemon, "new")) == (former, "")
    assert names(daemon) == before


SLOW = """linkspan: v1
jobs:
  a:
    steps:
      - {id: first, uses: tag, with: {image: busybox, tags: ["slow:1"]}}
      - id: slow
        uses: tag
        with: {image: busybox, tags: ["slow:2"]}
        undo: {uses: wait-for, with: {path: go, timeout: 1h}}
      - {id: tell, uses: notify, with: {url: "http://%(registry)s/v2/", text: hi}, continue-on-error: true}
      - {id: look, uses: http-check, with: {url: "http://%(registry)s/v2/"}}
      - {id: script, image: busybox, run: exit 1}
"""


def test_what_has_no_way_back_is_named_first_and_whoever_undoes_may_stop(
    daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "p.yaml").write_text(SLOW % {"registry": daemon.registry})
    daemon.cli("workflow", "run", tmp_path / "p.yaml", status=1)
    run = daemon.get("/linkspan/v1/runs/last")["id"]
    folder = daemon.data_root / "workflows/runs" / run
    journal, workspace = folder / "journal.jsonl", folder / "jobs/a/workspace"

    def inspect() -> dict[str, Any]:
        found: dict[str, Any] = daemon.get(f"/linkspan/v1/runs/{run}")
        return found

    def undo_until_slow(times: int) -> Any:
        process = daemon.begin("workflow", "undo", run, "--yes")
        until("it has begun", lambda: journal.read_text().count("undo-started") == times)
        process.send_signal(signal.SIGINT)
        until("it was asked", lambda: inspect()["state"] == "cancelling")
        return process

    # Nobody is there to confirm it: it is said, and nothing is done.
    said = daemon.cli("workflow", "undo", run, status=2).err
    assert "cannot be taken back: a/tell (notify)" in said
    assert "nothing to take back: a/look (http-check)" in said
    assert "nothing recorded: a/script (run)" in said
    assert inspect()["undone"] == ""
    # Twice: at once.
    process = undo_until_slow(1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, inspect()["undone"]) == (130, "cancelled"), told
    assert {"slow:1", "slow:2"} <= daemon.images()
    # Once: after the step that is being taken back.
    process = undo_until_slow(2)
    (workspace / "go").touch()
    _, told = process.communicate(timeout=60)
    assert (process.returncode, inspect()["undone"]) == (130, "cancelled"), told
    assert "asked to stop after the step" in told
    assert f"linkspan workflow undo {run} goes on" in told
    assert [step["undo"].get("result") for step in inspect()["jobs"][0]["steps"][:2]] == [
        None,
        "success",
    ]
    daemon.cli("workflow", "undo", run, "--yes")
    assert (inspect()["undone"], "slow:1" in daemon.images()) == ("success", False)


def test_files_that_were_copied_over_are_put_back(daemon: Daemon, tmp_path: Path) -> None:
    see = "cd /srv && ls -lRn && cat kept old"
    daemon.cli("workflow", "secret", "set", "TOKEN", stdin="sesame-7")
    make = (
        "mkdir /srv; cd /srv; echo sesame-7 > old; chmod 640 old; chown 5:6 old; echo kept > kept"
    )
    daemon.docker(
        "run", "-d", "--name", "box", "busybox", "sh", "-c", f"{make}; touch /up; sleep 1000"
    )
    until(
        "its files are there",
        lambda: daemon.cli("exec", "box", "ls", "/up", status=None).status == 0,
    )
    before = daemon.cli("exec", "box", "sh", "-c", see).out
    (tmp_path / "dist/sub").mkdir(parents=True)
    (tmp_path / "dist/old").write_text("new")
    (tmp_path / "dist/sub/new").write_text("new")
    (tmp_path / "p.yaml").write_text("""linkspan: v1
secrets: {TOKEN: {from: file}}
jobs:
  a:
    image: busybox
    steps:
      - {id: know, run: "test -n $TOKEN", secrets: [TOKEN]}
      - {id: in, uses: copy, with: {from: dist/., to: "box:/srv"}}
""")
    daemon.cli("workflow", "run", tmp_path / "p.yaml")
    assert daemon.cli("exec", "box", "cat", "/srv/old", "/srv/sub/new").out == "newnew"
    run = daemon.get("/linkspan/v1/runs/last")["id"]
    # What lay there was a secret: it is recorded as what it is.
    assert "sesame" not in (daemon.data_root / f"workflows/runs/{run}/journal.jsonl").read_text()
    said = daemon.cli("workflow", "undo", run, "--yes").err
    assert "files put back: 1, removed: 2 in /srv" in said
    assert daemon.cli("exec", "box", "sh", "-c", see).out == before


def test_a_deployed_password_is_put_back_from_the_pipeline_or_as_it_is_given(
    daemon: Daemon, tmp_path: Path
) -> None:
    path = tmp_path / "p.yaml"

    def deploy(mode: str) -> None:
        path.write_text(f"""linkspan: v1
secrets: {{TOKEN: {{from: file}}}}
jobs:
  a:
    steps:
      - id: s
        uses: deploy
        secrets: [TOKEN]
        with:
          service: keeper
          image: busybox
          command: [sleep, "1000"]
          stop-grace: 0s
          env: {{MODE: {mode}, DB_PASSWORD: hunter2-prod, AUTH: "Bearer of-{mode}"}}
          secrets: [TOKEN]
""")
        daemon.cli("workflow", "run", str(path))

    def environment() -> list[str]:
        (service,) = daemon.get("/services")
        found: list[str] = service["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"]
        return sorted(found)

    daemon.cli("workflow", "secret", "set", "TOKEN", stdin="of-first-of-all")
    deploy("first")
    before = environment()
    daemon.cli("workflow", "secret", "set", "TOKEN", stdin="of-first")
    deploy("second")
    journal = next(daemon.folder.rglob("journal.jsonl")).parent.parent
    assert "hunter2-prod" not in "".join(f.read_text() for f in journal.rglob("journal.jsonl"))
    # What the service had before holds what is a secret by now: without it, nothing is taken back.
    daemon.cli("workflow", "secret", "rm", "TOKEN")
    said = daemon.cli("workflow", "undo", "last", "--yes", status=1)
    assert "--secret 'TOKEN=VALUE'" in said.err
    assert environment() != before
    daemon.cli("workflow", "undo", "last", "--yes", "--secret", "TOKEN", stdin="of-first\n")
    assert environment() == before
    daemon.cli("service", "rm", "keeper")
    daemon.cli("swarm", "leave", "--force")
