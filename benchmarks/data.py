"""Measures of what moves much data: save, load, commit, cp, logs, attach."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from measure import Bench, Measure, Sample
from place import Broken, Engine

_LINES: Final = 1_000_000
_LINE: Final = "the quick brown fox jumps over the lazy dog 0123456789 abcdef"
_PRINT: Final = ("sh", "-c", f"yes '{_LINE}' | head -n {_LINES}")
_CP_BYTES: Final = 100 << 20
_BOX: Final = "bench-data"


def measures(bench: Bench) -> list[Measure]:
    """In the order of the table."""

    def archive(engine: Engine) -> Path:
        return bench.work / f"saved-{engine.name}.tar"

    def get_app(engine: Engine) -> None:
        engine.docker("pull", "-q", bench.app)

    def save(engine: Engine) -> float:
        archive(engine).unlink(missing_ok=True)
        os.sync()
        return engine.docker("save", "-o", archive(engine), bench.app)

    def saved(engine: Engine) -> None:
        get_app(engine)
        save(engine)

    def load(engine: Engine) -> float:
        engine.docker("rmi", "-f", bench.app, check=False)
        os.sync()
        return engine.docker("load", "-i", archive(engine))

    def no_archive(engine: Engine) -> None:
        archive(engine).unlink(missing_ok=True)

    def box(engine: Engine) -> None:
        engine.docker("run", "-d", "--name", _BOX, bench.tiny, "sleep", "100000")

    def no_box(engine: Engine) -> None:
        engine.remove(_BOX)

    return [
        Measure(
            "save", "docker save of app", save, 3, 0.4, warm_ups=0, before=get_app, after=no_archive
        ),
        Measure(
            "load",
            "docker load of app, no layer there",
            load,
            3,
            0.35,
            warm_ups=0,
            before=saved,
            after=no_archive,
        ),
        Measure(
            "commit",
            "docker commit of a container with 20 MB of its own",
            _commit,
            7,
            0.6,
            before=lambda engine: (box(engine), _fill(engine)),
            after=no_box,
        ),
        Measure(
            "logs-write",
            f"docker run -d and wait: {_LINES} lines",
            _write(bench),
            3,
            0.2,
            after=no_box,
        ),
        Measure(
            "logs-read",
            f"docker logs of {_LINES} lines",
            _read,
            5,
            0.1,
            before=_write(bench),
            after=no_box,
        ),
        Measure(
            "attach",
            f"docker run in the foreground: {_LINES} lines, 60 MB",
            lambda engine: engine.docker("run", "--rm", bench.tiny, *_PRINT),
            3,
            0.35,
        ),
        *_copies(bench, box, no_box),
    ]


def _fill(engine: Engine) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do head -c 2000000 /dev/urandom > /tmp/f$i; done"
    engine.docker("exec", _BOX, "sh", "-c", script)


def _commit(engine: Engine) -> float:
    os.sync()
    took_s = engine.docker("commit", _BOX, "bench-commit")
    engine.docker("rmi", "-f", "bench-commit", check=False)
    return took_s


def _write(bench: Bench) -> Sample:
    def sample(engine: Engine) -> float:
        engine.remove(_BOX)
        began = time.perf_counter()
        engine.docker("run", "-d", "--name", _BOX, bench.tiny, *_PRINT)
        engine.docker("wait", _BOX)
        return time.perf_counter() - began

    return sample


def _read(engine: Engine) -> float:
    """Whoever reads the logs counts them: a reader that is slow would be what is measured."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [*engine.cli, "logs", _BOX],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=engine.environment,
    )
    assert process.stdout is not None
    count = 0
    while piece := os.read(process.stdout.fileno(), 1 << 20):
        count += piece.count(b"\n")
    process.wait()
    took_s = time.perf_counter() - began
    if count != _LINES:
        raise Broken(f"{engine.name}: logs has {count} lines of {_LINES}")
    return took_s


def _copies(
    bench: Bench, box: Callable[[Engine], None], no_box: Callable[[Engine], None]
) -> list[Measure]:
    def source() -> Path:
        path = bench.work / "copied"
        if not path.exists() or path.stat().st_size != _CP_BYTES:
            path.write_bytes(os.urandom(_CP_BYTES))
        return path

    def copy_in(engine: Engine) -> float:
        engine.docker("exec", _BOX, "rm", "-f", "/tmp/copied")
        return engine.docker("cp", source(), f"{_BOX}:/tmp/copied")

    def copy_out(engine: Engine) -> float:
        target = bench.work / "copied-out"
        target.unlink(missing_ok=True)
        took_s = engine.docker("cp", f"{_BOX}:/tmp/copied", target)
        if target.stat().st_size != _CP_BYTES:
            raise Broken(f"{engine.name}: cp gave {target.stat().st_size} bytes")
        return took_s

    def filled(engine: Engine) -> None:
        box(engine)
        copy_in(engine)

    return [
        Measure(
            "cp-in",
            "docker cp of 100 MB into a container",
            copy_in,
            7,
            0.8,
            before=box,
            after=no_box,
        ),
        Measure(
            "cp-out", "docker cp of 100 MB out of it", copy_out, 7, 0.6, before=filled, after=no_box
        ),
    ]
