"""Streams whose bytes can go from one descriptor to another without passing through Python."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Pourable(Protocol):
    """What an iterator over bytes may be able to do besides; either way of reading may be used at any time."""

    async def pour(self, pipe: int) -> int:
        """Put what comes next into a pipe that does not block; return how many bytes, 0 at the end.

        Raises:
            BrokenPipeError: Nobody reads the pipe any more.
            Exception: What the iterator raises.
        If cancelled: some of it may be in the pipe.
        """
        ...
