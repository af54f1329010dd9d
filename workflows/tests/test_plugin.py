"""Pipelines join the daemon, and are loaded when there is something for them to do."""

import subprocess
import sys

import pytest
import trio
import trio.testing

from linkspan.sdk.errors import Unavailable
from linkspan.sdk.testing.host import FakeHost
from linkspan.workflows import plugin
from linkspan.workflows.config import WorkflowsConfig
from linkspan.workflows.parts import Handlers
from linkspan.workflows.routes import Routes
from linkspan.workflows.triggering.routes import ServedRoutes

HEAVY = ("linkspan.workflows.manager", "linkspan.workflows.run", "linkspan.workflows.check", "yaml")


def test_the_routes_that_are_announced_are_those_that_there_are():
    there = Handlers()
    Routes(lambda: None).register(there)
    ServedRoutes(lambda: None).register(there)
    assert len(set(plugin.ROUTES)) == len(plugin.ROUTES)
    assert set(plugin.ROUTES) == set(there)


def test_a_daemon_without_pipelines_imports_none_of_their_modules():
    script = (
        f"import sys, linkspan.workflows.plugin; print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


@pytest.fixture
def host(bench):
    return bench.host


def request(host, path):
    found = {}

    class Table:
        def add(self, method, pattern, handler):
            found[method, pattern] = handler

    plugin.linkspan_register_routes(Table(), host)
    return found["GET", path](None)


async def test_the_first_request_loads_them(host: FakeHost, nursery):
    with pytest.raises(Unavailable):
        await request(host, "/linkspan/v1/runs")
    await nursery.start(plugin.run_component, WorkflowsConfig(), host)
    with trio.fail_after(30):
        answer = await request(host, "/linkspan/v1/runs")
        assert (answer.status, answer.body) == (200, b"[]\n")
        served = await request(host, "/linkspan/v1/served")
    assert served.status == 200


@pytest.mark.parametrize("what", ["runs/20261129-1", "served.json"])
async def test_what_an_earlier_daemon_has_left_is_taken_up_before_the_api_listens(
    host: FakeHost, nursery, what: str
):
    path = host.state_dir / what
    path.parent.mkdir(parents=True, exist_ok=True)
    if what == "served.json":
        path.write_text("{}")
    else:
        path.mkdir()
    await nursery.start(plugin.run_component, WorkflowsConfig(), host)
    assert plugin._pipelines(host).loaded().manager is not None


async def test_requests_are_told_when_they_could_not_be_loaded(host: FakeHost, nursery):
    async def component():
        with pytest.raises(BaseExceptionGroup):
            await plugin.run_component(WorkflowsConfig(), host)

    host.state_dir.mkdir(parents=True, exist_ok=True)
    nursery.start_soon(component)
    await trio.testing.wait_all_tasks_blocked()
    (host.state_dir / "served.json").mkdir()
    with trio.fail_after(30), pytest.raises(Unavailable):
        await request(host, "/linkspan/v1/runs")
