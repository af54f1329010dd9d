"""What a daemon may leave on the machine, looked for from outside and without its help."""

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


class Traces:
    """Where to look for traces of one daemon.

    Args:
        folder: Its folder: in command lines, mounts.
        short_id: The eight digits in its links' and its table's names.
        cgroup: The group that its containers' groups are made below.
    """

    def __init__(self, folder: Path, short_id: str, cgroup: str) -> None:
        self._folder = folder
        self._id = short_id
        self._cgroup = cgroup
        self._group = _link_group(f"lsbr-{short_id}")

    def left(self) -> list[str]:
        """Each trace in a line."""
        found = [f"process {pid}: {words}" for pid, words in processes_of(str(self._folder))]
        found += [f"mount {path}" for path in mounts_below(self._folder)]
        found += [f"link {line}" for line in self._links()]
        found += [f"table {line}" for line in self._tables()]
        found += [f"cgroup {path}" for path in cgroups_below(self._cgroup)]
        for path in sorted((self._folder / "run").rglob("*")):
            kept = path.parent.name in ("netns", "sandboxes", "root", "c", "x", "s")
            if kept or path.is_socket() or path.is_fifo():
                found.append(f"file {path}")
        return found

    def of_containers(self) -> list[str]:
        """Traces of containers alone, while the daemon runs."""
        found = [
            f"process {pid}" for pid, words in processes_of(str(self._folder)) if _holds(words)
        ]
        found += [f"cgroup {path}" for path in cgroups_below(self._cgroup) if len(path.name) == 64]
        folders = ("network-bridge/sandboxes", "runtime-oci/c", "runtime-oci/x", "root")
        for folder in folders:
            found += [f"file {path}" for path in (self._folder / "run" / folder).glob("*")]
        return found

    def _links(self) -> list[str]:
        lines = _output("ip", "-d", "-o", "link").splitlines()
        group = f" group {self._group} "
        return [ln[:80] for ln in lines if self._id in ln or (self._group and group in ln)]

    def _tables(self) -> list[str]:
        return [ln for ln in _output("nft", "list", "tables").splitlines() if self._id in ln]

    def sweep(self) -> None:
        """Remove all of it by force."""
        for pid in {p for group in cgroups_below(self._cgroup) for p in _pids(group)}:
            _kill(pid)
        for pid, _ in processes_of(str(self._folder)):
            _kill(pid)
        for path in reversed(mounts_below(self._folder)):
            subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)
        for line in self._links():
            name = line.split(":")[1].strip().partition("@")[0]
            subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)
        for line in self._tables():
            subprocess.run(["nft", "delete", *line.split()], check=False, capture_output=True)


def _holds(words: str) -> bool:
    return words.partition(" ")[0].endswith("conmon")


def processes_of(text: str) -> list[tuple[int, str]]:
    """Processes, but this one, in whose command line the text stands."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        words = command_line(int(entry.name))
        if text in words:
            found.append((int(entry.name), words.strip()))
    return found


def command_line(pid: int) -> str:
    """Of a process, its words with spaces between; nothing once it has ended."""
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except OSError:
        return ""


def children_of(pid: int) -> list[int]:
    """Processes that any thread of a process has started, and that have not been reaped."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def mounts_below(folder: Path) -> list[str]:
    """Mount points of this mount namespace below a folder."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    return [point for point in points if point.startswith(f"{folder}/")]


def cgroups_below(name: str) -> list[Path]:
    """Control groups below a top group, over all hierarchies."""
    tops = [CGROUPS / name, *(entry / name for entry in CGROUPS.iterdir() if entry.is_dir())]
    found: list[Path] = []
    for top in dict.fromkeys(top.resolve() for top in tops):
        found += [Path(where) for where, _, _ in os.walk(top) if Path(where) != top]
    return found


def remove_empty_groups(name: str) -> None:
    """Remove a top group, and what is empty below it."""
    tops = [CGROUPS / name, *(entry / name for entry in CGROUPS.iterdir() if entry.is_dir())]
    for top in tops:
        for where, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(where).rmdir()


def _pids(group: Path) -> list[int]:
    try:
        return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _link_group(name: str) -> str:
    found = re.search(r" group (\d+) ", _output("ip", "-o", "link", "show", name))
    return found[1] if found else ""


def _output(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout
