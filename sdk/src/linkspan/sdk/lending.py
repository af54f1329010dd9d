"""Streams that another process reads to their end, straight from where they arrive.

A body of hundreds of megabytes then takes none of the daemon's time, and is copied once less.
"""

import os
import select
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol, runtime_checkable

from linkspan.sdk.framing import BadFraming, Framing

_READ_BYTES: Final = 1 << 18
# Thousands of thin pieces would each wake the reader. After some in a row, the kernel may gather what follows.
_THIN_BYTES: Final = 32 << 10
_THIN_READS: Final = 8
_GATHER_S: Final = 0.0005
_CHECK_MS: Final = 200


class Loan(Protocol):
    """A stream that has been lent, whole or from the middle on.

    Attributes:
        descriptor: Where it arrives; it does not block.
        terms: What ``Borrowed`` has to know, as JSON.
        ahead: What comes before all that arrives there.
    """

    descriptor: int
    terms: Mapping[str, Any]
    ahead: bytes

    def given_back(self, report: Mapping[str, Any]) -> None:
        """The other process reads no more.

        Args:
            report: What ``Borrowed.report`` said there.

        Raises:
            Exception: What reading it here would have raised.
        """
        ...


@runtime_checkable
class Lendable(Protocol):
    """What an iterator over bytes may be able to do besides."""

    async def lend(self) -> Loan | None:
        """Lend the rest of it; None if there is nothing to lend, and it is to be read as ever.

        It must not be read by anybody else until it is given back; if it never is, what comes behind it is lost.
        """
        ...


class Interrupted(Exception):
    """A borrowed stream broke off; the report says how."""


class Borrowed:
    """The other side of a loan. For a process, or a thread, that may block.

    Args:
        descriptor: The loan's, in this process.
        terms: The loan's.
        check: Called before each wait, and during a long one again and again; may raise to end it.
    """

    def __init__(
        self, descriptor: int, terms: Mapping[str, Any], check: Callable[[], object] = bool
    ) -> None:
        self._descriptor = descriptor
        self._check = check
        self._framing = Framing.at(terms["framing"])
        self._limit_ms = int(terms["limit_s"] * 1000)
        self._fault = ""
        self._thin_reads = 0
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def report(self) -> dict[str, Any]:
        """What the lender has to know, as JSON."""
        return {"framing": self._framing.state(), "fault": self._fault}

    def groups(self) -> Iterator[list[memoryview]]:
        """What arrives, up to the end; pieces that came together are not joined.

        Raises:
            Interrupted: It broke off.
        """
        framing = self._framing
        while not framing.done:
            try:
                pieces = framing.pieces()
            except BadFraming as error:
                raise self._interrupted(str(error)) from error
            if pieces:
                yield pieces
            elif not framing.done:
                framing.arrived(self._receive())

    def _receive(self) -> bytes:
        if self._thin_reads > _THIN_READS:
            time.sleep(_GATHER_S)
        while True:
            try:
                data = os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                self._wait()
            except OSError as error:
                raise self._interrupted("gone") from error
            else:
                break
        if not data:
            raise self._interrupted("gone")
        self._thin_reads = self._thin_reads + 1 if len(data) < _THIN_BYTES else 0
        return data

    def _wait(self) -> None:
        left_ms = self._limit_ms
        while left_ms > 0:
            self._check()
            if self._poll.poll(min(left_ms, _CHECK_MS)):
                return
            left_ms -= _CHECK_MS
        raise self._interrupted("stalled")

    def _interrupted(self, fault: str) -> Interrupted:
        self._fault = fault
        return Interrupted(fault)
