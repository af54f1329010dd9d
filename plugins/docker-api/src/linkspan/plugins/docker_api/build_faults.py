"""Faults of build files in the words that Docker's clients know."""

from linkspan.sdk.errors import InvalidArgument


def unplaced(error: InvalidArgument) -> InvalidArgument:
    """A fault of the build file without the place, ``file:line``, which Docker's does not name."""
    file, line = error.details.get("file"), error.details.get("line")
    place = f"{file}: " if line is None else f"{file}:{line}: "
    if not file or not error.message.startswith(place):
        return error
    return InvalidArgument(
        error.message.removeprefix(place), code=error.code, details=error.details, help=error.help
    )
