"""What a client wrote of a service that means the same as leaving it out: Docker shows it all the same.

Kept as paths in the JSON of the service, with the number or word that was written; None stands for an object.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from linkspan.plugins.docker_api.document import Document

Said = Mapping[str, int | str | None]

_TASK = "TaskTemplate"
_CONTAINER = "TaskTemplate.ContainerSpec"
_OBJECTS = (
    (_TASK, ("Resources", "Placement", "LogDriver")),
    (f"{_TASK}.Resources", ("Limits", "Reservations")),
    (_CONTAINER, ("DNSConfig", "Healthcheck", "Privileges")),
    (f"{_CONTAINER}.Privileges", ("SELinuxContext",)),
)
_VALUES = (
    (f"{_TASK}.RestartPolicy", "Delay"),
    (_CONTAINER, "StopGracePeriod"),
    ("UpdateConfig", "Monitor"),
    ("RollbackConfig", "Monitor"),
)
_OF_MOUNTS = ("VolumeOptions", "TmpfsOptions")
_LISTS = ("Mounts", "Ports")
_NO_PRIVILEGES = {"CredentialSpec": None, "SELinuxContext": None, "NoNewPrivileges": False}
_NO_CONTEXT = {"Disable": False, "User": "", "Role": "", "Type": "", "Level": ""}


def read_said(service: Document) -> dict[str, int | str | None]:
    """What to keep of a ServiceSpec. Raises InvalidArgument for a value of another type."""
    return dict(_read(service))


def _read(service: Document) -> Iterator[tuple[str, int | str | None]]:
    for path, names in _OBJECTS:
        part = _part(service, path)
        yield from ((f"{path}.{name}", None) for name in names if name in part)
    for path, name in _VALUES:
        # A zero is shown as a value that counts, or not at all.
        if number := _part(service, path).number(name):
            yield f"{path}.{name}", number
    if mode := _part(service, f"{_CONTAINER}.Privileges.AppArmor").text("Mode"):
        yield f"{_CONTAINER}.Privileges.AppArmor.Mode", mode
    for at, mount in enumerate(_part(service, _CONTAINER).documents("Mounts")):
        path = f"{_CONTAINER}.Mounts.{at}"
        yield from ((f"{path}.{name}", None) for name in _OF_MOUNTS if name in mount)
        if "DriverConfig" in mount.document("VolumeOptions"):
            yield f"{path}.VolumeOptions.DriverConfig", None
    for at, port in enumerate(service.document("EndpointSpec").documents("Ports")):
        if name := port.text("Name"):
            yield f"EndpointSpec.Ports.{at}.Name", name


def _part(body: Document, path: str) -> Document:
    for name in path.split("."):
        body = body.document(name)
    return body


def put_back(service: dict[str, Any], said: Said) -> None:
    """Write what was kept into a ServiceSpec that is to be shown."""
    for path, value in said.items():
        *names, last = path.split(".")
        place = _place(service, names)
        if place is not None and value is None:
            place.setdefault(last, {})
        elif place is not None:
            place[last] = value


def _place(service: dict[str, Any], names: list[str]) -> dict[str, Any] | None:
    """What a path leads to, made if need be; None if what it is a part of is gone meanwhile."""
    place: Any = service if names[0] in service else None
    for name in names:
        if isinstance(place, dict):
            place = place.get(name) if name in _LISTS else place.setdefault(name, {})
        elif isinstance(place, list):
            place = place[int(name)] if int(name) < len(place) else None
    return place if isinstance(place, dict) else None


def fill_privileges(container: dict[str, Any]) -> None:
    """Of privileges Docker shows also what they are not."""
    if "Privileges" in container:
        found = {**_NO_PRIVILEGES, **container["Privileges"]}
        if found["SELinuxContext"] is not None:
            found["SELinuxContext"] = {**_NO_CONTEXT, **found["SELinuxContext"]}
        container["Privileges"] = found
