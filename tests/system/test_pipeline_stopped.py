"""Ctrl-C, once and twice, and a time limit: what a run leaves and how it goes on, at each stage of a run."""

import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from daemon_harness.daemon import Daemon, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

UP = "test -e go && exit; echo up; sleep 6000"
SLOW = f"run: '{UP}'"
FAILS = "uses: wait-for, with: {container: nowhere, timeout: 1ms}"
WAITS = "uses: wait-for, with: {path: go, timeout: 1h}"

Run = dict[str, Any]


def _step(run: Run, job: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = run["jobs"][job]["steps"][-1]
    return found


@attrs.frozen
class Stage:
    """A moment of a run.

    Attributes:
        steps: Of its job ``a``.
        job: More keys of it.
        there: Whether the run is at this moment; else a step has said ``up``.
        cleanup: The step of ``finally``.
        goes_on: A file ``go`` in its workspace, or the lock, is all that it waits for.
    """

    steps: str
    job: str = ""
    there: Callable[[Run], bool] | None = None
    cleanup: str = "run: 'echo clean'"
    goes_on: bool = False


STAGES = {
    "pull": Stage("{id: s, image: '%(registry)s/x', run: 'true'}"),
    "build": Stage("{id: s, uses: build, with: {tags: ['stopped:1']}}"),
    "script": Stage(f"{{id: s, {SLOW}}}", goes_on=True),
    "verb": Stage(
        f"{{id: s, {WAITS}}}", there=lambda run: _step(run)["state"] == "running", goes_on=True
    ),
    "parallel": Stage(
        f"{{id: p, parallel: [{{id: q, {WAITS}}}, {{id: s, {SLOW}}}]}}", goes_on=True
    ),
    "background": Stage(f"{{id: s, background: true, {SLOW}}}, {{id: w, wait: [s]}}", goes_on=True),
    "service": Stage(
        "{id: s, run: 'true'}",
        job="services: {db: {image: busybox, command: [sleep, '6000'],"
        " healthcheck: {test: [CMD, 'false'], interval: 1h, retries: 9}}}, ",
        there=lambda run: bool(run["containers"]),
    ),
    "lock": Stage(
        "{id: s, run: 'true'}",
        job="lock: held, ",
        there=lambda run: bool(run["jobs"][0]["waits"]),
        goes_on=True,
    ),
    "retry": Stage(
        f"{{id: s, retry: {{max: 3, backoff: 1h, max-delay: 1h, on: [any]}}, {FAILS}}}",
        there=lambda run: _step(run)["tries"] == 1 and _step(run)["state"] != "running",
    ),
    "rollback": Stage(
        f"{{id: s, undo: {{{WAITS}}}, {FAILS}}}",
        there=lambda run: bool(_step(run)["undone"]),
    ),
    "finally": Stage("{id: s, run: 'true'}", cleanup=SLOW),
}
TEXT = """\
linkspan: v1
name: %(name)s
defaults: {image: busybox}
jobs: {a: {%(job)ssteps: [%(steps)s]}}
finally: {z: {steps: [{id: last, %(cleanup)s}]}}
"""


@attrs.define
class Begun:
    """A stage's run, with the command that watches it."""

    name: str
    process: "subprocess.Popen[str]"
    id: str


@pytest.fixture
def registry() -> Iterator[socket.socket]:
    """A registry that takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        yield listener


def write(folder: Path, name: str, registry: str) -> Path:
    stage = STAGES[name]
    place = folder / name
    place.mkdir()
    (place / "Dockerfile").write_text(f"FROM busybox\nRUN {UP}\n")
    values = {"name": name, "job": stage.job, "steps": stage.steps, "cleanup": stage.cleanup}
    (place / "p.yaml").write_text(TEXT % values % {"registry": registry})
    return place / "p.yaml"


def inspect(daemon: Daemon, run: str) -> Run:
    found: Run = daemon.get(f"/linkspan/v1/runs/{run}")
    label = {"linkspan.workflow.run": run}.items()
    found["containers"] = [c for c in daemon.containers() if label <= c["Labels"].items()]
    return found


def begin(daemon: Daemon, path: Path, *words: str) -> Begun:
    process = daemon.begin("workflow", "run", path, *words)
    assert process.stderr is not None
    # `15:12:34 NAME  run ID`
    return Begun(path.parent.name, process, process.stderr.readline().split()[-1])


def reached(daemon: Daemon, begun: Begun, registry: socket.socket, stack: ExitStack) -> None:
    """Wait until a run is at its stage."""
    if begun.name == "pull":
        registry.settimeout(60)
        stack.enter_context(registry.accept()[0])
        return
    there = STAGES[begun.name].there
    if there is None:
        logs = f"/linkspan/v1/runs/{begun.id}/logs"
        until(f"{begun.name} is up", lambda: '"line":"up"' in daemon.get(logs, parse=False))
    else:
        until(f"{begun.name} is there", lambda: there(inspect(daemon, begun.id)))


def at_their_stages(
    daemon: Daemon, folder: Path, registry: socket.socket, stack: ExitStack
) -> list[Begun]:
    """Runs at all stages at once."""
    address = f"127.0.0.1:{registry.getsockname()[1]}"
    holder = folder / "holder.yaml"
    holder.write_text(
        "linkspan: v1\njobs: {a: {lock: held, steps: [{id: s, grace: 1s, "
        f"image: busybox, {SLOW}}}]}}}}\n"
    )
    held = daemon.cli("workflow", "run", holder, "--detach").out.strip()
    stack.callback(daemon.cli, "workflow", "cancel", held, "--kill")
    logs = f"/linkspan/v1/runs/{held}/logs"
    until("the lock is held", lambda: '"line":"up"' in daemon.get(logs, parse=False))
    begun = [begin(daemon, write(folder, name, address)) for name in STAGES]
    for each in begun:
        reached(daemon, each, registry, stack)
    return begun


def test_asked_once_a_run_stops_in_order_and_cleans_up(
    daemon: Daemon, tmp_path: Path, registry: socket.socket
) -> None:
    with ExitStack() as stack:
        begun = at_their_stages(daemon, tmp_path, registry, stack)
        for each in begun:
            each.process.send_signal(signal.SIGINT)
        for each in begun:
            if each.name == "finally":
                # What cleans up is let end; asked again, it is stopped.
                stopping = partial(inspect, daemon, each.id)
                until("it was asked", lambda: stopping()["state"] == "cancelling")  # noqa: B023
                each.process.send_signal(signal.SIGINT)
            _, said = each.process.communicate(timeout=100)
            assert each.process.returncode == 130, (each.name, said)
            assert "asked the run to stop" in said, (each.name, said)
            run = inspect(daemon, each.id)
            assert (run["state"], run["containers"]) == ("cancelled", []), (each.name, run)
            assert run["jobs"][0]["state"] == ("success" if each.name == "finally" else "cancelled")
            cleaned = "cancelled" if each.name == "finally" else "success"
            assert run["jobs"][1]["state"] == cleaned, (each.name, run)


def test_asked_twice_a_run_ends_at_once_and_goes_on_when_it_is_resumed(
    daemon: Daemon, tmp_path: Path, registry: socket.socket
) -> None:
    with ExitStack() as stack:
        begun = at_their_stages(daemon, tmp_path, registry, stack)
        for each in begun:
            each.process.send_signal(signal.SIGINT)
        for each in begun:
            until("it was asked", lambda: inspect(daemon, each.id)["state"] != "running")  # noqa: B023
            each.process.send_signal(signal.SIGINT)
        for each in begun:
            _, said = each.process.communicate(timeout=100)
            assert each.process.returncode == 130, (each.name, said)
            run = inspect(daemon, each.id)
            assert (run["state"], run["containers"]) == ("cancelled", []), (each.name, run)
    for each in begun:
        if STAGES[each.name].goes_on:
            workspaces = daemon.data_root.glob(f"workflows/runs/{each.id}/jobs/a/workspace")
            for workspace in workspaces:
                (workspace / "go").touch()
            daemon.cli("workflow", "resume", each.id)
            assert inspect(daemon, each.id)["state"] == "success", each.name


def test_a_run_whose_time_is_over_cleans_up_and_ends_with_124(
    daemon: Daemon, tmp_path: Path, registry: socket.socket
) -> None:
    path = write(tmp_path, "script", "none")
    began = begin(daemon, path, "--timeout", "2s")
    _, said = began.process.communicate(timeout=100)
    assert began.process.returncode == 124, said
    assert "is being cancelled by the time limit of 2.0s" in said
    run = inspect(daemon, began.id)
    assert (run["state"], run["containers"]) == ("timed-out", [])
    assert [job["state"] for job in run["jobs"]] == ["cancelled", "success"]
    assert daemon.cli("workflow", "logs", began.id, "z/last").out == "clean\n"
    # The limit is of one attempt; this one gets its own.
    daemon.cli("workflow", "resume", began.id, "--timeout", "1s", status=124)
    assert inspect(daemon, began.id)["attempt"] == 2
    assert daemon.containers() == []
