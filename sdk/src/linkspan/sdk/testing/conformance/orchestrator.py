"""The kit for role ``orchestrator``. Subclass ``OrchestratorConformance`` and give it an orchestrator.

The tests look at services, tasks and progress only; that containers really run is for the driver's own
tests. They take real time: keep delays and drains short in the settings.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import attrs
import pytest
import trio

from linkspan.sdk.drivers.orchestrator import Orchestrator, OrchestratorCap, RolloutProgress
from linkspan.sdk.errors import Conflict, InvalidArgument, LinkspanError, NotFound, Unavailable
from linkspan.sdk.model.container import ContainerSpec
from linkspan.sdk.model.service import (
    ClusterSettings,
    FileReference,
    PayloadSpec,
    Placement,
    RolloutState,
    Service,
    ServicePort,
    ServiceRestart,
    ServiceSpec,
    Task,
    TaskState,
    UpdatePolicy,
)


class OrchestratorConformance:
    """What every orchestrator must do.

    A subclass overrides the fixture ``orchestrator``.

    Attributes:
        image: Its containers run until they are told to stop.
        other_image: So do these.
        broken_image: Its tasks fail before they run.
        free_port: A host port that nobody has.
        patience_s: How long a change may take.
    """

    image = "app:1"
    other_image = "app:2"
    broken_image = "bad:1"
    free_port = 18080
    patience_s = 10.0

    @pytest.fixture
    def orchestrator(self) -> Orchestrator[Any]:
        """An open orchestrator in no cluster; the overriding one is an async generator."""
        raise NotImplementedError("override the fixture 'orchestrator'")

    @pytest.fixture
    async def cluster(self, orchestrator: Orchestrator[Any]) -> AsyncIterator[Orchestrator[Any]]:
        """An orchestrator in a cluster of one node, left at the end."""
        await orchestrator.init()
        yield orchestrator
        with trio.CancelScope(shield=True), trio.move_on_after(self.patience_s):
            if await orchestrator.cluster() is not None:
                await orchestrator.leave(force=True)

    # -- helpers ------------------------------------------------------------------------------

    def spec(self, image: str = "", **facts: Any) -> ServiceSpec:
        """A service that is quick."""
        quick = UpdatePolicy(monitor_s=0.1, order="start-first")
        defaults: dict[str, Any] = {
            "name": "web",
            "container": ContainerSpec(image=image or self.image),
            "restart": ServiceRestart(delay_s=0.05),
            "update": quick,
            "rollback": quick,
        }
        return ServiceSpec(**{**defaults, **facts})

    async def done(self, orchestrator: Orchestrator[Any], service: str = "web") -> RolloutProgress:
        """The last moment of the current change."""
        last = None
        with trio.fail_after(self.patience_s):
            async with orchestrator.rollout(service) as moments:
                async for moment in moments:
                    last = moment
        assert last is not None
        return last

    async def up(self, orchestrator: Orchestrator[Any], **facts: Any) -> Service:
        """A service that is up."""
        service = await orchestrator.create_service(self.spec(**facts))
        done = await self.done(orchestrator, service.id)
        assert (done.done, done.failed) == (True, False), done.failures
        return service

    async def change(self, orchestrator: Orchestrator[Any], image: str = "", **facts: Any) -> None:
        """Want something else of ``web``."""
        before = (await orchestrator.get_service("web")).spec
        if image:
            facts["container"] = attrs.evolve(before.container, image=image)
        await orchestrator.update_service("web", attrs.evolve(before, **facts))

    async def running(self, orchestrator: Orchestrator[Any]) -> list[Task]:
        """Tasks of ``web`` that run and should."""
        return [
            t
            for t in await orchestrator.list_tasks(service="web")
            if t.state is TaskState.RUNNING and t.desired is TaskState.RUNNING
        ]

    async def until(self, holds: Callable[[], Any]) -> None:
        """Ask until it is so."""
        with trio.fail_after(self.patience_s):
            while not await holds():  # noqa: ASYNC110 - whatever a test asks for
                await trio.sleep(0.02)

    async def code_of(self, work: Any, kind: type[LinkspanError]) -> str:
        """The code of the error that a call raises."""
        with pytest.raises(kind) as caught:
            await work
        return caught.value.code

    # -- the cluster --------------------------------------------------------------------------

    async def test_it_speaks_a_version_of_the_contract(
        self, orchestrator: Orchestrator[Any]
    ) -> None:
        assert (orchestrator.contract.role, orchestrator.contract.version) == ("orchestrator", 1)

    async def test_without_a_cluster_everything_else_is_unavailable(
        self, orchestrator: Orchestrator[Any]
    ) -> None:
        assert await orchestrator.cluster() is None
        calls: Iterable[Any] = (
            orchestrator.create_service(self.spec()),
            orchestrator.update_service("web", self.spec()),
            orchestrator.rollback_service("web"),
            orchestrator.scale_service("web", 1),
            orchestrator.remove_service("web"),
            orchestrator.get_service("web"),
            orchestrator.list_services(),
            orchestrator.list_tasks(),
            orchestrator.get_task("x"),
            orchestrator.list_nodes(),
            orchestrator.get_node("self"),
            orchestrator.update_node("self", availability="drain"),
            orchestrator.leave(force=True),
            orchestrator.update_cluster(labels={}, task_history=1, version=1),
            orchestrator.create_payload("secret", PayloadSpec(name="a", data=b"x")),
            orchestrator.list_payloads("config"),
            orchestrator.get_payload("secret", "a"),
            orchestrator.update_payload("secret", "a", PayloadSpec(name="a"), version=1),
            orchestrator.remove_payload("secret", "a"),
        )
        for call in calls:
            assert await self.code_of(call, Unavailable) == "not_in_swarm"
        with pytest.raises(Unavailable):
            async with orchestrator.rollout("web"):
                pass

    async def test_init_makes_a_cluster_of_this_one_node(self, cluster: Orchestrator[Any]) -> None:
        made = await cluster.cluster()
        assert made is not None
        (node,) = await cluster.list_nodes()
        assert node.id == made.node_id
        assert (node.availability, node.state, node.role) == ("active", "ready", "manager")
        for ref in ("self", node.id, node.hostname, node.id[:8]):
            assert (await cluster.get_node(ref)).id == node.id
        assert await self.code_of(cluster.init(), Unavailable) == "already_in_swarm"
        assert await self.code_of(cluster.get_node("nowhere"), NotFound) == "node_not_found"

    async def test_the_cluster_keeps_labels_and_refuses_what_is_out_of_sequence(
        self, cluster: Orchestrator[Any]
    ) -> None:
        made = await cluster.cluster()
        assert made is not None
        changed = await cluster.update_cluster(
            labels={"a": "1"},
            task_history=2,
            version=made.version,
            settings=ClusterSettings(heartbeat_s=7.0),
        )
        assert (dict(changed.labels), changed.task_history) == ({"a": "1"}, 2)
        assert changed.settings == ClusterSettings(heartbeat_s=7.0)
        later = await cluster.update_cluster(labels={}, task_history=2, version=changed.version)
        assert later.settings == changed.settings
        again = cluster.update_cluster(labels={}, task_history=2, version=made.version)
        assert await self.code_of(again, Conflict) == "out_of_sequence"

    # -- secrets and configs ------------------------------------------------------------------

    async def test_a_configs_data_is_told_and_a_secrets_never(
        self, cluster: Orchestrator[Any]
    ) -> None:
        spec = PayloadSpec(name="app", data=b"\0data\xff", labels={"a": "1"})
        for kind, told in (("secret", b""), ("config", b"\0data\xff")):
            made = await cluster.create_payload(kind, spec)  # type: ignore[arg-type]
            for ref in (made.id, "app", made.id[:8]):
                found = await cluster.get_payload(kind, ref)  # type: ignore[arg-type]
                assert (found.id, found.spec.data) == (made.id, told)
            (listed,) = await cluster.list_payloads(kind)  # type: ignore[arg-type]
            assert (listed.spec.name, listed.spec.data) == ("app", b"")
            again = cluster.create_payload(kind, spec)  # type: ignore[arg-type]
            assert await self.code_of(again, Conflict) == "name_taken"

    async def test_labels_of_a_secret_change_in_sequence(self, cluster: Orchestrator[Any]) -> None:
        made = await cluster.create_payload("secret", PayloadSpec(name="key", data=b"x"))
        change = PayloadSpec(name="key", data=b"x", labels={"b": "2"})
        changed = await cluster.update_payload("secret", "key", change, version=made.version)
        assert dict(changed.spec.labels) == {"b": "2"}
        stale = cluster.update_payload("secret", "key", change, version=made.version)
        assert await self.code_of(stale, Conflict) == "out_of_sequence"
        for other in (PayloadSpec(name="new"), PayloadSpec(name="key", data=b"y")):
            with pytest.raises(InvalidArgument, match="only updates to Labels"):
                await cluster.update_payload("secret", "key", other, version=changed.version)

    async def test_a_secret_stays_while_a_service_refers_to_it(
        self, cluster: Orchestrator[Any]
    ) -> None:
        made = await cluster.create_payload("secret", PayloadSpec(name="key", data=b"x"))
        file = FileReference(kind="secret", id=made.id, name="key", target="/run/secrets/key")
        await self.up(cluster, files=(file,))
        in_use = cluster.remove_payload("secret", "key")
        assert await self.code_of(in_use, InvalidArgument) == "payload_in_use"
        await cluster.remove_service("web")
        await cluster.remove_payload("secret", "key")
        assert (
            await self.code_of(cluster.get_payload("secret", "key"), NotFound) == "secret_not_found"
        )
        lost = cluster.create_service(self.spec(files=(file,)))
        assert await self.code_of(lost, InvalidArgument) == "secret_not_found"

    async def test_the_last_manager_leaves_by_force_only_and_ends_all_services(
        self, cluster: Orchestrator[Any]
    ) -> None:
        await self.up(cluster, ports=(ServicePort(target_port=80, published_port=self.free_port),))
        with pytest.raises(Unavailable):
            await cluster.leave()
        await cluster.leave(force=True)
        assert await cluster.cluster() is None
        await cluster.init()
        assert await cluster.list_services() == []
        assert await cluster.list_tasks() == []
        await self.up(cluster, ports=(ServicePort(target_port=80, published_port=self.free_port),))

    async def test_labels_and_availability_of_a_node_change_apart(
        self, cluster: Orchestrator[Any]
    ) -> None:
        await cluster.update_node("self", labels={"zone": "a"})
        node = await cluster.update_node("self", availability="pause")
        assert (node.labels, node.availability) == ({"zone": "a"}, "pause")
        with pytest.raises(InvalidArgument):
            await cluster.update_node("self", availability="asleep")

    # -- creating -----------------------------------------------------------------------------

    async def test_a_new_service_comes_up_with_its_tasks_in_slots_from_one(
        self, cluster: Orchestrator[Any]
    ) -> None:
        made = await self.up(cluster, replicas=3)
        service = await cluster.get_service("web")
        assert (service.id, service.running_tasks, service.desired_tasks) == (made.id, 3, 3)
        tasks = await self.running(cluster)
        assert [t.slot for t in tasks] == [1, 2, 3]
        assert {t.service_id for t in tasks} == {made.id}
        assert {t.node_id for t in tasks} == {(await cluster.get_node("self")).id}
        assert (await cluster.get_task(tasks[0].id)).id == tasks[0].id

    async def test_a_service_is_found_by_name_id_and_unique_prefix(
        self, cluster: Orchestrator[Any]
    ) -> None:
        # So many that two ids begin with the same character.
        made = [
            await cluster.create_service(self.spec(name=f"s{number}", replicas=0))
            for number in range(37)
        ]
        for ref in ("s7", made[7].id, made[7].id[:12]):
            assert (await cluster.get_service(ref)).id == made[7].id
        names = [s.spec.name for s in await cluster.list_services()]
        assert names == sorted(s.spec.name for s in made)
        firsts = [s.id[0] for s in made]
        shared = next(c for c in firsts if firsts.count(c) > 1)
        assert await self.code_of(cluster.get_service(shared), InvalidArgument) == "ambiguous"
        assert await self.code_of(cluster.get_service("none"), NotFound) == "service_not_found"
        assert await self.code_of(cluster.get_task("none"), NotFound) == "task_not_found"

    async def test_a_name_belongs_to_one_service(self, cluster: Orchestrator[Any]) -> None:
        await cluster.create_service(self.spec(replicas=0))
        taken = cluster.create_service(self.spec(replicas=0))
        assert await self.code_of(taken, Conflict) == "name_taken"

    async def test_a_published_port_belongs_to_one_service_until_it_is_removed(
        self, cluster: Orchestrator[Any]
    ) -> None:
        ports = (ServicePort(target_port=80, published_port=self.free_port),)
        made = await cluster.create_service(self.spec(ports=ports, replicas=0))
        assert made.ports == ports
        other = self.spec(name="other", ports=ports, replicas=0)
        assert await self.code_of(cluster.create_service(other), Conflict) == "port_published"
        assert [s.spec.name for s in await cluster.list_services()] == ["web"]
        await cluster.remove_service("web")
        await cluster.create_service(other)

    async def test_ports_that_nobody_chose_are_chosen_and_kept(
        self, cluster: Orchestrator[Any]
    ) -> None:
        ports = (ServicePort(target_port=80), ServicePort(target_port=443))
        made = await cluster.create_service(self.spec(ports=ports, replicas=0))
        numbers = [p.published_port for p in made.ports]
        assert all(numbers)
        assert len(set(numbers)) == 2
        await self.change(cluster, image=self.other_image)
        after = await cluster.get_service("web")
        assert [p.published_port for p in after.ports] == numbers

    @pytest.mark.parametrize(
        "facts",
        [
            {"name": ""},
            {"replicas": -1},
            {"container": ContainerSpec(image="")},
            {"placement": Placement(constraints=("node.hostnam==x",))},
        ],
        ids=str,
    )
    async def test_a_spec_that_contradicts_itself_is_refused_and_not_recorded(
        self, cluster: Orchestrator[Any], facts: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidArgument):
            await cluster.create_service(self.spec(**facts))
        assert await cluster.list_services() == []

    async def test_a_new_service_that_does_not_come_up_is_done_and_failed_with_reasons(
        self, cluster: Orchestrator[Any]
    ) -> None:
        await cluster.create_service(self.spec(self.broken_image))
        done = await self.done(cluster)
        assert (done.done, done.failed, done.updated) == (True, True, 0)
        assert done.failures
        tasks = await cluster.list_tasks(service="web")
        assert any(t.error for t in tasks)

    # -- changing -----------------------------------------------------------------------------

    async def test_an_update_exchanges_all_tasks_and_remembers_the_spec_before(
        self, cluster: Orchestrator[Any]
    ) -> None:
        made = await self.up(cluster, replicas=2)
        await self.change(cluster, image=self.other_image)
        done = await self.done(cluster)
        assert (done.updated, done.desired, done.failed) == (2, 2, False)
        assert done.rollout is not None
        assert done.rollout.state is RolloutState.COMPLETED
        images = {t.spec.container.image for t in await self.running(cluster)}
        assert images == {self.other_image}
        service = await cluster.get_service("web")
        assert service.version > made.version
        assert service.previous_spec is not None
        assert service.previous_spec.container.image == self.image

    async def test_newer_tasks_of_a_slot_stand_first(self, cluster: Orchestrator[Any]) -> None:
        await self.up(cluster)
        await self.change(cluster, image=self.other_image)
        await self.done(cluster)
        tasks = await cluster.list_tasks(service="web")
        assert tasks[0].spec.container.image == self.other_image

    async def test_an_update_of_another_version_is_out_of_sequence(
        self, cluster: Orchestrator[Any]
    ) -> None:
        await self.up(cluster)
        before = await cluster.get_service("web")
        update = cluster.update_service(
            "web", self.spec(self.other_image), version=before.version + 7
        )
        with pytest.raises(Conflict):
            await update
        assert (await cluster.get_service("web")).spec == before.spec
        await cluster.update_service("web", self.spec(self.other_image), version=before.version)

    async def test_scaling_keeps_the_tasks_there_are(self, cluster: Orchestrator[Any]) -> None:
        await self.up(cluster, replicas=2)
        before = {t.id for t in await self.running(cluster)}
        await cluster.scale_service("web", 4)
        assert (await self.done(cluster)).running == 4
        assert before < {t.id for t in await self.running(cluster)}
        await cluster.scale_service("web", 2)
        await self.done(cluster)
        await self.until(lambda: self._has(cluster, 2))
        assert {t.id for t in await self.running(cluster)} == before
        with pytest.raises(InvalidArgument):
            await cluster.scale_service("web", -1)

    async def _has(self, cluster: Orchestrator[Any], count: int) -> bool:
        return len(await self.running(cluster)) == count

    async def test_a_service_may_have_no_tasks(self, cluster: Orchestrator[Any]) -> None:
        await self.up(cluster, replicas=0)
        await self.change(cluster, image=self.other_image)
        done = await self.done(cluster)
        assert (done.desired, done.failed) == (0, False)
        await cluster.scale_service("web", 1)
        assert (await self.done(cluster)).updated == 1

    async def test_a_rollback_goes_to_the_spec_before(self, cluster: Orchestrator[Any]) -> None:
        self._needs(cluster, OrchestratorCap.ROLLBACK)
        await self.up(cluster)
        with pytest.raises(InvalidArgument):
            await cluster.rollback_service("web")
        await self.change(cluster, image=self.other_image)
        await self.done(cluster)
        await cluster.rollback_service("web")
        done = await self.done(cluster)
        assert done.rollout is not None
        assert (done.failed, done.rollout.state) == (False, RolloutState.ROLLBACK_COMPLETED)
        images = {t.spec.container.image for t in await self.running(cluster)}
        assert images == {self.image}
        previous = (await cluster.get_service("web")).previous_spec
        assert previous is not None
        assert previous.container.image == self.other_image
        stale = cluster.rollback_service("web", version=10**6)
        assert await self.code_of(stale, Conflict) == "out_of_sequence"

    def _needs(self, cluster: Orchestrator[Any], capability: OrchestratorCap) -> None:
        if capability not in cluster.capabilities:
            pytest.skip(f"it cannot do {capability}")

    async def test_a_failing_update_pauses_and_the_old_tasks_go_on(
        self, cluster: Orchestrator[Any]
    ) -> None:
        self._needs(cluster, OrchestratorCap.ROLLING)
        await self.up(cluster, replicas=2)
        await self.change(cluster, image=self.broken_image)
        done = await self.done(cluster)
        assert done.rollout is not None
        assert (done.failed, done.rollout.state) == (True, RolloutState.PAUSED)
        assert done.rollout.message
        images = [t.spec.container.image for t in await self.running(cluster)]
        assert images == [self.image] * 2

    async def test_a_paused_update_ends_when_something_better_is_wanted(
        self, cluster: Orchestrator[Any]
    ) -> None:
        self._needs(cluster, OrchestratorCap.ROLLING)
        await self.up(cluster)
        await self.change(cluster, image=self.broken_image)
        await self.done(cluster)
        await self.change(cluster, image=self.other_image)
        done = await self.done(cluster)
        assert (done.failed, done.failures) == (False, ())

    async def test_a_failing_update_is_rolled_back_if_it_is_told_so(
        self, cluster: Orchestrator[Any]
    ) -> None:
        self._needs(cluster, OrchestratorCap.ROLLBACK)
        update = UpdatePolicy(monitor_s=0.1, order="start-first", failure_action="rollback")
        await self.up(cluster, update=update)
        await self.change(cluster, image=self.broken_image)
        done = await self.done(cluster)
        assert done.rollout is not None
        assert (done.failed, done.rollout.state) == (True, RolloutState.ROLLBACK_COMPLETED)
        assert (await cluster.get_service("web")).spec.container.image == self.image

    async def test_removing_ends_the_tasks(self, cluster: Orchestrator[Any]) -> None:
        await self.up(cluster, replicas=2)
        await cluster.remove_service("web")
        with pytest.raises(NotFound):
            await cluster.get_service("web")

        async def gone() -> bool:
            return await cluster.list_tasks() == []

        await self.until(gone)

    async def test_watching_a_service_that_is_removed_ends_with_not_found(
        self, cluster: Orchestrator[Any]
    ) -> None:
        placement = Placement(constraints=("node.labels.none==there",))
        await cluster.create_service(self.spec(placement=placement))
        async with cluster.rollout("web") as moments:
            assert not (await anext(moments)).done
            await cluster.remove_service("web")
            with pytest.raises(NotFound), trio.fail_after(self.patience_s):
                [moment async for moment in moments]

    # -- watching and nodes -------------------------------------------------------------------

    async def test_progress_begins_where_the_change_is_and_ends_when_it_is_done(
        self, cluster: Orchestrator[Any]
    ) -> None:
        await self.up(cluster)
        async with cluster.rollout("web") as moments:
            with trio.fail_after(self.patience_s):
                only = [moment async for moment in moments]
        assert [m.done for m in only] == [True]

    async def test_nobody_has_to_watch(self, cluster: Orchestrator[Any]) -> None:
        await cluster.create_service(self.spec(replicas=2))
        async with cluster.rollout("web") as moments:
            await anext(moments)
        await self.until(lambda: self._has(cluster, 2))

    async def test_a_cancelled_watcher_leaves_the_change_alone(
        self, cluster: Orchestrator[Any]
    ) -> None:
        await cluster.create_service(self.spec(replicas=2))
        with trio.move_on_after(0):
            await self.done(cluster)
        assert (await self.done(cluster)).running == 2

    async def test_a_drained_node_carries_nothing_until_it_is_active_again(
        self, cluster: Orchestrator[Any]
    ) -> None:
        await self.up(cluster, replicas=2)
        await cluster.update_node("self", availability="drain")
        await self.until(lambda: self._has(cluster, 0))

        async def said() -> bool:
            tasks = await cluster.list_tasks(service="web")
            return any(t.state is TaskState.PENDING and t.error for t in tasks)

        await self.until(said)
        await cluster.update_node("self", availability="active")
        await self.until(lambda: self._has(cluster, 2))

    async def test_constraints_are_obeyed(self, cluster: Orchestrator[Any]) -> None:
        placement = Placement(constraints=("node.labels.zone==a",))
        await cluster.create_service(self.spec(placement=placement))

        async def said() -> bool:
            tasks = await cluster.list_tasks(service="web")
            return any(t.state is TaskState.PENDING and t.error for t in tasks)

        await self.until(said)
        await cluster.update_node("self", labels={"zone": "a"})
        assert (await self.done(cluster)).running == 1

    async def test_a_global_service_has_one_task_on_the_node(
        self, cluster: Orchestrator[Any]
    ) -> None:
        await self.up(cluster, mode="global")
        (task,) = await self.running(cluster)
        assert (task.slot, task.node_id) == (0, (await cluster.get_node("self")).id)
        with pytest.raises(InvalidArgument):
            await cluster.scale_service("web", 2)
