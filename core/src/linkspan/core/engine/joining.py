"""What a container takes of others when it starts: their namespaces, and by links their addresses."""

from collections.abc import Callable, Iterator

import attrs

from linkspan.core.engine.entry import Entry
from linkspan.core.engine.names import not_found
from linkspan.sdk.drivers.network import Sandbox
from linkspan.sdk.errors import Conflict, NotFound
from linkspan.sdk.links import link_parts
from linkspan.sdk.model.container import Container, ContainerSpec

Find = Callable[[str], Entry | None]
"""An entry by name or id."""

_OWN_IPC = ("", "private", "none")
# Docker leaves these out of what a link tells: they are every image's own.
_UNTOLD = ("HOME", "PATH")


def with_ids(find: Find, spec: ContainerSpec) -> ContainerSpec:
    """Containers whose namespaces are joined by their ids: a name may change its owner. Raises NotFound."""
    modes = (spec.pid_mode, spec.ipc_mode, spec.network_mode)
    if not any(mode.startswith("container:") for mode in modes):
        return spec
    return attrs.evolve(
        spec,
        pid_mode=_with_id(find, spec.pid_mode),
        ipc_mode=_with_id(find, spec.ipc_mode),
        # Docker looks for this one only at the start.
        network_mode=_with_id(find, spec.network_mode, needed=False),
    )


def _with_id(find: Find, mode: str, *, needed: bool = True) -> str:
    if not mode.startswith("container:"):
        return mode
    ref = mode.removeprefix("container:")
    entry = find(ref)
    if entry is None and needed:
        raise not_found("container", ref)
    return mode if entry is None else f"container:{entry.container.id}"


def joined(find: Find, ref: str) -> Container:
    """A running container whose namespace another one joins. Raises NotFound, Conflict."""
    entry = find(ref)
    if entry is None:
        raise NotFound(f"No such container: {ref}")
    if not entry.container.state.running:
        raise Conflict(
            f"cannot join network of a non running container: {entry.container.id}",
            code="not_running",
        )
    return entry.container


def joined_sandbox(find: Find, container_id: str, mode: str) -> Sandbox:
    """The network of another container, by the mode ``container:REF``. Raises NotFound, Conflict."""
    try:
        other = joined(find, mode.removeprefix("container:"))
    except NotFound as error:
        raise error.within("joining network namespace of container") from error
    return Sandbox(
        container_id=container_id,
        namespace=other.sandbox_key or None,
        files=dict(other.files),
    )


def shared(find: Find, mode: str) -> str:
    """``host``, ``none``, a container's id, or nothing for a namespace of its own."""
    if mode.startswith("container:"):
        return joined(find, mode.removeprefix("container:")).id
    return mode if mode in ("host", "none") else ""


def shared_ipc(find: Find, mode: str) -> str:
    """As ``shared``; a container's own shared memory is lent only if it is said to be shareable.

    Raises:
        Conflict: code ``ipc_not_shareable``.
    """
    found = shared(find, mode)
    if not mode.startswith("container:"):
        return found
    donor = joined(find, found)
    if donor.spec.ipc_mode in _OWN_IPC:
        raise Conflict(
            f"can't join IPC of container {donor.id}: non-shareable IPC (hint: use IpcMode:shareable for"
            " the donor container)",
            code="ipc_not_shareable",
        )
    return found


def link_environment(find: Find, container: Container) -> tuple[str, ...]:
    """What Docker's links set in a container of the default network: ``DB_PORT``, ``DB_NAME``, ….

    Raises:
        Conflict: A linked container does not run.
    """
    if container.spec.network_mode not in ("", "default", "bridge"):
        return ()
    found: list[str] = []
    for name, settings in container.spec.networks.items():
        if name in ("default", "bridge"):
            for link in settings.links:
                found += _variables(find, container, link)
    return tuple(found)


def _variables(find: Find, container: Container, link: str) -> Iterator[str]:
    ref, alias = link_parts(link)
    entry = find(ref)
    if entry is None:
        raise NotFound(f"No such container: {ref}")
    target = entry.container
    if not target.state.running:
        raise Conflict(
            f"Cannot link to a non running container: /{target.name} AS /{container.name}/{alias}",
            code="not_running",
        )
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
