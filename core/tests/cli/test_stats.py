"""What containers use."""

import json
from typing import Any

import pytest

from linkspan.core.cli.stats import cpu_percent, memory_used

SAMPLE = {
    "id": "c" * 64,
    "name": "/web",
    "cpu_stats": {
        "cpu_usage": {"total_usage": 300},
        "system_cpu_usage": 2000,
        "online_cpus": 2,
    },
    "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
    "memory_stats": {"usage": 3 << 20, "limit": 8 << 20, "stats": {"inactive_file": 1 << 20}},
    "networks": {"eth0": {"rx_bytes": 1500, "tx_bytes": 10}, "eth1": {"rx_bytes": 500}},
    "blkio_stats": {
        "io_service_bytes_recursive": [
            {"op": "Read", "value": 4096},
            {"op": "write", "value": 1000},
            {"op": "read", "value": 4096},
        ]
    },
    "pids_stats": {"current": 4},
}


def test_numbers_are_counted_as_docker_does() -> None:
    assert cpu_percent(SAMPLE) == pytest.approx(40.0)
    assert memory_used(SAMPLE) == 2 << 20


def test_a_first_sample_without_a_past_uses_nothing() -> None:
    assert cpu_percent({"cpu_stats": {}, "precpu_stats": {}}) == 0.0
    assert memory_used({}) == 0


def test_a_pipe_gets_one_sample_of_each_container(linkspan: Any, fake: Any) -> None:
    other = {**SAMPLE, "id": "d" * 64, "name": "/db"}
    fake.on("GET", "/containers/json", [{"Id": "c" * 64}, {"Id": "d" * 64}])
    fake.on("GET", f"/containers/{'c' * 64}/stats", SAMPLE)
    fake.on("GET", f"/containers/{'d' * 64}/stats", other)
    with fake.running():
        table = linkspan("stats").out.splitlines()
        line = linkspan(
            "stats", "--format", "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.NetIO}} {{.BlockIO}}"
        ).out
    assert table[0].split()[:3] == ["NAME", "ID", "CPU"]
    assert [row.split()[0] for row in table[1:]] == ["web", "db"]
    assert line.splitlines()[0] == "web 40.00% 2MiB / 8MiB 2kB / 10B 8.19kB / 1kB"
    samples = [r for r in fake.requests if r.path.endswith("/stats")]
    assert {r.query["stream"] for r in samples} == {"0"}


def test_a_container_that_went_away_does_not_hide_the_others(linkspan: Any, fake: Any) -> None:
    fake.on("GET", "/containers/json", [{"Id": "c" * 64}, {"Id": "d" * 64}])
    fake.on("GET", f"/containers/{'c' * 64}/stats", SAMPLE)
    with fake.running():
        result = linkspan("stats", "--format", "json")
    assert [s["name"] for s in json.loads(result.out)] == ["/web"]
    assert "no such route" in result.err


def test_no_container_is_no_error(linkspan: Any, fake: Any) -> None:
    fake.on("GET", "/containers/json", [])
    with fake.running():
        assert linkspan("stats", "--format", "json") == (0, "[]\n", "")


def test_lines_go_on_until_the_containers_end(linkspan: Any, fake: Any) -> None:
    fake.on("GET", "/containers/web/json", {"Id": "c" * 64})
    fake.on("GET", f"/containers/{'c' * 64}/stats", lambda _, c: c.stream(SAMPLE, SAMPLE))
    with fake.running():
        result = linkspan("stats", "--format", "jsonl", "web")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [line["CPUPerc"] for line in lines] == ["40.00%", "40.00%"]
