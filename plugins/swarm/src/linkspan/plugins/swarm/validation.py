"""Refuses service specs that contradict themselves, before anything is recorded."""

import re

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.service import ServiceSpec, UpdatePolicy

_NAME = re.compile(r"[a-zA-Z0-9](?:[-_.]?[A-Za-z0-9]+)*")
MOST_REPLICAS = 10_000


def check_spec(spec: ServiceSpec) -> None:
    """Raises InvalidArgument that says what is wrong."""
    if _NAME.fullmatch(spec.name) is None or len(spec.name) > 63:
        raise InvalidArgument(
            f"name must be valid as a DNS name component: '{spec.name}'", code="invalid_name"
        )
    if not spec.container.image:
        raise InvalidArgument("ContainerSpec: image reference must be provided")
    if not 0 <= spec.replicas <= MOST_REPLICAS:
        raise InvalidArgument(
            f"a service has between 0 and {MOST_REPLICAS} replicas, not {spec.replicas}"
        )
    for policy in (spec.update, spec.rollback):
        _check_policy(policy)
    if spec.rollback.failure_action == "rollback":
        raise InvalidArgument(
            "a rollback cannot be rolled back: failure action 'pause' or 'continue'"
        )
    seen = set()
    for port in spec.ports:
        if not 1 <= port.target_port <= 65535 or not 0 <= port.published_port <= 65535:
            raise InvalidArgument(f"port {port.published_port}:{port.target_port} is out of range")
        key = (port.protocol, port.published_port)
        if port.published_port and key in seen:
            raise InvalidArgument(f"port {port.published_port}/{port.protocol} is published twice")
        seen.add(key)


def _check_policy(policy: UpdatePolicy) -> None:
    if policy.parallelism < 0 or policy.delay_s < 0 or policy.monitor_s < 0:
        raise InvalidArgument("parallelism, delay and monitor must not be negative")
    if not 0 <= policy.max_failure_ratio <= 1:
        raise InvalidArgument(
            f"max failure ratio must be between 0 and 1, not {policy.max_failure_ratio}"
        )
