"""What is measured, each a function from an engine to a number.

The stock docker CLI talks to both daemons, unless a measure says otherwise.
"""

import os
import random
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import api
import data
from measure import BOTH, Measure, Sample
from place import LINKSPAN, Broken, Engine, Registry, wait_until

REST_S: Final = 0.5
CONTAINERS: Final = 50
MANY_CONTAINERS: Final = 100
AT_ONCE: Final = 20
ENDS_ON_TERM: Final = "trap 'exit 0' TERM; echo ready; sleep 100000 & wait"
_SETTLE_S: Final = 3.0
_CONTEXT_FILES: Final = 2000
_DOCKERFILE: Final = """\
FROM {base}
WORKDIR /opt/app
COPY src /opt/app/src
RUN mkdir -p build && for i in 1 2 3 4 5 6 7 8 9; do echo "$i" > build/$i; done
RUN find src -type f | sort > files.txt
RUN cat src/*/*.txt | sha256sum > sum.txt
RUN mkdir -p /opt/data && head -c 5000000 /dev/zero > /opt/data/zero
COPY late.txt /opt/app/late.txt
RUN cp late.txt build/late.txt
CMD ["true"]
"""


@dataclass
class Bench:
    """What measures share."""

    tiny: str
    app: str
    many: str
    target: Registry
    work: Path
    changes: int = 0

    def all(self) -> list[Measure]:
        """In the order of the table."""
        return [
            *self._runs(),
            *self._lives(),
            *self._registries(),
            *self._builds(),
            *data.measures(self),
            *self._others(),
            *api.measures(self),
        ]

    # -- containers ---------------------------------------------------------------------------

    def _runs(self) -> list[Measure]:
        found = []
        for rest_s, suffix, words in (
            (0.0, "", ""),
            (REST_S, "-rest", f", {REST_S} s idle before"),
        ):
            for name, network, goal in (("run", "bridge", 0.17), ("run-none", "none", 0.22)):
                found.append(
                    Measure(
                        name + suffix,
                        f"docker run --rm --network {network} busybox true{words}",
                        self._run(network, rest_s),
                        21,
                        goal=goal,
                        warm_ups=2,
                    )
                )
            found.append(
                Measure(
                    f"exec{suffix}",
                    f"docker exec CONTAINER true{words}",
                    _exec(rest_s),
                    21,
                    goal=0.5,
                    warm_ups=2,
                    before=self._sleeper,
                    after=lambda e: e.remove("bench-box"),
                )
            )
        return found

    def _run(self, network: str, rest_s: float) -> Sample:
        def sample(engine: Engine) -> float:
            time.sleep(rest_s)
            return engine.docker("run", "--rm", "--network", network, self.tiny, "true")

        return sample

    def _sleeper(self, engine: Engine) -> None:
        engine.docker("run", "-d", "--name", "bench-box", self.tiny, "sleep", "100000")

    # -- a container's life --------------------------------------------------------------------

    def _lives(self) -> list[Measure]:
        def gone(engine: Engine) -> None:
            engine.remove("bench-life")

        return [
            Measure(
                "publish",
                "docker run -d -p PORT:80, until an HTTP request is answered",
                self._publish,
                11,
                0.2,
                after=gone,
            ),
            Measure("start", "docker start", self._start_stop(0), 11, 0.15, after=gone),
            Measure(
                "stop",
                "docker stop, the process ends by itself",
                self._start_stop(1),
                11,
                0.4,
                after=gone,
            ),
            Measure("rm", "docker rm -f of a running container", self._rm, 11, 0.2, after=gone),
            Measure("at-once", f"{AT_ONCE} docker run -d at once", self._at_once, 5, 0.15),
        ]

    def _publish(self, engine: Engine) -> float:
        engine.remove("bench-life")
        self.changes += 1
        port = 18000 + self.changes % 1000
        words = ("run", "-d", "--name", "bench-life", "-p", f"127.0.0.1:{port}:80")
        began = time.perf_counter()
        engine.docker(*words, self.tiny, "httpd", "-f", "-p", "80", "-h", "/www")
        wait_until(lambda: _page(port), 10, 0.001)
        return time.perf_counter() - began

    def _start_stop(self, which: int) -> Sample:
        def sample(engine: Engine) -> float:
            engine.remove("bench-life")
            engine.docker("create", "--name", "bench-life", self.tiny, "sh", "-c", ENDS_ON_TERM)
            started_s = engine.docker("start", "bench-life")
            # The trap must be set: a signal before it would wait for the grace.
            wait_until(lambda: "ready" in engine.ask("logs", "bench-life"), 10)
            return (started_s, engine.docker("stop", "bench-life"))[which]

        return sample

    def _rm(self, engine: Engine) -> float:
        engine.remove("bench-life")
        engine.docker("run", "-d", "--name", "bench-life", self.tiny, "sleep", "100000")
        return engine.remove("bench-life", check=True)

    def _at_once(self, engine: Engine) -> float:
        names = [f"bench-once-{number}" for number in range(AT_ONCE)]
        words = ("--name", "NAME", self.tiny, "sleep", "100000")
        lines = [[*engine.cli, "run", "-d", "--name", name, *words[2:]] for name in names]
        began = time.perf_counter()
        running = [
            subprocess.Popen(line, stdout=subprocess.DEVNULL, env=engine.environment)
            for line in lines
        ]
        codes = [process.wait() for process in running]
        took_s = time.perf_counter() - began
        engine.remove(*names)
        if any(codes):
            raise Broken(f"{engine.name}: one of {AT_ONCE} runs failed")
        return took_s

    # -- registries ---------------------------------------------------------------------------

    def _registries(self) -> list[Measure]:
        return [
            Measure("pull", "docker pull of app, no layer there", self._pull(self.app), 5, 0.25),
            Measure("pull-many", "docker pull of 40 small layers", self._pull(self.many), 5, 0.25),
            Measure(
                "push", "docker push of app to an empty registry", self._push, 3, 0.07, warm_ups=0
            ),
        ]

    def _pull(self, reference: str) -> Sample:
        def sample(engine: Engine) -> float:
            engine.docker("rmi", "-f", reference, check=False)
            os.sync()
            return engine.docker("pull", "-q", reference)

        return sample

    def _push(self, engine: Engine) -> float:
        self.target.wipe()
        self.changes += 1
        reference = f"{self.target.host}/pushed-{self.changes}/app:1"
        engine.docker("pull", "-q", self.app)
        engine.docker("tag", self.app, reference)
        os.sync()
        took_s = engine.docker("push", reference)
        engine.docker("rmi", reference)
        return took_s

    # -- builds -------------------------------------------------------------------------------

    def _builds(self) -> list[Measure]:
        found = []
        for kind, words, build in (
            ("build", "BuildKit against linkspan build", _own_build),
            ("stock", "BuildKit against docker build, DOCKER_BUILDKIT=0", _stock_build),
            ("classic", "docker build, DOCKER_BUILDKIT=0, against both", _classic_build),
        ):
            for name, what, sample, rounds in (
                ("cold", "without cache", self._cold(build), 3),
                ("cached", "nothing changed", self._cached(build), 9),
                ("late", "the last COPY changed", self._late(build), 5),
            ):
                goal = 1.0 if kind == "classic" else {"cold": 0.7}.get(name, 0.6)
                found.append(
                    Measure(
                        f"{kind}-{name}",
                        f"{what}: {words}",
                        sample,
                        rounds,
                        goal,
                        before=self._context,
                        after=self._no_context,
                        engines=Measure.engines if kind == "build" else BOTH,
                    )
                )
        return found

    @property
    def _folder(self) -> Path:
        return self.work / "context"

    def _context(self, engine: Engine) -> None:
        """2,000 files, 12 MB, and a Dockerfile of eight steps."""
        engine.docker("pull", "-q", self.app)
        if self._folder.exists():
            return
        chance = random.Random(7)
        for number in range(_CONTEXT_FILES):
            path = self._folder / f"src/d{number % 40}/f{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(chance.randbytes(chance.randint(200, 6000)).hex())
        (self._folder / "Dockerfile").write_text(_DOCKERFILE.format(base=self.app))
        (self._folder / "late.txt").write_text("0\n")

    def _no_context(self, engine: Engine) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        engine.docker("rmi", "-f", "bench-build", check=False)
        engine.docker("builder", "prune", "-af", check=False)
        engine.docker("image", "prune", "-f", check=False)

    def _change(self) -> None:
        self.changes += 1
        (self._folder / "late.txt").write_text(f"{time.time_ns()} {self.changes}\n")

    def _cold(self, build: Callable[..., float]) -> Sample:
        def sample(engine: Engine) -> float:
            self._change()
            os.sync()
            return build(engine, self._folder, "--no-cache")

        return sample

    def _cached(self, build: Callable[..., float]) -> Sample:
        return lambda engine: build(engine, self._folder)

    def _late(self, build: Callable[..., float]) -> Sample:
        def sample(engine: Engine) -> float:
            self._change()
            return build(engine, self._folder)

        return sample

    # -- the rest -----------------------------------------------------------------------------

    def _others(self) -> list[Measure]:
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
                self._memory_at_rest,
                1,
                unit="MiB",
                warm_ups=0,
                engines=BOTH,
            ),
            Measure(
                "memory-all",
                f"PSS of daemon and helpers with {MANY_CONTAINERS} containers",
                self._memory_all,
                1,
                0.3,
                unit="MiB",
                warm_ups=0,
                engines=BOTH,
            ),
            Measure(
                "scale",
                f"docker service scale 1 → {CONTAINERS} until all run",
                self._scale,
                3,
                warm_ups=0,
                before=lambda e: e.docker("swarm", "init", "--advertise-addr", "127.0.0.1"),
                after=lambda e: e.docker("swarm", "leave", "--force", check=False),
                engines=BOTH,
            ),
        ]

    def _memory_at_rest(self, engine: Engine) -> float:
        engine.server.stop()
        engine.server.start()
        engine.docker("run", "--rm", self.tiny, "true")
        time.sleep(_SETTLE_S)
        return pss_mib(engine)

    def _memory_all(self, engine: Engine) -> float:
        names = [f"bench-{number}" for number in range(MANY_CONTAINERS)]
        engine.server.stop()
        engine.server.start()
        for name in names:
            engine.docker("run", "-d", "--name", name, self.tiny, "sleep", "100000")
        time.sleep(_SETTLE_S)
        found = pss_mib(engine)
        engine.remove(*names, check=True)
        return found

    def _scale(self, engine: Engine) -> float:
        def running(count: int) -> Callable[[], bool]:
            words = ("service", "ls", "--format", "{{.Replicas}}")
            return lambda: engine.ask(*words).startswith(f"{count}/{count}")

        def gone() -> bool:
            label = "label=com.docker.swarm.service.name=bench-web"
            return not engine.ask("ps", "-aq", "--filter", label)

        create = ("service", "create", "--detach", "--no-resolve-image", "--name", "bench-web")
        engine.docker(*create, self.tiny, "sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait")
        wait_until(running(1), 60)
        began = time.perf_counter()
        engine.docker("service", "scale", "--detach", f"bench-web={CONTAINERS}")
        wait_until(running(CONTAINERS), 180, 0.02)
        took_s = time.perf_counter() - began
        engine.docker("service", "rm", "bench-web")
        wait_until(gone, 120, 0.1)
        return took_s


def _exec(rest_s: float) -> Sample:
    def sample(engine: Engine) -> float:
        time.sleep(rest_s)
        return engine.docker("exec", "bench-box", "true")

    return sample


def _page(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as stream:
            stream.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
            return b" 200 " in stream.recv(64)
    except OSError:
        return False


def _own_build(engine: Engine, folder: Path, *flags: str) -> float:
    command, more = engine.build
    return engine.run([*command, "-t", "bench-build", *flags, str(folder)], more=more)


def _classic_build(engine: Engine, folder: Path, *flags: str) -> float:
    command = [*engine.cli, "build", "-t", "bench-build", *flags, str(folder)]
    return engine.run(command, more={"DOCKER_BUILDKIT": "0"})


def _stock_build(engine: Engine, folder: Path, *flags: str) -> float:
    """Each through docker's own client: BuildKit where the daemon has it."""
    build = _own_build if engine.name == "docker" else _classic_build
    return build(engine, folder, *flags)


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
