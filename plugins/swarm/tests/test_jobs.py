"""Jobs: tasks that are to end."""

from linkspan.sdk.model.container import ContainerSpec
from linkspan.sdk.model.service import ServiceRestart, TaskState
from linkspan.sdk.testing.fakes.engine_images import make_image


async def job(daemon, world, program: str = "done", **facts):
    world.engine.images.put(make_image("job:1", command=(program,)))
    container = ContainerSpec(image="job:1")
    restart = ServiceRestart(delay_s=0.1, max_attempts=2)
    return await daemon.create(container=container, restart=restart, **facts)


async def test_a_job_ends_as_often_as_it_is_asked_to_and_no_more(daemon, world, autojump_clock):
    most = 0

    async def ended() -> bool:
        nonlocal most
        most = max(most, len([t for t in await daemon.tasks() if t.state < TaskState.COMPLETE]))
        return (await daemon.swarm.get_service("web")).completed_tasks == 5

    await job(daemon, world, mode="replicated-job", replicas=5, max_concurrent=2)
    await daemon.until(ended)
    assert most <= 2
    tasks = await daemon.tasks()
    assert [t.state for t in tasks] == [TaskState.COMPLETE] * 5
    assert {t.slot for t in tasks} == {1, 2, 3, 4, 5}
    assert {t.job_iteration for t in tasks} == {0}


async def test_a_changed_job_runs_again_as_the_next_iteration(daemon, world, autojump_clock):
    await job(daemon, world, mode="global-job")
    await daemon.until(lambda: daemon.tasks("web", TaskState.COMPLETE))
    await daemon.update(force_update=1)

    async def ran_again() -> bool:
        done = await daemon.tasks("web", TaskState.COMPLETE)
        return sorted(t.job_iteration for t in done) == [0, 1]

    await daemon.until(ran_again)
    assert (await daemon.swarm.get_service("web")).job_iteration == 1


async def test_a_job_runs_again_with_any_change_and_when_it_is_rolled_back(
    daemon, world, autojump_clock
):
    async def done() -> bool:
        service = await daemon.swarm.get_service("web")
        return service.completed_tasks == service.spec.replicas

    await job(daemon, world, mode="replicated-job", replicas=2)
    await daemon.until(done)
    await daemon.update(labels={"a": "b"})
    await daemon.until(done)
    await daemon.swarm.scale_service("web", 3)
    assert (await daemon.swarm.get_service("web")).completed_tasks == 0
    await daemon.until(done)
    await daemon.swarm.rollback_service("web")
    await daemon.until(done)
    service = await daemon.swarm.get_service("web")
    assert (service.job_iteration, service.spec.replicas, service.completed_tasks) == (3, 2, 2)
    assert await daemon.running() == []


async def test_a_changed_job_ends_all_that_runs_of_it_and_begins_again(
    daemon, world, autojump_clock
):
    await job(daemon, world, "serve", mode="replicated-job", replicas=3)
    await daemon.until(lambda: _running(daemon, 3))
    before = {t.id for t in await daemon.running()}
    await daemon.update(labels={"a": "b"})
    await daemon.until(lambda: _gone(daemon, before))
    await daemon.until(lambda: _running(daemon, 3))
    assert len(world.running()) == 3


async def _running(daemon, count: int) -> bool:
    return len(await daemon.running()) == count


async def _gone(daemon, ids) -> bool:
    return not ids & {t.id for t in await daemon.tasks()}


async def test_a_job_that_fails_is_tried_again_as_often_as_allowed(daemon, world, autojump_clock):
    await job(daemon, world, "fail", mode="replicated-job", replicas=1)
    await daemon.until(lambda: _failed_thrice(daemon))
    assert (await daemon.swarm.get_service("web")).completed_tasks == 0


async def _failed_thrice(daemon) -> bool:
    return len(await daemon.tasks("web", TaskState.FAILED)) == 3
