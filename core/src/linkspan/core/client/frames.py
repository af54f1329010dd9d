"""The frames that carry stdout and stderr over one connection (Docker API, "Attach to a container")."""

from collections.abc import Iterable, Iterator
from typing import Final

STDIN, STDOUT, STDERR = 0, 1, 2
_HEADER: Final = 8


class Demultiplexer:
    """Takes bytes as they come, gives (stream, payload) pairs.

    A frame is one byte for the stream (0 stdin, 1 stdout, 2 stderr), three zero bytes, the payload's
    length as four bytes (big-endian), the payload. Parts of a payload are handed out as they come.
    """

    def __init__(self) -> None:
        self._header = bytearray()
        self._stream = STDOUT
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Hand out what these bytes complete.

        Raises:
            ValueError: They are not frames.
        """
        at = 0
        while at < len(data):
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                yield self._stream, piece
                continue
            part = data[at : at + _HEADER - len(self._header)]
            self._header += part
            at += len(part)
            if len(self._header) < _HEADER:
                return
            stream = self._header[0]
            if stream > STDERR or any(self._header[1:4]):
                raise ValueError(f"not a stream frame: {bytes(self._header)!r}")
            self._stream, self._left = stream, int.from_bytes(self._header[4:8], "big")
            self._header.clear()


def demultiplex(pieces: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Frames of a whole answer, (stream, payload) pairs."""
    frames = Demultiplexer()
    for piece in pieces:
        yield from frames.feed(piece)
