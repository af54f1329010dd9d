"""What became of scenarios: lines for people, a document for programs, JUnit for tools."""

from collections.abc import Iterator, Sequence
from typing import Any
from xml.sax.saxutils import escape

import attrs

from linkspan.workflows.junit import attribute, fit
from linkspan.workflows.scenarios.judging import Mismatch
from linkspan.workflows.scenarios.model import ScenarioFile
from linkspan.workflows.scenarios.playing import Played

Results = Sequence[tuple[ScenarioFile, Sequence[Played]]]


def _place(file: ScenarioFile, mismatch: Mismatch) -> str:
    return f"{file.file}:{mismatch.span.line}:{mismatch.span.column}"


def failures(file: ScenarioFile, played: Played) -> Iterator[str]:
    """Lines that say what was expected, what happened, and why."""
    told: set[str] = set()
    for each in played.mismatches:
        yield f"{_place(file, each)}: {each.what}"
        yield f"  expected: {each.expected}"
        yield f"  happened: {each.found}"
        for line in each.why:
            # One reason often explains several mismatches.
            if line not in told:
                told.add(line)
                yield f"  because: {line}"


def as_document(results: Results) -> list[dict[str, Any]]:
    """A record for each scenario."""
    return [
        {
            "file": file.file,
            "pipeline": str(file.pipeline),
            "name": each.scenario.name,
            "line": each.scenario.span.line,
            "passed": not each.mismatches,
            "duration_s": round(each.seconds, 6),
            "mismatches": [
                {**attrs.asdict(m), "why": list(m.why), "place": _place(file, m)}
                for m in each.mismatches
            ],
        }
        for file, played in results
        for each in played
    ]


def junit(results: Results) -> str:
    """A suite for each file, a case for each scenario."""
    body = "\n".join(_suite(file, played) for file, played in results)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n{body}\n</testsuites>\n'


def _suite(file: ScenarioFile, played: Sequence[Played]) -> str:
    failed = sum(bool(each.mismatches) for each in played)
    took = sum(each.seconds for each in played)
    head = (
        f'  <testsuite name={attribute(file.file)} tests="{len(played)}" failures="{failed}"'
        f' errors="0" skipped="0" time="{took:.3f}">'
    )
    return "\n".join((head, *(_case(file, each) for each in played), "  </testsuite>"))


def _case(file: ScenarioFile, played: Played) -> str:
    head = (
        f"    <testcase classname={attribute(file.file)} name={attribute(played.scenario.name)}"
        f' time="{played.seconds:.3f}"'
    )
    if not played.mismatches:
        return f"{head}/>"
    first = played.mismatches[0]
    message = f"{first.what}: expected {first.expected}, happened {first.found}"
    text = fit("\n".join(failures(file, played)))
    return f"{head}><failure message={attribute(message)}>{escape(text)}</failure></testcase>"
