"""Rules of secrets and configs, in Docker's words (swarmkit, manager/controlapi/secret.go)."""

import hmac
import re
from collections.abc import Iterable, Sequence

from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound
from linkspan.sdk.model.service import FileReference, Payload, PayloadKind, PayloadSpec, ServiceSpec

LARGEST_BYTES = {"secret": 500 << 10, "config": 1000 << 10}

_NAME = re.compile(r"[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?")
_REFUSED = "rpc error: code = InvalidArgument desc ="


def check_payload(kind: PayloadKind, spec: PayloadSpec) -> None:
    """Raises InvalidArgument for a name that is none, and for data that is empty or too large."""
    if not spec.name:
        raise InvalidArgument(f"{_REFUSED} name must be provided", code="invalid_name")
    if len(spec.name) > 64 or _NAME.fullmatch(spec.name) is None:
        raise InvalidArgument(
            f"{_REFUSED} invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end "
            "character must be [a-zA-Z0-9]",
            code="invalid_name",
        )
    largest = LARGEST_BYTES[kind]
    if not 0 < len(spec.data) < largest:
        raise InvalidArgument(
            f"{_REFUSED} {kind} data must be larger than 0 and less than {largest} bytes"
        )


def name_taken(kind: PayloadKind, name: str) -> Conflict:
    """Somebody has the name."""
    return Conflict(
        f"rpc error: code = AlreadyExists desc = {kind} {name} already exists", code="name_taken"
    )


def out_of_sequence() -> Conflict:
    """Somebody else changed it meanwhile."""
    return Conflict(
        "rpc error: code = Unknown desc = update out of sequence", code="out_of_sequence"
    )


def check_update(before: PayloadSpec, after: PayloadSpec) -> None:
    """Raises InvalidArgument unless only labels differ; a name or data that is empty was not given."""
    renamed = after.name not in ("", before.name)
    if renamed or (after.data and not hmac.compare_digest(after.data, before.data)):
        raise InvalidArgument(f"{_REFUSED} only updates to Labels are allowed")


def find_payload(kind: PayloadKind, ref: str, among: Iterable[Payload]) -> Payload:
    """By id, name or unique id prefix.

    Raises:
        NotFound: code ``secret_not_found`` or ``config_not_found``.
        InvalidArgument: code ``ambiguous``.
    """
    known = {p.id: p for p in among if p.kind == kind}
    if ref in known:
        return known[ref]
    named = [p for p in known.values() if p.spec.name == ref]
    found = named or [p for p in known.values() if ref and p.id.startswith(ref)]
    if not found:
        raise NotFound(f"{kind} {ref} not found", code=f"{kind}_not_found")
    if len(found) > 1:
        raise InvalidArgument(
            f"{kind} {ref} is ambiguous ({len(found)} matches found)", code="ambiguous"
        )
    return found[0]


def check_references(spec: ServiceSpec, payloads: Sequence[Payload]) -> None:
    """Raises InvalidArgument for files of a service that are not there or lie on each other."""
    known = {(p.kind, p.id) for p in payloads}
    for kind in ("secret", "config"):
        files = [file for file in spec.files if file.kind == kind]
        missing = [file.name for file in files if (kind, file.id) not in known]
        if missing:
            raise InvalidArgument(
                f"{_REFUSED} {kind}{'s' if len(missing) > 1 else ''} not found: {', '.join(missing)}",
                code=f"{kind}_not_found",
            )
        _check_targets(kind, files)


def _check_targets(kind: str, files: Sequence[FileReference]) -> None:
    seen: dict[str, str] = {}
    for file in files:
        other = seen.setdefault(file.target, file.name)
        if other is not file.name:
            raise InvalidArgument(
                f"{_REFUSED} {kind} references '{other}' and '{file.name}' have a conflicting target: "
                f"'{file.target}'"
            )


def check_unused(payload: Payload, services: Iterable[ServiceSpec]) -> None:
    """Raises InvalidArgument (code ``payload_in_use``) while a service refers to it."""
    users = sorted(
        spec.name
        for spec in services
        if any((file.kind, file.id) == (payload.kind, payload.id) for file in spec.files)
    )
    if users:
        raise InvalidArgument(
            f"{_REFUSED} {payload.kind} '{payload.spec.name}' is in use by the following "
            f"service{'s' if len(users) > 1 else ''}: {', '.join(users)}",
            code="payload_in_use",
        )
