"""Blocking work in worker threads."""

from collections.abc import Callable
from typing import Any, TypeVar

from linkspan.plugins.overlay_snapshots.faults import from_os_error
from linkspan.sdk import threads

T = TypeVar("T")


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Do it there; what the system refuses is raised as the contract names it."""
    try:
        return await threads.in_thread(work, *arguments)
    except OSError as error:
        raise from_os_error(error) from error
