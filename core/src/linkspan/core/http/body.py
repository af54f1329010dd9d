"""Bodies of requests, taken off the bytes behind a head.

h11 reads heads. Bodies are read here: a build context or an archive of images comes in tens of thousands
of chunks, and each costs h11 more than the copy of its bytes.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from linkspan.core.http.streams import ClientGone
from linkspan.sdk.framing import BadFraming, Framing
from linkspan.sdk.http import AnswerError


def bad_body(why: str) -> AnswerError:
    """The client's framing is wrong."""
    return AnswerError(f"bad request body: {why}", status=400, code="bad_request")


def stalled() -> AnswerError:
    """A body of which nothing comes any more."""
    return AnswerError("the request's body stalled", status=408, code="timeout")


class BodyReader(Framing):
    """One body; see ``Framing`` for its attributes."""

    _lent = False

    def available(self) -> bytes:
        """What of it has arrived; empty if nothing has, or if it is done. Raises AnswerError."""
        pieces = self.pieces()
        return pieces[0].tobytes() if len(pieces) == 1 else b"".join(pieces)

    def pieces(self) -> list[memoryview]:
        """As :meth:`available`, in pieces none of which is empty."""
        if self._lent:
            raise bad_body("who read it did not say where it ends")
        try:
            return super().pieces()
        except BadFraming as error:
            raise bad_body(str(error)) from None

    async def next(self, receive: Callable[[], Awaitable[bytes]]) -> bytes:
        """The next piece, ``b""`` at the end.

        Raises:
            AnswerError: 400; the framing is wrong.
            ClientGone: The client closed in the middle.
        """
        pieces = await self.next_pieces(receive)
        return pieces[0].tobytes() if len(pieces) == 1 else b"".join(pieces)

    async def next_pieces(self, receive: Callable[[], Awaitable[bytes]]) -> list[memoryview]:
        """As :meth:`next`, in pieces that have not been joined; none at the end."""
        while True:
            pieces = self.pieces()
            if pieces or self.done:
                return pieces
            more = await receive()
            if not more:
                raise ClientGone("the client has gone")
            self.arrived(more)

    def lend(self, descriptor: int, limit_s: float, ahead: bytes) -> "BodyLoan":
        """Let another process read it; until it is given back, and ever if it is not, nobody else can.

        Args:
            descriptor: Where the rest of it arrives.
            limit_s: Between two pieces.
            ahead: What has been taken already, and comes first.
        """
        loan = BodyLoan(self, descriptor, limit_s, ahead)
        self._lent = True
        return loan

    def go_to(self, state: Mapping[str, Any]) -> None:
        """See ``Framing.go_to``; it may be read again then."""
        super().go_to(state)
        self._lent = False


class BodyLoan:
    """Implements ``linkspan.sdk.lending.Loan``."""

    def __init__(self, body: BodyReader, descriptor: int, limit_s: float, ahead: bytes) -> None:
        self._body = body
        self.descriptor = descriptor
        self.terms: Mapping[str, Any] = {"framing": body.state(), "limit_s": limit_s}
        self.ahead = ahead

    def given_back(self, report: Mapping[str, Any]) -> None:
        """See ``Loan.given_back``. Raises AnswerError (400, 408), ClientGone."""
        fault = report["fault"]
        if fault == "gone":
            raise ClientGone("the client has gone")
        if fault == "stalled":
            raise stalled()
        if fault:
            raise bad_body(fault)
        self._body.go_to(report["framing"])
