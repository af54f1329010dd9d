"""What the docker CLI's ``config.json`` says of formats and keys, and what inspect's templates see of nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

C = "c" * 64
STATS = {"id": C, "name": "/web", "cpu_stats": {}, "precpu_stats": {}, "memory_stats": {}}
SERVICE = {"ID": "s" * 25, "Spec": {"Name": "web"}}
TASK = {"ID": "t" * 25, "ServiceID": "s" * 25, "Slot": 1, "Status": {"State": "running"}}


def answer(fake: Any) -> None:
    fake.on("GET", "/containers/json", [{"Id": C, "Names": ["/web"]}])
    fake.on("GET", f"/containers/{C}/stats", STATS)
    fake.on("GET", "/images/json", [{"Id": "sha256:" + C, "RepoTags": ["web:1"]}])
    fake.on("GET", "/networks", [{"Id": C, "Name": "web"}])
    fake.on("GET", "/volumes", {"Volumes": [{"Name": "web"}]})
    fake.on("GET", "/services", [SERVICE])
    fake.on("GET", "/services/web", SERVICE)
    fake.on("GET", "/tasks", [TASK])
    fake.on("GET", "/nodes", [{"ID": "n", "Description": {"Hostname": "web"}}])
    fake.on("GET", "/info", {"Swarm": {"NodeID": "n"}})
    fake.on("GET", "/secrets", [{"ID": "x", "Spec": {"Name": "web"}}])
    fake.on("GET", "/configs", [{"ID": "x", "Spec": {"Name": "web"}}])


@pytest.mark.parametrize(
    ("key", "field", "words"),
    [
        ("psFormat", "Names", "ps"),
        ("psFormat", "Names", "container ls"),
        ("imagesFormat", "Repository", "images"),
        ("networksFormat", "Name", "network ls"),
        ("volumesFormat", "Name", "volume ls"),
        ("statsFormat", "Name", "stats --no-stream"),
        ("servicesFormat", "Name", "service ls"),
        ("tasksFormat", "Name", "service ps web"),
        ("nodesFormat", "Hostname", "node ls"),
        ("secretFormat", "Name", "secret ls"),
        ("configFormat", "Name", "config ls"),
        ("serviceInspectFormat", "Spec.Name", "service inspect web"),
    ],
)
def test_a_format_of_the_file_is_taken_where_no_option_says_another(
    fake: Any, linkspan: Any, docker_config: Path, key: str, field: str, words: str
) -> None:
    docker_config.write_text(json.dumps({key: f"is {{{{.{field}}}}}"}))
    answer(fake)
    with fake.running():
        plain = linkspan(*words.split())
        given = linkspan(*words.split(), "--format", f"was {{{{.{field}}}}}")
    name = "web.1" if key == "tasksFormat" else "web"
    assert plain == (0, f"is {name}\n", "")
    assert given == (0, f"was {name}\n", "")


def test_ids_alone_are_ids_alone_whatever_the_file_says(
    fake: Any, linkspan: Any, docker_config: Path
) -> None:
    docker_config.write_text('{"psFormat": "{{.Names}}"}')
    answer(fake)
    with fake.running():
        assert linkspan("ps", "-q").out == f"{C[:12]}\n"


@pytest.mark.parametrize("text", ["{{.Nmaes}}", "{{.Names", "tabel"])
def test_a_format_of_the_file_that_is_wrong_is_told_with_its_place(
    fake: Any, linkspan: Any, docker_config: Path, text: str
) -> None:
    docker_config.write_text(json.dumps({"psFormat": text}))
    answer(fake)
    with fake.running():
        result = linkspan("ps")
        given = linkspan("ps", "--format", text)
    assert (result.status, result.out) == (2, "")
    assert f"cause: 'psFormat' in '{docker_config}' says '{text}'" in result.err
    assert given.status == 2
    assert str(docker_config) not in given.err


@pytest.mark.parametrize(
    "data", [b'{"psFormat": ', b'{"psFormat": 7}', b'["psFormat"]', b'"psFormat"\xff', b"[" * 99999]
)
def test_a_file_that_cannot_be_read_stops_no_list(
    fake: Any, linkspan: Any, docker_config: Path, data: bytes
) -> None:
    docker_config.write_bytes(data)
    answer(fake)
    with fake.running():
        result = linkspan("ps", "--no-trunc")
    assert (result.status, "web" in result.out) == (0, True)
    assert (str(docker_config) in result.err) == (b"psFormat" in data and data[:1] != b"[")


def test_services_are_shown_for_people_if_the_file_wants_it(
    fake: Any, linkspan: Any, docker_config: Path
) -> None:
    docker_config.write_text('{"serviceInspectFormat": "pretty"}')
    answer(fake)
    with fake.running():
        assert "Spec:\n  Name: web\n" in linkspan("service", "inspect", "web").out
        assert json.loads(linkspan("service", "inspect", "-f", "raw", "web").out) == [SERVICE]


def test_wrong_detach_keys_of_the_file_are_told_before_anything_is_made(
    fake: Any, linkspan: Any, docker_config: Path
) -> None:
    docker_config.write_text('{"detachKeys": "ctrl-1"}')
    fake.on("POST", "/containers/create", {"Id": C}, 201)
    fake.on("POST", f"/containers/{C}/start", None, 204)
    with fake.running():
        for words in (["run", "alpine"], ["exec", "web", "ls"], ["attach", "web"]):
            result = linkspan(*words)
            assert result.status == 125
            assert f"'detachKeys' in '{docker_config}': unknown key 'ctrl-1'" in result.err
        assert fake.requests == []
        assert linkspan("run", "-d", "alpine") == (0, f"{C}\n", "")


def test_what_is_null_or_left_out_has_the_zero_value_of_its_kind(fake: Any, linkspan: Any) -> None:
    sent = {
        "Id": C,
        "State": {"Running": True},
        "Config": {"Entrypoint": None, "Cmd": ["sh"], "Labels": None},
        "HostConfig": {"Binds": None, "PortBindings": None, "LogConfig": {"Config": None}},
        "NetworkSettings": {"Ports": None, "Networks": {"app": {"Aliases": None}}},
    }
    fake.on("GET", "/containers/web/json", sent)
    cases = {
        "{{.HostConfig.Binds}} {{.HostConfig.Sysctls}}": "[] map[]",
        "{{.Config.Entrypoint}} {{.Config.Cmd}} {{.Config.Labels}}": "[] [sh] map[]",
        "<{{.Config.StopSignal}}> {{.Config.NetworkDisabled}}": "<> false",
        "{{json .HostConfig.Binds}} {{json .NetworkSettings.Ports}}": "null null",
        "{{len .HostConfig.Binds}}{{if .Config.Labels}}x{{end}}{{range .ExecIDs}}x{{end}}": "0",
        "{{range .NetworkSettings.Networks}}{{.Aliases}} {{.DriverOpts}}{{end}}": "[] map[]",
        '{{index .Config.Labels "a"}}|{{.HostConfig.LogConfig.Config}}': "|map[]",
        "{{.State.Health}} {{json .State.Health}}{{with .State.Health}}{{.Status}}{{end}}": "<nil> null",
        "{{json .Config}}": '{"Entrypoint":null,"Cmd":["sh"],"Labels":null}',
    }
    with fake.running():
        for template, expected in cases.items():
            assert linkspan("inspect", "-f", template, "web") == (0, f"{expected}\n", "")
        assert json.loads(linkspan("inspect", "web").out) == [sent]
        nowhere = linkspan("inspect", "-f", "{{.State.Health.Status}}", "web")
        slip = linkspan("inspect", "-f", "{{.HostConfig.Bnids}}", "web")
    assert (slip.status, nowhere.status) == (2, 2)
    assert "nil pointer evaluating interface {}.Status" in nowhere.err
