"""Which containers a query selects."""

from typing import Any

import pytest

from linkspan.core.engine.selection import tests_of as conditions
from linkspan.sdk.model.container import (
    Container,
    ContainerFilter,
    ContainerSpec,
    ContainerState,
    ContainerStatus,
    Health,
    HealthStatus,
    MountPoint,
)


def container(name: str, status: str = "running", **changes: Any) -> Container:
    state = ContainerState(
        status=ContainerStatus(status),
        exit_code=changes.pop("exit_code", 0),
        health=changes.pop("health", None),
    )
    spec = ContainerSpec(image="i", network_mode=changes.pop("network", "bridge"))
    return Container(
        id=changes.pop("id", "f" * 64), name=name, created_at="", spec=spec, image_id="i",
        state=state, **changes,
    )  # fmt: skip


ALL = [
    container("web", labels={"tier": "front"}, id="a1" * 32, health=Health(status=HealthStatus.HEALTHY)),
    container("web-2", "paused", labels={"tier": "front", "x": ""}, network="own"),
    container("db", "exited", exit_code=3),
    container("new", "created"),
    container("again", "restarting", exit_code=3, mounts=(
        MountPoint(type="volume", source="", destination="/data", name="files"),
    )),
]  # fmt: skip


def select(**query: Any) -> list[str]:
    found = ALL
    for test in conditions(ContainerFilter(**query), lambda c, refs: c.image_id in refs):
        found = [c for c in found if test(c)]
    return [c.name for c in found]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, ["web", "web-2", "again"]),
        ({"all": True}, ["web", "web-2", "db", "new", "again"]),
        ({"labels": ("tier=front", "x")}, ["web-2"]),
        ({"names": ("^/web$",)}, ["web"]),
        ({"names": ("web", "db"), "all": True}, ["web", "web-2", "db"]),
        ({"names": ("(",), "all": True}, []),
        ({"ids": ("1a1",)}, ["web"]),
        ({"statuses": ("exited", "created")}, ["db", "new"]),
        ({"exited": (3,)}, ["db", "again"]),
        ({"exited": (0,)}, []),
        ({"health": ("none",)}, ["web-2", "again"]),
        ({"health": ("healthy",)}, ["web"]),
        ({"networks": ("own",)}, ["web-2"]),
        ({"volumes": ("files",)}, ["again"]),
        ({"volumes": ("/data", "/other")}, ["again"]),
        ({"ancestors": ("i",)}, ["web", "web-2", "again"]),
        ({"ancestors": ("j",), "all": True}, []),
    ],
)
def test_every_given_part_must_match(query: dict[str, Any], names: list[str]) -> None:
    assert select(**query) == names
