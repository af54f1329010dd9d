"""An engine in memory: containers of a ``FakeMachine``, images by name, networks and volumes in books.

It follows the contract of ``linkspan.sdk.host.Engine`` with the texts that clients see, so that routes,
orchestrators and steps can be tested without a kernel. It has no restart policies, no health checks
and no snapshots: tests of those use the core's engine on the fakes of its drivers.
"""

import hashlib
import json
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from pathlib import Path
from signal import SIGKILL, Signals
from types import TracebackType
from typing import Any

import attrs
import trio

from linkspan.sdk.clock import rfc3339
from linkspan.sdk.drivers.runtime import (
    CreateRequest,
    ExecProcess,
    ProcessSpec,
    RuntimeStats,
)
from linkspan.sdk.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    NotModified,
    PermissionDenied,
    Unsupported,
)
from linkspan.sdk.events import Event
from linkspan.sdk.host import CommitSpec, NewImage, StepRun, WaitCondition
from linkspan.sdk.image_config import parse_image_config
from linkspan.sdk.model.container import (
    Container,
    ContainerFilter,
    ContainerSpec,
    ContainerStatus,
    Exec,
    ExecSpec,
    ExitStatus,
    MountPoint,
    Resources,
    RestartPolicy,
)
from linkspan.sdk.model.files import Change, PathStat
from linkspan.sdk.model.image import Credentials, Image, ImageConfig, PushResult, RemovedImage
from linkspan.sdk.model.network import Endpoint, EndpointSpec, Network, NetworkSpec
from linkspan.sdk.model.process import Chunk, LogQuery, LogRecord, ProcessStreams
from linkspan.sdk.model.volume import Volume, VolumeSpec
from linkspan.sdk.progress import Progress, ProgressSink, ignore_progress
from linkspan.sdk.reference import parse_reference
from linkspan.sdk.testing.fakes.runtime import FakeMachine, FakeRuntime

_ANONYMOUS = Credentials()
_ALL = ContainerFilter()
_NO_SETTINGS = EndpointSpec()
_NO_ROOT = Path("/nonexistent")
_COMMIT = CommitSpec()
_NO_LAYERS = "images of the fake engine have no layers"
_NO_FILES = "containers of the fake engine have no files"


def make_image(*tags: str, command: tuple[str, ...] = ("sleep", "1000"), **config: Any) -> Image:
    """An image for tests.

    Args:
        tags: ``app:1``.
        config: Further fields of ``ImageConfig``.
    """
    layers = ("sha256:" + hashlib.sha256(b"layer").hexdigest(),)
    digest = hashlib.sha256(json.dumps([tags, command, str(config)]).encode()).hexdigest()
    return Image(
        id=f"sha256:{digest}",
        config=ImageConfig(created=rfc3339(), command=command, diff_ids=layers, **config),
        repo_tags=tags,
        chain_ids=layers,
        size_bytes=1000,
    )


class FakeEvents:
    """Remembers everything that was told."""

    def __init__(self) -> None:
        self.told: list[Event] = []
        self._more = trio.Event()

    def publish(self, event: Event) -> None:
        self.told.append(event)
        self._more.set()
        self._more = trio.Event()

    @asynccontextmanager
    async def subscribe(
        self, *, since_ns: int | None = None
    ) -> AsyncIterator[AsyncIterator[Event]]:
        at = len(self.told)
        if since_ns is not None:
            at = next((i for i, e in enumerate(self.told) if e.time_ns >= since_ns), at)
        await trio.lowlevel.checkpoint()
        async with aclosing(self._from(at)) as events:
            yield events

    def recent(self, *, since_ns: int | None = None) -> Sequence[Event]:
        return [e for e in self.told if since_ns is None or e.time_ns >= since_ns]

    async def _from(self, at: int) -> AsyncGenerator[Event, None]:
        while True:
            while at < len(self.told):
                at += 1
                yield self.told[at - 1]
            await self._more.wait()


class FakeImages:
    """Images by reference.

    Attributes:
        remote: What registries have: familiar reference with tag → image; pulls take from it, pushes put
            into it.
        failure: Raised by the next pull or push, after its first word.
    """

    def __init__(self, events: FakeEvents, users: Callable[[str], Sequence[Container]]) -> None:
        self._events = events
        self._users = users
        self._local: dict[str, Image] = {}
        self.remote: dict[str, Image] = {}
        self.failure: Exception | None = None

    def put(self, image: Image) -> Image:
        """Have an image here; its tags are taken from others."""
        for other in list(self._local.values()):
            kept = tuple(t for t in other.repo_tags if t not in image.repo_tags)
            self._local[other.id] = attrs.evolve(other, repo_tags=kept)
        self._local[image.id] = image
        return image

    def list(self) -> Sequence[Image]:
        return sorted(self._local.values(), key=lambda i: i.config.created, reverse=True)

    def _find(self, ref: str) -> Image | None:
        for image in self._local.values():
            digits = image.id.removeprefix("sha256:")
            if ref == image.id or (len(ref) > 3 and digits.startswith(ref.removeprefix("sha256:"))):
                return image
        try:
            reference = parse_reference(ref).with_default_tag()
        except InvalidArgument:
            return None
        tag = attrs.evolve(reference, digest="").familiar if reference.tag else ""
        digest = f"{reference.familiar_name}@{reference.digest}"
        for image in self._local.values():
            if tag in image.repo_tags or (reference.digest and digest in image.repo_digests):
                return image
        return None

    def inspect(self, ref: str) -> Image:
        image = self._find(ref)
        if image is None:
            raise NotFound(f"No such image: {ref}", code="image_not_found")
        return image

    async def pull(
        self,
        reference: str,
        *,
        credentials: Credentials = _ANONYMOUS,
        platform: str = "",
        progress: ProgressSink = ignore_progress,
    ) -> Image:
        parsed = parse_reference(reference).with_default_tag()
        progress(Progress(status=f"Pulling from {parsed.path}", id=parsed.tag or parsed.digest))
        await self._fail()
        wanted = attrs.evolve(parsed, digest="").familiar if parsed.tag else parsed.familiar
        found = self.remote.get(wanted)
        if found is None:
            raise NotFound(
                f"manifest for {wanted} not found: manifest unknown: manifest unknown",
                code="manifest_unknown",
            )
        layer = found.chain_ids[0].removeprefix("sha256:")[:12] if found.chain_ids else ""
        progress(Progress(status="Pulling fs layer", id=layer))
        await trio.lowlevel.checkpoint()
        progress(Progress(status="Downloading", id=layer, current=500, total=1000))
        progress(Progress(status="Downloading", id=layer, current=1000, total=1000))
        progress(Progress(status="Pull complete", id=layer))
        same = self._find(wanted) is not None
        digest = f"sha256:{hashlib.sha256(found.id.encode()).hexdigest()}"
        image = self.put(
            attrs.evolve(
                found, repo_tags=(wanted,), repo_digests=(f"{parsed.familiar_name}@{digest}",)
            )
        )
        progress(Progress(status=f"Digest: {digest}"))
        what = "Image is up to date" if same else "Downloaded newer image"
        progress(Progress(status=f"Status: {what} for {wanted}"))
        self._tell("pull", image)
        return image

    async def push(
        self,
        reference: str,
        *,
        credentials: Credentials = _ANONYMOUS,
        progress: ProgressSink = ignore_progress,
    ) -> PushResult:
        parsed = parse_reference(reference).with_default_tag()
        image = self._find(reference)
        if image is None:
            raise NotFound(f"An image does not exist locally with the tag: {parsed.familiar_name}")
        progress(Progress(status=f"The push refers to repository [{parsed.name}]"))
        await self._fail()
        digest = f"sha256:{hashlib.sha256(image.id.encode()).hexdigest()}"
        self.remote[parsed.familiar] = image
        self._local[image.id] = attrs.evolve(
            image, repo_digests=(*image.repo_digests, f"{parsed.familiar_name}@{digest}")
        )
        progress(Progress(status=f"{parsed.tag}: digest: {digest} size: 527"))
        progress(Progress(aux={"Tag": parsed.tag, "Digest": digest, "Size": 527}))
        self._tell("push", image)
        return PushResult(reference=reference, digest=digest, size_bytes=527)

    async def _fail(self) -> None:
        await trio.lowlevel.checkpoint()
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    async def tag(self, ref: str, reference: str) -> None:
        image = self.inspect(ref)
        name = parse_reference(reference).with_default_tag().familiar
        await trio.lowlevel.checkpoint()
        self.put(attrs.evolve(image, repo_tags=(*image.repo_tags, name)))
        self._tell("tag", image)

    async def remove(
        self, ref: str, *, force: bool = False, prune_parents: bool = True
    ) -> Sequence[RemovedImage]:
        image = self.inspect(ref)
        await trio.lowlevel.checkpoint()
        by_id = image.id.removeprefix("sha256:").startswith(ref.removeprefix("sha256:"))
        tags = image.repo_tags if by_id else (parse_reference(ref).with_default_tag().familiar,)
        left = tuple(t for t in image.repo_tags if t not in tags)
        users = self._users(image.id)
        if not left and users and not force:
            raise Conflict(
                f"conflict: unable to delete {image.id[7:19]} (must be forced) - image is being used by "
                f"container {users[0].short_id}",
                code="image_in_use",
            )
        removed = [RemovedImage(untagged=tag) for tag in tags]
        if left or users:
            self._local[image.id] = attrs.evolve(image, repo_tags=left)
        else:
            del self._local[image.id]
            removed.append(RemovedImage(deleted=image.id))
        return removed

    async def add(self, new: NewImage, *, tags: Sequence[str] = ()) -> Image:
        await trio.lowlevel.checkpoint()
        return self.put(
            Image(
                id=f"sha256:{hashlib.sha256(new.config).hexdigest()}",
                config=parse_image_config(new.config),
                repo_tags=tuple(parse_reference(t).with_default_tag().familiar for t in tags),
                chain_ids=new.chain_ids,
                parent=new.parent,
            )
        )

    def save(
        self, refs: Sequence[str], *, platform: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        raise Unsupported(_NO_LAYERS)

    async def load(
        self,
        source: AsyncIterator[bytes],
        *,
        platform: str = "",
        progress: ProgressSink = ignore_progress,
    ) -> Sequence[Image]:
        raise Unsupported(_NO_LAYERS)

    async def import_files(
        self,
        source: AsyncIterator[bytes],
        *,
        reference: str = "",
        changes: Sequence[str] = (),
        message: str = "",
        platform: str = "",
    ) -> Image:
        raise Unsupported(_NO_LAYERS)

    def _tell(self, action: str, image: Image) -> None:
        name = image.repo_tags[0] if image.repo_tags else image.id
        self._events.publish(
            Event(type="image", action=action, actor_id=name, attributes={"name": name})
        )


class FakeNetworks:
    """Networks in a book; addresses count up from 172.30.0.2."""

    def __init__(self, containers: "FakeContainers", events: FakeEvents) -> None:
        self._containers = containers
        self._events = events
        self._networks: dict[str, Network] = {}
        self._last_host = 1
        for name, driver in (("bridge", "bridge"), ("host", "host"), ("none", "null")):
            self._add(NetworkSpec(name=name, driver=driver))

    def _add(self, spec: NetworkSpec) -> Network:
        network = Network(id=secrets.token_hex(32), spec=spec, created_at=rfc3339())
        self._networks[network.id] = network
        return network

    async def create(self, spec: NetworkSpec) -> Network:
        await trio.lowlevel.checkpoint()
        if any(n.name == spec.name for n in self._networks.values()):
            raise Conflict(f"network with name {spec.name} already exists", code="name_taken")
        return self._add(spec)

    def inspect(self, ref: str) -> Network:
        for network in self._networks.values():
            if ref in (network.id, network.name) or (ref and network.id.startswith(ref)):
                return network
        raise NotFound(f"network {ref} not found", code="network_not_found")

    def list(self) -> Sequence[Network]:
        return list(self._networks.values())

    async def remove(self, ref: str) -> None:
        network = self.inspect(ref)
        await trio.lowlevel.checkpoint()
        if network.name in ("bridge", "host", "none"):
            raise PermissionDenied(
                f"{network.name} is a pre-defined network and cannot be removed",
                code="predefined_network",
            )
        if self.endpoints(network.id):
            raise PermissionDenied(
                f"error while removing network: network {network.name} has active endpoints",
                code="network_in_use",
            )
        del self._networks[network.id]

    async def connect(self, ref: str, container: str, spec: EndpointSpec = _NO_SETTINGS) -> None:
        network = self.inspect(ref)
        found = self._containers.inspect(container)
        await trio.lowlevel.checkpoint()
        changed = attrs.evolve(found.spec, networks={**found.spec.networks, network.name: spec})
        endpoints = found.endpoints
        if found.state.running:
            endpoints = (*endpoints, self.endpoint(network, spec))
        self._containers.put(attrs.evolve(found, spec=changed, endpoints=endpoints))

    async def disconnect(self, ref: str, container: str, *, force: bool = False) -> None:
        network = self.inspect(ref)
        found = self._containers.inspect(container)
        await trio.lowlevel.checkpoint()
        networks = {n: s for n, s in found.spec.networks.items() if n != network.name}
        endpoints = tuple(e for e in found.endpoints if e.network_id != network.id)
        spec = attrs.evolve(found.spec, networks=networks)
        self._containers.put(attrs.evolve(found, spec=spec, endpoints=endpoints))

    def endpoint(self, network: Network, spec: EndpointSpec) -> Endpoint:
        """A fresh endpoint."""
        self._last_host += 1
        number = self._last_host
        return Endpoint(
            id=secrets.token_hex(32),
            network_id=network.id,
            network_name=network.name,
            interface="eth0",
            ipv4_address=spec.ipv4_address or f"172.30.{number >> 8}.{number & 255}",
            ipv4_prefix=16,
            gateway="172.30.0.1",
            mac_address=f"02:42:ac:1e:{number >> 8:02x}:{number & 255:02x}",
            spec=spec,
        )

    def endpoints(self, ref: str) -> Mapping[str, Endpoint]:
        network = self.inspect(ref)
        return {
            c.id: e
            for c in self._containers.list(ContainerFilter(all=True))
            for e in c.endpoints
            if e.network_id == network.id
        }


class FakeVolumes:
    """Volumes in a book."""

    def __init__(self, containers: "FakeContainers") -> None:
        self._containers = containers
        self._volumes: dict[str, Volume] = {}

    async def create(self, spec: VolumeSpec) -> Volume:
        await trio.lowlevel.checkpoint()
        name = spec.name or secrets.token_hex(32)
        if name not in self._volumes:
            self._volumes[name] = Volume(
                name=name,
                driver=spec.driver or "local",
                mountpoint=f"/volumes/{name}/_data",
                created_at=rfc3339(),
                options=spec.options,
                labels=spec.labels,
                anonymous=not spec.name,
            )
        return self._volumes[name]

    async def inspect(self, name: str) -> Volume:
        await trio.lowlevel.checkpoint()
        if name not in self._volumes:
            raise NotFound(f"get {name}: no such volume", code="volume_not_found")
        return self._volumes[name]

    async def list(self) -> Sequence[Volume]:
        await trio.lowlevel.checkpoint()
        return list(self._volumes.values())

    async def remove(self, name: str, *, force: bool = False) -> None:
        if force and name not in self._volumes:
            return
        await self.inspect(name)
        users = self.users(name)
        if users:
            raise Conflict(
                f"remove {name}: volume is in use - [{', '.join(users)}]", code="volume_in_use"
            )
        del self._volumes[name]

    def users(self, name: str) -> Sequence[str]:
        everything = self._containers.list(ContainerFilter(all=True))
        return [c.id for c in everything if any(m.name == name for m in c.mounts)]


class _Entry:
    """A container with the events of its life."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.exited = trio.Event()
        self.removed = trio.Event()
        self.last_exit = ExitStatus(exit_code=0)
        self.waiting: list[FakeAttachment] = []


class FakeAttachment:
    """Known from the call on, entered when the process exists; leaving without entering is allowed."""

    def __init__(self, entry: _Entry, runtime: FakeRuntime) -> None:
        self._entry = entry
        self._runtime = runtime
        self._inner: Any = None
        self.created, self.entered = trio.Event(), trio.Event()
        if entry.container.state.running:
            self.created.set()
        else:
            entry.waiting.append(self)

    async def __aenter__(self) -> ProcessStreams:
        await self.created.wait()
        inner = self._runtime.attach(self._entry.container.id)
        streams = await inner.__aenter__()
        self._inner = inner
        self.entered.set()
        return streams

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.entered.set()
        if self in self._entry.waiting:
            self._entry.waiting.remove(self)
        if self._inner is not None:
            await self._inner.__aexit__(kind, error, trace)


class _Waiter:
    def __init__(self, entry: _Entry, condition: WaitCondition) -> None:
        self._entry = entry
        self._now = condition == "not-running" and not entry.container.state.running
        self._event = entry.removed if condition == "removed" else entry.exited

    async def result(self) -> ExitStatus:
        if not self._now:
            await self._event.wait()
        return self._entry.last_exit


class _NotedExec(ExecProcess):
    """Passes everything on, and remembers the exit code."""

    def __init__(self, inner: ExecProcess) -> None:
        self._inner = inner
        self.exit_code = 137

    @property
    def pid(self) -> int:
        return self._inner.pid

    async def receive(self) -> Chunk | None:
        return await self._inner.receive()

    async def send(self, data: bytes) -> None:
        await self._inner.send(data)

    async def close_stdin(self) -> None:
        await self._inner.close_stdin()

    async def started(self) -> None:
        await self._inner.started()

    async def resize(self, height: int, width: int) -> None:
        await self._inner.resize(height, width)

    async def wait(self) -> int:
        self.exit_code = await self._inner.wait()
        return self.exit_code


class FakeContainers:
    """Containers of a machine.

    Attributes:
        stats_now: What ``stats`` returns.
    """

    def __init__(self, runtime: FakeRuntime, events: FakeEvents) -> None:
        self._runtime = runtime
        self._events = events
        self._entries: dict[str, _Entry] = {}
        self._execs: dict[str, Exec] = {}
        self._running_execs: dict[str, ExecProcess] = {}
        self.stats_now = RuntimeStats(
            cpu_usage_ns=10**9, memory_usage_bytes=1 << 20, pids_current=1
        )
        self.images: FakeImages
        self.networks: FakeNetworks
        self.volumes: FakeVolumes

    def put(self, container: Container) -> None:
        """Replace a record."""
        self._entries[container.id].container = container

    def _state(self, entry: _Entry, **changes: Any) -> None:
        state = attrs.evolve(entry.container.state, **changes)
        entry.container = attrs.evolve(entry.container, state=state)

    def _entry(self, ref: str) -> _Entry:
        for entry in self._entries.values():
            container = entry.container
            if ref.removeprefix("/") in (container.id, container.name):
                return entry
        found = [e for e in self._entries.values() if ref and e.container.id.startswith(ref)]
        if len(found) != 1:
            raise NotFound(f"No such container: {ref}", code="container_not_found")
        return found[0]

    def _tell(self, action: str, container: Container, **facts: str) -> None:
        attributes = {"name": container.name, "image": container.spec.image, **container.labels}
        self._events.publish(
            Event(
                type="container",
                action=action,
                actor_id=container.id,
                attributes={**attributes, **facts},
            )
        )

    async def create(self, spec: ContainerSpec, *, name: str = "") -> Container:
        image = self.images.inspect(spec.image)
        await trio.lowlevel.checkpoint()
        chosen = name.removeprefix("/") or f"fake_{secrets.token_hex(4)}"
        for entry in self._entries.values():
            if entry.container.name == chosen:
                raise Conflict(
                    f'Conflict. The container name "/{chosen}" is already in use by container '
                    f'"{entry.container.id}". You have to remove (or rename) that container to be able '
                    "to reuse that name.",
                    code="name_taken",
                )
        command = spec.command if spec.command is not None else image.config.command
        if spec.entrypoint is not None:
            command = spec.command or ()
        entrypoint = image.config.entrypoint if spec.entrypoint is None else spec.entrypoint
        container_id = secrets.token_hex(32)
        container = Container(
            id=container_id,
            name=chosen,
            created_at=rfc3339(),
            spec=spec,
            image_id=image.id,
            args=tuple(part for part in (*entrypoint, *command) if part),
            env=(*image.config.env, *spec.env),
            working_dir=spec.working_dir or image.config.working_dir or "/",
            user=spec.user or image.config.user,
            stop_signal=spec.stop_signal or image.config.stop_signal or "SIGTERM",
            healthcheck=spec.healthcheck or image.config.healthcheck,
            hostname=spec.hostname or container_id[:12],
            labels={**image.config.labels, **spec.labels},
            exposed_ports=tuple(dict.fromkeys((*spec.exposed_ports, *image.config.exposed_ports))),
            mounts=await self._mounts(spec),
            runtime="fake",
        )
        if not container.args:
            raise InvalidArgument("no command specified")
        self._entries[container.id] = _Entry(container)
        self._tell("create", container)
        return container

    async def _mounts(self, spec: ContainerSpec) -> tuple[MountPoint, ...]:
        points = []
        for mount in spec.mounts:
            if mount.type != "volume":
                points.append(
                    MountPoint(type=mount.type, source=mount.source, destination=mount.target)
                )
                continue
            volume = await self.volumes.create(VolumeSpec(name=mount.source))
            points.append(
                MountPoint(
                    type="volume",
                    name=volume.name,
                    source=volume.mountpoint,
                    destination=mount.target,
                    driver=volume.driver,
                )
            )
        return tuple(points)

    async def start(self, ref: str) -> None:
        entry = self._entry(ref)
        container, spec = entry.container, entry.container.spec
        if container.state.running:
            raise NotModified(f"container {container.name} is running")
        request = CreateRequest(
            container_id=container.id,
            name=container.name,
            rootfs=_NO_ROOT,
            process=ProcessSpec(
                args=container.args, env=container.env, tty=spec.tty, stdin=spec.open_stdin
            ),
            stdin_once=spec.stdin_once,
            log=spec.log_driver != "none",
        )
        await self._runtime.create(request)
        for attachment in list(entry.waiting):
            attachment.created.set()
            await attachment.entered.wait()
        entry.waiting.clear()
        pid = await self._runtime.start(container.id)
        names = dict.fromkeys((spec.network_mode.replace("default", "bridge"), *spec.networks))
        endpoints = [
            self.networks.endpoint(
                self.networks.inspect(name), spec.networks.get(name, _NO_SETTINGS)
            )
            for name in names
            if name not in ("none", "host")
        ]
        entry.container = attrs.evolve(
            container, endpoints=tuple(endpoints), ports=spec.ports, sandbox_key="/run/netns/fake"
        )
        self._state(
            entry, status=ContainerStatus.RUNNING, pid=pid, started_at=rfc3339(), exit_code=0
        )
        self._tell("start", entry.container)
        self._runtime.machine.nursery.start_soon(self._watch, entry)

    async def _watch(self, entry: _Entry) -> None:
        status = await self._runtime.wait(entry.container.id)
        entry.container = attrs.evolve(entry.container, endpoints=(), ports=(), sandbox_key="")
        self._state(
            entry,
            status=ContainerStatus.EXITED,
            pid=0,
            exit_code=status.exit_code,
            oom_killed=status.oom_killed,
            finished_at=rfc3339(),
        )
        entry.last_exit = status
        exited, entry.exited = entry.exited, trio.Event()
        self._tell("die", entry.container, exitCode=str(status.exit_code))
        exited.set()
        if entry.container.spec.auto_remove:
            await self.remove(entry.container.id)

    async def stop(self, ref: str, *, timeout_s: float | None = None, signal: str = "") -> None:
        entry = self._entry(ref)
        if not entry.container.state.running:
            raise NotModified(f"container {entry.container.name} is not running")
        exited = entry.exited
        await self.kill(ref, signal or entry.container.stop_signal)
        with trio.move_on_after(10.0 if timeout_s is None else timeout_s):
            await exited.wait()
        if not exited.is_set():
            with suppress(NotFound):
                # It may end just before the signal.
                await self._runtime.signal(entry.container.id, SIGKILL)
            await exited.wait()
        self._tell("stop", entry.container)

    async def restart(self, ref: str, *, timeout_s: float | None = None, signal: str = "") -> None:
        if self.inspect(ref).state.running:
            await self.stop(ref, timeout_s=timeout_s, signal=signal)
        await self.start(ref)

    async def kill(self, ref: str, signal: str = "SIGKILL") -> None:
        container = self.inspect(ref)
        if not container.state.running:
            raise Conflict(
                f"Cannot kill container: {container.name}: container {container.id} is not running",
                code="not_running",
            )
        word = signal.upper().removeprefix("SIG")
        if word.isdecimal():
            number = int(word)
        else:
            try:
                number = Signals[f"SIG{word}"]
            except KeyError:
                raise InvalidArgument(f"Invalid signal: {signal}", code="invalid_signal") from None
        await self._runtime.signal(container.id, number)
        self._tell("kill", container, signal=str(int(number)))

    async def pause(self, ref: str) -> None:
        entry = self._entry(ref)
        if entry.container.state.status is not ContainerStatus.RUNNING:
            raise Conflict(f"Container {entry.container.id} is not running", code="not_running")
        await self._runtime.pause(entry.container.id)
        self._state(entry, status=ContainerStatus.PAUSED)

    async def unpause(self, ref: str) -> None:
        entry = self._entry(ref)
        if entry.container.state.status is not ContainerStatus.PAUSED:
            raise Conflict(f"Container {entry.container.id} is not paused")
        await self._runtime.resume(entry.container.id)
        self._state(entry, status=ContainerStatus.RUNNING)

    async def rename(self, ref: str, name: str) -> None:
        entry = self._entry(ref)
        await trio.lowlevel.checkpoint()
        entry.container = attrs.evolve(entry.container, name=name.removeprefix("/"))

    async def update(
        self, ref: str, *, resources: Resources | None = None, restart: RestartPolicy | None = None
    ) -> list[str]:
        entry = self._entry(ref)
        await trio.lowlevel.checkpoint()
        spec = entry.container.spec
        changes: dict[str, Any] = {}
        if resources is not None:
            changes["resources"] = resources
        if restart is not None:
            changes["restart"] = restart
        entry.container = attrs.evolve(entry.container, spec=attrs.evolve(spec, **changes))
        return []

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        entry = self._entry(ref)
        container = entry.container
        if container.state.running:
            if not force:
                raise Conflict(
                    f'cannot remove container "{container.name}": container is '
                    f"{container.state.status.value}: stop the container before removing or force remove",
                    code="container_running",
                )
            exited = entry.exited
            await self._runtime.signal(container.id, SIGKILL)
            await exited.wait()
        await self._runtime.delete(container.id)
        self._entries.pop(container.id, None)
        entry.removed.set()
        self._tell("destroy", container)

    def waiter(self, ref: str, condition: WaitCondition = "not-running") -> _Waiter:
        return _Waiter(self._entry(ref), condition)

    def inspect(self, ref: str) -> Container:
        return self._entry(ref).container

    def list(self, query: ContainerFilter = _ALL) -> Sequence[Container]:
        found = [e.container for e in reversed(self._entries.values())]
        found = [c for c in found if self._matches(c, query)]
        return found[: query.limit] if query.limit else found

    def _matches(self, container: Container, query: ContainerFilter) -> bool:
        wanted_state = query.all or query.statuses or query.limit or container.state.running
        return bool(
            wanted_state
            and all(_has_label(container.labels, label) for label in query.labels)
            and (not query.names or any(re.search(n, container.name) for n in query.names))
            and (not query.ids or any(container.id.startswith(i) for i in query.ids))
            and (not query.statuses or container.state.status.value in query.statuses)
            and (not query.exited or container.state.exit_code in query.exited)
        )

    def attach(self, ref: str) -> FakeAttachment:
        return FakeAttachment(self._entry(ref), self._runtime)

    async def resize(self, ref: str, height: int, width: int) -> None:
        container = self.inspect(ref)
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running", code="not_running")
        await self._runtime.resize(container.id, height, width)

    @asynccontextmanager
    async def logs(self, ref: str, query: LogQuery) -> AsyncIterator[AsyncIterator[LogRecord]]:
        container = self.inspect(ref)
        if not container.state.started_at:
            yield _nothing()
            return
        async with self._runtime.logs(container.id, query) as records:
            yield records

    async def pids(self, ref: str) -> Sequence[int]:
        container = self.inspect(ref)
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running", code="not_running")
        return await self._runtime.pids(container.id)

    async def stats(self, ref: str) -> RuntimeStats:
        self.inspect(ref)
        await trio.lowlevel.checkpoint()
        return self.stats_now

    async def exec_create(self, ref: str, spec: ExecSpec) -> Exec:
        container = self.inspect(ref)
        await trio.lowlevel.checkpoint()
        if container.state.status is not ContainerStatus.RUNNING:
            raise Conflict(f"container {container.id} is not running", code="not_running")
        made = Exec(id=secrets.token_hex(32), container_id=container.id, spec=spec)
        self._execs[made.id] = made
        return made

    @asynccontextmanager
    async def exec_start(self, exec_id: str) -> AsyncIterator[ExecProcess]:
        session = self.exec_inspect(exec_id)
        if session.running or session.exit_code is not None:
            raise Conflict(f"Error: Exec command {exec_id} is already running")
        spec = session.spec
        process = ProcessSpec(
            args=spec.command, env=spec.env, tty=spec.tty, stdin=spec.attach_stdin
        )
        code = 127
        try:
            async with self._runtime.exec(session.container_id, process) as running:
                code = 137
                self._running_execs[exec_id] = running
                self._execs[exec_id] = attrs.evolve(session, running=True, pid=running.pid)
                noted = _NotedExec(running)
                try:
                    yield noted
                finally:
                    code = noted.exit_code
        finally:
            self._running_execs.pop(exec_id, None)
            self._execs[exec_id] = attrs.evolve(session, running=False, exit_code=code)

    def exec_ids(self, ref: str) -> Sequence[str]:
        container_id = self.inspect(ref).id
        return [
            session.id
            for session in self._execs.values()
            if session.container_id == container_id and session.exit_code is None
        ]

    def exec_inspect(self, exec_id: str) -> Exec:
        if exec_id not in self._execs:
            raise NotFound(f"No such exec instance: {exec_id}", code="exec_not_found")
        return self._execs[exec_id]

    async def exec_resize(self, exec_id: str, height: int, width: int) -> None:
        self.exec_inspect(exec_id)
        running = self._running_execs.get(exec_id)
        if running is not None:
            await running.resize(height, width)

    async def size(self, ref: str) -> tuple[int, int]:
        container = self.inspect(ref)
        await trio.lowlevel.checkpoint()
        return 100, 100 + self.images.inspect(container.image_id).size_bytes

    async def stat_path(self, ref: str, path: str) -> PathStat:
        raise Unsupported(_NO_FILES)

    def read_path(
        self, ref: str, path: str
    ) -> AbstractAsyncContextManager[tuple[PathStat, AsyncIterator[bytes]]]:
        raise Unsupported(_NO_FILES)

    async def write_path(
        self,
        ref: str,
        path: str,
        source: AsyncIterator[bytes],
        *,
        keep_kind: bool = False,
        copy_owner: bool = False,
    ) -> None:
        raise Unsupported(_NO_FILES)

    def export(self, ref: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        raise Unsupported(_NO_FILES)

    async def changes(self, ref: str) -> Sequence[Change]:
        raise Unsupported(_NO_FILES)

    async def commit(self, ref: str, spec: CommitSpec = _COMMIT) -> Image:
        raise Unsupported(_NO_FILES)


class FakeEngine:
    """Implements ``linkspan.sdk.host.Engine``; see the module."""

    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine
        self.events = FakeEvents()
        self.containers = FakeContainers(FakeRuntime(machine), self.events)
        self.networks = self.containers.networks = FakeNetworks(self.containers, self.events)
        self.volumes = self.containers.volumes = FakeVolumes(self.containers)
        self.images = self.containers.images = FakeImages(self.events, self._using)

    def _using(self, image_id: str) -> Sequence[Container]:
        everything = self.containers.list(ContainerFilter(all=True))
        return [c for c in everything if c.image_id == image_id]

    async def run_in_snapshot(self, run: StepRun, output: Callable[[Chunk], None]) -> int:
        raise Unsupported("the fake engine has no snapshots")

    async def gc(self) -> Mapping[str, str]:
        await trio.lowlevel.checkpoint()
        return {}


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


async def _nothing() -> AsyncIterator[LogRecord]:
    for _ in ():
        yield _
