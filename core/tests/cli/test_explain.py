"""Every error can be explained, offline."""

import json
from typing import Any

import pytest

from linkspan.core.cli.explain import explanations
from linkspan.sdk.diagnostic_ids import IDS


def test_every_id_has_an_explanation_and_nothing_else_has() -> None:
    found = explanations()
    assert list(found) == list(IDS)
    assert all(len(text) > 60 for text in found.values())


@pytest.mark.parametrize("written", ["LS1202", "ls1202", "1202"])
def test_an_error_is_explained_with_example_and_mending(linkspan: Any, written: str) -> None:
    done = linkspan("explain", written)
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0] == "LS1202: text around an expression that must stand alone"
    assert "    if: ${{ git.branch == 'main' }} && success()" in lines
    assert "`if` is an expression already: `if: git.branch == 'main' && success()`" in done.out
    assert "```" not in done.out


def test_without_an_id_all_are_listed(linkspan: Any) -> None:
    assert len(linkspan("explain").out.splitlines()) == len(IDS) + 1
    listed = json.loads(linkspan("explain", "--format", "json").out)
    assert [row["id"] for row in listed] == list(IDS)


def test_a_wrong_id_is_answered_with_its_family(linkspan: Any) -> None:
    done = linkspan("explain", "LS1599")
    assert done.status == 2
    assert "there is no error 'LS1599'" in done.err
    assert "LS1501, LS1502" in done.err
    assert "lists all" in linkspan("explain", "nonsense").err
