"""What a container's spec may ask for, on any machine: refused with Docker's texts, before anything is made.

What depends on the machine is the runtime's to check (``Runtime.check``).
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from linkspan.core.engine.signal_names import signal_number
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.log_tags import check_log_tag
from linkspan.sdk.model.container import ContainerSpec, RestartPolicy
from linkspan.sdk.model.image import Image, Platform
from linkspan.sdk.platform import (
    host_platform,
    match_rank,
    normalize_platform,
    other_platform,
    parse_platform,
)
from linkspan.sdk.units import parse_size

MEMORY_MINIMUM_BYTES: Final = 6 << 20
LOG_DRIVERS: Final = ("json-file", "local", "none")
_LOG_OPTIONS: Final = frozenset(
    "max-size max-file compress labels labels-regex env env-regex tag mode max-buffer-size".split()  # noqa: SIM905
)
_LOCAL_SIZE_BYTES: Final = 20 << 20
_LOCAL_FILES: Final = 5
# Rotation keeps one file open for each container; more would help nobody.
_MOST_LOG_FILES: Final = 10_000
_TMPFS_FLAGS: Final = frozenset(
    (  # noqa: SIM905
        "defaults ro rw suid nosuid dev nodev exec noexec sync async dirsync remount mand nomand atime "
        "noatime diratime nodiratime bind rbind unbindable runbindable private rprivate shared rshared "
        "slave rslave relatime norelatime strictatime nostrictatime"
    ).split()
)
_TMPFS_VALUES: Final = frozenset("mode uid gid size nr_inodes nr_blocks mpol huge".split())  # noqa: SIM905


def check_spec(spec: ContainerSpec) -> None:
    """Refuse what is malformed or contradicts itself.

    Raises:
        InvalidArgument: With Docker's text.
    """
    for check in (
        _check_process,
        _check_restart,
        _check_limits,
        _check_namespaces,
        _check_network,
        _check_tmpfs,
        _check_health,
    ):
        check(spec)
    log_limits(spec)


def check_platform(spec: ContainerSpec, image: Image) -> None:
    """Refuse an image that is of another platform than asked for.

    Raises:
        InvalidArgument: What is asked for is no platform.
        NotFound: code ``image_not_found``: clients pull the right one then.
    """
    if not spec.platform:
        return
    wanted, actual = parse_platform(spec.platform), image.config.platform
    if match_rank(wanted, normalize_platform(actual)) is None:
        raise other_platform(
            spec.image,
            actual,
            wanted,
            code="image_not_found",
            help=f"linkspan pull --platform {spec.platform} {spec.image}",
        )


def platform_warnings(spec: ContainerSpec, image: Image) -> tuple[str, ...]:
    """What is said of an image of another platform that nobody has asked for."""
    if spec.platform:
        return ()
    return _warning(image.config.platform, host_platform())


@lru_cache(64)
def _warning(platform: Platform, host: Platform) -> tuple[str, ...]:
    actual = normalize_platform(platform)
    if not actual.architecture or match_rank(host, actual) is not None:
        return ()
    return (
        f"The requested image's platform ({actual}) does not match the detected host platform ({host}) and"
        " no specific platform was requested",
    )


def _check_process(spec: ContainerSpec) -> None:
    if spec.working_dir and not spec.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{spec.working_dir}' is invalid, it needs to be an absolute path"
        )
    if spec.stop_signal:
        signal_number(spec.stop_signal)
    if not -1000 <= spec.oom_score_adj <= 1000:
        raise InvalidArgument(
            f"Invalid value {spec.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    if spec.shm_size_bytes < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    for size in spec.console_size:
        if not 0 <= size <= 0xFFFF:
            raise InvalidArgument(f"a terminal of {size} rows or columns is not possible")


def _check_restart(spec: ContainerSpec) -> None:
    if spec.auto_remove and spec.restart.name != "no":
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")
    check_restart(spec.restart)


def check_restart(policy: RestartPolicy) -> None:
    """Refuse a policy that contradicts itself. Raises InvalidArgument."""
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidArgument(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )


def _check_limits(spec: ContainerSpec) -> None:
    limits = spec.resources
    memory, swap = limits.memory_bytes, limits.memory_swap_bytes
    reservation = limits.memory_reservation_bytes
    swappiness = limits.memory_swappiness
    weight = limits.blkio_weight
    for wrong, text in (
        (0 < memory < MEMORY_MINIMUM_BYTES or memory < 0, "Minimum memory limit allowed is 6MB"),
        (
            swap > 0 and not memory,
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            0 < swap < memory,
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            swappiness is not None and not 0 <= swappiness <= 100,
            f"Invalid value: {swappiness}, valid memory swappiness range is 0-100",
        ),
        (
            0 < reservation < MEMORY_MINIMUM_BYTES or reservation < 0,
            "Minimum memory reservation allowed is 6MB",
        ),
        (
            0 < memory < reservation,
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        (
            limits.cpu_shares < 0,
            f"invalid CPU shares ({limits.cpu_shares}): value must be a positive integer",
        ),
        (
            bool(limits.cpu_realtime_runtime_us)
            and limits.cpu_realtime_runtime_us > limits.cpu_realtime_period_us > 0,
            "cpu real-time runtime cannot be higher than cpu real-time period",
        ),
        (weight != 0 and not 10 <= weight <= 1000, "Range of blkio weight is from 10 to 1000"),
    ):
        if wrong:
            raise InvalidArgument(text)


def _check_mode(
    title: str, mode: str, *known: str, container: bool = False, reason: str = ""
) -> None:
    if mode in ("", *known):
        return
    if container and mode.startswith("container:") and len(mode) > len("container:"):
        return
    raise InvalidArgument(reason or f"invalid {title} mode: {mode}")


def _check_namespaces(spec: ContainerSpec) -> None:
    _check_mode("IPC", spec.ipc_mode, "none", "private", "shareable", "host", container=True)
    _check_mode("PID", spec.pid_mode, "host", container=True)
    _check_mode("UTS", spec.uts_mode, "host")
    _check_mode("user namespace", spec.userns_mode, "host")
    _check_mode("cgroup namespace", spec.cgroupns_mode, "host", "private")
    if spec.uts_mode == "host" and spec.hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if len(spec.hostname) > 63:
        raise InvalidArgument(f"invalid hostname '{spec.hostname}': it has more than 63 characters")
    if len(spec.domainname) > 64:
        raise InvalidArgument(
            f"invalid domain name '{spec.domainname}': it has more than 64 characters"
        )


def _check_network(spec: ContainerSpec) -> None:
    mode = spec.network_mode
    if mode == "container:":
        raise InvalidArgument("invalid network mode: invalid container format container:<name|id>")
    links = any(endpoint.links for endpoint in spec.networks.values())
    if mode == "host" and links:
        raise InvalidArgument(
            "conflicting options: host type networking can't be used with links. This would result in "
            "undefined behavior"
        )
    if mode.startswith("container:"):
        _check_joined_network(spec, links=links)
    for text in spec.extra_hosts:
        _check_extra_host(text)
    for address in spec.dns:
        if _not_an_address(address):
            raise InvalidArgument(f"bad nameserver address {address}")


def _check_joined_network(spec: ContainerSpec, *, links: bool) -> None:
    for wrong, text in (
        (spec.hostname, "hostname and the network mode"),
        (
            links,
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        (spec.dns, "dns and the network mode"),
        (spec.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (
            any(endpoint.mac_address for endpoint in spec.networks.values()),
            "mac-address and the network mode",
        ),
        (
            spec.ports or spec.publish_all,
            "port publishing and the container type network mode",
        ),
        (spec.exposed_ports, "port exposing and the container type network mode"),
    ):
        if wrong:
            raise InvalidArgument(f"conflicting options: {text}")


def _check_extra_host(text: str) -> None:
    name, sign, address = text.partition("=" if "=" in text else ":")
    if not sign or not name or not address:
        raise InvalidArgument(f'bad format for add-host: "{text}"')
    if address != "host-gateway" and _not_an_address(address.strip("[]")):
        raise InvalidArgument(f'invalid IP address in add-host: "{address}"')


def _not_an_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return True
    return False


def _check_tmpfs(spec: ContainerSpec) -> None:
    for options in spec.tmpfs.values():
        for option in filter(None, options.split(",")):
            name, sign, _ = option.partition("=")
            if name not in (_TMPFS_VALUES if sign else _TMPFS_FLAGS):
                raise InvalidArgument(f'invalid tmpfs option "{name}"', code="invalid_mount")
    for mount in spec.mounts:
        if mount.size_bytes < 0:
            raise InvalidArgument(
                'invalid mount config for type "tmpfs": SizeBytes must not be negative',
                code="invalid_mount",
            )


def _check_health(spec: ContainerSpec) -> None:
    test = spec.healthcheck.test if spec.healthcheck is not None else ()
    if len(test) == 1 and test[0] in ("CMD", "CMD-SHELL"):
        raise InvalidArgument(f"the healthcheck of type {test[0]} names no command")


def log_limits(spec: ContainerSpec) -> tuple[int, int]:
    """Bytes of one log file and number of files; (0, 1) is one file without a limit.

    Raises:
        InvalidArgument: The driver or an option is unknown, or a value is wrong.
    """
    driver, options = spec.log_driver or "json-file", spec.log_options
    if driver not in LOG_DRIVERS:
        raise InvalidArgument(
            f'error looking up logging plugin {driver}: plugin "{driver}" not found',
            help=f"log drivers here: {', '.join(LOG_DRIVERS)}",
        )
    if driver == "none":
        return 0, 1
    for name in options:
        if name not in _LOG_OPTIONS:
            whose = "log driver local" if driver == "local" else f"{driver} log driver"
            raise InvalidArgument(f"unknown log opt '{name}' for {whose}")
    _check_log_mode(options)
    check_log_tag(spec)
    local = driver == "local"
    size = _LOCAL_SIZE_BYTES if local else 0
    if text := options.get("max-size", ""):
        size = 0 if text == "-1" else _log_size(text)
    files = _log_number(options, "max-file", _LOCAL_FILES if local else 1)
    if not 1 <= files <= _MOST_LOG_FILES:
        raise _no_log(
            "max-file cannot be less than 1"
            if files < 1
            else f"max-file: at most {_MOST_LOG_FILES}"
        )
    if (compress := options.get("compress", "false")) not in ("true", "false", "1", "0"):
        raise _no_log(
            f'error reading compress log option: strconv.ParseBool: parsing "{compress}":'
            " invalid syntax"
        )
    if not local and options.get("compress") in ("true", "1") and (files < 2 or not size):
        raise InvalidArgument(
            "compress cannot be true when max-file is less than 2 or max-size is not set"
        )
    return size, files


def _no_log(why: str) -> InvalidArgument:
    return InvalidArgument(f"failed to initialize logging driver: {why}")


def _log_size(text: str) -> int:
    try:
        return parse_size(text)
    except InvalidArgument as error:
        raise error.within("failed to initialize logging driver") from error


def _check_log_mode(options: Mapping[str, str]) -> None:
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidArgument(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
            )
        parse_size(options["max-buffer-size"])
    for name in ("labels-regex", "env-regex"):
        try:
            re.compile(options.get(name, ""))
        except re.error as error:
            raise InvalidArgument(f"invalid value for {name}: {error}") from error


def _log_number(options: Mapping[str, str], name: str, default: int) -> int:
    text = options.get(name, "")
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise _no_log(f'strconv.Atoi: parsing "{text}": invalid syntax') from None
