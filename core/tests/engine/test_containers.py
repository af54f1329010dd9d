"""Containers: the state machine, on a runtime in memory."""

import contextlib
import json
from pathlib import Path

import pytest
import trio

from linkspan.core.engine.lifecycle import should_restart
from linkspan.core.engine.signal_names import signal_number
from linkspan.core.store.records import Records
from linkspan.sdk.drivers.network import AttachRequest, Sandbox
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound, NotModified, OutOfSpace
from linkspan.sdk.hooks import hookimpl
from linkspan.sdk.host import NewImage
from linkspan.sdk.model.container import (
    ContainerFilter,
    ContainerSpec,
    ContainerStatus,
    ExecSpec,
    Healthcheck,
    HealthProbe,
    HealthStatus,
    Mount,
    Resources,
    RestartPolicy,
)
from linkspan.sdk.model.network import EndpointSpec, Network, NetworkSpec, PortBinding
from linkspan.sdk.model.process import LogQuery
from linkspan.sdk.testing.fakes.machine import FakeProcess

from .conftest import IMAGE, World, layer, serve_image, until


async def run(world: World, *command: str, name: str = "", **more: object) -> str:
    spec = ContainerSpec(image=IMAGE, command=command or None, **more)  # type: ignore[arg-type]
    container = await world.engine.containers.create(spec, name=name)
    await world.engine.containers.start(container.id)
    return container.id


async def test_a_container_runs_to_its_end_and_its_exit_code_is_kept(world: World) -> None:
    containers = world.engine.containers
    made = await containers.create(ContainerSpec(image=IMAGE, command=("false",)), name="one")
    assert made.state.status is ContainerStatus.CREATED
    waiter = containers.waiter("one", "next-exit")
    await containers.start("one")
    assert (await waiter.result()).exit_code == 1
    found = containers.inspect("one")
    assert found.state.status is ContainerStatus.EXITED
    assert found.state.exit_code == 1
    assert found.endpoints == ()


async def test_an_attached_client_sees_the_first_byte(world: World) -> None:
    containers = world.engine.containers
    made = await containers.create(ContainerSpec(image=IMAGE, command=("echo", "hello")))
    seen = []
    async with trio.open_nursery() as nursery:
        attachment = containers.attach(made.id)

        async def read() -> None:
            async with attachment as streams:
                while (chunk := await streams.receive()) is not None:
                    seen.append(chunk.data)

        nursery.start_soon(read)
        await containers.start(made.id)
    assert b"".join(seen) == b"hello\n"


async def test_an_image_that_is_mounted_stays_until_its_containers_are_gone(world: World) -> None:
    serve_image(world.registry, [layer({"tool": b"1"})], name="registry.test/tool")
    await world.engine.images.pull("registry.test/tool:1")
    tool = world.engine.images.inspect("registry.test/tool:1")
    mount = Mount(type="image", source="registry.test/tool:1", target="/tool")
    made = await run(world, "sleep", "60", mounts=(mount,))
    (point,) = world.engine.containers.inspect(made).mounts
    assert (point.image_id, point.name, point.read_only) == (tool.id, mount.source, True)
    await world.engine.gc()
    assert await world.snapshots.keys() == [made, f"{made}.0"]
    with pytest.raises(Conflict, match="is using its referenced image"):
        await world.engine.images.remove(mount.source)
    await world.engine.containers.remove(made, force=True)
    with trio.fail_after(10):
        while await world.snapshots.keys():
            await trio.lowlevel.checkpoint()
    await world.engine.images.remove(mount.source)
    with pytest.raises(NotFound, match="No such image: registry"):
        await run(world, "true", mounts=(mount,))
    assert [c.id for c in world.engine.containers.all()] == []
    # A crash may come between the record, which goes first, and what it names.
    await world.snapshots.prepare(f"{made}.0", "")
    await world.engine.containers.recover()
    assert await world.snapshots.keys() == []


async def test_its_log_can_be_read_after_its_end(world: World) -> None:
    made = await run(world, "echo", "kept")
    await until(lambda: not world.engine.containers.inspect(made).state.running)
    async with world.engine.containers.logs(made, LogQuery()) as records:
        assert [r.data async for r in records] == [b"kept\n"]


async def test_the_images_env_and_command_are_taken_over(world: World) -> None:
    made = await world.engine.containers.create(ContainerSpec(image=IMAGE, env=("B=2", "A=3")))
    assert made.args == ("sleep", "60")
    assert {"A=3", "B=2"} <= set(made.env)
    assert any(e.startswith("PATH=") for e in made.env)


async def test_a_taken_name_is_a_conflict_that_names_the_holder(world: World) -> None:
    holder = await run(world, name="web")
    with pytest.raises(Conflict, match=f'"/web" is already in use by container "{holder}"'):
        await world.engine.containers.create(ContainerSpec(image=IMAGE), name="web")


async def test_of_two_creates_with_one_name_at_once_one_wins(world: World) -> None:
    outcomes = []

    async def create() -> None:
        try:
            await world.engine.containers.create(ContainerSpec(image=IMAGE), name="both")
            outcomes.append("made")
        except Conflict:
            outcomes.append("conflict")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(create)
        nursery.start_soon(create)
    assert sorted(outcomes) == ["conflict", "made"]
    assert len(world.engine.containers.list(ContainerFilter(all=True))) == 1


async def test_a_missing_program_leaves_exit_code_127_and_no_network(world: World) -> None:
    made = await world.engine.containers.create(ContainerSpec(image=IMAGE, command=("nope",)))
    with pytest.raises(InvalidArgument, match="executable file not found"):
        await world.engine.containers.start(made.id)
    state = world.engine.containers.inspect(made.id).state
    assert state.exit_code == 127
    assert "nope" in state.error
    assert world.network.sandboxes == {}


async def test_a_network_has_any_name_that_can_stand_in_a_path(world: World) -> None:
    networks = world.engine.networks
    for name in ("-dash", ".d", "a b", "é", "a:b", "@", "x" * 255):
        made = await networks.create(NetworkSpec(name=name))
        assert networks.inspect(name).id == made.id
    for name in ("a/b", " a", "a ", " ", "a\nb", "\x7f", "x" * 256):
        with pytest.raises(InvalidArgument):
            await networks.create(NetworkSpec(name=name))


async def test_a_sandbox_ends_though_its_network_went_while_it_was_made(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = world.engine.networks
    await networks.create(NetworkSpec(name="back"))
    made = await world.engine.containers.create(
        ContainerSpec(image=IMAGE, command=("nonsense",), network_mode="back")
    )
    attach = world.network.attach

    async def attach_and_lose(request: AttachRequest) -> Sandbox:
        sandbox = await attach(request)
        await networks.remove("back")
        return sandbox

    monkeypatch.setattr(world.network, "attach", attach_and_lose)
    with pytest.raises(InvalidArgument):
        await world.engine.containers.start(made.id)
    assert world.network.sandboxes == {}


async def test_a_taken_port_leaves_the_container_created(world: World) -> None:
    port = PortBinding(container_port=80, host_port=8080)
    await run(world, name="first", ports=(port,))
    made = await world.engine.containers.create(
        ContainerSpec(image=IMAGE, ports=(port,)), name="second"
    )
    with pytest.raises(Conflict) as caught:
        await world.engine.containers.start(made.id)
    assert caught.value.code == "port_taken"
    assert world.engine.containers.inspect("second").state.status is ContainerStatus.CREATED


async def test_starting_a_running_one_and_stopping_a_stopped_one_change_nothing(
    world: World,
) -> None:
    made = await run(world)
    with pytest.raises(NotModified):
        await world.engine.containers.start(made)
    await world.engine.containers.stop(made, timeout_s=1)
    with pytest.raises(NotModified):
        await world.engine.containers.stop(made)


async def test_stop_sends_the_signal_then_kills(world: World) -> None:
    async def stubborn(process: FakeProcess) -> int:
        process.trapped.add(15)
        await trio.sleep_forever()
        return 0

    world.machine.programs["stubborn"] = stubborn
    made = await run(world, "stubborn")
    await world.engine.containers.stop(made, timeout_s=0.05)
    assert world.machine.containers[made].init.received == [15, 9]
    assert world.engine.containers.inspect(made).state.exit_code == 137


async def test_kill_of_a_stopped_container_is_a_conflict(world: World) -> None:
    made = await world.engine.containers.create(ContainerSpec(image=IMAGE))
    with pytest.raises(Conflict, match="is not running"):
        await world.engine.containers.kill(made.id)


async def test_a_paused_container_refuses_exec_until_it_is_thawed(world: World) -> None:
    made = await run(world)
    containers = world.engine.containers
    await containers.pause(made)
    assert containers.inspect(made).state.status is ContainerStatus.PAUSED
    with pytest.raises(Conflict, match="paused"):
        await containers.exec_create(made, ExecSpec(command=("true",)))
    await containers.unpause(made)
    session = await containers.exec_create(made, ExecSpec(command=("echo", "x")))
    async with containers.exec_start(session.id) as streams:
        chunk = await streams.receive()
        assert chunk is not None
        assert chunk.data == b"x\n"
        assert await streams.wait() == 0
    assert containers.exec_inspect(session.id).exit_code == 0
    with pytest.raises(Conflict):
        async with containers.exec_start(session.id):
            pass


async def test_an_exec_has_the_variables_of_links_while_the_linked_container_runs(
    world: World,
) -> None:
    db = await run(world, name="db")
    links = {"bridge": EndpointSpec(links=("db:base",))}
    web = await run(world, name="web", networks=links)
    containers = world.engine.containers
    session = await containers.exec_create(web, ExecSpec(command=("env",), env=("BASE_ENV_A=own",)))
    async with containers.exec_start(session.id) as streams:
        chunk = await streams.receive()
    assert chunk is not None
    told = dict(line.split("=", 1) for line in chunk.data.decode().splitlines())
    assert (told["BASE_NAME"], told["BASE_ENV_A"]) == ("/web/base", "own")
    waiter = containers.waiter(db)
    await containers.kill(db)
    await waiter.result()
    with pytest.raises(Conflict, match="Cannot link to a non running container: /db AS /web/base"):
        await containers.exec_create(web, ExecSpec(command=("env",)))


async def test_a_running_container_is_removed_only_by_force(world: World) -> None:
    made = await run(world, name="busy")
    with pytest.raises(Conflict, match="stop the container before removing or force remove"):
        await world.engine.containers.remove("busy")
    waiter = world.engine.containers.waiter("busy", "removed")
    await world.engine.containers.remove("busy", force=True)
    assert (await waiter.result()).exit_code == 137
    with pytest.raises(NotFound, match="No such container: busy"):
        world.engine.containers.inspect("busy")
    await until(lambda: made not in world.snapshots.store.snapshots)


async def test_auto_remove_tells_the_exit_code_and_leaves_nothing(world: World) -> None:
    containers = world.engine.containers
    made = await containers.create(ContainerSpec(image=IMAGE, command=("false",), auto_remove=True))
    waiter = containers.waiter(made.id, "removed")
    await containers.start(made.id)
    assert (await waiter.result()).exit_code == 1
    await until(lambda: not world.snapshots.store.snapshots and not world.network.sandboxes)
    assert containers.list(ContainerFilter(all=True)) == []


async def test_a_failing_container_is_restarted_as_often_as_its_policy_says(world: World) -> None:
    made = await run(
        world,
        "false",
        restart=RestartPolicy(name="on-failure", maximum_retry_count=2),
    )
    await until(
        lambda: world.engine.containers.inspect(made).state.status is ContainerStatus.EXITED
    )
    assert world.engine.containers.inspect(made).state.restart_count == 2


async def test_stop_ends_a_container_whose_restart_is_under_way(world: World) -> None:
    containers = world.engine.containers
    made = await run(world, "sleep", "600", restart=RestartPolicy(name="always"))
    world.machine.crash(made)

    def under_way() -> bool:
        state = containers.inspect(made).state
        return state.restart_count == 1 and state.status is ContainerStatus.RESTARTING

    with trio.fail_after(5):
        while not under_way():
            await trio.lowlevel.checkpoint()
    await containers.stop(made)
    await trio.sleep(0.5)
    state = containers.inspect(made).state
    assert (state.status, state.restart_count) == (ContainerStatus.EXITED, 1)
    assert not world.network.sandboxes


async def test_stop_ends_a_container_that_waits_for_its_restart(world: World) -> None:
    made = await run(world, "false", restart=RestartPolicy(name="always"))
    await until(
        lambda: world.engine.containers.inspect(made).state.status is ContainerStatus.RESTARTING
    )
    await world.engine.containers.stop(made)
    await trio.sleep(0.3)
    assert world.engine.containers.inspect(made).state.status is ContainerStatus.EXITED


async def test_health_goes_from_starting_to_healthy_to_unhealthy(world: World) -> None:
    well = True

    async def probe(process: FakeProcess) -> int:
        await process.write(b"asked")
        return 0 if well else 1

    world.machine.programs["probe"] = probe
    check = Healthcheck(test=("CMD", "probe"), interval_s=0.01, timeout_s=1, retries=2)
    made = await run(world, healthcheck=check)

    def status() -> HealthStatus | None:
        health = world.engine.containers.inspect(made).state.health
        return health.status if health else None

    assert status() is HealthStatus.STARTING
    await until(lambda: status() is HealthStatus.HEALTHY)
    well = False
    await until(lambda: status() is HealthStatus.UNHEALTHY)
    health = world.engine.containers.inspect(made).state.health
    assert health is not None
    assert health.log[-1].output == "asked"


async def test_an_interceptor_may_refuse_a_container(world: World) -> None:
    class Policy:
        @hookimpl
        async def linkspan_before_container_create(self, spec: ContainerSpec) -> None:
            if spec.privileged:
                raise InvalidArgument("no privileged containers here")

    world.hooks.register(Policy(), "policy")
    with pytest.raises(InvalidArgument, match="no privileged containers"):
        await world.engine.containers.create(ContainerSpec(image=IMAGE, privileged=True))
    assert world.engine.containers.list(ContainerFilter(all=True)) == []


async def test_containers_run_on_while_the_daemon_is_away(open_world) -> None:
    async with open_world() as first:
        await first.engine.images.pull(IMAGE)
        running = await run(first, name="stays")
        ending = await run(first, name="ends")
    first.machine.crash(ending, 3)
    async with open_world() as second:
        containers = second.engine.containers
        assert containers.inspect("stays").state.running
        assert containers.inspect("ends").state.exit_code == 3
        assert any("ends" in text for text in second.said)
        waiter = containers.waiter("stays", "next-exit")
        await containers.kill(running)
        assert (await waiter.result()).exit_code == 137


async def test_rename_keeps_the_container_and_frees_the_old_name(world: World) -> None:
    made = await run(world, name="old")
    await world.engine.containers.rename("old", "new")
    renamed = world.engine.containers.inspect("new")
    assert renamed.id == made
    assert [e.names[0] for e in renamed.endpoints] == ["new"]
    await world.engine.containers.create(ContainerSpec(image=IMAGE), name="old")


async def test_a_container_joins_another_ones_network(world: World) -> None:
    first = await run(world, name="first")
    second = await run(world, network_mode="container:first")
    inspect = world.engine.containers.inspect
    assert inspect(second).sandbox_key == inspect(first).sandbox_key
    await world.engine.containers.remove("first", force=True)
    await world.engine.containers.stop(second, timeout_s=0.1)
    with pytest.raises(NotFound):
        await world.engine.containers.start(second)


@pytest.mark.parametrize(
    ("policy", "code", "stopped", "restarts", "again"),
    [
        ("no", 1, False, 0, False),
        ("always", 0, False, 9, True),
        ("always", 0, True, 0, False),
        ("unless-stopped", 0, False, 0, True),
        ("on-failure", 0, False, 0, False),
        ("on-failure", 1, False, 0, True),
    ],
)
def test_restart_policies(
    policy: str, code: int, stopped: bool, restarts: int, again: bool
) -> None:
    chosen = RestartPolicy(name=policy)  # type: ignore[arg-type]
    assert should_restart(chosen, code, manually_stopped=stopped, restarts=restarts) is again


@pytest.mark.parametrize(
    ("text", "number"), [("SIGTERM", 15), ("kill", 9), ("15", 15), ("SIGRTMIN+3", 37)]
)
def test_signals_are_named_as_in_docker(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["", "SIGNOPE", "0", "99", "RTMIN+x"])
def test_an_unknown_signal_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid signal"):
        signal_number(text)


async def test_a_bind_source_that_is_missing_is_refused_by_name(
    world: World, tmp_path: Path
) -> None:
    from linkspan.sdk.model.container import Mount

    source = tmp_path / "nothing"
    spec = ContainerSpec(image=IMAGE, mounts=(Mount(type="bind", source=str(source), target="/x"),))
    with pytest.raises(InvalidArgument, match=str(source)):
        await world.engine.containers.create(spec)
    assert world.engine.containers.list(ContainerFilter(all=True)) == []
    source.mkdir()
    made = await world.engine.containers.create(spec)
    source.rmdir()
    with pytest.raises(InvalidArgument, match=str(source)):
        await world.engine.containers.start(made.id)


async def test_an_auto_removed_container_that_cannot_start_is_removed(world: World) -> None:
    containers = world.engine.containers
    made = await containers.create(ContainerSpec(image=IMAGE, command=("nope",), auto_remove=True))
    waiter = containers.waiter(made.id, "removed")
    with pytest.raises(InvalidArgument):
        await containers.start(made.id)
    with trio.fail_after(5):
        assert (await waiter.result()).exit_code == 127
    assert containers.list(ContainerFilter(all=True)) == []


async def test_a_removal_by_force_meets_a_start_under_way_and_leaves_nothing(world: World) -> None:
    containers = world.engine.containers
    made = await containers.create(ContainerSpec(image=IMAGE), name="both")
    outcome = []

    async def start() -> None:
        try:
            await containers.start(made.id)
        except (Conflict, NotFound) as error:
            outcome.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start)
        await trio.lowlevel.checkpoint()
        nursery.start_soon(lambda: containers.remove("both", force=True))
    assert containers.list(ContainerFilter(all=True)) == []
    await until(lambda: not world.network.sandboxes and not world.snapshots.store.snapshots)


async def test_a_container_that_cannot_be_removed_is_dead_and_may_be_removed_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    containers = world.engine.containers
    made = await run(world, "true", name="stuck")
    await until(lambda: not containers.inspect(made).state.running)

    async def full(_self: Records, _kind: str, _key: str) -> None:
        raise OutOfSpace("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Records, "delete", full)
        with pytest.raises(OutOfSpace):
            await containers.remove("stuck")
    assert containers.inspect("stuck").state.status is ContainerStatus.DEAD
    with pytest.raises(Conflict, match="marked for removal"):
        await containers.start("stuck")
    await containers.remove("stuck")
    assert containers.list(ContainerFilter(all=True)) == []


async def test_a_policy_and_limits_change_while_a_container_runs(world: World) -> None:
    containers = world.engine.containers
    made = await run(world)
    limits = Resources(memory_bytes=64 << 20, pids_limit=-1)
    await containers.update(made, resources=limits, restart=RestartPolicy(name="always"))
    found = containers.inspect(made)
    assert (found.spec.resources, found.spec.restart.name) == (limits, "always")
    assert world.machine.containers[made].resources == limits
    with pytest.raises(InvalidArgument, match="Minimum memory limit"):
        await containers.update(made, resources=Resources(memory_bytes=1))
    assert containers.inspect(made).spec.resources == limits


async def test_a_container_that_removes_itself_gets_no_restart_policy(world: World) -> None:
    made = await run(world, auto_remove=True)
    with pytest.raises(Conflict, match="AutoRemove is enabled"):
        await world.engine.containers.update(made, restart=RestartPolicy(name="always"))


async def test_an_update_at_the_moment_of_the_end_does_not_bring_it_back(world: World) -> None:
    made = await run(world)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.engine.containers.kill, made)
        for megabytes in range(64, 74):
            limits = Resources(memory_bytes=megabytes << 20)
            nursery.start_soon(_update, world, made, limits)
    await until(lambda: not world.engine.containers.inspect(made).state.running)
    assert world.engine.containers.inspect(made).state.status is ContainerStatus.EXITED


async def _update(world: World, made: str, limits: Resources) -> None:
    with contextlib.suppress(NotFound):  # the runtime says so between the end and its being known
        await world.engine.containers.update(made, resources=limits)


async def test_the_same_name_again_is_refused(world: World) -> None:
    await run(world, name="web")
    with pytest.raises(InvalidArgument, match="same name as its current name"):
        await world.engine.containers.rename("web", "web")


async def test_a_paused_container_that_is_told_to_stop_goes_on(world: World) -> None:
    containers = world.engine.containers
    made = await run(world)
    await containers.pause(made)
    await containers.kill(made, "SIGTERM")
    await until(lambda: not containers.inspect(made).state.running)
    assert containers.inspect(made).state.exit_code == 143


async def test_joined_containers_are_kept_by_their_ids(world: World) -> None:
    other = await run(world, name="other")
    made = await world.engine.containers.create(
        ContainerSpec(
            image=IMAGE,
            pid_mode="container:other",
            ipc_mode=f"container:{other[:12]}",
            network_mode="container:other",
        )
    )
    modes = (made.spec.pid_mode, made.spec.ipc_mode, made.spec.network_mode)
    assert set(modes) == {f"container:{other}"}
    with pytest.raises(NotFound, match="No such container: nobody"):
        await world.engine.containers.create(
            ContainerSpec(image=IMAGE, pid_mode="container:nobody")
        )


async def test_an_image_of_another_platform_is_as_good_as_none(world: World) -> None:
    with pytest.raises(NotFound, match="does not match the specified platform") as caught:
        await world.engine.containers.create(ContainerSpec(image=IMAGE, platform="linux/s390x"))
    assert caught.value.code == "image_not_found"
    with pytest.raises(InvalidArgument):
        await world.engine.containers.create(ContainerSpec(image=IMAGE, platform="a/b/c/d"))


async def test_an_empty_entrypoint_keeps_the_images_command(world: World) -> None:
    containers = world.engine.containers
    assert (await containers.create(ContainerSpec(image=IMAGE, entrypoint=()))).args == (
        "sleep",
        "60",
    )
    with pytest.raises(InvalidArgument, match="no command specified"):
        await containers.create(ContainerSpec(image=IMAGE, entrypoint=("",)))


async def test_who_does_not_run_is_not_well(world: World) -> None:
    check = Healthcheck(test=("CMD", "true"), interval_s=0.01)
    made = await run(world, healthcheck=check)
    await until(
        lambda: _health(world, made) is HealthStatus.HEALTHY,
    )
    await world.engine.containers.kill(made)
    assert _health(world, made) is HealthStatus.UNHEALTHY


def _health(world: World, made: str) -> HealthStatus | None:
    health = world.engine.containers.inspect(made).state.health
    return health.status if health else None


async def test_containers_of_images_that_were_built_on_one_descend_from_it(world: World) -> None:
    base = world.engine.images.inspect(IMAGE)
    document = {**base.config.raw, "author": "somebody"}
    child = await world.engine.images.add(
        NewImage(config=json.dumps(document).encode(), chain_ids=base.chain_ids, parent=base.id),
        tags=("child:1",),
    )
    containers = world.engine.containers
    await containers.create(ContainerSpec(image=IMAGE), name="of-base")
    await containers.create(ContainerSpec(image=child.id), name="of-child")

    def names(ref: str) -> set[str]:
        query = ContainerFilter(all=True, ancestors=(ref,))
        return {container.name for container in containers.list(query)}

    assert names(IMAGE) == {"of-base", "of-child"}
    assert names("child:1") == {"of-child"}
    assert names("nothing:1") == set()


async def test_a_link_is_taken_away_from_what_the_container_was_told(world: World) -> None:
    networks = {"bridge": EndpointSpec(links=("db:data",))}
    await world.engine.containers.create(ContainerSpec(image=IMAGE, networks=networks), name="web")
    await world.engine.containers.unlink("web", "data")
    assert world.engine.containers.inspect("web").spec.networks["bridge"].links == ()
    with pytest.raises(NotFound):
        await world.engine.containers.unlink("web", "data")


async def test_links_of_what_runs_are_taken_away_and_renamed_at_once(world: World) -> None:
    containers = world.engine.containers
    await run(world, name="db")
    networks = {"bridge": EndpointSpec(links=("db:data", "db:base"))}
    web = await run(world, name="web", networks=networks)

    def seen() -> list[tuple[str, ...]]:
        (lived,) = containers.inspect(web).endpoints
        (told,) = world.network.sandboxes[web].endpoints
        return [
            containers.inspect(web).spec.networks["bridge"].links,
            lived.spec.links,
            told.spec.links,
        ]

    await containers.unlink(web, "base")
    assert seen() == [("db:data",)] * 3
    await containers.rename("db", "store")
    assert seen() == [("store:data",)] * 3
    await containers.unlink(web, "data")
    assert seen() == [()] * 3


async def test_a_link_leads_to_nobody_who_gets_the_name_of_a_removed_container(
    world: World,
) -> None:
    containers = world.engine.containers
    await run(world, name="db")
    links = {"bridge": EndpointSpec(links=("db:base",))}
    web = await run(world, name="web", networks=links)
    await containers.remove("db", force=True)
    await run(world, name="db")
    (told,) = world.network.sandboxes[web].endpoints
    assert told.spec.links == ()
    await containers.rename("db", "store")
    assert containers.inspect(web).spec.networks == links
    await run(world, name="db")
    waiter = containers.waiter(web)
    await containers.kill(web)
    await waiter.result()
    with pytest.raises(Conflict, match="Cannot link to a non running container: /db AS /web/base"):
        await containers.start(web)
    await containers.unlink(web, "base")
    await containers.start(web)


async def test_a_link_follows_a_container_to_the_address_it_has_after_a_restart(
    world: World,
) -> None:
    containers = world.engine.containers
    db = await run(world, name="db")
    links = {"bridge": EndpointSpec(links=("db:base",))}
    web = await run(world, name="web", networks=links)
    told: list[tuple[str, ...]] = []
    relink = world.network.relink

    async def noted(container_id: str, network: Network, links: tuple[str, ...]) -> None:
        assert container_id == web
        told.append(links)
        await relink(container_id, network, links)

    world.network.relink = noted  # type: ignore[method-assign]
    waiter = containers.waiter(db)
    await containers.kill(db)
    await waiter.result()
    await containers.start(db)
    assert told == [(), ("db:base",)]
    bridge = world.engine.networks.inspect("bridge")
    await world.engine.networks.disconnect(bridge.id, db)
    await world.engine.networks.connect(bridge.id, db)
    assert len(told) == 4


async def test_a_probe_has_the_variables_of_links_and_fails_without_the_linked_container(
    world: World,
) -> None:
    asked: list[tuple[str, ...]] = []

    async def probe(process: FakeProcess) -> int:
        asked.append(tuple(process.spec.env))
        return 0

    world.machine.programs["probe"] = probe
    containers = world.engine.containers
    db = await run(world, name="db")
    check = Healthcheck(test=("CMD", "probe"), interval_s=0.01, timeout_s=1, retries=1)
    links = {"bridge": EndpointSpec(links=("db:base",))}
    web = await run(world, name="web", networks=links, healthcheck=check)
    await until(lambda: bool(asked))
    assert "BASE_NAME=/web/base" in asked[0]
    await containers.kill(db)

    def last() -> HealthProbe | None:
        health = containers.inspect(web).state.health
        return health.log[-1] if health and health.log else None

    await until(lambda: (found := last()) is not None and found.exit_code == -1)
    found = last()
    assert found is not None
    assert found.output == "Cannot link to a non running container: /db AS /web/base"
