"""What a step costs that runs ``true`` in a container, in a daemon of Linkspan: our own steps, and act's.

    sudo .venv/bin/python benchmarks/steps.py [--steps 50] [--rounds 5]

Three pipelines, in turn, less what each of them takes with one step:

- ``run: true``: a container for each step, as the language has it;
- ``uses: exec``: a command in a container that runs already;
- act, a GitHub workflow with as many ``run: true`` through the same daemon: one container for the job, an exec
  for each step, after it has put the step's script into the container as an archive.

Each has the time on the clock, and the CPU time of the daemon with those it waits for, and of the client. Root;
what it makes is in namespaces of its own and gone afterwards. Beside ``script/setup`` (with the tests' programs:
act) it needs busybox-static and Debian's docker client.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import place

ACT = Path(sys.executable).with_name("act")
IMAGE = "bench-steps"
HOLDER = "bench-holder"
LOCAL = ("--artifact-server-addr", "127.0.0.1", "--cache-server-addr", "127.0.0.1")


def make_image(engine: place.Engine, folder: Path) -> None:
    """Busybox, as ``docker import`` takes it."""
    with tarfile.open(folder / "root.tar", "w") as archive:
        archive.add("/bin/busybox", "bin/busybox")
        for name in (
            "bin/sh",
            "bin/true",
            "bin/cat",
            "bin/tail",
            "bin/mkdir",
            "bin/sleep",
            "bin/env",
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
    engine.docker("import", folder / "root.tar", IMAGE)


def ours(step: str, count: int) -> str:
    """A pipeline of so many steps."""
    lines = "".join(f"      - {step}\n" for _ in range(count))
    return f"linkspan: v1\ndefaults: {{image: {IMAGE}}}\njobs:\n  a:\n    steps:\n{lines}"


def own(engine: place.Engine, folder: Path, step: str, count: int) -> list[str]:
    """The command that runs such a pipeline."""
    file = folder / "p.yaml"
    file.write_text(ours(step, count))
    return [place.LINKSPAN, "--host", engine.host, "workflow", "run", str(file)]


def act(engine: place.Engine, folder: Path, step: str, count: int) -> list[str]:
    """The command that runs such a workflow of GitHub's."""
    file = folder / ".github" / "workflows" / "ci.yml"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"      - {step}\n" for _ in range(count))
    head = "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n"
    file.write_text(head + lines)
    words = ["push", "-P", f"ubuntu-latest={IMAGE}", "--pull=false", "--rm", *LOCAL]
    return [str(ACT), *words, "--container-daemon-socket", "-"]


EXEC = f"{{uses: exec, with: {{container: {HOLDER}, command: ['true']}}}}"
WAYS: dict[str, tuple[Callable[..., list[str]], str]] = {
    "`run: true`, a container a step": (own, "{run: 'true'}"),
    "`uses: exec`, a command in a container": (own, EXEC),
    "act, `run: true`": (act, "{run: 'true', shell: sh}"),
}


def ticks(pid: int) -> float:
    """CPU seconds of a process and of those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def once(engine: place.Engine, folder: Path, words: list[str]) -> tuple[float, float, float]:
    """Seconds of one run: on the clock, of the daemon's CPU, of the client's."""
    assert engine.server.process is not None
    pid = engine.server.process.pid
    children = resource.RUSAGE_CHILDREN
    before, daemon, began = resource.getrusage(children), ticks(pid), time.perf_counter()
    env = {**engine.environment, "DOCKER_HOST": engine.host, "HOME": str(folder)}
    done = subprocess.run(
        words, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        raise place.Broken(f"{' '.join(words)}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    took, after = time.perf_counter() - began, resource.getrusage(children)
    client = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took, ticks(pid) - daemon, client


def measure(engine: place.Engine, folder: Path, count: int, rounds: int) -> None:
    """Print a line for each way."""
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in WAYS}
    for number in range(rounds + 1):
        for name, (prepare, step) in WAYS.items():
            one, many = (
                once(engine, folder, prepare(engine, folder, step, size)) for size in (1, count)
            )
            if number:
                found[name].append(
                    tuple((b - a) / (count - 1) * 1000 for a, b in zip(one, many, strict=True))
                )
    for name, samples in found.items():
        wall, daemon, client = (statistics.median(column) for column in zip(*samples, strict=True))
        print(
            f"{name}: {wall:.1f} ms a step, CPU {daemon:.1f} in the daemon, {client:.1f} in the client"
        )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f}")
    place.unshare_mounts()
    place.unshare_network()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        root = Path(name)
        folder = root / "project"
        folder.mkdir()
        subprocess.run(["git", "init", "-q", str(folder)], check=True)
        engine = place.linkspan(root / "linkspan")
        engine.server.start()
        try:
            make_image(engine, root)
            engine.docker("run", "-d", "--name", HOLDER, IMAGE, "sleep", "1000000")
            measure(engine, folder, options.steps, options.rounds)
            engine.remove(HOLDER)
        finally:
            engine.server.stop()
    print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
