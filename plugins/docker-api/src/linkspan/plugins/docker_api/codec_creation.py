"""What a client asks for when it makes a container or a session in one, as the model's specs."""

from typing import Any

import attrs

from linkspan.plugins.docker_api.codec_endpoint import decode_endpoint
from linkspan.plugins.docker_api.codec_health import decode_healthcheck
from linkspan.plugins.docker_api.codec_mount import decode_mount
from linkspan.plugins.docker_api.codec_network import decode_port_bindings, parse_port
from linkspan.plugins.docker_api.codec_resources import decode_resources, decode_restart
from linkspan.plugins.docker_api.document import Document
from linkspan.sdk.errors import InvalidArgument, Unsupported
from linkspan.sdk.model.container import ContainerSpec, ExecSpec
from linkspan.sdk.model.network import EndpointSpec

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
    if not body.text("Image"):
        raise InvalidArgument("no image specified: Config.Image is empty")
    _refuse_wrong_config(body)
    _refuse_wrong_host_config(host)
    mode = "none" if body.flag("NetworkDisabled") else host.text("NetworkMode") or "default"
    return ContainerSpec(
        **_process(body),
        **_provision(host),
        **_isolation(host),
        platform=platform,
        network_mode=mode,
        networks=_decode_networks(body, host, mode),
        id_file=host.text("ContainerIDFile"),
        left_out=tuple(name for name in _LISTS if name not in host),
    )


def _refuse_wrong_config(body: Document) -> None:
    for text in body.keys_of("ExposedPorts"):
        parse_port(text)
    for entry in body.texts("Env"):
        if not entry or entry.startswith("="):
            raise InvalidArgument(f"invalid environment variable: {entry}")


def _refuse_wrong_host_config(host: Document) -> None:
    if host.text("Isolation") not in ("", "default"):
        raise InvalidArgument(
            f"invalid isolation ({host.text('Isolation')}): linux only supports 'default'"
        )
    if "" in host.text_map("Annotations"):
        raise InvalidArgument(
            "invalid Annotations: the empty string is not permitted as an annotation key"
        )
    _refuse_storage_options(host)
    if host.text("Cgroup"):
        raise Unsupported(
            "HostConfig.Cgroup: a container cannot be put into another one's control group",
            help="set CgroupParent",
        )


def _process(body: Document) -> dict[str, Any]:
    """Of a spec, what the image could say, too: the process, and how it is spoken with."""
    return {
        "image": body.text("Image"),
        "command": body.words("Cmd") or None,
        "entrypoint": body.words("Entrypoint"),
        "env": body.texts("Env"),
        "working_dir": body.text("WorkingDir"),
        "user": body.text("User"),
        "hostname": body.text("Hostname"),
        "domainname": body.text("Domainname"),
        "tty": body.flag("Tty"),
        "open_stdin": body.flag("OpenStdin"),
        "stdin_once": body.flag("StdinOnce"),
        "attach_stdin": body.flag("AttachStdin"),
        "attach_stdout": body.flag("AttachStdout"),
        "attach_stderr": body.flag("AttachStderr"),
        "labels": body.text_map("Labels"),
        "exposed_ports": body.keys_of("ExposedPorts"),
        "volumes": body.keys_of("Volumes"),
        "stop_signal": body.text("StopSignal") or None,
        "stop_timeout_s": body.number("StopTimeout") if "StopTimeout" in body else None,
        "healthcheck": (
            decode_healthcheck(body.document("Healthcheck")) if "Healthcheck" in body else None
        ),
    }


def _provision(host: Document) -> dict[str, Any]:
    """Of a spec, what this machine gives it, and how long it stays."""
    return {
        "mounts": tuple(decode_mount(mount) for mount in host.documents("Mounts")),
        "binds": host.texts("Binds"),
        "volumes_from": host.texts("VolumesFrom"),
        "volume_driver": host.text("VolumeDriver"),
        "ports": decode_port_bindings(host.document("PortBindings")),
        "publish_all": host.flag("PublishAllPorts"),
        "restart": decode_restart(host.document("RestartPolicy")),
        "auto_remove": host.flag("AutoRemove"),
        "tmpfs": host.text_map("Tmpfs"),
        "init": host.flag("Init") if "Init" in host else None,
        "extra_hosts": host.texts("ExtraHosts"),
        "dns": host.texts("Dns"),
        "dns_search": host.texts("DnsSearch"),
        "dns_options": host.texts("DnsOptions"),
        "log_driver": host.document("LogConfig").text("Type"),
        "log_options": host.document("LogConfig").text_map("Config"),
        "annotations": host.text_map("Annotations"),
        "console_size": decode_console_size(host),
    }


def _isolation(host: Document) -> dict[str, Any]:
    """Of a spec, what it may do, see and use."""
    return {
        "resources": decode_resources(host),
        "cap_add": host.texts("CapAdd"),
        "cap_drop": host.texts("CapDrop"),
        "privileged": host.flag("Privileged"),
        "security_opt": host.texts("SecurityOpt"),
        "read_only": host.flag("ReadonlyRootfs"),
        "sysctls": host.text_map("Sysctls"),
        "pid_mode": host.text("PidMode"),
        "ipc_mode": host.text("IpcMode"),
        "uts_mode": host.text("UTSMode"),
        "cgroupns_mode": host.text("CgroupnsMode"),
        "userns_mode": host.text("UsernsMode"),
        "group_add": host.texts("GroupAdd"),
        "shm_size_bytes": host.number("ShmSize") or 67108864,
        "oom_score_adj": host.number("OomScoreAdj"),
        "runtime": host.text("Runtime"),
        "isolation": host.text("Isolation"),
        "masked_paths": host.texts("MaskedPaths") if "MaskedPaths" in host else None,
        "readonly_paths": host.texts("ReadonlyPaths") if "ReadonlyPaths" in host else None,
    }


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
    if "" in (links := host.texts("Links")):
        raise InvalidArgument("empty string specified for links")
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
