"""A job's network and the services beside it: up and healthy before the first step."""

import math
from collections.abc import Callable, Mapping
from typing import Final

import attrs
import trio

from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.host import Engine
from linkspan.sdk.model.container import (
    Container,
    ContainerSpec,
    ContainerStatus,
    Healthcheck,
    HealthStatus,
    Resources,
    Ulimit,
)
from linkspan.sdk.model.network import EndpointSpec, NetworkSpec
from linkspan.sdk.model.process import LogQuery
from linkspan.sdk.model.step import JOB_LABEL, RUN_LABEL
from linkspan.sdk.progress import ProgressSink
from linkspan.workflows.concealing import conceal_env
from linkspan.workflows.containers import create_container, remove_container
from linkspan.workflows.expressions import Scope
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.model import Job, JobService
from linkspan.workflows.mounts import mount_of, port_of
from linkspan.workflows.running import Run, truth
from linkspan.workflows.values import resolve_text, resolve_texts

HEALTH_LIMIT_S: Final = 300.0
"""For a service whose own check never says anything; its retries end it before."""
_SHM_BYTES: Final = 64 * 1024 * 1024
_LOOK_AGAIN_S: Final = 0.1


class ServiceFailed(LinkspanError):
    """A service ended, or became unhealthy, before the first step."""

    default_code = "service_failed"


@attrs.define(kw_only=True)
class Sidecars:
    """Network and services of one job; ``start`` and ``stop`` frame its steps.

    Attributes:
        use: Role → driver, as the pipeline has chosen.
        say: Gets a line for each thing that happens.
        running: Service name → container id.
        contexts: What expressions see as ``services``.
    """

    run: Run
    job: Job
    use: Mapping[str, str]
    progress: ProgressSink
    say: Callable[[str], None]
    network: str = ""
    running: dict[str, str] = attrs.field(factory=dict)
    contexts: dict[str, Json] = attrs.field(factory=dict)

    @property
    def engine(self) -> Engine:
        """Carries it all."""
        return self.run.host.engine

    @property
    def labels(self) -> dict[str, str]:
        """Of everything that is made here, so that it is found after a crash."""
        return {RUN_LABEL: self.run.id, JOB_LABEL: self.job.id}

    async def start(self, scope: Scope) -> None:
        """Make the network if the job has use for one, then start the services in order.

        Raises:
            ServiceFailed: A service did not come up; its last lines are in the message.
            LinkspanError: The network or a container could not be made.
        If cancelled or failed: call ``stop``.
        """
        scripts = any(step.run is not None for step in self.job.steps)
        wanted = [
            service
            for service in self._in_order()
            if service.condition is None or truth(service.condition, scope)
        ]
        if not scripts and not wanted:
            return
        # A cell's id, `test[3.10]`, has characters that the name of a network has not.
        name = f"linkspan-{self.run.id}-{self.job.id.replace('[', '..').replace(']', '')}"
        with trio.CancelScope(shield=True):
            spec = NetworkSpec(name=name, labels=self.labels, internal=self.run.untrusted)
            if "network" in self.use:
                spec = attrs.evolve(spec, driver=self.use["network"])
            network = await self.engine.networks.create(spec)
            self.network = network.name
        for service in wanted:
            await self._start_service(service, scope)

    def _in_order(self) -> list[JobService]:
        """Services with those they depend on before them; a circle is broken where it closes."""
        order: dict[str, JobService] = {}
        visiting: set[str] = set()

        def visit(service: JobService) -> None:
            if service.name in order or service.name in visiting:
                return
            visiting.add(service.name)
            for other in service.depends_on:
                visit(self.job.services[other])
            order[service.name] = service

        for service in self.job.services.values():
            visit(service)
        return list(order.values())

    async def _start_service(self, service: JobService, scope: Scope) -> None:
        spec = self._spec(service, scope)
        image = await self._image(service, spec.image)
        container = await create_container(self.engine, attrs.evolve(spec, image=image))
        self.running[service.name] = container.id
        await self.engine.containers.start(container.id)
        self.say(f"service {service.name} started")
        healthy = await self._healthy(service, container.id)
        addresses = [endpoint.ipv4_address for endpoint in healthy.endpoints]
        self.contexts[service.name] = {
            "host": service.name,
            "address": addresses[0] if addresses else "",
        }

    async def _image(self, service: JobService, name: str) -> str:
        """What the service is made from, as its ``pull_policy`` says."""
        if service.pull_policy == "always":
            return (await self.engine.images.pull(name, progress=self.progress)).id
        if service.pull_policy == "never":
            return self.engine.images.inspect(name).id
        return await self.run.image(name, self.progress, job=self.job.id)

    def _spec(self, service: JobService, scope: Scope) -> ContainerSpec:
        def words(texts: tuple[object, ...] | None) -> tuple[str, ...] | None:
            if texts is None:
                return None
            return tuple(resolve_text(text, scope) for text in texts)  # type: ignore[arg-type]

        environment = resolve_texts(service.environment, scope)
        conceal_env(self.run.recorder.masks, service.environment, environment, scope)
        grace = service.stop_grace_period_s
        workspace = self.run.job_folder(self.job) / "workspace"
        return ContainerSpec(
            image=resolve_text(service.image, scope),
            command=words(service.command),
            entrypoint=words(service.entrypoint),
            env=tuple(f"{name}={value}" for name, value in environment.items()),
            user=service.user,
            working_dir=service.working_dir,
            labels={**resolve_texts(service.labels, scope), **self.labels},
            hostname=service.hostname or service.name,
            tmpfs=_tmpfs(service.tmpfs),
            healthcheck=_healthcheck(service, words),
            network_mode=self.network,
            networks={self.network: EndpointSpec(aliases=(service.name,))},
            cap_add=service.cap_add,
            cap_drop=service.cap_drop,
            dns=service.dns,
            extra_hosts=service.extra_hosts,
            init=service.init or None,
            ports=tuple(port_of(text) for text in words(service.ports) or ()),
            mounts=tuple(
                mount_of(text, workspace, self.use.get("volume", ""))
                for text in words(service.volumes) or ()
            ),
            privileged=service.privileged,
            read_only=service.read_only,
            sysctls=resolve_texts(service.sysctls, scope),
            stop_timeout_s=None if grace is None else math.ceil(grace),
            resources=Resources(
                memory_bytes=service.mem_limit,
                ulimits=tuple(
                    Ulimit(name=name, soft=soft, hard=hard)
                    for name, (soft, hard) in service.ulimits.items()
                ),
            ),
            shm_size_bytes=service.shm_size or _SHM_BYTES,
        )

    async def _healthy(self, service: JobService, container: str) -> Container:
        """Wait until a service is well; its death ends the wait."""
        with trio.move_on_after(HEALTH_LIMIT_S):
            while True:
                now = self.engine.containers.inspect(container)
                health = now.state.health
                if now.state.status in (ContainerStatus.EXITED, ContainerStatus.DEAD):
                    reason = f"ended with exit code {now.state.exit_code}"
                    if now.state.oom_killed:
                        reason = "was killed: out of memory"
                    raise await self._failed(service, container, reason)
                if health is not None and health.status is HealthStatus.UNHEALTHY:
                    raise await self._failed(service, container, "is unhealthy")
                if health is None or health.status in (HealthStatus.HEALTHY, HealthStatus.NONE):
                    return now
                await trio.sleep(_LOOK_AGAIN_S)
        raise await self._failed(service, container, f"was not healthy after {HEALTH_LIMIT_S:g}s")

    async def _failed(self, service: JobService, container: str, reason: str) -> ServiceFailed:
        lines: list[str] = []
        async with self.engine.containers.logs(container, LogQuery(tail=10)) as records:
            async for record in records:
                lines.append(record.data.decode("utf-8", "replace").rstrip("\n"))
        for line in lines:
            self.say(f"{service.name} | {line}")
        return ServiceFailed(f"service '{service.name}' {reason} before the first step")

    async def stop(self) -> None:
        """Remove services and network. Cannot be cancelled; never raises for what is gone."""
        with trio.CancelScope(shield=True):
            for container in reversed(self.running.values()):
                await remove_container(self.engine, container)
            self.running.clear()
            if self.network:
                try:
                    await self.engine.networks.remove(self.network)
                except LinkspanError as error:
                    self.say(f"network {self.network} stays: {error.message}")
                self.network = ""


def _tmpfs(entries: tuple[str, ...]) -> Mapping[str, str]:
    """Compose's ``path:options``."""
    pairs = (entry.partition(":") for entry in entries)
    return {path: options for path, _, options in pairs}


def _healthcheck(
    service: JobService, words: Callable[[tuple[object, ...] | None], tuple[str, ...] | None]
) -> Healthcheck | None:
    check = service.healthcheck
    if check is None:
        return None
    return Healthcheck(
        test=words(check.test) or (),
        interval_s=check.interval_s,
        timeout_s=check.timeout_s,
        retries=check.retries,
        start_period_s=check.start_period_s,
        start_interval_s=check.start_interval_s,
    )
