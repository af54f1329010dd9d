"""What long work says while it runs."""

from collections.abc import Callable

from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class Progress:
    """One step forward of one part of a work.

    Attributes:
        status: In Docker's words where Docker has them (``Downloading``, ``Pull complete``).
        id: Which part (12 hex digits of a layer, a task's name); empty for the whole.
        current: Bytes or items done; None if not counted.
        total: Bytes or items in all; None if unknown.
        stream: Text to show as it is (build output), instead of a status line.
        aux: A fact for a program, JSON types only (``{"ID": "sha256:…"}``).
    """

    status: str = ""
    id: str = ""
    current: int | None = None
    total: int | None = None
    stream: str = ""
    aux: dict[str, object] | None = None


ProgressSink = Callable[[Progress], None]
"""Called from the trio thread; must not block and must not raise."""


def ignore_progress(_: Progress) -> None:
    """Drop it."""
