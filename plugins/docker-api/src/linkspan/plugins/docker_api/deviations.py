"""Where Docker answers otherwise than an error's class says: the one table, and who applies it.

Linkspan has one status for each class of error (``linkspan.sdk.errors``). Docker's daemon answers
differently in places, and clients (and their tests) rely on it.
"""

import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import attrs

from linkspan.sdk.errors import (
    LinkspanError,
    OutOfSpace,
    Timeout,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from linkspan.sdk.http import Answer, AnswerError, Duplex, Handler, Hijack, Request, Stream, Writer
from linkspan.sdk.values import frozen

NOT_IN_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this '
    "node to swarm and try again."
)
ALREADY_IN_SWARM = (
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join '
    "another one."
)


@frozen
class Deviation:
    """Docker's status, and its text if that differs, too.

    Attributes:
        phrases: Words one of which must be in the text: the CLI derives the exit status of ``docker run``
            from them (cli/command/container/run.go, toStatusError).
    """

    status: int
    text: str = ""
    phrases: tuple[str, ...] = ()


BY_CODE = {
    # libnetwork reports a port that cannot be bound as an internal error.
    "port_taken": Deviation(500),
    "port_published": Deviation(400),
    # Here Docker answers 500, though it is the client's archive that ends too early.
    "truncated_archive": Deviation(400, "unexpected EOF"),
    # So it does to contexts and files that are no archives.
    **dict.fromkeys(
        (
            *("archive_truncated", "archive_broken", "corrupt_archive"),
            *("truncated_layer", "corrupt_layer"),
        ),
        Deviation(400),
    ),
    "read_only": Deviation(400),
    "already_connected": Deviation(403),
    "address_taken": Deviation(403),
    "addresses_exhausted": Deviation(503),
    "network_in_use": Deviation(403),
    "predefined_network": Deviation(403),
    # Docker answers 500 to these, though nothing of the daemon's failed: a request or a state that
    # does not fit is the client's.
    "not_connected": Deviation(409),
    "invalid_desired_state": Deviation(400),
    "no_storage_options": Deviation(400),
    "out_of_sequence": Deviation(409, "rpc error: code = Unknown desc = update out of sequence"),
    "no_log": Deviation(501),
    "not_in_swarm": Deviation(503, NOT_IN_SWARM),
    # docker-py takes just this status of a forced leave for "there was none".
    "no_swarm_to_leave": Deviation(503),
    "last_manager": Deviation(503),
    "already_in_swarm": Deviation(503, ALREADY_IN_SWARM),
    # A program that is not there or may not run is the user's mistake (exit codes 127 and 126).
    "command_not_found": Deviation(
        400, phrases=("executable file not found", "no such file or directory")
    ),
    "command_not_executable": Deviation(400, phrases=("permission denied",)),
    "invalid_mount": Deviation(400),
    "ambiguous": Deviation(400),
}
"""By ``code``: facts that have a status of their own."""

BY_CLASS: dict[type[LinkspanError], int] = {
    OutOfSpace: 500,
    Timeout: 500,
    TooLarge: 413,
    # Docker passes on what a registry said as an error of the daemon's. (Of 401 old clients make a
    # question for a password.)
    Unauthenticated: 500,
    Unavailable: 500,
}
"""By class, where no code decides."""


def in_dockers_way(error: LinkspanError) -> LinkspanError:
    """The error as Docker would answer it; the same one if there is no difference."""
    if isinstance(error, AnswerError):
        return error
    deviation = BY_CODE.get(error.code)
    status = deviation.status if deviation else BY_CLASS.get(type(error), error.http_status)
    text = _text(error.message, deviation) if deviation else error.message
    if status == error.http_status and text == error.message:
        return error
    return AnswerError(text, status=status, code=error.code, details=error.details, help=error.help)


def _text(message: str, deviation: Deviation) -> str:
    text = deviation.text or message
    phrases = deviation.phrases
    if not phrases or any(phrase in text for phrase in phrases):
        return text
    # Runtimes begin the kernel's words with a capital letter.
    lowered = re.sub("|".join(phrases), lambda found: found[0].lower(), text, flags=re.IGNORECASE)
    return lowered if lowered != text else f"{text}: {phrases[0]}"


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except LinkspanError as error:
        other = in_dockers_way(error)
        if other is error:
            raise
        raise other from error


def dockers_errors(handler: Handler) -> Handler:
    """A handler whose errors, also those before a stream begins, are Docker's."""

    async def handle(request: Request) -> Answer:
        with _translating():
            answer = await handler(request)
        if isinstance(answer, Stream):
            return attrs.evolve(answer, run=_of_stream(answer.run))
        if isinstance(answer, Hijack):
            return attrs.evolve(answer, run=_of_hijack(answer.run))
        return answer

    return handle


def _of_stream(run: Callable[[Writer], Awaitable[None]]) -> Callable[[Writer], Awaitable[None]]:
    async def translated(writer: Writer) -> None:
        with _translating():
            await run(writer)

    return translated


def _of_hijack(run: Callable[[Duplex], Awaitable[None]]) -> Callable[[Duplex], Awaitable[None]]:
    async def translated(duplex: Duplex) -> None:
        with _translating():
            await run(duplex)

    return translated
