"""Measures of builds: cold, with nothing changed, and with the last file changed."""

import os
import random
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from measure import BOTH, Bench, Measure, Sample
from place import Engine

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


def measures(bench: Bench) -> list[Measure]:
    """In the order of the table."""
    found = []
    for kind, words, build in (
        ("build", "BuildKit against linkspan build", _own_build),
        ("stock", "BuildKit against docker build, DOCKER_BUILDKIT=0", _stock_build),
        ("buildkit", "docker build, DOCKER_BUILDKIT=1, against both", _buildkit_build),
        ("classic", "docker build, DOCKER_BUILDKIT=0, against both", _classic_build),
    ):
        for name, what, sample, rounds in (
            ("cold", "without cache", _cold(bench, build), 3),
            ("cached", "nothing changed", _cached(bench, build), 9),
            ("late", "the last COPY changed", _late(bench, build), 5),
        ):
            goal = 1.0 if kind == "classic" else {"cold": 0.7}.get(name, 0.6)
            found.append(
                Measure(
                    f"{kind}-{name}",
                    f"{what}: {words}",
                    sample,
                    rounds,
                    goal,
                    before=partial(_context, bench),
                    after=partial(_no_context, bench),
                    engines=Measure.engines if kind == "build" else BOTH,
                )
            )
    return found


def _folder(bench: Bench) -> Path:
    return bench.work / "context"


def _context(bench: Bench, engine: Engine) -> None:
    """2,000 files, 12 MB, and a Dockerfile of eight steps."""
    engine.docker("pull", "-q", bench.app)
    if _folder(bench).exists():
        return
    chance = random.Random(7)
    for number in range(_CONTEXT_FILES):
        path = _folder(bench) / f"src/d{number % 40}/f{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(chance.randbytes(chance.randint(200, 6000)).hex())
    (_folder(bench) / "Dockerfile").write_text(_DOCKERFILE.format(base=bench.app))
    (_folder(bench) / "late.txt").write_text("0\n")


def _no_context(bench: Bench, engine: Engine) -> None:
    shutil.rmtree(_folder(bench), ignore_errors=True)
    engine.docker("rmi", "-f", "bench-build", check=False)
    engine.docker("builder", "prune", "-af", check=False)
    engine.docker("image", "prune", "-f", check=False)


def _change(bench: Bench) -> None:
    bench.changes += 1
    (_folder(bench) / "late.txt").write_text(f"{time.time_ns()} {bench.changes}\n")


def _cold(bench: Bench, build: Callable[..., float]) -> Sample:
    def sample(engine: Engine) -> float:
        _change(bench)
        os.sync()
        return build(engine, _folder(bench), "--no-cache")

    return sample


def _cached(bench: Bench, build: Callable[..., float]) -> Sample:
    return lambda engine: build(engine, _folder(bench))


def _late(bench: Bench, build: Callable[..., float]) -> Sample:
    def sample(engine: Engine) -> float:
        _change(bench)
        return build(engine, _folder(bench))

    return sample


def _own_build(engine: Engine, folder: Path, *flags: str) -> float:
    command, more = engine.build
    return engine.run([*command, "-t", "bench-build", *flags, str(folder)], more=more)


def _classic_build(engine: Engine, folder: Path, *flags: str) -> float:
    command = [*engine.cli, "build", "-t", "bench-build", *flags, str(folder)]
    return engine.run(command, more={"DOCKER_BUILDKIT": "0"})


def _buildkit_build(engine: Engine, folder: Path, *flags: str) -> float:
    """One client, Debian's own, and BuildKit's protocol to both."""
    command = ["/usr/bin/docker", "-H", engine.host, "build", "-t", "bench-build", *flags]
    return engine.run([*command, str(folder)], more={"DOCKER_BUILDKIT": "1"})


def _stock_build(engine: Engine, folder: Path, *flags: str) -> float:
    """Each through docker's own client: BuildKit where the daemon has it."""
    build = _own_build if engine.name == "docker" else _classic_build
    return build(engine, folder, *flags)
