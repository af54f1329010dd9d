"""The drivers ``host`` (the host's own network) and ``none`` (nothing but loopback)."""

import shutil
import socket
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Self

import attrs
import trio

from linkspan.plugins.bridge_network.descriptors import is_network_namespace
from linkspan.plugins.bridge_network.namespaces import Namespaces
from linkspan.plugins.bridge_network.nftables import Nftables
from linkspan.plugins.bridge_network.pool import new_endpoint_id
from linkspan.plugins.bridge_network.sandbox_files import (
    SandboxFiles,
    failure,
    hosts_text,
    parse_extra_hosts,
    wished_settings,
)
from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.drivers.network import AttachRequest, NetworkCap, NetworkDriver, Sandbox
from linkspan.sdk.errors import Conflict, NotFound, NotUsable, PermissionDenied, Unsupported
from linkspan.sdk.host import Host
from linkspan.sdk.model.network import Endpoint, EndpointSpec, Network

_HOST_HOSTS = Path("/etc/hosts")
_LOOPBACK = IPv4Address("127.0.0.1")


class PlainNetwork(NetworkDriver[NoConfig]):
    """A driver whose one network has no links, addresses or published ports."""

    kind: str

    def __init__(self, host: Host) -> None:
        self._folder = host.run_dir / "sandboxes"
        self._network_id = ""
        self._paths: dict[str, str | None] = {}

    @property
    def capabilities(self) -> NetworkCap:
        """None."""
        return NetworkCap.NONE

    async def create_network(self, network: Network) -> Network:
        """See ``NetworkDriver``.

        Raises:
            PermissionDenied: There is one already.
        """
        await trio.lowlevel.checkpoint()
        if self._network_id not in ("", network.id):
            name = "null" if self.kind == "none" else self.kind
            raise PermissionDenied(f'only one instance of "{name}" network is allowed')
        self._network_id = network.id
        return network

    async def remove_network(self, network: Network) -> None:
        """See ``NetworkDriver``."""
        await trio.lowlevel.checkpoint()
        if self._network_id == network.id:
            self._network_id = ""

    async def attach(self, request: AttachRequest) -> Sandbox:
        """See ``NetworkDriver``."""
        await trio.lowlevel.checkpoint()
        if request.container_id in self._paths:
            raise Conflict(
                f"container {request.name} has a network sandbox already", code="sandbox_exists"
            )
        self._paths[request.container_id] = None
        files = SandboxFiles(self._folder / request.container_id)
        try:
            self._paths[request.container_id] = path = await self._namespace()
            await trio.to_thread.run_sync(self._write_files, request, files)
        except BaseException as error:
            with trio.CancelScope(shield=True):
                await self.detach(request.container_id)
            if isinstance(error, OSError):
                raise failure(error, request.name) from error
            raise
        return Sandbox(
            container_id=request.container_id,
            namespace=path,
            endpoints=tuple(_endpoint(*each) for each in request.networks),
            files=files.mapping(),
        )

    async def connect(self, container_id: str, network: Network, spec: EndpointSpec) -> Endpoint:
        """See ``NetworkDriver``. There is nothing to connect to but the name of it."""
        await trio.lowlevel.checkpoint()
        self._living(container_id)
        return _endpoint(network, spec)

    async def disconnect(self, container_id: str, network: Network) -> None:
        """See ``NetworkDriver``. Who is in the network is known by the engine alone."""
        await trio.lowlevel.checkpoint()
        self._living(container_id)

    def _living(self, container_id: str) -> None:
        if container_id not in self._paths:
            raise NotFound(f"container {container_id[:12]} has no network sandbox")

    async def detach(self, container_id: str) -> None:
        """See ``NetworkDriver``. If cancelled: it is ended all the same."""
        await trio.lowlevel.checkpoint()
        if container_id not in self._paths:
            return
        with trio.CancelScope(shield=True):
            path = self._paths.pop(container_id)
            if path is not None:
                await self._drop([path])
            folder = self._folder / container_id
            await trio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))

    async def restore(self, networks: Iterable[Network], sandboxes: Iterable[Sandbox]) -> list[str]:
        """See ``NetworkDriver``."""
        notes: list[str] = []
        for network in networks:
            self._network_id = network.id
        for sandbox in sandboxes:
            path = sandbox.namespace
            if path is not None and not is_network_namespace(path):
                notes.append(
                    f"the network namespace of container {sandbox.container_id[:12]} is gone"
                )
                continue
            self._paths[sandbox.container_id] = path
        await self._drop_unknown()
        await trio.to_thread.run_sync(self._remove_unknown_folders)
        return notes

    def _remove_unknown_folders(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for folder in self._folder.iterdir():
            if folder.name not in self._paths:
                shutil.rmtree(folder, ignore_errors=True)

    def _write_files(self, request: AttachRequest, files: SandboxFiles) -> None:
        settings = wished_settings(request)
        more = parse_extra_hosts(request.extra_hosts, _LOOPBACK)
        files.write(
            hosts=self._hosts(more, ipv6=request.ipv6),
            resolv_conf=settings.text(),
            hostname=self._hostname(request),
        )

    @abstractmethod
    async def _namespace(self) -> str | None:
        """Make what the container lives in."""

    async def _drop(self, paths: Iterable[str]) -> None:
        """Let namespaces go."""

    async def _drop_unknown(self) -> None:
        """Let go of namespaces that no record knows."""

    def _hosts(self, more: list[tuple[str, str]], *, ipv6: bool) -> str:
        return hosts_text([], more, ipv6=ipv6)

    def _hostname(self, request: AttachRequest) -> str:
        return request.hostname


class HostNetwork(PlainNetwork):
    """No namespace: the container has the host's interfaces, ports and names."""

    kind = "host"

    @classmethod
    @asynccontextmanager
    async def open(cls, config: NoConfig, host: Host) -> AsyncIterator[Self]:
        """See ``Driver``."""
        yield cls(host)

    async def _namespace(self) -> str | None:
        return None

    def _hosts(self, more: list[tuple[str, str]], *, ipv6: bool) -> str:
        try:
            text = _HOST_HOSTS.read_text()
        except OSError:
            return hosts_text([], more, ipv6=ipv6)
        return text + "".join(f"{address}\t{name}\n" for address, name in more)

    def _hostname(self, request: AttachRequest) -> str:
        return request.hostname or socket.gethostname()


class NoneNetwork(PlainNetwork):
    """A namespace with loopback only."""

    kind = "none"

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._namespaces = Namespaces(host.run_dir / "netns", Nftables())

    @classmethod
    @asynccontextmanager
    async def open(cls, config: NoConfig, host: Host) -> AsyncIterator[Self]:
        """See ``Driver``."""
        driver = cls(host)
        try:
            try:
                await driver._namespaces.links()
            except OSError as error:
                raise NotUsable(f"network namespaces cannot be made here: {error}") from error
            yield driver
        finally:
            await driver._namespaces.close()

    async def adopt(self, sandbox: Sandbox, request: AttachRequest) -> Sandbox:
        """See ``NetworkDriver``."""
        await trio.lowlevel.checkpoint()
        if sandbox.namespace is None:
            raise Unsupported("a container in the host's network namespace stays there")
        files = SandboxFiles(self._folder / sandbox.container_id)
        self._paths[sandbox.container_id] = None
        try:
            path = await self._namespaces.hold(sandbox.namespace, new_endpoint_id()[:12])
            self._paths[sandbox.container_id] = path
            await trio.to_thread.run_sync(files.share, sandbox.files)
        except BaseException as error:
            with trio.CancelScope(shield=True):
                await self.detach(sandbox.container_id)
            if isinstance(error, OSError):
                raise failure(error, request.name) from error
            raise
        return attrs.evolve(sandbox, namespace=path, files=files.mapping())

    async def _namespace(self) -> str | None:
        path, _ = await self._namespaces.create(new_endpoint_id()[:12])
        return path

    async def _drop(self, paths: Iterable[str]) -> None:
        await self._namespaces.drop(paths)

    async def _drop_unknown(self) -> None:
        known = set(self._paths.values())
        await self._drop([path for path in self._namespaces.files() if path not in known])


def _endpoint(network: Network, spec: EndpointSpec) -> Endpoint:
    return Endpoint(
        id=new_endpoint_id(),
        network_id=network.id,
        network_name=network.name,
        spec=attrs.evolve(spec, aliases=()),
    )
