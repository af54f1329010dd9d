"""Parameters of the Engine API that we do not look at are listed in the docs, with the reason."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from daemon_harness.api_parameters import Code, asked_for
from daemon_harness.specification import Specification

from linkspan.plugins.docker_api.plugin import ROUTES

DOCS = Path(__file__).parents[2] / "docs/reference/http-api.md"
ROW = re.compile(r"\| `(?P<routes>[^|]+)` \| `(?P<names>[^|]+)` \| (?P<reason>[^|]+) \|")


def unread() -> list[tuple[str, str]]:
    """Operation and parameter, of all that no handler reads."""
    specification, code = Specification(), Code()
    found = []
    for place, routes in ROUTES.items():
        module, _, owner = place.partition(":")
        for route, method in routes.items():
            operation = route.replace(":path", "")
            known = specification.operations.get(operation)
            if known is None:
                # The name of a link has a slash, which the specification does not say, and of BuildKit's
                # part in it only half is there.
                assert (
                    "/linkspan/" in operation
                    or operation.endswith("/{alias}")
                    or operation in ("POST /build/cancel", "POST /grpc")
                ), operation
                continue
            read = code.read_by(module, owner, method)
            found += [
                (operation, parameter)
                for parameter, name in asked_for(known, specification.definitions).items()
                if name.lower() not in read
            ]
    return found


@pytest.fixture(scope="module")
def rows() -> list[tuple[list[str], list[str]]]:
    text = DOCS.read_text().partition("## What is not looked at")[2].partition("\n## ")[0]
    return [
        (match["routes"].split("` `"), match["names"].split("` `"))
        for match in ROW.finditer(text)
        if match["reason"].strip()
    ]


def test_what_is_not_looked_at_is_listed_with_a_reason(
    rows: list[tuple[list[str], list[str]]],
) -> None:
    listed = [(r, n) for routes, names in rows for r in routes for n in names]
    assert listed
    missing = [
        f"{operation}: {parameter}"
        for operation, parameter in unread()
        if not any(fnmatchcase(operation, r) and is_like(parameter, n) for r, n in listed)
    ]
    assert missing == []


def is_like(parameter: str, pattern: str) -> bool:
    # Brackets are part of names here, not of the pattern.
    return fnmatchcase(parameter.replace("[]", ""), pattern.replace("[]", ""))
