"""What a stage needs of the build that it belongs to."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from linkspan.plugins.dockerfile_builder import instructions as ins
from linkspan.plugins.dockerfile_builder.cache import StepRecord
from linkspan.plugins.dockerfile_builder.cache_mounts import CacheMounts
from linkspan.plugins.dockerfile_builder.cache_sources import CacheSources
from linkspan.plugins.dockerfile_builder.layers import LayerMaker
from linkspan.plugins.dockerfile_builder.tree import Tree
from linkspan.sdk.drivers.builder import BuildRequest
from linkspan.sdk.host import Host


class Services(Protocol):
    """Lent to the stages of one build."""

    @property
    def request(self) -> BuildRequest:
        """What was asked."""

    @property
    def host(self) -> Host:
        """Lent by the core."""

    @property
    def layers(self) -> LayerMaker:
        """Makes and remembers layers."""

    @property
    def lease(self) -> set[str]:
        """Layers that must not be pruned while the build runs."""

    @property
    def context(self) -> Tree:
        """The build context."""

    @property
    def max_archive_bytes(self) -> int:
        """Limit of what ADD fetches or unpacks."""

    @property
    def cache_mounts(self) -> CacheMounts:
        """Folders of ``RUN --mount=type=cache``."""

    async def origin(self, name: str, instruction: ins.Instruction, stage_index: int) -> Tree | str:
        """What ``from`` names: a context, or the top layer of a stage or image."""

    @property
    def cache_sources(self) -> CacheSources:
        """Which steps may be taken from the cache at all."""

    def uses_cache(self, stage_index: int) -> bool:
        """Whether the steps of a stage may be taken from the cache."""

    async def once(
        self, key: str, make: Callable[[], Awaitable[StepRecord]], *, index: int, step: str
    ) -> tuple[StepRecord, bool]:
        """A step of a stage: its result, and whether that came from the cache.

        Args:
            index: Of the stage.
            step: What it is, for people.
        """

    def note(self, key: str, record: StepRecord) -> None:
        """This build has used a record."""

    def count_step(self, *, cached: bool) -> None:
        """One more step is done."""
