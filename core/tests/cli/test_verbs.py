"""Verbs that are one request: what is asked of the daemon, and what is said about it."""

import json
from typing import Any

import pytest

WEB = {
    "Id": "c" * 64,
    "Config": {},
    "NetworkSettings": {
        "Ports": {
            "443/tcp": None,
            "80/tcp": [
                {"HostIp": "0.0.0.0", "HostPort": "8080"},
                {"HostIp": "::", "HostPort": "8080"},
            ],
            "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}],
        }
    },
}
REQUESTS: list[tuple[list[str], str, str, dict[str, str], Any]] = [
    (["pause", "web"], "POST", "/containers/web/pause", {}, None),
    (["unpause", "web"], "POST", "/containers/web/unpause", {}, None),
    (["rename", "web", "shop"], "POST", "/containers/web/rename", {"name": "shop"}, None),
    (["restart", "-t", "3", "web"], "POST", "/containers/web/restart", {"t": "3"}, None),
    (
        ["update", "--cpus", "1.5", "-m", "1g", "--restart", "on-failure:2", "web"],
        "POST",
        "/containers/web/update",
        {},
        {
            "Memory": 1 << 30,
            "NanoCpus": 1_500_000_000,
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2},
        },
    ),
    (
        ["network", "connect", "--alias", "db", "--ip", "10.9.0.7", "app", "web"],
        "POST",
        "/networks/app/connect",
        {},
        {
            "Container": "web",
            "EndpointConfig": {"Aliases": ["db"], "IPAMConfig": {"IPv4Address": "10.9.0.7"}},
        },
    ),
    (
        ["network", "disconnect", "-f", "app", "web"],
        "POST",
        "/networks/app/disconnect",
        {},
        {"Container": "web", "Force": True},
    ),
    (["secret", "rm", "key"], "DELETE", "/secrets/key", {}, None),
    (["config", "rm", "conf"], "DELETE", "/configs/conf", {}, None),
]


@pytest.mark.parametrize(
    ("words", "method", "path", "query", "body"),
    REQUESTS,
    ids=lambda v: " ".join(v[:2]) if isinstance(v, list) else "",
)
def test_a_verb_is_one_request(
    linkspan: Any, fake: Any, words: list[str], method: str, path: str, query: Any, body: Any
) -> None:
    fake.on(method, path, {})
    with fake.running():
        result = linkspan(*words)
    assert (result.status, result.err) == (0, "")
    asked = fake.asked(method, path)
    assert asked.query == query
    if body is not None:
        assert asked.json == body


def test_update_without_a_limit_is_wrong_usage(linkspan: Any) -> None:
    result = linkspan("update", "web")
    assert result.status == 2
    assert "nothing to change" in result.err


def test_update_passes_on_what_the_daemon_warns_of(linkspan: Any, fake: Any) -> None:
    fake.on("POST", "/containers/web/update", {"Warnings": ["no swap here"]})
    with fake.running():
        result = linkspan("update", "-m", "1g", "web")
    assert (result.status, result.out, result.err) == (0, "web\n", "! no swap here\n")


def test_port_lists_what_is_published(linkspan: Any, fake: Any) -> None:
    fake.on("GET", "/containers/web/json", WEB)
    with fake.running():
        assert linkspan("port", "web").out == (
            "53/udp -> 127.0.0.1:53\n80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n"
        )
        assert linkspan("port", "web", "80").out == "0.0.0.0:8080\n[::]:8080\n"
        missing = linkspan("port", "web", "443/tcp")
    assert missing.status == 1
    assert "port 443/tcp of container 'web' is not published" in missing.err


def test_top_shows_the_processes_and_passes_on_the_options_of_ps(linkspan: Any, fake: Any) -> None:
    fake.on(
        "GET",
        "/containers/web/top",
        {"Titles": ["PID", "CMD"], "Processes": [["1", "nginx -g x"], ["17", "nginx"]]},
    )
    with fake.running():
        result = linkspan("top", "web", "-o", "pid,cmd")
        lines = linkspan("--format", "json", "top", "web").out
    assert result.out == "PID  CMD\n1    nginx -g x\n17   nginx\n"
    assert fake.requests[0].query == {"ps_args": "-o pid,cmd"}
    assert json.loads(lines)[1] == {"PID": "17", "CMD": "nginx"}


def test_diff_shows_kinds_and_paths(linkspan: Any, fake: Any) -> None:
    changes = [
        {"Kind": 0, "Path": "/etc"},
        {"Kind": 1, "Path": "/etc/x"},
        {"Kind": 2, "Path": "/y"},
    ]
    fake.on("GET", "/containers/web/changes", changes)
    with fake.running():
        assert linkspan("diff", "web").out == "C /etc\nA /etc/x\nD /y\n"


def test_diff_of_a_container_without_changes_is_empty(linkspan: Any, fake: Any) -> None:
    fake.on("GET", "/containers/web/changes", None)
    with fake.running():
        assert linkspan("diff", "web") == (0, "", "")


def test_history_shows_the_steps(linkspan: Any, fake: Any) -> None:
    steps = [
        {"Id": "sha256:" + "a" * 64, "Created": 1, "CreatedBy": "x" * 60, "Size": 1500},
        {"Id": "<missing>", "Created": 1, "CreatedBy": "ADD /", "Size": 0, "Comment": "first"},
    ]
    fake.on("GET", "/images/web/history", steps)
    with fake.running():
        short = linkspan("history", "web").out.splitlines()
        whole = linkspan("history", "--no-trunc", "--format", "{{.CreatedBy}}", "web").out
        ids = linkspan("history", "-q", "web").out
    assert short[0].split() == ["IMAGE", "AGE", "CREATED", "BY", "SIZE", "COMMENT"]
    assert short[1].startswith("aaaaaaaaaaaa ")
    assert {"…", "1.5kB"} <= {part[-1] if "…" in part else part for part in short[1].split()}
    assert whole.splitlines()[0] == "x" * 60
    assert ids == "aaaaaaaaaaaa\n<missing>\n"


def test_search_shows_what_the_registry_has(linkspan: Any, fake: Any) -> None:
    found = [{"name": "nginx", "description": "a\nserver", "star_count": 3, "is_official": True}]
    fake.on("GET", "/images/search", found)
    with fake.running():
        result = linkspan("search", "--limit", "5", "nginx")
    assert result.out == ("NAME   DESCRIPTION  STARS  OFFICIAL\nnginx  a server     3      [OK]\n")
    assert fake.asked("GET", "/images/search").query == {"term": "nginx", "limit": "5"}
    with fake.running():
        there = linkspan("search", "--format", "{{.Name}}", "reg.test:5000/nginx")
    assert there.out == "reg.test:5000/nginx\n"


def test_disk_usage_counts_what_could_go(linkspan: Any, fake: Any) -> None:
    usage = {
        "LayersSize": 1000,
        "Images": [
            {"Id": "sha256:" + "a" * 64, "Size": 600, "SharedSize": 100, "Containers": 1},
            {"Id": "sha256:" + "b" * 64, "Size": 500, "SharedSize": 100, "Containers": 0},
        ],
        "Containers": [
            {"Id": "c" * 64, "SizeRw": 10, "State": "running"},
            {"Id": "d" * 64, "SizeRw": 30, "State": "exited"},
        ],
        "Volumes": [{"Name": "v", "UsageData": {"Size": 7, "RefCount": 0}}],
        "BuildCache": None,
    }
    fake.on("GET", "/system/df", usage)
    with fake.running():
        result = linkspan("system", "df")
        details = linkspan("system", "df", "-v").out
    assert result.out == (
        "TYPE           TOTAL  ACTIVE  SIZE  RECLAIMABLE\n"
        "Images         2      1       1kB   500B (50%)\n"
        "Containers     2      1       40B   30B (75%)\n"
        "Local Volumes  1      0       7B    7B (100%)\n"
        "Build Cache    0      0       0B    0B\n"
    )
    assert "Images: 2\n" in details
    assert "Build cache: none\n" in details


def test_secrets_are_listed_without_values(linkspan: Any, fake: Any) -> None:
    record = {"ID": "s1", "Spec": {"Name": "key", "Labels": {"a": "b"}, "Data": "c2VjcmV0"}}
    fake.on("GET", "/secrets", [record])
    with fake.running():
        result = linkspan("secret", "ls")
    assert result.out == "NAME  ID  AGE  UPDATED  LABELS\nkey   s1                a=b\n"


def test_a_secret_is_made_of_a_file(linkspan: Any, fake: Any, tmp_path: Any) -> None:
    (tmp_path / "value").write_bytes(b"\x00secret\n")
    fake.on("POST", "/secrets/create", {"ID": "s1"}, 201)
    with fake.running():
        result = linkspan("secret", "create", "-l", "a=b", "key", str(tmp_path / "value"))
    assert result == (0, "s1\n", "")
    assert fake.asked("POST", "/secrets/create").json == {
        "Name": "key",
        "Labels": {"a": "b"},
        "Data": "AHNlY3JldAo=",
    }


def test_a_secret_that_is_too_large_is_not_sent(linkspan: Any, fake: Any, tmp_path: Any) -> None:
    (tmp_path / "value").write_bytes(bytes(500 * 1024 + 1))
    with fake.running():
        result = linkspan("secret", "create", "key", str(tmp_path / "value"))
    assert result.status == 2
    assert "at most 500 kB" in result.err
    assert fake.requests == []
