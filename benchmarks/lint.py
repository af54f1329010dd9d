"""How long pipelines take to be checked: lines, jobs, and the reading of YAML alone beside it.

    python benchmarks/lint.py

Every figure is the best of five, in CPU seconds of this process, so that other load on the machine counts
little. The yardstick is PyYAML's C parser on the same text: nothing that reads YAML can be faster.
"""

import gc
import os
import time
from collections.abc import Callable
from typing import Final

import yaml

from linkspan.workflows.check import check
from linkspan.workflows.commands.reading import installed
from linkspan.workflows.verbs import Verbs

TRIES: Final = 5
LIMIT_S: Final = 0.5
"""For a file of 10,000 lines."""

JOB: Final = """\
  job-{n}:
    needs: [{needs}]
    env:
      LEVEL: "{n}"
    outputs:
      image: ${{{{ steps.image.outputs.id }}}}
    steps:
      - id: image
        uses: build
        with:
          tags: ["app:{n}"]
      - name: test
        if: success() && git.branch == 'main'
        run: |
          echo one
          echo two
        timeout: 10m
        retry: {{max: 2, backoff: 1s}}
        env:
          IMAGE: ${{{{ steps.image.outputs.id }}}}
"""


def usual(jobs: int) -> str:
    """A pipeline of 20 lines a job, each job after the one before."""
    parts = [JOB.format(n=n, needs=f"job-{n - 1}" if n else "") for n in range(jobs)]
    return "linkspan: v1\ndefaults: {image: busybox}\njobs:\n" + "".join(parts)


def chain(jobs: int) -> str:
    """As many jobs as possible: one line each."""
    lines = [
        f"  j{n}: {{needs: [{f'j{n - 1}' if n else ''}], steps: [{{run: x}}]}}\n"
        for n in range(jobs)
    ]
    return "linkspan: v1\ndefaults: {image: busybox}\njobs:\n" + "".join(lines)


def best(work: Callable[[], object]) -> float:
    """CPU seconds of the fastest try."""
    found = []
    for _ in range(TRIES):
        gc.collect()
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def measure(name: str, text: str, jobs: int, verbs: Verbs) -> float:
    """Print a row; the seconds of the check."""
    assert not check(text, "x.yaml", verbs).diagnostics
    seconds = best(lambda: check(text, "x.yaml", verbs))
    alone = best(lambda: yaml.compose(text, Loader=yaml.CSafeLoader))
    lines = text.count("\n")
    print(
        f"{name:<8} {lines:>7} {jobs:>7} {seconds * 1000:>9.0f} ms {seconds / jobs * 1e6:>7.0f} µs"
        f" {alone * 1000:>9.0f} ms {seconds / alone:>6.1f}"
    )
    return seconds


def main() -> None:
    """Measure and print."""
    gc.disable()
    verbs = installed()
    print(f"load {os.getloadavg()[0]:.1f}, best of {TRIES}, CPU time")
    print(
        f"{'':<8} {'lines':>7} {'jobs':>7} {'check':>12} {'a job':>10} {'YAML alone':>12} {'ratio':>6}"
    )
    measure("usual", usual(5), 5, verbs)
    measure("usual", usual(50), 50, verbs)
    seconds = measure("usual", usual(500), 500, verbs)
    measure("chain", chain(1_000), 1_000, verbs)
    measure("chain", chain(10_000), 10_000, verbs)
    verdict = "within" if seconds <= LIMIT_S else "BEYOND"
    print(f"10,000 lines: {verdict} {LIMIT_S:g} s")


if __name__ == "__main__":
    main()
