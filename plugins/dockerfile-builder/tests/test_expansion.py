"""Variables in words, on vectors computed with BuildKit's lexer."""

import json
from pathlib import Path

import pytest

from linkspan.plugins.dockerfile_builder.expansion import ExpansionError, expand

DATA = json.loads((Path(__file__).parent / "data" / "shell-expansion.json").read_text())
CASES = DATA["cases"]


@pytest.mark.parametrize("case", CASES, ids=[case["word"] for case in CASES])
def test_a_word_expands_as_buildkit_does(case):
    env = DATA["default_env"] if case["env"] == "default" else case["env"]
    escape = case.get("escape", "\\")
    raw = case.get("mode") == "heredoc-body"
    if "error" in case:
        with pytest.raises(ExpansionError) as caught:
            expand(case["word"], env, escape, raw_quotes=raw)
        assert str(caught.value) == case["error"]
        return
    expanded = expand(case["word"], env, escape, raw_quotes=raw)
    assert expanded.text == case["expected"]
    assert sorted(expanded.unset) == case.get("unset", [])
    if "expected_words" in case:
        assert list(expanded.words) == case["expected_words"]


def test_a_value_that_grows_without_end_is_refused():
    with pytest.raises(ExpansionError, match="longer than"):
        expand("$A$A$A", {"A": "x" * 400_000})


def test_deep_nesting_is_refused_in_words():
    with pytest.raises(ExpansionError, match="nested too deeply"):
        expand("${A:-" * 5000, {})
