"""Health checks: a probe in the container, again and again, and what its answers mean."""

from collections.abc import Awaitable, Callable

import attrs
import trio

from linkspan.core.engine.names import new_id
from linkspan.sdk.clock import epoch_ns, rfc3339
from linkspan.sdk.drivers.runtime import ProcessSpec, Runtime
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.model.container import (
    Container,
    ContainerStatus,
    Health,
    Healthcheck,
    HealthProbe,
    HealthStatus,
)
from linkspan.sdk.units import go_duration

MOST_OUTPUT_BYTES = 4096
KEPT_PROBES = 5


async def monitor(
    runtime: Runtime[object],
    current: Callable[[], Container],
    changed: Callable[[Health], Awaitable[None]],
    tell: Callable[..., None],
    environment: Callable[[Container], tuple[str, ...]],
) -> None:
    """Probe until cancelled; ``changed`` gets the health after each probe.

    Args:
        environment: What a probe has of variables; LinkspanError if it cannot be said now.
        tell: Publishes an event of a container: probes are told as exec sessions, as in Docker.
    """
    container = current()
    assert container.healthcheck is not None
    check = container.healthcheck.with_usual_times
    while True:
        await trio.sleep(_pause(check, container))
        container = current()
        if container.state.status is not ContainerStatus.RUNNING:
            continue
        probe = await _probe(runtime, container, check, tell, environment)
        container = current()
        health = judge(container.state.health or Health(), probe, check, container.state.started_at)
        await changed(health)
        container = current()


def _pause(check: Healthcheck, container: Container) -> float:
    starting = container.state.health is None or (
        container.state.health.status is HealthStatus.STARTING
    )
    if starting and check.start_period_s:
        return min(check.start_interval_s, check.interval_s)
    return check.interval_s


def judge(health: Health, probe: HealthProbe, check: Healthcheck, started_at: str) -> Health:
    """The health after one more probe (Docker: failures of the start period do not count)."""
    log = (*health.log, probe)[-KEPT_PROBES:]
    if probe.exit_code == 0:
        return Health(status=HealthStatus.HEALTHY, failing_streak=0, log=log)
    age_s = (epoch_ns(probe.start) - epoch_ns(started_at)) / 1e9
    if health.status is HealthStatus.STARTING and age_s < check.start_period_s:
        return attrs.evolve(health, log=log)
    streak = health.failing_streak + 1
    status = HealthStatus.UNHEALTHY if streak >= check.retries else health.status
    return Health(status=status, failing_streak=streak, log=log)


async def _probe(
    runtime: Runtime[object],
    container: Container,
    check: Healthcheck,
    tell: Callable[..., None],
    environment: Callable[[Container], tuple[str, ...]],
) -> HealthProbe:
    kind, *words = check.test
    args = ("/bin/sh", "-c", *words) if kind == "CMD-SHELL" else tuple(words)
    start = rfc3339()
    try:
        env = environment(container)
    except LinkspanError as error:
        return HealthProbe(start=start, end=rfc3339(), exit_code=-1, output=str(error))
    process = ProcessSpec(args=args, env=env, cwd=container.working_dir, user=container.user)
    line, exec_id = " ".join(args), new_id()
    tell(f"exec_create: {line}", container, execID=exec_id)
    tell(f"exec_start: {line}", container, execID=exec_id)
    output = bytearray()
    exit_code = -1
    try:
        with trio.move_on_after(check.timeout_s):
            async with runtime.exec(container.id, process) as running:
                while (chunk := await running.receive()) is not None:
                    output += chunk.data[: MOST_OUTPUT_BYTES - len(output)]
                exit_code = await running.wait()
        if exit_code < 0:
            output += f"Health check exceeded timeout ({go_duration(check.timeout_s)})".encode()
    except LinkspanError as error:
        exit_code = 127 if error.code == "command_not_found" else 126
        output += str(error).encode()
    tell("exec_die", container, execID=exec_id, exitCode=str(exit_code))
    return HealthProbe(
        start=start, end=rfc3339(), exit_code=exit_code, output=output.decode(errors="replace")
    )
