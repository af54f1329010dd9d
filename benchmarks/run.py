"""Measures Linkspan, Debian's docker.io and Podman side by side; see README.md.

benchmarks/run.py                        everything, about twenty minutes
benchmarks/run.py run exec ps            only these measures
benchmarks/run.py --list                 what there is
benchmarks/run.py --do 'docker ps'       a shell command inside, with both daemons running
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import api
import builds
import containers
import daemon
import data
import images
import place
import registries
import report
from measure import Bench, Measure

ROOT = Path(__file__).resolve().parent.parent
TABLE = (containers, registries, builds, data, daemon, api)
ENGINES = {"docker": place.docker, "podman": place.podman, "linkspan": place.linkspan}


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="MEASURE", help="only these (default: all)")
    parser.add_argument("--list", action="store_true", help="say what can be measured")
    parser.add_argument("-n", "--rounds", type=int, help="samples of each engine")
    parser.add_argument("--alone", action="store_true", help="one engine after the other")
    parser.add_argument(
        "--engine", choices=tuple(ENGINES), action="append", help="only this engine; again for more"
    )
    parser.add_argument("--work", type=Path, default=ROOT / ".bench", help="where the disk is")
    parser.add_argument("-o", "--output", type=Path, help="JSON (default: WORK/results.json)")
    parser.add_argument("--do", metavar="COMMAND", help="run this inside instead of measuring")
    given = parser.parse_args()
    work = given.work.resolve() / "disk"
    if given.list:
        nowhere = place.Registry.__new__(place.Registry)
        for measure in _all(Bench("", "", "", nowhere, work)):
            print(f"{measure.name:14} {measure.what}")
        return 0
    place.unshare_mounts()
    place.mount_disk(work)
    images.make_layers(work / "layers")
    place.unshare_network()
    with ExitStack() as stack:
        bench, engines = _open(work, stack, given.engine)
        if given.do:
            hosts = {f"{e.name.upper()}_HOST": e.host for e in engines}
            hosts |= {"TINY": bench.tiny, "APP": bench.app, "MANY": bench.many}
            return subprocess.run(["sh", "-c", given.do], env={**os.environ, **hosts}).returncode
        chosen = [m for m in _all(bench) if not given.names or m.name in given.names]
        unknown = set(given.names) - {m.name for m in chosen}
        if unknown:
            parser.error(f"no such measure: {', '.join(sorted(unknown))}; see --list")
        results = []
        for measure in chosen:
            results.append(_measure(measure, engines, given.rounds, alone=given.alone))
            print(report.table(results[-1:]).splitlines()[-1], flush=True)
    output = given.output or given.work / "results.json"
    document = {"machine": report.machine(), "results": [r.as_json() for r in results]}
    output.write_text(json.dumps(document, indent=1) + "\n")
    print("\n" + json.dumps(document["machine"]) + "\n\n" + report.table(results))
    return int(any(result.failures for result in results))


def _all(bench: Bench) -> list[Measure]:
    return [measure for part in TABLE for measure in part.measures(bench)]


def _open(work: Path, stack: ExitStack, only: list[str] | None) -> tuple[Bench, list[place.Engine]]:
    """Start registries and daemons; they end with the stack."""
    source = place.Registry(5000, work / "registry-source")
    target = place.Registry(5001, work / "registry-target")
    names = only or [name for name in ENGINES if name != "podman" or shutil.which("podman")]
    engines = [ENGINES[name](work / name) for name in names]
    for server in (source.server, target.server, *(engine.server for engine in engines)):
        stack.callback(server.stop)
        server.start()
    references = images.push(work / "layers", source.host)
    for engine in engines:
        engine.docker("pull", "-q", references["tiny"])
    bench = Bench(references["tiny"], references["app"], references["many"], target, work)
    return bench, engines


def _measure(
    measure: Measure, engines: Sequence[place.Engine], rounds: int | None, *, alone: bool
) -> report.Result:
    """Take turns, so that a change of the machine's speed falls on all engines."""
    engines = [engine for engine in engines if engine.name in measure.engines]
    samples: dict[str, list[float]] = {engine.name: [] for engine in engines}
    failures: dict[str, str] = {}
    before = os.getloadavg()[0]
    count = rounds or measure.rounds

    def attempt(engine: place.Engine, number: int) -> None:
        try:
            value = measure.sample(engine)
        except (place.Broken, OSError) as error:
            failures[engine.name] = str(error)
        else:
            if number >= 0:
                samples[engine.name].append(value)

    for engine in engines:
        try:
            measure.before(engine)
        except (place.Broken, OSError) as error:
            failures[engine.name] = str(error)
    numbers = range(-measure.warm_ups, count)
    turns = (
        [(engine, number) for engine in engines for number in numbers]
        if alone
        else [(engine, number) for number in numbers for engine in engines]
    )
    for engine, number in turns:
        if engine.name not in failures:
            attempt(engine, number)
    for engine in engines:
        measure.after(engine)
    for name, failure in failures.items():
        print(f"{measure.name}: {name}: {failure}", file=sys.stderr)
    time.sleep(0.5)
    load = (before, os.getloadavg()[0])
    return report.Result(
        measure.name, measure.what, measure.unit, measure.goal, samples, failures, load
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except place.Broken as error:
        sys.exit(f"benchmarks: {error}")
