"""Streams of a process."""

import abc
import enum

from linkspan.sdk.values import frozen


class StreamKind(enum.IntEnum):
    """Numbers of Docker's multiplexed stream frames."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2


@frozen
class Chunk:
    """Bytes of one stream; with a tty everything is STDOUT."""

    stream: StreamKind
    data: bytes


@frozen(kw_only=True)
class LogRecord:
    """A line, or a part of one, as a process wrote it.

    Attributes:
        time: RFC 3339 with nanoseconds, UTC: ``2026-11-24T08:00:00.000000000Z``.
        data: The line with its newline; without one if the record is partial.
    """

    stream: StreamKind
    time: str
    data: bytes


@frozen(kw_only=True)
class LogQuery:
    """Which records of a log (Docker API /containers/{id}/logs).

    Attributes:
        tail: The last N lines only; None means all.
        since_ns: From this time, nanoseconds since the epoch.
        until_ns: Up to this time.
        merge: Adjacent records of one stream may be joined into one big record; ``time`` is then the
            first one's. Fast; used when no timestamps are asked and nobody follows.
    """

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    tail: int | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    merge: bool = False


class ProcessStreams(abc.ABC):
    """Both directions of a process that someone is attached to."""

    @abc.abstractmethod
    async def receive(self) -> Chunk | None:
        """Next output; None when the process has closed its outputs or the stream was detached."""

    @abc.abstractmethod
    async def send(self, data: bytes) -> None:
        """Write to stdin; BrokenPipe is silent (the process may have closed it)."""

    @abc.abstractmethod
    async def close_stdin(self) -> None:
        """End of input; idempotent."""
