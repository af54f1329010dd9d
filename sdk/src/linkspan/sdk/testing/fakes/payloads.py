"""Secrets and configs in memory, for the fake orchestrator."""

import secrets
from collections.abc import Callable, Iterable

import attrs

from linkspan.sdk.clock import rfc3339
from linkspan.sdk.model.service import Payload, PayloadKind, PayloadSpec, ServiceSpec
from linkspan.sdk.payloads import (
    check_payload,
    check_unused,
    check_update,
    find_payload,
    name_taken,
    out_of_sequence,
)


class FakePayloads:
    """All of them, by id."""

    def __init__(self, services: Callable[[], Iterable[ServiceSpec]]) -> None:
        self._services = services
        self.known: dict[str, Payload] = {}

    def create(self, kind: PayloadKind, spec: PayloadSpec) -> Payload:
        check_payload(kind, spec)
        if any((p.kind, p.spec.name) == (kind, spec.name) for p in self.known.values()):
            raise name_taken(kind, spec.name)
        now = rfc3339()
        made = Payload(
            id=secrets.token_hex(12),
            version=1,
            kind=kind,
            spec=spec,
            created_at=now,
            updated_at=now,
        )
        self.known[made.id] = made
        return _without_data(made)

    def list(self, kind: PayloadKind) -> "list[Payload]":
        found = [_without_data(p) for p in self.known.values() if p.kind == kind]
        return sorted(found, key=lambda p: p.spec.name)

    def get(self, kind: PayloadKind, ref: str) -> Payload:
        found = find_payload(kind, ref, self.known.values())
        return _without_data(found) if kind == "secret" else found

    def update(self, kind: PayloadKind, ref: str, change: PayloadSpec, version: int) -> Payload:
        found = find_payload(kind, ref, self.known.values())
        check_update(found.spec, change)
        if version != found.version:
            raise out_of_sequence()
        spec = attrs.evolve(found.spec, labels=dict(change.labels))
        self.known[found.id] = attrs.evolve(found, spec=spec, version=version + 1)
        return self.get(kind, found.id)

    def remove(self, kind: PayloadKind, ref: str) -> None:
        found = find_payload(kind, ref, self.known.values())
        check_unused(found, self._services())
        del self.known[found.id]


def _without_data(payload: Payload) -> Payload:
    return attrs.evolve(payload, spec=attrs.evolve(payload.spec, data=b""))
