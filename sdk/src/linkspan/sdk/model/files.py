"""Files of containers: what a path is, what differs from the image, how a root is put together."""

from pathlib import Path

from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class PathStat:
    """What a path of a container is (Docker API, header X-Docker-Container-Path-Stat).

    Attributes:
        name: Last part of the path that was asked for.
        mode: Type and permissions as in stat(2).
        link_target: For a symlink the absolute path it leads to, as far as that can be followed.
    """

    name: str
    size_bytes: int
    mode: int
    mtime_ns: int
    link_target: str = ""


@frozen(kw_only=True)
class Change:
    """A difference of a snapshot to its layer (Docker API ContainerChange)."""

    path: str
    kind: int
    """0 modified, 1 added, 2 deleted."""


@frozen(kw_only=True)
class TreeMount:
    """Something mounted in a root.

    Attributes:
        source: A folder or file of the host; empty for what only a process in the root has (a tmpfs).
    """

    destination: str
    source: str = ""
    read_only: bool = False


@frozen(kw_only=True)
class Tree:
    """A container's files as a process in it sees them, without what the kernel makes up (``/proc``).

    Attributes:
        folder: Where the root is mounted.
        pid: A process that runs in it; 0 if none does.
        mounts: What is seen besides the root, outer ones first.
        read_only: Nothing may be written but into mounts.
    """

    folder: Path
    pid: int = 0
    mounts: tuple[TreeMount, ...] = ()
    read_only: bool = False
