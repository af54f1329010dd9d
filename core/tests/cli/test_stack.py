"""Stacks: what a Compose file becomes, and that only what differs is changed."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from linkspan.core.cli.compose_file import interpolate, load
from linkspan.core.cli.compose_spec import Stack, service_spec
from linkspan.core.cli.failure import Failure
from linkspan.core.cli.stack import differs

COMPOSE = """
version: "3.8"
x-common: &common
  logging: {driver: json-file, options: {max-size: 1m}}
services:
  web:
    <<: *common
    image: "shop/web:${VERSION:-1}"
    command: serve --port "80 80"
    entrypoint: [/init]
    environment: {A: 1, B: true, C: "$$x"}
    labels: [app=web]
    ports: ["8080:80", {target: 53, published: 5353, protocol: udp, mode: host}]
    volumes:
      - data:/data:ro
      - ./conf:/conf
      - {type: tmpfs, target: /tmp, tmpfs: {size: 1m}}
      - {type: image, source: tools, target: /tools, image: {subpath: bin}}
      - {type: volume, source: data, target: /part, volume: {subpath: a/b}}
    networks: {front: {aliases: [shop]}}
    secrets: [key, {source: key, target: /run/other, mode: 0400, uid: "7"}]
    configs: [conf]
    healthcheck: {test: "wget -q localhost", interval: 5s, retries: 3}
    stop_grace_period: 20s
    extra_hosts: ["db:10.0.0.9"]
    ulimits: {nofile: {soft: 10, hard: 20}, core: 0}
    depends_on: [db]
    deploy:
      replicas: 3
      labels: {tier: front}
      resources:
        limits: {cpus: "0.5", memory: 64M}
        reservations:
          memory: 32M
          generic_resources: [{discrete_resource_spec: {kind: gpu, value: 2}}]
      restart_policy: {condition: on-failure, delay: 2s, max_attempts: 4}
      update_config: {parallelism: 2, order: start-first, failure_action: rollback, monitor: 3s}
      placement: {constraints: ["node.role==manager"], preferences: [{spread: node.labels.zone}]}
  db: {image: "db:1", deploy: {mode: global}}
networks: {front: {driver: bridge, ipam: {config: [{subnet: 10.9.0.0/24}]}}}
volumes: {data: {driver: local, labels: {keep: "yes"}}}
secrets: {key: {file: ./key.txt}}
configs: {conf: {external: true, name: site-conf}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    (tmp_path / "key.txt").write_text("secret")
    return tmp_path / "compose.yaml"


def spec_of(file: Path, name: str, **environ: str) -> Any:
    document = load([str(file)], environ)
    document["networks"].setdefault("default", {})
    return service_spec(name, document["services"][name], Stack("shop", document, "compose.yaml"))


def test_a_service_becomes_what_the_cluster_needs(file: Path) -> None:
    spec = spec_of(file, "web", VERSION="2")
    container = spec["TaskTemplate"].pop("ContainerSpec")
    namespace = {"com.docker.stack.namespace": "shop"}
    assert spec == {
        "Name": "shop_web",
        "Labels": {"tier": "front", **namespace},
        "TaskTemplate": {
            "Resources": {
                "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 64 << 20},
                "Reservations": {
                    "MemoryBytes": 32 << 20,
                    "GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}],
                },
            },
            "RestartPolicy": {
                "Condition": "on-failure",
                "Delay": 2_000_000_000,
                "MaxAttempts": 4,
            },
            "Placement": {
                "Constraints": ["node.role==manager"],
                "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
            },
            "Networks": [{"Target": "shop_front", "Aliases": ["web", "shop"]}],
            "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}},
        },
        "Mode": {"Replicated": {"Replicas": 3}},
        "UpdateConfig": {
            "Parallelism": 2,
            "FailureAction": "rollback",
            "Monitor": 3_000_000_000,
            "Order": "start-first",
        },
        "EndpointSpec": {
            "Ports": [
                {
                    "TargetPort": 80,
                    "PublishedPort": 8080,
                    "Protocol": "tcp",
                    "PublishMode": "ingress",
                },
                {"TargetPort": 53, "PublishedPort": 5353, "Protocol": "udp", "PublishMode": "host"},
            ]
        },
    }
    secrets = container.pop("Secrets")
    assert [secret["File"]["Name"] for secret in secrets] == ["key", "/run/other"]
    assert secrets[1] == {
        "File": {"Name": "/run/other", "UID": "7", "GID": "0", "Mode": 0o400},
        "SecretName": "shop_key",
    }
    assert container.pop("Configs")[0]["ConfigName"] == "site-conf"
    assert container == {
        "Image": "shop/web:2",
        "Labels": {"app": "web", **namespace},
        "Command": ["/init"],
        "Args": ["serve", "--port", "80 80"],
        "Env": ["A=1", "B=true", "C=$x"],
        "StopGracePeriod": 20_000_000_000,
        "Mounts": [
            {
                "Type": "volume",
                "Source": "shop_data",
                "Target": "/data",
                "ReadOnly": True,
                "VolumeOptions": {
                    "DriverConfig": {"Name": "local"},
                    "Labels": {"keep": "yes", **namespace},
                },
            },
            {"Type": "bind", "Source": str(file.parent / "conf"), "Target": "/conf"},
            {"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"SizeBytes": 1 << 20}},
            {
                "Type": "image",
                "Source": "tools",
                "Target": "/tools",
                "ImageOptions": {"Subpath": "bin"},
            },
            {
                "Type": "volume",
                "Source": "shop_data",
                "Target": "/part",
                "VolumeOptions": {
                    "Subpath": "a/b",
                    "DriverConfig": {"Name": "local"},
                    "Labels": {"keep": "yes", **namespace},
                },
            },
        ],
        "Healthcheck": {
            "Test": ["CMD-SHELL", "wget -q localhost"],
            "Interval": 5_000_000_000,
            "Retries": 3,
        },
        "Hosts": ["10.0.0.9 db"],
        "Ulimits": [
            {"Name": "nofile", "Soft": 10, "Hard": 20},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
    }
    other = spec_of(file, "db")
    assert other["Mode"] == {"Global": {}}
    assert other["TaskTemplate"]["Networks"] == [{"Target": "shop_default", "Aliases": ["db"]}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A ${A} $$A", "1 1 $A"),
        ("${NONE:-x}${EMPTY:-y}${EMPTY-z}", "xy"),
        ("${A:+set}${EMPTY:+set}${EMPTY+there}", "setthere"),
        ("${NONE:-${A}}", "1"),
        ("${NONE}", ""),
    ],
)
def test_variables_are_filled_in(text: str, expected: str) -> None:
    assert interpolate(text, {"A": "1", "EMPTY": ""}, "f") == expected


@pytest.mark.parametrize("text", ["${NONE:?say it}", "${EMPTY:?}", "${", "$1", "a $ b"])
def test_variables_that_are_needed_or_wrong_are_said(text: str) -> None:
    with pytest.raises(Failure, match="f: "):
        interpolate(text, {"EMPTY": ""}, "f")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no service"),
        ("[]", "a mapping is expected, not a list"),
        ("services: {web: {image: x}}\nservises: {}", "unknown key 'servises'"),
        ("services: {web: {imag: x}}", "services.web.imag: unknown key"),
        ("services: {web: {build: .}}", "there is no image"),
        ("services: {web: {image: x, ports: [many]}}", "'many' is no port"),
        ("services: {web: {image: x, volumes: ['d:/d']}}", "the volume 'd' is not declared"),
        ("services: {web: {image: x, networks: [n]}}", "the network 'n' is not declared"),
        ("services: {web: {image: x, secrets: [s]}}", "'s' is not declared"),
        ("services: {web: {image: x, deploy: {replicas: some}}}", "no whole number"),
        ("services: {web: {image: x, deploy: {mode: global, replicas: 2}}}", "one task a node"),
        ("services: {web: {image: x, healthcheck: {interval: soon}}}", "invalid duration"),
        ("services: {web: {image: x, environment: 3}}", "a mapping or a list is expected"),
        ("services: {web: {image: [x]}}", "a text is expected, not a list"),
        ('services: {web: {image: x, command: "a \'b"}}', "its quotes do not match"),
        ("services:\n  web: {image: x\n", ":3:1: "),
        (
            "services: {web: {image: !!python/object:os.system x}}",
            "could not determine a constructor",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_place(
    linkspan: Any, fake: Any, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    fake.on("GET", "/services", [])
    with fake.running():
        result = linkspan("stack", "deploy", "-c", str(tmp_path / "c.yaml"), "shop")
    assert result.status == 2, result
    assert message in result.err
    assert all(request.method == "GET" for request in fake.requests)


def test_a_file_whose_references_blow_it_up_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (tmp_path / "c.yaml").write_text("\n".join(f"x-{line}" for line in lines))
    with pytest.raises(Failure, match="too many entries"):
        load([str(tmp_path / "c.yaml")], {})


def test_a_later_file_is_laid_over_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "services: {web: {image: 'x:1', ports: ['80'], environment: [A=1, B=1], command: [a]}}"
    )
    (tmp_path / "b.yaml").write_text(
        "services: {web: {image: 'x:2', ports: ['81'], environment: {B: 2}, command: [b]}}"
    )
    found = load([str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")], {})["services"]["web"]
    del found["x-base"]
    assert found == {
        "image": "x:2",
        "ports": ["80", "81"],
        "environment": {"A": "1", "B": "2"},
        "command": ["b"],
    }


def cluster(fake: Any, services: list[Any]) -> None:
    fake.on("GET", "/services", services)
    fake.on("GET", "/networks", [{"Id": "n1", "Name": "shop_front"}])
    fake.on("GET", "/info", {"Plugins": {"Network": ["bridge"]}})
    fake.on("POST", "/networks/create", {"Id": "n1"}, 201)
    fake.on("GET", "/secrets", [{"ID": "k1", "Spec": {"Name": "shop_key"}}])
    fake.on("GET", "/configs", [{"ID": "c1", "Spec": {"Name": "site-conf"}}])
    fake.on("POST", "/services/create", {"ID": "s1"}, 201)
    fake.on("POST", "/services/s9/update", {})
    fake.on("DELETE", "/services/s8")


def test_a_deployment_creates_what_is_missing_and_keeps_what_is_right(
    linkspan: Any, fake: Any, file: Path
) -> None:
    same = {"ID": "s9", "Version": {"Index": 3}, "Spec": spec_of(file, "db")}
    same["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] += "@sha256:abc"
    old = {"ID": "s8", "Version": {"Index": 1}, "Spec": {"Name": "shop_old"}}
    cluster(fake, [same, old])
    with fake.running():
        done = linkspan("stack", "deploy", "-d", "--prune", "-c", str(file), "shop")
    assert (done.status, done.out.splitlines()) == (
        0,
        [
            "created network shop_default",
            "removed service shop_old",
            "created service shop_web",
            "unchanged service shop_db",
        ],
    )
    assert done.err == "no meaning in a cluster, left out: depends_on\n"
    made = fake.asked("POST", "/services/create").json["TaskTemplate"]["ContainerSpec"]
    assert {secret["SecretID"] for secret in made["Secrets"]} == {"k1"}
    assert made["Configs"][0]["ConfigID"] == "c1"
    network = fake.asked("POST", "/networks/create").json
    assert (network["Driver"], network["Labels"]) == (
        "bridge",
        {"com.docker.stack.namespace": "shop"},
    )


def test_a_plan_changes_nothing(linkspan: Any, fake: Any, file: Path) -> None:
    old = {"ID": "s9", "Version": {"Index": 3}, "Spec": {"Name": "shop_db", "Mode": {"Global": {}}}}
    gone = {"ID": "s8", "Version": {"Index": 1}, "Spec": {"Name": "shop_old"}}
    cluster(fake, [old, gone])
    with fake.running():
        done = linkspan("stack", "deploy", "--plan", "--prune", "-c", str(file), "shop")
    assert done.out.splitlines() == [
        "+ network shop_default",
        "+ service shop_web  shop/web:1",
        "~ service shop_db",
        "- service shop_old",
    ]
    assert "2 added, 1 changed, 1 removed; nothing is done yet" in done.err
    assert {request.method for request in fake.requests} == {"GET"}


def test_an_update_names_the_version_that_it_changes(linkspan: Any, fake: Any, file: Path) -> None:
    found = {"ID": "s9", "Version": {"Index": 3}, "Spec": {"Name": "shop_db"}}
    found["Spec"]["TaskTemplate"] = {"ForceUpdate": 2}  # type: ignore[index]
    cluster(fake, [found])
    with fake.running():
        assert linkspan("stack", "deploy", "-d", "-c", str(file), "shop").status == 0
    asked = fake.asked("POST", "/services/s9/update")
    assert asked.query == {"version": "3"}
    assert asked.json["TaskTemplate"]["ForceUpdate"] == 2


def test_a_secret_is_made_of_its_file(linkspan: Any, fake: Any, file: Path) -> None:
    cluster(fake, [])

    def secrets(request: Any, connection: Any) -> None:
        made = (fake.folder / "event-made").exists()
        connection.answer(200, [{"ID": "k1", "Spec": {"Name": "shop_key"}}] if made else [])

    def create(request: Any, connection: Any) -> None:
        connection.tell("made")
        connection.answer(201, {"ID": "k1"})

    fake.on("GET", "/secrets", secrets)
    fake.on("POST", "/secrets/create", create)
    with fake.running():
        assert linkspan("stack", "deploy", "-d", "-c", str(file), "shop").status == 0
    body = fake.asked("POST", "/secrets/create").json
    assert (body["Name"], base64.b64decode(body["Data"])) == ("shop_key", b"secret")


def test_a_config_that_has_changed_is_refused(linkspan: Any, fake: Any, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "services: {web: {image: x, configs: [conf]}}\nconfigs: {conf: {content: new}}"
    )
    cluster(fake, [])
    old = {"ID": "c1", "Spec": {"Name": "shop_conf", "Data": base64.b64encode(b"old").decode()}}
    fake.on("GET", "/configs", [old])
    with fake.running():
        done = linkspan("stack", "deploy", "-d", "-c", str(tmp_path / "c.yaml"), "shop")
    assert (done.status, "its content has changed" in done.err) == (2, True)
    assert all(request.path != "/services/create" for request in fake.requests)


def test_a_stack_is_removed_whole(linkspan: Any, fake: Any) -> None:
    label = {"com.docker.stack.namespace": "shop"}
    fake.on("GET", "/services", [{"ID": "s1", "Spec": {"Name": "shop_web", "Labels": label}}])
    fake.on("GET", "/networks", [{"Id": "n1", "Name": "shop_front"}])
    fake.on("GET", "/secrets", [{"ID": "k1", "Spec": {"Name": "shop_key"}}])
    fake.on("GET", "/configs", [])
    for path in ("/services/s1", "/secrets/k1", "/networks/n1"):
        fake.on("DELETE", path)
    with fake.running():
        assert linkspan("stack", "ls").out == "NAME  SERVICES\nshop  1\n"
        assert linkspan("stack", "rm", "shop").out == (
            "removed service shop_web\nremoved network shop_front\nremoved secret shop_key\n"
        )
    queries = [json.loads(r.query["filters"]) for r in fake.requests if "filters" in r.query]
    assert {"label": ["com.docker.stack.namespace=shop"]} in queries


def test_a_stack_that_is_not_there_is_an_error(linkspan: Any, fake: Any) -> None:
    for kind in ("services", "networks", "secrets", "configs"):
        fake.on("GET", f"/{kind}", [])
    with fake.running():
        for words in (["rm", "absent"], ["ps", "absent"], ["services", "absent"]):
            done = linkspan("stack", *words)
            assert (done.status, "nothing found in stack: absent" in done.err) == (1, True), words


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1}, {"a": 2}, True),
        ({"a": []}, {}, False),
        ({"a": ["x"]}, {"a": ["x", "y"]}, True),
        ({"i": "x:1"}, {"i": "x:1@sha256:0"}, False),
        ({"a": {"b": 1}}, {}, True),
    ],
)
def test_what_the_daemon_adds_is_no_difference(wanted: Any, found: Any, expected: bool) -> None:
    assert differs(wanted, found) is expected


def test_files_can_be_looked_at_as_one(linkspan: Any, file: Path) -> None:
    out = linkspan("stack", "config", "-c", str(file)).out
    assert "image: shop/web:1" in out
    assert "x-base" not in out
    assert json.loads(linkspan("stack", "config", "-c", str(file), "--format", "json").out)
