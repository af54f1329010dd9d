"""Published ports: taken, spread, given back."""

import pytest
import trio

from linkspan.sdk.errors import Conflict, Unavailable
from linkspan.sdk.model.service import UpdatePolicy


async def test_a_published_port_leads_to_the_running_tasks(daemon, world, autojump_clock):
    await daemon.create(replicas=2, ports=(world.port(),))
    addresses = {t.addresses[0] for t in await daemon.running()}
    assert set(world.network.backends(8080)) == addresses
    await daemon.swarm.scale_service("web", 3)
    await daemon.until(lambda: len(world.network.backends(8080)) == 3)


async def test_during_an_update_there_is_always_somebody_behind_the_port(
    daemon, world, autojump_clock
):
    await daemon.create(replicas=2, ports=(world.port(),))
    del world.network.calls[:]
    await daemon.update(image="app:2")
    await daemon.until_done()
    assert min(count for what, _, count in world.network.calls if what == "balance") >= 2


async def test_a_port_that_a_service_has_is_refused_with_its_holder(daemon, world, autojump_clock):
    await daemon.create(ports=(world.port(),))
    with pytest.raises(Conflict, match="already in use by service 'web'") as caught:
        await daemon.swarm.create_service(world.spec(name="other", ports=(world.port(),)))
    assert caught.value.code == "port_published"
    await daemon.swarm.create_service(world.spec(name="udp", ports=(world.port(protocol="udp"),)))


async def test_a_port_that_something_else_has_is_refused(daemon, world, autojump_clock):
    world.network.holders["tcp", 8080] = "container db"
    with pytest.raises(Conflict):
        await daemon.swarm.create_service(
            world.spec(ports=(world.port(9000), world.port(8080, 81)))
        )
    assert world.network.balanced == {}
    assert await daemon.swarm.list_services() == []


async def test_two_services_at_once_cannot_have_one_port(daemon, world, autojump_clock):
    results = []

    async def create(name):
        try:
            await daemon.swarm.create_service(world.spec(name=name, ports=(world.port(),)))
            results.append("made")
        except Conflict as error:
            results.append(error.code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(create, "one")
        nursery.start_soon(create, "two")
    assert sorted(results) == ["made", "port_published"]


async def test_ports_nobody_chose_are_free_ones_and_stay(daemon, world, autojump_clock):
    world.network.holders["tcp", 30000] = "container db"
    service = await daemon.swarm.create_service(
        world.spec(ports=(world.port(0), world.port(0, 443)))
    )
    numbers = [p.published_port for p in service.ports]
    assert numbers == [30001, 30002]
    await daemon.update(image="app:2")
    await daemon.until_done()
    after = await daemon.swarm.get_service("web")
    assert [p.published_port for p in after.ports] == numbers


async def test_an_update_takes_new_ports_and_gives_old_ones_back(daemon, world, autojump_clock):
    await daemon.create(ports=(world.port(8080), world.port(8443, 443)))
    await daemon.update(ports=(world.port(8443, 443), world.port(9090, 90)))
    assert sorted(n for _, n in world.network.balanced) == [8443, 9090]
    await daemon.until(lambda: world.network.backends(9090))
    assert world.network.backends(8443)


async def test_an_update_that_is_refused_changes_no_port(daemon, world, autojump_clock):
    await daemon.create(ports=(world.port(),))
    world.network.holders["tcp", 81] = "container db"
    with pytest.raises(Conflict):
        await daemon.update(ports=(world.port(82, 82), world.port(81, 81)))
    assert sorted(n for _, n in world.network.balanced) == [8080]
    assert world.network.backends(8080)


async def test_a_rollback_by_itself_brings_the_ports_back(daemon, world, autojump_clock):
    update = UpdatePolicy(monitor_s=1, order="start-first", failure_action="rollback")
    await daemon.create(ports=(world.port(8080),), update=update)
    await daemon.update(image="bad:1", ports=(world.port(9090),))
    assert (await daemon.until_done()).failed
    await daemon.until(lambda: sorted(n for _, n in world.network.balanced) == [8080])
    await daemon.until(lambda: world.network.backends(8080))
    service = await daemon.swarm.get_service("web")
    assert [p.published_port for p in service.ports] == [8080]


async def test_a_rollback_whose_port_is_gone_takes_it_when_it_is_free(
    daemon, world, autojump_clock
):
    update = UpdatePolicy(monitor_s=1, order="start-first", failure_action="rollback")
    await daemon.create(ports=(world.port(8080),), update=update)
    await daemon.update(image="bad:1", ports=())
    world.network.holders["tcp", 8080] = "container db"
    await daemon.until_done()
    await trio.sleep(20)
    assert world.network.backends(8080) == []
    del world.network.holders["tcp", 8080]
    await daemon.until(lambda: world.network.backends(8080))


async def test_a_failing_unbalance_blocks_no_removal_and_is_tried_again(
    daemon, world, autojump_clock
):
    await daemon.create(ports=(world.port(),))
    world.network.broken = Unavailable("nft is gone")
    with trio.fail_after(1):
        await daemon.swarm.remove_service("web")
    await trio.sleep(5)
    assert ("tcp", 8080) in world.network.balanced
    world.network.broken = None
    await daemon.until(lambda: ("tcp", 8080) not in world.network.balanced)


async def test_a_port_still_to_be_given_back_can_be_taken_by_the_next_service(
    daemon, world, autojump_clock
):
    await daemon.create(ports=(world.port(),))
    world.network.broken = Unavailable("nft is gone")
    await daemon.swarm.remove_service("web")
    await daemon.until(lambda: not world.containers())
    world.network.broken = None
    await daemon.swarm.create_service(world.spec(name="next", ports=(world.port(),)))
    await daemon.until(lambda: world.network.backends(8080))
    await trio.sleep(10)
    assert world.network.backends(8080)


async def test_host_ports_are_the_containers_own(daemon, world, autojump_clock):
    await daemon.create(ports=(world.port(8080, mode="host"),))
    (container,) = world.running()
    assert [(p.host_port, p.container_port) for p in container.spec.ports] == [(8080, 80)]
    assert world.network.balanced == {}


async def test_after_a_restart_the_port_never_leads_nowhere(world, autojump_clock):
    async with world.daemon() as daemon:
        await daemon.swarm.init()
        await daemon.create(replicas=2, ports=(world.port(),))
    before = world.network.backends(8080)
    del world.network.calls[:]
    async with world.daemon() as daemon:
        await trio.sleep(5)
        assert world.network.backends(8080) == before
        assert all(count == 2 for _, _, count in world.network.calls)
        # What ran before the restart is taken out before it is stopped, too.
        await daemon.swarm.scale_service("web", 1)
        await daemon.until(lambda: len(world.running()) == 1)
        assert len(world.network.backends(8080)) == 1
