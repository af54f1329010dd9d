"""Files that a command is told to write: what may stand there already."""

import stat
from pathlib import Path

from linkspan.core.cli.failure import USAGE, Failure

_NO_FILES = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISSOCK, "a socket"),
)


def output_file(text: str) -> Path:
    """Where to write what goes to ``text``: behind its links, so that these stay.

    Raises:
        Failure: Its folder is missing, or something stands there that is neither a file nor a stream.
    """
    path = Path(text)
    try:
        mode = path.stat().st_mode
        path = path if is_stream(path) else path.resolve()
    except FileNotFoundError:
        mode, path = 0, path.resolve()
    except OSError as exc:
        raise _wrong(f"cannot write '{text}': {exc.strerror}") from exc
    for stands, what in _NO_FILES:
        if stands(mode):
            raise _wrong(f"cannot write '{text}': it is {what}")
    if not path.parent.is_dir():
        raise _wrong(f"there is no folder '{path.parent}'")
    return path


def is_stream(path: Path) -> bool:
    """Whether a pipe or a device such as /dev/null stands there, which is written to and never replaced."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _wrong(reason: str) -> Failure:
    return Failure(reason, id="LS0004", status=USAGE)
