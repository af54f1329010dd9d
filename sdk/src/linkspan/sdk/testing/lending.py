"""A source that is lent, for tests of who borrows."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import trio

from linkspan.sdk.framing import Framing


class LentSource:
    """A stream of bytes of which the second half arrives on a socket; implements ``Lendable`` and ``Loan``.

    Attributes:
        reports: What it heard of who borrowed it.
    """

    def __init__(self, data: bytes, descriptor: int, *, missing: int) -> None:
        at = len(data) // 2
        self.ahead, self.rest = data[:at], data[at:]
        self.descriptor = descriptor
        framing = Framing(len(self.rest) + missing, b"")
        self.terms = {"framing": framing.state(), "limit_s": 60.0}
        self.reports: list[Mapping[str, Any]] = []

    async def lend(self) -> Self:
        """See ``Lendable.lend``."""
        await trio.lowlevel.checkpoint()
        return self

    def given_back(self, report: Mapping[str, Any]) -> None:
        """See ``Loan.given_back``. Raises ConnectionError."""
        self.reports.append(report)
        if report["fault"]:
            raise ConnectionError(report["fault"])

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        raise AssertionError("it is read though it is lent")


@asynccontextmanager
async def lent(data: bytes, *, missing: int = 0, stays: bool = False) -> AsyncIterator[LentSource]:
    """A source that can be lent, and its sender.

    Args:
        missing: So many bytes more are announced than come before the sender goes.
        stays: It does not go.
    """
    ours, theirs = trio.socket.socketpair()
    source = LentSource(data, theirs.fileno(), missing=missing)
    sender = trio.SocketStream(ours)

    async def send() -> None:
        await sender.send_all(source.rest)
        if not stays:
            await sender.send_eof()

    with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            yield source
            nursery.cancel_scope.cancel()
