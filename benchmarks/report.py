"""Results as a table: medians, least and greatest, and the ratio to Docker."""

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Samples = Mapping[str, Sequence[float]]


@dataclass
class Result:
    """One measure's samples by engine, or why there are none.

    Attributes:
        load: The machine's load average over a minute, before and after.
    """

    name: str
    what: str
    unit: str
    goal: float | None
    samples: Samples
    failures: Mapping[str, str]
    load: tuple[float, float]

    @property
    def ratio(self) -> float | None:
        """Linkspan's median by Docker's."""
        ours, theirs = self.samples.get("linkspan"), self.samples.get("docker")
        if not ours or not theirs:
            return None
        return statistics.median(ours) / statistics.median(theirs)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "ratio": self.ratio}


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if line
    )
    cpus = Path("/proc/cpuinfo").read_text().split("model name\t: ", 1)
    return {
        "cpus": os.cpu_count(),
        "cpu": cpus[1].split("\n", 1)[0] if len(cpus) > 1 else platform.machine(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "kernel": platform.release(),
        "system": release.get("PRETTY_NAME", "").strip('"'),
        "python": platform.python_version(),
    }


def table(results: Sequence[Result]) -> str:
    """Markdown."""
    lines = [
        "| measure | Docker | Podman | Linkspan | ratio | goal | load |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        cells = [_cell(result, engine) for engine in ("docker", "podman", "linkspan")]
        ratio = "" if result.ratio is None else f"**{result.ratio:.2f}**"
        sign = "≥" if result.unit == "/s" else "≤"
        goal = "" if result.goal is None else f"{sign} {result.goal:g}{_missed(result)}"
        load = f"{result.load[0]:.1f}–{result.load[1]:.1f}"
        lines.append(f"| {result.name} | {' | '.join(cells)} | {ratio} | {goal} | {load} |")
    return "\n".join(lines)


def _missed(result: Result) -> str:
    """Rounded as the table shows it: 0.174 has reached 0.17."""
    if result.ratio is None or result.goal is None:
        return ""
    shown = round(result.ratio, 2)
    missed = shown < result.goal if result.unit == "/s" else shown > result.goal
    return " missed" if missed else ""


def _cell(result: Result, engine: str) -> str:
    if engine in result.failures:
        return f"failed: {result.failures[engine][:80]}"
    values = result.samples.get(engine)
    if not values:
        return ""
    shown = _number(statistics.median(values), result.unit)
    if len(values) == 1:
        return shown
    low, high = (_number(value, result.unit) for value in (min(values), max(values)))
    return f"{shown} ({low}–{high}, n={len(values)})"


def _number(value: float, unit: str) -> str:
    if unit == "/s":
        return f"{value:.0f}/s"
    if unit != "s":
        return f"{value:.1f} {unit}"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"
