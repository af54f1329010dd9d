"""The options of ``run`` and ``create``, and the API body they make (API: POST /containers/create)."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from linkspan.core.cli import completing
from linkspan.core.cli.command import Seconds, Size
from linkspan.core.cli.common import key_values
from linkspan.core.cli.runvalues import (
    device,
    endpoint,
    environment,
    gpus,
    host_line,
    lines_of,
    mount,
    port_bindings,
    restart_policy,
    security_option,
    split_volumes,
    throttle,
    ulimit,
    weight,
)

_NS: Final = 1_000_000_000
_CPU_PERIOD_NS: Final = 1_000_000_000

Option = Callable[[Callable[..., Any]], Callable[..., Any]]


def _many(*names: str, **settings: Any) -> Option:
    return click.option(*names, multiple=True, **settings)


CONTAINER_OPTIONS: Final[Sequence[Option]] = (
    click.option("--name", help="Its name; made up if none is given"),
    click.option(
        "-a",
        "--attach",
        multiple=True,
        type=click.Choice(["stdin", "stdout", "stderr"], case_sensitive=False),
        metavar="STREAM",
        help="Join only these: stdin, stdout, stderr",
    ),
    click.option("-i", "--interactive", is_flag=True, help="Keep its stdin open and send ours"),
    click.option("-t", "--tty", is_flag=True, help="Give it a terminal"),
    click.option("--rm", "remove", is_flag=True, help="Remove it when it ends"),
    _many("-p", "--publish", metavar="[IP:][HOST:]PORT[/udp]", help="Publish a port"),
    click.option("-P", "--publish-all", is_flag=True, help="Publish all exposed ports"),
    _many("--expose", metavar="PORT[/udp]", help="Expose a port"),
    _many(
        "-v",
        "--volume",
        metavar="SOURCE:TARGET[:ro]",
        help="Mount a volume or a folder",
        shell_complete=completing.mounted,
    ),
    _many("--mount", metavar="type=…,src=…,dst=…", help="Mount, written out"),
    _many("--tmpfs", metavar="TARGET[:OPTIONS]", help="Mount a tmpfs"),
    _many(
        "--volumes-from",
        metavar="CONTAINER[:ro]",
        help="The volumes of another container",
        shell_complete=completing.objects("container"),
    ),
    click.option("--volume-driver", metavar="NAME", help="Who keeps its volumes"),
    _many("--storage-opt", metavar="KEY=VALUE", help="For the storage driver"),
    _many(
        "-e",
        "--env",
        metavar="NAME[=VALUE]",
        help="Environment; a bare name takes ours",
        shell_complete=completing.variable,
    ),
    _many(
        "--env-file",
        metavar="FILE",
        shell_complete=completing.files,
        help="Environment from a file",
    ),
    _many("-l", "--label", metavar="KEY=VALUE", help="A label"),
    _many(
        "--label-file", metavar="FILE", shell_complete=completing.files, help="Labels from a file"
    ),
    _many("--annotation", metavar="KEY=VALUE", help="For the OCI runtime"),
    click.option(
        "--network",
        "--net",
        multiple=True,
        metavar="NAME",
        help="Network, or none, host, container:NAME; name=…,alias=…,ip=…",
        shell_complete=completing.network,
    ),
    _many("--network-alias", metavar="NAME", help="A further name in its network"),
    click.option("--ip", metavar="IP", help="Its address in its network"),
    _many("--dns", metavar="IP", help="Name server"),
    click.option("--ip6", metavar="IP", help="Its IPv6 address in its network"),
    _many("--link-local-ip", metavar="IP", help="A link-local address"),
    click.option("--mac-address", metavar="MAC", help="Its hardware address"),
    _many(
        "--link",
        metavar="CONTAINER[:ALIAS]",
        help="A name for another container",
        shell_complete=completing.objects("container"),
    ),
    _many("--dns-search", metavar="DOMAIN", help="Search domain"),
    _many("--dns-option", "--dns-opt", metavar="OPTION", help="For its resolver"),
    _many("--add-host", metavar="NAME:IP", help="A line for /etc/hosts"),
    click.option("-h", "--hostname", metavar="NAME", help="Its host name"),
    click.option("--domainname", metavar="NAME", help="Its domain"),
    click.option(
        "--restart",
        default="",
        metavar="POLICY",
        help="no, always, on-failure[:N], unless-stopped",
        shell_complete=completing.restart_policy,
    ),
    click.option("-u", "--user", metavar="USER[:GROUP]", help="Run as"),
    _many("--group-add", metavar="GROUP", help="A further group"),
    click.option("-w", "--workdir", metavar="DIR", help="Working directory"),
    click.option("--entrypoint", metavar="PROGRAM", help="Instead of the image's entrypoint"),
    click.option("-m", "--memory", type=Size(), metavar="BYTES", help="Memory limit: 512m, 2g"),
    click.option(
        "--memory-swap", type=Size(), metavar="BYTES", help="Memory and swap; -1: no limit"
    ),
    click.option("--memory-reservation", type=Size(), metavar="BYTES", help="Soft memory limit"),
    click.option("--cpus", type=float, metavar="N", help="CPUs: 0.5, 2"),
    click.option("-c", "--cpu-shares", type=int, metavar="N", help="Weight against others"),
    click.option("--cpu-period", type=int, metavar="µS", help="Length of a period of CPU time"),
    click.option("--cpu-quota", type=int, metavar="µS", help="CPU time within a period"),
    click.option("--cpu-rt-period", type=int, metavar="µS", help="Length of a real-time period"),
    click.option("--cpu-rt-runtime", type=int, metavar="µS", help="Real-time within a period"),
    click.option("--cpuset-cpus", metavar="LIST", help="Only on these: 0-2,4"),
    click.option("--cpuset-mems", metavar="LIST", help="Memory nodes: 0-1"),
    click.option("--memory-swappiness", type=int, metavar="N", help="0 to 100; -1: as the host"),
    click.option("--blkio-weight", type=int, metavar="N", help="Weight of disk use, 10 to 1000"),
    _many("--blkio-weight-device", metavar="DEVICE:N", help="The same for one device"),
    _many("--device-read-bps", metavar="DEVICE:RATE", help="Bytes a second read: /dev/sda:1mb"),
    _many("--device-write-bps", metavar="DEVICE:RATE", help="Bytes a second written"),
    _many("--device-read-iops", metavar="DEVICE:N", help="Reads a second"),
    _many("--device-write-iops", metavar="DEVICE:N", help="Writes a second"),
    click.option("--pids-limit", type=int, metavar="N", help="How many processes"),
    _many("--ulimit", metavar="NAME=SOFT[:HARD]", help="A resource limit"),
    click.option("--shm-size", type=Size(), metavar="BYTES", help="Size of /dev/shm"),
    click.option("--oom-score-adj", type=int, metavar="N", help="Whom the kernel kills first"),
    click.option("--health-cmd", metavar="COMMAND", help="Health check, run by a shell"),
    click.option("--health-interval", type=Seconds(), metavar="TIME", help="Between checks"),
    click.option("--health-timeout", type=Seconds(), metavar="TIME", help="For one check"),
    click.option("--health-start-interval", type=Seconds(), metavar="TIME", help="While starting"),
    click.option("--health-retries", type=int, metavar="N", help="Failures until unhealthy"),
    click.option("--health-start-period", type=Seconds(), metavar="TIME", help="Time to start up"),
    click.option("--no-healthcheck", is_flag=True, help="Without the image's health check"),
    click.option("--read-only", is_flag=True, help="Its root file system cannot be written"),
    _many(
        "--cap-add", metavar="NAME", help="Add a capability", shell_complete=completing.capability
    ),
    _many(
        "--cap-drop", metavar="NAME", help="Drop a capability", shell_complete=completing.capability
    ),
    click.option("--privileged", is_flag=True, help="All capabilities and devices"),
    _many("--security-opt", metavar="OPTION", help="no-new-privileges, seccomp=FILE, …"),
    _many("--device", metavar="PATH[:PATH[:rwm]]", help="A device of the host"),
    _many("--device-cgroup-rule", metavar="RULE", help="For devices: 'c 42:* rmw'"),
    click.option(
        "--gpus",
        metavar="REQUEST",
        help="all, a number, or device=ID",
        shell_complete=completing.choices("all"),
    ),
    click.option("--oom-kill-disable", is_flag=True, help="The kernel must not kill it"),
    click.option("--cgroup-parent", metavar="PATH", help="Control group to put it in"),
    click.option(
        "--cgroupns",
        metavar="MODE",
        help="private or host",
        shell_complete=completing.choices("private", "host"),
    ),
    click.option(
        "--userns",
        metavar="MODE",
        help="host: without user namespace",
        shell_complete=completing.choices("host"),
    ),
    click.option(
        "--uts",
        metavar="MODE",
        help="host: with the host's name",
        shell_complete=completing.choices("host"),
    ),
    click.option("--isolation", hidden=True, help="Windows only"),
    _many("--sysctl", metavar="KEY=VALUE", help="A kernel setting of its namespaces"),
    click.option("--init", is_flag=True, help="A small init that reaps processes"),
    click.option(
        "--pid",
        "pid_mode",
        metavar="MODE",
        help="host, or container:NAME",
        shell_complete=completing.of_container("host"),
    ),
    click.option(
        "--ipc",
        "ipc_mode",
        metavar="MODE",
        help="private, shareable, host, container:NAME",
        shell_complete=completing.of_container("private", "shareable", "host", "none"),
    ),
    click.option(
        "--stop-signal",
        metavar="NAME",
        help="Signal that stops it",
        shell_complete=completing.signal_name,
    ),
    click.option("--stop-timeout", type=int, metavar="SECONDS", help="Until SIGKILL"),
    click.option(
        "--log-driver",
        metavar="NAME",
        help="Where its output goes",
        shell_complete=completing.choices("json-file", "local", "none"),
    ),
    _many("--log-opt", metavar="KEY=VALUE", help="For the log driver"),
    click.option("--runtime", metavar="NAME", help="Instead of the daemon's"),
    click.option(
        "--platform", metavar="OS/ARCH", help="Of the image", shell_complete=completing.platform
    ),
    click.option(
        "--pull",
        type=click.Choice(["missing", "always", "never"]),
        default="missing",
        help="When to pull the image",
    ),
    click.option(
        "--cidfile", metavar="FILE", shell_complete=completing.files, help="Write its id there"
    ),
)


def container_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that ``run`` and ``create`` share."""
    for option in reversed(CONTAINER_OPTIONS):
        function = option(function)
    return function


def container_body(image: str, arguments: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
    """The API's body for these options.

    Raises:
        click.BadParameter: An option cannot be read.
    """
    exposed, bindings = port_bindings(options["publish"])
    for port in options["expose"]:
        exposed[port if "/" in port else f"{port}/tcp"] = {}
    volumes, binds = split_volumes(options["volume"])
    body: dict[str, Any] = {
        "Image": image,
        "Cmd": list(arguments) or None,
        "Tty": options["tty"],
        "OpenStdin": options["interactive"],
        "Env": environment(options["env"], options["env_file"]),
        "Labels": key_values(
            [*lines_of(options["label_file"], "--label-file"), *options["label"]], "--label"
        ),
        "ExposedPorts": exposed,
        "Volumes": volumes,
        "Hostname": options["hostname"] or "",
        "Domainname": options["domainname"] or "",
        "User": options["user"] or "",
        "WorkingDir": options["workdir"] or "",
        "HostConfig": _host_config(options, bindings, binds),
    }
    if options["entrypoint"] is not None:
        body["Entrypoint"] = [options["entrypoint"]]
    if options["stop_signal"]:
        body["StopSignal"] = options["stop_signal"]
    if options["stop_timeout"] is not None:
        body["StopTimeout"] = options["stop_timeout"]
    health = healthcheck(options)
    if health is not None:
        body["Healthcheck"] = health
    endpoints = _endpoints(options)
    if endpoints:
        body["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    return {key: value for key, value in body.items() if value is not None}


_SAME: Final = {
    "memory": "Memory",
    "memory_swap": "MemorySwap",
    "memory_reservation": "MemoryReservation",
    "memory_swappiness": "MemorySwappiness",
    "cpu_shares": "CpuShares",
    "cpu_period": "CpuPeriod",
    "cpu_quota": "CpuQuota",
    "cpu_rt_period": "CpuRealtimePeriod",
    "cpu_rt_runtime": "CpuRealtimeRuntime",
    "cpuset_cpus": "CpusetCpus",
    "cpuset_mems": "CpusetMems",
    "blkio_weight": "BlkioWeight",
    "pids_limit": "PidsLimit",
    "shm_size": "ShmSize",
    "oom_score_adj": "OomScoreAdj",
    "cgroup_parent": "CgroupParent",
    "cgroupns": "CgroupnsMode",
    "pid_mode": "PidMode",
    "ipc_mode": "IpcMode",
    "userns": "UsernsMode",
    "uts": "UTSMode",
    "runtime": "Runtime",
    "isolation": "Isolation",
    "volume_driver": "VolumeDriver",
}
"""Options that the API takes as they are; left out where they are not given."""
_LISTS: Final = {
    "dns": "Dns",
    "dns_search": "DnsSearch",
    "dns_option": "DnsOptions",
    "group_add": "GroupAdd",
    "cap_add": "CapAdd",
    "cap_drop": "CapDrop",
    "device_cgroup_rule": "DeviceCgroupRules",
    "volumes_from": "VolumesFrom",
    "link": "Links",
}


_ALL_PATHS: Final = "systempaths=unconfined"


def _host_config(
    options: dict[str, Any], bindings: dict[str, Any], binds: list[str]
) -> dict[str, Any]:
    networks = [endpoint(text)[0] for text in options["network"]]
    security = [text for text in options["security_opt"] if text != _ALL_PATHS]
    config: dict[str, Any] = {
        "AutoRemove": options["remove"],
        "PortBindings": bindings,
        "PublishAllPorts": options["publish_all"],
        "Binds": binds,
        "Mounts": [mount(text) for text in options["mount"]],
        "Tmpfs": {t: o for t, _, o in (text.partition(":") for text in options["tmpfs"])},
        "NetworkMode": networks[0] if networks else "default",
        "ExtraHosts": [host_line(text) for text in options["add_host"]],
        "RestartPolicy": restart_policy(options["restart"]),
        "NanoCpus": round(options["cpus"] * _CPU_PERIOD_NS) if options["cpus"] else None,
        "Ulimits": [ulimit(text) for text in options["ulimit"]],
        "ReadonlyRootfs": options["read_only"],
        "Privileged": options["privileged"],
        "SecurityOpt": [security_option(text) for text in security],
        # As Docker's command line says it: its daemon knows no such option.
        "MaskedPaths": None if len(security) == len(options["security_opt"]) else [],
        "ReadonlyPaths": None if len(security) == len(options["security_opt"]) else [],
        "Devices": [device(text) for text in options["device"]],
        "DeviceRequests": [gpus(options["gpus"])] if options["gpus"] else None,
        "Sysctls": key_values(options["sysctl"], "--sysctl"),
        "StorageOpt": key_values(options["storage_opt"], "--storage-opt") or None,
        "Annotations": key_values(options["annotation"], "--annotation") or None,
        "Init": True if options["init"] else None,
        "OomKillDisable": True if options["oom_kill_disable"] else None,
        "BlkioWeightDevice": [weight(text) for text in options["blkio_weight_device"]],
        **_throttles(options),
        **{key: options[name] for name, key in _SAME.items()},
        **{key: list(options[name]) for name, key in _LISTS.items()},
    }
    if options["log_driver"] or options["log_opt"]:
        config["LogConfig"] = {
            "Type": options["log_driver"] or "",
            "Config": key_values(options["log_opt"], "--log-opt"),
        }
    if options["restart"] not in ("", "no") and options["remove"]:
        raise click.BadParameter("--rm and --restart contradict each other", param_hint="--rm")
    return {key: value for key, value in config.items() if value is not None}


def _throttles(options: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for way in ("read", "write"):
        for unit, key in (("bps", "Bps"), ("iops", "IOps")):
            option = f"--device-{way}-{unit}"
            texts = options[f"device_{way}_{unit}"]
            found[f"BlkioDevice{way.title()}{key}"] = [
                throttle(text, option, size=unit == "bps") for text in texts
            ]
    return found


def _endpoints(options: dict[str, Any]) -> dict[str, Any]:
    """EndpointsConfig: of the networks as they are written out, and of options for the first."""
    special = ("none", "host", "default", "bridge")
    endpoints = dict(endpoint(text) for text in options["network"])
    first = next(iter(endpoints), "default")
    addresses = {
        "IPv4Address": options["ip"],
        "IPv6Address": options["ip6"],
        "LinkLocalIPs": list(options["link_local_ip"]),
    }
    given = {key: value for key, value in addresses.items() if value}
    if "IPv4Address" in given and ":" in given["IPv4Address"]:
        given["IPv6Address"] = given.pop("IPv4Address")
    written = endpoints.get(first, {})
    own: dict[str, Any] = {}
    if given:
        own["IPAMConfig"] = {**written.get("IPAMConfig", {}), **given}
    if options["network_alias"]:
        if first in special:
            hint = "a network of your own, made by `linkspan network create`"
            raise click.BadParameter(f"aliases need {hint}", param_hint="--network-alias")
        own["Aliases"] = list(options["network_alias"])
    if options["mac_address"]:
        own["MacAddress"] = options["mac_address"]
    if first.startswith("container:") or (
        len(endpoints) <= 1 and not own and not any(endpoints.values())
    ):
        return {}
    return {**endpoints, first: {**written, **own}}


def healthcheck(options: dict[str, Any]) -> dict[str, Any] | None:
    """The API's Healthcheck; None if no option is about it."""
    if options["no_healthcheck"]:
        return {"Test": ["NONE"]}
    found: dict[str, Any] = {}
    if options["health_cmd"]:
        found["Test"] = ["CMD-SHELL", options["health_cmd"]]
    for option, key in (
        ("health_interval", "Interval"),
        ("health_timeout", "Timeout"),
        ("health_start_period", "StartPeriod"),
        ("health_start_interval", "StartInterval"),
    ):
        if options.get(option) is not None:
            found[key] = round(options[option] * _NS)
    if options["health_retries"] is not None:
        found["Retries"] = options["health_retries"]
    return found or None
