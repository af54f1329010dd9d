"""What every driver has, whatever its role."""

import abc
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

from linkspan.sdk.host import Host
from linkspan.sdk.stability import ContractInfo
from linkspan.sdk.values import frozen

Config = TypeVar("Config")


@frozen(kw_only=True)
class Health:
    """How a driver is; ``reason`` says why it is not ready."""

    state: Literal["ready", "degraded", "down"] = "ready"
    reason: str = ""


@frozen(kw_only=True)
class NoConfig:
    """The config of a driver that has no settings."""


class Driver(abc.ABC, Generic[Config]):
    """Does the work of a role, chosen by name in the config.

    A driver is made by ``open`` and lives until that context ends. It holds no nursery across the
    ``yield`` of ``open``: background work goes to ``host.start_task``, which the core supervises.
    It never imports the core; all it may use is ``Host``.
    """

    contract: ClassVar[ContractInfo]
    config_type: ClassVar[type[Any]] = NoConfig

    @classmethod
    def prepare_process(cls, config: Config, run_dir: Path) -> None:
        """Change the daemon's process before it has threads (mount namespaces, helper processes).

        Called once, synchronously, for every chosen driver, before the event loop runs.
        """

    @classmethod
    @abc.abstractmethod
    def open(cls, config: Config, host: Host) -> AbstractAsyncContextManager[Self]:
        """Acquire what the driver needs, yield it, release.

        Raises:
            NotUsable: This machine cannot carry the driver; the reason names what is missing.
            InvalidArgument: The settings contradict each other.
        """

    async def probe(self) -> Health:
        """Say how the driver is, in less than a second."""
        return Health()

    async def recover(self) -> None:
        """Repair what a crash of the daemon left; called once after ``open``, before any other use."""

    async def gc(self, known: Iterable[str]) -> Mapping[str, str]:
        """Remove what nobody knows (any more); ``known`` are the ids (names, digests) in use.

        Returns:
            What was removed: id → why.
        """
        return {}
