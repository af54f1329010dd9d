"""A process in a snapshot, without a container of its own: a Dockerfile's RUN."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.joining import Find, joined_sandbox
from linkspan.core.engine.names import new_id
from linkspan.core.engine.networks import NetworkStore
from linkspan.core.engine.supervisor import Supervisor
from linkspan.sdk.clock import rfc3339
from linkspan.sdk.drivers.network import Sandbox
from linkspan.sdk.drivers.runtime import BundleMount, CreateRequest, ProcessSpec
from linkspan.sdk.host import StepMount, StepRun
from linkspan.sdk.model.container import Container, ContainerSpec
from linkspan.sdk.model.process import Chunk

_LASTING: Final = ("default", "bridge", "none", "host")
"""Networks that cannot be removed."""


class SnapshotRunner:
    """Runs processes in snapshots."""

    def __init__(
        self,
        drivers: Drivers,
        networks: NetworkStore,
        supervisor: Supervisor,
        run_dir: Path,
        entry_of: Find,
    ) -> None:
        self._entry_of = entry_of
        self._drivers = drivers
        self._networks = networks
        self._supervisor = supervisor
        self._run_dir = run_dir

    async def run(self, run: StepRun, output: Callable[[Chunk], None]) -> int:
        """Run it to its end; see ``linkspan.sdk.host.Engine.run_in_snapshot``."""
        container = self._container(run)
        rootfs = self._run_dir / "root" / container.id[:12]
        runtime = self._drivers.runtime
        runtime.stir()
        clean: Callable[[], None] | None = None
        try:
            await self._drivers.snapshots.mount(run.snapshot, rootfs, volatile=True)
            if run.watch_root is not None:
                clean = await trio.to_thread.run_sync(run.watch_root, rootfs)
            sandbox = await self._sandbox(container)
            files = tuple(
                BundleMount(
                    destination=path, type="bind", source=source, options=("rbind", "rprivate")
                )
                for path, source in sandbox.files.items()
            )
            await runtime.create(
                CreateRequest(
                    container_id=container.id,
                    name=container.name,
                    rootfs=rootfs,
                    process=ProcessSpec(args=run.args, env=run.env, cwd=run.cwd, user=run.user),
                    hostname="buildkitsandbox",
                    mounts=(*files, *map(_bundle_mount, run.mounts)),
                    network_namespace=sandbox.namespace,
                    resources=container.spec.resources,
                    shm_size_bytes=run.shm_size_bytes,
                    log=False,
                )
            )
            async with runtime.attach(container.id) as streams:
                await runtime.start(container.id)
                while (chunk := await streams.receive()) is not None:
                    output(chunk)
            return (await runtime.wait(container.id)).exit_code
        finally:
            with trio.CancelScope(shield=True):
                await runtime.delete(container.id)
                if run.network_mode in _LASTING:
                    # Nobody can remove the network before it has let go of the step: the next need not wait.
                    self._supervisor.spawn(self._detach, container, name=f"detach {container.name}")
                else:
                    await self._networks.detach(container)
                if clean is not None:
                    await trio.to_thread.run_sync(clean)
                await self._drivers.snapshots.unmount(run.snapshot)
                await trio.to_thread.run_sync(_rmdir, rootfs)

    async def _sandbox(self, container: Container) -> Sandbox:
        mode = container.spec.network_mode
        if mode.startswith("container:"):
            return joined_sandbox(self._entry_of, container.id, mode)
        return await self._networks.attach(container, ())

    async def _detach(self, container: Container) -> None:
        with trio.CancelScope(shield=True):
            await self._networks.detach(container)

    def _container(self, run: StepRun) -> Container:
        container_id = new_id()
        spec = ContainerSpec(
            image="",
            network_mode=run.network_mode,
            extra_hosts=run.extra_hosts,
            resources=run.resources,
        )
        return Container(
            id=container_id,
            name=f"build-{container_id[:12]}",
            created_at=rfc3339(),
            spec=spec,
            image_id="",
            hostname=container_id[:12],
        )


def _bundle_mount(mount: StepMount) -> BundleMount:
    access = "ro" if mount.read_only else "rw"
    if mount.source is None:
        size = (f"size={mount.size_bytes}",) if mount.size_bytes else ()
        return BundleMount(
            destination=mount.target, type="tmpfs", options=("nosuid", "nodev", access, *size)
        )
    return BundleMount(
        destination=mount.target,
        type="bind",
        source=str(mount.source),
        options=("rbind", "rprivate", access),
    )


def _rmdir(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:
        return
