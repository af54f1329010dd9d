"""What the verbs in the box have in common: no settings in the config, and the host's engine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.drivers.step import Step
from linkspan.sdk.host import Host


class StandardStep(Step[NoConfig]):
    """A verb that uses nothing but ``Host.engine`` and ``Host.driver``."""

    config_type = NoConfig

    def __init__(self, host: Host) -> None:
        self.host = host

    @classmethod
    @asynccontextmanager
    async def open(cls, config: NoConfig, host: Host) -> AsyncIterator[Self]:
        """Nothing is acquired."""
        yield cls(host)
