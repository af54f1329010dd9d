"""Templates over lists: Docker's field names and headers."""

import json
from typing import Any

import pytest

CONTAINER = {
    "Id": "c" * 64,
    "Names": ["/web"],
    "Image": "nginx",
    "Command": "nginx -g 'daemon off;' -c /etc/nginx.conf",
    "Created": 1,
    "State": "running",
    "Status": "Up 2 hours",
    "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}],
    "Labels": {"com.example.stage-name": "live"},
    "SizeRw": 10,
    "SizeRootFs": 1000,
}


@pytest.fixture
def daemon(fake: Any) -> Any:
    fake.on("GET", "/containers/json", [CONTAINER])
    fake.on("GET", "/volumes", {"Volumes": [{"Name": "data", "Driver": "local"}]})
    with fake.running():
        yield fake


def test_a_table_has_dockers_headers(daemon: Any, linkspan: Any) -> None:
    out = linkspan("ps", "--format", "table {{.ID}}\t{{.Names}}\t{{.LocalVolumes}}").out
    assert out == "CONTAINER ID  NAMES  LOCAL VOLUMES\ncccccccccccc  web    0\n"
    out = linkspan("volume", "ls", "--format", "table {{.Name}}\\t{{.Driver}}").out
    assert out == "VOLUME NAME  DRIVER\ndata         local\n"


def test_headers_stay_in_capitals_whatever_their_column_goes_through(
    daemon: Any, linkspan: Any
) -> None:
    out = linkspan("ps", "--format", "table {{.Names | lower}}: {{.CreatedAt | len}}").out
    assert out.splitlines()[0] == "NAMES: 10"


def test_labels_can_be_asked_for(daemon: Any, linkspan: Any) -> None:
    template = 'table {{.Names}}\t{{.Label "com.example.stage-name"}}\t{{.Label "none"}}'
    assert linkspan("ps", "--format", template).out == "NAMES  stage name  none\nweb    live\n"


def test_dockers_own_columns_can_be_asked_for(daemon: Any, linkspan: Any) -> None:
    lines = linkspan("ps", "--format", "docker", "--size").out.splitlines()
    assert lines[0].split("  ")[0] == "CONTAINER ID"
    assert lines[0].split()[-2:] == ["NAMES", "SIZE"]
    assert '"nginx -g \'daemon of…"' in lines[1]
    assert "0.0.0.0:8080->80/tcp" in lines[1]
    assert (
        linkspan("volume", "ls", "--format", "docker").out == "DRIVER  VOLUME NAME\nlocal   data\n"
    )


def test_a_whole_record_is_json(daemon: Any, linkspan: Any) -> None:
    found = json.loads(linkspan("ps", "--format", "{{json .}}").out)
    assert found["Names"] == "web"
    assert found["Labels"] == "com.example.stage-name=live"
    assert linkspan("ps", "--format", "{{json .Names}}").out == '"web"\n'


def test_a_format_that_is_no_format_is_wrong_usage(daemon: Any, linkspan: Any) -> None:
    result = linkspan("ps", "--format", "dokcer")
    assert result.status == 2
    assert "did you mean 'docker'?" in result.err
    assert linkspan("ps", "--format", "table {{.ID").status == 2


def test_what_the_api_leaves_out_is_empty_and_a_slip_is_a_fault(fake: Any, linkspan: Any) -> None:
    fake.on(
        "GET", "/containers/web/json", {"Id": "c", "State": {"Status": "running"}, "Config": {}}
    )
    with fake.running():
        health = "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}} {{json .State}}"
        result = linkspan("container", "inspect", "-f", health, "web")
        assert result.out == 'none {"Status":"running"}\n'
        result = linkspan("container", "inspect", "-f", "{{.State.Statsu}}", "web")
        assert (result.status, result.out) == (2, "")
        assert "template: :1:8" in result.err
        assert "did you mean .Status?" in result.err


def test_fields_read_as_dockers_do(fake: Any, linkspan: Any) -> None:
    volume = {"Driver": "local", "Name": "a" * 64, "Type": "volume"}
    container = {**CONTAINER, "Mounts": [volume, {"Type": "bind", "Source": "/srv"}]}
    fake.on("GET", "/containers/json", [container])
    fake.on("GET", "/networks", [{"Name": n, "Id": "d" * 64} for n in ("web10", "web2", "app")])
    template = "{{.LocalVolumes}}|{{.Mounts}}|{{.RunningFor}}|{{.Size}}|{{json .Platform}}"
    with fake.running():
        shown = linkspan("ps", "--format", template).out
        assert shown.split("|")[:2] == ["1", f"{'a' * 14}…,/srv"]
        assert shown.split("|")[2].endswith(" years ago")
        assert shown.split("|")[3:] == ["10B (virtual 1kB)", '""\n']
        assert '"Platform":null' in linkspan("ps", "--format", "{{json .}}").out
        names = linkspan("network", "ls", "--no-trunc", "--format", "{{.Name}} {{.ID}}").out
        assert [line.split()[0] for line in names.splitlines()] == ["app", "web2", "web10"]
        assert names.split()[1] == "d" * 64
    assert fake.asked("GET", "/containers/json").query == {"size": "1"}


@pytest.mark.parametrize(
    ("words", "headers"),
    [
        (["context", "ls"], "NAME  DESCRIPTION  DOCKER ENDPOINT  ERROR"),
        (["secret", "ls"], "ID  NAME  DRIVER  CREATED  UPDATED"),
        (["config", "ls"], "ID  NAME  CREATED  UPDATED"),
        (["node", "ls"], "ID  HOSTNAME  STATUS  AVAILABILITY  MANAGER STATUS  ENGINE VERSION"),
        (["service", "ls"], "ID  NAME  MODE  REPLICAS  IMAGE  PORTS"),
        (["system", "df"], "TYPE  TOTAL  ACTIVE  SIZE  RECLAIMABLE"),
        (["search", "x"], "NAME  DESCRIPTION  STARS  OFFICIAL"),
    ],
)
def test_every_list_of_dockers_has_its_columns(
    fake: Any, linkspan: Any, words: list[str], headers: str
) -> None:
    for path in ("/secrets", "/configs", "/nodes", "/services", "/images/search"):
        fake.on("GET", path, [])
    fake.on("GET", "/system/df", {})
    with fake.running():
        result = linkspan(*words, "--format", "docker")
    assert (result.status, result.err) == (0, "")
    assert " ".join(result.out.splitlines()[0].split()) == " ".join(headers.split())
