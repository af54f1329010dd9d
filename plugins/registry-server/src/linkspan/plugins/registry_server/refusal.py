"""Refusals with the codes of the distribution-spec ("Error Codes")."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from linkspan.sdk.files import is_full


class RefusalError(Exception):
    """Answered as ``{"errors": [{"code": …, "message": …, "detail": …}]}``; never leaves the server."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        detail: Any = None,
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.detail = detail
        self.headers: Mapping[str, str] = headers or {}
        self.close = close

    def body(self) -> bytes:
        """JSON, as clients expect it."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.detail is not None:
            error["detail"] = self.detail
        return json.dumps({"errors": [error]}, separators=(",", ":")).encode() + b"\n"


def blob_unknown(digest: str) -> RefusalError:
    """404."""
    return RefusalError(404, "BLOB_UNKNOWN", "blob unknown to registry", detail=digest)


def manifest_unknown(reference: str) -> RefusalError:
    """404."""
    return RefusalError(404, "MANIFEST_UNKNOWN", "manifest unknown", detail=reference)


def name_unknown(name: str) -> RefusalError:
    """404."""
    return RefusalError(
        404, "NAME_UNKNOWN", "repository name not known to registry", detail={"name": name}
    )


def upload_unknown(session: str) -> RefusalError:
    """404."""
    return RefusalError(
        404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry", detail=session
    )


def digest_invalid(message: str, detail: Any = None) -> RefusalError:
    """400."""
    return RefusalError(400, "DIGEST_INVALID", message, detail=detail)


def manifest_invalid(message: str, detail: Any = None) -> RefusalError:
    """400."""
    return RefusalError(400, "MANIFEST_INVALID", message, detail=detail)


@contextlib.contextmanager
def full_disk_refused() -> Iterator[None]:
    """Answers a full disk with 507, which a client should not try again."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise RefusalError(507, "UNAVAILABLE", "no space left on device", close=True) from error
        raise
