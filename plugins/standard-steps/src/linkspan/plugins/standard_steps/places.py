"""Paths that a pipeline names, kept inside its workspace."""

from pathlib import Path

from linkspan.sdk.errors import InvalidArgument


def inside(workspace: Path, name: str, what: str) -> Path:
    """The real path; a link may not lead out of the workspace.

    Args:
        workspace: Of the run.
        name: Relative to it.
        what: In the message: ``the context``.

    Raises:
        InvalidArgument: It leads out.
    """
    root = workspace.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise InvalidArgument(f"{what} '{name}' leads out of the workspace")
    return path
