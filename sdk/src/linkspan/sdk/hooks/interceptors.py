"""Interceptors: awaited in order; return a changed value, or None; raise a LinkspanError to refuse."""

from linkspan.sdk.drivers.runtime import OciSpec
from linkspan.sdk.hooks import hookspec
from linkspan.sdk.model.container import Container, ContainerSpec, ExecSpec
from linkspan.sdk.model.image import Image
from linkspan.sdk.model.network import NetworkSpec
from linkspan.sdk.model.step import StepIntent
from linkspan.sdk.model.volume import VolumeSpec


@hookspec
async def linkspan_before_image_pull(spec: str) -> str | None:
    """Before an image is pulled; ``spec`` is the reference."""


@hookspec
async def linkspan_verify_image(spec: Image) -> Image | None:
    """After an image was pulled and before it gets its name."""


@hookspec
async def linkspan_before_container_create(spec: ContainerSpec) -> ContainerSpec | None:
    """Before a container is made."""


@hookspec
async def linkspan_modify_oci_spec(spec: OciSpec, container: Container) -> OciSpec | None:
    """Before the runtime gets the OCI spec (runtime-spec config.md)."""


@hookspec
async def linkspan_before_container_start(spec: Container) -> Container | None:
    """Before a container starts; what is returned is ignored, raising refuses."""


@hookspec
async def linkspan_before_exec(spec: ExecSpec, container: Container) -> ExecSpec | None:
    """Before a further process runs in a container."""


@hookspec
async def linkspan_before_network_create(spec: NetworkSpec) -> NetworkSpec | None:
    """Before a network is made."""


@hookspec
async def linkspan_before_volume_create(spec: VolumeSpec) -> VolumeSpec | None:
    """Before a volume is made."""


@hookspec
async def linkspan_before_step(spec: StepIntent) -> StepIntent | None:
    """Before a pipeline's step runs (after its intent was journalled)."""
