"""``exec``, ``run-job``, ``wait-for``, ``prune`` on an engine in memory."""

import attrs
import pytest
import trio

from linkspan.plugins.standard_steps.execute import CommandFailed, ExecStep
from linkspan.plugins.standard_steps.prune import PruneStep
from linkspan.plugins.standard_steps.run_job import RunJobStep
from linkspan.plugins.standard_steps.wait_for import NeverWill, WaitForStep
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound, Timeout
from linkspan.sdk.model.container import (
    ContainerFilter,
    ContainerSpec,
    ContainerStatus,
    Health,
    HealthStatus,
    RestartPolicy,
)
from linkspan.sdk.model.network import NetworkSpec
from linkspan.sdk.model.step import JOB_LABEL, RUN_LABEL
from linkspan.sdk.model.volume import VolumeSpec
from linkspan.sdk.testing.fakes.engine import FakeEngine
from linkspan.sdk.testing.fakes.engine_images import make_image
from linkspan.sdk.testing.fakes.machine import FakeMachine


@pytest.fixture
def engine(fake_host):
    made = FakeEngine(FakeMachine(fake_host.nursery))
    made.images.put(make_image("app:1"))
    fake_host.fake_engine = made
    return made


async def running(engine, name="there", **spec):
    made = await engine.containers.create(ContainerSpec(image="app:1", **spec), name=name)
    await engine.containers.start(made.id)
    return engine.containers.inspect(made.id)


def change(engine, name, **state):
    container = engine.containers.inspect(name)
    engine.containers.put(attrs.evolve(container, state=attrs.evolve(container.state, **state)))


async def until(condition):
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - the fakes tell nobody
            await trio.sleep(0.001)


# -- exec -------------------------------------------------------------------------------------


async def test_exec_gives_what_the_command_printed(fake_host, engine, intent, context):
    await running(engine)
    wish = intent("exec", container="there", command=["echo", "a", "b"], timeout=5.0)
    assert await ExecStep(fake_host).apply(wish, context) == {"exit_code": 0, "output": "a b"}
    assert context.lines == ["a b"]


async def test_exec_fails_with_the_code_of_the_command(fake_host, engine, intent, context):
    await running(engine)
    with pytest.raises(CommandFailed, match=r"'false' ended with code 1 in container there"):
        await ExecStep(fake_host).apply(
            intent("exec", container="there", command=["false"], timeout=5.0), context
        )


async def test_exec_in_a_service_of_the_job_finds_its_container(fake_host, engine, intent, context):
    wish = intent("exec", service="db", command=["echo", "hi"], timeout=5.0)
    labels = {RUN_LABEL: wish.run_id, JOB_LABEL: wish.job}
    await running(engine, "random_name", hostname="db", labels=labels)
    assert (await ExecStep(fake_host).apply(wish, context))["output"] == "hi"


@pytest.mark.parametrize("settings", [{}, {"container": "a", "service": "b"}])
async def test_exec_wants_one_place(fake_host, engine, intent, context, settings):
    with pytest.raises(InvalidArgument, match="either 'container' or 'service'"):
        await ExecStep(fake_host).apply(
            intent("exec", command=["true"], timeout=5.0, **settings), context
        )


async def test_exec_that_does_not_end_is_given_up(fake_host, engine, intent, context):
    await running(engine)
    wish = intent("exec", container="there", command=["sleep", "100"], timeout=0.05)
    with pytest.raises(Timeout, match=r"'sleep 100' did not end within 0\.05s"):
        await ExecStep(fake_host).apply(wish, context)


# -- run-job ----------------------------------------------------------------------------------


async def test_a_job_leaves_no_container(fake_host, engine, intent, context):
    wish = intent("run-job", image="app:1", command=["true"], timeout=5.0)
    assert (await RunJobStep(fake_host).apply(wish, context))["exit_code"] == 0
    assert engine.containers.list(ContainerFilter(all=True)) == []


async def test_a_job_that_fails_says_its_code_and_leaves_no_container(
    fake_host, engine, intent, context
):
    with pytest.raises(CommandFailed, match="app:1 ended with code 1"):
        await RunJobStep(fake_host).apply(
            intent("run-job", image="app:1", command=["false"], timeout=5.0), context
        )
    assert engine.containers.list(ContainerFilter(all=True)) == []


async def test_an_image_that_is_not_here_is_pulled(fake_host, engine, intent, context):
    engine.images.remote["far:1"] = make_image("far:1", labels={"from": "far"})
    wish = intent("run-job", image="far:1", command=["true"], timeout=5.0)
    assert (await RunJobStep(fake_host).apply(wish, context))["exit_code"] == 0


async def test_a_job_that_takes_too_long_is_stopped_and_removed(fake_host, engine, intent, context):
    wish = intent("run-job", image="app:1", command=["sleep", "100"], timeout=0.05)
    with pytest.raises(Timeout, match=r"did not end within 0\.05s"):
        await RunJobStep(fake_host).apply(wish, context)
    assert engine.containers.list(ContainerFilter(all=True)) == []


async def test_a_job_that_was_begun_before_a_crash_is_waited_for(
    fake_host, engine, intent, context
):
    wish = intent("run-job", image="app:1", command=["sleep", "100"], timeout=50.0)
    step = RunJobStep(fake_host)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(step.apply, wish, context)
        await until(lambda: engine.containers.list())
        (begun,) = engine.containers.list()
        assert "still runs" in (await step.observe(wish)).detail
        nursery.start_soon(_apply_second, step, wish, context)
        await until(lambda: any("begun before" in line for line in context.lines))
        assert [c.id for c in engine.containers.list()] == [begun.id]
        nursery.cancel_scope.cancel()
    assert engine.containers.list(ContainerFilter(all=True)) == []


async def _apply_second(step, wish, context):
    await step.apply(wish, context)


# -- wait-for ---------------------------------------------------------------------------------


def waiting(fake_host, intent, context, **settings):
    wish = intent("wait-for", **{"timeout": 2.0, "interval": 0.01, **settings})
    return WaitForStep(fake_host).apply(wish, context)


async def test_it_waits_until_a_container_is_healthy(fake_host, engine, intent, context, nursery):
    await running(engine)
    change(engine, "there", health=Health(status=HealthStatus.STARTING))

    async def heal():
        await until(lambda: context.lines)
        change(engine, "there", health=Health(status=HealthStatus.HEALTHY))

    nursery.start_soon(heal)
    await waiting(fake_host, intent, context, container="there", condition="healthy", timeout=5.0)
    assert context.lines[0] == "waiting for container there: it is starting"


async def test_healthy_without_a_check_fails_at_once(fake_host, engine, intent, context):
    await running(engine)
    with pytest.raises(NeverWill, match="can never become healthy: it has no healthcheck"):
        await waiting(fake_host, intent, context, container="there", condition="healthy")


async def test_what_has_died_is_not_waited_for(fake_host, engine, intent, context):
    await running(engine)
    change(engine, "there", status=ContainerStatus.EXITED, exit_code=3)
    with pytest.raises(NeverWill, match="container there has ended with code 3"):
        await waiting(fake_host, intent, context, container="there")


async def test_what_will_be_restarted_is_waited_for(fake_host, engine, intent, context):
    await running(engine, restart=RestartPolicy(name="always"))
    change(engine, "there", status=ContainerStatus.EXITED, exit_code=3)
    with pytest.raises(Timeout, match="it is exited after"):
        await waiting(fake_host, intent, context, container="there", timeout=0.05)


async def test_exited_means_without_a_fault(fake_host, engine, intent, context):
    await running(engine)
    change(engine, "there", status=ContainerStatus.EXITED, exit_code=0)
    await waiting(fake_host, intent, context, container="there", condition="exited")
    change(engine, "there", exit_code=1)
    with pytest.raises(NeverWill, match="ended with code 1"):
        await waiting(fake_host, intent, context, container="there", condition="exited")


async def test_an_address_is_waited_for_until_it_takes_a_connection(
    fake_host, engine, intent, context, nursery
):
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()

    async def open_later():
        await until(lambda: context.lines)
        await trio.serve_tcp(lambda stream: stream.aclose(), port, host="127.0.0.1")

    nursery.start_soon(open_later)
    await waiting(fake_host, intent, context, address=f"127.0.0.1:{port}", timeout=10.0)
    assert "no connection" in context.lines[0]


@pytest.mark.parametrize("text", ["nothing", ":80", "host:", "host:99999", "host:\uff18\uff10"])
async def test_an_address_that_is_none_is_refused(fake_host, engine, intent, context, text):
    with pytest.raises(InvalidArgument, match="is not an address"):
        await waiting(fake_host, intent, context, address=text)


async def test_a_path_outside_of_the_workspace_is_refused(fake_host, engine, intent, context):
    with pytest.raises(InvalidArgument, match="leads out of the workspace"):
        await waiting(fake_host, intent, context, path="../../etc/passwd")


async def test_there_is_exactly_one_thing_to_wait_for(fake_host, engine, intent, context):
    for settings in ({}, {"path": "a", "container": "b"}):
        with pytest.raises(InvalidArgument, match="exactly one of"):
            await waiting(fake_host, intent, context, **settings)


async def test_a_service_of_the_job_is_found_before_one_of_the_cluster(
    fake_host, engine, intent, context
):
    wish = intent("wait-for", service="db", timeout=1.0, interval=0.01)
    labels = {RUN_LABEL: wish.run_id, JOB_LABEL: wish.job}
    await running(engine, "random_name", hostname="db", labels=labels)
    await WaitForStep(fake_host).apply(wish, context)


# -- prune ------------------------------------------------------------------------------------


async def test_only_what_nobody_uses_goes(fake_host, engine, intent, context):
    await running(engine, networks={}, labels={"run": "1"})
    await engine.containers.create(ContainerSpec(image="app:1", labels={"run": "1"}), name="idle")
    await engine.containers.create(ContainerSpec(image="app:1", labels={"run": "2"}), name="other")
    await engine.networks.create(NetworkSpec(name="old", labels={"run": "1"}))
    await engine.volumes.create(VolumeSpec(name="data", labels={"run": "1"}))
    wish = intent("prune", label="run=1")
    plan = await PruneStep(fake_host).plan(wish)
    assert [c.what for c in plan.changes] == ["container idle", "network old"]
    outputs = await PruneStep(fake_host).apply(wish, context)
    assert outputs["removed"] == {"containers": ["idle"], "networks": ["old"], "images": []}
    names = {c.name for c in engine.containers.list(ContainerFilter(all=True))}
    assert names == {"there", "other"}
    assert [v.name for v in await engine.volumes.list()] == ["data"]


async def test_volumes_go_when_they_are_named(fake_host, engine, intent, context):
    await engine.volumes.create(VolumeSpec(name="data"))
    outputs = await PruneStep(fake_host).apply(intent("prune", what=["volumes"]), context)
    assert outputs == {"removed": {"volumes": ["data"]}}


async def test_images_with_names_go_only_by_label(fake_host, engine, intent, context):
    engine.images.put(make_image("old:1", labels={"run": "1"}))
    assert (await PruneStep(fake_host).plan(intent("prune"))).changes == ()
    await PruneStep(fake_host).apply(intent("prune", label="run=1"), context)
    with pytest.raises(NotFound):
        engine.images.inspect("old:1")
    engine.images.inspect("app:1")


async def test_what_was_made_just_now_is_not_older(fake_host, engine, intent, context):
    await engine.containers.create(ContainerSpec(image="app:1"), name="idle")
    wish = intent("prune", **{"older-than": 3600.0})
    assert (await PruneStep(fake_host).plan(wish)).changes == ()


async def test_what_came_into_use_meanwhile_stays(fake_host, engine, intent, context, monkeypatch):
    await engine.containers.create(ContainerSpec(image="app:1"), name="idle")

    async def refuse(ref, **kwargs):
        await trio.lowlevel.checkpoint()
        raise Conflict("it runs")

    monkeypatch.setattr(engine.containers, "remove", refuse)
    outputs = await PruneStep(fake_host).apply(intent("prune", what=["containers"]), context)
    assert outputs == {"removed": {"containers": []}}
    assert context.lines == ["container idle stays: it runs"]
