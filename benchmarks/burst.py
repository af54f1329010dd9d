"""What a start costs the processors when many are asked for at once: client, daemon, and what the daemon runs.

benchmarks/burst.py                          twenty `docker run -d` at once, and the same over the API
benchmarks/burst.py --beside ../other        another clone's daemon in turn, for before and after
benchmarks/burst.py -n 20 --count 1          one at a time

Needs root, busybox-static and docker's client. Times are processor time of a start, by the kernel's account: they
can be compared on a machine with other work, which wall time cannot. (Others only add to them, through the caches;
so lower quartiles are shown.) `daemon` is its own process, `runs` the rest
of its cgroup (conmon, crun, keepers, nft), `behind` what both use after the last answer.
"""

import argparse
import contextlib
import http.client
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import images
import place
from place import Broken, Engine

_IMAGE: Final = "bench/tiny:1"
_DISK_BYTES: Final = 2 << 30
_QUIET_S: Final = 0.2
# A daemon at rest uses less in `_QUIET_S`.
_QUIET_CPU_S: Final = 0.004
_COLUMNS: Final = ("client", "daemon", "runs", "switches", "behind", "all", "clock")


class Account:
    """The processor time of a daemon and of what it runs.

    Attributes:
        group: A cgroup (v2) of its own, in which the daemon was started.
    """

    def __init__(self, engine: Engine, group: Path) -> None:
        process = engine.server.process
        assert process is not None
        self._pid = process.pid
        # clock_getcpuclockid(3): the processor time of all threads of a process, in nanoseconds.
        self._clock = (~self._pid << 3) | 2
        self._group = group

    def daemon_s(self) -> float:
        """Of the daemon itself."""
        return time.clock_gettime(self._clock)

    def all_s(self) -> float:
        """Of the daemon and of all that it has started, ended or not; containers have groups of their own."""
        words = (self._group / "cpu.stat").read_text().split()
        return int(words[words.index("usage_usec") + 1]) / 1e6

    def switches(self) -> dict[str, int]:
        """How often each of its threads has given the processor away or lost it."""
        found = {}
        for task in Path(f"/proc/{self._pid}/task").iterdir():
            with contextlib.suppress(OSError):
                lines = (task / "status").read_text().splitlines()
                counts = [int(line.split()[1]) for line in lines if "ctxt_switches" in line]
                found[task.name] = sum(counts)
        return found

    def rest(self) -> None:
        """Wait until all that was put off is done."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            before = self.all_s()
            time.sleep(_QUIET_S)
            if self.all_s() - before < _QUIET_CPU_S:
                return
        raise Broken("the daemon does not come to rest")


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", "--rounds", type=int, default=7, help="bursts of each kind")
    parser.add_argument("--count", type=int, default=20, help="starts in a burst")
    parser.add_argument("--beside", type=Path, action="append", default=[], metavar="CLONE")
    parser.add_argument("--by", choices=("docker", "api"), help="only this client")
    given = parser.parse_args()
    if not shutil.which("docker"):
        raise Broken("there is no docker client")
    place.unshare_mounts()
    place.unshare_network()
    kinds = [given.by] if given.by else ["docker", "api"]
    with ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(
            dir="/var/tmp", prefix="burst-", ignore_cleanup_errors=True
        )
        work = Path(stack.enter_context(folder)) / "disk"
        place.mount_disk(work, _DISK_BYTES)
        stack.callback(subprocess.run, ["umount", str(work)], check=False)
        programs = {"here": place.LINKSPAN}
        programs |= {str(clone): str(clone / ".venv/bin/linkspan") for clone in given.beside}
        found = {}
        for number, (name, program) in enumerate(programs.items()):
            found[name] = stack.enter_context(_daemon(work / f"d{number}", program, number))
        samples: dict[tuple[str, str], list[dict[str, float]]] = {}
        for turn in range(-1, given.rounds):
            for kind in kinds:
                for name, (engine, account) in list(found.items())[:: 1 if turn % 2 else -1]:
                    sample = _burst(engine, account, kind, given.count)
                    if turn >= 0:
                        samples.setdefault((kind, name), []).append(sample)
    _show(samples, given.count)
    return 0


@contextmanager
def _daemon(folder: Path, program: str, number: int) -> Iterator[tuple[Engine, Account]]:
    """A daemon with an image, in a cgroup of its own."""
    engine = place.linkspan(folder, program, bridge=f"172.31.{240 + number}.1/24")
    group = _unified() / f"linkspan-burst-{os.getpid()}-{number}"
    group.mkdir()
    try:
        here = _unified() / Path("/proc/self/cgroup").read_text().split("0::/", 1)[1].strip()
        (group / "cgroup.procs").write_text("0")
        try:
            engine.server.start()
        finally:
            (here / "cgroup.procs").write_text("0")
        try:
            _import(engine, folder)
            yield engine, Account(engine, group)
        finally:
            # Of a burst that failed: they would outlive the daemon.
            engine.remove(*engine.ask("ps", "-aq").split() or ["none"])
            engine.server.stop()
            place.wait_until(lambda: not (group / "cgroup.procs").read_text(), 30)
            subprocess.run(["umount", f"{folder}-run"], check=False)
    finally:
        group.rmdir()


def _unified() -> Path:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        words = line.split()
        if words[2] == "cgroup2":
            return Path(words[1])
    raise Broken("there is no cgroup2")


def _import(engine: Engine, folder: Path) -> None:
    tar = folder / "tiny.tar"
    images.busybox(tar)
    engine.docker("import", tar, _IMAGE)
    tar.unlink()


def _burst(engine: Engine, account: Account, kind: str, count: int) -> dict[str, float]:
    names = [f"burst-{number}" for number in range(count)]
    account.rest()
    client, daemon, together = _client_s(), account.daemon_s(), account.all_s()
    switches, began = account.switches(), time.perf_counter()
    (_by_docker if kind == "docker" else _by_api)(engine, names)
    clock = time.perf_counter() - began
    sample = {
        "client": _client_s() - client,
        "daemon": account.daemon_s() - daemon,
        "runs": account.all_s() - together - (account.daemon_s() - daemon),
        "switches": float(sum(n - switches.get(t, 0) for t, n in account.switches().items())),
        "clock": clock,
    }
    sample["all"] = sample["client"] + sample["daemon"] + sample["runs"]
    before = account.all_s()
    account.rest()
    sample["behind"] = account.all_s() - before
    engine.remove(*names, check=True)
    return sample


def _client_s() -> float:
    """Of docker's clients that have ended, or of this process, which is the API's."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _by_docker(engine: Engine, names: list[str]) -> None:
    words = [*engine.cli, "run", "-d", "--name"]
    running = [
        subprocess.Popen(
            [*words, name, _IMAGE, "sleep", "100000"],
            stdout=subprocess.DEVNULL,
            env=engine.environment,
        )
        for name in names
    ]
    codes = [process.wait() for process in running]
    if any(codes):
        raise Broken("a run failed")


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def _by_api(engine: Engine, names: list[str]) -> None:
    """A connection for each, which is kept for both of its requests."""
    failed: list[str] = []

    def one(name: str) -> None:
        connection = _Connection(engine.socket)
        body = json.dumps({"Image": _IMAGE, "Cmd": ["sleep", "100000"]})
        kind = {"Content-Type": "application/json"}
        connection.request("POST", f"/v1.41/containers/create?name={name}", body, kind)
        made = connection.getresponse()
        text = made.read()
        connection.request("POST", f"/v1.41/containers/{name}/start")
        started = connection.getresponse()
        if made.status != 201 or started.status != 204:
            failed.append(f"{made.status} {text.decode()}, {started.status} {started.read()!r}")
        connection.close()

    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(one, names))
    if failed:
        raise Broken(f"a start failed: {failed[0]}")


def _show(samples: dict[tuple[str, str], list[dict[str, float]]], count: int) -> None:
    """Of a start in milliseconds; switches as they are."""
    print(f"{'a start, lower quartiles':32}" + "".join(f"{column:>10}" for column in _COLUMNS))
    for (kind, name), taken in samples.items():
        low = {c: statistics.quantiles((sample[c] for sample in taken), n=4)[0] for c in _COLUMNS}
        cells = [low[c] / count * (1 if c == "switches" else 1000) for c in _COLUMNS]
        print(f"{kind + ', ' + name:32}" + "".join(f"{cell:10.2f}" for cell in cells))
    print(
        f"{count} at once, load {os.getloadavg()[0]:.1f}; ms of processor time; `clock` by the clock"
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Broken as error:
        sys.exit(f"benchmarks: {error}")
