"""Measures of containers: run, exec, start, stop, rm, a port that answers, many at once."""

import socket
import subprocess
import time
from functools import partial
from typing import Final

from measure import Bench, Measure, Sample
from place import Broken, Engine, wait_until

REST_S: Final = 0.5
AT_ONCE: Final = 20
ENDS_ON_TERM: Final = "trap 'exit 0' TERM; echo ready; sleep 100000 & wait"


def measures(bench: Bench) -> list[Measure]:
    """In the order of the table."""
    return [*_runs(bench), *_lives(bench)]


def _runs(bench: Bench) -> list[Measure]:
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
                    _run(bench, network, rest_s),
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
                before=partial(_sleeper, bench),
                after=lambda e: e.remove("bench-box"),
            )
        )
    return found


def _run(bench: Bench, network: str, rest_s: float) -> Sample:
    def sample(engine: Engine) -> float:
        time.sleep(rest_s)
        return engine.docker("run", "--rm", "--network", network, bench.tiny, "true")

    return sample


def _sleeper(bench: Bench, engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "bench-box", bench.tiny, "sleep", "100000")


def _exec(rest_s: float) -> Sample:
    def sample(engine: Engine) -> float:
        time.sleep(rest_s)
        return engine.docker("exec", "bench-box", "true")

    return sample


def _lives(bench: Bench) -> list[Measure]:
    def gone(engine: Engine) -> None:
        engine.remove("bench-life")

    return [
        Measure(
            "publish",
            "docker run -d -p PORT:80, until an HTTP request is answered",
            partial(_publish, bench),
            11,
            0.2,
            after=gone,
        ),
        Measure("start", "docker start", _start_stop(bench, 0), 11, 0.15, after=gone),
        Measure(
            "stop",
            "docker stop, the process ends by itself",
            _start_stop(bench, 1),
            11,
            0.4,
            after=gone,
        ),
        Measure(
            "rm", "docker rm -f of a running container", partial(_rm, bench), 11, 0.2, after=gone
        ),
        Measure("at-once", f"{AT_ONCE} docker run -d at once", partial(_at_once, bench), 5, 0.15),
    ]


def _publish(bench: Bench, engine: Engine) -> float:
    engine.remove("bench-life")
    bench.changes += 1
    port = 18000 + bench.changes % 1000
    words = ("run", "-d", "--name", "bench-life", "-p", f"127.0.0.1:{port}:80")
    began = time.perf_counter()
    engine.docker(*words, bench.tiny, "httpd", "-f", "-p", "80", "-h", "/www")
    wait_until(lambda: _page(port), 10, 0.001)
    return time.perf_counter() - began


def _start_stop(bench: Bench, which: int) -> Sample:
    def sample(engine: Engine) -> float:
        engine.remove("bench-life")
        engine.docker("create", "--name", "bench-life", bench.tiny, "sh", "-c", ENDS_ON_TERM)
        started_s = engine.docker("start", "bench-life")
        # The trap must be set: a signal before it would wait for the grace.
        wait_until(lambda: "ready" in engine.ask("logs", "bench-life"), 10)
        return (started_s, engine.docker("stop", "bench-life"))[which]

    return sample


def _rm(bench: Bench, engine: Engine) -> float:
    engine.remove("bench-life")
    engine.docker("run", "-d", "--name", "bench-life", bench.tiny, "sleep", "100000")
    return engine.remove("bench-life", check=True)


def _at_once(bench: Bench, engine: Engine) -> float:
    names = [f"bench-once-{number}" for number in range(AT_ONCE)]
    words = ("--name", "NAME", bench.tiny, "sleep", "100000")
    lines = [[*engine.cli, "run", "-d", "--name", name, *words[2:]] for name in names]
    began = time.perf_counter()
    running = [
        subprocess.Popen(line, stdout=subprocess.DEVNULL, env=engine.environment) for line in lines
    ]
    codes = [process.wait() for process in running]
    took_s = time.perf_counter() - began
    engine.remove(*names)
    if any(codes):
        raise Broken(f"{engine.name}: one of {AT_ONCE} runs failed")
    return took_s


def _page(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as stream:
            stream.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
            return b" 200 " in stream.recv(64)
    except OSError:
        return False
