"""Options of ``run`` and ``create`` that name what the API has: each arrives where Docker's CLI puts it."""

from pathlib import Path
from typing import Any

import pytest

HOST: list[tuple[list[str], dict[str, Any]]] = [
    (
        ["-p", "8000-8010:80"],
        {"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8000-8010"}]}},
    ),
    (
        ["-p", "published=53,target=5353,protocol=udp"],
        {"PortBindings": {"5353/udp": [{"HostIp": "", "HostPort": "53"}]}},
    ),
    (
        ["--add-host", "a:1.2.3.4", "--add-host", "b=[::1]", "--add-host", "c:::1"],
        {"ExtraHosts": ["a:1.2.3.4", "b:::1", "c:::1"]},
    ),
    (
        ["--security-opt", "systempaths=unconfined", "--security-opt", "no-new-privileges"],
        {"SecurityOpt": ["no-new-privileges"], "MaskedPaths": [], "ReadonlyPaths": []},
    ),
    (["--cpu-period", "100000", "--cpu-quota", "5"], {"CpuPeriod": 100000, "CpuQuota": 5}),
    (
        ["--cpu-rt-period", "9", "--cpu-rt-runtime", "5"],
        {"CpuRealtimePeriod": 9, "CpuRealtimeRuntime": 5},
    ),
    (["-c", "512", "--cpuset-mems", "0"], {"CpuShares": 512, "CpusetMems": "0"}),
    (["--memory-swappiness", "50"], {"MemorySwappiness": 50}),
    (["--blkio-weight", "300"], {"BlkioWeight": 300}),
    (
        ["--blkio-weight-device", "/dev/sda:200"],
        {"BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 200}]},
    ),
    (
        ["--device-read-bps", "/dev/sda:1mb", "--device-write-iops", "/dev/sda:7"],
        {
            "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1 << 20}],
            "BlkioDeviceWriteIOps": [{"Path": "/dev/sda", "Rate": 7}],
        },
    ),
    (["--device-cgroup-rule", "c 42:* rmw"], {"DeviceCgroupRules": ["c 42:* rmw"]}),
    (
        ["--gpus", "all"],
        {"DeviceRequests": [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]},
    ),
    (
        ["--gpus", '"device=0,1",capabilities=utility'],
        {
            "DeviceRequests": [
                {
                    "Driver": "",
                    "Count": 0,
                    "Capabilities": [["gpu", "utility"]],
                    "DeviceIDs": ["0", "1"],
                }
            ]
        },
    ),
    (["--oom-kill-disable"], {"OomKillDisable": True}),
    (
        ["--cgroup-parent", "/x", "--cgroupns", "host"],
        {"CgroupParent": "/x", "CgroupnsMode": "host"},
    ),
    (["--userns", "host", "--uts", "host"], {"UsernsMode": "host", "UTSMode": "host"}),
    (
        ["--volumes-from", "a:ro", "--volume-driver", "d"],
        {"VolumesFrom": ["a:ro"], "VolumeDriver": "d"},
    ),
    (["--storage-opt", "size=1G"], {"StorageOpt": {"size": "1G"}}),
    (["--annotation", "a=b"], {"Annotations": {"a": "b"}}),
    (["--link", "db:database"], {"Links": ["db:database"]}),
    (["--dns-option", "ndots:2", "--dns-opt", "x"], {"DnsOptions": ["ndots:2", "x"]}),
    (
        ["--mount", "type=bind,src=/a,dst=/b,ro,bind-propagation=rprivate,bind-recursive=readonly"],
        {
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": "/a",
                    "Target": "/b",
                    "ReadOnly": True,
                    "BindOptions": {"Propagation": "rprivate", "ReadOnlyForceRecursive": True},
                }
            ]
        },
    ),
    (
        ["--mount", "type=image,src=data:1,dst=/b,image-subpath=x"],
        {
            "Mounts": [
                {
                    "Type": "image",
                    "Source": "data:1",
                    "Target": "/b",
                    "ImageOptions": {"Subpath": "x"},
                }
            ]
        },
    ),
]


def created(linkspan: Any, fake: Any, *words: str) -> Any:
    fake.on("POST", "/containers/create", {"Id": "c1"}, 201)
    with fake.running():
        result = linkspan("create", *words, "alpine")
    assert (result.status, result.out, result.err) == (0, "c1\n", "")
    return fake.asked("POST", "/containers/create").json


@pytest.mark.parametrize(("words", "expected"), HOST, ids=[row[0][0] for row in HOST])
def test_an_option_of_the_host_config(
    linkspan: Any, fake: Any, words: list[str], expected: dict[str, Any]
) -> None:
    host = created(linkspan, fake, *words)["HostConfig"]
    assert {key: host[key] for key in expected} == expected


def test_networks_can_be_written_out(linkspan: Any, fake: Any) -> None:
    body = created(
        linkspan,
        fake,
        "--network",
        "name=app,alias=a,alias=b,ip=10.9.0.2,driver-opt=k=v,gw-priority=3,mac-address=02:42:0a:00:00:02",
        "--network",
        'name=other,"driver-opt=o=1,2"',
        "--link-local-ip",
        "169.254.1.1",
    )
    assert body["HostConfig"]["NetworkMode"] == "app"
    assert body["NetworkingConfig"]["EndpointsConfig"] == {
        "app": {
            "Aliases": ["a", "b"],
            "IPAMConfig": {"IPv4Address": "10.9.0.2", "LinkLocalIPs": ["169.254.1.1"]},
            "DriverOpts": {"k": "v"},
            "GwPriority": 3,
            "MacAddress": "02:42:0a:00:00:02",
        },
        "other": {"DriverOpts": {"o": "1,2"}},
    }


def test_a_hardware_address_alone_is_for_the_default_network(linkspan: Any, fake: Any) -> None:
    body = created(linkspan, fake, "--mac-address", "02:42:0a:00:00:02")
    endpoints = body["NetworkingConfig"]["EndpointsConfig"]
    assert endpoints == {"default": {"MacAddress": "02:42:0a:00:00:02"}}


def test_labels_come_from_files_too(linkspan: Any, fake: Any, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("a=1\n# remark\n\nb\n")
    body = created(linkspan, fake, "--label-file", str(tmp_path / "labels"), "-l", "a=2")
    assert body["Labels"] == {"a": "2", "b": ""}


def test_an_empty_entrypoint_resets_the_images(linkspan: Any, fake: Any) -> None:
    assert created(linkspan, fake, "--entrypoint", "")["Entrypoint"] == [""]


@pytest.mark.parametrize(
    ("words", "streams"),
    [
        ([], (False, True, True)),
        (["-i"], (True, True, True)),
        (["-a", "STDERR"], (False, False, True)),
        (["-a", "stdin", "-a", "stdout"], (True, True, False)),
    ],
)
def test_which_streams_are_joined(
    linkspan: Any, fake: Any, words: list[str], streams: tuple[bool, bool, bool]
) -> None:
    body = created(linkspan, fake, *words)
    assert tuple(body[f"Attach{name}"] for name in ("Stdin", "Stdout", "Stderr")) == streams
    assert body["StdinOnce"] == streams[0]


@pytest.mark.parametrize(
    "words",
    [
        ["--gpus", "many"],
        ["--gpus", "speed=3"],
        ["--device-read-bps", "sda:1mb"],
        ["--device-read-iops", "/dev/sda:fast"],
        ["--blkio-weight-device", "/dev/sda:9"],
        ["--network", "alias=x"],
        ["--network", "name=a,colour=red"],
        ["--network", "name=a,gw-priority=x"],
        ["--label-file", "/absent"],
        ["--mount", "type=bind,src=/a,dst=/b,bind-recursive=perhaps"],
        ["-a", "stdlog"],
    ],
    ids=" ".join,
)
def test_a_value_that_cannot_be_read_is_wrong_usage(
    linkspan: Any, fake: Any, words: list[str]
) -> None:
    with fake.running():
        result = linkspan("create", *words, "alpine")
    assert result.status == 2
    assert result.err.startswith("error[LS0004]: ")
    assert fake.requests == []


def test_a_variable_that_is_not_set_here_is_taken_out_of_the_images(
    fake: Any, linkspan: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HERE", "yes")
    monkeypatch.delenv("ABSENT", raising=False)
    (tmp_path / "env").write_text("ABSENT\nHERE\n")
    fake.on("POST", "/containers/create", {"Id": "c" * 64}, 201)
    words = ["--env-file", str(tmp_path / "env"), "-e", "HERE", "-e", "ABSENT"]
    with fake.running():
        assert linkspan("create", *words, "alpine").status == 0
    sent = fake.asked("POST", "/containers/create").json["Env"]
    assert sent == ["HERE=yes", "HERE=yes", "ABSENT"]


def test_a_profile_is_sent_as_json_without_spaces(fake: Any, linkspan: Any, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text('{ "defaultAction":\n "SCMP_ACT_ALLOW" }\n')
    fake.on("POST", "/containers/create", {"Id": "c" * 64}, 201)
    with fake.running():
        assert linkspan("create", "--security-opt", f"seccomp={profile}", "alpine").status == 0
        profile.write_text("{broken")
        result = linkspan("create", "--security-opt", f"seccomp={profile}", "alpine")
    sent = fake.asked("POST", "/containers/create").json["HostConfig"]["SecurityOpt"]
    assert sent == ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}']
    assert (result.status, "is no JSON" in result.err) == (2, True)
