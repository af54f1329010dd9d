"""Where the body of an HTTP/1.1 message ends, and what of its bytes are data (RFC 9112 sections 6 and 7.1)."""

import re
from collections.abc import Mapping
from typing import Any, Final, Self

_LINE_LIMIT_BYTES: Final = 16 << 10
_TRAILERS_LIMIT: Final = 100
_SIZE: Final = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;[^\r\n]*)?")


class BadFraming(ValueError):
    """The sender's framing is wrong: nothing behind it can be understood."""


class Framing:
    """One body.

    Attributes:
        done: All of it has been taken.
        rest: Bytes that have arrived and are not taken; when ``done``, they belong to the next message.
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

    def state(self) -> dict[str, Any]:
        """Where it stands, as JSON: another process can go on from there."""
        return {
            "done": self.done,
            "rest": self.rest.decode("latin-1"),
            "chunked": self._chunked,
            "left": self._left,
            "chunk_ends": self._chunk_ends,
            "trailers": self._trailers,
        }

    @classmethod
    def at(cls, state: Mapping[str, Any]) -> Self:
        """One that stands where another stood."""
        framing = cls(None, b"")
        framing.go_to(state)
        return framing

    def go_to(self, state: Mapping[str, Any]) -> None:
        """Stand where another stood."""
        self.done = bool(state["done"])
        self.rest = str(state["rest"]).encode("latin-1")
        self._chunked = bool(state["chunked"])
        self._left = int(state["left"])
        self._chunk_ends = bool(state["chunk_ends"])
        self._trailers = int(state["trailers"])

    def pieces(self) -> list[memoryview]:
        """What of it has arrived, none of it empty; nothing if nothing has, or if it is done.

        Raises:
            BadFraming: What has arrived is no body.
        """
        if self.done or not self.rest:
            return []
        if self._chunked:
            return self._decoded()
        part = memoryview(self.rest)[: self._left]
        self.rest = self.rest[len(part) :]
        self._left -= len(part)
        self.done = not self._left
        return [part]

    def arrived(self, more: bytes) -> None:
        """More bytes are here."""
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
                    raise BadFraming("a chunk does not end with its size")
                at += 2
                self._chunk_ends = False
            end = data.find(b"\r\n", at)
            if end < 0:
                if here - at > _LINE_LIMIT_BYTES:
                    raise BadFraming("a line between chunks is too long")
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
                raise BadFraming("too many trailer fields")
            return
        if len(line) <= 8 and line.isalnum() and line[1:2] not in (b"x", b"X"):
            # What nearly every chunk has: the digits alone (Python would take 0x in front of them).
            try:
                self._left = int(line, 16)
            except ValueError:
                raise BadFraming("a chunk has no size") from None
        elif (match := _SIZE.fullmatch(line)) is not None:
            self._left = int(match[1], 16)
        else:
            raise BadFraming("a chunk has no size")
        if not self._left:
            self._trailers = 1
