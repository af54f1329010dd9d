"""JSON without the json module: the same values, the same refusals."""

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, strategies as st

from linkspan.core.client import quick_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(value=VALUES)
def test_what_json_writes_is_read_as_json_reads_it(value: Any) -> None:
    body = f" {json.dumps(value)}\n".encode()
    assert quick_json.loads(body) == json.loads(body) == value


@pytest.mark.parametrize(
    "body", [b"", b" ", b"{", b"[1,]", b'{"a" 1}', b"1 2", b"\xff", b'"\x01"', b"nul", b"<html>"]
)
def test_what_is_no_json_is_refused_as_json_refuses_it(body: bytes) -> None:
    with pytest.raises(ValueError) as ours:
        quick_json.loads(body)
    with pytest.raises(ValueError) as theirs:
        json.loads(body)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize(
    "body", ['{"a": 1}'.encode("utf-16"), b"\xef\xbb\xbf1", b"NaN", b"-Infinity"]
)
def test_rare_documents_are_read_as_json_reads_them(body: bytes) -> None:
    try:
        wanted = repr(json.loads(body))
    except ValueError as exc:
        wanted = str(exc)
    try:
        found = repr(quick_json.loads(body))
    except ValueError as exc:
        found = str(exc)
    assert found == wanted


@given(value=VALUES.filter(lambda value: isinstance(value, dict | list)))
def test_documents_are_written_as_json_writes_them(value: Any) -> None:
    assert quick_json.dumps(value) == json.dumps(value)


@pytest.mark.parametrize("value", [1, "a", None, {"a": float("nan")}, {1: 2}, [], {}])
def test_rare_values_are_written_as_json_writes_them(value: Any) -> None:
    assert quick_json.dumps(value) == json.dumps(value)


def test_what_json_has_no_words_for_is_refused() -> None:
    with pytest.raises(TypeError, match="bytes is not JSON serializable"):
        quick_json.dumps({"a": b"b"})


@given(first=VALUES, second=VALUES)
def test_the_first_of_two_documents_is_taken(first: Any, second: Any) -> None:
    text = json.dumps(first)
    assert quick_json.first(f"{text} {json.dumps(second)}") == (first, len(text))


@pytest.mark.parametrize("text", ["", "{", '{"a": ', "nul", '"open', "[1, 2"])
def test_half_a_document_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        quick_json.first(text)


def test_half_a_document_is_none_in_a_program_that_has_not_imported_json() -> None:
    script = """
import sys
from linkspan.core.client import quick_json
for read in (quick_json.first, quick_json.loads):
    for text in sys.argv[1:]:
        assert "json" not in sys.modules
        try:
            read(text)
        except ValueError:
            for name in [name for name in sys.modules if name.partition(".")[0] == "json"]:
                del sys.modules[name]
        else:
            raise SystemExit(f"{text} was read")
"""
    texts = ["", "{", '{"a"', '{"a": ', '{"a": 1', "{bad", "nul", '"open', "[1,", "-"]
    done = subprocess.run(
        [sys.executable, "-c", script, *texts],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
