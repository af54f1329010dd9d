"""Counts what tests leave on the machine, after each file and at the end; a plugin of pytest.

Several runs may share the machine. So each process of a run has a mark, and what is made in it carries the
mark: folders of temporary files and of daemons, control groups, the environment of processes. What a file
has left is an error at its end, and is taken out of the way lest it disturb others or count twice.
"""

import contextlib
import os
import resource
import secrets
import shutil
import signal
import string
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_VARIABLE = "LINKSPAN_TESTS_MARK"
_PATIENCE = "left_behind_patience"
_CGROUPS = Path("/sys/fs/cgroup")

kept_descriptors: set[int] = set()
"""What the tests' support keeps open on purpose, for as long as this process lives."""


def mark() -> str:
    """What stands in the name of all that this process of the tests makes outside of its own folders."""
    return os.environ[_VARIABLE]


class Traces:
    """What carries a mark, or one that begins with it.

    Args:
        mark: Some letters.
        folders: Folders of the tests, below which nothing may be mounted or run in the end.
    """

    def __init__(self, mark: str, *folders: Path) -> None:
        self._mark = mark
        self._starts = (f"/tmp/ls-{mark}", f"/tmp/lt-{mark}", *(f"{path}/" for path in folders))

    def left(self) -> Counter[str]:
        """What is there now."""
        return Counter(
            [
                *(f"process {pid}: {words}" for pid, words in self._processes()),
                *(f"mount {point}" for point in self._mounts()),
                *(f"control group {path}" for path in self._groups()),
                *(f"loop device {name}" for name in self._loops()),
                *(f"file {path}" for path in self._files()),
            ]
        )

    def _processes(self) -> list[tuple[int, str]]:
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):  # it has ended, or is not ours to look at
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("latin-1")
                if words and self._is_ours(entry, words):  # what has none is dead, or the kernel's
                    found.append((int(entry.name), words.strip()[:200]))
        return found

    def _is_ours(self, entry: Path, words: str) -> bool:
        return (
            any(start in words for start in self._starts)
            or f"linkspan-{self._mark}" in (entry / "cgroup").read_text()
            or f"{_VARIABLE}={self._mark}".encode() in (entry / "environ").read_bytes()
        )

    def _mounts(self) -> list[str]:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [point for line in lines if (point := line.split()[4]).startswith(self._starts)]

    def _groups(self) -> list[Path]:
        """Groups below those that are made for daemons, which stay while these may come again."""
        tops = [_CGROUPS, *(path for path in _CGROUPS.iterdir() if path.is_dir())]
        found = {path.resolve() for top in tops for path in top.glob(f"linkspan-{self._mark}*/*/")}
        return sorted(found)

    def _loops(self) -> list[str]:
        found = []
        for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):
                if backing.read_text().startswith(self._starts):
                    found.append(backing.parts[3])
        return found

    def _files(self) -> list[Path]:
        return [*Path("/tmp").glob(f"ls-{self._mark}*"), *Path("/tmp").glob(f"lt-{self._mark}*/*")]

    def sweep(self) -> None:
        """Remove all of it by force."""
        for pid, _ in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for point in reversed(self._mounts()):
            subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
        for name in self._loops():
            subprocess.run(["losetup", "-d", f"/dev/{name}"], check=False, capture_output=True)
        for path in self._files():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        for group in self._groups():
            for where, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    Path(where).rmdir()


def own_state() -> Counter[str]:
    """What tests can change of their own process, to the harm of the next ones."""
    state = [f"descriptor: {target}" for target in _descriptors()]
    for kind in ("net", "mnt"):
        here = Path(f"/proc/thread-self/ns/{kind}").readlink()
        state.append(f"main thread in namespace {here}")
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):
                if (there := (task / "ns" / kind).readlink()) != here:
                    state.append(f"thread in namespace {there}")
    mask = os.umask(0o022)
    os.umask(mask)
    state += [
        f"working directory {Path.cwd()}",
        f"open files limited to {resource.getrlimit(resource.RLIMIT_NOFILE)}",
        f"umask {mask:03o}",
        *(f"variable {name}={os.environ[name]}" for name in _variables()),
    ]
    return Counter(state)


def _descriptors() -> list[str]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if int(entry.name) in kept_descriptors:
                continue
            target = str(entry.readlink())
            found.append(target.partition(":[")[0])  # sockets and pipes without their numbers
    return found


def _variables() -> list[str]:
    return [name for name in os.environ if not name.startswith("PYTEST_")]


# -- pytest ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left_behind(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[None]:
    """The first fixture of each file, and so the last one that ends."""
    traces = Traces(mark(), tmp_path_factory.getbasetemp())
    before = own_state()
    yield
    left = _what_stays(traces, pytestconfig) + (own_state() - before)
    if left:
        traces.sweep()
        pytest.fail("left behind:\n" + "\n".join(sorted(left.elements())), pytrace=False)


class LeftBehind:
    """The plugin in one process: the only one, the one that has workers, or a worker."""

    def __init__(self, mark: str, *, is_worker: bool) -> None:
        self._mark = mark
        self._is_worker = is_worker
        self._left: Counter[str] = Counter()
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
        temp = Path(f"/tmp/lt-{mark}")
        temp.mkdir(mode=0o700)
        os.environ["TMPDIR"] = tempfile.tempdir = str(temp)
        os.environ[_VARIABLE] = mark

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """A worker's mark begins like that of the run."""
        number = int(node.gateway.id.removeprefix("gw"))
        node.workerinput["mark"] = self._mark + string.ascii_lowercase[number % 26]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Count once more when all workers have ended."""
        if self._is_worker:
            return
        traces = Traces(self._mark)
        self._left = _what_stays(traces, session.config)
        if self._left:
            traces.sweep()
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        _remove_tops(self._mark)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what stayed."""
        if self._left:
            terminalreporter.section("left behind by the whole run", red=True)
            for line in sorted(self._left.elements()):
                terminalreporter.line(line)


def _what_stays(traces: Traces, config: pytest.Config) -> Counter[str]:
    """What does not go by itself."""
    end = time.monotonic() + float(config.getini(_PATIENCE))
    while (left := traces.left()) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def _remove_tops(mark: str) -> None:
    """Remove what held all the rest: folders of temporary files, control groups of daemons."""
    for folder in Path("/tmp").glob(f"lt-{mark}*"):
        shutil.rmtree(folder, ignore_errors=True)
    for top in (_CGROUPS, *(path for path in _CGROUPS.iterdir() if path.is_dir())):
        for path in top.glob(f"linkspan-{mark}*/"):
            with contextlib.suppress(OSError):
                path.rmdir()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Settings of the plugin."""
    parser.addini(
        _PATIENCE, "seconds in which what tests leave may still go by itself", default="20"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Take a mark: the worker's, or a new one."""
    given = getattr(config, "workerinput", None)
    chosen = given["mark"] if given else secrets.token_hex(2)
    config.pluginmanager.register(LeftBehind(chosen, is_worker=given is not None), "left-behind")
