"""Somebody at a terminal looks at a run: keys show logs, leave it running, and cancel it."""

from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon
from daemon_harness.typed import Typed

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

TEXT = """\
linkspan: v1
defaults: {image: busybox}
jobs:
  a:
    steps: [{id: one, grace: 1s, run: "while :; do echo tick; sleep 0.2; done"}]
"""


def test_keys_show_logs_leave_the_run_and_cancel_it(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(TEXT)
    typed = Typed(daemon, "workflow", "run", str(file))
    typed.size(24, 100)
    typed.see("esc leave it running")
    typed.type("l")
    typed.see(r"a/one \| tick")
    typed.type("c")
    typed.see("cancel the run\\?")
    typed.type("n")
    typed.see("esc leave it running")
    typed.type("\x1b")
    typed.see("goes on: linkspan workflow attach")
    assert typed.end() == 0
    run = daemon.get("/linkspan/v1/runs")[0]
    assert run["state"] == "running"
    again = Typed(daemon, "workflow", "attach", run["id"])
    again.size(24, 100)
    again.see("esc leave it running")
    again.type("c")
    again.see("cancel the run\\?")
    again.type("y")
    again.see("asked the run to stop; Ctrl-C again kills")
    assert again.end() == 130
    assert daemon.get(f"/linkspan/v1/runs/{run['id']}")["state"] == "cancelled"


def test_whoever_watches_a_run_that_asks_decides_there(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "linkspan: v1\njobs: {a: {steps: ["
        "{id: first, uses: approve, with: {message: Really?}},"
        "{id: second, uses: approve, with: {message: 'Sure?'}}]}}\n"
    )
    typed = Typed(daemon, "workflow", "run", str(file))
    typed.see("Really\\?")
    typed.see("a/first: y approve   n reject   Enter leave it: ")
    typed.type("y\n")
    typed.see("a/second: y approve   n reject   Enter leave it: ")
    typed.type("\n")
    assert typed.end() == 75
    assert daemon.get("/linkspan/v1/runs/last")["state"] == "suspended"
    again = Typed(daemon, "workflow", "attach", "last")
    again.see("a/second: y approve")
    again.type("n\n")
    assert again.end() == 3
    assert daemon.get("/linkspan/v1/runs/last")["state"] == "rejected"
