"""HostConfig of a container: what this machine gives it and lets it do, as inspect shows it."""

from functools import cache
from pathlib import Path
from typing import Any

from linkspan.plugins.docker_api.codec_mount import encode_mount
from linkspan.plugins.docker_api.codec_network import encode_port_bindings
from linkspan.plugins.docker_api.codec_resources import encode_resources, encode_restart
from linkspan.sdk.links import link_parts, links_of
from linkspan.sdk.model.container import (
    DEFAULT_MASKED_PATHS,
    DEFAULT_READONLY_PATHS,
    Container,
    ContainerSpec,
)


def network_mode_shown(container: Container) -> str:
    """Its network's name; the usual one is shown by its own."""
    mode = container.spec.network_mode
    return "bridge" if mode == "default" else mode


@cache
def usual_cgroup_namespace() -> str:
    """What a container gets that asked for none: ``private`` with control groups of version 2."""
    return "private" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "host"


def encode_host_config(container: Container, *, default_runtime: str = "") -> dict[str, Any]:
    """HostConfig; ``default_runtime`` is the name of what runs it if it asked for none."""
    spec = container.spec
    fields: dict[str, Any] = {
        "Binds": list(spec.binds) or None,
        "ContainerIDFile": spec.id_file,
        "LogConfig": {
            "Type": spec.log_driver or "json-file",
            "Config": dict(spec.log_options),
        },
        "NetworkMode": network_mode_shown(container),
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
        "Isolation": spec.isolation,
        **encode_resources(spec.resources),
        "MaskedPaths": _paths(spec, spec.masked_paths, DEFAULT_MASKED_PATHS),
        "ReadonlyPaths": _paths(spec, spec.readonly_paths, DEFAULT_READONLY_PATHS),
        **_rarely_given(spec),
    }
    return {name: _as_given(spec, name, value) for name, value in fields.items()}


def _as_given(spec: ContainerSpec, name: str, value: Any) -> Any:
    return None if not value and name in spec.left_out else value


def link_targets(container: Container) -> dict[str, str]:
    """Its links on the default network: alias → name of the container that it leads to."""
    return {alias: name for name, alias in map(link_parts, links_of(container.spec))}


def _encode_links(container: Container) -> list[str]:
    """As Docker keeps them: ``/other:/own/alias``."""
    return [
        f"/{other}:/{container.name}/{alias}" for alias, other in link_targets(container).items()
    ]


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
