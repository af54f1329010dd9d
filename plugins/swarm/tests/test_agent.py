"""What the agent does with tasks and their containers."""

import attrs
import pytest
import trio

from linkspan.sdk.errors import Unavailable
from linkspan.sdk.events import Event
from linkspan.sdk.model.container import (
    ContainerSpec,
    Health,
    HealthProbe,
    HealthStatus,
    Mount,
)
from linkspan.sdk.model.network import NetworkSpec
from linkspan.sdk.model.service import Placement, ServiceRestart, TaskState
from linkspan.sdk.testing.fakes.engine_images import make_image


def say_health(world, container, status: HealthStatus, output: str = "") -> None:
    """What the engine does after a probe."""
    probe = HealthProbe(start="", end="", exit_code=1, output=output)
    health = Health(status=status, log=(probe,))
    found = world.engine.containers.inspect(container.id)
    state = attrs.evolve(found.state, health=health)
    world.engine.containers.put(attrs.evolve(found, state=state))
    world.engine.events.publish(
        Event(type="container", action=f"health_status: {status.value}", actor_id=container.id)
    )


async def test_a_task_gets_a_container_with_its_name_and_labels(daemon, world, autojump_clock):
    service = await daemon.create(
        container=ContainerSpec(
            image="app:1",
            env=("SLOT={{.Task.Slot}}", "RAW={{ .Values.x | quote }}"),
            hostname="{{.Service.Name}}-{{.Task.Slot}}",
            mounts=(Mount(type="volume", source="data-{{.Task.Slot}}", target="/data"),),
        )
    )
    (task,) = await daemon.running()
    (container,) = world.running()
    assert container.name == f"web.1.{task.id}"
    assert container.labels["com.docker.swarm.service.id"] == service.id
    assert container.labels["com.docker.swarm.task.id"] == task.id
    assert container.spec.env == ("SLOT=1", "RAW={{ .Values.x | quote }}")
    assert container.hostname == "web-1"
    assert container.mounts[0].name == "data-1"
    assert (task.container_id, task.pid > 0, len(task.addresses)) == (container.id, True, 1)
    assert task.updated_at >= task.created_at


async def test_in_its_networks_a_service_is_known_by_its_name(daemon, world, autojump_clock):
    for name in ("front", "back"):
        await world.engine.networks.create(NetworkSpec(name=name, driver="bridge"))
    await daemon.create(networks=("front", "back"))
    (container,) = world.running()
    assert [e.network_name for e in container.endpoints] == ["front", "back"]
    assert container.spec.networks["back"].aliases == ("web", "tasks.web")
    assert container.spec.networks["front"].aliases == ("web", "tasks.web")


async def test_listeners_hear_of_every_state(daemon, autojump_clock):
    await daemon.create()
    told = [facts["new"] for name, facts in daemon.host.hooks.told if "task_state" in name]
    assert told == ["accepted", "preparing", "ready", "starting", "running"]


async def test_an_image_that_is_not_here_is_pulled_once(daemon, world, autojump_clock):
    world.engine.images.remote["far:1"] = make_image("far:1", command=("serve",))
    await daemon.create("far:1", replicas=3)
    assert sum(e.action == "pull" for e in world.engine.events.told) == 1


async def test_an_image_that_cannot_be_had_is_refused_with_its_reason(
    daemon, world, autojump_clock
):
    await daemon.swarm.create_service(world.spec("nowhere:1"))
    done = await daemon.until_done()
    assert done.failed
    assert "manifest for nowhere:1 not found" in done.failures[-1]
    assert {t.state for t in await daemon.tasks()} <= {
        TaskState.REJECTED,
        TaskState.ASSIGNED,
        TaskState.PENDING,
        TaskState.NEW,
    }
    assert world.containers() == []


async def test_a_failing_pull_is_tried_ever_more_rarely_also_after_a_restart(world, autojump_clock):
    pulls: list[float] = []
    pull = world.engine.images.pull

    async def counted(*args, **kwargs):
        pulls.append(trio.current_time())
        return await pull(*args, **kwargs)

    world.engine.images.pull = counted
    restart = ServiceRestart(delay_s=0)
    async with world.daemon() as daemon:
        await daemon.swarm.init()
        await daemon.swarm.create_service(world.spec("nowhere:1", restart=restart))
        await trio.sleep(30)
    first = len(pulls)
    assert 5 <= first <= 12
    async with world.daemon() as daemon:
        await trio.sleep(60)
        assert len(pulls) - first <= 3
        # And when it can be had, all is well.
        world.engine.images.remote["nowhere:1"] = make_image("nowhere:1", command=("serve",))
        await daemon.until(daemon.running)
        await trio.sleep(5)
        assert not (await daemon.until_done()).failed


async def test_a_container_that_ends_is_replaced_and_says_why(daemon, world, autojump_clock):
    await daemon.create()
    (before,) = await daemon.running()
    world.machine.crash(before.container_id, 7)
    await daemon.until(lambda: world.running() and world.running()[0].id != before.container_id)
    old = await daemon.swarm.get_task(before.id)
    assert (old.state, old.desired, old.exit_code) == (TaskState.FAILED, TaskState.SHUTDOWN, 7)
    assert old.error == "task: non-zero exit (7)"
    (after,) = await daemon.running()
    assert after.slot == 1


async def test_out_of_memory_is_said(daemon, world, autojump_clock):
    await daemon.create()
    (before,) = await daemon.running()
    world.machine.crash(before.container_id, oom_killed=True)
    await daemon.until(lambda: len(world.containers()) == 2)
    old = await daemon.swarm.get_task(before.id)
    assert old.error == "task: non-zero exit (137): out of memory"


async def test_a_container_removed_by_hand_is_replaced(daemon, world, autojump_clock):
    await daemon.create()
    (before,) = await daemon.running()
    await world.engine.containers.remove(before.container_id, force=True)
    await daemon.until(world.running)
    await daemon.until(daemon.running)
    assert (await daemon.swarm.get_task(before.id)).state is TaskState.FAILED


async def test_a_container_removed_while_the_daemon_was_away_is_replaced(world, autojump_clock):
    async with world.daemon() as daemon:
        await daemon.swarm.init()
        await daemon.create()
        (before,) = await daemon.running()
    await world.engine.containers.remove(before.container_id, force=True)
    async with world.daemon() as daemon:
        await daemon.until(world.running)
        old = await daemon.swarm.get_task(before.id)
        assert (old.state, old.error) == (TaskState.FAILED, "task: the container was removed")
        await daemon.until(daemon.running)
        (after,) = await daemon.running()
        assert after.id != before.id


async def test_a_task_with_a_health_check_runs_when_it_is_healthy(daemon, world, autojump_clock):
    start = world.engine.containers.start

    async def started(ref):
        await start(ref)
        say_health(world, world.engine.containers.inspect(ref), HealthStatus.STARTING)

    world.engine.containers.start = started
    await daemon.swarm.create_service(world.spec(ports=(world.port(),)))
    await daemon.until(world.running)
    await trio.sleep(20)
    assert await daemon.running() == []
    assert world.network.backends(8080) == []
    say_health(world, world.running()[0], HealthStatus.HEALTHY)
    await daemon.until(daemon.running)
    await daemon.until(lambda: world.network.backends(8080))


async def test_an_unhealthy_task_fails_with_the_probes_words_and_is_replaced(
    daemon, world, autojump_clock
):
    await daemon.create()
    (before,) = world.running()
    say_health(world, before, HealthStatus.UNHEALTHY, "connection refused\n")
    await daemon.until(lambda: [c for c in world.running() if c.id != before.id])
    await daemon.until(lambda: len(world.running()) == 1)
    failed = await daemon.tasks(state=TaskState.FAILED)
    assert failed[0].error == "task: unhealthy container: connection refused"
    assert failed[0].exit_code is None


async def test_lost_events_do_not_hide_bad_health(daemon, world, autojump_clock):
    await daemon.create()
    (before,) = world.running()
    found = world.engine.containers.inspect(before.id)
    health = Health(status=HealthStatus.UNHEALTHY)
    state = attrs.evolve(found.state, health=health)
    world.engine.containers.put(attrs.evolve(found, state=state))
    world.engine.events.publish(Event(type="daemon", action="dropped", actor_id=""))
    await daemon.until(lambda: [c for c in world.running() if c.id != before.id])


async def test_connections_leave_a_task_before_it_is_told_to_stop(daemon, world, autojump_clock):
    await daemon.create(ports=(world.port(),))
    (address,) = world.network.backends(8080)
    seen = []
    stop = world.engine.containers.stop

    async def watched(ref, **kwargs):
        seen.append((trio.current_time(), world.network.backends(8080)))
        await stop(ref, **kwargs)

    world.engine.containers.stop = watched
    began = trio.current_time()
    await daemon.update(replicas=0)
    await daemon.until(lambda: not world.containers())
    ((at, backends),) = seen
    assert backends == []
    assert address
    assert at - began >= 0.5


async def test_a_broken_network_driver_does_not_keep_a_task_alive(daemon, world, autojump_clock):
    await daemon.create(ports=(world.port(),))
    world.network.broken = Unavailable("nft is gone")
    await daemon.swarm.remove_service("web")
    await daemon.until(lambda: not world.containers())
    world.network.broken = None
    await daemon.until(lambda: ("tcp", 8080) not in world.network.balanced)


async def test_a_stop_that_fails_is_tried_until_it_works(daemon, world, autojump_clock):
    await daemon.create()
    world.machine.failures["signal"] = Unavailable("the runtime hangs")
    await daemon.update(replicas=0)
    await daemon.until(lambda: not world.containers())


async def test_a_start_that_fails_fails_the_task_and_leaves_no_container(
    daemon, world, autojump_clock
):
    world.machine.failures["start"] = Unavailable("no room in the cgroup")
    await daemon.swarm.create_service(world.spec())
    await daemon.until(daemon.running)
    failed = await daemon.tasks(state=TaskState.FAILED)
    assert failed[0].error == "no room in the cgroup"
    assert len(world.containers()) == 1


async def test_a_slow_pull_is_given_up_when_nobody_wants_the_task(daemon, world, autojump_clock):
    cancelled = trio.Event()

    async def slow(*args, **kwargs):
        try:
            await trio.sleep(10_000)
        finally:
            cancelled.set()

    world.engine.images.pull = slow
    await daemon.swarm.create_service(world.spec("slow:1"))
    await daemon.until(lambda: daemon.tasks(state=TaskState.PREPARING))
    await daemon.swarm.remove_service("web")
    with trio.fail_after(5):
        await cancelled.wait()
    await daemon.until(lambda: not daemon.swarm._store.tasks)


async def test_logs_of_the_last_ended_tasks_of_a_slot_are_kept(daemon, world, autojump_clock):
    await daemon.create()
    for _ in range(9):
        (task,) = await daemon.running()
        world.machine.crash(task.container_id, 1)
        await trio.sleep(15)
    await daemon.until(daemon.running)
    ended = [c for c in world.containers() if not c.state.running]
    assert len(ended) == 4
    kept = await daemon.tasks(state=TaskState.FAILED)
    assert {t.container_id for t in kept} == {c.id for c in ended}
    await daemon.swarm.remove_service("web")
    await daemon.until(lambda: not world.containers())


async def test_somebody_elses_container_of_the_same_name_is_left_alone(
    daemon, world, autojump_clock
):
    # Names hold the task's id, so this is as good as impossible; but it is not ours to stop.
    await daemon.create()
    (task,) = await daemon.running()
    await world.engine.containers.remove(task.container_id, force=True)
    other = await world.engine.containers.create(
        ContainerSpec(image="app:1"), name=f"web.1.{task.id}"
    )
    await daemon.until(daemon.running)
    await daemon.swarm.remove_service("web")
    await daemon.until(lambda: len(world.containers()) == 1)
    assert world.containers()[0].id == other.id


@pytest.mark.parametrize("placement", ["node.labels.zone==a", "node.hostname==elsewhere"])
async def test_a_task_without_a_node_says_so_and_can_be_removed(
    daemon, world, placement, autojump_clock
):
    await daemon.swarm.create_service(
        world.spec(placement=Placement(constraints=(placement,)), replicas=2)
    )
    await daemon.until(lambda: daemon.tasks(state=TaskState.PENDING))
    (first, _) = await daemon.tasks()
    assert first.error == "no suitable node (constraint not satisfied on 1 node)"
    await daemon.swarm.remove_service("web")
    await daemon.until(lambda: not daemon.swarm._store.tasks)
