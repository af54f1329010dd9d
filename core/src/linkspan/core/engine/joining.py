"""What a container takes of others when it starts: their namespaces."""

from collections.abc import Callable

import attrs

from linkspan.core.engine.entry import Entry
from linkspan.core.engine.names import not_found
from linkspan.sdk.drivers.network import Sandbox
from linkspan.sdk.errors import Conflict, NotFound
from linkspan.sdk.model.container import Container, ContainerSpec

Find = Callable[[str], Entry | None]
"""An entry by name or id."""

_OWN_IPC = ("", "private", "none")


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


def _joined(find: Find, ref: str, kind: str) -> Container:
    """A running container whose namespace another one joins. Raises NotFound, Conflict."""
    entry = find(ref)
    if entry is None:
        raise NotFound(f"No such container: {ref}")
    found = entry.container
    if not found.state.running:
        raise Conflict(
            "cannot join network namespace of a non running container: container"
            f" {found.name} is {found.state.status.value}"
            if kind == "network"
            else f"failed to join {kind} namespace: container {found.id} is not running",
            code="not_running",
        )
    return found


def joined_sandbox(find: Find, container_id: str, mode: str) -> Sandbox:
    """The network of another container, by the mode ``container:REF``. Raises NotFound, Conflict."""
    try:
        other = _joined(find, mode.removeprefix("container:"), "network")
    except NotFound as error:
        raise error.within("joining network namespace of container") from error
    return Sandbox(
        container_id=container_id,
        namespace=other.sandbox_key or None,
        files=dict(other.files),
    )


def shared(find: Find, mode: str, kind: str) -> str:
    """``host``, ``none``, a container's id, or nothing for a namespace of its own.

    Args:
        kind: Of the namespace, for the error: ``PID``.
    """
    if mode.startswith("container:"):
        return _joined(find, mode.removeprefix("container:"), kind).id
    return mode if mode in ("host", "none") else ""


def shared_ipc(find: Find, mode: str) -> str:
    """As ``shared``; a container's own shared memory is lent only if it is said to be shareable.

    Raises:
        Conflict: code ``ipc_not_shareable``.
    """
    found = shared(find, mode, "IPC")
    if not mode.startswith("container:"):
        return found
    donor = _joined(find, found, "IPC")
    if donor.spec.ipc_mode in _OWN_IPC:
        raise Conflict(
            f"can't join IPC of container {donor.id}: non-shareable IPC (hint: use IpcMode:shareable for"
            " the donor container)",
            code="ipc_not_shareable",
        )
    return found
