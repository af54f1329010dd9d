"""Who is in the cluster, and its settings."""

import io
from typing import Any

import pytest

CLUSTER = {
    "Version": {"Index": 9},
    "Spec": {"Name": "default", "CAConfig": {"NodeCertExpiry": 1}},
    "JoinTokens": {"Worker": "W-1", "Manager": "M-1"},
    "TLSInfo": {"TrustRoot": "-----BEGIN"},
}
INFO = {"Swarm": {"ControlAvailable": True, "RemoteManagers": [{"Addr": "10.0.0.5:2377"}]}}


@pytest.fixture
def cluster(fake: Any) -> Any:
    fake.on("GET", "/swarm", CLUSTER)
    fake.on("GET", "/info", INFO)
    fake.on("POST", "/swarm/update")
    with fake.running():
        yield fake


def test_a_token_comes_with_the_command_to_type(cluster: Any, linkspan: Any) -> None:
    assert linkspan("swarm", "join-token", "worker").out == (
        "linkspan swarm join --token W-1 10.0.0.5:2377\n"
    )
    assert linkspan("swarm", "join-token", "-q", "--rotate", "manager").out == "M-1\n"
    asked = cluster.asked("POST", "/swarm/update")
    assert asked.query == {"version": "9", "rotateManagerToken": "1"}
    assert asked.json == CLUSTER["Spec"]


def test_a_cluster_without_tokens_says_so(fake: Any, linkspan: Any) -> None:
    fake.on("GET", "/swarm", {**CLUSTER, "JoinTokens": {"Worker": "", "Manager": ""}})
    with fake.running():
        result = linkspan("swarm", "join-token", "worker")
    assert (result.status, "takes no other nodes" in result.err) == (1, True)


def test_joining_sends_token_and_address(fake: Any, linkspan: Any) -> None:
    fake.on("POST", "/swarm/join")
    fake.on("GET", "/info", INFO)
    with fake.running():
        result = linkspan("swarm", "join", "--token", "W-1", "10.0.0.5:2377")
    assert result == (0, "", "this node joined the cluster as a manager\n")
    body = fake.asked("POST", "/swarm/join").json
    assert (body["RemoteAddrs"], body["JoinToken"]) == (["10.0.0.5:2377"], "W-1")


def test_settings_are_changed_from_what_they_are(cluster: Any, linkspan: Any) -> None:
    words = ("--task-history-limit", "2", "--cert-expiry", "1h", "--autolock=true")
    assert linkspan("swarm", "update", *words).status == 0
    assert cluster.asked("POST", "/swarm/update").json == {
        "Name": "default",
        "CAConfig": {"NodeCertExpiry": 3_600_000_000_000},
        "EncryptionConfig": {"AutoLockManagers": True},
        "Orchestration": {"TaskHistoryRetentionLimit": 2},
    }
    assert linkspan("swarm", "update").status == 2


def test_a_new_cluster_takes_settings_too(fake: Any, linkspan: Any) -> None:
    fake.on("POST", "/swarm/init", "node-1")
    with fake.running():
        words = ("--default-addr-pool", "10.20.0.0/16", "--task-history-limit", "1")
        assert linkspan("swarm", "init", *words).out == "node-1\n"
    body = fake.asked("POST", "/swarm/init").json
    assert body["DefaultAddrPool"] == ["10.20.0.0/16"]
    assert body["Spec"] == {"Orchestration": {"TaskHistoryRetentionLimit": 1}}


def test_the_authority_is_printed_and_exchanged(cluster: Any, linkspan: Any) -> None:
    assert linkspan("swarm", "ca", "--rotate").out == "-----BEGIN\n"
    spec = cluster.asked("POST", "/swarm/update").json
    assert spec["CAConfig"] == {"NodeCertExpiry": 1, "ForceRotate": 1}


def test_a_locked_manager_is_opened_with_the_key_on_stdin(
    fake: Any, linkspan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("SWMKEY-1-x\n"))
    fake.on("POST", "/swarm/unlock")
    fake.on("GET", "/swarm/unlockkey", {"UnlockKey": "SWMKEY-1-x"})
    with fake.running():
        assert linkspan("swarm", "unlock").status == 0
        assert linkspan("swarm", "unlock-key").out == "SWMKEY-1-x\n"
    assert fake.asked("POST", "/swarm/unlock").json == {"UnlockKey": "SWMKEY-1-x"}


def test_roles_are_changed_where_they_differ(fake: Any, linkspan: Any) -> None:
    for name, role in (("a", "worker"), ("b", "manager")):
        spec = {"Role": role, "Availability": "active"}
        fake.on("GET", f"/nodes/{name}", {"ID": name, "Version": {"Index": 3}, "Spec": spec})
    fake.on("POST", "/nodes/a/update")
    with fake.running():
        result = linkspan("node", "promote", "a", "b")
    assert result == (0, "node a is a manager now\n", "node b is a manager already\n")
    assert fake.asked("POST", "/nodes/a/update").json["Role"] == "manager"


def test_an_object_can_be_looked_at_by_people(fake: Any, linkspan: Any) -> None:
    record = {
        "ID": "s1",
        "Spec": {"Name": "web", "Labels": {}, "Ports": [{"TargetPort": 80, "Mode": "host"}]},
        "Args": ["a", "b"],
    }
    fake.on("GET", "/services/web", record)
    with fake.running():
        out = linkspan("service", "inspect", "--pretty", "web").out
    assert out == (
        "ID: s1\nSpec:\n  Name: web\n  Ports:\n    - TargetPort: 80\n      Mode: host\nArgs: a, b\n"
    )
