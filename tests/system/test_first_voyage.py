"""The example pipeline on real containers: build, test, push, deploy, check, scale, update, roll back."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.load import Load
from daemon_harness.registry import debian_registry
from daemon_harness.voyage import Ship, copy_pipeline

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def sailed(shared_daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ship]:
    """A voyage that has ended well; a test may change the version, and leaves five replicas."""
    pipeline = copy_pipeline(tmp_path_factory.mktemp("voyage"))
    ship = Ship(shared_daemon, pipeline, shared_daemon.registry)
    ship.said = ship.sail("1")
    yield ship
    shared_daemon.clean()


def test_a_voyage_ends_with_five_replicas_that_answer_through_one_port(sailed: Ship) -> None:
    for step in ("build/image", "push/push", "deploy/rollout", "deploy/smoke", "deploy/scale"):
        assert re.search(rf"^{step} .*✓ success", sailed.said, re.MULTILINE), sailed.said
    assert len(sailed.tasks()) == 5
    seen: set[str] = set()

    def everybody_answered() -> bool:
        seen.update(sailed.answers())
        return len(seen) == 5

    until("all five have answered", everybody_answered)
    assert len({answer.partition(",")[0] for answer in seen}) == 1
    # Deploy pulled by digest: the tag was removed before.
    assert f"{sailed.registry}/voyage:1" not in sailed.daemon.images()


def test_a_rolling_update_fails_no_request(sailed: Ship) -> None:
    (old,) = sailed.versions()
    new = "1" if old == "voyage 2" else "2"
    with Load(sailed.port) as load:
        sailed.sail(new)
    assert load.failed == []
    assert load.asked > 50
    assert {body.partition(",")[0] for body in load.bodies} == {old, f"voyage {new}"}
    sailed.wait_settled()
    assert sailed.versions() == {f"voyage {new}"}
    assert len(sailed.tasks()) == 5


def test_a_bad_release_is_rolled_back_and_nobody_notices(sailed: Ship) -> None:
    before = sailed.versions()
    with Load(sailed.port) as load:
        said = sailed.sail("bad", status=1)
    assert load.failed == []
    assert load.asked > 50
    assert {body.partition(",")[0] for body in load.bodies} == before
    assert "deploy/rollout failed" in said
    assert "rolled back: web is back on" in said
    assert re.search(r"linkspan workflow (logs|resume|show) ", said), "the next command is printed"
    sailed.wait_settled()
    assert len(sailed.tasks()) == 5
    assert sailed.versions() == before


def test_a_task_whose_process_is_killed_is_replaced_within_two_seconds(sailed: Ship) -> None:
    times = []
    for _ in range(3):  # a machine that is busy may be late once, the daemon is not
        ended, took = sailed.kill_a_task()
        assert ended["Status"]["State"] == "failed"
        assert ended["Status"]["ContainerStatus"]["ExitCode"] == 137
        assert "137" in sailed.daemon.cli("service", "ps", "web", "--no-trunc").out
        times.append(took)
        if took < 2:
            break
    assert min(times) < 2, times


def test_a_voyage_passes_against_debians_registry(
    shared_daemon: Daemon, sailed: Ship, voyage: Path
) -> None:
    with debian_registry() as address:
        ship = Ship(shared_daemon, voyage, address, sailed.port)
        version = "1" if sailed.versions() == {"voyage 2"} else "2"
        ship.sail(version)
        assert ship.versions() == {f"voyage {version}"}
        assert {
            task["Spec"]["ContainerSpec"]["Image"].partition("/")[0] for task in ship.tasks()
        } == {address}


def test_a_voyage_that_the_daemon_did_not_survive_is_resumed_to_the_same_end(
    daemon: Daemon, voyage: Path
) -> None:
    ship = Ship(daemon, voyage, daemon.registry)
    run = ship.kill_daemon_in("1", "deploy")
    daemon.start()
    interrupted = daemon.json("workflow", "show", run)
    assert interrupted["state"] == "interrupted"
    assert "kept: build, test, push" in daemon.cli("workflow", "resume", run).err
    resumed = daemon.json("workflow", "show", run)
    assert resumed["state"] == "success"
    assert ship.repeated(interrupted, resumed) == []
    assert ship.versions() == {"voyage 1"}
    assert len(ship.tasks()) == 5
