"""Networks, volumes, events, the daemon itself, and what is not there."""

import json

import pytest
import trio
import trio.testing

from linkspan.plugins.docker_api.unsupported import NOT_SERVED


async def test_networks_are_made_used_and_removed(api) -> None:
    body = {
        "Name": "back",
        "Internal": True,
        "IPAM": {"Config": [{"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1"}]},
        "Labels": {"a": "1"},
    }
    made = await api.ask("POST", "/networks/create", body)
    assert made.status == 201
    assert (await api.ask("POST", "/networks/create", body)).status == 409
    await api.start("sleep", "99", HostConfig={"NetworkMode": "back"})
    seen = (await api.ask("GET", "/networks/back")).json
    assert seen["Internal"] is True
    assert seen["IPAM"]["Config"] == [{"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1"}]
    (member,) = seen["Containers"].values()
    assert member["Name"] == "web"
    assert member["IPv4Address"].endswith("/16")
    in_use = await api.ask("DELETE", "/networks/back")
    assert in_use.status == 403
    await api.ask("DELETE", "/containers/web?force=1")
    assert (await api.ask("DELETE", "/networks/back")).status == 204
    assert (await api.ask("GET", "/networks/back")).status == 404


async def test_a_container_joins_and_leaves_a_network(api) -> None:
    await api.ask("POST", "/networks/create", {"Name": "back"})
    await api.start("sleep", "99")
    body = {
        "Container": "web",
        "EndpointConfig": {"Aliases": ["db"], "IPAMConfig": {"IPv4Address": "10.1.2.3"}},
    }
    assert (await api.ask("POST", "/networks/back/connect", body)).status == 200
    networks = (await api.ask("GET", "/containers/web/json")).json["NetworkSettings"]["Networks"]
    assert networks["back"]["IPAddress"] == "10.1.2.3"
    assert networks["back"]["Aliases"] == ["db"]
    assert (await api.ask("POST", "/networks/back/disconnect", {"Container": "web"})).status == 200
    networks = (await api.ask("GET", "/containers/web/json")).json["NetworkSettings"]["Networks"]
    assert list(networks) == ["bridge"]


async def test_a_container_that_does_not_run_tells_what_it_is_called_where_it_was_connected(
    api,
) -> None:
    await api.ask("POST", "/networks/create", {"Name": "back"})
    await api.ask("POST", "/networks/create", {"Name": "front"})
    made = await api.create(
        HostConfig={"NetworkMode": "bridge"},
        NetworkingConfig={"EndpointsConfig": {"front": {"Aliases": ["web"]}}},
    )
    body = {"Container": made, "EndpointConfig": {"Aliases": ["db"]}}
    assert (await api.ask("POST", "/networks/back/connect", body)).status == 200
    seen = (await api.ask("GET", f"/containers/{made}/json")).json
    networks = seen["NetworkSettings"]["Networks"]
    assert networks["back"]["DNSNames"] == [seen["Name"][1:], "db", seen["Id"][:12]]
    assert networks["bridge"]["DNSNames"] is None
    assert networks["front"]["DNSNames"] is None  # it has been created so, and not started


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"type": ["builtin"]}, ["bridge", "host", "none"]),
        ({"type": ["custom"]}, ["back"]),
        ({"driver": ["host"]}, ["host"]),
        ({"name": ["^b"]}, ["bridge", "back"]),
        ({"label": ["a"]}, ["back"]),
        ({"dangling": ["true"]}, ["back"]),
    ],
)
async def test_network_filters(api, filters, names) -> None:
    await api.ask("POST", "/networks/create", {"Name": "back", "Labels": {"a": "1"}})
    found = await api.ask("GET", f"/networks?filters={json.dumps(filters)}")
    assert [n["Name"] for n in found.json] == names


async def test_networks_prune(api) -> None:
    await api.ask("POST", "/networks/create", {"Name": "used"})
    await api.ask("POST", "/networks/create", {"Name": "free"})
    await api.create(HostConfig={"NetworkMode": "used"})
    assert (await api.ask("POST", "/networks/prune")).json == {"NetworksDeleted": ["free"]}


async def test_volumes(api) -> None:
    made = await api.ask("POST", "/volumes/create", {"Name": "data", "Labels": {"a": "1"}})
    assert (made.status, made.json["Driver"], made.json["Scope"]) == (201, "local", "local")
    nameless = (await api.ask("POST", "/volumes/create")).json["Name"]
    assert len(nameless) == 64
    await api.create(HostConfig={"Mounts": [{"Type": "volume", "Source": "data", "Target": "/d"}]})
    assert (await api.ask("DELETE", "/volumes/data")).status == 409
    found = (await api.ask("GET", '/volumes?filters={"dangling":["true"]}')).json["Volumes"]
    assert [v["Name"] for v in found] == [nameless]
    await api.ask("POST", "/volumes/create", {"Name": "spare"})
    assert (await api.ask("POST", "/volumes/prune")).json["VolumesDeleted"] == [nameless]
    everything = await api.ask("POST", '/volumes/prune?filters={"all":["1"]}')
    assert everything.json["VolumesDeleted"] == ["spare"]
    assert (await api.ask("GET", "/volumes/nobody")).message == "get nobody: no such volume"


async def test_events_are_told_as_they_happen_and_filtered(api) -> None:
    writer = await api.watch("GET", '/events?filters={"event":["create"],"container":["web"]}')
    await trio.testing.wait_all_tasks_blocked()
    await api.create(name="other")
    await api.create(name="web")
    event = json.loads((await writer.until(b"\n")).splitlines()[0])
    assert (event["Type"], event["Action"], event["status"]) == ("container", "create", "create")
    assert event["Actor"]["Attributes"]["name"] == "web"
    assert event["from"] == "app:1"
    assert event["timeNano"] // 10**9 == event["time"]


async def test_events_of_the_past_end_by_themselves(api) -> None:
    await api.create()
    with trio.fail_after(5):
        reply = await api.ask("GET", "/events?since=1&until=0.5s")
    assert [line["Action"] for line in reply.lines] in ([], ["create"])


async def test_ping_warms_the_runtime_up(api) -> None:
    await api.ask("GET", "/_ping")
    assert api.host.driver("runtime").stirred == 1


async def test_ping_tells_the_cli_how_to_build(api) -> None:
    reply = await api.ask("GET", "/_ping")
    assert reply.body == b"OK"
    assert reply.headers["Builder-Version"] == "1"
    assert reply.headers["Swarm"] == "inactive"


async def test_version_and_info(api) -> None:
    version = (await api.ask("GET", "/version")).json
    assert (version["ApiVersion"], version["MinAPIVersion"]) == ("1.50", "1.24")
    await api.start("sleep", "99", name="up")
    await api.create(name="made")
    info = (await api.ask("GET", "/info")).json
    assert (info["Containers"], info["ContainersRunning"], info["ContainersStopped"]) == (2, 1, 1)
    assert info["Swarm"]["LocalNodeState"] == "inactive"
    assert info["RegistryConfig"]["InsecureRegistryCIDRs"] == ["127.0.0.0/8", "::1/128"]
    assert info["MemTotal"] > 0


@pytest.mark.parametrize("route", [r for routes in NOT_SERVED.values() for r in routes])
async def test_what_is_not_there_says_so(api, route) -> None:
    method, pattern = route.split(" ")
    reply = await api.ask(
        method, pattern.replace("{id}", "x").replace("{name:path}", "x").replace("{name}", "x")
    )
    assert reply.status == 501
    assert reply.message.startswith("not supported by this daemon: ")
