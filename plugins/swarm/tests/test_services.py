"""Services as the API asks for them."""

import tomllib
from importlib.resources import files

import attrs
import pytest
import trio

from linkspan.sdk.drivers.state import Put
from linkspan.sdk.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    OutOfSpace,
    Unavailable,
    Unsupported,
)
from linkspan.sdk.model.container import ContainerSpec
from linkspan.sdk.model.network import NetworkSpec
from linkspan.sdk.model.service import (
    GenericResource,
    Placement,
    Reservation,
    RolloutState,
    ServiceRestart,
    TaskState,
    UpdatePolicy,
)


async def test_without_a_cluster_everything_says_how_to_make_one(world, autojump_clock):
    async with world.daemon() as daemon:
        swarm = daemon.swarm
        for ask in (
            lambda: swarm.list_services(),
            lambda: swarm.get_service("web"),
            lambda: swarm.create_service(world.spec()),
            lambda: swarm.list_nodes(),
            lambda: swarm.list_tasks(),
            lambda: swarm.leave(force=True),
        ):
            with pytest.raises(Unavailable) as caught:
                await ask()
            assert (caught.value.code, caught.value.help) == ("not_in_swarm", "linkspan swarm init")
        assert await swarm.cluster() is None


async def test_two_inits_make_one_cluster(world, autojump_clock):
    async with world.daemon() as daemon:
        results = []

        async def init():
            try:
                results.append(await daemon.swarm.init())
            except Unavailable as error:
                results.append(error.code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(init)
            nursery.start_soon(init)
        assert "already_in_swarm" in results
        assert len(await daemon.swarm.list_nodes()) == 1


async def test_a_service_comes_up_and_is_listed(daemon, world, autojump_clock):
    await daemon.create(replicas=3)
    (service,) = await daemon.swarm.list_services()
    assert (service.running_tasks, service.desired_tasks) == (3, 3)
    assert [t.slot for t in await daemon.running()] == [1, 2, 3]
    for ref in ("web", service.id, service.id[:6]):
        assert (await daemon.swarm.get_service(ref)).id == service.id
    with pytest.raises(NotFound, match="service nope not found"):
        await daemon.swarm.get_service("nope")


async def test_tasks_are_found_by_id_name_and_slot(daemon, autojump_clock):
    await daemon.create(replicas=2)
    (task, _) = await daemon.running()
    for ref in (task.id, task.id[:8], f"web.1.{task.id}", "web.1"):
        assert (await daemon.swarm.get_task(ref)).id == task.id


async def test_two_creates_of_one_name_make_one_service(daemon, world, autojump_clock):
    results = []

    async def create():
        try:
            results.append(
                (await daemon.swarm.create_service(world.spec(ports=(world.port(),)))).id
            )
        except Conflict as error:
            results.append(error.code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(create)
        nursery.start_soon(create)
    assert "name_taken" in results
    (service,) = await daemon.swarm.list_services()
    assert service.id in results


async def test_an_update_exchanges_the_tasks(daemon, world, autojump_clock):
    await daemon.create(replicas=2)
    await daemon.update(image="app:2")
    done = await daemon.until_done()
    assert done.rollout.state is RolloutState.COMPLETED
    assert (done.updated, done.running, done.desired, done.failed) == (2, 2, 2, False)
    assert {c.labels["v"] for c in world.running()} == {"app:2"}


async def test_progress_moves_step_by_step_and_ends(daemon, world, autojump_clock):
    await daemon.create(replicas=3)
    await daemon.update(image="app:2")
    updated = []
    async with daemon.swarm.rollout("web") as moments:
        async for moment in moments:
            updated.append(moment.updated)
    assert sorted(set(updated)) == [0, 1, 2, 3]
    assert updated == sorted(updated)


async def test_an_update_with_an_old_version_is_out_of_sequence(daemon, world, autojump_clock):
    service = await daemon.create()
    with pytest.raises(Conflict, match="update out of sequence"):
        await daemon.swarm.update_service("web", world.spec("app:2"), version=service.version + 9)


async def test_a_failing_update_is_rolled_back_and_progress_says_why(daemon, world, autojump_clock):
    update = UpdatePolicy(monitor_s=1, order="start-first", failure_action="rollback")
    await daemon.create(replicas=2, update=update)
    await daemon.update(image="bad:1")
    done = await daemon.until_done()
    assert done.failed
    assert done.rollout.state is RolloutState.ROLLBACK_COMPLETED
    assert "task: non-zero exit (3)" in done.rollout.message
    assert {c.labels["v"] for c in world.running()} == {"app:1"}
    states = [
        e.attributes["updatestate.new"]
        for e in world.engine.events.told
        if "updatestate.new" in e.attributes
    ]
    assert states[-1] == "rollback_completed"
    await daemon.swarm.scale_service("web", 3)
    assert not (await daemon.until_done()).failed


async def test_a_paused_update_is_done_and_failed_until_it_goes_on(daemon, autojump_clock):
    await daemon.create(replicas=2)
    await daemon.update(image="bad:1")
    done = await daemon.until_done()
    assert (done.done, done.failed) == (True, True)
    assert done.rollout.state is RolloutState.PAUSED
    await daemon.update(image="app:2")
    assert (await daemon.until_done()).rollout.state is RolloutState.COMPLETED


async def test_a_new_service_that_keeps_failing_is_not_waited_for(daemon, world, autojump_clock):
    await daemon.swarm.create_service(world.spec("bad:1"))
    done = await daemon.until_done()
    assert done.failed
    assert done.failures[0] == "web.1: task: non-zero exit (3)"


async def test_failures_of_an_earlier_change_are_not_shown_again(daemon, autojump_clock):
    await daemon.create()
    await daemon.update(image="bad:1")
    assert (await daemon.until_done()).failures
    await daemon.update(image="app:2")
    assert (await daemon.until_done()).failures == ()


async def test_rollback_goes_back_once(daemon, world, autojump_clock):
    await daemon.create()
    with pytest.raises(InvalidArgument, match="does not have a previous spec"):
        await daemon.swarm.rollback_service("web")
    await daemon.update(image="app:2")
    await daemon.until_done()
    await daemon.swarm.rollback_service("web")
    done = await daemon.until_done()
    assert (done.failed, done.rollout.state) == (False, RolloutState.ROLLBACK_COMPLETED)
    assert {c.labels["v"] for c in world.running()} == {"app:1"}


async def test_scaling_there_and_back(daemon, world, autojump_clock):
    await daemon.create()
    await daemon.swarm.scale_service("web", 4)
    await daemon.until_done()
    assert len(world.running()) == 4
    await daemon.swarm.scale_service("web", 0)
    await daemon.until(lambda: not world.containers())
    with pytest.raises(InvalidArgument):
        await daemon.swarm.scale_service("web", -1)
    assert (await daemon.until_done()).desired == 0


async def test_removing_takes_tasks_and_containers_along(daemon, world, autojump_clock):
    await daemon.create(replicas=3)
    await daemon.swarm.remove_service("web")
    assert await daemon.swarm.list_services() == []
    await daemon.until(lambda: not world.containers())
    assert await daemon.swarm.list_tasks() == []


async def test_watching_a_service_that_is_removed_ends_with_not_found(
    daemon, world, autojump_clock
):
    await daemon.swarm.create_service(world.spec("bad:1", restart=ServiceRestart(delay_s=50)))
    async with daemon.swarm.rollout("web") as moments:
        assert not (await anext(moments)).done
        await daemon.swarm.remove_service("web")
        with pytest.raises(NotFound, match="was removed"):
            await anext(moments)


async def test_leaving_needs_force_and_leaves_nothing(daemon, world, autojump_clock):
    await daemon.create(replicas=2, ports=(world.port(),))
    with pytest.raises(Unavailable) as caught:
        await daemon.swarm.leave()
    assert caught.value.code == "last_manager"
    await daemon.swarm.leave(force=True)
    assert world.containers() == []
    assert world.network.balanced == {}
    assert world.state.entries == {}
    assert await daemon.swarm.cluster() is None
    await daemon.swarm.init()
    await daemon.create()


async def test_leaving_a_drained_node_does_not_wait_for_ever(daemon, world, autojump_clock):
    await daemon.create(replicas=2)
    await daemon.swarm.update_node("self", availability="drain")
    await daemon.until(lambda: daemon.tasks(state=TaskState.PENDING))
    with trio.fail_after(30):
        await daemon.swarm.leave(force=True)


async def test_draining_a_node_ends_its_tasks_and_activating_brings_them_back(
    daemon, world, autojump_clock
):
    await daemon.create(replicas=2, ports=(world.port(),))
    await daemon.swarm.update_node("self", availability="drain")
    await daemon.until(lambda: not world.running())
    assert world.network.backends(8080) == []
    await daemon.until(lambda: daemon.tasks(state=TaskState.PENDING))
    pending = await daemon.tasks(state=TaskState.PENDING)
    assert pending[0].error == "no suitable node (not available on 1 node)"
    await daemon.swarm.update_node("self", availability="active")
    await daemon.until(lambda: len(world.running()) == 2)
    await daemon.until(lambda: len(world.network.backends(8080)) == 2)


async def test_a_paused_node_keeps_its_tasks_and_takes_no_others(daemon, world, autojump_clock):
    await daemon.create()
    await daemon.swarm.update_node("self", availability="pause")
    await daemon.swarm.scale_service("web", 2)
    await daemon.until(lambda: daemon.tasks(state=TaskState.PENDING))
    assert len(world.running()) == 1


async def test_a_global_service_follows_its_node(daemon, world, autojump_clock):
    await daemon.create(mode="global")
    (task,) = await daemon.running()
    node = await daemon.swarm.get_node("self")
    assert (task.slot, task.node_id) == (0, node.id)
    assert world.running()[0].name == f"web.{node.id}.{task.id}"
    with pytest.raises(InvalidArgument, match="replicated-job mode"):
        await daemon.swarm.scale_service("web", 2)
    await daemon.swarm.update_node("self", availability="drain")
    await daemon.until(lambda: not world.running())
    assert (await daemon.swarm.get_service("web")).desired_tasks == 0
    await daemon.swarm.update_node("self", availability="active")
    await daemon.until(world.running)
    await daemon.update(image="app:2")
    await daemon.until_done()
    assert {c.labels["v"] for c in world.running()} == {"app:2"}


async def test_a_paused_node_keeps_the_task_of_a_global_service_and_gets_no_other(
    daemon, world, autojump_clock
):
    await daemon.create(mode="global")
    await daemon.swarm.update_node("self", availability="pause")
    await daemon.swarm.create_service(attrs.evolve(world.spec(mode="global"), name="other"))
    await daemon.until_done("other")
    assert (await daemon.swarm.get_service("other")).desired_tasks == 0
    assert await daemon.tasks("other") == []
    web = await daemon.swarm.get_service("web")
    assert (web.desired_tasks, web.running_tasks) == (1, 1)
    await daemon.swarm.update_node("self", availability="active")
    await daemon.until(lambda: len(world.running()) == 2)


async def test_tasks_are_told_which_resources_they_got_and_end_when_the_node_loses_them(
    world, autojump_clock
):
    world.labels, world.generic_resources = ("zone=a",), ("gpu=first", "gpu=second", "ssd=3")
    wanted = tuple(GenericResource(kind=kind, count=1) for kind in ("gpu", "ssd"))
    async with world.daemon() as daemon:
        await daemon.swarm.init()
        (node,) = await daemon.swarm.list_nodes()
        assert node.engine_labels == {"zone": "a"}
        spec = world.spec(
            replicas=3,
            reservation=Reservation(generic=wanted),
            placement=Placement(constraints=("engine.labels.zone==a",)),
        )
        await daemon.swarm.create_service(spec)
        await daemon.until(lambda: len(world.running()) == 2)
        (waiting,) = await daemon.tasks("web", TaskState.PENDING)
        assert waiting.error == "no suitable node (insufficient resources on 1 node)"
    envs = sorted(container.spec.env[-2:] for container in world.running())
    assert envs == [
        ("DOCKER_RESOURCE_GPU=first", "DOCKER_RESOURCE_SSD=1"),
        ("DOCKER_RESOURCE_GPU=second", "DOCKER_RESOURCE_SSD=1"),
    ]
    world.generic_resources = ("gpu=second", "ssd=3")
    async with world.daemon() as daemon:
        await daemon.until(lambda: len(world.running()) == 1)
        (left,) = await daemon.running()
        assert left.generic_resources == (GenericResource(kind="gpu", name="second"), wanted[1])


async def test_node_labels_and_availability_are_kept(daemon, autojump_clock):
    node = await daemon.swarm.update_node("self", labels={"zone": "a"})
    assert node.labels == {"zone": "a"}
    again = await daemon.swarm.update_node(node.hostname, availability="pause")
    assert (again.labels, again.availability) == ({"zone": "a"}, "pause")
    assert again.version == node.version + 1
    with pytest.raises(InvalidArgument):
        await daemon.swarm.update_node("self", availability="asleep")


async def test_a_network_that_is_not_there_is_said_at_once(daemon, world, autojump_clock):
    with pytest.raises(NotFound, match="network front not found") as caught:
        await daemon.swarm.create_service(world.spec(networks=("front",)))
    assert caught.value.help == "linkspan network create front"
    assert await daemon.swarm.list_services() == []


async def test_networks_are_recorded_by_id_and_joined_by_name(daemon, world, autojump_clock):
    made = await world.engine.networks.create(NetworkSpec(name="front", driver="bridge"))
    service = await daemon.create(networks=("front",))
    assert service.spec.networks == (made.id,)
    (container,) = world.containers()
    assert container.spec.network_mode == "front"
    assert container.spec.networks["front"].aliases == ("web", "tasks.web")
    before = len(await daemon.swarm.list_tasks())
    await daemon.update(networks=("front",))
    await daemon.until_done()
    assert len(await daemon.swarm.list_tasks()) == before


async def test_on_the_hosts_network_there_is_no_other_and_no_port_of_the_swarm(
    daemon, world, autojump_clock
):
    await world.engine.networks.create(NetworkSpec(name="front", driver="bridge"))
    with pytest.raises(InvalidArgument, match="cannot be in another one"):
        await daemon.swarm.create_service(world.spec(networks=("host", "front")))
    with pytest.raises(InvalidArgument, match="none can lead to them"):
        await daemon.swarm.create_service(world.spec(networks=("host",), ports=(world.port(),)))
    await daemon.create(networks=("host",))
    (container,) = world.containers()
    assert (container.spec.network_mode, container.spec.networks) == ("host", {})
    with pytest.raises(InvalidArgument, match="none can lead to them"):
        await daemon.update(networks=("host",), ports=(world.port(),))


async def test_the_network_of_none_is_no_services(daemon, world, autojump_clock):
    with pytest.raises(NotFound, match="predefined swarm network: network none not found"):
        await daemon.swarm.create_service(world.spec(networks=("none",)))


async def test_leaving_takes_the_networks_of_the_swarm_and_no_others(daemon, world, autojump_clock):
    for name, driver in (("wide", "overlay"), ("local", "bridge")):
        await world.engine.networks.create(NetworkSpec(name=name, driver=driver))
    await daemon.create(networks=("wide",))
    await daemon.swarm.leave(force=True)
    assert "wide" not in [n.name for n in world.engine.networks.list()]
    assert "local" in [n.name for n in world.engine.networks.list()]


async def test_a_network_that_went_away_is_the_tasks_error(daemon, world, autojump_clock):
    await world.engine.networks.create(NetworkSpec(name="front", driver="bridge"))
    await daemon.create(networks=("front",))
    await daemon.swarm.scale_service("web", 0)
    await daemon.until(lambda: not world.containers())
    await world.engine.networks.remove("front")
    await daemon.swarm.scale_service("web", 1)
    done = await daemon.until_done()
    assert done.failures[-1].endswith(" not found")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"name": "-web"}, "DNS name"),
        ({"name": "w" * 64}, "63 characters or fewer"),
        ({"name": "w.w"}, "DNS name"),
        ({"name": ""}, "name must be provided"),
        ({"replicas": -1}, "between 0 and"),
        ({"mode": "sometimes"}, "invalid mode"),
        ({"reservation": Reservation(memory_bytes=4194303)}, "4194303: Must be at least 4MiB"),
        ({"reservation": Reservation(nano_cpus=100)}, "1e-07: Must be at least 0.001"),
        ({"reservation": Reservation(nano_cpus=-1)}, "Must be at least 0.001"),
        ({"restart": ServiceRestart(condition="never")}, "invalid restart condition"),
        ({"restart": ServiceRestart(delay_s=-1)}, "negative"),
        ({"update": UpdatePolicy(max_failure_ratio=2)}, "cannot be less than 0 or bigger"),
        ({"update": UpdatePolicy(order="sideways")}, "invalid order"),
        ({"rollback": UpdatePolicy(failure_action="rollback")}, "cannot be rolled back"),
    ],
)
async def test_a_contradiction_is_refused_and_nothing_is_recorded(
    daemon, world, facts, words, autojump_clock
):
    with pytest.raises(InvalidArgument, match=words):
        await daemon.swarm.create_service(world.spec(**facts))
    assert await daemon.swarm.list_services() == []


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        ("node.labels.zone=a", "invalid constraint"),
        ("node.hostnam==a", "did you mean node.hostname"),
    ],
)
async def test_bad_constraints_are_refused_at_creation(
    daemon, world, constraint, words, autojump_clock
):
    with pytest.raises(InvalidArgument) as caught:
        await daemon.swarm.create_service(
            world.spec(placement=Placement(constraints=(constraint,)))
        )
    assert words in f"{caught.value} {caught.value.help}"


async def test_unknown_placeholders_are_refused_at_creation(daemon, world, autojump_clock):
    container = ContainerSpec(image="app:1", env=("N={{.Task.Sloth}}",))
    with pytest.raises(InvalidArgument, match=r"unknown placeholder \{\{.Task.Sloth\}\}"):
        await daemon.swarm.create_service(world.spec(container=container))


async def test_a_template_that_cannot_be_filled_is_refused_at_creation(
    daemon, world, autojump_clock
):
    container = ContainerSpec(image="app:1", env=("N={{if .Node.Nmae}}x{{end}} {{ other }}",))
    with pytest.raises(InvalidArgument, match="expanding a template failed: template: expansion:1"):
        await daemon.swarm.create_service(world.spec(container=container))


async def test_name_and_mode_cannot_be_changed(daemon, world, autojump_clock):
    await daemon.create()
    with pytest.raises(Unsupported, match="renaming"):
        await daemon.swarm.update_service("web", world.spec(name="other"))
    with pytest.raises(Unsupported, match="mode change"):
        await daemon.swarm.update_service("web", world.spec(mode="global"))


async def test_a_full_disk_refuses_a_service_and_gives_its_port_back(daemon, world, autojump_clock):
    world.state.full = True
    with pytest.raises(OutOfSpace):
        await daemon.swarm.create_service(world.spec(ports=(world.port(),)))
    assert world.network.balanced == {}
    world.state.full = False
    await daemon.create(ports=(world.port(),))


async def test_a_full_disk_later_is_waited_out(daemon, world, autojump_clock):
    await daemon.create(replicas=2)
    (task, _) = await daemon.running()
    world.state.full = True
    world.machine.crash(task.container_id, 1)
    await trio.sleep(3)
    world.state.full = False
    with trio.fail_after(60):
        while len(await daemon.running()) != 2:  # noqa: ASYNC110
            await trio.sleep(0.1)


async def test_many_replicas_are_more_than_one_transaction(daemon, world, autojump_clock):
    await daemon.swarm.create_service(world.spec(replicas=600))
    await daemon.until(lambda: len(daemon.swarm._store.tasks) == 600)
    await daemon.swarm.remove_service("web")
    await daemon.until(lambda: not daemon.swarm._store.tasks)


async def test_a_write_from_elsewhere_is_noticed_and_read(daemon, world, autojump_clock):
    service = await daemon.create()
    key = f"swarm/services/{service.id}"
    entry = world.state.entries[key]
    await world.state.commit(Put(key=key, value=entry.value))
    with pytest.raises(Conflict):
        await daemon.swarm.scale_service("web", 2)
    await daemon.swarm.scale_service("web", 2)
    await daemon.until(lambda: len(world.running()) == 2)


def test_the_manifest_names_what_is_shipped():
    text = files("linkspan.plugins.swarm").joinpath("linkspan-plugin.toml").read_text()
    manifest = tomllib.loads(text)
    assert manifest["driver"] == [
        {
            "role": "orchestrator",
            "name": "swarm",
            "contract": 1,
            "features": ["rolling", "health-gate", "rollback"],
        }
    ]
