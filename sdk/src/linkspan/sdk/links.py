"""Docker's links between containers: ``db:database`` in ``EndpointSpec.links``.

On the default network a link is a thing of its own: it tells variables, follows a container that is renamed and
can be taken away. On others it is a name like an alias.
"""

from collections.abc import Callable
from typing import Final

import attrs

from linkspan.sdk.errors import NotFound
from linkspan.sdk.model.container import ContainerSpec

_DEFAULT_NETWORK: Final = ("bridge", "default")


def links_of(spec: ContainerSpec) -> tuple[str, ...]:
    """Its links on the default network."""
    return tuple(
        link
        for name in _DEFAULT_NETWORK
        if name in spec.networks
        for link in spec.networks[name].links
    )


def link_parts(link: str) -> tuple[str, str]:
    """The other container, by name or id, and what it is called; that is its own name if nothing is said."""
    ref, _, alias = link.partition(":")
    return ref.removeprefix("/"), (alias or ref).rpartition("/")[2]


def without_link(spec: ContainerSpec, alias: str) -> ContainerSpec:
    """The spec without the links of this name on the default network.

    Raises:
        NotFound: It has none.
    """
    changed = _with_links(
        spec, lambda links: tuple(link for link in links if link_parts(link)[1] != alias)
    )
    if changed == spec:
        raise NotFound(f"there is no link {alias}", code="link_not_found")
    ids = {name: target for name, target in spec.link_ids.items() if name != alias}
    return attrs.evolve(changed, link_ids=ids)


def with_renamed(spec: ContainerSpec, old: str, new: str) -> ContainerSpec:
    """The spec whose links on the default network lead to a container under its new name."""

    def renamed(link: str) -> str:
        ref, alias = link_parts(link)
        return f"{new}:{alias}" if ref == old else link

    return _with_links(spec, lambda links: tuple(map(renamed, links)))


def _with_links(
    spec: ContainerSpec, change: Callable[[tuple[str, ...]], tuple[str, ...]]
) -> ContainerSpec:
    networks = {
        name: attrs.evolve(settings, links=change(settings.links))
        if name in _DEFAULT_NETWORK
        else settings
        for name, settings in spec.networks.items()
    }
    return spec if networks == dict(spec.networks) else attrs.evolve(spec, networks=networks)
