"""An exec session that can be asked for its exit code afterwards."""

from linkspan.sdk.drivers.runtime import ExecProcess
from linkspan.sdk.model.process import Chunk


class NotedExec(ExecProcess):
    """Passes everything on to another session.

    Attributes:
        exit_code: What ``wait`` returned; 137 (killed) while nobody has waited to the end.
    """

    def __init__(self, inner: ExecProcess) -> None:
        self._inner = inner
        self.exit_code = 137

    @property
    def pid(self) -> int:
        """Of the inner session."""
        return self._inner.pid

    async def receive(self) -> Chunk | None:
        """Pass on."""
        return await self._inner.receive()

    async def send(self, data: bytes) -> None:
        """Pass on."""
        await self._inner.send(data)

    async def close_stdin(self) -> None:
        """Pass on."""
        await self._inner.close_stdin()

    async def started(self) -> None:
        """Pass on."""
        await self._inner.started()

    async def resize(self, height: int, width: int) -> None:
        """Pass on."""
        await self._inner.resize(height, width)

    async def wait(self) -> int:
        """Wait for the end, and note the exit code."""
        self.exit_code = await self._inner.wait()
        return self.exit_code
