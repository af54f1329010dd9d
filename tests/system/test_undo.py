"""What a run has built, pushed and untagged, taken back on a real daemon and its registry."""

from http.client import HTTPConnection
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon

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
