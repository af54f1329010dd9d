"""Which paths a .dockerignore leaves out, on vectors computed with moby/patternmatcher."""

import json
from pathlib import Path

import pytest

from linkspan.sdk.dockerignore import (
    IgnorePatterns,
    PatternError,
    read_patterns,
)

CASES = json.loads((Path(__file__).parent / "data" / "dockerignore.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_a_dockerignore_decides_as_moby_does(case):
    assert list(read_patterns(case["ignorefile"])) == case["normalized"]
    if "error" in case:
        with pytest.raises(PatternError) as caught:
            IgnorePatterns.parse(case["ignorefile"])
        assert str(caught.value) == case["error"]
        return
    patterns = IgnorePatterns.parse(case["ignorefile"])
    decided = {path: patterns.excludes(path) for path in case["expected"]}
    assert decided == case["expected"]


def test_a_hostile_pattern_does_not_stall():
    patterns = IgnorePatterns.parse("**/".join("a" * 12) + "**b\n")
    # One that tries all ways to match would be at it for years.
    assert not patterns.excludes("/".join("a" * 40) + "c")
