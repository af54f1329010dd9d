"""Measures of the daemon itself: its start, its memory, a service that grows; and the client's own time."""

import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from measure import BOTH, Bench, Measure
from place import LINKSPAN, Engine, wait_until

CONTAINERS: Final = 50
MANY_CONTAINERS: Final = 100
_SETTLE_S: Final = 3.0


def measures(bench: Bench) -> list[Measure]:
    """In the order of the table."""
    return [
        Measure("ps", "linkspan ps, whole process; docker ps", _ps, 15, goal=None),
        Measure(
            "start-up",
            "from the daemon's start to its first answer",
            _start,
            5,
            warm_ups=0,
            engines=BOTH,
        ),
        Measure(
            "memory",
            "PSS of the daemon and its helpers at rest",
            partial(_memory_at_rest, bench),
            1,
            unit="MiB",
            warm_ups=0,
            engines=BOTH,
        ),
        Measure(
            "memory-all",
            f"PSS of daemon and helpers with {MANY_CONTAINERS} containers",
            partial(_memory_all, bench),
            1,
            0.3,
            unit="MiB",
            warm_ups=0,
            engines=BOTH,
        ),
        Measure(
            "scale",
            f"docker service scale 1 → {CONTAINERS} until all run",
            partial(_scale, bench),
            3,
            warm_ups=0,
            before=lambda e: e.docker("swarm", "init", "--advertise-addr", "127.0.0.1"),
            after=lambda e: e.docker("swarm", "leave", "--force", check=False),
            engines=BOTH,
        ),
    ]


def _memory_at_rest(bench: Bench, engine: Engine) -> float:
    engine.server.stop()
    engine.server.start()
    engine.docker("run", "--rm", bench.tiny, "true")
    time.sleep(_SETTLE_S)
    return pss_mib(engine)


def _memory_all(bench: Bench, engine: Engine) -> float:
    names = [f"bench-{number}" for number in range(MANY_CONTAINERS)]
    engine.server.stop()
    engine.server.start()
    for name in names:
        engine.docker("run", "-d", "--name", name, bench.tiny, "sleep", "100000")
    time.sleep(_SETTLE_S)
    found = pss_mib(engine)
    engine.remove(*names, check=True)
    return found


def _scale(bench: Bench, engine: Engine) -> float:
    def running(count: int) -> Callable[[], bool]:
        words = ("service", "ls", "--format", "{{.Replicas}}")
        return lambda: engine.ask(*words).startswith(f"{count}/{count}")

    def gone() -> bool:
        label = "label=com.docker.swarm.service.name=bench-web"
        return not engine.ask("ps", "-aq", "--filter", label)

    create = ("service", "create", "--detach", "--no-resolve-image", "--name", "bench-web")
    engine.docker(*create, bench.tiny, "sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait")
    wait_until(running(1), 60)
    began = time.perf_counter()
    engine.docker("service", "scale", "--detach", f"bench-web={CONTAINERS}")
    wait_until(running(CONTAINERS), 180, 0.02)
    took_s = time.perf_counter() - began
    engine.docker("service", "rm", "bench-web")
    wait_until(gone, 120, 0.1)
    return took_s


def _ps(engine: Engine) -> float:
    if engine.name == "linkspan":
        return engine.run([LINKSPAN, "--host", engine.host, "ps"])
    return engine.docker("ps")


def _start(engine: Engine) -> float:
    engine.server.stop()
    return engine.server.start()


def pss_mib(engine: Engine) -> float:
    """Proportional set size of the daemon and its helpers, without the containers' own processes.

    Helpers are the daemon's descendants and what names its folder; containers are in other pid namespaces.
    """
    assert engine.server.process is not None
    family = {engine.server.process.pid}
    parents: dict[int, int] = {}
    total_kib = 0
    own = Path("/proc/self/ns/pid").readlink()
    for path in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            status = (path / "stat").read_text()
            if (path / "ns/pid").readlink() != own:
                continue
            parents[int(path.name)] = int(status.rpartition(")")[2].split()[1])
            if str(engine.folder).encode() in (path / "cmdline").read_bytes():
                family.add(int(path.name))
        except OSError:
            continue
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        family |= more
        grown = bool(more)
    for pid in family:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        found = re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)
        total_kib += int(found[1]) if found else 0
    return total_kib / 1024
