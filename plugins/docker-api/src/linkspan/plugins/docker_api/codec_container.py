"""Containers between JSON (ContainerConfig, HostConfig, NetworkingConfig, inspect, list) and the model."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import attrs

from linkspan.plugins.docker_api.codec_endpoint import (
    decode_endpoint,
    encode_container_networks,
    encode_network_settings,
)
from linkspan.plugins.docker_api.codec_health import (
    decode_healthcheck,
    encode_health,
    encode_healthcheck,
)
from linkspan.plugins.docker_api.codec_mount import decode_mount, encode_mount, encode_mount_points
from linkspan.plugins.docker_api.codec_network import (
    decode_port_bindings,
    encode_port_bindings,
    encode_port_list,
    parse_port,
)
from linkspan.plugins.docker_api.codec_resources import (
    decode_resources,
    decode_restart,
    encode_resources,
    encode_restart,
)
from linkspan.plugins.docker_api.document import Document
from linkspan.plugins.docker_api.timestamps import epoch_s, now_s, or_never
from linkspan.plugins.docker_api.versions import NEWEST, Version
from linkspan.sdk.errors import InvalidArgument, Unsupported
from linkspan.sdk.model.container import (
    DEFAULT_MASKED_PATHS,
    DEFAULT_READONLY_PATHS,
    Container,
    ContainerSpec,
    ContainerState,
    ContainerStatus,
    ExecSpec,
    HealthStatus,
)
from linkspan.sdk.model.image import ImageConfig
from linkspan.sdk.model.network import EndpointSpec
from linkspan.sdk.units import human_duration

_LISTS = (
    "BlkioDeviceReadBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps",
    "BlkioWeightDevice",
    "Devices",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "PortBindings",
    "Ulimits",
)
"""Of HostConfig: what inspect shows as null if the client left it out, and empty if it said so."""


def decode_container(body: Document, *, platform: str = "") -> ContainerSpec:
    """The body of POST /containers/create.

    Raises:
        InvalidArgument: A value is wrong; Docker's texts.
        Unsupported: Something that Docker has and Linkspan has not.
    """
    if not body:
        raise InvalidArgument("config cannot be empty in order to create a container")
    host = body.document("HostConfig")
    image = body.text("Image")
    if not image:
        raise InvalidArgument("no image specified: Config.Image is empty")
    for text in (exposed := body.keys_of("ExposedPorts")):
        parse_port(text)
    for entry in (env := body.texts("Env")):
        if not entry or entry.startswith("="):
            raise InvalidArgument(f"invalid environment variable: {entry}")
    if host.text("Isolation") not in ("", "default"):
        raise InvalidArgument(
            f"invalid isolation ({host.text('Isolation')}): linux only supports 'default'"
        )
    if "" in (annotations := host.text_map("Annotations")):
        raise InvalidArgument(
            "invalid Annotations: the empty string is not permitted as an annotation key"
        )
    _refuse_storage_options(host)
    if host.text("Cgroup"):
        raise Unsupported(
            "HostConfig.Cgroup: a container cannot be put into another one's control group",
            help="set CgroupParent",
        )
    mode = host.text("NetworkMode") or "default"
    if body.flag("NetworkDisabled"):
        mode = "none"
    return ContainerSpec(
        image=image,
        command=body.words("Cmd") or None,
        entrypoint=body.words("Entrypoint"),
        env=env,
        working_dir=body.text("WorkingDir"),
        user=body.text("User"),
        hostname=body.text("Hostname"),
        domainname=body.text("Domainname"),
        tty=body.flag("Tty"),
        open_stdin=body.flag("OpenStdin"),
        stdin_once=body.flag("StdinOnce"),
        attach_stdin=body.flag("AttachStdin"),
        attach_stdout=body.flag("AttachStdout"),
        attach_stderr=body.flag("AttachStderr"),
        labels=body.text_map("Labels"),
        exposed_ports=exposed,
        volumes=body.keys_of("Volumes"),
        stop_signal=body.text("StopSignal") or None,
        stop_timeout_s=body.number("StopTimeout") if "StopTimeout" in body else None,
        healthcheck=(
            decode_healthcheck(body.document("Healthcheck")) if "Healthcheck" in body else None
        ),
        platform=platform,
        mounts=tuple(decode_mount(mount) for mount in host.documents("Mounts")),
        binds=host.texts("Binds"),
        volumes_from=host.texts("VolumesFrom"),
        volume_driver=host.text("VolumeDriver"),
        ports=decode_port_bindings(host.document("PortBindings")),
        publish_all=host.flag("PublishAllPorts"),
        network_mode=mode,
        networks=_decode_networks(body, host, mode),
        restart=decode_restart(host.document("RestartPolicy")),
        auto_remove=host.flag("AutoRemove"),
        resources=decode_resources(host),
        cap_add=host.texts("CapAdd"),
        cap_drop=host.texts("CapDrop"),
        privileged=host.flag("Privileged"),
        security_opt=host.texts("SecurityOpt"),
        read_only=host.flag("ReadonlyRootfs"),
        tmpfs=host.text_map("Tmpfs"),
        sysctls=host.text_map("Sysctls"),
        init=host.flag("Init") if "Init" in host else None,
        pid_mode=host.text("PidMode"),
        ipc_mode=host.text("IpcMode"),
        uts_mode=host.text("UTSMode"),
        cgroupns_mode=host.text("CgroupnsMode"),
        userns_mode=host.text("UsernsMode"),
        group_add=host.texts("GroupAdd"),
        extra_hosts=host.texts("ExtraHosts"),
        dns=host.texts("Dns"),
        dns_search=host.texts("DnsSearch"),
        dns_options=host.texts("DnsOptions"),
        log_driver=host.document("LogConfig").text("Type"),
        log_options=host.document("LogConfig").text_map("Config"),
        shm_size_bytes=host.number("ShmSize") or 67108864,
        oom_score_adj=host.number("OomScoreAdj"),
        runtime=host.text("Runtime"),
        masked_paths=host.texts("MaskedPaths") if "MaskedPaths" in host else None,
        readonly_paths=host.texts("ReadonlyPaths") if "ReadonlyPaths" in host else None,
        annotations=annotations,
        console_size=decode_console_size(host),
        left_out=tuple(name for name in _LISTS if name not in host),
    )


def _refuse_storage_options(host: Document) -> None:
    """A limit of a container's own content needs quotas of projects, which nothing here sets up."""
    for name in host.text_map("StorageOpt"):
        if name.lower() != "size":
            raise Unsupported(f"Unknown option {name}", code="no_storage_options")
        raise Unsupported(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
            code="no_storage_options",
            help="this daemon sets no quotas: give it a disk of its own (data-root), or use a tmpfs with a size",
        )


def decode_console_size(body: Document) -> tuple[int, int]:
    """``ConsoleSize``: rows and columns that a terminal begins with; (0, 0) if it is not given."""
    size = body.items("ConsoleSize")
    if not size:
        return (0, 0)
    if len(size) != 2 or not all(type(n) is int and 0 <= n <= 0xFFFF for n in size):
        raise InvalidArgument(
            f"invalid JSON: {body.at('ConsoleSize')} must be two numbers, rows and columns",
            code="invalid_json",
        )
    return (size[0], size[1])


def _decode_networks(body: Document, host: Document, mode: str) -> dict[str, EndpointSpec]:
    """NetworkingConfig, where the default network has its mode's name; and ``--link``."""
    found: dict[str, EndpointSpec] = {}
    for name, settings in body.document("NetworkingConfig").named_documents("EndpointsConfig"):
        found["bridge" if name == "default" else name] = decode_endpoint(settings)
    links = host.texts("Links")
    mac = body.text("MacAddress")
    if links or mac:
        name = "bridge" if mode == "default" else mode
        before = found.get(name, EndpointSpec())
        found[name] = attrs.evolve(
            before, mac_address=before.mac_address or mac, links=before.links or links
        )
    return found


def decode_exec(body: Document) -> ExecSpec:
    """The body of POST /containers/{id}/exec."""
    command = body.words("Cmd")
    if not command:
        raise InvalidArgument("No exec command specified")
    return ExecSpec(
        command=command,
        env=body.texts("Env"),
        working_dir=body.text("WorkingDir"),
        user=body.text("User"),
        tty=body.flag("Tty"),
        privileged=body.flag("Privileged"),
        attach_stdin=body.flag("AttachStdin"),
        attach_stdout=body.flag("AttachStdout"),
        attach_stderr=body.flag("AttachStderr"),
        detach_keys=body.text("DetachKeys"),
        console_size=decode_console_size(body),
    )


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
        "HostConfig": {"NetworkMode": _network_mode(container)},
        "NetworkSettings": {"Networks": _summary_networks(container)},
        "Mounts": encode_mount_points(container),
    }
    if size is not None:
        out |= shown_sizes(*size)
    return out


def link_names(containers: Iterable[Container]) -> dict[str, list[str]]:
    """A container's name → what others call it by their links: ``other/alias``."""
    found: dict[str, list[str]] = {}
    for container in containers:
        for alias, name in links_of(container).items():
            found.setdefault(name, []).append(f"{container.name}/{alias}")
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


def _network_mode(container: Container) -> str:
    mode = container.spec.network_mode
    return "bridge" if mode == "default" else mode


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
        "Entrypoint": None if entrypoint is None else list(entrypoint),
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
    if container.healthcheck is not None:
        out["Healthcheck"] = encode_healthcheck(container.healthcheck)
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
def usual_cgroup_namespace() -> str:
    """What a container gets that asked for none: ``private`` with control groups of version 2."""
    return "private" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "host"


def encode_host_config(container: Container, *, default_runtime: str = "") -> dict[str, Any]:
    """HostConfig; ``default_runtime`` is the name of what runs it if it asked for none."""
    spec = container.spec
    fields: dict[str, Any] = {
        "Binds": list(spec.binds) or None,
        "ContainerIDFile": "",
        "LogConfig": {
            "Type": spec.log_driver or "json-file",
            "Config": dict(spec.log_options),
        },
        "NetworkMode": _network_mode(container),
        "PortBindings": encode_port_bindings(spec.ports),
        "RestartPolicy": encode_restart(spec.restart),
        "AutoRemove": spec.auto_remove,
        "VolumeDriver": spec.volume_driver,
        "VolumesFrom": list(spec.volumes_from) or None,
        "ConsoleSize": list(spec.console_size),
        "CapAdd": list(spec.cap_add) or None,
        "CapDrop": list(spec.cap_drop) or None,
        "CgroupnsMode": spec.cgroupns_mode or usual_cgroup_namespace(),
        "Dns": list(spec.dns),
        "DnsOptions": list(spec.dns_options),
        "DnsSearch": list(spec.dns_search),
        "ExtraHosts": list(spec.extra_hosts) or None,
        "GroupAdd": list(spec.group_add) or None,
        "IpcMode": spec.ipc_mode or "private",
        "Cgroup": "",
        "Links": _encode_links(container) or None,
        "OomScoreAdj": spec.oom_score_adj,
        "PidMode": spec.pid_mode,
        "Privileged": spec.privileged,
        "PublishAllPorts": spec.publish_all,
        "ReadonlyRootfs": spec.read_only,
        "SecurityOpt": _security_options(spec) or None,
        "UTSMode": spec.uts_mode,
        "UsernsMode": spec.userns_mode,
        "ShmSize": spec.shm_size_bytes,
        "Runtime": container.runtime or default_runtime,
        "Isolation": "",
        **encode_resources(spec.resources),
        "MaskedPaths": _paths(spec, spec.masked_paths, DEFAULT_MASKED_PATHS),
        "ReadonlyPaths": _paths(spec, spec.readonly_paths, DEFAULT_READONLY_PATHS),
        **_rarely_given(spec),
    }
    return {name: _as_given(spec, name, value) for name, value in fields.items()}


def _as_given(spec: ContainerSpec, name: str, value: Any) -> Any:
    return None if not value and name in spec.left_out else value


def links_of(container: Container) -> dict[str, str]:
    """Links of its own network's endpoint: alias → name of the container that it leads to."""
    own = container.spec.networks.get(_network_mode(container))
    pairs = (link.partition(":") for link in own.links) if own else ()
    return {alias or name: name.removeprefix("/") for name, _, alias in pairs}


def _encode_links(container: Container) -> list[str]:
    """As Docker keeps them: ``/other:/own/alias``."""
    return [f"/{other}:/{container.name}/{alias}" for alias, other in links_of(container).items()]


def _rarely_given(spec: ContainerSpec) -> dict[str, Any]:
    """Fields that Docker shows only where they were given."""
    fields: dict[str, Any] = {
        "Annotations": dict(spec.annotations),
        "Tmpfs": dict(spec.tmpfs),
        "Sysctls": dict(spec.sysctls),
        "Mounts": [encode_mount(mount) for mount in spec.mounts],
    }
    if spec.init is not None:
        fields["Init"] = spec.init
    return {name: value for name, value in fields.items() if value or name == "Init"}


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


def _security_options(spec: ContainerSpec) -> list[str]:
    """As given; who sees the host's processes or is privileged has no label of its own, as in Docker."""
    options = list(spec.security_opt)
    if any(option.startswith("label") for option in options):
        return options
    if spec.privileged or "host" in (spec.pid_mode, spec.ipc_mode):
        options.append("label=disable")
    return options


def _paths(
    spec: ContainerSpec, paths: tuple[str, ...] | None, usual: tuple[str, ...]
) -> list[str] | None:
    if paths is not None:
        return list(paths)
    open_wide = spec.privileged or "systempaths=unconfined" in spec.security_opt
    return None if open_wide else list(usual)
