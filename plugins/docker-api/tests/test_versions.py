"""Fields that come and go with the version of the API, and what is said of versions we do not speak."""

import json
from typing import Any

import pytest

from linkspan.plugins.docker_api.codec_image import last_command
from linkspan.sdk.image_config import parse_image_config

# Path, field (dots go into objects and first entries), first version with it, first without it again.
HISTORY = (
    ("/images/json", "VirtualSize", (1, 24), (1, 44)),
    ("/images/app:1/json", "VirtualSize", (1, 24), (1, 44)),
    ("/images/app:1/json", "ContainerConfig", (1, 24), (1, 45)),
    ("/images/app:1/json", "Config.Hostname", (1, 24), (1, 50)),
    ("/images/app:1/json", "Config.AttachStdin", (1, 24), (1, 50)),
    ("/images/app:1/json", "Config.Env", (1, 24), None),
    ("/info", "KernelMemory", (1, 24), (1, 42)),
    ("/info", "BridgeNfIptables", (1, 24), (1, 50)),
    ("/info", "FirewallBackend.Driver", (1, 49), None),
    ("/info", "RegistryConfig.AllowNondistributableArtifactsCIDRs", (1, 24), (1, 47)),
    ("/info", "RegistryConfig.InsecureRegistryCIDRs", (1, 24), None),
    ("/version", "Components", (1, 24), None),
)
NEWEST = 50


def holds(answer: Any, field: str) -> bool:
    for part in field.split("."):
        answer = answer[0] if isinstance(answer, list) else answer
        if part not in answer:
            return False
        answer = answer[part]
    return True


@pytest.mark.parametrize(("path", "field", "since", "until"), HISTORY)
async def test_a_field_is_there_in_its_versions_only(api, path, field, since, until) -> None:
    for minor in range(24, NEWEST + 1):
        answer = (await api.ask("GET", f"/v1.{minor}{path}")).json
        expected = since <= (1, minor) and (until is None or (1, minor) < until)
        assert holds(answer, field) is expected, f"1.{minor}"


async def test_docker_compose_1_gets_the_fields_that_it_knows(api) -> None:
    agent = {"user-agent": "docker-compose/1.29.2 docker-py/5.0.3 Linux/6.1"}
    seen = (await api.ask("GET", "/v1.50/images/app:1/json", **agent)).json
    assert seen["ContainerConfig"]["ExposedPorts"] == {"80/tcp": {}}


_BIND = {"Type": "bind", "Source": "/tmp", "Target": "/t"}
# HostConfig of a create, field of it in inspect, what that is before a version, and from then on.
REQUESTS = (
    ({"AutoRemove": True}, "AutoRemove", (1, 25), False, True),
    ({}, "IpcMode", (1, 40), "shareable", "private"),
    ({"IpcMode": "host"}, "IpcMode", (1, 40), "host", "host"),
    ({"ConsoleSize": [3, 4]}, "ConsoleSize", (1, 42), [0, 0], [3, 4]),
    (
        {"Mounts": [{**_BIND, "BindOptions": {"NonRecursive": True}}]},
        "Mounts",
        (1, 40),
        [_BIND],
        [{**_BIND, "BindOptions": {"NonRecursive": True}}],
    ),
    (
        {"Mounts": [{**_BIND, "BindOptions": {"CreateMountpoint": True}}]},
        "Mounts",
        (1, 42),
        [_BIND],
        [{**_BIND, "BindOptions": {"CreateMountpoint": True}}],
    ),
    ({"Annotations": {"a": "b"}}, "Annotations", (1, 43), None, {"a": "b"}),
    (
        {"Mounts": [{**_BIND, "ReadOnly": True, "BindOptions": {"ReadOnlyNonRecursive": True}}]},
        "Mounts",
        (1, 44),
        [{**_BIND, "ReadOnly": True}],
        [{**_BIND, "ReadOnly": True, "BindOptions": {"ReadOnlyNonRecursive": True}}],
    ),
)


@pytest.mark.parametrize(("host", "field", "since", "before", "then"), REQUESTS)
async def test_a_field_of_a_request_counts_from_its_version_on(
    api, host, field, since, before, then
) -> None:
    for minor in (24, since[1] - 1, since[1], NEWEST):
        body = {"Image": "app:1", "HostConfig": host}
        made = (await api.ask("POST", f"/v1.{minor}/containers/create", body)).json
        seen = (await api.ask("GET", f"/containers/{made['Id']}/json")).json["HostConfig"]
        assert seen.get(field) == (then if (1, minor) >= since else before), f"1.{minor}"


@pytest.mark.parametrize(
    ("change", "since", "said"),
    [
        (
            {
                "HostConfig": {
                    "Mounts": [
                        {
                            **_BIND,
                            "ReadOnly": True,
                            "BindOptions": {"ReadOnlyForceRecursive": True},
                        }
                    ]
                }
            },
            44,
            "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
        ),
        (
            {"NetworkingConfig": {"EndpointsConfig": {"b": {}, "a": {}}}},
            44,
            "Container cannot be created with multiple network endpoints: a, b",
        ),
        (
            {
                "HostConfig": {
                    "Mounts": [
                        {
                            "Type": "volume",
                            "Source": "data",
                            "Target": "/d",
                            "VolumeOptions": {"Subpath": "a"},
                        }
                    ]
                }
            },
            45,
            "VolumeOptions.Subpath needs API v1.45 or newer",
        ),
    ],
)
async def test_what_must_not_be_ignored_is_refused_before_its_version(
    api, change, since, said
) -> None:
    await api.ask("POST", "/networks/create", {"Name": "a"})
    await api.ask("POST", "/networks/create", {"Name": "b"})
    body = {"Image": "app:1", **change}
    reply = await api.ask("POST", f"/v1.{since - 1}/containers/create", body)
    assert (reply.status, reply.message) == (400, said)
    assert (await api.ask("POST", f"/v1.{since}/containers/create", body)).status == 201


async def test_a_start_interval_is_newer_than_other_times_of_a_healthcheck(api) -> None:
    check = {"Test": ["CMD", "true"], "Interval": 10**9, "StartInterval": 10**9}
    for version, interval in (("1.43", None), ("1.44", 10**9)):
        body = {"Image": "app:1", "Healthcheck": check}
        made = (await api.ask("POST", f"/v{version}/containers/create", body)).json
        seen = (await api.ask("GET", f"/containers/{made['Id']}/json")).json["Config"][
            "Healthcheck"
        ]
        assert seen.get("StartInterval") == interval
        assert seen["Interval"] == 10**9


@pytest.mark.parametrize(
    ("made", "command"),
    [
        ("RUN /bin/sh -c echo a  b", ["/bin/sh", "-c", "echo a  b"]),
        (
            "RUN |2 v=1 w=a b /bin/sh -c echo $v -c x",
            ["|2", "v=1", "w=a b", "/bin/sh", "-c", "echo $v -c x"],
        ),
        ("|1 v=1 /bin/sh -c echo $v", ["|1", "v=1", "/bin/sh", "-c", "echo $v"]),
        ("RUN touch /y", ["touch", "/y"]),
        ("EXPOSE 80", ["/bin/sh", "-c", "#(nop) EXPOSE 80"]),
        ("/bin/sh -c #(nop)  EXPOSE 80", ["/bin/sh", "-c", "#(nop)  EXPOSE 80"]),
        ("", []),
    ],
)
def test_the_last_command_of_a_build_is_read_from_the_history(made, command) -> None:
    document = {"architecture": "amd64", "os": "linux", "history": [{"created_by": made}]}
    document["rootfs"] = {"type": "layers", "diff_ids": []}
    assert last_command(parse_image_config(json.dumps(document).encode())) == command
