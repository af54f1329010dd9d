"""What a spec may ask for."""

from typing import Any

import pytest

from linkspan.core.engine.checks import check_spec, log_limits
from linkspan.core.engine.mounts import parse_bind, wanted_mounts
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.container import ContainerSpec, Healthcheck, Mount, Resources
from linkspan.sdk.model.network import EndpointSpec, PortBinding


def spec(**changes: Any) -> ContainerSpec:
    return ContainerSpec(image="i", **changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"resources": Resources(memory_bytes=1000)}, "Minimum memory limit"),
        ({"resources": Resources(memory_bytes=-1)}, "Minimum memory limit"),
        (
            {"resources": Resources(memory_bytes=64 << 20, memory_swap_bytes=32 << 20)},
            "larger than memory limit",
        ),
        ({"resources": Resources(memory_swappiness=101)}, "range is 0-100"),
        ({"resources": Resources(memory_reservation_bytes=5)}, "reservation allowed is 6MB"),
        (
            {"resources": Resources(memory_bytes=8 << 20, memory_reservation_bytes=9 << 20)},
            "less than memory reservation",
        ),
        ({"resources": Resources(blkio_weight=5)}, "from 10 to 1000"),
        (
            {"resources": Resources(cpu_realtime_period_us=10, cpu_realtime_runtime_us=11)},
            "higher than cpu real-time period",
        ),
        ({"oom_score_adj": -1001}, "range for oom score adj"),
        ({"shm_size_bytes": -1}, "SHM size"),
        ({"console_size": (70000, 1)}, "not possible"),
        ({"ipc_mode": "bogus"}, "invalid IPC mode"),
        ({"pid_mode": "container:"}, "invalid PID mode"),
        ({"uts_mode": "container:x"}, "invalid UTS mode"),
        ({"userns_mode": "private"}, "invalid user namespace mode"),
        ({"cgroupns_mode": "x"}, "invalid cgroup namespace mode"),
        ({"hostname": "h" * 64}, "more than 63"),
        ({"network_mode": "container:"}, "invalid container format"),
        ({"network_mode": "container:x", "dns": ("10.0.0.1",)}, "dns and the network mode"),
        (
            {"network_mode": "container:x", "ports": (PortBinding(container_port=1),)},
            "port publishing and",
        ),
        (
            {"network_mode": "host", "networks": {"host": EndpointSpec(links=("a",))}},
            "can't be used with links",
        ),
        ({"extra_hosts": ("name",)}, "bad format for add-host"),
        ({"extra_hosts": ("name:address",)}, "invalid IP address in add-host"),
        ({"dns": ("x",)}, "bad nameserver"),
        ({"tmpfs": {"/x": "size"}}, "invalid tmpfs option"),
        ({"tmpfs": {"/x": "rw,bogus=1"}}, "invalid tmpfs option"),
        ({"mounts": (Mount(type="tmpfs", target="/x", size_bytes=-1),)}, "SizeBytes"),
        ({"stop_signal": "NOPE"}, "invalid signal"),
        ({"working_dir": "rel"}, "absolute path"),
        ({"healthcheck": Healthcheck(test=("CMD",))}, "names no command"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        check_spec(spec(**changes))


def test_what_is_usual_is_accepted() -> None:
    check_spec(
        spec(
            resources=Resources(memory_bytes=64 << 20, memory_swap_bytes=-1, memory_swappiness=0),
            extra_hosts=("a:10.0.0.1", "b=::1", "c:[::1]", "d:host-gateway"),
            tmpfs={"/x": "rw,noexec,size=65536k,mode=1777,uid=0"},
            pid_mode="container:y",
            ipc_mode="shareable",
            stop_signal="RTMAX-3",
            healthcheck=Healthcheck(test=("NONE",)),
        )
    )


@pytest.mark.parametrize(
    ("driver", "options", "limits"),
    [
        ("", {}, (0, 1)),
        ("json-file", {"max-size": "10k", "max-file": "3"}, (10240, 3)),
        ("json-file", {"max-size": "-1"}, (0, 1)),
        (
            "json-file",
            {"max-size": "1m", "mode": "non-blocking", "max-buffer-size": "4m"},
            (1 << 20, 1),
        ),
        ("local", {}, (20 << 20, 5)),
        ("local", {"max-size": "1k", "compress": "false"}, (1024, 5)),
        ("none", {"anything": "goes"}, (0, 1)),
    ],
)
def test_limits_of_logs(driver: str, options: dict[str, str], limits: tuple[int, int]) -> None:
    assert log_limits(spec(log_driver=driver, log_options=options)) == limits


@pytest.mark.parametrize(
    ("driver", "options", "text"),
    [
        ("syslog", {}, 'plugin "syslog" not found'),
        ("local", {"bogus": "1"}, "unknown log opt 'bogus' for log driver local"),
        ("json-file", {"max-size": "x"}, "invalid size"),
        ("json-file", {"max-file": "0"}, "less than 1"),
        ("json-file", {"max-file": "a"}, 'strconv.Atoi: parsing "a"'),
        ("json-file", {"max-file": "99999999"}, "at most"),
        ("json-file", {"compress": "true"}, "compress cannot be true"),
        ("json-file", {"mode": "x"}, "mode not supported"),
        ("json-file", {"max-buffer-size": "1m"}, "only supported with"),
        ("json-file", {"labels-regex": "("}, "invalid value for labels-regex"),
        ("json-file", {"tag": "{{bad"}, 'template: log-tag:1: function "bad" not defined'),
        ("local", {"tag": "{{.Absent}}"}, 'executing "log-tag" at <.Absent>: map has no entry'),
    ],
)
def test_wrong_options_of_logs(driver: str, options: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        log_limits(spec(log_driver=driver, log_options=options))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:shared,slave", "invalid mode"),
        ("/a:/b:nocopy", "VolumeOptions must not be specified"),
        ("vol:/b:rshared", "BindOptions must not be specified"),
        ("/a:b", "mount path must be absolute"),
        ("/a:/", "destination can't be '/'"),
        ("a:/b:c:d", "invalid volume specification"),
    ],
)
def test_binds_that_make_no_sense(text: str, error: str) -> None:
    with pytest.raises(InvalidArgument, match=error):
        parse_bind(text)


def test_a_volume_without_a_leading_slash_lies_below_the_root() -> None:
    mounts = wanted_mounts(spec(volumes=("data",)), ["./of/image/", "/data"])
    assert [(m.type, m.target) for m in mounts] == [("volume", "/data"), ("volume", "/of/image")]
    with pytest.raises(InvalidArgument, match="destination can't be '/'"):
        wanted_mounts(spec(volumes=(".",)), [])


def test_what_stood_behind_a_bind_is_kept() -> None:
    mount = parse_bind("/a:/b:ro,rslave,z")
    assert (mount.mode_text, mount.read_only, mount.propagation) == ("ro,rslave,z", True, "rslave")
    assert parse_bind("vol:/b", volume_driver="nfs").volume_driver == "nfs"
    assert parse_bind("/a:/b", volume_driver="nfs").volume_driver == ""
