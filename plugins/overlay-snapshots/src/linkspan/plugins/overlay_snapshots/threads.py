"""Blocking work in worker threads."""

from collections.abc import Callable
from typing import Any, TypeVar

import trio

from linkspan.plugins.overlay_snapshots.faults import from_os_error

T = TypeVar("T")


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Do it there; what the system refuses is raised as the contract names it."""
    try:
        return await trio.to_thread.run_sync(work, *arguments)
    except OSError as error:
        raise from_os_error(error) from error
