"""Networks through the stock docker CLI."""

import json
import os
import signal
import socket
import urllib.request
from functools import partial
from typing import Any

import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.leftovers import children_of, command_line
from daemon_harness.ports import free_port
from daemon_harness.transcripts import CLI_VERSION, client_version

pytestmark = pytest.mark.system

# Random, and not where daemons of tests have their own: tests run side by side.
NET = f"198.18.{os.urandom(1)[0]}"
NET6 = f"fd{os.urandom(1).hex()}:{0x1000 + os.urandom(1)[0]:x}"
WEB = "mkdir -p /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www"


def inspect(daemon: Daemon, name: str) -> Any:
    return json.loads(daemon.docker("network", "inspect", name).out)[0]


def inside(daemon: Daemon, name: str) -> Any:
    (found,) = json.loads(daemon.docker("inspect", name).out)
    return found["NetworkSettings"]


def sleeper(daemon: Daemon, name: str, *options: str) -> str:
    return daemon.docker(
        "run", "-d", "--name", name, "--stop-timeout", "0", *options, "busybox", "sleep", "1000"
    ).out.strip()


def fetch(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host

    def answer() -> str:
        try:
            with urllib.request.urlopen(f"http://{shown}:{port}/", timeout=2) as got:
                return str(got.read().decode().strip())
        except OSError:
            return ""

    return until(f"an answer of {shown}:{port}", answer)


def test_odd_and_long_names_of_networks_work(daemon: Daemon) -> None:
    """The kernel keeps no more than 255 bytes of a bridge's alias, and DNS 63 of a part of a name."""
    for name in ("-dash", "é.ü", "..d", "long" * 60):
        daemon.docker("network", "create", "--", name)
        inside = (
            "nslookup $(hostname -i) | grep -o odd; ping -c1 odd | grep -c '1 packets received'"
        )
        where = ("--network", name, "--name", "odd", "busybox")
        out = daemon.docker("run", "--rm", *where, "sh", "-c", inside).out
        assert out.splitlines()[-1] == "1", name
        assert "odd" in out.splitlines()[0], name
        daemon.docker("network", "rm", "--", name)


def test_what_is_created_is_what_inspect_shows(daemon: Daemon) -> None:
    """Behaviour 52."""
    daemon.docker(
        *("network", "create", "--subnet", f"{NET}.0/24", "--gateway", f"{NET}.7"),
        *("--ip-range", f"{NET}.128/29", "--aux-address", f"router={NET}.129"),
        *("--ipv6", "--subnet", f"{NET6}::/64", "--label", "a=1", "--attachable"),
        *("-o", "com.docker.network.driver.mtu=1400", "back"),
    )
    seen = inspect(daemon, "back")
    assert seen["IPAM"]["Config"] == [
        {
            "Subnet": f"{NET}.0/24",
            "IPRange": f"{NET}.128/29",
            "Gateway": f"{NET}.7",
            "AuxiliaryAddresses": {"router": f"{NET}.129"},
        },
        {"Subnet": f"{NET6}::/64", "Gateway": f"{NET6}::1"},
    ]
    assert (seen["EnableIPv4"], seen["EnableIPv6"], seen["Attachable"]) == (True, True, True)
    assert (seen["Scope"], seen["Driver"], seen["Internal"]) == ("local", "bridge", False)
    assert seen["Labels"] == {"a": "1"}
    sleeper(daemon, "al", "--network", "back")
    (member,) = inspect(daemon, "back")["Containers"].values()
    assert (member["Name"], member["IPv4Address"]) == ("al", f"{NET}.128/24")
    assert member["IPv6Address"] == f"{NET6}::2/64"
    endpoint = inside(daemon, "al")["Networks"]["back"]
    assert endpoint["IPv6Gateway"] == f"{NET6}::1"
    assert "mtu 1400" in daemon.docker("exec", "al", "ip", "link", "show", "eth0").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--subnet", f"{NET}.1/24"), f"it should be {NET}.0/24"),
        (("--subnet", f"{NET}.0/24", "--gateway", "192.0.2.1"), "192.0.2.1"),
        (("--driver", "bogus"), 'plugin "bogus" not found'),
        (("--config-from", "nothing"), 'configuration network "nothing" does not exist'),
        (("-o", "com.docker.network.bridge.gateway_mode_ipv4=isolated"), "internal"),
    ],
    # The subnet is another in each process, and a test's name must not be.
    ids=["host-bits", "gateway-outside", "driver", "config-from", "isolated"],
)
def test_what_cannot_be_is_refused_in_words(
    daemon: Daemon, words: tuple[str, ...], said: str
) -> None:
    assert said in daemon.docker("network", "create", *words, "bad", status=1).err
    names = daemon.docker("network", "ls", "--format", "{{.Name}}").out.split()
    assert "bad" not in names


def test_overlaps_duplicates_and_predefined_names_are_refused(daemon: Daemon) -> None:
    """Behaviours 48, 51."""
    daemon.docker("network", "create", "--subnet", f"{NET}.0/24", "back")
    said = daemon.docker("network", "create", "--subnet", f"{NET}.128/25", "more", status=1).err
    assert "Pool overlaps with other one on this address space" in said
    said = daemon.docker("network", "create", "back", status=1).err
    assert "network with name back already exists" in said
    for name in ("bridge", "host", "none", "default"):
        said = daemon.docker("network", "create", name, status=1).err
        assert f"operation is not permitted on predefined {name} network" in said
    for name in ("bridge", "host", "none"):
        said = daemon.docker("network", "rm", name, status=1).err
        assert f"{name} is a pre-defined network and cannot be removed" in said


def test_a_configuration_lends_what_it_says(daemon: Daemon) -> None:
    daemon.docker(
        *("network", "create", "--config-only", "--subnet", f"{NET}.0/24"),
        *("-o", "com.docker.network.driver.mtu=1300", "plan"),
    )
    assert inspect(daemon, "plan")["ConfigOnly"] is True
    daemon.docker("network", "create", "--config-from", "plan", "real")
    seen = inspect(daemon, "real")
    assert seen["IPAM"]["Config"][0]["Subnet"] == f"{NET}.0/24"
    assert seen["ConfigFrom"] == {"Network": "plan"}
    assert "in use" in daemon.docker("network", "rm", "plan", status=1).err
    said = daemon.docker("run", "--rm", "--network", "plan", "busybox", "true", status=125).err
    assert "configuration network plan cannot be used" in said
    daemon.docker("network", "rm", "real", "plan")


def test_lists_are_filtered_and_unused_networks_pruned(daemon: Daemon) -> None:
    for name, label in (("used", "a=1"), ("free", "a=2"), ("kept", "keep")):
        daemon.docker("network", "create", "--label", label, name)
    sleeper(daemon, "al", "--network", "used")

    def names(*filters: str) -> set[str]:
        words = [word for text in filters for word in ("-f", text)]
        out = daemon.docker("network", "ls", "--format", "{{.Name}}", *words).out
        return set(out.split())

    assert {"bridge", "host", "none", "used", "free", "kept"} <= names()
    assert names("type=builtin") == {"bridge", "host", "none"}
    assert names("driver=host") == {"host"}
    assert names("label=a") == {"used", "free"}
    assert names("label=a=2") == {"free"}
    assert names("name=us") == {"used"}
    assert names("dangling=true", "label=a") == {"free"}
    assert names("scope=swarm") == set()
    network_id = inspect(daemon, "free")["Id"]
    assert names(f"id={network_id[:20]}") == {"free"}
    assert "invalid filter" in daemon.docker("network", "ls", "-f", "bogus=1", status=1).err
    pruned = daemon.docker("network", "prune", "-f", "--filter", "label!=keep").out
    assert pruned.split() == ["Deleted", "Networks:", "free"]
    assert {"used", "kept"} <= names()


def fetch_from(daemon: Daemon, name: str, host: str) -> str:
    """What a container is answered on port 80; the last line of it."""
    script = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {host} 80 | tail -n 1"
    return until(
        f"an answer to {name}",
        lambda: daemon.docker("exec", name, "sh", "-c", script).out.strip(),
    )


def own_names(daemon: Daemon, container: str) -> list[str]:
    """What a container is called in the network ``n``."""
    found = daemon.get(f"/v1.50/containers/{container}/json")["NetworkSettings"]["Networks"]["n"]
    names: list[str] = found["DNSNames"]
    return names


def test_a_running_container_is_connected_and_disconnected(daemon: Daemon) -> None:
    """Behaviours 44, 46, 47, 48, 55, 58."""
    daemon.docker(
        "network", "create", "--subnet", f"{NET}.0/24", "--subnet", f"{NET6}::/64", "--ipv6", "n"
    )
    sleeper(daemon, "al")
    sleeper(daemon, "bo", "--network", "n", "--network-alias", "twin")
    # Not by the client: Debian's knows no --gw-priority.
    addresses = {"IPv4Address": f"{NET}.77", "IPv6Address": f"{NET6}::77"}
    settings = {
        "IPAMConfig": {**addresses, "LinkLocalIPs": ["169.254.8.8"]},
        "Aliases": ["twin"],
        "GwPriority": 7,
    }
    body = json.dumps({"Container": "al", "EndpointConfig": settings}).encode()
    assert daemon.request("POST", "/v1.50/networks/n/connect", body)[0] == 200
    endpoint = daemon.get("/v1.50/containers/al/json")["NetworkSettings"]["Networks"]["n"]
    assert (endpoint["IPAddress"], endpoint["GlobalIPv6Address"]) == (f"{NET}.77", f"{NET6}::77")
    assert endpoint["IPAMConfig"]["LinkLocalIPs"] == ["169.254.8.8"]
    assert endpoint["GwPriority"] == 7
    assert {"al", "twin"} <= set(endpoint["DNSNames"])
    assert f"via {NET}.1 dev eth1" in daemon.docker("exec", "al", "ip", "route").out
    for name in ("al", "AL", "al.n", endpoint["DNSNames"][-1], "twin"):
        assert f"{NET}.77" in daemon.docker("exec", "bo", "nslookup", name, "127.0.0.11").out
    assert f"{NET6}::77" in daemon.docker("exec", "bo", "nslookup", "-type=aaaa", "al").out
    both = daemon.docker("exec", "bo", "nslookup", "-type=a", "twin").out
    assert both.count(f"{NET}.") == 2
    assert "al.n" in daemon.docker("exec", "bo", "nslookup", f"{NET}.77").out
    daemon.docker("rename", "al", "ed")
    assert "ed" in own_names(daemon, "ed")
    assert "al" not in own_names(daemon, "ed")
    assert f"{NET}.77" in daemon.docker("exec", "bo", "nslookup", "ed", "127.0.0.11").out
    daemon.docker("rename", "ed", "al")
    said = daemon.docker("network", "connect", "n", "al", status=1).err
    assert "endpoint with name al already exists in network n" in said
    sleeper(daemon, "cy")
    said = daemon.docker("network", "connect", "--ip", f"{NET}.77", "n", "cy", status=1).err
    assert "Address already in use" in said
    said = daemon.docker("network", "connect", "--ip", "192.0.2.1", "n", "cy", status=1).err
    assert "192.0.2.1" in said
    said = daemon.docker("network", "rm", "n", status=1).err
    assert "has active endpoints" in said
    daemon.docker("network", "disconnect", "n", "al")
    daemon.docker("network", "disconnect", "bridge", "al")
    assert daemon.docker("exec", "al", "ip", "-o", "link").out.count(": lo") == 1
    assert "eth" not in daemon.docker("exec", "al", "ip", "-o", "link").out
    said = daemon.docker("network", "disconnect", "n", "al", status=1).err
    assert "is not connected to network n" in said
    daemon.docker("network", "connect", "n", "al")
    daemon.docker("restart", "al")
    assert list(inside(daemon, "al")["Networks"]) == ["n"]


def test_modes_without_a_network_of_their_own(daemon: Daemon) -> None:
    """Behaviours 71, 72."""
    daemon.docker("network", "create", "n")
    sleeper(daemon, "al", "--network", "n", "--hostname", "hosta")
    script = "ip -o -4 addr show eth0; cat /etc/hosts /etc/resolv.conf"
    shared = daemon.docker(
        "run", "--rm", "--network", "container:al", "busybox", "sh", "-c", script
    ).out
    assert shared == daemon.docker("exec", "al", "sh", "-c", script).out
    said = daemon.docker(
        "run", "--rm", "--network", "container:al", "-p", "80", "busybox", "true", status=125
    ).err
    assert "conflicting options" in said
    sleeper(daemon, "joined", "--network", "container:al")
    said = daemon.docker("network", "connect", "n", "joined", status=1).err
    assert "cannot be connected to any other network" in said
    sleeper(daemon, "host-mode", "--network", "host")
    assert (
        "cannot be connected" in daemon.docker("network", "connect", "n", "host-mode", status=1).err
    )
    said = daemon.docker("network", "connect", "host", "al", status=1).err
    assert "container must be created in host network mode" in said
    port = free_port()
    # What is published there is left out, with a warning.
    started = daemon.docker(
        "run", "-d", "--name", "web", "--network", "host", "-p", f"{port}:81", "busybox", "sh",
        "-c", WEB.replace("-p 80", f"-p 127.0.0.1:{port}"),
    )  # fmt: skip
    assert "Published ports are discarded when using host network mode" in started.err
    assert fetch("127.0.0.1", port) == socket.gethostname()
    assert daemon.docker("port", "web").out == ""
    lone = daemon.docker("run", "--rm", "--network", "none", "busybox", "ip", "-o", "link").out
    assert [line.split(":")[1].strip() for line in lone.splitlines()] == ["lo"]
    daemon.docker("stop", "al")
    said = daemon.docker(
        "run", "--rm", "--network", "container:al", "busybox", "true", status=125
    ).err
    assert (
        "cannot join network namespace of a non running container: container al is exited" in said
    )


def test_the_default_network_has_links_and_no_names(daemon: Daemon) -> None:
    db = sleeper(daemon, "db")
    address = inside(daemon, "db")["IPAddress"]
    out = daemon.docker("run", "--rm", "--link", "db:base", "busybox", "cat", "/etc/hosts").out
    (line,) = [line.split() for line in out.splitlines() if line.startswith(address)]
    hostname = daemon.docker("inspect", "-f", "{{.Config.Hostname}}", "db").out.strip()
    assert line[1:] == ["base", hostname, "db"]
    said = daemon.docker(
        "run",
        "--rm",
        "--link",
        "db:base",
        "busybox",
        "sh",
        "-c",
        "ping -c1 -W2 base && echo $BASE_NAME",
    ).out
    assert said.endswith("/base\n")
    unknown = daemon.docker("run", "--rm", "busybox", "ping", "-c1", "-W1", "db", status=1)
    assert "bad address" in unknown.err
    assert "127.0.0.11" not in daemon.docker("exec", "db", "cat", "/etc/resolv.conf").out
    assert db
    if client_version() >= CLI_VERSION:  # an older one keeps the address to itself
        refused = daemon.docker("run", "--rm", "--ip", address, "busybox", "true", status=125)
        assert "user specified IP address is supported on user defined networks only" in refused.err
    refused = daemon.docker("run", "--rm", "--ipc", "container:db", "busybox", "true", status=125)
    assert "non-shareable IPC" in refused.err


def test_wishes_about_names_are_in_the_files(daemon: Daemon) -> None:
    """Behaviours 65, 69."""
    daemon.docker("network", "create", "n")
    out = daemon.docker(
        "run", "--rm", "--network", "n", "--dns", "192.0.2.53", "--dns-search", "example.org",
        "--dns-option", "timeout:3", "--add-host", "h:192.0.2.1", "--add-host",
        "me:host-gateway", "--hostname", "web", "--domainname", "example.net", "busybox",
        "cat", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname",
    ).out  # fmt: skip
    assert "nameserver 127.0.0.11" in out
    assert "search example.org" in out
    assert "timeout:3" in out
    assert "192.0.2.1\th" in out
    (gateway,) = [line.split()[0] for line in out.splitlines() if line.endswith("\tme")]
    assert gateway == inspect(daemon, "bridge")["IPAM"]["Config"][0]["Gateway"]
    assert "\tweb.example.net web" in out
    assert out.endswith("\nweb\n")


def test_ports_are_published_on_both_families_and_conflicts_are_told(daemon: Daemon) -> None:
    """Behaviours 4, 5, 33, 34, 35, 36, 38."""
    port = free_port()
    daemon.docker(
        "run", "-d", "--name", "web", "--hostname", "web", "-p", f"{port}:80", "-p", "81", "-p",
        "81", "busybox", "sh", "-c", WEB,
    )  # fmt: skip
    for host in ("127.0.0.1", "::1"):
        assert fetch(host, port) == "web"
    # Debian's client writes the second otherwise.
    told = daemon.docker("port", "web", "80").out.replace(":::", "[::]:")
    assert told.split() == [f"0.0.0.0:{port}", f"[::]:{port}"]
    chosen = {line.rpartition(":")[2] for line in daemon.docker("port", "web", "81").out.split()}
    assert len(chosen) == 2
    failed = daemon.docker(
        "run", "-d", "--name", "late", "-p", f"{port}:80", "busybox", "true", status=125
    )
    assert f"Bind for 0.0.0.0:{port} failed: port is already allocated" in failed.err
    assert "driver failed programming external connectivity on endpoint late (" in failed.err
    assert daemon.docker("inspect", "-f", "{{.State.Status}}", "late").out == "created\n"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        failed = daemon.docker("run", "--rm", "-p", f"{number}:80", "busybox", "true", status=125)
        assert (
            f"failed to bind host port 0.0.0.0:{number}/tcp: address already in use" in failed.err
        )
        assert "pid" in failed.err
    sleeper(daemon, "ranged", "-p", f"{port}-{port + 9}:80")
    assert daemon.docker("port", "ranged", "80").out.split()[0] != f"0.0.0.0:{port}"
    said = daemon.docker("create", "-p", "8000-8002:80-81", "busybox", status=125).err
    assert "invalid ranges specified" in said.lower()


def test_an_address_without_ipv6_is_ipv4_alone_and_a_udp_port_is_one(daemon: Daemon) -> None:
    port = free_port()
    sleeper(daemon, "four", "-p", f"0.0.0.0:{port}:80", "-p", f"127.0.0.1:{port}:53/udp")
    assert daemon.docker("port", "four").out.splitlines() == [
        f"53/udp -> 127.0.0.1:{port}",
        f"80/tcp -> 0.0.0.0:{port}",
    ]


def test_a_full_network_says_so_until_somebody_leaves(daemon: Daemon) -> None:
    """Behaviour 49."""
    daemon.docker("network", "create", "--subnet", f"{NET}.0/30", "tiny")
    sleeper(daemon, "al", "--network", "tiny")
    said = daemon.docker("run", "--rm", "--network", "tiny", "busybox", "true", status=125).err
    assert "no available IPv4 addresses on this network's address pools: tiny" in said
    daemon.docker("rm", "-f", "al")
    daemon.docker("run", "--rm", "--network", "tiny", "busybox", "true")


def test_internal_and_silent_networks(daemon: Daemon) -> None:
    """Behaviours 20, 23."""
    icc = "com.docker.network.bridge.enable_icc=false"
    daemon.docker("network", "create", "--internal", "inner")
    daemon.docker("network", "create", "-o", icc, "--subnet", f"{NET}.0/24", "quiet")
    assert inspect(daemon, "inner")["Internal"] is True
    out = daemon.docker("run", "--rm", "--network", "inner", "busybox", "ip", "route").out
    assert "default" not in out
    sleeper(daemon, "al", "--network", "quiet", "--ip", f"{NET}.9")
    daemon.docker(
        "run", "--rm", "--network", "quiet", "busybox", "ping", "-c1", "-W1", f"{NET}.9", status=1
    )


def test_an_overlay_network_is_a_bridge_on_one_node(daemon: Daemon) -> None:
    said = daemon.docker("network", "create", "-d", "overlay", "span", status=1).err
    assert "This node is not a swarm manager" in said
    daemon.docker("swarm", "init")
    daemon.docker("network", "create", "-d", "overlay", "--attachable", "span")
    daemon.docker("network", "create", "-d", "overlay", "closed")
    seen = inspect(daemon, "span")
    assert (seen["Scope"], seen["Driver"], seen["Attachable"]) == ("swarm", "overlay", True)
    assert daemon.docker("network", "ls", "-q", "-f", "scope=swarm").out.count("\n") == 2
    sleeper(daemon, "al", "--network", "span")
    daemon.docker("run", "--rm", "--network", "span", "busybox", "ping", "-c1", "-W2", "al")
    said = daemon.docker("run", "--rm", "--network", "closed", "busybox", "true", status=125).err
    assert "not manually attachable" in said
    daemon.docker("network", "connect", "bridge", "al")
    assert set(inside(daemon, "al")["Networks"]) == {"bridge", "span"}
    daemon.docker("rm", "-f", "al")
    daemon.docker("network", "rm", "span", "closed")
    daemon.docker("swarm", "leave", "--force")


def test_a_service_lives_in_an_overlay_network_and_answers_on_both_families(
    daemon: Daemon,
) -> None:
    port = free_port()
    daemon.docker("swarm", "init")
    daemon.docker("network", "create", "-d", "overlay", "--attachable", "span")
    daemon.docker(
        "service", "create", "-d", "--name", "web", "--network", "span", "-p", f"{port}:80",
        "--replicas", "2", "--stop-grace-period", "1s", "busybox", "sh", "-c", WEB,
    )  # fmt: skip

    def all_answer(host: str) -> bool:
        return len({fetch(host, port) for _ in range(4)}) == 2

    for host in ("127.0.0.1", "::1"):
        until("both tasks answer", partial(all_answer, host))
    out = daemon.docker("run", "--rm", "--network", "span", "busybox", "nslookup", "tasks.web").out
    assert out.count("Address") >= 3
    said = daemon.docker("network", "rm", "span", status=1).err
    assert "is in use by service" in said
    daemon.docker("service", "rm", "web")
    until(
        "no task is left",
        lambda: "web" not in daemon.docker("ps", "-a", "--format", "{{.Names}}").out,
    )
    daemon.docker("network", "rm", "span")
    daemon.docker("swarm", "leave", "--force")


def test_a_crash_of_nftables_is_none_of_the_daemon_or_of_containers(daemon: Daemon) -> None:
    def child() -> int:
        """The process in which libnftables runs."""
        (found,) = [pid for pid in children_of(daemon.pid) if "nft_child" in command_line(pid)]
        return found

    ports = [free_port(), free_port()]
    web = ("busybox", "sh", "-c", WEB)
    daemon.docker("run", "-d", "--hostname", "one", "-p", f"{ports[0]}:80", *web)
    before, crashed = daemon.pid, child()
    os.kill(crashed, signal.SIGSEGV)
    assert fetch("127.0.0.1", ports[0]) == "one"
    daemon.docker("run", "-d", "--hostname", "two", "-p", f"{ports[1]}:80", *web)
    assert [fetch("127.0.0.1", port) for port in ports] == ["one", "two"]
    assert child() != crashed
    assert daemon.pid == before
    assert "nftables has crashed (Segmentation fault)" in daemon.log.read_text()


def test_networking_goes_on_when_the_daemon_was_killed(daemon: Daemon) -> None:
    """Behaviour 29."""
    port = free_port()
    daemon.docker("network", "create", "--ipv6", "n")
    daemon.docker(
        "run", "-d", "--name", "web", "--hostname", "web", "--network", "n", "-p", f"{port}:80",
        "busybox", "sh", "-c", WEB,
    )  # fmt: skip
    assert fetch("::1", port) == "web"
    before = inside(daemon, "web")
    daemon.kill9()
    for host in ("127.0.0.1", "::1"):
        assert fetch(host, port) == "web"
    daemon.start()
    for host in ("127.0.0.1", "::1"):
        assert fetch(host, port) == "web"
    assert inside(daemon, "web") == before
    daemon.docker("run", "--rm", "--network", "n", "busybox", "ping", "-c1", "-W2", "web")


def test_who_has_left_the_network_of_its_mode_is_known_when_the_daemon_was_killed(
    daemon: Daemon,
) -> None:
    """Behaviours 29, 46."""
    port = free_port()
    daemon.docker("network", "create", "--subnet", f"{NET}.8/29", "n")  # five containers
    sleeper(daemon, "lone", "--network", "none")
    sleeper(daemon, "home")
    daemon.docker(
        "run", "-d", "--name", "web", "--hostname", "web", "--network", "none", "-p", f"{port}:80",
        "busybox", "sh", "-c", WEB,
    )  # fmt: skip
    for network, name in (("none", "web"), ("none", "lone"), ("bridge", "home")):
        daemon.docker("network", "disconnect", network, name)
    daemon.docker("network", "connect", "n", "web")
    assert fetch("127.0.0.1", port) == "web"
    before = inside(daemon, "web")
    daemon.kill9()
    assert fetch("127.0.0.1", port) == "web"
    daemon.start()
    assert inside(daemon, "web") == before
    for name in ("lone", "home"):
        assert inside(daemon, name)["Networks"] == {}
        daemon.docker("network", "connect", "n", name)
        assert fetch_from(daemon, name, "web") == "web"
    daemon.docker("network", "disconnect", "n", "lone")
    daemon.kill9()
    daemon.start()
    daemon.docker("network", "connect", "none", "lone")
    assert list(inside(daemon, "lone")["Networks"]) == ["none"]
    assert set(inspect(daemon, "n")["Containers"]) == {
        daemon.docker("inspect", "-f", "{{.Id}}", name).out.strip() for name in ("home", "web")
    }
    daemon.docker("restart", "-t", "0", "home", "web")
    assert fetch_from(daemon, "home", "web") == "web"
    for number in range(3):  # no address is lost
        sleeper(daemon, f"more{number}", "--network", "n")
