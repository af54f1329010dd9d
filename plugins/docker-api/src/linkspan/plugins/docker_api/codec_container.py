"""Containers as GET /containers/json and /containers/{id}/json show them."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from linkspan.plugins.docker_api.codec_endpoint import (
    encode_container_networks,
    encode_network_settings,
)
from linkspan.plugins.docker_api.codec_health import (
    encode_health,
    encode_healthcheck,
)
from linkspan.plugins.docker_api.codec_host_config import (
    encode_host_config,
    link_targets,
    network_mode_shown,
)
from linkspan.plugins.docker_api.codec_mount import encode_mount_points
from linkspan.plugins.docker_api.codec_network import (
    encode_port_list,
)
from linkspan.plugins.docker_api.timestamps import epoch_s, now_s, or_never
from linkspan.plugins.docker_api.versions import NEWEST, Version
from linkspan.sdk.model.container import (
    Container,
    ContainerSpec,
    ContainerState,
    ContainerStatus,
    HealthStatus,
)
from linkspan.sdk.model.image import ImageConfig
from linkspan.sdk.units import human_duration


def status_since_s(state: ContainerState) -> float:
    """From when the status counts its time, in seconds since the epoch."""
    return epoch_s(state.started_at if state.running else state.finished_at)


def status_text(state: ContainerState, *, at_s: float | None = None) -> str:
    """The status column of ``docker ps``: ``Up 2 hours (healthy)``."""
    now = now_s() if at_s is None else at_s
    since = human_duration(now - status_since_s(state))
    match state.status:
        case ContainerStatus.CREATED:
            return "Created"
        case ContainerStatus.RUNNING:
            return f"Up {since}{_health_text(state)}"
        case ContainerStatus.PAUSED:
            return f"Up {since} (Paused)"
        case ContainerStatus.RESTARTING:
            return f"Restarting ({state.exit_code}) {since} ago"
        case ContainerStatus.REMOVING:
            return "Removal In Progress"
        case ContainerStatus.DEAD:
            return "Dead"
        case ContainerStatus.EXITED:
            return f"Exited ({state.exit_code}) {since} ago"


def _health_text(state: ContainerState) -> str:
    if state.health is None or state.health.status is HealthStatus.NONE:
        return ""
    if state.health.status is HealthStatus.STARTING:
        return " (health: starting)"
    return f" ({state.health.status.value})"


def command_text(args: tuple[str, ...]) -> str:
    """The command column: arguments with a space are quoted, as Docker does."""
    return " ".join(
        [*args[:1], *(f"'{arg}'" if " " in arg else arg for arg in args[1:])],
    )


def encode_summary(
    container: Container,
    *,
    size: tuple[int, int] | None = None,
    status: str = "",
    links: Sequence[str] = (),
) -> dict[str, Any]:
    """An entry of GET /containers/json.

    Args:
        status: Instead of the one of now.
        links: Its names for others: ``other/alias``.
    """
    out: dict[str, Any] = {
        "Id": container.id,
        "Names": [f"/{name}" for name in (container.name, *links)],
        "Image": container.spec.image,
        "ImageID": container.image_id,
        "Command": command_text(container.args),
        "Created": int(epoch_s(container.created_at)),
        "Ports": encode_port_list(container),
        "Labels": dict(container.labels),
        "State": container.state.status.value,
        "Status": status or status_text(container.state),
        "HostConfig": {"NetworkMode": network_mode_shown(container)},
        "NetworkSettings": {"Networks": _summary_networks(container)},
        "Mounts": encode_mount_points(container),
    }
    if size is not None:
        out |= shown_sizes(*size)
    return out


def link_names(containers: Iterable[Container]) -> dict[str, list[str]]:
    """A container's id (name, if a link tells none) → what others call it by their links: ``other/alias``."""
    found: dict[str, list[str]] = {}
    for container in containers:
        for alias, name in link_targets(container).items():
            key = container.spec.link_ids.get(alias, name)
            found.setdefault(key, []).append(f"{container.name}/{alias}")
    return found


def shown_sizes(own_bytes: int, whole_bytes: int) -> dict[str, int]:
    """Sizes in a summary: Docker leaves out those of nothing."""
    sizes = {"SizeRw": own_bytes, "SizeRootFs": whole_bytes}
    return {name: size for name, size in sizes.items() if size}


def _summary_networks(container: Container) -> dict[str, Any]:
    """A list has no names and links of endpoints, as in Docker."""
    unsaid = dict.fromkeys(("Links", "Aliases", "DriverOpts", "DNSNames"))
    return {
        name: {**settings, **unsaid}
        for name, settings in encode_container_networks(container).items()
    }


def encode_state(state: ContainerState) -> dict[str, Any]:
    """ContainerState."""
    restarting = state.status is ContainerStatus.RESTARTING
    out: dict[str, Any] = {
        "Status": state.status.value,
        # Docker says of a container between two attempts that it runs.
        "Running": state.running or restarting,
        "Paused": state.status is ContainerStatus.PAUSED,
        "Restarting": restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.status is ContainerStatus.DEAD,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": or_never(state.started_at),
        "FinishedAt": or_never(state.finished_at),
    }
    if state.health is not None:
        out["Health"] = encode_health(state.health)
    return out


def encode_inspect(
    container: Container,
    *,
    image: ImageConfig | None,
    graph_driver: Mapping[str, Any],
    runtime: str = "",
    exec_ids: tuple[str, ...] = (),
    size: tuple[int, int] | None = None,
    version: Version = NEWEST,
    network_ids: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """GET /containers/{id}/json.

    Args:
        graph_driver: What ``graph_driver`` says of its root.
        image: Its image's config, for the values that the container takes from there; None if the image
            is gone.
        runtime: Name of the usual runtime.
        exec_ids: Sessions in it that have not ended.
        version: Of the API that the client speaks.
        network_ids: Ids by name, of networks that it has left by ending.
    """
    out: dict[str, Any] = {
        "Id": container.id,
        "Created": container.created_at,
        "Path": container.args[0] if container.args else "",
        "Args": list(container.args[1:]),
        "State": encode_state(container.state),
        "Image": container.image_id,
        "ResolvConfPath": container.files.get("/etc/resolv.conf", ""),
        "HostnamePath": container.files.get("/etc/hostname", ""),
        "HostsPath": container.files.get("/etc/hosts", ""),
        "LogPath": container.log_path,
        "Name": f"/{container.name}",
        "RestartCount": container.state.restart_count,
        "Driver": graph_driver["Name"],
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": _apparmor_profile(container.spec),
        "ExecIDs": list(exec_ids) or None,
        "HostConfig": encode_host_config(container, default_runtime=runtime),
        "GraphDriver": graph_driver,
    }
    if size is not None:
        out["SizeRw"], out["SizeRootFs"] = size
    return {
        **out,
        "Mounts": encode_mount_points(container),
        "Config": encode_config(container, image),
        "NetworkSettings": encode_network_settings(
            container, version=version, network_ids=network_ids
        ),
    }


def encode_config(container: Container, image: ImageConfig | None) -> dict[str, Any]:
    """ContainerConfig: what was asked, completed by the image."""
    spec = container.spec
    entrypoint, command = spec.entrypoint, spec.command
    if image is not None:
        if not entrypoint:
            command = image.command or None if command is None else command
        if entrypoint is None:
            entrypoint = image.entrypoint or None
        volumes = dict.fromkeys((*image.volumes, *spec.volumes))
    else:
        volumes = dict.fromkeys(spec.volumes)
    out: dict[str, Any] = {
        "Hostname": container.hostname,
        "Domainname": spec.domainname,
        "User": container.user,
        "AttachStdin": spec.attach_stdin,
        "AttachStdout": spec.attach_stdout,
        "AttachStderr": spec.attach_stderr,
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "StdinOnce": spec.stdin_once,
        "Env": _encode_env(container),
        "Cmd": None if command is None else list(command),
        "Image": spec.image,
        "Volumes": {path: {} for path in volumes} or None,
        # Where it really runs if nobody says: at the root, which Docker does not name.
        "WorkingDir": spec.working_dir or (image.working_dir if image else ""),
        # [""] takes the image's away, and is none then.
        "Entrypoint": None if entrypoint in (None, ("",)) else list(entrypoint),
        "OnBuild": None,
        "Labels": dict(container.labels),
    }
    if container.exposed_ports:
        out["ExposedPorts"] = {
            (port if "/" in port else f"{port}/tcp"): {} for port in container.exposed_ports
        }
    chosen = spec.networks.get("bridge" if spec.network_mode == "default" else spec.network_mode)
    if chosen is not None and chosen.mac_address:
        out["MacAddress"] = chosen.mac_address
    # What switches the image's check off is shown, too, and times without a test.
    if (check := container.healthcheck or spec.healthcheck) is not None:
        out["Healthcheck"] = encode_healthcheck(check)
    if spec.stop_signal or container.stop_signal != "SIGTERM":
        out["StopSignal"] = container.stop_signal
    if spec.stop_timeout_s is not None:
        out["StopTimeout"] = spec.stop_timeout_s
    return out


def _encode_env(container: Container) -> list[str]:
    """What the user set, a bare name, too, then the image's; not what every container is given."""
    given = (f"HOSTNAME={container.hostname}", "TERM=xterm")
    own = container.spec.env
    names = {entry.partition("=")[0] for entry in own}
    of_image = (e for e in container.env if e.partition("=")[0] not in names and e not in given)
    return [*own, *of_image]


@cache
def _kernel_has_apparmor() -> bool:
    try:
        return Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False


def _apparmor_profile(spec: ContainerSpec) -> str:
    """Of its processes; empty on a kernel without AppArmor, as in Docker."""
    if not _kernel_has_apparmor():
        return ""
    given = [o[9:] for o in spec.security_opt if o.startswith(("apparmor=", "apparmor:"))]
    return (given[-1] if given else "") or "unconfined"
