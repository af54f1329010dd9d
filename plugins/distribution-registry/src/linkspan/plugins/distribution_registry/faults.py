"""A registry's refusals as errors of ours, in Docker's words (moby daemon/internal/distribution)."""

import json
from collections.abc import Mapping
from typing import Any, Literal

import attrs
import httpx

from linkspan.plugins.distribution_registry.addresses import is_docker_hub
from linkspan.plugins.distribution_registry.retry import retry_after_s
from linkspan.plugins.distribution_registry.transport import ConnectionLostError, read_at_most
from linkspan.sdk.errors import (
    InvalidArgument,
    LinkspanError,
    NotFound,
    OutOfSpace,
    PermissionDenied,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from linkspan.sdk.reference import Reference

_BODY_LIMIT_BYTES = 64 << 10
_TEXT_LIMIT = 500
Action = Literal["pull", "push", "delete", "login"]


@attrs.frozen(kw_only=True)
class RegistryAnswer:
    """The first error of an error body (distribution-spec "Error Codes")."""

    status: int
    code: str = ""
    message: str = ""
    detail: Any = None
    retry_after: str | None = None

    @property
    def text(self) -> str:
        """``manifest unknown: manifest unknown``, as docker/distribution's errcode prints it."""
        code = self.code.lower().replace("_", " ")
        return ": ".join(part for part in (code, self.message) if part)


async def read_answer(response: httpx.Response) -> RegistryAnswer:
    """Read what a registry says about its refusal; never fails, closes the response."""
    retry_after = response.headers.get("retry-after")
    try:
        body, _ = await read_at_most(response, _BODY_LIMIT_BYTES)
    except ConnectionLostError:
        body = b""
    first = _first_error(body)

    def text(key: str) -> str:
        value = first.get(key)
        return " ".join(value.split())[:_TEXT_LIMIT] if isinstance(value, str) else ""

    return RegistryAnswer(
        status=response.status_code,
        code=text("code"),
        message=text("message"),
        detail=first.get("detail"),
        retry_after=retry_after,
    )


def _first_error(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
        first = document["errors"][0]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return {}
    return first if isinstance(first, dict) else {}


def refusal(
    answer: RegistryAnswer, reference: Reference, action: Action, *, blob: str = ""
) -> LinkspanError:
    """The error for a status that is neither success nor worth another try."""
    details = {"status": answer.status, "code": answer.code, "reference": str(reference)}
    match answer.status:
        case 401 | 403:
            return _denied(answer, reference, action, details)
        case 404:
            return _missing(answer, reference, blob, details)
        case 429:
            return _too_many(answer, reference, details)
        case 413:
            return TooLarge(
                _sentence(reference, action, answer, "it is too large"), details=details
            )
        case 405 | 501:
            return Unsupported(
                _sentence(reference, action, answer, "the registry does not do this"),
                details=details,
            )
        case 507:
            return _disk_full(answer, reference, action, details)
        case status if status >= 500:
            if "no space left" in answer.message or "no space left" in str(answer.detail):
                return _disk_full(answer, reference, action, details)
            return Unavailable(
                _sentence(reference, action, answer, f"received unexpected HTTP status: {status}"),
                code="registry_failed",
                details=details,
            )
        case _:
            return InvalidArgument(
                _sentence(reference, action, answer, "the registry refused it"),
                code=answer.code.lower() or "registry_refused",
                details=details,
            )


def _sentence(reference: Reference, action: str, answer: RegistryAnswer, fallback: str) -> str:
    why = answer.text or fallback
    return f"cannot {action} {reference.familiar}: {why} (status {answer.status})"


def _disk_full(
    answer: RegistryAnswer, reference: Reference, action: Action, details: Mapping[str, Any]
) -> OutOfSpace:
    return OutOfSpace(
        _sentence(reference, action, answer, "the registry's disk is full"),
        code="registry_full",
        details=details,
    )


def _denied(
    answer: RegistryAnswer, reference: Reference, action: Action, details: Mapping[str, Any]
) -> LinkspanError:
    default = (
        "unauthorized: authentication required"
        if answer.status == 401
        else "denied: requested access to the resource is denied"
    )
    server = "" if is_docker_hub(reference.domain) else f" {reference.domain}"
    message = (
        f"{action} access denied for {reference.familiar_name}, repository does not exist or may "
        f"require 'docker login': {answer.text or default}"
    )
    kind = Unauthenticated if answer.status == 401 else PermissionDenied
    return kind(
        message, code="registry_access_denied", details=details, help=f"docker login{server}"
    )


def _missing(
    answer: RegistryAnswer, reference: Reference, blob: str, details: Mapping[str, Any]
) -> NotFound:
    if answer.code == "NAME_UNKNOWN":
        return NotFound(
            f"repository {reference.familiar_name} not found: {answer.text}",
            code="repository_unknown",
            details=details,
        )
    if blob:
        text = answer.text or "blob unknown: blob unknown to registry"
        return NotFound(
            f"blob {blob} of {reference.familiar_name} not found: {text}",
            code="blob_unknown",
            details=details,
        )
    text = answer.text or "manifest unknown: manifest unknown"
    return NotFound(
        f"manifest for {reference.familiar} not found: {text}",
        code="manifest_unknown",
        details=details,
    )


def _too_many(
    answer: RegistryAnswer, reference: Reference, details: Mapping[str, Any]
) -> Unavailable:
    wait_s = retry_after_s(answer.retry_after)
    when = f"; it asks to wait {wait_s:.0f} s" if wait_s is not None else ""
    return Unavailable(
        f"registry {reference.domain} has had too many requests from here: "
        f"{answer.text or 'toomanyrequests'}{when}",
        code="too_many_requests",
        details={**details, "retry_after_s": wait_s},
    )
