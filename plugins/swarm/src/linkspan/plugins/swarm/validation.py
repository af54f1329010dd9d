"""Refuses service specs that contradict themselves, before anything is recorded."""

import re

from linkspan.plugins.swarm.templates import container_spec
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.service import Node, ServiceRestart, ServiceSpec, Task, UpdatePolicy
from linkspan.sdk.placement import parse_constraint, parse_preference
from linkspan.sdk.reference import parse_reference

_NAME = re.compile(r"[a-zA-Z0-9](?:[-_.]?[A-Za-z0-9]+)*")
MOST_REPLICAS = 10_000
_LEAST_NANO_CPUS = 1_000_000
_LEAST_MEMORY_BYTES = 4 << 20


def check_spec(spec: ServiceSpec) -> None:
    """Raises InvalidArgument that says what is wrong."""
    # Longer texts are not even matched: the pattern backtracks.
    if len(spec.name) > 63 or _NAME.fullmatch(spec.name) is None:
        raise InvalidArgument(
            "rpc error: code = InvalidArgument desc = name must be valid as a DNS name component",
            code="invalid_name",
        )
    if not spec.container.image:
        raise InvalidArgument("ContainerSpec: image reference must be provided")
    parse_reference(spec.container.image)
    _check_choice("mode", spec.mode, ("replicated", "global", "replicated-job", "global-job"))
    if not 0 <= spec.replicas <= MOST_REPLICAS:
        raise InvalidArgument(
            f"a service has between 0 and {MOST_REPLICAS} replicas, not {spec.replicas}"
        )
    if spec.max_concurrent < 0:
        raise InvalidArgument("the number of concurrent tasks of a job must not be negative")
    _check_resources(spec)
    _check_restart(spec)
    for policy in (spec.update, spec.rollback):
        _check_policy(policy or UpdatePolicy())
    if spec.rollback is not None and spec.rollback.failure_action == "rollback":
        raise InvalidArgument(
            "a rollback cannot be rolled back: failure action 'pause' or 'continue'"
        )
    _check_placement(spec)
    _check_ports(spec)
    # Its placeholders are the same for every task.
    container_spec(Task(id="x", service_id="x", slot=1, spec=spec), Node(id="x", hostname="x"))


def check_change(before: ServiceSpec, after: ServiceSpec) -> None:
    """Raises InvalidArgument for what can only be had by another service."""
    if after.name != before.name:
        raise InvalidArgument("renaming services is not supported")
    if after.mode != before.mode:
        raise InvalidArgument("service mode change is not allowed")


def _check_choice(what: str, given: str, choices: tuple[str, ...]) -> None:
    if given not in choices:
        raise InvalidArgument(f"invalid {what} '{given}': one of {', '.join(choices)}")


def _check_resources(spec: ServiceSpec) -> None:
    """Zero is "not given"."""
    for part in (spec.container.resources, spec.reservation):
        if part.nano_cpus and part.nano_cpus < _LEAST_NANO_CPUS:
            raise InvalidArgument(
                "rpc error: code = InvalidArgument desc = invalid cpu value"
                f" {part.nano_cpus / 1e9:g}: Must be at least {_LEAST_NANO_CPUS / 1e9:g}"
            )
        if part.memory_bytes and part.memory_bytes < _LEAST_MEMORY_BYTES:
            raise InvalidArgument(
                "rpc error: code = InvalidArgument desc = invalid memory value"
                f" {part.memory_bytes}: Must be at least 4MiB"
            )


def _check_restart(spec: ServiceSpec) -> None:
    restart = spec.restart or ServiceRestart()
    _check_choice("restart condition", restart.condition, ("none", "on-failure", "any"))
    if min(restart.delay_s, restart.max_attempts, restart.window_s) < 0:
        raise InvalidArgument("restart delay, max attempts and window must not be negative")


def _check_policy(policy: UpdatePolicy) -> None:
    if policy.parallelism < 0 or policy.delay_s < 0 or policy.monitor_s < 0:
        raise InvalidArgument("parallelism, delay and monitor must not be negative")
    if not 0 <= policy.max_failure_ratio <= 1:
        raise InvalidArgument(
            f"max failure ratio must be between 0 and 1, not {policy.max_failure_ratio}"
        )
    _check_choice("order", policy.order, ("stop-first", "start-first"))
    _check_choice("failure action", policy.failure_action, ("pause", "continue", "rollback"))


def _check_placement(spec: ServiceSpec) -> None:
    for text in spec.placement.constraints:
        parse_constraint(text)
    for text in spec.placement.preferences:
        parse_preference(text)
    if spec.placement.max_replicas_per_node < 0:
        raise InvalidArgument("max replicas per node must not be negative")


def _check_ports(spec: ServiceSpec) -> None:
    seen = set()
    if spec.endpoint_mode == "dnsrr" and any(port.mode == "ingress" for port in spec.ports):
        raise InvalidArgument(
            "rpc error: code = InvalidArgument desc = EndpointSpec: port published with ingress mode "
            "can't be used with dnsrr mode"
        )
    for port in spec.ports:
        if not 1 <= port.target_port <= 65535 or not 0 <= port.published_port <= 65535:
            raise InvalidArgument(f"port {port.published_port}:{port.target_port} is out of range")
        key = (port.protocol, port.published_port)
        if port.published_port and key in seen:
            raise InvalidArgument(
                "rpc error: code = InvalidArgument desc = EndpointSpec: duplicate published ports provided",
                help=f"port {port.published_port}/{port.protocol} is published twice",
            )
        seen.add(key)
