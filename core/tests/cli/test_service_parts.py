"""Lists of a service: given to create, added and removed by update."""

from typing import Any

import pytest

from linkspan.core.cli import service_change

SECRETS = [{"ID": "k1", "Spec": {"Name": "key"}}, {"ID": "k2", "Spec": {"Name": "key-2"}}]

NETWORKS = [{"Id": "n1", "Name": "app"}, {"Id": "n2", "Name": "app-2"}]


def created(linkspan: Any, fake: Any, *words: str) -> Any:
    fake.on("GET", "/secrets", SECRETS)
    fake.on("GET", "/configs", [{"ID": "c1", "Spec": {"Name": "conf"}}])
    fake.on("GET", "/networks", NETWORKS)
    fake.on("POST", "/services/create", {"ID": "s1"}, 201)
    with fake.running():
        result = linkspan("service", "create", "-d", *words, "web:1")
    assert (result.status, result.err) == (0, "")
    return fake.asked("POST", "/services/create").json


def updated(linkspan: Any, fake: Any, spec: Any, *words: str) -> Any:
    fake.on("GET", "/services/web", {"ID": "s1", "Version": {"Index": 4}, "Spec": spec})
    fake.on("GET", "/secrets", SECRETS)
    fake.on("GET", "/networks", NETWORKS)
    fake.on("POST", "/services/s1/update", {})
    with fake.running():
        result = linkspan("service", "update", "-d", *words, "web")
    assert (result.status, result.err) == (0, "")
    return fake.asked("POST", "/services/s1/update").json


def test_everything_that_a_new_service_can_list(linkspan: Any, fake: Any) -> None:
    spec = created(
        linkspan,
        fake,
        *("--secret", "key", "--secret", "source=key-2,target=/run/x,uid=5,mode=0400"),
        *("--config", "conf", "--dns", "1.1.1.1", "--dns-search", "a.b", "--dns-option", "ndots:2"),
        *("--host", "db:10.0.0.9", "--group", "audio", "--sysctl", "a=1", "--ulimit", "nofile=1:2"),
        *("--container-label", "a=b", "--constraint", "node.role==manager"),
        *("--placement-pref", "spread=node.labels.zone", "--network", "name=app,alias=x"),
        *("--cap-add", "NET_ADMIN", "--tty", "--limit-pids", "9", "--oom-score-adj", "5"),
        *("--replicas-max-per-node", "2", "--endpoint-mode", "dnsrr", "--log-driver", "local"),
        *("--log-opt", "max-size=1m", "--health-cmd", "x", "--health-start-interval", "1s"),
        *("--generic-resource", "gpu=2"),
    )
    template = spec["TaskTemplate"]
    container = template["ContainerSpec"]
    assert [(s["SecretName"], s["SecretID"], s["File"]) for s in container["Secrets"]] == [
        ("key", "k1", {"Name": "key", "UID": "0", "GID": "0", "Mode": 0o444}),
        ("key-2", "k2", {"Name": "/run/x", "UID": "5", "GID": "0", "Mode": 0o400}),
    ]
    assert container["Configs"][0]["File"]["Name"] == "/conf"
    assert container["DNSConfig"] == {
        "Nameservers": ["1.1.1.1"],
        "Search": ["a.b"],
        "Options": ["ndots:2"],
    }
    assert container["Hosts"] == ["10.0.0.9 db"]
    assert (container["Groups"], container["Sysctls"]) == (["audio"], {"a": "1"})
    assert container["Ulimits"] == [{"Name": "nofile", "Soft": 1, "Hard": 2}]
    assert container["Labels"] == {"a": "b"}
    assert (container["CapabilityAdd"], container["TTY"]) == (["CAP_NET_ADMIN"], True)
    assert container["OomScoreAdj"] == 5
    assert container["Healthcheck"]["StartInterval"] == 1_000_000_000
    assert template["Networks"] == [{"Target": "n1", "Aliases": ["x"]}]
    assert template["Placement"] == {
        "Constraints": ["node.role==manager"],
        "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
        "MaxReplicas": 2,
    }
    assert template["Resources"] == {
        "Limits": {"Pids": 9},
        "Reservations": {
            "GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}]
        },
    }
    assert template["LogDriver"] == {"Name": "local", "Options": {"max-size": "1m"}}
    assert spec["EndpointSpec"]["Mode"] == "dnsrr"


def test_an_update_removes_adds_and_leaves_the_rest(linkspan: Any, fake: Any) -> None:
    container = {
        "Image": "web:1",
        "Labels": {"a": "1", "b": "2"},
        "DNSConfig": {"Nameservers": ["1.1.1.1", "8.8.8.8"], "Search": ["x"]},
        "Hosts": ["10.0.0.1 db", "10.0.0.2 cache"],
        "Secrets": [{"SecretName": "key", "SecretID": "k1", "File": {"Name": "key"}}],
        "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 1}],
        "CapabilityDrop": ["NET_ADMIN", "CHOWN"],
    }
    spec = {
        "Name": "web",
        "Mode": {"Replicated": {"Replicas": 2}},
        "TaskTemplate": {
            "ContainerSpec": container,
            "Placement": {"Preferences": [{"Spread": {"SpreadDescriptor": "a"}}]},
            "Resources": {
                "Reservations": {
                    "GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 1}}]
                }
            },
        },
    }
    body = updated(
        linkspan,
        fake,
        spec,
        *("--container-label-rm", "a", "--container-label-add", "b=3"),
        *("--dns-rm", "1.1.1.1", "--dns-add", "9.9.9.9", "--host-rm", "db"),
        *("--secret-rm", "key", "--secret-add", "key-2", "--ulimit-add", "nofile=5"),
        *("--cap-add", "NET_ADMIN", "--placement-pref-rm", "spread=a", "--entrypoint", "/x"),
        *("--generic-resource-rm", "gpu", "--generic-resource-add", "ssd=3"),
    )
    template = body["TaskTemplate"]
    found = template["ContainerSpec"]
    assert found["Labels"] == {"b": "3"}
    assert found["DNSConfig"] == {"Nameservers": ["8.8.8.8", "9.9.9.9"], "Search": ["x"]}
    assert found["Hosts"] == ["10.0.0.2 cache"]
    assert [secret["SecretID"] for secret in found["Secrets"]] == ["k2"]
    assert found["Ulimits"] == [{"Name": "nofile", "Soft": 5, "Hard": 5}]
    assert (found["CapabilityAdd"], found["CapabilityDrop"]) == ([], ["CAP_CHOWN"])
    assert template["Placement"]["Preferences"] == []
    reserved = template["Resources"]["Reservations"]["GenericResources"]
    assert reserved == [{"DiscreteResourceSpec": {"Kind": "ssd", "Value": 3}}]
    assert found["Command"] == ["/x"]
    assert body["Mode"] == {"Replicated": {"Replicas": 2}}


def test_a_job_has_completions(linkspan: Any, fake: Any) -> None:
    words = ("--mode", "replicated-job", "--replicas", "5", "--max-concurrent", "2")
    mode = created(linkspan, fake, *words)["Mode"]
    assert mode == {"ReplicatedJob": {"TotalCompletions": 5, "MaxConcurrent": 2}}


def test_a_secret_that_is_missing_is_named_before_anything_is_made(
    linkspan: Any, fake: Any
) -> None:
    fake.on("GET", "/secrets", SECRETS)
    with fake.running():
        result = linkspan("service", "create", "-d", "--secret", "absent", "web:1")
    assert (result.status, "there is no secret 'absent'" in result.err) == (1, True)
    assert {request.method for request in fake.requests} == {"GET"}


@pytest.mark.parametrize(
    "words",
    [
        ["--secret", "target=x"],
        ["--secret", "source=x,colour=red"],
        ["--secret", "source=x,mode=0999"],
        ["--placement-pref", "zone"],
        ["--host", "db"],
        ["--network", "alias=x"],
        ["--network", "name=x,colour=red"],
        ["--max-concurrent", "3"],
        ["--mode", "global", "--replicas", "2"],
    ],
    ids=" ".join,
)
def test_a_value_that_cannot_be_read_is_wrong_usage(
    linkspan: Any, fake: Any, words: list[str]
) -> None:
    with fake.running():
        result = linkspan("service", "create", "-d", *words, "web:1")
    assert (result.status, result.err[:14]) == (2, "error[LS0004]:")
    assert fake.requests == []


def test_a_network_has_its_pools_sorted_by_subnet(linkspan: Any, fake: Any) -> None:
    fake.on("POST", "/networks/create", {"Id": "n1", "Warning": "careful"}, 201)
    with fake.running():
        result = linkspan(
            *("network", "create", "--subnet", "10.1.0.0/24", "--subnet", "fd00::/64"),
            *("--gateway", "fd00::1", "--gateway", "10.1.0.9", "--ip-range", "10.1.0.128/25"),
            *("--aux-address", "printer=10.1.0.5", "--ipv6", "--scope", "local", "app"),
        )
        outside = linkspan(
            "network", "create", "--subnet", "10.1.0.0/24", "--gateway", "10.2.0.1", "x"
        )
        nonsense = linkspan("network", "create", "--subnet", "ten", "x")
    assert result == (0, "n1\n", "! careful\n")
    body = fake.asked("POST", "/networks/create").json
    assert body["IPAM"]["Config"] == [
        {
            "Subnet": "10.1.0.0/24",
            "Gateway": "10.1.0.9",
            "IPRange": "10.1.0.128/25",
            "AuxiliaryAddresses": {"printer": "10.1.0.5"},
        },
        {"Subnet": "fd00::/64", "Gateway": "fd00::1"},
    ]
    assert (body["EnableIPv6"], "EnableIPv4" in body, body["Scope"]) == (True, False, "local")
    assert (outside.status, "lies in no --subnet" in outside.err) == (2, True)
    assert (nonsense.status, "is no address" in nonsense.err) == (2, True)


def test_removing_a_network_that_is_not_there_can_be_no_error(linkspan: Any, fake: Any) -> None:
    fake.on("DELETE", "/networks/x", {"message": "no such network"}, 404)
    with fake.running():
        assert linkspan("network", "rm", "x").status == 1
        assert linkspan("network", "rm", "-f", "x") == (0, "", "")


def test_all_tags_are_pulled_and_pushed_without_naming_one(linkspan: Any, fake: Any) -> None:
    fake.on("POST", "/images/create", lambda _, c: c.stream({"status": "Digest: sha256:abc"}))
    fake.on("POST", "/images/reg.test%2Fweb/push", lambda _, c: c.stream({"status": "done"}))
    with fake.running():
        assert linkspan("pull", "-a", "reg.test/web").status == 0
        assert linkspan("push", "-a", "reg.test/web").status == 0
        assert linkspan("pull", "-a", "reg.test/web:1").status == 2
        assert linkspan("push", "-a", "reg.test/web:1").status == 2
    assert fake.asked("POST", "/images/create").query == {"fromImage": "reg.test/web"}
    assert fake.asked("POST", "/images/reg.test%2Fweb/push").query == {}


def test_inspecting_can_ask_for_sizes(linkspan: Any, fake: Any) -> None:
    fake.on("GET", "/containers/web/json", {"Id": "c"})
    fake.on("GET", "/images/web/json", {"Id": "i"})
    with fake.running():
        linkspan("container", "inspect", "-s", "web")
        linkspan("image", "inspect", "--platform", "linux/arm64/v8", "web")
        assert linkspan("version", "-f", "{{.Client.ApiVersion}}").out == "1.50\n"
    assert fake.asked("GET", "/containers/web/json").query == {"size": "1"}
    platform = fake.asked("GET", "/images/web/json").query["platform"]
    assert platform == '{"os": "linux", "architecture": "arm64", "variant": "v8"}'


@pytest.mark.parametrize(
    ("had", "words", "has"),
    [
        ((["SYS_ADMIN"], ["CHOWN"]), ["--cap-add", "CHOWN"], (["CAP_SYS_ADMIN"], [])),
        ((["SYS_ADMIN"], []), ["--cap-drop", "sys_admin"], ([], [])),
        (([], []), ["--cap-add", "A", "--cap-drop", "A"], (["CAP_A"], [])),
        (([], []), ["--cap-add", "A", "--cap-drop", "ALL"], (["CAP_A"], ["ALL"])),
        ((["B"], ["C"]), ["--cap-add", "RESET", "--cap-add", "A"], (["CAP_A"], ["CAP_C"])),
    ],
)
def test_capabilities_are_changed_as_docker_changes_them(
    had: tuple[list[str], list[str]], words: list[str], has: tuple[list[str], list[str]]
) -> None:
    container: dict[str, Any] = dict(zip(("CapabilityAdd", "CapabilityDrop"), had, strict=True))
    options: dict[str, list[str]] = {"cap_add": [], "cap_drop": []}
    for name, value in zip(words[::2], words[1::2], strict=True):
        options[name.removeprefix("--").replace("-", "_")].append(value)
    service_change._capabilities(container, options)
    assert (container["CapabilityAdd"], container["CapabilityDrop"]) == has


def test_an_entrypoint_is_split_as_a_shell_does(linkspan: Any, fake: Any) -> None:
    template = created(linkspan, fake, "--entrypoint", "sh -c 'a b'")["TaskTemplate"]
    assert template["ContainerSpec"]["Command"] == ["sh", "-c", "a b"]
    result = linkspan("service", "create", "-d", "--entrypoint", "'open", "web:1")
    assert (result.status, "do not match" in result.err) == (2, True)


def test_networks_are_added_and_removed_by_name_and_kept_by_id(linkspan: Any, fake: Any) -> None:
    template = {
        "ContainerSpec": {"Image": "web:1"},
        "Networks": [{"Target": "n1"}, {"Target": "n3"}],
    }
    spec = {"Name": "web", "TaskTemplate": template, "Mode": {"Replicated": {"Replicas": 1}}}
    words = ("--network-rm", "app", "--network-add", "app-2", "--network-rm", "n3")
    body = updated(linkspan, fake, spec, *words)
    assert body["TaskTemplate"]["Networks"] == [{"Target": "n2"}]
