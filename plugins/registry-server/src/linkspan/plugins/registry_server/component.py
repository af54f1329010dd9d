"""The component: listens, serves, cleans up."""

import errno
import functools
import logging
from typing import Any, TypeVar

import trio

from linkspan.plugins.registry_server.config import RegistryServerConfig, parse_listen
from linkspan.plugins.registry_server.server import Server
from linkspan.plugins.registry_server.service import Service
from linkspan.plugins.registry_server.store import Store
from linkspan.plugins.registry_server.uploads import Uploads
from linkspan.sdk.errors import Conflict, InvalidArgument
from linkspan.sdk.host import Host

log = logging.getLogger(__name__)
T = TypeVar("T")
_THREADS = 16


async def serve_registry(
    config: RegistryServerConfig,
    host: Host,
    *,
    task_status: Any = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; ``task_status.started`` gets ``HOST:PORT``.

    Raises:
        Conflict: code ``port_taken``.
        InvalidArgument: The address is not of this machine.
    If cancelled: nobody new is let in, and requests in flight have ``drain_s`` to end; what had been
        answered with 201 is on disk.
    """
    listeners = await open_listeners(config.listen)
    limiter = trio.CapacityLimiter(_THREADS)
    in_thread = functools.partial(trio.to_thread.run_sync, limiter=limiter)

    async def run_in_thread(function: Any, *arguments: Any) -> Any:
        return await in_thread(function, *arguments)

    store = Store(host.state_dir / "registry")
    try:
        await run_in_thread(store.prepare)
        uploads = Uploads(store.uploads, run_in_thread, expiry_s=config.upload_expiry_s)
        service = Service(store, uploads, config, run_in_thread)
        server = Server(service.handle, config, run_in_thread)
        name, port = listeners[0].socket.getsockname()[:2]
        shown = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
        log.info("registry listens", extra={"address": shown})
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(uploads.expire)
                task_status.started(shown)
                await server.serve(listeners)
        finally:
            uploads.close()
    finally:
        for listener in listeners:
            listener.socket.close()


async def open_listeners(listen: str) -> list[trio.SocketListener]:
    """Bind. Raises Conflict (code ``port_taken``) or InvalidArgument."""
    address, port = parse_listen(listen)
    try:
        return list(await trio.open_tcp_listeners(port, host=address))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"registry-server cannot listen on {listen}: port {port} is already in use",
                code="port_taken",
                details={"port": port},
                help=f"find who has it with `ss -ltnp sport = :{port}`, or set another "
                "`listen` in [registry-server]",
            ) from error
        raise InvalidArgument(
            f"registry-server cannot listen on {listen}: {error.strerror}", code="listen_invalid"
        ) from error
