"""A person decides: the run waits on the disk, also over a restart of the daemon, and goes on as told."""

from collections.abc import Callable
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

TEXT = """\
linkspan: v1
jobs:
  ask:
    steps:
      - id: go
        uses: approve
        with: {message: "Ship it?", show: [plan]}
    outputs: {by: "${{ steps.go.outputs.by }}"}
  ship:
    needs: [ask]
    image: busybox
    steps:
      - run: test -n "$NEEDS_ASK_BY"
"""


def test_a_run_waits_for_a_person_over_a_restart_and_goes_on(
    new_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = new_daemon()
    daemon.start()
    daemon.build_busybox()
    (tmp_path / ".linkspan").mkdir()
    file = tmp_path / ".linkspan" / "ship.yaml"
    file.write_text(TEXT)
    plan = daemon.cli("workflow", "plan", file)
    assert "‖ ask/go" in plan.out
    waiting = daemon.cli("workflow", "run", file, status=75)
    assert "Ship it?" in waiting.said
    assert daemon.get("/containers/json?all=1") == []
    daemon.stop()
    daemon.start()
    daemon.cli("workflow", "approve", "last", "--yes")
    daemon.cli("workflow", "attach", "last")
    assert daemon.get("/linkspan/v1/runs")[0]["state"] == "success"
