"""Errors of tasks that run side by side."""

import trio


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error that a caller should see: the first that is no consequence of a cancellation."""
    for error in group.exceptions:
        found = first_error(error) if isinstance(error, BaseExceptionGroup) else error
        if not isinstance(found, trio.Cancelled):
            return found
    return group.exceptions[0]
