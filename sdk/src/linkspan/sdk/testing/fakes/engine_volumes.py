"""Volumes of the engine in memory."""

import secrets
from collections.abc import Sequence

import trio

from linkspan.sdk.clock import rfc3339
from linkspan.sdk.errors import (
    Conflict,
    NotFound,
)
from linkspan.sdk.model.volume import Volume, VolumeSpec
from linkspan.sdk.testing.fakes.engine_records import ContainerBook


class FakeVolumes:
    """Volumes in a book."""

    def __init__(self, book: ContainerBook) -> None:
        self._book = book
        self._volumes: dict[str, Volume] = {}

    async def create(self, spec: VolumeSpec) -> Volume:
        await trio.lowlevel.checkpoint()
        name = spec.name or secrets.token_hex(32)
        if name not in self._volumes:
            self._volumes[name] = Volume(
                name=name,
                driver=spec.driver or "local",
                mountpoint=f"/volumes/{name}/_data",
                created_at=rfc3339(),
                options=spec.options,
                labels=spec.labels,
                anonymous=not spec.name,
            )
        return self._volumes[name]

    async def inspect(self, name: str) -> Volume:
        await trio.lowlevel.checkpoint()
        if name not in self._volumes:
            raise NotFound(f"get {name}: no such volume", code="volume_not_found")
        return self._volumes[name]

    async def list(self) -> Sequence[Volume]:
        await trio.lowlevel.checkpoint()
        return list(self._volumes.values())

    async def remove(self, name: str, *, force: bool = False) -> None:
        if force and name not in self._volumes:
            return
        await self.inspect(name)
        users = self.users(name)
        if users:
            raise Conflict(
                f"remove {name}: volume is in use - [{', '.join(users)}]", code="volume_in_use"
            )
        del self._volumes[name]

    def users(self, name: str) -> Sequence[str]:
        everything = self._book.all()
        return [c.id for c in everything if any(m.name == name for m in c.mounts)]
