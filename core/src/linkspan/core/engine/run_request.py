"""From a container's record, its network and its mounts to what the runtime is asked to make."""

from collections.abc import Callable, Sequence
from pathlib import Path

from linkspan.core.engine.checks import log_limits
from linkspan.core.engine.entry import Entry
from linkspan.core.engine.joining import shared, shared_ipc
from linkspan.core.engine.linking import link_environment
from linkspan.core.plugins.hooks import HookRunner
from linkspan.sdk.drivers.network import Sandbox
from linkspan.sdk.drivers.runtime import BundleMount, CreateRequest, OciSpec, ProcessSpec
from linkspan.sdk.model.container import Container


def create_request(
    container: Container,
    sandbox: Sandbox,
    mounts: Sequence[BundleMount],
    rootfs: Path,
    *,
    entry_of: Callable[[str], Entry | None],
    hooks: HookRunner,
) -> CreateRequest:
    """How the runtime is to make a container.

    Args:
        mounts: Its volumes and binds, prepared.
        rootfs: Where its root is mounted.
        entry_of: Another container, whose namespaces or links it may share.

    Raises:
        NotFound, Conflict: It joins a container that is not there, or does not run.
    """
    spec = container.spec
    log_bytes, log_files = log_limits(spec)

    async def modify(oci: OciSpec) -> OciSpec:
        changed: OciSpec = await hooks.intercept(
            "linkspan_modify_oci_spec", oci, container=container
        )
        return changed

    return CreateRequest(
        container_id=container.id,
        name=container.name,
        rootfs=rootfs,
        process=_process(container, entry_of),
        hostname="" if sandbox.namespace is None and not spec.hostname else container.hostname,
        domainname=spec.domainname,
        mounts=(*_network_files(sandbox, mounts), *mounts),
        network_namespace=sandbox.namespace,
        share_pid=shared(entry_of, spec.pid_mode, "PID"),
        share_ipc=shared_ipc(entry_of, spec.ipc_mode),
        share_uts=shared(entry_of, spec.uts_mode, "UTS"),
        cgroup_namespace=spec.cgroupns_mode,
        resources=spec.resources,
        cap_add=spec.cap_add,
        cap_drop=spec.cap_drop,
        privileged=spec.privileged,
        security_opt=spec.security_opt,
        read_only=spec.read_only,
        sysctls=spec.sysctls,
        init=bool(spec.init),
        shm_size_bytes=spec.shm_size_bytes,
        oom_score_adj=spec.oom_score_adj,
        masked_paths=spec.masked_paths,
        readonly_paths=spec.readonly_paths,
        stdin_once=spec.stdin_once,
        log=spec.log_driver != "none",
        log_max_bytes=log_bytes,
        log_max_files=log_files,
        annotations=spec.annotations,
        modify_spec=modify if hooks.has("linkspan_modify_oci_spec") else None,
    )


def _network_files(sandbox: Sandbox, mounts: Sequence[BundleMount]) -> list[BundleMount]:
    """Its network's files, unless something else is to be in their place."""
    taken = {mount.destination for mount in mounts}
    return [
        BundleMount(destination=path, type="bind", source=source, options=("rbind", "rprivate"))
        for path, source in sandbox.files.items()
        if path not in taken
    ]


def _process(container: Container, entry_of: Callable[[str], Entry | None]) -> ProcessSpec:
    spec = container.spec
    return ProcessSpec(
        args=container.args,
        env=(*link_environment(entry_of, container), *container.env),
        cwd=container.working_dir,
        user=container.user,
        group_add=spec.group_add,
        tty=spec.tty,
        stdin=spec.open_stdin,
        privileged=spec.privileged,
        console_size=spec.console_size,
    )
