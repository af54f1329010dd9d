"""What the body of POST /containers/create means in the version of the API that its client speaks.

A field that a version has not is ignored, as by a daemon of that time, or refused where ignoring it would be
less than what was asked for; what is usual has changed, too (moby, postContainersCreate).
"""

import attrs

from linkspan.plugins.docker_api.versions import Version
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.container import ContainerSpec, Healthcheck, Mount


def as_meant(spec: ContainerSpec, version: Version) -> ContainerSpec:
    """A spec as its client's version has it.

    Raises:
        InvalidArgument: It asks for what only a newer version has; in Docker's words.
    """
    _refuse_newer(spec, version)
    if version < (1, 25):
        # Clients removed containers themselves.
        spec = attrs.evolve(spec, auto_remove=False)
    if version < (1, 40):
        spec = attrs.evolve(
            spec,
            ipc_mode=spec.ipc_mode or "shareable",
            resources=attrs.evolve(spec.resources, kernel_tcp_bytes=0),
        )
    if version < (1, 42):
        spec = attrs.evolve(
            spec, console_size=(0, 0), mounts=tuple(_older(m, version) for m in spec.mounts)
        )
    if version < (1, 43):
        spec = attrs.evolve(spec, annotations={})
    if version < (1, 44):
        spec = attrs.evolve(
            spec,
            healthcheck=_without_start_interval(spec.healthcheck),
            mounts=tuple(attrs.evolve(m, read_only_recursive="try") for m in spec.mounts),
            # What was mounted below a read-only mount could be written then.
            read_only_below=False,
        )
    return spec


def _older(mount: Mount, version: Version) -> Mount:
    recursive = mount.recursive or version < (1, 40)
    return attrs.evolve(mount, create_source=False, recursive=recursive)


def _without_start_interval(check: Healthcheck | None) -> Healthcheck | None:
    return None if check is None else attrs.evolve(check, start_interval_s=0.0)


def _refuse_newer(spec: ContainerSpec, version: Version) -> None:
    forced = any(mount.read_only_recursive == "must" for mount in spec.mounts)
    if version < (1, 44) and forced:
        raise InvalidArgument("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
    if version < (1, 44) and len(spec.networks) > 1:
        names = ", ".join(sorted(spec.networks))
        raise InvalidArgument(
            f"Container cannot be created with multiple network endpoints: {names}"
        )
    if version < (1, 45) and any(mount.volume_subpath for mount in spec.mounts):
        raise InvalidArgument("VolumeOptions.Subpath needs API v1.45 or newer")
