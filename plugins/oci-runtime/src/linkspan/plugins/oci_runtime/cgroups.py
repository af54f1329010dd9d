"""Control groups: where they are (v1, hybrid, v2), and what is read from and written to them here.

Limits are set by the OCI runtime; this module reads counters, freezes, kills and removes. All functions
block for microseconds, ``remove`` and ``set_frozen`` longer: call them from a worker thread.
"""

import contextlib
import errno
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from linkspan.sdk.drivers.runtime import DeviceIo, RuntimeStats
from linkspan.sdk.errors import Timeout
from linkspan.sdk.files import read_kernel_file
from linkspan.sdk.mountinfo import Mount, mounts
from linkspan.sdk.values import frozen

_TICK_NS: Final = 10**9 // os.sysconf("SC_CLK_TCK")
# v1 says "no limit" by the biggest multiple of a page.
_V1_UNLIMITED: Final = 1 << 62
_FREEZE_TIMEOUT_S: Final = 10.0
_TRIES_BEFORE_THAW: Final = 8
_REMOVE_TRIES: Final = 50
_REMOVE_EVERY_S: Final = 0.02
# What stands beside the controllers in a v1 hierarchy's options.
_MOUNT_OPTIONS: Final = ("rw", "ro", "xattr", "clone_children", "noprefix", "cpuset_v2_mode")


@frozen(kw_only=True)
class Hierarchies:
    """The mounted hierarchies.

    Attributes:
        version: 2 if the resource controllers are those of cgroup v2.
        controllers: v1: controller (``memory``, ``name=systemd``) → mount point. v2: empty.
        unified: Mount point of the v2 hierarchy; None on plain v1, and where it was detached.
    """

    version: int
    controllers: Mapping[str, Path]
    unified: Path | None = None

    @property
    def mounts(self) -> tuple[Path, ...]:
        """All mount points, each once."""
        found = dict.fromkeys(self.controllers.values())
        if self.unified is not None:
            found[self.unified] = None
        return tuple(found)

    def folder(self, controller: str, path: str) -> Path | None:
        """A group's folder of a controller; None if that is not mounted."""
        if self.version == 2:
            assert self.unified is not None
            return _below(self.unified, path)
        mount = self.controllers.get(controller)
        return None if mount is None else _below(mount, path)

    def has(self, controller: str) -> bool:
        """Whether a controller can be used."""
        if self.version == 1:
            return controller in self.controllers
        assert self.unified is not None
        return controller in _read(self.unified / "cgroup.controllers").split()

    def offers(self, controller: str, name: str) -> bool:
        """Whether groups of a v1 controller have this file."""
        mount = self.controllers.get(controller)
        if mount is None:
            return False
        # The topmost group lacks the limits that the groups below it have.
        below = next((entry for entry in mount.iterdir() if entry.is_dir()), mount)
        return any((folder / name).exists() for folder in (mount, below))


def detect(mounted: Iterable[Mount] | None = None) -> Hierarchies:
    """Look for them in what is mounted; blocking."""
    controllers: dict[str, Path] = {}
    unified: Path | None = None
    for mount in mounts() if mounted is None else mounted:
        target = Path(mount.target)
        if mount.file_system == "cgroup2" and unified is None:
            unified = target
        elif mount.file_system == "cgroup":
            for option in mount.options:
                if option not in _MOUNT_OPTIONS and not option.startswith("release_agent="):
                    controllers.setdefault(option, target)
    named = {name for name in controllers if not name.startswith("name=")}
    if named:
        return Hierarchies(version=1, controllers=controllers, unified=unified)
    return Hierarchies(version=2, controllers={}, unified=unified or Path("/sys/fs/cgroup"))


def _below(mount: Path, path: str) -> Path:
    return mount / path.strip("/")


def _read(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return read_kernel_file(path).decode("utf-8", "replace")
    except OSError:
        return ""


def _number(path: Path | None) -> int:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else 0


def _pairs(path: Path | None) -> dict[str, int]:
    """Lines of ``name number``."""
    found = {}
    for line in _read(path).splitlines():
        name, _, value = line.rpartition(" ")
        if value.isdecimal():
            found[name] = int(value)
    return found


def _join(folder: Path | None, name: str) -> Path | None:
    return None if folder is None else folder / name


def processes(groups: Hierarchies, path: str) -> list[int]:
    """Host pids in the group and the groups below it."""
    controller = "pids" if "pids" in groups.controllers else "memory"
    top = groups.folder(controller, path)
    found: dict[int, None] = {}
    for folder in _tree(top) if top is not None else ():
        for pid in _read(folder / "cgroup.procs").split():
            found[int(pid)] = None
    found.pop(0, None)  # a process of another pid namespace
    return list(found)


def _tree(top: Path) -> Iterator[Path]:
    """A group and all below it, the deepest first."""
    for folder, _, _ in os.walk(top, topdown=False):
        yield Path(folder)


def oom_kills(groups: Hierarchies, path: str) -> int:
    """How many processes of the group the kernel killed for want of memory."""
    folder = groups.folder("memory", path)
    name = "memory.events" if groups.version == 2 else "memory.oom_control"
    return _pairs(_join(folder, name)).get("oom_kill", 0)


def stats(groups: Hierarchies, path: str) -> RuntimeStats:
    """Counters of a group; what a controller lacks is 0."""
    return (_stats_v2 if groups.version == 2 else _stats_v1)(groups, path)


def _stats_v1(groups: Hierarchies, path: str) -> RuntimeStats:
    cpuacct, cpu = groups.folder("cpuacct", path), groups.folder("cpu", path)
    memory, pids = groups.folder("memory", path), groups.folder("pids", path)
    ticks = _pairs(_join(cpuacct, "cpuacct.stat"))
    throttling = _pairs(_join(cpu, "cpu.stat"))
    limit = _number(_join(memory, "memory.limit_in_bytes"))
    details = _pairs(_join(memory, "memory.stat"))
    each = _read(_join(cpuacct, "cpuacct.usage_percpu")).split()
    return RuntimeStats(
        cpu_usage_ns=_number(_join(cpuacct, "cpuacct.usage")),
        cpu_user_ns=ticks.get("user", 0) * _TICK_NS,
        cpu_system_ns=ticks.get("system", 0) * _TICK_NS,
        cpu_each_ns=tuple(int(word) for word in each[: os.cpu_count()] if word.isdecimal()),
        cpu_periods=throttling.get("nr_periods", 0),
        cpu_throttled_periods=throttling.get("nr_throttled", 0),
        cpu_throttled_ns=throttling.get("throttled_time", 0),
        memory_usage_bytes=_number(_join(memory, "memory.usage_in_bytes")),
        memory_peak_bytes=_number(_join(memory, "memory.max_usage_in_bytes")),
        memory_failures=_number(_join(memory, "memory.failcnt")),
        memory_limit_bytes=0 if limit >= _V1_UNLIMITED else limit,
        memory_cache_bytes=details.get("total_inactive_file", 0),
        memory_details=details,
        pids_current=_number(_join(pids, "pids.current")),
        pids_limit=_number(_join(pids, "pids.max")),
        io=_io_v1(groups.folder("blkio", path)),
    )


def _io_v1(blkio: Path | None) -> tuple[DeviceIo, ...]:
    found: dict[tuple[int, int], dict[str, int]] = {}
    for file, names in (
        ("blkio.throttle.io_service_bytes", {"Read": "read_bytes", "Write": "write_bytes"}),
        ("blkio.throttle.io_serviced", {"Read": "reads", "Write": "writes"}),
    ):
        text = _read(_join(blkio, f"{file}_recursive")) or _read(_join(blkio, file))
        for line in text.splitlines():
            words = line.split()
            if len(words) == 3 and words[1] in names and words[2].isdecimal():
                found.setdefault(_device(words[0]), {})[names[words[1]]] = int(words[2])
    return tuple(DeviceIo(major=at[0], minor=at[1], **counts) for at, counts in found.items())


def _device(text: str) -> tuple[int, int]:
    """``8:0``."""
    major, _, minor = text.partition(":")
    return int(major), int(minor)


def _stats_v2(groups: Hierarchies, path: str) -> RuntimeStats:
    folder = groups.folder("", path)
    cpu = _pairs(_join(folder, "cpu.stat"))
    details = _pairs(_join(folder, "memory.stat"))
    return RuntimeStats(
        cpu_usage_ns=cpu.get("usage_usec", 0) * 1000,
        cpu_user_ns=cpu.get("user_usec", 0) * 1000,
        cpu_system_ns=cpu.get("system_usec", 0) * 1000,
        cpu_periods=cpu.get("nr_periods", 0),
        cpu_throttled_periods=cpu.get("nr_throttled", 0),
        cpu_throttled_ns=cpu.get("throttled_usec", 0) * 1000,
        memory_usage_bytes=_number(_join(folder, "memory.current")),
        memory_peak_bytes=_number(_join(folder, "memory.peak")),
        memory_failures=_pairs(_join(folder, "memory.events")).get("max", 0),
        memory_limit_bytes=_number(_join(folder, "memory.max")),
        memory_cache_bytes=details.get("inactive_file", 0),
        memory_details=details,
        pids_current=_number(_join(folder, "pids.current")),
        pids_limit=_number(_join(folder, "pids.max")),
        io=_io_v2(_join(folder, "io.stat")),
    )


_IO_V2: Final = {
    "rbytes": "read_bytes",
    "wbytes": "write_bytes",
    "rios": "reads",
    "wios": "writes",
}


def _io_v2(file: Path | None) -> tuple[DeviceIo, ...]:
    found = []
    for line in _read(file).splitlines():
        device, *words = line.split()
        pairs = [word.partition("=") for word in words]
        counts = {_IO_V2[name]: int(value) for name, _, value in pairs if name in _IO_V2}
        if counts:
            major, minor = _device(device)
            found.append(DeviceIo(major=major, minor=minor, **counts))
    return tuple(found)


def lift_pids(groups: Hierarchies, path: str) -> None:
    """Let a group have as many processes as it likes."""
    file = _join(groups.folder("pids", path), "pids.max")
    if file is not None and file.exists():
        file.write_text("max")


def lift_quota(groups: Hierarchies, path: str) -> None:
    """Let a group have as much of the processors as there is."""
    name, word = ("cpu.max", "max") if groups.version == 2 else ("cpu.cfs_quota_us", "-1")
    file = _join(groups.folder("cpu", path), name)
    if file is not None and file.exists():
        file.write_text(word)


def set_frozen(groups: Hierarchies, path: str, frozen: bool) -> None:
    """Stop or let go all processes of a group, and wait until it is so.

    Raises:
        Timeout: A process cannot be stopped (it waits for a disk, say); it is let go again.
        OSError: The group is gone.
    """
    if groups.version == 2:
        folder = groups.folder("", path)
        assert folder is not None
        (folder / "cgroup.freeze").write_text("1" if frozen else "0")
        _await_frozen(folder / "cgroup.events", "frozen 1" if frozen else "frozen 0")
        return
    folder = groups.folder("freezer", path)
    if folder is None:
        raise OSError(errno.ENOTSUP, "the freezer controller is not mounted")
    state = folder / "freezer.state"
    state.write_text("FROZEN" if frozen else "THAWED")
    try:
        _await_frozen(state, "FROZEN" if frozen else "THAWED")
    except Timeout:
        state.write_text("THAWED")
        raise


def _await_frozen(file: Path, wanted: str) -> None:
    deadline = time.monotonic() + _FREEZE_TIMEOUT_S
    pause_s = 0.001
    tries = 0
    while wanted not in file.read_text().splitlines():
        if time.monotonic() > deadline:
            raise Timeout(f"{file} does not become '{wanted}'", code="freeze_timeout")
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.05)
        tries += 1
        if wanted == "FROZEN" and tries % _TRIES_BEFORE_THAW == 0:
            # The v1 freezer can stay in FREEZING for good; letting go and asking again helps, as
            # runc found (opencontainers/runc, libcontainer/cgroups/fs/freezer.go).
            file.write_text("THAWED")
            time.sleep(0.01)
            file.write_text("FROZEN")


def is_frozen(groups: Hierarchies, path: str) -> bool:
    """Whether the group is stopped or about to be."""
    if groups.version == 2:
        return "frozen 1" in _read(_join(groups.folder("", path), "cgroup.events"))
    return _read(_join(groups.folder("freezer", path), "freezer.state")).strip() in (
        "FROZEN",
        "FREEZING",
    )


def kill(groups: Hierarchies, path: str) -> None:
    """SIGKILL everything in the group, thawing it, until nothing new appears."""
    if groups.version == 2:
        with contextlib.suppress(OSError):  # before Linux 5.14
            folder = groups.folder("", path)
            assert folder is not None
            (folder / "cgroup.kill").write_text("1")
    for _ in range(10):
        found = processes(groups, path)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError, Timeout):
            set_frozen(groups, path, False)
        if not found:
            return
        time.sleep(0.005)


def remove(groups: Hierarchies, path: str) -> bool:
    """Remove the group in every hierarchy; False if one is still busy (try again a moment later)."""
    done = True
    for mount in groups.mounts:
        done = _remove_groups(_below(mount, path)) and done
    hidden = _hidden_unified(groups)
    if hidden is not None:
        shutil.rmtree(_below(hidden, path), ignore_errors=True)
    return done


def _remove_groups(top: Path) -> bool:
    """Remove a group and those below it. Most have none: to look for them first would be most of the work."""
    try:
        top.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        done = True
        for folder in _tree(top):
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                done = False
        return done
    return True


def _hidden_unified(groups: Hierarchies) -> Path | None:
    """The plain folder that appears where a unified hierarchy was detached: runtimes write files there."""
    if groups.version == 1 and groups.unified is None:
        return next((mount.parent / "unified" for mount in groups.mounts), None)
    return None


def warm_controller(groups: Hierarchies) -> str:
    """The controller in whose hierarchy the parked process of ``warmth`` is moved."""
    return "pids" if groups.version == 2 or groups.has("pids") else "freezer"


def remove_in_time(groups: Hierarchies, path: str) -> bool:
    """As ``remove``, waiting for the kernel to let go of the last process; False if it does not. Blocks."""
    for _ in range(_REMOVE_TRIES):
        if remove(groups, path):
            return True
        time.sleep(_REMOVE_EVERY_S)
    return False


def remove_parent(groups: Hierarchies, path: str) -> None:
    """Remove the folder of all groups, where no group is left in it.

    Another daemon with the same parent keeps its parked process there; as long as that is so, nothing is
    removed, lest its runtime finds the parent gone between two steps.
    """
    first = groups.folder(warm_controller(groups), path)
    hidden = _hidden_unified(groups)
    try:
        if first is not None:
            first.rmdir()
    except FileNotFoundError:
        pass
    except OSError:
        return
    for mount in (*groups.mounts, *([hidden] if hidden is not None else ())):
        with contextlib.suppress(OSError):
            _below(mount, path).rmdir()
