"""Puts the daemon together: drivers in their order, the engine, components, routes, listeners."""

import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import trio

from linkspan.core.config.load import LoadedConfig
from linkspan.core.config.schema import DaemonConfig
from linkspan.core.daemon.identity import Identity
from linkspan.core.daemon.lending import Lent, LentHooks, PluginHost
from linkspan.core.daemon.loop_watch import LoopWatch
from linkspan.core.daemon.own_task import in_own_task
from linkspan.core.daemon.reloading import Read, reload_when_told
from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.engine import Engine
from linkspan.core.engine.groups import first_error
from linkspan.core.engine.supervisor import Supervisor
from linkspan.core.events.bus import EventBus
from linkspan.core.http.limits import Stopping
from linkspan.core.http.listeners import open_unix_listener, remove_unix_socket
from linkspan.core.http.routing import RouteTable
from linkspan.core.http.server import serve_http
from linkspan.core.plugins.hooks import HookRunner
from linkspan.core.plugins.listing import with_daemon_state
from linkspan.core.plugins.registry import PluginRegistry
from linkspan.core.store.records import open_records
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.host import DaemonInfo
from linkspan.sdk.http import Request, Response, json_response
from linkspan.sdk.memory import keep_buffers
from linkspan.sdk.values import define

if TYPE_CHECKING:
    import ssl

log = logging.getLogger("linkspan.daemon")

# The engine stands on the first group; the second may use the engine.
ENGINE_ROLES = ("runtime", "content", "snapshots", "registry", "network", "volume")
LATER_ROLES = ("builder", "state", "secrets", "scheduler", "orchestrator", "step")
# Of these every installed driver is opened: objects, steps and pipelines name theirs.
ALL_INSTALLED = ("network", "volume", "builder", "secrets", "orchestrator", "step")
ESSENTIAL = ("runtime", "content", "snapshots")
_START_LIMIT_S = 60.0


@define
class Daemon:
    """A daemon that is being put together.

    Attributes:
        repaired: What recovery said, a sentence each.
        troubles: Components that did not start, and why.
        soft_open_files: As in ``DaemonInfo``.
        read_again: Reads the config anew at a SIGHUP; None if this process is not the daemon's own.
    """

    config: LoadedConfig
    registry: PluginRegistry
    identity: Identity
    drivers: Drivers = attrs.field(factory=Drivers)
    repaired: list[str] = attrs.field(factory=list)
    troubles: dict[str, str] = attrs.field(factory=dict)
    soft_open_files: int | None = None
    read_again: Read | None = None

    def wanted(self, role: str) -> list[str]:
        """Names of the drivers of a role that are to be opened, the chosen one first."""
        chosen = self.config.role(role).driver
        if not chosen:
            return self.registry.driver_names(role)
        self.drivers.chosen[role] = chosen
        if role not in ALL_INSTALLED:
            return [chosen]
        return list(dict.fromkeys((chosen, *self.registry.driver_names(role))))

    def prepare_process(self) -> None:
        """Before the event loop: room for many clients; then the chosen drivers change this process."""
        self.soft_open_files = _raise_open_files()
        for role in (*ENGINE_ROLES, *LATER_ROLES):
            name = self.config.role(role).driver if role != "step" else ""
            if not name:
                continue
            try:
                kind = self.registry.driver_class(role, name)
                kind.prepare_process(
                    self.config.driver_config(role, name, kind.config_type),
                    self._run_dir(role, name),
                )
            except LinkspanError as error:
                self._unusable(role, name, error)

    def _unusable(self, role: str, name: str, error: LinkspanError) -> None:
        if role in ESSENTIAL:
            raise error
        self.drivers.reasons[role, name] = str(error)
        log.error("driver not usable", extra={"role": role, "driver": name, "reason": str(error)})

    def _broke(self, role: str, name: str, raised: BaseException) -> None:
        error = first_error(raised) if isinstance(raised, BaseExceptionGroup) else raised
        self.drivers.drop(role, name, f"it broke: {error}")
        log.error(
            "driver broke; the daemon goes on without it",
            exc_info=raised,
            extra={"role": role, "driver": name, "reason": str(error)},
        )

    def _run_dir(self, role: str, name: str) -> Path:
        folder = self.config.daemon.exec_root / f"{role}-{name}"
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        return folder

    def info(self) -> DaemonInfo:
        """Facts about this daemon."""
        daemon = self.config.daemon
        return DaemonInfo(
            id=self.identity.id,
            name=socket.gethostname(),
            version=self.identity.version,
            data_root=daemon.data_root,
            exec_root=daemon.exec_root,
            api_sockets=daemon.host,
            drivers=dict(self.drivers.chosen),
            manifests=tuple(self.registry.manifests.values()),
            insecure_registries=daemon.insecure_registries,
            registry_mirrors=tuple(f"{url.rstrip('/')}/" for url in daemon.registry_mirrors),
            labels=tuple(dict.fromkeys(daemon.labels)),
            generic_resources=daemon.node_generic_resources,
            bridge_address=daemon.bip or "",
            soft_open_files=self.soft_open_files,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled, SIGTERM or SIGINT (see ``Stopping``); containers go on."""
        async with AsyncExitStack() as stack:
            watch = self._watch_loop(stack)
            nursery = await stack.enter_async_context(_cancelled_at_end())
            supervisor = Supervisor(nursery)
            hooks = self.registry.hook_runner()
            lent = Lent(self.drivers, self.info(), LentHooks(hooks, supervisor))
            for role in ENGINE_ROLES:
                await self._open_role(role, lent, stack, nursery)
            lent.info = self.info()
            records = await stack.enter_async_context(
                open_records(self.config.daemon.data_root / "linkspan.db")
            )
            engine = Engine(
                records=records,
                drivers=self.drivers,
                hooks=hooks,
                supervisor=supervisor,
                bus=EventBus(),
                data_root=self.config.daemon.data_root,
                exec_root=self.config.daemon.exec_root,
                bridge_address=self.config.daemon.bip or "",
            )
            lent.engine = engine
            self.repaired += await engine.recover()
            for role in LATER_ROLES:
                await self._open_role(role, lent, stack, nursery)
            await engine.remove_old_folders()
            lent.info = self.info()
            host = PluginHost(
                lent,
                supervisor,
                self.config.daemon.data_root / "plugins",
                self.config.daemon.exec_root / "plugins",
            )
            await self._start_components(hooks, lent, supervisor)
            for text in self.repaired:
                log.warning("repaired", extra={"what": text})
            if watch is not None:
                watch.limit(self.config.plugins.block_timeout_s)
            await self._serve(hooks, host, lent, supervisor, engine, stack, task_status)

    def _watch_loop(self, stack: AsyncExitStack) -> LoopWatch | None:
        """Only in a process of our own: signals are the process's."""
        limit_s = self.config.plugins.block_timeout_s
        if self.read_again is None or limit_s == 0:
            return None
        # While it starts, modules are imported, and nobody waits for an answer yet.
        watch = LoopWatch(self.registry.owners(), max(limit_s, _START_LIMIT_S))
        stack.enter_context(watch.watching())
        return watch

    async def _open_role(
        self, role: str, lent: Lent, stack: AsyncExitStack, nursery: trio.Nursery
    ) -> None:
        for name in self.wanted(role):
            if (role, name) in self.drivers.reasons:
                continue
            opening = self._opened(role, name, lent)
            if role not in ESSENTIAL:
                opening = in_own_task(opening, nursery, partial(self._broke, role, name))
            try:
                driver = await stack.enter_async_context(opening)
                await driver.recover()
            except (LinkspanError, BaseExceptionGroup) as raised:
                # The driver's nursery wraps what its opening raises.
                error = first_error(raised) if isinstance(raised, BaseExceptionGroup) else raised
                if not isinstance(error, LinkspanError):
                    raise
                self._unusable(role, name, error)
                continue
            self.drivers.add(role, name, driver)

    @asynccontextmanager
    async def _opened(self, role: str, name: str, lent: Lent) -> AsyncIterator[Any]:
        kind = self.registry.driver_class(role, name)
        config = self.config.driver_config(role, name, kind.config_type)
        async with _cancelled_at_end() as nursery:
            host = PluginHost(
                lent,
                Supervisor(nursery),
                self.config.daemon.data_root / f"{role}-{name}",
                self._run_dir(role, name),
            )
            async with self.registry.open_driver(role, name, config, host) as driver:
                yield driver

    async def _start_components(
        self, hooks: HookRunner, lent: Lent, supervisor: Supervisor
    ) -> None:
        found = _Components()
        hooks.call("linkspan_register_components", components=found)
        for name, run, config_type in found.items:
            daemon = self.config.daemon
            host = PluginHost(lent, supervisor, daemon.data_root / name, daemon.exec_root / name)
            try:
                config = self.config.component(name, config_type) if config_type else None
                await supervisor.start(run, config, host, name=name)
            except LinkspanError as error:
                self.troubles[name] = str(error)
                log.warning(
                    "component not started", extra={"component": name, "reason": str(error)}
                )

    async def _serve(
        self,
        hooks: HookRunner,
        host: PluginHost,
        lent: Lent,
        supervisor: Supervisor,
        engine: Engine,
        stack: AsyncExitStack,
        task_status: trio.TaskStatus[None],
    ) -> None:
        routes = RouteTable()
        routes.add("GET", "/linkspan/v1/daemon", partial(self._status, hooks))
        routes.add("GET", "/linkspan/v1/plugins", partial(self._plugins, hooks))
        hooks.call("linkspan_register_routes", router=routes, host=host)
        daemon = self.config.daemon
        encrypted = await _encrypted(daemon)
        paths = [host.removeprefix("unix://") for host in daemon.host if host.startswith("unix://")]
        listeners = []
        for path in paths:
            listeners.append(await open_unix_listener(path, group=daemon.group))
            stack.callback(remove_unix_socket, path)
        async with trio.open_nursery() as nursery:
            # Restart policies and cleaning up need not hold up the first answer.
            supervisor.spawn(engine.containers.start_wanted, name="start wanted containers")
            supervisor.spawn(engine.gc, name="gc")
            supervisor.spawn(engine.gc_when_due, name="gc when due")
            begun = trio.Event()
            await nursery.start(_until_signalled, begun, nursery.cancel_scope)
            if self.read_again is not None:
                facts = (self.config, self.identity.id, lent.info.name, engine.events.publish)
                await nursery.start(reload_when_told, self.read_again, *facts)

            async def serve(task_status: trio.TaskStatus[None]) -> None:
                await serve_http(
                    listeners,
                    routes,
                    encrypted=encrypted,
                    stopping=Stopping(begun, daemon.shutdown_timeout_s),
                    task_status=task_status,
                )
                nursery.cancel_scope.cancel()

            await nursery.start(serve)
            await hooks.notify("linkspan_daemon_started", daemon=lent.info)
            gc.freeze()
            gc.enable()
            keep_buffers()
            log.info("listening", extra={"addresses": list(daemon.host), "pid": os.getpid()})
            task_status.started()
        with trio.move_on_after(daemon.shutdown_timeout_s):
            await hooks.notify("linkspan_daemon_stopping", daemon=lent.info)
        log.info("stopped")

    async def _status(self, hooks: HookRunner, request: Request) -> Response:
        return json_response(
            {
                "id": self.identity.id,
                "version": self.identity.version,
                "pid": os.getpid(),
                "data_root": str(self.config.daemon.data_root),
                "exec_root": str(self.config.daemon.exec_root),
                "hosts": list(self.config.daemon.host),
                "drivers": dict(self.drivers.chosen),
                "unusable": {f"{r}/{n}": why for (r, n), why in self.drivers.reasons.items()},
                "troubles": self.troubles,
                "repaired": self.repaired,
                "info": dict(hooks.call("linkspan_info")),
            }
        )

    async def _plugins(self, hooks: HookRunner, request: Request) -> Response:
        rows = with_daemon_state(
            self.registry.listing(self.config), self.drivers.reasons, hooks.stats
        )
        return json_response([attrs.asdict(row) for row in rows])


def _raise_open_files() -> int:
    """Let this process open as many files as root has allowed it; the soft limit that it had.

    Most systems start a process with 1024, for the sake of select(2), which the daemon does not use.
    """
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return soft


async def _encrypted(
    daemon: DaemonConfig,
) -> "list[tuple[list[trio.SocketListener], ssl.SSLContext]]":
    """Listeners of TCP; the config has made sure that their files are named."""
    urls = [host for host in daemon.host if host.startswith("tcp://")]
    if not urls:
        return []
    from linkspan.core.http.tls import TlsFiles, open_tcp_listeners, server_context

    assert daemon.tls_ca_cert is not None
    assert daemon.tls_cert is not None
    assert daemon.tls_key is not None
    files = TlsFiles(ca=daemon.tls_ca_cert, cert=daemon.tls_cert, key=daemon.tls_key)
    context = await trio.to_thread.run_sync(server_context, files)
    return [(await open_tcp_listeners(url), context) for url in urls]


class _Components:
    """Collects what plugins register; ``linkspan.sdk.hooks.registration.Components``."""

    def __init__(self) -> None:
        self.items: list[tuple[str, Callable[..., Any], type[Any] | None]] = []

    def add(
        self, name: str, run: Callable[..., Any], *, config_type: type[Any] | None = None
    ) -> None:
        self.items.append((name, run, config_type))


@asynccontextmanager
async def _cancelled_at_end() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks end with the context."""
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        finally:
            nursery.cancel_scope.cancel()


async def _until_signalled(
    stopping: trio.Event,
    scope: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """The first signal lets requests end, the second does not."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        task_status.started()
        async for _ in received:
            if stopping.is_set():
                scope.cancel()
                return
            log.info("stopping: requests in flight may end")
            stopping.set()
