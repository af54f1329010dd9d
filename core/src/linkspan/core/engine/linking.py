"""Links on the default network: whom each leads to, what it tells, and who hears when that changes.

A link leads to the container that had the name when the link was made, also under another name later, and
to nobody once that one is gone: whoever gets its name or its address is another.
"""

from collections.abc import Callable, Iterator

import attrs

from linkspan.core.engine.entry import Entry
from linkspan.sdk.errors import Conflict, NotFound
from linkspan.sdk.links import link_parts, links_of
from linkspan.sdk.model.container import Container, ContainerSpec

Find = Callable[[str], Entry | None]
"""An entry by name or id."""

# Docker leaves these out of what a link tells: they are every image's own.
_UNTOLD = ("HOME", "PATH")


def with_link_ids(find: Find, spec: ContainerSpec) -> ContainerSpec:
    """The spec with the ids of the containers that its links lead to, of those that there are."""
    parts = map(link_parts, links_of(spec))
    ids = {alias: entry.container.id for ref, alias in parts if (entry := find(ref)) is not None}
    return attrs.evolve(spec, link_ids=ids) if ids else spec


def living_links(find: Find, spec: ContainerSpec) -> tuple[str, ...]:
    """Its links to containers that run, by the names that these have now."""
    return tuple(
        f"{entry.container.name}:{link_parts(link)[1]}"
        for link in links_of(spec)
        if (entry := _target(find, spec, link)) is not None and entry.container.state.running
    )


class Links:
    """Who has links to whom."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._linkers: dict[str, set[str]] = {}

    def note(self, container: Container) -> None:
        """A container with its links is there."""
        for link in links_of(container.spec):
            target = _target(self._find, container.spec, link)
            if target is not None:
                self._linkers.setdefault(target.container.id, set()).add(container.id)

    def forget(self, container: Container) -> None:
        """A container is gone."""
        self._linkers.pop(container.id, None)
        if links_of(container.spec):
            for linkers in self._linkers.values():
                linkers.discard(container.id)

    def linkers(self, container_id: str) -> list[Entry]:
        """Those that have a link to a container."""
        found = map(self._find, sorted(self._linkers.get(container_id, ())))
        return [entry for entry in found if entry is not None]


def _target(find: Find, spec: ContainerSpec, link: str) -> Entry | None:
    ref, alias = link_parts(link)
    return find(spec.link_ids.get(alias, ref))


def link_environment(find: Find, container: Container) -> tuple[str, ...]:
    """What Docker's links set in a container of the default network: ``DB_PORT``, ``DB_NAME``, ….

    Raises:
        Conflict: A linked container does not run.
    """
    if container.spec.network_mode not in ("", "default", "bridge"):
        return ()
    found: list[str] = []
    for link in links_of(container.spec):
        found += _variables(find, container, link)
    return tuple(found)


def _variables(find: Find, container: Container, link: str) -> Iterator[str]:
    ref, alias = link_parts(link)
    entry = _target(find, container.spec, link)
    if entry is None and alias not in container.spec.link_ids:
        raise NotFound(f"No such container: {ref}")
    if entry is None or not entry.container.state.running:
        raise Conflict(
            f"Cannot link to a non running container: /{ref} AS /{container.name}/{alias}",
            code="not_running",
        )
    target = entry.container
    own = (e.ipv4_address for e in target.endpoints if e.network_name == "bridge")
    address = next(own, "")
    prefix = alias.upper().replace("-", "_")
    for at, text in enumerate(sorted(target.exposed_ports, key=_port_order)):
        port, _, protocol = text.partition("/")
        protocol = protocol or "tcp"
        url = f"{protocol}://{address}:{port}"
        key = f"{prefix}_PORT_{port}_{protocol.upper()}"
        if at == 0:
            yield f"{prefix}_PORT={url}"
        yield f"{key}={url}"
        yield f"{key}_ADDR={address}"
        yield f"{key}_PORT={port}"
        yield f"{key}_PROTO={protocol}"
    yield f"{prefix}_NAME=/{container.name}/{alias}"
    automatic = {f"HOSTNAME={target.hostname}", "TERM=xterm"}.difference(target.spec.env)
    for variable in target.env:
        name, _, value = variable.partition("=")
        if name not in _UNTOLD and variable not in automatic:
            yield f"{prefix}_ENV_{name}={value}"


def _port_order(text: str) -> tuple[bool, int]:
    """TCP before others, then by number."""
    port, _, protocol = text.partition("/")
    first = port.partition("-")[0]
    return protocol not in ("", "tcp"), int(first) if first.isdecimal() else 0
