"""What went wrong, as an HTTP answer: ``{"message": …}`` with one status for each error class."""

import json
import logging
import secrets
from typing import Any

import orjson

from linkspan.sdk.errors import Internal, LinkspanError, OutOfSpace
from linkspan.sdk.files import is_full
from linkspan.sdk.http import JSON, AnswerError, Response

log = logging.getLogger(__name__)


def single_cause(error: BaseException) -> BaseException:
    """The one error in a group of one (of one …); anything else as it is."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def as_linkspan_error(error: BaseException, what: str) -> LinkspanError:
    """Name any error: ours as they are, a full disk as OutOfSpace, the rest logged under an id.

    Args:
        what: The request, for the log: ``POST /containers/create``.
    """
    cause = single_cause(error)
    if isinstance(cause, LinkspanError):
        return cause
    if isinstance(cause, OSError) and is_full(cause):
        place = f" ({cause.filename})" if cause.filename else ""
        return OutOfSpace(f"no space left on device{place}", help="free space under the data root")
    fault_id = secrets.token_hex(4)
    log.error("request failed", extra={"fault_id": fault_id, "request": what}, exc_info=error)
    return Internal(
        f"internal error {fault_id}: {type(cause).__name__}; the daemon's log has the details",
        details={"fault_id": fault_id},
    )


def error_response(error: LinkspanError) -> Response:
    """The answer that a client gets; Docker's clients read ``message``, ours ``code`` and ``help``, too."""
    status = error.status if isinstance(error, AnswerError) else error.http_status
    if status == 304:
        return Response(status=304)
    body: dict[str, Any] = {"message": error.message, "code": error.code}
    if error.details:
        body["details"] = dict(error.details)
    if error.help:
        body["help"] = error.help
    try:
        data = orjson.dumps(body, default=str)
    except TypeError:
        # The name of a file that is no text is in it.
        data = json.dumps(body, default=str, ensure_ascii=False).encode("utf-8", "replace")
    return Response(status=status, headers={"Content-Type": JSON}, body=data + b"\n")
