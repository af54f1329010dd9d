"""Exec sessions: prepared, run once, kept for a while so that their exit code can be asked."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs

from linkspan.core.engine.drivers import Drivers
from linkspan.core.engine.entry import Entry
from linkspan.core.engine.linking import Find, link_environment
from linkspan.core.engine.names import new_id, not_found
from linkspan.core.plugins.hooks import HookRunner
from linkspan.sdk.drivers.runtime import ExecProcess, ProcessSpec
from linkspan.sdk.errors import Conflict
from linkspan.sdk.model.container import Container, ContainerStatus, Exec, ExecSpec
from linkspan.sdk.noted_exec import NotedExec

MOST_KEPT = 1000


class Execs:
    """Exec sessions of all containers; they end with the daemon."""

    def __init__(
        self, drivers: Drivers, hooks: HookRunner, tell: Callable[..., None], *, find: Find
    ) -> None:
        self._drivers = drivers
        self._hooks = hooks
        self._tell = tell
        self._find = find
        self._sessions: dict[str, Exec] = {}
        self._running: dict[str, ExecProcess] = {}

    async def create(self, entry: Entry, spec: ExecSpec) -> Exec:
        """Prepare a session."""
        container = entry.container
        _refuse_unless_running(container)
        spec = await self._hooks.intercept("linkspan_before_exec", spec, container=container)
        process = self._process(container, spec)
        if spec.user:
            await self._drivers.runtime.check_exec(container.id, process)
        session = Exec(id=new_id(), container_id=container.id, spec=spec)
        self._sessions[session.id] = session
        self._drop_old()
        self._tell(f"exec_create: {' '.join(spec.command)}", container, execID=session.id)
        self._drivers.runtime.expect_exec(container.id, process)
        return session

    def _drop_old(self) -> None:
        if len(self._sessions) > MOST_KEPT:
            for key in [k for k, s in self._sessions.items() if not s.running][: MOST_KEPT // 2]:
                del self._sessions[key]

    def inspect(self, exec_id: str) -> Exec:
        """One session. NotFound."""
        session = self._sessions.get(exec_id)
        if session is None:
            raise not_found("exec instance", exec_id)
        return session

    def of(self, container_id: str) -> list[str]:
        """Ids of a container's sessions that have not ended."""
        return [
            session.id
            for session in self._sessions.values()
            if session.container_id == container_id and session.exit_code is None
        ]

    @asynccontextmanager
    async def start(self, exec_id: str, container: Container) -> AsyncIterator[ExecProcess]:
        """Run a session; leaving before its end kills the process."""
        session = self.inspect(exec_id)
        refuse_second_start(session)
        _refuse_unless_running(container)
        spec = session.spec
        process = self._process(container, spec)
        self._sessions[exec_id] = attrs.evolve(session, running=True)
        code = 126
        try:
            async with self._drivers.runtime.exec(container.id, process) as running:
                self._running[exec_id] = running
                self._sessions[exec_id] = attrs.evolve(session, running=True, pid=running.pid)
                self._tell(f"exec_start: {' '.join(spec.command)}", container, execID=exec_id)
                code = 137
                noted = NotedExec(running)
                try:
                    yield noted
                finally:
                    code = noted.exit_code
        finally:
            self._running.pop(exec_id, None)
            self._sessions[exec_id] = attrs.evolve(
                self._sessions.get(exec_id, session), running=False, exit_code=code, pid=0
            )
            self._tell("exec_die", container, execID=exec_id, exitCode=str(code))

    def _process(self, container: Container, spec: ExecSpec) -> ProcessSpec:
        return ProcessSpec(
            args=spec.command,
            env=(*link_environment(self._find, container), *container.env, *spec.env),
            cwd=spec.working_dir or container.working_dir,
            user=spec.user or container.user,
            group_add=container.spec.group_add,
            tty=spec.tty,
            stdin=spec.attach_stdin,
            privileged=spec.privileged,
            console_size=spec.console_size,
        )

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """Tell its terminal the size; silent if it does not run."""
        self.inspect(exec_id)
        running = self._running.get(exec_id)
        if running is not None:
            await running.resize(height, width)


def refuse_second_start(session: Exec) -> None:
    """Raise Conflict if it runs or ran."""
    if session.running or session.exit_code is not None:
        state = "is already running" if session.running else "has already run"
        raise Conflict(f"Error: Exec command {session.id} {state}")


def _refuse_unless_running(container: Container) -> None:
    status = container.state.status
    if status is ContainerStatus.PAUSED:
        raise Conflict(
            f"Container {container.name} is paused, unpause the container before exec",
            code="paused",
        )
    if status is not ContainerStatus.RUNNING:
        raise Conflict(f"container {container.id} is not running", code="not_running")
