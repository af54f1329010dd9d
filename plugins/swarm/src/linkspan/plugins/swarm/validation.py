"""Refuses service specs that contradict themselves, before anything is recorded."""

import re

from linkspan.plugins.swarm.templates import container_spec
from linkspan.sdk.errors import InvalidArgument, Unsupported
from linkspan.sdk.model.service import Node, ServiceRestart, ServiceSpec, Task, UpdatePolicy
from linkspan.sdk.placement import parse_constraint, parse_preference
from linkspan.sdk.reference import parse_reference

_NAME = re.compile(r"[a-zA-Z0-9](?:[-_A-Za-z0-9]*[A-Za-z0-9])?")
_LONGEST_NAME = 63
_REFUSED = "rpc error: code = InvalidArgument desc ="
MOST_REPLICAS = 10_000
_LEAST_NANO_CPUS = 1_000_000
_LEAST_MEMORY_BYTES = 4 << 20


def check_spec(spec: ServiceSpec) -> None:
    """Raises InvalidArgument that says what is wrong."""
    _check_name(spec.name)
    _check_container(spec)
    _check_choice("mode", spec.mode, ("replicated", "global", "replicated-job", "global-job"))
    if not 0 <= spec.replicas <= MOST_REPLICAS:
        raise InvalidArgument(
            f"a service has between 0 and {MOST_REPLICAS} replicas, not {spec.replicas}"
        )
    if spec.max_concurrent < 0:
        raise InvalidArgument("the number of concurrent tasks of a job must not be negative")
    _check_resources(spec)
    _check_restart(spec)
    _check_policy(spec.update or UpdatePolicy(), "update")
    _check_policy(spec.rollback or UpdatePolicy(), "rollback")
    if spec.rollback is not None and spec.rollback.failure_action == "rollback":
        raise InvalidArgument(
            "a rollback cannot be rolled back: failure action 'pause' or 'continue'"
        )
    _check_placement(spec)
    _check_ports(spec)
    # Its placeholders are the same for every task.
    container_spec(Task(id="x", service_id="x", slot=1, spec=spec), Node(id="x", hostname="x"))


def check_change(before: ServiceSpec, after: ServiceSpec) -> None:
    """Raises Unsupported for what can only be had by another service."""
    if after.name != before.name:
        raise Unsupported(
            "rpc error: code = Unimplemented desc = renaming services is not supported"
        )
    if after.mode != before.mode:
        raise Unsupported(
            "rpc error: code = Unimplemented desc = service mode change is not allowed"
        )


def _check_name(name: str) -> None:
    told = ""
    if not name:
        told = "name must be provided"
    elif len(name) > _LONGEST_NAME:
        told = f"name must be {_LONGEST_NAME} characters or fewer"
    elif _NAME.fullmatch(name) is None:
        told = "name must be valid as a DNS name component"
    if told:
        raise InvalidArgument(f"{_REFUSED} {told}", code="invalid_name")


def _check_container(spec: ServiceSpec) -> None:
    image, targets = spec.container.image, [mount.target for mount in spec.container.mounts]
    if not image:
        raise InvalidArgument(f"{_REFUSED} ContainerSpec: image reference must be provided")
    try:
        parse_reference(image)
    except InvalidArgument as error:
        raise InvalidArgument(
            f'{_REFUSED} ContainerSpec: "{image}" is not a valid repository/tag',
            code=error.code,
            help=error.message,
        ) from error
    twice = next((target for target in targets if targets.count(target) > 1), None)
    if twice is not None:
        raise InvalidArgument(f"{_REFUSED} ContainerSpec: duplicate mount point: {twice}")


def _check_choice(what: str, given: str, choices: tuple[str, ...]) -> None:
    if given not in choices:
        raise InvalidArgument(f"invalid {what} '{given}': one of {', '.join(choices)}")


def _check_resources(spec: ServiceSpec) -> None:
    """Zero is "not given"."""
    for part in (spec.container.resources, spec.reservation):
        if part.nano_cpus and part.nano_cpus < _LEAST_NANO_CPUS:
            raise InvalidArgument(
                f"{_REFUSED} invalid cpu value {part.nano_cpus / 1e9:g}:"
                f" Must be at least {_LEAST_NANO_CPUS / 1e9:g}"
            )
        if part.memory_bytes and part.memory_bytes < _LEAST_MEMORY_BYTES:
            raise InvalidArgument(
                f"{_REFUSED} invalid memory value {part.memory_bytes}: Must be at least 4MiB"
            )


def _check_restart(spec: ServiceSpec) -> None:
    restart = spec.restart or ServiceRestart()
    _check_choice("restart condition", restart.condition, ("none", "on-failure", "any"))
    for what, value in (
        ("restart-delay", restart.delay_s),
        ("restart-max-attempts", restart.max_attempts),
        ("restart-window", restart.window_s or 0),
    ):
        _check_not_negative(what, value)


def _check_not_negative(what: str, value: float) -> None:
    if value < 0:
        raise InvalidArgument(f"{_REFUSED} TaskSpec: {what} cannot be negative")


def _check_policy(policy: UpdatePolicy, kind: str) -> None:
    _check_not_negative(f"{kind}-parallelism", policy.parallelism)
    _check_not_negative(f"{kind}-delay", policy.delay_s)
    _check_not_negative(f"{kind}-monitor", policy.monitor_s)
    if not 0 <= policy.max_failure_ratio <= 1:
        raise InvalidArgument(
            f"{_REFUSED} TaskSpec: {kind}-maxfailureratio cannot be less than 0 or bigger than 1"
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
            f"{_REFUSED} EndpointSpec: port published with ingress mode can't be used with dnsrr mode"
        )
    for port in spec.ports:
        if not 1 <= port.target_port <= 65535 or not 0 <= port.published_port <= 65535:
            raise InvalidArgument(f"port {port.published_port}:{port.target_port} is out of range")
        key = (port.protocol, port.published_port)
        if port.published_port and key in seen:
            raise InvalidArgument(
                f"{_REFUSED} EndpointSpec: duplicate published ports provided",
                help=f"port {port.published_port}/{port.protocol} is published twice",
            )
        seen.add(key)
