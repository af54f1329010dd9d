"""What can go wrong between a command and the daemon."""

from __future__ import annotations

from linkspan.sdk.errors import LinkspanError

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes longer than a short command may
    from typing import Any, Literal

    Cause = Literal["no-socket", "refused", "permission", "silent", "version"]


class Unreachable(LinkspanError):
    """No daemon answers at an address.

    Attributes:
        cause: Five causes are told apart, since each has another cure.
        reason: The cause in words.
    """

    default_code = "unreachable"

    def __init__(self, url: str, cause: Cause, reason: str, help: str = "") -> None:  # noqa: A002
        super().__init__(f"no daemon answers at {url}", details={"cause": cause}, help=help)
        self.url = url
        self.cause: Cause = cause
        self.reason = reason


class ConnectionLost(LinkspanError):
    """The daemon went away in the middle of an answer."""

    default_code = "connection_lost"


class ApiError(LinkspanError):
    """The daemon refused a request.

    Attributes:
        status: The HTTP status.
    """

    default_code = "refused"

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "",
        details: dict[str, Any] | None = None,
        help: str = "",  # noqa: A002
    ) -> None:
        super().__init__(message, code=code or None, details=details, help=help)
        self.status = status
