"""What is mounted: lines of ``/proc/PID/mountinfo`` (proc(5))."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """One line.

    Attributes:
        device: ``MAJOR:MINOR`` of what is mounted, as ``st_dev`` of its files.
        target: The mount point, as seen by the process that was asked.
        groups: How mounts spread: ``shared:N``, ``master:N``; none if it is private.
        file_system: Its type.
        options: Those of the file system, as the kernel writes them: ``unescape`` the values.
    """

    device: str
    target: str
    groups: tuple[str, ...]
    file_system: str
    options: tuple[str, ...]


def mounts(process: int | str = "self") -> list[Mount]:
    """Mounts in the namespace of a process, in the order of mounting; blocking.

    Raises:
        OSError: There is no such process.
    """
    return list(parse(os.fsdecode(Path(f"/proc/{process}/mountinfo").read_bytes())))


def parse(text: str) -> Iterator[Mount]:
    """Read the lines; those that are none are left out. Names that are no UTF-8 keep surrogates."""
    for line in text.split("\n"):
        place, _, what = line.partition(" - ")
        fields = place.split(" ")
        if len(fields) < 6:
            continue
        file_system, _, options = [*what.split(" ", 2), "", ""][:3]
        yield Mount(
            device=fields[2],
            target=unescape(fields[4]),
            groups=tuple(fields[6:]),
            file_system=file_system,
            options=tuple(options.split(",")),
        )


def unescape(text: str) -> str:
    r"""A path as it is, of one in which the kernel has written blanks as ``\040``."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text) if "\\" in text else text
