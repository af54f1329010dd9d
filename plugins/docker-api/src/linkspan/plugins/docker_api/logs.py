"""Log records as clients read them: frames or raw, with times and details where asked."""

from collections.abc import AsyncIterator, Callable

import attrs

from linkspan.plugins.docker_api.filters import parse_nanoseconds
from linkspan.plugins.docker_api.streams import copy_in_batches, frame_header
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.http import Request, Writer
from linkspan.sdk.model.process import LogQuery, LogRecord


@attrs.frozen(kw_only=True)
class LogFormat:
    """How records are written.

    Attributes:
        details: Put in front of each line (attributes of the log); None if not asked.
        by_frame: What is in front of lines is in front of each frame, also if it goes on with a line.
    """

    tty: bool
    timestamps: bool = False
    details: str | None = None
    by_frame: bool = False


def read_log_query(request: Request) -> LogQuery:
    """The parameters of /logs.

    Raises:
        InvalidArgument: No stream is chosen, or a value is wrong.
    """
    stdout, stderr = request.flag("stdout"), request.flag("stderr")
    if not stdout and not stderr:
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    tail_text = request.query.get("tail", "")
    # Anything that is no number means all, as in Docker.
    tail = int(tail_text) if tail_text.isdecimal() and len(tail_text) < 18 else None
    follow = request.flag("follow")
    plain = not request.flag("timestamps") and not request.flag("details")
    return LogQuery(
        stdout=stdout,
        stderr=stderr,
        follow=follow,
        tail=tail,
        since_ns=parse_nanoseconds(request.query.get("since", "")),
        until_ns=parse_nanoseconds(request.query.get("until", "")),
        merge=plain and not follow,
    )


def record_encoder(style: LogFormat) -> Callable[[LogRecord], tuple[bytes, ...]]:
    """A function that gives a record's bytes, in parts."""
    prefix = b"" if style.details is None else f"{style.details} ".encode()
    # Streams whose last record was only a part of a line: what follows continues it.
    open_lines: set[int] = set()

    def encode(record: LogRecord) -> tuple[bytes, ...]:
        head = b""
        if style.by_frame or record.stream not in open_lines:
            head = f"{record.time} ".encode() + prefix if style.timestamps else prefix
        if record.data.endswith(b"\n"):
            open_lines.discard(record.stream)
        else:
            open_lines.add(record.stream)
        if style.tty:
            return (head, record.data) if head else (record.data,)
        frame = frame_header(record.stream, len(head) + len(record.data))
        return (frame + head, record.data)

    return encode


async def write_log(writer: Writer, records: AsyncIterator[LogRecord], style: LogFormat) -> None:
    """Write records until they end; the head goes at once, since a follower may wait long."""
    await writer.write(b"")
    await copy_in_batches(writer, records, record_encoder(style))
