import json

import pytest
import trio

from linkspan.sdk.errors import Internal


async def test_a_container_is_made_started_stopped_and_removed(api) -> None:
    container = await api.create("sleep", "1000")
    assert len(container) == 64
    assert (await api.ask("POST", "/containers/web/start")).status == 204
    assert (await api.ask("POST", "/containers/web/start")).status == 304
    assert (await api.ask("POST", "/containers/web/stop?t=1")).status == 204
    assert (await api.ask("POST", "/containers/web/stop")).status == 304
    assert (await api.ask("DELETE", "/containers/web")).status == 204
    assert (await api.ask("DELETE", "/containers/web")).status == 404


async def test_inspect_says_what_was_asked_and_what_is(api) -> None:
    await api.start(
        "sleep",
        "9",
        Env=["A=1"],
        Labels={"own": "1"},
        Tty=False,
        StopTimeout=3,
        HostConfig={
            "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2},
            "Memory": 64 << 20,
            "NanoCpus": 500_000_000,
            "PidsLimit": 100,
            "CpuCount": 2,
            "CapAdd": ["NET_ADMIN"],
            "Mounts": [{"Type": "volume", "Source": "data", "Target": "/data"}],
        },
    )
    seen = (await api.ask("GET", "/containers/web/json?size=1")).json
    assert seen["Name"] == "/web"
    assert (seen["Path"], seen["Args"]) == ("sleep", ["9"])
    assert seen["Config"]["Cmd"] == ["sleep", "9"]
    assert seen["Config"]["Labels"] == {"from": "image", "own": "1"}
    assert seen["Config"]["StopTimeout"] == 3
    assert seen["State"]["Status"] == "running"
    assert seen["State"]["Running"] is True
    assert seen["State"]["FinishedAt"] == "0001-01-01T00:00:00Z"
    host = seen["HostConfig"]
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 500_000_000, 100)
    assert host["CpuCount"] == 2
    assert host["NetworkMode"] == "bridge"
    assert host["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}
    assert host["Mounts"] == [{"Type": "volume", "Source": "data", "Target": "/data"}]
    settings = seen["NetworkSettings"]
    assert settings["Ports"]["80/tcp"] == [
        {"HostIp": "0.0.0.0", "HostPort": "8080"},
        {"HostIp": "::", "HostPort": "8080"},
    ]
    assert settings["IPAddress"] == settings["Networks"]["bridge"]["IPAddress"] != ""
    assert seen["Mounts"][0]["Name"] == "data"
    assert seen["Mounts"][0]["RW"] is True
    assert seen["SizeRw"] == 100


async def test_what_inspect_says_can_be_sent_to_create_again(api) -> None:
    first = {
        "Image": "app:1",
        "Cmd": ["sleep", "1"],
        "Entrypoint": ["sh"],
        "Env": ["A=1"],
        "WorkingDir": "/srv",
        "User": "1000:1000",
        "Tty": True,
        "OpenStdin": True,
        "StopSignal": "SIGINT",
        "StopTimeout": 7,
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 2_000_000_000, "Retries": 5},
        "HostConfig": {
            "Binds": ["/tmp:/host:ro"],
            "PortBindings": {"53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5300-5310"}]},
            "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}],
            "Devices": [
                {"PathOnHost": "/dev/null", "PathInContainer": "/dev/n", "CgroupPermissions": "r"}
            ],
            "Mounts": [
                {
                    "Type": "tmpfs",
                    "Source": "",
                    "Target": "/scratch",
                    "TmpfsOptions": {"SizeBytes": 1000, "Mode": 448},
                }
            ],
            "Sysctls": {"net.core.somaxconn": "10"},
            "ExtraHosts": ["a:1.2.3.4"],
            "ReadonlyRootfs": True,
            "ShmSize": 1 << 20,
            "LogConfig": {"Type": "none", "Config": {}},
        },
        "NetworkingConfig": {
            "EndpointsConfig": {
                "bridge": {"Aliases": ["a"], "IPAMConfig": {"IPv4Address": "172.30.9.9"}}
            }
        },
    }
    await api.ask("POST", "/containers/create?name=one", first)
    one = (await api.ask("GET", "/containers/one/json")).json
    again = {
        **one["Config"],
        "HostConfig": one["HostConfig"],
        "NetworkingConfig": {"EndpointsConfig": one["NetworkSettings"]["Networks"]},
    }
    reply = await api.ask("POST", "/containers/create?name=two", again)
    assert reply.status == 201
    two = (await api.ask("GET", "/containers/two/json")).json
    for part in ("HostConfig", "Args", "Path"):
        assert two[part] == one[part]
    left, right = ({**seen["Config"], "Hostname": ""} for seen in (one, two))
    assert left == right


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "config cannot be empty in order to create a container"),
        (
            {"Image": "app:1", "HostConfig": {"Memory": "64m"}},
            "invalid JSON: HostConfig.Memory must be a whole number, not a string",
        ),
        ({"Image": "app:1", "Cmd": [1]}, "invalid JSON: Cmd[0] must be a string, not a number"),
        ({"Image": "app:1", "Env": ["=x"]}, "invalid environment variable: =x"),
        (
            {"Image": "app:1", "HostConfig": {"RestartPolicy": {"Name": "sometimes"}}},
            "invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always', "
            "'on-failure', or 'unless-stopped'",
        ),
        (
            {"Image": "app:1", "HostConfig": {"Mounts": [{"Type": "bind", "Target": "/x"}]}},
            'invalid mount config for type "bind": field Source must not be empty',
        ),
        (
            {"Image": "app:1", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "99999"}]}}},
            'invalid port specification: "99999"',
        ),
        (
            {"Image": "app:1", "HostConfig": {"NanoCpus": 1_000_000_000, "CpuPeriod": 1000}},
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
        ),
        ([], "invalid JSON: the body must be an object, not an array"),
    ],
)
async def test_a_wrong_body_is_400_and_says_what(api, body, message) -> None:
    reply = await api.ask("POST", "/containers/create", body)
    assert (reply.status, reply.message) == (400, message)


async def test_unknown_fields_and_nulls_are_ignored(api) -> None:
    body = {"Image": "app:1", "Cmd": None, "Nonsense": 1, "HostConfig": {"Else": {}, "Binds": None}}
    assert (await api.ask("POST", "/containers/create", body)).status == 201


async def test_a_missing_image_is_404_so_that_the_cli_pulls_it(api) -> None:
    reply = await api.ask("POST", "/containers/create", {"Image": "nothing:1"})
    assert (reply.status, reply.message) == (404, "No such image: nothing:1")


async def test_a_taken_name_is_a_conflict(api) -> None:
    first = await api.create(name="web")
    reply = await api.ask("POST", "/containers/create?name=web", {"Image": "app:1"})
    assert reply.status == 409
    assert f'"/web" is already in use by container "{first}"' in reply.message


async def test_a_port_that_is_taken_is_500_as_in_docker(api) -> None:
    await api.create()
    api.machine.failures["start"] = Internal("port is already allocated", code="port_taken")
    reply = await api.ask("POST", "/containers/web/start")
    assert (reply.status, reply.message) == (500, "port is already allocated")


async def test_ps_shows_running_ones_and_with_all_the_others_too(api) -> None:
    await api.start(
        "sleep", "9", name="up", HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}
    )
    await api.create("sh", "-c", "echo a b", name="made")
    (up,) = (await api.ask("GET", "/containers/json")).json
    assert up["Names"] == ["/up"]
    assert up["State"] == "running"
    assert up["Status"] == "Up Less than a second"
    assert {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"} in up["Ports"]
    everything = (await api.ask("GET", "/containers/json?all=1")).json
    assert [c["Names"][0] for c in everything] == ["/made", "/up"]
    assert everything[0]["Command"] == "sh -c 'echo a b'"
    assert everything[0]["Status"] == "Created"


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"name": ["a"]}, ["a"]),
        ({"name": {"a": True, "b": True}}, ["b", "a"]),
        ({"label": ["tier=front"]}, ["a"]),
        ({"label!": ["tier=front"]}, ["c", "b"]),
        ({"status": ["created"]}, ["c", "b", "a"]),
        ({"status": ["running"]}, []),
        ({"since": ["a"]}, ["c", "b"]),
        ({"before": ["b"]}, ["a"]),
        ({"expose": ["80"]}, ["c", "b", "a"]),
        ({"expose": ["81/tcp"]}, []),
        ({"is-task": ["true"]}, []),
    ],
)
async def test_ps_filters(api, filters, names) -> None:
    await api.create(name="a", Labels={"tier": "front"})
    await api.create(name="b")
    await api.create(name="c")
    found = await api.ask("GET", f"/containers/json?all=1&filters={json.dumps(filters)}")
    assert [c["Names"][0][1:] for c in found.json] == names


@pytest.mark.parametrize(
    "filters", ['{"colour":["red"]}', "[1]", "{", '{"status":["odd"]}', '{"exited":["x"]}']
)
async def test_a_wrong_filter_is_400(api, filters) -> None:
    assert (await api.ask("GET", f"/containers/json?filters={filters}")).status == 400


async def test_wait_answers_when_the_container_ends(api) -> None:
    await api.start("sh", "-c", "cat; exit 3", OpenStdin=True, StdinOnce=True)
    writer = await api.watch("POST", "/containers/web/wait?condition=next-exit")
    duplex, ended, _ = await api.take_over(
        "POST", "/containers/web/attach?stream=1&stdin=1&stdout=1"
    )
    duplex.end_input()
    await ended.wait()
    assert json.loads(await writer.until(b"\n")) == {"StatusCode": 3}
    reply = await api.ask("POST", "/containers/web/wait")
    assert reply.json == {"StatusCode": 3}


async def test_wait_for_removal(api) -> None:
    await api.start("sleep", "99")
    writer = await api.watch("POST", "/containers/web/wait?condition=removed")
    await api.ask("DELETE", "/containers/web?force=1")
    assert json.loads(await writer.until(b"\n")) == {"StatusCode": 137}


async def test_wait_knows_three_conditions(api) -> None:
    await api.create()
    reply = await api.ask("POST", "/containers/web/wait?condition=odd")
    assert (reply.status, reply.message) == (400, 'invalid condition: "odd"')
    assert (await api.ask("POST", "/containers/nobody/wait")).status == 404


async def test_update_changes_what_is_given_and_keeps_the_rest(api) -> None:
    await api.create(HostConfig={"Memory": 64 << 20, "CpuShares": 10})
    body = {"Memory": 128 << 20, "RestartPolicy": {"Name": "always"}}
    assert (await api.ask("POST", "/containers/web/update", body)).json == {"Warnings": None}
    host = (await api.ask("GET", "/containers/web/json")).json["HostConfig"]
    assert (host["Memory"], host["CpuShares"]) == (128 << 20, 10)
    assert host["RestartPolicy"]["Name"] == "always"


async def test_rename_pause_unpause_kill(api) -> None:
    await api.start("sleep", "99")
    assert (await api.ask("POST", "/containers/web/rename?name=www")).status == 204
    assert (await api.ask("POST", "/containers/www/pause")).status == 204
    assert (await api.ask("GET", "/containers/www/json")).json["State"]["Paused"] is True
    assert (await api.ask("GET", "/containers/json")).json[0]["Status"].endswith("(Paused)")
    assert (await api.ask("POST", "/containers/www/unpause")).status == 204
    assert (await api.ask("POST", "/containers/www/kill?signal=SIGNONE")).status == 400
    assert (await api.ask("POST", "/containers/www/kill?signal=INT")).status == 204
    await api.ask("POST", "/containers/www/wait")
    assert (await api.ask("POST", "/containers/www/kill")).status == 409
    assert (await api.ask("GET", "/containers/www/json")).json["State"]["ExitCode"] == 130


async def test_prune_takes_what_has_ended(api) -> None:
    await api.start("sleep", "99", name="up")
    ended = await api.start("true", name="down")
    await api.ask("POST", "/containers/down/wait")
    labelled = await api.create(name="kept", Labels={"keep": "1"})
    reply = await api.ask("POST", '/containers/prune?filters={"label!":["keep"]}')
    assert reply.json == {"ContainersDeleted": [ended], "SpaceReclaimed": 100}
    left = (await api.ask("GET", "/containers/json?all=1")).json
    assert {c["Id"] for c in left} >= {labelled}


async def test_every_prune_is_told_with_what_it_freed(api) -> None:
    await api.start("true", name="down")
    await api.ask("POST", "/containers/down/wait")
    for kind in ("containers", "networks", "volumes"):
        assert (await api.ask("POST", f"/{kind}/prune")).status == 200
    told = [
        (e.type, e.attributes["reclaimed"]) for e in api.engine.events.told if e.action == "prune"
    ]
    assert told == [("container", "100"), ("network", "0"), ("volume", "0")]


async def test_top_shows_the_containers_processes(api) -> None:
    await api.start("sleep", "99")
    reply = await api.ask("GET", "/containers/web/top?ps_args=-eo pid,comm")
    assert reply.json["Titles"] == ["PID", "COMMAND"]
    assert (await api.ask("GET", "/containers/web/top?ps_args=-eo comm")).status == 400


async def test_stats_once_and_as_a_stream(api, autojump_clock) -> None:
    # Samples are taken in a thread, whose time the clock must not skip.
    autojump_clock.autojump_threshold = 0.1
    await api.start("cat", OpenStdin=True)
    once = (await api.ask("GET", "/containers/web/stats?stream=0")).json
    assert once["name"] == "/web"
    assert once["cpu_stats"]["cpu_usage"]["total_usage"] == 10**9
    assert once["precpu_stats"]["cpu_usage"]["total_usage"] == 10**9
    assert once["memory_stats"]["usage"] == 1 << 20
    shot = (await api.ask("GET", "/containers/web/stats?stream=0&one-shot=1")).json
    assert shot["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    writer = await api.watch("GET", "/containers/web/stats")
    with trio.fail_after(60):
        while writer.data.count(b"\n") < 3:
            await writer.more.wait()
    await api.ask("POST", "/containers/web/stop?t=0")
    assert (await api.ask("GET", "/containers/web/stats?stream=0")).json["memory_stats"] == {}


async def test_the_file_that_a_client_wrote_the_id_to_is_told(api) -> None:
    made = await api.create(HostConfig={"ContainerIDFile": "/home/me/id"})
    seen = (await api.ask("GET", f"/containers/{made}/json")).json
    assert seen["HostConfig"]["ContainerIDFile"] == "/home/me/id"
