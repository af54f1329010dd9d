"""Bodies of requests, taken off the bytes behind a head (RFC 9112 sections 6 and 7.1).

h11 reads heads. Bodies are read here: a build context or an archive of images comes in tens of thousands
of chunks, and each costs h11 more than the copy of its bytes.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Final

from linkspan.core.http.streams import ClientGone
from linkspan.sdk.http import AnswerError

_LINE_LIMIT_BYTES: Final = 16 << 10
_TRAILERS_LIMIT: Final = 100
_SIZE: Final = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;[^\r\n]*)?")


def bad_body(why: str) -> AnswerError:
    """The client's framing is wrong: nothing behind it can be understood."""
    return AnswerError(f"bad request body: {why}", status=400, code="bad_request")


class BodyReader:
    """One body.

    Attributes:
        done: All of it has been taken.
        rest: Bytes that have arrived and are not taken; when ``done``, they belong to the next request.
    """

    def __init__(self, length: int | None, rest: bytes) -> None:
        """Begin.

        Args:
            length: In bytes; None if it comes in chunks.
            rest: What has arrived behind the head.
        """
        self.done = length == 0
        self.rest = rest
        self._chunked = length is None
        self._left = length or 0
        self._chunk_ends = False
        self._trailers = 0

    @property
    def known_left(self) -> int:
        """How many bytes of it have not been taken, as far as that has been said."""
        return self._left

    def available(self) -> bytes:
        """What of it has arrived; empty if nothing has, or if it is done. Raises AnswerError."""
        pieces = self.pieces()
        return pieces[0].tobytes() if len(pieces) == 1 else b"".join(pieces)

    def pieces(self) -> list[memoryview]:
        """As :meth:`available`, in pieces none of which is empty."""
        if self.done or not self.rest:
            return []
        if self._chunked:
            return self._decoded()
        part = memoryview(self.rest)[: self._left]
        self.rest = self.rest[len(part) :]
        self._left -= len(part)
        self.done = not self._left
        return [part]

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
            self.rest = self.rest + more if self.rest else more

    def _decoded(self) -> list[memoryview]:
        """The data of all chunks that are here, the last one maybe in part."""
        data, at, here = self.rest, 0, len(self.rest)
        view = memoryview(data)
        parts: list[memoryview] = []
        while not self.done:
            if self._left:
                end = at + self._left
                if end > here:
                    if at < here:
                        parts.append(view[at:])
                        self._left, at = end - here, here
                    break
                parts.append(view[at:end])
                self._left, at, self._chunk_ends = 0, end, True
            if self._chunk_ends:
                if here - at < 2:
                    break
                if data[at : at + 2] != b"\r\n":
                    raise bad_body("a chunk does not end with its size")
                at += 2
                self._chunk_ends = False
            end = data.find(b"\r\n", at)
            if end < 0:
                if here - at > _LINE_LIMIT_BYTES:
                    raise bad_body("a line between chunks is too long")
                break
            self._line(data[at:end])
            at = end + 2
        self.rest = data[at:]
        return parts

    def _line(self, line: bytes) -> None:
        """A chunk's size, or a trailer field; an empty one ends the body."""
        if self._trailers:
            self.done = not line
            self._trailers += 1
            if self._trailers > _TRAILERS_LIMIT:
                raise bad_body("too many trailer fields")
            return
        if len(line) <= 8 and line.isalnum():
            # What nearly every chunk has: the digits alone.
            try:
                self._left = int(line, 16)
            except ValueError:
                raise bad_body("a chunk has no size") from None
        elif (match := _SIZE.fullmatch(line)) is not None:
            self._left = int(match[1], 16)
        else:
            raise bad_body("a chunk has no size")
        if not self._left:
            self._trailers = 1
