"""A container in memory: its record, its lock, and who waits for it."""

from types import TracebackType

import attrs
import trio

from linkspan.sdk.drivers.runtime import Runtime
from linkspan.sdk.errors import Conflict, NotFound
from linkspan.sdk.locks import QuickLock
from linkspan.sdk.model.container import Container, ContainerStatus, ExitStatus
from linkspan.sdk.model.process import ProcessStreams
from linkspan.sdk.values import define

ATTACH_TIMEOUT_S = 10.0


@define(eq=False)
class Entry:
    """One container.

    Attributes:
        lock: Held by what changes the state: start, the handling of an exit, removal.
        exited: Set at the next exit, then replaced by a fresh one; also set by the removal.
        removed: Set when the record is gone.
        pause_scope: Cancelled to give up a restart that waits for its time.
        removing: A removal is under way; nothing may start.
        readers: How many look into its files; its root stays mounted for them.
    """

    container: Container
    lock: QuickLock = attrs.field(factory=QuickLock)
    exited: trio.Event = attrs.field(factory=trio.Event)
    removed: trio.Event = attrs.field(factory=trio.Event)
    last_exit: ExitStatus = ExitStatus(exit_code=0)
    attachments: list["Attachment"] = attrs.field(factory=list)
    pause_scope: trio.CancelScope | None = None
    backoff_s: float = 0.0
    started_at: float = 0.0
    removing: bool = False
    readers: int = 0

    @property
    def status(self) -> ContainerStatus:
        """The state's status."""
        return self.container.state.status

    def tell_exit(self, status: ExitStatus) -> None:
        """Wake those who wait for an exit."""
        self.last_exit = status
        event, self.exited = self.exited, trio.Event()
        event.set()

    def tell_removed(self) -> None:
        """Wake those who wait for the removal, for an exit, or for a start."""
        self.removed.set()
        self.exited.set()
        for attachment in self.attachments:
            attachment.created.set()


class Attachment:
    """Streams of a container, from its very first byte if it does not run yet.

    Made (and known to the container) at once; entered when somebody reads. ``start`` waits for those
    that were made before it.
    """

    def __init__(self, entry: Entry, runtime: Runtime[object]) -> None:
        self._entry = entry
        self._runtime = runtime
        self.created = trio.Event()
        self.attached = trio.Event()
        self._inner: object = None
        if entry.container.state.running or entry.removed.is_set():
            self.created.set()
        else:
            entry.attachments.append(self)

    async def __aenter__(self) -> ProcessStreams:
        entry = self._entry
        await self.created.wait()
        if entry.removed.is_set():
            raise NotFound(f"No such container: {entry.container.id}")
        manager = self._runtime.attach(entry.container.id)
        streams = await manager.__aenter__()
        self._inner = manager
        self.attached.set()
        return streams

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        self.done()
        manager = self._inner
        if manager is None:
            return None
        return await manager.__aexit__(kind, error, trace)  # type: ignore[attr-defined, no-any-return]

    def done(self) -> None:
        """Nobody needs to wait for it."""
        self.created.set()
        self.attached.set()
        if self in self._entry.attachments:
            self._entry.attachments.remove(self)


async def open_attachments(entry: Entry) -> None:
    """Between create and start: let those in who want to read from the first byte."""
    for attachment in list(entry.attachments):
        attachment.created.set()
        with trio.move_on_after(ATTACH_TIMEOUT_S):
            await attachment.attached.wait()
        attachment.attached.set()
        if attachment in entry.attachments:
            entry.attachments.remove(attachment)


class Waiter:
    """Waits for an exit or a removal; made before it happens, so that nothing is missed."""

    def __init__(self, entry: Entry, condition: str) -> None:
        self._entry = entry
        state = entry.container.state
        at_once = condition == "not-running" and state.status in (
            ContainerStatus.CREATED,
            ContainerStatus.EXITED,
            ContainerStatus.DEAD,
        )
        self._now = ExitStatus(exit_code=state.exit_code) if at_once else None
        self._event = entry.removed if condition == "removed" else entry.exited

    async def result(self) -> ExitStatus:
        """Wait."""
        if self._now is not None:
            await trio.lowlevel.checkpoint()
            return self._now
        # A container that never ran and is removed answers, too.
        await self._event.wait()
        return self._entry.last_exit


def refuse_if_removing(entry: Entry) -> None:
    """Raise Conflict if it is on its way out."""
    if entry.removing:
        raise Conflict(
            f"removal of container {entry.container.name} is already in progress", code="removing"
        )
