"""The container in which somebody looks around while a run is held at a breakpoint."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import attrs
import trio

from linkspan.sdk.errors import LinkspanError
from linkspan.workflows.breakpoints import Decision, When
from linkspan.workflows.containers import (
    Script,
    container_spec,
    create_container,
    remove_container,
    shell_of,
    write_script,
)
from linkspan.workflows.expressions import EvaluationFailed
from linkspan.workflows.journal import JournalFailed
from linkspan.workflows.model import Step
from linkspan.workflows.place import Place
from linkspan.workflows.running import Run, fault_of

_REST: Final = "while :; do kill -STOP $$; done"
"""Keeps a container alive with nothing but what each shell has in itself."""

MakeScript = Callable[[], Awaitable[Script | None]]
"""The step's script with its image's id; None for a step that has no container."""


async def hold(run: Run, place: Place, step: Step, when: When, make: MakeScript) -> Decision:
    """Stop at a step until somebody decides; meanwhile a container like the step's own is there.

    Args:
        run: The run.
        place: Where the step runs.
        step: The one.
        when: Where it is held.
        make: Gives what the container is made from.

    Raises:
        JournalFailed: The journal cannot be written.
    If cancelled: the container is gone.
    """
    name = f"{place.job.id}/{step.id}"
    waits = run.waits.begin(name)
    container, reason = "", ""
    try:
        with _still(place.limit, run.clock):
            try:
                script = await make()
                if script is None:
                    reason = "the step runs no container"
                else:
                    container = await _create(run, script)
                    await run.host.engine.containers.start(container)
            except JournalFailed:
                raise
            except (LinkspanError, EvaluationFailed) as error:
                # The decision can be taken without a shell.
                reason = fault_of(error).message
            await run.recorder.write(
                "break-reached",
                job=place.job.id,
                step=step.id,
                when=when,
                container="" if reason else container,
                shell=shell_of(step.shell),
                reason=reason,
                editable=step.run is not None,
                script=step.run or "",
            )
            return await waits()
    finally:
        run.waits.end(name)
        if container:
            await remove_container(run.host.engine, container)


async def _create(run: Run, script: Script) -> str:
    await trio.to_thread.run_sync(write_script, script)
    spec = container_spec(script)
    rest = attrs.evolve(spec, entrypoint=(shell_of(script.shell), "-c", _REST))
    return (await create_container(run.host.engine, rest)).id


@contextmanager
def _still(limit: trio.CancelScope, clock: Callable[[], float]) -> Iterator[None]:
    """A job's time limit does not count while somebody looks around."""
    began, before = clock(), limit.deadline
    limit.deadline = float("inf")
    try:
        yield
    finally:
        if before != float("inf"):
            limit.deadline = before + clock() - began
