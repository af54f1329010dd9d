"""Services, tasks and nodes on an orchestrator that only keeps books."""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import attrs
import pytest
import trio

from linkspan.plugins.docker_api.codec_health import decode_healthcheck, encode_healthcheck
from linkspan.plugins.docker_api.codec_service import (
    decode_service,
    encode_service_spec,
)
from linkspan.plugins.docker_api.document import Document
from linkspan.plugins.docker_api.service_logs import WholeLines
from linkspan.plugins.docker_api.swarm import require_cluster
from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.drivers.orchestrator import Orchestrator, OrchestratorCap, RolloutProgress
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound, Unavailable
from linkspan.sdk.host import Host
from linkspan.sdk.model.process import LogRecord, StreamKind
from linkspan.sdk.model.service import (
    Cluster,
    ClusterSettings,
    Node,
    Payload,
    PayloadKind,
    PayloadSpec,
    RolloutState,
    RolloutStatus,
    Service,
    ServicePort,
    ServiceSpec,
    Task,
    TaskState,
)
from linkspan.sdk.testing.fakes.engine_images import make_image
from linkspan.sdk.testing.fakes.payloads import FakePayloads

OUT_OF_SEQUENCE = "rpc error: code = Unknown desc = update out of sequence"
AT = "2026-11-24T08:00:00.000000000Z"
NODE = Node(id="node1", hostname="ship", address="10.0.0.1", created_at=AT, version=3)


class Books(Orchestrator[NoConfig]):
    """Keeps what it is told; every replica of a service has a task that runs."""

    def __init__(self) -> None:
        self.in_swarm: Cluster | None = None
        self.services: dict[str, Service] = {}
        self.node = NODE
        self.containers: dict[str, str] = {}
        self.payloads = FakePayloads(lambda: [s.spec for s in self.services.values()])

    @classmethod
    @asynccontextmanager
    async def open(cls, config: NoConfig, host: Host) -> AsyncIterator[Self]:
        yield cls()

    @property
    def capabilities(self) -> OrchestratorCap:
        return OrchestratorCap.ROLLBACK

    async def cluster(self) -> Cluster | None:
        return self.in_swarm

    async def init(self, *, advertise_address: str = "") -> Cluster:
        if self.in_swarm is not None:
            raise Unavailable("already", code="already_in_swarm")
        self.node = attrs.evolve(NODE, address=advertise_address)
        self.in_swarm = Cluster(id="c1", created_at=AT, node_id=NODE.id)
        return self.in_swarm

    async def leave(self, *, force: bool = False) -> None:
        self.in_swarm = None

    async def update_cluster(
        self,
        *,
        labels: Mapping[str, str],
        task_history: int,
        version: int,
        settings: ClusterSettings | None = None,
    ) -> Cluster:
        assert self.in_swarm is not None
        self.in_swarm = attrs.evolve(
            self.in_swarm,
            labels=labels,
            task_history=task_history,
            version=version + 1,
            settings=settings or self.in_swarm.settings,
        )
        return self.in_swarm

    async def create_payload(self, kind: PayloadKind, spec: PayloadSpec) -> Payload:
        return self.payloads.create(kind, spec)

    async def list_payloads(self, kind: PayloadKind) -> list[Payload]:
        return self.payloads.list(kind)

    async def get_payload(self, kind: PayloadKind, ref: str) -> Payload:
        return self.payloads.get(kind, ref)

    async def update_payload(
        self, kind: PayloadKind, ref: str, spec: PayloadSpec, *, version: int
    ) -> Payload:
        return self.payloads.update(kind, ref, spec, version)

    async def remove_payload(self, kind: PayloadKind, ref: str) -> None:
        self.payloads.remove(kind, ref)

    async def create_service(self, spec: ServiceSpec) -> Service:
        if spec.name in self.services:
            raise Conflict(
                f"name conflicts with an existing object: {spec.name}", code="name_taken"
            )
        service = Service(
            id=f"id-{spec.name}", version=1, spec=spec, created_at=AT, ports=spec.ports
        )
        self.services[spec.name] = service
        return service

    async def update_service(
        self, service: str, spec: ServiceSpec, *, version: int | None = None
    ) -> Service:
        found = await self.get_service(service)
        if version is not None and version != found.version:
            raise Conflict("out of sequence", code="out_of_sequence")
        changed = attrs.evolve(
            found,
            version=found.version + 1,
            spec=spec,
            previous_spec=found.spec,
            rollout=RolloutStatus(state=RolloutState.UPDATING, message="update in progress"),
        )
        self.services[found.spec.name] = changed
        return changed

    async def rollback_service(self, service: str, *, version: int | None = None) -> Service:
        found = await self.get_service(service)
        if found.previous_spec is None:
            raise InvalidArgument(f"service {service} does not have a previous spec")
        return await self.update_service(service, found.previous_spec, version=version)

    async def scale_service(self, service: str, replicas: int) -> Service:
        found = await self.get_service(service)
        return await self.update_service(service, attrs.evolve(found.spec, replicas=replicas))

    async def remove_service(self, service: str) -> None:
        del self.services[(await self.get_service(service)).spec.name]

    async def get_service(self, service: str) -> Service:
        if self.in_swarm is None:
            raise Unavailable("no swarm", code="not_in_swarm")
        for found in self.services.values():
            if service in (found.id, found.spec.name):
                return found
        raise NotFound(f"service {service} not found", code="service_not_found")

    async def list_services(self) -> list[Service]:
        return list(self.services.values())

    async def list_tasks(self, *, service: str = "", node: str = "") -> list[Task]:
        return [
            Task(
                id=f"{found.id}-t{slot}",
                service_id=found.id,
                slot=slot,
                spec=found.spec if slot > 1 else found.previous_spec or found.spec,
                node_id=NODE.id,
                state=TaskState.RUNNING,
                container_id=self.containers.get(found.spec.name, f"c{slot}"),
                created_at=AT,
                updated_at=AT,
            )
            for found in self.services.values()
            if service in ("", found.id, found.spec.name)
            for slot in range(1, found.spec.replicas + 1)
        ]

    async def get_task(self, task: str) -> Task:
        for found in await self.list_tasks():
            if found.id == task:
                return found
        raise NotFound(f"task {task} not found", code="task_not_found")

    async def list_nodes(self) -> list[Node]:
        return [self.node]

    async def get_node(self, node: str) -> Node:
        if node not in ("self", NODE.id, NODE.hostname):
            raise NotFound(f"node {node} not found", code="node_not_found")
        return self.node

    async def update_node(
        self, node: str, *, availability: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Node:
        self.node = attrs.evolve(
            self.node, availability=availability or self.node.availability, labels=labels or {}
        )
        return self.node

    @asynccontextmanager
    async def rollout(self, service: str) -> AsyncIterator[AsyncIterator[RolloutProgress]]:
        raise NotImplementedError
        yield


FULL: dict[str, Any] = {
    "Name": "web",
    "Labels": {"a": "1"},
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "app:1@sha256:" + "0" * 64,
            "Command": ["/entry"],
            "Args": ["serve", "-v"],
            "Hostname": "web-{{.Task.Slot}}",
            "Env": ["A=1"],
            "Dir": "/srv",
            "User": "app",
            "Groups": ["7"],
            "Labels": {"b": "2"},
            "TTY": True,
            "ReadOnly": True,
            "StopSignal": "SIGINT",
            "StopGracePeriod": 20_000_000_000,
            "Mounts": [
                {"Type": "volume", "Source": "data", "Target": "/data"},
                {"Type": "bind", "Source": "/srv", "Target": "/srv", "ReadOnly": True},
            ],
            "Healthcheck": {
                "Test": ["CMD", "true"],
                "Interval": 1_500_000_000,
                "Timeout": 2_000_000_000,
                "StartPeriod": 500_000_000,
                "StartInterval": 100_000_000,
                "Retries": 2,
            },
            "Hosts": ["10.0.0.9 db"],
            "DNSConfig": {"Nameservers": ["1.1.1.1"], "Search": ["test"]},
            "Init": True,
            "Sysctls": {"net.core.somaxconn": "9"},
            "CapabilityAdd": ["CAP_NET_ADMIN"],
            "CapabilityDrop": ["CAP_CHOWN"],
            "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
            "Isolation": "default",
            "Privileges": {
                "CredentialSpec": None,
                "SELinuxContext": None,
                "NoNewPrivileges": True,
            },
        },
        "Resources": {
            "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 64 << 20, "Pids": 9},
            "Reservations": {
                "NanoCPUs": 100_000_000,
                "MemoryBytes": 32 << 20,
                "GenericResources": [
                    {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 2}},
                    {"DiscreteResourceSpec": {"Kind": "gpu"}},
                    {"NamedResourceSpec": {"Kind": "gpu", "Value": "first"}},
                ],
            },
        },
        "RestartPolicy": {
            "Condition": "on-failure",
            "Delay": 0,
            "MaxAttempts": 3,
            "Window": 120_000_000_000,
        },
        "Placement": {
            "Constraints": ["node.role==manager"],
            "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
            "MaxReplicas": 2,
            "Platforms": [{"Architecture": "amd64", "OS": "linux"}, {"OS": "linux"}],
        },
        "Networks": [{"Target": "back", "Aliases": ["w"]}, {"Target": "front"}],
        "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}},
        "ForceUpdate": 4,
        "Runtime": "container",
    },
    "Mode": {"Replicated": {"Replicas": 3}},
    "UpdateConfig": {
        "Parallelism": 2,
        "Delay": 1_000_000_000,
        "FailureAction": "rollback",
        "Monitor": 2_000_000_000,
        "MaxFailureRatio": 0.25,
        "Order": "start-first",
    },
    "RollbackConfig": {
        "Parallelism": 0,
        "FailureAction": "continue",
        "Monitor": 3_000_000_000,
        "MaxFailureRatio": 0,
        "Order": "stop-first",
    },
    "EndpointSpec": {
        "Mode": "vip",
        "Ports": [
            {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"},
            {"Protocol": "udp", "TargetPort": 53, "PublishMode": "host"},
        ],
    },
}
SMALL: dict[str, Any] = {
    "Name": "web",
    "TaskTemplate": {"ContainerSpec": {"Image": "app:1"}},
    "Mode": {"Replicated": {"Replicas": 2}},
}


@pytest.fixture
async def books(api) -> Books:
    found = Books()
    api.host.drivers["orchestrator", ""] = found
    await api.ask("POST", "/swarm/init", {"AdvertiseAddr": "10.0.0.1"})
    return found


def test_a_spec_that_is_read_and_sent_back_is_the_same() -> None:
    assert encode_service_spec(decode_service(Document(FULL))) == FULL


def test_preferences_reach_the_orchestrator_as_it_reads_them() -> None:
    assert decode_service(Document(FULL)).placement.preferences == ("spread=node.labels.zone",)


def test_what_a_health_check_leaves_open_stays_open() -> None:
    open_ended = {"Test": ["CMD", "true"], "Interval": 1_000_000_000}
    assert encode_healthcheck(decode_healthcheck(Document(open_ended))) == open_ended


async def test_a_swarm_keeps_the_history_and_labels_that_it_is_begun_with(api, books) -> None:
    await api.ask("POST", "/swarm/leave?force=1")
    spec = {"Orchestration": {"TaskHistoryRetentionLimit": 2}, "Labels": {"a": "b"}}
    await api.ask("POST", "/swarm/init", {"Spec": spec})
    kept = (await api.ask("GET", "/swarm")).json["Spec"]
    assert kept["Orchestration"] == {"TaskHistoryRetentionLimit": 2}
    assert kept["Labels"] == {"a": "b"}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"Scope": "swarm"}, 400, "has scope local, not swarm"),
        ({"Scope": "moon"}, 400, "invalid scope 'moon'"),
        ({"Ingress": True}, 403, "Ingress network can only be global scope network"),
    ],
)
async def test_a_network_of_one_machine_is_refused_as_more(
    api, books, body, status, message
) -> None:
    refused = await api.ask("POST", "/networks/create", {"Name": "wide", **body})
    assert (refused.status, message in refused.json["message"]) == (status, True)


@pytest.mark.parametrize("name", ["bad name", "a.b", "-a", "a-", "é", "a" * 64])
async def test_a_network_of_the_swarm_has_a_name_that_dns_takes(api, books, name) -> None:
    refused = await api.ask("POST", "/networks/create", {"Name": name, "Driver": "overlay"})
    assert refused.status == 400
    assert "rpc error: code = InvalidArgument desc = name must be " in refused.message
    good = await api.ask("POST", "/networks/create", {"Name": "a__b-c", "Driver": "overlay"})
    assert good.status == 201


async def test_a_network_that_a_service_needs_is_kept_until_the_service_is_gone(api, books) -> None:
    made = await api.ask("POST", "/networks/create", {"Name": "over", "Driver": "overlay"})
    network_id = made.json["Id"]
    template = {**SMALL["TaskTemplate"], "Networks": [{"Target": network_id}]}
    service = {**SMALL, "TaskTemplate": template, "Mode": {"Replicated": {"Replicas": 0}}}
    service_id = (await api.ask("POST", "/services/create", service)).json["ID"]
    refused = await api.ask("DELETE", "/networks/over")
    assert (refused.status, refused.message) == (
        400,
        f"rpc error: code = FailedPrecondition desc = network {network_id} is in use by service {service_id}",
    )
    assert (await api.ask("POST", "/networks/prune")).json["NetworksDeleted"] is None
    await api.ask("DELETE", "/services/web")
    assert (await api.ask("DELETE", "/networks/over")).status == 204


def test_defaults_are_dockers() -> None:
    spec = decode_service(
        Document({"Name": "a", "TaskTemplate": {"ContainerSpec": {"Image": "x"}}})
    )
    assert (spec.mode, spec.replicas) == ("replicated", 1)
    plain = encode_service_spec(spec)
    assert plain.keys() == {"Name", "Labels", "TaskTemplate", "Mode"}
    assert plain["TaskTemplate"].keys() == {"ContainerSpec", "ForceUpdate", "Runtime"}
    assert decode_service(Document(plain)) == spec
    usual = {
        "Parallelism": 1,
        "FailureAction": "pause",
        "Monitor": 5 * 10**9,
        "MaxFailureRatio": 0,
        "Order": "stop-first",
    }
    shown = encode_service_spec(spec, defaults=True)
    assert (shown["UpdateConfig"], shown["RollbackConfig"]) == (usual, usual)
    template = shown["TaskTemplate"]
    restart = {"Condition": "any", "Delay": 5 * 10**9, "MaxAttempts": 0}
    assert (template["RestartPolicy"], template["Placement"]) == (restart, {})
    assert template["ContainerSpec"]["StopGracePeriod"] == 10 * 10**9


def test_what_was_said_is_shown_though_it_is_usual_and_files_as_they_were_named() -> None:
    config = {"ConfigID": "c", "ConfigName": "conf"}
    file = {"UID": "0", "GID": "0", "Mode": 0o444}
    configs = [
        {**config, "File": {**file, "Name": "conf"}},
        {**config, "File": {**file, "Name": "/at"}},
    ]
    said = decode_service(
        Document(
            {
                "Name": "a",
                "TaskTemplate": {
                    "ContainerSpec": {"Image": "x", "Configs": configs},
                    "RestartPolicy": {},
                },
                "RollbackConfig": {"Parallelism": 1},
                "EndpointSpec": {},
            }
        )
    )
    assert [file.target for file in said.files] == ["/conf", "/at"]
    shown = encode_service_spec(said)
    assert shown["TaskTemplate"]["ContainerSpec"]["Configs"] == configs
    assert shown["TaskTemplate"]["RestartPolicy"] == {"Condition": "any", "MaxAttempts": 0}
    assert shown["RollbackConfig"]["Parallelism"] == 1
    assert shown["EndpointSpec"] == {"Mode": "vip"}
    assert decode_service(Document(shown)) == said


def test_a_window_of_nothing_and_preferences_of_any_form_are_shown_as_they_were_said() -> None:
    template = {
        "ContainerSpec": {"Image": "x"},
        "RestartPolicy": {"Condition": "any", "MaxAttempts": 0, "Window": 0},
        "Placement": {"Preferences": [{"Spread": {"SpreadDescriptor": "com.example"}}, {}]},
    }
    said = decode_service(Document({"Name": "a", "TaskTemplate": template}))
    shown = encode_service_spec(said)["TaskTemplate"]
    assert shown["RestartPolicy"] == template["RestartPolicy"]
    assert shown["Placement"] == {"Preferences": [{"Spread": {"SpreadDescriptor": "com.example"}}]}


def test_what_was_said_of_a_part_that_is_gone_is_not_shown() -> None:
    body = {
        "Name": "a",
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "x",
                "Mounts": [{"Type": "volume", "Target": "/x", "VolumeOptions": {}}],
            },
            "Resources": {"Limits": {}},
        },
        "EndpointSpec": {"Ports": [{"TargetPort": 80, "Name": "web"}]},
    }
    said = decode_service(Document(body))
    shown = encode_service_spec(said)
    assert shown["EndpointSpec"]["Ports"][0]["Name"] == "web"
    assert shown["TaskTemplate"]["Resources"] == {"Limits": {}}
    assert shown["TaskTemplate"]["ContainerSpec"]["Mounts"][0]["VolumeOptions"] == {}
    container = attrs.evolve(said.container, mounts=())
    shown = encode_service_spec(attrs.evolve(said, container=container, ports=()))
    assert "Mounts" not in shown["TaskTemplate"]["ContainerSpec"]
    assert "Ports" not in shown["EndpointSpec"]


async def test_a_service_without_a_name_gets_one(api, books) -> None:
    nameless = {"TaskTemplate": {"ContainerSpec": {"Image": "web"}}}
    made = (await api.ask("POST", "/services/create", nameless)).json
    seen = (await api.ask("GET", f"/services/{made['ID']}")).json
    assert "_" in seen["Spec"]["Name"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"TaskTemplate": {}}, "mismatched Runtime and *Spec fields"),
        ({"TaskTemplate": {"Runtime": "odd"}}, "unsupported runtime"),
        ({"Mode": {"Global": {}, "ReplicatedJob": {}}}, "only one service mode"),
        ({"Mode": {"GlobalJob": {}}, "UpdateConfig": {}}, "Jobs may not have an update config"),
        ({"EndpointSpec": {"Mode": "any"}}, 'invalid resolution mode: "any"'),
        ({"EndpointSpec": {"Ports": [{"TargetPort": 0}]}}, "invalid published port"),
        ({"UpdateConfig": {"Order": "sideways"}}, "unrecognized update order sideways"),
        ({"Mode": {"Replicated": {"Replicas": -1}}}, "cannot be negative"),
        (
            {
                "TaskTemplate": {
                    "ContainerSpec": {
                        "Image": "x",
                        "Privileges": {"Seccomp": {"Mode": "odd"}},
                    }
                }
            },
            "unknown seccomp mode: odd",
        ),
        (
            {
                "TaskTemplate": {
                    "ContainerSpec": {"Image": "x"},
                    "Resources": {
                        "Reservations": {
                            "GenericResources": [
                                {"DiscreteResourceSpec": {"Kind": "a", "Value": "b"}}
                            ]
                        }
                    },
                }
            },
            "must be a whole number",
        ),
        ({"Mode": {"Replicated": {"Replicas": "2"}}}, "must be a whole number"),
        (
            {"TaskTemplate": {"ContainerSpec": {"Image": "x", "Secrets": [{"SecretID": "a"}]}}},
            "malformed secret reference",
        ),
    ],
)
async def test_a_wrong_spec_is_refused(api, books, change, message) -> None:
    reply = await api.ask("POST", "/services/create", {**SMALL, **change})
    assert reply.status in (400, 501)
    assert message in reply.message


def test_jobs_files_and_endpoint_modes_are_the_same_after_a_round() -> None:
    container = {
        "Image": "web",
        "Secrets": [
            {
                "File": {"Name": "key", "UID": "5", "GID": "6", "Mode": 0o400},
                "SecretID": "s1",
                "SecretName": "deploy-key",
            }
        ],
        "Configs": [
            {
                "File": {"Name": "/etc/app.conf", "UID": "0", "GID": "0", "Mode": 0o444},
                "ConfigID": "c1",
                "ConfigName": "app",
            }
        ],
    }
    asked = {
        "Name": "job",
        "TaskTemplate": {"ContainerSpec": container},
        "Mode": {"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 7}},
        "EndpointSpec": {"Mode": "dnsrr"},
    }
    spec = decode_service(Document(asked))
    assert (spec.replicas, spec.max_concurrent, spec.is_job) == (7, 2, True)
    assert [file.target for file in spec.files] == ["/run/secrets/key", "/etc/app.conf"]
    told = encode_service_spec(spec)
    assert told["Mode"] == asked["Mode"]
    assert told["EndpointSpec"] == asked["EndpointSpec"]
    for key in ("Secrets", "Configs"):
        assert told["TaskTemplate"]["ContainerSpec"][key] == container[key]
    assert decode_service(Document(told)) == spec


def _data(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "privileges",
    [
        {
            "NoNewPrivileges": True,
            "Seccomp": {"Mode": "unconfined"},
            "AppArmor": {"Mode": "disabled"},
        },
        {"Seccomp": {"Mode": "custom", "Profile": base64.b64encode(b'{"a": 1}').decode()}},
        {"SELinuxContext": {"Disable": True}},
        {"SELinuxContext": {"User": "u", "Role": "r", "Type": "t", "Level": "s0:c1"}},
    ],
)
def test_privileges_are_the_same_after_a_round(privileges: dict[str, Any]) -> None:
    container = {"Image": "web", "Privileges": privileges, "OomScoreAdj": 5}
    spec = decode_service(Document({"Name": "a", "TaskTemplate": {"ContainerSpec": container}}))
    assert len(spec.container.security_opt) == sum(
        len(v) if k == "SELinuxContext" else 1 for k, v in privileges.items()
    )
    shown = encode_service_spec(spec)
    seen = shown["TaskTemplate"]["ContainerSpec"]
    nothing = {"CredentialSpec": None, "SELinuxContext": None, "NoNewPrivileges": False}
    context = dict.fromkeys(("User", "Role", "Type", "Level"), "") | {"Disable": False}
    wanted = nothing | privileges
    if "SELinuxContext" in privileges:
        wanted["SELinuxContext"] = context | privileges["SELinuxContext"]
    assert (seen["Privileges"], seen["OomScoreAdj"]) == (wanted, 5)
    assert encode_service_spec(decode_service(Document(shown))) == shown


async def test_with_credentials_the_image_of_a_service_is_fetched_at_once(api, books) -> None:
    login = {"username": "me", "password": "secret"}
    headers = {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(login).encode()).decode()}
    task = {"ContainerSpec": {"Image": "private:1"}}
    body = {"Name": "first", "TaskTemplate": task}
    made = (await api.ask("POST", "/services/create", body, **headers)).json
    (warning,) = made["Warnings"]
    assert warning.startswith("image private:1 could not be fetched with these credentials: ")
    api.engine.images.remote["private:1"] = make_image("private:1")
    made = (await api.ask("POST", "/services/create", {**body, "Name": "second"})).json
    assert made["Warnings"] is None
    assert (await api.ask("GET", "/images/private:1/json")).status == 404
    body["Name"] = "third"
    made = (await api.ask("POST", "/services/create", body, **headers)).json
    assert made["Warnings"] is None
    assert (await api.ask("GET", "/images/private:1/json")).status == 200


async def test_secrets_are_kept_listed_relabelled_and_removed_and_never_told(api, books) -> None:
    made = await api.ask("POST", "/secrets/create", {"Name": "key", "Data": _data("hush")})
    assert made.status == 201
    again = await api.ask("POST", "/secrets/create", {"Name": "key", "Data": _data("hush")})
    assert (again.status, again.message[-25:]) == (409, "secret key already exists")
    await api.ask(
        "POST", "/secrets/create", {"Name": "other", "Data": _data("x"), "Labels": {"a": "1"}}
    )
    seen = (await api.ask("GET", "/secrets/key")).json
    assert "Data" not in seen["Spec"]
    update = f"/secrets/{made.json['ID']}/update"
    change = {"Name": "key", "Labels": {"b": "2"}}
    assert (await api.ask("POST", f"{update}?version=1", change)).status == 200
    stale = await api.ask("POST", f"{update}?version=1", change)
    assert (stale.status, stale.message) == (409, OUT_OF_SEQUENCE)
    changed = await api.ask("POST", f"{update}?version=2", {"Name": "new"})
    assert changed.message.endswith("only updates to Labels are allowed")

    async def names(**filters: list[str]) -> list[str]:
        listed = await api.ask("GET", f"/secrets?filters={json.dumps(filters)}")
        return [secret["Spec"]["Name"] for secret in listed.json]

    assert await names() == ["key", "other"]
    assert await names(label=["b=2"]) == ["key"]
    assert await names(name=["oth"]) == ["other"]
    assert (await api.ask("DELETE", "/secrets/key")).status == 204
    gone = await api.ask("GET", "/secrets/key")
    assert (gone.status, gone.message) == (404, "secret key not found")


async def test_a_config_is_told_and_kept_while_a_service_uses_it(api, books) -> None:
    made = (await api.ask("POST", "/configs/create", {"Name": "app", "Data": _data("a=1")})).json
    assert (await api.ask("GET", "/configs/app")).json["Spec"]["Data"] == _data("a=1")
    file = {"File": {"Name": "/app"}, "ConfigID": made["ID"], "ConfigName": "app"}
    container = {"Image": "web", "Configs": [file]}
    task = {"TaskTemplate": {"ContainerSpec": container}}
    await api.ask("POST", "/services/create", {"Name": "web", **task})
    refused = await api.ask("DELETE", "/configs/app")
    assert refused.status == 400
    assert refused.message.endswith("config 'app' is in use by the following service: web")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"Name": "a b", "Data": "eA=="}, "invalid name"),
        ({"Name": "a", "Data": ""}, "larger than 0 and less than 512000 bytes"),
        ({"Name": "a", "Data": _data("x" * 512_000)}, "larger than 0 and less than 512000 bytes"),
        ({"Name": "a", "Data": "!"}, "not base64"),
        ({"Name": "a", "Driver": {"Name": "vault"}}, "drivers of secrets are not supported"),
    ],
)
async def test_a_wrong_secret_is_refused(api, books, body, message) -> None:
    reply = await api.ask("POST", "/secrets/create", body)
    assert reply.status in (400, 501)
    assert message in reply.message


_SETTINGS = {
    "Raft": {
        "KeepOldSnapshots": 3,
        "SnapshotInterval": 500,
        "LogEntriesForSlowFollowers": 1200,
        "ElectionTick": 5,
        "HeartbeatTick": 2,
    },
    "Dispatcher": {"HeartbeatPeriod": 7 * 10**9},
    "CAConfig": {"NodeCertExpiry": 720 * 3600 * 10**9},
}


def _settings_of(swarm: dict[str, Any]) -> dict[str, Any]:
    spec = swarm["Spec"]
    return {key: {k: spec[key].get(k) for k in inner} for key, inner in _SETTINGS.items()}


async def test_a_swarm_keeps_the_settings_it_is_begun_with_or_given_later(api, books) -> None:
    assert _settings_of((await api.ask("GET", "/swarm")).json)["Raft"]["SnapshotInterval"] == 10000
    await api.ask("POST", "/swarm/leave?force=1")
    await api.ask("POST", "/swarm/init", {"Spec": _SETTINGS, "DataPathPort": 4242})
    swarm = (await api.ask("GET", "/swarm")).json
    assert (_settings_of(swarm), swarm["DataPathPort"]) == (_SETTINGS, 4242)
    nothing = {**swarm["Spec"], "Dispatcher": {"HeartbeatPeriod": 0}}
    url = f"/swarm/update?version={swarm['Version']['Index']}"
    assert (await api.ask("POST", url, nothing)).status == 200
    swarm = (await api.ask("GET", "/swarm")).json
    assert swarm["Spec"]["Dispatcher"] == {}
    assert swarm["Spec"]["CAConfig"] == _SETTINGS["CAConfig"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"CAConfig": {"NodeCertExpiry": 10**9}}, "minimum certificate expiry time is: 1h0m0s"),
        ({"Dispatcher": {"HeartbeatPeriod": -1}}, "cannot be a negative duration"),
        ({"Raft": {"KeepOldSnapshots": -1}}, "must not be negative"),
        ({"Raft": {"ElectionTick": -1}}, "must not be negative"),
    ],
)
async def test_wrong_settings_change_no_swarm_and_begin_none(api, books, change, words) -> None:
    before = (await api.ask("GET", "/swarm")).json
    url = f"/swarm/update?version={before['Version']['Index']}"
    refused = await api.ask("POST", url, {**before["Spec"], **change})
    assert (refused.status, words in refused.message) == (400, True)
    assert (await api.ask("GET", "/swarm")).json == before
    await api.ask("POST", "/swarm/leave?force=1")
    assert (await api.ask("POST", "/swarm/init", {"Spec": change})).status == 400
    assert books.in_swarm is None


async def test_a_swarm_begins_with_no_port_that_is_out_of_range(api, books) -> None:
    await api.ask("POST", "/swarm/leave?force=1")
    for port in (80, 49152, -1):
        refused = await api.ask("POST", "/swarm/init", {"DataPathPort": port})
        assert (refused.status, "1024-49151" in refused.message) == (400, True)
    assert books.in_swarm is None


async def test_a_swarm_is_relabelled_and_says_what_it_has_not(api, books) -> None:
    swarm = (await api.ask("GET", "/swarm")).json
    spec = {
        **swarm["Spec"],
        "Labels": {"a": "1"},
        "Orchestration": {"TaskHistoryRetentionLimit": 2},
    }
    url = f"/swarm/update?version={swarm['Version']['Index']}"
    assert (await api.ask("POST", url, spec)).status == 200
    seen = (await api.ask("GET", "/swarm")).json["Spec"]
    assert (seen["Labels"], seen["Orchestration"]["TaskHistoryRetentionLimit"]) == ({"a": "1"}, 2)
    locked = {**spec, "EncryptionConfig": {"AutoLockManagers": True}}
    assert (await api.ask("POST", url, locked)).status == 501
    assert (await api.ask("GET", "/swarm/unlockkey")).json == {"UnlockKey": ""}
    assert (await api.ask("POST", "/swarm/unlock", {"UnlockKey": "x"})).status == 409
    assert (await api.ask("POST", "/swarm/join", {})).status == 503


def test_only_the_task_counts_for_being_up_to_date() -> None:
    spec = decode_service(Document(FULL))
    ports = (*spec.ports, ServicePort(target_port=88))
    assert attrs.evolve(spec, replicas=9, labels={}, ports=ports).task_part == spec.task_part
    assert attrs.evolve(spec, force_update=5).task_part != spec.task_part


async def test_without_a_swarm_everything_says_how_to_get_one(api) -> None:
    api.host.drivers["orchestrator", ""] = Books()
    for path in ("/services", "/tasks", "/nodes", "/swarm"):
        reply = await api.ask("GET", path)
        assert reply.status == 503
        assert reply.message.startswith("This node is not a swarm manager.")
    with pytest.raises(Unavailable) as raised:
        await require_cluster(api.host)
    assert raised.value.help == "linkspan swarm init"


async def test_swarm_is_begun_once_and_left(api, books) -> None:
    again = await api.ask("POST", "/swarm/init", {})
    assert (again.status, again.message[:36]) == (503, "This node is already part of a swarm")
    assert (await api.ask("GET", "/swarm")).json["ID"] == "c1"
    swarm = (await api.ask("GET", "/info")).json["Swarm"]
    assert (swarm["LocalNodeState"], swarm["NodeID"], swarm["Managers"]) == ("active", "node1", 1)
    assert (await api.ask("GET", "/_ping")).headers["Swarm"] == "active/manager"
    assert (await api.ask("POST", "/swarm/leave?force=1")).status == 200
    assert (await api.ask("GET", "/_ping")).headers["Swarm"] == "inactive"
    again = await api.ask("POST", "/swarm/leave?force=1")
    assert (again.status, again.message) == (503, "This node is not part of a swarm")


async def test_a_service_is_created_read_updated_and_rolled_back(api, books) -> None:
    made = await api.ask("POST", "/services/create", SMALL)
    assert (made.status, made.json["ID"]) == (201, "id-web")
    assert (await api.ask("POST", "/services/create", SMALL)).status == 409
    seen = (await api.ask("GET", "/services/web?insertDefaults=false")).json
    spec = {**seen["Spec"], "Labels": {"new": "1"}}
    url = "/services/web/update"
    assert (await api.ask("POST", f"{url}?version=1&registryAuthFrom=spec", spec)).status == 200
    stale = await api.ask("POST", f"{url}?version=1", spec)
    assert (stale.status, stale.message) == (409, OUT_OF_SEQUENCE)
    assert (await api.ask("POST", url, spec)).status == 400
    seen = (await api.ask("GET", "/services/web")).json
    assert seen["Spec"]["Labels"] == {"new": "1"}
    assert seen["PreviousSpec"]["Labels"] == {}
    assert seen["UpdateStatus"]["State"] == "updating"
    back = await api.ask("POST", f"{url}?version=2&rollback=previous", spec)
    assert back.status == 200
    assert (await api.ask("GET", "/services/web")).json["Spec"]["Labels"] == {}
    assert (await api.ask("DELETE", "/services/web")).status == 200
    assert (await api.ask("GET", "/services/web")).status == 404


async def test_services_are_listed_with_their_state(api, books) -> None:
    await api.ask("POST", "/services/create", SMALL)
    await api.ask("POST", "/services/create", {**SMALL, "Name": "db", "Labels": {"tier": "back"}})
    found = (await api.ask("GET", '/services?status=1&filters={"label":["tier"]}')).json
    assert [s["Spec"]["Name"] for s in found] == ["db"]
    assert set(found[0]["ServiceStatus"]) == {"RunningTasks", "DesiredTasks", "CompletedTasks"}
    older = (await api.ask("GET", "/v1.40/services?status=1")).json
    assert all("ServiceStatus" not in service for service in older)


@pytest.mark.parametrize(
    ("filters", "slots"),
    [
        ({"service": ["web"]}, [1, 2]),
        ({"service": {"id-web": True}}, [1, 2]),
        ({"service": ["id-web"], "_up-to-date": ["true"]}, [2]),
        ({"name": ["web.1"]}, [1]),
        ({"node": ["ship"]}, [1, 2]),
        ({"desired-state": ["running"]}, [1, 2]),
        ({"desired-state": ["Running"]}, [1, 2]),
        ({"desired-state": ["shutdown", ""]}, []),
        ({"desired-state": ["accepted"]}, []),
    ],
)
async def test_task_filters(api, books, filters, slots) -> None:
    await api.ask("POST", "/services/create", SMALL)
    changed = {**SMALL, "TaskTemplate": {"ContainerSpec": {"Image": "app:2"}}}
    await api.ask("POST", "/services/web/update?version=1", changed)
    found = await api.ask("GET", f"/tasks?filters={json.dumps(filters)}")
    assert [task["Slot"] for task in found.json] == slots


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"service": ["we"]}, "service we not found"),
        ({"service": ["web", "other"]}, "service other not found"),
        ({"node": ["nowhere"]}, "node nowhere not found"),
    ],
)
async def test_tasks_of_what_is_not_there_are_not_found(api, books, filters, message) -> None:
    await api.ask("POST", "/services/create", SMALL)
    found = await api.ask("GET", f"/tasks?filters={json.dumps(filters)}")
    assert (found.status, found.message) == (404, message)


async def test_a_desired_state_that_is_none_is_refused(api, books) -> None:
    reply = await api.ask("GET", '/tasks?filters={"desired-state":["bad"]}')
    assert (reply.status, reply.message) == (400, "Invalid desired-state filter: 'bad'")


async def test_a_task_says_where_and_how_it_is(api, books) -> None:
    await api.ask("POST", "/services/create", SMALL)
    task = (await api.ask("GET", "/tasks/id-web-t1")).json
    assert (task["ServiceID"], task["NodeID"], task["DesiredState"]) == (
        "id-web",
        "node1",
        "running",
    )
    assert task["Status"]["State"] == "running"
    assert task["Status"]["ContainerStatus"]["ContainerID"] == "c1"
    assert task["Spec"]["ContainerSpec"]["Image"] == "app:1"
    assert (await api.ask("GET", "/tasks/nobody")).status == 404


async def test_logs_of_a_service_carry_the_task_in_front_of_each_line(api, books) -> None:
    books.containers["web"] = await api.start("sh", "-c", "echo hello")
    await api.ask("POST", "/containers/web/wait")
    await api.ask("POST", "/services/create", {**SMALL, "Mode": {"Replicated": {"Replicas": 1}}})
    reply = await api.ask("GET", "/services/web/logs?stdout=1&details=1")
    assert reply.body[8:] == (
        b"com.docker.swarm.node.id=node1,com.docker.swarm.service.id=id-web,"
        b"com.docker.swarm.task.id=id-web-t1 hello\n"
    )


async def test_logs_of_a_service_put_the_parts_of_a_line_together(api, books) -> None:
    books.containers["web"] = await api.start("sh", "-c", "printf one; echo -two; printf three")
    await api.ask("POST", "/containers/web/wait")
    await api.ask("POST", "/services/create", {**SMALL, "Mode": {"Replicated": {"Replicas": 1}}})
    reply = await api.ask("GET", "/services/web/logs?stdout=1&details=1")
    frames, rest = [], reply.body
    while rest:
        size = 8 + int.from_bytes(rest[4:8])
        frames.append(rest[8:size])
        rest = rest[size:]
    assert [frame.partition(b" ")[2] for frame in frames] == [b"one-two\n", b"three"]
    assert all(frame.startswith(b"com.docker.swarm.node.id=node1,") for frame in frames)


async def test_logs_of_a_service_leave_out_a_line_that_is_being_written(api, books) -> None:
    container = await api.start("sh", "-c", "echo whole; printf part; sleep 1000")
    books.containers["web"] = container
    await api.ask("POST", "/services/create", {**SMALL, "Mode": {"Replicated": {"Replicas": 1}}})
    with trio.fail_after(10):
        while b"part" not in (await api.ask("GET", "/containers/web/logs?stdout=1")).body:
            await trio.lowlevel.checkpoint()
    assert (await api.ask("GET", "/services/web/logs?stdout=1")).body[8:] == b"whole\n"


def test_lines_are_put_together_and_a_very_long_one_is_told_in_parts() -> None:
    def record(data: bytes) -> LogRecord:
        return LogRecord(stream=StreamKind.STDOUT, time="2026-11-24T08:00:00.000000000Z", data=data)

    lines = WholeLines()
    assert lines.add(record(b"a" * 10_000)) is None
    long = lines.add(record(b"a" * 10_000))
    assert long is not None
    assert len(long.data) == 20_000
    assert lines.add(record(b"one\ntwo\nthr")) == record(b"one\ntwo\n")
    assert lines.add(record(b"ee\n")) == record(b"three\n")
    assert lines.rest() == ()


async def test_logs_of_a_service_leave_out_a_task_whose_container_was_removed(api, books) -> None:
    books.containers["web"] = ""
    await api.ask("POST", "/services/create", {**SMALL, "Mode": {"Replicated": {"Replicas": 1}}})
    reply = await api.ask("GET", "/services/web/logs?stdout=1")
    assert (reply.status, reply.body) == (200, b"")


async def test_nodes_are_drained_and_labelled(api, books) -> None:
    (node,) = (await api.ask("GET", "/nodes")).json
    assert node["Description"]["Hostname"] == "ship"
    assert node["ManagerStatus"]["Leader"] is True
    plugins = node["Description"]["Engine"]["Plugins"]
    info = (await api.ask("GET", "/info")).json["Plugins"]
    assert {p["Name"] for p in plugins if p["Type"] == "Network"} == set(info["Network"])
    assert {"Type": "Log", "Name": "json-file"} in plugins
    spec = {**node["Spec"], "Availability": "drain", "Labels": {"zone": "a"}}
    assert (await api.ask("POST", "/nodes/node1/update?version=3", spec)).status == 200
    seen = (await api.ask("GET", "/nodes/self")).json
    assert seen["Spec"] == {"Labels": {"zone": "a"}, "Role": "manager", "Availability": "drain"}
    odd = {**spec, "Availability": "sleep"}
    assert (await api.ask("POST", "/nodes/node1/update?version=3", odd)).status == 400
    worker = {**spec, "Role": "worker"}
    assert (await api.ask("POST", "/nodes/node1/update?version=3", worker)).status == 400
    assert (await api.ask("POST", "/nodes/node1/update?version=1", spec)).status == 409
