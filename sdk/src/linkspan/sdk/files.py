"""Small files, written with as few system calls as can be.

Each system call of a worker thread gives Python's lock away, and has to wait for it again: ``open`` and
``Path.write_text`` make seven of them, this makes three.
"""

import os
from pathlib import Path


def write_file(path: str | Path, data: bytes, mode: int = 0o666) -> None:
    """Make a file, or replace what one has; blocking.

    Args:
        mode: Of a new file, less the umask.

    Raises:
        OSError: It names the file, also when it comes from the writing and not from the opening.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)
    except OSError as error:
        error.filename = str(path)
        raise
