"""Pipelines on real containers: what only the kernel, the runtime and a killed daemon can show."""

import signal
from pathlib import Path
from typing import Any

import pytest
from daemon_harness.daemon import Daemon, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "hello.txt").write_text("hello\n")
    return tmp_path


def write(project: Path, text: str) -> str:
    path = project / "p.yaml"
    path.write_text(f"linkspan: v1\ndefaults: {{image: busybox}}\n{text}")
    return str(path)


def last(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.json("workflow", "show", "last")
    return found


def states(run: dict[str, Any]) -> dict[str, str]:
    return {f"{j['id']}/{s['id']}": s["state"] for j in run["jobs"] for s in j["steps"]}


GRAPH = """
env: {COLOUR: blue}
jobs:
  make:
    strategy: {matrix: {n: ["1", "2"]}}
    cache: [{path: ~/.cache, key: "k-${{ matrix.n }}"}]
    artifacts: {out: out/file}
    steps:
      - run: |
          mkdir out; echo "$COLOUR $MATRIX_N" > out/file
          cat ~/.cache/seen 2>/dev/null || echo first
          echo again > ~/.cache/seen
  serve:
    services:
      web:
        image: busybox
        command: [sh, -c, "echo served > /tmp/index.html; httpd -f -p 80 -h /tmp"]
        healthcheck: {test: [CMD, wget, -qO-, "http://127.0.0.1/"], interval: 200ms, retries: 50}
    steps:
      - id: both
        parallel:
          - {id: one, run: "wget -qO- http://web/"}
          - {id: two, run: "wget -qO- http://web/"}
  gather:
    needs: [make, serve]
    load-artifacts: [{name: out}]
    steps: [{id: see, run: "cat */out/file"}]
"""


def test_a_graph_of_cells_services_caches_and_artifacts_runs_on_real_containers(
    daemon: Daemon, project: Path
) -> None:
    path = write(project, GRAPH)
    daemon.cli("workflow", "run", path)
    assert daemon.cli("workflow", "logs", "last", "gather/see").out.split() == [
        "blue",
        "1",
        "blue",
        "2",
    ]
    assert daemon.cli("workflow", "logs", "last", "serve/one").out == "served\n"
    assert "first" in daemon.cli("workflow", "logs", "last", "make[1]").out
    daemon.cli("workflow", "run", path)
    logs = daemon.cli("workflow", "logs", "last", "make").out
    assert "again" in logs
    assert "first" not in logs
    assert daemon.containers() == []


def test_a_cancel_does_not_use_up_the_grace_of_a_shell(daemon: Daemon, project: Path) -> None:
    path = write(project, "jobs: {a: {steps: [{id: s, grace: 1h, run: 'echo up; sleep 6000'}]}}")
    running = daemon.begin("workflow", "run", path)

    def said() -> str:
        return daemon.cli("workflow", "logs", "last", status=None).out  # at first there is no run

    until("the script has begun", lambda: "up" in said())
    running.send_signal(signal.SIGINT)
    # SIGTERM ends it: nobody waits for the SIGKILL after an hour.
    assert running.wait(timeout=100) == 130
    assert states(last(daemon)) == {"a/s": "cancelled"}
    assert daemon.containers() == []


def test_a_script_that_was_killed_is_not_taken_for_a_lack_of_memory(
    daemon: Daemon, project: Path
) -> None:
    path = write(
        project,
        "jobs: {a: {steps: [{id: s, retry: {max: 1, backoff: 1ms, on: [oom]}, "
        "run: 'kill -9 $$'}]}}",
    )
    daemon.cli("workflow", "run", path, status=1)
    (step,) = last(daemon)["jobs"][0]["steps"]
    assert (step["tries"], step["error"]["cause"]) == (1, "exit:137")


def test_a_secret_reaches_its_step_and_no_log_journal_or_event(
    daemon: Daemon, project: Path
) -> None:
    path = write(
        project,
        """
secrets: {TOKEN: {from: file, generate: {length: 20}}}
jobs:
  a:
    steps:
      - {id: without, run: 'test -z "$TOKEN"'}
      - {id: with, secrets: [TOKEN], run: 'test ${#TOKEN} = 20; echo "<$TOKEN>"'}
""",
    )
    daemon.cli("workflow", "run", path)
    logs = daemon.cli("workflow", "logs", "last", "a/with").out.splitlines()
    assert logs == ["<***>"]


DEPLOY = """
jobs:
  make: {steps: [{id: m, run: 'echo v=1 > $LINKSPAN_OUTPUT'}]}
  gate:
    needs: [make]
    steps: [{id: ask, uses: approve, with: {message: "tag it?", show: [plan]}}]
  ship:
    needs: [gate]
    steps:
      - {id: t, uses: tag, with: {image: busybox, tags: ["shipped:1"]}}
"""


def test_an_approval_outlives_the_daemon_and_undo_takes_the_change_back(
    daemon: Daemon, project: Path
) -> None:
    path = write(project, DEPLOY)
    said = daemon.cli("workflow", "run", path, status=75).said
    assert "tag it?" in said
    assert "ship/t tag" in said
    assert daemon.containers() == []
    daemon.kill9()
    daemon.start()
    assert last(daemon)["state"] == "suspended"
    daemon.cli("workflow", "approve", "last", "--yes", "-m", "fine")
    daemon.cli("workflow", "attach", "last")
    assert "shipped:1" in daemon.images()
    daemon.cli("workflow", "undo", "last", "--yes")
    assert "shipped:1" not in daemon.images()


KILLED = """
jobs:
  a:
    steps:
      - {id: one, run: 'echo one >> "$TRACE/log"'}
      - {id: two, run: 'echo two >> "$TRACE/log"; while ! test -e "$TRACE/go"; do sleep 0.1; done'}
    volumes: ["%s:/trace"]
    env: {TRACE: /trace}
"""


def test_a_run_whose_daemon_was_killed_goes_on_at_its_step(daemon: Daemon, project: Path) -> None:
    trace = project / "trace"
    trace.mkdir()
    path = write(project, KILLED % trace)
    daemon.cli("workflow", "run", path, "--detach")
    log = trace / "log"
    until("the second step runs", lambda: log.exists() and "two" in log.read_text())
    daemon.kill9()
    daemon.start()
    assert last(daemon)["state"] == "interrupted"
    assert daemon.containers() == []
    (trace / "go").touch()
    daemon.cli("workflow", "resume", "last")
    assert log.read_text().split() == ["one", "two", "two"]


def test_the_memory_of_the_daemon_does_not_grow_with_a_log(daemon: Daemon, project: Path) -> None:
    daemon.cli("workflow", "run", write(project, "jobs: {a: {steps: [{run: 'true'}]}}"))
    before = _peak_mib(daemon)
    script = "yes $(printf %0200d 7) | head -c 40000000"
    path = write(project, f"jobs: {{a: {{steps: [{{id: s, run: '{script}'}}]}}}}")
    daemon.cli("workflow", "run", path, "--progress", "none")
    assert _peak_mib(daemon) - before < 60
    shown = daemon.cli("workflow", "logs", "last", "a/s", "--tail", "1").out
    assert shown.startswith("0000")


def _peak_mib(daemon: Daemon) -> float:
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024
