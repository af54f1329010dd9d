"""Errors that cross a boundary: few classes, one HTTP status each.

A class exists only where a client should act differently. Domain facts ("port taken", "paused") are
carried by ``code`` and ``details``, never by a class of their own.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes longer than a short command may
    from collections.abc import Mapping
    from typing import Any, ClassVar


class LinkspanError(Exception):
    """Base of all errors that Linkspan raises on purpose.

    Attributes:
        message: One sentence for a person.
        code: A stable word for a program, e.g. ``port_taken``; the class's own code when not given.
        details: Facts for a program (names, ports, digests); JSON types only.
        help: What to do next, as text that can be pasted; may be empty.
    """

    http_status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        help: str = "",  # noqa: A002 - the field's name in every error shape of ours
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.details: Mapping[str, Any] = details or {}
        self.help = help

    def __str__(self) -> str:
        return self.message

    def within(self, what: str) -> LinkspanError:
        """The same error with the words before it that say in what it came up: ``what: message``."""
        return type(self)(
            f"{what}: {self.message}", code=self.code, details=self.details, help=self.help
        )


class NotModified(LinkspanError):
    """It is so already (starting a running container, stopping a stopped one): 304."""

    http_status = 304
    default_code = "not_modified"


class InvalidArgument(LinkspanError):
    """The request cannot be understood or is contradictory: 400."""

    http_status = 400
    default_code = "invalid_argument"


class Unauthenticated(LinkspanError):
    """Who asks is unknown: 401."""

    http_status = 401
    default_code = "unauthenticated"


class PermissionDenied(LinkspanError):
    """Who asks may not do this: 403."""

    http_status = 403
    default_code = "permission_denied"


class NotFound(LinkspanError):
    """There is no such object: 404."""

    http_status = 404
    default_code = "not_found"


class Conflict(LinkspanError):
    """It exists, is in use or in the wrong state: 409."""

    http_status = 409
    default_code = "conflict"


class TooLarge(LinkspanError):
    """More than a limit allows: 413."""

    http_status = 413
    default_code = "too_large"


class Internal(LinkspanError):
    """A fault of ours: 500."""


class DataLoss(LinkspanError):
    """Stored or received data does not match its digest, or is truncated: 500."""

    default_code = "data_loss"


class OutOfSpace(LinkspanError):
    """The disk, or a quota, is full: 507."""

    http_status = 507
    default_code = "out_of_space"


class Timeout(LinkspanError):
    """It took longer than allowed: 504."""

    http_status = 504
    default_code = "timeout"


class Unsupported(LinkspanError):
    """This driver, or this machine, cannot do it: 501."""

    http_status = 501
    default_code = "unsupported"


class Unavailable(LinkspanError):
    """Not now; trying again may help: 503."""

    http_status = 503
    default_code = "unavailable"


class DriverFault(LinkspanError):
    """A plugin raised something outside its contract; the cause is kept: 500."""

    default_code = "driver_fault"


class NotUsable(LinkspanError):
    """Raised by ``Driver.open`` when this machine cannot carry the driver: listed as skipped."""

    http_status = 501
    default_code = "not_usable"
