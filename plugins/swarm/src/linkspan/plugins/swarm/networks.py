"""Networks of services: recorded by id, so that a service stays in the network that it was made for."""

import logging
from collections.abc import Callable

import attrs

from linkspan.sdk.errors import InvalidArgument, LinkspanError, NotFound
from linkspan.sdk.host import Host
from linkspan.sdk.model.service import ServiceSpec

log = logging.getLogger("linkspan.swarm.networks")


class ServiceNetworks:
    """Between the names that clients write, ids that are recorded, and names that containers join."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def recorded(self, spec: ServiceSpec, before: ServiceSpec | None = None) -> ServiceSpec:
        """A spec with the ids of its networks; those that it had ``before`` may be gone.

        Raises:
            NotFound: There is no such network; code ``network_not_found``.
            InvalidArgument: No task could ever be in these networks at once.
        """
        if before is None or spec.networks != before.networks:
            spec = _renamed(spec, self._id)
        names = [self._name(ref) for ref in spec.networks]
        if "host" in names:
            _check_on_host(spec, names)
        return spec

    def joined(self, spec: ServiceSpec) -> ServiceSpec:
        """A spec with the names of its networks, as far as they are there still."""
        return _renamed(spec, self._name)

    def _name(self, ref: str) -> str:
        try:
            return self._host.engine.networks.inspect(ref).name
        except NotFound:
            return ref  # The container's error says so.

    def _id(self, ref: str) -> str:
        if ref == "none":
            raise NotFound(
                "could not find the corresponding predefined swarm network: network none not found",
                code="network_not_found",
            )
        try:
            return self._host.engine.networks.inspect(ref).id
        except NotFound as error:
            raise NotFound(
                f"network {ref} not found",
                code="network_not_found",
                help=f"linkspan network create {ref}",
            ) from error

    async def remove_all(self) -> None:
        """Networks of a swarm end with it, but for those that containers are in still."""
        networks = self._host.engine.networks
        for network in list(networks.list()):
            if network.scope == "swarm":
                try:
                    await networks.remove(network.id)
                except LinkspanError as error:
                    log.warning(
                        "network stays", extra={"network": network.name, "reason": str(error)}
                    )


def _check_on_host(spec: ServiceSpec, names: list[str]) -> None:
    if len(names) > 1:
        raise InvalidArgument(
            f"service {spec.name}: tasks on the network of the host cannot be in another one",
            help=f"without {', '.join(name for name in names if name != 'host')}",
        )
    if any(port.mode == "ingress" for port in spec.ports):
        raise InvalidArgument(
            f"service {spec.name}: tasks on the network of the host have its ports: none can lead to them",
            help="publish no port",
        )


def _renamed(spec: ServiceSpec, rename: Callable[[str], str]) -> ServiceSpec:
    if not spec.networks:
        return spec
    container = attrs.evolve(
        spec.container,
        networks={rename(ref): endpoint for ref, endpoint in spec.container.networks.items()},
    )
    return attrs.evolve(
        spec, networks=tuple(rename(ref) for ref in spec.networks), container=container
    )
