"""A daemon that is killed anywhere; the next one goes on, and no task has a second container."""

from collections import Counter

import attrs
import pytest
import trio

from linkspan.plugins.swarm.records import dump
from linkspan.sdk.drivers.state import Delete, Put
from linkspan.sdk.model.service import RolloutState, TaskState, UpdatePolicy

LABEL = "com.docker.swarm.task.id"


def one_container_each(world) -> None:
    counts = Counter(c.labels[LABEL] for c in world.containers())
    assert all(count == 1 for count in counts.values()), counts


async def test_running_tasks_are_carried_on(world, autojump_clock):
    async with world.daemon() as daemon:
        await daemon.swarm.init()
        await daemon.create(replicas=3)
        before = {c.id for c in world.running()}
    async with world.daemon() as daemon:
        await trio.sleep(100)
        assert {c.id for c in world.running()} == before
        world.machine.crash(before.pop())
        await daemon.until(lambda: len(world.running()) == 3)


async def test_what_ended_meanwhile_is_replaced_with_its_exit_code(world, autojump_clock):
    async with world.daemon() as daemon:
        await daemon.swarm.init()
        await daemon.create()
        (task,) = await daemon.running()
    world.machine.crash(task.container_id, 9)
    async with world.daemon() as daemon:
        await daemon.until(world.running)
        old = await daemon.swarm.get_task(task.id)
        assert (old.state, old.exit_code) == (TaskState.FAILED, 9)


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
@pytest.mark.parametrize("commit", range(2, 12))
async def test_killed_at_any_write_of_a_new_service(world, commit, after, autojump_clock):
    async def work(daemon):
        await daemon.swarm.init()
        await daemon.create(replicas=2, ports=(world.port(),))

    await world.daemon_that_dies(commit, after=after, work=work)
    one_container_each(world)
    async with world.daemon() as daemon:
        if await daemon.swarm.cluster() is None:
            await daemon.swarm.init()
        if not await daemon.swarm.list_services():
            await daemon.swarm.create_service(world.spec(replicas=2, ports=(world.port(),)))
        done = await daemon.until_done()
        assert (done.running, done.failed) == (2, False)
        one_container_each(world)
        assert len(world.running()) == 2
        assert len(world.network.backends(8080)) == 2


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
@pytest.mark.parametrize("order", ["start-first", "stop-first"])
@pytest.mark.parametrize("commit", range(1, 14))
async def test_killed_at_any_write_of_an_update(world, commit, order, after, autojump_clock):
    update = UpdatePolicy(monitor_s=1, order=order)
    async with world.daemon() as daemon:
        await daemon.swarm.init()
        await daemon.create(replicas=2, update=update)

    async def work(daemon):
        await daemon.update(image="app:2")
        await daemon.until_done()

    await world.daemon_that_dies(commit, after=after, work=work)
    one_container_each(world)
    async with world.daemon() as daemon:
        await daemon.until_done()
        if (await daemon.swarm.get_service("web")).spec.container.image != "app:2":
            await daemon.update(image="app:2")
        done = await daemon.until_done()
        assert done.rollout.state is RolloutState.COMPLETED
        await daemon.until(lambda: len(world.running()) == 2)
        assert {c.labels["v"] for c in world.running()} == {"app:2"}
        one_container_each(world)


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
@pytest.mark.parametrize("commit", range(1, 9))
async def test_killed_at_any_write_of_a_removal(world, commit, after, autojump_clock):
    async with world.daemon() as daemon:
        await daemon.swarm.init()
        await daemon.create(replicas=2, ports=(world.port(),))

    async def work(daemon):
        await daemon.swarm.remove_service("web")
        await daemon.until(lambda: not daemon.swarm._store.tasks)

    await world.daemon_that_dies(commit, after=after, work=work)
    async with world.daemon() as daemon:
        if await daemon.swarm.list_services():
            await daemon.swarm.remove_service("web")
        await daemon.until(lambda: not world.containers())
        await daemon.until(lambda: not daemon.swarm._store.tasks)


async def test_a_container_that_runs_though_its_task_has_ended_is_stopped(world, autojump_clock):
    async with world.daemon() as daemon:
        await daemon.swarm.init()
        await daemon.create()
        (task,) = await daemon.running()
        record = daemon.swarm._store.tasks[task.id]
    ended = attrs.evolve(record, task=attrs.evolve(record.task, state=TaskState.FAILED), ended_at=1)
    await world.state.commit(Put(key=f"swarm/tasks/{task.id}", value=dump(ended)))
    async with world.daemon() as daemon:
        await daemon.until(daemon.running)
        await daemon.until(lambda: len(world.running()) == 1)
        assert world.running()[0].id != task.container_id


async def test_containers_of_forgotten_tasks_are_removed(world, autojump_clock):
    async with world.daemon() as daemon:
        await daemon.swarm.init()
        await daemon.create()
        (task,) = await daemon.running()
    await world.state.commit(Delete(key=f"swarm/tasks/{task.id}"))
    async with world.daemon() as daemon:
        await daemon.until(daemon.running)
        assert task.container_id not in {c.id for c in world.containers()}


async def test_without_a_cluster_no_container_is_touched(world, autojump_clock):
    async with world.daemon() as daemon:
        await daemon.swarm.init()
        await daemon.create()
    world.state.entries.clear()
    async with world.daemon():
        await trio.sleep(30)
        assert len(world.running()) == 1
