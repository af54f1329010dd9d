"""From what is asked, and what the image says, to a container record."""

import posixpath
from collections.abc import Sequence

import attrs

from linkspan.core.engine.names import new_id
from linkspan.sdk.clock import rfc3339
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.container import (
    Container,
    ContainerSpec,
    Healthcheck,
)
from linkspan.sdk.model.image import Image, ImageConfig
from linkspan.sdk.model.network import PortBinding

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MEMORY_MINIMUM_BYTES = 6 << 20


def resolve(spec: ContainerSpec, image: Image, name: str) -> Container:
    """A new container's record; nothing is made yet.

    Raises:
        InvalidArgument: The spec contradicts itself.
    """
    check_spec(spec)
    container_id = new_id()
    config = image.config
    hostname = spec.hostname or container_id[:12]
    return Container(
        id=container_id,
        name=name,
        created_at=rfc3339(),
        spec=spec,
        image_id=image.id,
        args=resolve_args(spec, config),
        env=resolve_env(spec, config, hostname),
        working_dir=posixpath.normpath(spec.working_dir or config.working_dir or "/"),
        user=spec.user or config.user,
        stop_signal=spec.stop_signal or config.stop_signal or "SIGTERM",
        healthcheck=resolve_healthcheck(spec, config),
        hostname=hostname,
        labels={**config.labels, **spec.labels},
        exposed_ports=tuple(dict.fromkeys((*spec.exposed_ports, *config.exposed_ports))),
        runtime=spec.runtime,
    )


def check_spec(spec: ContainerSpec) -> None:
    """Refuse what contradicts itself, with Docker's texts."""
    if spec.auto_remove and spec.restart.name != "no":
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")
    if spec.restart.maximum_retry_count and spec.restart.name != "on-failure":
        raise InvalidArgument(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    memory = spec.resources.memory_bytes
    if memory and memory < MEMORY_MINIMUM_BYTES:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if spec.resources.memory_swap_bytes > 0 and not memory:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit")
    if 0 < spec.resources.memory_swap_bytes < memory:
        raise InvalidArgument(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    if spec.working_dir and not spec.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{spec.working_dir}' is invalid, it needs to be an absolute path"
        )
    if spec.log_driver not in ("", "json-file", "local", "none"):
        raise InvalidArgument(
            f"logger: no log driver named '{spec.log_driver}' is registered",
            help="log drivers here: json-file, local, none",
        )
    shares = spec.network_mode.startswith("container:")
    if shares and (spec.hostname or spec.ports or spec.dns or spec.extra_hosts or spec.publish_all):
        raise InvalidArgument(
            "conflicting options: hostname, ports, dns or extra hosts and the network mode "
            f"'{spec.network_mode}'"
        )


def resolve_args(spec: ContainerSpec, config: ImageConfig) -> tuple[str, ...]:
    """Entrypoint and command in one; an own entrypoint drops the image's command."""
    if spec.entrypoint is None:
        entrypoint = config.entrypoint
        command = config.command if spec.command is None else spec.command
    else:
        entrypoint = () if spec.entrypoint == ("",) else spec.entrypoint
        command = spec.command or ()
    args = (*entrypoint, *command)
    if not args:
        raise InvalidArgument("no command specified", help="name one behind the image")
    return args


def resolve_env(spec: ContainerSpec, config: ImageConfig, hostname: str) -> tuple[str, ...]:
    """PATH, HOSTNAME, TERM, then the image's, then the user's; a bare name takes one away."""
    env: dict[str, str] = {}
    defaults = (DEFAULT_PATH, f"HOSTNAME={hostname}", *(("TERM=xterm",) if spec.tty else ()))
    for entry in (*defaults, *config.env, *spec.env):
        key, equals, _ = entry.partition("=")
        if not key:
            raise InvalidArgument(f"invalid environment variable: {entry}")
        if equals:
            env[key] = entry
        else:
            env.pop(key, None)
    return tuple(env.values())


def resolve_healthcheck(spec: ContainerSpec, config: ImageConfig) -> Healthcheck | None:
    """The spec's over the image's; ``NONE`` switches it off."""
    own, inherited = spec.healthcheck, config.healthcheck
    if own is None:
        check = inherited
    elif own.test:
        check = own
    else:
        check = attrs.evolve(own, test=inherited.test) if inherited else None
    return None if check is None or check.test[:1] == ("NONE",) else check


def wanted_ports(container: Container) -> tuple[PortBinding, ...]:
    """Ports to publish; with ``publish_all`` each exposed one that is not published yet.

    Raises:
        InvalidArgument: An exposed port is no port.
    """
    ports: list[PortBinding] = list(container.spec.ports)
    if container.spec.publish_all:
        have = {(p.container_port, p.protocol) for p in ports}
        ports += [
            p
            for p in exposed(container.exposed_ports)
            if (p.container_port, p.protocol) not in have
        ]
    return tuple(ports)


def exposed(texts: Sequence[str]) -> list[PortBinding]:
    """``80/tcp``, ``8000-8002/udp`` as bindings without a host port."""
    found: list[PortBinding] = []
    for text in texts:
        numbers, _, protocol = text.partition("/")
        first, _, last = numbers.partition("-")
        if (
            protocol not in ("", "tcp", "udp", "sctp")
            or not first.isdecimal()
            or not (last or first).isdecimal()
        ):
            raise InvalidArgument(f"invalid exposed port: {text}")
        for port in range(int(first), int(last or first) + 1):
            if protocol == "udp":
                found.append(PortBinding(container_port=port, protocol="udp"))
            elif protocol == "sctp":
                found.append(PortBinding(container_port=port, protocol="sctp"))
            else:
                found.append(PortBinding(container_port=port))
    return found
