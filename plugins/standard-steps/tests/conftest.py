"""An engine with images only, a registry that remembers manifests, and an orchestrator without tasks."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from linkspan.sdk.drivers.orchestrator import RolloutProgress
from linkspan.sdk.drivers.registry import Manifest
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound
from linkspan.sdk.media_types import OCI_INDEX
from linkspan.sdk.model.image import (
    Attachment,
    Descriptor,
    Image,
    ImageConfig,
    PushResult,
    RemovedImage,
)
from linkspan.sdk.model.service import (
    Cluster,
    Payload,
    PayloadKind,
    PayloadSpec,
    RolloutState,
    RolloutStatus,
    Service,
    ServiceSpec,
)
from linkspan.sdk.model.step import StepIntent
from linkspan.sdk.progress import Progress
from linkspan.sdk.reference import Reference, parse_reference
from linkspan.sdk.testing.fakes.payloads import FakePayloads
from linkspan.sdk.testing.host import FakeHost


class FakeRegistry:
    """What was pushed, by reference."""

    def __init__(self) -> None:
        self.manifests: dict[str, Manifest] = {}
        self.by_digest: dict[str, Manifest] = {}
        self.refuses: Exception | None = None

    async def manifest(self, reference: Reference, credentials: object) -> Manifest:
        await trio.lowlevel.checkpoint()
        if reference.digest:
            return self.by_digest[reference.digest]
        if str(reference) not in self.manifests:
            raise NotFound("manifest unknown")
        return self.manifests[str(reference)]

    def put(self, reference: str, image_id: str) -> str:
        data = json.dumps({"config": {"digest": image_id}}).encode()
        digest = f"sha256:{abs(hash(data)):064x}"
        descriptor = Descriptor(media_type="m", digest=digest, size_bytes=len(data))
        self.by_digest[digest] = Manifest(descriptor=descriptor, data=data)
        self.manifests[str(parse_reference(reference))] = self.by_digest[digest]
        return digest

    async def push_manifest(
        self, reference: Reference, media_type: str, data: bytes, credentials: object
    ) -> str:
        await trio.lowlevel.checkpoint()
        return self.put(str(reference), json.loads(data)["config"]["digest"])

    async def remove_tag(self, reference: Reference, credentials: object) -> None:
        await trio.lowlevel.checkpoint()
        if self.refuses is not None:
            raise self.refuses
        self.manifests.pop(str(reference), None)


class FakeImages:
    """Names and ids."""

    def __init__(self, registry: FakeRegistry) -> None:
        self.registry = registry
        self.names: dict[str, str] = {}
        self.used = False
        self.attached: dict[str, dict[str, Attachment]] = {}
        self.unnamed: set[str] = set()
        self.indexes: dict[str, tuple[str, ...]] = {}
        self.dropped: list[str] = []

    async def attach(self, ref: str, attachment: Attachment) -> None:
        self.attached.setdefault(ref, {})[attachment.media_type] = attachment
        await trio.lowlevel.checkpoint()

    async def attachments(self, ref: str) -> Sequence[Attachment]:
        await trio.lowlevel.checkpoint()
        return list(self.attached.get(ref, {}).values())

    def list(self) -> Sequence[Image]:
        return [self.inspect(found) for found in sorted(set(self.names.values()))]

    def inspect(self, ref: str) -> Image:
        known = ref in self.names.values() or ref in self.unnamed
        found = ref if known else self.names.get(ref)
        if found is None:
            raise NotFound(f"No such image: {ref}", code="image_not_found")
        return Image(
            id=found,
            config=ImageConfig(),
            repo_tags=tuple(name for name, value in self.names.items() if value == found),
            repo_digests=("app@sha256:dd",),
        )

    async def tag(self, ref: str, reference: str) -> None:
        self.names[reference] = self.inspect(ref).id
        await trio.lowlevel.checkpoint()

    async def push(self, reference: str, *, progress) -> PushResult:
        progress(Progress(status="Pushed", id="layer"))
        digest = self.registry.put(reference, self.inspect(reference).id)
        await trio.lowlevel.checkpoint()
        return PushResult(reference=reference, digest=digest, size_bytes=1)

    async def push_index(self, reference: str, refs, *, progress) -> PushResult:
        self.indexes[reference] = tuple(refs)
        data = [
            {"mediaType": "m", "digest": self.registry.put(f"member/{number}:1", ref), "size": 1}
            for number, ref in enumerate(refs)
        ]
        document = json.dumps({"manifests": data}).encode()
        digest = f"sha256:{abs(hash(document)):064x}"
        descriptor = Descriptor(media_type=OCI_INDEX, digest=digest, size_bytes=len(document))
        self.registry.by_digest[digest] = Manifest(descriptor=descriptor, data=document)
        self.registry.manifests[reference] = self.registry.by_digest[digest]
        await trio.lowlevel.checkpoint()
        return PushResult(reference=reference, digest=digest, size_bytes=len(document))

    async def pull(self, reference: str, *, platform: str, progress) -> Image:
        self.names[reference] = "sha256:pulled"
        await trio.lowlevel.checkpoint()
        return self.inspect(reference)

    async def remove(self, ref: str, *, force: bool = False) -> Sequence[RemovedImage]:
        await trio.lowlevel.checkpoint()
        image = self.inspect(ref).id
        if image in self.unnamed:
            self.unnamed.remove(image)
            self.dropped.append(image)
            return [RemovedImage(deleted=image)]
        if self.used:
            raise Conflict("the image is used")
        if ref != image and list(self.names.values()).count(image) > 1:
            del self.names[ref]
            return [RemovedImage(untagged=ref)]
        gone = [name for name, value in self.names.items() if value == image]
        for name in gone:
            del self.names[name]
        return [*(RemovedImage(untagged=name) for name in gone), RemovedImage(deleted=image)]


class FakeEngine:
    def __init__(self, images: FakeImages) -> None:
        self.images = images


class FakeOrchestrator:
    """Applies what it is told; a service whose image ends in ``bad`` is rolled back."""

    def __init__(self) -> None:
        self.services: dict[str, Service] = {}
        self.joined = False
        self.calls: list[str] = []
        self.stuck = False
        self.payloads = FakePayloads(lambda: [each.spec for each in self.services.values()])

    async def create_payload(self, kind: PayloadKind, spec: PayloadSpec) -> Payload:
        await trio.lowlevel.checkpoint()
        return self.payloads.create(kind, spec)

    async def list_payloads(self, kind: PayloadKind) -> list[Payload]:
        await trio.lowlevel.checkpoint()
        return self.payloads.list(kind)

    async def get_payload(self, kind: PayloadKind, ref: str) -> Payload:
        await trio.lowlevel.checkpoint()
        return self.payloads.get(kind, ref)

    async def remove_payload(self, kind: PayloadKind, ref: str) -> None:
        await trio.lowlevel.checkpoint()
        self.payloads.remove(kind, ref)

    async def cluster(self) -> Cluster | None:
        await trio.lowlevel.checkpoint()
        return Cluster(id="c", created_at="", node_id="n") if self.joined else None

    async def init(self, *, advertise_address: str = "") -> Cluster:
        self.calls.append("init")
        self.joined = True
        return Cluster(id="c", created_at="", node_id="n")

    async def get_service(self, service: str) -> Service:
        await trio.lowlevel.checkpoint()
        for found in self.services.values():
            if service in (found.id, found.spec.name):
                return found
        raise NotFound(f"service {service} not found")

    async def create_service(self, spec: ServiceSpec) -> Service:
        self.calls.append(f"create {spec.name}")
        return self._put(Service(id=f"id-{spec.name}", version=1, spec=spec))

    async def update_service(
        self, service: str, spec: ServiceSpec, *, version: int | None = None
    ) -> Service:
        before = await self.get_service(service)
        if version not in (None, before.version):
            raise Conflict("update out of sequence")
        self.calls.append(f"update {spec.name} {spec.container.image} {spec.replicas}")
        status = before.rollout
        if spec.container != before.spec.container:
            status = RolloutStatus(state=RolloutState.UPDATING)
        return self._put(
            attrs.evolve(
                before,
                spec=spec,
                previous_spec=before.spec,
                version=before.version + 1,
                rollout=status,
            )
        )

    async def rollback_service(self, service: str, *, version: int | None = None) -> Service:
        before = await self.get_service(service)
        if before.previous_spec is None:
            raise InvalidArgument("there is no update to roll back")
        self.calls.append(f"rollback {service}")
        status = RolloutStatus(state=RolloutState.ROLLBACK_COMPLETED)
        return self._put(
            attrs.evolve(
                before, spec=before.previous_spec, previous_spec=before.spec, rollout=status
            )
        )

    async def scale_service(self, service: str, replicas: int) -> Service:
        before = await self.get_service(service)
        self.calls.append(f"scale {service} {replicas}")
        return self._put(attrs.evolve(before, spec=attrs.evolve(before.spec, replicas=replicas)))

    async def remove_service(self, service: str) -> None:
        found = await self.get_service(service)
        self.calls.append(f"remove {service}")
        del self.services[found.id]

    def _put(self, service: Service) -> Service:
        if not self.stuck:
            service = attrs.evolve(service, running_tasks=service.spec.replicas)
        self.services[service.id] = service
        return service

    @asynccontextmanager
    async def rollout(self, service: str) -> AsyncIterator[AsyncIterator[RolloutProgress]]:
        async with aclosing(self._moments(await self.get_service(service))) as moments:
            yield moments

    async def _moments(self, service: Service) -> AsyncIterator[RolloutProgress]:
        wanted = service.spec.replicas
        bad = service.spec.container.image.endswith("bad")
        failures: tuple[str, ...] = ()
        for number in range(100 if self.stuck or bad else 2):
            if bad:
                failures = (*failures, f"task {number}: unhealthy")
            if bad and service.previous_spec is not None and number == 1:
                back = attrs.evolve(
                    service,
                    spec=service.previous_spec,
                    rollout=RolloutStatus(state=RolloutState.ROLLBACK_COMPLETED),
                )
                self.services[service.id] = back
                yield RolloutProgress(
                    service=back,
                    rollout=back.rollout,
                    tasks=(),
                    running=wanted,
                    desired=wanted,
                    updated=wanted,
                    done=True,
                    failed=True,
                    failures=failures,
                )
                return
            yield RolloutProgress(
                service=service,
                rollout=service.rollout,
                tasks=(),
                running=0,
                desired=wanted,
                updated=0,
                done=False,
                failures=failures,
            )
            await trio.sleep(1)
        status = service.rollout
        if status is not None and status.state is RolloutState.UPDATING:
            status = RolloutStatus(state=RolloutState.COMPLETED)
        service = attrs.evolve(service, rollout=status)
        self.services[service.id] = service
        yield RolloutProgress(
            service=service,
            rollout=status,
            tasks=(),
            running=wanted,
            desired=wanted,
            updated=wanted,
            done=True,
        )


@attrs.define
class Context:
    """Implements ``StepContext``."""

    lines: list[str] = attrs.field(factory=list)
    shown: list[Progress] = attrs.field(factory=list)
    secrets: dict[str, str] = attrs.field(factory=dict)

    def log(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, progress: Progress) -> None:
        self.shown.append(progress)


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def images(registry) -> FakeImages:
    return FakeImages(registry)


@pytest.fixture
def orchestrator() -> FakeOrchestrator:
    return FakeOrchestrator()


@pytest.fixture
def context() -> Context:
    return Context()


@pytest.fixture
def host(tmp_path, nursery, registry, images, orchestrator) -> FakeHost:
    host = FakeHost(root=tmp_path / "host", nursery=nursery, fake_engine=FakeEngine(images))
    host.drivers["registry", ""] = registry
    host.drivers["orchestrator", ""] = orchestrator
    return host


@pytest.fixture
def intent(tmp_path):
    workspace = tmp_path / "workspace"
    workspace.mkdir()

    def make(verb: str, undo=None, **settings) -> StepIntent:
        return StepIntent(
            run_id="r",
            job="j",
            step="s",
            attempt=1,
            verb=verb,
            settings={name.replace("_", "-"): value for name, value in settings.items()},
            workspace=Path(workspace),
            undo=undo or {},
        )

    return make
