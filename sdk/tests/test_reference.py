"""The reference grammar against 200 cases computed with the reference implementation."""

import json
from pathlib import Path
from typing import Any

import pytest

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.reference import is_host, parse_reference

CASES = json.loads((Path(__file__).parent / "data/reference-parsing.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["input"][:40] or "empty")
def test_a_reference_parses_as_docker_parses_it(case: dict[str, Any]) -> None:
    if not case["valid"]:
        with pytest.raises(InvalidArgument):
            parse_reference(case["input"])
        return
    found = parse_reference(case["input"])
    assert found.domain == case["domain"]
    assert found.path == case["path"]
    assert found.tag == (case["tag"] or "")
    assert found.digest == (case["digest"] or "")
    assert found.familiar == case["familiar"]
    assert str(found) == case["canonical"]
    assert str(found.with_default_tag()) == case["with_default_tag"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("registry.test", True),
        ("localhost:5000", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("127.0.0.1:5000", True),
        ("[:::]:5000", False),
        ("[::1]:65536", False),
        ("300.1.1.1", False),
        ("registry.test:65536", False),
        ("::", False),
        ("..", False),
        ("a" * 64 + ".test", False),
        ("a." * 127 + "test", False),
        ("", False),
        ("a\nb", False),
    ],
)
def test_hosts_of_registries(text: str, answer: bool) -> None:
    assert is_host(text) is answer
