"""Docker's links between containers: ``db:database`` in ``EndpointSpec.links``."""

import attrs

from linkspan.sdk.errors import NotFound
from linkspan.sdk.model.container import ContainerSpec


def link_parts(link: str) -> tuple[str, str]:
    """The other container, by name or id, and what it is called; that is its own name if nothing is said."""
    ref, _, alias = link.partition(":")
    return ref.removeprefix("/"), (alias or ref).rpartition("/")[2]


def without_link(spec: ContainerSpec, alias: str) -> ContainerSpec:
    """The spec without the links of this name.

    Raises:
        NotFound: It has none.
    """
    networks = {
        name: attrs.evolve(
            settings, links=tuple(link for link in settings.links if link_parts(link)[1] != alias)
        )
        for name, settings in spec.networks.items()
    }
    if networks == dict(spec.networks):
        raise NotFound(f"there is no link {alias}", code="link_not_found")
    return attrs.evolve(spec, networks=networks)
