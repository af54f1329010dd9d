"""What the driver keeps of a container on disk, so that the next daemon finds it.

The record lies beside the log, in the driver's state folder: it survives a reboot, as the log does.
"""

from pathlib import Path
from typing import Final, Self

import attrs
import orjson

from linkspan.sdk.files import replace_file
from linkspan.sdk.model.container import ExitStatus
from linkspan.sdk.values import frozen

_NAME: Final = "container.json"


@frozen(kw_only=True)
class Record:
    """A container as written to disk.

    Attributes:
        boot: In which boot it was made.
        conmon_started: conmon's start time in ticks since boot, so that a reused pid is not taken for it.
        exit: How it ended; None while it has not, or nobody was there to see.
    """

    container_id: str
    cgroup_path: str
    boot: str
    tty: bool = False
    log: bool = True
    log_max_bytes: int = 0
    log_max_files: int = 1
    stdin_once: bool = False
    own_pid_namespace: bool = True
    conmon_pid: int = 0
    conmon_started: int = 0
    pid: int = 0
    exit: ExitStatus | None = None

    def write(self, folder: Path) -> None:
        """Replace the file."""
        replace_file(folder / _NAME, orjson.dumps(attrs.asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read it; None if there is none or it makes no sense."""
        try:
            values = orjson.loads((folder / _NAME).read_bytes())
            if values["exit"] is not None:
                values["exit"] = ExitStatus(**values["exit"])
            return cls(**values)
        except (OSError, ValueError, TypeError, KeyError):
            return None
