"""What the core lends a plugin. Tests pass the fakes of ``linkspan.sdk.testing``."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from linkspan.sdk.events import Event
from linkspan.sdk.manifest import PluginManifest
from linkspan.sdk.model.container import (
    Container,
    ContainerFilter,
    ContainerSpec,
    Exec,
    ExecSpec,
    ExitStatus,
    Resources,
    RestartPolicy,
)
from linkspan.sdk.model.files import Change, PathStat
from linkspan.sdk.model.image import Attachment, Credentials, Image, PushResult, RemovedImage
from linkspan.sdk.model.network import Endpoint, EndpointSpec, Network, NetworkSpec
from linkspan.sdk.model.process import Chunk, LogQuery, LogRecord, ProcessStreams
from linkspan.sdk.model.volume import Volume, VolumeSpec
from linkspan.sdk.progress import ProgressSink
from linkspan.sdk.values import frozen

T = TypeVar("T")
WaitCondition = Literal["not-running", "next-exit", "removed"]


@frozen(kw_only=True)
class CommitSpec:
    """How a container becomes an image.

    Attributes:
        reference: A tag for it, or empty.
        changes: Instructions of a build file that alter the config (``CMD …``, ``ENV …``).
        config: Fields of an image's ``config`` that replace the container's own.
        pause: Freeze what runs while its files are read.
    """

    reference: str = ""
    author: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    config: Mapping[str, Any] | None = None
    pause: bool = True


class ExitWaiter(Protocol):
    """Made before something happens, so that its end cannot be missed."""

    async def result(self) -> ExitStatus:
        """Wait for the condition."""


class ExecStreams(Protocol):
    """A running exec session."""

    async def started(self) -> None:
        """Wait until its program runs, while somebody receives its output. InvalidArgument: it cannot."""

    async def receive(self) -> Chunk | None:
        """Next output; None at its end."""

    async def send(self, data: bytes) -> None:
        """Write to stdin."""

    async def close_stdin(self) -> None:
        """End of input."""

    async def wait(self) -> int:
        """The exit code."""


class Containers(Protocol):
    """Containers and what is done with them. ``ref``: id, unique id prefix or name.

    Every method raises NotFound (``No such container: …``) for an unknown ref.
    """

    async def create(self, spec: ContainerSpec, *, name: str = "") -> Container:
        """Make a container; an empty name chooses one.

        Raises:
            NotFound: code ``image_not_found``: the image is not here (it is not pulled), or a network or
                volume driver is unknown.
            Conflict: code ``name_taken``.
            InvalidArgument: The spec contradicts itself.
        """

    async def start(self, ref: str) -> None:
        """Start it. NotModified if it runs; otherwise whatever failed, with the container as it was."""

    async def stop(self, ref: str, *, timeout_s: float | None = None, signal: str = "") -> None:
        """Stop signal, then SIGKILL after the timeout (None: the container's). NotModified if stopped."""

    async def restart(self, ref: str, *, timeout_s: float | None = None, signal: str = "") -> None:
        """Stop and start."""

    async def kill(self, ref: str, signal: str = "SIGKILL") -> None:
        """Send a signal. Conflict if it does not run."""

    async def pause(self, ref: str) -> None:
        """Freeze. Conflict if it does not run or is paused."""

    async def unpause(self, ref: str) -> None:
        """Thaw. Conflict if it is not paused."""

    async def rename(self, ref: str, name: str) -> None:
        """Give it another name."""

    async def update(
        self, ref: str, *, resources: Resources | None = None, restart: RestartPolicy | None = None
    ) -> Sequence[str]:
        """Change limits or the restart policy; return warnings."""

    async def unlink(self, ref: str, alias: str) -> None:
        """Take away the name that it has for another container on the default network (``EndpointSpec.links``).

        What runs in it sees the name no more; variables that it was started with stay.

        Raises:
            NotFound: There is no such container, or it has no such link.
        """

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it; ``volumes`` with its anonymous ones. Conflict if it runs and not ``force``."""

    def waiter(self, ref: str, condition: WaitCondition = "not-running") -> ExitWaiter:
        """Begin to wait now; the result may be asked later."""

    def inspect(self, ref: str) -> Container:
        """What it is now."""

    def list(self, query: ContainerFilter = ...) -> Sequence[Container]:
        """Containers, newest first."""

    def attach(self, ref: str) -> AbstractAsyncContextManager[ProcessStreams]:
        """Join its streams; possible before it is started.

        The call itself makes the reader known: a start that follows waits until it reads, so that the
        first byte is not missed. The context may be left without having been entered.
        """

    async def resize(self, ref: str, height: int, width: int) -> None:
        """Tell its terminal the size."""

    def logs(
        self, ref: str, query: LogQuery
    ) -> AbstractAsyncContextManager[AsyncIterator[LogRecord]]:
        """What it wrote."""

    async def pids(self, ref: str) -> Sequence[int]:
        """Host pids of its processes."""

    async def stats(self, ref: str) -> Any:
        """``drivers.runtime.RuntimeStats`` of now."""

    async def exec_create(self, ref: str, spec: ExecSpec) -> Exec:
        """Prepare an exec session. Conflict if the container does not run or is paused."""

    def exec_start(self, exec_id: str) -> AbstractAsyncContextManager[ExecStreams]:
        """Run it. Conflict if it ran already."""

    def exec_ids(self, ref: str) -> Sequence[str]:
        """Sessions in it that have not ended."""

    def exec_inspect(self, exec_id: str) -> Exec:
        """What it is now. NotFound."""

    async def exec_resize(self, exec_id: str, height: int, width: int) -> None:
        """Tell its terminal the size."""

    async def size(self, ref: str) -> tuple[int, int]:
        """Bytes of its own content, and with its image."""

    async def stat_path(self, ref: str, path: str) -> PathStat:
        """What a path of its files is, volumes included; NotFound (code ``path_not_found``)."""

    def read_path(
        self, ref: str, path: str
    ) -> AbstractAsyncContextManager[tuple[PathStat, AsyncIterator[bytes]]]:
        """A file, or a folder with all in it, as a plain tar; it need not run.

        Names in the tar begin with the last part of the path. NotFound (code ``path_not_found``).
        """

    async def write_path(
        self,
        ref: str,
        path: str,
        source: AsyncIterator[bytes],
        *,
        keep_kind: bool = False,
        copy_owner: bool = False,
    ) -> None:
        """Unpack a tar (plain, gzip or zstd) into a folder; it need not run.

        Args:
            keep_kind: A folder is not replaced by something else, nor something else by a folder.
            copy_owner: All of it shall belong to the container's user, not to whom the tar says.

        Raises:
            NotFound: code ``path_not_found``.
            InvalidArgument: code ``not_a_folder``, ``other_kind``, ``hostile_layer``.
            PermissionDenied: code ``read_only``: the root or the mount there.
            DataLoss: The tar is truncated or corrupt.
        """

    async def remove_paths(self, ref: str, path: str, names: Sequence[str]) -> Sequence[str]:
        """Remove files and empty folders below a folder, in this order; what stays, as it is not empty.

        NotFound (code ``path_not_found``: no such folder), PermissionDenied (``read_only``).
        """

    def export(self, ref: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Its root as a plain tar, without volumes."""

    async def changes(self, ref: str) -> Sequence[Change]:
        """What differs from its image."""

    async def commit(self, ref: str, spec: CommitSpec = ...) -> Image:
        """Make an image of its files and its config; it goes on as it was.

        InvalidArgument if a change or the reference is wrong. If cancelled or failed: there is no image.
        """


@frozen(kw_only=True)
class NewImage:
    """An image that a builder (or commit, import, load) has made.

    Attributes:
        config: Exact bytes of the config document.
        chain_ids: Committed layers, bottom first.
    """

    config: bytes
    chain_ids: tuple[str, ...]
    parent: str = ""


class Images(Protocol):
    """Images of this machine. ``ref``: reference, id, or unique id prefix."""

    def list(self) -> Sequence[Image]:
        """All images, newest first."""

    def inspect(self, ref: str) -> Image:
        """One image. NotFound (``No such image: …``)."""

    async def pull(
        self,
        reference: str,
        *,
        credentials: Credentials = ...,
        platform: str = "",
        progress: ProgressSink = ...,
    ) -> Image:
        """Get an image from its registry: verified, unpacked, tagged. If cancelled: nothing half-made."""

    async def push(
        self, reference: str, *, credentials: Credentials = ..., progress: ProgressSink = ...
    ) -> PushResult:
        """Send an image to its registry."""

    async def push_index(
        self,
        reference: str,
        refs: Sequence[str],
        *,
        credentials: Credentials = ...,
        progress: ProgressSink = ...,
    ) -> PushResult:
        """Send images of several platforms to a registry as one (OCI image index), in this order.

        If cancelled or failed: images may be there by their digests, the reference is as it was.
        """

    async def tag(self, ref: str, reference: str) -> None:
        """Give it one more name; taken from the image that had it."""

    async def remove(
        self, ref: str, *, force: bool = False, prune_parents: bool = True
    ) -> Sequence[RemovedImage]:
        """Untag, and remove what has no tag and no user left (Docker's rules). Conflict if in use."""

    async def add(self, new: NewImage, *, tags: Sequence[str] = ()) -> Image:
        """Store an image made here; the same config twice is the same image."""

    async def attach(self, ref: str, attachment: Attachment) -> None:
        """Keep a document with an image, in place of the one of its media type. It goes with the image."""

    async def attachments(self, ref: str) -> Sequence[Attachment]:
        """What is attached to an image, in no order."""

    def save(
        self, refs: Sequence[str], *, platform: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Images as one tar: an OCI image layout that is a Docker archive (``manifest.json``), too.

        Blobs that images share are in it once. NotFound if one of them is not here.
        """

    async def load(
        self,
        source: AsyncIterator[bytes],
        *,
        platform: str = "",
        progress: ProgressSink = ...,
    ) -> Sequence[Image]:
        """Take in what ``save`` wrote, or another program: a Docker archive or an OCI image layout.

        The tar may be compressed (gzip, bzip2, xz, zstd). Every image is verified before it has a name.

        Raises:
            InvalidArgument: code ``bad_archive``, ``hostile_layer``.
            DataLoss: Truncated, or a digest differs.
        If cancelled or failed: images that were complete stay, nothing else does.
        """

    async def import_files(
        self,
        source: AsyncIterator[bytes],
        *,
        reference: str = "",
        changes: Sequence[str] = (),
        message: str = "",
        platform: str = "",
    ) -> Image:
        """Make an image of one layer out of a tar of a root file system, compressed or not."""


class Networks(Protocol):
    """Networks. ``ref``: id, unique id prefix or name."""

    async def create(self, spec: NetworkSpec) -> Network:
        """Conflict (code ``name_taken``)."""

    def inspect(self, ref: str) -> Network:
        """NotFound."""

    def list(self) -> Sequence[Network]:
        """All networks."""

    async def remove(self, ref: str) -> None:
        """PermissionDenied (code ``network_in_use``) while containers are in it, or if it is predefined."""

    async def connect(self, ref: str, container: str, spec: EndpointSpec = ...) -> None:
        """Put a container into it, also a running one."""

    async def disconnect(self, ref: str, container: str, *, force: bool = False) -> None:
        """Take a container out of it."""

    def endpoints(self, ref: str) -> Mapping[str, Endpoint]:
        """Container id → endpoint of the running containers in it."""


class Volumes(Protocol):
    """Volumes by name."""

    async def create(self, spec: VolumeSpec) -> Volume:
        """Make it, or return the one that is there."""

    async def inspect(self, name: str) -> Volume:
        """NotFound."""

    async def list(self) -> Sequence[Volume]:
        """All volumes."""

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Conflict (code ``volume_in_use``) while a container, running or not, has it."""

    def users(self, name: str) -> Sequence[str]:
        """Ids of containers that have it."""


class Events(Protocol):
    """What happened."""

    def publish(self, event: Event) -> None:
        """Tell everybody."""

    def subscribe(
        self, *, since_ns: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """From now on, or from a time, as far as it is remembered."""

    def recent(self, *, since_ns: int | None = None) -> Sequence[Event]:
        """What is remembered, oldest first; from a time on if one is given."""


@frozen(kw_only=True)
class StepMount:
    """A mount for a process in a snapshot.

    Attributes:
        target: Absolute path in the snapshot; made if missing.
        source: A folder or file of this host; None means a tmpfs of its own.
        size_bytes: Of the tmpfs; 0 means no limit.
    """

    target: str
    source: Path | None = None
    read_only: bool = False
    size_bytes: int = 0


@frozen(kw_only=True)
class StepRun:
    """A process in a writable snapshot (a Dockerfile's RUN).

    Attributes:
        snapshot: Key of a snapshot that the caller has prepared; the core mounts and unmounts it.
        user: As in ``ProcessSpec``.
        watch_root: Called in a worker thread with the mounted root before the process is made; what it
            returns is called, in a worker thread too, after the process has ended and before the root
            is unmounted.
    """

    snapshot: str
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    network_mode: str = "default"
    extra_hosts: tuple[str, ...] = ()
    resources: Resources = Resources()
    shm_size_bytes: int = 67108864
    mounts: tuple[StepMount, ...] = ()
    watch_root: Callable[[Path], Callable[[], None]] | None = None


class Engine(Protocol):
    """The lifecycle of everything; the HTTP routes make the same calls."""

    @property
    def containers(self) -> Containers:
        """Containers and exec sessions."""

    @property
    def images(self) -> Images:
        """Images of this machine."""

    @property
    def networks(self) -> Networks:
        """Networks and who is in them."""

    @property
    def volumes(self) -> Volumes:
        """Named storage."""

    @property
    def events(self) -> Events:
        """What happened."""

    async def run_in_snapshot(self, run: StepRun, output: Callable[[Chunk], None]) -> int:
        """Run a process in a snapshot, without a container of its own; return its exit code.

        If cancelled: the process is dead and nothing of it is left; the snapshot is as it was left.
        """

    async def gc(self) -> Mapping[str, str]:
        """Remove blobs, layers, sandboxes that nobody knows; what was removed → why."""


@frozen(kw_only=True)
class DaemonInfo:
    """This daemon.

    Attributes:
        id: Stable over restarts.
        api_sockets: Addresses it listens on, ``unix:///run/linkspan/linkspan.sock``.
        drivers: Role → name of the driver in use.
        manifests: Of the installed plugins.
        registry_mirrors: URLs that are asked before Docker Hub.
        labels: Of this daemon, ``key=value``.
        generic_resources: What this machine offers to tasks, as ``parse_generic_resources`` takes it.
        soft_open_files: The soft limit of open files that the daemon was started with and hands on to
            containers; it has raised its own. -1 is no limit, None that it has not been raised.
    """

    id: str
    name: str
    version: str
    data_root: Path
    exec_root: Path
    api_sockets: tuple[str, ...]
    drivers: Mapping[str, str]
    manifests: Sequence[PluginManifest] = ()
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    generic_resources: tuple[str, ...] = ()
    bridge_address: str = ""
    soft_open_files: int | None = None


class TaskStarter(Protocol):
    """Starts background work that the core supervises."""

    async def __call__(
        self, fn: Callable[..., Awaitable[object]], *args: object, name: str
    ) -> object:
        """Start ``fn(*args, task_status=…)`` and return what it passes to ``task_status.started``.

        When it ends with an error it is started again, with back-off, and its driver counts as
        degraded meanwhile. It is cancelled when the driver's ``open`` context ends.
        """


class Hooks(Protocol):
    """The hooks of all listeners, for a plugin whose doings others may watch, change or refuse."""

    async def intercept(self, name: str, spec: T, /, **kwargs: object) -> T:
        """Call an interceptor; the value to go on with. Raises LinkspanError if somebody refuses."""

    def tell(self, name: str, /, **kwargs: object) -> None:
        """Tell listeners, in the background; never waits, never raises."""


class Host(Protocol):
    """Lent to a driver or component for its lifetime.

    Attributes:
        state_dir: Its own folder; survives a reboot.
        run_dir: Its own folder; gone after a reboot. Short enough for unix sockets.
    """

    @property
    def state_dir(self) -> Path:
        """Its own folder; survives a reboot."""

    @property
    def run_dir(self) -> Path:
        """Its own folder; gone after a reboot."""

    @property
    def start_task(self) -> TaskStarter:
        """Background work, supervised."""

    @property
    def engine(self) -> Engine:
        """What the HTTP routes use, too."""

    @property
    def daemon(self) -> DaemonInfo:
        """Facts about this daemon."""

    @property
    def hooks(self) -> Hooks:
        """To let listeners watch what the plugin does."""

    def driver(self, role: str, name: str | None = None) -> Any:
        """The driver of a role, by its name or the chosen one. NotFound if there is none.

        Drivers of later roles in the start order (runtime, content, snapshots, registry, network,
        volume, builder, state, secrets, scheduler, orchestrator, step) are not there yet inside ``open``.
        """
