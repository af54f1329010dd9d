"""Services: what is sent, waiting until it is so, and the reason when it is not."""

import json
from typing import Any

import pytest

SID = "s1" * 12


def service(
    image: str = "web:1", replicas: int = 2, version: int = 10, **more: Any
) -> dict[str, Any]:
    return {
        "ID": SID,
        "Version": {"Index": version},
        "Spec": {
            "Name": "web",
            "Labels": {"keep": "1"},
            "Mode": {"Replicated": {"Replicas": replicas}},
            "TaskTemplate": {"ContainerSpec": {"Image": image, "Env": ["A=1", "B=2"]}},
            "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]},
        },
        **more,
    }


def task(
    slot: int, state: str = "running", image: str = "web:1", desired: str = "running", err: str = ""
) -> dict[str, Any]:
    return {
        "ID": f"t{slot}{image}{state}",
        "ServiceID": SID,
        "Slot": slot,
        "DesiredState": desired,
        "Status": {"State": state, "Err": err, "Timestamp": "2099-01-01T00:00:00Z"},
        "Spec": {"ContainerSpec": {"Image": image, "Env": ["A=1", "B=2"]}},
    }


def scenes(fake: Any, *steps: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    """Each look at the service sees the next scene; the last one stays."""
    for name, index in (("service", 0), ("tasks", 1)):

        def handler(_request: Any, connection: Any, name: str = name, index: int = index) -> None:
            file = fake.folder / f"looks-{name}"
            look = len(file.read_text()) if file.exists() else 0
            file.write_text("x" * (look + 1))
            connection.answer(200, steps[min(look, len(steps) - 1)][index])

        if name == "service":
            fake.on("GET", f"/services/{SID}", handler)
        else:
            fake.on("GET", "/tasks", handler)


def test_create_sends_the_whole_spec_and_waits(fake: Any, linkspan: Any) -> None:
    fake.on("POST", "/services/create", {"ID": SID}, 201)
    scenes(
        fake,
        (service(), []),
        (service(), [task(1), task(2, "starting")]),
        (service(), [task(1), task(2)]),
    )
    with fake.running():
        result = linkspan(
            *["service", "create", "--name", "web", "--replicas", "2", "-p", "8080:80"],
            *["--mount", "type=volume,src=data,dst=/d", "-e", "A=1", "--health-cmd", "true"],
            *["--update-order", "start-first", "--update-failure-action", "rollback"],
            *["--restart-condition", "any", "--restart-delay", "0s", "--limit-memory", "64m"],
            *["--stop-grace-period", "3s", "web:1", "serve", "--port", "80"],
        )
    assert (result.status, result.out) == (0, f"{SID}\n")
    assert result.err.splitlines()[:3] == [
        "  web  0 of 2 run",
        "  web  1 of 2 run",
        "  web  2 of 2 run",
    ]
    assert result.err.splitlines()[3].startswith("✓ web  2/2 run  ")
    spec = fake.asked("POST", "/services/create").json
    container = spec["TaskTemplate"]["ContainerSpec"]
    assert spec["Mode"] == {"Replicated": {"Replicas": 2}}
    port = {"TargetPort": 80, "PublishedPort": 8080, "Protocol": "tcp", "PublishMode": "ingress"}
    assert spec["EndpointSpec"]["Ports"] == [port]
    assert container["Args"] == ["serve", "--port", "80"]
    assert container["Mounts"] == [{"Type": "volume", "Source": "data", "Target": "/d"}]
    assert container["Healthcheck"] == {"Test": ["CMD-SHELL", "true"]}
    assert container["StopGracePeriod"] == 3_000_000_000
    assert spec["UpdateConfig"] == {
        "Parallelism": 1,
        "Order": "start-first",
        "FailureAction": "rollback",
        "Monitor": 5_000_000_000,
    }
    assert spec["TaskTemplate"]["RestartPolicy"] == {"Condition": "any", "Delay": 0}
    assert spec["TaskTemplate"]["Resources"]["Limits"] == {"MemoryBytes": 64 << 20}


def test_detach_does_not_wait(fake: Any, linkspan: Any) -> None:
    fake.on("POST", "/services/create", {"ID": SID}, 201)
    with fake.running():
        assert linkspan("service", "create", "-d", "web:1") == (0, f"{SID}\n", "")


def test_update_changes_only_what_was_asked_for(fake: Any, linkspan: Any) -> None:
    fake.on("GET", "/services/web", service())
    fake.on("POST", f"/services/{SID}/update", {})
    new = [task(1, image="web:2"), task(2, image="web:2")]
    for made in new:
        made["Spec"]["ContainerSpec"]["Env"] = ["B=2", "C=3"]
    changed = service("web:2", version=11)
    changed["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] = ["B=2", "C=3"]
    updating = {**changed, "UpdateStatus": {"State": "updating"}}
    done = {**changed, "UpdateStatus": {"State": "completed"}}
    old = task(1, desired="shutdown")
    scenes(fake, (service(), [old]), (updating, [*new, old]), (done, new))
    with fake.running():
        result = linkspan(
            *["service", "update", "--image", "web:2", "--env-rm", "A", "--env-add", "C=3"],
            *["--label-add", "x=y", "--publish-add", "443:443", "web"],
        )
    assert (result.status, result.out) == (0, "web\n")
    request = fake.asked("POST", f"/services/{SID}/update")
    assert request.query == {"version": "10"}
    spec = request.json
    assert spec["TaskTemplate"]["ContainerSpec"]["Image"] == "web:2"
    assert spec["TaskTemplate"]["ContainerSpec"]["Env"] == ["B=2", "C=3"]
    assert spec["Labels"] == {"keep": "1", "x": "y"}
    assert [p["TargetPort"] for p in spec["EndpointSpec"]["Ports"]] == [80, 443]
    assert spec["Mode"] == {"Replicated": {"Replicas": 2}}
    assert "UpdateConfig" not in spec


def test_a_rolled_back_update_fails_with_the_reason_and_the_next_command(
    fake: Any, linkspan: Any
) -> None:
    fake.on("GET", "/services/web", service())
    fake.on("POST", f"/services/{SID}/update", {})
    status = {
        "State": "rollback_completed",
        "Message": "rolled back: 1 of 1 new tasks failed",
        "StartedAt": "2099-01-01T00:00:00Z",
    }
    failed = task(1, "failed", "web:bad", "shutdown", "unhealthy: GET / → 500, 3 of 3 probes")
    scenes(fake, (service(version=12, UpdateStatus=status), [task(1), task(2), failed]))
    with fake.running():
        result = linkspan("service", "update", "--image", "web:bad", "web")
    assert result.status == 1
    assert result.err.endswith(
        "error[LS0104]: service 'web' was rolled back: rolled back: 1 of 1 new tasks failed\n"
        "  = cause: web.1: unhealthy: GET / → 500, 3 of 3 probes\n"
        "  = state: 2 of 2 tasks run as before\n"
        "  = help: linkspan service ps web\n"
    )


def test_a_paused_update_fails_too(fake: Any, linkspan: Any) -> None:
    fake.on("GET", "/services/web", service())
    fake.on("POST", f"/services/{SID}/update", {})
    status = {"State": "paused", "Message": "a task failed", "StartedAt": "2099-01-01T00:00:00Z"}
    scenes(fake, (service(version=12, UpdateStatus=status), [task(1)]))
    with fake.running():
        result = linkspan("service", "update", "--force", "web")
    assert result.status == 1
    assert "linkspan service rollback web" in result.err
    assert fake.asked("POST", f"/services/{SID}/update").json["TaskTemplate"]["ForceUpdate"] == 1


def test_waiting_has_a_limit_and_says_what_hinders(fake: Any, linkspan: Any) -> None:
    fake.on("POST", "/services/create", {"ID": SID}, 201)
    pending = task(1, "pending", err="no node has 2 CPUs free")
    scenes(fake, (service(replicas=1), [pending]))
    with fake.running():
        result = linkspan("service", "create", "--wait-timeout", "0.3", "web:1")
    assert result.status == 124
    assert "0 of 1 tasks run" in result.err
    assert "= cause: web.1 pending: no node has 2 CPUs free" in result.err


def test_scale_waits_until_the_tasks_run(fake: Any, linkspan: Any) -> None:
    fake.on("GET", "/services/web", service())
    fake.on("POST", f"/services/{SID}/update", {})
    tasks = [task(n) for n in range(1, 4)]
    scenes(
        fake,
        (service(), tasks[:2]),
        (service(replicas=3, version=11), tasks[:2]),
        (service(replicas=3, version=11), tasks),
    )
    with fake.running():
        result = linkspan("service", "scale", "web=3")
    assert (result.status, result.out) == (0, "web\n")
    body = fake.asked("POST", f"/services/{SID}/update").json
    assert body["Mode"] == {"Replicated": {"Replicas": 3}}
    assert linkspan("service", "scale", "web=many").status == 2


def test_rollback_asks_for_the_previous_spec(fake: Any, linkspan: Any) -> None:
    fake.on("GET", "/services/web", service())
    fake.on("POST", f"/services/{SID}/update", {})
    status = {"State": "rollback_completed", "StartedAt": "2099-01-01T00:00:00Z"}
    scenes(fake, (service(version=12, UpdateStatus=status), [task(1), task(2)]))
    with fake.running():
        result = linkspan("service", "rollback", "web")
    assert result.status == 0
    query = fake.asked("POST", f"/services/{SID}/update").query
    assert query == {"version": "10", "rollback": "previous"}


def test_json_progress_is_lines_of_json(fake: Any, linkspan: Any) -> None:
    fake.on("POST", "/services/create", {"ID": SID}, 201)
    scenes(fake, (service(), [task(1), task(2)]))
    with fake.running():
        result = linkspan("--progress", "json", "service", "create", "web:1")
    first = json.loads(result.err.splitlines()[0])
    assert first == {"service": "web", "running": 2, "of": 2}


@pytest.mark.parametrize(
    "words",
    [
        ["create", "-p", "127.0.0.1:80:80", "x"],
        ["create", "--mode", "global", "--replicas", "2", "x"],
        ["create", "--update-order", "sideways", "x"],
        ["create", "-p", "published=80", "x"],
    ],
)
def test_wrong_usage_sends_nothing(fake: Any, linkspan: Any, words: list[str]) -> None:
    with fake.running():
        assert linkspan("service", *words).status == 2
    assert fake.requests == []
