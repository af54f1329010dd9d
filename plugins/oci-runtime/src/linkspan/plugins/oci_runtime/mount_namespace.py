"""A mount namespace without the unified cgroup hierarchy, kept over restarts of the daemon.

On a host that mounts the v1 controllers and, beside them, ``/sys/fs/cgroup/unified``, crun 1.8 takes
the host for one with cgroup v2 and fails. So the daemon moves once, before it has threads, into a mount
namespace of its own where that mount is gone; conmon, the runtime and all mounts of the daemon live there.

The namespace is pinned: bound to a file in the host's namespace. A daemon that starts after ``kill -9``
enters it and so sees the mounts of its predecessor, whose containers may still run. The pin's folder is
a private mount, since a namespace must not be propagated into itself.
"""

import contextlib
import errno
import os
import subprocess
from pathlib import Path
from typing import Final

from linkspan.sdk import syscalls
from linkspan.sdk.values import define

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
PIN_FOLDER: Final = "mnt"


@define
class _Entered:
    """What ``enter`` did to this process; there is one process, hence one of these."""

    pin: Path | None = None
    host_namespace: int = -1


_entered: Final = _Entered()


def is_hybrid(root: Path = CGROUP_ROOT) -> bool:
    """Whether v1 controllers and the unified hierarchy are mounted side by side."""
    unified = root / "unified"
    return (
        syscalls.file_system_type(root) == syscalls.TMPFS_MAGIC
        and syscalls.file_system_type(unified) == syscalls.CGROUP2_MAGIC
        and any(child.name != "unified" for child in root.iterdir() if child.is_dir())
    )


def is_pinned(run_dir: Path) -> bool:
    """Whether an earlier daemon left its namespace below this folder."""
    return syscalls.file_system_type(run_dir / PIN_FOLDER / "ns") == syscalls.NSFS_MAGIC


def enter(run_dir: Path) -> None:
    """Move this process, which must have one thread, into the namespace; make and pin it if needed.

    Raises:
        OSError: Not permitted, or the pin cannot be made.
    """
    if _entered.pin is not None:
        return
    here = Path.cwd()
    folder = run_dir / PIN_FOLDER
    pin = folder / "ns"
    host = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    if is_pinned(run_dir):
        fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(fd, syscalls.CLONE_NEWNS)
        finally:
            os.close(fd)
    else:
        _make(folder, pin, host)
    with contextlib.suppress(OSError):  # it may lie on a mount that this namespace lacks
        os.chdir(here)
    _entered.pin, _entered.host_namespace = pin, host


def _make(folder: Path, pin: Path, host: int) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _unpin_stale(folder, pin)
    syscalls.mount(folder, folder, "", syscalls.MS_BIND)
    syscalls.mount("none", folder, "", syscalls.MS_PRIVATE)
    pin.touch(mode=0o600)
    cpus = os.sched_getaffinity(0)
    try:
        for number, cpu in enumerate(sorted(cpus)):
            # A namespace can only be bound in an older one, by the numbers that the kernel gives them. Linux 6.18
            # counts on each CPU for itself: seen from another namespace than the first, ours may be too low.
            os.sched_setaffinity(0, {cpu})
            try:
                _unshare_and_pin(pin, host)
            except OSError as exc:
                if exc.errno != errno.EINVAL or number + 1 == len(cpus):
                    raise
            else:
                break
    finally:
        os.sched_setaffinity(0, cpus)


def _unshare_and_pin(pin: Path, host: int) -> None:
    syscalls.unshare(syscalls.CLONE_NEWNS)
    # Slave, not private: what the host mounts later must arrive here.
    syscalls.mount("none", "/", "", syscalls.MS_SLAVE | syscalls.MS_REC)
    if is_hybrid():
        syscalls.unmount(CGROUP_ROOT / "unified", syscalls.MNT_DETACH)
    ours = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # A namespace can only be bound from outside of it.
        syscalls.setns(host, syscalls.CLONE_NEWNS)
        syscalls.mount(f"/proc/self/fd/{ours}", pin, "", syscalls.MS_BIND)
        syscalls.setns(ours, syscalls.CLONE_NEWNS)
    finally:
        os.close(ours)


def _unpin_stale(folder: Path, pin: Path) -> None:
    for mounted in (pin, folder):
        with contextlib.suppress(OSError):
            syscalls.unmount(mounted, syscalls.MNT_DETACH)


def is_entered() -> bool:
    """Whether this process lives in the pinned namespace."""
    return _entered.pin is not None


def release() -> None:
    """Remove the pin: the namespace ends with its last process. Called when no container runs.

    The unmounting is done by a child that goes back to the host's namespace: this process has threads by
    now, and a thread that shares its file system state may not change its mount namespace.
    """
    if _entered.pin is None:
        return
    namespace = f"/proc/self/fd/{_entered.host_namespace}"
    for mounted in (_entered.pin, _entered.pin.parent):
        subprocess.run(
            ["nsenter", f"--mount={namespace}", "umount", "-l", str(mounted)],  # noqa: S607
            pass_fds=(_entered.host_namespace,),
            capture_output=True,
            check=False,
        )
    with contextlib.suppress(OSError):  # our own view of the pin's folder
        syscalls.unmount(_entered.pin.parent, syscalls.MNT_DETACH)


def spawn_prefix(run_dir: Path) -> tuple["subprocess.Popen[bytes] | None", tuple[str, ...]]:
    """For a process that was not moved (tests, embedding): a holder of such a namespace, and the words
    before a command line that put the command into it. ``(None, ())`` where it is not needed.

    The holder ends when its stdin is closed, hence with this process at the latest.
    """
    if is_entered() or not is_hybrid():
        return None, ()
    script = "mount --make-rslave / && umount -l /sys/fs/cgroup/unified && echo ready && exec cat >/dev/null"
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script],  # noqa: S607
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=run_dir,
        start_new_session=True,
    )
    assert holder.stdout is not None
    answer = holder.stdout.readline()
    if answer != b"ready\n":
        holder.kill()
        holder.communicate()
        raise OSError(f"cannot make a mount namespace: {answer.decode(errors='replace').strip()}")
    return holder, ("nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "--")
