"""JSON without the json module: the same values, the same refusals."""

import json
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
