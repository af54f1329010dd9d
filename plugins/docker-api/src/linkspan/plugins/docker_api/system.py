"""/version, /info and /system/df."""

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import trio

from linkspan.plugins.docker_api.build_cache import encode_entry
from linkspan.plugins.docker_api.codec_container import encode_summary, link_names
from linkspan.plugins.docker_api.codec_generic import encode_generic_resources
from linkspan.plugins.docker_api.codec_image import encode_image_summary
from linkspan.plugins.docker_api.codec_network import driver_shown
from linkspan.plugins.docker_api.codec_volume import encode_volume
from linkspan.plugins.docker_api.image_usage import LayerUsage
from linkspan.plugins.docker_api.swarm import swarm_state
from linkspan.plugins.docker_api.versions import (
    INFO,
    NEWEST,
    REGISTRY_CONFIG,
    Version,
    fields_of,
)
from linkspan.plugins.docker_api.volumes import volume_size
from linkspan.sdk.drivers.builder import Builder
from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.sdk.generic_resources import parse_generic_resources
from linkspan.sdk.host import Host
from linkspan.sdk.http import Request, Response, json_response
from linkspan.sdk.model.container import ContainerFilter, ContainerStatus
from linkspan.sdk.platform import host_platform

API_VERSION = "{}.{}".format(*NEWEST)
MIN_API_VERSION = "1.24"
_OBJECT_TYPES = ("container", "image", "volume", "build-cache")


_SAME_EVERYWHERE: Final[Mapping[str, Any]] = {
    "IPv4Forwarding": True,
    "Debug": False,
    "NGoroutines": 0,
    "NEventsListener": 0,
    "LoggingDriver": "json-file",
    "IndexServerAddress": "https://index.docker.io/v1/",
    "ExperimentalBuild": False,
    # Containers are held by their own monitors and outlive the daemon.
    "LiveRestoreEnabled": True,
    "Isolation": "",
    "InitBinary": "",
    **{name: {"ID": ""} for name in ("ContainerdCommit", "RuncCommit", "InitCommit")},
    "CDISpecDirs": None,
    "Warnings": None,
}
"""Of GET /info: what no machine and no setting changes."""


def plugins_of(host: Host) -> dict[str, list[str] | None]:
    """What this daemon has drivers for."""
    networks = {driver_shown(n.spec.driver) for n in host.engine.networks.list()}
    return {
        "Volume": [host.daemon.drivers.get("volume", "local")],
        "Network": sorted({*networks, "overlay"}),
        "Authorization": None,
        "Log": ["json-file", "local", "none"],
    }


class SystemRoutes:
    """The daemon as a whole."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._engine = host.engine

    async def version(self, _: Request) -> Response:
        """GET /version."""
        daemon = self._host.daemon
        architecture = host_platform().architecture
        details = {
            "ApiVersion": API_VERSION,
            "Arch": architecture,
            "BuildTime": "",
            "Experimental": "false",
            "GitCommit": "",
            "KernelVersion": platform.release(),
            "MinAPIVersion": MIN_API_VERSION,
            "Os": "linux",
        }
        drivers = [
            {"Name": f"{role}/{name}", "Version": daemon.version, "Details": {}}
            for role, name in sorted(daemon.drivers.items())
        ]
        engine = {"Name": "Engine", "Version": daemon.version, "Details": details}
        return json_response(
            {
                "Platform": {"Name": "Linkspan"},
                "Components": [engine, *drivers],
                "Version": daemon.version,
                "ApiVersion": API_VERSION,
                "MinAPIVersion": MIN_API_VERSION,
                "GitCommit": "",
                "GoVersion": "",
                "PythonVersion": platform.python_version(),
                "Os": "linux",
                "Arch": architecture,
                "KernelVersion": platform.release(),
                "BuildTime": "",
            }
        )

    async def info(self, request: Request) -> Response:
        """GET /info."""
        daemon, version = self._host.daemon, request.api_version
        facts = await trio.to_thread.run_sync(_machine_facts)
        offered = parse_generic_resources(daemon.generic_resources)
        return json_response(
            {
                "ID": daemon.id,
                **self._counts(),
                **self._drivers(),
                **_limits(facts),
                **_machine(facts),
                "RegistryConfig": {
                    **_registries(daemon.insecure_registries, daemon.registry_mirrors),
                    **fields_of(version, REGISTRY_CONFIG),
                },
                "DockerRootDir": str(daemon.data_root),
                "Name": daemon.name,
                "ServerVersion": daemon.version,
                "Swarm": await swarm_state(self._host),
                "SecurityOptions": _security_options(version),
                "Labels": list(daemon.labels),
                "GenericResources": encode_generic_resources(offered) or None,
                **_SAME_EVERYWHERE,
                **fields_of(version, INFO),
            }
        )

    def _counts(self) -> dict[str, int]:
        states = [c.state.status for c in self._engine.containers.list(ContainerFilter(all=True))]
        paused = states.count(ContainerStatus.PAUSED)
        # Docker says of a container between two attempts that it runs.
        running = states.count(ContainerStatus.RUNNING) + states.count(ContainerStatus.RESTARTING)
        return {
            "Containers": len(states),
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": len(states) - running - paused,
            "Images": len(self._engine.images.list()),
        }

    def _drivers(self) -> dict[str, Any]:
        drivers = self._host.daemon.drivers
        runtime = drivers.get("runtime", "")
        return {
            "Driver": drivers.get("snapshots", ""),
            "DriverStatus": [["Role", "snapshots"]],
            "Plugins": plugins_of(self._host),
            "Runtimes": {runtime: {"path": runtime}},
            "DefaultRuntime": runtime,
        }

    async def disk_usage(self, request: Request) -> Response:
        """GET /system/df."""
        version = request.api_version
        wanted = request.query_all.get("type", ()) if version >= (1, 42) else ()
        for kind in wanted:
            if kind not in _OBJECT_TYPES:
                raise InvalidArgument(f"unknown object type: {kind}")
        wanted = wanted or _OBJECT_TYPES
        out: dict[str, Any] = {
            "LayersSize": 0,
            **dict.fromkeys(("Images", "Containers", "Volumes", "BuildCache")),
        }
        if "image" in wanted:
            out |= await self._image_usage(version)
        if "container" in wanted:
            out["Containers"] = await self._container_usage()
        if "volume" in wanted:
            out["Volumes"] = await self._volume_usage()
        if "build-cache" in wanted:
            out["BuildCache"] = await self._build_cache()
        size = sum(entry["Size"] for entry in out["BuildCache"] or () if not entry["Shared"])
        if size and version < (1, 42):
            out["BuilderSize"] = size
        return json_response(out)

    async def _build_cache(self) -> list[dict[str, Any]]:
        try:
            builder: Builder[Any] = self._host.driver("builder")
        except NotFound:
            return []
        return [encode_entry(entry) for entry in await builder.cache_entries()]

    async def _image_usage(self, version: Version) -> dict[str, Any]:
        images = self._engine.images.list()
        users = [c.image_id for c in self._engine.containers.list(ContainerFilter(all=True))]
        usage = await LayerUsage.of(self._host, images)
        items = [
            encode_image_summary(
                image,
                containers=users.count(image.id),
                version=version,
                shared_bytes=usage.shared_bytes(image),
            )
            for image in images
        ]
        for item in items:
            item["RepoDigests"] = item["RepoDigests"] or None
        return {"LayersSize": usage.total_bytes, "Images": items}

    async def _container_usage(self) -> list[dict[str, Any]]:
        containers = self._engine.containers
        everybody = containers.list(ContainerFilter(all=True))
        links = link_names(everybody)
        return [
            encode_summary(c, size=await containers.size(c.id), links=links.get(c.name, ()))
            for c in everybody
        ]

    async def _volume_usage(self) -> list[dict[str, Any]]:
        out = []
        for volume in await self._engine.volumes.list():
            usage = {
                "Size": await volume_size(self._host, volume),
                "RefCount": len(self._engine.volumes.users(volume.name)),
            }
            out.append({**encode_volume(volume), "UsageData": usage})
        return out


def _security_options(version: Version) -> list[str]:
    """What guards containers, as a version says it."""
    return ["seccomp"] if version < (1, 25) else ["name=seccomp,profile=builtin"]


def _limits(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Which limits containers can have."""
    limits = (
        *("MemoryLimit", "SwapLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet"),
        *("PidsLimit", "OomKillDisable"),
        *(("KernelMemoryTCP",) if facts["cgroup_version"] == "1" else ()),
    )
    return {
        **dict.fromkeys(limits, True),
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": facts["cgroup_version"],
    }


def _machine(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "NFd": facts["open_files"],
        "SystemTime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "KernelVersion": platform.release(),
        "OperatingSystem": facts["system"],
        "OSVersion": facts["system_version"],
        "OSType": "linux",
        "Architecture": platform.machine(),
        "NCPU": os.cpu_count() or 1,
        "MemTotal": facts["memory_bytes"],
        "HttpProxy": os.environ.get("HTTP_PROXY", ""),
        "HttpsProxy": os.environ.get("HTTPS_PROXY", ""),
        "NoProxy": os.environ.get("NO_PROXY", ""),
    }


def _machine_facts() -> dict[str, Any]:
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    pure_v2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    return {
        "open_files": len(list(Path("/proc/self/fd").iterdir())),
        "cgroup_version": "2" if pure_v2 else "1",
        "system": release.get("PRETTY_NAME", "Linux"),
        "system_version": release.get("VERSION_ID", ""),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    }


def _registries(insecure: tuple[str, ...], mirrors: tuple[str, ...]) -> dict[str, Any]:
    hosts = [name for name in insecure if "/" not in name]
    index = {
        name: {"Name": name, "Mirrors": [], "Secure": False, "Official": False} for name in hosts
    }
    hub = {"Name": "docker.io", "Mirrors": list(mirrors), "Secure": True, "Official": True}
    return {
        # A registry on the machine itself may always be without TLS.
        "InsecureRegistryCIDRs": sorted({"::1/128", "127.0.0.0/8", *insecure} - set(hosts)),
        "IndexConfigs": {**index, "docker.io": hub},
        "Mirrors": list(mirrors) or None,
    }
