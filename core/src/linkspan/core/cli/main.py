"""The entry point ``linkspan``.

Only what every command needs is imported here, and below it: neither click nor attrs, trio or rich, and of
Python's own not typing, re, json or socket either, which take half of a short command's time. A test watches
over what ``ps`` and ``--help`` import.
"""

from __future__ import annotations

import errno
import os
import sys

from linkspan.core.cli import quick
from linkspan.core.cli.failure import FAILED, INTERRUPTED, READER_GONE, Failure, of_error
from linkspan.core.cli.session import COMPLETE_VARIABLE, Session
from linkspan.sdk.errors import LinkspanError

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes longer than a short command may
    from collections.abc import Callable, Sequence
    from typing import Final, NoReturn

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_OF_FILES: Final = (
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EROFS,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)


def run(words: Sequence[str]) -> int:
    """Run a command line; errors are printed.

    Args:
        words: What stands behind ``linkspan``.

    Returns:
        The exit status.
    """
    session = Session()
    status = _guard(session, lambda: _dispatch(words, session))
    return _guard(session, _flushed) or status


def _flushed() -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    return 0


def _dispatch(words: Sequence[str], session: Session) -> int:
    if COMPLETE_VARIABLE in os.environ:
        from linkspan.core.cli.root import complete

        return complete(os.environ[COMPLETE_VARIABLE])
    call = quick.find(words, session)
    if call is not None:
        return call()
    from linkspan.core.cli.root import invoke

    return invoke(words, session)


def _guard(session: Session, work: Callable[[], int]) -> int:
    """Do the work; every way in which it can end becomes an exit status."""
    try:
        return work()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except Failure as exc:
        return _report(exc, session, exc)
    except LinkspanError as exc:
        return _report(of_error(exc), session, exc)
    except Exception as exc:
        if isinstance(exc, OSError) and exc.errno in _NO_ROOM:
            return _no_room(exc)
        if isinstance(exc, OSError) and exc.errno in _OF_FILES and exc.filename:
            return _report(_of_file(exc), session, exc)
        if isinstance(exc, FileNotFoundError) and _folder_is_gone():
            failure = Failure("the folder that this was started in does not exist any more")
            return _report(failure, session, exc)
        if session.verbose:
            raise
        return _report(_of_bug(exc), session, exc)


def _report(failure: Failure, session: Session, cause: BaseException) -> int:
    try:
        if session.verbose:
            import traceback

            traceback.print_exception(cause, file=sys.stderr)
        session.terminal.error(failure.render())
    except BrokenPipeError:
        return _reader_gone()
    return failure.status


def _reader_gone() -> int:
    """The reader of our output has left: be silent, and keep the interpreter from complaining."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    return READER_GONE


def _no_room(exc: OSError) -> int:
    """What we write cannot be kept; what is left of it in our hands is dropped."""
    with open(os.devnull, "wb") as null:  # noqa: PTH123 - pathlib is slow to import
        os.dup2(null.fileno(), sys.stdout.fileno())
    where = f"'{exc.filename}'" if exc.filename else "the output"
    failure = Failure(f"cannot write {where}: {exc.strerror}")
    print(failure.render(), file=sys.stderr)
    return failure.status


def _of_file(exc: OSError) -> Failure:
    name = os.fsdecode(exc.filename) if isinstance(exc.filename, str | bytes) else exc.filename
    return Failure(f"cannot use '{name}': {exc.strerror}")


def _folder_is_gone() -> bool:
    try:
        os.getcwd()  # noqa: PTH109 - pathlib is slow to import
    except FileNotFoundError:
        return True
    return False


def _of_bug(exc: Exception) -> Failure:
    return Failure(
        f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__,
        id="LS0001",
        status=FAILED,
        notes=[("note", "this is a fault of linkspan itself")],
        helps=["the same command with --verbose shows where"],
    )


def _open_closed() -> None:
    """Give a stream that we were started without to nobody, so that no file of ours takes its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115


def main() -> NoReturn:
    """Run the command line of this process."""
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    # All is written and closed; taking the interpreter down would be a tenth of a short command's time.
    os._exit(run(sys.argv[1:]))
