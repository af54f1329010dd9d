"""``RUN --mount=type=ssh``: a socket whose connections are carried to an agent of the client.

The keys stay with the client; what a step may do with them ends with the step.
"""

import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from linkspan.plugins.dockerfile_builder.layers import bare_errors
from linkspan.plugins.dockerfile_builder.secret_files import mount_secrets, remove_secrets
from linkspan.sdk.build_client import BuildClient
from linkspan.sdk.errors import LinkspanError

if TYPE_CHECKING:
    from linkspan.plugins.dockerfile_builder.mount_option import RunMount

DEFAULT_ID: Final = "default"
_NAME: Final = "agent"
_MAX_CONNECTIONS: Final = 32


@contextlib.asynccontextmanager
async def agent_socket(client: BuildClient, mount: "RunMount", folder: Path) -> AsyncIterator[Path]:
    """The socket, as long as the step runs.

    Args:
        folder: Where a tmpfs with it is mounted; made and removed.
    """
    connections = trio.CapacityLimiter(_MAX_CONNECTIONS)

    async def serve(stream: trio.SocketStream) -> None:
        async with connections, stream:
            # What the client refuses or breaks off is the program's affair: its connection ends.
            with contextlib.suppress(LinkspanError, trio.BrokenResourceError):
                await client.forward(mount.id or DEFAULT_ID, stream)

    try:
        listening = await trio.to_thread.run_sync(_listen, folder, mount)
        with bare_errors():
            async with trio.open_nursery() as nursery:
                listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
                nursery.start_soon(trio.serve_listeners, serve, [listener])
                yield folder / _NAME
                nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(remove_secrets, folder)


def _listen(folder: Path, mount: "RunMount") -> socket.socket:
    mount_secrets(folder, [])
    above = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listening = socket.socket(socket.AF_UNIX)
    try:
        # A socket's path may have 107 bytes at most; this one is always short.
        path = f"/proc/self/fd/{above}/{_NAME}"
        listening.setblocking(False)
        listening.bind(path)
        os.chown(path, mount.uid, mount.gid)
        os.chmod(path, 0o600 if mount.mode is None else mount.mode)  # noqa: PTH101 - not a name that stays
        listening.listen(_MAX_CONNECTIONS)
    except BaseException:
        listening.close()
        raise
    finally:
        os.close(above)
    return listening
