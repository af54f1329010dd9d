"""Lists: table, ids, json, lines, templates; never an escape or a carriage return in a pipe."""

import json
import re
import time
from typing import Any

import pytest
import yaml

from linkspan.core.cli.session import Session

NOW = int(time.time())
CONTAINERS = [
    {
        "Id": "00f3a9c04b7e" + "0" * 52,
        "Names": ["/web"],
        "Image": "nginx:1",
        "Command": "nginx -g daemon off;",
        "Created": NOW - 540,
        "State": "running",
        "Status": "Up 9 minutes (healthy)",
        "Ports": [
            {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"PrivatePort": 443, "Type": "tcp"},
        ],
        "Labels": {"app": "shop"},
        "NetworkSettings": {"Networks": {"bridge": {}}},
        "Mounts": [{"Name": "data"}],
    },
    {
        "Id": "01f3a9c04b7e" + "0" * 52,
        "Names": ["/job"],
        "Image": "job",
        "Command": "x",
        "Created": NOW - 7200,
        "State": "exited",
        "Status": "Exited (3) 1 hour ago",
        "Ports": [],
    },
]
IMAGES = [
    {
        "Id": "sha256:" + "9c41e07b6d2a" + "0" * 52,
        "RepoTags": ["shop/web:1", "127.0.0.1:5000/web:main"],
        "RepoDigests": ["shop/web@sha256:" + "d" * 64],
        "Created": NOW - 180,
        "Size": 141_000_000,
    },
    {"Id": "sha256:" + "a" * 64, "RepoTags": [], "RepoDigests": [], "Created": 0, "Size": 0},
]
NETWORKS = [
    {
        "Id": "n" * 64,
        "Name": "bridge",
        "Driver": "bridge",
        "Scope": "local",
        "IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}]},
    }
]
VOLUMES = {
    "Volumes": [
        {
            "Name": "data",
            "Driver": "local",
            "Mountpoint": "/var/lib/x",
            "CreatedAt": "2020-01-01T00:00:00Z",
        }
    ]
}
SERVICES = [
    {
        "ID": "s1" * 12,
        "Version": {"Index": 10},
        "UpdatedAt": "2026-01-01T00:00:00.123456789Z",
        "Spec": {
            "Name": "web",
            "Mode": {"Replicated": {"Replicas": 2}},
            "TaskTemplate": {"ContainerSpec": {"Image": "web:1@sha256:" + "d" * 64}},
        },
        "Endpoint": {"Ports": [{"PublishedPort": 8080, "TargetPort": 80, "Protocol": "tcp"}]},
        "ServiceStatus": {"RunningTasks": 2, "DesiredTasks": 2},
    }
]
TASKS = [
    {
        "ID": "t1" * 12,
        "ServiceID": "s1" * 12,
        "Slot": 1,
        "NodeID": "n1",
        "CreatedAt": "2026-01-01T00:00:00Z",
        "DesiredState": "shutdown",
        "Status": {
            "State": "failed",
            "Err": "exit 137: killed",
            "Timestamp": "2026-01-01T00:00:00Z",
        },
        "Spec": {"ContainerSpec": {"Image": "web:1"}},
    },
    {
        "ID": "t2" * 12,
        "ServiceID": "s1" * 12,
        "Slot": 1,
        "NodeID": "n1",
        "CreatedAt": "2026-01-01T00:00:01Z",
        "DesiredState": "running",
        "Status": {"State": "running", "Timestamp": "2026-01-01T00:00:02Z"},
        "Spec": {"ContainerSpec": {"Image": "web:1"}},
    },
]
NODES = [
    {
        "ID": "n1",
        "CreatedAt": "2026-01-01T00:00:00Z",
        "Spec": {"Role": "manager", "Availability": "active", "Labels": {"zone": "a"}},
        "Description": {"Hostname": "demo-1"},
        "Status": {"State": "ready"},
        "ManagerStatus": {"Leader": True},
    }
]
LISTS: list[tuple[list[str], str]] = [
    (["ps", "-a"], "/containers/json"),
    (["images"], "/images/json"),
    (["network", "ls"], "/networks"),
    (["volume", "ls"], "/volumes"),
    (["service", "ls"], "/services"),
    (["service", "ps", "web"], "/tasks"),
    (["node", "ls"], "/nodes"),
]


@pytest.fixture
def daemon(fake: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(Session, "now", NOW)
    fake.on("GET", "/containers/json", CONTAINERS)
    fake.on("GET", "/images/json", IMAGES)
    fake.on("GET", "/networks", NETWORKS)
    fake.on("GET", "/volumes", VOLUMES)
    fake.on("GET", "/services", SERVICES)
    fake.on("GET", "/services/web", SERVICES[0])
    fake.on("GET", "/tasks", TASKS)
    fake.on("GET", "/nodes", NODES)
    fake.on("GET", "/info", {"Swarm": {"NodeID": "n1"}})
    with fake.running():
        yield fake


def test_ps_shows_names_states_ports_and_ages(daemon: Any, linkspan: Any) -> None:
    result = linkspan("ps", "--all")
    assert result.out == (
        "NAME  ID            IMAGE    STATE      PORTS    AGE\n"
        "web   00f3a9c04b7e  nginx:1  ● healthy  8080→80  9m\n"
        "job   01f3a9c04b7e  job      ✗ exit 3            2h\n"
    )
    assert daemon.asked("GET", "/containers/json").query == {"all": "1"}


def test_filters_reach_the_daemon(daemon: Any, linkspan: Any) -> None:
    linkspan("ps", "-f", "label=a=b", "-f", "label=c", "--filter", "status=exited", "-n", "3")
    query = daemon.asked("GET", "/containers/json").query
    assert json.loads(query["filters"]) == {"label": ["a=b", "c"], "status": ["exited"]}
    assert query["limit"] == "3"
    assert linkspan("ps", "-f", "nonsense").status == 2


def test_templates_use_dockers_names(daemon: Any, linkspan: Any) -> None:
    template = "{{.ID}} {{.Names}} {{.State}} {{.Ports}} {{.Labels}} {{.Networks}}"
    first = linkspan("ps", "--format", template).out.splitlines()[0]
    ports = "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 443/tcp"
    assert first == f"00f3a9c04b7e web running {ports} app=shop bridge"
    table = linkspan("ps", "--format", "table {{.Names}}\t{{.Status}}").out
    assert table.splitlines()[0] == "NAMES  STATUS"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (
            ["ps", "-a"],
            "ID Names Image Command CreatedAt RunningFor Ports State Status Labels LocalVolumes Mounts"
            " Networks Platform Size",
        ),
        (
            ["images"],
            "ID Repository Tag Digest Size CreatedAt CreatedSince Containers SharedSize UniqueSize"
            " VirtualSize",
        ),
        (["network", "ls"], "ID Name Driver Scope IPv4 IPv6 Internal Labels CreatedAt"),
        (
            ["volume", "ls"],
            "Name Driver Mountpoint Scope Labels Links Size Group Availability Status",
        ),
        (["service", "ls"], "ID Name Mode Replicas Image Ports"),
        (["service", "ps", "web"], "ID Name Image Node DesiredState CurrentState Error Ports"),
        (
            ["node", "ls"],
            "ID Hostname Status Availability ManagerStatus Self TLSStatus EngineVersion",
        ),
    ],
)
def test_every_name_of_dockers_columns_is_known(
    daemon: Any, linkspan: Any, words: list[str], names: str
) -> None:
    template = "|".join(f"{{{{.{name}}}}}" for name in names.split())
    result = linkspan(*words, "--format", template)
    assert (result.status, "<no value>" in result.out, bool(result.out)) == (0, False, True)


def test_a_slip_of_the_pen_in_a_template_is_told(daemon: Any, linkspan: Any) -> None:
    result = linkspan("ps", "--format", "{{.Nmaes}}")
    assert result.status == 2
    assert "did you mean .Names?" in result.err


def test_an_unknown_format_is_wrong_usage(daemon: Any, linkspan: Any) -> None:
    result = linkspan("ps", "--format", "jsno")
    assert result.status == 2
    assert "did you mean 'json'?" in result.err


@pytest.mark.parametrize(
    ("words", "path"), LISTS, ids=lambda v: " ".join(v) if isinstance(v, list) else ""
)
def test_every_list_speaks_json_lines_and_ids(
    daemon: Any, linkspan: Any, words: list[str], path: str
) -> None:
    whole = json.loads(linkspan(*words, "--format", "json").out)
    assert isinstance(whole, list)
    lines = [json.loads(ln) for ln in linkspan(*words, "--format", "jsonl").out.splitlines()]
    assert lines == whole
    assert yaml.safe_load(linkspan(*words, "--format", "yaml").out) == whole
    assert linkspan(*words, "--format", "wide").out == linkspan(*words).out
    quiet = linkspan(*words, "-q")
    assert quiet.err == ""
    assert len(quiet.out.split()) == len(quiet.out.splitlines()) == len(whole)
    for result in (linkspan(*words), quiet):
        assert result.status == 0
        assert "\x1b" not in result.out + result.err
        assert "\r" not in result.out + result.err


def test_images_are_listed_by_tag(daemon: Any, linkspan: Any) -> None:
    assert linkspan("images").out == (
        "IMAGE               TAG     ID            SIZE   AGE\n"
        "shop/web            1       9c41e07b6d2a  141MB  3m\n"
        "127.0.0.1:5000/web  main    9c41e07b6d2a  141MB  3m\n"
        "<none>              <none>  aaaaaaaaaaaa  0B\n"
    )


def test_service_ps_shows_the_error_of_a_failed_task_below_its_successor(
    daemon: Any, linkspan: Any
) -> None:
    lines = linkspan("service", "ps", "web").out.splitlines()
    assert lines[1].startswith("web.1    t2t2t2t2t2t2  demo-1  ● running")
    assert lines[2].startswith("  web.1  t1t1t1t1t1t1  demo-1  ✗ failed")
    assert lines[2].endswith("exit 137: killed")


def test_service_ls_shows_state_and_replicas(daemon: Any, linkspan: Any) -> None:
    line = linkspan("service", "ls").out.splitlines()[1]
    assert line.startswith("web      ✓ steady  2/2       web:1  8080→80")


def test_inspect_looks_for_every_kind(fake: Any, linkspan: Any) -> None:
    fake.on("GET", "/volumes/data", {"Name": "data"})
    with fake.running():
        assert json.loads(linkspan("inspect", "data").out) == [{"Name": "data"}]
        assert linkspan("inspect", "-f", "{{.Name}}", "data").out == "data\n"
        missing = linkspan("inspect", "data", "nothing")
        assert missing.status == 1
        assert json.loads(missing.out) == [{"Name": "data"}]
        assert missing.err == "error[LS0102]: no such object: nothing\n"
        assert linkspan("container", "inspect", "nothing").out == "[]\n"


def test_removing_goes_on_after_an_error(fake: Any, linkspan: Any) -> None:
    fake.on("DELETE", "/networks/a", None, 204)
    fake.on("DELETE", "/networks/b", {"message": "in use"}, 403)
    fake.on("DELETE", "/networks/c", None, 204)
    with fake.running():
        result = linkspan("network", "rm", "a", "b", "c")
    assert result == (3, "a\nc\n", "error[LS0102]: in use\n")


def test_rmi_says_what_was_untagged_and_deleted(fake: Any, linkspan: Any) -> None:
    done = [{"Untagged": "web:1"}, {"Deleted": "sha256:abc"}]
    fake.on("DELETE", "/images/web", done)
    with fake.running():
        assert linkspan("rmi", "web").out == "Untagged: web:1\nDeleted: sha256:abc\n"
        assert linkspan("rmi", "-q", "web").out == "web\n"


def test_creating_networks_and_volumes(fake: Any, linkspan: Any) -> None:
    fake.on("POST", "/networks/create", {"Id": "nid"}, 201)
    fake.on("POST", "/volumes/create", {"Name": "data"}, 201)
    with fake.running():
        words = ["--subnet", "10.9.0.0/24", "--gateway", "10.9.0.1", "--internal", "--label", "a=b"]
        assert linkspan("network", "create", *words, "app").out == "nid\n"
        assert linkspan("volume", "create", "data", "-o", "size=1g").out == "data\n"
    body = fake.asked("POST", "/networks/create").json
    assert body["IPAM"]["Config"] == [{"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1"}]
    assert (body["Internal"], body["Labels"]) == (True, {"a": "b"})
    assert fake.asked("POST", "/volumes/create").json["DriverOpts"] == {"size": "1g"}


def test_version_shows_client_and_daemon_and_fails_without_one(fake: Any, linkspan: Any) -> None:
    server = {"Version": "0.1.0", "ApiVersion": "1.50", "MinAPIVersion": "1.24"}
    fake.on("GET", "/version", server)
    with fake.running():
        assert linkspan("version", "--format", "{{.Server.ApiVersion}}").out == "1.50\n"
    result = linkspan("version")
    assert result.status == 69
    assert result.out.startswith("client  ")


def test_events_are_lines(fake: Any, linkspan: Any) -> None:
    event = {
        "Type": "container",
        "Action": "start",
        "Actor": {"ID": "a" * 64, "Attributes": {"name": "web"}},
        "timeNano": 1_700_000_000_000_000_000,
    }
    fake.on("GET", "/events", lambda _r, connection: connection.stream(event, event))
    with fake.running():
        result = linkspan("events", "--since", "1700000000", "--filter", "type=container")
        lines = linkspan("events", "--format", "json", "--since", "10m").out.splitlines()
    first = result.out.splitlines()[0]
    assert re.match(r"2023-11-1\dT\d\d:13:20\.000000000(Z|[+-])", first)
    assert first.endswith(f" container start {'a' * 64} (name=web)")
    assert [json.loads(line) for line in lines] == [event, event]
    assert fake.requests[0].query["since"] == "1700000000.000000000"
    assert float(fake.requests[1].query["since"]) == pytest.approx(time.time() - 600, abs=5)


def test_stop_restart_kill_wait(fake: Any, linkspan: Any) -> None:
    for verb in ("stop", "restart", "kill"):
        fake.on("POST", f"/containers/web/{verb}", None, 204)
    fake.on("POST", "/containers/web/wait", {"StatusCode": 7})
    with fake.running():
        assert linkspan("stop", "-t", "3", "web").out == "web\n"
        assert linkspan("restart", "web").out == "web\n"
        assert linkspan("kill", "-s", "HUP", "web").out == "web\n"
        assert linkspan("wait", "web").out == "7\n"
    assert fake.asked("POST", "/containers/web/stop").query == {"t": "3"}
    assert fake.asked("POST", "/containers/web/kill").query == {"signal": "HUP"}
