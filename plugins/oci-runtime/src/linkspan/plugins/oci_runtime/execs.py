"""Execs of containers: what is run, and runtimes that wait for an exec that is expected.

A client makes an exec first and starts it with its next request. The runtime needs longer to load itself
and the container's state than that request takes, so it is started when the exec is made (``expect``), and
told what to run when the exec is started. One that nobody comes for is ended after a moment.
"""

import contextlib
import select
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson
import trio

from linkspan.plugins.oci_runtime import capabilities, cgroups, exec_session, spec, users
from linkspan.plugins.oci_runtime.exec_session import ExecCommand, ExecSession, Waiting
from linkspan.plugins.oci_runtime.held import Expectation, HeldContainer
from linkspan.plugins.oci_runtime.tools import Tools
from linkspan.sdk.drivers.runtime import ProcessSpec
from linkspan.sdk.errors import Internal, NotFound

_EXPECTED_S: Final = 1.0
_MOST_WAITING: Final = 16

# What a session has of the container's first process.
_OF_CONTAINER: Final = ("rlimits", "oomScoreAdj", "apparmorProfile")


class Execs:
    """See the module."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._waiting = 0

    def expect(self, container: HeldContainer, process: ProcessSpec, nursery: trio.Nursery) -> None:
        """An exec is likely to be run at once. Not for terminals: theirs is asked for by a socket."""
        if process.tty or container.expected is not None or self._waiting >= _MOST_WAITING:
            return
        container.expected = Expectation()
        # In a task, so that the answer to whoever has announced it goes first.
        nursery.start_soon(self._meet, container, container.expected, process)

    async def _meet(
        self, container: HeldContainer, expected: Expectation, process: ProcessSpec
    ) -> None:
        """Have a runtime wait; end it if nobody comes."""
        if expected.over.is_set():
            return
        self._waiting += 1
        try:
            # If it cannot be started, the exec itself will say why.
            with contextlib.suppress(Internal, OSError):
                expected.waiting = self._begin(container, process)
                with trio.move_on_after(_EXPECTED_S):
                    await expected.over.wait()
        finally:
            self._waiting -= 1
            if container.expected is expected:
                container.expected = None
            waiting, expected.waiting = expected.waiting, None
            if waiting is not None:
                await waiting.end()

    def _begin(self, container: HeldContainer, process: ProcessSpec) -> Waiting:
        return exec_session.begin(self._command(container, process))

    def _command(self, container: HeldContainer, process: ProcessSpec) -> ExecCommand:
        return ExecCommand(
            runtime=self._tools.runtime_words,
            container_id=container.id,
            folder=container.bundle / "exec",
            tty=process.tty,
            stdin=process.stdin,
            is_crun=self._tools.is_crun,
            console_size=process.console_size,
        )

    @asynccontextmanager
    async def run(
        self, container: HeldContainer, process: ProcessSpec
    ) -> AsyncIterator[ExecSession]:
        """See ``Runtime.exec``; the container runs."""
        if process.tty:
            document = await trio.to_thread.run_sync(self._document, container, process)
            command = self._command(container, process)
            async with exec_session.run_on_terminal(command, document) as session:
                yield session
            return
        waiting = await self._runtime(container, process)
        try:
            document = await trio.to_thread.run_sync(self._document, container, process)
        except BaseException:
            await waiting.end()
            raise
        session = await waiting.run(document)
        async with exec_session.ended(session):
            yield session

    async def _runtime(self, container: HeldContainer, process: ProcessSpec) -> Waiting:
        """The runtime that was begun for this exec, or a new one."""
        expected, container.expected = container.expected, None
        if expected is not None:
            waiting, expected.waiting = expected.waiting, None
            expected.over.set()
            # It has looked up the init's pid, which is nobody's any more once that has ended.
            if waiting is not None:
                if waiting.stdin is process.stdin and not _has_ended(container.init):
                    return waiting
                await waiting.end()
        try:
            return self._begin(container, process)
        except FileNotFoundError as exc:
            raise NotFound(
                f"container {container.id[:12]} does not run", code="not_running"
            ) from exc

    def _document(self, container: HeldContainer, process: ProcessSpec) -> dict[str, Any]:
        """The process to run: its user from the container as it is now, the rest as its init's."""
        if container.process is None:
            document = orjson.loads((container.bundle / "config.json").read_bytes())
            container.process = document["process"]
        init = container.process
        identity = identity_of(container, process)
        available = self._tools.machine.capabilities
        made = spec.make_process(
            process,
            identity=identity,
            machine=self._tools.machine,
            no_new_privileges=init.get("noNewPrivileges", False),
            caps=[name for name in capabilities.ALL if name in available]
            if process.privileged
            else init["capabilities"]["bounding"],
        )
        taken = {key: init[key] for key in _OF_CONTAINER if key in init}
        if taken.get("oomScoreAdj") == self._tools.machine.oom_score_adj:
            del taken["oomScoreAdj"]  # the runtime has it from us
        return {**taken, **made}

    def end_old(self, container: HeldContainer) -> None:
        """End the sessions of an earlier daemon; blocks."""
        inside = set(cgroups.processes(self._tools.groups, container.record.cgroup_path))
        folder = container.bundle / "exec"
        for file in folder.glob("*.pid") if folder.exists() else ():
            text = file.read_text().strip()
            if text.isdecimal() and int(text) in inside:
                exec_session.kill_group(int(text))
        shutil.rmtree(folder, ignore_errors=True)


def identity_of(container: HeldContainer, process: ProcessSpec) -> users.Identity:
    """Who a process would be in a running container; blocks.

    Raises:
        InvalidArgument: code ``user_not_found``, or another of a malformed user.
        NotFound: code ``not_running``.
    """
    try:
        return users.look_up(f"/proc/{container.record.pid}/root", process.user, process.group_add)
    except FileNotFoundError as exc:
        raise NotFound(f"container {container.id[:12]} does not run", code="not_running") from exc


def _has_ended(pidfd: int) -> bool:
    with contextlib.suppress(ValueError, OSError):
        return bool(select.select([pidfd], [], [], 0)[0])
    return True
