"""Keeps the kernel's lock for moving processes between cgroups in its fast state.

The first move after some 30 ms of rest waits 6 to 16 ms for an RCU grace period; the next ones take
microseconds. Every start and exec of a container moves a process. So while requests arrive, and a moment
longer, a parked process is moved to and fro between two groups every 12 ms (10 µs each).

The parked process is a ``cat`` whose stdin is a pipe of ours: it ends with this process, however that ends.
"""

import contextlib
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

import trio

from linkspan.plugins.oci_runtime.cgroups import Hierarchies, warm_controller
from linkspan.sdk.host import Host

_WARM_S: Final = 1.5
_EVERY_S: Final = 0.012


class KeepWarm:
    """See the module. ``stir`` is cheap and may be called for every request."""

    def __init__(self, folders: tuple[Path, Path]) -> None:
        self._folders = folders
        self._until = 0.0
        self._called = trio.Event()
        self._parked: subprocess.Popen[bytes] | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls, groups: Hierarchies, parent: str, name: str, host: Host
    ) -> AsyncIterator[Self]:
        """Park the process; on leaving it is ended and its groups are removed."""
        top = groups.folder(warm_controller(groups), parent)
        assert top is not None
        warm = cls((top / f"warm-{name}-a", top / f"warm-{name}-b"))
        await trio.to_thread.run_sync(warm._park)
        await host.start_task(warm._run, name="keep cgroup moves warm")
        try:
            yield warm
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(warm._end)

    def stir(self) -> None:
        """Requests arrive: stay warm for a while."""
        self._until = time.monotonic() + _WARM_S
        self._called.set()

    def _park(self) -> None:
        for folder in self._folders:
            folder.mkdir(parents=True, exist_ok=True)
        self._parked = subprocess.Popen(
            ["cat"],  # noqa: S607
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    async def _run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        try:
            while True:
                await self._called.wait()
                self._called = trio.Event()
                # A thread: each write may wait for the kernel. It ends soon after `_until` is reset.
                await trio.to_thread.run_sync(self._move, abandon_on_cancel=True)
        finally:
            self._until = 0.0

    def _move(self) -> None:
        assert self._parked is not None
        pid = str(self._parked.pid)
        # OSError: the process was ended, or the groups are gone; nothing is to be kept warm then.
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            files = [
                stack.enter_context((folder / "cgroup.procs").open("w", buffering=1))
                for folder in self._folders
            ]
            while time.monotonic() < self._until:
                for file in files:
                    file.write(f"{pid}\n")
                    time.sleep(_EVERY_S)

    def _end(self) -> None:
        self._until = 0.0
        if self._parked is not None:
            assert self._parked.stdin is not None
            self._parked.stdin.close()
            self._parked.kill()
            self._parked.wait()
        for folder in self._folders:
            for _ in range(20):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.01)
                else:
                    break
