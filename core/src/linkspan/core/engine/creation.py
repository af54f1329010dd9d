"""From what is asked, and what the image says, to a container record."""

import posixpath
import socket
from collections.abc import Sequence

import attrs

from linkspan.core.engine.checks import check_spec
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


def resolve(spec: ContainerSpec, image: Image, name: str) -> Container:
    """A new container's record; nothing is made yet.

    Raises:
        InvalidArgument: The spec contradicts itself.
    """
    check_spec(spec)
    container_id = new_id()
    config = image.config
    on_host = spec.network_mode == "host"
    hostname = spec.hostname or (socket.gethostname() if on_host else container_id[:12])
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


def resolve_args(spec: ContainerSpec, config: ImageConfig) -> tuple[str, ...]:
    """Entrypoint and command in one; an own entrypoint drops the image's command.

    Raises:
        InvalidArgument: There is neither.
    """
    if spec.entrypoint is None:
        entrypoint = config.entrypoint
        command = config.command if spec.command is None else spec.command
    else:
        entrypoint = () if spec.entrypoint == ("",) else spec.entrypoint
        # An empty one takes the image's away and keeps its command; [""] takes both away.
        command = spec.command or (() if spec.entrypoint else config.command)
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
    """The spec's over the image's; any other type than these, as ``NONE``, switches it off."""
    own, inherited = spec.healthcheck, config.healthcheck
    if own is None:
        check = inherited
    elif own.test:
        check = own
    else:
        check = attrs.evolve(own, test=inherited.test) if inherited else None
    return check if check is not None and check.test[:1] in (("CMD",), ("CMD-SHELL",)) else None


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
