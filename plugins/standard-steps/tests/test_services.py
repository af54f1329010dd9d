"""``deploy``, ``scale``, ``rollback``."""

import attrs
import pytest
from hypothesis import given, strategies as st

from linkspan.plugins.standard_steps.deploy import DeployStep
from linkspan.plugins.standard_steps.rollback import RollbackStep
from linkspan.plugins.standard_steps.rollout import RolloutFailed
from linkspan.plugins.standard_steps.scale import ScaleStep
from linkspan.plugins.standard_steps.service_spec import (
    same_wish,
    spec_from_json,
    spec_to_json,
    wanted_spec,
)
from linkspan.sdk.errors import InvalidArgument, NotFound, Timeout
from linkspan.sdk.model.container import Healthcheck, Mount
from linkspan.sdk.model.network import NetworkSpec
from linkspan.sdk.model.service import ServicePort, ServiceRestart, UpdatePolicy
from linkspan.sdk.testing.fakes.engine import FakeEngine
from linkspan.sdk.testing.fakes.machine import FakeMachine

FULL = {
    "service": "web",
    "image": "app@sha256:1",
    "replicas": 2,
    "ports": ["8080:80", "53/udp"],
    "volumes": ["data:/srv", "/etc/x:/x:ro"],
    "env": {"A": "1"},
    "healthcheck": {"test": ["CMD", "true"], "interval": 1.0, "retries": 2},
    "restart": {"condition": "any", "delay": 0.0},
    "update": {"order": "start-first", "parallelism": 1, "monitor": 2.0},
    "stop-grace": 2.0,
    "timeout": 60.0,
}


def test_settings_become_a_service():
    spec = wanted_spec(FULL, replicas=1)
    assert spec.replicas == 2
    assert spec.ports == (
        ServicePort(target_port=80, published_port=8080),
        ServicePort(target_port=53, protocol="udp"),
    )
    assert spec.container.mounts == (
        Mount(type="volume", source="data", target="/srv"),
        Mount(type="bind", source="/etc/x", target="/x", read_only=True),
    )
    assert spec.container.env == ("A=1",)
    assert spec.container.healthcheck == Healthcheck(
        test=("CMD", "true"), interval_s=1.0, retries=2
    )
    assert spec.restart == ServiceRestart(condition="any", delay_s=0.0)
    assert spec.update == UpdatePolicy(
        order="start-first", monitor_s=2.0, failure_action="rollback"
    )
    assert spec.container.stop_timeout_s == 2


def test_a_service_survives_the_journal():
    spec = wanted_spec(FULL, replicas=1)
    assert spec_from_json(spec_to_json(spec)) == spec
    said = {"Isolation": "default", "Parallelism": 0, "Platforms": None}
    changed_by_docker = attrs.evolve(spec, said=said)
    assert spec_from_json(spec_to_json(changed_by_docker)) == changed_by_docker


def test_two_wishes_are_the_same_whatever_was_filled_in():
    spec = wanted_spec(FULL, replicas=1)
    filled = attrs.evolve(spec, container=attrs.evolve(spec.container, hostname="x"))
    assert same_wish(spec, filled)
    assert not same_wish(spec, wanted_spec({**FULL, "image": "other"}, replicas=1))
    assert not same_wish(spec, attrs.evolve(spec, replicas=3))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ports", ["a:80"]),
        ("ports", ["0"]),
        ("ports", ["8080:80/x"]),
        ("ports", ["99999:80"]),
        ("volumes", ["data"]),
        ("volumes", ["data:relative"]),
        ("volumes", ["data:/x:rx"]),
        ("healthcheck", {"test": ["true"]}),
    ],
)
def test_what_cannot_be_read_is_refused(key, value):
    with pytest.raises(InvalidArgument):
        wanted_spec({**FULL, key: value}, replicas=1)


@given(st.text(max_size=20))
def test_no_port_text_raises_anything_else(text):
    try:
        (port,) = wanted_spec({**FULL, "ports": [text]}, replicas=1).ports
    except InvalidArgument:
        return
    assert 1 <= port.target_port <= 65535


async def deploy(host, intent, context, **changes):
    """Plan and apply, as the runner does; return outputs and the intent."""
    step = DeployStep(host)
    wish = intent("deploy", **{**FULL, **changes})
    wish = attrs.evolve(wish, settings={**FULL, **changes})
    wish = attrs.evolve(wish, undo=(await step.plan(wish)).undo)
    return wish, await step.apply(wish, context)


async def test_a_plan_misses_a_network_that_is_not_here(fake_host, orchestrator, nursery, intent):
    engine = FakeEngine(FakeMachine(nursery))
    fake_host.fake_engine = engine
    fake_host.drivers["orchestrator", ""] = orchestrator
    step, wish = DeployStep(fake_host), intent("deploy", **FULL)
    wish = attrs.evolve(wish, settings={**FULL, "networks": ["front"]})
    with pytest.raises(NotFound, match="network front not found") as caught:
        await step.plan(wish)
    assert caught.value.help == "linkspan network create front"
    await engine.networks.create(NetworkSpec(name="front"))
    assert (await step.plan(wish)).changes[0].action == "create"


async def test_deploy_creates_a_cluster_and_the_service(
    host, orchestrator, intent, context, autojump_clock
):
    wish, outputs = await deploy(host, intent, context)
    assert orchestrator.calls == ["init", "create web"]
    assert outputs == {
        "service": "id-web",
        "name": "web",
        "image": "app@sha256:1",
        "replicas": 2,
        "previous_image": None,
        "previous_replicas": 0,
    }
    assert context.shown[-1].current == 2
    assert "web: 2 of 2 updated, 2 running" in context.lines
    assert (await DeployStep(host).observe(wish)).applied


async def test_deploy_updates_and_a_second_time_changes_nothing(
    host, orchestrator, intent, context, autojump_clock
):
    await deploy(host, intent, context)
    _, outputs = await deploy(host, intent, context, image="app@sha256:2", replicas=3)
    assert outputs["previous_image"] == "app@sha256:1"
    assert outputs["previous_replicas"] == 2
    await deploy(host, intent, context, image="app@sha256:2", replicas=3)
    assert orchestrator.calls == ["init", "create web", "update web app@sha256:2 3"]


async def test_deploy_without_a_number_keeps_the_one_there_is(
    host, orchestrator, intent, context, autojump_clock
):
    await deploy(host, intent, context)
    step = DeployStep(host)
    settings = {name: value for name, value in FULL.items() if name != "replicas"}
    wish = attrs.evolve(intent("deploy"), settings={**settings, "image": "b"})
    wish = attrs.evolve(wish, undo=(await step.plan(wish)).undo)
    assert (await step.apply(wish, context))["replicas"] == 2


async def test_a_bad_update_fails_with_its_reason_and_undo_finds_it_back(
    host, orchestrator, intent, context, autojump_clock
):
    await deploy(host, intent, context)
    step = DeployStep(host)
    wish = attrs.evolve(intent("deploy"), settings={**FULL, "image": "bad"})
    wish = attrs.evolve(wish, undo=(await step.plan(wish)).undo)
    with pytest.raises(RolloutFailed, match="was rolled back: task 1: unhealthy"):
        await step.apply(wish, context)
    before = list(orchestrator.calls)
    done = await step.undo(wish, context)
    assert done["detail"] == "web is back on app@sha256:1, 2/2 up"
    assert orchestrator.calls == before


@pytest.mark.parametrize("replicas", [2, 3])
async def test_how_an_earlier_update_ended_is_no_fault_of_this_deploy(
    host, orchestrator, intent, context, autojump_clock, replicas
):
    await deploy(host, intent, context)
    with pytest.raises(RolloutFailed):
        await deploy(host, intent, context, image="bad")
    _, outputs = await deploy(host, intent, context, replicas=replicas)
    assert outputs["replicas"] == replicas


async def test_a_bad_first_deploy_fails_and_undo_removes_it(
    host, orchestrator, intent, context, autojump_clock
):
    step = DeployStep(host)
    wish = attrs.evolve(intent("deploy"), settings={**FULL, "image": "bad"})
    wish = attrs.evolve(wish, undo=(await step.plan(wish)).undo)
    with pytest.raises(RolloutFailed, match="its tasks keep failing: task 5: unhealthy"):
        await step.apply(wish, context)
    done = await step.undo(wish, context)
    assert done["detail"] == "service web is removed: there was none before"
    assert orchestrator.services == {}
    await step.undo(wish, context)


async def test_undo_after_success_goes_back_to_the_service_before(
    host, orchestrator, intent, context, autojump_clock
):
    await deploy(host, intent, context)
    wish, _ = await deploy(host, intent, context, image="app@sha256:2", replicas=5)
    await DeployStep(host).undo(wish, context)
    service = await orchestrator.get_service("web")
    assert (service.spec.container.image, service.spec.replicas) == ("app@sha256:1", 2)


async def test_a_rollout_that_does_not_end_is_a_timeout(
    host, orchestrator, intent, context, autojump_clock
):
    orchestrator.stuck = True
    with pytest.raises(Timeout, match="'web' was not up after 60s, 0/2 tasks run"):
        await deploy(host, intent, context)


async def test_observe_tells_apart_what_a_crash_left(
    host, orchestrator, intent, context, autojump_clock
):
    step = DeployStep(host)
    wish = attrs.evolve(intent("deploy"), settings=FULL)
    wish = attrs.evolve(wish, undo=(await step.plan(wish)).undo)
    assert "no such service" in (await step.observe(wish)).detail
    orchestrator.stuck = True
    await orchestrator.create_service(wanted_spec(FULL, replicas=1))
    seen = await step.observe(wish)
    assert (seen.applied, seen.detail) == (False, "the change is under way; waited for again")
    orchestrator.stuck = False
    orchestrator._put(await orchestrator.get_service("web"))
    assert (await step.observe(wish)).outputs["image"] == "app@sha256:1"


async def test_scale_there_and_back(host, orchestrator, intent, context, autojump_clock):
    await deploy(host, intent, context)
    step = ScaleStep(host)
    wish = intent("scale", service="web", replicas=5, timeout=60.0)
    plan = await step.plan(wish)
    assert plan.changes[0].detail == "replicas 2 → 5"
    wish = attrs.evolve(wish, undo=plan.undo)
    assert await step.apply(wish, context) == {"replicas": 5, "previous_replicas": 2}
    assert (await step.observe(wish)).applied
    await step.apply(wish, context)
    done = await step.undo(wish, context)
    assert done["detail"] == "web is back at 2 replicas"
    assert [call for call in orchestrator.calls if "scale" in call] == [
        "scale web 5",
        "scale web 2",
    ]


async def test_rollback_goes_back_once(host, orchestrator, intent, context, autojump_clock):
    await deploy(host, intent, context)
    await deploy(host, intent, context, image="app@sha256:2")
    step = RollbackStep(host)
    wish = intent("rollback", service="web", timeout=60.0)
    wish = attrs.evolve(wish, undo=(await step.plan(wish)).undo)
    assert (await step.apply(wish, context))["image"] == "app@sha256:1"
    # What a resume does after a crash: going back again would go forward.
    assert (await step.apply(wish, context))["image"] == "app@sha256:1"
    await step.undo(wish, context)
    assert (await orchestrator.get_service("web")).spec.container.image == "app@sha256:2"


def secret_names(orchestrator):
    return [each.spec.name for each in orchestrator.payloads.list("secret")]


async def test_secrets_are_files_of_the_tasks_and_kept_by_the_cluster(
    host, orchestrator, intent, context
):
    settings = {**FULL, "secrets": {"db_password": "hunter2"}}
    step = DeployStep(host)
    wish = intent("deploy", **settings)
    planned = await step.plan(wish)
    assert secret_names(orchestrator) == []
    await step.apply(attrs.evolve(wish, undo=planned.undo), context)
    (name,) = secret_names(orchestrator)
    (file,) = (await orchestrator.get_service("web")).spec.files
    assert (file.name, file.target) == (name, "/run/secrets/db_password")
    (payload,) = orchestrator.payloads.known.values()
    assert (payload.id, payload.spec.data) == (file.id, b"hunter2")
    assert "hunter2" not in name
    # The same value is the same wish; another one is not.
    assert [c.action for c in (await step.plan(wish)).changes] == ["none"]
    assert (await step.observe(wish)).applied
    again = intent("deploy", **{**settings, "secrets": {"db_password": "hunter3"}})
    planned = await step.plan(again)
    assert [c.action for c in planned.changes] == ["change"]
    assert "hunter" not in str(planned.undo)


async def test_old_secrets_stay_for_one_way_back_and_go_then(host, orchestrator, intent, context):
    step = DeployStep(host)
    kept = []
    for value in ("one", "two", "three"):
        wish = intent("deploy", **{**FULL, "secrets": {"key": value}})
        wish = attrs.evolve(wish, undo=(await step.plan(wish)).undo)
        await step.apply(wish, context)
        kept.append(len(secret_names(orchestrator)))
    assert kept == [1, 2, 2]
    await step.undo(wish, context)
    (file,) = (await orchestrator.get_service("web")).spec.files
    assert secret_names(orchestrator) == [file.name]
    assert orchestrator.payloads.known[file.id].spec.data == b"two"


async def test_a_first_deploy_that_is_taken_back_leaves_no_secret(
    host, orchestrator, intent, context
):
    step = DeployStep(host)
    wish = intent("deploy", **{**FULL, "secrets": {"key": "value"}})
    wish = attrs.evolve(wish, undo=(await step.plan(wish)).undo)
    await step.apply(wish, context)
    await step.undo(wish, context)
    assert (orchestrator.services, secret_names(orchestrator)) == ({}, [])


@pytest.mark.parametrize(
    ("secrets", "words"),
    [({"../etc": "x"}, "cannot be the name"), ({"": "x"}, "cannot be"), ({"a": ""}, "is empty")],
)
async def test_secrets_without_name_or_value_are_refused(
    host, orchestrator, intent, context, secrets, words
):
    with pytest.raises(InvalidArgument, match=words):
        await DeployStep(host).apply(intent("deploy", **{**FULL, "secrets": secrets}), context)
    assert orchestrator.services == {}
