"""The options of ``run`` and ``create``, and the API body they make (API: POST /containers/create)."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from linkspan.core.cli.command import Seconds, Size
from linkspan.core.cli.common import key_values

_NS: Final = 1_000_000_000
_CPU_PERIOD_NS: Final = 1_000_000_000

Option = Callable[[Callable[..., Any]], Callable[..., Any]]


def _many(*names: str, metavar: str, help: str) -> Option:  # noqa: A002 - click's word
    return click.option(*names, multiple=True, metavar=metavar, help=help)


CONTAINER_OPTIONS: Final[Sequence[Option]] = (
    click.option("--name", help="Its name; made up if none is given"),
    click.option("-i", "--interactive", is_flag=True, help="Keep its stdin open and send ours"),
    click.option("-t", "--tty", is_flag=True, help="Give it a terminal"),
    click.option("--rm", "remove", is_flag=True, help="Remove it when it ends"),
    _many("-p", "--publish", metavar="[IP:][HOST:]PORT[/udp]", help="Publish a port"),
    click.option("-P", "--publish-all", is_flag=True, help="Publish all exposed ports"),
    _many("--expose", metavar="PORT[/udp]", help="Expose a port"),
    _many("-v", "--volume", metavar="SOURCE:TARGET[:ro]", help="Mount a volume or a folder"),
    _many("--mount", metavar="type=…,src=…,dst=…", help="Mount, written out"),
    _many("--tmpfs", metavar="TARGET[:OPTIONS]", help="Mount a tmpfs"),
    _many("-e", "--env", metavar="NAME[=VALUE]", help="Environment; a bare name takes ours"),
    _many("--env-file", metavar="FILE", help="Environment from a file"),
    _many("-l", "--label", metavar="KEY=VALUE", help="A label"),
    _many("--network", "--net", metavar="NAME", help="Network, or none, host, container:NAME"),
    _many("--network-alias", metavar="NAME", help="A further name in its network"),
    click.option("--ip", metavar="IP", help="Its address in its network"),
    _many("--dns", metavar="IP", help="Name server"),
    _many("--dns-search", metavar="DOMAIN", help="Search domain"),
    _many("--add-host", metavar="NAME:IP", help="A line for /etc/hosts"),
    click.option("-h", "--hostname", metavar="NAME", help="Its host name"),
    click.option(
        "--restart", default="", metavar="POLICY", help="no, always, on-failure[:N], unless-stopped"
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
    click.option("--cpu-shares", type=int, metavar="N", help="Weight against others"),
    click.option("--cpuset-cpus", metavar="LIST", help="Only on these: 0-2,4"),
    click.option("--pids-limit", type=int, metavar="N", help="How many processes"),
    _many("--ulimit", metavar="NAME=SOFT[:HARD]", help="A resource limit"),
    click.option("--shm-size", type=Size(), metavar="BYTES", help="Size of /dev/shm"),
    click.option("--oom-score-adj", type=int, metavar="N", help="Whom the kernel kills first"),
    click.option("--health-cmd", metavar="COMMAND", help="Health check, run by a shell"),
    click.option("--health-interval", type=Seconds(), metavar="TIME", help="Between checks"),
    click.option("--health-timeout", type=Seconds(), metavar="TIME", help="For one check"),
    click.option("--health-retries", type=int, metavar="N", help="Failures until unhealthy"),
    click.option("--health-start-period", type=Seconds(), metavar="TIME", help="Time to start up"),
    click.option("--no-healthcheck", is_flag=True, help="Without the image's health check"),
    click.option("--read-only", is_flag=True, help="Its root file system cannot be written"),
    _many("--cap-add", metavar="NAME", help="Add a capability"),
    _many("--cap-drop", metavar="NAME", help="Drop a capability"),
    click.option("--privileged", is_flag=True, help="All capabilities and devices"),
    _many("--security-opt", metavar="OPTION", help="no-new-privileges, seccomp=FILE, …"),
    _many("--device", metavar="PATH[:PATH[:rwm]]", help="A device of the host"),
    _many("--sysctl", metavar="KEY=VALUE", help="A kernel setting of its namespaces"),
    click.option("--init", is_flag=True, help="A small init that reaps processes"),
    click.option("--pid", "pid_mode", metavar="MODE", help="host, or container:NAME"),
    click.option(
        "--ipc", "ipc_mode", metavar="MODE", help="private, shareable, host, container:NAME"
    ),
    click.option("--stop-signal", metavar="NAME", help="Signal that stops it"),
    click.option("--stop-timeout", type=int, metavar="SECONDS", help="Until SIGKILL"),
    click.option("--log-driver", metavar="NAME", help="Where its output goes"),
    _many("--log-opt", metavar="KEY=VALUE", help="For the log driver"),
    click.option("--runtime", metavar="NAME", help="Instead of the daemon's"),
    click.option("--platform", metavar="OS/ARCH", help="Of the image"),
    click.option(
        "--pull",
        type=click.Choice(["missing", "always", "never"]),
        default="missing",
        help="When to pull the image",
    ),
    click.option("--cidfile", metavar="FILE", help="Write its id there"),
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
        "Labels": key_values(options["label"], "--label"),
        "ExposedPorts": exposed,
        "Volumes": volumes,
        "Hostname": options["hostname"] or "",
        "User": options["user"] or "",
        "WorkingDir": options["workdir"] or "",
        "HostConfig": _host_config(options, bindings, binds),
    }
    if options["entrypoint"] is not None:
        body["Entrypoint"] = [options["entrypoint"]] if options["entrypoint"] else []
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


def _host_config(
    options: dict[str, Any], bindings: dict[str, Any], binds: list[str]
) -> dict[str, Any]:
    networks = options["network"]
    config: dict[str, Any] = {
        "AutoRemove": options["remove"],
        "PortBindings": bindings,
        "PublishAllPorts": options["publish_all"],
        "Binds": binds,
        "Mounts": [mount(text) for text in options["mount"]],
        "Tmpfs": {t: o for t, _, o in (text.partition(":") for text in options["tmpfs"])},
        "NetworkMode": networks[0] if networks else "default",
        "Dns": list(options["dns"]),
        "DnsSearch": list(options["dns_search"]),
        "ExtraHosts": [text.replace("=", ":", 1) for text in options["add_host"]],
        "RestartPolicy": restart_policy(options["restart"]),
        "GroupAdd": list(options["group_add"]),
        "Memory": options["memory"],
        "MemorySwap": options["memory_swap"],
        "MemoryReservation": options["memory_reservation"],
        "NanoCpus": round(options["cpus"] * _CPU_PERIOD_NS) if options["cpus"] else None,
        "CpuShares": options["cpu_shares"],
        "CpusetCpus": options["cpuset_cpus"],
        "PidsLimit": options["pids_limit"],
        "Ulimits": [_ulimit(text) for text in options["ulimit"]],
        "ShmSize": options["shm_size"],
        "OomScoreAdj": options["oom_score_adj"],
        "ReadonlyRootfs": options["read_only"],
        "CapAdd": list(options["cap_add"]),
        "CapDrop": list(options["cap_drop"]),
        "Privileged": options["privileged"],
        "SecurityOpt": [_security_option(text) for text in options["security_opt"]],
        "Devices": [_device(text) for text in options["device"]],
        "Sysctls": key_values(options["sysctl"], "--sysctl"),
        "Init": True if options["init"] else None,
        "PidMode": options["pid_mode"],
        "IpcMode": options["ipc_mode"],
        "Runtime": options["runtime"],
    }
    if options["log_driver"] or options["log_opt"]:
        config["LogConfig"] = {
            "Type": options["log_driver"] or "",
            "Config": key_values(options["log_opt"], "--log-opt"),
        }
    if options["restart"] not in ("", "no") and options["remove"]:
        raise click.BadParameter("--rm and --restart contradict each other", param_hint="--rm")
    return {key: value for key, value in config.items() if value is not None}


def _endpoints(options: dict[str, Any]) -> dict[str, Any]:
    networks = options["network"]
    special = ("none", "host", "default", "bridge")
    alone = len(networks) <= 1 and not options["network_alias"] and not options["ip"]
    if alone or (networks and networks[0].startswith("container:")):
        return {}
    endpoints: dict[str, Any] = {name: {} for name in networks or ("bridge",)}
    first = next(iter(endpoints))
    if options["network_alias"]:
        if first in special:
            hint = "a network of your own, made by `linkspan network create`"
            raise click.BadParameter(f"aliases need {hint}", param_hint="--network-alias")
        endpoints[first]["Aliases"] = list(options["network_alias"])
    if options["ip"]:
        family = "IPv6Address" if ":" in options["ip"] else "IPv4Address"
        endpoints[first]["IPAMConfig"] = {family: options["ip"]}
    return endpoints


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
    ):
        if options[option] is not None:
            found[key] = round(options[option] * _NS)
    if options["health_retries"] is not None:
        found["Retries"] = options["health_retries"]
    return found or None


def environment(pairs: Iterable[str], files: Iterable[str]) -> list[str]:
    """``NAME=value`` lines: files first, then single ones; a bare name takes this process's value."""
    found: list[str] = []
    for file in files:
        try:
            text = Path(file).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as exc:
            raise click.BadParameter(
                f"cannot read '{file}': {exc}", param_hint="--env-file"
            ) from exc
        for number, line in enumerate(text.splitlines(), 1):
            entry = line.lstrip()
            if not entry or entry.startswith("#"):
                continue
            name = entry.partition("=")[0]
            if not name or " " in name or "\t" in name:
                reason = f"{file}:{number}: '{name}' is not the name of a variable"
                raise click.BadParameter(reason, param_hint="--env-file")
            found.extend(_variable(entry))
    for pair in pairs:
        if not pair or pair.startswith("="):
            raise click.BadParameter(f"'{pair}' has no name", param_hint="--env")
        found.extend(_variable(pair))
    return found


def _variable(entry: str) -> list[str]:
    if "=" in entry:
        return [entry]
    return [f"{entry}={os.environ[entry]}"] if entry in os.environ else []


def port_bindings(texts: Iterable[str]) -> tuple[dict[str, Any], dict[str, list[dict[str, str]]]]:
    """ExposedPorts and PortBindings of ``8080:80``, ``127.0.0.1:53:53/udp``, ``8000-8002:80-82``."""
    exposed: dict[str, Any] = {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for text in texts:
        ip, host, container, protocol = split_port(text)
        inside, outside = _range(container, text), _range(host, text) if host else None
        if outside is not None and len(outside) != len(inside):
            if len(inside) != 1:
                reason = f"the ranges of '{text}' are not of the same length"
                raise click.BadParameter(reason, param_hint="--publish")
            outside = [outside[0]]
        for index, number in enumerate(inside):
            key = f"{number}/{protocol}"
            exposed[key] = {}
            public = str(outside[index]) if outside is not None else ""
            bindings.setdefault(key, []).append({"HostIp": ip, "HostPort": public})
    return exposed, bindings


def split_port(text: str) -> tuple[str, str, str, str]:
    """Host address, host port, container port, protocol of a published port."""
    body, slash, protocol = text.partition("/")
    address = ""
    if body.startswith("["):
        address, bracket, body = body[1:].partition("]")
        if not bracket or not body.startswith(":"):
            raise _bad_port(text)
        body = body[1:]
    parts = body.split(":")
    if not address and len(parts) == 3:
        address, parts = parts[0], parts[1:]
    if len(parts) > 2 or (slash and protocol not in ("tcp", "udp", "sctp")):
        raise _bad_port(text)
    host, container = parts if len(parts) == 2 else ("", parts[0])
    if not re.fullmatch(r"\d+(-\d+)?", container) or not re.fullmatch(r"(\d+(-\d+)?)?", host):
        raise _bad_port(text)
    return address, host, container, protocol or "tcp"


def _bad_port(text: str) -> click.BadParameter:
    return click.BadParameter(
        f"'{text}' is not of the form [IP:][HOST:]PORT[/udp]", param_hint="--publish"
    )


def _range(text: str, whole: str) -> list[int]:
    first, _, last = text.partition("-")
    numbers = list(range(int(first), int(last or first) + 1))
    if not numbers or not 0 <= numbers[0] <= numbers[-1] <= 65535:
        raise click.BadParameter(f"'{whole}' has no valid port", param_hint="--publish")
    return numbers


def split_volumes(texts: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """Anonymous volumes (``/data``), and binds (``./src:/src:ro``, ``name:/data``) made absolute."""
    anonymous: dict[str, Any] = {}
    binds: list[str] = []
    for text in texts:
        source, colon, rest = text.partition(":")
        if not source or (colon and not rest):
            reason = f"'{text}' is not of the form SOURCE:TARGET[:OPTIONS]"
            raise click.BadParameter(reason, param_hint="--volume")
        if not colon:
            anonymous[source] = {}
        elif source.startswith((".", "~")):
            binds.append(f"{Path(source).expanduser().absolute()}:{rest}")
        else:
            binds.append(text)
    return anonymous, binds


def mount(text: str) -> dict[str, Any]:
    """An API Mount of ``type=bind,src=/a,dst=/b,readonly``."""
    found: dict[str, Any] = {"Type": "volume"}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        match key.strip().lower():
            case "type":
                found["Type"] = value
            case "source" | "src":
                found["Source"] = value
            case "target" | "dst" | "destination":
                found["Target"] = value
            case "readonly" | "ro":
                found["ReadOnly"] = not equals or value in ("true", "1")
            case "bind-propagation":
                found["BindOptions"] = {"Propagation": value}
            case "volume-driver":
                options = found.setdefault("VolumeOptions", {})
                options.setdefault("DriverConfig", {})["Name"] = value
            case "volume-opt":
                name, _, setting = value.partition("=")
                options = found.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})
                options.setdefault("Options", {})[name] = setting
            case "volume-nocopy":
                copies = not equals or value in ("true", "1")
                found.setdefault("VolumeOptions", {})["NoCopy"] = copies
            case "volume-subpath":
                found.setdefault("VolumeOptions", {})["Subpath"] = value
            case "tmpfs-size":
                found.setdefault("TmpfsOptions", {})["SizeBytes"] = Size().convert(
                    value, None, None
                )
            case "tmpfs-mode":
                found.setdefault("TmpfsOptions", {})["Mode"] = int(value, 8)
            case _:
                raise click.BadParameter(f"unknown key '{key}' in '{text}'", param_hint="--mount")
    if not found.get("Target"):
        raise click.BadParameter(f"'{text}' has no target", param_hint="--mount")
    if found["Type"] == "bind" and found.get("Source", "").startswith("."):
        found["Source"] = str(Path(found["Source"]).absolute())
    return found


def restart_policy(text: str) -> dict[str, Any]:
    """An API RestartPolicy of ``always`` or ``on-failure:3``."""
    name, colon, count = text.partition(":")
    if name not in ("", "no", "always", "on-failure", "unless-stopped"):
        reason = f"'{text}' is none of no, always, on-failure[:N], unless-stopped"
        raise click.BadParameter(reason, param_hint="--restart")
    if colon and (name != "on-failure" or not count.isdigit()):
        reason = f"a count is possible for on-failure only: '{text}'"
        raise click.BadParameter(reason, param_hint="--restart")
    return {"Name": name or "no", "MaximumRetryCount": int(count) if count else 0}


def _ulimit(text: str) -> dict[str, Any]:
    name, equals, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    if not equals or not re.fullmatch(r"-?\d+", soft) or not re.fullmatch(r"(-?\d+)?", hard):
        reason = f"'{text}' is not of the form NAME=SOFT[:HARD]"
        raise click.BadParameter(reason, param_hint="--ulimit")
    return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}


def _security_option(text: str) -> str:
    """A seccomp profile is read here: the daemon may not see this machine's files."""
    key, equals, value = text.partition("=")
    if key != "seccomp" or not equals or value == "unconfined":
        return text
    try:
        return f"seccomp={Path(value).read_text()}"
    except OSError as exc:
        reason = f"cannot read the profile '{value}': {exc.strerror}"
        raise click.BadParameter(reason, param_hint="--security-opt") from exc


def _device(text: str) -> dict[str, str]:
    source, _, rest = text.partition(":")
    target, _, permissions = rest.partition(":")
    if target and not target.startswith("/"):
        target, permissions = "", target
    return {
        "PathOnHost": source,
        "PathInContainer": target or source,
        "CgroupPermissions": permissions or "rwm",
    }
