"""A container as the driver holds it in memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import trio

from linkspan.plugins.oci_runtime.exec_session import Waiting
from linkspan.plugins.oci_runtime.record import Record
from linkspan.sdk.locks import QuickLock
from linkspan.sdk.model.container import ExitStatus
from linkspan.sdk.values import define


@define(eq=False)
class Expectation:
    """An exec that is likely to come.

    Attributes:
        waiting: The runtime that was started for it.
        over: Set when an exec has come.
    """

    waiting: Waiting | None = None
    over: trio.Event = attrs.field(factory=trio.Event)


@define(eq=False)
class HeldContainer:
    """A container of this driver, in memory.

    Attributes:
        init: pidfd of its init; -1 once that is known to be gone.
        scrubbed: Its cgroups and the runtime's state are removed; its id may be used again.
        process: The ``process`` of its config.json, read when the first exec needs it.
        expected: An exec that was announced and has not come yet.
        state_in_use: Held while the runtime starts it: a short-lived one may end before that is done.
    """

    record: Record
    bundle: Path
    init: int = -1
    started: bool = False
    paused: bool = False
    status: ExitStatus | None = None
    ended: trio.Event = attrs.field(factory=trio.Event)
    scrubbed: trio.Event = attrs.field(factory=trio.Event)
    process: Mapping[str, Any] | None = None
    expected: Expectation | None = None
    state_in_use: QuickLock = attrs.field(factory=QuickLock)

    @property
    def id(self) -> str:
        """Of the container."""
        return self.record.container_id

    @property
    def running(self) -> bool:
        """Whether its process was started and has not ended, as far as is known."""
        return self.started and self.status is None
